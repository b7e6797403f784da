"""What the demo shows: the path, the tables after the payment, and the one JSON object for scripts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Final

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from isthmus.cli.books_view import Json
from isthmus.cli.demo.audit import ROUNDING, SPREAD, NodeBooks
from isthmus.cli.demo.network import ALICE, BOB, BTP, Connector, Network
from isthmus.ilp.asset import Asset, format_amount, format_decimal
from isthmus.ilp.codes import code_name

CARRIERS: Final = {BTP: "BTP", "http": "HTTP"}
PICTURE_WIDTH_MIN: Final = 100
RATE_DIGITS: Final = 8  # significant ones; the node's rate is an exact fraction


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What became of the payment."""

    sent: int
    delivered: int
    promised: int  # the least that was to arrive
    packets: int
    rejects: dict[str, int] = field(default_factory=dict)  # by ILP code
    seconds: float = 0.0

    @property
    def is_kept(self) -> bool:
        """Whether what was promised was delivered."""
        return self.delivered >= self.promised


def path(network: Network, width: int) -> RenderableType:
    """The network as a picture: who, what they count in, and what carries packets between them."""
    if width < PICTURE_WIDTH_MIN:
        return _path_in_lines(network)
    grid = Table.grid(padding=(0, 1))
    boxes: list[RenderableType] = [_box("Alice", f"{network.source.code} wallet", "green")]
    for connector in network.connectors:
        rate = f"{connector.source.code} → {connector.destination.code}"
        boxes.append(_box(connector.name, f"{rate}\nkeeps {connector.spread}", "cyan"))
    boxes.append(_box("Bob", f"{network.destination.code} wallet", "green"))
    row: list[RenderableType] = []
    for box, pair in zip(boxes, [*network.pairs(), None], strict=True):
        row.append(box)
        if pair is not None:
            row.append(Text(f"\n{CARRIERS[pair.carrier]}\n──▶", justify="center"))
    for _ in row:
        grid.add_column(vertical="middle")
    grid.add_row(*row)
    return grid


def _path_in_lines(network: Network) -> RenderableType:
    lines = [f"Alice, {network.source.code} wallet"]
    for connector, pair in zip(network.connectors, network.pairs(), strict=False):
        what = f"{connector.source.code} → {connector.destination.code}, keeps {connector.spread}"
        lines.append(f"  ─{CARRIERS[pair.carrier]}▶ {connector.name}, {what}")
    lines.append(f"  ─{CARRIERS[network.pairs()[-1].carrier]}▶ Bob, {network.destination.code} wallet")
    return Text("\n".join(lines))


def _box(title: str, text: str, style: str) -> Panel:
    return Panel(Text(text, justify="center"), title=title, border_style=style, expand=False)


def tables(network: Network, outcome: Outcome, books: Mapping[str, NodeBooks]) -> RenderableType:
    """What left and arrived, each hop with its rate and earnings, packets and rejects."""
    gap = Text()
    return Group(
        payment(network, outcome),
        gap,
        _hops(network, books),
        gap,
        earnings(network, books),
        gap,
        packets(outcome),
        gap,
    )


def payment(network: Network, outcome: Outcome, title: str = "The payment") -> Table:
    """What left and arrived, and at what rate."""
    table = new_table(title, "", "amount", "base units")
    for name, amount, asset in (
        ("left Alice", outcome.sent, network.source),
        ("arrived at Bob", outcome.delivered, network.destination),
        ("promised, at least", outcome.promised, network.destination),
    ):
        table.add_row(name, format_amount(amount, asset), str(amount))
    if outcome.sent:
        paid = _between(outcome.sent, network.source, outcome.delivered, network.destination)
        table.add_row("rate", f"{rate_text(paid)} {network.destination.code} for 1 {network.source.code}", "")
        table.add_row("without any spread", f"{rate_text(network.fair_rate)} {network.destination.code}", "")
    return table


def _hops(network: Network, books: Mapping[str, NodeBooks]) -> Table:
    table = new_table("The hops, by the connectors' books", "", "took", "gave", "rate")
    for connector in network.connectors:
        took, gave = _taken_and_given(network, connector, books[connector.name])
        rate = _between(took, connector.source, gave, connector.destination) if took else connector.rate
        table.add_row(
            connector.name,
            format_amount(took, connector.source),
            format_amount(gave, connector.destination),
            f"{rate_text(rate)} {connector.destination.code}/{connector.source.code}",
        )
    return table


def earnings(network: Network, books: Mapping[str, NodeBooks]) -> Table:
    """By spread and by rounding, whatever passed."""
    table = new_table("What each connector earned", "", "asks for", "by its spread", "by rounding")
    for connector in network.connectors:
        earned = books[connector.name].tally.earned.get(connector.destination, {})
        amounts = [format_amount(earned.get(kind, 0), connector.destination) for kind in (SPREAD, ROUNDING)]
        table.add_row(connector.name, connector.spread, *amounts)
    return table


