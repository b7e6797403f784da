"""How ways come to be over virtual time, as an SVG: one line for each thing that happens to a network.

Readable on light and dark pages. The same figures give the same bytes.
"""

from collections.abc import Sequence
from html import escape
from typing import Any, Final

from isthmus.sim.graphs import Graph

WIDTH: Final = 1_000
HEIGHT: Final = 460
LEFT, RIGHT, TOP, BOTTOM = 70, 220, 60, 50
# One for each event of `Story.run`.
COLOURS: Final = ("#2563eb", "#ea580c", "#16a34a", "#c026d3", "#0891b2", "#ca8a04", "#dc2626")
GRID: Final = 5
STEPS_S: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500)  # between the lines of time
STEPS_MAX: Final = 8
_STYLE: Final = """\
  .page { fill: #f8fafc; stroke: #cbd5e1 }
  .grid { stroke: #cbd5e1 }
  .line { fill: none; stroke-width: 2.5 }
  text { fill: #0f172a; font: 13px system-ui, sans-serif }
  .title { font-size: 17px; font-weight: 600 }
  .end { text-anchor: end }
  .middle { text-anchor: middle }
  @media (prefers-color-scheme: dark) {
    .page { fill: #0f172a; stroke: #334155 }
    .grid { stroke: #334155 }
    text { fill: #e2e8f0 }
  }"""


def convergence_picture(graph: Graph, phases: Sequence[dict[str, Any]]) -> str:
    """The share of pairs whose tables lead to each other, over the time since each event of `Story.run`."""
    assert len(phases) <= len(COLOURS)
    longest = max(way["ms"] for phase in phases for way in phase["ways"])
    step = next((step for step in STEPS_S if 1_000 * step * STEPS_MAX >= longest), STEPS_S[-1])
    last = -(-longest // (1_000 * step)) * 1_000 * step or 1_000 * step
    title = f"{graph.kind}, {len(graph.nodes)} nodes, seed {graph.seed}: pairs with a way, over virtual time"
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        f"<title>{escape(title)}</title>",
        f"<style>\n{_STYLE}\n</style>",
        f'<rect class="page" x="0.5" y="0.5" width="{WIDTH - 1}" height="{HEIGHT - 1}" rx="12"/>',
        f'<text class="title" x="24" y="32">{escape(title)}</text>',
        *_axes(last, step),
    ]
    for number, phase in enumerate(phases):
        colour = COLOURS[number]
        points = " ".join(f"{_x(way['ms'], last)},{_y(way['share_ppm'])}" for way in phase["ways"])
        lines.append(f'<polyline class="line" stroke="{colour}" points="{points}"/>')
        y = TOP + 20 + 44 * number
        settled = "not settled" if phase["settled_ms"] is None else f"settled after {phase['settled_ms'] / 1000:.1f} s"
        lines.append(
            f'<line x1="{WIDTH - RIGHT + 16}" x2="{WIDTH - RIGHT + 40}" y1="{y - 5}" y2="{y - 5}"'
            f' class="line" stroke="{colour}"/>'
        )
        lines.append(f'<text x="{WIDTH - RIGHT + 48}" y="{y}">{escape(phase["name"])}</text>')
        lines.append(f'<text x="{WIDTH - RIGHT + 48}" y="{y + 18}">{settled}</text>')
    return "\n".join([*lines, "</svg>"]) + "\n"


def _axes(last: int, step: int) -> list[str]:
    lines = []
    for part in range(GRID + 1):
        share = 1_000_000 * part // GRID
        y = _y(share)
        lines.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>')
        lines.append(f'<text class="end" x="{LEFT - 8}" y="{y + 4}">{share // 10_000} %</text>')
    for seconds in range(0, last // 1_000 + 1, step):
        x = _x(1_000 * seconds, last)
        lines.append(f'<line class="grid" x1="{x}" x2="{x}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
        lines.append(f'<text class="middle" x="{x}" y="{HEIGHT - BOTTOM + 20}">{seconds} s</text>')
    return lines


def _x(ms: int, last: int) -> int:
    return LEFT + (WIDTH - LEFT - RIGHT) * ms // max(1, last)


def _y(share_ppm: int) -> int:
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share_ppm // 1_000_000
