"""The entries of the journal: money events in bytes, and back.

A record is what one batch appends: a format version byte, then entries one after another, big-endian. Each entry is
an outcome, never an input: whoever replays it consults no table and no clock. Ids of accounts and legs are not in the
bytes; they count up, so the order of the entries gives them.

    opened    account: kind u8, scale u8, name, asset code        its id, asset and scale are fixed for ever
    incoming  reserve: account u32, amount u64, expiry i64 (wall ms), condition 32, session 16, request id u32
    outgoing  reserve: the same, then spread u64, rounding u8, id of the incoming leg u64
    post      leg u64
    void      leg u64, reason u8
    late      a Fulfill after the leg was void: account u32, session 16, request id u32, amount u64, ms late u32
    at risk   a commit that ended after the incoming expiry: account u32, leg u64, amount u64, ms late u32
    transfer  kind u8, debit account u32, credit account u32, amount, key, text
    terms     canonical bytes of the tables that hold from here on
    note      an application's entry
    fulfilled a post of an incoming leg, with what the peer may ask for again: leg u64, fulfillment 32
    acknowledged  the peer's outcomes of a session are durable up to here: account u32, session 16, watermark u32
    lost      a leg that we posted and the peer voided: account u32, session 16, request id u32
    forgotten the oldest legs that we posted and keep, of those with or without a request id: account u32, count u32,
              named u8
    confirmed the peer has taken our outcomes of a session: account u32, session 16, watermark u32, ended u8
    hearing   whether the peer takes reports of outcomes: account u32, hearing u8
    rates     canonical bytes of the rates that hold from here on; the tables' others stay
    passed    the same as acknowledged, of ranges above: account u32, session 16, count u16, pairs of request ids u32
    drained   nothing is in flight, and all frames were handed over: a stop in order
    setting   what the operator set at run time: key, value; an empty value takes the key away
    unkept    a post of an incoming leg of which nothing is kept, whose Fulfill a crash may lose: leg u64
    dated     the wall clock, before the first leg of a record that is in doubt, or when none is any longer: i64 ms
    listed    what an earlier process left in doubt was listed as at risk
    given up  what we keep for a peer's acknowledgement, and what it must hear of: account u32
    begun     a settlement of ours, whose transfer is the entry before: account u32, number u64, wall ms i64,
              key 16, amount, text
    moved     a settlement of ours is in another state: account u32, number u64, state u8, text
    credited  a settlement of the peer's, whose transfer is the entry before unless it is less than a unit:
              account u32, wall ms i64, key, amount credited, what is left over: amount, scale u8
    used      the key of a settlement of the peer's was used once more: account u32, wall ms i64, key
    engine    what the account's settlement engine keeps: account u32, key, value; an empty value takes the key away

Names, codes, amounts, keys and texts are length-prefixed (u8, u16, u8, u8, u16), terms, rates, notes and settings'
and engines' values by u32, their keys by u8.
"""

from dataclasses import dataclass
from struct import Struct
from typing import Final, TypeAlias, final

from isthmus.connector.octets import Reader, encode_amount, encode_text
from isthmus.errors import CodecError

RECORD_VERSION: Final = 1
RECORD_START: Final = bytes((RECORD_VERSION,))

OPENED: Final = 1
INCOMING: Final = 2
OUTGOING: Final = 3
POST: Final = 4
VOID: Final = 5
LATE: Final = 6
AT_RISK: Final = 7
TRANSFER: Final = 8
TERMS: Final = 9
NOTE: Final = 10
FULFILLED: Final = 11
ACKNOWLEDGED: Final = 12
LOST: Final = 13
FORGOTTEN: Final = 14
CONFIRMED: Final = 15
HEARING: Final = 16
DRAINED: Final = 17
RATES: Final = 18
SETTING: Final = 19
UNKEPT: Final = 20
DATED: Final = 21
LISTED: Final = 22
GIVEN_UP: Final = 23
PASSED: Final = 24
BEGUN: Final = 25
MOVED: Final = 26
CREDITED: Final = 27
USED: Final = 28
ENGINE: Final = 29

