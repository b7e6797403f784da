"""What goes wrong on ledgers and in nodes: kills at every step, servers that lie or are away, fees, strangers' use."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, web

from isthmus.ledgers.xrp.transactions import payment
from isthmus.settlement.port import MessageRefusedError
from isthmus.settlement.promises import Phase
from isthmus.settlement.xrp.messages import ChannelTold, Claim, decode_question, encode
from isthmus.settlement.xrp.pending import PREFIX, Pending
from tests.ledgers.xrp.dev.conftest import Serving, serving
from tests.settlement.lightning.ports import PEER
from tests.settlement.xrp.world import (
    XRP,
    Party,
    a_key,
    ask,
    channel_on,
    channel_party,
    drops_of,
    join,
    let_expire,
    looked,
    payment_party,
    send,
    until,
)

ALICE, BOB, EVE = a_key(1), a_key(2), a_key(3)
KILLS = 14


async def channel_pair(ledger: Serving, parties: list[Party], **changes: Any) -> tuple[Party, Party]:
    alice, bob = channel_party(ledger, ALICE, **changes), channel_party(ledger, BOB)
    join(alice, bob)
    parties += [await alice.start(), await bob.start()]
    return alice, bob


def pending(party: Party) -> list[Pending]:
    kept = party.kept(PEER)
    return [Pending.decode(kept[key]) for key in kept if key.startswith(PREFIX)]


async def channels_of(ledger: Serving) -> list[dict[str, Any]]:
    """All that Alice has ever opened and that are there."""
    found = await ask(ledger, "account_channels", account=ALICE.address, ledger_index="validated")
    return list(found["channels"])


@pytest.mark.slow
@pytest.mark.parametrize("booked", [True, False], ids=["after", "before"])
@pytest.mark.parametrize("victim", ["payer", "payee"])
async def test_a_kill_at_any_step_pays_nothing_twice_and_loses_nothing(
    ledger: Serving, parties: list[Party], victim: str, booked: bool
) -> None:
    """The process ends at its first step, the next one at its first but one, and so on."""
    alice, bob = await channel_pair(ledger, parties)
    killed = alice if victim == "payer" else bob
    kills = 0
    while kills < KILLS:
        if killed.process.kill_at is None:
            killed.process.kill_at = killed.steps + 1 + kills % 3
            killed.process.kill_before = not booked
        alice.owe(7 * XRP)
        await until(lambda: killed.process.is_dead or alice.is_paid, ledger)
        if killed.process.is_dead:
            kills += 1
            await killed.restart()
        await until(lambda: alice.is_paid, ledger)
    total = alice.balance
    await until(lambda: bob.balance == -total, ledger)
    await looked(bob, ledger)
    assert bob.balance == -total
    (channel,) = await channels_of(ledger)
    assert (channel["channel_id"], int(channel["amount"])) == (alice.out.channel, alice.out.deposited)
    assert alice.out.signed == total


@pytest.mark.parametrize("victim", ["payer", "payee"])
@pytest.mark.parametrize("booked", [True, False], ids=["after", "before"])
async def test_a_kill_at_any_step_of_an_end_loses_nothing(
    ledger: Serving, parties: list[Party], victim: str, booked: bool
) -> None:
    alice, bob = await channel_pair(ledger, parties)
    killed = alice if victim == "payer" else bob
    for number in range(1, 8):
        alice.owe(1_000)
        await until(lambda: alice.is_paid, ledger)
        killed.process.kill_at = killed.steps + 1 + number % 4
        killed.process.kill_before = not booked
        if alice.process.is_dead or not await _asked_to_close(alice):
            await alice.restart()
            await alice.channels.close_channel(PEER)
        await until(lambda: killed.process.is_dead or _has_ended(alice, bob), ledger)
        if killed.process.is_dead:
            await killed.restart()
        while not _has_ended(alice, bob):
            # Who was killed before it agreed is not asked again: then the settle delay goes by.
            safe = all(one.unredeemed == 0 for one in bob.channels.channels(PEER))
            ledger.service.close_ledger(advance=300 if safe else 0)
            await looked(alice)
            await looked(bob)
        killed.process.kill_at = None
    assert (alice.balance, bob.balance) == (7_000, -7_000)
    assert await channels_of(ledger) == []


def _has_ended(alice: Party, bob: Party) -> bool:
    return alice.out.phase is Phase.NONE and not bob.channels.incoming(PEER)


async def _asked_to_close(alice: Party) -> bool:
    """False if that was the end of her process."""
    try:
        return await alice.channels.close_channel(PEER)
    except Exception:  # noqa: BLE001 - JournalError of a kill
        return False


async def test_bytes_that_no_server_got_are_submitted_by_the_next_process(
    ledger: Serving, parties: list[Party]
) -> None:
    """Killed between the step and the submission; what is kept is what comes to pass."""
    alice, bob = await channel_pair(ledger, parties)
    alice.process.kill_sending = True
    alice.owe(5)
    await until(lambda: alice.process.is_dead)
    (one,) = pending(alice)
    for _ in range(2):
        ledger.service.close_ledger()
    assert await channels_of(ledger) == []
    await alice.restart()
    await until(lambda: alice.is_paid, ledger)
    assert (await ask(ledger, "tx", transaction=one.hash))["validated"] is True
    assert bob.balance == -5


async def test_a_transaction_that_no_ledger_took_in_time_is_signed_anew(ledger: Serving, parties: list[Party]) -> None:
    alice, bob = await channel_pair(ledger, parties)
    alice.process.kill_sending = True
    alice.owe(5)
    await until(lambda: alice.process.is_dead)
    (old,) = pending(alice)
    let_expire(ledger)
    await alice.restart()
    await until(lambda: alice.is_paid, ledger)
    assert (await ask(ledger, "tx", transaction=old.hash))["error"] == "txnNotFound"
    assert alice.events("xrp_transaction_expired")
    assert len(await channels_of(ledger)) == 1
    assert bob.balance == -5


async def test_a_number_that_another_program_took_is_seen_and_nothing_is_done_twice(
    ledger: Serving, parties: list[Party]
) -> None:
    alice, bob = await channel_pair(ledger, parties)
    alice.process.kill_sending = True
    alice.owe(5)
    await until(lambda: alice.process.is_dead)
    await send(ledger, ALICE, payment(EVE.address, 1, tag=None, memo=b""))
    let_expire(ledger)
    await alice.restart()
    await until(lambda: alice.is_paid, ledger)
    assert alice.events("xrp_sequence_taken")
    assert len(await channels_of(ledger)) == 1
    assert bob.balance == -5


async def test_a_ledger_that_is_away_is_waited_for_and_keeps_what_it_had(parties: list[Party], tmp_path: Path) -> None:
    async with serving(tmp_path / "ledger") as first:
        for number in (1, 2):
            first.service.fund(a_key(number).address, 1_000)
        first.service.close_ledger()
        alice, bob = await channel_pair(first, parties)
        alice.owe(10)
        await until(lambda: alice.is_paid, first)
        port = first.port
    alice.owe(20 * XRP)
    await until(lambda: alice.events("xrp_ledger_away") and bob.events("xrp_ledger_away"))
    bob.owe(3)
    await until(lambda: bob.is_taken)
    async with serving(tmp_path / "ledger", port=port) as again:
        await until(lambda: alice.is_paid and bob.is_paid, again)
        await until(lambda: ("xrp_ledger_away", "") in alice.overs, again)
        assert (alice.balance, bob.balance) == (20 * XRP + 7, -20 * XRP - 7)
        for one in parties:
            await one.kill()


@pytest.mark.parametrize("scheme", ["http", "ws"])
@pytest.mark.parametrize("kind", ["channels", "payments"])
async def test_a_ledger_that_is_killed_again_and_again_loses_and_doubles_nothing(
    parties: list[Party], tmp_path: Path, kind: str, scheme: str
) -> None:
    """What was in its open ledger is gone each time; what it called validated is not."""
    make: Any = channel_party if kind == "channels" else payment_party
    file = tmp_path / "ledger"
    async with serving(file) as first:
        for number in (1, 2):
            first.service.fund(a_key(number).address, 1_000)
        first.service.close_ledger()
        port = first.port
        urls = (f"{scheme}://127.0.0.1:{port}",)
        alice, bob = make(first, ALICE, urls=urls), make(first, BOB, urls=urls)
        join(alice, bob)
        parties += [await alice.start(), await bob.start()]
        alice.owe(7 * XRP)
        await until(lambda: alice.is_paid, first)
    for number in range(8):
        if alice.is_taken:
            alice.owe(7 * XRP)
        async with serving(file, port=port) as again:
            sent = len(alice.events("xrp_transaction"))
            if number % 2:
                await until(lambda: alice.is_paid or len(alice.events("xrp_transaction")) > sent)  # noqa: B023
            else:
                await until(lambda: alice.is_paid and alice.balance == -bob.balance, again)
    async with serving(file, port=port) as again:
        await until(lambda: alice.is_paid and alice.balance == -bob.balance, again)
        assert alice.balance >= 7 * XRP * 5
        if kind == "channels":
            (channel,) = await channels_of(again)
            assert (alice.out.signed, int(channel["amount"])) == (alice.balance, alice.out.deposited)
        else:
            assert await drops_of(again, BOB) == 1_000 * XRP + alice.balance
        for one in parties:
            await one.kill()


async def test_a_channel_without_money_for_it_waits_and_says_so(ledger: Serving, parties: list[Party]) -> None:
    poor = a_key(5)
    ledger.service.fund(poor.address, 5)
    ledger.service.close_ledger()
    alice, bob = channel_party(ledger, poor), channel_party(ledger, BOB)
    join(alice, bob)
    parties += [await alice.start(), await bob.start()]
    alice.owe(5)
    await until(lambda: alice.events("xrp_refused"), ledger)
    assert "are needed" in str(alice.events("xrp_refused")[-1]["reason"])
    assert alice.out.phase is Phase.NONE
    await send(ledger, EVE, payment(poor.address, 20 * XRP, tag=None, memo=b""))
    await until(lambda: alice.is_paid, ledger)
    assert bob.balance == -5


async def test_an_opening_that_fails_on_the_ledger_costs_its_fee_once_and_is_tried_after_a_pause(
    ledger: Serving, parties: list[Party]
) -> None:
    """The reserve isn't ours to spend: the ledger knows how much it is."""
    poor = a_key(5)
    ledger.service.fund(poor.address, 11)  # the deposit and the fee, and less than a reserve
    ledger.service.close_ledger()
    alice, bob = channel_party(ledger, poor), channel_party(ledger, BOB)
    join(alice, bob)
    parties += [await alice.start(), await bob.start()]
    alice.owe(5)
    await until(lambda: alice.events("xrp_transaction_failed"), ledger)
    await looked(alice, ledger, turns=5)
    assert len(alice.events("xrp_transaction")) == 1
    clock = alice.engine._now  # type: ignore[attr-defined]
    await send(ledger, EVE, payment(poor.address, 20 * XRP, tag=None, memo=b""))
    clock.now += 5_001
    await until(lambda: alice.is_paid, ledger)
    assert bob.balance == -5


