"""One BTP connection as a state machine, for both roles (RFC 0023): frames and the time in, frames and orders out.

It owns authentication, what a frame means, BTP errors, keep-alive and the timers of a connection. It leaves the
socket to the channel, and the account's life over many connections (kept answers, reconnection) to the link.

How far we are liberal (X-2): an ILP packet in a Message or Response is classified by its own first byte, for every
peer. A Prepare is a request of the peer, a Fulfill or Reject an answer to one of ours. The two can't be confused, and
interledger-rs sends Prepares in Responses and answers in Messages. We always write the standard form, which it reads.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, Protocol, final

from isthmus.connector.events import SESSION_BYTES, AccountId, Inbound, Log, Now, Outbound, Undelivered
from isthmus.errors import CodecError
from isthmus.links.btp import codec
from isthmus.links.btp.carrying import Carrier, is_to_settle
from isthmus.links.btp.codec import (
    ERROR_NAMES,
    MESSAGE,
    OCTET_STREAM,
    RESPONSE,
    TEXT_PLAIN,
    BtpError,
    BtpMessage,
    BtpPacket,
    BtpResponse,
    BtpTransfer,
    ProtocolData,
)
from isthmus.links.btp.orders import Answered, Asked, Close, Output, Ping, Ready

# Requests of the link itself (auth, sub-protocols) take the top of the u32 range; the kernel's Prepares stay below.
LINK_REQUEST_ID_MIN: Final = 2**32 - 2**16
AUTH_REQUEST_ID: Final = LINK_REQUEST_ID_MIN
SESSION_ENTRY: Final = "isthmus_session"

_PREPARE: Final = 12
_REPLIES: Final = (13, 14)  # Fulfill, Reject

# Sub-protocol requests in flight towards the peer; one more is refused to our own caller.
ASKED_MAX: Final = 64


@dataclass(slots=True, frozen=True)
class Timing:
    """How long a connection waits for what, in ms."""

    auth_ms: int = 10_000  # BTP-7
    ping_after_ms: int = 15_000  # idle; a NAT forgets a mapping after 30 s at the earliest that we know of
    pong_ms: int = 10_000  # then the peer is dead
    stall_ms: int = 10_000  # how long a peer may leave our answers in our buffer
    ask_ms: int = 30_000  # BTP-15


@dataclass(slots=True, frozen=True)
class Admission:
    """The account that a token opens, and our own session id to tell its peer."""

    account: AccountId
    own_session: bytes


@dataclass(slots=True, frozen=True)
class Refusal:
    """Wrong credentials, and too many of them from that address: the answer is held back for so long."""

    hold_ms: int


class Door(Protocol):
    """Who may come in. Given by the shell, which keeps the tokens."""

    def admit(self, username: str, token: bytes) -> Admission | Refusal | None:
        """None: wrong credentials."""


@dataclass(slots=True, frozen=True)
class Credentials:
    """What a client shows to the server."""

    token: str
    username: str = ""

    def __repr__(self) -> str:
        return "Credentials(…)"  # never in a log or traceback


class Phase(Enum):
    AUTHENTICATING = auto()
    READY = auto()
    ENDED = auto()


@final
class Session:
    """One connection from its first frame to its end."""

    def __init__(
        self,
        *,
        is_client: bool,
        account: AccountId | None,
        own_session: bytes,
        credentials: Credentials | None,
        door: Door | None,
        fallback_session: bytes,
        now: Now,
        subprotocols: Sequence[str] = (),
        timing: Timing = Timing(),
    ) -> None:
        assert len(fallback_session) == SESSION_BYTES
        self.is_client: Final = is_client
        self.account = account
        self.phase = Phase.AUTHENTICATING
        # Wire identity of the peer's requests. Peers that announce none get random bytes of this connection.
        self.peer_session = fallback_session
        self.is_isthmus = False
        self._own_session = own_session
        # What replies are stamped with: our announced session, or nothing where the wire has no sessions.
        self._reply_session = b""
        self._credentials = credentials
        self._door = door
        self._subprotocols: Final = tuple(subprotocols)
        self._timing: Final = timing
        self._started_at: Final = now.mono_ms
        self._heard_at = now.mono_ms
        self._pinged_at: int | None = None
        self._blocked_at: int | None = None
        self._reading = True
        self._garbled = 0
        self._held: tuple[int, int] | None = None  # a refusal that waits: its time (mono ms), its request id
        self._asked: dict[int, int] = {}  # request id -> deadline
        self._last_asked = AUTH_REQUEST_ID
        self._carrier: Final = Carrier()

    @staticmethod
    def client(
        account: AccountId,
        credentials: Credentials,
        *,
        own_session: bytes,
        fallback_session: bytes,
        now: Now,
        subprotocols: Sequence[str] = (),
        timing: Timing = Timing(),
    ) -> "Session":
        """The side that dialled: it authenticates first."""
        return Session(
            is_client=True,
            account=account,
            own_session=own_session,
            credentials=credentials,
            door=None,
            fallback_session=fallback_session,
            now=now,
            subprotocols=subprotocols,
            timing=timing,
        )

    @staticmethod
    def server(
        door: Door,
        *,
        fallback_session: bytes,
        now: Now,
        subprotocols: Sequence[str] = (),
        timing: Timing = Timing(),
    ) -> "Session":
        """The side that was called: the account is known once the door admitted the token."""
        return Session(
            is_client=False,
            account=None,
            own_session=b"",
            credentials=None,
            door=door,
            fallback_session=fallback_session,
            now=now,
            subprotocols=subprotocols,
            timing=timing,
        )

    # --- frames in ----------------------------------------------------------------------------------------------

    def opened(self) -> Output:
        """The WebSocket is up. A client authenticates before anything else (BTP-5)."""
        out = Output()
        if self.is_client:
            assert self._credentials is not None
            entries = [
                ProtocolData("auth", OCTET_STREAM, b""),
                ProtocolData("auth_token", TEXT_PLAIN, self._credentials.token.encode()),
            ]
            if self._credentials.username:
                entries.append(ProtocolData("auth_username", TEXT_PLAIN, self._credentials.username.encode()))
            if self._own_session:
                entries.append(ProtocolData(SESSION_ENTRY, OCTET_STREAM, self._own_session))
            out.frames.append(codec.encode(BtpMessage(AUTH_REQUEST_ID, entries)))
        return out

    def receive(self, frames: list[bytes], now: Now) -> Output:
        """Take all frames of one read, in their order. An empty list: only control frames came."""
        self._heard_at = now.mono_ms
        self._pinged_at = None
        out = Output()
        if self.phase is Phase.AUTHENTICATING:
            frames = self._authenticate(frames, out, now)
        if self.phase is Phase.READY:
            self._receive_ready(frames, out, now)
        return out

    def _receive_ready(self, frames: list[bytes], out: Output, now: Now) -> None:
        """The hot path: nothing here changes the phase."""
        account = self.account
        assert account is not None
        peer_session = self.peer_session
        reply_session = self._reply_session
        read_at = now.mono_ms
        packets = out.packets
        ilp_fast = codec.ilp_fast
        for frame in frames:
            fast = ilp_fast(frame)
            if fast is None:
                self._take(frame, out, now)
                continue
            kind, request_id, packet = fast
            ilp_type = packet[0] if packet else 0
            if ilp_type == _PREPARE:
                packets.append(Inbound(account, peer_session, request_id, packet, read_at))
            elif ilp_type in _REPLIES:
                packets.append(Inbound(account, reply_session, request_id, packet, read_at))
            elif kind == MESSAGE:
                self._refuse_ilp(request_id, out, now)

    def _take_ilp(self, kind: int, request_id: int, entries: list[ProtocolData], out: Output, now: Now) -> None:
        """An `ilp` entry with company: as the loop in `receive`, and a reply may name its session."""
        assert self.account is not None
        packet = entries[0].data
        ilp_type = packet[0] if packet else 0
        if ilp_type == _PREPARE:
            out.packets.append(Inbound(self.account, self.peer_session, request_id, packet, now.mono_ms))
        elif ilp_type in _REPLIES:
            session = self._stated_session(entries)
            out.packets.append(Inbound(self.account, session, request_id, packet, now.mono_ms))
        elif kind == MESSAGE:
            self._refuse_ilp(request_id, out, now)

    def _refuse_ilp(self, request_id: int, out: Output, now: Now) -> None:
        # A request must be answered (BTP-9), and only a Prepare can be answered with an ILP Reject.
        out.frames.append(self._error(request_id, "F01", "the ilp entry holds no ILP packet", now))

    def _take(self, frame: bytes, out: Output, now: Now) -> None:
        """Any frame but the plain ILP ones, after authentication."""
        try:
            packet = codec.decode(frame)
        except CodecError as error:
            # No reply, lest two confused peers answer each other for ever (BTP-9). JS closes here; we don't.
            self._garbled += 1
            if self._garbled == 1:
                out.orders.append(Log("warning", "btp.unreadable", {"account": str(self.account), "why": str(error)}))
            return
        if isinstance(packet, BtpMessage):
            self._take_message(packet, out, now)
        elif isinstance(packet, BtpResponse):
            self._take_response(packet, out, now)
        elif isinstance(packet, BtpError):
            self._take_error(packet, out, now)
        elif self._carrier.takes(packet):
            self._carry(packet, out, now)
        else:
            # By itself a Transfer settles nothing: the peer's books stay as they are (BTP-12).
            out.frames.append(self._error(packet.request_id, "F00", "only claims are taken by transfers", now))

    def _carry(self, packet: BtpMessage | BtpTransfer, out: Output, now: Now) -> None:
        """A plugin's settlement: to our engine, as any peer's."""
        assert self.account is not None
        try:
            prepare = self._carrier.take(packet, now.wall_ms)
        except CodecError as error:
            out.frames.append(self._error(packet.request_id, "F01", str(error), now))
            return
        out.packets.append(Inbound(self.account, self.peer_session, packet.request_id, prepare, now.mono_ms))

    def _take_message(self, packet: BtpMessage, out: Output, now: Now) -> None:
        # Only the primary entry selects the action (BTP-11); `custom` of JS plugins is context, or refused.
        primary = packet.protocol_data[0] if packet.protocol_data else None
        if primary is None:
            out.frames.append(self._error(packet.request_id, "F00", "a message without protocol data", now))
        elif primary.name == codec.ILP_NAME:
            self._take_ilp(MESSAGE, packet.request_id, packet.protocol_data, out, now)
        elif primary.name in self._subprotocols:
            out.orders.append(Asked(packet.request_id, packet.protocol_data))
        elif self._carrier.takes(packet):
            self._carry(packet, out, now)
        elif primary.name == "auth":
            out.frames.append(self._error(packet.request_id, "F00", "already authenticated", now))
        else:
            out.frames.append(self._error(packet.request_id, "F00", "this sub-protocol is not spoken here", now))

    def _take_response(self, packet: BtpResponse, out: Output, now: Now) -> None:
        primary = packet.protocol_data[0] if packet.protocol_data else None
        if primary is not None and primary.name == codec.ILP_NAME:
            self._take_ilp(RESPONSE, packet.request_id, packet.protocol_data, out, now)
        elif packet.request_id in self._asked:
            del self._asked[packet.request_id]
            out.orders.append(Answered(packet.request_id, packet.protocol_data))
        else:
            self._take_carried(packet, out, now)
        # Else it was unexpected, or its answer of no use to us: no reply (BTP-9). If it was for a Prepare of ours,
        # the peer may still have taken it, so its leg waits for the expiry (BTP-18).

    def _take_carried(self, packet: BtpResponse | BtpError, out: Output, now: Now) -> bool:
        """A plugin's answer to our engine, if it is one."""
        assert self.account is not None
        reply = self._carrier.answered(packet)
        if reply is None:
            return False
        out.packets.append(Inbound(self.account, self._reply_session, packet.request_id, reply, now.mono_ms))
        return True

    def _take_error(self, packet: BtpError, out: Output, now: Now) -> None:
        if packet.request_id in self._asked:
            del self._asked[packet.request_id]
            out.orders.append(Answered(packet.request_id, packet))
            return
        if self._take_carried(packet, out, now):
            return
        # The peer did not take the Prepare (BTP-18). A BTP error is never relayed as an ILP Reject (BTP-10, P-13):
        # its F is final for this request, not for the payment, so upstream hears a temporary code.
        assert self.account is not None
        code = "T01" if packet.code.startswith("T") else "T00"
        words = f"the next hop answered with BTP error {packet.code} {packet.name}"[:200]
        out.failures.append(Undelivered(self.account, packet.request_id, code, words))

    def _stated_session(self, entries: list[ProtocolData]) -> bytes:
        """The session that a reply names. isthmus peers name it when it isn't the one of this connection."""
        if self.is_isthmus:
            session = _entry(entries, SESSION_ENTRY)
            if session is not None and len(session) == SESSION_BYTES:
                return session
        return self._reply_session

    # --- authentication -----------------------------------------------------------------------------------------

    def _authenticate(self, frames: list[bytes], out: Output, now: Now) -> list[bytes]:
        """Take frames until it is decided; gives those behind that."""
        for index, frame in enumerate(frames):
            if self.is_client:
                self._await_admission(frame, out)
            elif self._held is None:  # else it has had its one try
                self._admit(frame, out, now)
            if self.phase is not Phase.AUTHENTICATING:
                return frames[index + 1 :]
        return []

    def _admit(self, frame: bytes, out: Output, now: Now) -> None:
        """The server's side: one auth Message and nothing else may come first (BTP-6)."""
        assert self._door is not None
        head = codec.read_head(frame)
        request_id = head[1] if head is not None else 0
        try:
            packet: BtpPacket = codec.decode(frame)
        except CodecError as error:
            self._refuse_entry(request_id, "F01", f"unreadable: {error}", out, now)
            return
        entries = packet.protocol_data if isinstance(packet, BtpMessage) else []
        if not entries or entries[0].name != "auth":
            self._refuse_entry(request_id, "F00", "authenticate first", out, now)
            return
        if entries[0].content_type != OCTET_STREAM or entries[0].data:
            self._refuse_entry(request_id, "F01", "the auth entry is empty and of type 0", out, now)
            return
        # Any content type: only dassie insists on text.
        token = _entry(entries, "auth_token")
        if token is None:
            self._refuse_entry(request_id, "F00", "auth_token is missing", out, now)
            return
        username = (_entry(entries, "auth_username") or b"").decode("utf-8", "replace")
        admission = self._door.admit(username, token)
        if admission is None:
            self._refuse_entry(request_id, "F00", "wrong credentials", out, now)
            return
        if isinstance(admission, Refusal):
            self._held = (now.mono_ms + admission.hold_ms, request_id)
            return
        self.account = admission.account
        self._own_session = admission.own_session
        answer = []
        if self._adopt(entries):
            answer.append(ProtocolData(SESSION_ENTRY, OCTET_STREAM, self._own_session))
        out.frames.append(codec.encode(BtpResponse(request_id, answer)))
        self._become_ready(out)

    def _await_admission(self, frame: bytes, out: Output) -> None:
        """The client's side. Whatever is not the answer to our auth is not expected yet, and gets none (BTP-9)."""
        assert self.account is not None
        head = codec.read_head(frame)
        if head is None or head[1] != AUTH_REQUEST_ID:
            return
        try:
            packet = codec.decode(frame)
        except CodecError as error:
            self._end(1002, f"the server's answer to auth is unreadable: {error}", out)
            return
        if isinstance(packet, BtpResponse):
            self._adopt(packet.protocol_data)
            self._become_ready(out)
        elif isinstance(packet, BtpError):
            refused = not packet.code.startswith("T")
            detail = packet.data.decode("utf-8", "replace")[:200]  # P-14
            words = f"the server refused our credentials: {packet.code} {packet.name} {detail}".rstrip()
            self._end(1000, words, out, refused=refused)

    def _adopt(self, entries: list[ProtocolData]) -> bool:
        """Take the peer's session id if it announced one; False for other implementations."""
        session = _entry(entries, SESSION_ENTRY)
        if session is None or len(session) != SESSION_BYTES:
            return False
        self.is_isthmus = True
        self.peer_session = session
        self._reply_session = self._own_session
        return True

    def _become_ready(self, out: Output) -> None:
        assert self.account is not None
        self._credentials = None
        self.phase = Phase.READY
        out.orders.append(Ready(self.account, self.is_isthmus))

    def _refuse_entry(self, request_id: int, code: str, why: str, out: Output, now: Now) -> None:
        out.frames.append(self._error(request_id, code, why, now))
        self._end(1008, why, out)

    # --- frames out ---------------------------------------------------------------------------------------------

    def encode(self, frames: list[Outbound]) -> list[bytes]:
        """The BTP frames of these packets: Prepares in Messages, replies in Responses (BTP-10)."""
        assert self.phase is Phase.READY
        encoded: list[bytes] = []
        for frame in frames:
            if frame.packet[0] == _PREPARE:
                carried = None
                if not self.is_isthmus and is_to_settle(frame.packet):
                    carried = self._carrier.ask(frame.request_id, frame.packet)
                encoded.append(carried or codec.encode_ilp(MESSAGE, frame.request_id, frame.packet))
            elif self._carrier.owes_answers and (answer := self._carrier.answer(frame.request_id, frame.packet)):
                encoded.append(answer)
            elif self.is_isthmus and frame.session != self.peer_session:
                encoded.append(self._answer_to_old_session(frame))
            else:
                encoded.append(codec.encode_ilp(RESPONSE, frame.request_id, frame.packet))
        return encoded

    def _answer_to_old_session(self, frame: Outbound) -> bytes:
        """The request came under an earlier session of the peer, whose ids may be in use again: name it."""
        entries = [
            ProtocolData(codec.ILP_NAME, OCTET_STREAM, frame.packet),
            ProtocolData(SESSION_ENTRY, OCTET_STREAM, frame.session),
        ]
        return codec.encode(BtpResponse(frame.request_id, entries))

    def ask(self, protocol_data: list[ProtocolData], now: Now) -> tuple[int, bytes] | None:
        """A request of a sub-protocol: its id and frame. None if too many are unanswered, or nobody is there."""
        if self.phase is not Phase.READY or len(self._asked) >= ASKED_MAX:
            return None
        request_id = self._last_asked
        while True:
            request_id = request_id + 1 if request_id < codec.REQUEST_ID_MAX else LINK_REQUEST_ID_MIN + 1
            if request_id not in self._asked:  # BTP-8
                break
        self._last_asked = request_id
        self._asked[request_id] = now.mono_ms + self._timing.ask_ms
        return request_id, codec.encode(BtpMessage(request_id, protocol_data))

    def answer(self, request_id: int, protocol_data: list[ProtocolData]) -> bytes:
        return codec.encode(BtpResponse(request_id, protocol_data))

    def refuse(self, request_id: int, code: str, why: str, now: Now) -> bytes:
        return self._error(request_id, code, why, now)

    def _error(self, request_id: int, code: str, why: str, now: Now) -> bytes:
        return codec.encode(BtpError(request_id, code, ERROR_NAMES[code], now.wall_ms, why.encode()[:200]))

    @property
    def awaits_pong(self) -> bool:
        """If so, the next thing that comes changes `wakes_at`; else it only puts it off."""
        return self._pinged_at is not None

    # --- time and back pressure ---------------------------------------------------------------------------------

    def blocked(self, now: Now) -> None:
        """Our send buffer is above its bound."""
        if self._blocked_at is None:
            self._blocked_at = now.mono_ms

    def writable(self) -> None:
        self._blocked_at = None

    def pause(self) -> None:
        """We stopped to read: silence proves nothing until `resume`."""
        self._reading = False
        self._pinged_at = None

    def resume(self, now: Now) -> None:
        self._reading = True
        self._heard_at = now.mono_ms

    def tick(self, now: Now) -> Output:
        """Do what is due."""
        out = Output()
        if self.phase is Phase.AUTHENTICATING:
            if self._held is not None:
                if now.mono_ms >= self._held[0]:
                    self._refuse_entry(self._held[1], "F00", "wrong credentials, too often from this address", out, now)
            elif now.mono_ms >= self._started_at + self._timing.auth_ms:
                self._auth_timed_out(out, now)
        elif self.phase is Phase.READY:
            self._tick_ready(out, now)
        return out

    def _auth_timed_out(self, out: Output, now: Now) -> None:
        if self.is_client:
            self._end(1002, "the server did not answer our auth in time", out)  # BTP-7
        else:
            self._refuse_entry(0, "F00", "no auth in time", out, now)  # BTP-6

    def _tick_ready(self, out: Output, now: Now) -> None:
        at = now.mono_ms
        if self._blocked_at is not None and at >= self._blocked_at + self._timing.stall_ms:
            self._end(1008, "the peer does not take our answers", out, at_once=True)
            return
        if self._pinged_at is not None and at >= self._pinged_at + self._timing.pong_ms:
            self._end(1002, "the peer is dead: no answer to a ping", out, at_once=True)
            return
        if self._reading and self._pinged_at is None and at >= self._heard_at + self._timing.ping_after_ms:
            self._pinged_at = at
            out.orders.append(Ping())
        for request_id, deadline in list(self._asked.items()):
            if at >= deadline:
                del self._asked[request_id]
                out.orders.append(Answered(request_id, None))

    def wakes_at(self) -> int | None:
        """When the shell owes us a tick, in mono ms; None once ended."""
        if self.phase is Phase.AUTHENTICATING:
            return self._started_at + self._timing.auth_ms if self._held is None else self._held[0]
        if self.phase is Phase.ENDED:
            return None
        due = list(self._asked.values())
        if self._blocked_at is not None:
            due.append(self._blocked_at + self._timing.stall_ms)
        if self._pinged_at is not None:
            due.append(self._pinged_at + self._timing.pong_ms)
        elif self._reading:
            due.append(self._heard_at + self._timing.ping_after_ms)
        return min(due) if due else None

    def end(self) -> Output:
        """The connection is gone, or the shell closes it. Requests of ours that wait get their answer: none."""
        out = Output()
        self.phase = Phase.ENDED
        for request_id in self._asked:
            out.orders.append(Answered(request_id, None))
        self._asked.clear()
        return out

    def _end(self, code: int, why: str, out: Output, *, refused: bool = False, at_once: bool = False) -> None:
        self._credentials = None
        out.orders += self.end().orders
        out.orders.append(Close(code, why, refused, at_once))


def _entry(entries: list[ProtocolData], name: str) -> bytes | None:
    for entry in entries:
        if entry.name == name:
            return entry.data
    return None
