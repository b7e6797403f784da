"""Books out of a journal: the connector's own replay from a checkpoint on, and what people are shown of its result."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias, final

from isthmus.cli.books_view import AccountRow, CurrencyRow, Json
from isthmus.client.ledger import WalletLedger
from isthmus.connector import record as r
from isthmus.connector.books import (
    ADJUST,
    ADJUSTMENT,
    BOOK_LOSS,
    CLEARING,
    GIVE_UP,
    HEARS,
    LOSS,
    PEER,
    ROUNDING,
    SETTLE,
    SETTLE_BACK,
    SETTLE_BY_HAND,
    SETTLED,
    SETTLED_BY_PEER,
    SPREAD,
    WRITE_OFF,
    WRITTEN_OFF,
    Account,
    Books,
)
from isthmus.connector.kernel import Kernel, version_of_state
from isthmus.connector.legs import VOID_REASONS
from isthmus.connector.octets import Reader
from isthmus.connector.settling import STATES
from isthmus.connector.state import READABLE_VERSIONS
from isthmus.errors import CodecError, ConfigError, JournalError
from isthmus.ilp.asset import Asset
from isthmus.journal.interface import StoredBatch
from isthmus.journal.reader import JournalReader

JOURNAL_NAME: Final = "journal.db"
# A kernel that never runs draws nothing from it.
_NO_ENTROPY: Final = bytes(32)
EARNINGS: Final = {
    SPREAD: "spread",
    ROUNDING: "rounding",
    LOSS: "losses",
    WRITTEN_OFF: "written off",
    ADJUSTMENT: "adjustments",
}
TRANSFER_KINDS: Final = {
    ADJUST: "adjustment",
    BOOK_LOSS: "loss",
    WRITE_OFF: "write-off",
    GIVE_UP: "give-up",
    SETTLE: "settlement by us",
    SETTLED_BY_PEER: "settlement by the peer",
    SETTLE_BACK: "settlement undone",
    SETTLE_BY_HAND: "settlement by hand",
}


class Replayed(NamedTuple):
    """The books after a batch, as they are shown."""

    sequence: int
    digest: bytes
    accounts: list[AccountRow]
    currencies: list[CurrencyRow]


@final
class BooksAt:
    """A kernel that never runs walks along a journal, one batch after the other.

    `of_wallet`: the journal has a wallet's notes; otherwise notes are skipped, for the books don't depend on them.
    """

    def __init__(self, path: str, sequence: int, state: bytes | None, *, of_wallet: bool = False) -> None:
        self.path: Final = path
        self.sequence = sequence
        self._kernel: Final = Kernel(_NO_ENTROPY, WalletLedger() if of_wallet else None)
        try:
            if state is not None:
                self._kernel.load_state(state)
        except CodecError as error:
            if state is not None:
                _check_version(path, sequence, state)
            raise JournalError(f"{path}: the checkpoint after batch {sequence} can't be read: {error}") from error
        if self._kernel.sequence != sequence:
            raise JournalError(
                f"{path}: the checkpoint after batch {sequence} holds the state after batch {self._kernel.sequence}"
            )

    @property
    def books(self) -> Books:
        return self._kernel.books

    def apply(self, batch: StoredBatch) -> None:
        try:
            self._kernel.replay(batch.sequence, batch.record)
        except CodecError as error:
            raise JournalError(f"{self.path}: batch {batch.sequence} can't be replayed: {error}") from error
        self.sequence = batch.sequence

    def digest(self) -> bytes:
        return self._kernel.digest()

    def check_equals(self, state: bytes) -> None:
        """Raise JournalError unless replay made exactly the state of a checkpoint, byte by byte."""
        _check_version(self.path, self.sequence, state)
        if self._kernel.state() != state:
            raise JournalError(f"{self.path}: replay doesn't give the checkpoint after batch {self.sequence}")

    def check(self) -> None:
        """Raise JournalError if an asset doesn't sum to zero, or a reserved sum isn't that of its open legs."""
        try:
            self.books.check()
        except AssertionError as error:
            raise JournalError(
                f"{self.path}: after batch {self.sequence} the books don't sum to zero, or reserved amounts are not"
                f" those of the open legs {error}"
            ) from error

    def shown(self) -> Replayed:
        limits = _limits(self.books.terms)
        accounts = [_account_row(account, limits.get(account.name, {})) for account in self.books.peers.values()]
        return Replayed(self.sequence, self.digest(), accounts, _currency_rows(self.books))


def journal_path(given: Path) -> Path:
    """The journal of a data folder, or the file itself; ConfigError (status 2) if there is none."""
    path = given / JOURNAL_NAME if given.is_dir() else given
    if not path.is_file():
        raise ConfigError(str(given), "there is no journal", f"Give a data folder with a {JOURNAL_NAME} in it")
    return path


def _is_of_wallet(state: bytes) -> bool:
    """Whether an application's state is in this checkpoint of the kernel; damage shows when it is loaded."""
    reader = Reader(state)
    try:
        reader.uint(8, "sequence")
        reader.octets(8, "books")
        return bool(reader.octets(8, "application"))
    except CodecError:
        return False


