"""Servers of the XRP Ledger: questions by JSON-RPC over HTTP, or by a WebSocket, which also pushes.

API version 1 in `rippled`'s form, which Clio speaks as well. A push says that there is something to look at, and no
more: what is true is asked for. Whoever waits for pushes asks by himself too, at the latest after `GAP_S`.
"""

import asyncio
import contextlib
import json
from collections.abc import Callable
from typing import Any, Final, Protocol, TypeAlias, final
from urllib.parse import urlsplit

import aiohttp

from isthmus.errors import LedgerError, plain
from isthmus.ledgers.door import ANSWER_BYTES_MAX, ANSWER_SECONDS_MAX, Door, ServerAwayError

TEXT_CHARS_MAX: Final = 160
QUESTIONS_MAX: Final = 64  # of one connection, without an answer
# Ledgers close every three to five seconds: without a push for so long, none are counted on.
GAP_S: Final = 20.0
HEARTBEAT_S: Final = 15.0
# Between tries to connect: doubled each time, until one was answered.
RETRY_S_MIN: Final = 0.1
RETRY_S_MAX: Final = 30.0
# Not more often is it told that a ledger has closed, however often a server says so.
PUSH_S_MIN: Final = 0.05

Result: TypeAlias = dict[str, Any]


class RefusedError(LedgerError):
    """The server's own error, by its token."""

    def __init__(self, where: str, token: str, message: str, result: Result) -> None:
        super().__init__(f"{where}: {message} ({token})")
        self.token = token
        self.result = result


class Server(Protocol):
    """One server. Its name is its host: a URL may hold a secret."""

    @property
    def name(self) -> str: ...

    @property
    def is_pushing(self) -> bool:
        """Whether a ledger that closes is told soon."""
        ...

    async def ask(self, method: str, **params: Any) -> Result:
        """The result. RefusedError, ServerAwayError."""
        ...

    async def close(self) -> None: ...


def server_at(url: str, on_ledger: Callable[[], None]) -> Server:
    """By the URL's scheme. `on_ledger`: a ledger has closed, as far as somebody says so."""
    return PushingServer(url, on_ledger) if url.startswith(("ws://", "wss://")) else AskedServer(url)


@final
class AskedServer:
    """By JSON-RPC: it only answers."""

    is_pushing: Final = False

    def __init__(self, url: str) -> None:
        self._door: Final = Door(url)
        self.name: Final = self._door.name

    async def ask(self, method: str, **params: Any) -> Result:
        question = {"method": method, "params": [{"api_version": 1, **params}]}
        status, answer = await self._door.ask(question, method)
        result = answer.get("result")
        if not isinstance(result, dict):
            raise ServerAwayError(f"{self.name}: {method} was answered without a result (status {status})")
        return _checked(self.name, result)

    async def close(self) -> None:
        await self._door.close()


