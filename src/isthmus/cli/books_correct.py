"""`isthmus books write-off`, `adjust` and `give-up`: the operator's corrections, by the running node or in its place.

Only one process writes to a journal. While a node runs, its admin API is asked; with nobody there, the command takes
the writer's lock and appends the batch itself, by the same rules and with the same answer for a key that was used.
"""

import json
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Final

import click

from isthmus.cli.admin_api import ANSWER_S_MAX, RUNNING_NAME, TOKEN_VARIABLE
from isthmus.cli.books_replay import journal_path, latest
from isthmus.cli.books_view import in_words
from isthmus.cli.http_json import NoAnswerError, RefusalError, exchange
from isthmus.connector.books import Account, Books
from isthmus.connector.corrections import correct, single_of
from isthmus.connector.events import (
    AccountId,
    AccountMovement,
    Adjust,
    Corrected,
    Correction,
    GiveUp,
    ReverseSettlement,
    Summary,
    WriteOff,
)
from isthmus.errors import ConfigError, JournalError
from isthmus.ilp.asset import Asset, format_amount, parse_amount
from isthmus.journal.interface import Journal
from isthmus.journal.lock import JournalInUseError
from isthmus.journal.reader import JournalReader
from isthmus.journal.sqlite import SqliteJournal
from isthmus.node.corrections import ADJUST, GIVE_UP, WRITE_OFF, BadRequestError, check_key, check_note, kind_of

ANSWER_BYTES_MAX: Final = 65_536
DURABLE_S_MAX: Final = 60.0


def _options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What all these commands take."""
    options = (
        click.option("--note", required=True, help="Why, for whoever reads the books later."),
        click.option(
            "--config",
            type=click.Path(dir_okay=False, path_type=Path),
            help=f"The node's configuration, for its admin token.  [default: ${TOKEN_VARIABLE}]",
        ),
        click.option("--key", help="Makes it happen once, however often you repeat it.  [default: a fresh one]"),
        click.option("--json", "as_json", is_flag=True, help="One JSON object; the amount is a string in base units."),
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.command(
    WRITE_OFF,
    epilog=f"""\b
Examples:
  isthmus books write-off data alice --note "their node lost its disk, agreed by phone"
  isthmus books write-off data alice --amount 0.5 --note "half, for now"
  {TOKEN_VARIABLE}=… isthmus books write-off data alice --note "…"    # while the node runs""",
)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.argument("account", metavar="ACCOUNT")
@click.option("--amount", metavar="AMOUNT", help="Of the account's loss, in its asset.  [default: all of it]")
@_options
def write_off(
    folder: Path, account: str, amount: str | None, note: str, config: Path | None, key: str | None, as_json: bool
) -> None:
    """Give up a loss of ACCOUNT: it no longer counts against the account's limit.

    The amount moves from `loss:ACCOUNT` to what was written off in its asset. The peer's balance stays as it is.
    """
    path = journal_path(folder)
    asset = asset_of(path, account)
    units = None if amount is None else units_of("--amount", amount, asset)
    _book(path, WriteOff(AccountId(account), units, *key_and_note(key, note), 0), asset, config, as_json)


@click.command(
    ADJUST,
    epilog=f"""\b
Examples:
  isthmus books adjust data alice 12.5 --owed to-us --note "paid twice, found in their statement"
  isthmus books adjust data alice 12.5 --owed by-us --note "the same, back"
  {TOKEN_VARIABLE}=… isthmus books adjust data alice 3 --owed to-us --note "…"    # while the node runs""",
)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.argument("account", metavar="ACCOUNT")
@click.argument("amount", metavar="AMOUNT")
@click.option(
    "--owed",
    type=click.Choice(["to-us", "by-us"]),
    required=True,
    help="to-us: the peer owes us AMOUNT more than the books say; by-us: that much less, or we owe it more.",
)
@_options
def adjust(
    folder: Path,
    account: str,
    amount: str,
    owed: str,
    note: str,
    config: Path | None,
    key: str | None,
    as_json: bool,
) -> None:
    """Set the balance of ACCOUNT right by AMOUNT, as agreed with the peer.

    Both sides book it, each with the other sign. It moves between the account and the adjustments of its asset.
    """
    path = journal_path(folder)
    asset = asset_of(path, account)
    units = units_of("AMOUNT", amount, asset)
    signed = units if owed == "to-us" else -units
    _book(path, Adjust(AccountId(account), signed, *key_and_note(key, note), 0), asset, config, as_json)


