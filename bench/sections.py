"""The sections of `RESULTS.md`: each measures one thing and returns its text."""

import asyncio
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from functools import partial
from pathlib import Path

from bench import hot_spots, isthmus_node, stream
from bench.estimate import Estimate, estimate, verdict
from bench.fire import fire, flood, http_generator
from bench.forwarding import Series, compare, ratio
from bench.load import Measured
from bench.plan import Plan, Tell
from bench.targets import Target, ilp_connector, ilp_connector_http, rss_bytes

BARS = {"isthmus": {100: 3.0, 1000: 6.0}, "isthmus-native": {100: 5.0, 1000: 10.0}}
LATENCY_BAR = 2.0
STREAM_BAR = 20.0
FLOOD_WINDOW = 25_000  # above the default of `open_legs`: the bound is what is measured
MIB = 1 << 20


def number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def spread(value: Estimate, unit: str = "") -> str:
    return f"{number(value.median)}{unit} [{number(value.low)}, {number(value.high)}]"


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"


def our_targets() -> list[str]:
    return isthmus_node.builds()


async def forwarding(plan: Plan, tell: Tell) -> str:
    names = ["relay", "ilp-connector", *our_targets()]
    series = await compare(names, windows=plan.windows, packets=plan.count, rounds=plan.rounds, tell=tell)
    text = (
        "## Forwarding between two BTP accounts\n\n"
        "32 bytes of data, every packet different, counted at the receiver, Fulfills compared with their preimages. "
        "`relay` decides nothing: the load generator's ceiling. `ilp-connector` keeps everything in memory; `isthmus` "
        "commits each batch to SQLite (synchronous=FULL) before it sends, limits, timers and metrics on. "
        f"A fresh process for each run, {plan.rounds} interleaved rounds; medians with their 95 % intervals.\n\n"
    )
    rows = [
        [
            str(window),
            name,
            f"{plan.count(name, window):,}",
            spread(one.rate()),
            spread(one.p50_ms()),
            spread(one.p99_ms()),
        ]
        for (name, window), one in series.items()
    ]
    text += table(["window", "target", "packets a run", "packets/s", "p50 ms", "p99 ms"], rows)
    return text + "\n" + ratios(series, plan)


def ratios(series: dict[tuple[str, int], Series], plan: Plan) -> str:
    """Ours by ilp-connector, run by run; and the medians at window 1, where latency is what counts."""
    rows = []
    for name in our_targets():
        for window in plan.windows:
            ours, theirs = series[name, window], series["ilp-connector", window]
            times = ratio(ours, theirs)
            if window == 1:
                pairs = zip(ours.runs, theirs.runs, strict=True)
                times = estimate([a.p50_ms / b.p50_ms for a, b in pairs])
                bar = f"at most {LATENCY_BAR:g} (p50)"
                judged = "met" if times.high <= LATENCY_BAR else "missed" if times.low > LATENCY_BAR else "not decided"
            elif wanted := BARS.get(name, {}).get(window):
                bar, judged = f"at least {wanted:g}", verdict(times, wanted)
            else:
                bar, judged = "-", "-"
            rows.append([name, str(window), spread(times), bar, judged])
    if not rows:
        return "The node is not there yet: no ratios.\n"
    return table(["build", "window", "ratio to ilp-connector", "bar", ""], rows)


