"""What `isthmus sim` prints: a run's network and timeline, its verdict, and a sweep's totals and coverage."""

from collections.abc import Iterator
from typing import Any, Final

from isthmus.sim.plan import CONNECTOR, Plan
from isthmus.sim.summary import Tally
from isthmus.sim.world import Result

FINDINGS_SHOWN: Final = 12
_GROUPS: Final = {
    "fault": "faults that met something",
    "vice": "what adversaries did",
    "rule": "rules of the switch that refused",
    "entry": "entries of journals",
    "void": "why legs were voided",
    "btp": "BTP connections",
    "http": "HTTP requests",
    "payment": "states of payments",
    "payment outcome": "outcomes of payments",
    "stream": "news of STREAM connections",
    "log": "log lines",
    "bad claim": "answers to bad claims",
    "settlement": "what operators did about settlements",
}


def run(result: Result) -> Iterator[str]:
    """A run for people."""
    yield from plan(result.plan)
    yield ""
    for at, who, text in result.timeline:
        yield f"{at / 1000:9.3f} s  {who:<7} {text}".rstrip()
    yield from verdict(result)


def plan(given: Plan) -> Iterator[str]:
    """The network, its payments and faults."""
    yield f"seed {given.seed}"
    for node in given.nodes:
        what = f"connector, keeps {float(node.spread):.1%}" if node.kind == CONNECTOR else f"{node.asset} wallet"
        vice = f"; {node.vice}" if node.vice else ""
        yield f"  {node.name}: {what}, clock off by {node.skew_ms} ms, {node.sync_ms} ms a sync{vice}"
    for link in given.links:
        slowest = link.delay_ms + link.jitter_ms
        settled = f", settled by {link.ledger}" if link.ledger else ""
        yield f"  {link.name}: {link.carrier.upper()}, {link.asset}, {link.delay_ms} to {slowest} ms{settled}"
    for payment in given.payments:
        yield f"  {payment}, after {payment.at_ms} ms"
    for fault in given.faults:
        yield f"  {fault}"


def verdict(result: Result) -> Iterator[str]:
    """What a run came to."""
    payments = ", ".join(f"{count} {how}" for how, count in sorted(result.payments.items())) or "none"
    yield ""
    yield (
        f"{result.nodes} nodes, {result.packets} packets of wallets over {result.hops} hops, {result.faults} faults,"
        f" {result.crashes} crashes, {result.virtual_ms / 1000:.0f} s; payments: {payments}"
    )
    if result.losses:
        yield f"{result.losses} losses, each where the rules put it"
    for finding in result.findings[:FINDINGS_SHOWN]:
        yield f"FOUND {finding}"
    if len(result.findings) > FINDINGS_SHOWN:
        yield f"… and {len(result.findings) - FINDINGS_SHOWN} more"
    yield f"Repeat with: {result.plan.command}" if result.findings else "Nothing is found: all books agree to the unit."


def failure(one: dict[str, Any]) -> str:
    """One failing seed in a sweep."""
    first = one["findings"][0] if one["findings"] else None
    what = f"{first['node']}: {first['kind']}: {first['text']}" if first else ", ".join(one["shortfalls"])
    more = f" (and {one['findings_count'] - 1} more)" if one["findings_count"] > 1 else ""
    return f"seed {one['seed']}: {what}{more}\n  {one['command']}"


def sweep(tally: Tally) -> Iterator[str]:
    """A sweep's end."""
    for group, counts in tally.coverage.groups.items():
        yield f"{_GROUPS.get(group, group)}:"
        for name, count in counts.items():
            yield f"  {count:>9}  {name}"
    totals = tally.totals
    yield ""
    yield (
        f"{tally.seeds} seeds: {totals['nodes']} nodes, {totals['packets']} packets of wallets over {totals['hops']}"
        f" hops, {totals['faults']} faults, {totals['crashes']} crashes, {totals['virtual_ms'] // 60_000} minutes of"
        f" virtual time; {totals['losses']} losses where the rules put them"
    )
    for kind in tally.never_hit:
        yield f"NEVER MET: {kind}"
    for one in tally.failures:
        yield failure(one)
    yield f"{len(tally.failures)} seeds fail" if tally.failures else "No seed fails."