def _check_version(path: str, sequence: int, state: bytes) -> None:
    """Raise JournalError if this isthmus doesn't read the version of a checkpoint's format."""
    try:
        version = version_of_state(state)
    except CodecError as error:
        raise JournalError(f"{path}: the checkpoint after batch {sequence} can't be read: {error}") from error
    if version in READABLE_VERSIONS:
        return
    age = "an older" if version < min(READABLE_VERSIONS) else "a newer"
    readable = f"{READABLE_VERSIONS[0]} to {READABLE_VERSIONS[-1]}"
    raise JournalError(
        f"{path}: the checkpoint after batch {sequence} is of {age} version of isthmus (format {version}, and this one"
        f" reads {readable}), which says nothing against the batches. {_WAY_OUT[age]}"
    )


_WAY_OUT: Final = {
    "an older": "With the node stopped, `python -m isthmus.journal.verify JOURNAL --drop-checkpoint N` gives it up,"
    " and replay begins before it",
    "a newer": "Use that version",
}


def replay(reader: JournalReader) -> Replayed:
    """The books now, as they are shown."""
    return latest(reader).shown()


def latest(reader: JournalReader) -> BooksAt:
    """The books now: from the newest checkpoint, and every batch after it."""
    found = reader.load_checkpoint()
    if found is None:
        books = BooksAt(reader.path, 0, None)
    else:
        books = BooksAt(reader.path, found.sequence, found.state, of_wallet=_is_of_wallet(found.state))
    for batch in reader.read_from(books.sequence + 1):
        books.apply(batch)
    return books


def oldest(reader: JournalReader) -> BooksAt:
    """The books at the earliest moment that can be replayed from: before batch 1, or at the older checkpoint."""
    kept = reader.checkpoints()
    of_wallet = bool(kept) and _is_of_wallet(kept[-1].state)
    if reader.first_sequence == 1:
        return BooksAt(reader.path, 0, None, of_wallet=of_wallet)
    if not kept:
        raise JournalError(f"{reader.path}: batch 1 was pruned, and there is no checkpoint to replay from")
    return BooksAt(reader.path, kept[0].sequence, kept[0].state, of_wallet=of_wallet)


def transfer_rows(reader: JournalReader) -> Iterator[dict[str, Json]]:
    """Every entry that can be replayed, in order, with the account and amount of the leg that it speaks of."""
    books = oldest(reader)
    legs: dict[int, tuple[Account, str, int]] = {}
    for account in books.books.peers.values():
        legs |= {leg.id: (account, "incoming", leg.amount) for leg in account.received.values()}
        legs |= {sent.id: (account, "outgoing", sent.amount) for sent in account.sent.values()}
    for batch in reader.read_from(books.sequence + 1):
        next_leg = books.books.last_leg + 1
        entries = entries_of(batch, reader.path)
        lost = _lost_legs(entries, books.books)
        books.apply(batch)
        for position, entry in enumerate(entries):
            row = {"sequence": batch.sequence, "position": position, **_EMPTY_ROW}
            if isinstance(entry, r.ReserveIncoming | r.ReserveOutgoing):
                direction = "incoming" if isinstance(entry, r.ReserveIncoming) else "outgoing"
                legs[next_leg] = (books.books.accounts[entry.account], direction, entry.amount)
                row |= {"entry": "reserve", **_leg_columns(next_leg, legs[next_leg]), **_reserve_columns(entry)}
                if isinstance(entry, r.ReserveIncoming):
                    lost[entry.account, entry.session, entry.request_id] = (next_leg, entry.amount)
                next_leg += 1
            elif isinstance(entry, r.Lost):
                row |= _loss_columns(entry, books.books.accounts, lost[entry.account, entry.session, entry.request_id])
            elif isinstance(entry, r.Post | r.Fulfilled | r.Unkept):
                row |= {"entry": "post", **_leg_columns(entry.leg, legs.pop(entry.leg))}
            elif isinstance(entry, r.Void):
                row |= {"entry": "void", **_leg_columns(entry.leg, legs.pop(entry.leg))}
                row["reason"] = VOID_REASONS.get(entry.reason, str(entry.reason))
            else:
                row |= _rare_columns(entry, books.books.accounts)
            yield row


_Losable: TypeAlias = dict[tuple[int, bytes, int], tuple[int, int]]


