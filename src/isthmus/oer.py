"""Octet Encoding Rules: the part of ITU-T X.696 that Interledger uses (RFC 0030).

Readers take the whole buffer and an offset, and give a value and the offset after it. They raise `CodecError` with
the absolute offset of the fault and nothing else, whatever the bytes; no length or count from outside is trusted
before it was compared with the bytes that remain. Encoders raise `ValueError` on our own misuse.
"""

from typing import Final

from isthmus.errors import CodecError

U8_MAX: Final = 2**8 - 1
U32_MAX: Final = 2**32 - 1
U64_MAX: Final = 2**64 - 1

# More would announce above 2^64 bytes (OER-4).
LENGTH_OF_LENGTH_MAX: Final = 8


def read_length(data: bytes, offset: int, field: str) -> tuple[int, int]:
    """Read a length determinant and check that as many bytes follow. Only the shortest form is legal (OER-4)."""
    size = len(data)
    if not 0 <= offset < size:
        raise CodecError(field, offset, "the length is missing")
    first = data[offset]
    start = offset + 1
    if first < 0x80:
        length = first
    else:
        count = first & 0x7F
        if count == 0:
            raise CodecError(field, offset, "the length has no bytes (0x80)")
        if count > LENGTH_OF_LENGTH_MAX:
            raise CodecError(field, offset, f"a length of {count} bytes, more than {LENGTH_OF_LENGTH_MAX}")
        start += count
        if start > size:
            raise CodecError(field, offset, "the length is cut off")
        length = int.from_bytes(data[offset + 1 : start], "big")
        if length < 0x80 or data[offset + 1] == 0:
            raise CodecError(field, offset, "the length is not in its shortest form")
    if length > size - start:
        raise CodecError(field, offset, f"{length} bytes announced, {size - start} left")
    return length, start


def read_var_octets(data: bytes, offset: int, field: str) -> tuple[bytes, int]:
    """Read a length-prefixed octet string."""
    length, start = read_length(data, offset, field)
    end = start + length
    return data[start:end], end


def read_var_octets_max(data: bytes, offset: int, field: str, size_max: int) -> tuple[bytes, int]:
    """Read a length-prefixed octet string of at most `size_max` bytes; a longer one is not copied."""
    length, start = read_length(data, offset, field)
    if length > size_max:
        raise CodecError(field, offset, f"{length} bytes, more than {size_max}")
    end = start + length
    return data[start:end], end


def read_var_uint(data: bytes, offset: int, field: str) -> tuple[int, int]:
    """Read a VarUInt: a length, then the magnitude without leading zeros; zero is `01 00` (OER-5).

    The value is unbounded by the format; here the bytes that are left bound it.
    """
    if offset + 1 < len(data) and offset >= 0 and data[offset] == 1:
        return data[offset + 1], offset + 2
    length, start = read_length(data, offset, field)
    if length == 0:
        raise CodecError(field, offset, "a VarUInt without bytes")
    if length > 1 and data[start] == 0:
        raise CodecError(field, offset, "a VarUInt with a leading zero")
    end = start + length
    return int.from_bytes(data[start:end], "big"), end


def read_uint(data: bytes, offset: int, size: int, field: str) -> tuple[int, int]:
    """Read a big-endian unsigned integer of `size` bytes."""
    end = offset + size
    if offset < 0 or end > len(data):
        raise CodecError(field, offset, f"{size} bytes expected, {max(0, len(data) - offset)} left")
    return int.from_bytes(data[offset:end], "big"), end


def read_octets(data: bytes, offset: int, size: int, field: str) -> tuple[bytes, int]:
    """Read `size` bytes that have no prefix."""
    end = offset + size
    if offset < 0 or end > len(data):
        raise CodecError(field, offset, f"{size} bytes expected, {max(0, len(data) - offset)} left")
    return data[offset:end], end


def encode_length(n: int) -> bytes:
    """Encode a length determinant: one byte up to and including 127 (OER-3), then `0x80 | n` and n bytes."""
    if 0 <= n < 0x80:
        return bytes((n,))
    if n < 0:
        raise ValueError(f"a length can't be negative: {n}")
    count = (n.bit_length() + 7) // 8
    if count > LENGTH_OF_LENGTH_MAX:
        raise ValueError(f"a length of {count} bytes can't be encoded")
    return bytes((0x80 | count,)) + n.to_bytes(count, "big")


def encode_var_octets(octets: bytes) -> bytes:
    """Encode a length-prefixed octet string."""
    return encode_length(len(octets)) + octets


def encode_var_uint(n: int) -> bytes:
    """Encode a VarUInt with the fewest bytes; zero takes one."""
    if 0 <= n < 0x100:
        return bytes((1, n))
    if n < 0:
        raise ValueError(f"a VarUInt can't be negative: {n}")
    count = (n.bit_length() + 7) // 8
    return encode_length(count) + n.to_bytes(count, "big")


def encode_uint(n: int, size: int) -> bytes:
    """Encode a big-endian unsigned integer of `size` bytes."""
    if not 0 <= n < 1 << (8 * size):
        raise ValueError(f"{n} does not fit into {size} unsigned bytes")
    return n.to_bytes(size, "big")
