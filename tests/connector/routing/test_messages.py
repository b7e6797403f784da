"""One node, and a neighbour played by the test: what is asked, told, refused, repeated, forgotten."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from isthmus.connector.events import AccountId, Undelivered
from isthmus.connector.routing.listener import HOLD_DOWN_MS_MAX, HOLD_DOWN_MS_MIN
from isthmus.connector.routing.speaker import CHANGES_PER_UPDATE_MAX, HEARTBEAT_MS, UPDATE_EVERY_MS_MIN
from isthmus.connector.routing.terms import RouteTerms
from isthmus.ilp.ccp import (
    CONTROL_DESTINATION,
    IDLE,
    NO_ROUTING_TABLE,
    SYNC,
    UPDATE_DESTINATION,
    Route,
    RouteControl,
    RouteProp,
    RouteUpdate,
    decode_control,
    decode_update,
    encode_control,
    encode_response,
    encode_update,
)
from isthmus.ilp.ildcp import PEER_CONDITION, PEER_FULFILLMENT
from isthmus.ilp.packet import PREPARE, Fulfill, Prepare, Reject, decode, decode_prepare, encode_prepare, encode_reject

if TYPE_CHECKING:
    from tests.connector.routing.conftest import Net, Spoken

TABLE = b"bob's first table"[:16]
OTHER = b"another table id"
FAR = 10**14  # an expiry, wall ms


def route(prefix: str, *path: str, **more: Any) -> Route:
    return replace(Route(prefix, path or ("test.bob",), bytes(32), ()), **more)


def update(*routes: Route, epochs: tuple[int, int] = (0, 1), **more: Any) -> bytes:
    first, end = epochs
    fields: dict[str, Any] = {
        "routing_table_id": TABLE,
        "current_epoch": end,
        "from_epoch": first,
        "to_epoch": end,
        "hold_down_ms": 45_000,
        "speaker": "test.bob",
        "new_routes": routes,
        "withdrawn": (),
    }
    return encode_update(RouteUpdate(**{**fields, **more}), FAR)


class Bob:
    """A peer of the node `me`, played by hand."""

    def __init__(self, net: "Net") -> None:
        self.net = net

    def says(self, packet: bytes) -> Fulfill | Reject:
        """Send a request, and give its answer."""
        request_id = self.net.play("bob", "me", packet)
        self.net.run(1)
        kept = []
        answer = None
        for frame in self.net.taken("me", "bob"):
            if frame.packet[0] != 12 and frame.request_id == request_id:
                answer = decode(frame.packet)
            else:
                kept.append(frame)
        self.net.frames[("me", "bob")] = kept
        assert isinstance(answer, Fulfill | Reject)
        return answer

    def hears(self, destination: str) -> list[tuple[Callable[[bytes], None], Prepare]]:
        """The node's requests of this kind since the last time, and how to answer each."""
        found: list[tuple[Callable[[bytes], None], Prepare]] = []
        for frame in self.net.taken("me", "bob"):
            prepare = decode(frame.packet)
            if isinstance(prepare, Prepare) and prepare.destination == destination:
                found.append((partial(self.net.answer, "bob", "me", frame), prepare))
        return found

    def controls(self, *, answer: bytes | None = None) -> list[RouteControl]:
        found = self.hears(CONTROL_DESTINATION)
        for reply, _ in found:
            if answer is not None:
                reply(answer)
        return [decode_control(prepare.data) for _, prepare in found]

    def updates(self, *, answer: bytes | None = None) -> list[RouteUpdate]:
        found = self.hears(UPDATE_DESTINATION)
        for reply, _ in found:
            if answer is not None:
                reply(answer)
        return [decode_update(prepare.data) for _, prepare in found]

    def asks(self, table_id: bytes = NO_ROUTING_TABLE, epoch: int = 0, mode: int = SYNC) -> Fulfill | Reject:
        return self.says(encode_control(RouteControl(mode, table_id, epoch, ()), FAR))


OK = encode_response()
NO = encode_reject(Reject("F00", "test.bob", "no", b""))


