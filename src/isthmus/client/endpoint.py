"""The asyncio shell of STREAM in a wallet: all its connections behind one in-process account of the kernel.

Packets come from the kernel in batches and leave in batches: each connection is polled once for all that a batch
brought, and all that they want sent goes to the link in one call. The endpoint owns timers, the routing of replies
by request id, and the rule that the application hears of money only once its credit is durable.
"""

import asyncio
import os
from base64 import urlsafe_b64encode
from collections.abc import Callable
from typing import Final, Protocol, final

from isthmus.client import ledger
from isthmus.client.tables import LOCAL
from isthmus.connector.events import Inbound, Now, Outbound
from isthmus.errors import CodecError
from isthmus.ilp.address import append_segments
from isthmus.ilp.asset import Asset
from isthmus.ilp.packet import (
    FULFILL,
    PREPARE,
    Fulfill,
    Prepare,
    Reject,
    decode_prepare,
    decode_reply,
    encode_fulfill,
    encode_prepare,
    encode_reject,
    fulfillment_of,
)
from isthmus.links.inprocess import LocalLink
from isthmus.links.port import LinkOwner, Scheduler, Timer
from isthmus.runtime import clock
from isthmus.stream.connection import Connection as Machine
from isthmus.stream.crypto import token_of
from isthmus.stream.orders import Credit, Order, SendFulfill, SendPrepare, SendReject
from isthmus.stream.server import ConnectionAccepted, ConnectionDropped, Recollection, Server
from isthmus.stream.settings import Settings
from isthmus.stream.tokens import Invitation

TOKEN_BYTES: Final = 12  # of an outgoing connection's own address; its secret does the protecting
# A Fulfill that the kernel has not posted so long after its deadline never will be.
UNDO_AFTER_MS: Final = 1_000
NUMBERS_MAX: Final = 1_024  # dropped connections whose next packet number is remembered
_TIMER_GRAIN_MS: Final = 2


class Party(Protocol):
    """Who has a connection: hears its news, in order."""

    @property
    def machine(self) -> Machine: ...

    def told(self, order: Order) -> None: ...

    def polled(self) -> None:
        """Packets or time may have changed something: comes once after the news of a turn."""

    def credited(self, credit: Credit) -> None:
        """Money came in, and is durable."""

    def dropped(self) -> None:
        """The endpoint forgot the connection: it was idle for long, or closed."""


class Host(Protocol):
    """Who takes connections that others open."""

    def accepted(self, machine: Machine, tag: bytes) -> Party: ...


class _Pending:
    """A credit whose Fulfill is with the kernel."""

    __slots__ = ("credit", "deadline", "party")

    def __init__(self, party: Party, credit: Credit, deadline: int) -> None:
        self.party: Final = party
        self.credit: Final = credit
        self.deadline: Final = deadline


