"""What an account counts in: an asset's code and scale, and amounts as people write them.

Inside, amounts are integers in units of 10^-scale (RFC 0027, "Amounts"). This module turns them into "0.015 BTC" and
back, exactly: no floats, no rounding.
"""

from dataclasses import dataclass
from typing import Final

SCALE_MAX: Final = 255
# Longer than any sum that a person types; int() is quadratic in the digits.
AMOUNT_TEXT_MAX: Final = 400


@dataclass(slots=True, frozen=True)
class Asset:
    """An asset code ("BTC") and the number of decimal places that one unit stands for."""

    code: str
    scale: int

    def __post_init__(self) -> None:
        if not 0 <= self.scale <= SCALE_MAX:
            raise ValueError(f"an asset scale is 0 to {SCALE_MAX}, not {self.scale}")


def format_decimal(amount: int, scale: int) -> str:
    """Write base units as a decimal number without trailing zeros: 1500000 at scale 8 is "0.015"."""
    sign = "-" if amount < 0 else ""
    digits = str(abs(amount)).rjust(scale + 1, "0")
    whole = digits[: len(digits) - scale]
    fraction = digits[len(digits) - scale :].rstrip("0")
    return f"{sign}{whole}.{fraction}" if fraction else f"{sign}{whole}"


def format_amount(amount: int, asset: Asset) -> str:
    """Write an amount for people: "0.015 BTC"."""
    return f"{format_decimal(amount, asset.scale)} {asset.code}"


def parse_amount(text: str, asset: Asset) -> int:
    """Read a non-negative decimal number ("0.015", "0.015 BTC") as base units; ValueError says what is wrong.

    Digits with one optional point: no sign, exponent or separators, for what they mean differs by country.
    """
    if len(text) > AMOUNT_TEXT_MAX:
        raise ValueError(f"an amount has at most {AMOUNT_TEXT_MAX} characters")
    number, _, code = text.strip().partition(" ")
    if code and code.strip() != asset.code:
        raise ValueError(f"the amount is in {code.strip()}, not in {asset.code}")
    whole, point, fraction = number.partition(".")
    # isdecimal alone would accept the digits of other scripts.
    digits = whole + fraction
    if not (digits.isascii() and digits.isdecimal()) or not whole or (point and not fraction):
        raise ValueError(f"{text.strip()!r} is not an amount; write it like 12.5")
    significant = fraction.rstrip("0")
    if len(significant) > asset.scale:
        raise ValueError(
            f"{number} has {len(significant)} decimals, but {asset.code} has {asset.scale} here: "
            f"the smallest amount is {format_amount(1, asset)}"
        )
    unit: int = 10**asset.scale
    return int(whole) * unit + int(significant.ljust(asset.scale, "0") or "0")
