"""The development XRP ledger: signed transactions as bytes, and requests as text.

Allowed is a transaction that writes itself as the same bytes, or `CodecError`, or `LocalRefusal`; and for any request
an answer that is JSON, and not "internal".
"""

import json
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from typing import Final

from isthmus.errors import CodecError
from isthmus.ledgers.xrp.dev.frames import as_text, json_rpc_answer, web_socket_answer
from isthmus.ledgers.xrp.dev.service import COMMANDS, Service
from isthmus.ledgers.xrp.dev.subscriptions import Subscriber
from isthmus.ledgers.xrp.dev.transactions import LocalRefusal, Transaction, check_locally, decode
from isthmus.ledgers.xrp.hashes import channel_index
from tests.fuzz.registry import Target
from tests.ledgers.xrp.conftest import ALICE, BOB, GENESIS, XRP, Table, claim_fields, signed

_SEQUENCE: Final = 2  # of accounts that ledger 2 makes
_CHANNEL: Final = channel_index(ALICE.address, BOB.address, _SEQUENCE)


def _transactions() -> Iterator[Transaction]:
    key = {"PublicKey": ALICE.public_key.hex()}
    create = {"Destination": BOB.address, "Amount": str(XRP), "SettleDelay": 5, **key}
    yield signed(ALICE, TransactionType="PaymentChannelCreate", Sequence=_SEQUENCE, **create)
    yield signed(ALICE, TransactionType="PaymentChannelFund", Sequence=3, Channel=_CHANNEL, Amount="5")
    yield signed(BOB, TransactionType="PaymentChannelClaim", Sequence=2, **claim_fields(ALICE, _CHANNEL, 5))
    yield signed(BOB, TransactionType="Payment", Sequence=3, Destination=ALICE.address, Amount="7", DestinationTag=1)
    memos = [{"Memo": {"MemoData": "AB", "MemoType": "74"}}]
    yield signed(ALICE, TransactionType="AccountSet", Sequence=4, Domain="AB", SetFlag=8, Memos=memos)
    yield signed(GENESIS, TransactionType="TicketCreate", Sequence=3, TicketCount=1)


# --- transactions -----------------------------------------------------------------------------------------------------


def fuzz_transaction(data: bytes) -> None:
    """A transaction, decoded, checked, and judged whatever the check says: the ledger has a result for all fields."""
    try:
        transaction = decode(data)
    except (CodecError, LocalRefusal):
        return
    assert transaction.blob == data
    with suppress(LocalRefusal):
        check_locally(transaction)
    table = Table()
    table.fund(ALICE, BOB)
    submitted = table.ledger.submit(transaction)
    if submitted.included is not None:
        assert transaction.account in submitted.included.affected
    table.close()  # which audits


def seeds_transaction() -> Iterator[bytes]:
    """One of each type, signed."""
    for each in _transactions():
        yield each.blob


# --- requests ---------------------------------------------------------------------------------------------------------


@cache
def _service() -> Service:
    """A ledger with a little of everything, which requests may change as they like."""
    service = Service(close_every_ms=None)
    for key in (ALICE, BOB):
        service.fund(key.address, 1_000)
    service.close_ledger()
    for each in _transactions():
        request = {"method": "submit", "params": [{"tx_blob": each.blob.hex()}]}
        assert not isinstance(json_rpc_answer(service, json.dumps(request)), str)
    service.close_ledger()
    return service


def fuzz_api(data: bytes) -> None:
    """One request, over WebSocket and over JSON-RPC."""
    text = data.decode("utf-8", "replace")
    service = _service()
    pushed: list[str] = []
    subscriber = Subscriber(pushed.append)
    try:
        for answer in (web_socket_answer(service, text, subscriber), json_rpc_answer(service, text)):
            shown = json.loads(as_text(answer)) if not isinstance(answer, str) else {}
            assert shown.get("error") != "internal" and shown.get("result", {}).get("error") != "internal", text
        for each in pushed:
            json.loads(each)
    finally:
        service.subscriptions.forget(subscriber)


def seeds_api() -> Iterator[bytes]:
    """Every command, with the parameters that most of them know."""
    known = {
        "account": ALICE.address,
        "ledger_index": "validated",
        "limit": 2,
        "transactions": True,
        "expand": True,
        "binary": False,
        "streams": ["ledger"],
        "accounts": [BOB.address],
        "payment_channel": _CHANNEL,
        "transaction": "AB" * 32,
        "api_version": 2,
    }
    claim = claim_fields(ALICE, _CHANNEL, 5)
    verify = {"channel_id": _CHANNEL, "amount": "5", "public_key": claim["PublicKey"], "signature": claim["Signature"]}
    for command in COMMANDS:
        params = verify if command == "channel_verify" else known
        yield json.dumps({"id": 1, "command": command, **params}).encode()
        yield json.dumps({"method": command, "params": [params]}).encode()
    for each in _transactions():
        yield json.dumps({"command": "submit", "tx_blob": each.blob.hex()}).encode()


TARGETS: Final = {
    "xrp": Target(fuzz_transaction, seeds_transaction, (b"\x73\x21\xed", b"\x74\x40", b"\x81\x14"), size_max=1_024),
    "xrp-api": Target(
        fuzz_api,
        seeds_api,
        tuple(f'"{each}"'.encode() for each in ("ledger_hash", "marker", "ctid", "destination_account", "current")),
    ),
}
