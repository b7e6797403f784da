"""What neighbours say that they reach: for each prefix its candidates, and the choice among them (CCP-18).

A neighbour's table is a `Source`. When it dies (its link closed, its time ran out, it has another table id) its
candidates count no more from that moment on, however many they are; they are cleared away in slices afterwards.
"""

from collections import OrderedDict, deque
from typing import Final, TypeAlias, final

from isthmus.connector.events import AccountId
from isthmus.connector.routing.price import UNKNOWN, add_prices, read_price
from isthmus.connector.routing.shown import Showings, Shown
from isthmus.connector.routing.unsteady import Rank, Unsteady
from isthmus.ilp.ccp import Route

# The better one comes first (CONN-13). Peers and parents are alike, the shorter path wins: peers are told what we reach
# over others, and with peers before parents some networks never come to rest (docs/adr/0007).
RELATION_ORDER: Final = {"local": 0, "child": 1, "peer": 2, "parent": 2}

Order: TypeAlias = tuple[bool, int, int, int, int, str]
# A hop that was chosen stays chosen until another is better by so much, where packets have shown anything: two steps of
# what they show (records.py), so that nothing flaps between two of them.
STAYS_PPM: Final = 1_000


@final
class Source:
    """One table of one neighbour, as long as it lives."""

    __slots__ = ("account", "alive", "candidates", "order", "preference", "relation", "spread_ppm")

    def __init__(self, account: AccountId, relation: str, preference: int, spread_ppm: int = 0) -> None:
        self.account: Final = account
        self.relation: Final = relation
        self.order: Final = RELATION_ORDER[relation]
        self.preference: Final = preference
        self.spread_ppm = spread_ppm  # what we keep of packets to this account
        self.alive = True
        self.candidates: Final[dict[str, Candidate]] = {}


@final
class Candidate:
    """One route of one neighbour."""

    __slots__ = ("price", "route", "shown", "source")

    def __init__(self, source: Source, route: Route, shown: Shown | None = None) -> None:
        self.source: Final = source
        self.route: Final = route
        self.price: Final = read_price(route.props)  # ppm from that neighbour on; None: unknown
        self.shown = shown  # None as long as packets have shown nothing

    @property
    def told_price(self) -> int:
        """With what we keep ourselves; `UNKNOWN` without one."""
        return UNKNOWN if self.price is None else add_prices(self.price, self.source.spread_ppm)

    def rests(self, now: int) -> bool:
        return self.shown is not None and self.shown.rests_until > now

    def scarce_until(self, now: int) -> int:
        """When it is tried again, if it lacked liquidity just now; 0 otherwise."""
        return self.shown.scarce_until if self.shown is not None and self.shown.scarce_until > now else 0

    def penalty(self, now: int) -> int:
        """What packets showed, in ppm."""
        record = None if self.shown is None else self.shown.record
        return 0 if record is None else record.penalty(now)

    def remembers(self, now: int) -> bool:
        """Whether its penalty may change by itself."""
        return self.shown is not None and self.shown.record is not None and self.shown.record.remembers(now)

    def proven_price(self, now: int) -> int:
        """What was told, and what receivers missed of it: the rate that the next packet may get."""
        record = None if self.shown is None else self.shown.record
        return self.told_price + (0 if record is None else record.shortfall(now))

    @property
    def rank(self) -> Rank:
        """What policy says of its neighbour: the lower is the better."""
        return -self.source.preference, self.source.order

    def order(self, now: int, *, by_relation: bool) -> Order:
        """The least is chosen: what doesn't rest, the operator's preference, relation, path's length, price, name."""
        source = self.source
        return (
            self.rests(now),
            -source.preference,
            source.order if by_relation else 0,
            len(self.route.path),
            self.told_price + self.penalty(now),
            source.account,
        )


