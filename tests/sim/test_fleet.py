"""Whole graphs run with the real routing: they come to rest, whatever falls."""

import pytest

from isthmus.connector.routing.unsteady import RETURNS, UNSTEADY_MS
from isthmus.sim.announced import could_leak, draw_leakers
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


def leaking(seed: int) -> Fleet:
    """Thirty nodes, one of which hands its parents' routes up to its parents."""
    graph = generate("scale-free", 30, seed)
    return Fleet(graph, seed, pairs=100, leakers=draw_leakers(graph, seed, 1))


@pytest.mark.parametrize("seed", [1, 2])
def test_networks_come_to_rest_whoever_leaks(seed: int) -> None:
    """By relations alone these two change for ever; five minutes later they do so again, and rest again."""
    fleet = leaking(seed)
    cold = fleet.run("cold")
    assert cold.settled_ms is not None and cold.settled_ms < 10_000
    assert cold.reached[-1][1] == 100
    returns = fleet.returns()
    assert returns["most"] >= RETURNS and returns["unsteady"] > 0
    fleet.run_until(fleet.agenda.now + UNSTEADY_MS)
    again = fleet.run("relations count again")
    assert again.settled_ms is not None and again.settled_ms < 30_000
    assert again.reached[-1][1] == 100


def test_the_same_leaks_make_the_same_choices() -> None:
    def ways() -> list[object]:
        fleet = leaking(2)
        phase = fleet.run("cold")
        return [phase, *[fleet.way(*pair) for pair in fleet.pairs]]

    assert ways() == ways()


def test_honest_networks_are_far_from_unsteady() -> None:
    fleet = Fleet(generate("scale-free", 60, 1), 1, pairs=10)
    fleet.run("cold")
    for number in could_leak(fleet.graph)[:2]:
        fleet.stop(number)
        fleet.run("a node falls")
        fleet.start(number)
        fleet.run("it comes back")
    returns = fleet.returns()
    assert returns["most"] <= 1 and returns["unsteady"] == 0
