"""The books as bytes: for checkpoints, and for the digest by which two copies of the books are compared.

Canonical: equal books give equal bytes. Deadlines on the monotonic clock are not part of it; whoever loads a state
sets them anew from the expiries.
"""

from hashlib import sha256
from struct import Struct
from typing import Final

from isthmus.connector.books import AT_RISK_MAX, DEAF, HEARS, PEER, UNKNOWN, Account, Books
from isthmus.connector.doubts import DOUBTS_MAX
from isthmus.connector.legs import IncomingLeg, OutgoingLeg
from isthmus.connector.octets import Reader, encode_amount, encode_integer, encode_text
from isthmus.connector.settlement_books import settling_of
from isthmus.connector.settling import OPEN_STATES, Settlement, Settling
from isthmus.errors import CodecError

# 1: before there were outcomes. Books without settings, doubts and settlements are written as before there were any, so
# that their digests stay what they were.
_PLAIN: Final = 2
_WITH_SETTINGS: Final = 3
_WITH_DOUBTS: Final = 4
_WITH_SETTLEMENTS: Final = 5
READABLE_VERSIONS: Final = (_PLAIN, _WITH_SETTINGS, _WITH_DOUBTS, _WITH_SETTLEMENTS)

_HEAD: Final = Struct(">BQIIIII")  # version, last leg, counts: accounts, incoming, outgoing, at risk, transfer keys
_ACCOUNT: Final = Struct(">BBIQQQ")  # kind, scale, last request id, late, posted incoming and outgoing counts
_INCOMING: Final = Struct(">QIQq32s16sI")
_OUTGOING: Final = Struct(">QIQq32s16sIQBQ")
_AT_RISK: Final = Struct(">IQQI")
# hearing, our newest session (zeros for none), counts: fulfilled, acknowledged, sessions, unsaid
_OUTCOMES: Final = Struct(">B16sIIII")
_NO_SESSION: Final = bytes(16)
_FULFILLED: Final = Struct(">QQq16sI32s")
_UP_TO: Final = Struct(">16sI")
_UNSAID: Final = Struct(">16sIQ")
_DOUBT: Final = Struct(">QIQq")  # leg, account, amount, posted at
# account, last number, leftover's scale, counts: open settlements, keys of credits, what the engine keeps
_SETTLING: Final = Struct(">IQBIII")
_SETTLEMENT: Final = Struct(">Qq16sB")  # number, begun at, key, state


def digest(books: Books) -> bytes:
    """SHA-256 over the canonical state (32 bytes)."""
    return sha256(encode_state(books)).digest()


def encode_state(books: Books) -> bytes:
    """The whole state: accounts, open legs, keys, terms, settings, doubts, settlements."""
    incoming = sorted((leg for one in books.peers.values() for leg in one.received.values()), key=_leg_id)
    outgoing = sorted((leg for one in books.peers.values() for leg in one.sent.values()), key=_leg_id)
    parts = [
        _HEAD.pack(
            version := _version_of(books),
            books.last_leg,
            len(books.accounts),
            len(incoming),
            len(outgoing),
            len(books.at_risk),
            len(books.transfer_keys),
        )
    ]
    parts += [_encode_account(account) for account in books.accounts]
    parts += [_encode_outcomes(account) for account in books.peers.values()]
    parts += [_encode_incoming(leg) for leg in incoming]
    parts += [_encode_outgoing(leg) for leg in outgoing]
    parts += [_AT_RISK.pack(*one) for one in books.at_risk]
    parts += [bytes((len(key),)) + key + bytes((kind,)) for key, kind in books.transfer_keys.items()]
    parts.append(len(books.terms).to_bytes(4, "big") + books.terms)
    if version >= _WITH_SETTINGS:
        parts.append(len(books.settings).to_bytes(4, "big"))
        parts += [_encode_setting(key, books.settings[key]) for key in sorted(books.settings)]
    if version >= _WITH_DOUBTS:
        parts.append(len(books.doubts.legs).to_bytes(4, "big"))
        parts += [_DOUBT.pack(*doubt) for doubt in books.doubts.legs]
    if version >= _WITH_SETTLEMENTS:
        settlers = [(one, one.settling) for one in books.peers.values() if one.settling is not None]
        parts.append(len(settlers).to_bytes(4, "big"))
        parts += [_encode_settling(account, settling) for account, settling in settlers]
    return b"".join(parts)


def _version_of(books: Books) -> int:
    """The oldest that can say all of it."""
    if any(account.settling is not None for account in books.peers.values()):
        return _WITH_SETTLEMENTS
    return _WITH_DOUBTS if books.doubts.legs else _WITH_SETTINGS if books.settings else _PLAIN


def _leg_id(leg: IncomingLeg | OutgoingLeg) -> int:
    return leg.id


def _encode_setting(key: bytes, value: bytes) -> bytes:
    return bytes((len(key),)) + key + len(value).to_bytes(4, "big") + value


