"""Archive files: batches that left the journal, for whoever wants to keep all of them.

    magic        15 bytes "isthmus archive"
    version      u8       1
    digest       32 bytes of the chain before the first batch
    envelopes    one after the other, as record.py writes them
    digest       32 bytes of the chain after the last batch

A file is named by the sequences that it holds, and is whole and synced before its batches leave the journal.
"""

import os
from collections.abc import Iterator
from typing import Final

from isthmus.errors import CodecError, JournalError
from isthmus.journal.reader import JournalReader
from isthmus.journal.record import DIGEST_BYTES, Envelope, next_digest, read_envelope

ARCHIVE_VERSION: Final = 1
_HEAD: Final = b"isthmus archive" + bytes((ARCHIVE_VERSION,))
# Nobody needs one file of years; a reader takes a file into memory whole.
FILE_BYTES_MAX: Final = 64 * 1024 * 1024


def archive_name(first: int, last: int) -> str:
    return f"batches-{first:020}-{last:020}.isthmus"


def write_archive(folder: str, reader: JournalReader, first: int, last: int) -> list[str]:
    """Write the batches from `first` to `last`, checked on the way; returns the files. Raises JournalError."""
    files = []
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        while first <= last:
            body, end = _take(reader, first, last)
            files.append(_write(folder, archive_name(first, end), body))
            first = end + 1
    except OSError as error:
        raise JournalError(f"{folder}: the archive can't be written: {error.strerror}; nothing was pruned") from error
    return files


def _take(reader: JournalReader, first: int, last: int) -> tuple[bytes, int]:
    """As many batches as one file takes, at least one; and the last of them."""
    digest = reader.digest_at(first - 1)
    parts = [_HEAD, digest]
    size_bytes = 0
    end = first
    for envelope, stored in reader.envelopes_from(first):
        if envelope.sequence > last or (size_bytes > 0 and size_bytes + len(stored) > FILE_BYTES_MAX):
            break
        digest = next_digest(digest, stored)
        parts.append(stored)
        size_bytes += len(stored)
        end = envelope.sequence
    parts.append(digest)
    return b"".join(parts), end


def _write(folder: str, name: str, body: bytes) -> str:
    path = os.path.join(folder, name)
    part = path + ".part"
    with open(part, "wb", opener=lambda file, flags: os.open(file, flags, 0o600)) as file:
        file.write(body)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)
    # The name must survive a power failure as well.
    directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
    return path


def read_archive(data: bytes) -> Iterator[Envelope]:
    """The batches of one file; raises CodecError where it isn't whole or its digests don't fit."""
    if not data.startswith(_HEAD):
        raise CodecError("archive", 0, "this is no archive of a journal, or of another version")
    offset = len(_HEAD) + DIGEST_BYTES
    digest = data[len(_HEAD) : offset]
    while offset + DIGEST_BYTES < len(data):
        envelope, end = read_envelope(data, offset)
        digest = next_digest(digest, data[offset:end])
        offset = end
        yield envelope
    if data[offset:] != digest:
        raise CodecError("digest", offset, "it does not fit the batches")
