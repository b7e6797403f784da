"""ILP over HTTP between two nodes: the real tables of requests, on simulated requests that may be lost or come twice.

What `links.http.link` does with sockets and tasks is done here with the agenda: who is asked when, what waits for an
answer, when it is tried again. What a reply means, the session machines decide.
"""

from collections import deque
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Final, NamedTuple, final

from isthmus.connector.events import AccountId, Inbound, Outbound, Undelivered
from isthmus.errors import CodecError
from isthmus.ilp.packet import PREPARE, decode_reply, view_prepare
from isthmus.links.http.session import (
    Deliver,
    IncomingRequests,
    Known,
    NotTaken,
    OutgoingRequests,
    ReplyDelivery,
    Take,
    format_leg,
    parse_leg,
    request_key,
)
from isthmus.sim.wire import Line

if TYPE_CHECKING:
    from isthmus.sim.process import Process

GRACE_MS: Final = 2_000
HOLD_MS_MAX: Final = 120_000
REPLY_MS: Final = 30_000
CONNECT_MS: Final = 10_000
CONCURRENCY_MAX: Final = 48
DELIVERIES_MAX: Final = 16
WAITERS_MAX: Final = 4
SWEEP_MS: Final = 1_000
PROBE_MS_FIRST: Final = 250
PROBE_MS_MAX: Final = 2_000
CALLBACK: Final = "the peer"

# The outcome of one request: an HTTP status and a packet; None, None if nothing came in time.
Answered = Callable[[int | None, bytes | None], None]
REFUSED: Final = -1  # there was no connection
BROKEN: Final = -2  # there was one, and it ended without an answer


class Post(NamedTuple):
    """One POST: its Request-Id, its Isthmus-Leg, and its body."""

    key: bytes
    leg: str | None
    packet: bytes


