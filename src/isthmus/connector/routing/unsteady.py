"""Prefixes whose choice goes back and forth, so that neighbours' relations choose for them no longer.

Networks come to rest if all tell parents only what CCP-17 says. A child that hands its parents' routes up can make
its parents change their minds for ever: each prefers the way through the child for as long as the other one doesn't.
One such child is enough. Whoever goes by the path's length, after the operator's own preference, can't be part of such
a circle: around it lengths would have to grow. So a prefix that goes back and forth is chosen for without relations for
a while, by whoever sees it.

Only changes to a hop of a better relation count: what never comes to rest has a node where these never end. For where
they do end each node's relation stays, and then lengths alone decide. What a fallen node leaves behind is many changes
in a row, too, but to longer paths and worse relations, until nobody has a way to it.
"""

from collections import OrderedDict
from typing import Final, TypeAlias, final

# Preference and relation as they are compared: the lower is the better.
Rank: TypeAlias = tuple[int, int]
# So many changes to a better relation in a row, each change of the row within this time of the one before, and a prefix
# is unsteady. docs/routing.md has what was measured of honest networks.
RETURNS: Final = 6
WITHIN_MS: Final = 10_000
# For so long after its last change.
UNSTEADY_MS: Final = 300_000
# Prefixes whose changes are counted, and unsteady ones. Beyond it no others are until some have gone: those that are
# counted go on, so that a crowd can't keep them all from being counted to the end.
WATCHED_MAX: Final = 10_000
UNSTEADY_MAX: Final = 100_000
# Old counts that are dropped with each new change.
_DROPPED: Final = 2


@final
class Unsteady:
    """Counts changes by prefix. Times are monotonic milliseconds."""

    __slots__ = ("_counts", "_until", "most")

    def __init__(self) -> None:
        # The one whose last change is the oldest comes first, in both.
        self._counts: Final[OrderedDict[str, tuple[int, Rank, int]]] = (
            OrderedDict()
        )  # prefix -> (returns, last hop, at)
        self._until: Final[OrderedDict[str, int]] = OrderedDict()
        self.most = 0  # changes of one prefix to a better relation in a row, since we run

    def __contains__(self, prefix: str) -> bool:
        return prefix in self._until

    def __len__(self) -> int:
        return len(self._until)

    def changed(self, prefix: str, rank: Rank, now: int, *, is_new: bool = False) -> bool:
        """Its next hop is another one, of this rank; True if that makes it unsteady now.

        `is_new`: it had none just before, which is no news of a prefix that isn't counted.
        """
        if prefix in self._until:
            self._until[prefix] = now + UNSTEADY_MS
            self._until.move_to_end(prefix)
            return False
        if is_new and prefix not in self._counts:
            return False
        self._drop_old(now)
        count, before, at = self._counts.pop(prefix, (0, rank, now))
        if now - at > WITHIN_MS:
            count = 0
        elif rank[0] == before[0] and rank[1] < before[1]:
            count += 1
        self.most = max(self.most, count)
        if count >= RETURNS and len(self._until) < UNSTEADY_MAX:
            self._until[prefix] = now + UNSTEADY_MS
            return True
        if len(self._counts) < WATCHED_MAX:
            self._counts[prefix] = (count, rank, now)
        return False

    def _drop_old(self, now: int) -> None:
        counts = self._counts
        for _ in range(_DROPPED):
            if not counts:
                return
            first = next(iter(counts))
            if now - counts[first][2] <= WITHIN_MS:
                return
            del counts[first]

    def left_ms(self, prefix: str, now: int) -> int:
        """How long it stays unsteady if it changes no more; 0 for a steady one."""
        return max(0, self._until.get(prefix, now) - now)

    def wakes_at(self) -> int | None:
        """When the next one is steady again."""
        return self._until[next(iter(self._until))] if self._until else None

    def end_old(self, now: int, budget: int) -> list[str]:
        """Up to so many prefixes that are steady from now on: they are to be chosen for anew."""
        ended: list[str] = []
        until = self._until
        while until and len(ended) < budget and until[first := next(iter(until))] <= now:
            del until[first]
            ended.append(first)
        return ended
