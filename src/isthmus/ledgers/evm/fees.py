"""What a transaction offers for its place in a block (EIP-1559). Pure; amounts are in wei for a unit of gas."""

from dataclasses import dataclass
from typing import Final, final

GWEI: Final = 10**9
# Nodes take a transaction in another's place only for 10 % more (geth's `pricebump`); some ask for 12.5 %.
BUMP_PERCENT: Final = 13


@final
@dataclass(slots=True, frozen=True)
class Fee:
    """`most` is paid at most, `tip` of it goes to whoever makes the block."""

    most: int
    tip: int

    def __post_init__(self) -> None:
        assert 0 <= self.tip <= self.most


@final
@dataclass(slots=True, frozen=True, kw_only=True)
class FeePolicy:
    """`most` bounds what we offer for the ordinary, `urgent` for what loses money if it is late."""

    tip: int = GWEI
    most: int = 200 * GWEI
    urgent: int = 2_000 * GWEI
    wait_ms: int = 60_000  # without a place in a block for this long, more is offered

    def bound(self, *, urgent: bool) -> int:
        return self.urgent if urgent else self.most

    def first(self, base: int, *, urgent: bool) -> Fee:
        """For a new transaction while blocks ask for `base`: enough for six full blocks that follow."""
        bound = self.bound(urgent=urgent)
        most = min(2 * base + self.tip, bound)
        return Fee(most, min(self.tip, most))

    def next(self, last: Fee, base: int, *, urgent: bool) -> Fee | None:
        """In the place of a transaction that waits; None if our bound allows no offer that nodes would take."""
        bound = self.bound(urgent=urgent)
        least = Fee(_bumped(last.most), _bumped(last.tip))
        if least.most > bound:
            return None
        fresh = self.first(base, urgent=urgent)
        most = max(least.most, fresh.most)
        return Fee(most, min(max(least.tip, fresh.tip), most))


def _bumped(amount: int) -> int:
    """Rounded up, so that it is enough; and more than nothing was."""
    return max(amount + 1, -(-amount * (100 + BUMP_PERCENT) // 100))
