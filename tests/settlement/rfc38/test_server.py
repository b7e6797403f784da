"""An engine of ours for a connector of somebody else: what it is asked, what it tells, and what a restart leaves."""

import asyncio
import os
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from isthmus.connector.events import AccountId, Log, Now
from isthmus.connector.settling import CONFIRMED, FAILED, OPEN_SETTLEMENTS_MAX, TAKEN
from isthmus.errors import LedgerError
from isthmus.ilp.asset import Asset
from isthmus.node.engines.rfc38 import listener_at
from isthmus.runtime.engines import EngineRunner
from isthmus.settlement.port import MessageRefusedError, SettlingAccount, Step, StepRefusedError
from isthmus.settlement.rfc38 import store as store_module
from isthmus.settlement.rfc38.http import Client
from isthmus.settlement.rfc38.server import EngineServer, StoreDesk
from isthmus.settlement.rfc38.store import ANSWER_KEPT_MS, Store
from tests.runtime.engine_world import Bank
from tests.settlement.rfc38.conftest import ANYWHERE, OCTETS, Answered, Other, call, quantity

ANN = AccountId("ann")
USD = Asset("USD", 2)


class Process:
    """One process of an engine: store, runner and server, on a clock that a test sets."""

    def __init__(self, path: Path, connector: str, *, token: str | None = None) -> None:
        self.wall = 1_000
        self.log: list[Log] = []
        self._news = asyncio.Event()
        self.bank = Bank()
        self.store = Store(path, asset="USD", scale=2, wall_ms=lambda: self.wall, entropy=os.urandom)
        client = Client("the connector", connector, token=None, timeout_ms=2_000)
        self.server = EngineServer(
            self.store,
            client,
            listener_at(ANYWHERE),
            token_sha256=None if token is None else sha256(token.encode()).digest(),
            check=lambda account: "the file doesn't know it" if account == "nobody" else "",
            changed=lambda: asyncio.ensure_future(self.runner.follow(self._accounts())),
            log=lambda level, event, fields: self._hear(Log(level, event, dict(fields))),
            random=lambda: 1.0,
            retry_s_min=0.001,
        )
        self.runner = EngineRunner(
            StoreDesk(self.store, client),
            {"bank": self.bank},
            on_log=self._hear,
            now=lambda: Now(self.wall, self.wall),
            random=lambda: 1.0,
            retry_s_min=0.001,
        )

    def _accounts(self) -> dict[str, list[SettlingAccount]]:
        return {"bank": [SettlingAccount(account, USD, {}) for account in self.store.accounts()]}

    async def start(self) -> "Process":
        await self.runner.start(self._accounts())
        await self.server.start(self.runner)
        return self

    async def stop(self) -> None:
        await self.runner.close()
        await self.server.close()
        self.store.close()

    def _hear(self, log: Log) -> None:
        self.log.append(log)
        self._news.set()

    async def until_logged(self, event: str) -> Log:
        async with asyncio.timeout(60):
            while not [one for one in self.log if one.event == event]:
                self._news.clear()
                await self._news.wait()
        return next(one for one in self.log if one.event == event)

    async def set_up(self, account: str = "ann") -> Answered:
        return await call(f"{self.server.url}/accounts", body=b'{"id":"' + account.encode() + b'"}')

    async def settle(self, body: bytes, key: str | None = "k-1", account: str = "ann") -> Answered:
        return await call(f"{self.server.url}/accounts/{account}/settlements", body=body, key=key)

    def open(self) -> list[tuple[int, int, int]]:
        settling = self.store.settling(ANN)
        assert settling is not None
        return [(one.number, one.amount, one.state) for one in settling.open.values()]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "engine.db"


@pytest.fixture
async def process(path: Path, other: Other) -> AsyncIterator[Process]:
    process = await Process(path, other.url).start()
    yield process
    await process.stop()


# --- accounts --------------------------------------------------------------------------------------------------------


async def test_accounts_are_set_up_once_and_deleted(process: Process) -> None:
    """SE-2: the same again is fine, for its answer may have been lost."""
    for _ in range(2):
        answered = await process.set_up()
        assert (answered.status, answered.body) == (201, b'{"id": "ann"}')
    assert [one.id for one in process.bank.accounts] == [ANN]
    assert (await call(f"{process.server.url}/accounts/ann", "DELETE")).status == 204
    assert (await call(f"{process.server.url}/accounts/ann", "DELETE")).status == 404
    assert list(process.bank.accounts) == []
    assert (await process.settle(quantity(5, 2))).status == 404