# One struct call for the two reserves of a packet, one for its two posts: 213 bytes a forwarded packet.
PACK_INCOMING: Final[Struct] = Struct(">BIQq32s16sI")
PACK_OUTGOING: Final[Struct] = Struct(">BIQq32s16sIQBQ")
PACK_FORWARD: Final[Struct] = Struct(">BIQq32s16sIBIQq32s16sIQBQ")
PACK_POST: Final[Struct] = Struct(">BQ")
PACK_POSTS: Final[Struct] = Struct(">BQBQ")
PACK_VOID: Final[Struct] = Struct(">BQB")
PACK_LATE: Final[Struct] = Struct(">BI16sIQI")
PACK_AT_RISK: Final[Struct] = Struct(">BIQQI")
PACK_FULFILLED: Final[Struct] = Struct(">BQ32s")
PACK_FULFILLED_BOTH: Final[Struct] = Struct(">BQBQ32s")
PACK_ACKNOWLEDGED: Final[Struct] = Struct(">BI16sI")
PACK_LOST: Final[Struct] = Struct(">BI16sI")
PACK_FORGOTTEN: Final[Struct] = Struct(">BIIB")
PACK_PASSED: Final[Struct] = Struct(">BI16sH")
PACK_RANGE: Final[Struct] = Struct(">II")
PACK_CONFIRMED: Final[Struct] = Struct(">BI16sIB")
PACK_HEARING: Final[Struct] = Struct(">BIB")
PACK_DATED: Final[Struct] = Struct(">Bq")
PACK_GIVEN_UP: Final[Struct] = Struct(">BI")
_TRANSFER_HEAD: Final = Struct(">BBII")
_BEGUN_HEAD: Final = Struct(">BIQq16s")
_MOVED_HEAD: Final = Struct(">BIQB")
_CREDITED_HEAD: Final = Struct(">BIq")
_ENGINE_HEAD: Final = Struct(">BI")
_OPENED_HEAD: Final = Struct(">BBB")

NAME_BYTES_MAX: Final = 255
CODE_BYTES_MAX: Final = 65_535
KEY_BYTES_MAX: Final = 255
SETTING_KEY_BYTES_MAX: Final = 255
# An account with keys in PEM form and all its paths takes some kilobytes.
SETTING_BYTES_MAX: Final = 65_536
MS_LATE_MAX: Final = 2**32 - 1


@final
@dataclass(slots=True)
class AccountOpened:
    kind: int  # of books.py: PEER, CLEARING, …
    name: str
    asset_code: str
    asset_scale: int


@final
@dataclass(slots=True)
class ReserveIncoming:
    account: int
    amount: int
    expires_at: int  # wall ms
    condition: bytes
    session: bytes
    request_id: int


@final
@dataclass(slots=True)
class ReserveOutgoing:
    account: int
    amount: int
    expires_at: int  # wall ms
    condition: bytes
    session: bytes
    request_id: int
    spread: int
    rounding: int
    incoming_leg: int


@final
@dataclass(slots=True)
class Post:
    leg: int


@final
@dataclass(slots=True)
class Void:
    leg: int
    reason: int  # of legs.py


@final
@dataclass(slots=True)
class LateFulfill:
    account: int
    session: bytes
    request_id: int
    amount: int
    ms_late: int


@final
@dataclass(slots=True)
class AtRisk:
    account: int
    leg: int
    amount: int
    ms_late: int


@final
@dataclass(slots=True)
class Fulfilled:
    leg: int
    fulfillment: bytes


@final
@dataclass(slots=True)
class Acknowledged:
    account: int
    session: bytes  # the peer's
    watermark: int


@final
@dataclass(slots=True)
class Passed:
    account: int
    session: bytes  # the peer's
    ranges: list[tuple[int, int]]  # first and last request id of each


