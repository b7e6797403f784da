"""The path's maximum packet amount, learned from F08 (ILP-17), and how much less to send while liquidity is short.

A path may have several maxima, one behind the other: each F08 lowers the limit a bit more, and none is the end unless
the limit reaches zero. Limits may rise later, so now and then one packet tries a little more.
"""

from typing import Final, final

from isthmus.ilp.packet import AMOUNT_MAX, decode_amount_too_large

# At the limit for so long, one packet tries a tenth more: rarely, since a connector that names its maximum means it.
GROW_AFTER_MS: Final = 30_000
# Without numbers in the F08 we only know one amount that is too large: look for the limit faster.
GUESS_GROW_AFTER_MS: Final = 500
GUESS_EXACT_ENOUGH: Final = 10  # stop when the gap is a tenth of the limit
SOFT_STEPS: Final = 8  # Fulfills in a row before a reduction for lack of liquidity is halved


@final
class Capacity:
    """How large a packet may be."""

    __slots__ = (
        "_good",
        "_grow_at",
        "_guessed",
        "_soft",
        "_soft_fulfilled",
        "_too_large",
        "_trial",
        "ceiling",
        "limit",
    )

    def __init__(self, ceiling: int) -> None:
        self.ceiling = ceiling  # our own cap, and what the rate lets us express
        self.limit: int | None = None  # None while nobody complained
        self._guessed = False  # the limit is a guess, not a connector's number
        self._too_large = AMOUNT_MAX + 1  # the smallest amount that was refused
        self._trial = 0  # the amount of the one packet that tries more
        self._grow_at = 0
        self._soft: int | None = None
        self._soft_fulfilled = 0

    def amount(self) -> int:
        """The most to put into one packet now."""
        amount = self.ceiling if self.limit is None else min(self.limit, self.ceiling)
        return amount if self._soft is None else min(amount, self._soft)

    def larger(self, now: int) -> int:
        """An amount above the limit that is worth a try with one packet (then call `trying`), or 0."""
        if self.limit is None or self._trial or self._soft is not None or now < self._grow_at:
            return 0
        if self._guessed and self._too_large <= AMOUNT_MAX:
            if (self._too_large - self.limit) * GUESS_EXACT_ENOUGH <= self.limit:
                self._guessed = False
                return 0
            more = (self.limit + self._too_large) // 2
        else:
            more = self.limit + self.limit // 10 + 1
        amount = min(more, self.ceiling)
        return amount if amount > self.limit else 0

    def trying(self, amount: int) -> None:
        """A packet of this amount, above the limit, leaves."""
        self._trial = amount

    def too_large(self, amount: int, data: bytes, now: int) -> bool:
        """Learn from an F08 for `amount`. False if nothing can be sent at all."""
        numbers = decode_amount_too_large(data)
        guessed = numbers is None or numbers[1] >= numbers[0]
        if numbers is None or guessed:
            new = amount // 2
            self._too_large = min(self._too_large, amount)
        else:
            # In the rejecting connector's units: only the ratio means something to us (P-8).
            received, maximum = numbers
            new = min(amount * maximum // received, amount - 1)
        was_trial = amount == self._trial
        self._trial = 0 if was_trial else self._trial
        if was_trial and self.limit is not None:
            # The limit stands; what the trial taught is at most an exact number slightly above it.
            self.limit = max(self.limit, min(new, self._too_large - 1)) if not guessed else self.limit
            self._grow_at = now + (GUESS_GROW_AFTER_MS if self._guessed else GROW_AFTER_MS)
            return True
        if self.limit is None or new < self.limit:
            self.limit = new
            self._guessed = guessed
            self._grow_at = now + (GUESS_GROW_AFTER_MS if guessed else GROW_AFTER_MS)
        return self.limit > 0

    def passed(self, amount: int, now: int) -> None:
        """A packet of this amount reached the receiver."""
        if self.limit is not None and amount > self.limit:
            self.limit = amount
            self._grow_at = now + (GUESS_GROW_AFTER_MS if self._guessed else 0)
        if amount == self._trial:
            self._trial = 0
        if self._soft is not None:
            self._soft_fulfilled += 1
            if self._soft_fulfilled >= SOFT_STEPS:
                self._soft_fulfilled = 0
                self._soft *= 2
                if self._soft >= (self.ceiling if self.limit is None else self.limit):
                    self._soft = None

    def lost(self, amount: int) -> None:
        """A packet of this amount failed for another reason."""
        if amount == self._trial:
            self._trial = 0

    def shrink(self, amount: int, least: int = 1) -> None:
        """One packet of this amount at a time is still more than the path's liquidity: send smaller ones.

        None below `least`, unless the path doesn't take as much at any time.
        """
        top = self.ceiling if self.limit is None else min(self.limit, self.ceiling)
        self._soft = max(1, min(least, top), min(amount, self.amount()) // 2)
        self._soft_fulfilled = 0
