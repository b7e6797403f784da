"""Two engines on two lnds: paid once, credited once, whatever is killed."""

import asyncio
import os
import time
from base64 import b64encode
from contextlib import suppress
from hashlib import sha256
from typing import TYPE_CHECKING, cast

import pytest

from isthmus.connector.events import AccountId, ReverseSettlement
from isthmus.errors import LedgerError
from isthmus.ilp.asset import Asset
from isthmus.settlement.lightning import engine as lightning
from isthmus.settlement.lightning.engine import STUCK_S, LightningEngine
from isthmus.settlement.lightning.incoming import GRACE_S, INVOICE_S
from isthmus.settlement.lightning.messages import InvoiceAsked, decode_question, encode_invoice, encode_question
from isthmus.settlement.port import Engine, MessageRefusedError
from tests.settlement.lightning.conftest import make_engine
from tests.settlement.lightning.ports import PEER, WALL

if TYPE_CHECKING:
    from tests.settlement.lightning.conftest import Pair

pytestmark = [pytest.mark.ledger, pytest.mark.asyncio(loop_scope="session")]

KEYSEND = pytest.mark.parametrize("pair", [{}, {"uses_keysend": True}], indirect=True, ids=["invoice", "keysend"])


async def settled(pair: "Pair", amount: int, before: int) -> None:
    """The settlement is at its end on both sides."""
    await pair.alice.until(lambda: not pair.alice.open(PEER))
    await pair.bob.until(lambda: pair.bob.balance == before - amount)


@KEYSEND
async def test_a_settlement_arrives_to_the_millisatoshi(pair: "Pair") -> None:
    """SE-10, SE-11."""
    received, sent = await pair.received(), await pair.sent()
    due = pair.alice.settle(1_234_567)
    await pair.alice.pay(due)
    await settled(pair, 1_234_567, 0)
    assert (pair.alice.balance, pair.bob.balance) == (1_234_567, -1_234_567)
    assert await pair.received() == received + 1_234_567
    assert await pair.sent() == [*sent, 1_234_567]
    assert not any(key.startswith((b"out ", b"in ")) for side in (pair.alice, pair.bob) for key in side.kept(PEER))


@KEYSEND
async def test_asked_twice_it_is_paid_once(pair: "Pair") -> None:
    """SE-9."""
    sent = await pair.sent()
    due = pair.alice.settle(500_000)
    await pair.alice.pay(due)
    await pair.alice.pay(due)
    await settled(pair, 500_000, 0)
    await pair.bob.killed()
    await pair.start_engine(pair.bob)
    assert (await pair.sent(), pair.bob.balance) == ([*sent, 500_000], -500_000)


@KEYSEND
@pytest.mark.parametrize("moment", ["before", "journaled", "sent", "end"])
async def test_a_kill_of_the_payer_at_any_step(pair: "Pair", moment: str) -> None:
    """The intent is completed after the restart, and nothing is paid twice."""
    sent = await pair.sent()
    due = pair.alice.settle(300_000)
    if moment == "before":
        pair.alice.is_deaf = True
        with pytest.raises((LedgerError, MessageRefusedError)):
            await pair.alice.pay(due)
        pair.alice.is_deaf = False
    else:
        await pair.alice.pay(due)
        if moment == "sent":
            await asyncio.sleep(0)
        elif moment == "end":
            await pair.bob.until(lambda: pair.bob.balance == -300_000)
    await pair.alice.killed()
    await pair.start_engine(pair.alice)
    for again in pair.alice.dues:
        await pair.alice.pay(again)
    await settled(pair, 300_000, 0)
    assert await pair.sent() == [*sent, 300_000]


async def test_a_kill_of_the_receiver_loses_nothing(pair: "Pair") -> None:
    due = pair.alice.settle(700_000)
    await pair.alice.pay(due)
    await pair.bob.killed()
    await pair.alice.until(lambda: not pair.alice.open(PEER))
    await pair.start_engine(pair.bob)
    await settled(pair, 700_000, 0)


