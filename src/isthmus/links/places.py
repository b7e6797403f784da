"""Places for strangers: connections whose peer hasn't shown who it is. Pure: addresses and the time go in.

A stranger's connection costs memory and a file descriptor, so there are so many places and no more, and so many for
one address. When they are taken, the oldest that has had its time makes room: who holds connections open without a
word can't keep others out, and who comes again and again only drives out his own.
"""

from dataclasses import dataclass
from typing import Final, final

from isthmus.links.throttle import address_key

# A place is kept for so long whatever comes; a handshake over a slow line takes less.
KEPT_MS: Final = 2_000


@final
@dataclass(slots=True, frozen=True)
class StrangerBounds:
    """How many strangers at a time, in all and from one address (behind a reverse proxy all come from its own)."""

    strangers_max: int = 256
    strangers_per_address_max: int = 32
    kept_ms: int = KEPT_MS
    backlog: int = 128


@final
class Place:
    """One stranger's. Compared by identity."""

    __slots__ = ("address", "since")

    def __init__(self, address: str, since: int) -> None:
        self.address: Final = address
        self.since: Final = since  # mono ms


@final
class Places:
    """Who has a place. Dicts serve as ordered sets: the oldest comes first."""

    def __init__(self, bounds: StrangerBounds) -> None:
        self._bounds: Final = bounds
        self._all: Final[dict[Place, None]] = {}
        self._by_address: Final[dict[str, dict[Place, None]]] = {}
        self.refused = 0

    def __len__(self) -> int:
        return len(self._all)

    def take(self, host: str, now: int) -> tuple[Place | None, Place | None]:
        """A place for this stranger, or None; and the one who lost his for it: his connection is to be closed."""
        address = address_key(host)
        same = self._by_address.get(address, {})
        evicted: Place | None = None
        if len(same) >= self._bounds.strangers_per_address_max:
            evicted = self._spare(same, now)
        elif len(self._all) >= self._bounds.strangers_max:
            evicted = self._spare(self._all, now)
        else:
            return self._enter(address, now), None
        if evicted is None:
            self.refused += 1
            return None, None
        self.leave(evicted)
        return self._enter(address, now), evicted

    def leave(self, place: Place) -> None:
        """He has shown who he is, or is gone. Leaving twice is no harm."""
        if place not in self._all:
            return
        del self._all[place]
        same = self._by_address[place.address]
        del same[place]
        if not same:
            del self._by_address[place.address]

    def _enter(self, address: str, now: int) -> Place:
        place = Place(address, now)
        self._all[place] = None
        self._by_address.setdefault(address, {})[place] = None
        return place

    def _spare(self, places: dict[Place, None], now: int) -> Place | None:
        oldest = next(iter(places))
        return oldest if now - oldest.since >= self._bounds.kept_ms else None