@pytest.fixture
def bob(net: "Net", make_spoken: "Spoken") -> Bob:
    """The node has asked, and Bob has said that he will tell."""
    net.add("me", make_spoken("bob"))
    net.link("me", "bob")
    bob = Bob(net)
    net.run(1)
    bob.controls(answer=OK)
    return bob


# --- requests ---------------------------------------------------------------------------------------------------------


def test_the_node_asks_when_the_link_is_up(net: "Net", make_spoken: "Spoken") -> None:
    """CCP-1, CCP-2, CCP-20, PEER-1, PEER-3: with zeros, as it knows nothing."""
    net.add("me", make_spoken("bob"))
    net.link("me", "bob")
    net.run(1)
    [(_, prepare)] = Bob(net).hears(CONTROL_DESTINATION)
    assert (prepare.amount, prepare.condition) == (0, PEER_CONDITION)
    assert decode_control(prepare.data) == RouteControl(SYNC, NO_ROUTING_TABLE, 0, ())


def test_an_update_is_answered_with_an_empty_fulfill(bob: Bob) -> None:
    """CCP-1, CCP-10."""
    assert bob.says(update(route("test.bob"))) == Fulfill(PEER_FULFILLMENT, b"")
    bob.net.run(300)
    assert bob.net.table("me") == {"test.bob": "bob"}


@pytest.mark.parametrize(
    "changes",
    [{"amount": 1}, {"condition": bytes(32)}, {"expires_at": 5}],
    ids=["amount", "condition", "old"],
)
def test_an_unsound_message_is_refused(bob: Bob, changes: dict[str, Any]) -> None:
    """PEER-2, CCP-6."""
    for packet in (update(route("test.bob")), encode_control(RouteControl(SYNC, NO_ROUTING_TABLE, 0, ()), FAR)):
        answer = bob.says(encode_prepare(replace(decode_prepare(packet), **changes)))
        assert isinstance(answer, Reject)
        assert answer.code == "F00"


@pytest.mark.parametrize("destination", [CONTROL_DESTINATION, UPDATE_DESTINATION])
def test_what_does_not_parse_is_refused(bob: Bob, destination: str) -> None:
    """CCP-6: another mode, too few bytes."""
    for data in (b"", b"\x02" + bytes(22), b"\x01"):
        answer = bob.says(encode_prepare(Prepare(0, FAR, PEER_CONDITION, destination, data)))
        assert isinstance(answer, Reject)
        assert answer.code == "F00"


def test_accounts_not_enabled_are_refused(net: "Net", make_spoken: "Spoken") -> None:
    """CCP-12."""
    net.add("me", make_spoken("bob", routes=RouteTerms()))
    net.link("me", "bob")
    bob = Bob(net)
    for answer in (bob.asks(), bob.says(update(route("test.bob")))):
        assert isinstance(answer, Reject)
        assert answer.code == "F00"
    net.run(100_000)
    assert bob.controls() == []
    assert net.table("me") == {}


def test_each_way_is_enabled_apart(net: "Net", make_spoken: "Spoken") -> None:
    """CCP-12, X-10."""
    net.add("me", make_spoken("bob", routes=RouteTerms(send=True)))
    net.link("me", "bob")
    bob = Bob(net)
    assert isinstance(bob.asks(), Fulfill)
    assert isinstance(bob.says(update(route("test.bob"))), Reject)
    assert bob.controls() == []


# --- listening --------------------------------------------------------------------------------------------------------


def test_another_table_id_drops_what_came_under_the_first(bob: Bob) -> None:
    """CCP-8."""
    bob.says(update(route("test.bob"), route("test.x", "test.bob", "test.x"), epochs=(0, 2)))
    bob.says(update(route("test.bob"), routing_table_id=OTHER))
    bob.net.run(300)
    assert bob.net.table("me") == {"test.bob": "bob"}