async def test_a_kill_of_either_lnd(pair: "Pair") -> None:
    sent = await pair.sent()
    for number, node in enumerate((pair.simnet.alice, pair.simnet.bob), 1):
        due = pair.alice.settle(100_000)
        await pair.alice.pay(due)
        await node.kill()
        await node.start()
        await pair.simnet.until(pair.simnet._is_open, "the channel is open again")
        await settled(pair, 100_000, -100_000 * (number - 1))
    assert await pair.sent() == [*sent, 100_000, 100_000]


async def test_what_cant_be_routed_is_not_tried(pair: "Pair") -> None:
    sent = await pair.sent()
    due = pair.alice.settle(4_900_000_000)
    with pytest.raises(LedgerError, match="open or fill"):
        await pair.alice.pay(due)
    assert [one.state for one in pair.alice.open(PEER)] == [1]
    assert await pair.sent() == sent
    pair.alice.tell(ReverseSettlement(PEER, due.number, "k", "never sent", 1, is_certain=True))
    assert pair.alice.balance == 0


async def test_another_node_than_the_one_configured_is_not_paid(pair: "Pair") -> None:
    pair.alice.settings["node"] = "02" + "ab" * 32
    await pair.alice.engine.accounts_changed(pair.alice.accounts)
    due = pair.alice.settle(1_000)
    with pytest.raises(LedgerError, match="another node"):
        await pair.alice.pay(due)


async def test_nonsense_is_refused_and_a_question_that_comes_again_has_one_answer(pair: "Pair") -> None:
    """SE-12."""
    with pytest.raises(MessageRefusedError, match="F01"):
        await pair.bob.engine.take_message(PEER, b"{}")
    question = b'{"v":1,"ask":"invoice","key":"%s","attempt":0,"msat":"5000"}' % (b"ab" * 16)
    first = await pair.bob.engine.take_message(PEER, question)
    await pair.bob.killed()
    await pair.start_engine(pair.bob)
    assert await pair.bob.engine.take_message(PEER, question) == first


async def test_an_operator_sees_opens_and_closes_channels(pair: "Pair") -> None:
    """Beside the channel that is there, which other tests need: so what is closed is closed by its point."""
    engine, simnet = pair.alice.engine, pair.simnet
    assert isinstance(engine, LightningEngine)
    with pytest.raises(LedgerError, match=r"set accounts.peer.settlement.node"):
        await engine.open_channel(PEER, 1_000_000)
    pair.alice.settings["node"] = await simnet.bob.api.identity()
    await engine.accounts_changed(pair.alice.accounts)

    def states() -> list[str]:
        return sorted(one.state for one in engine.channels(PEER))

    async def until(wanted: list[str]) -> None:
        async def is_so() -> bool:
            await engine._look()  # as its watch does twice a minute
            return states() == wanted

        await simnet.until(is_so, f"channels are {wanted}")

    await until(["open"])
    (first,) = engine.channels(PEER)
    assert first.unit == Asset("BTC", 8)
    assert 0 < first.can_send < first.capacity and 0 < first.can_receive < first.capacity
    assert await engine.open_channel(PEER, 1_000_000)
    assert states() == ["open", "opening"]
    await simnet.mine(6)
    await until(["open", "open"])
    second = next(one for one in engine.channels(PEER) if one.id != first.id)
    assert second.capacity == 1_000_000 and second.can_receive == 0
    with pytest.raises(LedgerError, match="open another one"):
        await engine.add_to_channel(PEER, 5)
    assert await engine.redeem_channels(PEER, and_end=True) == 0
    await pair.simnet.alice.api.close_channel(second.id)

    async def is_gone() -> bool:
        await simnet.mine(1)  # until one of them has the closing transaction, whenever it was told
        await engine._look()
        return states() == ["open"]

    await simnet.until(is_gone, "the second channel is gone")
    await simnet.until(simnet._is_open, "the first channel can be used")


