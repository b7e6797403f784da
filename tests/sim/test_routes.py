"""Networks without configured routes: they find them by CCP, around what falls, whatever a neighbour tells."""

from dataclasses import replace
from fractions import Fraction

import pytest

from isthmus.connector.events import AccountId
from isthmus.sim import plan as p
from isthmus.sim.bad_speakers import LIES
from isthmus.sim.draw import draw
from isthmus.sim.draw_routes import START_MS, draw_routes
from isthmus.sim.plan import FaultPlan, LinkPlan, NodePlan, Plan
from isthmus.sim.ways import lost_ways
from isthmus.sim.world import Result, World
from tests.sim.small import fault, payment


def ring(
    *,
    faults: tuple[FaultPlan, ...] = (),
    vice: str = "",
    is_child: bool = False,
    seed: int = 1,
    value: int = 3_000,
) -> Plan:
    """Five connectors in a ring, wallets at the first and the third; the fourth may be bad, and the others' child."""
    names = [f"c{number}" for number in range(1, 6)]
    nodes = [
        NodePlan(name=name, kind=p.CONNECTOR, spread=Fraction(1, 1_000), seed=seed + number)
        for number, name in enumerate(names)
    ]
    if vice:
        nodes[3] = replace(nodes[3], vice=vice, vice_rate=50)
    nodes += [
        NodePlan(name="w1", kind=p.WALLET, home="c1", asset="USD", timeout_ms=12_000, seed=seed + 7),
        NodePlan(name="w2", kind=p.WALLET, home="c3", asset="EUR", timeout_ms=12_000, seed=seed + 8),
    ]
    links = [
        LinkPlan(a=name, b=names[number - 1], asset="USD", delay_ms=9, jitter_ms=2, seed=seed + number)
        for number, name in enumerate(names)
    ]
    if is_child:
        parents = {"c4-c3": "c3", "c5-c4": "c5"}
        links = [replace(link, parent=parents.get(link.name, "")) for link in links]
    links += [
        LinkPlan(a="w1", b="c1", asset="USD", delay_ms=3, jitter_ms=1, packet_max=100, seed=3),
        LinkPlan(a="w2", b="c3", asset="EUR", delay_ms=5, jitter_ms=1, packet_max=100, seed=4),
    ]
    payments = (
        payment(1, "w1", "w2", value=value, at_ms=START_MS),
        payment(2, "w2", "w1", value=value, deliver=True, at_ms=START_MS + 20),
    )
    return Plan(seed=seed, nodes=tuple(nodes), links=tuple(links), payments=payments, faults=faults, by_ccp=True)


def run(plan: Plan) -> tuple[World, Result]:
    world = World(plan)
    return world, world.run()


@pytest.mark.parametrize("seed", range(1, 7))
def test_drawn_networks_have_no_findings(seed: int) -> None:
    """And in the end each connector has a way to each wallet."""
    result = World(draw_routes(seed)).run()
    assert result.findings == []
    assert result.coverage.groups["log"] is not None


def test_the_same_seed_makes_the_same_run() -> None:
    first: list[str] = []
    second: list[str] = []
    World(draw_routes(3), trace_to=first.append).run()
    World(draw_routes(3), trace_to=second.append).run()
    assert first == second
    assert len(first) > 1_000
    assert draw_routes(3).command == "isthmus sim run --routes --seed 3"
    assert not draw(3).by_ccp


def test_a_ring_without_faults_pays_everything() -> None:
    world, result = run(ring())
    assert result.findings == []
    assert result.payments == {"completed": 2}
    assert lost_ways(world) == []


@pytest.mark.parametrize("kind", [p.CUT, p.PARTITION])
def test_a_payment_goes_on_around_a_link_that_falls_under_it(kind: str) -> None:
    """CCP-20: the link stays dark for longer than the payment takes."""
    plan = ring(faults=(fault(kind, "c2-c1", at_ms=START_MS + 300, lasts_ms=60_000),), value=6_000)
    world, result = run(plan)
    assert result.findings == []
    assert result.payments == {"completed": 2}
    assert world.coverage.groups["fault"][kind] >= 1


def test_a_payment_goes_on_around_a_node_that_dies() -> None:
    """CCP-20."""
    plan = ring(faults=(fault(p.CRASH, "c2", at_ms=START_MS + 300, lasts_ms=60_000, value=1),), value=6_000)
    world, result = run(plan)
    assert result.findings == []
    assert result.payments == {"completed": 2}
    assert result.crashes == 1
    process = world.nodes["c1"].process
    assert process is not None
    found = process.kernel.switch.router.find(process.kernel.switch, b"test.c3.w2")
    assert found is not None
    assert found[1] == AccountId("c2")  # it is back, and the shorter way is used again


@pytest.mark.parametrize("lie", LIES)
def test_each_kind_of_bad_route_is_answered_and_bounded(lie: str) -> None:
    """A neighbour that tells nothing else. It costs at most a route: afterwards each has a way to each wallet."""
    world, result = run(ring(vice=f"{p.TELLS_LIES}: {lie}", is_child=lie == "leaks", seed=3))
    assert result.findings == []
    assert world.coverage.groups["vice"].get(p.TELLS_LIES, 0) > 0
    assert lost_ways(world) == []


@pytest.mark.parametrize(("lie", "code"), [("speaker", "F00"), ("hurries", "T05"), ("epochs", "F00")])
def test_bad_updates_are_refused_by_the_code_of_the_page(lie: str, code: str) -> None:
    """CCP-11: another speaker. CCP-12: what doesn't hang together. More than ten a second wait."""
    world, _ = run(ring(vice=f"{p.TELLS_LIES}: {lie}", seed=3))
    assert world.coverage.groups["answers to bad routes"].get(code, 0) > 0


@pytest.mark.parametrize("lie", ["", "leaks"])
def test_a_child_that_leaks_is_taken_at_its_word(lie: str) -> None:
    """CCP-17: its parents hear of each other over it only if it leaks, and then prefer it; they lose nothing else."""
    world, result = run(ring(vice=f"{p.TELLS_LIES}: {lie}" if lie else "", is_child=True, seed=3))
    assert (result.findings, result.payments, lost_ways(world)) == ([], {"completed": 2}, [])
    process = world.nodes["c3"].process
    assert process is not None
    router = process.kernel.switch.router
    leaked = router.rib.candidate("test.c5", "c4")
    assert (leaked is not None) == bool(lie)
    found = router.find(process.kernel.switch, b"test.c5.x")
    assert found is not None
    assert found[1] == AccountId("c4" if lie else "c2")


@pytest.mark.parametrize("vice", p.ROUTE_VICES)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_bad_routes_cost_nobody_money(vice: str, seed: int) -> None:
    """CCP-8 to CCP-12: leaks, floods, foreign epochs and table ids, broken bytes, flapping, a black hole."""
    world, result = run(ring(vice=vice, seed=seed, faults=(fault(p.CRASH, "c2", at_ms=START_MS + 200),)))
    assert result.findings == []
    assert world.coverage.groups["vice"].get(vice, 0) > 0
