"""`isthmus sim`: what it prints, and its exit status."""

import json

from click.testing import CliRunner

from isthmus.cli.sim import sim


def test_run_tells_what_happened() -> None:
    done = CliRunner().invoke(sim, ["run", "--seed", "4"], standalone_mode=False)
    assert "seed 4" in done.output
    assert "no more faults" in done.output


def test_sweep_sums_up_as_json() -> None:
    done = CliRunner().invoke(sim, ["sweep", "--seeds", "2", "--first", "4", "--json"], standalone_mode=False)
    told = json.loads(done.output)
    assert told["seeds"] == 2
    assert told["faults"] >= 16


def test_an_unknown_fault_is_misuse() -> None:
    done = CliRunner().invoke(sim, ["run", "--seed", "4", "--without-faults", "99"], standalone_mode=False)
    assert done.exception is not None
    assert "no number 99" in str(done.exception)
