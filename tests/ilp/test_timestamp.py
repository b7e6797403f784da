"""Expiry times: 17 digits."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.errors import CodecError
from isthmus.ilp.timestamp import (
    TIMESTAMP_MAX,
    TIMESTAMP_MIN,
    TimestampCache,
    decode_timestamp,
    encode_timestamp,
    ms_from_ns,
)

VALUES = json.loads((Path(__file__).parents[1] / "vectors/codec-values.json").read_text())
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("digits, ms", VALUES["timestamps"])
def test_a_timestamp_is_17_digits(digits: str, ms: int) -> None:
    """OER-10, OER-11, OER-12: with the year 9999, and the midnight of the next day."""
    assert encode_timestamp(ms) == digits.encode() == TimestampCache().encode(ms)
    data = b"12345678" + digits.encode() + b"rest"
    assert decode_timestamp(data, 8, "expiresAt") == ms == TimestampCache().decode(data, 8, "expiresAt")


@pytest.mark.parametrize("digits", VALUES["timestamps_bad"])
def test_times_that_do_not_exist_are_refused_and_never_rolled_over(digits: str) -> None:
    """OER-11, P-3, P-13."""
    for decode in (decode_timestamp, TimestampCache().decode):
        with pytest.raises(CodecError) as error:
            decode(b"\0" * 8 + digits.encode(), 8, "expiresAt")
        assert (error.value.field, error.value.offset) == ("expiresAt", 8)


def test_the_wire_has_the_years_1_to_9999() -> None:
    """OER-11."""
    assert encode_timestamp(TIMESTAMP_MAX) == b"99991231235959999"
    assert encode_timestamp(TIMESTAMP_MIN) == b"00010101000000000"
    for encode in (encode_timestamp, TimestampCache().encode):
        for ms in (TIMESTAMP_MAX + 1, TIMESTAMP_MIN - 1, 2**80, -(2**80)):
            with pytest.raises(ValueError, match="years 1 to 9999"):
                encode(ms)


def test_second_60_is_never_written() -> None:
    """OER-12: midnight after the leap second of 2016."""
    assert encode_timestamp(1483228800000) == b"20170101000000000"
    assert encode_timestamp(1483228799999) == b"20161231235959999"


def test_parts_of_a_millisecond_are_cut_off() -> None:
    """OER-13: an expiry is never extended."""
    assert ms_from_ns(1_514_132_072_279_999_999) == 1_514_132_072_279
    assert ms_from_ns(-1) == -1


@given(st.integers(TIMESTAMP_MIN, TIMESTAMP_MAX))
def test_timestamps_are_what_the_calendar_says(ms: int) -> None:
    """OER-10."""
    at = EPOCH + timedelta(milliseconds=ms)
    digits = encode_timestamp(ms)
    assert digits.decode() == f"{at.year:04}{at:%m%d%H%M%S}{at.microsecond // 1000:03}"
    assert decode_timestamp(digits, 0, "x") == ms


@given(st.binary(max_size=20) | st.from_regex(rb"[0-9]{16,18}", fullmatch=True))
def test_any_bytes_give_the_same_with_and_without_cache(data: bytes) -> None:
    """OER-11."""
    outcomes: list[int | str] = []
    cache = TimestampCache()
    for decode in (decode_timestamp, cache.decode, cache.decode):
        try:
            outcomes.append(decode(data, 0, "x"))
        except CodecError as error:
            outcomes.append(error.field)
    assert outcomes[0] == outcomes[1] == outcomes[2]
    if isinstance(outcomes[0], int):
        assert encode_timestamp(outcomes[0]) == data[:17]


def test_the_cache_is_bounded() -> None:
    """P-9: a peer that names a new minute in each packet fills nothing."""
    cache = TimestampCache()
    for minute in range(1, 3 * TimestampCache.MINUTES_MAX + 1):
        digits = cache.encode(minute * 60_000)
        assert cache.decode(digits, 0, "x") == minute * 60_000
        assert len(cache.parsed) <= TimestampCache.MINUTES_MAX
        assert len(cache.formatted) <= TimestampCache.MINUTES_MAX
    assert len(cache.parsed) == TimestampCache.MINUTES_MAX


def test_a_remembered_timestamp_never_answers_for_another_one() -> None:
    """OER-11: right, wrong, and right again, with the wrong one's words each time."""
    cache = TimestampCache()
    good, bad = b"20260102030405006", b"20260102030465006"
    expected = decode_timestamp(good, 0, "x")
    for _ in range(2):
        assert cache.read(good, 0, "x") == expected
        for wrong in (bad, b"2026010203040500x", b"20261302030405006"):
            with pytest.raises(CodecError):
                cache.read(wrong, 0, "x")
        assert cache.encode(expected) == good
        assert cache.encode(expected + 1) == b"20260102030405007"
