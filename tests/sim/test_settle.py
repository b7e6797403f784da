"""Networks whose neighbours settle: on ledgers that fail, through crashes, with peers that cheat."""

import os
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from hashlib import sha256

import pytest

from isthmus.connector.events import AccountId
from isthmus.sim import plan as p
from isthmus.sim.bad_settlers import CLAIMS, LOWER, REPLAYED
from isthmus.sim.chain import SimChain
from isthmus.sim.draw_settle import draw_settle
from isthmus.sim.plan import FaultPlan, LedgerPlan, LinkPlan, NodePlan, Plan, SettlePlan, units
from isthmus.sim.verdict import flows_of
from isthmus.sim.world import Result, World
from tests.sim.small import fault, payment

KINDS = (p.BANK, p.TRANSFERS, p.CHANNELS)
RECEIVABLE = 1_200  # cents
END = SettlePlan(threshold=300, target=0, receivable=RECEIVABLE, knows_scale=False)


def network(
    kind: str,
    *,
    vice: str = "",
    faults: tuple[FaultPlan, ...] = (),
    decimals: int = 4,
    payers: tuple[str, ...] = ("w1", "w2"),
    value: int = 3_000,
    seed: int = 1,
) -> Plan:
    """w1 - c1 - c2 - w2, a payment every eight seconds; c1 and c2 settle, and c2 may be bad. The asset's scale is 6."""
    nodes = [
        NodePlan(name="c1", kind=p.CONNECTOR, spread=Fraction(1, 500), seed=seed),
        NodePlan(name="c2", kind=p.CONNECTOR, vice=vice, vice_rate=50, seed=seed + 1),
        NodePlan(name="w1", kind=p.WALLET, home="c1", asset="USD", timeout_ms=8_000, seed=seed + 2),
        NodePlan(name="w2", kind=p.WALLET, home="c2", asset="EUR", timeout_ms=8_000, seed=seed + 3),
    ]
    name = f"{kind} XRP"
    links = (
        LinkPlan(
            a="c2", b="c1", asset="XRP", delay_ms=12, jitter_ms=3, seed=seed,
            ledger=name, settle_a=END, settle_b=END,
        ),
        LinkPlan(a="w1", b="c1", asset="USD", delay_ms=3, jitter_ms=1, packet_max=100, seed=3),
        LinkPlan(a="w2", b="c2", asset="EUR", delay_ms=5, jitter_ms=1, packet_max=100, seed=4),
    )  # fmt: skip
    payments = tuple(
        payment(number, payer, "w2" if payer == "w1" else "w1", value=value, at_ms=8_000 * number - 2_000)
        for number, payer in enumerate(payers, 1)
    )
    ledger = LedgerPlan(name=name, kind=kind, asset="XRP", decimals=decimals, deposit=1_000, seed=seed)
    return Plan(seed=seed, nodes=tuple(nodes), links=links, payments=payments, faults=faults, ledgers=(ledger,))


def run(plan: Plan) -> tuple[World, Result]:
    world = World(plan)
    return world, world.run()


def count(result: Result, group: str, name: str) -> int:
    return result.coverage.groups.get(group, {}).get(name, 0)


def balance(world: World, node: str, account: str) -> int:
    process = world.nodes[node].process
    assert process is not None
    return process.kernel.books.peers[AccountId(account)].balance


@pytest.mark.parametrize("seed", range(1, 9))
def test_drawn_networks_have_no_findings(seed: int) -> None:
    result = World(draw_settle(seed)).run()
    assert result.findings == []
    assert count(result, "entry", "settlement by us") > 0


@pytest.mark.slow
def test_the_trace_is_the_same_in_every_process() -> None:
    """Engines are coroutines; their steps come in one order all the same."""
    command = [sys.executable, "-m", "isthmus", "sim", "run", "--settle", "--seed", "6", "--trace"]
    environments = [os.environ | {"PYTHONHASHSEED": seed} for seed in ("1", "2")]
    runs = [subprocess.run(command, check=True, env=one, capture_output=True, timeout=120) for one in environments]
    first, second = (sha256(one.stdout).hexdigest() for one in runs)
    assert first == second
    assert runs[0].stdout.count(b"SettlementStep") > 10


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("decimals", [4, 6, 9])
def test_what_is_owed_is_settled(kind: str, decimals: int) -> None:
    """SE-11: with a coarser ledger too, whose fractions are carried."""
    world, result = run(network(kind, decimals=decimals))
    assert result.findings == []
    assert result.payments == {"completed": 2}
    flow = next(one for one in flows_of(world) if one.payer.node == "c1")
    assert flow.moved > 0
    assert (flow.untaken, flow.waits) == (0, 0)
    assert abs(balance(world, "c1", "c2")) < units(END.threshold or 0, "XRP")


FAULTS = [(kind, fault) for kind in (p.BANK,) for fault in p.BANK_FAULTS] + [
    (kind, fault) for kind in (p.TRANSFERS, p.CHANNELS) for fault in p.CHAIN_FAULTS
]


@pytest.mark.parametrize(("kind", "what"), FAULTS)
def test_a_ledger_that_fails_loses_and_doubles_nothing(kind: str, what: str) -> None:
    faults = tuple(
        fault(what, f"{kind} XRP", at_ms=at_ms, lasts_ms=5_000, value=60 if what == p.LATE else 6, number=number)
        for number, at_ms in enumerate((5_000, 9_000, 11_000, 14_000), 1)
    )
    _, result = run(network(kind, faults=faults))
    assert result.findings == []
    assert count(result, "fault", what) >= 1


