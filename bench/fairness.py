"""One account floods at its limits: what that does to the honest accounts of the same node, in one run.

Honest pairs pay at a steady pace all the time. Quiet and flooded phases alternate, so that a busy machine meets both
alike; each flooded phase is compared with the quiet ones around it.
"""

import asyncio
import contextlib
import itertools
import json
import sys
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import isthmus_node
from bench.estimate import Estimate, estimate
from bench.plan import Plan, Tell
from bench.sections import MIB, spread, table
from bench.targets import ROOT, rss_bytes

PAIRS = 4
# Packets/s of each pair; a thousand in all is a third of what a busy retail payment system has.
PER_SECOND = 250
FLOOD_WINDOW = 2_000
PACKETS_PER_MINUTE = 60_000  # of the flooder, where it is at this limit
# The flooder's own generator gives way to the node and to the honest ones: its hunger for the machine isn't the point.
FLOOD_NICENESS = 10
THROUGHPUT_BAR = 0.7
P99_BAR = 3.0


@dataclass(slots=True, kw_only=True, frozen=True)
class Flood:
    """A way to flood: what is said of it, the flooder's limits, and whether its packets are answered."""

    name: str
    limits: str
    answered: bool


FLOODS = (
    Flood(
        name="above its packets per minute (T05)", limits=f"packets_per_minute = {PACKETS_PER_MINUTE}\n", answered=True
    ),
    Flood(name="within its limits, all fulfilled", limits="", answered=True),
    Flood(name="never answered, at its open packets (T03)", limits="open_legs = 1_000\n", answered=False),
    Flood(name="at its value in flight (T04)", limits='in_flight = "0.000001"\n', answered=False),
)


@dataclass(slots=True, kw_only=True)
class Fairness:
    """What honest accounts had, in pairs of phases: quiet, flooded."""

    throughput: Estimate  # flooded by quiet
    p99: Estimate  # flooded by quiet
    quiet_p99_ms: Estimate
    flooded_p99_ms: Estimate
    rejects: dict[str, int]
    flood_per_second: float  # answers that the flooder had, of any kind
    resident_before: int
    resident_most: int


def token(name: str) -> str:
    return f"token-of-{name}-in-the-fairness-section"


def url(port: int, name: str) -> str:
    return f"btp+ws://{name}:{token(name)}@127.0.0.1:{port}/"


def config_text(port: int, flood: Flood) -> str:
    names = [f"{role}{number}" for number in range(PAIRS) for role in ("pays", "gets")]
    accounts = ""
    for name in [*names, "floods", "sinks"]:
        link = f'{{ type = "btp-server", token = "{token(name)}" }}'
        text = isthmus_node.account_text(name, link, "1000000")
        if name == "floods":
            for line in flood.limits.splitlines():
                key = line.partition(" ")[0]
                text = "\n".join(each for each in text.splitlines() if not each.startswith(f"{key} ")) + f"\n{line}\n"
        accounts += text
    admin = isthmus_node.ADMIN.format(port=isthmus_node.free_port())
    return f'{isthmus_node.HEAD}[listeners.btp]\nlisten = "127.0.0.1:{port}"\n\n{admin}{accounts}'


@contextlib.asynccontextmanager
async def honest(port: int) -> AsyncIterator[Any]:
    """The honest generator: call it with a phase's seconds."""
    pairs = [
        (url(port, f"pays{number}"), url(port, f"gets{number}"), f"test.node.gets{number}") for number in range(PAIRS)
    ]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.fairness_load", json.dumps(pairs)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    assert process.stdin is not None and process.stdout is not None
    out, stdin = process.stdout, process.stdin

    async def phase(seconds: float) -> dict[str, Any]:
        stdin.write(json.dumps({"seconds": seconds, "per_second": PER_SECOND}).encode() + b"\n")
        line = await out.readline()
        if not line:
            raise RuntimeError("the honest generator failed")
        figures: dict[str, Any] = json.loads(line)
        return figures

    try:
        if not await out.readline():
            raise RuntimeError("the honest generator did not connect")
        yield phase
    finally:
        stdin.close()
        await process.wait()


