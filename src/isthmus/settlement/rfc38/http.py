"""HTTP as both sides of RFC 0038 need it: bounded requests to one server, and a server for those who may call.

The RFC has no authentication: who can reach a server can make it pay. So servers listen on this machine unless told
otherwise, and may ask for a bearer token that the RFC doesn't know.
"""

import asyncio
import hmac
import json
import ssl
from collections.abc import Awaitable, Callable
from hashlib import sha256
from typing import Final, Protocol, final

import aiohttp
from aiohttp import web
from yarl import URL

from isthmus.errors import LedgerError, plain
from isthmus.ilp.packet import DATA_BYTES_MAX

JSON: Final = "application/json"
OCTETS: Final = "application/octet-stream"
PROBLEM: Final = "application/problem+json"
KEY_HEADER: Final = "Idempotency-Key"
# A message (SE-14) is the longest thing that anybody sends.
BODY_BYTES_MAX: Final = DATA_BYTES_MAX
CONNECT_S_MAX: Final = 10.0
BODY_S_MAX: Final = 10.0  # of a request's body, from its headers to its last byte
# Node closes idle connections after 5 s; a POST into a closing one would have no answer.
IDLE_S: Final = 4.0
CONNECTIONS_MAX: Final = 32  # of ours, to one server

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class NoAnswerError(LedgerError):
    """Nothing came back, or nothing that could be read: it may have been done all the same."""


class StatusError(LedgerError):
    """The server answered, and not with success."""

    def __init__(self, who: str, status: int, reason: str) -> None:
        super().__init__(f"{who} answers {status}" + (f": {reason}" if reason else ""))
        self.status = status


@final
class Client:
    """Requests to one server. Follows no redirects, keeps no cookies, decompresses nothing, asks no proxy."""

    def __init__(
        self, who: str, url: str, *, token: str | None, timeout_ms: int, ssl_context: ssl.SSLContext | None = None
    ) -> None:
        self._who: Final = who  # for errors
        self._url: Final = URL(url)
        self._token: Final = token
        self._timeout_s: Final = timeout_ms / 1000
        self._ssl: Final = ssl_context if ssl_context is not None else True
        self._http: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        if self._http is not None:
            await self._http.close()

    async def call(
        self,
        method: str,
        path: tuple[str, ...],
        body: bytes = b"",
        *,
        kind: str = JSON,
        key: str | None = None,
        wait_s: float | None = None,
    ) -> bytes:
        """The body of an answer with success, whichever (X-14). Raises StatusError or NoAnswerError."""
        url = self._url
        for part in path:
            url = url / part
        headers = {"Content-Type": kind, "Accept": kind, "Accept-Encoding": "identity"}
        if key is not None:
            headers[KEY_HEADER] = key
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        timeout = self._timeout_s if wait_s is None else wait_s
        try:
            async with asyncio.timeout(timeout):
                return await self._read(method, url, body, headers)
        except TimeoutError:
            raise NoAnswerError(f"{self._who} didn't answer within {timeout:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:  # ValueError: a host that is no name
            raise NoAnswerError(f"{self._who}: {plain(str(error) or type(error).__name__)}") from None

    async def _read(self, method: str, url: URL, body: bytes, headers: dict[str, str]) -> bytes:
        async with self._session().request(
            method, url, data=body or None, headers=headers, allow_redirects=False, ssl=self._ssl
        ) as response:
            found = await _limited(response.content)
            if 300 <= response.status < 400:
                raise StatusError(self._who, response.status, "it sends us elsewhere: configure the URL that holds")
            if not 200 <= response.status < 300:
                raise StatusError(self._who, response.status, _reason(found or b""))
            if found is None:
                raise NoAnswerError(f"{self._who}: its answer is longer than {BODY_BYTES_MAX} bytes")
            return found

    def _session(self) -> aiohttp.ClientSession:
        if self._http is None:
            self._http = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=CONNECTIONS_MAX, keepalive_timeout=IDLE_S),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                skip_auto_headers=("User-Agent",),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S_MAX),
            )
        return self._http


