"""The prober of `isthmus trace`, against paths that are played on virtual time."""

import heapq
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.client.amounts import Received
from isthmus.client.hops import AGAIN_MAX, PROBES_MAX, WINDOW, EndKind, Probe, Tracer, is_destination
from isthmus.ilp.packet import AMOUNT_MAX, Reject, encode_amount_too_large

OWN = "test.one.alice"
TARGET = "test.bob"


@dataclass(frozen=True)
class Node:
    """One node on a path. `needs_ms` is the least that must be left; `keeps_ms` is what it takes off."""

    address: str = ""
    keeps_ms: int = 1_000
    needs_ms: int | None = None
    one_way_us: int = 5_000  # from the node before
    rate: Fraction = Fraction(1)
    largest: int = AMOUNT_MAX
    affords: int = AMOUNT_MAX
    too_late: str = "R02"
    says: str = ""  # refuses everything, with this code
    is_deaf: bool = False
    names_itself: bool = True
    clock_ms: int = 0  # how far its clock is ahead

    def reject(self, code: str, data: bytes = b"") -> Reject:
        return Reject(code, self.address if self.names_itself else "", "", data)


def chain(*names: str, **each: Any) -> list[Node]:
    return [Node(name, **each) for name in names]


BOB = Node(TARGET, says="F06")


@dataclass
class Path:
    """The nodes in order; the last one is whoever answers or doesn't."""

    nodes: list[Node]

    def answer(self, probe: Probe) -> tuple[int, Reject]:
        """After how many microseconds which Reject comes back."""
        left_us, amount, way_us = probe.hold_ms * 1_000, probe.amount, 0
        deadline, holder = probe.hold_ms * 1_000, Node(OWN)  # the nearest expiry, and whose it is
        for node in self.nodes:
            way_us += node.one_way_us
            back_us = 2 * way_us
            if node.is_deaf:
                return deadline, holder.reject("R00")
            remaining = left_us - way_us - node.clock_ms * 1_000
            reject = self._refusal(node, remaining, amount)
            if reject is not None:
                return (deadline, holder.reject("R00")) if back_us > deadline else (back_us, reject)
            amount = amount * node.rate.numerator // node.rate.denominator
            left_us -= node.keeps_ms * 1_000
            expires = left_us - node.clock_ms * 1_000
            if expires < deadline:
                deadline, holder = max(expires, back_us), node
        raise AssertionError("the last node answers")

    def _refusal(self, node: Node, remaining_us: int, amount: int) -> Reject | None:
        if node.says and node.says != "T05":
            return node.reject(node.says)
        needs_us = (node.keeps_ms if node.needs_ms is None else node.needs_ms) * 1_000
        if remaining_us <= needs_us:
            return node.reject(node.too_late)
        if amount > node.largest:
            return node.reject("F08", encode_amount_too_large(amount, node.largest))
        if amount and amount * node.rate < 1:
            return node.reject("R01")
        if amount > node.affords:
            return node.reject("T04")
        return node.reject(node.says) if node.says else None


@dataclass
class Traced:
    tracer: Tracer
    us: int
    most_open: int
    amounts: list[int]

    @property
    def addresses(self) -> list[str | None]:
        return [hop.address for hop in self.tracer.hops()]

    @property
    def end(self) -> tuple[EndKind, str, str | None]:
        ending = self.tracer.ending()
        return ending.kind, ending.code, ending.by


def trace(nodes: list[Node], *, until_us: int = 120_000_000, **settings: Any) -> Traced:
    """Trace a path to the end."""
    tracer = Tracer(TARGET, **{"own": OWN, "hold_ms_max": 30_000, **settings})
    path, now, coming, open_max = Path(nodes), 0, list[tuple[int, int, Reject]](), 0
    amounts: list[int] = []
    while not tracer.is_done and now < until_us:
        for probe in tracer.poll(now):
            after_us, reject = path.answer(probe)
            amounts.append(probe.amount)
            heapq.heappush(coming, (now + after_us, probe.number, reject))
        open_max = max(open_max, len(coming))
        wakes = tracer.wakes_at(now)
        if wakes is not None and (not coming or wakes < coming[0][0]):
            now = wakes
        elif coming:
            now, number, reject = heapq.heappop(coming)
            tracer.told(number, reject, now)
        else:
            assert tracer.is_done, "the tracer waits for nothing"
    return Traced(tracer, now, open_max, amounts)


