"""An engine of ours for any connector (RFC 0038): it is told of accounts, asked to settle, and tells what came in.

What is asked for and what came in is in the store before anybody is answered or told. What came in is told to the
connector under one key until it acknowledges it, for ever, with pauses up to an hour (SE-9).
"""

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol, final
from uuid import UUID

from aiohttp import web

from isthmus.connector.events import AccountId
from isthmus.connector.settling import Settling
from isthmus.errors import CodecError, LedgerError
from isthmus.ilp.packet import DATA_BYTES_MAX
from isthmus.settlement.pauses import RETRY_S_MIN, growing_pause
from isthmus.settlement.port import MessageRefusedError, Step
from isthmus.settlement.rfc38.accounting import RETRY_S, read_key, read_quantity, status_of
from isthmus.settlement.rfc38.http import (
    JSON,
    OCTETS,
    Client,
    MakeListener,
    NoAnswerError,
    RefusedError,
    Server,
    StatusError,
    body_of,
)
from isthmus.settlement.rfc38.quantity import decode_quantity, encode_quantity, is_account
from isthmus.settlement.rfc38.store import Store

ACCOUNT_BYTES_MAX: Final = 1_024
# How long an answer to a peer's message may take: the connector has packets that expire.
MESSAGE_MS_MAX: Final = 29_000


class Host(Protocol):
    """Who runs the engine: `runtime.engines.EngineRunner`, and which accounts it takes."""

    def due(self, account: AccountId, number: int) -> None: ...

    async def answer(self, account: AccountId, data: bytes, wait_ms: int) -> bytes: ...

    def unfinished(self, account: AccountId) -> Sequence[str]: ...

    def let_go(self, account: AccountId) -> None: ...


@final
class StoreDesk:
    """Implements `runtime.engines.Desk` over a store and the connector."""

    def __init__(self, store: Store, connector: Client) -> None:
        self._store: Final = store
        self._connector: Final = connector

    def settling(self, account: AccountId) -> Settling | None:
        return self._store.settling(account)

    async def step(self, account: AccountId, step: Step) -> Sequence[int]:
        return self._store.book(account, step)

    def book(self, account: AccountId, step: Step) -> Sequence[int]:
        return self._store.book(account, step)

    async def message(self, account: AccountId, data: bytes) -> bytes:
        """By way of the connector to the peer's engine (SE-4)."""
        path = ("accounts", account, "messages")
        try:
            return await self._connector.call("POST", path, data, kind=OCTETS, wait_s=MESSAGE_MS_MAX / 1000)
        except StatusError as refused:
            raise MessageRefusedError("F00" if 400 <= refused.status < 500 else "T00", str(refused)) from None
        except NoAnswerError as error:
            raise MessageRefusedError("T01", str(error)) from None


