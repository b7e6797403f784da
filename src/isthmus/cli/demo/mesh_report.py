"""What `isthmus demo --mesh` shows: the ring, which way packets went and when, and what the kill cost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from isthmus.cli.demo import report
from isthmus.cli.demo.audit import NodeBooks
from isthmus.cli.demo.mesh import OTHER_WAY, VICTIM, Ring
from isthmus.cli.demo.network import Network
from isthmus.cli.demo.report import Outcome
from isthmus.connector.books import loss_name
from isthmus.ilp.asset import format_amount

STAGES: Final = (f"until {VICTIM} was killed", "while it was dead", "since it came back")


@dataclass(slots=True, frozen=True)
class Stage:
    """What each connector in the middle has passed on up to a moment, or between two of them."""

    name: str
    packets: Mapping[str, int]


def differences(moments: Sequence[Stage]) -> list[Stage]:
    """From counts at moments to counts between them, named as they are shown."""
    return [
        Stage(name, {one: after.packets[one] - before.packets[one] for one in after.packets})
        for name, (before, after) in zip(STAGES, pairwise(moments), strict=True)
    ]


def picture(ring: Ring) -> RenderableType:
    """The ring, and who is at it."""
    one, two, three, four, five = (connector.name for connector in ring.connectors)
    return Text(
        f"""\
                  ┌───────── {two} ─────────┐
Alice (BTC) ── {one}             {three} ── Bob (ETH)
                  └── {five} ── {four} ──┘
{one} takes BTC and gives USD, {three} gives ETH; in the ring they count in USD, and each keeps a little
"""
    )


def tables(
    network: Network,
    outcome: Outcome,
    again: Outcome,
    ways: Sequence[Stage],
    *,
    pause_s: float,
    books: Mapping[str, NodeBooks],
) -> RenderableType:
    """Both payments, the ways of their packets, and what each connector earned."""
    gap = Text()
    return Group(
        report.payment(network, outcome, "The payment that a node was killed in"),
        gap,
        report.payment(network, again, "The payment after it came back"),
        gap,
        _ways(ways),
        Text(f"The longest pause while it was dead: {pause_s:.1f} s. {_lost(books)}"),
        gap,
        report.earnings(network, books),
        gap,
        report.packets(outcome),
        gap,
    )


def _ways(ways: Sequence[Stage]) -> Table:
    table = report.new_table("Which way the packets went (fulfilled)", "", VICTIM, *OTHER_WAY)
    for stage in ways:
        table.add_row(stage.name, *(str(stage.packets[name]) for name in (VICTIM, *OTHER_WAY)))
    return table


def losses(books: Mapping[str, NodeBooks]) -> dict[str, int]:
    """What each node fulfilled and wasn't paid for, in base units of the ring."""
    found = {}
    for name, one in books.items():
        tally = one.tally
        lost = sum(tally.balances.get(loss_name(account), 0) for account in tally.peers)
        if lost:
            found[name] = lost
    return found


def _lost(books: Mapping[str, NodeBooks]) -> str:
    found = losses(books)
    if not found:
        return "Nobody lost anything by it."
    texts = []
    for name, lost in found.items():
        asset = next(books[name].tally.assets[account] for account in books[name].tally.peers)
        texts.append(f"{name} lost {format_amount(lost, asset)}, fulfilled and not told in time")
    return f"{'; '.join(texts)}."


def as_json(
    again: Outcome, ways: Sequence[Stage], *, pause_s: float, books: Mapping[str, NodeBooks]
) -> dict[str, object]:
    """What the object has besides the chain's keys. Amounts are strings in base units."""
    return {
        "killed": VICTIM,
        "pause_seconds": round(pause_s, 3),
        "ways": [{"stage": stage.name, "packets": dict(stage.packets)} for stage in ways],
        "again": {"sent": str(again.sent), "delivered": str(again.delivered), "packets": again.packets},
        "lost": {name: str(amount) for name, amount in losses(books).items()},
    }