@click.command(
    GIVE_UP,
    epilog=f"""\b
Examples:
  isthmus books give-up data alice --note "they closed their node, nobody will acknowledge these"
  {TOKEN_VARIABLE}=… isthmus books give-up data alice --note "…"    # while the node runs""",
)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.argument("account", metavar="ACCOUNT")
@_options
def give_up(folder: Path, account: str, note: str, config: Path | None, key: str | None, as_json: bool) -> None:
    """Stop waiting for the peer of ACCOUNT: forget what it has not acknowledged, and what it must still hear of.

    For a peer that is gone for good, or has lost its books. The amounts that we fulfilled and it has not acknowledged
    are listed as at risk; no balance changes. `isthmus books undecided` shows them before. Nothing may be in flight.
    """
    path = journal_path(folder)
    asset = asset_of(path, account)
    _book(path, GiveUp(AccountId(account), *key_and_note(key, note), 0), asset, config, as_json)


# --- what was typed --------------------------------------------------------------------------------------------------


def asset_of(path: Path, account: str) -> Asset:
    with JournalReader(path) as reader:
        reader.snapshot()
        books = latest(reader).books
    found = _account(books, account)
    return Asset(found.asset_code, found.asset_scale)


def _account(books: Books, name: str) -> Account:
    found = books.peers.get(AccountId(name))
    if found is None:
        known = ", ".join(books.peers) or "none"
        raise ConfigError(f"ACCOUNT {name}", "there is no such account", f"These are in the books: {known}")
    return found


def units_of(name: str, text: str, asset: Asset) -> int:
    try:
        amount = parse_amount(text, asset)
    except ValueError as error:
        raise ConfigError(f"{name} {text}", str(error), "Correct it") from None
    if amount == 0:
        raise ConfigError(f"{name} {text}", "it is nothing", "Give an amount above zero")
    return amount


def key_and_note(key: str | None, note: str) -> tuple[str, str]:
    option = "--key"
    try:
        checked = check_key(secrets.token_hex(16) if key is None else key)
        option = "--note"
        return checked, check_note(note)
    except BadRequestError as error:
        raise ConfigError(option, str(error).rstrip("."), "Give another one") from None


# --- booking ---------------------------------------------------------------------------------------------------------


def _book(path: Path, event: Correction, asset: Asset, config: Path | None, as_json: bool) -> None:
    amount, where = book(path, event, config)
    kind = kind_of(event)
    if kind == WRITE_OFF:
        words = f"Written off {where}: {format_amount(amount, asset)} of {event.account}"
    elif kind == GIVE_UP:
        words = f"Given up {where}: {event.account}, {format_amount(amount, asset)} at risk"
    else:
        words = f"Adjusted {where}: {event.account}, {in_words(amount, asset)}"
    show_booked(event, amount, words, as_json)


def show_booked(event: Correction, amount: int, words: str, as_json: bool) -> None:
    """Tell what was booked: in words with its key, or as one JSON object."""
    if as_json:
        found = {"account": event.account, "kind": kind_of(event), "amount": str(amount), "key": event.key}
        click.echo(json.dumps(found, indent=2))
    else:
        click.echo(f"{words}. Key: {event.key}")


def book(path: Path, event: Correction, config: Path | None) -> tuple[int, str]:
    """Have it booked by the running node, or in its journal; the amount, and who did it."""
    try:
        journal = SqliteJournal(path)
    except JournalInUseError as in_use:
        return _ask_node(path, event, config, in_use), "by the running node"
    try:
        return _book_here(journal, event), "in the journal"
    finally:
        journal.close()


