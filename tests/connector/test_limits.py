"""Token buckets and the timing wheel: exact at their bounds, and no larger than what is in them."""

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from isthmus.connector.limits import TokenBucket
from isthmus.connector.wheel import GRAIN_MS, TimingWheel

if TYPE_CHECKING:
    from tests.connector.conftest import Node


def test_a_bucket_gives_its_burst_and_then_its_rate() -> None:
    """CONN-5."""
    bucket = TokenBucket(amount=60, period_ms=60_000, burst=2, now=0)
    assert bucket.has(2, 0)
    assert not bucket.has(3, 10**9)
    fresh = TokenBucket(amount=60, period_ms=60_000, burst=2, now=0)
    fresh.take(2)
    assert not fresh.has(1, 999)
    assert fresh.has(1, 1_000)


@given(
    st.integers(1, 10**6),
    st.integers(1, 10**6),
    st.lists(st.tuples(st.integers(0, 500), st.integers(1, 100)), max_size=50),
)
def test_never_more_passes_than_burst_and_rate_allow(amount: int, burst: int, asks: list[tuple[int, int]]) -> None:
    """CONN-5: without drift, however often it is asked."""
    bucket = TokenBucket(amount=amount, period_ms=60_000, burst=burst, now=0)
    now = passed = 0
    for wait, tokens in asks:
        now += wait
        if bucket.has(tokens, now):
            bucket.take(tokens)
            passed += tokens
    assert passed * 60_000 <= burst * 60_000 + now * amount


def test_a_new_rate_goes_on_with_what_was_left() -> None:
    before = TokenBucket(amount=60, period_ms=60_000, burst=10, now=0)
    before.take(7)
    after = TokenBucket(amount=600, period_ms=60_000, burst=100, now=5_000)
    after.carry_over(before, 0)
    assert after.has(3, 0)
    assert not after.has(4, 0)
    small = TokenBucket(amount=1, period_ms=1_000, burst=1, now=0)
    small.carry_over(before, 0)
    assert small.has(1, 0)
    assert not small.has(2, 0)


def test_decided_legs_leave_nothing_in_the_wheel(node: "Node") -> None:
    """ILP-10: with expiries of half a minute, legs that are answered at once must not pile up."""
    wheel = node.kernel.switch.wheel
    for _ in range(300):
        node.prepare("alice", "test.node.bob.x")
        node.fulfil("bob", node.taken("bob").request_id)
        node.take("alice")
        node._go(node.mono + 3)
    assert len(wheel) == 0
    assert wheel._buckets == {}
    assert len(wheel._order) <= 30_000 // GRAIN_MS + 1
    node.wait(40_000)
    assert wheel.wakes_at() is None
    assert wheel._order == []
    assert wheel._queued == set()


@given(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 400), st.booleans()), max_size=40))
def test_the_wheel_gives_what_is_due_and_nothing_else(steps: list[tuple[int, int, bool]]) -> None:
    """ILP-10: beside a plain list of deadlines."""
    from isthmus.connector.books import Account
    from isthmus.connector.legs import IncomingLeg, OutgoingLeg

    account = Account(0, 0, "x", "USD", 9)
    incoming = IncomingLeg(0, account, 0, 0, b"", b"", 0, 0)
    wheel = TimingWheel()
    legs: dict[int, OutgoingLeg] = {}
    now = 0
    for number, (wait, hold, drop) in enumerate(steps):
        now += wait
        due = sorted(leg.id for leg in wheel.due(now))
        assert due == sorted(number for number, leg in legs.items() if leg.deadline <= now)
        for one in due:
            wheel.discard(legs.pop(one))
        if drop and legs:
            wheel.discard(legs.pop(next(iter(legs))))
        leg = OutgoingLeg(number, account, 0, 0, 0, 0, b"", b"", 0, incoming, now + hold, 0)
        wheel.add(leg)
        legs[number] = leg
        first = min(leg.deadline for leg in legs.values())
        woken = wheel.wakes_at()
        assert woken is not None
        assert first < woken <= first + GRAIN_MS
        assert len(wheel) == len(legs)
