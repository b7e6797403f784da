"""Closed ledgers in SQLite: in a file, where they outlive the process, or in memory.

One transaction for each ledger, synced before anybody is told of it. All of history is kept that `ledgers_kept`
covers: headers, transactions with their metadata, and every version of every entry, so that questions about an old
ledger are answered as of then. One process at a time has a file.
"""

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from isthmus.errors import ConfigError, LedgerError
from isthmus.ledgers.xrp.dev.entries import Entry, Fields, PayChannel, addresses_of, read
from isthmus.ledgers.xrp.dev.ledger import Closed, DevLedger, Header
from isthmus.ledgers.xrp.dev.rules import Prices
from isthmus.ledgers.xrp.dev.views import Lookups, State

APPLICATION_ID: Final = 0x49585250  # "IXRP"
FORMAT: Final = 1
LEDGERS_KEPT: Final = 250_000  # almost three days of a ledger a second; a bound for memory, and for files left running
_PRUNED_EVERY: Final = 256  # ledgers: looking for what is too old reads whole tables
_BUSY_MS: Final = 200

_SCHEMA: Final = """
CREATE TABLE identity (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE ledgers (
  ledger INTEGER PRIMARY KEY, hash BLOB NOT NULL UNIQUE, parent_hash BLOB NOT NULL, transaction_hash BLOB NOT NULL,
  account_hash BLOB NOT NULL, drops INTEGER NOT NULL, close_time INTEGER NOT NULL, parent_close_time INTEGER NOT NULL
);
CREATE TABLE transactions (
  ledger INTEGER NOT NULL, position INTEGER NOT NULL, id TEXT NOT NULL UNIQUE, blob BLOB NOT NULL,
  fields TEXT NOT NULL, meta TEXT NOT NULL, PRIMARY KEY (ledger, position)
) WITHOUT ROWID;
CREATE TABLE concerned (
  address TEXT NOT NULL, ledger INTEGER NOT NULL, position INTEGER NOT NULL, PRIMARY KEY (address, ledger, position)
) WITHOUT ROWID;
CREATE TABLE entries (
  id TEXT NOT NULL, ledger INTEGER NOT NULL, fields TEXT, PRIMARY KEY (id, ledger)
) WITHOUT ROWID;
CREATE TABLE channels (address TEXT NOT NULL, id TEXT NOT NULL, PRIMARY KEY (address, id)) WITHOUT ROWID;
"""
_HEADER: Final = "ledger, hash, parent_hash, transaction_hash, account_hash, drops, close_time, parent_close_time"
# The version of an entry that a ledger has; NULL fields stand for an entry that went.
_LATEST: Final = "SELECT max(ledger) FROM entries AS newest WHERE newest.id = entries.id AND newest.ledger <= ?"


@dataclass(frozen=True, slots=True)
class StoredTransaction:
    """A transaction of a closed ledger."""

    ledger_index: int
    position: int
    id: str
    blob: bytes
    fields: Fields
    meta: Fields


