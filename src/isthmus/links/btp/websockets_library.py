"""`websockets` under our WebSocket: its protocol objects do the handshake and the parsing, the socket is ours.

The library's own connections make a task switch and a system call per message; its protocol objects don't.
"""

import asyncio
import logging
import ssl
from collections.abc import Callable
from socket import socket
from typing import Final

from websockets.client import ClientProtocol
from websockets.frames import Frame
from websockets.http11 import Request, Response
from websockets.protocol import Protocol
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from isthmus.errors import LinkError
from isthmus.links.btp import websocket
from isthmus.links.btp.websocket import HANDSHAKE_SECONDS, MESSAGE_BYTES_MAX, Bounds, Events, WebSocket

_silent: Final = logging.getLogger("isthmus.websockets")
_silent.addHandler(logging.NullHandler())
_silent.setLevel(logging.CRITICAL + 1)


class _Connection(asyncio.Protocol):
    """A socket, a protocol object of `websockets`, and our WebSocket once the handshake is done."""

    def __init__(
        self,
        protocol: Protocol,
        open_path: Callable[[str], Events | None],
        entropy: Callable[[int], bytes],
        bounds: Bounds,
    ) -> None:
        self._protocol = protocol
        self._open_path = open_path
        self._entropy = entropy
        self._bounds = bounds
        self._transport: asyncio.Transport | None = None
        self._socket: WebSocket | None = None
        loop = asyncio.get_running_loop()
        self._timeout = loop.call_later(HANDSHAKE_SECONDS, self._timed_out)
        # Resolves when the connection is open, or with the reason why it isn't.
        self.done: asyncio.Future[str | None] = loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        if isinstance(self._protocol, ClientProtocol):
            self._protocol.send_request(self._protocol.connect())
            transport.writelines(self._protocol.data_to_send())

    def data_received(self, data: bytes) -> None:
        self._protocol.receive_data(data)
        for event in self._protocol.events_received():
            if isinstance(event, Frame):
                if self._socket is not None:
                    self._socket.frame(event.opcode, event.fin, bytes(event.data))
            elif isinstance(event, Request):
                self._take_request(event)
            else:
                self._take_response(event)
        # Pongs and goodbyes of the library are dropped: ours are bounded, and counted with the batch.
        if self._socket is None:
            self._flush()
            if self._protocol.handshake_exc is not None:
                self._give_up(str(self._protocol.handshake_exc))
            return
        self._protocol.data_to_send()
        if self._protocol.parser_exc is not None:
            sent = self._protocol.close_sent
            self._socket.fail(sent.code if sent else websocket.PROTOCOL_ERROR, "the peer broke the WebSocket protocol")
        self._socket.read_done()

    async def opened(self) -> None:
        """Wait for the handshake; LinkError if it fails."""
        try:
            why = await self.done
        except asyncio.CancelledError:
            if self._transport is not None:
                self._transport.abort()
            raise
        if why is not None:
            raise LinkError(why)

    def eof_received(self) -> None:
        return None

    def connection_lost(self, error: Exception | None) -> None:
        self._timeout.cancel()
        if self._socket is not None:
            self._socket.lost("connection lost" if error is None else f"connection lost: {error}")
        elif not self.done.done():
            self.done.set_result("connection lost" if error is None else f"connection lost: {error}")

    def pause_writing(self) -> None:
        if self._socket is not None:
            self._socket.pause_writing()

    def resume_writing(self) -> None:
        if self._socket is not None:
            self._socket.resume_writing()

    def _take_request(self, request: Request) -> None:
        assert isinstance(self._protocol, ServerProtocol)
        events = self._open_path(request.path)
        if events is None:
            self._protocol.send_response(self._protocol.reject(404, "Not Found\n"))
            self._flush()
            self._give_up("no such path")
            return
        response = self._protocol.accept(request)
        self._protocol.send_response(response)
        self._flush()
        if response.status_code == 101:
            self._open(events)

    def _take_response(self, response: Response) -> None:
        if self._protocol.handshake_exc is None:
            events = self._open_path("")
            assert events is not None
            self._open(events)

    def _open(self, events: Events) -> None:
        assert self._transport is not None
        self._timeout.cancel()
        self._socket = WebSocket(
            self._transport,
            events,
            is_client=isinstance(self._protocol, ClientProtocol),
            entropy=self._entropy,
            bounds=self._bounds,
        )
        if not self.done.done():
            self.done.set_result(None)
        events.opened(self._socket)

    def _flush(self) -> None:
        assert self._transport is not None
        for data in self._protocol.data_to_send():
            if data:
                self._transport.write(data)
            elif self._socket is None:
                self._transport.close()

    def _give_up(self, why: str) -> None:
        if not self.done.done():
            self.done.set_result(why)
        if self._transport is not None:
            self._transport.close()

    def _timed_out(self) -> None:
        if not self.done.done():
            self.done.set_result("no WebSocket handshake in time")
        if self._transport is not None:
            self._transport.abort()


class WebsocketsLibrary:
    """See `websocket.Library`."""

    name = "websockets"

    async def accept(
        self,
        peer: socket,
        open_path: Callable[[str], Events | None],
        *,
        tls: ssl.SSLContext | None,
        entropy: Callable[[int], bytes],
        bounds: Bounds,
    ) -> None:
        def protocol() -> _Connection:
            return _Connection(ServerProtocol(max_size=MESSAGE_BYTES_MAX, logger=_silent), open_path, entropy, bounds)

        try:
            _, connection = await asyncio.get_running_loop().connect_accepted_socket(
                protocol, peer, ssl=tls, ssl_handshake_timeout=HANDSHAKE_SECONDS if tls else None
            )
        except OSError as error:
            raise LinkError(f"no WebSocket handshake: {error}") from None
        await connection.opened()

    async def connect(
        self,
        url: str,
        events: Events,
        *,
        tls: ssl.SSLContext | None,
        entropy: Callable[[int], bytes],
        bounds: Bounds,
    ) -> None:
        uri = parse_uri(url)

        def protocol() -> _Connection:
            client = ClientProtocol(uri, max_size=MESSAGE_BYTES_MAX, logger=_silent)
            return _Connection(client, lambda _: events, entropy, bounds)

        try:
            _, connection = await asyncio.get_running_loop().create_connection(
                protocol,
                uri.host,
                uri.port,
                ssl=tls if uri.secure else None,
                ssl_handshake_timeout=HANDSHAKE_SECONDS if uri.secure else None,
            )
        except OSError as error:
            raise LinkError(str(error) or type(error).__name__) from None
        await connection.opened()
