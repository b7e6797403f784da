"""A neighbour that tells a million routes: the first hundred thousand are kept, and nothing grows with the rest."""

import tracemalloc
from typing import TYPE_CHECKING

import pytest

from isthmus.connector.routing.router import UPDATES_PER_SECOND
from isthmus.connector.routing.terms import RECEIVED_MAX, RouteTerms
from isthmus.ilp.ccp import Route, RouteUpdate, encode_response, encode_update
from isthmus.ilp.packet import Fulfill, decode

if TYPE_CHECKING:
    from tests.connector.routing.conftest import Net, Spoken

FAR = 10**14
FLOOD = 1_000_000
EACH = 625  # routes that an update has room for
UPDATES = FLOOD // EACH
WARM = 20  # updates before them, after which all that decoders remember of names is traced too
TRACED = 100  # of the last updates
RECEIVES = RouteTerms(receive=True)
STEP_MS = 1_000 // UPDATES_PER_SECOND


class Neighbour:
    """One that is played."""

    def __init__(self, net: "Net", name: str) -> None:
        self.net = net
        self.name = name
        self.epoch = 0

    def tells(self, *prefixes: str) -> None:
        """An update, which must be taken."""
        routes = tuple(Route(prefix, (), bytes(32), ()) for prefix in prefixes)
        end = self.epoch + 1
        told = RouteUpdate(self.name.encode().ljust(16), end, self.epoch, end, 600_000, f"test.{self.name}", routes, ())
        self.epoch = end
        request_id = self.net.play(self.name, "me", encode_update(told, FAR))
        self.net.run(STEP_MS)
        replies = []
        for frame in self.net.taken("me", self.name):
            if frame.packet[0] == 12:
                self.net.answer(self.name, "me", frame, encode_response())  # it is asked for routes
            elif frame.request_id == request_id:
                replies.append(decode(frame.packet))
        assert len(replies) == 1 and isinstance(replies[0], Fulfill)


@pytest.mark.slow
def test_a_million_routes_cost_no_more_than_a_hundred_thousand(net: "Net", make_spoken: "Spoken") -> None:
    """CCP-11: each update is taken, as fast as updates may come; one line in the log; others' routes as ever."""
    net.add("me", make_spoken("bad", routes=RECEIVES), make_spoken("good", routes=RECEIVES))
    for name in ("bad", "good"):
        net.link("me", name)
    net.run(1)
    bad, good = Neighbour(net, "bad"), Neighbour(net, "good")
    good.tells("test.good")
    router = net.kernels["me"].switch.router
    before = 0
    for number in range(UPDATES):
        if number == UPDATES - TRACED - WARM:
            tracemalloc.start()
        elif number == UPDATES - TRACED:
            before, _ = tracemalloc.get_traced_memory()
        bad.tells(*[f"test.x{number:04}{at:03}" for at in range(EACH)])
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert after - before < TRACED * EACH, "not a byte for each"
    assert router.rib.count == RECEIVED_MAX + 1 == len(net.table("me"))
    assert router.neighbours["bad"].listener.refusals == {"too many routes of the peer": FLOOD - RECEIVED_MAX}  # type: ignore[index]
    assert len(net.events("me", "routes_bounded")) == 1
    assert (net.hop("me", "test.x0000000"), net.hop("me", f"test.x{UPDATES - 1:04}000")) == ("bad", None)

    good.tells("test.x9", "test.good.more")
    net.run(1_000)
    assert (net.hop("me", "test.x9"), net.hop("me", "test.good.more.y")) == ("good", "good")
    net.cut("me", "bad")
    assert net.hop("me", "test.x0000000") is None
    net.run(10_000)
    assert router.rib.count == 3 == len(net.table("me"))
