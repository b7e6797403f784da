"""History for people: what each account did per minute, hour and day, and the facts that are kept one by one.

It is written in the transaction of the batches it tells of, so that it never runs ahead of the books or behind them.
Nothing is decided by it. Sums are kept in Python's integers and stored as TEXT, for a minute may hold more than 2^64
(P-1). The writer is the only one who changes these tables, so its memory of the current minute is as good as the file.
"""

import sqlite3
from dataclasses import dataclass
from typing import Final, final

from isthmus.connector.events import Summary
from isthmus.journal.schema import insert_rows

MINUTE_MS: Final = 60_000
HOUR_MS: Final = 60 * MINUTE_MS
DAY_MS: Final = 24 * HOUR_MS
# An active account has at most 1,440 rows of minutes (and those of the hour that ends), 720 of hours, and one a day:
# some 200 kB, however many packets it moved. The age is counted in the time of the batches, never by a clock.
MINUTES_KEPT_MS: Final = DAY_MS
HOURS_KEPT_MS: Final = 30 * DAY_MS
# (span, the next wider span, how long the narrower one is kept)
_ROLL_UPS: Final = ((MINUTE_MS, HOUR_MS, MINUTES_KEPT_MS), (HOUR_MS, DAY_MS, HOURS_KEPT_MS))

_READ: Final = (
    "SELECT incoming, outgoing, incoming_packets, outgoing_packets, rejected_packets, balance, sequence"
    " FROM periods WHERE span_ms = ? AND starts_at = ? AND account = ?"
)
_WRITE: Final = "INSERT OR REPLACE INTO periods"


@final
@dataclass(slots=True)
class Totals:
    """What one account did in one period. Amounts are in the account's units."""

    incoming: int = 0
    outgoing: int = 0
    incoming_packets: int = 0
    outgoing_packets: int = 0
    rejected_packets: int = 0
    balance: int = 0  # at the end of the period
    sequence: int = 0  # the last batch that it tells of

    def add(self, other: "Totals") -> None:
        """Add another stretch of time. The balance is that of the later batch, whatever the wall clock said."""
        self.incoming += other.incoming
        self.outgoing += other.outgoing
        self.incoming_packets += other.incoming_packets
        self.outgoing_packets += other.outgoing_packets
        self.rejected_packets += other.rejected_packets
        if other.sequence >= self.sequence:
            self.balance = other.balance
            self.sequence = other.sequence

    def row(self, span_ms: int, starts_at: int, account: int) -> tuple[int | str | bytes, ...]:
        return (
            span_ms,
            starts_at,
            account,
            str(self.incoming),
            str(self.outgoing),
            self.incoming_packets,
            self.outgoing_packets,
            self.rejected_packets,
            str(self.balance),
            self.sequence,
        )


def totals_of(row: tuple[str, str, int, int, int, str, int]) -> Totals:
    """From the columns of `periods`, in their order, keys left out."""
    return Totals(int(row[0]), int(row[1]), row[2], row[3], row[4], int(row[5]), row[6])


