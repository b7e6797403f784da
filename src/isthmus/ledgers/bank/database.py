"""The database of a bank: opened, and used by transactions that are as if one came after the other.

SQLite takes its write lock when a writing transaction begins. PostgreSQL runs them as SERIALIZABLE, and one that met
another is run again. Writers of one process wait for each other here, so what is run again met another process.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeVar, final

import sqlalchemy
from sqlalchemy import event, exc, insert, select
from sqlalchemy.engine import URL, Connection, make_url

from isthmus.errors import ConfigError, LedgerError
from isthmus.ledgers.bank import schema

T = TypeVar("T")
SQLITE: Final = "sqlite"
POSTGRESQL: Final = "postgresql"
WAIT_S_MAX: Final = 10.0  # for another process's transaction, and for a connection
CONNECTIONS_MAX: Final = 8
# What met another process's transaction is run again so often; then the caller hears that the database is busy.
TRIES_MAX: Final = 50
TRY_AGAIN_S: Final = 0.002
# SQLSTATE: serialization failure, deadlock.
_RUN_AGAIN: Final = ("40001", "40P01")
_READS: Final = "isthmus_reads"


def database_url(text: str) -> URL:
    """A file's path, or a URL of SQLite or PostgreSQL. ConfigError; a password in it is never told."""
    if "://" not in text:
        return URL.create(SQLITE, database=text)
    try:
        url = make_url(text)
        backend = url.get_backend_name()
    except (exc.ArgumentError, ValueError, exc.NoSuchModuleError):
        raise ConfigError("--database", "not a URL", "Write postgresql://USER@HOST/NAME, or a file's path") from None
    if backend not in (SQLITE, POSTGRESQL):
        raise ConfigError("--database", f"{backend} is not supported", "Use postgresql://…, or a file's path")
    if backend == SQLITE:
        if not url.database or url.database == ":memory:":
            raise ConfigError("--database", "money is not kept in memory", "Name a file")
        return url.set(drivername=SQLITE)
    return url.set(drivername="postgresql+psycopg")


@final
class Database:
    """Open until `close`. LedgerError where it can't be used, or is somebody else's."""

    def __init__(self, url: URL, *, new_id: Callable[[], str]) -> None:
        """`new_id` names a bank that is new, by up to 64 characters."""
        self._is_sqlite: Final = url.get_backend_name() == SQLITE
        options: dict[str, Any] = {"connect_args": {"timeout": WAIT_S_MAX}} if self._is_sqlite else {
            "isolation_level": "SERIALIZABLE",
            "pool_pre_ping": True,
            "connect_args": {"connect_timeout": int(WAIT_S_MAX), "options": f"-c lock_timeout={int(WAIT_S_MAX)}s"},
        }  # fmt: skip
        self._engine: Final = sqlalchemy.create_engine(
            url,
            hide_parameters=True,  # errors are shown, and references are the holders' business
            pool_size=CONNECTIONS_MAX,
            max_overflow=0,
            pool_timeout=WAIT_S_MAX,
            **options,
        )
        if self._is_sqlite:
            event.listen(self._engine, "connect", _prepare_sqlite)
            event.listen(self._engine, "begin", _begin_sqlite)
        self._writing: Final = threading.Lock()
        try:
            self.id: Final = self.write(lambda db: _set_up(db, new_id))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._engine.dispose()

    def write(self, work: Callable[[Connection], T]) -> T:
        """What `work` gives, once it is durable. It may be run more than once; whatever it raises undoes it."""
        with self._writing, _told():
            for attempt in range(TRIES_MAX):
                try:
                    with self._engine.begin() as connection:
                        return work(connection)
                except exc.DBAPIError as error:
                    if getattr(error.orig, "sqlstate", None) not in _RUN_AGAIN:
                        raise
                    time.sleep(TRY_AGAIN_S * min(attempt, 20))
        raise LedgerError("the database is busy with others' transactions; nothing was done")

    def read(self, work: Callable[[Connection], T]) -> T:
        """What `work` sees at one moment."""
        with _told():
            for attempt in range(TRIES_MAX):
                try:
                    with self._engine.connect().execution_options(**{_READS: True}) as connection, connection.begin():
                        return work(connection)
                except exc.DBAPIError as error:
                    if getattr(error.orig, "sqlstate", None) not in _RUN_AGAIN:
                        raise
                    time.sleep(TRY_AGAIN_S * min(attempt, 20))
        raise LedgerError("the database is busy with others' transactions")


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """The database's errors in one line, without what was asked of it."""
    try:
        yield
    except exc.DBAPIError as error:
        raise LedgerError(f"the bank's database: {' '.join(str(error.orig).split())}") from None
    except exc.SQLAlchemyError as error:
        raise LedgerError(f"the bank's database: {' '.join(str(error).split())}") from None


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    """Transactions begin when we say so, and what is committed is on the disk."""
    connection.isolation_level = None
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    reads = connection.get_execution_options().get(_READS, False)
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


def _set_up(db: Connection, new_id: Callable[[], str]) -> str:
    """Tables, if there are none; what this bank is called among banks."""
    schema.metadata.create_all(db, checkfirst=True)
    found = {row.name: row.value for row in db.execute(select(schema.meta))}
    if not found:
        found = {"schema": str(schema.VERSION), "id": new_id()}
        db.execute(insert(schema.meta), [{"name": name, "value": value} for name, value in found.items()])
    if found.get("schema") != str(schema.VERSION):
        raise LedgerError(f"the bank's database has schema {found.get('schema')}, and this version knows 1")
    return str(found["id"])
