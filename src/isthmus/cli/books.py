"""`isthmus books`: show, verify and export the books of a node or wallet, running or stopped; and correct them.

The state is replayed from the newest checkpoint by the same code that the node runs; statements are read from the
projection in the same file. What the tables look like is told by `cli/books_view.py`.
"""

import csv
import json
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple, TextIO

import click
from rich.console import Console

from isthmus.cli import books_view as view
from isthmus.cli.books_correct import adjust, give_up, write_off
from isthmus.cli.books_replay import Replayed, entries_of, journal_path, latest, oldest, replay, transfer_rows
from isthmus.cli.books_undecided import UndecidedRow, legs_table, undecided, undecided_json, undecided_table
from isthmus.cli.books_view import AccountRow, Json
from isthmus.errors import ConfigError, JournalError
from isthmus.journal.reader import JournalReader, Period, Single, StoredCheckpoint

UNIT_MS: Final = {"m": 60_000, "h": 3_600_000, "d": 86_400_000}
# Where no terminal says how wide it is: tables take what they need.
PIPED_WIDTH: Final = 200
TABLES: Final = ("balances", "transfers", "minutes")


class _Books(NamedTuple):
    """All that the commands show, as of one moment."""

    journal_id: bytes
    first_sequence: int
    last_sequence: int
    checkpoint: int | None
    replayed: Replayed
    periods: list[Period]
    singles: list[Single]


@click.group(
    epilog="""\b
Examples:
  isthmus books show data
  isthmus books undecided data
  isthmus books verify data
  isthmus books write-off data alice --note "agreed by phone"
  isthmus books export data --what minutes --format csv > minutes.csv"""
)
def books() -> None:
    """Show, verify and export a node's or wallet's books, and correct them.

    DIR is the data folder of a node or wallet (or its journal.db), which may be running. Nothing is changed but by
    `write-off`, `adjust` and `give-up`.
    """


books.add_command(write_off)
books.add_command(adjust)
books.add_command(give_up)


@books.command(
    epilog="""\b
Examples:
  isthmus books show data
  isthmus books show data --account alice --since 24h
  isthmus books show data --account alice --since 2030-01-31
  isthmus books show data --json | jq '.accounts[].balance_in_words'"""
)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--account", metavar="ID", help="This account only, with its statement.")
@click.option("--since", metavar="TIME", help="Statement from here: 90m, 24h, 7d, or a UTC date like 2030-01-31T12:00.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object; amounts are strings in base units.")
def show(folder: Path, account: str | None, since: str | None, as_json: bool) -> None:
    """Show balances, position and earnings, and an account's statement."""
    since_ms = _since_ms(since)
    read = _read(journal_path(folder), account=account, since_ms=since_ms, statement=bool(account or since))
    rows = _accounts(read.replayed, account)
    if as_json:
        _print_json(_books_json(read, rows))
    else:
        _print_tables(read, rows, statement=bool(account or since))


@books.command(
    "undecided",
    epilog="""\b
Examples:
  isthmus books undecided data
  isthmus books undecided data --account alice       # each Prepare
  isthmus books undecided data --json | jq '.assets[].at_risk'""",
)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--account", metavar="ID", help="This account only, with each of its Prepares.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object; amounts are strings in base units.")
def show_undecided(folder: Path, account: str | None, as_json: bool) -> None:
    """List what is not decided between us and each peer, and the amounts at risk.

    Our Prepares without an answer, the peer's that are open at us, what we fulfilled and the peer has not acknowledged,
    and what we voided and the peer has not confirmed; for each account and in sum, with the losses so far.
    """
    with JournalReader(journal_path(folder)) as reader:
        reader.snapshot()
        rows = undecided(latest(reader).books)
    known = [row.account for row in rows]
    rows = [row for row in rows if account in (None, row.account)]
    if not rows and account is not None:
        raise _no_account(account, known)
    if as_json:
        _print_json(undecided_json(rows))
    else:
        _print_undecided(rows, each=account is not None)


