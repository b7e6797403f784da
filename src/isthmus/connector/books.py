"""The books: double entry, deterministic, event-sourced (design, "The books").

Every mutating method writes its entry to `record`, live and on replay alike, so a replayed batch must give the bytes
that it was read from. What may be reserved is for the switch to decide; the books carry it out.

Accounts of peers stand against one clearing account per asset; spread and rounding are revenue accounts apart, so
that position and earnings can be read off. A positive balance is a debit: a peer that owes us. The sum over all
accounts of an asset is always zero. Amounts of zero go the same way as others: their legs carry the wire identity
that their replies need, and no money (P-11).
"""

from bisect import bisect_right
from typing import Final, final

from isthmus.connector import record as r
from isthmus.connector.doubts import Doubts
from isthmus.connector.events import REQUEST_ID_MAX, AccountId
from isthmus.connector.legs import UNSAID, IncomingLeg, OutgoingLeg
from isthmus.connector.settling import Settling
from isthmus.connector.tables import with_rates

# Kinds of accounts. The numbers are in journals: never change their meaning.
PEER: Final = 0
CLEARING: Final = 1
SPREAD: Final = 2
ROUNDING: Final = 3
LOSS: Final = 4  # one per peer: what it refused to pay, until the operator writes it off
WRITTEN_OFF: Final = 5
ADJUSTMENT: Final = 6
SETTLED: Final = 7  # one per peer that ever settled: what went over the ledger; positive for what came in
ASSET_KINDS: Final = {
    CLEARING: "clearing",
    SPREAD: "revenue:spread",
    ROUNDING: "revenue:rounding",
    WRITTEN_OFF: "written-off",
    ADJUSTMENT: "adjustment",
}

# Kinds of transfers.
ADJUST: Final = 1
BOOK_LOSS: Final = 2  # from the peer's account to its loss account, which counts against the peer's limit
WRITE_OFF: Final = 3  # from the loss account to the asset's written-off account: frees the limit again
GIVE_UP: Final = 4  # from the peer's account to itself: what it won't acknowledge any more. No balance changes
SETTLE: Final = 5  # we pay the peer on a ledger: its account is debited before the engine hears of it
SETTLED_BY_PEER: Final = 6  # the peer has paid us on a ledger
SETTLE_BACK: Final = 7  # a settlement of ours can't happen any more, or one of the peer's was undone by its ledger
SETTLE_BY_HAND: Final = 8  # either side has paid where no engine looks, by the operator's word

# Whether a peer takes our reports of outcomes (docs/outcomes.md). The numbers are in journals.
UNKNOWN: Final = 0
HEARS: Final = 1
DEAF: Final = 2  # another implementation, which rejects them: outcomes are kept for nobody
TAKES_REPORTS: Final = {UNKNOWN: "unknown", HEARS: "yes", DEAF: "no"}

# Outcomes of one account that its peer has not acknowledged: what we fulfilled, and what we voided. Above it the switch
# takes no new Prepares.
OUTCOMES_MAX: Final = 16_384
# Sessions of ours with one peer of which it hasn't taken all outcomes: one more with each restart until then.
SESSIONS_MAX: Final = 256
# Sessions of a peer of which we know how far it has decided: as many as it may have left open at once.
ACKNOWLEDGED_MAX: Final = SESSIONS_MAX

# Amounts at risk that are kept one by one; the totals per account stay.
AT_RISK_MAX: Final = 1_000

_POST_BOTH: Final = r.PACK_POSTS.pack
_FULFIL_BOTH: Final = r.PACK_FULFILLED_BOTH.pack
_RESERVE_BOTH: Final = r.PACK_FORWARD.pack