@final
@dataclass(slots=True)
class Lost:
    account: int
    session: bytes  # the peer's
    request_id: int


@final
@dataclass(slots=True)
class Forgotten:
    account: int
    count: int
    named: int  # 1: of legs with a request id


@final
@dataclass(slots=True)
class Confirmed:
    account: int
    session: bytes  # ours
    watermark: int
    ended: int  # 1: nothing of this session will be reported any more


@final
@dataclass(slots=True)
class Hearing:
    account: int
    hearing: int  # of books.py: HEARS, DEAF


@final
@dataclass(slots=True)
class DrainedEntry:
    pass


@final
@dataclass(slots=True)
class Unkept:
    leg: int


@final
@dataclass(slots=True)
class Dated:
    wall_ms: int


@final
@dataclass(slots=True)
class Listed:
    pass


@final
@dataclass(slots=True)
class GivenUp:
    account: int


@final
@dataclass(slots=True)
class Transfer:
    """`debit` += amount, `credit` -= amount: the only way besides posts in which a balance changes."""

    kind: int  # of books.py: ADJUSTMENT, LOSS, …
    debit: int
    credit: int
    amount: int
    key: bytes  # makes it happen once; empty for none
    text: str  # for people


@final
@dataclass(slots=True)
class TermsChanged:
    encoded: bytes


@final
@dataclass(slots=True)
class RatesEntry:
    encoded: bytes


@final
@dataclass(slots=True)
class NoteEntry:
    data: bytes


@final
@dataclass(slots=True)
class SettingChanged:
    key: bytes
    value: bytes  # empty: the key is taken away


@final
@dataclass(slots=True)
class SettlementBegun:
    account: int
    number: int
    begun_at: int  # wall ms
    key: bytes
    amount: int
    text: str


@final
@dataclass(slots=True)
class SettlementMoved:
    account: int
    number: int
    state: int  # of settling.py
    text: str


@final
@dataclass(slots=True)
class Credited:
    account: int
    credited_at: int  # wall ms
    key: bytes
    amount: int
    leftover: int
    leftover_scale: int


@final
@dataclass(slots=True)
class KeyUsed:
    account: int
    used_at: int  # wall ms
    key: bytes


@final
@dataclass(slots=True)
class EngineKept:
    account: int
    key: bytes
    value: bytes  # empty: the key is taken away


Entry: TypeAlias = (
    AccountOpened
    | ReserveIncoming
    | ReserveOutgoing
    | Post
    | Void
    | LateFulfill
    | AtRisk
    | Transfer
    | TermsChanged
    | NoteEntry
    | Fulfilled
    | Acknowledged
    | Passed
    | Lost
    | Forgotten
    | Confirmed
    | Hearing
    | DrainedEntry
    | Unkept
    | Dated
    | Listed
    | GivenUp
    | RatesEntry
    | SettingChanged
    | SettlementBegun
    | SettlementMoved
    | Credited
    | KeyUsed
    | EngineKept
)


# --- encoding of the rare entries; books.py packs the frequent ones itself -------------------------------------------


def encode_opened(kind: int, name: str, asset_code: str, asset_scale: int) -> bytes:
    name_bytes = name.encode()
    code_bytes = asset_code.encode()
    assert len(name_bytes) <= NAME_BYTES_MAX
    assert len(code_bytes) <= CODE_BYTES_MAX
    head = _OPENED_HEAD.pack(OPENED, kind, asset_scale)
    return b"".join((head, bytes((len(name_bytes),)), name_bytes, len(code_bytes).to_bytes(2, "big"), code_bytes))


def encode_transfer(transfer: Transfer) -> bytes:
    assert len(transfer.key) <= KEY_BYTES_MAX
    head = _TRANSFER_HEAD.pack(TRANSFER, transfer.kind, transfer.debit, transfer.credit)
    key = bytes((len(transfer.key),)) + transfer.key
    return b"".join((head, encode_amount(transfer.amount), key, encode_text(transfer.text)))


