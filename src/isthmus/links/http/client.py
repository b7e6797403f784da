"""The HTTP side of sending: one peer's connection pool, POSTs of Prepares and replies, and whether the peer is there.

It tells only what happened on the wire; what that means for a Prepare is `session.py`'s to say.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from ssl import SSLContext
from typing import Final, TypeAlias, final

import aiohttp
from yarl import URL

from isthmus.connector.events import Now
from isthmus.errors import CodecError
from isthmus.ilp.packet import PACKET_BYTES_MAX, decode_reply
from isthmus.links.http.auth import Credentials
from isthmus.links.http.settings import LEG_HEADER, OCTETS

CONNECT_MS_MAX: Final = 10_000
# Node closes idle connections after 5 s. A POST into a closing one would be lost until its packet expires.
IDLE_MS: Final = 4_000
# One attempt to deliver a reply; the next attempt is worth more than a longer wait.
DELIVERY_MS_MAX: Final = 5_000
PROBE_MS_MAX: Final = 5_000


@dataclass(slots=True)
class Responded:
    """An HTTP response came; `reply` is the Fulfill or Reject in a 200's body, if it holds a valid one."""

    status: int
    reply: bytes | None


@dataclass(slots=True)
class NotConnected:
    """No connection came about: not a byte of the request left us."""

    why: str


@dataclass(slots=True)
class NoAnswer:
    """The request may have reached the peer, and no response came (whole) from it."""

    why: str
    is_broken: bool = False  # the connection ended before its time: the peer's process may have


Outcome: TypeAlias = Responded | NotConnected | NoAnswer


@final
class HttpClient:
    """One peer's pool of kept-alive connections. Follows no redirects, keeps no cookies, decompresses nothing."""

    def __init__(
        self, credentials: Credentials, *, now: Callable[[], Now], ssl_context: SSLContext | None = None
    ) -> None:
        self._credentials = credentials
        self._now = now
        self._ssl = ssl_context if ssl_context is not None else True
        self._http: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        self._http = aiohttp.ClientSession(
            # The number of connections is bounded by who asks: the link counts its requests.
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE_MS / 1000),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=("Accept-Encoding", "User-Agent"),
        )

    async def close(self) -> None:
        if self._http is not None:
            await self._http.close()

    async def post_prepare(
        self,
        url: URL,
        packet: bytes,
        request_id: str,
        *,
        leg: str | None,
        timeout_ms: int,
        callback_url: str | None,
        asynchronous: bool,
    ) -> Outcome:
        """POST a Prepare. The time-out must reach beyond the packet's expiry (HTTP-14)."""
        headers = self._headers(request_id)
        headers["Accept"] = OCTETS
        if leg is not None:
            headers[LEG_HEADER] = leg
        if asynchronous:
            headers["Prefer"] = "respond-async"  # dassie requires it (HTTP-11)
            if callback_url is not None:
                headers["Callback-Url"] = callback_url
        return await self._post(url, packet, headers, timeout_ms)

    async def post_reply(self, url: URL, packet: bytes, request_id: str) -> Outcome:
        return await self._post(url, packet, self._headers(request_id), DELIVERY_MS_MAX)

    async def reachable(self, url: URL) -> str | None:
        """None if the peer gives any HTTP answer at all, else what is in the way."""
        assert self._http is not None
        timeout = aiohttp.ClientTimeout(total=PROBE_MS_MAX / 1000)
        try:
            async with self._http.head(url, timeout=timeout, ssl=self._ssl, allow_redirects=False):
                return None
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:  # ValueError: a host that is no name
            return describe(error)

    def _headers(self, request_id: str) -> dict[str, str]:
        headers = {"Content-Type": OCTETS, "Request-Id": request_id}
        authorization = self._credentials.authorization(self._now().wall_ms)
        if authorization is not None:
            headers["Authorization"] = authorization
        return headers

    async def _post(self, url: URL, packet: bytes, headers: dict[str, str], timeout_ms: int) -> Outcome:
        assert self._http is not None
        timeout = aiohttp.ClientTimeout(total=timeout_ms / 1000, sock_connect=CONNECT_MS_MAX / 1000)
        try:
            async with self._http.post(
                url, data=packet, headers=headers, timeout=timeout, ssl=self._ssl, allow_redirects=False
            ) as response:
                return Responded(response.status, await self._reply_in(response))
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            return NotConnected(describe(error))
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            return NoAnswer(describe(error), is_broken=not isinstance(error, TimeoutError))

    @staticmethod
    async def _reply_in(response: aiohttp.ClientResponse) -> bytes | None:
        if response.status != 200:
            # Reading a short body to its end keeps the connection; that it can't be read changes nothing.
            with suppress(aiohttp.ClientError, OSError, TimeoutError):
                await read_limited(response.content, PACKET_BYTES_MAX)
            return None
        body = await read_limited(response.content, PACKET_BYTES_MAX)
        return body if body is not None and is_reply(body) else None


def is_reply(packet: bytes) -> bool:
    try:
        decode_reply(packet)
    except CodecError:
        return False
    return True


async def read_limited(stream: aiohttp.StreamReader, size_max: int) -> bytes | None:
    """The whole body, None if it is longer than `size_max`; never holds much more than that."""
    body = await stream.read(size_max + 1)
    if stream.at_eof():
        return body if len(body) <= size_max else None
    chunks = [body]
    size = len(body)
    while size <= size_max:
        chunk = await stream.read(size_max + 1 - size)
        if not chunk:
            return b"".join(chunks)
        chunks.append(chunk)
        size += len(chunk)
    return None


def describe(error: BaseException) -> str:
    """An error in a few words; time-outs have no text of their own."""
    return str(error) or type(error).__name__
