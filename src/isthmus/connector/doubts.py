"""Fulfills that may be lost with the process, to peers that can't be asked (docs/outcomes.md, "Peers of other kinds").

A leg that we posted, and whose sender won't ever acknowledge it, is in doubt for a while: its Fulfill rests in our
buffers or the kernel's, and a crash may lose it. After a crash the next process lists what is in doubt as at risk.
The books keep these legs in entries and state, so that a checkpoint loses none and replay has the same.

Time comes from the records: the first such leg of a record is preceded by an entry with the wall clock.
"""

from collections import deque
from typing import TYPE_CHECKING, Final, final

from isthmus.connector import record as r
from isthmus.connector.legs import IncomingLeg

if TYPE_CHECKING:
    from isthmus.connector.books import Books

# As long as a link lets a peer leave our answers in its buffer: by then it has read them, or the link was closed.
DOUBT_MS: Final = 10_000
# Of one journal. Beyond it the oldest are left out: they are the likeliest to have arrived.
DOUBTS_MAX: Final = 8_192


@final
class Doubts:
    """Legs in doubt, oldest first: (leg, index of the account, amount, posted at wall ms)."""

    __slots__ = ("_dated_at", "_is_dated", "_is_live", "_wall_ms", "legs")

    def __init__(self) -> None:
        self.legs: Final[deque[tuple[int, int, int, int]]] = deque(maxlen=DOUBTS_MAX)
        self._wall_ms = 0
        self._is_live = False
        self._dated_at = 0
        self._is_dated = False  # the record that is being written says what time it is

    def tell_time(self, wall_ms: int) -> None:
        """The clock of a live kernel. Replay gets the time from the entries."""
        self._wall_ms = wall_ms
        self._is_live = True

    def add(self, record: bytearray, leg: IncomingLeg) -> None:
        """A leg that is posted by the next entry."""
        if not leg.amount:
            return
        if not self._is_dated:
            if not self._is_live:
                return  # a record from before there were doubts
            self.date(record, self._wall_ms)
        # By the record's time: while it is open the clock goes on, and replay doesn't see that.
        self.legs.append((leg.id, leg.account.index, leg.amount, self._dated_at))

    def date(self, record: bytearray, wall_ms: int) -> None:
        """It is so late now: what was posted long enough ago is in doubt no longer."""
        legs = self.legs
        if legs and wall_ms < legs[-1][3]:
            # The clock was set back. No leg may stay in doubt until it is there again.
            dated = [(*leg[:3], min(leg[3], wall_ms)) for leg in legs]
            legs.clear()
            legs.extend(dated)
        while legs and legs[0][3] <= wall_ms - DOUBT_MS:
            legs.popleft()
        self._dated_at = wall_ms
        self._is_dated = True
        record.extend(r.PACK_DATED.pack(r.DATED, wall_ms))

    def drop(self, listed: set[int]) -> None:
        """These legs are listed as at risk."""
        left = [leg for leg in self.legs if leg[0] not in listed]
        self.legs.clear()
        self.legs.extend(left)

    def record_taken(self) -> None:
        self._is_dated = False

    def is_over(self) -> bool:
        """Whether nothing that is listed is in doubt any longer."""
        return bool(self.legs) and self.legs[-1][3] <= self._wall_ms - DOUBT_MS

    def over_in_ms(self) -> int | None:
        """When that will be; None if nothing is in doubt."""
        return max(0, self.legs[-1][3] + DOUBT_MS - self._wall_ms) if self.legs else None


def list_doubts(books: "Books") -> list[tuple[str, int, int]]:
    """Put at risk what an earlier process left in doubt; gives name, total and number of legs of each account.

    What is kept for repeated requests is not listed here, but when it is forgotten.
    """
    kept = {leg.id for account in books.peers.values() for leg in account.fulfilled.values()}
    found: dict[int, tuple[int, int]] = {}
    for leg, index, amount, _ in books.doubts.legs:
        if leg not in kept:
            books.put_at_risk(books.accounts[index], leg, amount, 0)
            total, count = found.get(index, (0, 0))
            found[index] = (total + amount, count + 1)
    if books.doubts.legs:
        books.end_doubts()
    return [(books.accounts[index].name, total, count) for index, (total, count) in found.items()]
