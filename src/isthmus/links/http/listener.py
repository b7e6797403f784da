"""aiohttp's server behind a doorway: connections of strangers are bounded, and those of each peer that is known.

A connection is a stranger's until `is_known` was called for a request on it; its TLS handshake counts already.
"""

import asyncio
import socket
from collections.abc import Callable
from ssl import SSLContext
from typing import Any, Final, final

from aiohttp import web

from isthmus.links.doorway import Doorway
from isthmus.links.places import StrangerBounds

HANDSHAKE_S_MAX: Final = 10.0


@final
class _Watched(asyncio.Protocol):
    """aiohttp's protocol for one connection; tells when it is lost."""

    def __init__(self, inner: asyncio.Protocol, listener: "HttpListener") -> None:
        self._inner: Final = inner
        self._listener: Final = listener
        self.settled: Final[asyncio.Future[None]] = asyncio.get_running_loop().create_future()
        self.transport: asyncio.Transport | None = None
        self.known_as: str | None = None

    def settle(self) -> None:
        if not self.settled.done():
            self.settled.set_result(None)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._listener.made(self, transport)
        self._inner.connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        self.settle()
        self._listener.lost(self)
        self._inner.connection_lost(error)

    def data_received(self, data: bytes) -> None:
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received()

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()


@final
class HttpListener:
    """Serves an application at one address. `options` go to aiohttp's runner."""

    def __init__(
        self,
        app: web.Application,
        listen: tuple[str, int],
        *,
        mono_ms: Callable[[], int],
        ssl_context: SSLContext | None,
        strangers: StrangerBounds,
        connections_max: int,
        **options: Any,
    ) -> None:
        self._ssl: Final = ssl_context
        self._connections_max: Final = connections_max  # of each peer that is known
        self._runner: Final = web.AppRunner(app, access_log=None, handle_signals=False, **options)
        self._doorway: Final = Doorway(listen, self._let_in, mono_ms=mono_ms, bounds=strangers)
        self._open: Final[dict[asyncio.BaseTransport, _Watched]] = {}
        self._known: Final[dict[str, int]] = {}

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens, once started."""
        return self._doorway.address

    @property
    def strangers(self) -> int:
        """Connections that nobody is known on."""
        return self._doorway.strangers

    async def start(self) -> None:
        """Listen. Raises LinkError if the address can't be had."""
        await self._runner.setup()
        try:
            await self._doorway.start()
        except BaseException:
            await self._runner.cleanup()
            raise

    async def close(self) -> None:
        """Stop listening, and end all connections."""
        await self._doorway.close()
        await self._runner.cleanup()

    def is_known(self, request: web.Request, name: str) -> bool:
        """The peer of this request has shown who it is. False: it has as many connections as it may have."""
        watched = None if request.transport is None else self._open.get(request.transport)
        if watched is None or watched.known_as == name:
            return True
        count = self._known.get(name, 0)
        if count >= self._connections_max:
            return False
        self._forget(watched)  # a connection that two accounts share counts for the last
        self._known[name] = count + 1
        watched.known_as = name
        watched.settle()
        return True

    async def _let_in(self, peer: socket.socket, host: str) -> None:
        """A stranger's place is taken until a request of his was found good, or he is gone."""
        loop = asyncio.get_running_loop()
        server = self._runner.server
        assert server is not None
        try:
            transport, watched = await loop.connect_accepted_socket(
                lambda: _Watched(server(), self),
                peer,
                ssl=self._ssl,
                ssl_handshake_timeout=HANDSHAKE_S_MAX if self._ssl else None,
            )
        except OSError:
            return  # a port scan, somebody without TLS, a handshake that took too long
        try:
            await watched.settled
        except asyncio.CancelledError:
            transport.abort()  # his place is needed
            raise

    # --- told by the connections ------------------------------------------------------------------------------------

    def made(self, watched: _Watched, transport: asyncio.Transport) -> None:
        self._open[transport] = watched

    def lost(self, watched: _Watched) -> None:
        if watched.transport is not None:
            self._open.pop(watched.transport, None)
        self._forget(watched)

    def _forget(self, watched: _Watched) -> None:
        name = watched.known_as
        if name is None:
            return
        watched.known_as = None
        self._known[name] -= 1
        if not self._known[name]:
            del self._known[name]
