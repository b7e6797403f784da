"""Accounts and routes of a running node as people read them."""

import shutil
import sys
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from isthmus.cli.books_view import cell, in_words, new_table
from isthmus.ilp.asset import Asset, format_amount

PIPED_WIDTH: Final = 200


def console() -> Console:
    """As wide as the terminal; where no terminal says how wide it is, tables take what they need."""
    width = shutil.get_terminal_size((PIPED_WIDTH, 0)).columns if sys.stdout.isatty() else PIPED_WIDTH
    return Console(width=width, highlight=False)


def accounts_table(found: list[dict[str, Any]]) -> Table:
    table = new_table(
        "Accounts", "account", "relation", "link", "balance", "may owe us", "we may owe", "in flight", "from"
    )
    for each in found:
        asset = Asset(each["asset_code"], each["asset_scale"])
        balance = in_words(int(each["balance"]), asset)
        loss = int(each["loss"])
        row = (
            each["id"],
            each["relation"],
            each["link"] if each["enabled"] else "removed" if each["source"] == "removed" else "disabled",
            balance if not loss else f"{balance}, lost {format_amount(loss, asset)}",
            _limit(each["receivable_max"], asset),
            _limit(each["payable_max"], asset),
            str(each["packets_in_flight"]),
            each["source"],
        )
        table.add_row(*map(cell, row))
    return table


def routes_table(found: list[dict[str, Any]]) -> Table:
    table = new_table("Routes", "prefix", "account", "from")
    for each in found:
        table.add_row(*map(cell, (each["prefix"] or "default", each["account"], each["source"])))
    return table


def _limit(amount: str | None, asset: Asset) -> str:
    return "unlimited" if amount is None else format_amount(int(amount), asset)
