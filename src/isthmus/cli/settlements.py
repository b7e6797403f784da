"""`isthmus settlements`: what is under way and what was lately, and how one that failed is taken back."""

import json
import time
from pathlib import Path
from typing import Any, Final

import click
from rich.table import Table
from rich.text import Text

from isthmus.cli import alarms
from isthmus.cli.accounts_view import console
from isthmus.cli.admin_api import find_api, find_node, is_running, node_options
from isthmus.cli.books_correct import asset_of, book, key_and_note, show_booked
from isthmus.cli.books_replay import journal_path, latest
from isthmus.cli.books_view import cell, in_words, new_table, time_of
from isthmus.cli.unmatched import COMMANDS
from isthmus.connector.events import AccountId, ReverseSettlement
from isthmus.errors import ConfigError, JournalError
from isthmus.ilp.asset import Asset, format_amount, format_decimal

FACTS_SHOWN: Final = 4  # of what an engine says of one account, in the list
VALUE_CHARS: Final = 40  # of each of them
_BY_ACCOUNT: Final = ("settlements", "accounts", "recent")
_UNITS: Final = ((86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1_000, "s"))


@click.group(
    epilog="""\b
Examples:
  isthmus settlements list
  isthmus settlements show bob
  isthmus settlements list --json | jq '.settlements[] | select(.state == "failed")'
  isthmus settlements reverse bob 7 --note "the ledger says that it can't happen: see ticket 12"
  isthmus settlements unmatched
  isthmus settlements assign bob 42 --note "they forgot the reference: their mail of 3 May"
  isthmus settlements clear eth evm_transaction_failed bob --note "too little gas money; sent 1 ETH" """
)
def settlements() -> None:
    """List settlements, reverse one that can't happen any more, assign transfers that are nobody's yet."""


for _command in (*COMMANDS, alarms.clear):
    settlements.add_command(_command)


@settlements.command("list", epilog="\b\nExample:\n  isthmus settlements list --config connector/isthmus.toml")
@click.option("--json", "as_json", is_flag=True, help="One JSON object; amounts are strings in base units.")
@node_options
def list_settlements(as_json: bool, config: Path | None, data: Path | None) -> None:
    """List what is under way, what came and went lately, and what engines say. Also of a node that is stopped."""
    config, data, _ = find_node(config, data)
    _print(_found(config, data), as_json=as_json)


def _print(found: dict[str, Any], *, as_json: bool, is_whole: bool = False) -> None:
    """`is_whole`: all that engines say, as they say it, and alarms that are over."""
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    for table in _tables(found, is_whole=is_whole):
        console().print(table)
    for line in _lines(found):
        click.echo(line)


def _found(config: Path | None, data: Path) -> dict[str, Any]:
    return _of_node(config, data) if is_running(data) else _of_journal(data)


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


def _tables(found: dict[str, Any], *, is_whole: bool) -> list[Table]:
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
    return tables + _of_engines(found, is_whole=is_whole)


def _of_engines(found: dict[str, Any], *, is_whole: bool) -> list[Table]:
    says = new_table("What engines say", "account", "engine")
    says.add_column("says", overflow="fold")
    alarms = new_table("Alarms (UTC)", "last", "engine", "account", "alarm", "times")
    alarms.add_column("text", overflow="fold")
    for engine in found["engines"]:
        for each in engine["accounts"]:
            facts = _facts(each, is_whole=is_whole)
            says.add_row(cell(each["account"]), cell(engine["name"]), Text("\n").join(map(cell, facts)))
        for alarm in engine["alarms"]:
            if is_whole or alarm["over_at_ms"] is None:
                alarms.add_row(*map(cell, _alarm(engine["name"], alarm)))
    return [table for table in (says, alarms) if table.row_count]


def _facts(each: dict[str, Any], *, is_whole: bool) -> list[str]:
    """Of one account, a line each."""
    facts = [(key.replace("_", " "), value) for key, value in each["says"].items() if value]
    if is_whole:
        return [f"{key}: {value}" for key, value in facts] or ["nothing"]
    shown = [f"{key}: {_short(value)}" for key, value in facts[:FACTS_SHOWN]]
    if len(facts) > FACTS_SHOWN or any(_short(value) != value for _, value in facts):
        shown.append(f"… all: isthmus settlements show {each['account']}")
    return shown or ["nothing"]


def _short(value: str) -> str:
    return value if len(value) <= VALUE_CHARS else f"{value[:VALUE_CHARS]}…"


def _alarm(engine: str, alarm: dict[str, Any]) -> tuple[str, ...]:
    over = alarm["over_at_ms"]
    text = alarm["text"] if over is None else f"over since {time_of(over)}: {alarm['text']}"
    event = f"{alarm['level']} {alarm['event']}"
    return time_of(alarm["at_ms"]), engine, alarm["account"], event, str(alarm["count"]), text


def _lines(found: dict[str, Any]) -> list[str]:
    """What tables don't tell: whether engines work, how many alarms are over."""
    lines = [] if found["settlements"] else ["No settlement is under way."]
    for engine in found["engines"]:
        state = "works" if engine["works"] else f"doesn't work: {engine['problem'] or 'it is starting'}"
        over = sum(alarm["over_at_ms"] is not None for alarm in engine["alarms"])
        past = f"; alarms that are over: {over} (--json has them)" if over else ""
        lines.append(cell(f"Engine {engine['name']} {state}{past}").plain)
    return lines


def _of_account(found: dict[str, Any], account: str) -> dict[str, Any]:
    """The same of one account alone."""
    engines = [
        {
            **engine,
            "accounts": [each for each in engine["accounts"] if each["account"] == account],
            "alarms": [each for each in engine["alarms"] if each["account"] in ("", account)],
        }
        for engine in found["engines"]
        if any(each["account"] == account for each in engine["accounts"])
    ]
    own = {name: [each for each in found[name] if each["account"] == account] for name in _BY_ACCOUNT}
    if not engines and not any(own.values()):
        raise ConfigError(f"ACCOUNT {account}", "nothing was ever settled with it", "See isthmus settlements list")
    return {**own, "engines": engines}


@settlements.command(epilog="\b\nExamples:\n  isthmus settlements show bob\n  isthmus settlements show bob --json")
@click.argument("account", metavar="ACCOUNT")
@click.option("--json", "as_json", is_flag=True, help="One JSON object; amounts are strings in base units.")
@node_options
def show(account: str, as_json: bool, config: Path | None, data: Path | None) -> None:
    """Show all that is known of settling with the peer of ACCOUNT, and all that its engine says."""
    config, data, _ = find_node(config, data)
    _print(_of_account(_found(config, data), account), as_json=as_json, is_whole=True)


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