def _lost_legs(entries: list[r.Entry], books: Books) -> _Losable:
    """Leg and amount of what a batch books as lost, if it was fulfilled in an earlier batch; by wire identity."""
    found: _Losable = {}
    for entry in entries:
        if isinstance(entry, r.Lost) and entry.account < len(books.accounts):
            account = books.accounts[entry.account]
            key = (entry.session, entry.request_id)
            leg = account.fulfilled.get(key) or account.received.get(key)
            if leg is not None:
                found[entry.account, entry.session, entry.request_id] = (leg.id, leg.amount)
    return found


def _loss_columns(entry: r.Lost, accounts: list[Account], leg: tuple[int, int]) -> dict[str, Json]:
    account = accounts[entry.account]
    return {
        "entry": "loss",
        "leg": leg[0],
        **_account_columns(account),
        "counter_account": account.loss.name,
        "amount": str(leg[1]),
        "session": entry.session.hex(),
        "request_id": entry.request_id,
        "text": "fulfilled, and void at the peer",
    }


_EMPTY_ROW: Final[dict[str, Json]] = dict.fromkeys(
    (
        "entry",
        "leg",
        "direction",
        "account",
        "counter_account",
        "asset_code",
        "asset_scale",
        "amount",
        "spread",
        "rounding",
        "expires_at_ms",
        "session",
        "request_id",
        "condition",
        "reason",
        "key",
        "text",
    )
)


def entries_of(batch: StoredBatch, path: str) -> list[r.Entry]:
    """What one batch holds; raises JournalError if it can't be read."""
    try:
        return r.decode_record(batch.record)
    except CodecError as error:
        raise JournalError(f"{path}: the entries of batch {batch.sequence} can't be read: {error}") from error


def _leg_columns(leg_id: int, leg: tuple[Account, str, int]) -> dict[str, Json]:
    account, direction, amount = leg
    return {"leg": leg_id, "direction": direction, **_account_columns(account), "amount": str(amount)}


def _account_columns(account: Account) -> dict[str, Json]:
    return {"account": account.name, "asset_code": account.asset_code, "asset_scale": account.asset_scale}


def _reserve_columns(entry: r.ReserveIncoming | r.ReserveOutgoing) -> dict[str, Json]:
    columns: dict[str, Json] = {
        "expires_at_ms": entry.expires_at,
        "session": entry.session.hex(),
        "request_id": entry.request_id,
        "condition": entry.condition.hex(),
    }
    if isinstance(entry, r.ReserveOutgoing):
        columns |= {"spread": str(entry.spread), "rounding": str(entry.rounding)}
    return columns


def _rare_columns(entry: r.Entry, accounts: list[Account]) -> dict[str, Json]:
    if isinstance(entry, r.Transfer):
        return {
            "entry": TRANSFER_KINDS.get(entry.kind, f"transfer of kind {entry.kind}"),
            **_account_columns(accounts[entry.debit]),
            "counter_account": accounts[entry.credit].name,
            "amount": str(entry.amount),
            "key": entry.key.hex(),
            "text": entry.text,
        }
    if isinstance(entry, r.LateFulfill):
        return {
            "entry": "late fulfill",
            **_account_columns(accounts[entry.account]),
            "amount": str(entry.amount),
            "session": entry.session.hex(),
            "request_id": entry.request_id,
            "text": f"{entry.ms_late} ms late",
        }
    if isinstance(entry, r.AtRisk):
        return {
            "entry": "at risk",
            **_account_columns(accounts[entry.account]),
            "leg": entry.leg,
            "amount": str(entry.amount),
            "text": f"{entry.ms_late} ms late",
        }
    if isinstance(entry, r.AccountOpened):
        return {
            "entry": "account opened",
            "account": entry.name,
            "asset_code": entry.asset_code,
            "asset_scale": entry.asset_scale,
        }
    return _outcome_columns(entry, accounts)


def _outcome_columns(entry: r.Entry, accounts: list[Account]) -> dict[str, Json]:
    if isinstance(entry, r.Acknowledged | r.Confirmed):
        said = "acknowledged by the peer" if isinstance(entry, r.Acknowledged) else "confirmed to us"
        return {
            "entry": "outcomes",
            **_account_columns(accounts[entry.account]),
            "session": entry.session.hex(),
            "request_id": entry.watermark,
            "text": f"{said} up to this request",
        }
    if isinstance(entry, r.Passed):
        first, last = entry.ranges[0][0], entry.ranges[-1][1]
        text = f"acknowledged by the peer: {len(entry.ranges)} ranges from {first} to {last}"
        columns = {**_account_columns(accounts[entry.account]), "session": entry.session.hex()}
        return {"entry": "outcomes", **columns, "text": text}
    if isinstance(entry, r.Forgotten):
        text = f"{entry.count} fulfilled legs are not kept any longer"
        return {"entry": "outcomes", **_account_columns(accounts[entry.account]), "text": text}
    if isinstance(entry, r.Hearing):
        text = "the peer takes reports" if entry.hearing == HEARS else "no reports to this peer"
        return {"entry": "outcomes", **_account_columns(accounts[entry.account]), "text": text}
    if isinstance(entry, r.SettingChanged):
        return {"entry": "setting", "key": entry.key.hex(), "text": _setting_text(entry)}
    if isinstance(entry, r.GivenUp):
        text = "the peer won't acknowledge or hear any more what is kept"
        return {"entry": "outcomes", **_account_columns(accounts[entry.account]), "text": text}
    return _settlement_columns(entry, accounts)


