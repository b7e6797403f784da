"""A development ledger that serves in the test's own loop, and ways to ask it."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from aiohttp import ClientSession, ClientWebSocketResponse

from isthmus.ledgers.xrp.dev.running import serve
from isthmus.ledgers.xrp.dev.service import Service

WAIT_SECONDS: Final = 60.0  # a bound for a loaded machine; nothing here takes that long


@dataclass
class Socket:
    """One WebSocket: requests with their answers, and what was pushed meanwhile."""

    socket: ClientWebSocketResponse
    pushed: list[dict[str, Any]] = field(default_factory=list)
    count: int = 0

    async def ask(self, command: str, **params: Any) -> dict[str, Any]:
        """The whole response to a request."""
        self.count += 1
        await self.socket.send_str(json.dumps({"id": self.count, "command": command, **params}))
        while True:
            message = await self.next()
            if message.get("id") == self.count:
                return message
            self.pushed.append(message)

    async def result(self, command: str, **params: Any) -> dict[str, Any]:
        """The result of a request that must succeed."""
        message = await self.ask(command, **params)
        assert message["status"] == "success", message
        return dict(message["result"])

    async def next(self) -> dict[str, Any]:
        message = await asyncio.wait_for(self.socket.receive_json(), WAIT_SECONDS)
        assert isinstance(message, dict)
        return message


@dataclass
class Serving:
    """A ledger that serves."""

    service: Service
    port: int
    session: ClientSession

    @property
    def web_socket(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    @property
    def json_rpc(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Socket]:
        async with self.session.ws_connect(self.web_socket) as socket:
            yield Socket(socket)

    async def post(self, body: object, path: str = "/") -> tuple[int, Any]:
        """Status and JSON, or text."""
        data = body if isinstance(body, str) else json.dumps(body)
        async with self.session.post(self.json_rpc + path, data=data) as response:
            text = await response.text()
            return response.status, json.loads(text) if text.startswith("{") else text


@asynccontextmanager
async def serving(
    path: Path | None = None, *, close_every_ms: int | None = None, port: int = 0, **options: Any
) -> AsyncIterator[Serving]:
    """A ledger, on a free port unless one is given; by default it closes on request only."""
    service = Service(path, close_every_ms=close_every_ms, **options)
    taken: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    stop = asyncio.Event()
    task = asyncio.ensure_future(serve(service, "127.0.0.1", port, taken.set_result, stop))
    try:
        await asyncio.wait((task, taken), return_when=asyncio.FIRST_COMPLETED, timeout=WAIT_SECONDS)
        async with ClientSession() as session:
            yield Serving(service, taken.result(), session)
    finally:
        stop.set()
        await asyncio.wait_for(task, WAIT_SECONDS)
