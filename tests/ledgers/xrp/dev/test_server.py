"""Requests and pushes over WebSocket and JSON-RPC: shapes of both API versions, faults, bounds."""

import asyncio
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientError, WSMsgType
from xrpl.core.addresscodec import classic_address_to_xaddress, encode_classic_address

from isthmus.errors import LedgerError
from isthmus.ledgers.xrp.dev import server as server_module
from isthmus.ledgers.xrp.dev.desk import PAGE_MAX
from isthmus.ledgers.xrp.dev.ledger import TIME_MAX
from isthmus.ledgers.xrp.dev.server import CONNECTIONS_MAX, MESSAGE_BYTES_MAX, QUEUE_MAX
from isthmus.ledgers.xrp.dev.service import ADVANCE_SECONDS_MAX, COMMANDS, Service
from isthmus.ledgers.xrp.dev.subscriptions import ACCOUNTS_MAX
from isthmus.ledgers.xrp.hashes import channel_index
from isthmus.ledgers.xrp.signatures import SigningKey
from tests.ledgers.xrp.conftest import ALICE, BOB, CAROL, XRP, claim_fields, signed
from tests.ledgers.xrp.dev.conftest import WAIT_SECONDS, Serving, Socket, serving


@pytest.fixture
async def ledger() -> AsyncIterator[Serving]:
    async with serving() as ledger:
        for key in (ALICE, BOB):
            ledger.service.fund(key.address, 1_000)
        ledger.service.close_ledger()
        yield ledger


@pytest.fixture
async def socket(ledger: Serving) -> AsyncIterator[Socket]:
    async with ledger.connected() as socket:
        yield socket


async def submit(socket: Socket, key: SigningKey, kind: str, *, version: int = 1, **fields: Any) -> dict[str, Any]:
    if "Sequence" not in fields:
        info = await socket.result("account_info", account=key.address)
        fields["Sequence"] = info["account_data"]["Sequence"]
    transaction = signed(key, TransactionType=kind, **fields)
    return await socket.result("submit", tx_blob=transaction.blob.hex(), api_version=version)


async def open_channel(socket: Socket, **fields: Any) -> str:
    made = {"Destination": BOB.address, "Amount": str(9 * XRP), "SettleDelay": 60, **fields}
    answer = await submit(socket, ALICE, "PaymentChannelCreate", PublicKey=ALICE.public_key.hex(), **made)
    assert answer["engine_result"] == "tesSUCCESS"
    await socket.result("ledger_accept")
    return channel_index(ALICE.address, BOB.address, answer["tx_json"]["Sequence"])


async def test_a_response_echoes_what_came_with_the_request(socket: Socket) -> None:
    message = await socket.ask("ping", api_version=2)
    assert message == {"id": 1, "api_version": 2, "result": {}, "status": "success", "type": "response"}
    await socket.socket.send_str(json.dumps({"id": "a text", "command": "ping"}))
    assert (await socket.next())["id"] == "a text"


