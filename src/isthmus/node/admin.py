"""The read-only admin API and the metrics: what an operator's tools ask a running node (RFC 9457 problems).

Amounts are strings in base units, with asset code and scale beside them. Everything but `/health` needs the bearer
token; changing anything over HTTP is not this API's business.
"""

import hmac
import json
import ssl
from collections.abc import Awaitable, Callable
from hashlib import sha256
from typing import Any, Final, Protocol

from aiohttp import web

from isthmus.errors import LinkError
from isthmus.node.config_model import Admin

Json = dict[str, Any]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

PROBLEM: Final = "application/problem+json"
REQUEST_BYTES_MAX: Final = 4_096
STOP_S_MAX: Final = 2.0
METRICS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


class View(Protocol):
    """What the API shows; every call is quick and changes nothing."""

    def health(self) -> Json: ...

    def accounts(self) -> list[Json]: ...

    def balances(self) -> list[Json]: ...

    def routes(self) -> list[Json]: ...

    def metrics(self) -> bytes:
        """Prometheus text format."""


class AdminServer:
    """Serves one node's view."""

    def __init__(self, settings: Admin, view: View, *, ssl_context: ssl.SSLContext | None = None) -> None:
        self._settings = settings
        self._view = view
        self._ssl = ssl_context
        self._runner: web.AppRunner | None = None
        self._token = None if settings.token is None else sha256(settings.token.reveal().encode()).digest()
        self.app: Final = web.Application(client_max_size=REQUEST_BYTES_MAX, middlewares=[_problems, self._guard])
        self.app.router.add_get("/health", self._health)
        self.app.router.add_get("/accounts", self._list("accounts", view.accounts))
        self.app.router.add_get("/balances", self._list("balances", view.balances))
        self.app.router.add_get("/routes", self._list("routes", view.routes))
        if settings.metrics:
            self.app.router.add_get("/metrics", self._metrics)

    async def start(self) -> None:
        """Listen; LinkError if the address can't be had."""
        host, port = self._settings.listen.host, self._settings.listen.port
        self._runner = web.AppRunner(self.app, access_log=None, handle_signals=False, shutdown_timeout=STOP_S_MAX)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, host, port, ssl_context=self._ssl).start()
        except OSError as error:
            await self._runner.cleanup()
            raise LinkError(f"can't listen on {host}:{port}: {error}") from error

    async def close(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    @property
    def url(self) -> str:
        assert self._runner is not None and self._runner.addresses
        host, port = self._runner.addresses[0][:2]
        return f"{'http' if self._ssl is None else 'https'}://{f'[{host}]' if ':' in host else host}:{port}"

    # --- handlers -------------------------------------------------------------------------------------------------

    async def _health(self, request: web.Request) -> web.StreamResponse:
        health = self._view.health()
        return _answer(health, status=200 if health["status"] == "ok" else 503)

    def _list(self, name: str, read: Callable[[], list[Json]]) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            return _answer({name: read()})

        return handle

    async def _metrics(self, request: web.Request) -> web.StreamResponse:
        return web.Response(body=self._view.metrics(), headers={"Content-Type": METRICS_TYPE})

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        open_path = request.path == "/health" or (request.path == "/metrics" and not self._settings.metrics_need_token)
        if not open_path and not self._is_allowed(request):
            return _problem(401, "Unauthorized", "Send the admin token: Authorization: Bearer …", bearer=True)
        return await handler(request)

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
        paths = "/health, /accounts, /balances, /routes and /metrics"
        return _problem(refusal.status, refusal.reason, f"This API answers GET on {paths}.")


def _answer(body: Json, *, status: int = 200) -> web.Response:
    return web.Response(status=status, text=json.dumps(body), content_type="application/json")


def _problem(status: int, title: str, detail: str, *, bearer: bool = False) -> web.Response:
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    headers = {"WWW-Authenticate": "Bearer"} if bearer else {}
    return web.Response(status=status, text=json.dumps(body), content_type=PROBLEM, headers=headers)
