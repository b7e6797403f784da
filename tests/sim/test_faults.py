"""Each kind of fault happens, and the network survives it: payments end, nothing stays reserved, all books agree."""

import pytest

from isthmus.sim import plan as p
from isthmus.sim.http import CONNECT_MS, PROBE_MS_MAX
from isthmus.sim.plan import FaultPlan
from isthmus.sim.wallet import Wallet
from tests.sim.small import fault, network, run

FAULTS = [
    fault(p.DELAY, "c2-c1", value=900),
    fault(p.CUT, "c2-c1", lasts_ms=0),
    fault(p.CUT, "c3-c2", value=2),
    fault(p.CUT, "c3-c2", value=3, lasts_ms=12_000),
    fault(p.REPLACE, "c2-c1", lasts_ms=0),
    fault(p.PARTITION, "c3-c2", lasts_ms=30_000),
    fault(p.HALF_OPEN, "c2-c1", lasts_ms=12_000),
    fault(p.HALF_OPEN, "c2-c1", lasts_ms=12_000, value=1),
    fault(p.SLOW_PEER, "c2-c1", lasts_ms=15_000),
    fault(p.SLOW_PEER, "w1-c1", lasts_ms=2_000, value=1),
    fault(p.CRASH, "c2", lasts_ms=300, value=1),
    fault(p.CRASH, "c2", lasts_ms=25_000, value=3),
    fault(p.CRASH, "w1", lasts_ms=700, value=2),
    fault(p.CRASH, "w2", lasts_ms=9_000, value=0),
    fault(p.TORN, "c1"),
    fault(p.FAILED_WRITE, "c2"),
    fault(p.UNKNOWN_WRITE, "c3"),
    fault(p.UNKNOWN_WRITE, "w2"),
    fault(p.SLOW_DISK, "c2", value=900),
    fault(p.SLOW_DISK, "w1", value=2_500),
    fault(p.CLOCK_JUMP, "c2", value=5_000),
    fault(p.CLOCK_JUMP, "w2", value=-3_600_000),
    fault(p.RATE, "c2", value=-4),
    fault(p.RATE, "c2", value=20),
    fault(p.DRY, "c1"),
]


@pytest.mark.parametrize("planned", FAULTS, ids=str)
def test_the_network_survives(planned: FaultPlan) -> None:
    world, result = run(network(faults=(planned,)))
    assert result.coverage.groups["fault"][planned.kind] >= 1
    assert result.findings == []
    assert sum(result.payments.values()) == 2
    assert world.is_calm


@pytest.mark.parametrize("kind", p.HTTP_FAULTS)
@pytest.mark.parametrize("asynchronous", [False, True])
def test_requests_get_lost_come_twice_and_pass_each_other(kind: str, asynchronous: bool) -> None:
    plan = network(faults=(fault(kind, "c2-c1", value=30),), carrier=p.HTTP, asynchronous=asynchronous)
    _, result = run(plan)
    assert result.coverage.groups["fault"][kind] >= 1
    assert result.findings == []


def test_an_http_link_is_there_when_both_ends_have_noticed() -> None:
    """Seed 1232: what expired while the peer had not asked yet whether the node was back was called unpermitted."""
    world, result = run(network(faults=(fault(p.CRASH, "c1", lasts_ms=3_000),), carrier=p.HTTP))
    ((_, back_at),) = world.nodes["c1"].downs
    (there_at,) = (end for start, end in world.lines["c2-c1"].gaps if start < back_at <= end)
    assert back_at + 2 * 12 < there_at <= back_at + PROBE_MS_MAX + CONNECT_MS
    assert result.findings == []


@pytest.mark.parametrize("skew_ms", [1_400, -1_400, 6_500, -6_500])
def test_clocks_that_are_wrong(skew_ms: int) -> None:
    _, result = run(network(skew_ms=skew_ms))
    assert result.coverage.groups["fault"][p.SKEW] == 1
    assert result.findings == []


def test_without_faults_all_is_paid_to_the_unit() -> None:
    _, result = run(network())
    assert result.findings == []
    assert result.payments == {"completed": 2}
    assert result.losses == 0


def test_users_who_look_at_what_comes_in_take_it_once() -> None:
    plan = network(seed=2)
    world, result = run(plan)
    wallets = [node for node in world.nodes.values() if isinstance(node, Wallet)]
    assert [wallet.asks for wallet in wallets] == [False, True]
    assert result.coverage.groups["stream"]["DecisionWanted"] >= 1
    assert result.findings == []
    assert result.payments == {"completed": 2}
