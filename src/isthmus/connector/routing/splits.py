"""Where one hop lacks liquidity (T04), packets are divided over several: each goes to the best that has some.

Only over hops of one policy and relation, whose prices lie close together, so that the rate a sender was quoted holds
for each packet. A hop that lacked liquidity is left out for a moment, which doubles while it lacks it again. A packet
that was written is never sent again: what changes is where the next one goes.
"""

from typing import Final, final

from isthmus.connector.routing.rib import Candidate, Rib

SCARCE_MS_FIRST: Final = 50
SCARCE_MS_MAX: Final = 5_000
# A hop that had enough for so long after that starts anew.
ENOUGH_MS: Final = 10_000
# A prefix is divided for so long after the last T04.
SPLIT_MS: Final = 30_000
# Prefixes that are divided; beyond it the oldest isn't any more.
SPLITS_MAX: Final = 1_024


@final
class Splits:
    """Prefixes whose packets are divided now."""

    __slots__ = ("_until", "within_ppm")

    def __init__(self) -> None:
        self.within_ppm = 0
        self._until: Final[dict[bytes, int]] = {}  # oldest first

    def __bool__(self) -> bool:
        return bool(self._until)

    def __contains__(self, prefix: bytes) -> bool:
        return prefix in self._until

    def begin(self, rib: Rib, prefix: bytes, account: str, now: int) -> bool:
        """A hop lacked liquidity for a packet under this prefix; True if there is another that may have some."""
        alike = rib.alike(prefix.decode("ascii"), now, self.within_ppm)
        scarce = next((one for one in alike if one.source.account == account), None)
        if scarce is None or len(alike) < 2:
            return False
        shown = rib.note(scarce)
        if now > shown.scarce_until + ENOUGH_MS:
            shown.scarcities = 0
        if now >= shown.scarce_until:  # packets that were under way already say nothing new
            shown.scarce_until = now + min(SCARCE_MS_MAX, SCARCE_MS_FIRST << min(shown.scarcities, 8))
            shown.scarcities += 1
        self._until.pop(prefix, None)
        if len(self._until) >= SPLITS_MAX:
            del self._until[next(iter(self._until))]
        self._until[prefix] = now + SPLIT_MS
        return True

    def choose(self, rib: Rib, prefix: bytes, now: int) -> list[Candidate]:
        """Hops for the next packet, the best one first: those that have liquidity, then whoever lacks it for least."""
        alike = rib.alike(prefix.decode("ascii"), now, self.within_ppm)
        return sorted(alike, key=lambda one: one.scarce_until(now))

    def end_old(self, now: int) -> bool:
        """Forget those where nothing was scarce for a while; True if there were any."""
        until = self._until
        ended = False
        while until and until[first := next(iter(until))] <= now:
            del until[first]
            ended = True
        return ended

    def wakes_at(self) -> int | None:
        return next(iter(self._until.values()), None)
