"""Entries of settlement engines' steps wait a moment for packets to become durable with.

A commit of their own would cost as much as one for a hundred packets. They wait only where packets flow, and only
while nothing else is in the open batch.
"""

from typing import Final, final

# So long at least, if the last packets came within as long. It is added to a claim's way, not to a packet's.
STEP_WAIT_MS: Final = 5
# At most, where packets come in batches that are further apart: twice as long as from the last but one to the last.
STEP_WAIT_MS_MAX: Final = 20


@final
class StepPause:
    """Of one kernel. Sizes are those of the open batch's record, in bytes; times are monotonic milliseconds."""

    __slots__ = ("_flowed_at", "_gap", "_size", "_until")

    def __init__(self) -> None:
        self._flowed_at = -STEP_WAIT_MS_MAX  # when a batch with packets was appended last
        self._gap = 0  # how long after the one before; 0 if nothing flowed then
        self._size = 0  # while only steps are in the batch
        self._until = 0

    def booked(self, before: int | None, size: int, now: int) -> None:
        """A step has made the batch so large; `before`: what it had, None for nothing."""
        if before is None:
            wait = min(max(STEP_WAIT_MS, 2 * self._gap), STEP_WAIT_MS_MAX)
            self._until = now + (wait if now - self._flowed_at < wait else 0)
        elif before != self._size:
            return
        self._size = size

    def holds(self, size: int, now: int) -> bool:
        """Whether nothing but steps is in the batch, which packets are soon to join."""
        return now < self._until and size == self._size

    def appended(self, size: int, now: int, *, has_frames: bool) -> None:
        """The batch is on its way to the disk."""
        if has_frames and size != self._size:
            gap = now - self._flowed_at
            self._gap = gap if gap < STEP_WAIT_MS_MAX else 0
            self._flowed_at = now
        self._size = self._until = 0

    def wakes_at(self) -> int | None:
        """When steps have waited long enough."""
        return self._until if self._size else None