@pytest.mark.parametrize("body", [b"", b"[]", b'{"id":5}', b'{"id":"a/b"}', b'{"id":".."}', b'{"id":"nobody"}'])
async def test_ids_that_cant_be(process: Process, body: bytes) -> None:
    """SE-6."""
    assert (await call(f"{process.server.url}/accounts", body=body)).status == 400


async def test_an_account_with_value_under_way_is_not_deleted(process: Process) -> None:
    await process.set_up()
    await process.settle(quantity(5, 2))
    await process.bank.until_paid(1)
    process.bank.is_done = True
    answered = await call(f"{process.server.url}/accounts/ann", "DELETE")
    assert answered.status == 409
    assert "under way" in answered.detail()
    process.bank.is_done = False
    await process.bank.port.step(ANN, Step(moved=[(1, CONFIRMED, "")]))
    assert "things are open" in (await call(f"{process.server.url}/accounts/ann", "DELETE")).detail()


async def test_what_an_engine_keeps_goes_with_an_account_of_which_nothing_is_open(process: Process, path: Path) -> None:
    await process.set_up()
    await process.bank.port.step(ANN, Step(kept=[(b"cursor", b"7")]))
    process.bank.is_done = True
    assert (await call(f"{process.server.url}/accounts/ann", "DELETE")).status == 204
    with pytest.raises(StepRefusedError):
        await process.bank.port.step(ANN, Step(kept=[(b"late", b"v")]))
    await process.set_up()
    assert process.bank.port.kept(ANN) == {}


async def test_deleted_and_set_up_again_its_keys_and_numbers_go_on(process: Process) -> None:
    """SE-7: a settlement asked for before is not paid anew."""
    await process.set_up()
    await process.settle(quantity(5, 2))
    await process.bank.until_paid(1)
    await process.bank.port.step(ANN, Step(moved=[(1, CONFIRMED, "")], kept=[(b"tx", b"")]))
    assert (await call(f"{process.server.url}/accounts/ann", "DELETE")).status == 204
    await process.set_up()
    assert (await process.settle(quantity(5, 2))).status == 201
    await process.settle(quantity(6, 2), "k-2")
    await process.bank.until_paid(2)
    assert [one[:2] for one in process.bank.paid] == [(1, 5), (2, 6)]


# --- asked to settle -------------------------------------------------------------------------------------------------


async def test_a_settlement_is_paid_and_its_key_answers_the_same(process: Process) -> None:
    """SE-3, SE-7."""
    await process.set_up()
    first = await process.settle(quantity(500, 2))
    assert (first.status, first.body) == (201, b'{"amount":"500","scale":2}')
    again = await asyncio.gather(*(process.settle(quantity(500, 2)) for _ in range(5)))
    assert {(one.status, one.body) for one in again} == {(201, first.body)}
    await process.bank.until_paid(1)
    assert process.open() == [(1, 500, TAKEN)]


async def test_another_quantity_under_its_key_is_a_conflict(process: Process) -> None:
    """SE-8."""
    await process.set_up()
    await process.settle(quantity(500, 2))
    for body in (quantity(501, 2), quantity(5_000, 3)):
        answered = await process.settle(body)
        assert (answered.status, answered.detail()) == (409, "This key was used for another quantity.")


async def test_without_a_key_nothing_is_paid(process: Process) -> None:
    """SE-8, X-14: some clients send none."""
    await process.set_up()
    assert (await process.settle(quantity(500, 2), None)).status == 400
    assert process.open() == []


async def test_fractions_add_up_until_the_ledger_can_pay_them(process: Process, path: Path, other: Other) -> None:
    """SE-11: a third of a cent, three times, over a restart."""
    await process.set_up()
    for index in range(9):
        assert (await process.settle(quantity(1, 3), f"k{index}")).status == 201
    assert process.open() == []
    await process.stop()
    again = await Process(path, other.url).start()
    await again.settle(quantity(11, 3), "last")
    await again.bank.until_paid(1)
    assert again.open() == [(1, 2, TAKEN)]
    await again.settle(quantity(2**70, 0), "large")
    await again.bank.until_paid(2)
    assert again.open()[-1] == (2, 100 * 2**70, TAKEN)
    await again.stop()
    process.store = Store(path, asset="USD", scale=2, wall_ms=lambda: 0, entropy=os.urandom)