@final
class HttpLink:
    """One account's HTTP link in one process. Implements `process.Carrier`."""

    def __init__(self, process: "Process", account: AccountId, line: Line) -> None:
        self.account: AccountId = account
        self.process: Final = process
        self.line: Final = line
        self.rng: Final = Random(process.node.rng.getrandbits(62))
        self._name: Final = process.node.name
        self._is_asynchronous: Final = line.plan.asynchronous
        self._outgoing: Final = OutgoingRequests(asynchronous=line.plan.asynchronous)
        self._incoming: Final = IncomingRequests()
        self._prepares: Final[deque[tuple[Post, int]]] = deque()
        self._posting = 0
        self._deliveries: Final[deque[ReplyDelivery]] = deque()
        self._delivering = 0
        self._waiters: Final[dict[bytes, list[Answered]]] = {}
        self._is_up: bool | None = None
        self._is_probing = False
        self._wait_ms = PROBE_MS_FIRST
        self._sweep_at = 0

    # --- process.Carrier ----------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Find out whether the peer can be reached; replies to what an earlier process sent are still taken."""
        for session, request_id, ends_at in self.process.kernel.open_requests(self.account):
            self._outgoing.open(session, request_id, ends_at)
        self._probe()

    def reset(self, why: str) -> None:
        self._leave_waiters(504)
        self._went_down(why)

    def renew(self, session: bytes) -> None:
        """Each Prepare has its session in its Request-Id."""

    def die(self) -> None:
        """Whoever waits for an answer of ours hears the connection break."""
        self._be_up(False)
        self._leave_waiters(BROKEN)

    def write(self, frames: list[Outbound]) -> None:
        now = self.process.clock.now()
        self._sweep(now.mono_ms)
        for frame in frames:
            if frame.packet[0] != PREPARE:
                self._write_reply(frame, now.mono_ms)
            else:
                ends_at = now.mono_ms + max(0, view_prepare(frame.packet).expires_at - now.wall_ms)
                key = self._outgoing.open(frame.session, frame.request_id, ends_at)
                leg = format_leg(frame.session, frame.request_id)
                self._prepares.append((Post(key, leg, frame.packet), ends_at))
        self._pump()

    def _write_reply(self, frame: Outbound, now_ms: int) -> None:
        key = request_key(frame.session, frame.request_id) if frame.request_id else frame.session
        known = self._incoming.reply(key, frame.packet)
        if known is not None and known.callback is None:
            self._wake(key, 200, frame.packet)
            return
        if known is not None or self._is_asynchronous:
            # Unknown: the Prepare came before a restart.
            ends_at = now_ms + REPLY_MS if known is None else known.ends_at
            self._deliveries.append(ReplyDelivery(key, CALLBACK, frame.packet, ends_at))

    # --- is anybody there? --------------------------------------------------------------------------------------

    def _went_down(self, why: str) -> None:
        self._tell_down(why)
        if not self._is_probing:
            self._wait_ms = PROBE_MS_FIRST
            self._probe()

    def _tell_down(self, why: str) -> None:
        if self._is_up is not False:
            self._be_up(False)
            self.process.link_down(self.account, why)

    def _be_up(self, is_up: bool) -> None:
        self.line.ends_up += is_up - bool(self._is_up)
        self._is_up = is_up
        self.line.look()

    def _probe(self) -> None:
        self._is_probing = True
        self._request(None, self._probed)

    def _probed(self, status: int | None, packet: bytes | None) -> None:
        if status == 200:
            self._is_probing = False
            self._be_up(True)
            self.process.link_up(self.account)
            return
        self._tell_down("nobody answers")
        wait_ms = self._wait_ms // 2 + self.rng.randrange(self._wait_ms // 2)
        self._wait_ms = min(self._wait_ms * 2, PROBE_MS_MAX)
        self.process.timers.after(wait_ms, self._probe)

    # --- requests out -------------------------------------------------------------------------------------------

    def _pump(self) -> None:
        while self._deliveries and self._delivering < DELIVERIES_MAX:
            self._delivering += 1
            self._deliver(self._deliveries.popleft())
        while self._prepares and self._posting < CONCURRENCY_MAX:
            post, ends_at = self._prepares.popleft()
            left_ms = ends_at - self.process.mono_ms()
            if left_ms > 0:
                self._posting += 1
                self._post_prepare(post, left_ms)

    def _post_prepare(self, post: Post, left_ms: int) -> None:
        def answered(status: int | None, reply: bytes | None) -> None:
            self._posting -= 1
            if status == REFUSED:
                self._went_down("nobody answers")
                self._tell(self._outgoing.not_connected(post.key, "the next hop can't be reached"))
            elif status == BROKEN:
                self._went_down("the connection broke")
            elif status is not None:
                self._tell(self._outgoing.responded(post.key, status, reply, self.process.mono_ms()))
            self._pump()

        self._request(post, answered, timeout_ms=left_ms + GRACE_MS)

    def _deliver(self, delivery: ReplyDelivery) -> None:
        def answered(status: int | None, reply: bytes | None) -> None:
            self._delivering -= 1
            wait_ms = delivery.result(None if status in (REFUSED, BROKEN) else status, self.process.mono_ms())
            if wait_ms is not None:
                self.process.timers.after(wait_ms, lambda: self._deliver_again(delivery))
            self._pump()

        self._request(Post(delivery.key, None, delivery.packet), answered)

    def _deliver_again(self, delivery: ReplyDelivery) -> None:
        self._deliveries.append(delivery)
        self._pump()

    def _request(self, post: Post | None, answered: Answered, *, timeout_ms: int = CONNECT_MS) -> None:
        """One request and its response, each on its way by itself. `answered` is called once."""
        line, timers = self.line, self.process.timers
        other = line.other(self._name)
        pending: list[Answered] = [answered]

        def end(status: int | None, packet: bytes | None) -> None:
            if pending and timers.is_alive:
                pending.pop()(status, packet)

        timers.after(timeout_ms, lambda: end(None, None))
        self._count("asked" if post is None or post.packet[0] == PREPARE else "replied")
        if line.is_held(self._name) or line.is_held(other):
            # No connection comes about, so no byte of it leaves.
            timers.after(min(CONNECT_MS, timeout_ms), lambda: end(REFUSED, None))
            return

        reached: list[bool] = []  # whether somebody was there, for each copy of the request

        def arrive() -> None:
            link = self._peer(other)
            reached.append(link is not None and not line.refuses)
            if not reached[0]:
                # Without a connection nothing was sent, so there is nothing to come twice.
                respond(REFUSED, None)
            elif link is None or line.refuses:
                respond(BROKEN, None)
            elif post is None:
                respond(200, None)
            else:
                link.receive(post, respond)

        def respond(status: int | None, packet: bytes | None) -> None:
            line.carry(other, lambda: end(status, packet), broken)

        def broken() -> None:
            end(BROKEN, None)

        line.carry(self._name, arrive, broken, is_request=post is not None)

    def _peer(self, other: str) -> "HttpLink | None":
        node = self.process.node.world.nodes[other]
        link = None if node.process is None else node.process.links.get(AccountId(node.account_of(self.line)))
        return link if isinstance(link, HttpLink) else None

    def _tell(self, effect: Deliver | NotTaken | None) -> None:
        if isinstance(effect, Deliver):
            read_at = self.process.mono_ms()
            self._count("reply taken" if effect.in_time else "reply too late")
            self.process.inbound([Inbound(self.account, effect.session, effect.request_id, effect.packet, read_at)])
        elif isinstance(effect, NotTaken):
            self._count("not taken")
            failure = Undelivered(self.account, effect.request_id, effect.code, effect.message)
            self.process.undelivered([failure])

    # --- requests in --------------------------------------------------------------------------------------------

    def receive(self, post: Post, respond: Answered) -> None:
        """One POST of the peer."""
        if not self.process.timers.is_alive:
            return
        if post.packet[0] == PREPARE:
            self._receive_prepare(post, respond)
            return
        try:
            decode_reply(post.packet)
        except CodecError:
            respond(400, None)
            return
        status, deliver = self._outgoing.replied(post.key, post.packet, self.process.mono_ms())
        self._tell(deliver)
        respond(status, None)

    def _receive_prepare(self, post: Post, respond: Answered) -> None:
        key, packet = post.key, post.packet
        leg = (key, 0) if post.leg is None else parse_leg(post.leg, key)
        if leg is None:
            respond(400, None)
            return
        now = self.process.clock.now()
        self._sweep(now.mono_ms)
        try:
            expires_at = view_prepare(packet).expires_at
        except CodecError:
            respond(400, None)
            return
        ends_at = now.mono_ms + min(max(0, expires_at - now.wall_ms), HOLD_MS_MAX)
        callback = CALLBACK if self._is_asynchronous else None
        take, known = self._incoming.prepare(key, packet, ends_at, callback)
        self._count(f"Prepare {take.name.lower()}")
        if known is None:
            respond(503 if take is Take.FULL else 400, None)
            return
        if take is Take.NEW:
            self.process.inbound([Inbound(self.account, *leg, packet, now.mono_ms)])
        if known.callback is not None:
            respond(202, None)
        else:
            self._reply_for(key, known, respond, ends_at - now.mono_ms)

    def _reply_for(self, key: bytes, known: Known, respond: Answered, left_ms: int) -> None:
        """Hold the request open until its reply is there, a little beyond its expiry at most."""
        if known.answered:
            respond(400 if known.reply is None else 200, known.reply)
            return
        waiters = self._waiters.setdefault(key, [])
        if len(waiters) >= WAITERS_MAX:
            respond(429, None)
            return
        waiters.append(respond)
        self.process.timers.after(left_ms + GRACE_MS, lambda: self._wake(key, 504, None))

    def _wake(self, key: bytes, status: int | None, reply: bytes | None) -> None:
        for respond in self._waiters.pop(key, ()):
            respond(status, reply)

    def _leave_waiters(self, status: int) -> None:
        for key in list(self._waiters):
            self._wake(key, status, None)

    def _sweep(self, now_ms: int) -> None:
        if now_ms >= self._sweep_at:
            self._sweep_at = now_ms + SWEEP_MS
            self._outgoing.sweep(now_ms)
            self._incoming.sweep(now_ms)

    def _count(self, what: str) -> None:
        self.process.node.world.coverage.enter("http", what)