class Store:
    """One file, or memory if `path` is None. LedgerError for a file that is in use, of something else, or damaged."""

    def __init__(self, path: Path | None, *, ledgers_kept: int = LEDGERS_KEPT) -> None:
        self._path = path
        self._ledgers_kept = ledgers_kept
        try:
            self._connection = sqlite3.connect(
                ":memory:" if path is None else path, isolation_level=None, check_same_thread=False
            )
            try:
                self._prepare()
            except BaseException:
                self._connection.close()
                raise
        except sqlite3.Error as error:
            raise LedgerError(f"{path}: {_in_words(error)}") from error

    def _prepare(self) -> None:
        run = self._connection.execute
        run(f"PRAGMA busy_timeout = {_BUSY_MS}")
        run("PRAGMA locking_mode = EXCLUSIVE")
        [(application,)], [(version,)] = run("PRAGMA application_id"), run("PRAGMA user_version")
        [(tables,)] = run("SELECT count(*) FROM sqlite_master")
        if tables and application != APPLICATION_ID:
            raise LedgerError(f"{self._path} holds something else; name another file")
        if tables and version != FORMAT:
            raise LedgerError(f"{self._path} has format {version}, this version of isthmus has {FORMAT}")
        run("PRAGMA journal_mode = WAL")
        run("PRAGMA synchronous = FULL")
        run("BEGIN EXCLUSIVE")
        if not tables:
            for statement in _SCHEMA.strip().split(";\n"):
                run(statement)
            run(f"PRAGMA application_id = {APPLICATION_ID}")
            run(f"PRAGMA user_version = {FORMAT}")
        run("COMMIT")

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    def __enter__(self) -> "Store":
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> None:
        self.close()

    def open_ledger(self, *, now: int, prices: Prices, network_id: int) -> DevLedger:
        """The ledger that goes on where this store ends, or a new one from `now` (seconds since 2000-01-01)."""
        identity = {
            "network_id": network_id,
            "prices": [prices.base_fee, prices.reserve_base, prices.reserve_increment],
        }
        last = self.last()
        if last is None:
            ledger, genesis = DevLedger.genesis(now=now, prices=prices, network_id=network_id)
            self._connection.execute("INSERT INTO identity VALUES ('settings', ?)", (json.dumps(identity),))
            self.save(genesis)
            return ledger
        [(kept,)] = self._connection.execute("SELECT value FROM identity WHERE name = 'settings'")
        if json.loads(kept) != identity:
            raise ConfigError(str(self._path), f"was made with {kept}", "Use the same, or name another file.")
        damaged = LedgerError(f"{self._path} is damaged: its entries don't have the hash that its last ledger says")
        try:
            ledger = DevLedger(State(self._entries(last.index)), last, prices=prices, network_id=network_id)
        except Exception as error:  # whatever a damaged entry makes the reading stumble over
            raise damaged from error
        if ledger.closed.root() != last.account_hash or last.recomputed() != last:
            raise damaged
        return ledger

    # --- writing ------------------------------------------------------------------------------------------------------

    def save(self, closed: Closed) -> None:
        """Make a closed ledger durable. LedgerError if that failed; then none of it is kept."""
        run = self._connection.execute
        try:
            run("BEGIN")
            try:
                self._insert(closed)
                if closed.header.index % _PRUNED_EVERY == 0:
                    self._prune(closed.header.index - self._ledgers_kept + 1)
                run("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    run("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise LedgerError(f"ledger {closed.header.index} can't be kept: {_in_words(error)}") from error

    def _insert(self, closed: Closed) -> None:
        header, many = closed.header, self._connection.executemany
        hashes = header.hash, header.parent_hash, header.transaction_hash, header.account_hash
        row = header.index, *hashes, header.drops, header.close_time, header.parent_close_time
        self._connection.execute("INSERT INTO ledgers VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
        included = list(enumerate(closed.transactions))
        many(
            "INSERT INTO transactions VALUES (?, ?, ?, ?, ?, ?)",
            [
                (
                    header.index,
                    place,
                    one.transaction.id,
                    one.transaction.blob,
                    _text(one.transaction.fields),
                    _text(one.meta),
                )
                for place, one in included
            ],
        )
        concerned = [(address, header.index, place) for place, one in included for address in one.affected]
        many("INSERT INTO concerned VALUES (?, ?, ?)", concerned)
        changes = closed.changes.items()
        many(
            "INSERT INTO entries VALUES (?, ?, ?)",
            [(key, header.index, None if entry is None else _text(entry.fields())) for key, entry in changes],
        )
        channels = [each for _, each in changes if isinstance(each, PayChannel)]
        many(
            "INSERT OR IGNORE INTO channels VALUES (?, ?)",
            [(address, each.index) for each in channels for address in addresses_of(each)],
        )

    def _prune(self, first: int) -> None:
        """Forget what came before ledger `first`, but for the entries that it still has."""
        run = self._connection.execute
        for table in ("ledgers", "transactions", "concerned"):
            run(f"DELETE FROM {table} WHERE ledger < ?", (first,))  # noqa: S608  (names of our own)
        # Old versions before those that say "gone": without what came after, an old version would be the newest.
        run(f"DELETE FROM entries WHERE ledger < ({_LATEST})", (first,))  # noqa: S608
        run("DELETE FROM entries WHERE ledger <= ? AND fields IS NULL", (first,))
        run("DELETE FROM channels WHERE NOT EXISTS (SELECT 1 FROM entries WHERE entries.id = channels.id)")

    # --- reading ------------------------------------------------------------------------------------------------------

    def last(self) -> Header | None:
        """The newest header; None in a new store."""
        return self._header("ORDER BY ledger DESC LIMIT 1")

    def first_index(self) -> int:
        """Of the oldest ledger that is kept."""
        [(index,)] = self._connection.execute("SELECT min(ledger) FROM ledgers")
        return int(index)

    def header(self, index: int) -> Header | None:
        """By index; None if it isn't kept."""
        return self._header("WHERE ledger = ?", index)

    def header_by_hash(self, ledger_hash: bytes) -> Header | None:
        """By hash; None if it isn't kept."""
        return self._header("WHERE hash = ?", ledger_hash)

    def _header(self, which: str, *values: Any) -> Header | None:
        row = self._connection.execute(f"SELECT {_HEADER} FROM ledgers {which}", values).fetchone()  # noqa: S608
        if row is None:
            return None
        index, own, parent, transactions, accounts, drops, close_time, parent_close_time = row
        return Header(
            index=index,
            hash=own,
            parent_hash=parent,
            transaction_hash=transactions,
            account_hash=accounts,
            drops=drops,
            close_time=close_time,
            parent_close_time=parent_close_time,
        )

    def transaction(self, transaction_id: str) -> StoredTransaction | None:
        """By id, in upper case; None if no ledger that is kept has it."""
        return next(self._transactions("WHERE id = ?", transaction_id), None)

    def transaction_at(self, ledger_index: int, position: int) -> StoredTransaction | None:
        """By its place."""
        return next(self._transactions("WHERE ledger = ? AND position = ?", ledger_index, position), None)

    def transactions_of(self, ledger_index: int) -> list[StoredTransaction]:
        """All of one ledger, in their order."""
        return list(self._transactions("WHERE ledger = ? ORDER BY position", ledger_index))

    def transactions_concerning(
        self, address: str, *, low: int, high: int, forward: bool, limit: int, after: tuple[int, int] | None
    ) -> list[StoredTransaction]:
        """Those of an account in ledgers `low` to `high`, oldest or newest first, beyond the place `after`."""
        direction, beyond = ("ASC", ">") if forward else ("DESC", "<")
        start = after or ((low, -1) if forward else (high + 1, -1))
        return list(
            self._transactions(
                "JOIN concerned USING (ledger, position) WHERE address = ? AND ledger BETWEEN ? AND ? "
                f"AND (ledger, position) {beyond} (?, ?) "
                f"ORDER BY ledger {direction}, position {direction} LIMIT ?",
                address,
                low,
                high,
                *start,
                limit,
            )
        )

    def _transactions(self, which: str, *values: Any) -> Iterator[StoredTransaction]:
        rows = self._connection.execute(
            f"SELECT ledger, position, id, blob, fields, meta FROM transactions {which}",  # noqa: S608
            values,
        )
        for ledger, position, own, blob, fields, meta in rows:
            yield StoredTransaction(ledger, position, own, blob, json.loads(fields), json.loads(meta))

    def entries_after(self, ledger_index: int, index: str, limit: int) -> list[Entry]:
        """Entries as of a closed ledger, in the order of their keys, beyond `index`."""
        return list(self._entries(ledger_index, "AND id > ? ORDER BY id LIMIT ?", index, limit))

    def _entries(self, ledger_index: int, which: str = "", *values: Any) -> Iterator[Entry]:
        rows = self._connection.execute(
            f"SELECT id, fields FROM entries WHERE fields IS NOT NULL AND ledger = ({_LATEST}) {which}",  # noqa: S608
            (ledger_index, *values),
        )
        for index, fields in rows:
            yield read(index, json.loads(fields))

    def at(self, ledger_index: int) -> "PastView":
        """The state as of a closed ledger that is kept."""
        return PastView(self, ledger_index)

    def entry_at(self, index: str, ledger_index: int) -> Entry | None:
        """One entry as of a closed ledger."""
        return next(self._entries(ledger_index, "AND id = ?", index), None)

    def channels_at(self, address: str, ledger_index: int) -> list[PayChannel]:
        """The channels of an address as of a closed ledger, by id."""
        which = "AND id IN (SELECT id FROM channels WHERE address = ?) ORDER BY id"
        return [each for each in self._entries(ledger_index, which, address) if isinstance(each, PayChannel)]


class PastView(Lookups):
    """A `views.View` of a closed ledger."""

    __slots__ = ("_ledger_index", "_store")

    def __init__(self, store: Store, ledger_index: int) -> None:
        self._store = store
        self._ledger_index = ledger_index

    def get(self, index: str) -> Entry | None:
        return self._store.entry_at(index, self._ledger_index)

    def channels_of(self, address: str) -> list[PayChannel]:
        return self._store.channels_at(address, self._ledger_index)


def _text(fields: Any) -> str:
    return json.dumps(dict(fields), separators=(",", ":"))


def _in_words(error: sqlite3.Error) -> str:
    if "locked" in str(error):
        return "in use by another process"
    if "not a database" in str(error):
        return "no database; name another file"
    return str(error)
