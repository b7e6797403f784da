"""Networks of connectors as graphs, from a seed: chains, rings, stars, trees, meshes, and what looks like an internet.

A link joins a parent and a child, or two peers. Links from parents to children have no cycle: everybody's parents
came before it. Each link has what a simulation needs: its asset, its delay, and what each of its two ends keeps of what
it sends out over it, in parts per million; all nodes have the same mid rates, so a path's price is what the spreads
leave. Numbers are integers, and drawn in one order: a graph follows from kind, size and seed, on every Python.

The internet-like kind ("scale-free") is a hierarchy as in L. Gao and J. Rexford, "Stable Internet routing without
global coordination": a few nodes without parents, all peers of each other; then each node takes one to three parents
among the earlier ones, those with many children more often, so that the number of children follows a power law; and
some nodes of similar size, neither an ancestor of the other, become peers.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isqrt
from random import Random
from typing import Final, final

from isthmus.connector.tables import CHILD, PARENT, PEER
from isthmus.sim.plan import ASSETS

NODES_MIN: Final = 2
NODES_MAX: Final = 100_000
FIELD: Final = 10_000  # places are points in a square of this side
DELAY_MS_MIN: Final = 1
DELAY_PLACES: Final = 100  # of way make one millisecond: 1 to 142 ms
PARTS: Final = 1_000_000

DEPTH_MAX: Final = 4  # links from a scale-free network's top to its lowest: paths get no longer than twice that and one
FANOUT: Final = 3  # children of each node of a tree
_TOP_SHARE: Final = 60  # one of so many nodes of a scale-free network has no parent
_TOP_MIN: Final = 3
_PARENTS: Final = (1, 1, 1, 1, 1, 1, 2, 2, 2, 3)  # how many a node takes
_PEERS_SHARE: Final = 3  # one link between peers for so many nodes, besides those at the top
_CHORDS_SHARE: Final = 3  # one link across a mesh for so many nodes
# What ends of links keep, in ppm, by depth: large nodes live on volume.
_FLAT_SPREADS: Final = (100, 3_000)  # where all are peers
_SPREADS: Final = ((100, 500), (200, 1_000), (500, 2_000), (500, 3_000), (1_000, 5_000))


@final
@dataclass(slots=True, frozen=True)
class Node:
    """One connector."""

    name: str
    depth: int  # links from the top: 0 without parents
    place: tuple[int, int]
    asset: str  # of `plan.ASSETS`: what its links to children are in


@final
@dataclass(slots=True, frozen=True)
class Link:
    """`first` and `second` are indices of nodes; `is_parent`: the first is the second's parent, else they are peers.

    What an end keeps is the `account_spreads` of its account with the other. A wallet's account then needs a spread of
    its own, for what leaves to it would be charged that of the account where it came in.
    """

    first: int
    second: int
    is_parent: bool
    asset: str
    delay_ms: int  # one way
    first_keeps_ppm: int  # of what it sends to the second
    second_keeps_ppm: int


@final
@dataclass(slots=True, frozen=True)
class Neighbour:
    """What a node knows of the other end of a link."""

    node: int
    relation: str  # what the other is to us: parent, peer or child
    keeps_ppm: int  # what we keep of what we send there
    link: int


@final
class Graph:
    """A network. Raises AssertionError for one that is none: a link to itself, two between the same nodes."""

    def __init__(self, kind: str, seed: int, nodes: Sequence[Node], links: Sequence[Link]) -> None:
        self.kind: Final = kind
        self.seed: Final = seed
        self.nodes: Final = tuple(nodes)
        self.links: Final = tuple(links)
        around: list[list[Neighbour]] = [[] for _ in nodes]
        seen: set[tuple[int, int]] = set()
        for number, link in enumerate(links):
            pair = (min(link.first, link.second), max(link.first, link.second))
            assert pair[0] != pair[1] and pair not in seen, f"{pair} are linked twice, or to themselves"
            seen.add(pair)
            theirs, ours = (CHILD, PARENT) if link.is_parent else (PEER, PEER)
            around[link.first].append(Neighbour(link.second, theirs, link.first_keeps_ppm, number))
            around[link.second].append(Neighbour(link.first, ours, link.second_keeps_ppm, number))
        self.around: Final = tuple(tuple(sorted(ones, key=lambda one: one.node)) for ones in around)

    def number(self, name: str) -> int | None:
        """The node of this name."""
        return next((number for number, node in enumerate(self.nodes) if node.name == name), None)

    def related(self, node: int, relation: str) -> list[int]:
        """Its parents, peers or children."""
        return [one.node for one in self.around[node] if one.relation == relation]


@final
class _Builder:
    """A graph in the making."""

    def __init__(self, kind: str, size: int, seed: int) -> None:
        self.rng: Final = Random(f"{kind} {size} {seed}")  # a stream of its own: nothing else draws from it
        self.kind: Final = kind
        self.seed: Final = seed
        self.size: Final = size
        self.depths: Final = [0] * size
        self.pairs: Final[dict[tuple[int, int], bool]] = {}  # (first, second) -> whether the first is the parent

    def has(self, one: int, other: int) -> bool:
        return (one, other) in self.pairs or (other, one) in self.pairs

    def peers(self, one: int, other: int) -> None:
        self.pairs[one, other] = False

    def parent(self, parent: int, child: int) -> None:
        assert parent < child, "parents come before their children, so there is no cycle"
        self.pairs[parent, child] = True
        self.depths[child] = max(self.depths[child], self.depths[parent] + 1)

    def graph(self, place: Callable[[int], tuple[int, int]] | None = None) -> Graph:
        """Draw what nodes and links are like."""
        rng = self.rng
        codes = list(ASSETS)
        width = len(str(self.size - 1))
        is_flat = not any(self.pairs.values())
        nodes = [
            Node(
                name=f"n{number:0{width}}",
                depth=depth,
                place=(rng.randrange(FIELD), rng.randrange(FIELD)) if place is None else place(number),
                asset=codes[rng.randrange(len(codes))],
            )
            for number, depth in enumerate(self.depths)
        ]
        links = [
            Link(
                first=first,
                second=second,
                is_parent=is_parent,
                asset=nodes[first].asset,
                delay_ms=DELAY_MS_MIN + _distance(nodes[first], nodes[second]) // DELAY_PLACES,
                first_keeps_ppm=_keeps(rng, nodes[first], is_flat),
                second_keeps_ppm=_keeps(rng, nodes[second], is_flat),
            )
            for (first, second), is_parent in self.pairs.items()
        ]
        return Graph(self.kind, self.seed, nodes, links)


def _distance(one: Node, other: Node) -> int:
    return isqrt((one.place[0] - other.place[0]) ** 2 + (one.place[1] - other.place[1]) ** 2)


def _keeps(rng: Random, node: Node, is_flat: bool) -> int:
    low, high = _FLAT_SPREADS if is_flat else _SPREADS[min(node.depth, len(_SPREADS) - 1)]
    return rng.randrange(low, high + 1)


# --- kinds -----------------------------------------------------------------------------------------------------------


def _chain(builder: _Builder) -> Graph:
    """All peers, each of the next."""
    for number in range(1, builder.size):
        builder.peers(number - 1, number)
    return builder.graph(lambda number: (FIELD * (2 * number + 1) // (2 * builder.size), FIELD // 2))


def _ring(builder: _Builder) -> Graph:
    """A chain whose ends are peers, too."""
    for number in range(1, builder.size):
        builder.peers(number - 1, number)
    if builder.size > 2:
        builder.peers(builder.size - 1, 0)
    return builder.graph()


def _star(builder: _Builder) -> Graph:
    """One parent of all others."""
    for number in range(1, builder.size):
        builder.parent(0, number)
    return builder.graph()


def _tree(builder: _Builder) -> Graph:
    """Each node has `FANOUT` children, level by level."""
    for number in range(1, builder.size):
        builder.parent((number - 1) // FANOUT, number)
    return builder.graph()


def _mesh(builder: _Builder) -> Graph:
    """Peers on a grid, each linked to those beside it; and links across, between any two."""
    size, rng = builder.size, builder.rng
    columns = isqrt(size - 1) + 1
    for number in range(size):
        if number % columns:
            builder.peers(number - 1, number)
        if number >= columns:
            builder.peers(number - columns, number)
    for _ in range(size // _CHORDS_SHARE):
        one, other = rng.randrange(size), rng.randrange(size)
        if one != other and not builder.has(one, other):
            builder.peers(min(one, other), max(one, other))
    cell = FIELD // columns

    def place(number: int) -> tuple[int, int]:
        column, row = number % columns, number // columns
        return column * cell + cell // 4 + rng.randrange(cell // 2), row * cell + cell // 4 + rng.randrange(cell // 2)

    return builder.graph(place)


def _scale_free(builder: _Builder) -> Graph:
    """See the module."""
    size, rng = builder.size, builder.rng
    top = min(size, max(_TOP_MIN, size // _TOP_SHARE))
    for one in range(top):
        for other in range(one + 1, top):
            builder.peers(one, other)
    # Each candidate stands here once, and once more for each child: a draw from it prefers those with many.
    urn = list(range(top))
    for child in range(top, size):
        wanted = min(_PARENTS[rng.randrange(len(_PARENTS))], top)
        parents: dict[int, None] = {}
        while len(parents) < wanted:
            parents[urn[rng.randrange(len(urn))]] = None
        for parent in parents:
            builder.parent(parent, child)
            urn.append(parent)
        if builder.depths[child] < DEPTH_MAX:
            urn.append(child)
    _similar_peers(builder, top, urn)
    return builder.graph()


def _similar_peers(builder: _Builder, top: int, urn: list[int]) -> None:
    """Links between nodes below the top with about as many children."""
    rng = builder.rng
    children: dict[int, list[int]] = {}
    for (first, second), is_parent in builder.pairs.items():
        if is_parent:
            children.setdefault(first, []).append(second)
    weights = [len(children.get(number, ())) for number in range(builder.size)]
    for _ in range(builder.size // _PEERS_SHARE):
        one, other = urn[rng.randrange(len(urn))], urn[rng.randrange(len(urn))]
        if min(one, other) < top or one == other or builder.has(one, other):
            continue
        small, large = sorted((weights[one], weights[other]))
        if large <= 4 * (small + 1) and not _is_above(children, min(one, other), max(one, other)):
            builder.peers(min(one, other), max(one, other))


def _is_above(children: dict[int, list[int]], upper: int, lower: int) -> bool:
    """Whether one is an ancestor of the other."""
    waiting, seen = [upper], {upper}
    while waiting:
        for child in children.get(waiting.pop(), ()):
            if child == lower:
                return True
            if child < lower and child not in seen:
                seen.add(child)
                waiting.append(child)
    return False


KINDS: Final[dict[str, Callable[[_Builder], Graph]]] = {
    "chain": _chain,
    "ring": _ring,
    "star": _star,
    "tree": _tree,
    "mesh": _mesh,
    "scale-free": _scale_free,
}


def generate(kind: str, size: int, seed: int) -> Graph:
    """A graph of `KINDS` with so many nodes."""
    assert kind in KINDS, kind
    assert NODES_MIN <= size <= NODES_MAX, size
    return KINDS[kind](_Builder(kind, size, seed))
