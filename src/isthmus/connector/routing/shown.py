"""What packets showed of hops, by neighbour and prefix: it outlives the route that the neighbour told.

A neighbour that withdraws a route and tells it again, or begins a new table, or whose link went down and came up, is
the same hop as before: nothing is washed off by that. Bounded for each neighbour, so that none makes another's be
forgotten; the one that nothing was noted of for the longest goes first.
"""

from collections import OrderedDict
from typing import Final, final

from isthmus.connector.events import AccountId
from isthmus.connector.routing.records import Record

PREFIXES_MAX: Final = 1_024  # of one neighbour


@final
class Shown:
    """Of one neighbour and one prefix."""

    __slots__ = ("failures", "record", "rests_until", "scarce_until", "scarcities")

    def __init__(self) -> None:
        self.rests_until = 0  # it failed: others go first until then
        self.failures = 0  # of late, one after the other
        self.scarce_until = 0  # it lacked liquidity: what may go elsewhere does until then
        self.scarcities = 0
        self.record: Record | None = None  # where there was a choice


@final
class Showings:
    """All that packets showed, and is remembered."""

    __slots__ = ("_by_account",)

    def __init__(self) -> None:
        self._by_account: Final[dict[AccountId, OrderedDict[str, Shown]]] = {}

    def of(self, account: AccountId, prefix: str) -> Shown | None:
        """None where packets have shown nothing."""
        known = self._by_account.get(account)
        return None if known is None else known.get(prefix)

    def note(self, account: AccountId, prefix: str) -> Shown:
        """Where more is to be noted."""
        known = self._by_account.get(account)
        if known is None:
            known = self._by_account[account] = OrderedDict()
        shown = known.get(prefix)
        if shown is None:
            shown = known[prefix] = Shown()
            if len(known) > PREFIXES_MAX:
                known.popitem(last=False)
        else:
            known.move_to_end(prefix)
        return shown

    def forget(self, account: AccountId) -> None:
        """There is no such neighbour any more."""
        self._by_account.pop(account, None)