def _encode_account(account: Account) -> bytes:
    name = account.name.encode()
    code = account.asset_code.encode()
    numbers = (account.balance, account.late_amount, account.at_risk, account.posted_incoming, account.posted_outgoing)
    head = _ACCOUNT.pack(
        account.kind,
        account.asset_scale,
        account.last_request_id,
        account.late_count,
        account.posted_incoming_count,
        account.posted_outgoing_count,
    )
    texts = bytes((len(name),)) + name + len(code).to_bytes(2, "big") + code
    return head + texts + b"".join([encode_integer(number) for number in numbers])


def _encode_outcomes(account: Account) -> bytes:
    """In the order in which they came: that is part of what they are."""
    parts = [
        _OUTCOMES.pack(
            account.hearing,
            account.session or _NO_SESSION,
            len(account.fulfilled),
            len(account.acknowledged),
            len(account.sessions),
            len(account.unsaid),
        )
    ]
    for leg in account.fulfilled.values():
        parts.append(_FULFILLED.pack(leg.id, leg.amount, leg.expires_at, leg.session, leg.request_id, leg.fulfillment))
    for up_to in (account.acknowledged, account.sessions):
        parts += [_UP_TO.pack(session, request_id) for session, request_id in up_to.items()]
    parts += [_UNSAID.pack(session, request_id, amount) for (session, request_id), amount in account.unsaid.items()]
    return b"".join(parts)


def _encode_incoming(leg: IncomingLeg) -> bytes:
    return _INCOMING.pack(
        leg.id, leg.account.index, leg.amount, leg.expires_at, leg.condition, leg.session, leg.request_id
    )


def _encode_outgoing(leg: OutgoingLeg) -> bytes:
    return _OUTGOING.pack(
        leg.id,
        leg.account.index,
        leg.amount,
        leg.expires_at,
        leg.condition,
        leg.session,
        leg.request_id,
        leg.spread,
        leg.rounding,
        leg.incoming.id,
    )


def _encode_settling(account: Account, settling: Settling) -> bytes:
    counts = (len(settling.open), len(settling.credited), len(settling.engine))
    parts = [
        _SETTLING.pack(account.index, settling.last, settling.leftover_scale, *counts),
        encode_amount(settling.leftover),
    ]
    for one in settling.open.values():
        parts.append(_SETTLEMENT.pack(one.number, one.begun_at, one.key, one.state))
        parts += [encode_amount(one.amount), encode_text(one.text)]
    for key, (amount, used_at) in settling.credited.items():
        parts += [bytes((len(key),)) + key, encode_amount(amount), used_at.to_bytes(8, "big", signed=True)]
    for key in sorted(settling.engine):
        parts.append(_encode_setting(key, settling.engine[key]))
    return b"".join(parts)


def decode_state(data: bytes) -> Books:
    """Books from `encode_state`'s bytes; CodecError for any others."""
    books = Books()
    reader = Reader(data)
    version, last_leg, accounts, incoming, outgoing, at_risk, keys = reader.unpack(_HEAD, "head")
    if version not in READABLE_VERSIONS:
        raise CodecError("version", 0, f"{version} is unknown: written by another version of isthmus")
    for _ in range(accounts):
        _decode_account(reader, books)
    for account in books.peers.values():
        _decode_outcomes(reader, account)
    books.take_record()
    legs: dict[int, IncomingLeg] = {}
    for _ in range(incoming):
        leg = _decode_incoming(reader, books)
        legs[leg.id] = leg
    for _ in range(outgoing):
        _decode_outgoing(reader, books, legs)
    for _ in range(min(at_risk, AT_RISK_MAX)):
        books.at_risk.append(reader.unpack(_AT_RISK, "at risk"))
    for _ in range(keys):
        key = reader.octets(1, "transfer key")
        books.transfer_keys[key] = reader.uint(1, "transfer kind")
    books.terms = reader.octets(4, "terms")
    if version >= _WITH_SETTINGS:
        for _ in range(reader.uint(4, "settings")):
            key = reader.octets(1, "setting key")
            books.settings[key] = reader.octets(4, "setting")
    if version >= _WITH_DOUBTS:
        _decode_doubts(reader, books)
    if version >= _WITH_SETTLEMENTS:
        for _ in range(reader.uint(4, "accounts with settlements")):
            _decode_settling(reader, books)
    books.last_leg = last_leg
    if reader.at != len(data):
        raise CodecError("state", reader.at, "bytes after its end")
    _check(books, data)
    return books


def _check(books: Books, data: bytes) -> None:
    """What no field shows alone: that the balances agree, and that the books are written as these very bytes."""
    sums: dict[tuple[str, int], int] = {}
    for account in books.accounts:
        asset = (account.asset_code, account.asset_scale)
        sums[asset] = sums.get(asset, 0) + account.balance
    if any(sums.values()):
        raise CodecError("balance", 0, "the balances of an asset don't add up to zero")
    if encode_state(books) != data:
        raise CodecError("state", 0, "the same state is written in another way, or something is there twice")


