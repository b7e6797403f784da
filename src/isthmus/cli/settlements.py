"""`isthmus settlements`: what is under way and what was lately, and how one that failed is taken back."""

import json
import time
from pathlib import Path
from typing import Any, Final

import click
from rich.table import Table

from isthmus.cli.accounts_view import console
from isthmus.cli.admin_api import find_api, find_node, is_running, node_options
from isthmus.cli.books_correct import asset_of, book, key_and_note, show_booked
from isthmus.cli.books_replay import journal_path, latest
from isthmus.cli.books_view import cell, in_words, new_table, time_of
from isthmus.cli.unmatched import COMMANDS
from isthmus.connector.events import AccountId, ReverseSettlement
from isthmus.errors import JournalError
from isthmus.ilp.asset import Asset, format_amount, format_decimal

_UNITS: Final = ((86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1_000, "s"))


@click.group(
    epilog="""\b
Examples:
  isthmus settlements list
  isthmus settlements list --json | jq '.settlements[] | select(.state == "failed")'
  isthmus settlements reverse bob 7 --note "the ledger says that it can't happen: see ticket 12"
  isthmus settlements unmatched
  isthmus settlements assign bob 42 --note "they forgot the reference: their mail of 3 May" """
)
def settlements() -> None:
    """List settlements, reverse one that can't happen any more, and assign transfers that are nobody's yet."""


for _command in COMMANDS:
    settlements.add_command(_command)


@settlements.command("list", epilog="\b\nExample:\n  isthmus settlements list --config connector/isthmus.toml")
@click.option("--json", "as_json", is_flag=True, help="One JSON object; amounts are strings in base units.")
@node_options
def list_settlements(as_json: bool, config: Path | None, data: Path | None) -> None:
    """List what is under way, what came and went lately, and what engines say. Also of a node that is stopped."""
    config, data, _ = find_node(config, data)
    found = _of_node(config, data) if is_running(data) else _of_journal(data)
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    for table in _tables(found):
        console().print(table)
    for line in _lines(found):
        click.echo(line)


def _of_node(config: Path | None, data: Path) -> dict[str, Any]:
    api = find_api(config, data)
    try:
        return api.call("GET", "/settlements")
    except JournalError as error:
        click.echo(f"{error}. What follows is from its journal.", err=True)  # it was killed, most likely
        return _of_journal(data)


def _of_journal(data: Path) -> dict[str, Any]:
    """The same of a node that is stopped; its engines say nothing."""
    from isthmus.journal.reader import JournalReader
    from isthmus.node.settlements_view import recent_settlements, settlements_json

    path = journal_path(data)
    with JournalReader(path) as reader:
        reader.snapshot()
        books = latest(reader).books
    found = settlements_json(books, recent_settlements(str(path)), time.time_ns() // 1_000_000)
    return {**found, "engines": []}


def _tables(found: dict[str, Any]) -> list[Table]:
    """Those that have something in them."""
    tables: list[Table] = []
    assets = {each["account"]: Asset(each["asset_code"], each["asset_scale"]) for each in found["accounts"]}
    if found["settlements"]:
        table = new_table("Under way", "account", "number", "amount", "state", "since", "note")
        for each in found["settlements"]:
            asset = Asset(each["asset_code"], each["asset_scale"])
            amount = format_amount(int(each["amount"]), asset)
            since = f"{time_of(each['begun_at_ms'])} ({_age(each['age_ms'])})"
            table.add_row(*map(cell, (each["account"], each["number"], amount, each["state"], since, each["text"])))
        tables.append(table)
    if found["accounts"]:
        table = new_table("Accounts", "account", "balance", "on the ledger", "left over")
        for each in found["accounts"]:
            asset = assets[each["account"]]
            on_ledger = int(each["on_ledger"])
            words = "we paid " if on_ledger < 0 else "they paid " if on_ledger else ""
            left = format_decimal(int(each["leftover"]), each["leftover_scale"])
            row = (
                each["account"],
                in_words(int(each["balance"]), asset),
                f"{words}{format_amount(abs(on_ledger), asset)}",
                f"{left} {asset.code}" if left != "0" else "",
            )
            table.add_row(*map(cell, row))
        tables.append(table)
    if found["recent"]:
        table = new_table("Lately (UTC)", "time", "account", "what", "amount", "note")
        for each in found["recent"]:
            known = assets.get(each["account"])
            amount = each["amount"] if known is None else format_amount(int(each["amount"]), known)
            table.add_row(*map(cell, (time_of(each["time_ms"]), each["account"], each["kind"], amount, each["text"])))
        tables.append(table)
    return tables


def _lines(found: dict[str, Any]) -> list[str]:
    """What engines say, one thing a line."""
    lines: list[str] = []
    for engine in found["engines"]:
        state = "works" if engine["works"] else f"doesn't work: {engine['problem'] or 'it is starting'}"
        lines.append(f"Engine {engine['name']} {state}")
        for each in engine["accounts"]:
            says = ", ".join(f"{key} {value}" for key, value in each["says"].items() if value)
            lines.append(cell(f"  {each['account']}: {says or 'nothing to say'}").plain)
        for alarm in engine["alarms"]:
            times = f", {alarm['count']} times" if alarm["count"] > 1 else ""
            whose = f" {alarm['account']}" if alarm["account"] else ""
            text = f"  {alarm['level']} {time_of(alarm['at_ms'])}{whose} {alarm['event']}: {alarm['text']}{times}"
            lines.append(cell(text).plain)
    if not found["settlements"]:
        lines.insert(0, "No settlement is under way.")
    return lines


def _age(age_ms: int) -> str:
    for unit_ms, name in _UNITS:
        if age_ms >= unit_ms:
            return f"{age_ms // unit_ms} {name}"
    return "now"


@settlements.command(
    epilog="""\b
Examples:
  isthmus settlements reverse bob 7 --note "their account was closed; the bank sent it back"
  isthmus settlements reverse bob 8 --certain --note "the engine's machine is gone, and its ledger shows no payment" """
)
@click.argument("account", metavar="ACCOUNT")
@click.argument("number", metavar="NUMBER", type=click.IntRange(1))
@click.option("--note", required=True, help="The proof, for whoever reads the books later.")
@click.option(
    "--certain",
    is_flag=True,
    help="Although its engine has not said that it failed. Paid all the same, it would be paid twice.",
)
@click.option("--key", help="Makes it happen once, however often you repeat it.  [default: a fresh one]")
@click.option("--json", "as_json", is_flag=True, help="One JSON object; the amount is a string in base units.")
@node_options
def reverse(
    account: str,
    number: int,
    note: str,
    certain: bool,
    key: str | None,
    as_json: bool,
    config: Path | None,
    data: Path | None,
) -> None:
    """Owe the peer of ACCOUNT again what settlement NUMBER could not pay."""
    config, data, _ = find_node(config, data)
    path = journal_path(data)
    asset = asset_of(path, account)
    event = ReverseSettlement(AccountId(account), number, *key_and_note(key, note), 0, certain)
    amount, where = book(path, event, config)
    words = f"Reversed {where}: {format_amount(amount, asset)} are owed to {account} again"
    show_booked(event, amount, words, as_json)
