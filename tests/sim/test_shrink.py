"""A failing plan becomes as small as what fails."""

from isthmus.sim import plan as p
from isthmus.sim.shrink import shrink
from tests.sim.small import fault, network


def test_only_what_fails_is_left() -> None:
    """A disk that works on one sync for longer than a run lasts is found; the rest has nothing to do with it."""
    faults = (
        fault(p.CUT, "c2-c1", lasts_ms=0, number=1),
        fault(p.SLOW_DISK, "c2", lasts_ms=1_000, value=10_000_000, number=2),
        fault(p.RATE, "c1", value=1, number=3),
    )
    told: list[str] = []
    result = shrink(network(faults=faults, value=400), tell=told.append)
    assert result is not None
    assert [one.number for one in result.plan.faults] == [2]
    assert len(result.plan.payments) == 1
    assert "unended" in {finding.kind for finding in result.findings}
    assert "--without-faults 1,3" in result.plan.command
    assert told


def test_where_nothing_is_found_nothing_is_shrunk() -> None:
    assert shrink(network(value=400)) is None