async def http(plan: Plan, tell: Tell) -> str:
    """Synchronous ILP over HTTP on both sides."""
    rows = []
    for connections in plan.connections:
        packets = plan.http_packets if connections > 1 else max(plan.http_packets // 5, 50)
        runs: dict[str, list[Measured]] = {}
        for _ in range(plan.http_rounds):
            for name in ["ilp-connector", *our_targets()]:
                measured = await post(name, packets=packets, connections=connections)
                tell(f"http, {connections} connections: {name} {measured.packets_per_second:,.0f} packets/s")
                runs.setdefault(name, []).append(measured)
        for name, measured_runs in runs.items():
            columns = [[one.packets_per_second, one.p50_ms, one.p99_ms] for one in measured_runs]
            values = [spread(estimate(column)) for column in zip(*columns, strict=True)]
            rows.append([str(connections), name, f"{packets:,}", *values])
    text = (
        "## Forwarding by ILP over HTTP, synchronous\n\nKeep-alive connections, one request at a time on each; "
        "`ilp-connector` with ilp-plugin-http beside us.\n\n"
    )
    text += table(["connections", "target", "packets a run", "packets/s", "p50 ms", "p99 ms"], rows)
    return text + (await http_profile(plan) if our_targets() else "")


async def post(name: str, *, packets: int, connections: int) -> Measured:
    """A fresh target, one run of the HTTP load generator."""
    async with http_generator() as generator:
        if name == "ilp-connector":
            async with ilp_connector_http(generator.port) as order:
                return await generator.fire(order, packets=packets, connections=connections)
        async with isthmus_node.http_node(generator.port, build=name) as (order, _):
            return await generator.fire(order, packets=packets, connections=connections)


async def http_profile(plan: Plan) -> str:
    """Where the time of HTTP forwarding goes."""
    with tempfile.TemporaryDirectory() as folder:
        async with http_generator() as generator, isthmus_node.http_node(generator.port) as (order, pid):
            firing = asyncio.create_task(generator.fire(order, packets=plan.http_packets * 2, connections=16))
            stacks = await hot_spots.record(pid, seconds=plan.profile_seconds, folder=Path(folder))
            await firing
        if stacks is None:
            return ""
        return "\nWhere the time goes, 16 connections:\n\n" + cost_tables(*hot_spots.costs(stacks))


async def stream_payment(plan: Plan, tell: Tell) -> str:
    """Both implementations, each end a process, through the same connector."""
    text = (
        "## STREAM: one payment end to end\n\nEach end a process, keeping everything in memory; the connector's "
        f"maximum packet amount makes the packets. `isthmus` in the middle keeps its journal. {plan.stream_rounds} "
        "interleaved rounds, one through `ilp-connector`.\n\n"
    )
    results: dict[tuple[str, str], list[stream.Paid]] = {}
    routes = [("ilp-protocol-stream", "ilp-connector")]
    if our_targets():
        routes += [("ilp-protocol-stream", "isthmus"), ("isthmus", "isthmus"), ("isthmus", "ilp-connector")]
    if "isthmus-native" in our_targets():
        routes += [("isthmus-native", "isthmus-native")]
    for number_of_round in range(plan.stream_rounds):
        for ends, middle in routes:
            if number_of_round and middle == "ilp-connector":
                continue  # no bar hangs on it, and it is slow
            paid = await pay_through(ends, middle, packets=plan.stream_packets)
            rate = f"{paid.packets_per_second:,.0f} packets/s"
            tell(f"stream, round {number_of_round + 1}: {ends} through {middle}: {rate}")
            results.setdefault((ends, middle), []).append(paid)
    rows = [
        [
            ends,
            middle,
            f"{paid[0].packets:,}",
            spread(estimate([one.packets_per_second for one in paid])),
            spread(estimate([one.setup_seconds * 1000 for one in paid])),
        ]
        for (ends, middle), paid in results.items()
    ]
    text += table(["both ends", "through", "packets", "packets/s", "quote and set-up ms"], rows)
    return text + stream_ratios(results)


# Ours, theirs, and whether the bar is meant: it is for the same connector, so ilp-connector in the middle, which is
# the limit there, and the compiled build are for comparison.
STREAM_PAIRS = (
    (("isthmus", "isthmus"), ("ilp-protocol-stream", "isthmus"), True),
    (("isthmus-native", "isthmus-native"), ("ilp-protocol-stream", "isthmus"), False),
    (("isthmus", "ilp-connector"), ("ilp-protocol-stream", "ilp-connector"), False),
)


def stream_ratios(results: dict[tuple[str, str], list[stream.Paid]]) -> str:
    """Packets/s of ours by theirs, round by round."""
    text = ""
    for ours_route, theirs_route, is_bar in STREAM_PAIRS:
        ours, theirs = results.get(ours_route), results.get(theirs_route)
        if ours and theirs:
            times = estimate([a.packets_per_second / b.packets_per_second for a, b in zip(ours, theirs, strict=True)])
            text += f"\n{ours_route[0]} through {ours_route[1]}: {spread(times)} times ilp-protocol-stream there"
            text += f"; bar at least {STREAM_BAR:g}: {verdict(times, STREAM_BAR)}.\n" if is_bar else ".\n"
    return text


async def pay_through(ends: str, middle: str, *, packets: int) -> stream.Paid:
    """One payment by `ends` at both ends through a fresh `middle`."""
    connectors: dict[str, Callable[..., AbstractAsyncContextManager[Target]]] = {
        "ilp-connector": ilp_connector,
        "isthmus": isthmus_node.isthmus,
        "isthmus-native": partial(isthmus_node.isthmus, build="isthmus-native"),
    }
    async with connectors[middle](max_packet=stream.PACKET_AMOUNT) as target:
        if ends == "ilp-protocol-stream":
            return await stream.js_pair(target, packets=packets)
        amount = stream.PACKET_AMOUNT
        return await isthmus_node.stream_pair(target, packets=packets, packet_amount=amount, build=ends)


async def memory(plan: Plan, tell: Tell) -> str:
    """Resident memory, journal bytes and the restart after a million packets; then answers that never come."""
    text = "## Memory, journal and restart\n\n"
    async with AsyncExitStack() as stack:
        js = await stack.enter_async_context(ilp_connector())
        await fire(js, packets=plan.memory_packets[0], window=100)
        resident = f"{rss_bytes(js.pid) / MIB:,.0f} MiB"
        text += f"ilp-connector after {plan.memory_packets[0]:,} packets: {resident} resident.\n\n"
    for name in our_targets()[:1]:
        text += await growth(name, plan, tell)
        text += await unanswered(name, plan, tell)
    return text


async def growth(name: str, plan: Plan, tell: Tell) -> str:
    """Memory and files of one node from the first to the last packet."""
    first, last = plan.memory_packets
    run = await isthmus_node.long_run(name, packets=last, step=first)
    tell(f"memory: {run}")
    rows = [
        [f"{packets:,}", f"{resident / MIB:.1f}", f"{held / MIB:.1f}", f"{held / packets:.0f}"]
        for (packets, resident), (_, held) in zip(run.resident, run.journal, strict=True)
    ]
    text = table(["packets", "resident MiB", "folder MiB", "folder bytes a packet"], rows)
    grown = run.resident[-1][1] / run.resident[0][1] - 1
    return text + (
        f"\nFrom {first:,} to {run.resident[-1][0]:,} packets resident memory changed by {grown:+.1%}. "
        f"Restart after SIGKILL: {run.restart_seconds:.2f} s until it listens, "
        f"{run.resident_after_restart / MIB:.0f} MiB then.\n"
    )


async def unanswered(name: str, plan: Plan, tell: Tell) -> str:
    """Prepares of 30 s that nobody answers, at full rate: what the bounds of the node hold."""
    async with isthmus_node.TARGETS[name]() as target:
        before = rss_bytes(target.pid)
        running = asyncio.create_task(flood(target, seconds=plan.flood_seconds, window=FLOOD_WINDOW))
        highest = before
        while not running.done():
            await asyncio.wait((running,), timeout=0.5)
            highest = max(highest, rss_bytes(target.pid))
        measured = running.result()
    tell(f"unanswered: {highest / MIB:.0f} MiB, {measured}")
    return (
        f"\nNever answered, {FLOOD_WINDOW:,} Prepares of a sender in flight or refused for {plan.flood_seconds:.0f} s "
        f"({measured.packets_per_second:,.0f} answers/s: {measured.rejects}; "
        f"{measured.received:,} reached the receiver): "
        f"{before / MIB:.0f} MiB at first, {highest / MIB:.0f} MiB at most.\n"
    )


async def profile(plan: Plan, tell: Tell) -> str:
    """Where the time of the forwarding run goes."""
    if not our_targets():
        return "## Profile of the forwarding run\n\nThe node is not there yet.\n"
    text = "## Profile of the forwarding run\n\n"
    with tempfile.TemporaryDirectory() as folder:
        async with isthmus_node.isthmus() as target:
            shots = asyncio.create_task(keep_firing(target, plan))
            await asyncio.sleep(min(3.0, plan.profile_seconds))
            stacks = await hot_spots.record(target.pid, seconds=plan.profile_seconds, folder=Path(folder))
            await shots
        if stacks is None:
            return text + "py-spy is not installed, or may not read the node's memory.\n"
        own, total = hot_spots.costs(stacks)
    tell("profile: " + "; ".join(f"{name} {share:.0%}" for name, share in own[:3]))
    text += f"py-spy at {hot_spots.RATE_HZ} Hz, window 1000. What costs most by itself, and with what it calls.\n\n"
    return text + cost_tables(own, total)


def cost_tables(own: list[tuple[str, float]], total: list[tuple[str, float]]) -> str:
    def rows(costs: list[tuple[str, float]]) -> list[list[str]]:
        return [[f"`{name}`", f"{share:.1%}"] for name, share in costs]

    return table(["by itself", "share"], rows(own)) + "\n" + table(["with what it calls", "share"], rows(total))


async def keep_firing(target: Target, plan: Plan) -> None:
    ends_at = time.monotonic() + plan.profile_seconds + 4
    while time.monotonic() < ends_at:
        await fire(target, packets=plan.count("", 1000), window=1000)
