"""The server of the admin API and the metrics: who may ask, within which bounds, and how refusals are told.

What can be asked is a list of operations (`operation.Operation`). Everything but the open ones needs the bearer token,
and nothing is changed on a node without one. Amounts are strings in base units, with asset code and scale beside them.
"""

import asyncio
import hmac
import ssl
from collections.abc import Awaitable, Callable, Sequence
from hashlib import sha256
from typing import Final

from aiohttp import web

from isthmus.connector.events import Log
from isthmus.errors import ConfigError, JournalError
from isthmus.links.http.listener import HttpListener
from isthmus.links.places import StrangerBounds
from isthmus.links.throttle import FailureThrottle
from isthmus.node.admin.answers import answer, problem, refusal
from isthmus.node.admin.operation import Answer, Call, Operation, RefusedError
from isthmus.node.config_model import Admin
from isthmus.runtime import clock

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

# Operations have bounds of their own below it.
REQUEST_BYTES_MAX: Final = 65_536
STOP_S_MAX: Final = 2.0
# Operators and their tools are few: a dashboard, a scraper, a person.
STRANGERS: Final = StrangerBounds(strangers_max=64, strangers_per_address_max=32)
CONNECTIONS_MAX: Final = 64
IDLE_S_MAX: Final = 75.0
# What waits for a batch to be durable: a node whose journal takes longer is in trouble, and says so.
ANSWER_S_MAX: Final = 10.0
METRICS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


class AdminServer:
    """Serves one node's operations, and its metrics if they are configured."""

    def __init__(
        self,
        settings: Admin,
        operations: Sequence[Operation],
        *,
        metrics: Callable[[], bytes],
        ssl_context: ssl.SSLContext | None = None,
        strangers: StrangerBounds = STRANGERS,
        throttle: FailureThrottle | None = None,
        on_log: Callable[[Log], None] | None = None,
        mono_ms: Callable[[], int] = clock.mono_ms,
    ) -> None:
        self._settings = settings
        self._metrics = metrics
        self._ssl = ssl_context
        self._throttle = throttle if throttle is not None else FailureThrottle()
        self._on_log = on_log
        self._mono_ms = mono_ms
        self._token = None if settings.token_digest is None else bytes.fromhex(settings.token_digest)
        self._open: Final = {operation.path for operation in operations if operation.is_open}
        self._known: Final = _known_paths(operations)
        self.app: Final = web.Application(client_max_size=REQUEST_BYTES_MAX, middlewares=[self._problems, self._guard])
        for operation in operations:
            self.app.router.add_route(operation.method, operation.path, self._serve(operation))
        if settings.metrics:
            self.app.router.add_get("/metrics", self._show_metrics)

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

    def _serve(self, operation: Operation) -> Handler:
        wait_s_max = ANSWER_S_MAX if operation.wait_s_max is None else operation.wait_s_max

        async def handle(request: web.Request) -> web.StreamResponse:
            try:
                if operation.writes and self._token is None:
                    raise RefusedError(
                        403, "Changes and corrections need a token: configure admin.token, and restart the node."
                    )
                call = await _call(request, operation)
                async with asyncio.timeout(wait_s_max):
                    body = await operation.handle(call)
                return answer(body.body, status=body.status) if isinstance(body, Answer) else answer(body)
            except TimeoutError:
                detail = f"Nothing became durable within {wait_s_max:g} s. Ask the same again."
                return refusal(RefusedError(503, detail))
            except ConfigError as error:
                return refusal(RefusedError(400, f"{error}", key=error.key))
            except JournalError as error:
                return refusal(RefusedError(503, str(error)))
            except RefusedError as error:
                return refusal(error)

        return handle

    async def _show_metrics(self, request: web.Request) -> web.StreamResponse:
        return web.Response(body=self._metrics(), headers={"Content-Type": METRICS_TYPE})

    @web.middleware
    async def _problems(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Aiohttp's own refusals (no such path, wrong method) as problems too."""
        try:
            return await handler(request)
        except web.HTTPException as refused:
            if refused.status < 400:
                raise
            return problem(refused.status, refused.reason, f"This API answers {self._known}.")

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        open_path = request.path in self._open or (request.path == "/metrics" and not self._settings.metrics_need_token)
        if open_path:
            return await handler(request)
        if not self._is_allowed(request):
            return await self._refuse(request)
        if not self._listener.is_known(request, "admin"):
            return problem(429, "Too Many Requests", "Too many connections; close some.")
        return await handler(request)

    async def _refuse(self, request: web.Request) -> web.StreamResponse:
        """401, later 429 and not at once."""
        host = request.remote or ""
        verdict = self._throttle.failed(host, self._mono_ms())
        headers = {"WWW-Authenticate": "Bearer"}
        if verdict is None:
            return problem(401, "Unauthorized", "The admin token is missing or wrong: Authorization: Bearer …", headers)
        if verdict.is_news and self._on_log is not None:
            fields: dict[str, str | int] = {"address": host, "retry_after_s": verdict.retry_after_s}
            self._on_log(Log("warning", "admin.throttled", fields))
        await asyncio.sleep(verdict.hold_ms / 1000)
        headers["Retry-After"] = str(verdict.retry_after_s)
        return problem(429, "Too Many Requests", "Too many requests without the right token.", headers)

    def _is_allowed(self, request: web.Request) -> bool:
        if self._token is None:
            return True
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        shown = sha256(token.strip().encode("utf-8", "surrogateescape")).digest()
        return hmac.compare_digest(shown, self._token) and scheme.lower() == "bearer"


async def _call(request: web.Request, operation: Operation) -> Call:
    """What the request says; RefusedError if it says what the operation doesn't know."""
    unknown = sorted(set(request.query) - set(operation.query))
    if unknown:
        known = ", ".join(operation.query) or "none"
        raise RefusedError(400, f"{unknown[0][:40]!r} is no parameter here; these are known: {known}.")
    try:
        body = await request.text() if operation.body is not None else ""
    except (UnicodeDecodeError, LookupError):
        raise RefusedError(400, "The body is not text in UTF-8.") from None
    if len(body) > operation.body_chars_max:
        raise RefusedError(413, f"The body is longer than {operation.body_chars_max} characters.")
    return Call(dict(request.match_info), dict(request.query), body)


def _known_paths(operations: Sequence[Operation]) -> str:
    """For people who asked for something else."""
    methods: dict[str, list[str]] = {}
    for operation in operations:
        methods.setdefault(operation.method, []).append(operation.path)
    return "; ".join(f"{method} on {', '.join(dict.fromkeys(paths))}" for method, paths in methods.items())