@pytest.mark.parametrize(
    "request_, error, code",
    [
        ({"command": "no such thing"}, "unknownCmd", 32),
        ({"command": "sign", "secret": "s"}, "notSupported", 75),
        ({}, "missingCommand", None),
        ({"command": 5}, "missingCommand", None),
        ({"command": "ping", "api_version": 3}, "invalid_API_version", None),
        ({"command": "account_info"}, "invalidParams", 31),
        ({"command": "account_info", "account": "rubbish"}, "actMalformed", 35),
        ({"command": "account_info", "account": 5}, "actMalformed", 35),
        ({"command": "account_info", "account": "ünicode"}, "actMalformed", 35),
        ({"command": "account_info", "account": CAROL.address}, "actNotFound", 19),
        ({"command": "account_info", "account": ALICE.address, "ledger_index": 99}, "lgrNotFound", 21),
        ({"command": "account_info", "account": ALICE.address, "ledger_index": "soon"}, "invalidParams", 31),
        ({"command": "account_info", "account": ALICE.address, "ledger_index": -1}, "invalidParams", 31),
        ({"command": "account_info", "account": ALICE.address, "ledger_index": True}, "invalidParams", 31),
        ({"command": "account_info", "account": ALICE.address, "ledger_hash": "AB"}, "invalidParams", 31),
        ({"command": "account_info", "account": ALICE.address, "ledger_hash": "AB" * 32}, "lgrNotFound", 21),
        ({"command": "account_channels", "account": ALICE.address, "limit": 0}, "invalidParams", 31),
        ({"command": "account_channels", "account": ALICE.address, "limit": "5"}, "invalidParams", 31),
        ({"command": "account_channels", "account": ALICE.address, "marker": 5}, "invalidParams", 31),
        ({"command": "account_tx", "account": ALICE.address, "marker": {"ledger": "x"}}, "invalidParams", 31),
        (
            {"command": "account_tx", "account": ALICE.address, "ledger_index_min": 9, "ledger_index_max": 8},
            "lgrIdxMalformed",
            58,
        ),
        ({"command": "ledger_entry"}, "invalidParams", 31),
        ({"command": "ledger_entry", "index": "AB" * 32}, "entryNotFound", None),
        ({"command": "ledger_entry", "payment_channel": "AB"}, "invalidParams", 31),
        ({"command": "tx"}, "invalidParams", 31),
        ({"command": "tx", "transaction": "AB" * 32}, "txnNotFound", 29),
        ({"command": "tx", "ctid": "C000000100000001"}, "invalidParams", 31),
        ({"command": "tx", "ctid": "c000000100000001"}, "invalidParams", 31),
        ({"command": "tx", "transaction": "AB" * 32, "min_ledger": 5, "max_ledger": 4}, "invalidLgrRange", 79),
        ({"command": "tx", "transaction": "AB" * 32, "min_ledger": 1, "max_ledger": 1_002}, "excessiveLgrRange", 78),
        ({"command": "submit"}, "invalidParams", 31),
        ({"command": "submit", "tx_blob": "xyz"}, "invalidParams", 31),
        ({"command": "submit", "tx_blob": "AB" * 20}, "invalidTransaction", None),
        ({"command": "submit", "tx_json": {}, "secret": "s"}, "notSupported", 75),
        ({"command": "subscribe", "streams": ["everything"]}, "malformedStream", 71),
        ({"command": "subscribe", "streams": "ledger"}, "malformedStream", 71),
        ({"command": "subscribe", "accounts": ["rubbish"]}, "actMalformed", 35),
        ({"command": "subscribe", "accounts": ALICE.address}, "actMalformed", 35),
        ({"command": "subscribe", "url": "http://127.0.0.1"}, "noPermission", 6),
        ({"command": "subscribe", "books": [{}]}, "notSupported", 75),
        ({"command": "ledger_accept", "advance": -1}, "invalidParams", 31),
        ({"command": "ledger_accept", "advance": ADVANCE_SECONDS_MAX + 1}, "invalidParams", 31),
        ({"command": "ledger", "full": True}, "notSupported", 75),
        ({"command": "ledger_data", "ledger_index": "current"}, "notSupported", 75),
        ({"command": "channel_verify", "amount": "1"}, "invalidParams", 31),
    ],
)
async def test_a_fault_has_its_token_and_repeats_the_request(
    ledger: Serving, socket: Socket, request_: dict[str, Any], error: str, code: int | None
) -> None:
    await socket.socket.send_str(json.dumps({"id": 1, **request_}))
    message = await socket.next()
    assert (message["error"], message.get("error_code"), message["status"]) == (error, code, "error")
    assert message["type"] == "response" and message["error_message"]
    assert message["request"] == {"id": 1, **request_} | ({"secret": "<masked>"} if "secret" in request_ else {})
    if "command" not in request_:
        return
    # The same over JSON-RPC, in its own frame.
    params = {name: value for name, value in request_.items() if name != "command"}
    status, answer = await ledger.post({"method": request_["command"], "params": [params]})
    if isinstance(request_["command"], str) and request_["command"] != "subscribe":
        assert status == 200 and answer["result"]["error"] == error and answer["result"]["status"] == "error"


