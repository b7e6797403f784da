"""A whole node on virtual time between two peers, and an auditor who sees only the wire.

The real kernel behind the real BTP sessions; the disk, the links and the clocks are whoever drives it. The auditor
finds that each Prepare of the node's own leaves once, that each request of a peer is answered once, by a Fulfill only
if the next hop gave the preimage in time, and that the node owes no peer more than the sum of what that peer fulfilled.
"""

from fractions import Fraction
from hashlib import sha256
from typing import Final, final

from isthmus.connector.events import (
    AccountId,
    Append,
    CloseLink,
    Durable,
    Effect,
    Event,
    Halt,
    LinkDown,
    LinkUp,
    Now,
    Release,
)
from isthmus.connector.kernel import Kernel
from isthmus.connector.tables import AccountTerms, RateTable, RouteTable, Tables, TablesChanged
from isthmus.errors import CodecError
from isthmus.ilp import ildcp, packet
from isthmus.ilp.asset import Asset
from isthmus.ilp.outcomes import (
    OUTCOMES_DESTINATION,
    decode_answer,
    decode_report,
)
from isthmus.ilp.packet import Fulfill, Prepare, Reject
from isthmus.links.btp import codec as btp
from isthmus.links.btp.orders import Close, Output, Ping, Ready
from isthmus.links.btp.session import Admission, Phase, Session

WALL: Final = 1_800_000_000_000
NAMES: Final = ("ann", "ben")
RECEIVABLE: Final = 5_000_000
PAYABLE: Final = 6_000_000
LEGS: Final = 6
HOLD_MS: Final = 4_000
WAKES_MAX: Final = 2_000


TERMS: Final = {
    AccountId(name): AccountTerms(
        id=AccountId(name),
        asset=asset,
        relation=relation,
        receivable_max=RECEIVABLE,
        payable_max=PAYABLE,
        hold_ms_max=HOLD_MS,
        open_legs_max=LEGS,
        prepares_per_batch_max=2,
        inbox_max=4,
        packets_per_minute=600,
        amount_per_second=10_000_000,
        ildcp_server=relation == "child",
        child_address=f"test.node.{name}" if relation == "child" else "",
        echo_amount_max=1_000,
    )
    for name, asset, relation in (("ann", Asset("USD", 9), "child"), ("ben", Asset("EUR", 6), "peer"))
}
ROUTES: Final = RouteTable({f"test.node.{name}": AccountId(name) for name in NAMES})
RATES: Final = RateTable({("USD", "EUR"): Fraction("0.9"), ("EUR", "USD"): Fraction("1.1")}, spread=Fraction(1, 50))
TABLES: Final = Tables("test.node", TERMS, ROUTES, RATES)


@final
class Door:
    """Ann and Ben come in by their names."""

    def admit(self, username: str, token: bytes) -> Admission | None:
        name = token.decode("latin-1")
        return Admission(AccountId(name), sha256(token).digest()[:16]) if name in NAMES else None


@final
class Peer:
    """One peer as the auditor sees it: what it asked, what it was asked, what it is due."""

    def __init__(self, name: str) -> None:
        self.name: Final = name
        self.session: Session | None = None
        self.request = 1
        self.connections = 0
        self.session_id = bytes(16)
        # Reports of the node that wait for an answer: (id, the requests that it asks about).
        self.reports: list[tuple[int, list[int]]] = []
        self.answers_pings = True
        # Requests of the peer by id: how many the node may still answer, and all conditions that they had.
        self.open: dict[int, int] = {}
        self.conditions: dict[int, set[bytes]] = {}
        # Requests of the node: (id, condition, amount, expiry by the wall), the newest last.
        self.was_asked: list[tuple[int, bytes, int, int]] = []
        self.seen: set[tuple[bytes, int]] = set()
        self.due = 0  # the sum of what it fulfilled in time, at most