def _settlement_columns(entry: r.Entry, accounts: list[Account]) -> dict[str, Json]:
    if isinstance(entry, r.SettlementBegun):
        columns: dict[str, Json] = {"amount": str(entry.amount), "key": entry.key.hex()}
        columns["text"] = f"settlement {entry.number} begins"
    elif isinstance(entry, r.SettlementMoved):
        state = STATES.get(entry.state, f"in state {entry.state}")
        columns = {"text": f"settlement {entry.number} is {state}" + (f": {entry.text}" if entry.text else "")}
    elif isinstance(entry, r.Credited):
        left = f"; {entry.leftover} of scale {entry.leftover_scale} left over" if entry.leftover else ""
        columns = {"amount": str(entry.amount), "key": entry.key.hex(), "text": f"settlement of the peer's{left}"}
    elif isinstance(entry, r.KeyUsed):
        columns = {"key": entry.key.hex(), "text": "a settlement of the peer's was told once more"}
    elif isinstance(entry, r.EngineKept):
        # What engines keep may be claims that are worth money to whoever shows them.
        columns = {"key": entry.key.hex(), "text": f"the engine keeps {len(entry.value)} bytes"}
    else:
        return {"entry": _NAMES.get(type(entry), "note")}
    return {"entry": "settlement", **_account_columns(accounts[entry.account]), **columns}


# Of entries that books.py doesn't show in detail.
_NAMES: Final[dict[type, str]] = {
    r.TermsChanged: "terms",
    r.RatesEntry: "rates",
    r.DrainedEntry: "drained",
    r.Dated: "time",
    r.Listed: "listed at risk",
}


def _setting_text(entry: r.SettingChanged) -> str:
    """Secrets in it are sealed, and tokens of peers are hashes."""
    key, value = entry.key.decode(errors="replace"), entry.value.decode(errors="replace")
    return f"{key} = {value}" if value else f"{key}: what was set at run time ended"


# --- what is shown ---------------------------------------------------------------------------------------------------


def _account_row(account: Account, limits: dict[str, int | None]) -> AccountRow:
    return AccountRow(
        account=account.name,
        asset=_asset(account),
        balance=account.balance,
        reserved_incoming=account.reserved_incoming,
        reserved_outgoing=account.reserved_outgoing,
        receivable_max=limits.get("receivable_max"),
        payable_max=limits.get("payable_max"),
        open_incoming=len(account.received),
        open_outgoing=len(account.sent),
        loss=account.loss.balance,
        unacknowledged=account.fulfilled_amount,
        unsaid=sum(account.unsaid.values()),
        at_risk=account.at_risk,
        late=account.late_amount,
    )


def _currency_rows(books: Books) -> list[CurrencyRow]:
    """Signs turned for people: what is credited to a revenue account was earned."""
    rows: dict[Asset, CurrencyRow] = {}
    for account in books.accounts:
        row = rows.setdefault(_asset(account), CurrencyRow(_asset(account), 0, {}))
        if account.kind == CLEARING:
            rows[row.asset] = row._replace(position=-account.balance)
        elif account.kind == SETTLED:
            rows[row.asset] = row._replace(on_ledgers=row.on_ledgers + account.balance)
        elif account.kind != PEER:
            kind = EARNINGS.get(account.kind, f"kind {account.kind}")
            row.earnings[kind] = row.earnings.get(kind, 0) - account.balance
    return list(rows.values())


def _asset(account: Account) -> Asset:
    return Asset(account.asset_code, account.asset_scale)


def _limits(terms: bytes) -> dict[str, dict[str, int | None]]:
    """Each account's limits by the terms in force. Terms of a version that we can't read only leave limits unknown."""
    try:
        described = json.loads(terms)["accounts"] if terms else []
        return {
            one["id"]: {
                name: None if one[name] is None else int(one[name]) for name in ("receivable_max", "payable_max")
            }
            for one in described
        }
    except (ValueError, KeyError, TypeError):
        return {}