@pytest.mark.parametrize(
    "text", ["", "[]", "{", "5", '"x"', "[" * 100_000, '{"id": 1e999}', '{"id": NaN}', "1" * 5_000]
)
async def test_what_is_no_request_is_answered_too(socket: Socket, text: str) -> None:
    await socket.socket.send_str(text)
    assert (await socket.next())["error"] == "jsonInvalid"
    assert (await socket.ask("ping"))["status"] == "success"


async def test_a_request_nested_too_deeply_to_be_repeated(socket: Socket) -> None:
    depth = 900
    await socket.socket.send_str('{"command": "nothing", "x": ' + "[" * depth + "]" * depth + "}")
    assert (await socket.next())["status"] == "error"
    assert (await socket.ask("ping"))["status"] == "success"


@pytest.mark.parametrize(
    "body, problem",
    [
        ("{", "Unable to parse"),
        ("[]", "Unable to parse"),
        ({"params": [{}]}, "Null method"),
        ({"method": 5}, "Null method"),
        ({"method": "ping", "params": [5]}, "params unparseable"),
        ({"method": "ping", "params": [{}, {}]}, "params unparseable"),
    ],
)
async def test_json_rpc_that_is_none(ledger: Serving, body: object, problem: str) -> None:
    status, text = await ledger.post(body)
    assert status == 400 and problem in text


async def test_json_rpc_carries_no_pushes(ledger: Serving) -> None:
    _, answer = await ledger.post({"method": "subscribe", "params": [{"streams": ["ledger"]}]})
    assert answer["result"]["error"] == "noEvents"
    _, answer = await ledger.post({"method": "ping", "params": [], "id": 7, "jsonrpc": "2.0"})
    assert answer == {"result": {"status": "success"}, "id": 7, "jsonrpc": "2.0"}


async def test_a_charset_that_nobody_knows(ledger: Serving) -> None:
    headers = {"Content-Type": "application/json; charset=klingon"}
    for path, expected in (("/", 400), ("/accounts", 400)):
        async with ledger.session.post(ledger.json_rpc + path, data=b"{}", headers=headers) as response:
            assert response.status == expected


async def test_a_submission_says_what_became_of_it(socket: Socket) -> None:
    answer = await submit(socket, ALICE, "Payment", Destination=BOB.address, Amount="5", Sequence=2)
    assert (answer["engine_result"], answer["engine_result_code"]) == ("tesSUCCESS", 0)
    assert answer["accepted"] and answer["applied"] and answer["broadcast"] and not answer["queued"]
    assert (answer["account_sequence_next"], answer["account_sequence_available"]) == (3, 3)
    assert answer["validated_ledger_index"] == 2 and answer["open_ledger_cost"] == "10"
    assert answer["tx_json"]["Amount"] == answer["tx_json"]["DeliverMax"] == "5"
    waiting = await submit(socket, ALICE, "Payment", Destination=BOB.address, Amount="6", Sequence=4, version=2)
    assert waiting["engine_result"] == "terPRE_SEQ" and waiting["kept"] and not waiting["applied"]
    assert "Amount" not in waiting["tx_json"] and waiting["tx_json"]["DeliverMax"] == "6"
    past = await submit(socket, ALICE, "Payment", Destination=BOB.address, Amount="5", Sequence=2)
    assert past["engine_result"] == "tefPAST_SEQ" and not past["accepted"]


async def test_a_transaction_in_both_versions_of_the_api(socket: Socket) -> None:
    sent = await submit(socket, ALICE, "Payment", Destination=BOB.address, Amount="5")
    name = sent["tx_json"]["hash"]
    for version in (1, 2):
        early = await socket.result("tx", transaction=name, api_version=version)
        assert early["hash"] == name and not early["validated"] and "meta" not in early
    await socket.result("ledger_accept")
    first = await socket.result("tx", transaction=name)
    assert first["validated"] and first["Account"] == ALICE.address and first["Amount"] == "5"
    assert first["meta"]["delivered_amount"] == "5" and first["meta"]["TransactionResult"] == "tesSUCCESS"
    assert first["ledger_index"] == first["inLedger"] == 3 and first["date"] > 0
    second = await socket.result("tx", transaction=name.lower(), api_version=2)
    assert second["tx_json"]["Account"] == ALICE.address and "Amount" not in second["tx_json"]
    assert second["hash"] == name and second["close_time_iso"].endswith("Z")
    header = (await socket.result("ledger", ledger_index=3))["ledger"]
    assert second["ledger_hash"] == header["ledger_hash"]
    assert await socket.result("tx", ctid=first["ctid"]) == first
    assert first["ctid"] == "C0000003000003E8"
    blob = sent["tx_blob"]
    for version, where in ((1, ("tx", "meta")), (2, ("tx_blob", "meta_blob"))):
        binary = await socket.result("tx", transaction=name, binary=True, api_version=version)
        assert binary[where[0]] == blob and bytes.fromhex(binary[where[1]])


