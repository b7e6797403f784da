"""A WebSocket as a BTP connection needs it, whichever library reads it (docs/adr/0002-websocket-library.md).

It joins fragments, bounds what a peer can make us do (message size, fragments, control frames), collects the messages
of one read, writes a batch at once, and watches the send buffer. The libraries do the opening handshake and the
parsing of frames: `picows_library` and `websockets_library`, each behind the same `Library`.
"""

import asyncio
import os
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from socket import SO_RCVBUF, SOL_SOCKET, socket
from typing import Final, Protocol

from isthmus.errors import ConfigError, not_installed
from isthmus.ilp.packet import PACKET_BYTES_MAX
from isthmus.links.btp import framing
from isthmus.links.btp.codec import FRAME_BYTES_MAX
from isthmus.links.btp.framing import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT

# BTP-17 asks for 34 KiB at least; a Reject can be larger than a Prepare, and whoever receives a payment can make our
# peer relay the largest: it must not end the connection.
MESSAGE_BYTES_MAX: Final = 48 * 1024
assert PACKET_BYTES_MAX + 1024 <= MESSAGE_BYTES_MAX <= FRAME_BYTES_MAX
FRAGMENTS_MAX: Final = 64
# A client pings every few seconds. More than this in a second is a flood, and nobody pays us to answer it.
CONTROL_FRAMES_PER_SECOND_MAX: Final = 64

# Above the first bound no new Prepares go towards the peer; above the second we stop reading from it (it would only
# make more answers); above the third it is cut off.
BLOCKED_BYTES: Final = 1 << 20
WRITABLE_BYTES: Final = 1 << 18
PAUSE_BYTES: Final = 1 << 22
BACKLOG_BYTES_MAX: Final = 1 << 26
# What one read can deliver at most, some 700 packets; the kernel doubles it for its own use. More made a turn of the
# loop long for the others, and forwarding no faster (bench/RESULTS.md, "One account floods").
RECEIVE_BUFFER_BYTES: Final = 1 << 16

HANDSHAKE_SECONDS: Final = 10.0
# How long we wait for the peer's side of a closing handshake.
CLOSE_SECONDS: Final = 2.0

NORMAL: Final = 1000
GOING_AWAY: Final = 1001
PROTOCOL_ERROR: Final = 1002
UNSUPPORTED_DATA: Final = 1003
POLICY_VIOLATION: Final = 1008
MESSAGE_TOO_BIG: Final = 1009


@dataclass(slots=True, frozen=True)
class Bounds:
    """Send-buffer bounds of one connection in bytes; tests make them small."""

    blocked_bytes: int = BLOCKED_BYTES
    writable_bytes: int = WRITABLE_BYTES
    pause_bytes: int = PAUSE_BYTES
    backlog_bytes_max: int = BACKLOG_BYTES_MAX
    receive_buffer_bytes: int = RECEIVE_BUFFER_BYTES


class Events(Protocol):
    """What a WebSocket tells its channel, on the loop's thread."""

    def opened(self, websocket: "WebSocket") -> None: ...

    def messages(self, messages: list[bytes]) -> None:
        """All messages of one read; an empty list if only control frames came."""

    def blocked(self) -> None: ...

    def writable(self) -> None: ...

    def closed(self, why: str) -> None:
        """The connection is gone or useless. Comes once, and nothing after it."""


