"""What an engine that serves other connectors keeps: the other side of its port, in one SQLite file.

A node has its journal for this; here the connector is somebody else's program. Every change is one transaction, and it
is on disk when the call returns: the file is small, and the process does little else. Amounts are TEXT, for they have
any size (P-1).
"""

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final, final

from isthmus.connector.events import AccountId
from isthmus.connector.settling import (
    BEGUN,
    CONFIRMED,
    CREDIT_KEYS_MAX,
    ENDED,
    ENGINE_KEYS_MAX,
    ENGINE_VALUE_BYTES_MAX,
    FAILED,
    OPEN_SETTLEMENTS_MAX,
    OPEN_STATES,
    QUANTITY_MAX,
    QUANTITY_SCALE_MAX,
    REVERSED,
    SETTLEMENT_KEY_BYTES,
    STATES,
    TAKEN,
    Settlement,
    Settling,
    credit_of,
)
from isthmus.errors import LedgerError
from isthmus.settlement.port import Step, StepRefusedError

FORMAT: Final = 1
# Answers are kept for a week after their last use; a day is asked for (SE-7).
ANSWER_KEPT_MS: Final = 7 * 86_400_000
ANSWERS_MAX: Final = 100_000  # of one account; beyond it no other settlement is taken
ACCOUNTS_MAX: Final = 65_536
# Of one account, that its connector has not acknowledged. They are sent one after the other, the oldest first.
CREDITS_WAITING_MAX: Final = 1_000
TEXT_CHARS_MAX: Final = 500

_SCHEMA: Final = """
CREATE TABLE about (format INTEGER NOT NULL, asset TEXT NOT NULL, scale INTEGER NOT NULL);
CREATE TABLE accounts (
  id TEXT PRIMARY KEY, is_open INTEGER NOT NULL, last INTEGER NOT NULL,
  leftover TEXT NOT NULL, leftover_scale INTEGER NOT NULL,  -- of what is to be paid
  carried TEXT NOT NULL, carried_scale INTEGER NOT NULL,    -- of what came in: not taken by the connector
  owed_back TEXT NOT NULL                                   -- credited, and undone by the ledger
) WITHOUT ROWID;
CREATE TABLE settlements (
  account TEXT NOT NULL, number INTEGER NOT NULL, amount TEXT NOT NULL, key BLOB NOT NULL, begun_at INTEGER NOT NULL,
  state INTEGER NOT NULL, text TEXT NOT NULL, PRIMARY KEY (account, number)
) WITHOUT ROWID;
CREATE TABLE kept (account TEXT NOT NULL, key BLOB NOT NULL, value BLOB NOT NULL, PRIMARY KEY (account, key))
  WITHOUT ROWID;
CREATE TABLE answers (
  account TEXT NOT NULL, key TEXT NOT NULL, input TEXT NOT NULL, used_at INTEGER NOT NULL, PRIMARY KEY (account, key)
) WITHOUT ROWID;
CREATE TABLE credited (
  account TEXT NOT NULL, key TEXT NOT NULL, amount TEXT NOT NULL, used_at INTEGER NOT NULL, PRIMARY KEY (account, key)
) WITHOUT ROWID;
CREATE TABLE credits (
  id INTEGER PRIMARY KEY, account TEXT NOT NULL, key BLOB NOT NULL UNIQUE, amount TEXT NOT NULL, scale INTEGER NOT NULL,
  text TEXT NOT NULL
);
"""
_MOVES: Final = {
    BEGUN: (TAKEN, CONFIRMED, ENDED, FAILED, REVERSED),
    TAKEN: (CONFIRMED, ENDED, FAILED, REVERSED),
    FAILED: (TAKEN, CONFIRMED, REVERSED),
}


@final
@dataclass(slots=True, frozen=True)
class Credit:
    """What came in, and is not acknowledged by the connector yet."""

    id: int
    account: AccountId
    key: bytes  # 16 bytes: the idempotency key, for ever
    amount: int
    scale: int
    text: str


def _locked(path: Path) -> int:
    """A descriptor that holds the writer's lock until it is closed, or its process ends. LedgerError if it is taken."""
    try:
        lock = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise LedgerError(f"{path}: {error.strerror}") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise LedgerError(f"{path} is in use by another process") from None
    return lock


