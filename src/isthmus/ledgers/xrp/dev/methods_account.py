"""Requests about accounts, their channels and their history, and about single entries."""

from typing import Any, Final

from xrpl.core.addresscodec import decode_account_public_key, encode_account_public_key
from xrpl.core.binarycodec import encode

from isthmus.ledgers.xrp.dev import entries
from isthmus.ledgers.xrp.dev.desk import Chosen, Desk, Request, choose
from isthmus.ledgers.xrp.dev.entries import AccountRoot, Fields, PayChannel
from isthmus.ledgers.xrp.dev.faults import Code, Fault, invalid, missing
from isthmus.ledgers.xrp.dev.rendering import entry_fields, validated
from isthmus.ledgers.xrp.dev.transactions import DROPS_MAX
from isthmus.ledgers.xrp.hashes import account_index, claim_message
from isthmus.ledgers.xrp.signatures import key_kind, verify

_FLAG_NAMES: Final = {
    "allowTrustLineClawback": entries.ALLOW_TRUSTLINE_CLAWBACK,
    "defaultRipple": entries.DEFAULT_RIPPLE,
    "depositAuth": entries.DEPOSIT_AUTH,
    "disableMasterKey": entries.DISABLE_MASTER,
    "disallowIncomingCheck": entries.DISALLOW_INCOMING_CHECK,
    "disallowIncomingNFTokenOffer": entries.DISALLOW_INCOMING_NFT_OFFER,
    "disallowIncomingPayChan": entries.DISALLOW_INCOMING_CHANNEL,
    "disallowIncomingTrustline": entries.DISALLOW_INCOMING_TRUSTLINE,
    "disallowIncomingXRP": entries.DISALLOW_XRP,
    "globalFreeze": entries.GLOBAL_FREEZE,
    "noFreeze": entries.NO_FREEZE,
    "requireAuthorization": entries.REQUIRE_AUTH,
    "requireDestinationTag": entries.REQUIRE_DESTINATION_TAG,
}


def _account(chosen: Chosen, request: Request) -> AccountRoot:
    address = request.address("account")
    account = chosen.view.account(address)
    if account is None:
        raise Fault(Code.ACCOUNT_NOT_FOUND, account=address, **chosen.place)
    return account


def account_info(desk: Desk, request: Request) -> Fields:
    """An account's entry and its flags by name."""
    request.address("account")
    chosen = choose(desk, request)
    account = _account(chosen, request)
    data = entry_fields(account)
    answer: Fields = {
        "account_data": data,
        "account_flags": {name: account.has(flag) for name, flag in _FLAG_NAMES.items()},
        **chosen.place,
    }
    if request.flag("signer_lists"):
        (answer if request.version > 1 else data)["signer_lists"] = []
    if request.flag("queue"):
        if chosen.header is not None:
            raise Fault(Code.INVALID_PARAMS)
        answer["queue_data"] = {"txn_count": 0}
    return answer


def account_channels(desk: Desk, request: Request) -> Fields:
    """A page of the channels that an account is the source of."""
    request.address("account")
    chosen = choose(desk, request)
    account = _account(chosen, request)
    to = request.address("destination_account") if "destination_account" in request.params else None
    channels = [
        each
        for each in chosen.view.channels_of(account.address)
        if each.source == account.address and to in (None, each.destination)
    ]
    page, marker = _page(channels, request)
    return {
        "account": account.address,
        "channels": [_channel(each) for each in page],
        "limit": request.limit(),
        **chosen.place,
        **marker,
    }


def _page(channels: list[PayChannel], request: Request) -> tuple[list[PayChannel], Fields]:
    """Those beyond the marker, which is the id of the last one seen."""
    after, limit = request.get("marker", str) or "", request.limit()
    rest = [each for each in channels if each.index > after]
    return rest[:limit], {"marker": rest[limit - 1].index} if len(rest) > limit else {}


def _channel(channel: PayChannel) -> Fields:
    optional = {
        "expiration": channel.expiration,
        "cancel_after": channel.cancel_after,
        "source_tag": channel.source_tag,
        "destination_tag": channel.destination_tag,
    }
    return {
        "account": channel.source,
        "amount": str(channel.amount),
        "balance": str(channel.balance),
        "channel_id": channel.index,
        "destination_account": channel.destination,
        "public_key": encode_account_public_key(bytes.fromhex(channel.public_key)),
        "public_key_hex": channel.public_key,
        "settle_delay": channel.settle_delay,
        **{name: value for name, value in optional.items() if value is not None},
    }


def account_objects(desk: Desk, request: Request) -> Fields:
    """A page of the channels that touch an account: there are no other objects here."""
    request.address("account")
    chosen = choose(desk, request)
    account = _account(chosen, request)
    kind = request.get("type", str)
    channels = chosen.view.channels_of(account.address) if kind in (None, "payment_channel") else []
    page, marker = _page(channels, request)
    return {
        "account": account.address,
        "account_objects": [entry_fields(each) for each in page],
        "limit": request.limit(),
        **chosen.place,
        **marker,
    }


