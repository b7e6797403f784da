"""From a journal's records back to the books: the same methods as live, driven by the entries.

Nothing is decided here. What can't follow from the entries before it is a CodecError: the bytes are damaged, or were
written by another program. After each record the books must have written the same bytes again, so a format and its
replay can't drift apart unseen.
"""

from typing import Final, Protocol, final

from isthmus.connector import record as r
from isthmus.connector import settlement_books
from isthmus.connector.books import (
    ASSET_KINDS,
    DEAF,
    HEARS,
    LOSS,
    PEER,
    SETTLED,
    Account,
    Books,
    internal_name,
    loss_name,
)
from isthmus.connector.legs import VOID_REASONS, IncomingLeg, OutgoingLeg
from isthmus.connector.settling import BEGUN, STATES, Settlement
from isthmus.errors import CodecError


class Application(Protocol):
    """State that lives on notes in the same journal: a wallet's payments and credits."""

    def apply(self, note: bytes) -> None: ...

    def encode_state(self) -> bytes: ...

    def load_state(self, state: bytes) -> None: ...


@final
class NoApplication:
    """Where nobody writes notes."""

    def apply(self, note: bytes) -> None:
        """Notes of an application that isn't there are skipped: the books don't depend on them."""

    def encode_state(self) -> bytes:
        return b""

    def load_state(self, state: bytes) -> None:
        """There is none."""


