"""What neighbours say that they reach: for each prefix its candidates, and the choice among them (CCP-18).

A neighbour's table is a `Source`. When it dies (its link closed, its time ran out, it has another table id) its
candidates count no more from that moment on, however many they are; they are cleared away in slices afterwards.
"""

from collections import OrderedDict, deque
from typing import Final, TypeAlias, final

from isthmus.connector.events import AccountId
from isthmus.connector.routing.price import UNKNOWN, add_prices, read_price
from isthmus.ilp.ccp import Route

# The order of relations: the better one comes first (CONN-13).
RELATION_ORDER: Final = {"local": 0, "child": 1, "peer": 2, "parent": 3}

Order: TypeAlias = tuple[bool, int, int, int, int, str]


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

    __slots__ = ("failures", "price", "rests_until", "route", "source")

    def __init__(self, source: Source, route: Route) -> None:
        self.source: Final = source
        self.route: Final = route
        self.price: Final = read_price(route.props)  # ppm from that neighbour on; None: unknown
        self.rests_until = 0  # it failed: others go first until then
        self.failures = 0  # of late, one after the other

    def order(self, now: int) -> Order:
        """The least is chosen: what doesn't rest, the operator's preference, relation, path's length, price, name."""
        source = self.source
        price = self.price
        return (
            self.rests_until > now,
            -source.preference,
            source.order,
            len(self.route.path),
            UNKNOWN if price is None else add_prices(price, source.spread_ppm),
            source.account,
        )


@final
class Rib:
    """Candidates by prefix. `dirty` are the prefixes whose choice may have changed since they were looked at."""

    __slots__ = ("_candidates", "_dying", "count", "dirty")

    def __init__(self) -> None:
        self._candidates: Final[dict[str, list[Candidate]]] = {}
        self._dying: Final[deque[Source]] = deque()
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

    def put(self, source: Source, route: Route) -> None:
        """The source reaches the prefix like this from now on."""
        prefix = route.prefix
        known = source.candidates.get(prefix)
        if known is not None:
            if known.route == route:
                return
            self._take_out(known)
        candidate = Candidate(source, route)
        if known is not None:
            candidate.rests_until = known.rests_until
            candidate.failures = known.failures
        source.candidates[prefix] = candidate
        self._candidates.setdefault(prefix, []).append(candidate)
        self.count += 1
        self.dirty[prefix] = None

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

    def choose(self, prefix: str, now: int) -> Candidate | None:
        """The best candidate; None without any. The same state gives the same one, whatever came in which order."""
        best: Candidate | None = None
        for one in self._candidates.get(prefix, ()):
            if one.source.alive and (best is None or one.order(now) < best.order(now)):
                best = one
        return best
