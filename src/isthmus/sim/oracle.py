"""What routing could do at best on a graph: the shortest and the best-priced path that a route can be announced along.

Routes are told onward as CCP-17 has it: to a parent our own and our children's, to peers and children everything. So a
packet goes up to parents and across to peers in any order, and once it goes down, only down. Without transit (a filter
that an operator may set) peers are told no more than a parent is: then a packet goes up, across once at most, and down.

The oracle knows all spreads, and nobody's choice: where nodes prefer children whatever they cost, as CCP-18 has it, the
routes that they settle on may be worse. It shares no code with the connector.
"""

from collections import Counter, deque
from dataclasses import dataclass
from fractions import Fraction
from heapq import heappop, heappush
from itertools import pairwise
from typing import Final, TypeAlias, final

from isthmus.connector.tables import CHILD, PARENT
from isthmus.sim.graphs import PARTS, Graph

_FREE: Final = 0  # anything may follow
_DOWN: Final = 1  # only down may follow
# Shares are integers over a power of PARTS that is enough for paths of so many links; it is doubled if not.
_LINKS_FIRST: Final = 32
BILLION: Final = 10**9
_Steps: TypeAlias = list[list[tuple[int, int]]]


@final
@dataclass(slots=True, frozen=True)
class Best:
    """The best path to one node."""

    path: tuple[int, ...]  # nodes, both ends included
    kept: Fraction  # what arrives of what leaves, at mid rates


@final
class Oracle:
    """Answers for one graph."""

    def __init__(self, graph: Graph, *, transit: bool = True) -> None:
        self.graph: Final = graph
        self._size: Final = len(graph.nodes)
        # By state (node, or node + size once it goes down): the states that may follow, with the spread taken.
        self._next: Final[_Steps] = [self._follow(state, transit) for state in range(2 * self._size)]
        self._previous: Final[_Steps] = [[] for _ in range(2 * self._size)]
        for state, steps in enumerate(self._next):
            for following, keeps in steps:
                self._previous[following].append((state, keeps))

    def _follow(self, state: int, transit: bool) -> list[tuple[int, int]]:
        mode, node = divmod(state, self._size)
        steps: list[tuple[int, int]] = []
        for one in self.graph.around[node]:
            if one.relation == CHILD:
                steps.append((one.node + _DOWN * self._size, one.keeps_ppm))
            elif mode == _FREE:
                stays_free = transit or one.relation == PARENT
                steps.append((one.node + (_FREE if stays_free else _DOWN) * self._size, one.keeps_ppm))
        return steps

    def hops(self, source: int) -> list[int | None]:
        """Links of the shortest allowed path to each node; None where there is none."""
        reached = self._breadth_first(source)
        far: list[int | None] = []
        for node in range(self._size):
            ways = [one for one in (reached[node], reached[node + self._size]) if one >= 0]
            far.append(min(ways, default=None))
        return far

    def _breadth_first(self, source: int) -> list[int]:
        reached = [-1] * (2 * self._size)
        reached[source] = 0
        waiting = deque([source])
        while waiting:
            state = waiting.popleft()
            links = reached[state] + 1
            for following, _ in self._next[state]:
                if reached[following] < 0:
                    reached[following] = links
                    waiting.append(following)
        return reached

    def best(self, source: int) -> list[Best | None]:
        """The best-priced allowed path to each node, the shortest of equal ones.

        Every node on the way keeps its spread, the first one, too, as for a payment of its customer; not the last.
        """
        shares, before, whole = self._search([source], self._next)
        found: list[Best | None] = []
        for node in range(self._size):
            ways = [state for state in (node, node + self._size) if state in shares]
            state = min(ways, key=lambda state: (-shares[state][0], shares[state][1], state), default=None)
            found.append(None if state is None else self._best(state, shares, before, whole, turned=False))
        return found

    def best_to(self, destination: int) -> list[Best | None]:
        """The best-priced allowed path from each node to one, with paths as from the node."""
        shares, before, whole = self._search([destination, destination + self._size], self._previous)
        return [
            self._best(node, shares, before, whole, turned=True) if node in shares else None
            for node in range(self._size)
        ]

    def _search(self, starts: list[int], steps: _Steps) -> tuple[dict[int, tuple[int, int]], dict[int, int], int]:
        links_max = _LINKS_FIRST
        while True:
            found = _dijkstra(starts, steps, links_max)
            if found is not None:
                return (*found, PARTS**links_max)
            links_max *= 2

    def _best(
        self, state: int, shares: dict[int, tuple[int, int]], before: dict[int, int], whole: int, *, turned: bool
    ) -> Best:
        share = shares[state][0]
        path: list[int] = []
        while state >= 0:
            if not path or path[-1] != state % self._size:
                path.append(state % self._size)
            state = before[state]
        return Best(tuple(path if turned else reversed(path)), Fraction(share, whole))