def test_a_key_that_a_bank_voids_is_reversed_by_the_operator_and_paid_anew() -> None:
    _, result = run(network(p.BANK, faults=(fault(p.VOIDED, "bank XRP", at_ms=5_000),)))
    assert result.findings == []
    assert count(result, "settlement", "reversed by the operator") == 1
    assert count(result, "log", "settlement_failed") == 1


def test_a_credit_that_a_reorganisation_undoes_comes_back_with_the_transaction() -> None:
    faults = (fault(p.REORGANISED, "transfers XRP", at_ms=15_000, value=9),)
    _, result = run(network(p.TRANSFERS, faults=faults, payers=("w1", "w1")))
    assert result.findings == []
    assert count(result, "log", "settlement_undone") >= 1


def test_a_channel_that_its_owner_closes_is_followed_by_another() -> None:
    faults = (fault(p.CHANNEL_CLOSED, "c1", at_ms=13_500),)
    world, result = run(network(p.CHANNELS, faults=faults, payers=("w1", "w1", "w1", "w1")))
    assert result.findings == []
    assert count(result, "fault", p.CHANNEL_CLOSED) == 1
    chain = world.ledgers["channels XRP"]
    assert isinstance(chain, SimChain)
    assert len([channel for _, channel in chain.known_channels() if channel.has_ended]) == 1
    assert len(chain.known_channels()) == 2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("node", ["c1", "c2"])
def test_crashes_in_the_middle_of_settlements(kind: str, node: str) -> None:
    """The same bytes go to the ledger again, once."""
    faults = tuple(
        fault(p.CRASH, node, at_ms=6_500 + 900 * number, lasts_ms=120, number=number, value=number)
        for number in range(1, 11)
    )
    _, result = run(network(kind, faults=faults))
    assert result.findings == []
    assert result.crashes == 10


def possible(vice: str, kind: str) -> bool:
    if vice == p.BAD_CLAIMS:
        return kind == p.CHANNELS
    return vice != p.DOUBLE_SPENDS or kind != p.BANK


VICES = [(vice, kind) for vice in p.SETTLE_VICES for kind in KINDS if possible(vice, kind)]


@pytest.mark.parametrize(("vice", "kind"), VICES)
def test_a_peer_that_cheats_costs_what_it_was_trusted_with_at_most(vice: str, kind: str) -> None:
    """The table "What a peer may try" in docs/settlement.md. The auditor adds up what ledgers took back (`exposed`)."""
    world, result = run(network(kind, vice=vice, value=2_000, payers=("w2", "w2", "w2", "w2")))
    assert result.findings == []
    assert count(result, "vice", vice) >= 1
    if vice != p.DOUBLE_SPENDS:
        assert balance(world, "c1", "c2") <= units(RECEIVABLE, "XRP")
    else:
        assert count(result, "log", "settlement_undone") >= 1


@pytest.mark.parametrize("kind", [p.BANK, p.CHANNELS])
def test_fractions_of_a_unit_that_come_in_are_left_over_and_count_with_the_next(kind: str) -> None:
    """SE-11: the peer pays odd amounts on a ledger that counts finer than the account."""
    plan = network(kind, vice=p.OVERPAYS, decimals=9, payers=("w2", "w2"))
    room = replace(plan.ledgers[0], deposit=20_000)  # in a channel, for more than is owed
    world, result = run(replace(plan, ledgers=(room,)))
    assert result.findings == []
    flow = next(one for one in flows_of(world) if one.payee.node == "c1")
    left, scale = flow.leftover
    assert 0 < left * 10 ** (9 - scale) < 1_000
    assert (flow.moved - left * 10 ** (9 - scale)) % 1_000 == 0


@pytest.mark.parametrize("vice", [p.NEVER_SETTLES, p.PAYS_NOT, p.WRONG_ASSET])
@pytest.mark.parametrize("kind", KINDS)
def test_a_peer_that_does_not_settle_is_stopped_by_the_books(vice: str, kind: str) -> None:
    """CONN-8: its packets get T04 once it owes what it may owe; and what it says of payments is worth nothing."""
    world, result = run(network(kind, vice=vice, value=6_000, payers=("w2",)))
    assert result.findings == []
    assert "completed" not in result.payments
    limit = units(RECEIVABLE, "XRP")
    assert limit * 8 // 10 < balance(world, "c1", "c2") <= limit
    assert count(result, "rule", "T04 the account's balance with us would exceed its limit") > 0


@pytest.mark.parametrize("claim", CLAIMS)
def test_each_kind_of_bad_claim_is_refused_or_changes_nothing(claim: str) -> None:
    _, result = run(network(p.CHANNELS, vice=f"{p.BAD_CLAIMS}: {claim}", payers=("w2", "w2")))
    assert result.findings == []
    answers = {answer: times for answer, times in result.coverage.groups["bad claim"].items() if claim in answer}
    assert answers
    if claim not in (REPLAYED, LOWER):
        assert all("accepted" not in answer for answer in answers)


def test_the_seeds_of_settling_networks_are_their_own() -> None:
    assert draw_settle(3).command == "isthmus sim run --settle --seed 3"
    assert draw_settle(3) == draw_settle(3)
    assert draw_settle(3) != draw_settle(4)


def test_never_do_both_ends_pay_ahead() -> None:
    """Else each pays back what the other paid, for ever."""
    for seed in range(60):
        for link in draw_settle(seed).links:
            if link.settle_a is not None and link.settle_b is not None:
                for one, other in ((link.settle_a, link.settle_b), (link.settle_b, link.settle_a)):
                    assert other.threshold is not None
                    assert not one.ahead or other.threshold > one.ahead
