"""A timing wheel: what falls due when, with insertion and removal in constant time.

Outgoing legs live for milliseconds and expire after half a minute. A heap would keep each of them until its expiry
(three million at 100,000 packets a second); here a decided leg is gone at once, and so is a bucket without legs.
"""

from heapq import heappop, heappush
from typing import Final, final

from isthmus.connector.legs import OutgoingLeg

# A leg expires at most this much after its deadline, when nothing else happens in between.
GRAIN_BITS: Final = 3
GRAIN_MS: Final = 1 << GRAIN_BITS


@final
class TimingWheel:
    """Outgoing legs by their deadline (monotonic ms), in buckets of `GRAIN_MS`."""

    __slots__ = ("_buckets", "_order", "_queued")

    def __init__(self) -> None:
        self._buckets: Final[dict[int, dict[int, OutgoingLeg]]] = {}
        # Times of buckets, each at most once: bounded by the maximum hold divided by the grain, not by the legs.
        self._order: Final[list[int]] = []
        self._queued: Final[set[int]] = set()

    def __len__(self) -> int:
        return sum(len(bucket) for bucket in self._buckets.values())

    def __bool__(self) -> bool:
        """Asked in each call of the kernel: no bucket is empty, so there is nothing to count."""
        return bool(self._buckets)

    def add(self, leg: OutgoingLeg) -> None:
        at = leg.deadline >> GRAIN_BITS
        bucket = self._buckets.get(at)
        if bucket is None:
            self._buckets[at] = bucket = {}
            if at not in self._queued:
                self._queued.add(at)
                heappush(self._order, at)
        bucket[leg.id] = leg

    def discard(self, leg: OutgoingLeg) -> None:
        at = leg.deadline >> GRAIN_BITS
        bucket = self._buckets.get(at)
        if bucket is not None:
            bucket.pop(leg.id, None)
            if not bucket:
                # A dict keeps the size that it grew to, so empty ones must not pile up until their time.
                del self._buckets[at]

    def wakes_at(self) -> int | None:
        """When the earliest bucket is over; None without legs."""
        order = self._order
        while order:
            if order[0] in self._buckets:
                return (order[0] + 1) << GRAIN_BITS
            self._queued.discard(heappop(order))
        return None

    def due(self, now: int) -> list[OutgoingLeg]:
        """All legs with a deadline at or before `now`, earliest bucket first. They leave the wheel when decided."""
        legs: list[OutgoingLeg] = []
        last = now >> GRAIN_BITS
        order = self._order
        while order and order[0] < last:
            at = heappop(order)
            self._queued.discard(at)
            bucket = self._buckets.get(at)
            if bucket is not None:
                legs += bucket.values()
        bucket = self._buckets.get(last)
        if bucket is not None:
            # The bucket in progress keeps its place in the order; only some of its legs may be due.
            legs += [leg for leg in bucket.values() if leg.deadline <= now]
        return legs
