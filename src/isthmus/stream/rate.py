"""Exchange rates of a path: the minimum that we insist on, and the rate that we see (RFC 0029 §3.4).

The minimum comes from outside the path (a price source, a number, a quote that a person confirmed), never from the
path itself. Everything is integers: a rate is destination units over source units, kept as two ints because
`Fraction` is too slow for each packet.
"""

from fractions import Fraction
from typing import Final, final

from isthmus.ilp.packet import AMOUNT_MAX

# A rate seen with a packet of less than half the size is less exact: it replaces the old one only after so many.
COARSE_REPLIES_MAX: Final = 8


def minimum_rate(price: Fraction, slippage: Fraction = Fraction(1, 100)) -> Fraction:
    """The minimum for a price from outside the path, `slippage` below it. Exact."""
    if price < 0 or not 0 <= slippage < 1:
        raise ValueError("a price is not negative, and slippage is at least 0 and below 1")
    return price * (1 - slippage)


@final
class MinimumRate:
    """The least that we accept, exactly."""

    __slots__ = ("denominator", "numerator")

    def __init__(self, rate: Fraction) -> None:
        if rate < 0:
            raise ValueError("a rate is not negative")
        self.numerator: Final = rate.numerator
        self.denominator: Final = rate.denominator

    def destination(self, amount: int) -> int:
        """The least that `amount` must deliver, rounded up: in the sender's favour."""
        return -(-amount * self.numerator // self.denominator)

    def source(self, amount: int) -> int:
        """The most that delivering `amount` may cost, rounded up to a whole unit; unbounded at a rate of 0."""
        return AMOUNT_MAX if self.numerator == 0 else -(-amount * self.denominator // self.numerator)

    def amount_max(self) -> int:
        """The largest source amount whose minimum can be written in a packet (2^64-1)."""
        if self.numerator == 0:
            return AMOUNT_MAX
        return min(AMOUNT_MAX, AMOUNT_MAX * self.denominator // self.numerator)

    def align(self, amount: int) -> int:
        """A little less, so that the minimum is a whole number and rounding on the way takes nothing from it.

        Matters for rates such as 1/1000 between scales, where a minimum rounded up could never be met.
        """
        rest = amount % self.denominator
        return amount - rest if rest * 100 <= amount else amount

    def accepts(self, amount: int, received: int) -> bool:
        """Whether `received` for `amount` meets the minimum, but for one unit lost by rounding on the way."""
        return (received + 1) * self.denominator > amount * self.numerator


@final
class PathRate:
    """What the path delivered for a packet of `amount`: the true rate lies in [received, received + 1) / amount."""

    __slots__ = ("_best_amount", "_best_received", "_coarse", "amount", "received")

    def __init__(self) -> None:
        self.amount = 0
        self.received = 0
        self._coarse = 0
        # The best rate that was seen with packets of about the largest size: smaller ones lose more to rounding.
        self._best_amount = 0
        self._best_received = 0

    @property
    def known(self) -> bool:
        return self.amount > 0

    def observe(self, amount: int, received: int) -> None:
        """Learn from an authenticated reply of the receiver."""
        if amount <= 0:
            return
        largest = self._best_amount
        is_better = received * largest > self._best_received * amount
        if amount > 2 * largest or (2 * amount > largest and is_better):
            self._best_amount = amount
            self._best_received = received
        if amount * 2 < self.amount:
            self._coarse += 1
            if self._coarse <= COARSE_REPLIES_MAX:
                return
        self._coarse = 0
        self.amount = amount
        self.received = received

    def forget(self) -> None:
        self.amount = self.received = self._coarse = 0

    def expected(self, amount: int) -> int:
        """What `amount` delivers, estimated low."""
        return amount * self.received // self.amount if self.amount else 0

    def expected_max(self, amount: int) -> int:
        """What `amount` delivers at the most, if the rate hasn't changed."""
        return -(-amount * (self.received + 1) // self.amount) if self.amount else 0

    def best_max(self, amount: int) -> int:
        """What `amount` delivers at the most, at the best rate that was seen."""
        return -(-amount * (self._best_received + 1) // self._best_amount) if self._best_amount else 0

    def source_min(self, destination: int) -> int:
        """The least source amount that may deliver `destination`."""
        return max(1, -(-destination * self.amount // (self.received + 1)))

    def source_max(self, destination: int) -> int:
        """The source amount that delivers `destination` for certain, if the rate hasn't changed. Needs received > 0."""
        return max(1, -(-destination * self.amount // self.received))

    def fraction(self) -> Fraction:
        return Fraction(self.received, self.amount) if self.amount else Fraction(0)
