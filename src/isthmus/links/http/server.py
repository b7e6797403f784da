"""`HttpServer`: where peers POST to us (RFC 0035). It authenticates, reads within bounds, hands over to links.

One common path, where the token tells the account, and one path per account below it. Errors are problems (RFC 9457).
"""

import asyncio
import json
from collections.abc import Callable
from ssl import SSLContext
from typing import Final, final

import aiohttp
from aiohttp import web
from multidict import MultiMapping

from isthmus.connector.events import AccountId, Log, Now
from isthmus.errors import ConfigError
from isthmus.ilp.packet import PACKET_BYTES_MAX
from isthmus.links.http.auth import Authenticator, Verifier
from isthmus.links.http.client import read_limited
from isthmus.links.http.link import HttpLink
from isthmus.links.http.listener import HttpListener
from isthmus.links.http.session import parse_leg, parse_uuid
from isthmus.links.http.settings import LEG_HEADER, OCTETS, PACKET_TYPES, Answer, Post
from isthmus.links.http.urls import is_loopback
from isthmus.links.places import StrangerBounds
from isthmus.links.throttle import FailureThrottle

# The largest packet is a Reject, above the 33,857 bytes of a Prepare that HTTP-14 asks for.
BODY_BYTES_MAX: Final = PACKET_BYTES_MAX
BODY_MS_MAX: Final = 10_000
# An idle connection, or one whose request head doesn't come, is closed after this; above the idle time of our client.
IDLE_MS_MAX: Final = 60_000
# Requests still waiting when we stop: their links have been closed before, so they end at once.
STOP_MS_MAX: Final = 1_000
LINGER_MS: Final = 1_000
# From one address as many connections may come at once as our own client opens (`CONCURRENCY_MAX`), and a few more:
# all are strangers until their first request.
STRANGERS: Final = StrangerBounds(strangers_max=512, strangers_per_address_max=288)
# Connections of one account after that; a Prepare on one more is refused with 429 and was not taken.
CONNECTIONS_PER_ACCOUNT_MAX: Final = 512
CALLBACK_URL_CHARS_MAX: Final = 2_048

PROBLEM: Final = "application/problem+json"
_PACKET_HEADERS: Final = {"Content-Type": OCTETS}


def _no_log(log: Log) -> None: ...


@final
class HttpServer:
    """The HTTP endpoint of a node or wallet for all its accounts. `app` takes further routes until `start`."""

    def __init__(
        self,
        *,
        host: str,
        port: int,
        now: Callable[[], Now],
        path: str = "/ilp",
        ssl_context: SSLContext | None = None,
        allow_insecure: bool = False,
        body_ms_max: int = BODY_MS_MAX,
        idle_ms_max: int = IDLE_MS_MAX,
        strangers: StrangerBounds = STRANGERS,
        connections_per_account_max: int = CONNECTIONS_PER_ACCOUNT_MAX,
        throttle: FailureThrottle | None = None,
        on_log: Callable[[Log], None] = _no_log,
    ) -> None:
        if ssl_context is None and not allow_insecure and not is_loopback(host):
            raise ConfigError(
                "host",
                f"{host!r} would be served without TLS",
                "Give a certificate, listen on 127.0.0.1 behind a reverse proxy, or set allow_insecure = true.",
            )
        self._host = host
        self._now = now
        self._path = path
        self._ssl = ssl_context
        self._body_ms_max = body_ms_max
        self._throttle = throttle if throttle is not None else FailureThrottle()
        self._on_log = on_log
        self._links: dict[AccountId, HttpLink] = {}
        self._authenticator = Authenticator()
        self.app = web.Application(client_max_size=BODY_BYTES_MAX)
        self.app.router.add_route("*", path, self._common)
        self.app.router.add_route("*", path.rstrip("/") + "/{account}", self._of_account)
        self._listener = HttpListener(
            self.app,
            (host, port),
            mono_ms=lambda: self._now().mono_ms,
            ssl_context=ssl_context,
            strangers=strangers,
            connections_max=connections_per_account_max,
            keepalive_timeout=idle_ms_max / 1000,
            shutdown_timeout=STOP_MS_MAX / 1000,
            # A body that we refused to read is drained no longer than this.
            lingering_time=LINGER_MS / 1000,
            auto_decompress=False,
        )

    def add(self, link: HttpLink, verifier: Verifier) -> None:
        """Serve an account from now on."""
        self._links[link.account] = link
        self._authenticator.add(link.account, verifier)

    def remove(self, account: AccountId) -> None:
        self._links.pop(account, None)
        self._authenticator.remove(account)

    async def start(self) -> None:
        """Listen. Raises LinkError if the address can't be had."""
        if self._ssl is not None:
            self._ssl.set_alpn_protocols(["http/1.1"])  # all that we speak (HTTP-9)
        await self._listener.start()

    async def close(self) -> None:
        """Stop listening. Close the links first, so that no request waits."""
        await self._listener.close()

    @property
    def port(self) -> int:
        """The port that is listened on, also if 0 was asked for."""
        return self._listener.address[1]

    @property
    def strangers(self) -> int:
        """Connections whose peer has not shown a token yet."""
        return self._listener.strangers

    @property
    def url(self) -> str:
        scheme = "http" if self._ssl is None else "https"
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{scheme}://{host}:{self.port}{self._path}"

    # --- requests -------------------------------------------------------------------------------------------------

    async def _common(self, request: web.Request) -> web.Response:
        return await self._handle(request, None)

    async def _of_account(self, request: web.Request) -> web.Response:
        return await self._handle(request, AccountId(request.match_info["account"]))

    async def _handle(self, request: web.Request, account: AccountId | None) -> web.Response:
        if request.method != "POST":
            return problem(405, "ILP packets are sent by POST", {"Allow": "POST"})
        authorization = request.headers.get("Authorization")
        account = self._authenticator.identify(authorization, self._now().wall_ms, account=account)
        link = None if account is None else self._links.get(account)
        if link is None:
            return await self._refuse(request)
        if not self._listener.is_known(request, link.account):
            return problem(429, "too many connections of this account", close=True)
        post = await _read_post(request, self._body_ms_max)
        if isinstance(post, web.Response):
            return post
        return _response(await link.receive(post))

    async def _refuse(self, request: web.Request) -> web.Response:
        """401, later 429 and not at once; the body of a stranger isn't read."""
        host = request.remote or ""
        verdict = self._throttle.failed(host, self._now().mono_ms)
        if verdict is None:
            headers = {"WWW-Authenticate": "Bearer"}
            return problem(401, "missing, wrong or expired token", headers, close=True)
        if verdict.is_news:
            fields: dict[str, str | int] = {"address": host, "retry_after_s": verdict.retry_after_s}
            self._on_log(Log("warning", "http.throttled", fields))
        await asyncio.sleep(verdict.hold_ms / 1000)
        headers = {"WWW-Authenticate": "Bearer", "Retry-After": str(verdict.retry_after_s)}
        return problem(429, "too many requests without the right token from this address", headers, close=True)


