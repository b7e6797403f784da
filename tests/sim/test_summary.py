"""What a sweep must reach: no finding, seeds that are large enough, every kind of fault and adversary met."""

import gc
from typing import Any

from isthmus.sim import plan as p
from isthmus.sim.draw_settle import draw_settle
from isthmus.sim.kinds import SETTLE
from isthmus.sim.summary import SEEDS_FOR_ALL_KINDS, Tally, run_seed, summary_of
from isthmus.sim.world import World
from tests.sim.small import fault, network, run


def summary(seed: int, **changes: Any) -> dict[str, Any]:
    """A seed in which all is well, but for the changes."""
    return {
        "seed": seed, "nodes": 4, "packets": 300, "hops": 900, "faults": 8, "crashes": 1, "losses": 0,
        "virtual_ms": 1, "payments": {"completed": 2}, "findings": [], "findings_count": 0, "shortfalls": [],
        "coverage": {"fault": dict.fromkeys(p.FAULTS, 1), "vice": dict.fromkeys(p.VICES, 1)},
        "command": f"isthmus sim run --seed {seed}", **changes,
    }  # fmt: skip


def test_seeds_are_added_up() -> None:
    tally = Tally()
    for seed in range(SEEDS_FOR_ALL_KINDS):
        tally.add(summary(seed))
    assert tally.is_good
    assert tally.totals["packets"] == 300 * SEEDS_FOR_ALL_KINDS
    assert tally.coverage.groups["fault"][p.CRASH] == SEEDS_FOR_ALL_KINDS


def test_a_kind_that_is_never_met_fails_a_sweep_that_is_large_enough() -> None:
    coverage = {"fault": dict.fromkeys(p.FAULTS, 1) | {p.TORN: 0}, "vice": dict.fromkeys(p.VICES, 1) | {p.GRIEF: 0}}
    tally = Tally()
    for seed in range(SEEDS_FOR_ALL_KINDS):
        assert tally.is_good
        tally.add(summary(seed, coverage=coverage))
    assert tally.never_hit == [p.TORN, p.GRIEF]
    assert not tally.is_good


def test_a_sweep_of_networks_that_settle_meets_every_ledger_fault_and_every_bad_settler() -> None:
    coverage = {
        "fault": dict.fromkeys(p.FAULTS, 0) | dict.fromkeys(p.LEDGER_FAULTS, 1),
        "vice": dict.fromkeys(p.VICES, 0) | dict.fromkeys(p.SETTLE_VICES, 1),
    }
    whole, lacking = Tally(kind=SETTLE), Tally(kind=SETTLE)
    del (less := {group: dict(counts) for group, counts in coverage.items()})["fault"][p.VOIDED]
    less["vice"][p.DOUBLE_SPENDS] = 0
    for seed in range(SEEDS_FOR_ALL_KINDS):
        whole.add(summary(seed, coverage=coverage))
        lacking.add(summary(seed, coverage=less))
    assert whole.is_good
    assert lacking.never_hit == [p.VOIDED, p.DOUBLE_SPENDS]


def test_a_finding_fails_a_sweep() -> None:
    tally = Tally()
    finding = {"kind": "balance", "node": "c1", "text": "they differ by 1", "amount": "1"}
    tally.add(summary(7, findings=[finding], findings_count=1))
    assert not tally.is_good
    assert tally.to_json()["failures"][0]["command"] == "isthmus sim run --seed 7"


def test_a_run_that_is_too_small_says_what_it_lacks() -> None:
    _, result = run(network(faults=(fault(p.CUT, "c2-c1", lasts_ms=0),), value=400))
    one = summary_of(result)
    assert one["findings"] == []
    assert [text.split(" ", 1)[1] for text in one["shortfalls"]] == [
        "packets, not 300",
        "faults, not 8",
        "crashes, not 1",
    ]
    tally = Tally()
    tally.add(one)
    assert not tally.is_good


def test_nothing_of_a_run_stays_behind() -> None:
    """A sweep of thousands must not grow; engines are coroutines, and what is left of those is hard to forget."""
    run_seed(12, kind=SETTLE)  # no other test runs it
    assert not any(isinstance(one, World) and one.plan == draw_settle(12) for one in gc.get_objects())