def _taken_and_given(network: Network, connector: Connector, books: NodeBooks) -> tuple[int, int]:
    left, right = [pair for pair in network.pairs() if connector.name in (pair.left, pair.right)]
    return books.tally.incoming.get(left.right_account, 0), books.tally.outgoing.get(right.left_account, 0)


def packets(outcome: Outcome) -> Table:
    """Fulfilled, rejected, and how fast."""
    table = new_table("The packets", "", "")
    table.add_row("fulfilled", str(outcome.packets))
    for code, count in sorted(outcome.rejects.items()):
        table.add_row(f"rejected, {code} {code_name(code)}", str(count))
    if not outcome.rejects:
        table.add_row("rejected", "none")
    per_second = f" ({outcome.packets / outcome.seconds:.0f} packets a second)" if outcome.seconds else ""
    table.add_row("time", f"{outcome.seconds:.2f} s{per_second}")
    return table


def agreement(network: Network, books: Mapping[str, NodeBooks], problems: Sequence[str]) -> RenderableType:
    """Each pair of neighbours: what one's books say, what the other's say."""
    table = new_table("The books, replayed", "neighbours", "the first owes", "the second is owed", "")
    for pair in network.pairs():
        left, right = books[pair.left], books[pair.right]
        ours, theirs = left.balance(pair.left_account), right.balance(pair.right_account)
        asset = left.tally.assets.get(pair.left_account) or right.tally.assets[pair.right_account]
        is_equal = ours == -theirs
        table.add_row(
            f"{_shown(pair.left)} – {_shown(pair.right)}",
            _owed(-ours, asset, "is owed"),
            _owed(theirs, asset, "owes"),
            Text("equal", style="green") if is_equal else Text(f"{abs(ours + theirs)} apart", style="red"),
        )
    batches = sum(one.batches for one in books.values())
    if problems:
        verdict = Text("\n".join(problems), style="red")
    else:
        verdict = Text(
            f"All books agree to the unit ({len(books)} journals, {batches} batches replayed).",
            style="green",
        )
    return Group(table, verdict)


def _owed(amount: int, asset: Asset, otherwise: str) -> str:
    """What the column's title says, or in words that it is the other way round: never a bare sign."""
    return format_amount(amount, asset) if amount >= 0 else f"{otherwise} {format_amount(-amount, asset)}"


def as_json(
    network: Network, outcome: Outcome, books: Mapping[str, NodeBooks], problems: Sequence[str]
) -> dict[str, object]:
    """One object; amounts are strings in base units, a positive balance is owed to the node."""
    return {
        "sent": str(outcome.sent),
        "delivered": str(outcome.delivered),
        "packets": outcome.packets,
        "rejected": sum(outcome.rejects.values()),
        "seconds": round(outcome.seconds, 3),
        "nodes": [_node_json(books[name]) for name in network.names],
        "books_agree": not problems,
    }


def _node_json(books: NodeBooks) -> Json:
    tally = books.tally
    accounts: list[Json] = [
        {
            "account": name,
            "asset_code": tally.assets[name].code,
            "asset_scale": tally.assets[name].scale,
            "balance": str(tally.balances.get(name, 0)),
        }
        for name in tally.peers
    ]
    earnings: dict[str, Json] = {
        asset.code: str(earned.get(SPREAD, 0) + earned.get(ROUNDING, 0))
        for asset, earned in tally.earned.items()
        if any(earned.values())
    }
    return {"name": books.name, "earnings": earnings, "accounts": accounts}


# --- numbers ---------------------------------------------------------------------------------------------------------


def _between(source_amount: int, source: Asset, amount: int, asset: Asset) -> Fraction:
    """Whole units of `asset` for one whole unit of `source`."""
    return Fraction(amount, 10**asset.scale) / Fraction(source_amount, 10**source.scale)


def rate_text(rate: Fraction) -> str:
    """For people: eight significant digits, no exponent."""
    if rate <= 0:
        return "0"
    digits = RATE_DIGITS
    whole = rate.numerator // rate.denominator
    if whole:
        digits = max(0, RATE_DIGITS - len(str(whole)))
    else:
        digits = RATE_DIGITS + len(str(rate.denominator // rate.numerator)) - 1
    return format_decimal(round(rate * 10**digits), digits)


def _shown(name: str) -> str:
    return name.capitalize() if name in (ALICE, BOB) else name


def new_table(title: str, *columns: str) -> Table:
    """Rows follow; numbers stand on the right."""
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=SIMPLE_HEAD,
        show_header=any(columns),
        show_edge=False,
    )
    for index, name in enumerate(columns):
        table.add_column(name, justify="left" if index == 0 else "right", overflow="fold")
    return table