@books.command(
    epilog="""\b
Examples:
  isthmus books verify data
  isthmus books verify data --json
  curl -H "Authorization: Bearer TOKEN" 127.0.0.1:7770/books/digest
  isthmus books verify data --at 1042 --digest 9f86d081884c7d65…"""
)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--at", metavar="SEQUENCE", type=click.IntRange(0), help="Give the digest after this batch.")
@click.option("--digest", metavar="HEX", help="Fail if the digest there is not this one, as a running node told it.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def verify(folder: Path, at: int | None, digest: str | None, as_json: bool) -> None:
    """Replay everything that is there, and check it.

    Checksums and identity of every batch, the chain of digests over all of them, the checkpoints, that replay from
    the older one gives the newer one byte by byte, and that the books of every asset sum to zero. The first thing
    that is wrong is named, and the status is 1.
    """
    path = journal_path(folder)
    wanted = _digest_of(digest)
    found: dict[str, Json] = {"journal": str(path)}
    for key, value, sentence in _verify(path, at):
        found[key] = value
        if not as_json:
            click.echo(sentence)
    if as_json:
        _print_json(found)
    if wanted is not None and found["digest"] != wanted:
        raise JournalError(
            f"{path}: after batch {found['sequence']} the books have digest {found['digest']} by replay, not {wanted}"
        )
    if wanted is not None and not as_json:
        click.echo("it is the one that was given")


@books.command(
    epilog="""\b
Examples:
  isthmus books export data --what balances
  isthmus books export data --what transfers --format json > transfers.jsonl
  isthmus books export data --output folder"""
)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--format", "format_", type=click.Choice(["csv", "json"]), default="csv", help="CSV, or JSON lines.")
@click.option(
    "--what",
    type=click.Choice(TABLES),
    multiple=True,
    help="Balances now, transfers (every entry of the journal), or what each account did per minute, hour and day. "
    "Several need --output; without it: balances.",
)
@click.option("--output", type=click.Path(path_type=Path), help="A folder for one file each; standard output without.")
@click.option("--since", metavar="TIME", help="Minutes from here: 90m, 24h, 7d, or a UTC date.")
def export(folder: Path, format_: str, what: tuple[str, ...], output: Path | None, since: str | None) -> None:
    """Write balances, transfers or minutes as CSV or JSON lines."""
    path = journal_path(folder)
    since_ms = _since_ms(since)
    if output is None:
        chosen = what or ("balances",)
        if len(chosen) > 1:
            raise ConfigError("--what", "several tables don't fit into one stream", "Give --output FOLDER")
        # By way of a file: a pager that waits for its user must not hold a snapshot, and make the node's log grow.
        with tempfile.TemporaryFile("w+", encoding="utf-8", newline="") as spool:
            _write_rows(spool, _rows(path, chosen[0], since_ms), format_)
            spool.seek(0)
            shutil.copyfileobj(spool, sys.stdout)
        return
    output.mkdir(parents=True, exist_ok=True)
    for name in what or TABLES:
        file_path = output / f"{name}.{'csv' if format_ == 'csv' else 'jsonl'}"
        with file_path.open("w", encoding="utf-8", newline="") as file:
            count = _write_rows(file, _rows(path, name, since_ms), format_)
        click.echo(f"{file_path}: {count} rows")


# --- reading ---------------------------------------------------------------------------------------------------------


def _read(path: Path, *, account: str | None, since_ms: int, statement: bool) -> _Books:
    """Everything is read in one snapshot, which ends before a line is printed (a pager may keep us waiting)."""
    with JournalReader(path) as reader:
        reader.snapshot()
        return _Books(
            reader.journal_id,
            reader.first_sequence,
            reader.last_sequence,
            max(reader.checkpoint_sequences(), default=None),
            replay(reader),
            reader.periods(account=account, since_ms=since_ms) if statement else [],
            reader.singles(account=account, since_ms=since_ms),
        )


def _accounts(replayed: Replayed, account: str | None) -> list[AccountRow]:
    rows = [row for row in replayed.accounts if account is None or row.account == account]
    if account is not None and not rows:
        raise _no_account(account, [row.account for row in replayed.accounts])
    return rows


def _no_account(account: str, known: list[str]) -> ConfigError:
    names = ", ".join(known) or "none"
    return ConfigError(f"--account {account}", "there is no such account", f"These are in the books: {names}")


def _since_ms(text: str | None) -> int:
    """`24h` counts back from now; a date is UTC unless it says otherwise."""
    if text is None:
        return 0
    span = re.fullmatch(r"([0-9]{1,9})([mhd])", text)
    if span:
        return time.time_ns() // 1_000_000 - int(span[1]) * UNIT_MS[span[2]]
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(
            f"--since {text}", "this is no time", "Write 90m, 24h, 7d, or a date like 2030-01-31 or 2030-01-31T12:00"
        ) from None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


# --- show ------------------------------------------------------------------------------------------------------------


def _print_tables(read: _Books, rows: list[AccountRow], *, statement: bool) -> None:
    console = _console()
    batches = f"batches {read.first_sequence} to {read.last_sequence}" if read.last_sequence else "no batches yet"
    checkpoint = f", checkpoint after {read.checkpoint}" if read.checkpoint else ""
    console.print(f"Journal {read.journal_id.hex()}: {batches}{checkpoint}\n")
    console.print(view.accounts_table(rows))
    if not statement:
        console.print()
        console.print(view.currencies_table(read.replayed.currencies))
    for row in rows if statement else []:
        console.print()
        console.print(view.statement_table(row, [one for one in read.periods if _is_of(one, row)]))
    if read.singles:
        console.print()
        console.print(view.singles_table(read.singles, {row.account: row.asset for row in rows}))


def _print_undecided(rows: list[UndecidedRow], *, each: bool) -> None:
    console = _console()
    console.print(undecided_table(rows))
    for row in rows if each else []:
        if row.legs:
            console.print()
            console.print(legs_table(row))


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else PIPED_WIDTH, highlight=False)


def _is_of(period: Period, row: AccountRow) -> bool:
    return not period.internal and period.account == row.account


