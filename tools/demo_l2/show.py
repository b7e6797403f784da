"""What a demo of layer 2 came to, and how it is shown."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, final

from rich.console import Console, Group
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.table import Table
from rich.text import Text

from isthmus.cli.books_view import new_table
from isthmus.cli.demo.audit import NodeBooks
from isthmus.cli.demo.network import Pair
from isthmus.ilp.asset import Asset, format_amount

BAR_WIDTH: Final = 22
PIPED_WIDTH: Final = 160  # where no terminal says how wide it is


@final
@dataclass(slots=True, frozen=True)
class Fact:
    """A ledger's number beside the one that books give for it."""

    what: str
    on_ledger: int
    asset: Asset
    by_books: int

    @property
    def holds(self) -> bool:
        return self.on_ledger == self.by_books

    @property
    def text(self) -> str:
        return f"{self.what}: the ledger says {self.on_ledger}, and the books {self.by_books} (base units)"


# By node and account: what the neighbour may owe, in base units; None for any amount.
Limits: TypeAlias = dict[tuple[str, str], int | None]


@final
@dataclass(slots=True, kw_only=True)
class Result:
    """One run."""

    title: str
    sent: tuple[int, Asset]
    delivered: tuple[int, Asset]
    packets: int
    seconds: float
    facts: list[Fact]
    books: Mapping[str, NodeBooks]
    pairs: Sequence[Pair]
    channels: list[dict[str, Any]]  # that are still open somewhere
    limits: Limits
    notes: list[str]  # what else is to be known
    problems: list[str]

    def to_json(self) -> dict[str, Any]:
        """Amounts are strings in base units."""
        return {
            "title": self.title,
            "sent": str(self.sent[0]),
            "delivered": str(self.delivered[0]),
            "packets": self.packets,
            "seconds": round(self.seconds, 3),
            "ledgers": [
                {
                    "what": one.what,
                    "amount": str(one.on_ledger),
                    "asset_code": one.asset.code,
                    "asset_scale": one.asset.scale,
                    "by_books": str(one.by_books),
                    "agrees": one.holds,
                }
                for one in self.facts
            ],
            "balances": [
                {
                    "node": name,
                    "account": account,
                    "balance": str(node.balance(account)),
                    "may_owe_us": None if (limit := self.limits[name, account]) is None else str(limit),
                    "asset_code": node.tally.assets[account].code,
                    "asset_scale": node.tally.assets[account].scale,
                }
                for name, node in self.books.items()
                for account in node.tally.peers
            ],
            "channels": self.channels,
            "notes": self.notes,  # fees on ledgers, and what is left
            "books_agree": not self.problems,
            "problems": self.problems,
        }


class Audience:
    """A terminal, a pipe, or nobody (`quiet`)."""

    def __init__(self, *, quiet: bool) -> None:
        width = None if sys.stdout.isatty() else PIPED_WIDTH
        self.console: Final = Console(width=width, highlight=False, quiet=quiet)
        self._bar: Progress | None = None

    def begin(self, title: str) -> None:
        self.console.print(f"\n[bold]{title}[/]")

    def step(self, text: str) -> None:
        self.done()
        self.console.print(f"{text} …", style="dim")

    def progress(self, sent: int, amount: int, delivered: int, asset: Asset) -> None:
        if not self.console.is_terminal or self.console.quiet:
            return
        if self._bar is None:
            columns = (BarColumn(BAR_WIDTH), TaskProgressColumn(), TextColumn("{task.description}"))
            self._bar = Progress(*columns, console=self.console)
            self._bar.add_task("", total=amount)
            self._bar.start()
        text = f"Bob has {format_amount(delivered, asset)}"
        self._bar.update(self._bar.task_ids[0], completed=sent, description=text)

    def done(self) -> None:
        """No bar is left moving."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def result(self, result: Result) -> None:
        self.console.print(Group(Text(), _payment(result), Text(), _facts(result), Text(), _books(result), Text()))
        for line in result.notes:
            self.console.print(line, style="dim")
        if result.problems:
            for line in result.problems:
                self.console.print(line, style="red")
        else:
            self.console.print("Ledgers and books agree to the unit.", style="green")


def _payment(result: Result) -> Table:
    table = new_table("The payment", "", "amount")
    table.add_row("left Alice", format_amount(*result.sent))
    table.add_row("arrived at Bob", format_amount(*result.delivered))
    table.add_row("packets", f"{result.packets} in {result.seconds:.1f} s")
    return table


def _facts(result: Result) -> Table:
    table = new_table("The ledgers, and the books", "", "on the ledger", "by the books", "")
    for one in result.facts:
        verdict = Text("equal", style="green") if one.holds else Text("not equal", style="red")
        amounts = [format_amount(amount, one.asset) for amount in (one.on_ledger, one.by_books)]
        table.add_row(one.what, *amounts, verdict)
    return table


def _books(result: Result) -> Table:
    title = "Not settled, and what may be owed at the most"
    table = new_table(title, "neighbours", "by the first's books", "by the other's", "the first may owe", "the other")
    for column in table.columns:
        column.no_wrap = False
    for pair in result.pairs:
        left, right = result.books[pair.left], result.books[pair.right]
        asset = left.tally.assets[pair.left_account]
        table.add_row(
            f"{pair.left} – {pair.right}",
            _owed(left.balance(pair.left_account), pair.left, pair.right, asset),
            _owed(right.balance(pair.right_account), pair.right, pair.left, asset),
            _limit(result.limits[pair.right, pair.right_account], asset),
            _limit(result.limits[pair.left, pair.left_account], asset),
        )
    for one in result.channels:
        unit = Asset(one["unit_code"], one["unit_scale"])
        amounts = f"holds {format_amount(int(one['capacity']), unit)}"
        table.add_row(f"{one['node']}: channel {one['id'][:10]}…", amounts, one["state"])
    return table


def _limit(limit: int | None, asset: Asset) -> str:
    return "any amount" if limit is None else format_amount(limit, asset)


def _owed(balance: int, own: str, other: str, asset: Asset) -> str:
    """In words, never by a bare sign."""
    if not balance:
        return "nothing"
    debtor, creditor = (other, own) if balance > 0 else (own, other)
    return f"{debtor} owes {creditor} {format_amount(abs(balance), asset)}"
