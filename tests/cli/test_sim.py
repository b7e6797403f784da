"""`isthmus sim`: what it prints, and its exit status."""

import json
from pathlib import Path

import pytest
from click import UsageError
from click.testing import CliRunner

from isthmus.cli.sim import sim
from isthmus.errors import ConfigError


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


@pytest.mark.slow
def test_topology_tells_a_network_in_numbers_and_draws_it(tmp_path: Path) -> None:
    asked = ["topology", "--graph", "tree", "--nodes", "13", "--svg", str(tmp_path / "tree.svg"), "--to", "n12"]
    done = CliRunner().invoke(sim, [*asked, "--json"], standalone_mode=False)
    told = json.loads(done.output)
    assert (told["graph"]["parent_links"], told["graph"]["peer_links"]) == (12, 0)
    assert (told["best"]["diameter"], told["best"]["reachable"]) == (4, 156)
    assert "routes to n12" in (tmp_path / "tree.svg").read_text()
    assert [phase["fulfilled_after"] for phase in told["run"]["phases"]] == [
        phase["reachable_pairs"] for phase in told["run"]["phases"]
    ]
    people = CliRunner().invoke(sim, ["topology", "--graph", "chain", "--nodes", "4"], standalone_mode=False)
    assert "12 of 12 pairs" in people.output and "a node falls" in people.output


@pytest.mark.slow
def test_topology_draws_the_routes_that_nodes_chose(tmp_path: Path) -> None:
    """On a ring both ways around may be as long; the oracle's picture and the nodes' lead all home."""
    drawn = {}
    for name, more in (("chosen", []), ("best", ["--no-run"])):
        asked = [
            "topology",
            "--graph",
            "ring",
            "--nodes",
            "7",
            "--pairs",
            "5",
            "--svg",
            str(tmp_path / name),
            "--to",
            "n3",
        ]
        assert CliRunner().invoke(sim, [*asked, *more], standalone_mode=False).exception is None
        drawn[name] = (tmp_path / name).read_text()
    assert all('class="route"' in text and "routes to n3" in text for text in drawn.values())


@pytest.mark.slow
def test_topology_draws_how_ways_come_to_be_only_if_it_runs(tmp_path: Path) -> None:
    drawn = tmp_path / "convergence.svg"
    asked = ["topology", "--graph", "ring", "--nodes", "6", "--pairs", "10", "--convergence", str(drawn)]
    assert CliRunner().invoke(sim, asked, standalone_mode=False).exception is None
    assert "it comes back" in drawn.read_text()
    drawn.unlink()
    assert isinstance(CliRunner().invoke(sim, [*asked, "--no-run"], standalone_mode=False).exception, UsageError)
    still = CliRunner().invoke(sim, ["topology", "--nodes", "20", "--no-run"], standalone_mode=False)
    assert "running" not in still.output


@pytest.mark.slow
def test_topology_lets_some_announce_no_price_or_zero() -> None:
    asked = ["topology", "--graph", "ring", "--nodes", "6", "--pairs", "10", "--silent", "40", "--liars", "20"]
    people = CliRunner().invoke(sim, asked, standalone_mode=False)
    assert "40 % of the nodes announce no price, 20 % announce zero" in people.output
    for wrong in ([*asked, "--no-run"], [*asked, "--liars", "80"]):
        assert isinstance(CliRunner().invoke(sim, wrong, standalone_mode=False).exception, UsageError)


@pytest.mark.slow
def test_topology_lets_children_leak() -> None:
    asked = ["topology", "--nodes", "20", "--pairs", "10", "--leakers", "2"]
    people = CliRunner().invoke(sim, asked, standalone_mode=False)
    assert "2 children tell their parents everything; " in people.output
    assert isinstance(CliRunner().invoke(sim, [*asked, "--no-run"], standalone_mode=False).exception, UsageError)
    refused = CliRunner().invoke(sim, [*asked, "--leakers", "20"], standalone_mode=False).exception
    assert isinstance(refused, ConfigError) and "that could leak" in str(refused)


def test_topology_knows_its_nodes(tmp_path: Path) -> None:
    asked = ["topology", "--nodes", "20", "--to", "x"]
    assert isinstance(CliRunner().invoke(sim, asked, standalone_mode=False).exception, UsageError)
    done = CliRunner().invoke(sim, [*asked, "--svg", str(tmp_path / "x.svg")], standalone_mode=False)
    assert isinstance(done.exception, ConfigError)
    assert "n00 to n19" in str(done.exception)
    assert not (tmp_path / "x.svg").exists()
