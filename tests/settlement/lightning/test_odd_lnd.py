"""One engine over a real kernel's books, and a server in an lnd's place that answers oddly, late, or as it should."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from isthmus.connector.events import AccountId, ReverseSettlement
from isthmus.ledgers.lightning.lnd import Lnd, LndSettings
from isthmus.settlement.lightning.engine import TAG_BYTES, LightningEngine
from isthmus.settlement.lightning.messages import encode_keysend
from isthmus.settlement.port import Step
from tests.certificates import self_signed
from tests.settlement.lightning.ports import PEER, Side

NODE = "02" + "11" * 32


class Server:
    """As an lnd with money, and one payment."""

    def __init__(self) -> None:
        self.settings: LndSettings
        self.info: list[dict[str, Any]] = []  # what it says of itself, before it says what it should
        self.pays = asyncio.Event()
        self.pays.set()
        self.sent: list[str] = []
        self.is_sending, self.is_read = asyncio.Event(), asyncio.Event()

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/v1/getinfo":
            good = {"synced_to_chain": True, "identity_pubkey": NODE}
            return web.json_response(self.info.pop(0) if self.info else good)
        if request.path == "/v1/balance/channels":
            return web.json_response({"local_balance": {"msat": "1000000000"}})
        if request.path == "/v1/invoices":
            self.is_read.set()
            return web.json_response({"invoices": []})
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
    (tmp_path / "macaroon").write_bytes(b"m")
    runner = web.ServerRunner(web.Server(found.answer, handler_cancellation=True), shutdown_timeout=0.1)
    await runner.setup()
    certificate = self_signed(tmp_path)
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=certificate.server())
    await site.start()
    url = f"https://127.0.0.1:{runner.addresses[0][1]}"
    found.settings = LndSettings(url, certificate.file, tmp_path / "macaroon")
    yield found
    await runner.cleanup()


@pytest.fixture
async def alice(server: Server) -> AsyncIterator[Payer]:
    side = Payer()
    side.begin()
    side.engine = LightningEngine(
        Lnd(server.settings),
        uses_keysend=True,
        fee_ppm_max=5_000,
        fee_msat_min=10_000,
        now_s=lambda: 1_800_000_000,
        random_bytes=os.urandom,
        retry_s_min=0.01,
    )
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
