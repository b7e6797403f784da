"""The client against real lnds."""

import os
from hashlib import sha256
from typing import TYPE_CHECKING

import pytest

from isthmus.errors import LedgerError
from isthmus.ledgers.lightning.lnd import FAILED, SUCCEEDED, UNKNOWN

if TYPE_CHECKING:
    from tests.ledgers.lightning.simnet import Simnet

pytestmark = [pytest.mark.ledger, pytest.mark.asyncio(loop_scope="session")]


async def test_an_invoice_is_paid_once(simnet: "Simnet") -> None:
    preimage = os.urandom(32)
    invoice = await simnet.bob.api.add_invoice(1_234_567, preimage, "test", 600)
    assert invoice.payment_hash == sha256(preimage).digest()
    decoded = await simnet.alice.api.decode(invoice.request)
    assert (decoded.amount_msat, decoded.payment_hash) == (1_234_567, invoice.payment_hash)
    assert decoded.payee == await simnet.bob.api.identity()
    assert await simnet.alice.api.routing_fee_msat(decoded) == 0, "over our own channel"
    assert [one.status async for one in simnet.alice.api.track(invoice.payment_hash)] == [UNKNOWN]
    paid = [one async for one in simnet.alice.api.pay(invoice.request, 10_000)]
    assert (paid[-1].status, paid[-1].amount_msat) == (SUCCEEDED, 1_234_567)
    with pytest.raises(LedgerError, match="already paid"):
        [one async for one in simnet.alice.api.pay(invoice.request, 10_000)]
    assert [one.status async for one in simnet.alice.api.track(invoice.payment_hash)] == [SUCCEEDED]
    found = await simnet.bob.api.invoice(invoice.payment_hash)
    assert found is not None and found.is_settled and found.paid_msat == 1_234_567
    async for settled in simnet.bob.api.settled(found.settle_index - 1):
        assert settled.payment_hash == invoice.payment_hash
        break
    assert await simnet.bob.api.invoice(bytes(32)) is None


async def test_a_keysend_carries_records(simnet: "Simnet") -> None:
    preimage = os.urandom(32)
    payment_hash = sha256(preimage).digest()
    payee = await simnet.bob.api.identity()
    paid = [
        one async for one in simnet.alice.api.keysend(payee, 5_000, preimage, payment_hash, {70_000: b"who"}, 1_000)
    ]
    assert paid[-1].status == SUCCEEDED
    found = await simnet.bob.api.invoice(payment_hash)
    assert found is not None and found.is_settled and found.records is not None
    assert found.records[70_000] == b"who"


async def test_what_has_no_route_fails(simnet: "Simnet") -> None:
    invoice = await simnet.bob.api.add_invoice(4_900_000_000, os.urandom(32), "too much", 600)
    assert await simnet.alice.api.outbound_msat() < 4_900_000_000
    assert await simnet.alice.api.routing_fee_msat(await simnet.alice.api.decode(invoice.request)) is None
    paid = [one async for one in simnet.alice.api.pay(invoice.request, 10_000)]
    assert (paid[-1].status, bool(paid[-1].why)) == (FAILED, True)
    assert [one.state for one in await simnet.alice.api.channels()] == ["open"]