async def test_a_ledger_in_all_its_forms(socket: Socket) -> None:
    await submit(socket, ALICE, "Payment", Destination=BOB.address, Amount="5")
    opened = await socket.result("ledger", ledger_index="current", transactions=True, expand=True)
    assert not opened["validated"] and not opened["ledger"]["closed"] and opened["ledger_current_index"] == 3
    [transaction] = opened["ledger"]["transactions"]
    assert transaction["Amount"] == "5" and "metaData" not in transaction
    await socket.result("ledger_accept")
    closed = await socket.result("ledger", ledger_index="validated", transactions=True)
    [name] = closed["ledger"]["transactions"]
    assert closed["ledger"]["ledger_index"] == "3" and closed["ledger_index"] == 3
    by_hash = await socket.result("ledger", ledger_hash=closed["ledger_hash"], transactions=True)
    assert by_hash == closed == await socket.result("ledger", ledger_index="3", transactions=True)
    previous = await socket.result("ledger", ledger_index=2)
    assert previous["ledger"]["ledger_hash"] == closed["ledger"]["parent_hash"]
    expanded = await socket.result("ledger", ledger_index=3, transactions=True, expand=True)
    assert expanded["ledger"]["transactions"][0]["metaData"]["delivered_amount"] == "5"
    second = await socket.result("ledger", ledger_index=3, transactions=True, expand=True, api_version=2)
    assert second["ledger"]["ledger_index"] == 3 and second["ledger"]["transactions"][0]["hash"] == name
    binary = await socket.result("ledger", ledger_index=3, transactions=True, expand=True, binary=True)
    assert len(bytes.fromhex(binary["ledger"]["ledger_data"])) == 118
    assert binary["ledger"]["transactions"][0]["tx_blob"]
    assert await socket.result("ledger_current") == {"ledger_current_index": 4}
    assert await socket.result("ledger_closed") == {"ledger_hash": closed["ledger_hash"], "ledger_index": 3}


async def test_accounts_channels_and_entries(socket: Socket) -> None:
    channel = await open_channel(socket, SourceTag=1, DestinationTag=2, CancelAfter=2**32 - 1)
    answer = await socket.result("account_channels", account=ALICE.address, ledger_index="validated")
    [shown] = answer["channels"]
    assert shown["source_tag"] == 1 and shown["destination_tag"] == 2 and shown["cancel_after"] == 2**32 - 1
    assert shown["public_key"].startswith("aK") and shown["public_key_hex"] == ALICE.public_key.hex().upper()
    assert answer["validated"] and answer["ledger_index"] == 3
    # Bob isn't its source, but it is among his objects.
    assert (await socket.result("account_channels", account=BOB.address))["channels"] == []
    objects = await socket.result("account_objects", account=BOB.address, type="payment_channel")
    assert [each["index"] for each in objects["account_objects"]] == [channel]
    assert (await socket.result("account_objects", account=BOB.address, type="check"))["account_objects"] == []
    for params in ({"index": channel}, {"payment_channel": channel}, {"index": channel.lower()}):
        entry = await socket.result("ledger_entry", **params)
        assert entry["node"] == objects["account_objects"][0] and entry["index"] == channel
    binary = await socket.result("ledger_entry", index=channel, binary=True)
    assert bytes.fromhex(binary["node_binary"])
    # As it was before it was opened.
    early = await socket.ask("ledger_entry", index=channel, ledger_index=2)
    assert early["error"] == "entryNotFound" and early["ledger_index"] == 2
    assert (await socket.ask("ledger_entry", account_root=CAROL.address))["error"] == "entryNotFound"
    info = await socket.result("account_info", account=ALICE.address, signer_lists=True, queue=True)
    assert info["account_data"]["OwnerCount"] == 1 and info["account_data"]["signer_lists"] == []
    assert info["queue_data"] == {"txn_count": 0} and not info["account_flags"]["depositAuth"]
    second = await socket.result("account_info", account=ALICE.address, signer_lists=True, api_version=2)
    assert second["signer_lists"] == []


