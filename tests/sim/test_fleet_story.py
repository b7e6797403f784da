"""Networks that run from cold, lose a link and a node, and get them back, while real packets are paid."""

import xml.etree.ElementTree as ET
from collections import Counter

import pytest

from isthmus.sim.convergence import convergence_picture
from isthmus.sim.fleet import Fleet
from isthmus.sim.fleet_story import PHASES, TRIES_WITHIN, Story
from isthmus.sim.graphs import generate
from isthmus.sim.parcels import FULFILLED


@pytest.mark.parametrize(
    ("kind", "nodes"), [("scale-free", 40), ("mesh", 25), ("ring", 12), ("chain", 8), ("tree", 15)]
)
def test_whoever_can_be_reached_can_be_paid_and_no_packet_is_left(kind: str, nodes: int) -> None:
    """The bars in small: settled in time, the next packets go around what fell, no loop outlives a packet."""
    heard: list[str] = []
    found = Story(generate(kind, nodes, 3), 3, pairs=60, tell=lambda name, _: heard.append(name)).run()
    assert tuple(dict.fromkeys(heard)) == PHASES
    for phase in found["phases"]:
        limit = 60_000 if phase["name"] == "cold" else 30_000
        assert phase["settled_ms"] is not None and phase["settled_ms"] < limit, phase["name"]
        assert phase["fulfilled_after"] == phase["reachable_pairs"], phase["name"]
        around = phase.get("over_what_fell", {"pairs": 0, "within_two_round_trips": 0})
        assert around["pairs"] == around["within_two_round_trips"]
    assert (found["packets"]["late"], found["packets"]["never_ended"]) == (0, 0)
    assert found["compared"]["ways"] == 60
    assert found["compared"]["of_best_price_mean_ppm"] >= 990_000
    assert found["per_node"]["messages_from_cold"] > 0 < found["per_node"]["memory_kib"]


def test_the_same_seed_tells_the_same_story() -> None:
    def story() -> object:
        found = Story(generate("scale-free", 20, 5), 5, pairs=20, tell=lambda *_: None).run()
        del found["per_node"]
        return found

    assert story() == story()


def test_a_packet_meets_the_gap_once_where_another_hop_is_known() -> None:
    """Failover: not even the first packet is lost where the node that meets the gap sees that the link is closed."""
    story = Story(generate("ring", 8, 1), 1, pairs=40, tell=lambda *_: None)
    story.run()
    tries = story.chapters[1].tries
    assert sum(tries.values()) > 0
    assert max(tries) <= TRIES_WITHIN


def test_packets_to_nobody_come_back() -> None:
    fleet = Fleet(generate("star", 6, 1), 1, pairs=4)
    fleet.run("cold")
    fleet.stop(3)
    fleet.run("a node falls")
    outcomes: Counter[str] = Counter()
    fleet.parcels.send(2, 3, lambda outcome: outcomes.update((outcome,)))
    fleet.parcels.send(2, 4, lambda outcome: outcomes.update((outcome,)))
    fleet.finish()
    assert outcomes == {"F02": 1, FULFILLED: 1}


def test_convergence_is_drawn_the_same_each_time() -> None:
    graph = generate("scale-free", 20, 5)
    found = Story(graph, 5, pairs=20, tell=lambda *_: None).run()
    drawn = convergence_picture(graph, found["phases"])
    assert drawn == convergence_picture(graph, found["phases"])
    root = ET.fromstring(drawn)
    lines = [one for one in root.iter() if one.tag.endswith("polyline")]
    assert len(lines) == len(PHASES)
    for name in PHASES:
        assert name in drawn
