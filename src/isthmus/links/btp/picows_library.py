"""picows under our WebSocket: the handshake and the parser in C. Importing this fails where it is not installed."""

import asyncio
import logging
import ssl
from collections.abc import Callable
from socket import socket
from typing import Any, Final

import picows
from picows.picows import WSProtocol  # type: ignore[attr-defined]

from isthmus.errors import LinkError
from isthmus.links.btp import websocket
from isthmus.links.btp.websocket import HANDSHAKE_SECONDS, MESSAGE_BYTES_MAX, Bounds, Events, WebSocket

_READ_BYTES: Final = 1 << 16
_BINARY: Final = picows.WSMsgType.BINARY

# What picows has to say about hostile peers is said by us already, within bounds.
_silent: Final = logging.getLogger("isthmus.picows")
_silent.addHandler(logging.NullHandler())
_silent.setLevel(logging.CRITICAL + 1)


class _Listener(picows.WSListener):
    """picows' callbacks, passed on to our WebSocket."""

    def __init__(self, events: Events, is_client: bool, entropy: Callable[[int], bytes], bounds: Bounds) -> None:
        self._events = events
        self._is_client = is_client
        self._entropy = entropy
        self._bounds = bounds
        self._socket: WebSocket | None = None

    def on_ws_connected(self, transport: picows.WSTransport) -> None:
        self._socket = WebSocket(
            transport.underlying_transport,
            self._events,
            is_client=self._is_client,
            entropy=self._entropy,
            bounds=self._bounds,
        )
        try:
            self._events.opened(self._socket)
        except Exception as error:  # noqa: BLE001 - whatever it is, picows must not hide it
            self._own_error(self._socket, error)

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        ours = self._socket
        assert ours is not None
        try:
            kind = frame.msg_type
            if frame.rsv1 or frame.rsv2 or frame.rsv3:
                ours.fail(websocket.PROTOCOL_ERROR, "a reserved bit is set, and no extension was agreed on")
            elif kind is _BINARY and frame.fin and ours.takes_messages:
                ours.received.append(frame.get_payload_as_bytes())
            else:
                ours.frame(kind.value, bool(frame.fin), frame.get_payload_as_bytes())
            if frame.last_in_buffer:
                ours.read_done()
                if transport.is_close_frame_sent:
                    # picows' parser found a broken frame behind this one and has said goodbye itself.
                    ours.lost("the peer broke the WebSocket protocol")
        except Exception as error:  # noqa: BLE001 - whatever it is, picows must not hide it
            self._own_error(ours, error)

    def on_ws_disconnected(self, transport: picows.WSTransport) -> None:
        if self._socket is not None:
            broke_rules = transport.is_close_frame_sent
            self._socket.lost("the peer broke the WebSocket protocol" if broke_rules else "connection lost")

    def _own_error(self, ours: WebSocket, error: Exception) -> None:
        # picows would swallow it: an error of ours must reach the loop's handler, as from any other callback.
        asyncio.get_running_loop().call_exception_handler({"message": "in a BTP link", "exception": error})
        ours.abort()

    def pause_writing(self) -> None:
        if self._socket is not None:
            self._socket.pause_writing()

    def resume_writing(self) -> None:
        if self._socket is not None:
            self._socket.resume_writing()


class PicowsLibrary:
    """See `websocket.Library`."""

    name = "picows"

    async def accept(
        self,
        peer: socket,
        open_path: Callable[[str], Events | None],
        *,
        tls: ssl.SSLContext | None,
        entropy: Callable[[int], bytes],
        bounds: Bounds,
    ) -> None:
        def listener(request: picows.WSUpgradeRequest) -> _Listener | None:
            events = open_path(request.path.decode("utf-8", "replace"))
            return None if events is None else _Listener(events, False, entropy, bounds)

        def protocol() -> Any:
            # `ws_create_server` makes just this, but hides the accepted sockets, which we must count.
            return WSProtocol(
                None,  # host and port
                None,  # path
                False,  # is_client_side
                listener,
                _silent,
                True,  # disconnect on an exception
                HANDSHAKE_SECONDS,
                False,  # auto ping, its two timeouts and its strategy
                10.0,
                10.0,
                picows.WSAutoPingStrategy.PING_WHEN_IDLE,
                False,  # auto pong: ours is bounded
                MESSAGE_BYTES_MAX,
                None,  # extra headers
                _READ_BYTES,
            )

        try:
            _, upgraded = await asyncio.get_running_loop().connect_accepted_socket(
                protocol, peer, ssl=tls, ssl_handshake_timeout=HANDSHAKE_SECONDS if tls else None
            )
        except (OSError, TimeoutError) as error:
            raise LinkError(f"no WebSocket handshake: {error}") from None
        try:
            await upgraded.wait_until_handshake_complete()
        except (OSError, TimeoutError, picows.WSError) as error:
            raise LinkError(f"no WebSocket handshake: {error}") from None
        except asyncio.CancelledError:
            upgraded.transport.underlying_transport.abort()
            raise

    async def connect(
        self,
        url: str,
        events: Events,
        *,
        tls: ssl.SSLContext | None,
        entropy: Callable[[int], bytes],
        bounds: Bounds,
    ) -> None:
        try:
            _, listener = await picows.ws_connect(
                lambda request, response: _Listener(events, True, entropy, bounds),
                url,
                ssl_context=tls,
                websocket_handshake_timeout=HANDSHAKE_SECONDS,
                logger_name=_silent,
                enable_auto_pong=False,
                max_frame_size=MESSAGE_BYTES_MAX,
                max_redirects=0,  # our credentials go to the configured host only
                read_buffer_init_size=_READ_BYTES,
                use_aiofastnet=False,
            )
        except (OSError, TimeoutError, picows.WSError) as error:
            raise LinkError(str(error) or type(error).__name__) from None
        if listener is None:
            raise LinkError("connection lost during the WebSocket handshake")