@final
class EngineServer:
    """The HTTP API of an engine, and the telling of what came in."""

    def __init__(
        self,
        store: Store,
        connector: Client,
        make_listener: MakeListener,
        *,
        token_sha256: bytes | None,
        check: Callable[[AccountId], str],
        changed: Callable[[], "asyncio.Future[None]"],
        log: Callable[[str, str, Mapping[str, str | int]], None],
        random: Callable[[], float],
        retry_s_min: float = RETRY_S_MIN,
    ) -> None:
        """`check` says why an account can't be set up, "" if it can; `changed` lets the engine know its accounts."""
        self._store: Final = store
        self._connector: Final = connector
        self._check: Final = check
        self._changed: Final = changed
        self._log: Final = log
        self._random: Final = random
        self._retry_s_min: Final = retry_s_min
        self._telling: Final[dict[AccountId, asyncio.Task[None]]] = {}
        self._host: Host
        self._server: Final = Server(make_listener, token_sha256=token_sha256)
        router = self._server.app.router
        router.add_post("/accounts", self._set_up)
        router.add_delete("/accounts/{id}", self._delete)
        router.add_post("/accounts/{id}/settlements", self._settle)
        router.add_post("/accounts/{id}/messages", self._message)

    async def start(self, host: Host) -> None:
        """Listen, and go on with what the last process left. Raises LinkError if the address can't be had."""
        self._host = host
        await self._server.start()
        self._store.on_credit = self._tell
        for account in self._store.waiting():
            self._tell(account)
        for account in self._store.accounts():
            settling = self._store.settling(account)
            assert settling is not None
            for number in settling.open:
                host.due(account, number)

    async def close(self) -> None:
        self._store.on_credit = None
        for task in self._telling.values():
            task.cancel()
        await asyncio.gather(*self._telling.values(), return_exceptions=True)
        await self._server.close()
        await self._connector.close()

    @property
    def url(self) -> str:
        return self._server.url

    # --- what the connector asks ------------------------------------------------------------------------------------

    async def _set_up(self, request: web.Request) -> web.StreamResponse:
        """SE-2. An account that is known is fine: the connector may not have had the answer."""
        account = _account_of(await body_of(request, ACCOUNT_BYTES_MAX))
        problem = self._check(account)
        if problem:
            raise RefusedError(400, f"{account} can't be set up: {problem}.")
        try:
            is_new = self._store.set_up(account)
        except LedgerError as error:
            raise RefusedError(503, f"{error}.", retry_after_s=RETRY_S) from None
        if is_new:
            self._log("info", "account_set_up", {"account": account})
            await self._changed()
        return web.Response(status=201, body=json.dumps({"id": account}).encode(), content_type=JSON)

    async def _delete(self, request: web.Request) -> web.StreamResponse:
        """SE-2. 409 while value is under way: deleted, it would be nobody's."""
        account = self._account(request)
        problem = "; ".join(self._host.unfinished(account)) or self._store.delete(account)
        if problem:
            raise RefusedError(409, f"{account} can't be deleted: {problem}.")
        self._host.let_go(account)
        self._log("info", "account_deleted", {"account": account})
        await self._changed()
        return web.Response(status=204)

    async def _settle(self, request: web.Request) -> web.StreamResponse:
        """SE-3: 201 when it is durable that it will be paid, once for its key. The answer is the quantity."""
        account = self._account(request)
        key = read_key(request)
        amount, scale = await read_quantity(request)
        try:
            problem, number = self._store.begin(account, key, amount, scale)
        except LedgerError as error:
            raise RefusedError(503, f"{error}.", retry_after_s=RETRY_S) from None
        if problem:
            raise RefusedError(409, f"{problem[0].upper()}{problem[1:]}.")  # SE-8
        if number is not None:
            self._log("info", "settlement_begun", {"account": account, "number": number})
            self._host.due(account, number)
        return web.Response(status=201, body=encode_quantity(amount, scale), content_type=JSON)

    async def _message(self, request: web.Request) -> web.StreamResponse:
        """SE-4."""
        account = self._account(request)
        body = await body_of(request, DATA_BYTES_MAX)
        try:
            answer = await self._host.answer(account, body, MESSAGE_MS_MAX)
        except MessageRefusedError as refused:
            raise RefusedError(status_of(refused.code), f"{refused}.") from None
        return web.Response(status=201, body=answer, content_type=OCTETS)

    def _account(self, request: web.Request) -> AccountId:
        account = AccountId(request.match_info["id"])
        if account not in self._store.accounts():
            raise RefusedError(404, "There is no such account; POST it to /accounts.")
        return account

    # --- what the connector is told ---------------------------------------------------------------------------------

    def _tell(self, account: AccountId) -> None:
        running = self._telling.get(account)
        if running is None or running.done():
            self._telling[account] = asyncio.create_task(self._tell_all(account))

    async def _tell_all(self, account: AccountId) -> None:
        """One after the other, each until it is acknowledged."""
        attempt = 0
        while (credit := self._store.first_credit(account)) is not None:
            try:
                body = encode_quantity(credit.amount, credit.scale)
                path = ("accounts", account, "settlements")
                answer = await self._connector.call("POST", path, body, key=str(UUID(bytes=credit.key)))
                self._store.acknowledged(credit, _taken(answer))
                attempt = 0
            except LedgerError as error:
                pause_s = growing_pause(attempt, self._retry_s_min, self._random())
                attempt += 1
                problem = f"{error}; again in {pause_s:.0f} s"
                self._log("warning", "credit_not_acknowledged", {"account": account, "problem": problem})
                await asyncio.sleep(pause_s)


def _account_of(body: bytes) -> AccountId:
    try:
        found = json.loads(body)
        account = found["id"]
    except (ValueError, RecursionError, KeyError, TypeError):
        raise RefusedError(400, 'Send {"id": "…"} as JSON.') from None
    if not isinstance(account, str) or not is_account(account):
        raise RefusedError(400, "id must be of the characters A-Z a-z 0-9 . _ ~ -, and not be dots alone.")  # SE-6
    return AccountId(account)


def _taken(answer: bytes) -> tuple[int, int] | None:
    """What a connector says that it took; None for all, which most say by saying nothing."""
    try:
        return decode_quantity(answer)
    except CodecError:
        return None