def test_a_gap_is_refused_and_asked_about(bob: Bob) -> None:
    """CCP-9."""
    bob.says(update(route("test.bob"), epochs=(0, 2)))
    answer = bob.says(update(route("test.x", "test.bob"), epochs=(3, 4)))
    assert isinstance(answer, Reject)
    assert answer.code == "F00"
    bob.net.run(1_100)
    assert bob.net.table("me") == {"test.bob": "bob"}
    assert bob.controls() == [RouteControl(SYNC, TABLE, 2, ())]


def test_gaps_at_every_update_do_not_make_a_control_each(bob: Bob) -> None:
    """CCP-9."""
    bob.net.run(2_000)
    for number in range(50):
        bob.says(update(route("test.x"), epochs=(3 + number, 4 + number)))
        bob.net.run(200)
        bob.controls(answer=OK) if number % 2 else None
    asked = [one for _, name, _, one in bob.net.controls if name == "me"]
    assert len(asked) <= 13


def test_an_older_update_is_taken_and_changes_nothing(bob: Bob) -> None:
    """CCP-10."""
    bob.says(update(route("test.bob"), epochs=(0, 5)))
    assert isinstance(bob.says(update(route("test.x", "test.bob"), epochs=(2, 4))), Fulfill)
    assert isinstance(bob.says(update(route("test.y", "test.bob"), epochs=(3, 5))), Fulfill)
    bob.net.run(300)
    assert set(bob.net.table("me")) == {"test.bob", "test.y"}


def test_withdrawals_go_before_additions(bob: Bob) -> None:
    """CCP-10, CCP-7."""
    bob.says(update(route("test.bob"), route("test.x", "test.bob"), epochs=(0, 2)))
    bob.says(update(route("test.x", "test.bob", "test.x"), epochs=(2, 4), withdrawn=("test.x", "test.bob")))
    bob.net.run(300)
    assert bob.net.table("me") == {"test.x": "bob"}


@pytest.mark.parametrize(
    "bad",
    [
        route("test"),
        route("g.bob"),
        route("test1.x"),
        route("test.me"),
        route("test.me.x"),
        route("test.x", "test.bob", "test.me", "test.x"),
        route("test.x", *["test.bob"] * 32),
        route("test" + ".x" * 33),
    ],
    ids=["bare scheme", "live", "other test net", "our address", "below us", "loop", "long path", "many segments"],
)
def test_what_may_not_be_imported_is_left_out(bob: Bob, bad: Route) -> None:
    """CCP-11, X-11, ADDR-5, ADDR-6: the rest of the update is taken, and what was known of the prefix is gone."""
    assert isinstance(bob.says(update(bad, route("test.mean"), route("test.me~x"))), Fulfill)
    bob.net.run(300)
    assert set(bob.net.table("me")) == {"test.mean", "test.me~x"}


def test_a_route_that_turns_into_a_loop_is_as_good_as_withdrawn(bob: Bob) -> None:
    """CCP-11."""
    bob.says(update(route("test.x", "test.bob", "test.x")))
    bob.says(update(route("test.x", "test.bob", "test.me", "test.x"), epochs=(1, 2)))
    bob.net.run(300)
    assert bob.net.table("me") == {}


def test_prefixes_are_filtered_and_routes_are_counted(net: "Net", make_spoken: "Spoken") -> None:
    """CCP-11: at the bound what is known is still changed, and nothing new is taken."""
    terms = RouteTerms(send=True, receive=True, receive_not=("test.bad",), receive_only=("test.x", "test.bad"))
    net.add("me", make_spoken("bob", routes=replace(terms, received_max=2)))
    net.link("me", "bob")
    bob = Bob(net)
    net.run(1)
    bob.controls(answer=OK)
    names = ("test.y", "test.bad.x", "test.xx", "test.x", "test.x.y", "test.x.z")
    bob.says(update(*[route(name) for name in names]))
    bob.says(update(route("test.x", "test.bob", "test.x"), epochs=(1, 2)))
    net.run(300)
    assert set(net.table("me")) == {"test.x", "test.x.y"}
    assert len(net.events("me", "routes_bounded")) == 1