async def _read_post(request: web.Request, body_ms_max: int) -> Post | web.Response:
    """The request's headers and body, or the response to what is wrong with them (HTTP-12)."""
    head = read_head(request.headers)
    if isinstance(head, Answer):
        return problem(head.status, head.problem)
    packet = await _read_body(request, body_ms_max)
    if isinstance(packet, web.Response):
        return packet
    head.packet = packet
    return head


def read_head(headers: MultiMapping[str]) -> Post | Answer:
    """What a POST's headers say, its packet still missing, or what is wrong with them. Pure."""
    # Not `request.content_type`: that takes a missing or broken header for octets.
    if headers.get("Content-Type", "").partition(";")[0].strip().lower() not in PACKET_TYPES:
        return Answer(400, problem=f"the Content-Type must be {OCTETS}")
    if headers.get("Content-Encoding", "identity") != "identity":
        return Answer(415, problem="packets are not compressed")
    request_id = None
    text = headers.get("Request-Id")
    if text is not None:
        request_id = parse_uuid(text)
        if request_id is None:
            return Answer(400, problem="the Request-Id must be a UUID")
    leg = None
    text = headers.get(LEG_HEADER)
    if text is not None:
        leg = parse_leg(text, request_id)
        if leg is None:
            return Answer(400, problem=f"the {LEG_HEADER} is not that of the Request-Id")
    callback_url = headers.get("Callback-Url")
    if callback_url is not None and len(callback_url) > CALLBACK_URL_CHARS_MAX:
        return Answer(400, problem="the Callback-Url is too long")
    return Post(b"", request_id, _prefers_async(headers), callback_url, leg)


async def _read_body(request: web.Request, body_ms_max: int) -> bytes | web.Response:
    too_large = f"a packet has at most {BODY_BYTES_MAX} bytes"
    if request.content_length is not None and request.content_length > BODY_BYTES_MAX:
        return problem(413, too_large, close=True)
    try:
        async with asyncio.timeout(body_ms_max / 1000):
            body = await read_limited(request.content, BODY_BYTES_MAX)
    except TimeoutError:
        return problem(408, "the body took too long", close=True)
    except (aiohttp.ClientError, OSError, ValueError) as error:
        return problem(400, f"the body could not be read: {type(error).__name__}", close=True)
    return problem(413, too_large, close=True) if body is None else body


def _prefers_async(headers: MultiMapping[str]) -> bool:
    """`Prefer: respond-async` (RFC 7240), alone or among other preferences."""
    preferences = ",".join(headers.getall("Prefer", ()))
    return any(each.split(";")[0].strip().lower() == "respond-async" for each in preferences.split(","))


def _response(answer: Answer) -> web.Response:
    if answer.status >= 400:
        return problem(answer.status, answer.problem)
    headers = {"Preference-Applied": "respond-async"} if answer.preference_applied else None
    if not answer.packet:
        return web.Response(status=answer.status, headers=headers)
    return web.Response(status=answer.status, body=answer.packet, headers=_PACKET_HEADERS)


def problem(status: int, detail: str, headers: dict[str, str] | None = None, *, close: bool = False) -> web.Response:
    """An error in the form of RFC 9457. `detail` is for people; the status says what there is to know."""
    body = json.dumps({"type": "about:blank", "status": status, "detail": detail}).encode()
    response = web.Response(status=status, body=body, headers={"Content-Type": PROBLEM, **(headers or {})})
    if close:
        response.force_close()
    return response
