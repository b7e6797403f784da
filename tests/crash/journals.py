"""What a campaign reads in journals, of dead processes and of living ones, and the one thing that it changes there."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from isthmus.cli import books_view
from isthmus.cli.books import _verify
from isthmus.cli.books_replay import BooksAt, _is_of_wallet, replay
from isthmus.journal.reader import JournalReader
from isthmus.journal.schema import SCHEMA_VERSION, schema_version
from isthmus.sim.evidence import Journal, Mark


def verified(journal: Path) -> tuple[int, str]:
    """The last batch and the digest of the books there, as `isthmus books verify` says; JournalError if it objects."""
    found = {key: value for key, value, _ in _verify(journal)}
    return int(str(found["sequence"])), str(found["digest"])


def digest_at(journal: Path, sequence: int) -> str | None:
    """The digest of the books after this batch, by replay; None if what it needs was pruned."""
    books = _books_at(journal, sequence)
    return None if books is None else books.digest().hex()


def outcomes_left(journal: Path) -> int:
    """Legs of which a neighbour must still hear, or has not told us, what became of them."""
    books = _books_at(journal, None)
    assert books is not None
    return sum(len(account.fulfilled) + len(account.unsaid) for account in books.books.peers.values())


def _books_at(journal: Path, sequence: int | None) -> BooksAt | None:
    """The books after this batch, or after the last one."""
    with JournalReader(journal) as reader:
        reader.snapshot()  # its process may prune meanwhile
        kept = [one for one in reader.checkpoints() if sequence is None or one.sequence <= sequence]
        if kept:
            state = kept[-1].state
            books = BooksAt(reader.path, kept[-1].sequence, state, of_wallet=_is_of_wallet(state))
        elif reader.first_sequence == 1:
            books = BooksAt(reader.path, 0, None)
        else:
            return None
        for batch in reader.read_from(books.sequence + 1):
            if sequence is not None and batch.sequence > sequence:
                break
            books.apply(batch)
        return books if sequence in (None, books.sequence) else None


def exported(node: str, journal: Path, rows: Path, marks: list[Mark]) -> Journal:
    """A node's books as evidence. The rows were taken while the journal grew: the oldest may be pruned by now."""
    with JournalReader(journal) as reader:
        replayed = replay(reader)
    return Journal(
        node=node,
        rows=_lines(rows),
        balances=[books_view.balance_json(row) for row in replayed.accounts],
        assets=[books_view.currency_json(row) for row in replayed.currencies],
        marks=marks,
    )


def make_older(journal: Path) -> None:
    """Give the journal of a stopped node the schema that it had before the projection: the next start migrates it."""
    with closing(sqlite3.connect(journal, isolation_level=None)) as connection:
        for table in ("ledger_accounts", "periods", "singles"):
            connection.execute(f"DROP TABLE IF EXISTS {table}")
        connection.execute("PRAGMA user_version = 1")


def is_older(journal: Path) -> bool:
    with closing(sqlite3.connect(journal)) as connection:
        return schema_version(connection) < SCHEMA_VERSION


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)