def test_only_the_expected_speaker_is_believed(net: "Net", make_spoken: "Spoken") -> None:
    """CCP-11."""
    net.add("me", make_spoken("bob", relation="child", child_address="test.me.bob"))
    net.link("me", "bob")
    bob = Bob(net)
    net.run(1)
    bob.controls(answer=OK)
    answer = bob.says(update(route("test.x", "test.bob")))
    assert isinstance(answer, Reject)
    [log] = net.events("me", "routes_not_taken")
    problem = "the speaker is test.bob, where test.me.bob was expected, by the child's address"
    assert log.fields["problem"] == answer.message == problem
    assert "routes = { receive = true, speaker = …" in str(log.fields["remedy"])
    assert isinstance(bob.says(update(route("test.x", "test.me.bob"), speaker="test.me.bob")), Fulfill)


def test_a_speaker_that_the_account_names_is_the_only_one(net: "Net", make_spoken: "Spoken") -> None:
    """CCP-11: the log says whose word that is."""
    routes = RouteTerms(send=True, receive=True, speaker="test.other")
    net.add("me", make_spoken("bob", routes=routes))
    net.link("me", "bob")
    bob = Bob(net)
    net.run(1)
    bob.controls(answer=OK)
    assert isinstance(bob.says(update(route("test.x", "test.bob"))), Reject)
    [log] = net.events("me", "routes_not_taken")
    assert "by routes.speaker of the account" in str(log.fields["problem"])
    assert isinstance(bob.says(update(route("test.x", "test.other"), speaker="test.other")), Fulfill)


@pytest.mark.parametrize("epochs", [(2, 1), (0, 3)], ids=["backwards", "beyond the current"])
def test_epochs_that_contradict_each_other_are_refused(bob: Bob, epochs: tuple[int, int]) -> None:
    """CCP-3: epochs from the future."""
    answer = bob.says(update(route("test.bob"), epochs=epochs, current_epoch=2))
    assert isinstance(answer, Reject)
    [log] = bob.net.events("me", "routes_not_taken")
    assert log.fields["remedy"] == "tell the peer's operator: the program there is at fault"


def test_a_flood_of_updates_is_limited(bob: Bob) -> None:
    bob.net.run(5_000)
    answers = [bob.says(update(route(f"test.x{n}", "test.bob"), epochs=(n, n + 1))) for n in range(10)]
    codes = [answer.code if isinstance(answer, Reject) else "" for answer in answers]
    assert codes == ["", "", "", "", *["T05"] * 6]


def test_an_origin_without_a_path_gets_its_speaker(bob: Bob) -> None:
    """CCP-16, X-11: as interledger-rs announces itself."""
    bob.says(update(replace(route("test.bob"), path=())))
    bob.net.run(300)
    [found] = bob.net.kernels["me"].switch.router.rib.candidates("test.bob")
    assert found.route.path == ("test.bob",)


# --- hold-down --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "announced, lasts",
    [(0, HOLD_DOWN_MS_MIN), (30_000, HOLD_DOWN_MS_MIN), (60_000, 60_000), (2**32 - 1, HOLD_DOWN_MS_MAX)],
)
def test_a_silent_peers_routes_expire(bob: Bob, announced: int, lasts: int) -> None:
    """CCP-15."""
    bob.says(update(route("test.bob"), hold_down_ms=announced))
    bob.net.run(lasts - 500)
    assert bob.net.table("me") == {"test.bob": "bob"}
    bob.net.run(1_000)
    assert bob.net.table("me") == {}
    assert len(bob.net.events("me", "routes_expired")) == 1


def test_a_silent_peer_is_asked_before_it_is_given_up(bob: Bob) -> None:
    """CCP-15: it may have been restarted behind a link that shows no such thing."""
    bob.says(update(route("test.bob"), epochs=(0, 1)))
    bob.net.run(40_000)
    assert bob.controls() == [RouteControl(SYNC, TABLE, 1, ())]
    assert bob.net.table("me") == {"test.bob": "bob"}


