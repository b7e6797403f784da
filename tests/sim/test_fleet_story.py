"""Networks that run from cold, lose a link and a node, and get them back, while real packets are paid."""

import xml.etree.ElementTree as ET
from collections import Counter

import pytest

from isthmus.sim.announced import Announced
from isthmus.sim.convergence import convergence_picture
from isthmus.sim.fleet import SILENT_MS, Fleet
from isthmus.sim.fleet_story import LINK_SILENT, PHASES, TRIES_WITHIN, Story
from isthmus.sim.graphs import generate
from isthmus.sim.parcels import FULFILLED

SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("kind", "nodes"),
    [
        ("scale-free", 20),
        ("ring", 8),
        pytest.param("scale-free", 40, marks=SLOW),
        pytest.param("mesh", 25, marks=SLOW),
        pytest.param("chain", 8, marks=SLOW),
        pytest.param("tree", 15, marks=SLOW),
    ],
)
def test_whoever_can_be_reached_can_be_paid_and_no_packet_is_left(kind: str, nodes: int) -> None:
    """The bars in small: settled in time, the next packets go around what fell, no loop outlives a packet."""
    heard: list[str] = []
    found = Story(generate(kind, nodes, 3), 3, pairs=60, tell=lambda name, _: heard.append(name), paid=10).run()
    assert tuple(dict.fromkeys(heard)) == PHASES
    for phase in found["phases"]:
        limit = 60_000 if phase["name"] == "cold" else 30_000
        assert phase["settled_ms"] is not None and phase["settled_ms"] < limit, phase["name"]
        assert phase["name"] != LINK_SILENT or phase["settled_ms"] >= SILENT_MS
        assert phase["fulfilled_after"] == phase["reachable_pairs"], phase["name"]
        around = phase.get("over_what_fell", {"pairs": 0, "within_two_round_trips": 0})
        assert around["pairs"] == around["within_two_round_trips"]
    assert (found["packets"]["late"], found["packets"]["never_ended"]) == (0, 0)
    assert found["compared"]["ways"] == 60
    assert found["compared"]["of_best_price_mean_ppm"] >= 990_000
    assert found["per_node"]["messages_from_cold"] > 0 < found["per_node"]["memory_kib"]


@SLOW
def test_the_same_seed_tells_the_same_story() -> None:
    def story() -> object:
        found = Story(generate("scale-free", 20, 5), 5, pairs=20, tell=lambda *_: None, paid=10).run()
        del found["per_node"]
        return found

    assert story() == story()


def test_a_packet_meets_the_gap_once_where_another_hop_is_known() -> None:
    """Failover: not even the first packet is lost where the node that meets the gap sees that the link is closed."""
    story = Story(generate("ring", 8, 1), 1, pairs=40, tell=lambda *_: None, paid=10)
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
    found = Story(graph, 5, pairs=20, tell=lambda *_: None, paid=10).run()
    drawn = convergence_picture(graph, found["phases"])
    assert drawn == convergence_picture(graph, found["phases"])
    root = ET.fromstring(drawn)
    lines = [one for one in root.iter() if one.tag.endswith("polyline")]
    assert len(lines) == len({one.attrib["stroke"] for one in lines}) == len(PHASES)
    for name in PHASES:
        assert name in drawn


def test_who_tells_no_price_or_zero_is_heard_so() -> None:
    """In a chain the second node does: its neighbours hear it of all that lies behind."""
    for told in (None, 0):
        fleet = Fleet(generate("chain", 4, 1), 1, pairs=1, tells={1: told})
        fleet.run("cold")
        assert fleet.heard(0, 3) == [told] == fleet.heard(2, 0)
    honest = Fleet(generate("chain", 4, 1), 1, pairs=1)
    honest.run("cold")
    assert all(price for price in honest.heard(0, 3) + honest.heard(2, 0))


@pytest.mark.slow
def test_prices_that_are_not_told_or_wrong_cost_money_and_no_way() -> None:
    graph = generate("scale-free", 60, 1)

    def found(announced: Announced) -> tuple[int, int]:
        fleet = Fleet(graph, 1, pairs=200, tells=announced.draw(graph, 1))
        assert fleet.run("cold").settled_ms is not None
        compared = fleet.compare()
        return compared["ways"], compared["of_best_price_mean_ppm"]

    honest = found(Announced())
    assert honest[0] == 200 and honest[1] >= 990_000
    for announced in (Announced(silent=100), Announced(liars=100), Announced(silent=20, liars=20)):
        ways, of_best = found(announced)
        assert ways == 200 and 980_000 <= of_best < honest[1]


def test_a_silent_link_is_closed_when_its_ends_have_missed_an_answer() -> None:
    fleet = Fleet(generate("ring", 6, 1), 1, pairs=1)
    fleet.run("cold")
    assert fleet.way(0, 2) == [0, 1, 2]
    outcomes: Counter[str] = Counter()
    begin = fleet.agenda.now
    fleet.hush(fleet.link_between(0, 1))
    while (at := fleet.agenda.next_at()) is not None and at < begin + SILENT_MS:
        fleet.agenda.step()
    assert fleet.way(0, 2) == [0, 1, 2]
    fleet.agenda.step()
    while (at := fleet.agenda.next_at()) is not None and at <= begin + SILENT_MS:
        fleet.agenda.step()
    assert fleet.way(0, 2) == [0, 5, 4, 3, 2]
    fleet.parcels.send(0, 2, lambda outcome: outcomes.update((outcome,)))
    fleet.finish()
    assert outcomes == {FULFILLED: 1}