async def test_long_answers_come_in_pages(socket: Socket) -> None:
    channels = {await open_channel(socket) for _ in range(5)}
    assert (await socket.result("account_channels", account=ALICE.address, limit=9_999))["limit"] == PAGE_MAX
    for command, name in (("account_channels", "channels"), ("account_objects", "account_objects")):
        seen: list[str] = []
        marker: dict[str, Any] = {}
        while True:
            page = await socket.result(command, account=ALICE.address, limit=2, **marker)
            seen += [each.get("channel_id", each.get("index")) for each in page[name]]
            if "marker" not in page:
                break
            marker = {"marker": page["marker"]}
        assert len(seen) == 5 and set(seen) == channels
    history, marker = [], {}
    while True:
        page = await socket.result("account_tx", account=ALICE.address, limit=2, forward=True, **marker)
        history += page["transactions"]
        if "marker" not in page:
            break
        marker = {"marker": page["marker"]}
    assert len(history) == 6 and [each["tx"]["ledger_index"] for each in history] == [2, 3, 4, 5, 6, 7]
    state, marker = [], {}
    while True:
        page = await socket.result("ledger_data", ledger_index=7, limit=3, **marker)
        assert ("ledger" in page) == (not marker)
        state += page["state"]
        if "marker" not in page:
            break
        marker = {"marker": page["marker"]}
    assert len(state) == 3 + 5 == len({each["index"] for each in state})
    binary = await socket.result("ledger_data", ledger_index=7, binary=True)
    assert {each["index"] for each in binary["state"]} == {each["index"] for each in state}


async def test_the_history_of_an_account_by_ledger(socket: Socket) -> None:
    await open_channel(socket)
    only = await socket.result("account_tx", account=BOB.address, ledger_index=3)
    assert [each["tx"]["TransactionType"] for each in only["transactions"]] == ["PaymentChannelCreate"]
    ranged = await socket.result("account_tx", account=BOB.address, ledger_index_max=2, api_version=2)
    assert [each["tx_json"]["TransactionType"] for each in ranged["transactions"]] == ["Payment"]
    binary = await socket.result("account_tx", account=BOB.address, ledger_index=3, binary=True)
    assert set(binary["transactions"][0]) == {"tx_blob", "meta", "ledger_index", "validated"}
    both = await socket.ask("account_tx", account=BOB.address, ledger_index=3, ledger_index_min=1, api_version=2)
    assert both["error"] == "invalidParams"
    empty = await socket.ask("account_tx", account=BOB.address, ledger_index_min=50, api_version=2)
    assert empty["error"] == "invalidLgrRange"


async def test_claims_are_verified_for_whoever_asks(socket: Socket) -> None:
    claim = claim_fields(ALICE, "AB" * 32, 5)
    good = {
        "channel_id": claim["Channel"],
        "amount": "5",
        "public_key": claim["PublicKey"],
        "signature": claim["Signature"],
    }
    assert await socket.result("channel_verify", **good) == {"signature_verified": True}
    assert await socket.result("channel_verify", **{**good, "amount": "6"}) == {"signature_verified": False}
    for name, value, error in (
        ("public_key", "aKrubbish", "publicMalformed"),
        ("channel_id", "AB", "channelMalformed"),
        ("amount", "-5", "channelAmtMalformed"),
        ("amount", "9" * 30, "channelAmtMalformed"),
        ("amount", 5, "channelAmtMalformed"),
        ("signature", "xx", "invalidParams"),
    ):
        assert (await socket.ask("channel_verify", **{**good, name: value}))["error"] == error


