"""A graph as an SVG: the top in the middle, children around their parents; rings, chains and meshes where they are.

Readable on light and dark pages. The same graph and routes give the same bytes.
"""

from collections.abc import Iterable, Sequence
from html import escape
from itertools import pairwise
from math import cos, isqrt, pi, sin
from typing import Final

from isthmus.connector.tables import PARENT
from isthmus.sim.graphs import FIELD, Graph

SIDE: Final = 1_000
HEAD: Final = 70  # above the picture, for title and legend
MARGIN: Final = 40
LABELS_MAX: Final = 40  # nodes; beyond it only the destination has its name beside it
_TURN: Final = 360_000  # angles are integers in thousandths of a degree until they are drawn

_STYLE: Final = """\
  .page { fill: #f8fafc; stroke: #cbd5e1 }
  .parent { stroke: #64748b; fill: none }
  .peer { stroke: #0284c7; fill: none; stroke-dasharray: 4 3 }
  .faint { opacity: .5 }
  .route { stroke: #ea580c; fill: none }
  .node { fill: #334155; stroke: #f8fafc }
  .lost { fill: #f8fafc; stroke: #334155 }
  .goal { fill: #ea580c; stroke: #f8fafc }
  text { fill: #0f172a; font: 13px system-ui, sans-serif }
  .title { font-size: 17px; font-weight: 600 }
  @media (prefers-color-scheme: dark) {
    .page { fill: #0f172a; stroke: #334155 }
    .parent { stroke: #94a3b8 }
    .peer { stroke: #38bdf8 }
    .route { stroke: #fb923c }
    .node { fill: #cbd5e1; stroke: #0f172a }
    .lost { fill: #0f172a; stroke: #cbd5e1 }
    .goal { fill: #fb923c; stroke: #0f172a }
    text { fill: #e2e8f0 }
  }"""

Point = tuple[float, float]

# What kind of routes is drawn.
BEST: Final = "best-priced routes"
CHOSEN: Final = "routes as the nodes chose them"


def picture(
    graph: Graph, *, destination: int | None = None, routes: Iterable[Sequence[int]] = (), which: str = BEST
) -> str:
    """The SVG. `routes` are paths of nodes to the destination, drawn over the links; who has none is hollow.

    `which` says in the legend what kind of routes they are.
    """
    points = _layout(graph)
    used: dict[tuple[int, int], None] = {}
    reached: set[int] = set()
    for path in routes:
        reached.update(path)
        for one, other in pairwise(path):
            used[min(one, other), max(one, other)] = None
    title = f"{graph.kind}, {len(graph.nodes)} nodes, {len(graph.links)} links, seed {graph.seed}"
    if destination is not None:
        title += f"; routes to {graph.nodes[destination].name}"
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {SIDE} {SIDE + HEAD}" role="img">',
        f"<title>{escape(title)}</title>",
        f"<style>\n{_STYLE}\n</style>",
        f'<rect class="page" x="0.5" y="0.5" width="{SIDE - 1}" height="{SIDE + HEAD - 1}" rx="12"/>',
        f'<text class="title" x="24" y="32">{escape(title)}</text>',
        *_legend(graph, None if destination is None else which),
        *_links(graph, points, used, thin=destination is not None),
        *_nodes(graph, points, reached, destination),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


# --- places ----------------------------------------------------------------------------------------------------------


