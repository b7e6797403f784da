"""One engine over a real kernel's books, and a server in an lnd's place that answers oddly, late, or as it should."""

import asyncio
import json
import os
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from isthmus.connector.events import AccountId, ReverseSettlement
from isthmus.ledgers.lightning.lnd import Lnd, LndSettings
from isthmus.settlement.lightning.engine import TAG_BYTES, LightningEngine
from isthmus.settlement.lightning.incoming import LOOKED_UP_S, UNKNOWN_S
from isthmus.settlement.lightning.messages import InvoiceAsked, encode_keysend, encode_question
from isthmus.settlement.port import MessageRefusedError, Step
from tests.ledgers.lightning.stand_in import in_place_of_lnd
from tests.settlement.lightning.ports import PEER, Side

NODE = "02" + "11" * 32
NOW_S = 1_800_000_000


class Server:
    """As an lnd with money, and one payment."""

    def __init__(self) -> None:
        self.settings: LndSettings
        self.info: list[dict[str, Any]] = []  # what it says of itself, before it says what it should
        self.pays = asyncio.Event()
        self.pays.set()
        self.sent: list[str] = []
        self.is_sending, self.is_read = asyncio.Event(), asyncio.Event()
        self.keeps_ends = True
        self.invoices: list[dict[str, Any]] = []
        self.ends: dict[str, bool] = {}  # by "channel/index": whether the HTLC was settled

    def settle(self, *htlcs: int, at_s: int = NOW_S) -> None:
        """The one invoice is paid, by so many millisatoshi in each HTLC."""
        parts = [
            {"state": "SETTLED", "chan_id": "7", "htlc_index": str(number), "amt_msat": str(msat)}
            for number, msat in enumerate(htlcs)
        ]
        paid = {"state": "SETTLED", "amt_paid_msat": str(sum(htlcs)), "settle_index": "1", "settle_date": str(at_s)}
        self.invoices[0] |= {**paid, "htlcs": parts}

    async def _invoices(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.method == "POST":
            asked = await request.json()
            payment_hash = sha256(b64decode(asked["r_preimage"])).digest()
            named = {"r_hash": b64encode(payment_hash).decode(), "payment_request": "lnsb1"}
            amounts = {"value_msat": asked["value_msat"], "amt_paid_msat": "0", "settle_index": "0"}
            times = {"creation_date": str(NOW_S), "expiry": asked["expiry"], "settle_date": "0"}
            self.invoices.append({**named, **amounts, **times, "state": "OPEN"})
            return web.json_response(named)
        self.is_read.set()
        return web.json_response({"invoices": self.invoices})

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/v1/getinfo":
            good = {"synced_to_chain": True, "identity_pubkey": NODE, "store_final_htlc_resolutions": self.keeps_ends}
            return web.json_response(self.info.pop(0) if self.info else good)
        if request.path == "/v1/balance/channels":
            return web.json_response({"local_balance": {"msat": "1000000000"}})
        if request.path == "/v1/invoices":
            return await self._invoices(request)
        if request.path.startswith("/v1/invoice/"):
            if not self.invoices:
                return web.json_response({"code": 5, "message": "unable to locate invoice"}, status=404)
            return web.json_response(self.invoices[0])
        if request.path.startswith("/v1/htlc-resolution/"):
            end = self.ends.get(request.path.removeprefix("/v1/htlc-resolution/"))
            if end is None:
                return web.json_response({"code": 5, "message": "htlc unknown"}, status=404)
            return web.json_response({"settled": end, "offchain": True})
        if request.path == "/v2/router/send":
            self.sent.append(request.path)
            self.is_sending.set()
            await self.pays.wait()
        elif not request.path.startswith("/v2/router/track/"):
            return web.json_response({})
        elif not self.sent:
            return web.json_response({"error": {"code": 5, "message": "payment isn't initiated"}}, status=404)
        paid = {"status": "SUCCEEDED", "value_msat": "5000", "fee_msat": "0"}
        return web.Response(text=json.dumps({"result": paid}) + "\n")


class Payer(Side):
    """Its peer says where to send. What is booked is durable while `disk` is set."""

    def __init__(self) -> None:
        super().__init__("alice")
        self.disk = asyncio.Event()
        self.disk.set()
        self.waiting = 0

    async def step(self, account: AccountId, step: Step) -> Sequence[int]:
        gave = self.book(account, step)
        self.waiting += 1
        self.changed.set()
        await self.disk.wait()
        self.waiting -= 1
        return gave

    async def message(self, account: AccountId, data: bytes) -> bytes:
        return encode_keysend(NODE, bytes(TAG_BYTES))


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    found = Server()
    async with in_place_of_lnd(found.answer, tmp_path) as found.settings:
        yield found


def engine_of(server: Server, now_s: int = NOW_S) -> LightningEngine:
    return LightningEngine(
        Lnd(server.settings),
        uses_keysend=True,
        fee_ppm_max=5_000,
        fee_msat_min=10_000,
        now_s=lambda: now_s,
        random_bytes=os.urandom,
        retry_s_min=0.01,
    )


@pytest.fixture
async def alice(server: Server) -> AsyncIterator[Payer]:
    side = Payer()
    side.begin()
    side.engine = engine_of(server)
    yield side
    await side.engine.close()


async def test_whatever_lnd_answers_what_comes_in_is_waited_for(server: Server, alice: Payer) -> None:
    """An answer that no lnd gives ended the task that hears of payments to us, and nobody was told."""
    server.info = [{"synced_to_chain": True}]
    await alice.engine.start(alice, alice.accounts)
    await alice.until(lambda: any(event == "lightning_not_heard" for _, event, _ in alice.logs), 10)
    await asyncio.wait_for(server.is_read.wait(), 10)


async def test_a_payment_whose_call_is_cancelled_is_made_once_it_is_durable(server: Server, alice: Payer) -> None:
    await alice.engine.start(alice, alice.accounts)
    due = alice.settle(5_000)
    alice.disk.clear()
    paying = asyncio.create_task(alice.pay(due))
    await alice.until(lambda: alice.waiting == 1)
    paying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await paying
    await alice.until(lambda: alice.waiting == 2, 10)  # whoever follows the payment
    assert not server.sent
    alice.disk.set()
    await alice.until(lambda: not alice.open(PEER), 10)
    assert len(server.sent) == 1


async def test_what_is_reversed_while_lnd_pays_it_is_told(server: Server, alice: Payer) -> None:
    await alice.engine.start(alice, alice.accounts)
    server.pays.clear()
    due = alice.settle(5_000)
    await alice.pay(due)
    await asyncio.wait_for(server.is_sending.wait(), 10)
    alice.tell(ReverseSettlement(PEER, due.number, "k", "too slow", 1, is_certain=True))
    server.pays.set()
    await alice.until(lambda: any(event == "settlement_paid_and_reversed" for _, event, _ in alice.logs), 10)
    assert not any(key.startswith(b"out ") for key in alice.kept(PEER))


# --- paid to us ---


async def paid(server: Server, alice: Payer, *htlcs: int, at_s: int = NOW_S) -> None:
    """The peer asked for an invoice, and lnd has it as settled."""
    question = encode_question(InvoiceAsked(b"k" * 16, 0, sum(htlcs)))
    await alice.engine.take_message(PEER, question)
    server.settle(*htlcs, at_s=at_s)


def events(alice: Payer) -> list[str]:
    return [event for _, event, _ in alice.logs]


def is_waiting(alice: Payer) -> bool:
    return any(key.startswith(b"due ") for key in alice.kept(PEER))


async def test_what_lnd_has_as_settled_and_failed_all_the_same_is_not_credited(server: Server, alice: Payer) -> None:
    """An lnd that was killed between the two. Seed 6 of the campaign."""
    server.ends = {"7/0": False}
    await alice.engine.start(alice, alice.accounts)
    await paid(server, alice, 5_000)
    await alice.until(lambda: "lightning_settled_and_not_paid" in events(alice), 10)
    await alice.until(lambda: b"settled" in alice.kept(PEER), 10)
    assert alice.balance == 0
    assert not [key for key in alice.kept(PEER) if key.startswith((b"in ", b"due "))]


async def test_of_several_htlcs_those_that_came_are_credited(server: Server, alice: Payer) -> None:
    server.ends = {"7/0": True, "7/1": False}
    await alice.engine.start(alice, alice.accounts)
    await paid(server, alice, 3_000, 2_000)
    await alice.until(lambda: alice.balance == -3_000, 10)
    assert "lightning_settled_and_not_paid" in events(alice)


@pytest.mark.parametrize("is_killed", [False, True])
async def test_an_htlc_that_has_not_ended_is_waited_for_through_kills(
    server: Server, alice: Payer, is_killed: bool
) -> None:
    await alice.engine.start(alice, alice.accounts)
    await paid(server, alice, 5_000)
    await alice.until(lambda: is_waiting(alice), 10)
    assert alice.balance == 0 and "have not ended" in " ".join(alice.engine.unfinished(PEER))
    if is_killed:
        await alice.killed()
        alice.engine = engine_of(server)
        await alice.engine.start(alice, alice.accounts)
    server.ends = {"7/0": True}
    await alice.until(lambda: alice.balance == -5_000, 10)
    assert not is_waiting(alice) and "lightning_settled_and_not_paid" not in events(alice)


async def test_what_lnd_did_not_keep_of_long_ago_is_credited_by_the_invoice(server: Server, alice: Payer) -> None:
    await alice.engine.start(alice, alice.accounts)
    await paid(server, alice, 5_000, at_s=NOW_S - UNKNOWN_S)
    await alice.until(lambda: alice.balance == -5_000, 10)


async def test_where_lnd_keeps_no_ends_the_invoice_is_believed_at_once(server: Server, alice: Payer) -> None:
    server.keeps_ends, server.ends = False, {"7/0": False}
    await alice.engine.start(alice, alice.accounts)
    await paid(server, alice, 5_000)
    await alice.until(lambda: alice.balance == -5_000, 10)
    assert "lightning_settled_and_not_paid" not in events(alice)


async def test_what_was_paid_is_never_asked_for_again(server: Server, alice: Payer) -> None:
    """No key is kept of it, however many there are, and nothing that could be credited once more."""
    server.ends = {"7/0": True}
    await alice.engine.start(alice, alice.accounts)
    await paid(server, alice, 5_000)
    await alice.until(lambda: alice.balance == -5_000, 10)
    assert not alice.credited(PEER, "")
    with pytest.raises(MessageRefusedError, match="was paid already"):
        await paid(server, alice, 5_000)
    assert not [key for key in alice.kept(PEER) if key.startswith(b"in ")]


@pytest.mark.parametrize("is_listed", [False, True])
async def test_an_lnd_recovered_from_its_seed_is_asked_for_invoices(
    server: Server, alice: Payer, is_listed: bool
) -> None:
    """It counts anew, and so says nothing before it comes to our place. What it does tell of is credited once, too."""
    server.ends = {"7/0": True}
    await alice.step(PEER, Step(kept=[(b"settled", b"0" if is_listed else b"9")]))
    await alice.engine.start(alice, alice.accounts)
    question = encode_question(InvoiceAsked(b"k" * 16, 0, 5_000))
    await alice.engine.take_message(PEER, question)
    await alice.killed()
    server.settle(5_000)
    alice.engine = engine_of(server, NOW_S + LOOKED_UP_S)
    await alice.engine.start(alice, alice.accounts)
    await alice.until(lambda: alice.balance == -5_000, 10)
    assert ("lightning_order_anew" in events(alice)) is not is_listed
    assert alice.kept(PEER)[b"settled"] in ((b"0", b"1") if is_listed else (b"9",))
    await alice.killed()
    alice.engine = engine_of(server, NOW_S + LOOKED_UP_S)
    server.is_read.clear()
    await alice.engine.start(alice, alice.accounts)
    if is_listed:
        await asyncio.wait_for(server.is_read.wait(), 10)
    await alice.engine.close()
    assert alice.balance == -5_000