async def test_keys_are_kept_for_longer_than_a_day_after_their_last_use(process: Process) -> None:
    """SE-7."""
    await process.set_up()
    await process.settle(quantity(500, 2))
    for _ in range(3):
        process.wall += ANSWER_KEPT_MS - 1
        assert (await process.settle(quantity(500, 2))).status == 201
    await process.settle(quantity(1, 2), "another")
    assert (await process.settle(quantity(501, 2))).status == 409
    process.wall += ANSWER_KEPT_MS + 1
    await process.settle(quantity(1, 2), "yet-another")
    assert (await process.settle(quantity(501, 2))).status == 201


async def test_what_was_not_taken_when_the_process_ended_is_paid_in_the_next(path: Path, other: Other) -> None:
    """SE-10: under the same key, by the engine's part of the store."""
    first = await Process(path, other.url).start()

    async def fail(number: int) -> None:
        raise LedgerError("away")

    first.bank.paying = fail
    await first.set_up()
    await first.settle(quantity(500, 2))
    await first.bank.until_paid(2)
    await first.stop()
    second = await Process(path, other.url).start()
    await second.bank.until_paid(1)
    assert second.bank.paid[0] == first.bank.paid[0]
    assert second.bank.port.kept(ANN) == {b"tx": b"bytes"}
    await second.stop()


async def test_settlements_come_to_the_engine_in_their_order(process: Process) -> None:
    gate = asyncio.Event()

    async def wait(number: int) -> None:
        await gate.wait()
        await process.bank.port.step(ANN, Step(moved=[(number, TAKEN, "")]))

    process.bank.paying = wait
    await process.set_up()
    for index in range(5):
        await process.settle(quantity(index + 1, 2), f"k{index}")
    await process.bank.until_paid(1)
    assert len(process.bank.paid) == 1
    gate.set()
    await process.bank.until_paid(5)
    assert [one[0] for one in process.bank.paid] == [1, 2, 3, 4, 5]


async def test_settlements_under_way_are_bounded(process: Process) -> None:
    await process.set_up()
    for index in range(OPEN_SETTLEMENTS_MAX):
        assert (await process.settle(quantity(1, 2), f"k{index}")).status == 201
    answered = await process.settle(quantity(1, 2), "one-more")
    assert answered.status == 503
    assert answered.headers["Retry-After"] == "60"
    await process.bank.until_paid(OPEN_SETTLEMENTS_MAX)
    await process.bank.port.step(ANN, Step(moved=[(1, CONFIRMED, "")]))
    assert (await process.settle(quantity(1, 2), "one-more")).status == 201


async def test_keys_of_a_week_are_bounded(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "ANSWERS_MAX", 2)
    await process.set_up()
    for index in range(2):
        assert (await process.settle(quantity(1, 3), f"k{index}")).status == 201
    assert (await process.settle(quantity(1, 3), "third")).status == 503
    assert (await process.settle(quantity(1, 3), "k0")).status == 201


async def test_one_that_failed_for_good_is_replaced_by_the_operator(path: Path, other: Other) -> None:
    """SE-10: by a new payment with a new key, after the ledger has proved that the old one can't happen."""
    first = await Process(path, other.url).start()
    await first.set_up()
    await first.settle(quantity(500, 2))
    await first.bank.until_paid(1)
    with pytest.raises(LedgerError, match="no settlement 1 that has failed"):
        first.store.begin_again(ANN, 1, "too early")
    await first.bank.port.step(ANN, Step(moved=[(1, FAILED, "no such holder")]))
    with pytest.raises(LedgerError, match="in use by another process"):
        Store(path, asset="USD", scale=2, wall_ms=lambda: 0, entropy=os.urandom)
    await first.stop()
    store = Store(path, asset="USD", scale=2, wall_ms=lambda: 0, entropy=os.urandom)
    assert store.begin_again(ANN, 1, "there is one now") == 2
    store.close()
    second = await Process(path, other.url).start()
    await second.bank.until_paid(1)
    assert second.bank.paid[0][:2] == (2, 500)
    assert second.bank.paid[0][2] != first.bank.paid[0][2]
    await second.stop()


# --- what came in ----------------------------------------------------------------------------------------------------

SETTLEMENTS = "/accounts/ann/settlements"


