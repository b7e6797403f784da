"""Addresses, words and hashes as EVM chains write them. Addresses are texts of 42 characters, in lower case inside."""

import re
from functools import lru_cache
from typing import Final

from Crypto.Hash import keccak

from isthmus.errors import CodecError

ADDRESSES_MAX: Final = 256  # of keys, remembered: each claim of a channel is by the same
NO_ADDRESS: Final = "0x" + 40 * "0"
_ADDRESS: Final = re.compile(r"0x[0-9a-fA-F]{40}", re.ASCII)
_HEX: Final = re.compile(r"0x(?:[0-9a-fA-F]{2})*", re.ASCII)


def keccak256(data: bytes) -> bytes:
    """Keccak with 32 bytes, as it was before it became SHA-3."""
    return keccak.new(digest_bits=256, data=data).digest()


def parse_address(text: object, field: str = "address") -> str:
    """An address in lower case. One in mixed case must have the right checksum (ERC-55). CodecError."""
    if not isinstance(text, str) or _ADDRESS.fullmatch(text) is None:
        raise CodecError(field, 0, "not an address (0x and 40 hex digits)")
    digits = text[2:]
    if digits not in (digits.lower(), digits.upper()) and checksummed(text) != text:
        raise CodecError(field, 0, "the letters' cases are not this address's checksum: is a character wrong?")
    return text.lower()


def checksummed(address: str) -> str:
    """The address as people are shown it, with its checksum (ERC-55)."""
    digits = address[2:].lower()
    nibbles = keccak256(digits.encode()).hex()
    return "0x" + "".join(one.upper() if nibble >= "8" else one for one, nibble in zip(digits, nibbles, strict=False))


@lru_cache(maxsize=ADDRESSES_MAX)
def address_of(public_key: bytes) -> str:
    """The address of an uncompressed public key (65 bytes)."""
    assert len(public_key) == 65
    return "0x" + keccak256(public_key[1:])[-20:].hex()


def word(value: int | bytes | str) -> bytes:
    """32 bytes: a number, an address, or 32 bytes as they are."""
    if isinstance(value, int):
        return value.to_bytes(32, "big")
    if isinstance(value, str):
        return bytes(12) + bytes.fromhex(value[2:])
    assert len(value) == 32
    return value


def parse_hex(text: object, field: str, *, size: int | None = None, bytes_max: int = 1 << 20) -> bytes:
    """Bytes of a text with 0x, of this size if one is given. CodecError."""
    if not isinstance(text, str) or len(text) > 2 + 2 * bytes_max or _HEX.fullmatch(text) is None:
        raise CodecError(field, 0, "not 0x and pairs of hex digits")
    data = bytes.fromhex(text[2:])
    if size is not None and len(data) != size:
        raise CodecError(field, 0, f"{len(data)} bytes, not {size}")
    return data


def parse_quantity(text: object, field: str) -> int:
    """A number as JSON-RPC writes it, up to 2^256 - 1. CodecError."""
    if not isinstance(text, str) or re.fullmatch(r"0x[0-9a-fA-F]{1,64}", text, re.ASCII) is None:
        raise CodecError(field, 0, "not a hexadecimal number")
    return int(text, 16)


def hexed(data: bytes) -> str:
    """With 0x."""
    return "0x" + data.hex()