@final
class World:
    """The node, its disk, its two peers."""

    def __init__(self) -> None:
        self.mono = 10_000
        self.wall_offset = WALL
        self.processes = 0
        self.log: list[bytes] = []
        self.pending: list[Append] = []
        self.peers: Final = {name: Peer(name) for name in NAMES}
        self.preimages: set[bytes] = set()  # conditions of which some peer has shown the preimage
        self.kernel = self._start()

    # --- the process -----------------------------------------------------------------------------------------------

    def _start(self, before: bytes | None = None) -> Kernel:
        """A process from the journal; `before` is the digest of the books that it must find there."""
        self.processes += 1
        self.pending.clear()
        self.kernel = kernel = Kernel(sha256(b"%d" % self.processes).digest())
        for sequence, record in enumerate(self.log, 1):
            kernel.replay(sequence, record)
        assert before is None or kernel.digest() == before, "replay equals live"
        kernel.opened(self.now())
        self.handle(TablesChanged(TABLES))
        self.commit(len(self.pending))
        return kernel

    def crash(self) -> None:
        """What wasn't durable is gone; connections with it."""
        for peer in self.peers.values():
            peer.session = None
        before = None
        if not self.pending and self.kernel.at_boundary() and not self.kernel.halted:
            before = self.kernel.digest()
        self._start(before)
        for peer in self.peers.values():
            self._forget_requests(peer)

    def _forget_requests(self, peer: Peer) -> None:
        """Of a peer's requests, only those in the books can still be answered."""
        known = {request for _, request in self.kernel.books.peers[AccountId(peer.name)].received}
        peer.open = {request: 1 for request in peer.open if request in known}

    def now(self) -> Now:
        return Now(self.wall_offset + self.mono, self.mono)

    def handle(self, *events: Event | TablesChanged) -> None:
        for effect in self.kernel.handle(list(events), self.now()):
            self._take(effect)

    def _take(self, effect: Effect) -> None:
        if isinstance(effect, Append):
            assert effect.sequence == len(self.log) + len(self.pending) + 1
            self.pending.append(effect)
        elif isinstance(effect, Release):
            self._released(effect)
        elif isinstance(effect, CloseLink):
            self.disconnect(self.peers[effect.account])
        else:
            assert not isinstance(effect, Halt) or self.kernel.halted

    def commit(self, count: int) -> None:
        for _ in range(count):
            if self.pending:
                append = self.pending.pop(0)
                self.log.append(append.record)
                self.handle(Durable(append.sequence))

    # --- what leaves ------------------------------------------------------------------------------------------------

    def _released(self, release: Release) -> None:
        peer = self.peers[release.account]
        session = peer.session
        for frame in release.frames:
            decoded = packet.decode(frame.packet)
            if isinstance(decoded, Prepare):
                assert session is not None and session.phase is Phase.READY, "no Prepare without a connection"
                self._asks(peer, frame.session, frame.request_id, decoded)
            else:
                self._answers(peer, frame.request_id, decoded)
        if session is not None and session.phase is Phase.READY:
            for octets in session.encode(release.frames):
                btp.decode(octets)

    def _asks(self, peer: Peer, session: bytes, request: int, prepare: Prepare) -> None:
        assert (session, request) not in peer.seen, "no Prepare is sent twice"
        peer.seen.add((session, request))
        if prepare.destination.startswith("peer."):
            assert (prepare.amount, prepare.destination) == (0, OUTCOMES_DESTINATION)
            asked = decode_report(prepare.data).asked
            # After a crash also about what may have been sent: the journal doesn't tell.
            assert self.processes > 1 or set(asked) <= {known for _, known in peer.seen}, "only what was sent is asked"
            peer.reports.append((request, asked))
            return
        peer.was_asked.append((request, prepare.condition, prepare.amount, prepare.expires_at))

    def _answers(self, peer: Peer, request: int, reply: Fulfill | Reject) -> None:
        left = peer.open.get(request, 0) - 1
        assert left >= 0, "only what was asked is answered, and once"
        peer.open[request] = left
        if isinstance(reply, Fulfill):
            condition = sha256(reply.fulfillment).digest()
            assert condition in peer.conditions[request], "a Fulfill holds the preimage of what was asked"
            assert condition in self.preimages or condition == ildcp.PEER_CONDITION, "nobody told it the preimage"

    # --- what comes -------------------------------------------------------------------------------------------------

    def connect(self, peer: Peer) -> None:
        """A new connection, authenticated: by ann as an isthmus, with the same session id as before."""
        self.disconnect(peer)
        peer.connections += 1
        fallback = sha256(b"%s %d" % (peer.name.encode(), peer.connections)).digest()[:16]
        peer.session = Session.server(Door(), fallback_session=fallback, now=self.now())
        entries = [btp.ProtocolData("auth", 0, b""), btp.ProtocolData("auth_token", 1, peer.name.encode())]
        peer.session_id = fallback
        if peer.name == "ann":
            peer.session_id = b"session of ann.."
            entries.append(btp.ProtocolData("isthmus_session", 0, peer.session_id))
        self.receive(peer, [btp.encode(btp.BtpMessage(1, entries))])

    def connect_rawly(self, peer: Peer, frames: list[bytes]) -> None:
        """A connection whose first frames are anything."""
        self.disconnect(peer)
        session = peer.session = Session.server(Door(), fallback_session=bytes(16), now=self.now())
        self.receive(peer, frames)
        if peer.session is session and session.account not in (None, peer.name):
            self.disconnect(peer)  # it came in as the other: not for this auditor

    def disconnect(self, peer: Peer) -> None:
        if peer.session is not None:
            was_ready = peer.session.phase is Phase.READY
            peer.session = None
            if was_ready:
                self.handle(LinkDown(AccountId(peer.name), "gone"))

    def receive(self, peer: Peer, frames: list[bytes]) -> None:
        session = peer.session
        if session is None or session.phase is Phase.ENDED:
            return
        if session.phase is Phase.READY:
            for frame in frames:
                self._hear(peer, frame)
        self._carry_out(peer, session.receive(frames, self.now()))

    def _hear(self, peer: Peer, frame: bytes) -> None:
        """The auditor reads along, before the node does: what did the peer ask, what did it fulfil?"""
        try:
            decoded = btp.decode(frame)
        except CodecError:
            return
        if not isinstance(decoded, btp.BtpMessage | btp.BtpResponse) or not decoded.protocol_data:
            return
        entry = decoded.protocol_data[0]
        if entry.name != "ilp" or not entry.data:
            return
        if entry.data[0] == packet.PREPARE:
            try:
                condition = packet.view_prepare(entry.data).condition
            except CodecError:
                condition = b""  # will be refused
            peer.open[decoded.request_id] = peer.open.get(decoded.request_id, 0) + 1
            peer.conditions.setdefault(decoded.request_id, set()).add(condition)
        elif entry.data[0] == packet.FULFILL:
            try:
                fulfillment = packet.fulfillment_of(entry.data)
            except CodecError:
                return
            self._fulfilled(peer, decoded.request_id, sha256(fulfillment).digest())
            if fulfillment == ildcp.PEER_FULFILLMENT:
                self._hear_answer(peer, packet.decode_reply(entry.data).data)

    def _hear_answer(self, peer: Peer, data: bytes) -> None:
        """What it says to a report that it has fulfilled before."""
        try:
            fulfilled = decode_answer(data)
        except CodecError:
            return
        for request, fulfillment in fulfilled:
            self._fulfilled(peer, request, sha256(fulfillment).digest())

    def _fulfilled(self, peer: Peer, request: int, condition: bytes) -> None:
        """The most that the node may owe the peer for this: what it asked under the id, once."""
        self.preimages.add(condition)
        for asked in reversed(peer.was_asked):
            if asked[:2] == (request, condition):
                peer.was_asked.remove(asked)
                peer.due += asked[2]
                return

    def _carry_out(self, peer: Peer, out: Output) -> None:
        account = AccountId(peer.name)
        for frame in out.frames:
            btp.decode(frame)
        closed = False
        for order in out.orders:
            if isinstance(order, Ready):
                if order.account == account:
                    self.handle(LinkUp(account))
            elif isinstance(order, Ping):
                if peer.answers_pings and peer.session is not None:
                    peer.session.receive([], self.now())
            elif isinstance(order, Close):
                closed = True
        packets = [inbound for inbound in out.packets if inbound.account == account]
        if packets or out.failures:
            self.handle(*packets, *out.failures)
        if closed:
            # The session is over already, so the link is told here.
            peer.session = None
            self.handle(LinkDown(account, "closed"))

    def wait(self, ms: int) -> None:
        """Let time pass, waking whoever wants to be woken."""
        until = self.mono + ms
        for _ in range(WAKES_MAX):
            sessions = [peer.session for peer in self.peers.values() if peer.session is not None]
            wakes = [self.kernel.wakes_at(), *(session.wakes_at() for session in sessions)]
            due = min((at for at in wakes if at is not None), default=until)
            if due >= until:
                self.mono = until
                self._wake()
                return
            self.mono = max(self.mono, due)
            self._wake()
        raise AssertionError("the node never comes to rest")

    def _wake(self) -> None:
        for peer in self.peers.values():
            if peer.session is not None:
                self._carry_out(peer, peer.session.tick(self.now()))
        self.handle()

    # --- what must hold ---------------------------------------------------------------------------------------------

    def check(self) -> None:
        books = self.kernel.books
        books.check()
        for name, account in books.peers.items():
            assert len(account.sent) <= LEGS
            assert len(account.received) <= LEGS
            assert account.balance + account.reserved_incoming <= RECEIVABLE or not account.reserved_incoming
            assert account.reserved_outgoing - account.balance <= PAYABLE or not account.reserved_outgoing
            assert account.posted_outgoing <= self.peers[name].due, "nobody is owed more than was fulfilled"

    def end(self) -> None:
        """Faults end, and everything must."""
        if self.kernel.halted:
            self.crash()
        for peer in self.peers.values():
            self.connect(peer)
        for _ in range(2):
            self.commit(len(self.pending))
            self.wait(HOLD_MS)
        self.commit(len(self.pending))
        self.check()
        for account in self.kernel.books.peers.values():
            assert not account.sent
            assert not account.received
        assert self.kernel.at_boundary()
        if self.processes == 1:
            self._replays_to_itself()

    def _replays_to_itself(self) -> None:
        """What each crash shows as well."""
        shadow = Kernel(bytes(32))
        for sequence, record in enumerate(self.log, 1):
            shadow.replay(sequence, record)
        assert shadow.digest() == self.kernel.digest(), "replay equals live"
