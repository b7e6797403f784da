"""Hops that failed rest: for a prefix that another hop reaches too, that one goes first for a while.

Only what the packets themselves show counts. A Reject by a node under the prefix shows that the way was good: the
packet has reached its home. A rest doubles with each failure that follows, so that a hop doesn't flap; and one without
another hop to go to is none.
"""

from heapq import heappop, heappush
from typing import Final, final

from isthmus.connector.routing.rib import Candidate, Rib
from isthmus.errors import CodecError
from isthmus.ilp.address import is_prefix_of
from isthmus.ilp.packet import Reject, decode_reply

# Codes of a hop that has no way for what it announced: unreachable, broken, unknown.
FAILURES: Final = frozenset(("T00", "T01", "F02"))
REST_MS_FIRST: Final = 5_000
REST_MS_MAX: Final = 120_000
# A hop that failed no more for so long after its rest starts anew.
FORGIVEN_MS: Final = 120_000


@final
class Rests:
    """When rests end."""

    __slots__ = ("_ends",)

    def __init__(self) -> None:
        self._ends: Final[list[tuple[int, str]]] = []  # a heap: when, prefix

    def failed(self, rib: Rib, failed: Candidate, now: int) -> None:
        """A packet under its prefix failed at this hop."""
        prefix = failed.route.prefix
        if failed.rests(now) or len(rib.candidates(prefix)) < 2:
            return
        shown = rib.note(failed)
        if now > shown.rests_until + FORGIVEN_MS:
            shown.failures = 0
        shown.rests_until = now + min(REST_MS_MAX, REST_MS_FIRST << min(shown.failures, 6))
        shown.failures += 1
        rib.dirty[prefix] = None
        heappush(self._ends, (shown.rests_until, prefix))

    def wakes_at(self) -> int | None:
        """When the next rest ends."""
        return self._ends[0][0] if self._ends else None

    def tick(self, rib: Rib, now: int) -> None:
        """Those who have rested are chosen from again."""
        while self._ends and self._ends[0][0] <= now:
            rib.dirty[heappop(self._ends)[1]] = None


def is_from_home(reject: bytes, prefix: str) -> bool:
    """Whether a Reject was triggered under the prefix."""
    if not reject:
        return False
    try:
        found = decode_reply(reject)
    except CodecError:
        return False
    return isinstance(found, Reject) and is_prefix_of(prefix, found.triggered_by)