def encode_begun(entry: SettlementBegun) -> bytes:
    head = _BEGUN_HEAD.pack(BEGUN, entry.account, entry.number, entry.begun_at, entry.key)
    return b"".join((head, encode_amount(entry.amount), encode_text(entry.text)))


def encode_moved(entry: SettlementMoved) -> bytes:
    return _MOVED_HEAD.pack(MOVED, entry.account, entry.number, entry.state) + encode_text(entry.text)


def encode_credited(entry: Credited) -> bytes:
    assert len(entry.key) <= KEY_BYTES_MAX
    return b"".join(
        (
            _CREDITED_HEAD.pack(CREDITED, entry.account, entry.credited_at),
            bytes((len(entry.key),)),
            entry.key,
            encode_amount(entry.amount),
            encode_amount(entry.leftover),
            bytes((entry.leftover_scale,)),
        )
    )


def encode_used(entry: KeyUsed) -> bytes:
    return _CREDITED_HEAD.pack(USED, entry.account, entry.used_at) + bytes((len(entry.key),)) + entry.key


def encode_engine(entry: EngineKept) -> bytes:
    assert 0 < len(entry.key) <= KEY_BYTES_MAX
    head = _ENGINE_HEAD.pack(ENGINE, entry.account)
    return b"".join((head, bytes((len(entry.key),)), entry.key, len(entry.value).to_bytes(4, "big"), entry.value))


def encode_terms(encoded: bytes) -> bytes:
    return bytes((TERMS,)) + len(encoded).to_bytes(4, "big") + encoded


def encode_rates(encoded: bytes) -> bytes:
    return bytes((RATES,)) + len(encoded).to_bytes(4, "big") + encoded


def encode_note(data: bytes) -> bytes:
    return bytes((NOTE,)) + len(data).to_bytes(4, "big") + data


def encode_setting(key: bytes, value: bytes) -> bytes:
    assert 0 < len(key) <= SETTING_KEY_BYTES_MAX
    assert len(value) <= SETTING_BYTES_MAX
    return b"".join((bytes((SETTING, len(key))), key, len(value).to_bytes(4, "big"), value))


# --- decoding --------------------------------------------------------------------------------------------------------


def decode_record(record: bytes) -> list[Entry]:
    """All entries of one batch; CodecError for bytes that no version of this code wrote."""
    if not record:
        raise CodecError("version", 0, "the record is empty")
    if record[0] != RECORD_VERSION:
        raise CodecError("version", 0, f"{record[0]}: written by a newer version of isthmus, or damaged")
    entries: list[Entry] = []
    reader = Reader(record, 1)
    while reader.at < len(record):
        entries.append(_decode_entry(reader))
    return entries


def _decode_entry(reader: "Reader") -> Entry:
    kind = reader.data[reader.at]
    if kind == POST:
        _, leg = reader.unpack(PACK_POST, "post")
        return Post(leg)
    if kind == FULFILLED:
        _, leg, fulfillment = reader.unpack(PACK_FULFILLED, "fulfilled")
        return Fulfilled(leg, fulfillment)
    if kind == INCOMING:
        _, account, amount, expires_at, condition, session, request_id = reader.unpack(PACK_INCOMING, "reserve")
        return ReserveIncoming(account, amount, expires_at, condition, session, request_id)
    if kind == OUTGOING:
        fields = reader.unpack(PACK_OUTGOING, "reserve")
        return ReserveOutgoing(*fields[1:])
    if kind == VOID:
        _, leg, reason = reader.unpack(PACK_VOID, "void")
        return Void(leg, reason)
    if kind == UNKEPT:
        _, leg = reader.unpack(PACK_POST, "post")
        return Unkept(leg)
    return _decode_rare(kind, reader)