# --- a server that lies ---


class Liar:
    """Passes questions on to a server, and changes some of its answers."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.lies: dict[str, Any] = {}  # by method: what the result is, or what is put into it
        self._runner: web.AppRunner | None = None
        self.json_rpc = ""

    async def start(self) -> "Liar":
        app = web.Application()
        app.router.add_post("/", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.json_rpc = f"http://127.0.0.1:{self._runner.addresses[0][1]}/"
        return self

    async def close(self) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        question = await request.json()
        async with ClientSession() as session, session.post(self._url, json=question) as response:
            answer = await response.json()
        lie = self.lies.get(question["method"], answer["result"])
        return web.json_response({"result": lie(answer["result"]) if callable(lie) else lie})


@pytest.fixture
async def liar(ledger: Serving) -> AsyncIterator[Liar]:
    liar = await Liar(ledger.json_rpc).start()
    yield liar
    await liar.close()


def holding(drops: int) -> Any:
    """A channel's entry that holds more than it does."""

    def lie(result: dict[str, Any]) -> dict[str, Any]:
        return {**result, "node": {**result["node"], "Amount": str(drops)}} if "node" in result else result

    return lie


async def test_a_server_that_tells_a_larger_channel_is_not_believed_if_another_is_asked_too(
    ledger: Serving, parties: list[Party], liar: Liar
) -> None:
    alice = channel_party(ledger, ALICE)
    bob = channel_party(ledger, BOB, urls=(liar.json_rpc, ledger.json_rpc))
    join(alice, bob)
    parties += [await alice.start(), await bob.start()]
    alice.owe(10)
    await until(lambda: alice.is_paid, ledger)
    liar.lies["ledger_entry"] = holding(10**15)
    await until(lambda: bob.events("xrp_nodes_disagree"))
    ((level, told),) = [(level, one) for level, event, one in bob.logs if event == "xrp_nodes_disagree"]
    assert level == "error" and "differently" in str(told["reason"]) and "nothing is credited" in str(told["remedy"])
    alice.owe(20 * XRP)  # more than the channel holds: its top-up is what Bob must look at
    await until(lambda: alice.out.signed == 20 * XRP + 10, ledger)
    assert bob.balance == -10
    liar.lies.clear()
    await until(lambda: bob.balance == -20 * XRP - 10, ledger)