def _layout(graph: Graph) -> list[Point]:
    if any(link.is_parent for link in graph.links):
        return _around_the_top(graph)
    if graph.kind == "ring":
        size = len(graph.nodes)
        return [_polar(_TURN * number // size, 1.0) for number in range(size)]
    scale = (SIDE - 2 * MARGIN) / FIELD
    return [(MARGIN + node.place[0] * scale, HEAD + MARGIN + node.place[1] * scale) for node in graph.nodes]


def _around_the_top(graph: Graph) -> list[Point]:
    """Each node on the ring of its depth, in the sector of its nearest parent: as wide as there are leaves."""
    size = len(graph.nodes)
    nearest = [
        max(graph.related(number, PARENT), key=lambda parent: (graph.nodes[parent].depth, -parent), default=-1)
        for number in range(size)
    ]
    children: list[list[int]] = [[] for _ in range(size)]
    for number, parent in enumerate(nearest):
        if parent >= 0:
            children[parent].append(number)
    leaves = [0] * size
    for number in range(size - 1, -1, -1):  # parents come before their children
        leaves[number] = max(1, sum(leaves[child] for child in children[number]))
    roots = [number for number, parent in enumerate(nearest) if parent < 0]
    deepest = max(node.depth for node in graph.nodes)
    inner = 0 if len(roots) == 1 else 1
    starts = [0] * size
    points: list[Point] = [(0.0, 0.0)] * size
    total = sum(leaves[root] for root in roots)
    at = 0
    for root in roots:
        starts[root] = at
        at += leaves[root]
    for number in range(size):
        angle = _TURN * (2 * starts[number] + leaves[number]) // (2 * total)
        points[number] = _polar(angle, (graph.nodes[number].depth + inner) / (deepest + inner))
        at = starts[number]
        for child in children[number]:
            starts[child] = at
            at += leaves[child]
    return points


def _polar(angle: int, share: float) -> Point:
    """A point at this angle and this share of the way from the middle to the edge."""
    radius = (SIDE / 2 - MARGIN) * share
    turned = 2 * pi * angle / _TURN
    return (SIDE / 2 + radius * sin(turned), HEAD + SIDE / 2 - radius * cos(turned))


# --- marks -----------------------------------------------------------------------------------------------------------


def _links(graph: Graph, points: list[Point], used: dict[tuple[int, int], None], *, thin: bool) -> Iterable[str]:
    width = "0.7" if len(graph.nodes) > 200 else "1.2"
    routes: list[str] = []
    for kind, is_parent in (("parent", True), ("peer", False)):
        plain: list[str] = []
        for link in graph.links:
            pair = (min(link.first, link.second), max(link.first, link.second))
            line = _line(points[pair[0]], points[pair[1]])
            if pair in used and link.is_parent is is_parent:
                routes.append(line)
            elif link.is_parent is is_parent:
                plain.append(line)
        if plain:
            faint = " faint" if thin or len(graph.nodes) > 200 else ""
            yield f'<path class="{kind}{faint}" stroke-width="{width}" d="{"".join(plain)}"/>'
    if routes:
        yield f'<path class="route" stroke-width="{"1.2" if len(graph.nodes) > 200 else "2.4"}" d="{"".join(routes)}"/>'


def _line(one: Point, other: Point) -> str:
    return f"M{one[0]:.1f} {one[1]:.1f}L{other[0]:.1f} {other[1]:.1f}"


def _nodes(graph: Graph, points: list[Point], reached: set[int], destination: int | None) -> Iterable[str]:
    size = len(graph.nodes)
    small = 2 if size > 200 else 4
    for number, (x, y) in enumerate(points):
        kind = "node"
        if destination is not None:
            kind = "goal" if number == destination else "node" if number in reached else "lost"
        radius = small + isqrt(len(graph.around[number])) + (3 if number == destination else 0)
        name = escape(graph.nodes[number].name)
        yield f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{radius}"><title>{name}</title></circle>'
    for number, (x, y) in enumerate(points):
        if size <= LABELS_MAX or number == destination:
            yield f'<text x="{x + small + 6:.1f}" y="{y - small - 2:.1f}">{escape(graph.nodes[number].name)}</text>'


def _legend(graph: Graph, which: str | None) -> Iterable[str]:
    shown = []
    if any(link.is_parent for link in graph.links):
        shown.append(("parent", "parent and child"))
    if any(not link.is_parent for link in graph.links):
        shown.append(("peer", "peers"))
    if which is not None:
        shown.append(("route", which))
    for number, (kind, text) in enumerate(shown):
        x = 24 + 170 * number
        yield f'<path class="{kind}" stroke-width="2" d="M{x} 52h28"/><text x="{x + 36}" y="56">{text}</text>'
