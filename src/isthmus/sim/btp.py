"""BTP between two nodes: the real link, channel and session, on simulated connections."""

from random import Random
from typing import TYPE_CHECKING, Final, cast, final

from isthmus.connector.events import SESSION_BYTES, AccountId, Log, Now
from isthmus.links.btp.backoff import Backoff
from isthmus.links.btp.channel import Channel
from isthmus.links.btp.link import BtpLink
from isthmus.links.btp.orders import Answered, Asked, Ready
from isthmus.links.btp.session import Admission, Credentials, Session
from isthmus.sim.wire import CONNECT_MS, Line, Socket

if TYPE_CHECKING:
    from isthmus.links.btp.websocket import WebSocket
    from isthmus.sim.process import Process


class Link(BtpLink):
    """One account's BTP link in one process. Of two, one dials and the other answers; see `Dialler` and `Listener`."""

    def __init__(self, process: "Process", account: AccountId, line: Line) -> None:
        super().__init__(account, process, session=process.kernel.session(account), on_log=self._tell)
        self.process: Final = process
        self.line: Final = line
        self.rng: Final = Random(process.node.rng.getrandbits(62))

    def renew(self, session: bytes) -> None:
        self.session = session

    def die(self) -> None:
        """The system closes the sockets of a dead process, and the peer hears of it as soon as bytes can travel."""
        for connection in self.line.connections():
            socket = connection.socket(self.process.node.name)
            socket.listener = None
            socket.abort()

    def channel(self, owner: "Link | _Visitor", *, is_client: bool) -> Channel:
        """A channel for a connection that is about to open."""
        timers, clock = self.process.timers, self.process.clock

        def session(now: Now) -> Session:
            fallback = self.rng.randbytes(SESSION_BYTES)
            if is_client:
                return Session.client(
                    self.account,
                    Credentials(self.line.plan.name),
                    own_session=self.session,
                    fallback_session=fallback,
                    now=now,
                )
            assert isinstance(owner, _Visitor)
            return Session.server(owner, fallback_session=fallback, now=now)

        return Channel.of(owner, self.process, session, scheduler=timers, wall_ms=clock.wall_ms)

    def open(self, channel: Channel, socket: Socket) -> None:
        """The connection is there."""
        self.process.node.world.coverage.enter("btp", "authenticating")
        socket.listener = channel
        channel.opened(cast("WebSocket", socket))

    def ready(self, channel: Channel, order: Ready) -> None:
        self.process.node.world.coverage.enter("btp", "ready")
        for connection in self.line.connections():
            socket = connection.socket(self.process.node.name)
            if socket.listener is channel:
                socket.is_ready = True
        self.line.look()
        super().ready(channel, order)

    def ended(self, channel: Channel, why: str, refused: bool) -> None:
        self.process.node.world.coverage.enter("btp", f"ended: {why}")
        super().ended(channel, why, refused)

    def _tell(self, fact: Log) -> None:
        self.process.node.world.logged(self.process.node.name, fact)


@final
class Listener(Link):
    """The side that is dialled."""

    def begin(self) -> None:
        """Nothing to do: who dials finds the process by its node."""

    def accept(self, socket: Socket) -> None:
        """A stranger has come; the session tells whether it is our peer."""
        visitor = _Visitor(self)
        self.open(self.channel(visitor, is_client=False), socket)


@final
class _Visitor:
    """A stranger on his way in, as `links.btp.server` has him."""

    def __init__(self, link: Listener) -> None:
        self._link: Final = link

    def admit(self, username: str, token: bytes) -> Admission | None:
        if token.decode() != self._link.line.plan.name:
            return None
        return Admission(self._link.account, self._link.session)

    def ready(self, channel: Channel, order: Ready) -> None:
        self._link.ready(channel, order)

    def asked(self, channel: Channel, order: Asked) -> None: ...

    def answered(self, channel: Channel, order: Answered) -> None: ...

    def blocked(self, channel: Channel) -> None: ...

    def writable(self, channel: Channel) -> None: ...

    def ended(self, channel: Channel, why: str, refused: bool) -> None:
        self._link.process.node.world.coverage.enter("btp", f"refused: {why}")

    def log(self, fact: Log) -> None: ...


@final
class Dialler(Link):
    """The side that dials, again and again, as `links.btp.client` does it."""

    def __init__(self, process: "Process", account: AccountId, line: Line) -> None:
        super().__init__(process, account, line)
        self._backoff: Final = Backoff(self.rng.random)
        self._attempt: Channel | None = None
        self._up_since: int | None = None

    def begin(self) -> None:
        """Begin to dial."""
        self._dial()

    def dial_anew(self) -> bool:
        """Open another connection beside the one that is up, as after a router has moved a path. False if none is."""
        if self.is_up:
            self._dial()
            return True
        return False

    def _dial(self) -> None:
        line = self.line
        name = self.process.node.name
        other = line.other(name)
        self._attempt = channel = self.channel(self, is_client=True)
        self._up_since = None
        if line.is_held(name) or line.is_held(other):
            self.process.timers.after(CONNECT_MS, lambda: self._no_connection(channel, "no connection in time"))
            return
        there = line.delay_ms()
        self.process.timers.after(2 * there, lambda: self._arrive(channel, other))

    def _arrive(self, channel: Channel, other: str) -> None:
        peer = self.process.node.world.nodes[other]
        link = None if peer.process is None else peer.process.links.get(AccountId(peer.account_of(self.line)))
        if not isinstance(link, Listener) or self.line.refuses or self.line.is_held(other):
            self._no_connection(channel, "connection refused")
            return
        connection = self.line.connect()
        link.accept(connection.socket(other))
        self.open(channel, connection.socket(self.process.node.name))

    def _no_connection(self, channel: Channel, why: str) -> None:
        channel.close(1000, why)

    def ready(self, channel: Channel, order: Ready) -> None:
        self._up_since = self.process.mono_ms()
        super().ready(channel, order)

    def ended(self, channel: Channel, why: str, refused: bool) -> None:
        super().ended(channel, why, refused)
        if channel is not self._attempt:
            return  # an older one, that a newer took over from
        lasted_ms = 0 if self._up_since is None else self.process.mono_ms() - self._up_since
        wait_ms = self._backoff.after(lasted_ms=lasted_ms, refused=refused)
        self.process.timers.after(wait_ms, self._dial)
