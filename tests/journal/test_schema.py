"""An older file becomes a newer one, whole or not at all."""

import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from isthmus.errors import JournalError
from isthmus.journal.reader import JournalReader
from isthmus.journal.record import encode_envelope, first_digest, next_digest
from isthmus.journal.schema import MIGRATIONS, SCHEMA_VERSION, Migration, migrate, schema_version
from isthmus.journal.sqlite import SqliteJournal

if TYPE_CHECKING:
    from tests.journal.conftest import SqliteBench

JOURNAL_ID = b"an older journal"


def build_version_1(path: Path, batches: int) -> None:
    """A file as an isthmus without the projection would have left it: batches and a checkpoint."""
    digest = first_digest(JOURNAL_ID, 0)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        migrate(connection, MIGRATIONS[:1])
        connection.execute("INSERT INTO meta VALUES ('journal_id', ?), ('shard_id', 0)", (JOURNAL_ID,))
        for sequence in range(1, batches + 1):
            envelope = encode_envelope(JOURNAL_ID, 0, sequence, b"old %d" % sequence)
            digest = next_digest(digest, envelope)
            connection.execute("INSERT INTO batches VALUES (?, ?, ?)", (sequence, envelope, digest))


def test_an_older_file_is_migrated_when_its_node_opens_it(
    tmp_path: Path, bench_at: "Callable[..., SqliteBench]"
) -> None:
    path = tmp_path / "journal.db"
    build_version_1(path, 5)
    bench = bench_at(path)
    assert [batch.record for batch in bench.journal.read_from(4)] == [b"old 4", b"old 5"]
    bench.start()
    bench.submit(1)
    bench.settle()
    with JournalReader(path) as reader:
        assert reader.schema == SCHEMA_VERSION
        assert [batch.sequence for batch in reader.read_from(1)] == [1, 2, 3, 4, 5, 6]
        assert reader.periods()[0].totals.sequence == 6


def test_a_reader_doesnt_migrate(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    build_version_1(path, 1)
    with pytest.raises(JournalError, match="older schema 1; start its node once"):
        JournalReader(path)


def test_a_newer_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    SqliteJournal(path).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    for open_it in (SqliteJournal, JournalReader):
        with pytest.raises(JournalError, match=f"has schema {SCHEMA_VERSION + 1}, this isthmus knows"):
            open_it(path)


def test_a_migration_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    build_version_1(path, 2)

    def half(connection: sqlite3.Connection) -> None:
        connection.execute("CREATE TABLE half (a)")
        connection.execute("DELETE FROM batches")
        raise sqlite3.OperationalError("the disk failed")

    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        with pytest.raises(sqlite3.OperationalError):
            migrate(connection, [*MIGRATIONS[:1], Migration(2, "half", half)])
        assert schema_version(connection) == 1
        assert connection.execute("SELECT count(*) FROM batches").fetchone() == (2,)
        assert not connection.execute("SELECT * FROM sqlite_schema WHERE name = 'half'").fetchall()


KILLED = """
import os, signal, sqlite3, sys
from isthmus.journal.schema import MIGRATIONS, Migration, migrate

def killed(connection):
    MIGRATIONS[1].apply(connection)
    os.kill(os.getpid(), signal.SIGKILL)

connection = sqlite3.connect(sys.argv[1], isolation_level=None)
migrate(connection, [MIGRATIONS[0], Migration(2, "killed", killed)])
"""


def test_a_kill_inside_a_migration_leaves_the_older_file(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    build_version_1(path, 3)
    assert subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False).returncode == -9
    with closing(sqlite3.connect(path)) as connection:
        assert schema_version(connection) == 1
    with closing(SqliteJournal(path)) as journal:
        assert journal.last_sequence == 3


def test_migrations_are_numbered_without_gaps() -> None:
    assert [migration.version for migration in MIGRATIONS] == list(range(1, SCHEMA_VERSION + 1))
