"""Octets in the journal's entries and states: what reads them, and the variable ones that are written."""

from struct import Struct
from struct import error as StructError
from typing import Any, Final, final

from isthmus.errors import CodecError
from isthmus.ilp.packet import truncate_utf8

TEXT_BYTES_MAX: Final = 1_000
# Of a transfer: a whole unit at the largest scale takes 106. A state has room for the sum of as many as will ever be.
TRANSFER_AMOUNT_BYTES_MAX: Final = 128


def encode_amount(amount: int) -> bytes:
    """A length (u8) and the amount, big-endian, without zeros before it."""
    assert 0 <= amount < 1 << (8 * TRANSFER_AMOUNT_BYTES_MAX)
    size = (amount.bit_length() + 7) // 8
    return bytes((size,)) + amount.to_bytes(size, "big")


def encode_text(text: str) -> bytes:
    """A length (u16) and the text, cut to `TEXT_BYTES_MAX` bytes."""
    encoded = truncate_utf8(text, TEXT_BYTES_MAX)
    return len(encoded).to_bytes(2, "big") + encoded


@final
class Reader:
    """Reads fields one after another; CodecError where the bytes end too early or make no sense."""

    __slots__ = ("at", "data")

    def __init__(self, data: bytes, at: int = 0) -> None:
        self.data: Final = data
        self.at = at

    def unpack(self, layout: Struct, field: str) -> tuple[Any, ...]:
        try:
            fields = layout.unpack_from(self.data, self.at)
        except StructError:
            raise CodecError(field, self.at, "the bytes end inside it") from None
        self.at += layout.size
        return fields

    def uint(self, size: int, field: str) -> int:
        end = self.at + size
        if end > len(self.data):
            raise CodecError(field, self.at, "the bytes end inside it")
        value = int.from_bytes(self.data[self.at : end], "big")
        self.at = end
        return value

    def octets(self, prefix_bytes: int, field: str) -> bytes:
        """Bytes with their length before them."""
        length = self.uint(prefix_bytes, field)
        return self.fixed(length, field)

    def fixed(self, length: int, field: str) -> bytes:
        end = self.at + length
        if end > len(self.data):
            raise CodecError(field, self.at, f"{length} bytes, beyond the end")
        value = self.data[self.at : end]
        self.at = end
        return value

    def text(self, prefix_bytes: int, field: str) -> str:
        at = self.at
        try:
            return self.octets(prefix_bytes, field).decode()
        except UnicodeDecodeError:
            raise CodecError(field, at, "not UTF-8") from None

    def amount(self, field: str) -> int:
        """What `encode_amount` wrote."""
        octets = self.octets(1, field)
        if len(octets) > TRANSFER_AMOUNT_BYTES_MAX:
            raise CodecError(field, self.at, f"{len(octets)} bytes, more than {TRANSFER_AMOUNT_BYTES_MAX}")
        return int.from_bytes(octets, "big")

    def integer(self, field: str) -> int:
        """A signed integer of any size: u8 length, two's complement."""
        return int.from_bytes(self.octets(1, field), "big", signed=True)


def encode_integer(value: int) -> bytes:
    """A signed integer of up to 255 bytes: u8 length, two's complement."""
    size = (value.bit_length() + 8) // 8
    return bytes((size,)) + value.to_bytes(size, "big", signed=True)