def _dijkstra(
    starts: list[int], steps: _Steps, links_max: int
) -> tuple[dict[int, tuple[int, int]], dict[int, int]] | None:
    """Share and links of the best path to each state, and the state before it; None if a path has more than this."""
    shares: dict[int, tuple[int, int]] = {}
    before: dict[int, int] = {}
    # Largest share first; then fewest links; then by the state, and by where it comes from.
    waiting: list[tuple[int, int, int, int]] = [(-(PARTS**links_max), 0, start, -1) for start in starts]
    while waiting:
        negative, links, state, came_from = heappop(waiting)
        if state in shares:
            continue
        shares[state] = (-negative, links)
        before[state] = came_from
        if links == links_max:
            return None
        for following, keeps in steps[state]:
            if following not in shares:
                # Exact: each link takes one of the factors PARTS that the whole has for it.
                share = -negative // PARTS * (PARTS - keeps)
                heappush(waiting, (-share, links + 1, following, state))
    return shares, before


def price(graph: Graph, path: tuple[int, ...]) -> Fraction:
    """What arrives of what leaves on any path of the graph, at mid rates."""
    kept = Fraction(1)
    for node, following in pairwise(path):
        (one,) = [one for one in graph.around[node] if one.node == following]
        kept *= Fraction(PARTS - one.keeps_ppm, PARTS)
    return kept


def is_allowed(graph: Graph, path: tuple[int, ...], *, transit: bool = True) -> bool:
    """Whether routes are announced along this path: the rule itself, seen from the destination."""
    told = list(reversed(path))
    for at in range(1, len(told) - 1):
        learned_from, node, teller_to = told[at - 1], told[at], told[at + 1]
        relations = {one.node: one.relation for one in graph.around[node]}
        restricted = relations[teller_to] == PARENT or (not transit and relations[teller_to] != CHILD)
        if teller_to == learned_from or (restricted and relations[learned_from] != CHILD):
            return False
    return len(set(path)) == len(path)


@final
@dataclass(slots=True, frozen=True)
class Figures:
    """A graph in numbers. Means are exact; those of prices are over the pairs from `sources` nodes."""

    pairs: int  # of different nodes, ordered
    reachable: int  # of these, those with an allowed path
    diameter: int  # links of the longest of the shortest allowed paths
    hops_mean: Fraction | None
    hops_share: tuple[int, ...]  # reachable pairs by links, from 1
    sources: int
    kept_mean: Fraction | None  # of the best-priced path, to a billionth
    kept_least: Fraction | None
    hops_priced_mean: Fraction | None  # links of the best-priced path


def figures(graph: Graph, *, transit: bool = True, sources: int = 0) -> Figures:
    """All pairs by length; prices from so many sources, spread over all numbers (0: from all)."""
    oracle, size = Oracle(graph, transit=transit), len(graph.nodes)
    by_links: Counter[int] = Counter()
    for node in range(size):
        by_links.update(far for far in oracle.hops(node) if far)
    longest, reachable = max(by_links, default=0), by_links.total()
    asked = size if sources == 0 else min(sources, size)
    priced = links_priced = billionths = 0
    least: Fraction | None = None
    for step in range(asked):
        source = step * size // asked
        for node, best in enumerate(oracle.best(source)):
            if best is None or node == source:
                continue
            priced += 1
            links_priced += len(best.path) - 1
            billionths += best.kept.numerator * BILLION // best.kept.denominator
            if least is None or best.kept < least:
                least = best.kept
    return Figures(
        pairs=size * (size - 1),
        reachable=reachable,
        diameter=longest,
        hops_mean=_mean(sum(links * count for links, count in by_links.items()), reachable),
        hops_share=tuple(by_links[links] for links in range(1, longest + 1)),
        sources=asked,
        kept_mean=_mean(billionths, priced * BILLION),
        kept_least=least,
        hops_priced_mean=_mean(links_priced, priced),
    )


def _mean(total: int, count: int) -> Fraction | None:
    return Fraction(total, count) if count else None