async def test_a_ledger_is_told_first_then_its_transactions_each_once(ledger: Serving, socket: Socket) -> None:
    answer = await socket.result(
        "subscribe", streams=["ledger", "transactions"], accounts=[ALICE.address, BOB.address], api_version=2
    )
    assert answer["ledger_index"] == 2 and answer["validated_ledgers"] == "1-2" and answer["fee_base"] == 10
    for amount in ("5", "6"):
        await submit(socket, ALICE, "Payment", Destination=BOB.address, Amount=amount)
    await socket.result("ledger_accept")
    closed, *transactions = socket.pushed
    assert closed["type"] == "ledgerClosed" and closed["ledger_index"] == 3 and closed["txn_count"] == 2
    assert [each["tx_json"]["DeliverMax"] for each in transactions] == ["5", "6"]
    for each in transactions:
        assert each["type"] == "transaction" and each["validated"] and each["ledger_hash"] == closed["ledger_hash"]
        assert each["engine_result"] == each["meta"]["TransactionResult"] == "tesSUCCESS"
        assert await socket.result("tx", ctid=each["ctid"])


async def test_accounts_that_are_watched_and_no_others(ledger: Serving, socket: Socket) -> None:
    await socket.result("subscribe", accounts=[CAROL.address])
    await submit(socket, ALICE, "Payment", Destination=BOB.address, Amount="5")
    await submit(socket, ALICE, "Payment", Destination=CAROL.address, Amount=str(5 * XRP))
    await socket.result("ledger_accept")
    [pushed] = socket.pushed
    assert pushed["transaction"]["Destination"] == CAROL.address and pushed["transaction"]["hash"]
    await socket.result("unsubscribe", accounts=[CAROL.address, BOB.address])
    await submit(socket, ALICE, "Payment", Destination=CAROL.address, Amount="1")
    await socket.result("ledger_accept")
    assert socket.pushed == [pushed]


async def test_what_is_proposed_is_told_before_it_is_validated(ledger: Serving) -> None:
    async with ledger.connected() as watcher, ledger.connected() as sender:
        await watcher.result("subscribe", accounts_proposed=[BOB.address], streams=["server"])
        await submit(sender, ALICE, "Payment", Destination=BOB.address, Amount="5")
        early = await watcher.next()
        assert not early["validated"] and early["ledger_current_index"] == 3 and "meta" not in early
        await sender.result("ledger_accept")
        late = await watcher.next()
        assert late["validated"] and late["transaction"]["hash"] == early["transaction"]["hash"]


async def test_a_channel_s_destination_hears_of_what_its_source_does(socket: Socket) -> None:
    channel = await open_channel(socket)
    await socket.result("subscribe", accounts=[BOB.address])
    await submit(socket, ALICE, "PaymentChannelFund", Channel=channel, Amount="5")
    await submit(socket, ALICE, "PaymentChannelClaim", Channel=channel, Flags=0x00020000)
    await socket.result("ledger_accept")
    kinds = [each["transaction"]["TransactionType"] for each in socket.pushed]
    assert kinds == ["PaymentChannelFund", "PaymentChannelClaim"]


async def test_the_clock_can_be_set_ahead(ledger: Serving, socket: Socket) -> None:
    """What takes an hour on the main net takes one request here."""
    channel = await open_channel(socket, SettleDelay=3_600)
    await submit(socket, ALICE, "PaymentChannelClaim", Channel=channel, Flags=0x00020000)
    await socket.result("ledger_accept", advance=3_600)
    before = (await socket.result("server_state"))["state"]["validated_ledger"]["close_time"]
    await submit(socket, ALICE, "PaymentChannelClaim", Channel=channel)
    await socket.result("ledger_accept")
    assert (await socket.ask("ledger_entry", index=channel))["error"] == "entryNotFound"
    after = (await socket.result("server_state"))["state"]["validated_ledger"]["close_time"]
    assert after >= before


async def test_the_clock_stops_where_the_ledger_s_time_ends(ledger: Serving, socket: Socket) -> None:
    state = (await socket.result("server_state"))["state"]
    rest = TIME_MAX - state["validated_ledger"]["close_time"]
    while rest > ADVANCE_SECONDS_MAX:
        await socket.result("ledger_accept", advance=ADVANCE_SECONDS_MAX)
        rest -= ADVANCE_SECONDS_MAX
    # The machine's own clock has gone on meanwhile, by less than the bound of a test.
    await socket.result("ledger_accept", advance=rest - int(WAIT_SECONDS))
    ledger.service._ahead += 2 * int(WAIT_SECONDS)
    for _ in range(2):
        await socket.result("ledger_accept")
    assert (await socket.result("ledger", ledger_index="validated"))["ledger"]["close_time"] == TIME_MAX
    assert (await socket.ask("ledger_accept", advance=1))["error"] == "invalidParams"


