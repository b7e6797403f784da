"""The bank's HTTP server: who asks, within which bounds, and how refusals are told (RFC 9457)."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Protocol, TypeVar, final

from aiohttp import web

from isthmus.errors import LedgerError
from isthmus.ledgers.bank.document import PROBLEM, TITLES, document
from isthmus.ledgers.bank.operations import OPERATIONS, Call, Operation, refuse_stranger
from isthmus.ledgers.bank.rules import Bank
from isthmus.ledgers.bank.values import RefusedError

BODY_BYTES_MAX: Final = 8_192
BODY_S_MAX: Final = 10.0  # from its headers to its last byte
# Threads that ask the database; and requests that wait for one, beyond which callers are sent away.
THREADS: Final = 8
WAITING_MAX: Final = 256
T = TypeVar("T")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Listener(Protocol):
    """Where an application is served, with bounded connections: `links.http.listener.HttpListener`."""

    @property
    def address(self) -> tuple[str, int]: ...

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    def is_known(self, request: web.Request, name: str) -> bool: ...


@final
class BankServer:
    """Serves one bank. `close` lets what is being written end."""

    def __init__(
        self, bank: Bank, make_listener: Callable[[web.Application], Listener], *, version: str, is_secure: bool = False
    ) -> None:
        self._bank: Final = bank
        self._document: Final = json.dumps(document(version))
        self._threads: Final = ThreadPoolExecutor(THREADS, thread_name_prefix="bank")
        self._waiting = 0
        self._scheme: Final = "https" if is_secure else "http"
        self.app: Final = web.Application(client_max_size=BODY_BYTES_MAX + 1, middlewares=[self._problems])
        for operation in OPERATIONS:
            self.app.router.add_route(operation.method, operation.path, self._serve(operation))
        self.app.router.add_get("/openapi.json", self._show_document)
        self._listener: Final = make_listener(self.app)

    async def start(self) -> None:
        """Listen. Raises LinkError if the address can't be had."""
        await self._listener.start()

    async def close(self) -> None:
        await self._listener.close()
        await asyncio.to_thread(self._threads.shutdown)

    @property
    def url(self) -> str:
        host, port = self._listener.address
        return f"{self._scheme}://{f'[{host}]' if ':' in host else host}:{port}"

    def _serve(self, operation: Operation) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            scheme, _, token = request.headers.get("Authorization", "").partition(" ")
            shown = token.strip() if scheme.lower() == "bearer" else ""
            is_right, holder = await self._in_thread(lambda: self._bank.holder_of(shown))
            if not is_right:
                raise RefusedError(401, "no-token", "Send a token: Authorization: Bearer …")
            if not self._listener.is_known(request, holder or ""):
                raise RefusedError(429, "too-many-connections", "Too many connections; close some.")
            unknown = sorted(set(request.query) - set(operation.query))
            if unknown:
                raise RefusedError(400, "bad-request", f"There is no parameter {unknown[0][:40]!r} here.")
            call = Call(
                path=dict(request.match_info),
                query=dict(request.query),
                key=request.headers.get("Idempotency-Key"),
                body=await _text_of(request) if operation.body is not None else "",
                holder=holder,
            )
            refuse_stranger(operation, call)
            status, found = await self._in_thread(lambda: operation.handle(self._bank, call))
            return web.Response(status=status, text=json.dumps(found), content_type="application/json")

        return handle

    async def _in_thread(self, work: Callable[[], T]) -> T:
        """A caller who goes away doesn't undo what the thread does."""
        if self._waiting >= WAITING_MAX:
            raise RefusedError(503, "busy", "The bank is busy; send the same again.")
        self._waiting += 1
        future = asyncio.get_running_loop().run_in_executor(self._threads, work)
        future.add_done_callback(self._ended)
        return await asyncio.shield(future)

    def _ended(self, future: asyncio.Future[Any]) -> None:
        self._waiting -= 1
        if not future.cancelled():
            future.exception()  # whoever asked may be gone

    async def _show_document(self, request: web.Request) -> web.StreamResponse:
        return web.Response(text=self._document, content_type="application/json")

    @web.middleware
    async def _problems(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except RefusedError as refused:
            return _problem(refused)
        except LedgerError as error:
            return _problem(RefusedError(503, "database", f"{error}."))
        except web.HTTPException as refused:
            return _problem(RefusedError(refused.status, "no-such-operation", f"{refused.reason}: see /openapi.json."))


def _problem(refused: RefusedError) -> web.Response:
    body = {
        "type": "about:blank",
        "title": TITLES.get(refused.status, "Error"),
        "status": refused.status,
        "detail": refused.detail,
        "code": refused.code,
    }
    headers = {"WWW-Authenticate": "Bearer"} if refused.status == 401 else {}
    if refused.status in (429, 503):
        headers["Retry-After"] = "1"
    response = web.Response(status=refused.status, text=json.dumps(body), content_type=PROBLEM, headers=headers)
    if refused.status in (401, 429):
        response.force_close()  # one try for each connection
    return response


async def _text_of(request: web.Request) -> str:
    if request.headers.get("Content-Encoding", "identity").strip().lower() not in ("", "identity"):
        raise RefusedError(400, "bad-request", "Send the body as it is, not compressed.")
    try:
        async with asyncio.timeout(BODY_S_MAX):
            body = await request.read()
    except TimeoutError:
        raise RefusedError(408, "slow", f"The body took longer than {BODY_S_MAX:g} s.") from None
    if len(body) > BODY_BYTES_MAX:
        raise RefusedError(413, "too-long", f"The body is longer than {BODY_BYTES_MAX} bytes.")
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise RefusedError(400, "bad-request", "The body is not UTF-8.") from None
