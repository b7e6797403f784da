"""A short time slice for the writer thread, where the kernel can give one (Linux 6.12 and newer).

A commit is many short naps: for the disk, for the GIL. Linux lets whoever runs go on to the end of its slice (some
3 ms) before a thread that woke gets its core, unless that thread asked for a shorter slice. On a machine whose cores
are all busy each nap cost up to a slice; asking brought two to three times the packets there (ADR 0003). It is no
priority: the thread's share of the processor stays what it was, and no privilege is needed.
"""

import os
import platform
import struct
import sys
from typing import Final

SLICE_NS: Final = 100_000  # the least that Linux grants

_SCHED_SETATTR: Final = {"x86_64": 314, "aarch64": 274}
# struct sched_attr: size, policy, flags, nice, priority, runtime (the slice), deadline, period, two clamps.
_ATTRIBUTES: Final = struct.Struct("@IIQiIQQQII")


def ask_for_short_slices() -> bool:
    """For the calling thread; False where it isn't possible, which costs speed on a busy machine and nothing else."""
    number = _SCHED_SETATTR.get(platform.machine())
    if sys.platform != "linux" or number is None or os.sched_getscheduler(0) != os.SCHED_OTHER:
        return False
    try:
        import ctypes

        system_call = ctypes.CDLL(None).syscall
    except (ImportError, OSError, AttributeError):
        return False  # a Python without ctypes, or a C library that has other ways
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    attributes = _ATTRIBUTES.pack(_ATTRIBUTES.size, os.SCHED_OTHER, 0, nice, 0, SLICE_NS, 0, 0, 0, 0)
    return bool(system_call(number, 0, attributes, 0) == 0)
