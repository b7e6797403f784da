"""A generated network in numbers, as JSON: the graph itself, and what routing could do on it at best.

Figures of running nodes (convergence, messages, success, stretch) are to lie beside these, in a part of their own.
"""

from collections import Counter
from fractions import Fraction
from typing import Any

from isthmus.connector.tables import CHILD
from isthmus.sim.graphs import Graph
from isthmus.sim.oracle import Figures, figures

Json = dict[str, Any]


def describe(graph: Graph) -> Json:
    """Nodes and links in numbers."""
    around = sorted(len(ones) for ones in graph.around)
    delays = sorted(link.delay_ms for link in graph.links)
    keeps = sorted(keeps for link in graph.links for keeps in (link.first_keeps_ppm, link.second_keeps_ppm))
    parents = sum(link.is_parent for link in graph.links)
    depths = Counter(node.depth for node in graph.nodes)
    return {
        "kind": graph.kind,
        "seed": graph.seed,
        "nodes": len(graph.nodes),
        "links": len(graph.links),
        "parent_links": parents,
        "peer_links": len(graph.links) - parents,
        "without_children": sum(not graph.related(number, CHILD) for number in range(len(graph.nodes))),
        "nodes_by_depth": [depths[depth] for depth in range(max(depths) + 1)],
        "neighbours": _spread(around),
        "delay_ms": _spread(delays),
        "keeps_ppm": _spread(keeps),
    }


def at_best(graph: Graph, *, transit: bool, sources: int) -> Json:
    """What the oracle says of all pairs by length, and of prices from some nodes to all others."""
    found: Figures = figures(graph, transit=transit, sources=sources)
    return {
        "transit": transit,
        "pairs": found.pairs,
        "reachable": found.reachable,
        "diameter": found.diameter,
        "hops_mean": _thousandths(found.hops_mean),
        "pairs_by_hops": list(found.hops_share),
        "price": {
            "sources": found.sources,
            "kept_mean_ppm": _ppm(found.kept_mean),
            "kept_least_ppm": _ppm(found.kept_least),
            "hops_mean": _thousandths(found.hops_priced_mean),
        },
    }


def _spread(ordered: list[int]) -> Json:
    return {"least": ordered[0], "middle": ordered[len(ordered) // 2], "most": ordered[-1]}


def _thousandths(value: Fraction | None) -> float | None:
    return None if value is None else round(value * 1_000) / 1_000


def _ppm(value: Fraction | None) -> int | None:
    return None if value is None else value.numerator * 1_000_000 // value.denominator
