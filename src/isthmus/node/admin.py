"""The admin API and the metrics: what an operator's tools ask a running node (RFC 9457 problems).

Amounts are strings in base units, with asset code and scale beside them. Everything but `/health` needs the bearer
token. All is read-only but the corrections of the books, which no node without a token takes.
"""

import asyncio
import hmac
import json
import ssl
from collections.abc import Awaitable, Callable, Coroutine
from hashlib import sha256
from typing import Any, Final, Protocol

from aiohttp import web

from isthmus.connector.events import AccountId, Adjust, Log, WriteOff
from isthmus.errors import JournalError
from isthmus.links.http.listener import HttpListener
from isthmus.links.places import StrangerBounds
from isthmus.links.throttle import FailureThrottle
from isthmus.node.config_model import Admin
from isthmus.node.corrections import ADJUST, WRITE_OFF, BadRequestError, parse_correction
from isthmus.runtime import clock

Json = dict[str, Any]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

PROBLEM: Final = "application/problem+json"
REQUEST_BYTES_MAX: Final = 4_096
STOP_S_MAX: Final = 2.0
# Operators and their tools are few: a dashboard, a scraper, a person.
STRANGERS: Final = StrangerBounds(strangers_max=64, strangers_per_address_max=32)
CONNECTIONS_MAX: Final = 64
IDLE_S_MAX: Final = 75.0
# Digests and corrections wait for a batch to be durable: a node whose journal takes longer is in trouble, and says so.
ANSWER_S_MAX: Final = 10.0
METRICS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


class RefusedError(Exception):
    """The node can't do what it was asked for; `status` is one of `_TITLES`."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


_TITLES: Final = {
    400: "Bad Request",
    403: "Forbidden",
    404: "Not Found",
    409: "Conflict",
    503: "Service Unavailable",
}


class View(Protocol):
    """What the API shows, quickly and changing nothing; but `correct`."""

    def health(self) -> Json: ...

    def accounts(self) -> list[Json]: ...

    def balances(self) -> list[Json]: ...

    def routes(self) -> list[Json]: ...

    async def digest(self) -> Json:
        """Waits for a batch to be durable. Raises JournalError if the node stops, RefusedError."""

    async def correct(self, correction: WriteOff | Adjust) -> Json:
        """Waits until it is durable. Raises as `digest`."""

    def metrics(self) -> bytes:
        """Prometheus text format."""


class AdminServer:
    """Serves one node's view."""

    def __init__(
        self,
        settings: Admin,
        view: View,
        *,
        ssl_context: ssl.SSLContext | None = None,
        strangers: StrangerBounds = STRANGERS,
        throttle: FailureThrottle | None = None,
        on_log: Callable[[Log], None] | None = None,
        mono_ms: Callable[[], int] = clock.mono_ms,
    ) -> None:
        self._settings = settings
        self._view = view
        self._ssl = ssl_context
        self._throttle = throttle if throttle is not None else FailureThrottle()
        self._on_log = on_log
        self._mono_ms = mono_ms
        self._token = None if settings.token_digest is None else bytes.fromhex(settings.token_digest)
        self.app: Final = web.Application(client_max_size=REQUEST_BYTES_MAX, middlewares=[_problems, self._guard])
        self.app.router.add_get("/health", self._health)
        self.app.router.add_get("/accounts", self._list("accounts", view.accounts))
        self.app.router.add_get("/balances", self._list("balances", view.balances))
        self.app.router.add_get("/routes", self._list("routes", view.routes))
        self.app.router.add_get("/books/digest", self._digest)
        for kind in (WRITE_OFF, ADJUST):
            self.app.router.add_post(f"/accounts/{{account}}/{kind}", self._correct(kind))
        if settings.metrics:
            self.app.router.add_get("/metrics", self._metrics)

        self._listener = HttpListener(
            self.app,
            (settings.listen.host, settings.listen.port),
            mono_ms=mono_ms,
            ssl_context=ssl_context,
            strangers=strangers,
            connections_max=CONNECTIONS_MAX,
            keepalive_timeout=IDLE_S_MAX,
            shutdown_timeout=STOP_S_MAX,
        )

    async def start(self) -> None:
        """Listen; LinkError if the address can't be had."""
        await self._listener.start()

    async def close(self) -> None:
        await self._listener.close()

    @property
    def url(self) -> str:
        host, port = self._listener.address
        return f"{'http' if self._ssl is None else 'https'}://{f'[{host}]' if ':' in host else host}:{port}"

    # --- handlers -------------------------------------------------------------------------------------------------

    async def _health(self, request: web.Request) -> web.StreamResponse:
        health = self._view.health()
        return _answer(health, status=200 if health["status"] == "ok" else 503)

    def _list(self, name: str, read: Callable[[], list[Json]]) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            return _answer({name: read()})

        return handle

    async def _digest(self, request: web.Request) -> web.StreamResponse:
        return await _in_time(self._view.digest())

    def _correct(self, kind: str) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            return await _in_time(self._corrected(kind, request))

        return handle

    async def _corrected(self, kind: str, request: web.Request) -> Json:
        if self._token is None:
            raise RefusedError(403, "Corrections need a token: configure admin.token, and restart the node.")
        try:
            body = await request.text()
            correction = parse_correction(kind, AccountId(request.match_info["account"]), body)
        except (BadRequestError, UnicodeDecodeError, LookupError) as error:
            detail = str(error) if isinstance(error, BadRequestError) else "The body is not text in UTF-8."
            raise RefusedError(400, detail) from None
        return await self._view.correct(correction)

    async def _metrics(self, request: web.Request) -> web.StreamResponse:
        return web.Response(body=self._view.metrics(), headers={"Content-Type": METRICS_TYPE})

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        open_path = request.path == "/health" or (request.path == "/metrics" and not self._settings.metrics_need_token)
        if open_path:
            return await handler(request)
        if not self._is_allowed(request):
            return await self._refuse(request)
        if not self._listener.is_known(request, "admin"):
            return _problem(429, "Too Many Requests", "Too many connections; close some.")
        return await handler(request)

    async def _refuse(self, request: web.Request) -> web.StreamResponse:
        """401, later 429 and not at once."""
        host = request.remote or ""
        verdict = self._throttle.failed(host, self._mono_ms())
        headers = {"WWW-Authenticate": "Bearer"}
        if verdict is None:
            return _problem(401, "Unauthorized", "Send the admin token: Authorization: Bearer …", headers)
        if verdict.is_news and self._on_log is not None:
            fields: dict[str, str | int] = {"address": host, "retry_after_s": verdict.retry_after_s}
            self._on_log(Log("warning", "admin.throttled", fields))
        await asyncio.sleep(verdict.hold_ms / 1000)
        headers["Retry-After"] = str(verdict.retry_after_s)
        return _problem(429, "Too Many Requests", "Too many requests without the right token.", headers)

    def _is_allowed(self, request: web.Request) -> bool:
        if self._token is None:
            return True
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        shown = sha256(token.strip().encode("utf-8", "surrogateescape")).digest()
        return hmac.compare_digest(shown, self._token) and scheme.lower() == "bearer"


