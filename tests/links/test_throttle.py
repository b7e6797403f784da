"""Failed authentication by address: the limit, what is above it, and what is forgotten."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.links.throttle import ADDRESSES_MAX, FAILURE_MS, FAILURES_MAX, HOLD_MS, FailureThrottle, address_key

HOST = "192.0.2.7"


def test_the_limit_and_one_past_it() -> None:
    throttle = FailureThrottle()
    assert [throttle.failed(HOST, 1_000) for _ in range(FAILURES_MAX)] == [None] * FAILURES_MAX
    assert throttle.is_above(HOST, 1_000) and not throttle.is_above("192.0.2.8", 1_000)
    verdict = throttle.failed(HOST, 1_000)
    assert verdict is not None and verdict.hold_ms == HOLD_MS and verdict.is_news
    again = throttle.failed(HOST, 1_001)
    assert again is not None and not again.is_news
    assert throttle.failed("192.0.2.8", 1_001) is None


def test_who_stops_is_soon_as_before() -> None:
    """However long it went on: one failure is free again after `FAILURE_MS` of quiet, all of them after all of it."""
    throttle = FailureThrottle(failures_max=3, failure_ms=100)
    for now in range(1_000):
        throttle.failed(HOST, now)
    verdict = throttle.failed(HOST, 1_000)
    assert verdict is not None and verdict.retry_after_s == 1
    assert throttle.failed(HOST, 1_000 + 100) is not None
    assert throttle.failed(HOST, 1_000 + 100 + 200) is None
    assert [throttle.failed(HOST, 10_000) for _ in range(3)] == [None] * 3


@given(st.lists(st.integers(0, 3 * FAILURE_MS), max_size=200))
def test_no_more_than_the_limit_pass_in_any_time(pauses: list[int]) -> None:
    throttle = FailureThrottle()
    now = first = 0
    passed = 0
    for pause in pauses:
        now += pause
        passed += throttle.failed(HOST, now) is None
        assert passed <= FAILURES_MAX + (now - first) // FAILURE_MS + 1


def test_the_table_is_bounded_and_forgets_who_failed_longest_ago() -> None:
    throttle = FailureThrottle(failures_max=1)
    for number in range(ADDRESSES_MAX):
        throttle.failed(f"10.0.{number >> 8}.{number & 255}", 0)
    assert throttle.failed("10.0.0.0", 0) is not None  # and is now the last
    assert throttle.failed("192.0.2.1", 0) is None
    assert len(throttle) == ADDRESSES_MAX
    assert throttle.failed("10.0.0.1", 0) is None  # it was forgotten
    assert throttle.failed("10.0.0.0", 0) is not None


@pytest.mark.parametrize(
    "one, other, is_same",
    [
        ("192.0.2.7", "192.0.2.8", False),
        ("::ffff:192.0.2.7", "192.0.2.7", True),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2", True),
        ("", "", True),
    ],
)
def test_what_is_one_address(one: str, other: str, is_same: bool) -> None:
    """A customer has one IPv4 address, and 2^64 of IPv6."""
    assert (address_key(one) == address_key(other)) is is_same
