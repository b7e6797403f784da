"""What amounts tell of a path's hops, when nobody can fulfil (`client.hops`): rates and limits, as far as they show.

A connector that refuses a packet as too large (F08) says how much came to it: the rate of all hops before it. One that
refuses a packet because nothing would be left of it (R01) says where its smallest amount is. No other answer tells a
rate, so those of many hops stay unknown. Large amounts are asked one after the other, largest first, with little time
left: while they are under way they take up liquidity, like those of a STREAM sender that looks for the largest packet.
"""

from collections.abc import Collection, Generator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, final

from isthmus.ilp.packet import AMOUNT_MAX, decode_amount_too_large

LARGE_MAX: Final = 40  # probes on the way down: 2^64-1 in steps of 8 are 22
SMALL_MAX: Final = 60  # probes on the way up, all hops together
SHRINK: Final = 8  # after an amount that the path has no liquidity for
STEP: Final = 10  # on the way up, before it is looked for the exact amount
PRECISION: Final = 100  # the smallest amount is looked for to a hundredth


@final
@dataclass(slots=True, frozen=True)
class Ask:
    """A probe that is wanted."""

    hold_ms: int
    amount: int


@final
@dataclass(slots=True, frozen=True)
class Told:
    """Its answer."""

    code: str
    by: str | None
    data: bytes


@final
@dataclass(slots=True, frozen=True)
class Received:
    """What an F08 said: of `sent` base units of ours, `received` of its own came to this hop; it takes `maximum`."""

    sent: int
    received: int
    maximum: int

    @property
    def rate(self) -> Fraction:
        """Its base units for one of ours, rounding at each hop included."""
        return Fraction(self.received, self.sent)


@final
@dataclass(slots=True, frozen=True)
class Hidden:
    """A hop that only an amount has shown."""

    address: str
    code: str
    before: str | None  # the known hop that it is before; None: the last one


_Asking = Generator[Ask, Told, None]


@final
class Amounts:
    """What is known of rates, hop by hop. `ask` is one conversation: it yields what to send and is sent the answers."""

    def __init__(self) -> None:
        self.received: Final[dict[str, Received]] = {}
        self.smallest: Final[dict[str, int]] = {}  # of which a hop has something left to send on
        self._codes: Final[dict[str, tuple[str, int]]] = {}  # who refused an amount: its code, and the amount
        self._before: Final[dict[str, str | None]] = {}  # hops that time didn't show -> the hop that they are before
        self.largest: int | None = None  # the largest amount that gets to the end
        self.is_largest_by_room = False  # a larger one met no liquidity just then: others may pass

    def ask(self, hold_ms: int, seen: Sequence[tuple[str | None, int]], end: Told) -> _Asking:
        """`seen`: the known hops, each with a time left that it refuses; `end`: what comes back from the end."""
        yield from self._large(hold_ms, end)
        yield from self._small(hold_ms, end)
        yield from self._place(seen)

    def hidden(self, known: Collection[str | None]) -> list[Hidden]:
        """Hops that refused an amount, and are not among the known ones."""
        return [
            Hidden(address, code, self._before.get(address))
            for address, (code, _) in self._codes.items()
            if address not in known
        ]

    # --- conversations ------------------------------------------------------------------------------------------

    def _large(self, hold_ms: int, end: Told) -> _Asking:
        """From the largest amount down to one that gets to the end: some refuse it as too large on the way."""
        amount = AMOUNT_MAX
        for _ in range(LARGE_MAX):
            told = yield Ask(hold_ms, amount)
            if (told.code, told.by) == (end.code, end.by):
                self.largest = amount
                return
            if told.code == "F08":
                amount = self._too_large(told, amount)
                self.is_largest_by_room = False
            elif told.code[:1] == "T":
                amount //= SHRINK
                self.is_largest_by_room = True
            else:
                return
            if amount == 0:
                return

    def _too_large(self, told: Told, amount: int) -> int:
        """Note what an F08 says; the amount to try next (ILP-17)."""
        found = decode_amount_too_large(told.data)
        if found is None or found[0] == 0 or found[1] >= found[0]:
            return amount // SHRINK
        received, maximum = found
        if told.by is not None:
            self._codes.setdefault(told.by, (told.code, amount))
            # The first is of the largest amount: the most exact.
            self.received.setdefault(told.by, Received(amount, received, maximum))
        return amount * maximum // received

    def _small(self, hold_ms: int, end: Told) -> _Asking:
        """From 1 up: find at whom it becomes nothing, and from which amount on it doesn't."""
        low = 1
        left = SMALL_MAX
        refused = yield Ask(hold_ms, low)
        while refused.code == "R01" and refused.by is not None and refused.by not in self.smallest and left > 0:
            by = refused.by
            self._codes.setdefault(by, ("R01", low))
            high, passed = low, refused
            while _is_nothing(passed, by) and left > 0 and high <= AMOUNT_MAX // STEP:
                low, high = high, high * STEP
                left -= 1
                passed = yield Ask(hold_ms, high)
            if not _gets_past(passed, by, end):
                return
            while high - low > max(1, low // PRECISION) and left > 0:
                middle = (low + high) // 2
                left -= 1
                told = yield Ask(hold_ms, middle)
                if _is_nothing(told, by):
                    low = middle
                elif _gets_past(told, by, end):
                    high, passed = middle, told
                else:
                    return
            self.smallest[by] = high
            low, refused = high, passed

    def _place(self, seen: Sequence[tuple[str | None, int]]) -> _Asking:
        """Find before which of the known hops those are that only an amount has shown.

        With just so little time left that a known hop refuses it, the amount is refused by the hop in question if that
        comes first, and by the known one if not.
        """
        known = {address for address, _ in seen}
        for address, (_, amount) in list(self._codes.items()):
            if address in known:
                continue
            for other, hold_ms in seen[:-1]:
                told = yield Ask(hold_ms, amount)
                if told.by == address:
                    self._before[address] = other
                    break


def _is_nothing(told: Told, by: str) -> bool:
    return told.code == "R01" and told.by == by


def _gets_past(told: Told, by: str, end: Told) -> bool:
    return (told.code, told.by) == (end.code, end.by) or (told.code == "R01" and told.by != by)