def test_no_route_of_interledger_rs_flaps(bob: Bob) -> None:
    """CCP-15, X-11: it holds routes for 30 s and speaks every 30 s, give or take 2 s; for ten minutes."""
    bob.says(update(replace(route("test.bob"), path=()), hold_down_ms=30_000, epochs=(0, 0), current_epoch=0))
    bob.net.run(300)
    for number in range(21):
        bob.net.run(28_000 + (number * 1_789) % 4_001)
        assert isinstance(bob.says(update(hold_down_ms=30_000, epochs=(0, 0), current_epoch=0)), Fulfill)
        assert bob.net.table("me") == {"test.bob": "bob"}
    assert bob.net.mono > 600_000
    assert bob.net.events("me", "routes_expired") == []
    router = bob.net.kernels["me"].switch.router
    assert router.log.epoch == 2  # our own address and Bob's: nothing was ever withdrawn


def test_a_closed_link_withdraws_at_once(bob: Bob) -> None:
    """CCP-15, CCP-20."""
    bob.says(update(route("test.bob")))
    bob.net.run(300)
    bob.net.cut("me", "bob")
    assert bob.net.hop("me", "test.bob.x") is None
    bob.net.link("me", "bob")
    bob.net.run(1)
    assert bob.controls() == [RouteControl(SYNC, NO_ROUTING_TABLE, 0, ())]


def test_a_link_that_flaps_is_asked_later_each_time(bob: Bob) -> None:
    """CCP-20: without flapping routes."""
    delays = []
    for _ in range(7):
        bob.net.cut("me", "bob")
        bob.net.link("me", "bob")
        up_at = bob.net.mono
        answer = bob.says(update(route("test.bob")))
        while not (controls := [at for at, name, _, _ in bob.net.controls if name == "me" and at >= up_at]):
            bob.net.run(100)
        assert isinstance(answer, Fulfill) is (controls[0] == up_at)
        delays.append(controls[0] - up_at)
        bob.net.run(1_000)
    assert [round(one, -3) for one in delays] == [0, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000]


# --- controls without success -----------------------------------------------------------------------------------------