async def test_a_ledger_outlives_its_process_with_its_clock(tmp_path: Path) -> None:
    path = tmp_path / "xrp.db"
    async with serving(path) as ledger, ledger.connected() as socket:
        ledger.service.fund(ALICE.address, 1_000)
        await socket.result("ledger_accept", advance=10_000)
        before = await socket.result("ledger", ledger_index="validated")
    async with serving(path) as ledger, ledger.connected() as socket:
        assert await socket.result("ledger", ledger_index="validated") == before
        assert (await socket.result("account_info", account=ALICE.address))["account_data"]["Balance"] == str(
            1_000 * XRP
        )
        await socket.result("ledger_accept")
        after = await socket.result("ledger", ledger_index="validated")
        assert after["ledger"]["parent_hash"] == before["ledger_hash"]
        assert 0 <= after["ledger"]["close_time"] - before["ledger"]["close_time"] < WAIT_SECONDS
        await socket.result("ledger_accept", advance=500)
        later = await socket.result("ledger", ledger_index="validated")
        assert later["ledger"]["close_time"] - after["ledger"]["close_time"] >= 500


async def test_ledgers_close_by_themselves() -> None:
    async with serving(close_every_ms=300) as ledger, ledger.connected() as socket:
        await socket.result("subscribe", streams=["ledger"])
        indexes = [(await socket.next())["ledger_index"] for _ in range(3)]
        assert indexes == list(range(indexes[0], indexes[0] + 3))


async def test_a_ledger_that_can_t_be_kept_ends_the_service_and_is_told_to_nobody(tmp_path: Path) -> None:
    path = tmp_path / "xrp.db"
    with pytest.raises(LedgerError, match="can't be kept"):
        async with serving(path) as ledger, ledger.connected() as socket:
            await socket.result("subscribe", streams=["ledger"])
            ledger.service._store._connection.execute("DROP TABLE ledgers")
            answer = await socket.ask("ledger_accept")
            assert answer["error"] == "internal" and socket.pushed == []
            # The process ends; until then nothing is answered from what was never kept.
            closing = await asyncio.wait_for(socket.socket.receive(), WAIT_SECONDS)
            assert closing.type in (WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED)


# --- the faucet -------------------------------------------------------------------------------------------------------


async def test_the_faucet_pays_an_address_or_makes_one(ledger: Serving, socket: Socket) -> None:
    x_address = classic_address_to_xaddress(CAROL.address, tag=None, is_test_network=True)
    for destination in (CAROL.address, x_address):
        status, answer = await ledger.post({"destination": destination, "xrpAmount": "25"}, "/accounts")
        assert status == 200 and answer["amount"] == 25 and "seed" not in answer
        assert answer["account"] == {"address": CAROL.address, "classicAddress": CAROL.address, "xAddress": x_address}
        assert (await socket.result("tx", transaction=answer["transactionHash"]))["Destination"] == CAROL.address
    status, answer = await ledger.post("", "/accounts")
    assert status == 200 and answer["amount"] == 1_000
    assert SigningKey.from_seed(answer["seed"]).address == answer["account"]["address"]
    info = await socket.result("account_info", account=answer["account"]["address"])
    assert info["account_data"]["Balance"] == str(1_000 * XRP)


@pytest.mark.parametrize(
    "body",
    [
        {"destination": "rubbish"},
        {"destination": 5},
        {"destination": "r" * 100},
        {"xrpAmount": 0},
        {"xrpAmount": -5},
        {"xrpAmount": "1.5"},
        {"xrpAmount": True},
        {"xrpAmount": 1_000_001},
        {"xrpAmount": [1]},
        "{",
        "[]",
    ],
)
async def test_the_faucet_refuses_politely(ledger: Serving, body: object) -> None:
    status, answer = await ledger.post(body, "/accounts")
    assert status == 400 and answer["error"]