async def test_a_channel_that_has_ended_is_not_credited_again_by_a_server_that_is_behind(
    ledger: Serving, parties: list[Party], liar: Liar
) -> None:
    """Or whose answer comes after the channel's end was seen: the peer tells the channel and its claim once more."""
    alice, bob = channel_party(ledger, ALICE), channel_party(ledger, BOB, urls=(liar.json_rpc,))
    join(alice, bob)
    parties += [await alice.start(), await bob.start()]
    alice.owe(300)
    await until(lambda: alice.is_paid and bob.balance == -300, ledger)
    channel = alice.out.channel
    before = await ask(ledger, "ledger_entry", payment_channel=channel, ledger_index="validated")
    claim = next(data for data in alice.said if isinstance(decode_question(data), Claim))
    await bob.channels.redeem_channels(PEER, and_end=True)
    await until(lambda: not bob.channels.incoming(PEER), ledger)
    await alice.kill()
    liar.lies["ledger_entry"] = before
    for data in (encode(ChannelTold(channel)), claim):
        with contextlib.suppress(MessageRefusedError):
            await bob.engine.take_message(PEER, data)
    assert bob.balance == -300
    assert not bob.channels.incoming(PEER)


@pytest.mark.parametrize(
    ("method", "lie"),
    [
        ("ledger", {}),
        ("ledger", {"ledger_index": 1, "ledger": {"close_time": 5}}),
        ("ledger", {"ledger_index": "x" * 90, "ledger": []}),
        ("ledger_entry", {"validated": True, "index": "", "node": {}}),
        ("ledger_entry", {"validated": False}),
        ("account_info", {"validated": True, "account_data": {"Balance": "-1", "Sequence": 1}}),
        ("account_info", {"error": "slowDown", "error_message": "You are placing too much load on the server."}),
        ("tx", {"validated": True, "meta": []}),
        ("tx", {"error": "txnNotFound"}),
        ("fee", {"drops": {"base_fee": "1e9", "open_ledger_fee": None}}),
        ("submit", {"engine_result": "telINSUF_FEE_P", "engine_result_message": "Fee insufficient."}),
    ],
)
async def test_whatever_a_server_answers_the_engine_goes_on(
    ledger: Serving, parties: list[Party], liar: Liar, method: str, lie: Any
) -> None:
    alice = channel_party(ledger, ALICE, urls=(liar.json_rpc,), ledgers_max=1_000)
    bob = channel_party(ledger, BOB)
    join(alice, bob)
    parties += [await alice.start(), await bob.start()]
    alice.owe(10)
    await until(lambda: alice.is_paid, ledger)
    liar.lies[method] = lie
    alice.owe(50 * XRP)
    await until(lambda: alice.is_taken)
    for _ in range(10):
        ledger.service.close_ledger()
        await asyncio.sleep(0.01)
    await looked(bob)
    if method in ("tx", "submit") and "validated" not in lie:
        await until(lambda: alice.is_paid, ledger)  # what became of a transaction shows in the channel as well
    else:
        assert not alice.is_paid
    assert not alice.events("xrp_engine_defect")
    liar.lies.clear()
    await until(lambda: alice.is_paid, ledger)
    assert bob.balance == -50 * XRP - 10
    (channel,) = await channels_of(ledger)
    assert await channel_on(ledger, channel["channel_id"])


