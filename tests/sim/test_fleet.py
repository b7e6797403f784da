"""Whole graphs run with the real routing: they come to rest, whatever falls."""

import pytest

from isthmus.sim.fleet import Fleet
from isthmus.sim.graphs import generate


@pytest.mark.parametrize(("kind", "nodes", "seed"), [("scale-free", 60, 1), ("mesh", 49, 1), ("ring", 25, 1)])
def test_tables_come_to_rest_after_a_start_and_after_what_falls(kind: str, nodes: int, seed: int) -> None:
    """With peers before parents the scale-free network of seed 1 never does."""
    fleet = Fleet(generate(kind, nodes, seed), seed, pairs=100)
    cold = fleet.run("cold")
    assert cold.settled_ms is not None and cold.settled_ms < 60_000
    assert cold.reached[-1][1] == 100
    found = fleet.compare()
    assert found["ways"] == 100 and found["of_best_price_mean_ppm"] >= 990_000
    way = next(way for one, other in fleet.pairs if (way := fleet.way(one, other)) and len(way) > 3)

    fleet.stop(way[1])
    gone = fleet.run("a node falls")
    assert gone.settled_ms is not None and gone.settled_ms < 30_000
    for one, other in fleet.pairs:
        left = fleet.way(one, other)
        assert left is None or (left[-1] == other and way[1] not in left), "no circle stays"
    fleet.start(way[1])
    back = fleet.run("it comes back")
    assert back.settled_ms is not None and back.settled_ms < 30_000
    assert back.reached[-1][1] == 100
