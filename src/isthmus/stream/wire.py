"""The short cuts past the frame codec for the packets that make up nearly all traffic.

A money packet is a head (version, type, sequence), the minimum, and one StreamMoney frame; its answer a head, the
amount that arrived, and no frames. Whatever doesn't look exactly so goes through `stream/packet.py`.
"""

from collections.abc import Callable
from typing import Final, final

from isthmus.ilp.packet import FULFILL, PREPARE, REJECT
from isthmus.stream.crypto import IV_BYTES
from isthmus.stream.packet import STREAM_MONEY, VERSION

_IVS: Final = 64  # drawn at once; a system call for each would cost as much as the encryption

PREPARE_HEAD: Final = bytes((VERSION, PREPARE))
FULFILL_HEAD: Final = bytes((VERSION, FULFILL))
REJECT_HEAD: Final = bytes((VERSION, REJECT))
NO_FRAMES: Final = b"\x01\x00"
_ONE_MONEY_FRAME: Final = b"\x01\x01" + bytes((STREAM_MONEY,))


@final
class IvSource:
    """Initialisation vectors: 12 random bytes each, none given twice."""

    __slots__ = ("_at", "_pool", "_random_bytes")

    def __init__(self, random_bytes: Callable[[int], bytes]) -> None:
        self._random_bytes = random_bytes
        self._pool = b""
        self._at = 0

    def next(self) -> bytes:
        at = self._at
        if at >= len(self._pool):
            self._pool = self._random_bytes(IV_BYTES * _IVS)
            at = 0
        self._at = at + IV_BYTES
        return self._pool[at : at + IV_BYTES]


def var_uint(n: int) -> bytes:
    """A VarUInt of up to 127 bytes."""
    if n < 0x100:
        return bytes((1, n))
    size = (n.bit_length() + 7) >> 3
    return bytes((size,)) + n.to_bytes(size, "big")


def money_tail(minimum: int, stream_id: int, shares: int) -> bytes:
    """What follows the sequence in a money packet."""
    frame = var_uint(stream_id) + var_uint(shares)
    return var_uint(minimum) + _ONE_MONEY_FRAME + bytes((len(frame),)) + frame


def read_head(plaintext: bytes) -> tuple[int, int, int]:
    """(sequence, amount, offset of the frames) of a packet whose version and type were compared.

    The offset is 0 if the numbers are not in their usual form: then the codec decides.
    """
    if len(plaintext) < 8:
        return 0, 0, 0
    size = plaintext[2]
    middle = 3 + size
    if not 1 <= size <= 8 or middle >= len(plaintext) or (plaintext[3] == 0 and size > 1):
        return 0, 0, 0
    sequence = int.from_bytes(plaintext[3:middle], "big")
    size = plaintext[middle]
    end = middle + 1 + size
    if not 1 <= size <= 8 or end >= len(plaintext) or (plaintext[middle + 1] == 0 and size > 1):
        return 0, 0, 0
    return sequence, int.from_bytes(plaintext[middle + 1 : end], "big"), end