async def _limited(stream: aiohttp.StreamReader) -> bytes | None:
    """The whole body; None if it is longer than anything here may be."""
    body = bytearray()
    while len(body) <= BODY_BYTES_MAX:
        chunk = await stream.read(BODY_BYTES_MAX + 1 - len(body))
        if not chunk:
            return bytes(body)
        body += chunk
    return None


def _reason(body: bytes) -> str:
    """What an error says of itself: a problem's detail (RFC 9457), or text."""
    text = body[:2_000].decode(errors="replace")
    try:
        found = json.loads(text)
        text = str(found.get("detail") or found.get("message") or found.get("title") or "") or text
    except (ValueError, RecursionError, AttributeError):
        pass
    return plain(" ".join(text.split()))


# --- servers ---------------------------------------------------------------------------------------------------------


class Listener(Protocol):
    """Where an application is served: `links.http.listener.HttpListener`, which bounds connections."""

    @property
    def address(self) -> tuple[str, int]: ...

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    def is_known(self, request: web.Request, name: str) -> bool: ...


MakeListener = Callable[[web.Application], Listener]


class RefusedError(Exception):
    """What a server answers instead: a status, and why."""

    def __init__(self, status: int, detail: str, *, retry_after_s: int | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.retry_after_s = retry_after_s


_TITLES: Final = {
    400: "Bad Request",
    401: "Unauthorized",
    404: "Not Found",
    405: "Method Not Allowed",
    409: "Conflict",
    408: "Request Timeout",
    413: "Content Too Large",
    429: "Too Many Requests",
    500: "Internal Server Error",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}


@final
class Server:
    """An application behind a listener: asks for the token if there is one, and tells refusals as problems."""

    def __init__(self, make_listener: MakeListener, *, token_sha256: bytes | None) -> None:
        self.app: Final = web.Application(client_max_size=BODY_BYTES_MAX + 1, middlewares=[self._problems, self._guard])
        self._token: Final = token_sha256
        self._listener: Final = make_listener(self.app)

    async def start(self) -> None:
        """Listen. Raises LinkError if the address can't be had."""
        await self._listener.start()

    async def close(self) -> None:
        await self._listener.close()

    @property
    def url(self) -> str:
        host, port = self._listener.address
        return f"http://{f'[{host}]' if ':' in host else host}:{port}"

    @web.middleware
    async def _problems(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except RefusedError as refused:
            return _problem(refused)
        except LedgerError as error:  # a disk that refuses, most likely
            return _problem(RefusedError(503, f"{error}."))
        except web.HTTPException as refused:
            return _problem(RefusedError(refused.status, refused.reason))

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if self._token is not None:
            scheme, _, token = request.headers.get("Authorization", "").partition(" ")
            shown = sha256(token.strip().encode("utf-8", "surrogateescape")).digest()
            if not hmac.compare_digest(shown, self._token) or scheme.lower() != "bearer":
                raise RefusedError(401, "Send the token: Authorization: Bearer …")
        if not self._listener.is_known(request, "caller"):
            raise RefusedError(429, "Too many connections; close some.")
        return await handler(request)


def _problem(refused: RefusedError) -> web.Response:
    title = _TITLES.get(refused.status, "Error")
    body = {"type": "about:blank", "title": title, "status": refused.status, "detail": refused.detail}
    headers = {"WWW-Authenticate": "Bearer"} if refused.status == 401 else {}
    if refused.retry_after_s is not None:
        headers["Retry-After"] = str(refused.retry_after_s)
    return web.Response(status=refused.status, body=json.dumps(body).encode(), content_type=PROBLEM, headers=headers)


async def body_of(request: web.Request, bytes_max: int) -> bytes:
    """The request's body; RefusedError beyond the bound, or if it is compressed."""
    if request.headers.get("Content-Encoding", "identity").strip().lower() not in ("", "identity"):
        raise RefusedError(400, "Send it as it is, not compressed.")
    if (request.content_length or 0) > bytes_max:
        raise RefusedError(413, f"The body is longer than {bytes_max} bytes.")
    try:
        async with asyncio.timeout(BODY_S_MAX):
            body = await request.read()
    except TimeoutError:
        raise RefusedError(408, f"The body took longer than {BODY_S_MAX:g} s.") from None
    if len(body) > bytes_max:
        raise RefusedError(413, f"The body is longer than {bytes_max} bytes.")
    return body
