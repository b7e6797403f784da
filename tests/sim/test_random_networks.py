"""Small honest networks of any shape: at rest each node has the ways that policy gives it, whatever link falls."""

from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from isthmus.connector.tables import CHILD, PARENT
from isthmus.sim.fleet import Fleet
from isthmus.sim.graphs import Graph, Link, Node
from isthmus.sim.oracle import Oracle, is_allowed
from isthmus.sim.plan import ASSETS

NODES_MAX = 7


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Connected; parents come before their children, so nobody is above itself."""
    size = draw(st.integers(2, NODES_MAX), label="nodes")
    asset = next(iter(ASSETS))
    depths = [0] * size
    links: dict[tuple[int, int], Link] = {}

    def add(first: int, second: int) -> None:
        is_parent = draw(st.booleans(), label="is parent")
        if is_parent:
            depths[second] = max(depths[second], depths[first] + 1)
        keeps = st.sampled_from((100, 100, 3_000))
        links[first, second] = Link(
            first=first, second=second, is_parent=is_parent, asset=asset, delay_ms=draw(st.integers(1, 140)),
            first_keeps_ppm=draw(keeps), second_keeps_ppm=draw(keeps),
        )  # fmt: skip

    for second in range(1, size):
        add(draw(st.integers(0, second - 1), label="joined to"), second)
    pairs = [(first, second) for second in range(size) for first in range(second)]
    for pair in draw(st.lists(st.sampled_from(pairs), max_size=size, unique=True), label="more links"):
        if pair not in links:
            add(*pair)
    nodes = [Node(name=f"n{number}", depth=depth, place=(0, 0), asset=asset) for number, depth in enumerate(depths)]
    return Graph("random", 0, nodes, list(links.values()))


def down(graph: Graph, target: int) -> dict[int, int]:
    """Links of the shortest way to the target that goes down only, by the nodes that have one."""
    far = {target: 0}
    waiting = deque(far)
    while waiting:
        node = waiting.popleft()
        for parent in graph.related(node, PARENT):
            if parent not in far:
                far[parent] = far[node] + 1
                waiting.append(parent)
    return far


def by_policy(graph: Graph, target: int) -> dict[int, int]:
    """Links of the way that each node should have: over a child if any way is, else the shortest that it is told.

    Who has a way down takes the shortest one of these, and so do all below it. No child tells anything to the others:
    each is one further than the nearest of its peers and parents.
    """
    far = down(graph, target)
    fixed = set(far)
    while True:
        steps = [
            (far[one.node] + 1, node)
            for node in range(len(graph.nodes))
            if node not in fixed
            for one in graph.around[node]
            if one.relation != CHILD and one.node in fixed
        ]
        if not steps:
            return far
        links, node = min(steps)
        far[node] = links
        fixed.add(node)


def check(fleet: Fleet, graph: Graph) -> None:
    """`graph`: what is left of the fleet's."""
    oracle = Oracle(graph)
    reachable = [oracle.hops(source) for source in range(len(graph.nodes))]
    for target in range(len(graph.nodes)):
        lowest, links = down(graph, target), by_policy(graph, target)
        for source in range(len(graph.nodes)):
            way = fleet.way(source, target)
            assert (way is None) == (reachable[source][target] is None), (source, target, way)
            if way is None or source == target:
                continue
            assert way[-1] == target and is_allowed(graph, tuple(way)), way
            assert len(way) - 1 == links[source], way
            assert (way[1] in graph.related(source, CHILD)) == (source in lowest), way


def without(graph: Graph, link: int) -> Graph:
    return Graph(graph.kind, graph.seed, graph.nodes, [*graph.links[:link], *graph.links[link + 1 :]])


@given(graphs(), st.integers(0, 2**16), st.integers(0, 2**16))
def test_each_node_has_the_ways_that_policy_gives_it(graph: Graph, seed: int, falls: int) -> None:
    """CCP-17, CCP-18, CCP-20: no loop, every way that may be told, none that may not, and none better."""
    fleet = Fleet(graph, seed, pairs=1)
    assert fleet.run("cold").settled_ms is not None
    check(fleet, graph)
    link = falls % len(graph.links)
    fleet.cut(link)
    assert fleet.run("a link falls").settled_ms is not None
    check(fleet, without(graph, link))
    fleet.mend(link)
    assert fleet.run("it is mended").settled_ms is not None
    check(fleet, graph)
    assert fleet.returns()["unsteady"] == 0
