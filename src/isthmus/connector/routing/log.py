"""What we tell neighbours of our routes, by epochs: for each prefix its last change only, so that the log is as long as
the table and what was withdrawn lately, and not as its history (CCP-7).

An epoch is one change. Peers read on from where they stand; a change that was overtaken by a later one of the same
prefix leaves a gap in the numbers, which a half-open range spans.
"""

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from typing import Final, final

from isthmus.connector.events import AccountId
from isthmus.ilp.ccp import Route

# Withdrawn prefixes that are remembered; beyond it the oldest is forgotten, and a peer that had not got so far starts
# with a new table.
WITHDRAWN_MAX: Final = 10_000
# Before it the log begins anew: epochs are 32 bits.
EPOCHS_MAX: Final = 2**32 - 2**20
# Changes that lie together in memory: an insertion or removal costs no more than this many steps.
CHUNK_MAX: Final = 512


@final
class Export:
    """A route as we tell it, our address before its path. `account` is the next hop, "" for our own address."""

    __slots__ = ("account", "is_customer", "price", "route")

    def __init__(self, route: Route, account: AccountId, *, is_customer: bool, price: int | None = None) -> None:
        self.route: Final = route
        self.account: Final = account
        self.price: Final = price  # ppm from the next hop on; None: unknown
        self.is_customer: Final = is_customer  # our own or a child's: what a parent may hear of (CCP-17)

    def is_like(self, other: "Export | None") -> bool:
        return (
            other is not None
            and self.account == other.account
            and self.is_customer == other.is_customer
            and self.price == other.price
            and self.route == other.route
        )


@final
class Change:
    """The last thing that happened to a prefix: a route, or None for its end."""

    __slots__ = ("epoch", "export", "prefix")

    def __init__(self, epoch: int, prefix: str, export: Export | None) -> None:
        self.epoch: Final = epoch
        self.prefix: Final = prefix
        self.export: Final = export


@final
class RouteLog:
    """Changes by epoch, in chunks: finding a place is a bisection, and nothing is ever moved in bulk."""

    __slots__ = ("_chunks", "_firsts", "_last", "_withdrawn", "epoch", "floor")

    def __init__(self) -> None:
        self.epoch = 0  # of the next change
        self.floor = 0  # withdrawals below it may be forgotten
        self._last: Final[dict[str, Change]] = {}  # by prefix
        self._chunks: list[dict[int, Change]] = []
        self._firsts: list[int] = []  # the epoch at which each chunk begins
        self._withdrawn: Final[OrderedDict[str, int]] = OrderedDict()  # prefix -> its epoch, oldest first

    def __len__(self) -> int:
        return len(self._last)

    def put(self, prefix: str, export: Export | None, *, again: bool = False) -> bool:
        """From now on the prefix is told so, or withdrawn. False if nothing changes by that.

        `again`: tell a route that hasn't changed once more, as what we add to its price has.
        """
        known = self._last.get(prefix)
        if known is None:
            if export is None:
                return False
        elif export is None:
            if known.export is None:
                return False
            self._remove(known)
        else:
            if export.is_like(known.export) and not again:
                return False
            self._remove(known)
            self._withdrawn.pop(prefix, None)
        self._append(Change(self.epoch, prefix, export))
        if export is None:
            self._withdrawn[prefix] = self.epoch
            if len(self._withdrawn) > WITHDRAWN_MAX:
                self._forget_oldest()
        self.epoch += 1
        return True

    def since(self, epoch: int) -> Iterator[Change]:
        """The changes from this epoch on, in their order."""
        index = max(0, bisect_right(self._firsts, epoch) - 1)
        while index < len(self._chunks):
            for change in self._chunks[index].values():
                if change.epoch >= epoch:
                    yield change
            index += 1

    def exports(self) -> list[Export]:
        """All routes that we tell, whomever."""
        return [change.export for change in self._last.values() if change.export is not None]

    def prefixes(self) -> list[str]:
        return [prefix for prefix, change in self._last.items() if change.export is not None]

    def clear(self) -> None:
        """Forget everything: the table gets another id with all peers."""
        self.epoch = 0
        self.floor = 0
        self._last.clear()
        self._chunks = []
        self._firsts = []
        self._withdrawn.clear()

    def _append(self, change: Change) -> None:
        if not self._chunks or len(self._chunks[-1]) >= CHUNK_MAX:
            self._chunks.append({})
            self._firsts.append(change.epoch)
        self._chunks[-1][change.epoch] = change
        self._last[change.prefix] = change

    def _remove(self, change: Change) -> None:
        index = bisect_right(self._firsts, change.epoch) - 1
        chunk = self._chunks[index]
        del chunk[change.epoch]
        if not chunk:
            del self._chunks[index], self._firsts[index]
        else:
            self._join(index)
            self._join(index - 1)

    def _join(self, index: int) -> None:
        """Make one of this chunk and the next, if both have shrunk."""
        chunks = self._chunks
        if 0 <= index < len(chunks) - 1 and len(chunks[index]) + len(chunks[index + 1]) <= CHUNK_MAX // 2:
            chunks[index].update(chunks[index + 1])
            del chunks[index + 1], self._firsts[index + 1]

    def _forget_oldest(self) -> None:
        prefix, epoch = self._withdrawn.popitem(last=False)
        self.floor = epoch + 1
        self._remove(self._last.pop(prefix))