@final
class Account:
    """One ledger account. Those of kind PEER have legs and limits; the others only a balance."""

    __slots__ = (
        "acknowledged",
        "asset_code",
        "asset_scale",
        "at_risk",
        "balance",
        "clearing",
        "dirty",
        "fulfilled",
        "fulfilled_amount",
        "hearing",
        "index",
        "is_local",
        "kind",
        "last_request_id",
        "late_amount",
        "late_count",
        "loss",
        "name",
        "nameless",
        "posted_incoming",
        "posted_incoming_count",
        "posted_outgoing",
        "posted_outgoing_count",
        "received",
        "reserved_incoming",
        "reserved_outgoing",
        "rounding",
        "sent",
        "session",
        "sessions",
        "settling",
        "spread",
        "unsaid",
    )

    def __init__(self, index: int, kind: int, name: str, asset_code: str, asset_scale: int) -> None:
        self.index: Final = index
        self.kind: Final = kind
        self.name: Final = name
        self.asset_code: Final = asset_code
        self.asset_scale: Final = asset_scale
        self.balance = 0
        self.reserved_incoming = 0
        self.reserved_outgoing = 0
        self.late_amount = 0  # fulfilled by the peer after we had voided (P-12)
        self.late_count = 0
        self.at_risk = 0  # total of Fulfills that left after the peer's expiry (P-6)
        self.last_request_id = 0  # of our Prepares
        self.posted_incoming = 0  # totals since ever
        self.posted_outgoing = 0
        self.posted_incoming_count = 0
        self.posted_outgoing_count = 0
        self.received: Final[dict[tuple[bytes, int], IncomingLeg]] = {}  # open legs by wire identity
        self.sent: Final[dict[int, OutgoingLeg]] = {}  # open legs by request id
        # Outcomes between us and the peer. Of its Prepares: legs that we fulfilled, oldest first, of which we don't yet
        # know what it decided; and how far it has told us, by its session.
        self.fulfilled: Final[dict[tuple[bytes, int], IncomingLeg]] = {}
        self.fulfilled_amount = 0
        self.nameless = 0  # how many of these no report can name: HTTP requests of other implementations have no id
        self.acknowledged: Final[dict[bytes, int]] = {}
        # Of ours: the session of our newest Prepare; those before it of which the peer hasn't taken all outcomes, with
        # the last request id of each; and amounts of legs that we voided without a word of the peer.
        self.session = b""
        self.sessions: Final[dict[bytes, int]] = {}
        self.unsaid: Final[dict[tuple[bytes, int], int]] = {}
        self.hearing = UNKNOWN
        self.settling: Settling | None = None  # since the first settlement
        self.dirty = False  # changed since the last summary
        self.is_local = False  # by the tables: an endpoint in this process, which no crash parts from us
        # Of a peer's account: what its legs are posted against, and its losses.
        self.clearing: Account = self
        self.spread: Account = self
        self.rounding: Account = self
        self.loss: Account = self

    def keep(self, leg: IncomingLeg) -> None:
        """A fulfilled leg, until it is known what its sender decided."""
        self.fulfilled[leg.session, leg.request_id] = leg
        self.fulfilled_amount += leg.amount
        if not leg.request_id:
            self.nameless += 1

    def drop(self, keys: list[tuple[bytes, int]]) -> list[IncomingLeg]:
        """The fulfilled legs of these keys, which are kept no longer."""
        legs = [self.fulfilled.pop(key) for key in keys]
        for leg in legs:
            self.fulfilled_amount -= leg.amount
            if not leg.request_id:
                self.nameless -= 1
        return legs

    def untold_sessions(self) -> list[bytes]:
        """Our sessions of which the peer may not have taken all outcomes."""
        return [*self.sessions, self.session] if self.session and self.hearing != DEAF else list(self.sessions)

    def last_request_of(self, session: bytes) -> int:
        """The last request id that we used in one of them."""
        return self.last_request_id if session == self.session else self.sessions.get(session, 0)