def _decode_rare(kind: int, reader: "Reader") -> Entry:
    if kind == NOTE:
        reader.at += 1
        return NoteEntry(reader.octets(4, "note"))
    if kind == LATE:
        return LateFulfill(*reader.unpack(PACK_LATE, "late")[1:])
    if kind == AT_RISK:
        return AtRisk(*reader.unpack(PACK_AT_RISK, "at risk")[1:])
    if kind == OPENED:
        _, account_kind, scale = reader.unpack(_OPENED_HEAD, "account")
        return AccountOpened(account_kind, reader.text(1, "account name"), reader.text(2, "asset code"), scale)
    if kind == TRANSFER:
        _, transfer_kind, debit, credit = reader.unpack(_TRANSFER_HEAD, "transfer")
        amount = reader.amount("amount")
        return Transfer(transfer_kind, debit, credit, amount, reader.octets(1, "key"), reader.text(2, "text"))
    if kind == TERMS:
        reader.at += 1
        return TermsChanged(reader.octets(4, "terms"))
    if kind == RATES:
        reader.at += 1
        return RatesEntry(reader.octets(4, "rates"))
    return _decode_outcome(kind, reader)


def _decode_outcome(kind: int, reader: "Reader") -> Entry:
    if kind == ACKNOWLEDGED:
        return Acknowledged(*reader.unpack(PACK_ACKNOWLEDGED, "acknowledged")[1:])
    if kind == PASSED:
        _, account, session, count = reader.unpack(PACK_PASSED, "passed")
        return Passed(account, session, [(*reader.unpack(PACK_RANGE, "range"),) for _ in range(count)])
    if kind == LOST:
        return Lost(*reader.unpack(PACK_LOST, "lost")[1:])
    if kind == FORGOTTEN:
        return Forgotten(*reader.unpack(PACK_FORGOTTEN, "forgotten")[1:])
    if kind == CONFIRMED:
        return Confirmed(*reader.unpack(PACK_CONFIRMED, "confirmed")[1:])
    if kind == HEARING:
        return Hearing(*reader.unpack(PACK_HEARING, "hearing")[1:])
    if kind == DATED:
        return Dated(*reader.unpack(PACK_DATED, "time")[1:])
    if kind == GIVEN_UP:
        return GivenUp(*reader.unpack(PACK_GIVEN_UP, "given up")[1:])
    if kind in (DRAINED, LISTED):
        reader.at += 1
        return DrainedEntry() if kind == DRAINED else Listed()
    if kind == SETTING:
        return _decode_setting(reader)
    return _decode_settlement(kind, reader)


def _decode_settlement(kind: int, reader: "Reader") -> Entry:
    if kind == BEGUN:
        _, account, number, begun_at, key = reader.unpack(_BEGUN_HEAD, "settlement")
        return SettlementBegun(account, number, begun_at, key, reader.amount("amount"), reader.text(2, "text"))
    if kind == MOVED:
        _, account, number, state = reader.unpack(_MOVED_HEAD, "settlement")
        return SettlementMoved(account, number, state, reader.text(2, "text"))
    if kind == CREDITED:
        _, account, at = reader.unpack(_CREDITED_HEAD, "credited")
        key, amount, leftover = reader.octets(1, "key"), reader.amount("amount"), reader.amount("leftover")
        return Credited(account, at, key, amount, leftover, reader.uint(1, "leftover's scale"))
    if kind == USED:
        _, account, at = reader.unpack(_CREDITED_HEAD, "used")
        return KeyUsed(account, at, reader.octets(1, "key"))
    if kind == ENGINE:
        _, account = reader.unpack(_ENGINE_HEAD, "engine")
        return EngineKept(account, reader.octets(1, "key"), reader.octets(4, "value"))
    raise CodecError("entry", reader.at, f"{kind} is no kind of entry")


def _decode_setting(reader: "Reader") -> SettingChanged:
    at = reader.at
    reader.at += 1
    key, value = reader.octets(1, "setting"), reader.octets(4, "setting")
    if not key or len(value) > SETTING_BYTES_MAX:
        raise CodecError("setting", at, "it has no key, or is too long")
    return SettingChanged(key, value)
