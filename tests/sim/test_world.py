"""Whole runs: the same seed makes the same run, and what must be found is found."""

import os
import subprocess
import sys
from hashlib import sha256

from isthmus.connector.books import DEAF
from isthmus.connector.events import AccountId
from isthmus.sim.draw import draw
from isthmus.sim.verdict import judge
from isthmus.sim.world import World
from tests.sim.small import network, run


def traced(seed: int) -> list[str]:
    lines: list[str] = []
    World(draw(seed), trace_to=lines.append).run()
    return lines


def test_the_same_seed_makes_the_same_run() -> None:
    first = traced(4)
    assert len(first) > 1_000
    assert traced(4) == first


def test_the_trace_is_the_same_in_every_process() -> None:
    """Byte for byte, whatever Python hashes strings to."""
    command = [sys.executable, "-m", "isthmus", "sim", "run", "--seed", "5", "--trace"]
    environments = [os.environ | {"PYTHONHASHSEED": seed} for seed in ("1", "2")]
    runs = [subprocess.run(command, check=True, env=one, capture_output=True, timeout=120) for one in environments]
    first, second = (sha256(one.stdout).hexdigest() for one in runs)
    assert first == second


def test_another_seed_makes_another_run() -> None:
    assert draw(4) != draw(5)


def test_a_run_is_as_large_as_a_seed_must_be() -> None:
    result = World(draw(4)).run()
    assert result.nodes >= 4
    assert result.packets >= 300
    assert result.faults >= 8
    assert result.crashes >= 1


def test_an_honest_neighbour_that_is_told_nothing_is_found() -> None:
    world, result = run(network(value=400))
    assert result.findings == []
    process = world.nodes["c1"].process
    assert process is not None
    process.kernel.books.peers[AccountId("c2")].hearing = DEAF
    judge(world)
    assert "deaf" in {finding.kind for finding in world.findings}