@final
class Replay:
    """Applies records in order. Made from books as a checkpoint left them, open legs included."""

    __slots__ = ("_application", "_books", "_incoming", "_outgoing")

    def __init__(self, books: Books, application: Application | None = None) -> None:
        self._books: Final = books
        self._application: Final = NoApplication() if application is None else application
        self._incoming: Final[dict[int, IncomingLeg]] = {}
        self._outgoing: Final[dict[int, OutgoingLeg]] = {}
        for account in books.peers.values():
            for incoming in account.received.values():
                self._incoming[incoming.id] = incoming
            for outgoing in account.sent.values():
                self._outgoing[outgoing.id] = outgoing

    def apply(self, record: bytes) -> None:
        """Apply one batch; CodecError if it can't be one that these books wrote."""
        books = self._books
        assert not books.has_entries()
        for entry in r.decode_record(record):
            if isinstance(entry, r.Post):
                self._post(entry.leg, b"")
            elif isinstance(entry, r.Fulfilled):
                self._post(entry.leg, entry.fulfillment)
            elif isinstance(entry, r.Unkept):
                self._post_unkept(entry.leg)
            elif isinstance(entry, r.ReserveIncoming):
                self._reserve_incoming(entry)
            elif isinstance(entry, r.ReserveOutgoing):
                self._reserve_outgoing(entry)
            elif isinstance(entry, r.Void):
                self._void(entry)
            else:
                self._apply_rare(entry)
        if books.take_record() != record:
            raise CodecError("record", 0, "replay wrote other bytes than it read")
        for account in books.changed:
            account.dirty = False
        books.changed.clear()

    def _apply_rare(self, entry: r.Entry) -> None:
        books = self._books
        if isinstance(entry, r.NoteEntry):
            books.note(entry.data)
            self._application.apply(entry.data)
        elif isinstance(entry, r.AccountOpened):
            self._open(entry)
        elif isinstance(entry, r.TermsChanged):
            books.change_terms(entry.encoded)
        elif isinstance(entry, r.RatesEntry):
            books.change_rates(entry.encoded)
        elif isinstance(entry, r.LateFulfill):
            account = self._peer(entry.account)
            books.late_fulfill(account, entry.session, entry.request_id, entry.amount, entry.ms_late)
        elif isinstance(entry, r.AtRisk):
            books.put_at_risk(self._peer(entry.account), entry.leg, entry.amount, entry.ms_late)
        elif isinstance(entry, r.Transfer):
            self._transfer(entry)
        else:
            self._apply_outcome(entry)

    def _apply_outcome(self, entry: r.Entry) -> None:
        books = self._books
        if isinstance(entry, r.Acknowledged):
            books.acknowledge(self._peer(entry.account), entry.session, entry.watermark)
        elif isinstance(entry, r.Passed):
            self._pass(entry)
        elif isinstance(entry, r.Lost):
            account = self._peer(entry.account)
            leg = account.fulfilled.get((entry.session, entry.request_id))
            if leg is None:
                raise CodecError("lost", 0, f"{account.name} has no fulfilled leg {entry.request_id}")
            books.lose(account, leg)
        elif isinstance(entry, r.Forgotten):
            self._forget(entry)
        elif isinstance(entry, r.Confirmed):
            if entry.ended > 1:
                raise CodecError("confirmed", 0, f"{entry.ended} is neither 0 nor 1")
            books.confirm(self._peer(entry.account), entry.session, entry.watermark, ended=bool(entry.ended))
        elif isinstance(entry, r.Hearing):
            if entry.hearing not in (HEARS, DEAF):
                raise CodecError("hearing", 0, f"{entry.hearing} is neither {HEARS} nor {DEAF}")
            books.set_hearing(self._peer(entry.account), entry.hearing)
        elif isinstance(entry, r.SettingChanged):
            books.change_setting(entry.key, entry.value)
        elif isinstance(entry, r.GivenUp):
            books.give_up(self._peer(entry.account))
        else:
            self._apply_doubt(entry)

    def _apply_doubt(self, entry: r.Entry) -> None:
        books = self._books
        if isinstance(entry, r.DrainedEntry):
            books.drained()
        elif isinstance(entry, r.Dated):
            books.date(entry.wall_ms)
        elif isinstance(entry, r.Listed):
            books.end_doubts()
        else:
            self._apply_settlement(entry)

    def _apply_settlement(self, entry: r.Entry) -> None:
        books = self._books
        if isinstance(entry, r.SettlementBegun):
            self._begin(entry)
        elif isinstance(entry, r.SettlementMoved):
            self._move(entry)
        elif isinstance(entry, r.Credited):
            settlement_books.enter_credit(books, self._peer(entry.account), entry)
        elif isinstance(entry, r.KeyUsed):
            account = self._peer(entry.account)
            if entry.key not in settlement_books.settling_of(account).credited:
                raise CodecError("used", 0, f"{account.name} was not credited under this key")
            settlement_books.use_key(books, account, entry.key, entry.used_at)
        elif isinstance(entry, r.EngineKept):
            if not entry.key:
                raise CodecError("engine", 0, "what is kept has no key")
            settlement_books.keep(books, self._peer(entry.account), entry.key, entry.value)

    def _begin(self, entry: r.SettlementBegun) -> None:
        account = self._peer(entry.account)
        if entry.number != settlement_books.settling_of(account).last + 1:
            raise CodecError("settlement", 0, f"{account.name} has no settlement {entry.number - 1}")
        settlement = Settlement(entry.number, entry.amount, entry.key, entry.begun_at, BEGUN, entry.text)
        settlement_books.enter_begun(self._books, account, settlement)

    def _move(self, entry: r.SettlementMoved) -> None:
        account = self._peer(entry.account)
        settlement = settlement_books.settling_of(account).open.get(entry.number)
        if settlement is None or entry.state not in STATES:
            raise CodecError("settlement", 0, f"{account.name} has no open settlement {entry.number}, or no such state")
        settlement_books.move(self._books, account, settlement, entry.state, entry.text)

    def _pass(self, entry: r.Passed) -> None:
        if not entry.ranges or sorted(entry.ranges) != entry.ranges:
            raise CodecError("passed", 0, "its ranges don't ascend, or there are none")
        self._books.pass_ranges(self._peer(entry.account), entry.session, entry.ranges)

    def _forget(self, entry: r.Forgotten) -> None:
        account = self._peer(entry.account)
        if entry.named > 1:
            raise CodecError("forgotten", 0, f"{entry.named} is neither 0 nor 1")
        if entry.count > sum(1 for key in account.fulfilled if (key[1] != 0) == entry.named):
            raise CodecError("forgotten", 0, f"{account.name} has no {entry.count} fulfilled legs of the kind")
        self._books.forget_fulfilled(account, entry.count, named=bool(entry.named))

    # --- legs ---------------------------------------------------------------------------------------------------

    def _reserve_incoming(self, entry: r.ReserveIncoming) -> None:
        account = self._peer(entry.account)
        key = (entry.session, entry.request_id)
        if key in account.received or key in account.fulfilled:
            raise CodecError("incoming leg", 0, f"{account.name} has an open leg {entry.request_id} already")
        leg = IncomingLeg(
            self._books.last_leg + 1,
            account,
            entry.amount,
            entry.expires_at,
            entry.condition,
            entry.session,
            entry.request_id,
            0,
        )
        self._books.reserve_incoming(leg)
        self._incoming[leg.id] = leg

    def _reserve_outgoing(self, entry: r.ReserveOutgoing) -> None:
        account = self._peer(entry.account)
        incoming = self._incoming.get(entry.incoming_leg)
        if incoming is None:
            raise CodecError("outgoing leg", 0, f"there is no open incoming leg {entry.incoming_leg}")
        if entry.request_id in account.sent:
            raise CodecError("outgoing leg", 0, f"{account.name} has an open leg {entry.request_id} already")
        leg = OutgoingLeg(
            self._books.last_leg + 1,
            account,
            entry.amount,
            entry.spread,
            entry.rounding,
            entry.expires_at,
            entry.condition,
            entry.session,
            entry.request_id,
            incoming,
            0,
            0,
        )
        self._books.reserve_outgoing(leg)
        self._outgoing[leg.id] = leg

    def _post(self, leg: int, fulfillment: bytes) -> None:
        outgoing = None if fulfillment else self._outgoing.pop(leg, None)
        if outgoing is not None:
            self._books.post_outgoing(outgoing)
            return
        self._books.post_incoming(self._posted(leg), fulfillment)

    def _post_unkept(self, leg: int) -> None:
        self._books.post_incoming(self._posted(leg), in_doubt=True)

    def _posted(self, leg: int) -> IncomingLeg:
        incoming = self._incoming.pop(leg, None)
        if incoming is None:
            raise CodecError("post", 0, f"leg {leg} is not open")
        return incoming

    def _void(self, entry: r.Void) -> None:
        if entry.reason not in VOID_REASONS:
            raise CodecError("void", 0, f"{entry.reason} is no reason")
        outgoing = self._outgoing.pop(entry.leg, None)
        if outgoing is not None:
            self._books.void_outgoing(outgoing, entry.reason)
            return
        incoming = self._incoming.pop(entry.leg, None)
        if incoming is None:
            raise CodecError("void", 0, f"leg {entry.leg} is not open")
        self._books.void_incoming(incoming, entry.reason)

    # --- the rest -----------------------------------------------------------------------------------------------

    def _open(self, entry: r.AccountOpened) -> None:
        books = self._books
        asset = (entry.asset_code, entry.asset_scale)
        if entry.kind == PEER:
            missing = [kind for kind in ASSET_KINDS if internal_name(kind, *asset) not in books.internal]
            if missing or loss_name(entry.name) not in books.internal:
                raise CodecError("account", 0, f"{entry.name} comes before the accounts of its asset")
        elif entry.kind not in (LOSS, SETTLED) and entry.kind not in ASSET_KINDS:
            raise CodecError("account", 0, f"{entry.kind} is no kind of account")
        known = books.peers if entry.kind == PEER else books.internal
        if entry.name in known:
            raise CodecError("account", 0, f"{entry.name} is open already")
        books.open_account(entry.kind, entry.name, *asset)

    def _transfer(self, entry: r.Transfer) -> None:
        debit = self._account(entry.debit)
        credit = self._account(entry.credit)
        if (debit.asset_code, debit.asset_scale) != (credit.asset_code, credit.asset_scale):
            raise CodecError("transfer", 0, f"{debit.name} and {credit.name} have different assets")
        if not self._books.transfer(debit, credit, entry.amount, entry.kind, entry.key, entry.text):
            raise CodecError("transfer", 0, "its key was used before")

    def _account(self, index: int) -> Account:
        if index >= len(self._books.accounts):
            raise CodecError("account", 0, f"there is no account with index {index}")
        return self._books.accounts[index]

    def _peer(self, index: int) -> Account:
        account = self._account(index)
        if account.kind != PEER:
            raise CodecError("account", 0, f"{account.name} is not a peer's")
        return account
