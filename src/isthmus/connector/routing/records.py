"""What our own packets show of a hop for a prefix: how many came back fulfilled, how many didn't, and how fast.

A neighbour may tell what price it likes; this is what corrects it: where less arrives than senders accept, receivers
refuse (F99), and where there is no liquidity, hops do (T04). A hop that has no way rests (rests.py). Integers only,
halved with time, bounded: an old failure is forgiven, and no neighbour gains more by many packets than by some hundred.
"""

from typing import Final, final

HALF_LIFE_MS: Final = 30_000
# Of fulfilled packets every sixteenth is looked at, and counts for all of them; failures are rare and count each.
SAMPLE: Final = 16
# Packets that a record holds at most; beyond it old ones weigh less.
COUNT_MAX: Final = 4_096
# As if so many had been fulfilled before: one failure alone is no evidence.
PRIOR: Final = 128
# What a hop is put back by that fails every packet, in ppm of the price.
PENALTY_PPM: Final = 50_000
# And for each millisecond that a fulfillment takes, up to this many.
DELAY_PPM_PER_MS: Final = 2
DELAY_MS_MAX: Final = 10_000
# Smaller differences are chance.
STEP_PPM: Final = 500
_DELAY_WEIGHT: Final = 8


@final
class Record:
    """Of one hop and one prefix."""

    __slots__ = ("_at", "_delay", "bad", "good", "missed")

    def __init__(self, now: int) -> None:
        self.good = 0
        self.bad = 0
        self.missed = 0  # those of the bad ones that the receiver wanted more of
        self._delay = 0  # ms times `_DELAY_WEIGHT`, smoothed
        self._at = now

    def fulfilled(self, delay_ms: int, now: int) -> None:
        """One in `SAMPLE` fulfilled packets, and the time from its Prepare to its Fulfill."""
        self._decay(now)
        self.good += SAMPLE
        delay_ms = min(max(delay_ms, 0), DELAY_MS_MAX)
        if self._delay:
            self._delay += delay_ms - self._delay // _DELAY_WEIGHT
        else:
            self._delay = delay_ms * _DELAY_WEIGHT
        self._bound()

    def failed(self, now: int, *, is_short: bool = False) -> None:
        """A packet came back because the hop had no liquidity, or (`is_short`) the receiver wanted more of it."""
        self._decay(now)
        self.bad += 1
        self.missed += is_short
        self._bound()

    def _decay(self, now: int) -> None:
        periods = (now - self._at) // HALF_LIFE_MS
        if periods > 0:
            self.good >>= periods
            self.bad >>= periods
            self.missed >>= periods
            if not self.good:
                self._delay = 0
            self._at += periods * HALF_LIFE_MS

    def _bound(self) -> None:
        if self.good + self.bad > COUNT_MAX:
            self.good >>= 1
            self.bad >>= 1
            self.missed >>= 1

    def remembers(self, now: int) -> bool:
        """Whether anything is left of what packets showed."""
        self._decay(now)
        return self.good > 0 or self.bad > 0

    @property
    def delay_ms(self) -> int:
        return self._delay // _DELAY_WEIGHT

    def penalty(self, now: int) -> int:
        """What is added to the price that was told, in ppm, in whole steps."""
        self._decay(now)
        return _steps(self._share(self.bad) + self.delay_ms * DELAY_PPM_PER_MS)

    def shortfall(self, now: int) -> int:
        """The part of the penalty that is about the price: less arrived than was told."""
        self._decay(now)
        return _steps(self._share(self.missed))

    def _share(self, count: int) -> int:
        return count * PENALTY_PPM // (self.good + self.bad + PRIOR)


def _steps(ppm: int) -> int:
    return ppm - ppm % STEP_PPM