def account_lines(desk: Desk, request: Request) -> Fields:
    """None: there are no tokens here."""
    request.address("account")
    chosen = choose(desk, request)
    return {"account": _account(chosen, request).address, "lines": [], "limit": request.limit(), **chosen.place}


def ledger_entry(desk: Desk, request: Request) -> Fields:
    """One entry by its key, by its address, or by its channel id."""
    chosen = choose(desk, request)
    if "account_root" in request.params:
        index: str | None = account_index(request.address("account_root"))
    else:
        index = request.hash("index") or request.hash("payment_channel")
    if index is None:
        raise Fault(Code.INVALID_PARAMS, "No ledger_entry params provided.")
    entry = chosen.view.get(index)
    wanted = {"account_root": AccountRoot, "payment_channel": PayChannel}
    if entry is None or any(name in request.params and not isinstance(entry, kind) for name, kind in wanted.items()):
        raise Fault(Code.ENTRY_NOT_FOUND, index=index, **chosen.place)
    if request.flag("binary"):
        return {"index": index, "node_binary": encode(entry.fields()), **chosen.place}
    return {"index": index, "node": entry_fields(entry), **chosen.place}


def account_tx(desk: Desk, request: Request) -> Fields:
    """A page of the validated transactions that concern an account, newest first unless asked otherwise."""
    address = request.address("account")
    low, high = _range(desk, request)
    limit, forward, binary = request.limit(), request.flag("forward"), request.flag("binary")
    found = desk.store.transactions_concerning(
        address, low=low, high=high, forward=forward, limit=limit + 1, after=_after(request)
    )
    transactions: list[Fields] = []
    for each in found[:limit]:
        header = desk.store.header(each.ledger_index)
        assert header is not None, "transactions are forgotten with their ledger"
        transactions.append(validated(each, header, version=request.version, binary=binary))
    answer: Fields = {
        "account": address,
        "ledger_index_min": low,
        "ledger_index_max": high,
        "limit": limit,
        "transactions": transactions,
        "validated": True,
    }
    if len(found) > limit:
        last = found[limit - 1]
        answer["marker"] = {"ledger": last.ledger_index, "seq": last.position}
    return answer


def _range(desk: Desk, request: Request) -> tuple[int, int]:
    first, last = desk.store.first_index(), desk.ledger.last.index
    bounds = [request.get(name, int) for name in ("ledger_index_min", "ledger_index_max")]
    if any(request.params.get(name) is not None for name in ("ledger_index", "ledger_hash")):
        if request.version > 1 and any(each is not None for each in bounds):
            raise Fault(Code.INVALID_PARAMS)
        header = choose(desk, request).header
        if header is None:
            raise Fault(Code.LEDGER_NOT_FOUND)
        return header.index, header.index
    low, high = bounds
    low = first if low is None or low < 0 else max(low, first)
    high = last if high is None or high < 0 else min(high, last)
    if low > high:
        raise Fault(Code.INVALID_RANGE if request.version > 1 else Code.LEDGER_INDEX_MALFORMED)
    return low, high


def _after(request: Request) -> tuple[int, int] | None:
    marker = request.get("marker", dict)
    if marker is None:
        return None
    place: list[Any] = [marker.get("ledger"), marker.get("seq")]
    if not all(isinstance(each, int) and 0 <= each < 2**32 for each in place):
        raise invalid("marker")
    return place[0], place[1]


def channel_verify(desk: Desk, request: Request) -> Fields:
    """Whether a claim's signature is right; the channel need not be there."""
    for name in ("public_key", "channel_id", "amount", "signature"):
        if request.params.get(name) is None:
            raise missing(name)
    key = _public_key(request.get("public_key", str) or "")
    try:
        channel = request.hash("channel_id")
    except Fault:
        channel = None
    if channel is None:
        raise Fault(Code.CHANNEL_MALFORMED)
    amount = request.params["amount"]
    if not isinstance(amount, str) or not amount.isascii() or not amount.isdigit() or len(amount) > len(str(DROPS_MAX)):
        raise Fault(Code.CHANNEL_AMOUNT_MALFORMED)
    try:
        signature = bytes.fromhex(request.get("signature", str) or "")
    except ValueError:
        raise Fault(Code.INVALID_PARAMS) from None
    return {"signature_verified": verify(claim_message(channel, int(amount)), signature, key)}


def _public_key(text: str) -> bytes:
    """From hexadecimal or base58."""
    try:
        key = bytes.fromhex(text)
    except ValueError:
        try:
            key = decode_account_public_key(text)
        except Exception:  # noqa: BLE001  (the library raises many kinds)
            key = b""
    if key_kind(key) is None:
        raise Fault(Code.PUBLIC_KEY_MALFORMED)
    return key