@final
class Books:
    """All accounts of one journal and their open legs."""

    __slots__ = (
        "accounts",
        "at_risk",
        "changed",
        "doubts",
        "internal",
        "last_leg",
        "peers",
        "record",
        "settings",
        "terms",
        "transfer_keys",
    )

    def __init__(self) -> None:
        self.accounts: Final[list[Account]] = []  # by index
        self.peers: Final[dict[AccountId, Account]] = {}
        self.internal: Final[dict[str, Account]] = {}
        self.last_leg = 0
        self.terms = b""  # canonical bytes of the tables in force
        self.settings: Final[dict[bytes, bytes]] = {}  # what the operator set at run time; the node knows what it means
        # Amounts whose Fulfill left after the incoming expiry, newest last: (account index, leg, amount, ms late)
        self.at_risk: list[tuple[int, int, int, int]] = []
        self.transfer_keys: Final[dict[bytes, int]] = {}
        self.doubts: Final = Doubts()
        self.record: Final = bytearray(r.RECORD_START)  # entries since the last `take_record`
        self.changed: Final[list[Account]] = []  # accounts with `dirty` set

    def take_record(self) -> bytes:
        """What was written since the last call, as one record."""
        taken = bytes(self.record)
        self.doubts.record_taken()
        del self.record[len(r.RECORD_START) :]
        return taken

    def has_entries(self) -> bool:
        return len(self.record) > len(r.RECORD_START)

    # --- accounts -----------------------------------------------------------------------------------------------

    def open_peer(self, name: AccountId, asset_code: str, asset_scale: int) -> Account:
        """Open a peer's account and its loss account, and those of the asset where it is the first."""
        for kind in ASSET_KINDS:
            internal = internal_name(kind, asset_code, asset_scale)
            if internal not in self.internal:
                self.open_account(kind, internal, asset_code, asset_scale)
        self.open_account(LOSS, loss_name(name), asset_code, asset_scale)
        return self.open_account(PEER, name, asset_code, asset_scale)

    def open_account(self, kind: int, name: str, asset_code: str, asset_scale: int) -> Account:
        assert name not in (self.peers if kind == PEER else self.internal), name
        account = Account(len(self.accounts), kind, name, asset_code, asset_scale)
        self.accounts.append(account)
        if kind == PEER:
            self.peers[AccountId(name)] = account
            account.clearing = self.internal[internal_name(CLEARING, asset_code, asset_scale)]
            account.spread = self.internal[internal_name(SPREAD, asset_code, asset_scale)]
            account.rounding = self.internal[internal_name(ROUNDING, asset_code, asset_scale)]
            account.loss = self.internal[loss_name(name)]
        else:
            self.internal[name] = account
        self.record.extend(r.encode_opened(kind, name, asset_code, asset_scale))
        return account

    # --- legs ---------------------------------------------------------------------------------------------------

    def reserve(self, incoming: IncomingLeg, outgoing: OutgoingLeg) -> None:
        """Reserve both legs of a packet: the same as one `reserve_incoming` and one `reserve_outgoing`, but faster."""
        source = incoming.account
        destination = outgoing.account
        assert incoming.id == self.last_leg + 1
        assert outgoing.id == incoming.id + 1
        self.last_leg = outgoing.id
        key = (incoming.session, incoming.request_id)
        assert key not in source.received
        assert outgoing.request_id not in destination.sent
        source.received[key] = incoming
        source.reserved_incoming += incoming.amount
        destination.sent[outgoing.request_id] = outgoing
        destination.reserved_outgoing += outgoing.amount
        if outgoing.session != destination.session:
            _begin_session(destination, outgoing.session)
        destination.last_request_id = outgoing.request_id
        self.record.extend(
            _RESERVE_BOTH(
                r.INCOMING,
                source.index,
                incoming.amount,
                incoming.expires_at,
                incoming.condition,
                incoming.session,
                incoming.request_id,
                r.OUTGOING,
                destination.index,
                outgoing.amount,
                outgoing.expires_at,
                outgoing.condition,
                outgoing.session,
                outgoing.request_id,
                outgoing.spread,
                outgoing.rounding,
                incoming.id,
            )
        )

    def reserve_incoming(self, leg: IncomingLeg) -> None:
        assert leg.id == self.last_leg + 1
        self.last_leg = leg.id
        account = leg.account
        key = (leg.session, leg.request_id)
        assert key not in account.received
        account.received[key] = leg
        account.reserved_incoming += leg.amount
        self.record.extend(
            r.PACK_INCOMING.pack(
                r.INCOMING, account.index, leg.amount, leg.expires_at, leg.condition, leg.session, leg.request_id
            )
        )

    def reserve_outgoing(self, leg: OutgoingLeg) -> None:
        assert leg.id == self.last_leg + 1
        self.last_leg = leg.id
        account = leg.account
        assert leg.request_id not in account.sent
        account.sent[leg.request_id] = leg
        account.reserved_outgoing += leg.amount
        if leg.session != account.session:
            _begin_session(account, leg.session)
        account.last_request_id = leg.request_id
        self.record.extend(
            r.PACK_OUTGOING.pack(
                r.OUTGOING,
                account.index,
                leg.amount,
                leg.expires_at,
                leg.condition,
                leg.session,
                leg.request_id,
                leg.spread,
                leg.rounding,
                leg.incoming.id,
            )
        )

    def post(self, outgoing: OutgoingLeg, fulfillment: bytes = b"") -> None:
        """Post both legs, the outgoing one first: the same as `post_outgoing` and `post_incoming`, but faster."""
        incoming = outgoing.incoming
        self._move_outgoing(outgoing)
        account = incoming.account
        del account.received[incoming.session, incoming.request_id]
        amount = incoming.amount
        account.reserved_incoming -= amount
        account.balance += amount
        account.posted_incoming += amount
        account.posted_incoming_count += 1
        account.clearing.balance -= amount
        if not account.dirty:
            self._touch(account)
        if fulfillment:
            self._keep(incoming, fulfillment)
            self.record.extend(_FULFIL_BOTH(r.POST, outgoing.id, r.FULFILLED, incoming.id, fulfillment))
        elif account.is_local:
            self.record.extend(_POST_BOTH(r.POST, outgoing.id, r.POST, incoming.id))
        else:
            self.doubts.add(self.record, incoming)
            self.record.extend(_POST_BOTH(r.POST, outgoing.id, r.UNKEPT, incoming.id))

    def post_outgoing(self, leg: OutgoingLeg) -> None:
        """The peer -= amount, clearing += amount and what we keep, revenue -= what we keep."""
        self._move_outgoing(leg)
        self.record.extend(r.PACK_POST.pack(r.POST, leg.id))

    def post_incoming(self, leg: IncomingLeg, fulfillment: bytes = b"", *, in_doubt: bool = False) -> None:
        """The peer += amount, clearing -= amount.

        With a fulfillment (32 bytes) the leg is kept until the peer has told what it decided; without, it is forgotten:
        the account is one of our own endpoints, or, `in_doubt`, its peer tells nothing.
        """
        account = leg.account
        del account.received[leg.session, leg.request_id]
        account.reserved_incoming -= leg.amount
        account.balance += leg.amount
        account.posted_incoming += leg.amount
        account.posted_incoming_count += 1
        account.clearing.balance -= leg.amount
        if not account.dirty:
            self._touch(account)
        if fulfillment:
            self._keep(leg, fulfillment)
            self.record.extend(r.PACK_FULFILLED.pack(r.FULFILLED, leg.id, fulfillment))
        elif in_doubt:
            self.doubts.add(self.record, leg)
            self.record.extend(r.PACK_POST.pack(r.UNKEPT, leg.id))
        else:
            self.record.extend(r.PACK_POST.pack(r.POST, leg.id))

    def _keep(self, leg: IncomingLeg, fulfillment: bytes) -> None:
        """A leg that was posted may be asked for again."""
        leg.fulfillment = fulfillment
        leg.account.keep(leg)
        if not leg.request_id:
            self.doubts.add(self.record, leg)

    def _move_outgoing(self, leg: OutgoingLeg) -> None:
        account = leg.account
        del account.sent[leg.request_id]
        amount = leg.amount
        account.reserved_outgoing -= amount
        account.balance -= amount
        account.posted_outgoing += amount
        account.posted_outgoing_count += 1
        kept = leg.spread + leg.rounding
        if kept:
            account.spread.balance -= leg.spread
            account.rounding.balance -= leg.rounding
        account.clearing.balance += amount + kept
        if not account.dirty:
            self._touch(account)

    def void_outgoing(self, leg: OutgoingLeg, reason: int) -> None:
        account = leg.account
        del account.sent[leg.request_id]
        account.reserved_outgoing -= leg.amount
        if reason in UNSAID and (account.hearing != DEAF or leg.session in account.sessions):
            account.unsaid[leg.session, leg.request_id] = leg.amount
        self.record.extend(r.PACK_VOID.pack(r.VOID, leg.id, reason))

    def void_incoming(self, leg: IncomingLeg, reason: int) -> None:
        account = leg.account
        del account.received[leg.session, leg.request_id]
        account.reserved_incoming -= leg.amount
        self.record.extend(r.PACK_VOID.pack(r.VOID, leg.id, reason))

    def _touch(self, account: Account) -> None:
        account.dirty = True
        self.changed.append(account)

    # --- outcomes -----------------------------------------------------------------------------------------------

    def acknowledge(self, account: Account, session: bytes, watermark: int) -> None:
        """The peer has decided all its Prepares of this session up to the watermark: what we fulfilled, it posted."""
        told = account.acknowledged
        if session not in told and len(told) >= ACKNOWLEDGED_MAX:
            del told[next(iter(told))]
        told[session] = max(watermark, told.get(session, 0))
        account.drop([key for key in account.fulfilled if key[0] == session and key[1] <= watermark])
        self.record.extend(r.PACK_ACKNOWLEDGED.pack(r.ACKNOWLEDGED, account.index, session, watermark))

    def pass_ranges(self, account: Account, session: bytes, ranges: list[tuple[int, int]]) -> None:
        """The same of request ids above the watermark, which an open Prepare holds down."""
        account.drop([key for key in account.fulfilled if key[0] == session and find_range(ranges, key[1]) >= 0])
        entry = r.PACK_PASSED.pack(r.PASSED, account.index, session, len(ranges))
        self.record.extend(entry + b"".join([r.PACK_RANGE.pack(first, last) for first, last in ranges]))

    def lose(self, account: Account, leg: IncomingLeg) -> None:
        """The peer voided what we fulfilled and posted: it doesn't owe it. The loss counts against its limit."""
        account.drop([(leg.session, leg.request_id)])
        account.balance -= leg.amount
        account.loss.balance += leg.amount
        for one in (account, account.loss):
            if not one.dirty:
                self._touch(one)
        self.record.extend(r.PACK_LOST.pack(r.LOST, account.index, leg.session, leg.request_id))

    def forget_fulfilled(self, account: Account, count: int, *, named: bool) -> list[IncomingLeg]:
        """No longer keep the `count` oldest legs that we fulfilled, of those with a request id or of those without."""
        keys = [key for key in account.fulfilled if (key[1] != 0) == named][:count]
        assert len(keys) == count
        legs = account.drop(keys)
        self.record.extend(r.PACK_FORGOTTEN.pack(r.FORGOTTEN, account.index, count, named))
        return legs

    def confirm(self, account: Account, session: bytes, watermark: int, *, ended: bool) -> None:
        """The peer has taken what we decided in this session of ours up to the watermark, for good."""
        for key in [key for key in account.unsaid if key[0] == session and key[1] <= watermark]:
            del account.unsaid[key]
        if ended and session == account.session:
            account.session = b""
        elif ended:
            account.sessions.pop(session, None)
        self.record.extend(r.PACK_CONFIRMED.pack(r.CONFIRMED, account.index, session, watermark, ended))

    def set_hearing(self, account: Account, hearing: int) -> None:
        """We learned whether the peer takes reports. One that never did needs none; one that did may again."""
        if hearing == DEAF and account.hearing == HEARS:
            _end_session(account)
            account.session = b""
        elif hearing == DEAF:
            account.session = b""
            account.sessions.clear()
            account.unsaid.clear()
        account.hearing = hearing
        self.record.extend(r.PACK_HEARING.pack(r.HEARING, account.index, hearing))

    def give_up(self, account: Account) -> list[IncomingLeg]:
        """By the operator's word the peer won't acknowledge what we fulfilled, nor hear of what we voided."""
        legs = account.drop(list(account.fulfilled))
        self.doubts.drop({leg.id for leg in legs})
        account.unsaid.clear()
        account.sessions.clear()
        account.session = b""
        self.record.extend(r.PACK_GIVEN_UP.pack(r.GIVEN_UP, account.index))
        return legs

    def date(self, wall_ms: int) -> None:
        self.doubts.date(self.record, wall_ms)

    def end_doubts(self) -> None:
        """What was in doubt is listed as at risk."""
        self.doubts.legs.clear()
        self.record.append(r.LISTED)

    def drained(self) -> None:
        """A stop in order begins: what was decided has been told to whom it concerns."""
        self.doubts.legs.clear()
        self.record.append(r.DRAINED)

    # --- what is remembered besides -----------------------------------------------------------------------------

    def late_fulfill(self, account: Account, session: bytes, request_id: int, amount: int, ms_late: int) -> None:
        """The peer fulfilled a leg that was void already: no balance changes, the operator is shown it (P-12)."""
        ms_late = min(ms_late, r.MS_LATE_MAX)
        account.late_amount += amount
        account.late_count += 1
        self.record.extend(r.PACK_LATE.pack(r.LATE, account.index, session, request_id, amount, ms_late))

    def put_at_risk(self, account: Account, leg: int, amount: int, ms_late: int) -> None:
        """A Fulfill left after the incoming expiry because the commit took long; the peer may refuse it (P-6)."""
        ms_late = min(ms_late, r.MS_LATE_MAX)
        account.at_risk += amount
        self.at_risk.append((account.index, leg, amount, ms_late))
        if len(self.at_risk) > AT_RISK_MAX:
            del self.at_risk[0]
        self.record.extend(r.PACK_AT_RISK.pack(r.AT_RISK, account.index, leg, amount, ms_late))

    def transfer(self, debit: Account, credit: Account, amount: int, kind: int, key: bytes, text: str) -> bool:
        """Move `amount` from `credit` to `debit`, once per key; False if this key was used before."""
        assert amount >= 0
        assert (debit.asset_code, debit.asset_scale) == (credit.asset_code, credit.asset_scale)
        if key:
            if key in self.transfer_keys:
                return False
            self.transfer_keys[key] = kind
        debit.balance += amount
        credit.balance -= amount
        for account in (debit, credit):
            if not account.dirty:
                self._touch(account)
        self.record.extend(r.encode_transfer(r.Transfer(kind, debit.index, credit.index, amount, key, text)))
        return True

    def change_terms(self, encoded: bytes) -> None:
        self.terms = encoded
        self.record.extend(r.encode_terms(encoded))

    def change_rates(self, encoded: bytes) -> None:
        """The terms hold with other rates; CodecError if there are none. The entry is as long as the rates alone."""
        self.terms = with_rates(self.terms, encoded)
        self.record.extend(r.encode_rates(encoded))

    def change_setting(self, key: bytes, value: bytes) -> None:
        """Keep a setting, or with an empty value take it away."""
        if value:
            self.settings[key] = value
        else:
            self.settings.pop(key, None)
        self.record.extend(r.encode_setting(key, value))

    def note(self, data: bytes) -> None:
        """An application's entry: the books keep its place in the order, and nothing of it."""
        self.record.extend(r.encode_note(data))

    # --- sums ---------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Assert what must hold between any two entries; linear in accounts and open legs."""
        sums: dict[tuple[str, int], int] = {}
        for account in self.accounts:
            asset = (account.asset_code, account.asset_scale)
            sums[asset] = sums.get(asset, 0) + account.balance
            assert account.reserved_incoming == sum(leg.amount for leg in account.received.values())
            assert account.reserved_outgoing == sum(leg.amount for leg in account.sent.values())
            assert account.fulfilled_amount == sum(leg.amount for leg in account.fulfilled.values())
            assert account.nameless == sum(1 for _, request_id in account.fulfilled if request_id == 0)
        assert not any(sums.values()), sums


def _begin_session(account: Account, session: bytes) -> None:
    """The first Prepare of another session of ours; the one before may still have outcomes to tell."""
    if account.hearing != DEAF:
        _end_session(account)
    account.sessions.pop(session, None)
    account.session = session


def _end_session(account: Account) -> None:
    sessions = account.sessions
    if account.session:
        if len(sessions) >= SESSIONS_MAX:
            del sessions[next(iter(sessions))]
        sessions[account.session] = account.last_request_id


def find_range(ranges: list[tuple[int, int]], request_id: int) -> int:
    """The number of the range that a request id is in; -1 for none."""
    at = bisect_right(ranges, (request_id, REQUEST_ID_MAX)) - 1
    return at if at >= 0 and request_id <= ranges[at][1] else -1


def internal_name(kind: int, asset_code: str, asset_scale: int) -> str:
    """The name of an asset's own accounts: "clearing:USD:9", "revenue:spread:USD:9"."""
    return f"{ASSET_KINDS[kind]}:{asset_code}:{asset_scale}"


def settled_name(peer: str) -> str:
    return f"settled:{peer}"


def loss_name(peer: str) -> str:
    return f"loss:{peer}"