@final
class Rib:
    """Candidates by prefix. `dirty` are the prefixes whose choice may have changed since they were looked at."""

    __slots__ = ("_candidates", "_dying", "count", "dirty", "showings", "unsteady")

    def __init__(self) -> None:
        self._candidates: Final[dict[str, list[Candidate]]] = {}
        self._dying: Final[deque[Source]] = deque()
        self.showings: Final = Showings()
        self.unsteady: Final = Unsteady()
        self.count = 0  # of all candidates, those of dead sources included until they are cleared away
        # In the order of their change. A plain dict gets slow when it is emptied from its front.
        self.dirty: Final[OrderedDict[str, None]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._candidates)

    def prefixes(self) -> list[str]:
        """All prefixes with a candidate."""
        return list(self._candidates)

    def candidates(self, prefix: str) -> list[Candidate]:
        """Those that count, in no order."""
        return [one for one in self._candidates.get(prefix, ()) if one.source.alive]

    def ranked(self, prefix: str, now: int) -> list[Candidate]:
        """Those that count, the best one first."""
        by_relation = prefix not in self.unsteady
        return sorted(self.candidates(prefix), key=lambda one: one.order(now, by_relation=by_relation))

    def candidate(self, prefix: str, account: str) -> Candidate | None:
        """The one of this neighbour."""
        for one in self._candidates.get(prefix, ()):
            source = one.source
            if source.account == account and source.alive:
                return one
        return None

    def put(self, source: Source, route: Route) -> None:
        """The source reaches the prefix like this from now on."""
        prefix = route.prefix
        known = source.candidates.get(prefix)
        if known is not None:
            if known.route == route:
                return
            self._take_out(known)
        # Of a route told anew we may know more than the table still holds.
        shown = self.showings.of(source.account, prefix) if known is None else known.shown
        candidate = Candidate(source, route, shown)
        source.candidates[prefix] = candidate
        self._candidates.setdefault(prefix, []).append(candidate)
        self.count += 1
        self.dirty[prefix] = None

    def note(self, candidate: Candidate) -> Shown:
        """Where to write what a packet over this hop shows."""
        candidate.shown = self.showings.note(candidate.source.account, candidate.route.prefix)
        return candidate.shown

    def remove(self, source: Source, prefix: str) -> None:
        """The source doesn't reach the prefix any more."""
        known = source.candidates.pop(prefix, None)
        if known is not None:
            self._take_out(known)
            self.dirty[prefix] = None

    def kill(self, source: Source) -> None:
        """Nothing that the source said counts any more."""
        if source.alive:
            source.alive = False
            if source.candidates:
                self._dying.append(source)

    def is_clean(self) -> bool:
        return not self._dying and not self.dirty

    def bury(self, budget: int) -> int:
        """Clear away up to so many candidates of dead sources; gives what is left of the budget."""
        dying = self._dying
        while dying and budget > 0:
            candidates = dying[0].candidates
            while candidates and budget > 0:
                prefix, candidate = candidates.popitem()
                self._take_out(candidate)
                self.dirty[prefix] = None
                budget -= 1
            if not candidates:
                dying.popleft()
        return budget

    def _take_out(self, candidate: Candidate) -> None:
        prefix = candidate.route.prefix
        among = self._candidates[prefix]
        among.remove(candidate)
        if not among:
            del self._candidates[prefix]
        self.count -= 1

    def choose(self, prefix: str, now: int, current: str | None = None) -> Candidate | None:
        """The best candidate; None without any.

        The same state gives the same one, whatever came in which order: `current`, the account that was chosen before,
        counts only against what packets showed.
        """
        by_relation = prefix not in self.unsteady
        best: Candidate | None = None
        stays: Candidate | None = None
        for one in self._candidates.get(prefix, ()):
            if not one.source.alive:
                continue
            if best is None or one.order(now, by_relation=by_relation) < best.order(now, by_relation=by_relation):
                best = one
            if one.source.account == current:
                stays = one
        if best is None or stays is None or stays is best or (best.shown is None and stays.shown is None):
            return best
        first, second = best.order(now, by_relation=by_relation), stays.order(now, by_relation=by_relation)
        return stays if second[:4] == first[:4] and 0 < second[4] - first[4] < STAYS_PPM else best

    def alike(self, prefix: str, now: int, within_ppm: int) -> list[Candidate]:
        """Those that packets may be divided over, best first: of one policy and relation, and of nearly the best price.

        Where no price is known nothing is known to be within it. What receivers missed counts: whoever tells less than
        it takes is no measure for the others.
        """
        living = [one for one in self.ranked(prefix, now) if not one.rests(now) and one.price is not None]
        if not living:
            return []
        best = living[0]
        least = min(one.proven_price(now) for one in living)
        return [
            one
            for one in living
            if (one.source.preference, one.source.order) == (best.source.preference, best.source.order)
            and one.proven_price(now) - least <= within_ppm
        ]
