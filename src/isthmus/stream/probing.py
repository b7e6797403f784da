"""Finding out a path's rate and maximum packet amount with packets that nobody can fulfil (RFC 0029 §3.4, STREAM-11).

What probes say is an estimate, good for sizing packets and for showing a quote. It never sets the minimum rate: a
connector that cheats would simply be believed.
"""

from typing import Final, final

from isthmus.stream.capacity import Capacity
from isthmus.stream.orders import Failure
from isthmus.stream.rate import PathRate

VOLLEY: Final = (1_000, 1_000_000, 1_000_000_000, 1_000_000_000_000)  # when nothing hints at an amount
PROBES_MAX: Final = 32
STEP: Final = 1_000  # from an amount that is too small to arrive to the next
SHRINK: Final = 8  # after an amount that the path has no liquidity for
# Less than this arrived: the unit that is lost to rounding makes the rate look worse by more than a tenth of a percent.
FINE: Final = 1_000
AGAIN_MAX: Final = 8  # larger probes where only so little got through: liquidity may come back meanwhile


@final
class Prober:
    """Chooses the probes of one investigation. Its owner sends them and tells what became of each."""

    def __init__(self, *, source: int, destination: int, for_quote: bool) -> None:
        self.source: Final = source  # what is to be sent; 0 if unknown
        self.destination: Final = destination  # what is to be delivered; 0 if unknown
        self.for_quote: Final = for_quote
        self._queue: list[int] = []
        self._tried: dict[int, None] = {}
        self.in_flight = 0
        self._probes = 0
        self._small = 0  # the largest amount that arrived as nothing
        self._smallest_tried = 0
        self._scarce = 0  # the smallest amount that failed for a temporary reason
        self._again = 0
        self.failure: Failure | None = None
        self.done = False

    def start(self, capacity: Capacity) -> None:
        top = capacity.amount()
        if self.source:
            self._add(min(self.source, top))
        else:
            for amount in VOLLEY:
                self._add(min(amount, top))

    def _add(self, amount: int) -> None:
        if amount > 0 and amount not in self._tried:
            self._tried[amount] = None
            self._queue.append(amount)
            if self._smallest_tried == 0 or amount < self._smallest_tried:
                self._smallest_tried = amount

    def next_amount(self) -> int:
        """The next probe's amount; 0 if there is none to send now."""
        if not self._queue:
            return 0
        self._probes += 1
        self.in_flight += 1
        return self._queue.pop(0)

    def arrived(self, amount: int, received: int) -> None:
        """The receiver's authenticated answer."""
        self.in_flight -= 1
        if received == 0:
            self._small = max(self._small, amount)

    def too_small(self, amount: int) -> None:
        """R01: a connector would have made nothing of it."""
        self.in_flight -= 1
        self._small = max(self._small, amount)

    def too_large(self) -> None:
        """F08; the capacity has learned from it."""
        self.in_flight -= 1

    def scarce(self, amount: int) -> None:
        """A temporary error or a time-out, possibly due to the amount."""
        self.in_flight -= 1
        if self._scarce == 0 or amount < self._scarce:
            self._scarce = amount

    def settle(self, capacity: Capacity, rate: PathRate) -> None:
        """All probes have their answers: choose more, or end."""
        if self._queue or self.in_flight or self.done:
            return
        if rate.received == 0:
            self._first_arrival(capacity)
        else:
            self._largest(capacity, rate)
        if not self._queue:
            self.done = True
        elif self._probes >= PROBES_MAX:
            self._queue.clear()
            self.done = True
            if rate.received == 0:
                self.failure = Failure.NO_LIQUIDITY if self._scarce else Failure.NO_CAPACITY

    def _top(self, capacity: Capacity) -> int:
        top = capacity.amount()
        if self.source:
            top = min(top, self.source)
        if self._scarce:
            top = min(top, max(1, self._scarce // SHRINK))
        return top

    def _first_arrival(self, capacity: Capacity) -> None:
        """Nothing has arrived yet: larger if the path rounds it away, smaller if it won't carry it."""
        top = self._top(capacity)
        if self._small:
            self._add(min(self._small * STEP, top) if top > self._small else 0)
            if not self._queue:
                self.failure = Failure.TOO_SMALL
            return
        self._add(top)
        if not self._queue and self._scarce:
            # The same amount again: time may help, and the owner limits it.
            self._queue.append(top)

    def _largest(self, capacity: Capacity, rate: PathRate) -> None:
        """Something arrived. One probe at the size of real packets makes the rate exact."""
        goal = self._top(capacity)
        if self.destination:
            goal = min(goal, rate.source_max(self.destination))
        elif not self.source and capacity.limit is None:
            return
        if goal > rate.amount:
            self._add(goal)
        elif self._scarce and rate.received < FINE and self._again < AGAIN_MAX:
            self._grow(capacity, rate)

    def _grow(self, capacity: Capacity, rate: PathRate) -> None:
        """So little got through that the rate is coarse: ask for more once again, after the pause for scarcity."""
        self._scarce = 0
        goal = min(self._top(capacity), rate.amount * 2 * FINE // rate.received)
        if self.destination:
            goal = min(goal, rate.source_max(self.destination))
        if goal > rate.amount:
            self._again += 1
            self._tried.pop(goal, None)
            self._add(goal)