@web.middleware
async def _problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Aiohttp's own refusals (no such path, wrong method) as problems too."""
    try:
        return await handler(request)
    except web.HTTPException as refusal:
        if refusal.status < 400:
            raise
        paths = "GET on /health, /accounts, /balances, /routes, /books/digest and /metrics"
        posts = f"POST on /accounts/ID/{WRITE_OFF} and /accounts/ID/{ADJUST}"
        return _problem(refusal.status, refusal.reason, f"This API answers {paths}, and {posts}.")


async def _in_time(work: Coroutine[Any, Any, Json]) -> web.StreamResponse:
    """The answer to a request that waits for the journal."""
    try:
        async with asyncio.timeout(ANSWER_S_MAX):
            return _answer(await work)
    except TimeoutError:
        error: Exception = RefusedError(503, f"Nothing became durable within {ANSWER_S_MAX:g} s. Ask the same again.")
    except (JournalError, RefusedError) as raised:
        error = raised
    status = error.status if isinstance(error, RefusedError) else 503
    return _problem(status, _TITLES[status], str(error), {"Retry-After": "10"} if status == 503 else None)


def _answer(body: Json, *, status: int = 200) -> web.Response:
    return web.Response(status=status, text=json.dumps(body), content_type="application/json")


def _problem(status: int, title: str, detail: str, headers: dict[str, str] | None = None) -> web.Response:
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    response = web.Response(status=status, text=json.dumps(body), content_type=PROBLEM, headers=headers)
    if status in (401, 429):
        response.force_close()  # one try for each connection
    return response