@final
class Store:
    """One engine's file. Not for two processes: the second one is refused."""

    def __init__(
        self, path: Path, *, asset: str, scale: int, wall_ms: Callable[[], int], entropy: Callable[[int], bytes]
    ) -> None:
        """Open or make it. Raises LedgerError if it can't be used, or was made for another asset."""
        self._path: Final = path
        self._scale: Final = scale
        self._wall_ms: Final = wall_ms
        self._entropy: Final = entropy
        self._accounts: Final[dict[AccountId, Settling]] = {}
        self._open: Final[set[AccountId]] = set()
        self.on_credit: Callable[[AccountId], None] | None = None  # something waits for the connector
        self._lock: Final = _locked(path)
        try:
            self._db: Final = sqlite3.connect(path, isolation_level=None)
            os.chmod(path, 0o600)
            self._prepare(asset)
            self._load()
        except (sqlite3.Error, OSError) as error:
            os.close(self._lock)
            raise LedgerError(f"{path}: {error}") from None
        except LedgerError:
            self._db.close()
            os.close(self._lock)
            raise

    def close(self) -> None:
        self._db.close()
        os.close(self._lock)

    def _prepare(self, asset: str) -> None:
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        with self._transaction():
            names = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()
            if names[0] == 0:
                for statement in _SCHEMA.split(";\n"):
                    if statement.strip():
                        self._db.execute(statement)
                self._db.execute("INSERT INTO about VALUES (?, ?, ?)", (FORMAT, asset, self._scale))
        found = self._db.execute("SELECT format, asset, scale FROM about").fetchone()
        if found is None or found[0] != FORMAT:
            raise LedgerError(f"{self._path} was made by another version of isthmus")
        if found[1:] != (asset, self._scale):
            raise LedgerError(f"{self._path} counts in {found[1]} with scale {found[2]}, for ever: use another file")

    def _load(self) -> None:
        for row in self._db.execute("SELECT id, is_open, last, leftover, leftover_scale FROM accounts"):
            account = AccountId(row[0])
            settling = self._accounts[account] = Settling()
            if row[1]:
                self._open.add(account)
            settling.last, settling.leftover, settling.leftover_scale = row[2], int(row[3]), row[4]
        for row in self._db.execute("SELECT account, number, amount, key, begun_at, state, text FROM settlements"):
            if row[5] in OPEN_STATES:
                self._accounts[AccountId(row[0])].open[row[1]] = Settlement(row[1], int(row[2]), *row[3:7])
        for row in self._db.execute("SELECT account, key, value FROM kept"):
            self._accounts[AccountId(row[0])].engine[row[1]] = row[2]
        for row in self._db.execute("SELECT account, key, amount, used_at FROM credited ORDER BY used_at"):
            self._accounts[AccountId(row[0])].credited[row[1].encode()] = (int(row[2]), row[3])

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        """All of it, durably, or nothing. A disk that refuses raises LedgerError: then memory is as it was before."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            raise LedgerError(f"{self._path}: {error}") from None
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            raise

    # --- accounts ---------------------------------------------------------------------------------------------------

    def accounts(self) -> list[AccountId]:
        """Those that the connector has set up."""
        return sorted(self._open)

    def set_up(self, account: AccountId) -> bool:
        """Know an account; False if it was known. Raises LedgerError at the bound."""
        if account in self._open:
            return False
        if len(self._accounts) >= ACCOUNTS_MAX:
            raise LedgerError(f"{ACCOUNTS_MAX} accounts are set up, and no more are taken")
        with self._transaction():
            self._db.execute(
                "INSERT INTO accounts VALUES (?, 1, 0, '0', 0, '0', 0, '0') ON CONFLICT (id) DO UPDATE SET is_open = 1",
                (account,),
            )
        self._accounts.setdefault(account, Settling())
        self._open.add(account)
        return True

    def delete(self, account: AccountId) -> str:
        """Forget that the connector has an account, and what its engine keeps of it; why it can't be.

        Whether that is open the engine has been asked. What was paid, and keys, stay in the file.
        """
        settling = self._accounts[account]
        if settling.open:
            return f"{len(settling.open)} settlements are under way"
        if self._db.execute("SELECT count(*) FROM credits WHERE account = ?", (account,)).fetchone()[0]:
            return "something came in that its connector has not acknowledged"
        with self._transaction():
            self._db.execute("UPDATE accounts SET is_open = 0 WHERE id = ?", (account,))
            self._db.execute("DELETE FROM kept WHERE account = ?", (account,))
        settling.engine.clear()
        self._open.discard(account)
        return ""

    def settling(self, account: AccountId) -> Settling | None:
        """Part of `runtime.engines.Desk`."""
        return self._accounts.get(account)

    # --- outgoing ---------------------------------------------------------------------------------------------------

    def begin(self, account: AccountId, key: str, amount: int, scale: int) -> tuple[str, int | None]:
        """A settlement that the connector asks for: "" or why not, and its number if one was begun.

        Once for its key: the same again changes nothing (SE-7), with another quantity it is refused (SE-8). Less than
        a unit is kept and counts with the next (SE-11).
        """
        settling = self._accounts[account]
        wall = self._wall_ms()
        given = f"{amount} {scale}"
        found = self._db.execute("SELECT input FROM answers WHERE account = ? AND key = ?", (account, key)).fetchone()
        if found is not None:
            if found[0] != given:
                return "this key was used for another quantity", None
            with self._transaction():
                self._db.execute("UPDATE answers SET used_at = ? WHERE account = ? AND key = ?", (wall, account, key))
            return "", None
        if len(settling.open) >= OPEN_SETTLEMENTS_MAX:
            raise LedgerError(f"{OPEN_SETTLEMENTS_MAX} settlements are under way; ask again later")
        units, leftover = credit_of(amount, scale, (settling.leftover, settling.leftover_scale), self._scale)
        number = settling.last + 1 if units else None
        engine_key = sha256(f"{account} {key}".encode()).digest()[:SETTLEMENT_KEY_BYTES]
        settlement = Settlement(settling.last + 1, units, engine_key, wall, BEGUN, "")
        with self._transaction():
            self._forget_answers(account, wall)
            self._db.execute("INSERT INTO answers VALUES (?, ?, ?, ?)", (account, key, given, wall))
            self._db.execute(
                "UPDATE accounts SET leftover = ?, leftover_scale = ?, last = ? WHERE id = ?",
                (str(leftover[0]), leftover[1], settling.last if number is None else number, account),
            )
            if number is not None:
                row = (account, number, str(units), engine_key, wall, BEGUN, "")
                self._db.execute("INSERT INTO settlements VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        settling.leftover, settling.leftover_scale = leftover
        if number is not None:
            settling.last = number
            settling.open[number] = settlement
        return "", number

    def _forget_answers(self, account: AccountId, wall: int) -> None:
        self._db.execute("DELETE FROM answers WHERE account = ? AND used_at <= ?", (account, wall - ANSWER_KEPT_MS))
        count = self._db.execute("SELECT count(*) FROM answers WHERE account = ?", (account,)).fetchone()[0]
        if count >= ANSWERS_MAX:
            raise LedgerError(f"{ANSWERS_MAX} settlements were asked for in a week; ask again later")

    def begin_again(self, account: AccountId, number: int, note: str) -> int:
        """A settlement that can't happen any more is replaced by a new one; its number. Raises LedgerError."""
        settling = self._accounts.get(account)
        failed = None if settling is None else settling.open.get(number)
        if settling is None or failed is None or failed.state != FAILED:
            raise LedgerError(f"{account} has no settlement {number} that has failed")
        fresh = settling.last + 1
        key = sha256(f"{account} again {fresh}".encode() + failed.key).digest()[:SETTLEMENT_KEY_BYTES]
        wall = self._wall_ms()
        with self._transaction():
            self._db.execute(
                "UPDATE settlements SET state = ?, text = ? WHERE account = ? AND number = ?",
                (REVERSED, note[:TEXT_CHARS_MAX], account, number),
            )
            row = (account, fresh, str(failed.amount), key, wall, BEGUN, note[:TEXT_CHARS_MAX])
            self._db.execute("INSERT INTO settlements VALUES (?, ?, ?, ?, ?, ?, ?)", row)
            self._db.execute("UPDATE accounts SET last = ? WHERE id = ?", (fresh, account))
        settling.last = fresh
        settling.open[fresh] = Settlement(fresh, failed.amount, key, wall, BEGUN, note[:TEXT_CHARS_MAX])
        del settling.open[number]
        return fresh

    # --- what the engine tells --------------------------------------------------------------------------------------

    def book(self, account: AccountId, step: Step) -> Sequence[int]:
        """As `Port.step`: in one transaction, which is durable when this returns."""
        settling = self._accounts[account]
        problem = self._problem(settling, step)
        if problem:
            raise StepRefusedError(problem)
        wall = self._wall_ms()
        amounts: list[int] = []
        fresh: dict[bytes, tuple[int, int]] = {}
        with self._transaction():
            for number, state, why in step.moved:
                self._db.execute(
                    "UPDATE settlements SET state = ?, text = ? WHERE account = ? AND number = ?",
                    (state, why[:TEXT_CHARS_MAX], account, number),
                )
            for amount, scale, key, text in step.credits:
                amounts.append(self._credit(account, settling, fresh, amount, scale, key, text[:TEXT_CHARS_MAX], wall))
            for amount, _ in step.undone:
                self._owe_back(account, amount)
            for kept_key, value in step.kept:
                if value:
                    self._db.execute("INSERT OR REPLACE INTO kept VALUES (?, ?, ?)", (account, kept_key, value))
                else:
                    self._db.execute("DELETE FROM kept WHERE account = ? AND key = ?", (account, kept_key))
        self._remember(settling, step, fresh)
        if step.credits and self.on_credit is not None:
            self.on_credit(account)
        return amounts

    def _remember(self, settling: Settling, step: Step, fresh: dict[bytes, tuple[int, int]]) -> None:
        """In memory what is on disk."""
        for number, state, why in step.moved:
            settlement = settling.open[number]
            settlement.state, settlement.text = state, why[:TEXT_CHARS_MAX]
            if state not in OPEN_STATES:
                del settling.open[number]
        settling.credited.update(fresh)
        for key, value in step.kept:
            if value:
                settling.engine[key] = value
            else:
                settling.engine.pop(key, None)

    def _credit(
        self,
        account: AccountId,
        settling: Settling,
        fresh: dict[bytes, tuple[int, int]],
        amount: int,
        scale: int,
        key: str,
        text: str,
        wall: int,
    ) -> int:
        """Let the connector know of it, under a key of its own; once for the engine's key."""
        if key:
            before = fresh.get(key.encode()) or settling.credited.get(key.encode())
            if before is not None:
                return before[0]
        row = self._db.execute(
            "SELECT carried, carried_scale, owed_back FROM accounts WHERE id = ?", (account,)
        ).fetchone()
        carried, carried_scale, owed_back = int(row[0]), row[1], int(row[2])
        finest = max(scale, carried_scale, self._scale)
        total = amount * 10 ** (finest - scale) + carried * 10 ** (finest - carried_scale)
        back = min(owed_back * 10 ** (finest - self._scale), total) // 10 ** (finest - self._scale)
        total -= back * 10 ** (finest - self._scale)
        if total:
            self._let_wait(account, total, finest, text)
        self._db.execute(
            "UPDATE accounts SET carried = '0', carried_scale = 0, owed_back = ? WHERE id = ?",
            (str(owed_back - back), account),
        )
        units = credit_of(amount, scale, (0, 0), self._scale)[0]
        if key:
            fresh[key.encode()] = (units, wall)
            self._db.execute("INSERT INTO credited VALUES (?, ?, ?, ?)", (account, key, str(units), wall))
        return units

    def _let_wait(self, account: AccountId, amount: int, scale: int, text: str) -> None:
        """One more credit for the connector; at the bound it counts with the last one, which was never sent so far."""
        rows = "FROM credits WHERE account = ?"
        if self._db.execute(f"SELECT count(*) {rows}", (account,)).fetchone()[0] < CREDITS_WAITING_MAX:
            self._db.execute(
                "INSERT INTO credits (account, key, amount, scale, text) VALUES (?, ?, ?, ?, ?)",
                (account, self._entropy(SETTLEMENT_KEY_BYTES), str(amount), scale, text),
            )
            return
        last = self._db.execute(f"SELECT id, amount, scale {rows} ORDER BY id DESC LIMIT 1", (account,)).fetchone()
        finest = max(scale, last[2])
        total = amount * 10 ** (finest - scale) + int(last[1]) * 10 ** (finest - last[2])
        self._db.execute(
            "UPDATE credits SET amount = ?, scale = ?, text = ? WHERE id = ?", (str(total), finest, text, last[0])
        )

    def _owe_back(self, account: AccountId, amount: int) -> None:
        """A connector can't be told that a credit is undone: it is kept back from the next ones."""
        found = self._db.execute("SELECT owed_back FROM accounts WHERE id = ?", (account,)).fetchone()
        self._db.execute("UPDATE accounts SET owed_back = ? WHERE id = ?", (str(int(found[0]) + amount), account))

    def _problem(self, settling: Settling, step: Step) -> str:
        numbers: set[int] = set()
        for number, state, _ in step.moved:
            found = settling.open.get(number)
            if found is None or number in numbers:
                return f"settlement {number} is not open"
            if state != found.state and state not in _MOVES[found.state]:
                return f"settlement {number} is {STATES[found.state]}, and can't be {STATES.get(state, state)} after it"
            numbers.add(number)
        for amount, scale, _, _ in step.credits:
            if not 0 <= amount <= QUANTITY_MAX or not 0 <= scale <= QUANTITY_SCALE_MAX:
                return "the amount or its scale is too large"
        if any(amount <= 0 for amount, _ in step.undone):
            return "an amount is not above zero"
        if len(settling.credited) + sum(1 for one in step.credits if one[2]) > CREDIT_KEYS_MAX:
            self._forget_credited(settling)
            if len(settling.credited) + sum(1 for one in step.credits if one[2]) > CREDIT_KEYS_MAX:
                return f"{CREDIT_KEYS_MAX} settlements were credited in a week; ask again later"
        for key, value in step.kept:
            if not 0 < len(key) or len(value) > ENGINE_VALUE_BYTES_MAX:
                return "an engine keeps more in one place than is taken"
        if len(settling.engine) + len({key for key, value in step.kept if value} - set(settling.engine)) > (
            ENGINE_KEYS_MAX
        ):
            return f"an engine keeps more than {ENGINE_KEYS_MAX} things for one account"
        return ""

    def _forget_credited(self, settling: Settling) -> None:
        """Those that are old enough; they stand in the order of their use."""
        until = self._wall_ms() - ANSWER_KEPT_MS
        for key in [key for key, (_, used_at) in settling.credited.items() if used_at <= until]:
            del settling.credited[key]
        with self._transaction():
            self._db.execute("DELETE FROM credited WHERE used_at <= ?", (until,))

    # --- what the connector has to be told --------------------------------------------------------------------------

    def first_credit(self, account: AccountId) -> Credit | None:
        """The oldest that the connector has not acknowledged."""
        row = self._db.execute(
            "SELECT id, account, key, amount, scale, text FROM credits WHERE account = ? ORDER BY id LIMIT 1",
            (account,),
        ).fetchone()
        return None if row is None else Credit(row[0], AccountId(row[1]), row[2], int(row[3]), row[4], row[5])

    def waiting(self) -> dict[AccountId, int]:
        """How many credits of each account the connector has not acknowledged."""
        rows = self._db.execute("SELECT account, count(*) FROM credits GROUP BY account")
        return {AccountId(account): count for account, count in rows}

    def acknowledged(self, credit: Credit, taken: tuple[int, int] | None) -> None:
        """The connector has it. What it says that it didn't take (amount and scale) goes with the next (SE-11)."""
        amount, scale = credit.amount, credit.scale
        rest = 0
        if taken is not None:
            scale = max(credit.scale, taken[1])
            rest = credit.amount * 10 ** (scale - credit.scale) - taken[0] * 10 ** (scale - taken[1])
            amount = credit.amount * 10 ** (scale - credit.scale)
        if not 0 <= rest <= amount:
            rest = 0  # it says that it took more than there was: that is its own affair
        with self._transaction():
            self._db.execute("DELETE FROM credits WHERE id = ?", (credit.id,))
            if rest:
                row = self._db.execute(
                    "SELECT carried, carried_scale FROM accounts WHERE id = ?", (credit.account,)
                ).fetchone()
                finest = max(scale, row[1])
                carried = int(row[0]) * 10 ** (finest - row[1]) + rest * 10 ** (finest - scale)
                self._db.execute(
                    "UPDATE accounts SET carried = ?, carried_scale = ? WHERE id = ?",
                    (str(carried), finest, credit.account),
                )