class WebSocket:
    """One open connection. The library's adapter calls the lower half, the channel the upper."""

    def __init__(
        self,
        transport: asyncio.Transport,
        events: Events,
        *,
        is_client: bool,
        entropy: Callable[[int], bytes],
        bounds: Bounds,
    ) -> None:
        self.transport = transport
        self.bounds: Final = bounds
        # While this is set, adapters may append whole binary messages to `received` themselves: nearly all are that.
        self.takes_messages = True
        self.received: list[bytes] = []
        self._events: Events | None = events
        self._is_client: Final = is_client
        self._entropy: Final = entropy
        self._loop: Final = asyncio.get_running_loop()
        self._fragments: list[bytes] | None = None
        self._pong: bytes | None = None
        self._control_frames = 0
        self._control_since = 0.0
        self._blocked = False
        self._paused_by: set[str] = set()
        self._closing = False
        self._flushed: asyncio.Future[None] | None = None
        transport.set_write_buffer_limits(bounds.blocked_bytes, bounds.writable_bytes)
        if is_client:  # a server's sockets have it from their listener
            transport.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_RCVBUF, bounds.receive_buffer_bytes)

    # --- for the channel ----------------------------------------------------------------------------------------

    def write(self, messages: list[bytes]) -> int:
        """Send all of these with one write; its size in bytes."""
        if self._closing or not messages:
            return 0
        joined = framing.join_masked(messages, self._entropy) if self._is_client else framing.join_plain(messages)
        self.transport.write(joined)
        if self._blocked:
            self._mind_the_backlog()
        return len(joined)

    def ping(self) -> None:
        self._control(PING, b"")

    def close(self, code: int, reason: str, *, still_listen: bool = False) -> None:
        """Say goodbye, then wait a little for the peer's goodbye.

        Events end here, unless we `still_listen` to what the peer had sent before it heard us.
        """
        if self._closing:
            return
        self._control(CLOSE, framing.close_payload(code, reason))
        self._closing = True
        if not still_listen:
            self._stop()
            self.received.clear()
        # Reading goes on and what comes is dropped: closing with unread data would reset the connection, and the peer
        # might never see the Error that it was sent.
        self._paused_by.clear()
        self._resume()
        self._loop.call_later(CLOSE_SECONDS, self.transport.abort)

    async def flushed(self) -> None:
        """Wait until what was written has left the process, or the connection is gone; call it after `close`."""
        if self.transport.get_write_buffer_size() == 0:
            return
        self._flushed = self._loop.create_future()
        self.transport.set_write_buffer_limits(0)  # `resume_writing` will say that it is empty
        await asyncio.wait([self._flushed], timeout=CLOSE_SECONDS)

    def abort(self) -> None:
        """Drop the connection with all that is buffered. Events end here."""
        self._stop()
        self.transport.abort()

    def pause_reading(self, reason: str) -> None:
        if not self._closing:
            if not self._paused_by:
                self._pause()
            self._paused_by.add(reason)

    def resume_reading(self, reason: str) -> None:
        if reason in self._paused_by:
            self._paused_by.discard(reason)
            if not self._paused_by:
                self._resume()

    @property
    def is_reading(self) -> bool:
        return not self._paused_by

    def _pause(self) -> None:
        if not self.transport.is_closing():
            self.transport.pause_reading()

    def _resume(self) -> None:
        if not self.transport.is_closing():
            self.transport.resume_reading()

    # --- for the library's adapter ------------------------------------------------------------------------------

    def frame(self, opcode: int, is_last: bool, payload: bytes) -> None:
        """One frame, unmasked; the library checked its form (RFC 6455 §5.2 to §5.5)."""
        if self._events is None:
            if opcode == CLOSE:
                self.transport.close()
        elif opcode == BINARY and self.takes_messages:
            if is_last:
                self.received.append(payload)
            else:
                self._fragments = [payload]
                self.takes_messages = False
        elif opcode == CONTINUATION and self._fragments is not None:
            self._fragment(self._fragments, is_last, payload)
        elif opcode == TEXT:
            self.fail(UNSUPPORTED_DATA, "BTP travels in binary messages")
        elif opcode in (PING, PONG):
            self._count_control(opcode, payload)
        elif opcode == CLOSE:
            self._peer_closes(payload)
        else:
            self.fail(PROTOCOL_ERROR, "a fragment out of its place")

    def read_done(self) -> None:
        """The read is over: hand over what came, and answer at most one ping."""
        if self._pong is not None:
            pong, self._pong = self._pong, None
            self._control(PONG, pong)
        if self._events is not None:
            received, self.received = self.received, []
            self._events.messages(received)

    def fail(self, code: int, why: str) -> None:
        """The peer broke the rules: what came before in this read still counts."""
        events = self._events
        if events is None:
            return
        received, self.received = self.received, []
        if received:
            events.messages(received)
        self.close(code, why)
        self._stop()
        events.closed(why)

    def lost(self, why: str) -> None:
        """The TCP connection is gone, or the library gave it up and closes it."""
        events = self._events
        self._stop()
        self._tell_flushed()
        if not self.transport.is_closing():
            self._loop.call_later(CLOSE_SECONDS, self.transport.abort)
        if events is not None:
            events.closed(why)

    def pause_writing(self) -> None:
        self._blocked = True
        if self._events is not None:
            self._events.blocked()
            self._mind_the_backlog()

    def resume_writing(self) -> None:
        self._blocked = False
        self._tell_flushed()
        self.resume_reading("backlog")
        if self._events is not None:
            self._events.writable()

    # --- inside -------------------------------------------------------------------------------------------------

    def _tell_flushed(self) -> None:
        if self._flushed is not None and not self._flushed.done():
            self._flushed.set_result(None)

    def _stop(self) -> None:
        self._closing = True
        self.takes_messages = False
        self._events = None

    def _fragment(self, fragments: list[bytes], is_last: bool, payload: bytes) -> None:
        fragments.append(payload)
        if len(fragments) > FRAGMENTS_MAX or sum(map(len, fragments)) > MESSAGE_BYTES_MAX:
            self.fail(MESSAGE_TOO_BIG, "a message above the limit, in fragments")
        elif is_last:
            self.received.append(b"".join(fragments))
            self._fragments = None
            self.takes_messages = True

    def _count_control(self, opcode: int, payload: bytes) -> None:
        now = self._loop.time()
        if now - self._control_since >= 1.0:
            self._control_since = now
            self._control_frames = 0
        self._control_frames += 1
        if self._control_frames > CONTROL_FRAMES_PER_SECOND_MAX:
            self._pong = None
            self.fail(POLICY_VIOLATION, "too many pings")
        elif opcode == PING:
            self._pong = payload  # of several, the last may be answered for all (RFC 6455 §5.5.3)

    def _peer_closes(self, payload: bytes) -> None:
        code = int.from_bytes(payload[:2], "big") if len(payload) >= 2 else NORMAL
        reason = payload[2:].decode("utf-8", "replace")
        self.fail(NORMAL, f"closed by the peer: {code} {reason}".rstrip())
        self.transport.close()

    def _control(self, opcode: int, payload: bytes) -> None:
        if not self._closing:
            self.transport.write(framing.control(opcode, payload, self._entropy(4) if self._is_client else None))

    def _mind_the_backlog(self) -> None:
        backlog = self.transport.get_write_buffer_size()
        if backlog > self.bounds.backlog_bytes_max:
            events = self._events
            self.abort()
            if events is not None:
                # Not from inside a write of the link.
                self._loop.call_soon(events.closed, "the peer's backlog is above its bound")
        elif backlog > self.bounds.pause_bytes:
            self.pause_reading("backlog")