async def test_what_came_in_is_told_until_it_is_acknowledged_under_one_key(process: Process, other: Other) -> None:
    """SE-5, SE-9, SE-7."""

    async def answer(found: Any) -> web.StreamResponse:
        return web.Response(status=201 if len(other.of(SETTLEMENTS)) > 4 else 409)

    other.answer = answer
    await process.set_up()
    assert await process.bank.port.step(ANN, Step(credits=[(700, 2, "", "a transfer")])) == [700]
    calls = await other.until(SETTLEMENTS, 5)
    assert {one.body for one in calls} == {b'{"amount":"700","scale":2}'}
    assert len({one.key for one in calls}) == 1
    assert calls[0].key is not None
    assert len(calls[0].key) == 36


async def test_what_was_not_acknowledged_is_told_by_the_next_process(path: Path, other: Other) -> None:
    """SE-9: with the same key."""
    first = await Process(path, other.url).start()

    async def refuse(found: Any) -> web.StreamResponse:
        return web.Response(status=503)

    other.answer = refuse
    await first.set_up()
    await first.bank.port.step(ANN, Step(credits=[(700, 2, "", "")], kept=[(b"seen", b"1")]))
    await other.until(SETTLEMENTS, 2)
    await first.stop()
    before = other.of(SETTLEMENTS)[0]
    count = len(other.of(SETTLEMENTS))
    other.answer = other._fine
    second = await Process(path, other.url).start()
    after = (await other.until(SETTLEMENTS, count + 1))[-1]
    assert (after.key, after.body) == (before.key, before.body)
    assert second.bank.port.kept(ANN) == {b"seen": b"1"}
    await second.stop()


async def test_what_the_connector_did_not_take_goes_with_the_next(process: Process, other: Other) -> None:
    """SE-11, X-14: interledger-rs answers with what it took, and counts in another scale."""

    async def answer(found: Any) -> web.StreamResponse:
        return web.Response(status=201, body=quantity(6, 0))

    other.answer = answer
    await process.set_up()
    await process.bank.port.step(ANN, Step(credits=[(699, 2, "", "")]))
    await other.until(SETTLEMENTS)
    await until_told(process)
    other.answer = other._fine
    await process.bank.port.step(ANN, Step(credits=[(1, 2, "", "")]))
    calls = await other.until(SETTLEMENTS, 2)
    assert calls[1].json() == {"amount": "100", "scale": 2}


async def until_told(process: Process) -> None:
    """The connector has acknowledged all that came in."""
    await asyncio.gather(*process.server._telling.values())
    assert process.store.waiting() == {}


@pytest.mark.parametrize("said", [b"", b"null", b'{"amount":"999999","scale":0}'])
async def test_an_answer_without_a_sensible_quantity_means_all(process: Process, other: Other, said: bytes) -> None:
    async def answer(found: Any) -> web.StreamResponse:
        return web.Response(status=200, body=said)

    other.answer = answer
    await process.set_up()
    await process.bank.port.step(ANN, Step(credits=[(699, 2, "", "")]))
    await other.until(SETTLEMENTS)
    await until_told(process)
    await process.bank.port.step(ANN, Step(credits=[(1, 2, "", "")]))
    assert (await other.until(SETTLEMENTS, 2))[1].json() == {"amount": "1", "scale": 2}


async def test_what_the_ledger_took_back_is_kept_back_from_the_next(process: Process, other: Other) -> None:
    """A connector can't be told of it (RFC 0038 has no word for it)."""
    await process.set_up()
    await process.bank.port.step(ANN, Step(credits=[(700, 2, "", "")]))
    await process.bank.port.step(ANN, Step(undone=[(700, "reorganised")]))
    await process.bank.port.step(ANN, Step(credits=[(500, 2, "", "")]))
    await process.bank.port.step(ANN, Step(credits=[(3_500, 3, "", "")]))
    calls = await other.until(SETTLEMENTS, 2)
    assert [one.json() for one in calls] == [{"amount": "700", "scale": 2}, {"amount": "1500", "scale": 3}]


async def test_an_engines_own_key_credits_once(process: Process, other: Other) -> None:
    await process.set_up()
    for _ in range(2):
        assert await process.bank.port.step(ANN, Step(credits=[(7, 2, "tx 1", "")])) == [7]
    await process.bank.port.step(ANN, Step(credits=[(8, 2, "tx 2", "")]))
    calls = await other.until(SETTLEMENTS, 2)
    assert [one.json()["amount"] for one in calls] == ["7", "8"]
    assert process.bank.port.credited(ANN, "tx") == ["tx 1", "tx 2"]


