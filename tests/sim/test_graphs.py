"""Generated networks: what each kind promises, for any size and seed, and the same on every Python."""

from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.connector.tables import CHILD, PARENT, PEER
from isthmus.sim.graphs import DEPTH_MAX, FANOUT, KINDS, PARTS, Graph, generate
from isthmus.sim.oracle import figures

GRAPHS = st.builds(generate, st.sampled_from(sorted(KINDS)), st.integers(2, 80), st.integers(0, 2**32))


@given(GRAPHS)
def test_a_graph_is_connected(graph: Graph) -> None:
    seen, waiting = {0}, [0]
    while waiting:
        for one in graph.around[waiting.pop()]:
            if one.node not in seen:
                seen.add(one.node)
                waiting.append(one.node)
    assert len(seen) == len(graph.nodes)


@given(GRAPHS)
def test_parents_come_first_and_depth_counts_them(graph: Graph) -> None:
    """So nobody is above itself."""
    for link in graph.links:
        if link.is_parent:
            assert link.first < link.second
            assert graph.nodes[link.first].depth < graph.nodes[link.second].depth
    for number, node in enumerate(graph.nodes):
        above = [graph.nodes[parent].depth for parent in graph.related(number, PARENT)]
        assert node.depth == max(above, default=-1) + 1


@given(GRAPHS)
def test_both_ends_of_a_link_know_it(graph: Graph) -> None:
    turned = {PARENT: CHILD, CHILD: PARENT, PEER: PEER}
    for number, ones in enumerate(graph.around):
        assert [one.node for one in ones] == sorted({one.node for one in ones})
        for one in ones:
            (back,) = [other for other in graph.around[one.node] if other.node == number]
            assert (back.relation, back.link) == (turned[one.relation], one.link)
            link = graph.links[one.link]
            assert one.keeps_ppm == (link.first_keeps_ppm if link.first == number else link.second_keeps_ppm)
            assert 0 < one.keeps_ppm < PARTS and link.delay_ms > 0


@given(GRAPHS)
def test_everybody_can_be_reached_with_and_without_transit_below_a_top(graph: Graph) -> None:
    """All top nodes of a hierarchy are peers of each other."""
    found = figures(graph, sources=1)
    assert found.reachable == found.pairs
    if graph.kind in ("star", "tree", "scale-free"):
        found = figures(graph, transit=False, sources=1)
        assert found.reachable == found.pairs


@pytest.mark.parametrize(
    ("kind", "parents", "peers"),
    [("chain", 0, 11), ("ring", 0, 12), ("star", 11, 0), ("tree", 11, 0)],
)
def test_links_of_the_plain_kinds(kind: str, parents: int, peers: int) -> None:
    graph = generate(kind, 12, 3)
    kinds = [link.is_parent for link in graph.links]
    assert (kinds.count(True), kinds.count(False)) == (parents, peers)


def test_a_tree_has_so_many_children_a_node() -> None:
    graph = generate("tree", 40, 1)
    assert {len(graph.related(number, CHILD)) for number in range(13)} == {FANOUT}


@given(st.integers(20, 400), st.integers(0, 2**32))
@settings(max_examples=40)
def test_a_scale_free_network_is_a_hierarchy_with_a_top_of_peers(size: int, seed: int) -> None:
    graph = generate("scale-free", size, seed)
    top = [number for number, node in enumerate(graph.nodes) if node.depth == 0]
    assert top == list(range(len(top))) and 3 <= len(top) <= max(3, size // 60)
    for number, node in enumerate(graph.nodes):
        parents = graph.related(number, PARENT)
        assert node.depth <= DEPTH_MAX
        if number in top:
            assert {one.node for one in graph.around[number] if one.relation == PEER} == set(top) - {number}
        else:
            assert 1 <= len(parents) <= 3
            assert not set(graph.related(number, PEER)) & set(_above(graph, number))


def _above(graph: Graph, number: int) -> list[int]:
    found: list[int] = []
    for parent in graph.related(number, PARENT):
        found += [parent, *_above(graph, parent)]
    return found


def test_a_thousand_nodes_are_like_an_internet() -> None:
    """Few have most of the neighbours; paths are short."""
    graph = generate("scale-free", 1_000, 1)
    counts = sorted((len(ones) for ones in graph.around), reverse=True)
    assert counts[0] > 60 and counts[500] <= 3
    assert sum(counts[:100]) > sum(counts) // 3
    assert figures(graph, sources=1).diameter <= 2 * DEPTH_MAX + 1


def test_a_mesh_of_a_thousand_nodes_has_a_diameter_of_at_most_twelve() -> None:
    assert figures(generate("mesh", 1_000, 1), sources=1).diameter <= 12


def test_other_seeds_and_sizes_make_other_graphs() -> None:
    texts = {repr((graph.nodes, graph.links)) for graph in (generate("mesh", 30, 1), generate("mesh", 30, 2))}
    assert len(texts) == 2


DIGESTS = {
    "chain": "a113613a758a3a62",
    "mesh": "6cac13d751b936d3",
    "ring": "6781353a83bcba96",
    "scale-free": "59d34961fe2abff5",
    "star": "5956eae3f79f529b",
    "tree": "9ac70e1ed258a950",
}


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_seed_makes_the_same_graph_on_every_python(kind: str) -> None:
    graph = generate(kind, 200, 7)
    digest = sha256(repr((graph.nodes, graph.links)).encode()).hexdigest()[:16]
    assert digest == DIGESTS[kind]
