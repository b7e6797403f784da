"""The envelope around one batch of entries: what identifies it, and what shows that it was not changed.

    version      u8    1
    journal id   16 bytes
    shard id     u32
    sequence     u64   1, 2, 3, … without gaps
    length       u32
    entries      `length` bytes, the codec of connector/record.py
    checksum     u32   CRC-32 of everything before it

All integers are big-endian. The checksum says whether this envelope is whole, without looking at another one. The
digest says whether the whole journal is: `digest(n) = SHA-256(digest(n-1) | envelope(n))`, and the first one hashes
the journal's id and shard, so that batches can't be moved, dropped or reordered unseen.
Pure: bytes in, values out. What the entries mean is left to connector/record.py.
"""

import struct
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, final
from zlib import crc32

from isthmus.errors import CodecError

ENVELOPE_VERSION: Final = 1
JOURNAL_ID_BYTES: Final = 16
DIGEST_BYTES: Final = 32
SHARD_ID_MAX: Final = 2**32 - 1
# SQLite's integers are signed; a journal with 2^63 batches isn't going to be written.
SEQUENCE_MAX: Final = 2**63 - 1
# One turn of the kernel is far below this; a length above it is damage, and must not make anybody allocate.
ENTRIES_BYTES_MAX: Final = 64 * 1024 * 1024

_HEAD: Final = struct.Struct(">B16sIQI")
_CHECKSUM: Final = struct.Struct(">I")
ENVELOPE_OVERHEAD_BYTES: Final = _HEAD.size + _CHECKSUM.size


@final
@dataclass(slots=True)
class Envelope:
    """One batch with its identity: (journal id, shard id, sequence) name it for ever."""

    journal_id: bytes  # 16 bytes
    shard_id: int
    sequence: int
    entries: bytes


def encode_envelope(journal_id: bytes, shard_id: int, sequence: int, entries: bytes) -> bytes:
    """Raises ValueError if our own arguments are out of range."""
    if len(journal_id) != JOURNAL_ID_BYTES:
        raise ValueError(f"a journal id has {JOURNAL_ID_BYTES} bytes, not {len(journal_id)}")
    if not 0 <= shard_id <= SHARD_ID_MAX:
        raise ValueError(f"the shard id {shard_id} is not in 0..{SHARD_ID_MAX}")
    if not 1 <= sequence <= SEQUENCE_MAX:
        raise ValueError(f"the sequence {sequence} is not in 1..{SEQUENCE_MAX}")
    if len(entries) > ENTRIES_BYTES_MAX:
        raise ValueError(f"{len(entries)} bytes of entries are more than {ENTRIES_BYTES_MAX}")
    head = _HEAD.pack(ENVELOPE_VERSION, journal_id, shard_id, sequence, len(entries))
    return b"".join((head, entries, _CHECKSUM.pack(crc32(entries, crc32(head)))))


def decode_envelope(data: bytes) -> Envelope:
    """The envelope that fills `data`; anything else, a single changed bit included, is a CodecError."""
    envelope, end = read_envelope(data, 0)
    if end != len(data):
        raise CodecError("envelope", end, f"{len(data) - end} bytes follow")
    return envelope


def read_envelope(data: bytes, offset: int) -> tuple[Envelope, int]:
    """The envelope at `offset`, and the offset after it (archive files hold one after the other)."""
    head_end = offset + _HEAD.size
    if head_end > len(data):
        raise CodecError("envelope", offset, f"{len(data) - offset} bytes are fewer than a head of {_HEAD.size}")
    version, journal_id, shard_id, sequence, length = _HEAD.unpack_from(data, offset)
    if version != ENVELOPE_VERSION:
        raise CodecError("version", offset, f"{version} is not known here (this isthmus writes {ENVELOPE_VERSION})")
    if length > ENTRIES_BYTES_MAX:
        raise CodecError("length", head_end - 4, f"{length} is more than {ENTRIES_BYTES_MAX}")
    entries_end = head_end + length
    end = entries_end + _CHECKSUM.size
    if end > len(data):
        raise CodecError("entries", head_end, f"{length} bytes and a checksum are announced, {len(data)} are there")
    (checksum,) = _CHECKSUM.unpack_from(data, entries_end)
    if checksum != crc32(memoryview(data)[offset:entries_end]):
        raise CodecError("checksum", entries_end, "it does not fit the bytes before it")
    if not 1 <= sequence <= SEQUENCE_MAX:
        raise CodecError("sequence", offset + 21, f"{sequence} is not in 1..{SEQUENCE_MAX}")
    return Envelope(journal_id, shard_id, sequence, data[head_end:entries_end]), end


def first_digest(journal_id: bytes, shard_id: int) -> bytes:
    """The digest of a journal without a batch; the chain starts here."""
    return sha256(b"isthmus journal\x00" + journal_id + shard_id.to_bytes(4, "big")).digest()


def next_digest(previous: bytes, envelope: bytes) -> bytes:
    """The digest after one more envelope. Two updates: joining the two would copy the batch."""
    digest = sha256(previous)
    digest.update(envelope)
    return digest.digest()


def checkpoint_checksum(journal_id: bytes, shard_id: int, sequence: int, digest: bytes, state: bytes) -> bytes:
    """Binds a state to the journal, the batch and the chain that it stands for."""
    head = sha256(b"isthmus checkpoint\x00" + journal_id + shard_id.to_bytes(4, "big") + sequence.to_bytes(8, "big"))
    head.update(digest)
    head.update(state)
    return head.digest()
