"""The learned routes as packets are routed by them: two equal tables, of which one is read while the other changes.

A set of changes goes into the idle table in slices, then the two change places, and the other one is brought up to
date in slices too. So nobody reads half a set, and no call copies a table.
"""

from collections import deque
from typing import Final, final

from isthmus.connector.events import AccountId

# Two swaps lie at least so far apart: each drops what lanes remember of routes, and finding a route again costs a few
# microseconds for each destination in use.
SWAP_MS: Final = 100


@final
class Forwarding:
    """Prefix -> account, for learned routes only."""

    __slots__ = ("_applied", "_changes", "_idle", "_repeat", "_swapped_at", "dots_max", "live")

    def __init__(self) -> None:
        self.live: dict[bytes, AccountId] = {}
        self._idle: dict[bytes, AccountId] = {}
        self._changes: Final[deque[tuple[bytes, AccountId | None]]] = deque()  # for the idle table
        self._applied: deque[tuple[bytes, AccountId | None]] = deque()  # the idle table has them, the live one doesn't
        self._repeat: deque[tuple[bytes, AccountId | None]] = deque()  # the live one has them already
        self._swapped_at = -SWAP_MS
        # No learned prefix has more dots, so a long destination costs no more look-ups than a short one.
        self.dots_max = 0

    def put(self, prefix: bytes, account: AccountId | None) -> None:
        """From the next swap on packets under the prefix go there; None: nowhere."""
        self._changes.append((prefix, account))

    def wakes_at(self, now: int) -> int | None:
        """When there is something to do."""
        if self._repeat or self._changes:
            return now
        return self._swapped_at + SWAP_MS if self._applied else None

    def work(self, budget: int, now: int) -> bool:
        """Apply up to so many changes; True if the tables changed places."""
        idle = self._idle
        repeat = self._repeat
        while repeat and budget > 0:
            _apply(idle, *repeat.popleft())
            budget -= 1
        if repeat:
            return False
        changes = self._changes
        while changes and budget > 0:
            change = changes.popleft()
            _apply(idle, *change)
            self.dots_max = max(self.dots_max, change[0].count(b"."))
            self._applied.append(change)
            budget -= 1
        if changes or not self._applied or now < self._swapped_at + SWAP_MS:
            return False
        self._swap(now)
        return True

    def _swap(self, now: int) -> None:
        self.live, self._idle = self._idle, self.live
        self._repeat, self._applied = self._applied, self._repeat
        self._swapped_at = now
        if not self.live:
            self.dots_max = 0


def _apply(table: dict[bytes, AccountId], prefix: bytes, account: AccountId | None) -> None:
    if account is None:
        table.pop(prefix, None)
    else:
        table[prefix] = account
