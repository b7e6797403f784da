"""The network between two neighbours: how long bytes take, what holds them up, and the connections over it.

A connection is ordered, as TCP is: what is written arrives in order or not at all, and a break loses what is on its
way. Frames of BTP travel whole; WebSocket's own framing has tests of its own.
"""

from collections.abc import Callable
from random import Random
from typing import Final, Protocol, final

from isthmus.sim.agenda import Agenda
from isthmus.sim.plan import DUPLICATE, HTTP, LOSS, REORDER, LinkPlan

# Send-buffer bounds, far below the real ones, so that a few packets fill them.
BLOCKED_BYTES: Final = 6_000
WRITABLE_BYTES: Final = 1_500
# How long a dialling side waits for an answer from nowhere.
CONNECT_MS: Final = 20_000
# How often a message that is held up looks whether it may go on.
HELD_LOOK_MS: Final = 100


class Listener(Protocol):
    """What a connection tells the channel at one of its ends (`links.btp.websocket.Events`, but for the opening)."""

    def messages(self, messages: list[bytes]) -> None: ...

    def blocked(self) -> None: ...

    def writable(self) -> None: ...

    def closed(self, why: str) -> None: ...


@final
class Line:
    """The way between two nodes, whatever runs over it."""

    def __init__(self, agenda: Agenda, plan: LinkPlan) -> None:
        self.plan: Final = plan
        self.agenda: Final = agenda
        self.rng: Final = Random(plan.seed)
        self.extra_ms = 0  # a detour
        # How many faults hold up the way from each side; nothing arrives meanwhile, and nobody is told.
        self.held: Final[dict[str, int]] = {plan.a: 0, plan.b: 0}
        # Not reading, for as long as this is above zero.
        self.deaf: Final[dict[str, int]] = {plan.a: 0, plan.b: 0}
        self.refuses = 0  # nobody can dial
        # Percent of HTTP requests and responses that fare so.
        self.lost = 0
        self.doubled = 0
        self.shuffled = 0
        self.connection: Connection | None = None  # the newest
        self.older: list[Connection] = []
        self.on_hit: Callable[[str], None] = lambda kind: None  # told of each request that fared so
        self.ends_up = 0  # ends whose process has found the other one there, where no connection tells it
        self.gaps: Final[list[list[int]]] = [[0, -1]]  # from, until (-1: still) of the times without a link
        self._troubles = 0

    def delay_ms(self) -> int:
        plan = self.plan
        jitter = self.rng.randrange(plan.jitter_ms + 1) if plan.jitter_ms else 0
        return plan.delay_ms + jitter + self.extra_ms

    def holds_up(self, source: str, reader: str) -> bool:
        """Whether bytes from `source` wait, on their way or unread."""
        return self.held[source] > 0 or self.deaf[reader] > 0

    def is_held(self, source: str) -> bool:
        return self.held[source] > 0

    # --- faults -------------------------------------------------------------------------------------------------

    def hold(self, source: str) -> None:
        """Nothing that `source` sends arrives any more."""
        self.held[source] += 1
        self.look()

    def release(self, source: str) -> None:
        """What was held up goes on."""
        self.held[source] -= 1
        self._released()

    def deafen(self, reader: str) -> None:
        """This node reads nothing from this line any more."""
        self.deaf[reader] += 1
        self.look()

    def undeafen(self, reader: str) -> None:
        self.deaf[reader] -= 1
        self._released()

    def trouble_begins(self) -> None:
        """A fault that lets things pass, but late or not all of them."""
        self._troubles += 1
        self.look()

    def trouble_ends(self) -> None:
        self._troubles -= 1
        self.look()

    def look(self) -> None:
        """Keep account of when the two nodes could hear each other: an outsider's view, for the auditor."""
        if self.is_linked == (not self.gaps or self.gaps[-1][1] >= 0):
            return
        if self.is_linked:
            self.gaps[-1][1] = self.agenda.now
        else:
            self.gaps.append([self.agenda.now, -1])

    @property
    def is_linked(self) -> bool:
        """Whether bytes can go both ways now, and somebody listens at both ends."""
        if self._troubles or self.refuses or any(self.held.values()) or any(self.deaf.values()):
            return False
        if self.plan.carrier == HTTP:
            return self.ends_up == 2
        connection = self.connection
        return connection is not None and connection.of_a.is_ready and connection.of_b.is_ready

    def other(self, name: str) -> str:
        return self.plan.b if name == self.plan.a else self.plan.a

    def connections(self) -> "list[Connection]":
        """All that are not over."""
        found = [*self.older, self.connection] if self.connection is not None else self.older
        return [one for one in found if not one.is_over]

    def connect(self) -> "Connection":
        """A new connection; the ones before it go on until somebody closes them."""
        self.older = [one for one in self.connections() if not one.is_over]
        self.connection = Connection(self)
        return self.connection

    def _released(self) -> None:
        self.look()
        for connection in self.connections():
            for socket in (connection.of_a, connection.of_b):
                socket.deliver_soon()

    def carry(
        self, source: str, arrive: Callable[[], None], broken: Callable[[], None], *, is_request: bool = False
    ) -> None:
        """Take one HTTP message to the other side, on a connection of its own: it may pass others, or be lost.

        If it is lost, who waits at the asking side hears that the connection is broken.
        """
        rng = self.rng
        if self.lost and rng.randrange(100) < self.lost:
            self.on_hit(LOSS)
            self.agenda.after(2 * self.delay_ms(), broken)
            return
        wait_ms = self.delay_ms()
        if self.shuffled and rng.randrange(100) < self.shuffled:
            self.on_hit(REORDER)
            wait_ms += rng.randrange(600)
        self._arrive_after(wait_ms, source, arrive)
        if is_request and self.doubled and rng.randrange(100) < self.doubled:
            self.on_hit(DUPLICATE)
            self._arrive_after(wait_ms + rng.randrange(400), source, arrive)

    def _arrive_after(self, wait_ms: int, source: str, arrive: Callable[[], None]) -> None:
        def look() -> None:
            if self.holds_up(source, self.other(source)):
                self._arrive_after(HELD_LOOK_MS, source, arrive)
            else:
                arrive()

        self.agenda.after(wait_ms, look)

    def cut(self, why: str, *, seen_by: str = "") -> int:
        """Break all connections, or let only one side notice now; how many were up."""
        connections = self.connections()
        for connection in connections:
            connection.cut(why, seen_by)
        self.look()
        return len(connections)


