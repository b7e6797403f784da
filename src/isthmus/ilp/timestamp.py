"""Expiry times on the wire: 17 ASCII digits `YYYYMMDDHHmmSSfff`, UTC (RFC 0027, "expiresAt"; RFC 0030).

A time is an `int`: milliseconds since 1970-01-01 UTC, without leap seconds (smeared, so that second 60 never occurs:
OER-12). GeneralizedTime, which BTP uses, is another format and lives with BTP.
"""

from datetime import date
from typing import Final, final

from isthmus.errors import CodecError

TIMESTAMP_BYTES: Final = 17

_MINUTE_BYTES: Final = 12
_MINUTE_MS: Final = 60_000
_MINUTES_PER_DAY: Final = 24 * 60
_EPOCH_DAY: Final = date(1970, 1, 1).toordinal()
# 0001-01-01T00:00 and the end of 9999: outside, four digits of year don't exist.
TIMESTAMP_MIN: Final = (date.min.toordinal() - _EPOCH_DAY) * _MINUTES_PER_DAY * _MINUTE_MS
TIMESTAMP_MAX: Final = (date.max.toordinal() + 1 - _EPOCH_DAY) * _MINUTES_PER_DAY * _MINUTE_MS - 1


def ms_from_ns(wall_ns: int) -> int:
    """Nanoseconds to the milliseconds of the wire. Truncate, never round: that would extend an expiry (OER-13)."""
    return wall_ns // 1_000_000


def encode_timestamp(ms: int) -> bytes:
    """Give the 17 digits; ValueError outside the years 1 to 9999."""
    minute, rest = divmod(ms, _MINUTE_MS)
    return _format_minute(minute) + b"%05d" % rest


def decode_timestamp(data: bytes, offset: int, field: str) -> int:
    """Read 17 digits at the offset; CodecError unless they are an existing time (OER-11)."""
    digits = data[offset : offset + TIMESTAMP_BYTES]
    if len(digits) != TIMESTAMP_BYTES or not digits.isdigit():
        raise CodecError(field, offset, f"not {TIMESTAMP_BYTES} digits")
    rest = int(digits[_MINUTE_BYTES:])
    if rest >= _MINUTE_MS:
        raise CodecError(field, offset, f"second {rest // 1000} does not exist")
    return _parse_minute(digits, offset, field) + rest


@final
class TimestampCache:
    """Remembers what was formatted and parsed lately; held by the caller, so that nothing is global.

    The last timestamp of each direction is kept whole: packets that are sent together expire together.

    Expiries lie within the maximum hold time, so a few minutes cover all of them; a peer that sends others makes us
    start anew now and then, which costs what an uncached timestamp costs.
    """

    # Expiries in use at one time span the longest hold, a few minutes, and the clock skew of the peers.
    MINUTES_MAX: Final = 64

    def __init__(self) -> None:
        self.parsed: Final[dict[bytes, int]] = {}
        self.formatted: Final[dict[int, bytes]] = {}
        self._last_ms = 0
        self._last_text = encode_timestamp(0)
        self._read_text = self._last_text
        self._read_ms = 0

    def read(self, stamp: bytes, offset: int, field: str) -> int:
        """As `decode_timestamp`, of 17 bytes that stood at the offset."""
        if stamp != self._read_text:
            tail = stamp[_MINUTE_BYTES:]
            if not tail.isdigit():
                raise CodecError(field, offset, f"not {TIMESTAMP_BYTES} digits")
            rest = int(tail)
            if rest >= _MINUTE_MS:
                raise CodecError(field, offset, f"second {rest // 1000} does not exist")
            self._read_ms = self.minute_ms(stamp[:_MINUTE_BYTES], offset, field) + rest
            self._read_text = stamp
        return self._read_ms

    def minute_ms(self, minute: bytes, offset: int, field: str) -> int:
        """Give the milliseconds of `YYYYMMDDHHmm`; CodecError if there is no such minute."""
        ms = self.parsed.get(minute)
        if ms is None:
            if not minute.isdigit():
                raise CodecError(field, offset, f"not {TIMESTAMP_BYTES} digits")
            ms = _parse_minute(minute, offset, field)
            if len(self.parsed) >= self.MINUTES_MAX:
                self.parsed.clear()
            self.parsed[minute] = ms
        return ms

    def minute_text(self, minute: int) -> bytes:
        """Give `YYYYMMDDHHmm` for the minutes since 1970."""
        text = self.formatted.get(minute)
        if text is None:
            text = _format_minute(minute)
            if len(self.formatted) >= self.MINUTES_MAX:
                self.formatted.clear()
            self.formatted[minute] = text
        return text

    def encode(self, ms: int) -> bytes:
        """As `encode_timestamp`."""
        if ms != self._last_ms:
            minute, rest = divmod(ms, _MINUTE_MS)
            self._last_text = self.minute_text(minute) + b"%05d" % rest
            self._last_ms = ms
        return self._last_text

    def decode(self, data: bytes, offset: int, field: str) -> int:
        """As `decode_timestamp`."""
        stamp = data[offset : offset + TIMESTAMP_BYTES]
        if len(stamp) != TIMESTAMP_BYTES:
            raise CodecError(field, offset, f"not {TIMESTAMP_BYTES} digits")
        return self.read(stamp, offset, field)


def _format_minute(minute: int) -> bytes:
    days, of_day = divmod(minute, _MINUTES_PER_DAY)
    try:
        day = date.fromordinal(days + _EPOCH_DAY)
    except (ValueError, OverflowError):
        raise ValueError(f"minute {minute} is outside the years 1 to 9999") from None
    hour, minute_of_hour = divmod(of_day, 60)
    return b"%04d%02d%02d%02d%02d" % (day.year, day.month, day.day, hour, minute_of_hour)


def _parse_minute(digits: bytes, offset: int, field: str) -> int:
    """Read `YYYYMMDDHHmm`, known to be digits. Libraries roll month 13 or hour 24 over; we refuse them (P-3)."""
    hour = int(digits[8:10])
    minute = int(digits[10:12])
    if hour > 23 or minute > 59:
        raise CodecError(field, offset, f"{hour:02}:{minute:02} does not exist")
    try:
        day = date(int(digits[:4]), int(digits[4:6]), int(digits[6:8])).toordinal()
    except ValueError:
        raise CodecError(field, offset, "the date does not exist") from None
    return ((day - _EPOCH_DAY) * _MINUTES_PER_DAY + hour * 60 + minute) * _MINUTE_MS