class Library(Protocol):
    """A WebSocket library behind our two needs. Both raise LinkError if there is no connection."""

    name: str

    async def accept(
        self,
        peer: socket,
        open_path: Callable[[str], Events | None],
        *,
        tls: ssl.SSLContext | None,
        entropy: Callable[[int], bytes],
        bounds: Bounds,
    ) -> None:
        """Upgrade an accepted socket; `open_path` gives the channel for a path, or None for 404.

        Returns when the connection is open or lost. Owns the socket in any case.
        """

    async def connect(
        self,
        url: str,
        events: Events,
        *,
        tls: ssl.SSLContext | None,
        entropy: Callable[[int], bytes],
        bounds: Bounds,
    ) -> None:
        """Dial a ws or wss URL without credentials; the channel has been told `opened` when this returns."""


def choose_library(name: str | None = None) -> Library:
    """Give the library of that name; `ISTHMUS_WEBSOCKET` or, where it is installed, picows without one."""
    wanted = name or os.environ.get("ISTHMUS_WEBSOCKET") or ""
    if wanted not in ("", "picows", "websockets"):
        raise ConfigError("ISTHMUS_WEBSOCKET", f"no such library: {wanted}", "Say picows or websockets, or nothing.")
    if wanted != "websockets":
        try:
            from isthmus.links.btp.picows_library import PicowsLibrary
        except ImportError:
            if wanted:
                raise not_installed("ISTHMUS_WEBSOCKET", "picows", "fast") from None
        else:
            return PicowsLibrary()
    from isthmus.links.btp.websockets_library import WebsocketsLibrary

    return WebsocketsLibrary()
