"""Token buckets in integers: no float, so no drift, and the same decisions on replayed time."""

from typing import Final, final


@final
class TokenBucket:
    """Lets `amount` tokens pass in each `period_ms`, and `burst` at once after a pause.

    The level is kept in tokens times `period_ms`, so that a millisecond's refill is the whole number `amount`.
    """

    __slots__ = ("_at", "_full", "_level", "amount", "burst", "period_ms")

    def __init__(self, *, amount: int, period_ms: int, burst: int, now: int) -> None:
        assert amount > 0
        assert period_ms > 0
        assert burst > 0
        self.amount: Final = amount
        self.period_ms: Final = period_ms
        self.burst: Final = burst
        self._full: Final = burst * period_ms
        self._level = self._full
        self._at = now

    def has(self, tokens: int, now: int) -> bool:
        """Whether this many may pass at `now` (monotonic ms); takes nothing."""
        elapsed = now - self._at
        if elapsed > 0:
            self._at = now
            level = self._level + elapsed * self.amount
            self._level = min(self._full, level)
        return tokens * self.period_ms <= self._level

    def take(self, tokens: int) -> None:
        """Take what `has` just allowed."""
        self._level -= tokens * self.period_ms
        assert self._level >= 0

    def carry_over(self, before: "TokenBucket", now: int) -> None:
        """New terms came: go on with what the old bucket had left, so that a reload is no second burst."""
        before.has(0, now)
        left = before._level * self.period_ms // before.period_ms
        self._level = min(self._full, left)
        self._at = now
