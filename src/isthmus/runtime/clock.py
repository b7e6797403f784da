"""The real clock, read in one place. The pure core gets its time from here by way of the driver."""

import time

from isthmus.connector.events import Now


def system_now() -> Now:
    """Wall and monotonic time in milliseconds."""
    return Now(time.time_ns() // 1_000_000, time.monotonic_ns() // 1_000_000)


def mono_ms() -> int:
    return time.monotonic_ns() // 1_000_000


def mono_ns() -> int:
    """For measuring round trips."""
    return time.monotonic_ns()