async def start_flood(port: int, flood: Flood, seconds: float) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *("nice", "-n", str(FLOOD_NICENESS), sys.executable, "-m", "bench.load"),
        *("--sender", url(port, "floods"), "--receiver", url(port, "sinks"), "--destination", "test.node.sinks"),
        *("--window", str(FLOOD_WINDOW), "--flood-seconds", str(seconds)),
        *(("--flood-answered",) if flood.answered else ()),
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )


async def measure(flood: Flood, *, rounds: int, seconds: float, build: str = "isthmus") -> Fairness:
    """Quiet and flooded phases in turn, beginning and ending with a quiet one."""
    quiet: list[dict[str, Any]] = []
    flooded: list[dict[str, Any]] = []
    flood_rates: list[float] = []
    with tempfile.TemporaryDirectory(prefix="isthmus-bench-") as folder:
        port = isthmus_node.free_port()
        config = Path(folder) / "node.toml"
        config.write_text(config_text(port, flood))
        async with isthmus_node.process(build, config, port) as node, honest(port) as phase:
            await phase(seconds)  # warm
            before = most = rss_bytes(node.pid)
            for _ in range(rounds):
                quiet.append(await phase(seconds))
                # It connects and prepares its packets first: the flood is longer than the phase on both sides.
                process = await start_flood(port, flood, seconds + 2)
                await asyncio.sleep(1.0)
                flooded.append(await phase(seconds))
                most = max(most, rss_bytes(node.pid))
                out, _ = await process.communicate()
                flood_rates.append(json.loads(out)["packets_per_second"])
                await phase(1.0)  # what the flood left behind ends
            quiet.append(await phase(seconds))
    around = [
        {key: (before_it[key] + after_it[key]) / 2 for key in ("per_second", "p99_ms")}
        for before_it, after_it in itertools.pairwise(quiet)
    ]
    rejects: dict[str, int] = {}
    for each in flooded:
        for code, count in [*each["rejects"].items(), ("unanswered", each["unanswered"])]:
            rejects[code] = rejects.get(code, 0) + count
    return Fairness(
        throughput=estimate(
            [one["per_second"] / other["per_second"] for one, other in zip(flooded, around, strict=True)]
        ),
        p99=estimate([one["p99_ms"] / other["p99_ms"] for one, other in zip(flooded, around, strict=True)]),
        quiet_p99_ms=estimate([each["p99_ms"] for each in quiet]),
        flooded_p99_ms=estimate([each["p99_ms"] for each in flooded]),
        rejects={code: count for code, count in rejects.items() if count},
        flood_per_second=sum(flood_rates) / len(flood_rates),
        resident_before=before,
        resident_most=most,
    )


async def section(plan: Plan, tell: Tell) -> str:
    """The text of this section."""
    rows = []
    for flood in FLOODS[: plan.floods]:
        found = await measure(flood, rounds=plan.fairness_rounds, seconds=plan.fairness_seconds)
        tell(f"fairness: {flood.name}: {found}")
        kept = "met" if found.throughput.low >= THROUGHPUT_BAR else "missed"
        quick = "met" if found.p99.high <= P99_BAR else "missed" if found.p99.low > P99_BAR else "not decided"
        rows.append(
            [
                flood.name,
                f"{found.flood_per_second:,.0f}",
                f"{spread(found.throughput)} {kept}",
                spread(found.quiet_p99_ms),
                spread(found.flooded_p99_ms),
                f"{spread(found.p99)} {quick}",
                ", ".join(f"{code}: {count}" for code, count in found.rejects.items()) or "none",
                f"{found.resident_before / MIB:.0f}, {found.resident_most / MIB:.0f}",
            ]
        )
    head = ["flood", "its answers/s", f"honest packets/s by quiet (bar {THROUGHPUT_BAR:g})", "p99 ms, quiet"]
    head += ["p99 ms, flooded", f"p99 by quiet (bar {P99_BAR:g})", "honest packets lost", "MiB before, at most"]
    text = (
        "## One account floods\n\n"
        f"{PAIRS} honest pairs pay {PER_SECOND} packets/s each, whatever comes back; a packet's latency counts from "
        f"the moment when it was due. Another account sends at full rate with {FLOOD_WINDOW:,} packets unanswered, its "
        f"process at nice {FLOOD_NICENESS}. Quiet and flooded phases of {plan.fairness_seconds:g} s in turn on one "
        f"node, {plan.fairness_rounds} rounds, each flooded one compared with the two around it.\n\n"
    )
    return text + table(head, rows)