# --- hops ------------------------------------------------------------------------------------------------------------


def test_each_connector_shows_itself_by_the_time_that_it_keeps_back() -> None:
    """CONN-9, ILP-21."""
    found = trace([*chain("test.one", "test.two", "test.three"), BOB])
    assert found.addresses == ["test.one", "test.two", "test.three", TARGET]
    assert found.end == (EndKind.REACHED, "F06", TARGET)
    assert [hop.code for hop in found.tracer.hops()] == ["R02", "R02", "R02", "F06"]
    assert [hop.delay_us for hop in found.tracer.hops()] == [10_000, 20_000, 30_000, 40_000]


def test_connectors_that_ask_for_twice_what_they_keep_are_seen() -> None:
    """ilp-connector: 2 s must be left, 1 s is kept (CONN-9)."""
    found = trace([*chain("test.one", "test.two", "test.three", needs_ms=2_000), BOB])
    assert found.addresses == ["test.one", "test.two", "test.three", TARGET]


@pytest.mark.parametrize("one_way_us", [500, 5_000, 80_000])
def test_ours_behind_one_of_those_has_little_room_to_show_itself(one_way_us: int) -> None:
    """What leaves an ilp-connector has a second left: ours refuses it if the way was long, or waits in vain if not."""
    nodes = [Node("test.one", needs_ms=2_000), *chain("test.two", "test.three", one_way_us=one_way_us), BOB]
    assert trace(nodes).addresses == ["test.one", "test.two", "test.three", TARGET]


def test_connectors_that_answer_r00_are_seen() -> None:
    """interledger-rs has no R02 (CONN-10); how quick it is stays unknown, as an R00 may be the end of a wait."""
    hops = trace([*chain("test.one", "test.two", keeps_ms=500, too_late="R00"), BOB]).tracer.hops()
    assert [(hop.address, hop.code, hop.delay_us is None) for hop in hops] == [
        ("test.one", "R00", True), ("test.two", "R00", True), (TARGET, "F06", False),
    ]  # fmt: skip


def test_a_hop_that_keeps_little_is_found_between_two_others() -> None:
    nodes = [Node("test.one"), Node("test.two", keeps_ms=60), Node("test.three"), BOB]
    assert trace(nodes).addresses == ["test.one", "test.two", "test.three", TARGET]


def test_a_hop_whose_clock_is_behind_stays_unseen() -> None:
    nodes = [Node("test.one"), Node("test.two", clock_ms=-5_000), Node("test.three"), BOB]
    assert trace(nodes).addresses == ["test.one", "test.three", TARGET]


def test_hops_without_a_name_are_a_row_of_their_own() -> None:
    nodes = [Node("test.one"), Node("x", names_itself=False), Node("test.three"), BOB]
    assert trace(nodes).addresses == ["test.one", None, "test.three", TARGET]


def test_a_way_of_many_hops_is_followed_while_a_packet_lives() -> None:
    names = [f"test.n{number}" for number in range(40)]
    found = trace([*chain(*names), BOB])
    assert found.addresses == names[:30]
    assert found.end == (EndKind.TOO_LONG, "R02", "test.n29")


def test_whoever_has_no_route_is_the_end() -> None:
    found = trace([*chain("test.one", "test.two"), Node("test.three", says="F02")])
    assert found.addresses == ["test.one", "test.two", "test.three"]
    assert found.end == (EndKind.REFUSED, "F02", "test.three")


def test_a_dead_link_is_told_by_the_hop_before_it() -> None:
    nodes = [Node("test.one"), Node("test.two", says="T01"), BOB]
    assert trace(nodes).end == (EndKind.REFUSED, "T01", "test.two")