@final
class PushingServer:
    """By one WebSocket, which is made when something is asked and made again when it broke."""

    def __init__(self, url: str, on_ledger: Callable[[], None]) -> None:
        self._url: Final = url
        self._on_ledger: Final = on_ledger
        self.name: Final = urlsplit(url).hostname or "?"
        self._session: aiohttp.ClientSession | None = None
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._reader: asyncio.Task[None] | None = None
        self._making: Final = asyncio.Lock()
        self._asked: Final[dict[int, asyncio.Future[Result]]] = {}
        self._last_id = 0
        self._failures = 0
        self._not_before = 0.0  # by the loop's clock
        self._ledger = 0  # the highest that was pushed
        self._pushed_at: float | None = None  # by the loop's clock; None: nothing is subscribed to
        self._told_at = float("-inf")
        self._telling: asyncio.TimerHandle | None = None

    @property
    def is_pushing(self) -> bool:
        return self._pushed_at is not None and _now() - self._pushed_at < GAP_S

    async def ask(self, method: str, **params: Any) -> Result:
        async with self._making:
            socket = await self._connected()
        result = await self._ask(socket, method, params)
        self._failures = 0  # not at the answer to `subscribe`: some servers hang up right after it
        return result

    async def _ask(self, socket: aiohttp.ClientWebSocketResponse, method: str, params: dict[str, Any]) -> Result:
        if len(self._asked) >= QUESTIONS_MAX:
            raise ServerAwayError(f"{self.name}: {QUESTIONS_MAX} questions wait for an answer")
        self._last_id = number = self._last_id + 1
        answered = self._asked[number] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(ANSWER_SECONDS_MAX):
                await socket.send_str(json.dumps({"id": number, "command": method, "api_version": 1, **params}))
                answer = await answered
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            await socket.close()  # whatever it is worth, the next question gets another
            raise ServerAwayError(f"{self.name}: no answer to {method} ({type(error).__name__})") from None
        finally:
            self._asked.pop(number, None)
        if answer.get("status") != "success":
            return _checked(self.name, {"error": "unknown", **answer})
        result = answer.get("result")
        if not isinstance(result, dict):
            raise ServerAwayError(f"{self.name}: {method} was answered without a result")
        return _checked(self.name, result)

    # --- the connection ---

    async def _connected(self) -> aiohttp.ClientWebSocketResponse:
        if self._socket is not None and not self._socket.closed:
            return self._socket
        if _now() < self._not_before:
            raise ServerAwayError(f"{self.name}: the connection broke, and is made again in a moment")
        self._not_before = _now() + min(RETRY_S_MAX, RETRY_S_MIN * 2 ** min(self._failures, 20))
        self._failures += 1
        await self._drop()
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None))
        try:
            async with asyncio.timeout(ANSWER_SECONDS_MAX):
                socket = await self._session.ws_connect(
                    self._url, max_msg_size=ANSWER_BYTES_MAX, heartbeat=HEARTBEAT_S, autoclose=True
                )
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            raise ServerAwayError(f"{self.name}: no connection ({type(error).__name__})") from None
        self._socket = socket
        self._reader = asyncio.create_task(self._read(socket))
        with contextlib.suppress(RefusedError):  # then it is only asked
            await self._ask(socket, "subscribe", {"streams": ["ledger"]})
            self._pushed_at = _now()
        return socket

    async def _read(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        try:
            async for message in socket:
                if message.type is aiohttp.WSMsgType.TEXT:
                    self._take(message.data)
        finally:
            self._pushed_at = None
            for answered in self._asked.values():
                if not answered.done():
                    answered.set_exception(ServerAwayError(f"{self.name}: the connection broke"))
            self._on_ledger()  # what was missed from here on is found by looking

    def _take(self, text: str) -> None:
        """An answer to whoever asked, or news; anything else is passed over."""
        try:
            message = json.loads(text)
        except (ValueError, RecursionError):
            return
        if not isinstance(message, dict):
            return
        if message.get("type") == "ledgerClosed":
            self._closed(message.get("ledger_index"))
            return
        number = message.get("id")
        answered = self._asked.get(number) if isinstance(number, int) else None
        if answered is not None and not answered.done():
            answered.set_result(message)

    def _closed(self, index: object) -> None:
        if self._pushed_at is None or not isinstance(index, int) or index <= self._ledger:
            return
        self._ledger, self._pushed_at = index, _now()
        if self._telling is None:
            wait_s = max(0.0, self._told_at + PUSH_S_MIN - _now())
            self._telling = asyncio.get_running_loop().call_later(wait_s, self._tell)

    def _tell(self) -> None:
        self._telling = None
        self._told_at = _now()
        self._on_ledger()

    async def _drop(self) -> None:
        if self._socket is not None:
            await self._socket.close()
            self._socket = None
        if self._reader is not None:
            self._reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reader
            self._reader = None

    async def close(self) -> None:
        await self._drop()
        if self._telling is not None:
            self._telling.cancel()
        if self._session is not None:
            await self._session.close()
            self._session = None


def _now() -> float:
    return asyncio.get_running_loop().time()


def _checked(name: str, result: Result) -> Result:
    token = result.get("error")
    if token is not None:
        text = plain(str(result.get("error_message", "")), TEXT_CHARS_MAX)
        raise RefusedError(name, plain(str(token), TEXT_CHARS_MAX), text, result)
    return result
