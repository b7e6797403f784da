"""What a process that holds secrets and books asks of the operating system.

No core dumps: they would hold tokens and keys, and go wherever the machine sends them. Files for its user only,
whatever the umask was. As many file descriptors as it may have: the usual limit is below what listeners may take.
"""

import contextlib
import ctypes
import os
import resource
from typing import Final

PRIVATE_UMASK: Final = 0o077
# Places for strangers on three listeners are 832, and each known peer may have some hundred connections over HTTP.
DESCRIPTORS_WANTED: Final = 65_536
_PR_SET_DUMPABLE: Final = 4


def protect(*, allow_dumps: bool = False) -> None:
    """Call once, before secrets are read. What the system doesn't offer is left out."""
    os.umask(PRIVATE_UMASK)
    _take_descriptors()
    if not allow_dumps:
        _forbid_dumps()


def _take_descriptors() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS_WANTED if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS_WANTED)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _forbid_dumps() -> None:
    """Both: the limit holds for files and child processes, and is ignored where a program is given the dump.

    A process that isn't dumpable also shows its memory and environment to nobody but root.
    """
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(AttributeError, OSError):  # Linux only
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