@final
class Projection:
    """The writer's side. All methods run on the thread that owns the connection."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._ids: dict[tuple[bool, str], int] = {
            (bool(internal), name): id_
            for id_, name, internal in connection.execute("SELECT id, name, internal FROM ledger_accounts")
        }
        self._minute = -1
        self._current: dict[int, Totals] = {}
        # Periods that this transaction changed: (starts_at, account).
        self._touched: dict[tuple[int, int], Totals] = {}
        self._singles: list[tuple[int, int, int, str, str, str, str]] = []
        self._rolled_hour = -1

    def apply(self, sequence: int, summary: Summary) -> None:
        """Take up one batch; `write` brings it to the file."""
        minute = summary.wall_ms - summary.wall_ms % MINUTE_MS
        if minute != self._minute:
            self._flush()
            self._minute = minute
            self._current.clear()
        for movement in summary.movements:
            totals = self._totals(False, movement.account)
            totals.incoming += movement.incoming
            totals.outgoing += movement.outgoing
            totals.incoming_packets += movement.incoming_packets
            totals.outgoing_packets += movement.outgoing_packets
            totals.rejected_packets += movement.rejected_packets
            totals.balance = movement.balance
            totals.sequence = sequence
        for name, balance in summary.internal:
            totals = self._totals(True, name)
            totals.balance = balance
            totals.sequence = sequence
        for position, (kind, account, amount, text) in enumerate(summary.singles):
            self._singles.append((sequence, position, summary.wall_ms, kind, account, str(amount), text))

    def write(self) -> None:
        """Write what `apply` took up. The caller's transaction is open and holds the batches."""
        self._flush()
        if self._singles:
            insert_rows(self._connection, "INSERT INTO singles", self._singles)
            self._singles.clear()

    def roll_up_due(self, wall_ms: int) -> bool:
        """True once an hour of the batches' time: then `roll_up` until it returns False."""
        return wall_ms // HOUR_MS > self._rolled_hour

    def roll_up(self, wall_ms: int) -> bool:
        """Fold the oldest outdated hour (or day) into one row an account, in a transaction of its own.

        Returns False when nothing was left to fold. A step is small, so that commits don't wait for a long one.
        """
        for span_ms, wider_ms, kept_ms in _ROLL_UPS:
            horizon = wall_ms - kept_ms
            horizon -= horizon % wider_ms
            (oldest,) = self._connection.execute(
                "SELECT min(starts_at) FROM periods WHERE span_ms = ?", (span_ms,)
            ).fetchone()
            if oldest is not None and oldest < horizon:
                self._fold(span_ms, wider_ms, oldest - oldest % wider_ms)
                return True
        self._rolled_hour = wall_ms // HOUR_MS
        return False

    def _fold(self, span_ms: int, wider_ms: int, starts_at: int) -> None:
        connection = self._connection
        folded: dict[int, Totals] = {}
        connection.execute("BEGIN IMMEDIATE")
        found = connection.execute(
            "SELECT account, incoming, outgoing, incoming_packets, outgoing_packets, rejected_packets, balance,"
            " sequence FROM periods WHERE (span_ms = ? AND starts_at >= ? AND starts_at < ?)"
            " OR (span_ms = ? AND starts_at = ?)",
            (span_ms, starts_at, starts_at + wider_ms, wider_ms, starts_at),
        )
        for account, *columns in found:
            folded.setdefault(account, Totals()).add(totals_of(tuple(columns)))
        rows = [totals.row(wider_ms, starts_at, account) for account, totals in folded.items()]
        insert_rows(connection, _WRITE, rows)
        connection.execute(
            "DELETE FROM periods WHERE span_ms = ? AND starts_at >= ? AND starts_at < ?",
            (span_ms, starts_at, starts_at + wider_ms),
        )
        connection.execute("COMMIT")
        # The wall clock may have been set back: then the minute we remember may be among the folded ones.
        self._minute = -1
        self._current.clear()

    def _totals(self, internal: bool, name: str) -> Totals:
        account = self._ids.get((internal, name))
        if account is None:
            account = self._new_id(internal, name)
        totals = self._current.get(account)
        if totals is None:
            row = self._connection.execute(_READ, (MINUTE_MS, self._minute, account)).fetchone()
            totals = self._current[account] = Totals() if row is None else totals_of(row)
        self._touched[(self._minute, account)] = totals
        return totals

    def _new_id(self, internal: bool, name: str) -> int:
        account = len(self._ids) + 1
        self._connection.execute("INSERT INTO ledger_accounts VALUES (?, ?, ?)", (account, name, internal))
        self._ids[(internal, name)] = account
        return account

    def _flush(self) -> None:
        if self._touched:
            rows = [totals.row(MINUTE_MS, at, account) for (at, account), totals in self._touched.items()]
            insert_rows(self._connection, _WRITE, rows)
            self._touched.clear()