def _book_here(journal: SqliteJournal, event: Correction) -> int:
    """With the writer's lock: replay, decide, append one batch, and wait until it is durable."""
    with JournalReader(journal.path) as reader:
        books = latest(reader).books
    account = _account(books, event.account)
    told, is_new = correct(books, account, event)
    if told.problem:
        raise JournalError(f"{journal.path}: it is not booked: {told.problem}")
    if is_new:
        _append(journal, books, _summary(books, account, event, told), event.key)
    return told.amount


def _summary(books: Books, account: Account, event: Correction, told: Corrected) -> Summary:
    movements = []
    if account in books.changed:
        movements.append(AccountMovement(event.account, 0, 0, 0, 0, 0, account.balance))
    internal = [(one.name, one.balance) for one in books.changed if one is not account]
    return Summary(time.time_ns() // 1_000_000, movements, [single_of(event, told.amount)], internal)


def _append(
    journal: Journal, books: Books, summary: Summary, key: str, *, durable_s_max: float = DURABLE_S_MAX
) -> None:
    ended: SimpleQueue[str] = SimpleQueue()
    journal.start(lambda _: ended.put(""), lambda _, problem: ended.put(problem))
    journal.submit(journal.last_sequence + 1, books.take_record(), summary)
    try:
        problem = ended.get(timeout=durable_s_max)
    except Empty:
        problem = f"the journal made nothing durable within {durable_s_max:g} s"
    if problem:
        raise JournalError(f"{problem}; {_may_be_booked(key)}")


def _may_be_booked(key: str) -> str:
    return f"it may be booked or not: the same command with --key {key} asks again, and books it once"


# --- asking the node -------------------------------------------------------------------------------------------------


def _ask_node(path: Path, event: Correction, config: Path | None, in_use: JournalInUseError) -> int:
    """The amount that the node booked; ConfigError without address or token, JournalError if it refuses."""
    url = f"{_admin_url(path, in_use)}/accounts/{event.account}/{kind_of(event)}"
    fields: dict[str, Any] = {"note": event.text, "key": event.key}
    if isinstance(event, ReverseSettlement):
        fields |= {"number": str(event.number), "is_certain": event.is_certain}
    elif not isinstance(event, GiveUp) and event.amount is not None:
        fields["amount"] = str(event.amount)
    doubt = _may_be_booked(event.key)
    try:
        found = exchange(
            "POST",
            url,
            fields,
            token=_token(config),
            wait_s_max=ANSWER_S_MAX,
            bytes_max=ANSWER_BYTES_MAX,
            directly=True,
        )
        return int(found["amount"])
    except RefusalError as refusal:
        detail = "no reason given" if refusal.detail is None else refusal.detail.rstrip(".")
        if refusal.status in (401, 403):
            raise ConfigError("the node's admin token", detail, f"Set {TOKEN_VARIABLE} or give --config") from None
        raise JournalError(f"the node says: {detail}" + (f"; {doubt}" if refusal.status >= 500 else "")) from None
    except (NoAnswerError, ValueError, KeyError, TypeError) as error:
        raise JournalError(f"the node at {url} didn't answer: {error}; {doubt}") from None


def _admin_url(path: Path, in_use: JournalInUseError) -> str:
    try:
        url = json.loads((path.parent / RUNNING_NAME).read_text())["listening"]["admin"]
    except (OSError, ValueError, KeyError, TypeError):
        raise JournalError(f"{in_use}; it has no admin API that could be asked instead") from None
    return str(url)


def _token(config: Path | None) -> str:
    if config is not None:
        from isthmus.node.config import load_config

        admin = load_config(config).admin
        if admin is not None and admin.token is not None:
            return admin.token.reveal()
    token = os.environ.get(TOKEN_VARIABLE, "").strip()
    if not token:
        raise ConfigError(
            "the node's admin token", "the node runs, and would ask for it", f"Set {TOKEN_VARIABLE} or give --config"
        )
    return token
