"""ILP addresses and prefixes (RFC 0015).

Addresses are compared byte by byte, case-sensitively and without normalisation (ADDR-4). A *prefix* is something
else than an address: a bare scheme (`g`) and the empty default route are prefixes and never addresses (ADDR-9).
"""

import re
from typing import Final

from isthmus.errors import CodecError

ADDRESS_BYTES_MAX: Final = 1023

SCHEMES: Final = ("g", "private", "example", "peer", "self", "test", "test1", "test2", "test3", "local")
TEST_SCHEMES: Final = ("test", "test1", "test2", "test3")
# Never routed across an administrative boundary (ADDR-7).
BOUNDED_SCHEMES: Final = ("self", "local", "private", "example")

# Used with fullmatch only: `$` would accept a trailing newline (P-2). [0-9] and not \d: \d matches other digits too.
_ADDRESS: Final = re.compile(r"(?:g|private|example|peer|self|test[1-3]?|local)(?:\.[a-zA-Z0-9_~-]+)+")
_PREFIX: Final = re.compile(r"(?:g|private|example|peer|self|test[1-3]?|local)(?:\.[a-zA-Z0-9_~-]+)*")


def is_valid(address: str) -> bool:
    """Whether this is an address that a packet may be sent to: a scheme and at least one segment (ADDR-1 to 3)."""
    # The length first, so that a huge string is not scanned. The pattern is ASCII: characters are bytes.
    return len(address) <= ADDRESS_BYTES_MAX and _ADDRESS.fullmatch(address) is not None


def is_valid_prefix(prefix: str) -> bool:
    """Whether this can stand in a routing table: an address, a bare scheme, or "" for the default (ADDR-9)."""
    return not prefix or (len(prefix) <= ADDRESS_BYTES_MAX and _PREFIX.fullmatch(prefix) is not None)


def parse_address(address: bytes | str, field: str = "address", offset: int = 0) -> str:
    """Give a valid address as text, or raise CodecError."""
    size = len(address)
    if size > ADDRESS_BYTES_MAX:
        raise CodecError(field, offset, f"an address of {size} bytes, more than {ADDRESS_BYTES_MAX}")
    # Latin-1 never fails, and the pattern then admits ASCII only.
    text = address if isinstance(address, str) else address.decode("latin-1")
    if _ADDRESS.fullmatch(text) is None:
        raise CodecError(field, offset, "not an ILP address" if size else "an empty address")
    return text


def is_prefix_of(prefix: str, address: str) -> bool:
    """Whether the prefix covers the address, on segment boundaries: `g.alice` covers `g.alice.1`, not `g.alicex`."""
    if not prefix:
        return True
    return address.startswith(prefix) and (len(address) == len(prefix) or address[len(prefix)] == ".")


def scheme_of(address: str) -> str:
    """The first segment: what kind of address this is (RFC 0015, "Allocation Schemes")."""
    return address.partition(".")[0]


def is_test(address: str) -> bool:
    """Whether the address belongs to a test network (ADDR-6)."""
    return scheme_of(address) in TEST_SCHEMES


def append_segments(base: str, *segments: str) -> str:
    """Give the address below `base`; ValueError if the whole is no address, as when it gets too long (ADDR-11)."""
    address = ".".join((base, *segments))
    if not is_valid(address):
        raise ValueError(f"not an ILP address, or longer than {ADDRESS_BYTES_MAX} bytes: {address[:80]!r}")
    return address