@pytest.mark.parametrize(
    "step, problem",
    [
        (Step(moved=[(9, TAKEN, "")]), "not open"),
        (Step(credits=[(-1, 2, "", "")]), "too large"),
        (Step(credits=[(1, 256, "", "")]), "too large"),
        (Step(undone=[(0, "")]), "above zero"),
        (Step(kept=[(b"", b"1")]), "more in one place"),
        (Step(kept=[(b"a", bytes(65_537))]), "more in one place"),
    ],
)
async def test_a_step_is_taken_whole_or_not_at_all(process: Process, step: Step, problem: str) -> None:
    await process.set_up()
    step.kept.append((b"x", b"y"))
    with pytest.raises(StepRefusedError, match=problem):
        await process.bank.port.step(ANN, step)
    assert process.bank.port.kept(ANN) == {}


# --- messages, tokens, the file --------------------------------------------------------------------------------------


async def test_messages_both_ways(process: Process, other: Other) -> None:
    """SE-4."""
    await process.set_up()
    answered = await call(f"{process.server.url}/accounts/ann/messages", body=b"\x00hi", headers=OCTETS)
    assert (answered.status, answered.body) == (201, b"\x00hi")
    assert answered.headers["Content-Type"] == "application/octet-stream"
    assert await process.bank.port.message(ANN, b"\x00ours") == b"\x00ours"
    (found,) = other.of("/accounts/ann/messages")
    assert found.headers["Content-Type"] == "application/octet-stream"


@pytest.mark.parametrize("status, code", [(400, "F00"), (503, "T00"), (301, "T00")])
async def test_a_message_that_the_connector_refuses(process: Process, other: Other, status: int, code: str) -> None:
    async def answer(found: Any) -> web.StreamResponse:
        return web.Response(status=status)

    other.answer = answer
    await process.set_up()
    with pytest.raises(MessageRefusedError) as caught:
        await process.bank.port.message(ANN, b"x")
    assert caught.value.code == code


async def test_a_message_that_makes_no_sense(process: Process) -> None:
    async def refuse(data: bytes) -> bytes:
        raise MessageRefusedError("F01", "what?")

    process.bank.answering = refuse
    await process.set_up()
    url = f"{process.server.url}/accounts/ann/messages"
    answered = await call(url, body=b"x", headers=OCTETS)
    assert (answered.status, answered.detail()) == (400, "F01 what?.")
    assert (await call(url, body=bytes(32_768), headers=OCTETS)).status == 413


async def test_whoever_must_show_a_token_does(path: Path, other: Other) -> None:
    process = await Process(path, other.url, token="secret").start()
    assert (await process.set_up()).status == 401
    body = b'{"id":"ann"}'
    url = f"{process.server.url}/accounts"
    assert (await call(url, body=body, headers={"Authorization": "Bearer secret"})).status == 201
    await process.stop()


def test_a_file_for_another_asset_is_refused(path: Path) -> None:
    def make(asset: str, scale: int) -> Store:
        return Store(path, asset=asset, scale=scale, wall_ms=lambda: 0, entropy=os.urandom)

    make("USD", 2).close()
    for asset, scale in (("EUR", 2), ("USD", 3)):
        with pytest.raises(LedgerError, match="USD with scale 2, for ever"):
            make(asset, scale)
    assert path.stat().st_mode & 0o777 == 0o600


def test_what_is_no_store_is_refused(path: Path) -> None:
    path.write_bytes(b"not a database, and long enough to be looked at" * 100)
    with pytest.raises(LedgerError, match="not a database"):
        Store(path, asset="USD", scale=2, wall_ms=lambda: 0, entropy=os.urandom)


async def test_a_disk_that_refuses_changes_nothing(process: Process, other: Other) -> None:
    """Neither in memory: the next try is as the first."""
    await process.set_up()
    limit = process.store._db.execute("PRAGMA page_count").fetchone()[0]
    process.store._db.execute(f"PRAGMA max_page_count = {limit}")
    big = Step(credits=[(5, 2, "", "")], kept=[(f"k{index}".encode(), bytes(60_000)) for index in range(8)])
    with pytest.raises(LedgerError, match="full"):
        await process.bank.port.step(ANN, big)
    assert process.bank.port.kept(ANN) == {}
    process.store._db.execute("PRAGMA max_page_count = 1000000")
    assert await process.bank.port.step(ANN, big) == [5]
    (found,) = await other.until(SETTLEMENTS)
    assert found.json()["amount"] == "5"
