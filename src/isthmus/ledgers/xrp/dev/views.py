"""Views of the state: what a closed ledger holds, and layers of changes over it that are kept or thrown away."""

from collections.abc import Iterable, Iterator
from typing import Protocol

from isthmus.ledgers.xrp.dev.entries import AccountRoot, Entry, PayChannel, addresses_of, serialised
from isthmus.ledgers.xrp.hashes import account_index
from isthmus.ledgers.xrp.shamap import STATE_LEAF, HashTree


class View(Protocol):
    """A state that can be read."""

    def get(self, index: str) -> Entry | None:
        """The entry at a key, or None."""
        ...

    def account(self, address: str) -> AccountRoot | None:
        """The account of an address, or None."""
        ...

    def channel(self, index: str) -> PayChannel | None:
        """The channel of that id, or None."""
        ...

    def channels_of(self, address: str) -> list[PayChannel]:
        """All channels of which this is the source or the destination, by id."""
        ...


class Lookups:
    """What every view offers on top of `get`."""

    __slots__ = ()

    def get(self, index: str) -> Entry | None:
        raise NotImplementedError

    def account(self, address: str) -> AccountRoot | None:
        entry = self.get(account_index(address))
        return entry if isinstance(entry, AccountRoot) else None

    def channel(self, index: str) -> PayChannel | None:
        entry = self.get(index)
        return entry if isinstance(entry, PayChannel) else None


class State(Lookups):
    """The state after the last closed ledger, and the root of its hash tree."""

    __slots__ = ("_channels", "_entries", "_tree")

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self._entries: dict[str, Entry] = {}
        # Ids of the channels that touch an address; a dict for its order, the values say nothing.
        self._channels: dict[str, dict[str, None]] = {}
        self._tree = HashTree(STATE_LEAF)
        self.apply({each.index: each for each in entries})

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, index: str) -> Entry | None:
        return self._entries.get(index)

    def entries(self) -> Iterator[Entry]:
        """All, in no order."""
        return iter(self._entries.values())

    def channels_of(self, address: str) -> list[PayChannel]:
        found = (self.channel(index) for index in sorted(self._channels.get(address, ())))
        return [each for each in found if each is not None]

    def apply(self, changes: dict[str, Entry | None]) -> None:
        """Take over what a ledger changed; None for what it deleted."""
        for index, entry in changes.items():
            before = self._entries.pop(index, None)
            if isinstance(before, PayChannel):
                for address in addresses_of(before):
                    self._channels[address].pop(index, None)
                    if not self._channels[address]:
                        del self._channels[address]
            if entry is None:
                if before is not None:
                    self._tree.remove(bytes.fromhex(index))
                continue
            self._entries[index] = entry
            self._tree.put(bytes.fromhex(index), serialised(entry))
            if isinstance(entry, PayChannel):
                for address in addresses_of(entry):
                    self._channels.setdefault(address, {})[index] = None

    def root(self) -> bytes:
        """The account hash of the ledger's header."""
        return self._tree.root()


class Layer(Lookups):
    """Changes over a view. Nothing below sees them until somebody merges them."""

    __slots__ = ("_below", "changes", "erased")

    def __init__(self, below: View) -> None:
        self._below = below
        self.changes: dict[str, Entry | None] = {}
        self.erased: dict[str, Entry] = {}  # as they were last, which metadata tells

    def get(self, index: str) -> Entry | None:
        return self.changes[index] if index in self.changes else self._below.get(index)

    def channels_of(self, address: str) -> list[PayChannel]:
        found = {each.index: each for each in self._below.channels_of(address)}
        for index, entry in self.changes.items():
            if isinstance(entry, PayChannel) and address in addresses_of(entry):
                found[index] = entry
            else:
                found.pop(index, None)
        return [found[index] for index in sorted(found)]

    def put(self, entry: Entry) -> None:
        """Make or replace an entry."""
        self.changes[entry.index] = entry

    def erase(self, entry: Entry) -> None:
        """Delete an entry, given as it is at the end."""
        self.changes[entry.index] = None
        self.erased[entry.index] = entry

    def merge(self, above: "Layer") -> None:
        """Take over the changes of a layer over this one."""
        self.changes.update(above.changes)