@final
class Connection:
    """One connection: a socket for each side."""

    def __init__(self, line: Line) -> None:
        self.line: Final = line
        self.of_a: Final = Socket(line, line.plan.a)
        self.of_b: Final = Socket(line, line.plan.b)
        self.of_a.meet(self.of_b)
        self.of_b.meet(self.of_a)

    def socket(self, name: str) -> "Socket":
        return self.of_a if name == self.line.plan.a else self.of_b

    @property
    def is_over(self) -> bool:
        return self.of_a.is_gone and self.of_b.is_gone

    def cut(self, why: str, seen_by: str = "") -> None:
        """What is on its way is lost. A side that doesn't notice goes on writing into the void."""
        for socket in (self.of_a, self.of_b):
            socket.lose()
            socket.is_ready = False
        for socket in (self.of_a, self.of_b):
            if not seen_by or socket.name == seen_by:
                socket.break_off(why)


@final
class Socket:
    """One end. Has what a channel wants of a `links.btp.websocket.WebSocket`; `listener` is the channel."""

    def __init__(self, line: Line, name: str) -> None:
        self.name: Final = name
        self.listener: Listener | None = None
        self.is_gone = False
        self.is_ready = False  # the channel here has authenticated the other side
        self._line: Final = line
        self._agenda: Final = line.agenda
        self._other: Socket | None = None
        self._pauses: dict[str, None] = {}
        # What comes in: (arrives at, messages, or None for a goodbye, its words), and what has arrived unread.
        self._incoming: list[tuple[int, list[bytes] | None, str]] = []
        self._last_at = 0
        self._due = False
        self._unread_bytes = 0
        self._is_blocked = False
        self._is_closing = False
        self._is_void = False  # the line is cut, and this side doesn't know

    def meet(self, other: "Socket") -> None:
        self._other = other

    # --- for the channel ----------------------------------------------------------------------------------------

    def write(self, messages: list[bytes]) -> int:
        if self._is_closing or self.is_gone or not messages:
            return 0
        size = sum(map(len, messages))
        self._send(messages, "", size)
        return size

    def ping(self) -> None:
        """An answer comes as an empty read, if anybody hears the ping."""
        self._send([], "", 0)

    def close(self, code: int, reason: str, *, still_listen: bool = False) -> None:
        if self._is_closing or self.is_gone:
            return
        self._send(None, f"closed by the peer: {code} {reason}".rstrip(), 0)
        self._is_closing = True
        self._pauses.clear()
        if not still_listen:
            self.listener = None
        self.deliver_soon()

    def abort(self) -> None:
        """At once, and the other side learns of it as soon as bytes can travel."""
        if not self.is_gone:
            self._send(None, "reset by the peer", 0)
            self._end()

    def pause_reading(self, reason: str) -> None:
        self._pauses[reason] = None

    def resume_reading(self, reason: str) -> None:
        self._pauses.pop(reason, None)
        self.deliver_soon()

    @property
    def is_reading(self) -> bool:
        return not self._pauses

    # --- the way ------------------------------------------------------------------------------------------------

    def _send(self, messages: list[bytes] | None, words: str, size: int) -> None:
        other = self._other
        assert other is not None
        if self._is_void or other.is_gone:
            return
        at = max(other._last_at, self._agenda.now + self._line.delay_ms())
        incoming = other._incoming
        if messages and incoming and incoming[-1][0] == at and incoming[-1][1]:
            incoming[-1][1].extend(messages)
        else:
            incoming.append((at, None if messages is None else [*messages], words))
        other._last_at = at
        other._unread_bytes += size
        if not self._is_blocked and other._unread_bytes > BLOCKED_BYTES and self._line.holds_up(self.name, other.name):
            self._is_blocked = True
            if self.listener is not None:
                self._agenda.at(self._agenda.now, self._tell_blocked)
        other.deliver_soon()

    def _tell_blocked(self) -> None:
        if self._is_blocked and self.listener is not None:
            self.listener.blocked()

    def deliver_soon(self) -> None:
        if self._incoming and not self._due and not self.is_gone:
            self._due = True
            self._agenda.at(self._incoming[0][0], self._deliver)

    def _deliver(self) -> None:
        self._due = False
        other = self._other
        assert other is not None
        if not self._may_read():
            return  # whoever holds it up calls `deliver_soon` at the end
        now = self._agenda.now
        incoming = self._incoming
        while incoming and incoming[0][0] <= now and self._may_read():
            _, messages, words = incoming.pop(0)
            if messages is None:
                self._hear_goodbye(words)
                return
            self._unread_bytes -= sum(map(len, messages))
            if not messages:
                other.hear_pong(now)
            if self.listener is not None:
                self.listener.messages(messages)
        if not self._may_read():
            return
        if other._is_blocked and self._unread_bytes < WRITABLE_BYTES:
            other._is_blocked = False
            if other.listener is not None:
                other.listener.writable()
        self.deliver_soon()

    def _may_read(self) -> bool:
        line = self._line
        return not (self.is_gone or line.is_held(line.other(self.name)) or line.deaf[self.name] or self._pauses)

    def hear_pong(self, now: int) -> None:
        """The other side heard our ping, so we hear its pong; in no more time, which nobody minds."""
        if self.listener is not None and not self.is_gone and not self._is_closing:
            self.listener.messages([])

    def _hear_goodbye(self, words: str) -> None:
        listener = self.listener
        other = self._other
        assert other is not None
        if not self._is_closing:
            self._send(None, "closed by both", 0)
        self._end()
        if listener is not None:
            listener.closed(words)

    def lose(self) -> None:
        """All that is on its way to here is gone, and all that will be written here goes nowhere."""
        self._incoming.clear()
        self._unread_bytes = 0
        self._is_void = True

    def break_off(self, why: str) -> None:
        listener = self.listener
        if not self.is_gone:
            self._end()
            if listener is not None:
                listener.closed(why)

    def _end(self) -> None:
        self.is_gone = True
        self.is_ready = False
        self._line.look()
        self.listener = None
        self._incoming.clear()
