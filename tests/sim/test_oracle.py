"""The oracle against every path of small graphs, tried one by one by the export rule as it is written."""

from collections.abc import Iterator
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.sim.graphs import Graph, Link, Node, generate
from isthmus.sim.oracle import Oracle, figures, is_allowed, price

NODE = Node("x", 0, (0, 0), "USD")


def graph_of(size: int, *links: tuple[int, int, bool], keeps: int = 1_000) -> Graph:
    """(parent, child, True) or (peer, peer, False)."""
    nodes = [Node(f"n{number}", 0, (0, 0), "USD") for number in range(size)]
    made = [Link(one, other, is_parent, "USD", 1, keeps, keeps) for one, other, is_parent in links]
    return Graph("hand-made", 0, nodes, made)


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Up to six nodes, any links, spreads that are often equal or nothing."""
    size = draw(st.integers(2, 6))
    pairs = [(one, other) for one in range(size) for other in range(one + 1, size)]
    chosen = draw(st.lists(st.sampled_from(pairs), unique=True))
    keeps = st.sampled_from([0, 1, 1_000, 1_000, 250_000, 499_999])
    links = [Link(one, other, draw(st.booleans()), "USD", 1, draw(keeps), draw(keeps)) for one, other in chosen]
    return Graph("drawn", 0, [NODE] * size, links)


def all_paths(graph: Graph, path: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    yield path
    for one in graph.around[path[-1]]:
        if one.node not in path:
            yield from all_paths(graph, (*path, one.node))


@given(graphs(), st.booleans())
@settings(max_examples=150, deadline=None)
def test_no_path_is_shorter_or_better(graph: Graph, transit: bool) -> None:
    """CCP-17."""
    oracle = Oracle(graph, transit=transit)
    size = len(graph.nodes)
    to = [oracle.best_to(node) for node in range(size)]
    for source in range(size):
        shortest: dict[int, int] = {}
        best: dict[int, tuple[Fraction, int]] = {}
        for path in all_paths(graph, (source,)):
            if is_allowed(graph, path, transit=transit):
                end, links = path[-1], len(path) - 1
                shortest[end] = min(shortest.get(end, links), links)
                best[end] = max(best.get(end, (Fraction(0), -links)), (price(graph, path), -links))
        assert oracle.hops(source) == [shortest.get(node) for node in range(size)]
        found = oracle.best(source)
        assert [None if one is None else (one.kept, 1 - len(one.path)) for one in found] == [
            best.get(node) for node in range(size)
        ]
        for node, (one, other) in enumerate(zip(found, [to[node][source] for node in range(size)], strict=True)):
            assert (one is None) == (other is None)
            if one is not None and other is not None:
                assert (one.kept, len(one.path)) == (other.kept, len(other.path))
                for way in (one.path, other.path):
                    assert (way[0], way[-1]) == (source, node)
                    assert is_allowed(graph, way, transit=transit) and price(graph, way) == one.kept


@pytest.mark.parametrize(
    ("links", "transit", "there", "back"),
    [
        ([(1, 0, True), (1, 2, True)], True, True, True),  # up to a parent, down to its other child
        ([(0, 1, True), (2, 1, True)], True, False, False),  # a child is no way between its parents
        ([(0, 1, False), (1, 2, False)], True, True, True),  # peers pass on what peers told them
        ([(0, 1, False), (1, 2, False)], False, False, False),  # unless the operator doesn't want that
        ([(1, 0, True), (1, 2, False)], False, True, True),  # up and across, across and down
        ([(0, 1, False), (2, 1, True)], True, True, False),  # a peer is told of parents, a parent of no peers
        ([(0, 1, False), (2, 1, True)], False, False, False),
    ],
)
def test_who_is_told_of_whom(links: list[tuple[int, int, bool]], transit: bool, there: bool, back: bool) -> None:
    """CCP-17, from node 0 to node 2 and back."""
    graph = graph_of(3, *links)
    oracle = Oracle(graph, transit=transit)
    assert (oracle.hops(0)[2] is not None, oracle.hops(2)[0] is not None) == (there, back)
    assert (oracle.best(0)[2] is not None, oracle.best(2)[0] is not None) == (there, back)


def test_a_longer_way_may_be_the_better_one() -> None:
    nodes = [NODE] * 4
    links = [
        Link(0, 1, False, "USD", 1, 10_000, 10_000),
        *(Link(one, other, False, "USD", 1, 1_000, 1_000) for one, other in ((0, 2), (2, 3), (3, 1))),
    ]
    graph = Graph("hand-made", 0, nodes, links)
    best = Oracle(graph).best(0)[1]
    assert best is not None
    assert best.path == (0, 2, 3, 1) and best.kept == Fraction(999, 1_000) ** 3
    assert Oracle(graph).hops(0)[1] == 1


def test_paths_of_more_links_than_it_first_makes_room_for() -> None:
    graph = generate("chain", 70, 1)
    best = Oracle(graph).best(0)[69]
    assert best is not None
    assert best.path == tuple(range(70)) and best.kept == price(graph, best.path)


def test_figures_of_a_ring() -> None:
    found = figures(generate("ring", 6, 1))
    assert (found.pairs, found.reachable, found.diameter, found.hops_share) == (30, 30, 3, (12, 12, 6))
    assert found.hops_mean == Fraction(9, 5)


def test_figures_where_nobody_is_linked() -> None:
    found = figures(graph_of(2))
    assert (found.reachable, found.diameter, found.kept_mean, found.hops_mean) == (0, 0, None, None)
