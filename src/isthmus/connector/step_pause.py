"""Entries of settlement engines' steps wait a moment for packets to become durable with.

A commit of their own would cost as much as one for a hundred packets. They wait only where packets flow, and only
while nothing else is in the open batch.
"""

from typing import Final, final

# So long, if the last packets came within as long. It is added to a claim's way, not to a packet's.
STEP_WAIT_MS: Final = 5


@final
class StepPause:
    """Of one kernel. Sizes are those of the open batch's record, in bytes; times are monotonic milliseconds."""

    __slots__ = ("_flowed_at", "_size", "_until")

    def __init__(self) -> None:
        self._flowed_at = -STEP_WAIT_MS  # when a batch with packets was appended last
        self._size = 0  # while only steps are in the batch
        self._until = 0

    def booked(self, before: int | None, size: int, now: int) -> None:
        """A step has made the batch so large; `before`: what it had, None for nothing."""
        if before is None:
            self._until = now + (STEP_WAIT_MS if now - self._flowed_at < STEP_WAIT_MS else 0)
        elif before != self._size:
            return
        self._size = size

    def holds(self, size: int, now: int) -> bool:
        """Whether nothing but steps is in the batch, which packets are soon to join."""
        return now < self._until and size == self._size

    def appended(self, size: int, now: int, *, has_frames: bool) -> None:
        """The batch is on its way to the disk."""
        if has_frames and size != self._size:
            self._flowed_at = now
        self._size = self._until = 0

    def wakes_at(self) -> int | None:
        """When steps have waited long enough."""
        return self._until if self._size else None