async def test_an_account_is_open_while_payments_or_invoices_are(pair: "Pair") -> None:
    """An invoice that nobody pays keeps it for an hour; a payment until lnd has its end."""
    clock = [time.time_ns() // 10**9]
    await pair.bob.killed()
    pair.bob.engine = make_engine(pair.simnet.bob, now_s=lambda: clock[0])
    await pair.bob.engine.start(pair.bob, pair.bob.accounts)
    question = encode_question(InvoiceAsked(bytes(16), 0, 1_000))
    await pair.bob.engine.take_message(PEER, question)
    (left,) = pair.bob.engine.unfinished(PEER)
    assert left == "1 invoices of ours can still be paid: wait 66 minutes"
    clock[0] += INVOICE_S + GRACE_S + 1
    assert pair.bob.engine.unfinished(PEER) == []
    due = pair.alice.settle(200_000)
    await pair.simnet.bob.kill()
    try:
        with suppress(LedgerError, MessageRefusedError):
            await pair.alice.pay(due)
        assert [one.state for one in pair.alice.open(PEER)] == [1], "no invoice, so nothing was taken"
        assert pair.alice.engine.unfinished(PEER) == []
    finally:
        await pair.simnet.bob.start()
        await pair.simnet.until(pair.simnet._is_open, "the channel is open again")
    await pair.alice.pay(due)
    assert pair.alice.engine.unfinished(PEER) == ["payments to it are under way: wait"]
    await settled(pair, 200_000, 0)
    assert pair.alice.engine.unfinished(PEER) == []


class Holding:
    """A peer whose invoices are held: who pays them has a payment in flight until it lets go."""

    def __init__(self, pair: "Pair") -> None:
        self._api = pair.simnet.bob.api
        self.preimage = os.urandom(32)

    async def take_message(self, account: AccountId, data: bytes) -> bytes:
        question = decode_question(data)
        assert isinstance(question, InvoiceAsked)
        wanted = b64encode(sha256(self.preimage).digest()).decode()
        body = {"hash": wanted, "value_msat": str(question.msat), "expiry": str(INVOICE_S)}
        return encode_invoice((await self._api.post("/v2/invoices/hodl", body))["payment_request"])

    async def let_go(self) -> None:
        await self._api.post("/v2/invoices/settle", {"preimage": b64encode(self.preimage).decode()})


async def test_a_payment_in_flight_for_ever_is_told_and_keeps_no_other_back(
    pair: "Pair", monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only its amount is out. The alarm says what to do, and it is never paid by another invoice."""
    monkeypatch.setattr(lightning, "SLOW_S", 0.05)
    clock = [time.time_ns() // 10**9]
    await pair.alice.killed()
    pair.alice.engine = make_engine(pair.simnet.alice, now_s=lambda: clock[0])
    await pair.alice.engine.start(pair.alice, pair.alice.accounts)
    sent, bobs, held = await pair.sent(), pair.bob.engine, Holding(pair)
    pair.bob.engine = cast(Engine, held)
    stuck = pair.alice.settle(300_000)
    await pair.alice.pay(stuck)
    pair.bob.engine = bobs
    await pair.alice.until(lambda: told(pair, "lightning_payment_slow"))
    now, clock[0] = clock[0], WALL // 1_000 + 1_200  # by the books it was begun at WALL
    await pair.alice.until(lambda: "for 20 minutes" in pair.alice.problems())
    assert "in flight for 20 minutes; it ends when its HTLC times out, so wait" in pair.alice.problems()
    assert "begun" in pair.alice.engine.describe(PEER)[f"payment of settlement {stuck.number}"]
    clock[0] = now
    later = pair.alice.settle(200_000)
    await pair.alice.pay(later)
    await pair.alice.until(lambda: [one.number for one in pair.alice.open(PEER)] == [stuck.number])
    await pair.bob.until(lambda: pair.bob.balance == -200_000)
    clock[0] = WALL // 1_000 + STUCK_S
    await pair.alice.until(lambda: told(pair, "lightning_payment_stuck"))
    assert f"isthmus settlements reverse {PEER} {stuck.number} --certain" in pair.alice.problems()
    assert pair.alice.balance == 500_000
    await held.let_go()
    await pair.alice.until(lambda: not pair.alice.open(PEER))
    assert await pair.sent() == [*sent, 300_000, 200_000]


def told(pair: "Pair", event: str) -> bool:
    return any(name == event for _, name, _ in pair.alice.logs)
