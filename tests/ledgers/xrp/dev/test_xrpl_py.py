"""The development ledger under `xrpl-py`, unmodified: its clients, autofill, reliable submission, channels."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from xrpl.asyncio.account import does_account_exist, get_balance, get_latest_transaction, get_next_valid_seq_number
from xrpl.asyncio.clients import AsyncJsonRpcClient, AsyncWebsocketClient
from xrpl.asyncio.ledger import get_fee, get_latest_open_ledger_sequence, get_latest_validated_ledger_sequence
from xrpl.asyncio.transaction import (
    XRPLReliableSubmissionException,
    autofill_and_sign,
    simulate,
    submit,
    submit_and_wait,
)
from xrpl.asyncio.wallet import generate_faucet_wallet
from xrpl.clients import XRPLRequestFailureException
from xrpl.constants import CryptoAlgorithm
from xrpl.core.binarycodec import encode_for_signing_claim
from xrpl.core.keypairs import sign
from xrpl.models import (
    AccountChannels,
    AccountInfo,
    AccountLines,
    AccountObjects,
    AccountSet,
    AccountSetAsfFlag,
    AccountTx,
    ChannelVerify,
    Ledger,
    LedgerEntry,
    Memo,
    Payment,
    PaymentChannelClaim,
    PaymentChannelClaimFlag,
    PaymentChannelCreate,
    PaymentChannelFund,
    Ping,
    ServerInfo,
    ServerState,
    StreamParameter,
    Subscribe,
    Tx,
    Unsubscribe,
)
from xrpl.utils import xrp_to_drops
from xrpl.wallet import Wallet

from tests.ledgers.xrp.dev.conftest import WAIT_SECONDS, Serving, serving


@pytest.fixture
async def ledger() -> AsyncIterator[Serving]:
    async with serving(close_every_ms=300) as ledger:
        yield ledger


@pytest.fixture(params=["web socket", "json-rpc"])
async def client(
    request: pytest.FixtureRequest, ledger: Serving
) -> AsyncIterator[AsyncWebsocketClient | AsyncJsonRpcClient]:
    if request.param == "json-rpc":
        yield AsyncJsonRpcClient(ledger.json_rpc)
        return
    async with AsyncWebsocketClient(ledger.web_socket) as client:
        yield client


def funded(ledger: Serving, *wallets: Wallet) -> None:
    for wallet in wallets:
        ledger.service.fund(wallet.address, 1_000)
    ledger.service.close_ledger()


async def test_a_payment_from_the_faucet_to_its_end(ledger: Serving, client: AsyncWebsocketClient) -> None:
    alice = await generate_faucet_wallet(client, faucet_host=ledger.json_rpc)
    bob = Wallet.create(CryptoAlgorithm.SECP256K1)
    assert await get_balance(alice.address, client) == 1_000_000_000
    assert not await does_account_exist(bob.address, client)
    payment = Payment(
        account=alice.address,
        destination=bob.address,
        amount=xrp_to_drops(20),
        destination_tag=7,
        memos=[Memo(memo_data=b"invoice 12".hex(), memo_type=b"text/plain".hex())],
    )
    response = await submit_and_wait(payment, client, alice)
    assert response.result["validated"] and response.result["meta"]["delivered_amount"] == "20000000"
    assert response.result["tx_json"]["DestinationTag"] == 7
    assert await get_balance(bob.address, client) == 20_000_000
    # And back, with a key of the other kind.
    back = Payment(account=bob.address, destination=alice.address, amount="1000000")
    assert (await submit_and_wait(back, client, bob)).is_successful()
    latest = await get_latest_transaction(alice.address, client)
    assert latest.result["transactions"][0]["tx_json"]["Account"] == bob.address


async def test_a_channel_through_its_whole_life(ledger: Serving, client: AsyncWebsocketClient) -> None:
    alice, bob = Wallet.create(CryptoAlgorithm.SECP256K1), Wallet.create()
    funded(ledger, alice, bob)
    create = PaymentChannelCreate(
        account=alice.address,
        destination=bob.address,
        amount=xrp_to_drops(10),
        settle_delay=3_600,
        public_key=alice.public_key,
    )
    await submit_and_wait(create, client, alice)
    channels = (await client.request(AccountChannels(account=alice.address, destination_account=bob.address))).result
    [channel] = channels["channels"]
    assert (channel["amount"], channel["balance"], channel["settle_delay"]) == ("10000000", "0", 3_600)
    channel_id = channel["channel_id"]
    fund = PaymentChannelFund(account=alice.address, channel=channel_id, amount=xrp_to_drops(5))
    await submit_and_wait(fund, client, alice)
    # Bob gets a claim, has it checked, and takes it.
    claim = encode_for_signing_claim({"channel": channel_id, "amount": "12000000"})
    signature = sign(bytes.fromhex(claim), alice.private_key)
    for public_key in (channel["public_key"], channel["public_key_hex"]):
        verify = ChannelVerify(channel_id=channel_id, amount="12000000", signature=signature, public_key=public_key)
        assert (await client.request(verify)).result["signature_verified"]
    before = await get_balance(bob.address, client)
    redeem = PaymentChannelClaim(
        account=bob.address,
        channel=channel_id,
        balance="12000000",
        amount="12000000",
        signature=signature,
        public_key=alice.public_key,
        flags=PaymentChannelClaimFlag.TF_CLOSE,
    )
    response = await submit_and_wait(redeem, client, bob)
    fee = int(response.result["tx_json"]["Fee"])
    assert await get_balance(bob.address, client) == before + 12_000_000 - fee
    with pytest.raises(XRPLReliableSubmissionException, match="tecNO_TARGET"):
        await submit_and_wait(redeem, client, bob)
    history = (await client.request(AccountTx(account=alice.address, forward=True))).result["transactions"]
    assert [each["tx_json"]["TransactionType"] for each in history] == [
        "Payment",
        "PaymentChannelCreate",
        "PaymentChannelFund",
        "PaymentChannelClaim",
    ]


async def test_what_clients_ask_for(ledger: Serving, client: AsyncWebsocketClient) -> None:
    alice = Wallet.create()
    funded(ledger, alice)
    assert await get_fee(client, fee_type="dynamic") == "15"
    assert await get_fee(client) == "10"
    assert await get_latest_open_ledger_sequence(client) > await get_latest_validated_ledger_sequence(client) - 1
    assert await get_next_valid_seq_number(alice.address, client) == 2
    info = (await client.request(ServerInfo())).result["info"]
    assert info["network_id"] == 1_000 and info["complete_ledgers"].startswith("1-")
    state = (await client.request(ServerState())).result["state"]
    assert state["validated_ledger"]["reserve_base"] == 1_000_000
    assert (await client.request(Ping())).is_successful()
    lines = await client.request(AccountLines(account=alice.address))
    assert lines.result["lines"] == []
    objects = await client.request(AccountObjects(account=alice.address, ledger_index="validated"))
    assert objects.result["account_objects"] == []
    entry = await client.request(LedgerEntry(account_root=alice.address, ledger_index="validated"))
    assert entry.result["node"]["Balance"] == "1000000000"
    setting = AccountSet(account=alice.address, set_flag=AccountSetAsfFlag.ASF_REQUIRE_DEST)
    response = await submit_and_wait(setting, client, alice)
    index = response.result["ledger_index"]
    full = await client.request(Ledger(ledger_index=index, transactions=True, expand=True))
    assert [each["hash"] for each in full.result["ledger"]["transactions"]] == [response.result["hash"]]
    flags = (await client.request(AccountInfo(account=alice.address))).result["account_flags"]
    assert flags["requireDestinationTag"] and not flags["depositAuth"]
    missing = await client.request(Tx(transaction="AB" * 32, min_ledger=1, max_ledger=index))
    assert missing.result["error"] == "txnNotFound" and missing.result["searched_all"]


async def test_a_forged_signature_is_an_error_of_the_request(ledger: Serving, client: AsyncWebsocketClient) -> None:
    alice, eve = Wallet.create(), Wallet.create()
    funded(ledger, alice)
    payment = Payment(account=alice.address, destination=eve.address, amount=xrp_to_drops(20))
    signed = await autofill_and_sign(payment, client, alice)
    forged = Payment.from_dict({**signed.to_dict(), "amount": xrp_to_drops(21)})
    with pytest.raises(XRPLRequestFailureException, match="Invalid signature"):
        await submit(forged, client)
    # Signed by a stranger it is well formed, so it gets a result; and never gets in.
    stranger = await autofill_and_sign(payment, client, eve)
    assert (await submit(stranger, client)).result["engine_result"] == "tefBAD_AUTH"


async def test_what_isn_t_there_is_said(ledger: Serving, client: AsyncWebsocketClient) -> None:
    alice = Wallet.create()
    funded(ledger, alice)
    with pytest.raises(XRPLRequestFailureException, match="unknownCmd"):
        await simulate(Payment(account=alice.address, destination=Wallet.create().address, amount="5"), client)


async def test_ledgers_and_transactions_are_pushed(ledger: Serving) -> None:
    alice, bob = Wallet.create(), Wallet.create()
    funded(ledger, alice, bob)
    async with AsyncWebsocketClient(ledger.web_socket) as client, AsyncWebsocketClient(ledger.web_socket) as other:
        await client.send(Subscribe(streams=[StreamParameter.LEDGER], accounts=[bob.address]))
        payment = Payment(account=alice.address, destination=bob.address, amount="5")
        response = await submit_and_wait(payment, other, alice)
        closed = []
        async with asyncio.timeout(WAIT_SECONDS):
            async for message in client:
                if message.get("type") == "ledgerClosed":
                    closed.append(message["ledger_index"])
                if message.get("type") == "transaction":
                    break
        assert closed == list(range(closed[0], closed[0] + len(closed)))
        assert message["ledger_index"] == closed[-1] == response.result["ledger_index"]
        assert message["validated"] and message["hash"] == response.result["hash"]
        assert message["meta"]["delivered_amount"] == message["tx_json"]["DeliverMax"] == "5"
        assert (await client.request(Unsubscribe(streams=[StreamParameter.LEDGER]))).is_successful()
