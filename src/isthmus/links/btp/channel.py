"""One connection at work: the session's orders carried out on a WebSocket, under one timer."""

import asyncio
import time
from collections.abc import Callable
from typing import Final, Protocol

from isthmus.connector.events import Log, Now, Outbound
from isthmus.links.btp.codec import ProtocolData
from isthmus.links.btp.orders import Answered, Asked, Close, Output, Ping, Ready
from isthmus.links.btp.session import Phase, Session
from isthmus.links.btp.websocket import WebSocket
from isthmus.links.port import LinkOwner, Scheduler, Timer


def _system_wall_ms() -> int:
    return time.time_ns() // 1_000_000


class ChannelOwner(Protocol):
    """Who has a channel: a link, or the server before it knows which link."""

    def ready(self, channel: "Channel", order: Ready) -> None: ...

    def asked(self, channel: "Channel", order: Asked) -> None: ...

    def answered(self, channel: "Channel", order: Answered) -> None: ...

    def blocked(self, channel: "Channel") -> None: ...

    def writable(self, channel: "Channel") -> None: ...

    def ended(self, channel: "Channel", why: str, refused: bool) -> None:
        """Comes once. Nothing goes in or out any more."""

    def log(self, fact: Log) -> None: ...


class Channel:
    """Implements `websocket.Events` for a session. Packets go straight to the links' owner.

    The running event loop and the system's clock serve it, unless others are given.
    """

    def __init__(
        self,
        owner: ChannelOwner,
        packets_to: LinkOwner,
        *,
        scheduler: Scheduler | None = None,
        wall_ms: Callable[[], int] = _system_wall_ms,
    ) -> None:
        self.owner = owner
        self.session: Session | None = None
        self.why = ""
        self.refused = False
        self._make_session: Callable[[Now], Session] | None = None
        self._packets_to: Final = packets_to
        self._loop: Final[Scheduler] = asyncio.get_running_loop() if scheduler is None else scheduler
        self._wall_ms: Final = wall_ms
        self._socket: WebSocket | None = None
        self._ended = False
        self._timer: Timer | None = None
        self._timer_at: int | None = None
        # For the shell: authenticated, or over.
        self.settled: Final[asyncio.Future[None]] = self._loop.create_future()
        self.over: Final[asyncio.Future[None]] = self._loop.create_future()

    @classmethod
    def of(
        cls,
        owner: ChannelOwner,
        packets_to: LinkOwner,
        make_session: Callable[[Now], Session],
        *,
        scheduler: Scheduler | None = None,
        wall_ms: Callable[[], int] = _system_wall_ms,
    ) -> "Channel":
        """The session is made when the WebSocket opens: its timers count from there."""
        channel = cls(owner, packets_to, scheduler=scheduler, wall_ms=wall_ms)
        channel._make_session = make_session
        return channel

    @property
    def is_ended(self) -> bool:
        return self._ended

    @property
    def is_ready(self) -> bool:
        return self.session is not None and self.session.phase is Phase.READY

    # --- for the link -------------------------------------------------------------------------------------------

    def write(self, frames: list[Outbound]) -> int:
        """Send these packets with one write; its size in bytes. The channel is ready."""
        assert self.session is not None and self._socket is not None
        return self._socket.write(self.session.encode(frames))

    def write_frames(self, frames: list[bytes]) -> None:
        if self._socket is not None and not self._ended:
            self._socket.write(frames)

    def ask(self, protocol_data: list[ProtocolData]) -> int | None:
        """Send a sub-protocol request; its id, or None if that is not possible now."""
        if self.session is None or self._ended:
            return None
        asked = self.session.ask(protocol_data, self.now())
        if asked is None:
            return None
        self.write_frames([asked[1]])
        self._set_timer()
        return asked[0]

    def pause_reading(self) -> None:
        if self._socket is not None and not self._ended:
            self._socket.pause_reading("owner")
            self._mind_reading()

    def resume_reading(self) -> None:
        if self._socket is not None and not self._ended:
            self._socket.resume_reading("owner")
            self._mind_reading()

    def close(self, code: int, why: str) -> None:
        """Our side ends it."""
        if not self._ended and self._socket is not None:
            self._socket.close(code, why)
        self._end(why)

    async def flushed(self) -> None:
        """After `close`: wait (in bounded time) until what was written has left the process."""
        if self._socket is not None:
            await self._socket.flushed()

    def retire(self, code: int, why: str) -> None:
        """Another connection took over. What the peer sent before it heard of that is still taken: answers of its."""
        if not self._ended and self._socket is not None:
            self.why = why
            self._socket.close(code, why, still_listen=True)

    def now(self) -> Now:
        return Now(self._wall_ms(), self._packets_to.mono_ms())

    # --- websocket.Events ---------------------------------------------------------------------------------------

    def opened(self, websocket: WebSocket) -> None:
        if self._ended:
            websocket.abort()
            return
        assert self._make_session is not None
        self._socket = websocket
        self.session = self._make_session(self.now())
        self._carry_out(self.session.opened())
        self._set_timer()

    def messages(self, messages: list[bytes]) -> None:
        if not self._ended:
            assert self.session is not None
            # What may change when the session wants to be woken.
            awaited = self.session.awaits_pong or self.session.phase is Phase.AUTHENTICATING
            self._carry_out(self.session.receive(messages, self.now()))
            if awaited:
                self._set_timer()

    def blocked(self) -> None:
        if self.session is not None and not self._ended:
            self.session.blocked(self.now())
            self._set_timer()
            self.owner.blocked(self)
            self._mind_reading()

    def writable(self) -> None:
        if self.session is not None and not self._ended:
            self.session.writable()
            self._mind_reading()
            self.owner.writable(self)

    def closed(self, why: str) -> None:
        self._end(why)

    # --- inside -------------------------------------------------------------------------------------------------

    def _carry_out(self, out: Output) -> None:
        if out.frames:
            self.write_frames(out.frames)
        close: Close | None = None
        for order in out.orders:
            if isinstance(order, Close):
                close = order
            elif not self._ended:
                self._carry_out_order(order)
        if out.packets:
            self._packets_to.inbound(out.packets)
        if out.failures:
            self._packets_to.undelivered(out.failures)
        if close is not None and not self._ended:
            assert self._socket is not None
            if close.at_once:
                self._socket.abort()
            else:
                self._socket.close(close.code, close.why)
            self._end(close.why, close.refused)

    def _carry_out_order(self, order: Ready | Ping | Asked | Answered | Log) -> None:
        if isinstance(order, Ping):
            if self._socket is not None:
                self._socket.ping()
        elif isinstance(order, Ready):
            if not self.settled.done():
                self.settled.set_result(None)
            self.owner.ready(self, order)
            self._set_timer()
        elif isinstance(order, Asked):
            self.owner.asked(self, order)
        elif isinstance(order, Answered):
            self.owner.answered(self, order)
        else:
            self.owner.log(order)

    def _mind_reading(self) -> None:
        """Silence of a peer that we don't read proves nothing."""
        assert self.session is not None and self._socket is not None
        if self._socket.is_reading:
            self.session.resume(self.now())
        else:
            self.session.pause()
        self._set_timer()

    def _set_timer(self) -> None:
        """Wake when the session asks to. A later time needs no call: waking too early only sets the timer again."""
        at = None if self._ended or self.session is None else self.session.wakes_at()
        if at is None or (self._timer_at is not None and self._timer_at <= at):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        self._timer = self._loop.call_later(max(at - self.now().mono_ms, 1) / 1000, self._wake)

    def _wake(self) -> None:
        self._timer = None
        self._timer_at = None
        if not self._ended and self.session is not None:
            self._carry_out(self.session.tick(self.now()))
            self._set_timer()

    def _end(self, why: str, refused: bool = False) -> None:
        if self._ended:
            return
        self._ended = True
        self.why = why
        self.refused = refused
        if self._timer is not None:
            self._timer.cancel()
        if self.session is not None:
            for order in self.session.end().orders:
                if isinstance(order, Answered):
                    self.owner.answered(self, order)
        for waited in (self.settled, self.over):
            if not waited.done():
                waited.set_result(None)
        self.owner.ended(self, why, refused)
