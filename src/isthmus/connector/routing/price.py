"""What a way costs, told with its route: parts per million below mid rates, from the next hop to the prefix.

A property of ours, optional and transitive, so that others pass it on unread; ilp-connector drops it, and then the
price is unknown. It only breaks ties, and is not believed beyond its range: a neighbour may tell what it likes.
"""

from fractions import Fraction
from typing import Final

from isthmus.connector.tables import Conversion
from isthmus.ilp.ccp import RouteProp

# No ids are assigned (CCP-5); the value begins with a name, in case that others chose the same.
PRICE_PROP: Final = 0x6970
_NAME: Final = b"isthmus ppm "
_VALUE_BYTES: Final = 4
PRICE_BYTES: Final = 3 + 1 + len(_NAME) + _VALUE_BYTES  # what the property takes in a route
PPM: Final = 1_000_000
# A way that keeps more than half is not for use, and its price not to be believed.
PRICE_MAX: Final = PPM // 2
# Sorts behind every known price: unknown is never taken for nothing.
UNKNOWN: Final = PPM + 1


def read_price(props: tuple[RouteProp, ...]) -> int | None:
    """The price that a route tells, in ppm; None if it tells none, or none to be believed."""
    for prop in props:
        if prop.id == PRICE_PROP and prop.value.startswith(_NAME) and len(prop.value) == len(_NAME) + _VALUE_BYTES:
            ppm = int.from_bytes(prop.value[len(_NAME) :], "big")
            return ppm if ppm <= PRICE_MAX else None
    return None


def write_price(ppm: int) -> RouteProp:
    """The property with this price."""
    value = _NAME + ppm.to_bytes(_VALUE_BYTES, "big")
    return RouteProp(PRICE_PROP, value, is_optional=True, is_transitive=True, is_partial=False, is_utf8=False)


def without_price(props: tuple[RouteProp, ...]) -> tuple[RouteProp, ...]:
    """The other properties."""
    return tuple(prop for prop in props if prop.id != PRICE_PROP)


def add_prices(first: int, second: int) -> int:
    """What both together keep, rounded up: the second one takes from what the first one left."""
    return PPM - (PPM - first) * (PPM - second) // PPM


def spread_of(conversion: Conversion) -> int:
    """What we keep of an exchange, in ppm, rounded up."""
    return -((conversion.net - conversion.mid) * PPM // conversion.mid)


def ppm_of(spread: Fraction) -> int:
    """A spread in ppm, rounded up."""
    return -(-spread.numerator * PPM // spread.denominator)
