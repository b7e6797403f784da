"""One writer per journal: an advisory lock on a file beside the database, held as long as the journal is open."""

import fcntl
import os
from typing import final

from isthmus.errors import JournalError


@final
class JournalInUseError(JournalError):
    """Another process has the journal."""


@final
class WriterLock:
    """`flock` ends with the process however it ends, so that a crash leaves nothing to clean up."""

    def __init__(self, journal_path: str) -> None:
        self.path = journal_path + ".lock"
        try:
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise JournalError(f"{self.path} can't be opened for writing: {error.strerror}") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.pread(self._file, 20, 0).decode("ascii", "replace").strip()
            os.close(self._file)
            raise JournalInUseError(
                f"{journal_path} is in use by another process{f' (pid {owner})' if owner else ''}; "
                "stop that one first, or give this node a data folder of its own"
            ) from error
        try:
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, b"%d\n" % os.getpid(), 0)
        except OSError:
            # The pid is for people only; a full disk is found, and named, by the first append.
            pass

    def release(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
