"""What routing costs, for RESULTS.md: big tables, and packets by learned routes."""

import asyncio
import json
import sys
from argparse import Namespace
from typing import Any

from bench import route_nodes
from bench.isthmus_node import builds, environment
from bench.plan import Plan, Tell
from bench.sections import table
from bench.targets import ROOT

SECONDS_MAX = 900.0
PREFIXES = 1_000  # of the comparison of whole nodes
WINDOW = 1_000
SAID = (
    "`python -m bench.routes`, by CPU time, one kernel without links: what a look-up takes among 100 learned prefixes "
    "and among all, and the longest call of the kernel while 20,000 packets pass, without changes and with 1,000 "
    "changed routes. The bars: a ratio of at most 2, a growth of less than 5 ms.\n\n"
)
SAID_OF_NODES = (
    "`python -m bench.route_nodes`: a whole node's CPU time a packet, all threads, by interleaved pairs: to 1,000 "
    "prefixes that two neighbours told it, or that its file names. The bar: 0.95.\n\n"
)


async def big_table(build: str, plan: Plan) -> dict[str, Any]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.routes"),
        *("--prefixes", str(plan.prefixes), "--rounds", str(plan.route_rounds)),
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
        env=environment(build),
    )
    out, _ = await asyncio.wait_for(process.communicate(), SECONDS_MAX)
    if process.returncode:
        raise RuntimeError(f"bench.routes failed on {build}")
    return dict(json.loads(out))


async def section(plan: Plan, tell: Tell) -> str:
    """Each build that there is."""
    tables, nodes = [], []
    for build in builds():
        tell(f"{build}: {plan.prefixes} prefixes")
        found = await big_table(build, plan)
        lookup, turn = found["lookup_us"], found["longest_turn_ms"]
        row = [lookup["of 100"], lookup["of all"], lookup["ratio"], turn["quiet"], turn["changing"], turn["growth"]]
        tables.append([build, *row, str(found["bytes_per_prefix"])])
        options = Namespace(rounds=plan.route_rounds, packets=plan.route_packets, window=WINDOW, routes=PREFIXES)
        compared = await route_nodes.compare(build, options)
        spent = compared["microseconds_a_packet"]
        nodes.append([build, spent["static"], spent["learned"], compared["speed_of_learned_by_static"]])
    head = [
        "build",
        "look-up µs, of 100",
        f"of {plan.prefixes:,}",
        "ratio",
        "longest call ms",
        "with changes",
        "growth",
    ]
    text = f"## Routing\n\n{SAID}" + table([*head, "bytes a prefix"], tables) + f"\n{SAID_OF_NODES}"
    return text + table(["build", "static µs a packet", "learned", "speed of learned by static"], nodes)