@final
class Endpoint:
    """All STREAM connections of one wallet. Its link is the kernel's account `local`."""

    def __init__(
        self,
        owner: LinkOwner,
        *,
        session: bytes,
        server_secret: bytes,
        address: str,
        asset: Asset,
        timeout_ms: int,
        recall: Callable[[bytes], ledger.Receipts | None],
        on_old_reply: Callable[[Outbound], None],
        now: Callable[[], Now] = clock.system_now,
        random_bytes: Callable[[int], bytes] = os.urandom,
        scheduler: Scheduler | None = None,
    ) -> None:
        """`recall` tells what is known of a connection that comes again (durable wallets).

        `on_old_reply` gets replies to the Prepares of an earlier process. Without a `scheduler`: the running loop.
        """
        self.address: str = address
        self.asset: Final = asset
        self.link: Final = LocalLink(LOCAL, owner, self._packets, session=session)
        self._server_secret: Final = server_secret
        self._timeout_ms: Final = timeout_ms
        self._recall: Final = recall
        self._on_old_reply: Final = on_old_reply
        self._now: Final = now
        self._random_bytes: Final = random_bytes
        self._loop: Final[Scheduler] = asyncio.get_running_loop() if scheduler is None else scheduler
        self._host: Host | None = None
        self._server: Server | None = None
        self._server_settings: Settings | None = None
        # Connections that we opened, by machine and by the last segment of their address.
        self._clients: Final[dict[Machine, Party]] = {}
        self._tokens: Final[dict[str, Machine]] = {}
        self._wakes: Final[dict[Machine, int]] = {}
        self._guests: Final[dict[Machine, Party]] = {}  # connections that others opened
        self._numbers: Final[dict[bytes, int]] = {}  # connection id -> next packet number of one that was dropped
        self._touched: dict[Machine, Party] = {}
        self._visited: dict[Machine, None] = {}  # guests that had packets in this turn
        # Our Prepares without a reply; Prepares of others without our answer.
        self._sent: Final[dict[int, tuple[Machine, Party, int]]] = {}
        self._probes: Final[dict[int, Callable[[Fulfill | Reject], None]]] = {}
        self._asked: Final[dict[int, tuple[Outbound, int]]] = {}
        self._last_request = 0
        # Credits on their way: not posted yet, and posted by the kernel but not durable yet (in order).
        self._pending: Final[dict[tuple[bytes, int], _Pending]] = {}
        self._posted: list[tuple[int, _Pending]] = []
        self._turn_due = False
        self._timer: Timer | None = None
        self._timer_at: int | None = None
        self._closed = False

    # --- connections --------------------------------------------------------------------------------------------

    def open(
        self,
        address: str,
        secret: bytes,
        make: Callable[[Machine], Party],
        *,
        first_sequence: int = 1,
        packet_amount_max: int | None = None,
    ) -> Party:
        """Open a connection to a server's address. Nothing is sent before something is wanted."""
        token = urlsafe_b64encode(self._random_bytes(TOKEN_BYTES)).decode("ascii")
        settings = Settings(
            connection_id=self._random_bytes(16),
            address=append_segments(self.address, token),
            asset=self.asset,
            first_sequence=first_sequence,
            timeout_ms=self._timeout_ms,
        )
        machine = Machine(settings, secret, random_bytes=self._random_bytes, peer_address=address)
        party = make(machine)
        self._clients[machine] = party
        self._tokens[token] = machine
        return party

    def forget(self, machine: Machine) -> None:
        """A connection of ours is over."""
        if self._clients.pop(machine, None) is not None:
            self._tokens.pop(machine.settings.address.rpartition(".")[2], None)
            self._wakes.pop(machine, None)
            self._touched.pop(machine, None)

    def listen(self, host: Host, *, receive_max: int | None = None, ask: bool = False) -> None:
        """Let others open connections; `host` gets them."""
        assert self._server is None
        self._host = host
        self._server_settings = Settings(
            is_server=True,
            address=self.address,
            asset=self.asset,
            receive_max=receive_max,
            ask=ask,
            timeout_ms=self._timeout_ms,
        )
        self._start_server()

    def stop_listening(self) -> None:
        self._server = None
        self._host = None
        for party in list(self._guests.values()):
            party.dropped()
        self._guests.clear()

    @property
    def is_listening(self) -> bool:
        return self._server is not None

    def move(self, address: str) -> None:
        """The parent gave us another address.

        Addresses given out before lead nowhere now; connections that we opened go on, but can't be sent money.
        """
        if address == self.address:
            return
        self.address = address
        self._tokens.clear()
        if self._server is not None and self._server_settings is not None:
            for party in list(self._guests.values()):
                party.dropped()
            self._guests.clear()
            self._start_server()

    def invite(self, *, tag: bytes = b"", receipt_nonce: bytes = b"", receipt_secret: bytes = b"") -> Invitation:
        """A fresh address and secret for one client."""
        assert self._server is not None
        return self._server.invite(tag=tag, receipt_nonce=receipt_nonce, receipt_secret=receipt_secret)

    def touch(self, party: Party) -> None:
        """Methods of the party's machine were called: poll it soon."""
        self._mark(party)
        self._turn_soon()

    def close(self) -> None:
        """Nothing goes in or out any more; whoever waits for a connection is told that it is over."""
        self._closed = True
        for party in [*self._clients.values(), *self._guests.values()]:
            party.dropped()
        for answer in self._probes.values():
            answer(Reject("T01", "", "the wallet was closed"))
        self._probes.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # --- packets ------------------------------------------------------------------------------------------------

    def probe(
        self,
        address: str,
        amount: int,
        data: bytes,
        answer: Callable[[Fulfill | Reject], None],
        *,
        timeout_ms: int | None = None,
    ) -> None:
        """Send one Prepare that nobody can fulfil; `answer` gets the reply."""
        lives_ms = self._timeout_ms if timeout_ms is None else min(timeout_ms, self._timeout_ms)
        prepare = Prepare(amount, self._now().wall_ms + lives_ms, self._random_bytes(32), address, data)
        inbound = self.link.prepare(encode_prepare(prepare))
        self._probes[inbound.request_id] = answer
        self.link.send([inbound])

    def _packets(self, frames: list[Outbound]) -> None:
        """What the kernel sends us: one batch."""
        if self._closed:
            return
        now = self._now()
        for frame in frames:
            if frame.packet[0] == PREPARE:
                self._prepare(frame, now)
            elif frame.session == self.link.session:
                self._reply(frame, now)
            else:
                self._on_old_reply(frame)
        self._turn(now)

    def _reply(self, frame: Outbound, now: Now) -> None:
        packet = frame.packet
        try:
            reply = decode_reply(packet)
        except CodecError:
            # The kernel has checked the fulfillment and moved the money; only what comes with it is damaged.
            reply = Fulfill(fulfillment_of(packet)) if packet[0] == FULFILL else Reject("F01", "", "damaged")
        found = self._sent.pop(frame.request_id, None)
        if found is not None:
            machine, party, number = found
            machine.reply_received(number, reply, now.mono_ms)
            self._mark(party)
            return
        answer = self._probes.pop(frame.request_id, None)
        if answer is not None:
            answer(reply)

    def _prepare(self, frame: Outbound, now: Now) -> None:
        self._last_request += 1
        request = self._last_request
        try:
            prepare = decode_prepare(frame.packet)
        except CodecError as problem:
            reject = encode_reject(Reject("F01", self.address, str(problem)))
            self.link.send([self.link.reply(frame, reject)])
            return
        deadline = now.mono_ms + prepare.expires_at - now.wall_ms
        self._asked[request] = (frame, deadline)
        machine = self._tokens.get(token_of(self.address, prepare.destination) or "") if self._tokens else None
        if machine is not None:
            machine.prepare_received(request, prepare, now.mono_ms, deadline)
            self._touched[machine] = self._clients[machine]
        elif self._server is not None:
            guest = self._server.prepare_received(request, prepare, now.mono_ms, deadline)
            if guest is not None:
                self._visited[guest] = None
        else:
            del self._asked[request]
            reject = encode_reject(Reject("F06", self.address, ""))
            self.link.send([self.link.reply(frame, reject)])

    # --- turns --------------------------------------------------------------------------------------------------

    def _mark(self, party: Party) -> None:
        machine = party.machine
        if machine in self._clients:
            self._touched[machine] = party
        elif self._server is not None:
            self._server.touch(machine)
            self._visited[machine] = None

    def _turn_soon(self) -> None:
        if not self._turn_due and not self._closed:
            self._turn_due = True
            self._loop.call_soon(self._later_turn)

    def _later_turn(self) -> None:
        self._turn_due = False
        if not self._closed:
            self._turn(self._now())

    def _turn(self, now: Now) -> None:
        """Poll what was touched or is due; hand everything to the link in one call."""
        mono_ms = now.mono_ms
        if self._pending:
            self._undo_late(mono_ms)
        out: list[Inbound] = []
        touched = self._touched
        self._touched = {}
        for machine, at in self._wakes.items():
            if at <= mono_ms and machine not in touched:
                touched[machine] = self._clients[machine]
        for machine, party in touched.items():
            for order in machine.poll(mono_ms):
                self._carry_out(machine, party, order, now, out)
            wakes_at = machine.wakes_at(mono_ms)
            if wakes_at is None or machine not in self._clients:
                self._wakes.pop(machine, None)
            else:
                self._wakes[machine] = wakes_at
            party.polled()
        if self._server is not None:
            self._poll_server(self._server, now, out)
        if out:
            self.link.send(out)
        self._set_timer(mono_ms)

    def _poll_server(self, server: Server, now: Now, out: list[Inbound]) -> None:
        for guest, order in server.poll(now.mono_ms):
            if isinstance(order, ConnectionAccepted):
                self._accept(order)
            elif isinstance(order, ConnectionDropped):
                self._drop(order.connection)
            elif guest is not None:
                self._carry_out(guest, self._guests[guest], order, now, out)
            elif isinstance(order, SendReject):
                self._reject(order, out)
        visited = self._visited
        self._visited = {}
        for guest in visited:
            party = self._guests.get(guest)
            if party is not None:
                party.polled()

    def _carry_out(self, machine: Machine, party: Party, order: Order, now: Now, out: list[Inbound]) -> None:
        if isinstance(order, SendPrepare):
            inbound = self.link.prepare(encode_prepare(order.prepare(now.wall_ms)))
            self._sent[inbound.request_id] = (machine, party, order.number)
            out.append(inbound)
        elif isinstance(order, SendFulfill):
            frame, deadline = self._asked.pop(order.request)
            credit = order.credit
            note = b""
            if credit is not None:
                note = ledger.credit(
                    credit.connection_id,
                    at=now.wall_ms,
                    sequence=credit.sequence,
                    amount=credit.amount,
                    totals=[(money.stream_id, money.total) for money in credit.money],
                )
                self._pending[credit.connection_id, credit.sequence] = _Pending(party, credit, deadline)
            out.append(self.link.reply(frame, encode_fulfill(order.fulfill), note))
        elif isinstance(order, SendReject):
            self._reject(order, out)
        else:
            party.told(order)

    def _reject(self, order: SendReject, out: list[Inbound]) -> None:
        frame, _ = self._asked.pop(order.request)
        out.append(self.link.reply(frame, encode_reject(order.reject)))

    def _set_timer(self, mono_ms: int) -> None:
        at = min(self._wakes.values(), default=None)
        if self._server is not None:
            server_at = self._server.wakes_at()
            if server_at is not None and (at is None or server_at < at):
                at = server_at
        for pending in self._pending.values():
            undo_at = pending.deadline + UNDO_AFTER_MS
            if at is None or undo_at < at:
                at = undo_at
            break
        if at == self._timer_at:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._timer_at = at
        if at is not None and not self._closed:
            self._timer = self._loop.call_later(max(_TIMER_GRAIN_MS, at - mono_ms) / 1000, self._timer_fired)

    def _timer_fired(self) -> None:
        self._timer = None
        self._timer_at = None
        self._turn(self._now())

    # --- money that came in -------------------------------------------------------------------------------------

    def credit_posted(self, connection_id: bytes, sequence: int, batch: int) -> None:
        """The kernel posted a Fulfill with its credit, in this batch of the journal."""
        pending = self._pending.pop((connection_id, sequence), None)
        if pending is not None:
            self._posted.append((batch, pending))

    def durable(self, batch: int) -> None:
        """All batches up to this one will survive: tell the application what it got by them."""
        posted = self._posted
        if not posted or posted[0][0] > batch:
            return
        told = 0
        for at, pending in posted:
            if at > batch:
                break
            told += 1
            pending.party.credited(pending.credit)
        self._posted = posted[told:]

    def _undo_late(self, mono_ms: int) -> None:
        """Fulfills that the kernel didn't take because they came too late: the money isn't ours."""
        late: list[tuple[bytes, int]] = []
        for key, pending in self._pending.items():
            if pending.deadline + UNDO_AFTER_MS > mono_ms:
                break  # nearly in the order of deadlines
            late.append(key)
        for key in late:
            pending = self._pending.pop(key)
            pending.party.machine.undo(pending.credit)
            self._mark(pending.party)

    # --- connections of others ----------------------------------------------------------------------------------

    def _start_server(self) -> None:
        settings = self._server_settings
        assert settings is not None
        if settings.address != self.address:
            settings = Settings(
                is_server=True,
                address=self.address,
                asset=self.asset,
                receive_max=settings.receive_max,
                ask=settings.ask,
                timeout_ms=settings.timeout_ms,
            )
            self._server_settings = settings
        self._server = Server(self._server_secret, settings, random_bytes=self._random_bytes, recall=self._recollection)

    def _recollection(self, connection_id: bytes) -> Recollection | None:
        receipts = self._recall(connection_id)
        number = self._numbers.pop(connection_id, 1)
        if receipts is None:
            return None if number == 1 else Recollection(first_sequence=number)
        return Recollection(
            totals=list(receipts.streams.items()),
            seen=[(sequence, b"", 0) for sequence in sorted(receipts.sequences)],
            sequence_floor=receipts.sequence_floor,
            first_sequence=number,
        )

    def _accept(self, order: ConnectionAccepted) -> None:
        assert self._host is not None
        self._guests[order.connection] = self._host.accepted(order.connection, order.tag)

    def _drop(self, machine: Machine) -> None:
        party = self._guests.pop(machine)
        if machine.next_number > 1:
            self._numbers[machine.settings.connection_id] = machine.next_number
            if len(self._numbers) > NUMBERS_MAX:
                del self._numbers[next(iter(self._numbers))]
        party.dropped()