def _decode_account(reader: Reader, books: Books) -> None:
    at = reader.at
    kind, scale, last_request_id, late, posted_incoming, posted_outgoing = reader.unpack(_ACCOUNT, "account")
    name = reader.text(1, "account name")
    code = reader.text(2, "asset code")
    try:
        account = books.open_account(kind, name, code, scale)
    except (AssertionError, KeyError):
        raise CodecError("account", at, f"{name!r} is there twice, or before the accounts of its asset") from None
    account.last_request_id = last_request_id
    account.late_count = late
    account.posted_incoming_count = posted_incoming
    account.posted_outgoing_count = posted_outgoing
    account.balance = reader.integer("balance")
    account.late_amount = reader.integer("late amount")
    account.at_risk = reader.integer("amount at risk")
    account.posted_incoming = reader.integer("posted incoming")
    account.posted_outgoing = reader.integer("posted outgoing")


def _decode_outcomes(reader: Reader, account: Account) -> None:
    at = reader.at
    hearing, newest, fulfilled, acknowledged, sessions, unsaid = reader.unpack(_OUTCOMES, "outcomes")
    if hearing not in (UNKNOWN, HEARS, DEAF):
        raise CodecError("hearing", at, f"{hearing} is no such thing")
    account.hearing = hearing
    account.session = b"" if newest == _NO_SESSION else newest
    for _ in range(fulfilled):
        leg_id, amount, expires_at, session, request_id, fulfillment = reader.unpack(_FULFILLED, "fulfilled leg")
        condition = sha256(fulfillment).digest()
        leg = IncomingLeg(leg_id, account, amount, expires_at, condition, session, request_id, 0)
        leg.fulfillment = fulfillment
        account.keep(leg)
    for up_to, count in ((account.acknowledged, acknowledged), (account.sessions, sessions)):
        for _ in range(count):
            session, request_id = reader.unpack(_UP_TO, "session")
            up_to[session] = request_id
    for _ in range(unsaid):
        session, request_id, amount = reader.unpack(_UNSAID, "unsaid leg")
        account.unsaid[session, request_id] = amount


def _decode_incoming(reader: Reader, books: Books) -> IncomingLeg:
    at = reader.at
    leg_id, index, amount, expires_at, condition, session, request_id = reader.unpack(_INCOMING, "incoming leg")
    account = _peer(books, index, at)
    leg = IncomingLeg(leg_id, account, amount, expires_at, condition, session, request_id, 0)
    account.received[session, request_id] = leg
    account.reserved_incoming += amount
    return leg


def _decode_outgoing(reader: Reader, books: Books, legs: dict[int, IncomingLeg]) -> None:
    at = reader.at
    fields = reader.unpack(_OUTGOING, "outgoing leg")
    leg_id, index, amount, expires_at, condition, session, request_id, spread, rounding, incoming_id = fields
    account = _peer(books, index, at)
    incoming = legs.get(incoming_id)
    if incoming is None:
        raise CodecError("outgoing leg", at, f"there is no incoming leg {incoming_id}")
    account.sent[request_id] = OutgoingLeg(
        leg_id, account, amount, spread, rounding, expires_at, condition, session, request_id, incoming, 0, 0
    )
    account.reserved_outgoing += amount


def _decode_doubts(reader: Reader, books: Books) -> None:
    at = reader.at
    count = reader.uint(4, "doubts")
    if count > DOUBTS_MAX:
        raise CodecError("doubts", at, f"{count} legs in doubt, more than {DOUBTS_MAX}")
    for _ in range(count):
        at = reader.at
        leg, index, amount, posted_at = reader.unpack(_DOUBT, "doubt")
        _peer(books, index, at)
        books.doubts.legs.append((leg, index, amount, posted_at))


def _decode_settling(reader: Reader, books: Books) -> None:
    at = reader.at
    index, last, leftover_scale, count, credited, kept = reader.unpack(_SETTLING, "settlements")
    settling = settling_of(_peer(books, index, at))
    settling.last, settling.leftover_scale = last, leftover_scale
    settling.leftover = reader.amount("leftover")
    for _ in range(count):
        at = reader.at
        number, begun_at, key, state = reader.unpack(_SETTLEMENT, "settlement")
        amount, text = reader.amount("amount"), reader.text(2, "text")
        if state not in OPEN_STATES or not 0 < number <= last:
            raise CodecError("settlement", at, f"{number} in state {state} is not an open one")
        settling.open[number] = Settlement(number, amount, key, begun_at, state, text)
    for _ in range(credited):
        key, amount = reader.octets(1, "key"), reader.amount("amount")
        settling.credited[key] = (amount, int.from_bytes(reader.fixed(8, "last use"), "big", signed=True))
    for _ in range(kept):
        key = reader.octets(1, "engine's key")
        settling.engine[key] = reader.octets(4, "engine's value")


def _peer(books: Books, index: int, at: int) -> Account:
    if index >= len(books.accounts) or books.accounts[index].kind != PEER:
        raise CodecError("leg", at, f"account {index} is not a peer's")
    return books.accounts[index]
