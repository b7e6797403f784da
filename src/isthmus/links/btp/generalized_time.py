"""GeneralizedTime, the time of day in BTP errors (RFC 0030; X.696). ILP's 17 digits are another format (P-13).

On the wire `YYYYMMDDHHmmSS[.f]Z`: at most three decimals, and second 60 is legal (OER-14). A time is an `int`, wall
ms since 1970-01-01 UTC, on which a leap second is the one after it.
"""

import re
from typing import Final

from isthmus.errors import CodecError
from isthmus.ilp.timestamp import TIMESTAMP_MAX, decode_timestamp, encode_timestamp

GENERALIZED_TIME_BYTES_MAX: Final = 19  # 14 digits, ".", 3 decimals, "Z"

_FORM: Final = re.compile(rb"([0-9]{12})([0-9]{2})(?:\.([0-9]{1,3}))?Z")


def encode_generalized_time(ms: int) -> bytes:
    """Give a time that is canonical and has three decimals, so at most one millisecond late.

    Canonical means no trailing zeros; the JavaScript reader needs exactly three decimals. A last digit that isn't
    zero is both (OER-15).
    """
    digits = encode_timestamp(ms if ms % 10 else ms + 1)
    return digits[:14] + b"." + digits[14:] + b"Z"


def decode_generalized_time(data: bytes, field: str, offset: int) -> int:
    """Read a whole GeneralizedTime; `offset` is only for the error.

    Three decimals may end in zeros, as the JavaScript and Rust writers emit them (OER-15); one or two may not.
    """
    match = _FORM.fullmatch(data) if len(data) <= GENERALIZED_TIME_BYTES_MAX else None
    if match is None:
        raise CodecError(field, offset, "not a GeneralizedTime in UTC")
    minute, second, decimals = match[1], int(match[2]), match[3] or b""
    if second > 60:
        raise CodecError(field, offset, f"second {second} does not exist")
    if decimals.endswith(b"0") and len(decimals) < 3:
        raise CodecError(field, offset, "trailing zeros in the fraction")
    try:
        ms = decode_timestamp(minute + b"00000", 0, field) + second * 1000 + int(decimals.ljust(3, b"0"))
    except CodecError as error:
        raise CodecError(field, offset, error.problem) from None
    if ms > TIMESTAMP_MAX:  # the leap second at the end of 9999
        raise CodecError(field, offset, "after the year 9999")
    return ms
