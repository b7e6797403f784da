"""What happens after a hop failed: the next packets take the other one, and come back without flapping."""

from typing import TYPE_CHECKING

import pytest

from isthmus.connector.routing.rests import REST_MS_FIRST
from isthmus.connector.routing.terms import RouteTerms
from isthmus.ilp.ccp import Route, RouteUpdate, encode_response, encode_update
from isthmus.ilp.packet import Prepare, Reject, decode, encode_prepare, encode_reject

if TYPE_CHECKING:
    from isthmus.connector.events import Outbound
    from tests.connector.routing.conftest import Net, Spoken

FAR = 10**14
CONDITION = bytes(32)


class Crossing:
    """The node `me` between a sender and two hops, which both reach `test.x`; all three are played."""

    def __init__(self, net: "Net", spoken: "Spoken") -> None:
        self.net = net
        net.add("me", spoken("bob"), spoken("carl"), spoken("sam", routes=RouteTerms()))
        for name in ("bob", "carl", "sam"):
            net.link("me", name)
        net.run(1)
        for name in ("bob", "carl"):
            for frame in net.taken("me", name):
                net.answer(name, "me", frame, encode_response())
            self.announce(name, 0, "test.x", "test.x.y")
        net.run(500)

    def announce(self, name: str, epoch: int, *prefixes: str) -> None:
        speaker = f"test.{name}"
        routes = tuple(Route(prefix, (speaker,), bytes(32), ()) for prefix in prefixes)
        table = name.encode().ljust(16)
        update = RouteUpdate(table, epoch + 1, epoch, epoch + 1, 45_000, speaker, routes, ())
        self.net.play(name, "me", encode_update(update, FAR))

    def pay(self, to: str = "test.x.z") -> tuple[str, "Outbound"]:
        """Sam sends a packet; gives the hop that it went to."""
        now = self.net.now()
        self.net.play("sam", "me", encode_prepare(Prepare(5, now.wall_ms + 20_000, CONDITION, to, b"")))
        for name in ("bob", "carl"):
            for frame in self.net.taken("me", name):
                packet = decode(frame.packet)
                if isinstance(packet, Prepare) and packet.destination == to:
                    return name, frame
        raise AssertionError("it went nowhere")

    def fail(self, code: str = "T01", by: str = "test.bob", to: str = "test.x.z") -> None:
        name, frame = self.pay(to)
        assert name == "bob"
        self.net.answer("bob", "me", frame, encode_reject(Reject(code, by, "gone", b"")))
        self.net.run(150)


@pytest.fixture
def crossing(net: "Net", make_spoken: "Spoken") -> Crossing:
    return Crossing(net, make_spoken)


@pytest.mark.parametrize("code", ["T00", "T01", "F02"])
def test_after_a_hop_failed_the_next_packets_take_the_other(crossing: Crossing, code: str) -> None:
    """ILP-20, CCP-18."""
    crossing.fail(code)
    assert crossing.pay()[0] == "carl"
    crossing.net.run(REST_MS_FIRST - 400)
    assert crossing.pay()[0] == "carl"
    crossing.net.run(600)
    assert crossing.pay()[0] == "bob"


def test_a_hop_that_fails_again_rests_longer(crossing: Crossing) -> None:
    crossing.fail()
    crossing.net.run(REST_MS_FIRST + 100)
    crossing.fail()
    crossing.net.run(REST_MS_FIRST + 100)
    assert crossing.pay()[0] == "carl"
    crossing.net.run(REST_MS_FIRST)
    assert crossing.pay()[0] == "bob"


@pytest.mark.parametrize("code", ["F06", "T04", "R01", "T05", "F99"])
def test_what_is_no_failure_of_the_hop_changes_nothing(crossing: Crossing, code: str) -> None:
    crossing.fail(code)
    assert crossing.pay()[0] == "bob"


def test_a_packet_that_reached_its_home_shows_a_good_way(crossing: Crossing) -> None:
    """A receiver that is away is nobody's fault on the way."""
    crossing.fail("T01", by="test.x")
    crossing.fail("F02", by="test.x.z")
    assert crossing.pay()[0] == "bob"


def test_silence_is_a_failure_too(crossing: Crossing) -> None:
    assert crossing.pay()[0] == "bob"
    crossing.net.run(20_000)
    assert crossing.pay()[0] == "carl"


def test_only_the_prefix_that_failed_rests(crossing: Crossing) -> None:
    crossing.fail(to="test.x.y.z")
    assert crossing.pay("test.x.y.z")[0] == "carl"
    assert crossing.pay("test.x.z")[0] == "bob"


def test_without_another_hop_there_is_no_rest(crossing: Crossing) -> None:
    crossing.net.cut("me", "carl")
    crossing.net.run(300)
    crossing.fail()
    assert crossing.pay()[0] == "bob"


def test_a_route_told_anew_does_not_end_the_rest(crossing: Crossing) -> None:
    crossing.fail()
    update = Route("test.x", ("test.bob", "test.x"), bytes(32), ())
    packet = encode_update(RouteUpdate(b"bob".ljust(16), 2, 1, 2, 45_000, "test.bob", (update,), ()), FAR)
    crossing.net.play("bob", "me", packet)
    crossing.net.run(300)
    assert crossing.pay()[0] == "carl"


def test_while_all_rest_the_better_one_is_used(crossing: Crossing) -> None:
    crossing.fail()
    name, frame = crossing.pay()
    assert name == "carl"
    crossing.net.answer("carl", "me", frame, encode_reject(Reject("T01", "test.carl", "gone", b"")))
    crossing.net.run(150)
    assert crossing.pay()[0] == "bob"
