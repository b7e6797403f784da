"""The kinds of networks that seeds are drawn for. Each has seeds of its own."""

from typing import Final

from isthmus.sim.draw import draw
from isthmus.sim.draw_routes import draw_routes
from isthmus.sim.draw_settle import draw_settle
from isthmus.sim.plan import Plan

PLAIN: Final = "plain"
ROUTES: Final = "routes"  # connectors find their routes by themselves
SETTLE: Final = "settle"  # neighbours settle on ledgers
_DRAW: Final = {PLAIN: draw, ROUTES: draw_routes, SETTLE: draw_settle}


def plan_of(kind: str, seed: int) -> Plan:
    """The plan of a seed."""
    return _DRAW[kind](seed)