def test_a_hop_that_is_silent_is_found_soon_and_gets_no_amounts() -> None:
    found = trace([*chain("test.one", "test.two"), Node(is_deaf=True)])
    assert found.addresses == ["test.one", "test.two"]
    assert found.end == (EndKind.SILENT, "R00", "test.two")
    assert found.us < 10_000_000
    assert not any(found.amounts)


def test_a_connector_that_is_silent_is_no_hop() -> None:
    found = trace([Node(is_deaf=True)])
    assert (found.addresses, found.end) == ([], (EndKind.SILENT, "R00", OWN))


def test_a_busy_hop_is_asked_again_a_few_times() -> None:
    found = trace([Node("test.one"), Node("test.two", says="T05")])
    assert found.end == (EndKind.REFUSED, "T05", "test.two")
    assert found.us >= (AGAIN_MAX - 1) * 1_000_000


def test_two_ways_are_told() -> None:
    """A connector that takes turns between two next hops: one way is longer than the other."""
    tracer = Tracer(TARGET, own=OWN, hold_ms_max=30_000)
    turns = [chain("test.one", "test.two", "test.three"), chain("test.one", "test.other", "test.three")]
    now = 0
    while not tracer.is_done:
        probes = tracer.poll(now)
        for probe in probes:
            after_us, reject = Path([*turns[probe.number % 2], BOB]).answer(probe)
            now += after_us
            tracer.told(probe.number, reject, now)
    assert {"test.two", "test.other"} <= {hop.address for hop in tracer.hops()}
    assert tracer.is_mixed


def test_a_network_that_is_quicker_now_and_then_is_one_way() -> None:
    """Which of two neighbours refuses a packet may then change within the time that it varies by."""
    tracer = Tracer(TARGET, own=OWN, hold_ms_max=30_000)
    now = 0
    while not tracer.is_done:
        for probe in tracer.poll(now):
            way_us = 20_000 + 7_919 * probe.number % 30_000
            nodes = [*chain("test.one", "test.two", "test.three", one_way_us=way_us), BOB]
            after_us, reject = Path(nodes).answer(probe)
            now += after_us
            tracer.told(probe.number, reject, now)
    assert [hop.address for hop in tracer.hops()] == ["test.one", "test.two", "test.three", TARGET]
    assert not tracer.is_mixed


# --- rates -----------------------------------------------------------------------------------------------------------


def test_a_hop_that_refuses_a_large_packet_tells_what_came_to_it() -> None:
    """ILP-15, P-8."""
    nodes = [
        Node("test.one", largest=10**9, rate=Fraction(1, 25)),
        Node("test.two", largest=10**6, rate=Fraction(3)),
        Node("test.three"),
        BOB,
    ]
    found = trace(nodes)
    one, two, three, _ = found.tracer.hops()
    assert one.received == Received(AMOUNT_MAX, AMOUNT_MAX, 10**9)
    assert two.received == Received(10**9, 4 * 10**7, 10**6)
    assert two.received.rate == Fraction(1, 25)
    assert three.received is None
    assert found.tracer.amounts.largest == 25 * 10**6


def test_a_hop_where_small_amounts_become_nothing_tells_its_size() -> None:
    """CONN-11."""
    nodes = [Node("test.one", rate=Fraction(1, 25)), Node("test.two", rate=Fraction(1, 40)), Node("test.three"), BOB]
    one, two, three, _ = trace(nodes).tracer.hops()
    assert one.smallest == 25
    assert two.smallest is not None and 1_000 <= two.smallest <= 1_000 * 102 // 100
    assert three.smallest is None


def test_a_hop_that_only_an_amount_shows_is_put_in_its_place() -> None:
    hidden = Node("test.two", clock_ms=-5_000, largest=1_000)
    found = trace([Node("test.one"), hidden, *chain("test.three", "test.four"), BOB])
    assert found.addresses == ["test.one", "test.two", "test.three", "test.four", TARGET]
    assert found.tracer.hops()[1].hold_ms is None


