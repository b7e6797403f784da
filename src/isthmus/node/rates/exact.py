"""Rates as exact fractions: read from text, inverted, and crossed through a third currency. Never a float.

Pure, as all that judges a price: bytes and text in, fractions or an `AnswerError` out.
"""

import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Final, TypeAlias

DIGITS_MAX: Final = 30  # before the point, and after it
EXPONENT_MAX: Final = 30
# Beyond these no two things that people pay with have ever stood to each other.
RATE_MAX: Final = Fraction(10) ** DIGITS_MAX
RATE_MIN: Final = 1 / RATE_MAX
TEXT_CHARS_SHOWN: Final = 40

Codes: TypeAlias = tuple[str, str]  # how many of the second for one of the first
Quotes: TypeAlias = Mapping[Codes, Fraction]

_NUMBER: Final = re.compile(
    rf"([0-9]{{1,{DIGITS_MAX}}}(?:\.[0-9]{{1,{DIGITS_MAX}}})?)(?:[eE]([+-]?[0-9]{{1,2}}))?", re.ASCII
)


class AnswerError(Exception):
    """A source's answer, or one number in it, can't be used; the text says why, for the operator."""


def read_rate(text: str) -> Fraction:
    """A positive decimal number, with or without an exponent; AnswerError for anything else."""
    shown = text if len(text) <= TEXT_CHARS_SHOWN else f"{text[:TEXT_CHARS_SHOWN]}…"
    match = _NUMBER.fullmatch(text.strip())
    if match is None:
        raise AnswerError(f"{shown!r} is not a number of up to {DIGITS_MAX} digits each side of the point")
    exponent = int(match[2] or 0)
    if abs(exponent) > EXPONENT_MAX:
        raise AnswerError(f"{shown!r} is beyond all prices")
    rate = Fraction(match[1]) * Fraction(10) ** exponent
    if rate == 0:
        raise AnswerError(f"{shown!r} is not above zero")
    if not RATE_MIN <= rate <= RATE_MAX:
        raise AnswerError(f"{shown!r} is beyond all prices")
    return rate


def cross(quotes: Quotes, base: str, quote: str, through: str | None) -> Fraction | None:
    """The rate of a pair from one source's quotes; None if they don't tell it.

    In this order, so that the same quotes always give the same rate: the pair itself; the inverse of its way back;
    the product of both ways through the source's own currency, each of them direct or inverse.
    """
    found = direct(quotes, base, quote)
    if found is not None or through is None:
        return found
    first, second = direct(quotes, base, through), direct(quotes, through, quote)
    return None if first is None or second is None else first * second


def direct(quotes: Quotes, base: str, quote: str) -> Fraction | None:
    """A pair as quoted, or the inverse of its way back."""
    if base == quote:
        return Fraction(1)
    found = quotes.get((base, quote))
    if found is None:
        back = quotes.get((quote, base))
        found = None if back is None else 1 / back
    return found


def pair_text(codes: Codes) -> str:
    return f"{codes[0]}/{codes[1]}"


def split_pair(text: str) -> Codes | None:
    """Both codes of "BTC/USD"; None if it is no pair."""
    base, slash, quote = text.partition("/")
    if not (slash and base.strip() and quote.strip()) or "/" in quote:
        return None
    return base, quote


def decimal_text(rate: Fraction, digits: int = 12) -> str:
    """For people: so many significant digits, cut and never rounded up; the node uses the fraction."""
    if rate.denominator == 1:
        return str(rate.numerator)
    shift = 0
    while rate * 10**shift < 10 ** (digits - 1) and shift < DIGITS_MAX + digits:
        shift += 1
    scaled = rate.numerator * 10**shift // rate.denominator
    text = str(scaled).rjust(shift + 1, "0")
    whole, part = text[: len(text) - shift], text[len(text) - shift :].rstrip("0")
    return f"{whole}.{part}" if part else whole
