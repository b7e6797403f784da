"""The tables of a journal file, and how an older file becomes a newer one.

`PRAGMA user_version` is the schema's version. Each migration takes a file one version further in one transaction, the
version number included, so that a kill in the middle leaves the file as it was.
"""

import sqlite3
from collections.abc import Callable, Sequence
from functools import cache
from typing import Final, NamedTuple

from isthmus.errors import JournalError

# "ISTJ": tells `file` and us that a SQLite database is an isthmus journal.
APPLICATION_ID: Final = 0x4953544A
# As many different statements, prepared and cached, as there are numbers up to this one (sqlite3 caches 128).
ROWS_PER_INSERT_MAX: Final = 32


class Migration(NamedTuple):
    """`apply` turns a file of the version before into one of `version`. It runs inside a transaction."""

    version: int
    says: str
    apply: Callable[[sqlite3.Connection], None]


def _batches_and_checkpoints(connection: sqlite3.Connection) -> None:
    connection.execute("CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID")
    connection.execute(
        "CREATE TABLE batches (sequence INTEGER PRIMARY KEY, envelope BLOB NOT NULL, digest BLOB NOT NULL)"
    )
    connection.execute(
        "CREATE TABLE checkpoints (sequence INTEGER PRIMARY KEY, digest BLOB NOT NULL, state BLOB NOT NULL,"
        " checksum BLOB NOT NULL, verified INTEGER NOT NULL)"
    )
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")


def _projection(connection: sqlite3.Connection) -> None:
    # Amounts are TEXT: SQLite's integers end at 2^63-1, an amount at 2^64-1, and sums go beyond (P-1).
    connection.execute(
        "CREATE TABLE ledger_accounts (id INTEGER PRIMARY KEY, name TEXT NOT NULL, internal INTEGER NOT NULL,"
        " UNIQUE (internal, name))"
    )
    connection.execute(
        "CREATE TABLE periods (span_ms INTEGER NOT NULL, starts_at INTEGER NOT NULL, account INTEGER NOT NULL,"
        " incoming TEXT NOT NULL, outgoing TEXT NOT NULL, incoming_packets INTEGER NOT NULL,"
        " outgoing_packets INTEGER NOT NULL, rejected_packets INTEGER NOT NULL, balance TEXT NOT NULL,"
        " sequence INTEGER NOT NULL, PRIMARY KEY (span_ms, starts_at, account)) WITHOUT ROWID"
    )
    connection.execute(
        "CREATE TABLE singles (sequence INTEGER NOT NULL, position INTEGER NOT NULL, wall_ms INTEGER NOT NULL,"
        " kind TEXT NOT NULL, account TEXT NOT NULL, amount TEXT NOT NULL, text TEXT NOT NULL,"
        " PRIMARY KEY (sequence, position)) WITHOUT ROWID"
    )


MIGRATIONS: Final[Sequence[Migration]] = (
    Migration(1, "batches and checkpoints", _batches_and_checkpoints),
    Migration(2, "the projection that statements are read from", _projection),
)
SCHEMA_VERSION: Final = MIGRATIONS[-1].version


def schema_version(connection: sqlite3.Connection) -> int:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    assert isinstance(version, int)
    return version


def check_identity(connection: sqlite3.Connection, path: str) -> None:
    """Refuse a file that is something else, or that a newer isthmus wrote."""
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if tables and application_id != APPLICATION_ID:
        raise JournalError(f"{path} is a SQLite database, but not an isthmus journal; give the path of another file")
    version = schema_version(connection)
    if version > SCHEMA_VERSION:
        raise JournalError(
            f"{path} has schema {version}, this isthmus knows {SCHEMA_VERSION}; use the isthmus that wrote it, or newer"
        )


def insert_rows(connection: sqlite3.Connection, insert: str, rows: Sequence[tuple[int | str | bytes, ...]]) -> None:
    """`executemany` with few statements: each gives up the GIL, and a busy loop makes us wait to get it back."""
    for first in range(0, len(rows), ROWS_PER_INSERT_MAX):
        some = rows[first : first + ROWS_PER_INSERT_MAX]
        connection.execute(_statement(insert, len(some[0]), len(some)), [value for row in some for value in row])


@cache
def _statement(insert: str, columns: int, rows: int) -> str:
    """A few hundred at the most: our tables times `ROWS_PER_INSERT_MAX`."""
    one = f"({', '.join('?' * columns)})"
    return f"{insert} VALUES {', '.join([one] * rows)}"


def migrate(connection: sqlite3.Connection, migrations: Sequence[Migration] = MIGRATIONS) -> list[Migration]:
    """Bring the file to the newest version; returns the migrations that were applied."""
    applied = []
    for migration in migrations:
        if migration.version <= schema_version(connection):
            continue
        connection.execute("BEGIN IMMEDIATE")
        try:
            migration.apply(connection)
            connection.execute(f"PRAGMA user_version = {migration.version}")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")
        applied.append(migration)
    return applied