def test_less_liquidity_than_the_largest_packet_is_asked_with_less() -> None:
    nodes = [Node("test.one", affords=10**7), Node("test.two", largest=5_000), BOB]
    found = trace(nodes)
    assert found.tracer.hops()[1].received is not None
    assert (found.tracer.amounts.largest, found.tracer.amounts.is_largest_by_room) == (5_000, False)
    found = trace([Node("test.one", affords=10**7), BOB])
    assert found.tracer.amounts.is_largest_by_room
    assert found.tracer.amounts.largest is not None and 10**7 // 8 <= found.tracer.amounts.largest <= 10**7


def test_rates_are_not_asked_for_if_they_are_not_wanted() -> None:
    found = trace([Node("test.one", largest=1_000), BOB], with_amounts=False)
    assert not any(found.amounts)


# --- bounds ----------------------------------------------------------------------------------------------------------

NODES = st.lists(
    st.builds(
        Node,
        address=st.sampled_from(["test.a", "test.b", "test.c", "test.d", "?", ""]),
        keeps_ms=st.integers(0, 3_000),
        needs_ms=st.none() | st.integers(0, 3_000),
        one_way_us=st.integers(1, 2_000_000),
        rate=st.fractions(Fraction(1, 10**6), 10**6),
        largest=st.integers(0, AMOUNT_MAX // 10**6),
        affords=st.integers(0, AMOUNT_MAX),
        too_late=st.sampled_from(["R02", "R00"]),
        says=st.sampled_from(["", "", "", "F02", "T01", "T05", "F08", "R01", "R99", "X99"]),
        is_deaf=st.sampled_from([False] * 9 + [True]),
        clock_ms=st.integers(-3_000, 3_000),
    ),
    max_size=8,
)


@given(NODES, st.sampled_from(["F06", "F99", "R00", "R02", "F08", "T04"]), st.integers(1, 60_000))
def test_any_path_ends_within_the_bounds(nodes: list[Node], last: str, hold_ms_max: int) -> None:
    """Whatever they answer: so many probes, so many at a time, and no two rows are the same node."""
    nodes = [replace(node, rate=max(node.rate, Fraction(1, 10**6))) for node in nodes]
    found = trace([*nodes, Node(TARGET, says=last, largest=0)], hold_ms_max=hold_ms_max, until_us=10**12)
    assert found.tracer.is_done
    assert found.tracer.probes <= PROBES_MAX
    assert found.most_open <= WINDOW
    named = [address for address in found.addresses if address is not None]
    assert len(named) == len(set(named))
    assert OWN not in named


@pytest.mark.slow
@given(st.data())
@settings(max_examples=25, deadline=None)
def test_any_answers_end_within_the_bounds(data: st.DataObject) -> None:
    """Strangers may say anything, each time something else."""
    codes = st.sampled_from(["R02", "R00", "F08", "R01", "T04", "T05", "F02", "F06", "x\0!"])
    names = st.sampled_from(["", "test.a", "test.b", "no address", OWN, TARGET, "test.é"])
    amounts = st.integers(0, AMOUNT_MAX)
    figures = st.builds(encode_amount_too_large, amounts, amounts) | st.binary(max_size=20)
    replies = st.builds(Reject, codes, names, st.text(max_size=5), figures)
    tracer, now = Tracer(TARGET, own=OWN, hold_ms_max=data.draw(st.integers(1, 30_000))), 0
    waiting: list[Probe] = []
    while not tracer.is_done:
        now = max(now + 1, tracer.wakes_at(now) or 0)
        waiting += tracer.poll(now)
        if waiting:
            probe = waiting.pop(data.draw(st.integers(0, len(waiting) - 1)))
            tracer.told(probe.number, data.draw(replies), now)
        tracer.hops()
        tracer.ending()
    assert tracer.probes <= PROBES_MAX


@pytest.mark.parametrize(
    ("code", "by", "is_there"),
    [("F06", TARGET, True), ("F99", "", True), ("F01", "test", False), ("F02", TARGET, False), ("T01", TARGET, False),
     ("F06", "test.bobby", False), ("F08", TARGET, False)],
)  # fmt: skip
def test_only_the_target_or_a_prefix_of_it_is_the_target(code: str, by: str, is_there: bool) -> None:
    assert is_destination(code, by, TARGET) is is_there