async def test_a_high_fee_is_paid_up_to_the_bound(ledger: Serving, parties: list[Party], liar: Liar) -> None:
    """Servers say what the next ledger takes; the rest waits for another time, and is signed anew then."""
    liar.lies["fee"] = {"drops": {"base_fee": "10", "open_ledger_fee": "123456"}}
    alice, bob = await channel_pair(ledger, parties, urls=(liar.json_rpc,), fee_max=400)
    alice.owe(5)
    await until(lambda: pending(alice))
    assert pending(alice)[0].fee == 400
    liar.lies["fee"] = {"drops": {"base_fee": "10", "open_ledger_fee": "250"}}
    await until(lambda: alice.is_paid, ledger)
    await alice.channels.add_to_channel(PEER, 5)
    assert pending(alice)[0].fee == 250
    assert bob.balance == -5


async def test_a_server_without_the_end_of_a_channel_keeps_it_until_one_shows_it(
    ledger: Serving, parties: list[Party], liar: Liar
) -> None:
    """Nothing is guessed of what the peer got: neither that it was paid, nor that it wasn't."""
    alice, bob = await channel_pair(ledger, parties, urls=(liar.json_rpc,))
    alice.owe(500)
    await until(lambda: alice.is_paid, ledger)
    alice.link_is_up = bob.link_is_up = False
    alice.owe(200)
    await until(lambda: alice.out.signed == 700)
    liar.lies["account_tx"] = lambda result: {**result, "ledger_index_min": 10**6}
    await bob.channels.redeem_channels(PEER, and_end=True)
    await until(lambda: alice.events("xrp_refused"), ledger)
    assert "has not all ledgers" in str(alice.events("xrp_refused")[-1]["reason"])
    assert alice.out.signed == 700 and not alice.is_paid
    liar.lies.clear()
    await until(lambda: alice.out.phase is Phase.NONE, ledger)
    alice.link_is_up = bob.link_is_up = True
    await until(lambda: alice.is_paid, ledger)
    assert bob.balance == -700