async def test_an_address_too_new_for_its_amount(ledger: Serving) -> None:
    async with serving(prices=None) as other:
        other.service._desk.ledger.prices = type(other.service._desk.ledger.prices)(reserve_base=5 * XRP)
        status, answer = await other.post({"destination": CAROL.address, "xrpAmount": 1}, "/accounts")
        assert status == 503 and "Too little XRP" in answer["error"]


# --- bounds -----------------------------------------------------------------------------------------------------------


async def test_a_message_has_a_largest_size(ledger: Serving) -> None:
    async with ledger.connected() as socket:
        fits = json.dumps({"id": 1, "command": "ping", "x": ""})
        padding = "a" * (MESSAGE_BYTES_MAX - len(fits))
        await socket.result("ping", x=padding)
        await socket.socket.send_str(json.dumps({"id": 9, "command": "ping", "x": padding + "a" * 64}))
        closing = await asyncio.wait_for(socket.socket.receive(), WAIT_SECONDS)
        assert closing.type is WSMsgType.CLOSE and closing.data == 1009
    body = io.BytesIO(b"x" * (MESSAGE_BYTES_MAX + 1))
    async with ledger.session.post(ledger.json_rpc, data=body) as response:
        assert response.status == 413


async def test_a_connection_watches_so_many_accounts(socket: Socket) -> None:
    addresses = [encode_classic_address(number.to_bytes(20, "big")) for number in range(ACCOUNTS_MAX + 1)]
    await socket.result("subscribe", accounts=addresses[:-1])
    await socket.result("subscribe", accounts=addresses[:-1])
    answer = await socket.ask("subscribe", accounts=addresses[-1:])
    assert answer["error"] == "invalidParams" and str(ACCOUNTS_MAX) in answer["error_message"]


async def test_who_doesn_t_read_is_disconnected_and_nobody_else(ledger: Serving) -> None:
    async with ledger.connected() as slow, ledger.connected() as other:
        await slow.result("subscribe", streams=["ledger"])
        assert len(ledger.service.subscriptions) == 1
        # All in one turn of the loop: nothing can be sent meanwhile.
        for _ in range(QUEUE_MAX + 1):
            ledger.service.close_ledger()
        while (await asyncio.wait_for(slow.socket.receive(), WAIT_SECONDS)).type is WSMsgType.TEXT:
            pass
        assert len(ledger.service.subscriptions) == 0
        assert (await other.ask("ping"))["status"] == "success"


async def test_so_many_connections_and_no_more(ledger: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    assert CONNECTIONS_MAX == 1_000
    monkeypatch.setattr(server_module, "CONNECTIONS_MAX", 2)
    async with ledger.connected() as first, ledger.connected():
        with pytest.raises(ClientError):
            async with ledger.connected():
                pass
        await first.socket.close()
        assert (await first.socket.receive()).type is WSMsgType.CLOSED
    async with ledger.connected() as again:
        assert (await again.ask("ping"))["status"] == "success"


async def test_a_bug_in_an_answer_is_an_internal_error(
    ledger: Serving, socket: Socket, caplog: pytest.LogCaptureFixture
) -> None:
    del ledger.service._desk.ledger.closed
    answer = await socket.ask("account_info", account=ALICE.address, ledger_index="validated")
    assert answer["error"] == "internal" and "this is a bug" in caplog.text
    assert (await socket.ask("ping"))["status"] == "success"


async def test_people_who_look_with_a_browser_are_told_what_this_is(ledger: Serving) -> None:
    async with ledger.session.get(ledger.json_rpc) as response:
        assert "development ledger" in await response.text()
    async with ledger.session.get(ledger.json_rpc + "/health") as response:
        assert response.status == 200


def test_every_command_is_in_the_docs() -> None:
    page = (Path(__file__).parents[4] / "docs" / "xrp-dev.md").read_text()
    assert [each for each in COMMANDS if f"`{each}`" not in page] == []


def test_a_clock_outside_of_the_ledger_s_time_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: 1.0)
    with pytest.raises(LedgerError, match="clock"):
        Service()