def test_a_refused_control_is_logged_once_with_the_remedy_and_repeated_slowly(bob: Bob) -> None:
    """CCP-14, X-10."""
    bob.net.cut("me", "bob")
    bob.net.link("me", "bob")
    times = []
    for _ in range(3_000):
        if bob.controls(answer=NO):
            times.append(bob.net.mono)
        bob.net.run(1_000)
    [log] = bob.net.events("me", "routes_refused")
    assert "ilp-connector" in str(log.fields["remedy"])
    waits = [(after - before) // 1_000 for before, after in pairwise(times)]
    assert waits[:5] == [30, 60, 120, 240, 480]
    assert set(waits[5:]) <= {600, 601}


def test_a_peer_that_refused_while_it_was_starting_is_asked_again_when_it_asks_us(bob: Bob) -> None:
    """X-10: an ilp-connector that dials answers F00 until it is ready. Once in a connection."""
    bob.net.cut("me", "bob")
    bob.net.link("me", "bob")
    while not bob.controls(answer=NO):
        bob.net.run(100)
    bob.net.run(2_000)
    assert not bob.controls()
    bob.asks()
    bob.net.run(1_500)
    assert len(bob.controls(answer=NO)) == 1
    for _ in range(20):
        bob.asks()
        bob.net.run(1_000)
    assert not bob.controls()


def test_a_parent_that_tells_nothing_is_left_alone_and_takes_the_rest(net: "Net", make_spoken: "Spoken") -> None:
    """X-10: as ilp-connector does with children; the default route stands."""
    net.add("me", make_spoken("bob", relation="parent"), routes={"": "bob"})
    net.link("me", "bob")
    bob = Bob(net)
    asked = 0
    for _ in range(1_300):
        asked += len(bob.controls(answer=NO))
        net.run(1_000)
    assert asked == 3
    assert net.hop("me", "test.anywhere") == "bob"


def test_a_lost_control_is_repeated(bob: Bob) -> None:
    """CCP-14."""
    bob.net.cut("me", "bob")
    bob.net.link("me", "bob")
    bob.net.run(120_000)
    assert len(bob.controls()) >= 4
    bob.net.run(60_000)
    for _, prepare in bob.hears(CONTROL_DESTINATION)[:1]:
        assert decode_control(prepare.data).mode == SYNC


def test_the_link_may_say_that_a_control_was_not_taken(bob: Bob) -> None:
    """CCP-14."""
    bob.net.cut("me", "bob")
    bob.net.link("me", "bob")
    bob.net.run(1)
    prepares = [one for one in bob.net.taken("me", "bob") if one.packet[0] == PREPARE]
    [frame] = [one for one in prepares if decode_prepare(one.packet).destination == CONTROL_DESTINATION]
    bob.net.tell("me", Undelivered(AccountId("bob"), frame.request_id, "T01", "gone"))
    bob.net.run(1_500)
    assert len(bob.controls()) == 1


# --- speaking ---------------------------------------------------------------------------------------------------------


def test_nothing_is_told_before_it_is_asked_for(bob: Bob) -> None:
    """CCP-13."""
    bob.net.run(60_000)
    assert bob.updates() == []
    assert isinstance(bob.asks(), Fulfill)
    bob.net.run(1)
    [told] = bob.updates(answer=OK)
    assert [one.prefix for one in told.new_routes] == ["test.me"]
    assert (told.from_epoch, told.to_epoch, told.current_epoch, told.speaker) == (0, 1, 1, "test.me")
    assert told.hold_down_ms == 45_000


def test_idle_stops_it(bob: Bob) -> None:
    """CCP-13."""
    bob.asks()
    bob.net.run(1)
    bob.updates(answer=OK)
    assert isinstance(bob.asks(mode=IDLE), Fulfill)
    bob.net.run(100_000)
    assert bob.updates() == []


def test_a_heartbeat_comes_every_30_seconds(bob: Bob) -> None:
    """CCP-7, CCP-14."""
    bob.asks()
    seen = []
    for _ in range(1_000):
        seen += [(bob.net.mono, one) for one in bob.updates(answer=OK)]
        bob.net.run(100)
    beats = seen[1:]
    assert [(one.from_epoch, one.to_epoch, one.new_routes, one.withdrawn) for _, one in beats] == [(1, 1, (), ())] * 3
    gaps = [after - before for (before, _), (after, _) in pairwise(seen)]
    assert all(abs(gap - HEARTBEAT_MS) <= 200 for gap in gaps)


def test_a_refused_update_is_sent_again_from_the_same_epoch(bob: Bob) -> None:
    """CCP-19."""
    bob.asks()
    bob.net.run(1)
    [first] = bob.updates(answer=NO)
    bob.net.run(2_000)
    [second] = bob.updates(answer=OK)
    assert (first.from_epoch, first.new_routes) == (second.from_epoch, second.new_routes)
    bob.net.run(31_000)
    assert [one.from_epoch for one in bob.updates()] == [1]


def test_an_update_without_an_answer_is_sent_again(bob: Bob) -> None:
    """CCP-19: or when the link says that it wasn't taken."""
    bob.asks()
    bob.net.run(1)
    assert len(bob.updates()) == 1
    bob.net.run(17_000)
    prepares = [one for one in bob.net.taken("me", "bob") if one.packet[0] == PREPARE]
    [frame] = [one for one in prepares if decode_prepare(one.packet).destination == UPDATE_DESTINATION]
    assert decode_update(decode_prepare(frame.packet).data).from_epoch == 0
    bob.net.tell("me", Undelivered(AccountId("bob"), frame.request_id, "T01", "gone"))
    bob.net.run(5_000)
    assert [one.from_epoch for one in bob.updates()] == [0]


def test_a_listener_goes_on_where_it_stands(bob: Bob) -> None:
    """CCP-13: with our table id from its epoch on, clamped to ours; with any other from 0."""
    bob.asks()
    bob.net.run(1)
    [told] = bob.updates(answer=OK)
    cases = [
        (told.routing_table_id, 1, 1),
        (told.routing_table_id, 99, 1),
        (OTHER, 1, 0),
        (told.routing_table_id, 0, 0),
    ]
    for table_id, known, begins in cases:
        bob.asks(table_id, known)
        bob.net.run(31_000)
        assert bob.updates(answer=OK)[0].from_epoch == begins
        bob.net.run(2_000)
        bob.updates(answer=OK)


def test_updates_are_small_and_apart(net: "Net", make_spoken: "Spoken") -> None:
    """CCP-14: at most 50 changes each, 150 ms apart at least."""
    routes = {f"test.x{number}": "carl" for number in range(170)}
    net.add("me", make_spoken("bob"), make_spoken("carl", routes=RouteTerms()), routes=routes)
    net.link("me", "bob")
    net.link("me", "carl")
    net.run(1_000)
    bob = Bob(net)
    bob.asks()
    seen = []
    for _ in range(1_000):
        seen += [(net.mono, one) for one in bob.updates(answer=OK)]
        net.run(10)
    assert [len(one.new_routes) for _, one in seen] == [50, 50, 50, 21]
    assert [one.from_epoch for _, one in seen[1:]] == [one.to_epoch for _, one in seen[:-1]]
    gaps = [after - before for (before, _), (after, _) in pairwise(seen)]
    assert min(gaps) >= UPDATE_EVERY_MS_MIN - 10
    assert CHANGES_PER_UPDATE_MAX == 50


def test_large_routes_make_more_updates(net: "Net", make_spoken: "Spoken") -> None:
    """CCP-14: 32767 bytes hold no 50 of them."""
    routes = {f"test.{'x' * 900}{number}": "carl" for number in range(60)}
    net.add("me", make_spoken("bob"), make_spoken("carl", routes=RouteTerms()), routes=routes)
    net.link("me", "bob")
    net.link("me", "carl")
    net.run(1_000)
    bob = Bob(net)
    bob.asks()
    seen = []
    for _ in range(200):
        seen += bob.updates(answer=OK)
        net.run(10)
    assert sum(len(one.new_routes) for one in seen) == 61
    assert max(len(one.new_routes) for one in seen) < 20


def test_props_that_travel_are_passed_on(net: "Net", make_spoken: "Spoken") -> None:
    """CCP-5: the transitive ones, known or not."""
    net.add("me", make_spoken("bob"), make_spoken("carl"))
    net.link("me", "bob")
    net.link("me", "carl")
    bob = Bob(net)
    net.run(1)
    bob.controls(answer=OK)
    props = (
        RouteProp(9, b"stays", is_optional=True, is_transitive=False, is_partial=False, is_utf8=True),
        RouteProp(7, b"goes on", is_optional=True, is_transitive=True, is_partial=True, is_utf8=False),
        RouteProp(8, b"must", is_optional=False, is_transitive=True, is_partial=False, is_utf8=False),
    )
    bob.says(update(route("test.x", props=props)))
    net.play("carl", "me", encode_control(RouteControl(SYNC, NO_ROUTING_TABLE, 0, ()), FAR))
    net.run(500)
    told = [r for _, a, b, one in net.updates for r in one.new_routes if b == "carl" and r.prefix == "test.x"]
    assert [prop.id for prop in told[-1].props] == [7, 8]


def test_withdrawals_that_were_forgotten_make_a_new_table(net: "Net", make_spoken: "Spoken") -> None:
    """CCP-8: a listener that is too far behind starts over, and keeps nothing that is gone."""
    net.add("me", make_spoken("bob"))
    net.link("me", "bob")
    bob = Bob(net)
    net.run(1)
    bob.asks()
    net.run(1)
    [told] = bob.updates(answer=OK)
    log = net.kernels["me"].switch.router.log
    log.floor = 5
    log.epoch = 9
    bob.asks(told.routing_table_id, 3)
    net.run(200)
    [again] = bob.updates()
    assert again.routing_table_id != told.routing_table_id
    assert again.from_epoch == 0
