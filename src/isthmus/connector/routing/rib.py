"""What neighbours say that they reach: for each prefix its candidates, and the choice among them (CCP-18).

A neighbour's table is a `Source`. When it dies (its link closed, its time ran out, it has another table id) its
candidates count no more from that moment on, however many they are; they are cleared away in slices afterwards.
"""

from collections import OrderedDict, deque
from typing import Final, TypeAlias, final

from isthmus.connector.events import AccountId
from isthmus.connector.routing.price import UNKNOWN, add_prices, read_price
from isthmus.connector.routing.records import Record
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

    __slots__ = ("failures", "price", "record", "rests_until", "route", "scarce_until", "scarcities", "source")

    def __init__(self, source: Source, route: Route) -> None:
        self.source: Final = source
        self.route: Final = route
        self.price: Final = read_price(route.props)  # ppm from that neighbour on; None: unknown
        self.rests_until = 0  # it failed: others go first until then
        self.failures = 0  # of late, one after the other
        self.scarce_until = 0  # it lacked liquidity: what may go elsewhere does until then
        self.scarcities = 0
        self.record: Record | None = None  # what packets showed, where there was a choice

    def take_over(self, before: "Candidate") -> None:
        """What is known of the hop stays when it tells its route anew."""
        self.rests_until = before.rests_until
        self.failures = before.failures
        self.scarce_until = before.scarce_until
        self.scarcities = before.scarcities
        self.record = before.record

    @property
    def told_price(self) -> int:
        """With what we keep ourselves; `UNKNOWN` without one."""
        return UNKNOWN if self.price is None else add_prices(self.price, self.source.spread_ppm)

    def order(self, now: int) -> Order:
        """The least is chosen: what doesn't rest, the operator's preference, relation, path's length, price, name."""
        source = self.source
        record = self.record
        return (
            self.rests_until > now,
            -source.preference,
            source.order,
            len(self.route.path),
            self.told_price if record is None else self.told_price + record.penalty(now),
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
            candidate.take_over(known)
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

    def choose(self, prefix: str, now: int, current: str | None = None) -> Candidate | None:
        """The best candidate; None without any.

        The same state gives the same one, whatever came in which order: `current`, the account that was chosen before,
        counts only against what packets showed.
        """
        best: Candidate | None = None
        stays: Candidate | None = None
        for one in self._candidates.get(prefix, ()):
            if not one.source.alive:
                continue
            if best is None or one.order(now) < best.order(now):
                best = one
            if one.source.account == current:
                stays = one
        if best is None or stays is None or stays is best or (best.record is None and stays.record is None):
            return best
        first, second = best.order(now), stays.order(now)
        return stays if second[:4] == first[:4] and 0 < second[4] - first[4] < STAYS_PPM else best

    def alike(self, prefix: str, now: int, within_ppm: int) -> list[Candidate]:
        """Those that packets may be divided over, best first: of one policy and relation, and of nearly the best price.

        Where no price is known nothing is known to be within it.
        """
        living = [one for one in self.candidates(prefix) if one.rests_until <= now and one.price is not None]
        if not living:
            return []
        living.sort(key=lambda one: one.order(now))
        best = living[0]
        least = min(one.told_price for one in living)
        return [
            one
            for one in living
            if (one.source.preference, one.source.order) == (best.source.preference, best.source.order)
            and one.told_price - least <= within_ppm
        ]