def _books_json(read: _Books, rows: list[AccountRow]) -> dict[str, Json]:
    return {
        "journal_id": read.journal_id.hex(),
        "first_sequence": read.first_sequence,
        "last_sequence": read.last_sequence,
        "checkpoint": read.checkpoint,
        "digest": read.replayed.digest.hex(),
        "accounts": [view.account_json(row) for row in rows],
        "assets": [view.currency_json(row) for row in read.replayed.currencies],
        "statement": [view.period_json(period) for period in read.periods],
        "singles": [view.single_json(single) for single in read.singles],
    }


# --- verify ----------------------------------------------------------------------------------------------------------


def _digest_of(given: str | None) -> str | None:
    if given is not None and not re.fullmatch(r"[0-9a-fA-F]{64}", given):
        raise ConfigError(f"--digest {given}", "this is no digest", "Give the 64 hex digits that the node told")
    return None if given is None else given.lower()


def _verify(path: Path, at: int | None = None) -> Iterator[tuple[str, Json, str]]:
    """Each step that held: its key, its figure, and a sentence. Raises JournalError at the first that doesn't.

    `at`: the digest is that after this batch; ConfigError if the journal has no state there to replay.
    """
    with JournalReader(path) as reader:
        reader.snapshot()  # a running node may prune meanwhile
        yield "journal_id", reader.journal_id.hex(), f"{path}: journal {reader.journal_id.hex()}"
        kept = reader.checkpoints()
        for one in kept:
            if reader.digest_at(one.sequence) != one.digest:
                raise JournalError(f"{path}: the checkpoint after batch {one.sequence} stands on other batches")
        sequences = [one.sequence for one in kept]
        names = " and ".join(map(str, sequences)) or "no batch"
        yield "checkpoints", list[Json](sequences), f"checkpoints after {names}: checksums and places hold"
        yield from _verify_batches(reader, {one.sequence: one for one in kept}, at)


def _verify_batches(
    reader: JournalReader, checkpoints: dict[int, StoredCheckpoint], at: int | None
) -> Iterator[tuple[str, Json, str]]:
    first, last = reader.first_sequence, 0
    books = oldest(reader)
    _check_at(at, books.sequence, max(books.sequence, reader.last_sequence))
    digest = books.digest() if at == books.sequence else b""
    reproduced: list[Json] = []
    for batch in reader.read_from(first):
        last = batch.sequence
        if batch.sequence <= books.sequence:
            # It hangs on the chain, but there is no state before it to replay it from.
            entries_of(batch, reader.path)
            continue
        books.apply(batch)
        checkpoint = checkpoints.get(batch.sequence)
        if checkpoint is not None:
            books.check_equals(checkpoint.state)
            reproduced.append(batch.sequence)
        if batch.sequence == at:
            digest = books.digest()
    count = last - first + 1 if last else 0
    held = f"{count} batches, {first} to {last}" if count else "no batches"
    yield "batches", count, f"{held}: checksums, identities and the chain of digests hold"
    if reproduced:
        names = " and ".join(map(str, reproduced))
        yield "reproduced", reproduced, f"replay gives the checkpoints after {names} byte by byte"
    books.check()
    assets = [f"{row.asset.code}:{row.asset.scale}" for row in books.shown().currencies]
    yield "sums_to_zero", list[Json](assets), f"the books sum to zero in {', '.join(assets) or 'no asset yet'}"
    digest = digest if at is not None else books.digest()
    yield "sequence", books.sequence if at is None else at, f"replayed up to batch {books.sequence}"
    where = "there" if at is None else f"after batch {at}"
    yield "digest", digest.hex(), f"digest of the books {where}: {digest.hex()}"


def _check_at(at: int | None, first: int, last: int) -> None:
    if at is not None and not first <= at <= last:
        raise ConfigError(
            f"--at {at}", "the books there can't be replayed", f"Give a batch from {first} to {last} of this journal"
        )


# --- export ----------------------------------------------------------------------------------------------------------


def _rows(path: Path, what: str, since_ms: int) -> Iterator[dict[str, Json]]:
    with JournalReader(path) as reader:
        reader.snapshot()
        if what == "transfers":
            yield from transfer_rows(reader)
            return
        if what == "balances":
            rows = [view.balance_json(row) for row in replay(reader).accounts]
        else:
            rows = [view.period_json(period) for period in reader.periods(since_ms=since_ms)]
    yield from rows


def _write_rows(file: TextIO, rows: Iterator[dict[str, Json]], format_: str) -> int:
    count = 0
    writer: csv.DictWriter[str] | None = None
    for row in rows:
        count += 1
        if format_ == "json":
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            continue
        if writer is None:
            writer = csv.DictWriter(file, list(row), lineterminator="\n")
            writer.writeheader()
        writer.writerow({key: _csv_cell(value) for key, value in row.items()})
    return count


def _csv_cell(value: Json) -> str | int:
    if value is None:
        return ""
    if isinstance(value, dict | list):
        return json.dumps(value)
    # A spreadsheet would run a text that begins like a formula; a negative number is none.
    if isinstance(value, str) and value[:1] in ("=", "+", "@", "\t", "\r"):
        return "'" + value
    return value


def _print_json(value: Json) -> None:
    click.echo(json.dumps(value, ensure_ascii=False, indent=2))
