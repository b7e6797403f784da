"""One STREAM connection, full duplex, without I/O: a client's or a server's end (RFC 0029).

Facts go in (`prepare_received`, `reply_received`, the application's calls), `poll` gives the orders, and `wakes_at`
says when to poll again if nothing happens. `now` is monotonic milliseconds everywhere; the shell adds a packet's
`timeout_ms` to its wall clock for the expiry. Nothing leaves except through the orders of `poll`, so a shell handles
a whole batch of packets and then polls once.

What a shell with a journal must do: make `SendFulfill.credit` durable before the Fulfill leaves and tell the
application after that; call `undo` if the Fulfill was dropped because it came too late; and, if it calls `grant`
before the first packet, make each `GrantWanted` durable before it calls `grant` again.
"""

from collections.abc import Callable, Iterable
from fractions import Fraction
from typing import Final, final

from isthmus.ilp.asset import Asset
from isthmus.ilp.packet import Fulfill, Prepare, Reject
from isthmus.stream.orders import Credit, Failure, Order, Totals
from isthmus.stream.packet import NO_ERROR, ConnectionClose, ConnectionMaxData, StreamMaxData, StreamMoneyBlocked
from isthmus.stream.receiver import Receiver
from isthmus.stream.sender import Sender
from isthmus.stream.session import Session
from isthmus.stream.settings import SEND_BYTES_MAX, Settings
from isthmus.stream.substream import Stream


@final
class Connection:
    """Both halves of one end."""

    def __init__(
        self,
        settings: Settings,
        shared_secret: bytes,
        *,
        random_bytes: Callable[[int], bytes],
        peer_address: str = "",
    ) -> None:
        """`peer_address` is the server's for a client; a server learns the client's, if it has one."""
        self.settings: Final = settings
        self._session: Final = Session(settings, shared_secret, peer_address, random_bytes)
        self._receiver: Final = Receiver(self._session)
        self._sender: Final = Sender(self._session)
        self.active_at = 0  # when the peer was last heard

    # --- packets -------------------------------------------------------------------------------------------------

    def prepare_received(self, request: int, prepare: Prepare, now: int, deadline: int) -> bool:
        """A Prepare for us. `deadline` is when its money can no longer be taken. False if it isn't from the peer.

        It is answered by `SendFulfill` or `SendReject` with the same `request`, at once unless it is held.
        """
        ours = self._receiver.prepare_received(request, prepare, deadline)
        if ours:
            self.active_at = now
        return ours

    def reply_received(self, number: int, reply: Fulfill | Reject, now: int) -> bool:
        """The outcome of one of our Prepares. False if there is none with this number, or it is known already."""
        self.active_at = now
        return self._sender.outcomes.reply_received(number, reply, now)

    def poll(self, now: int) -> list[Order]:
        """All that is to be done now, in order."""
        self._receiver.expire(now)
        self._sender.poll(now)
        orders = self._session.orders
        self._session.orders = []
        return orders

    def wakes_at(self, now: int) -> int | None:
        """When to poll again if nothing happens before; None if there is nothing to wait for."""
        times = (self._receiver.wakes_at(), self._sender.wakes_at(now))
        return min((time for time in times if time is not None), default=None)

    # --- streams -------------------------------------------------------------------------------------------------

    def open_stream(self) -> int | None:
        """Open a stream; None at the peer's limit: wait for `StreamsAllowed`."""
        stream = self._session.open_stream()
        return None if stream is None else stream.id

    def resume_stream(
        self, stream_id: int, *, sent: int = 0, delivered: int = 0, delivered_max: int = 0, unknown: int = 0
    ) -> None:
        """Open one of our streams again after a crash, with what is known of it. `unknown` counts as sent."""
        delivered_max = max(delivered, delivered_max)
        stream = self._session.streams.get(stream_id) or self._session.add_stream(stream_id, ours=True)
        stream.sent = sent
        stream.delivered = delivered
        stream.delivered_max = stream.certain = delivered_max
        stream.unknown = unknown
        stream.send_max = max(stream.send_max, stream.committed)
        totals = self._sender.traffic.totals
        totals.sent += sent
        totals.delivered += delivered
        totals.delivered_max += delivered_max
        totals.unknown += unknown

    def stream_ids(self) -> list[int]:
        return list(self._session.streams)

    def has_stream(self, stream_id: int) -> bool:
        return stream_id in self._session.streams

    def end_stream(self, stream_id: int) -> None:
        """Send what is queued, then tell the peer that no more comes. It may still send to us (half-closed)."""
        self._end(stream_id, half_open=True)

    def close_stream(self, stream_id: int, code: int = NO_ERROR, message: str = "") -> None:
        """Close both ways: after what is queued, or at once and for good with another code than NoError."""
        stream = self._end(stream_id, half_open=False)
        if stream is not None and code != NO_ERROR:
            stream.close_code = code
            stream.close_message = message
            stream.bytes_out.drop()
            stream.stopped = True

    def _end(self, stream_id: int, *, half_open: bool) -> Stream | None:
        stream = self._session.streams.get(stream_id)
        if stream is not None:
            stream.ending = True
            stream.half_open = half_open
            self._session.ending = True
        return stream

    # --- money out -----------------------------------------------------------------------------------------------

    def set_minimum_rate(self, rate: Fraction) -> None:
        """The least destination units per source unit, from outside the path. Without one, no money is sent."""
        self._sender.traffic.outgoing.set_minimum(rate)

    def start_quote(self, *, source: int = 0, destination: int = 0) -> None:
        """Probe the path; ends in `QuoteReady` or `QuoteFailed`. No money can move by it."""
        self._sender.traffic.failure = None
        self._sender.investigate(
            self._sender.traffic.outgoing.probe(for_quote=True, source=source, destination=destination)
        )

    def send_total(self, stream_id: int, total: int) -> None:
        """Send source units until `total` have been sent on the stream in all. Ends in `SendDone` or `SendFailed`."""
        stream = self._session.streams[stream_id]
        stream.delivery = None
        self._want(stream, total)

    def deliver_total(self, stream_id: int, total: int, *, source_max: int) -> None:
        """Send until at least `total` destination units have arrived, and no more than one more source unit buys.

        No more than `source_max` leaves, whatever happens.
        """
        stream = self._session.streams[stream_id]
        stream.delivery = total
        self._want(stream, source_max)

    def _want(self, stream: Stream, send_max: int) -> None:
        stream.send_max = max(send_max, stream.committed)
        stream.done_told = stream.stopped = stream.ending or stream.close_queued
        stream.final_tries = 0

    def stop_sending(self, stream_id: int) -> None:
        """Send no more money on the stream; what is in flight has its outcome, then `SendDone` comes."""
        self._session.streams[stream_id].stopped = True

    def grant(self, total: int, sequence_ceiling: int) -> None:
        """From the first call on, money leaves only up to `total` in all, in packets numbered below the ceiling."""
        self._sender.traffic.outgoing.set_grant(total, sequence_ceiling)

    def ask_total(self, stream_id: int) -> None:
        """Ask the peer what it received on the stream; answered by `PeerTotal`.

        After a failure this tries again, money that waits included: stop the stream if none shall leave any more.
        """
        stream = self._session.streams[stream_id]
        stream.asked = True
        self._session.queue(StreamMoneyBlocked(stream_id, stream.send_max, stream.committed))
        self._sender.try_again()

    def believe_total(self, stream_id: int, total: int) -> bool:
        """Count what the peer says that it received on the stream, where it isn't known from each packet's reply.

        False if that can't be: it is less than must have arrived, or packets have no outcome that may be in it or not.
        """
        stream = self._session.streams[stream_id]
        traffic = self._sender.traffic
        is_open = stream.packets_in_flight or any(one.stream is stream for one in traffic.unknown.values())
        if is_open or total < stream.delivered:
            return False
        traffic.totals.delivered += total - stream.delivered
        traffic.totals.delivered_max += total - stream.delivered_max
        stream.delivered = stream.delivered_max = stream.certain = total
        stream.vague = 0
        return True

    # --- money in ------------------------------------------------------------------------------------------------

    def set_receive_max(self, stream_id: int, total: int | None) -> None:
        """Take up to `total` on the stream in all; None for everything. It is only ever raised (STREAM-21)."""
        stream = self._session.streams[stream_id]
        if stream.receive_max is None or (total is not None and total <= stream.receive_max):
            if stream.tell_money and stream.received == 0 and total is not None and stream.receive_max is None:
                stream.receive_max = total  # not advertised yet
            return
        stream.receive_max = total
        stream.tell_money = True
        self._session.queue(stream.max_money())

    def accept(self, request: int) -> bool:
        """Take held money. False if it is gone."""
        return self._receiver.accept(request)

    def refuse(self, request: int) -> bool:
        """Send held money back."""
        return self._receiver.refuse(request)

    def undo(self, credit: Credit) -> None:
        """The Fulfill with this credit never left, because it came too late."""
        self._receiver.undo(credit)

    def restore(
        self,
        totals: Iterable[tuple[int, int]],
        seen: Iterable[tuple[int, bytes, int]] = (),
        sequence_floor: int = 0,
    ) -> None:
        """Continue receiving after a crash: what was credited.

        (stream id, total); answered (sequence, fingerprint or b"", amount); and the sequence up to which answers are
        no longer known.
        """
        self._receiver.restore(totals, seen, sequence_floor)

    # --- data ----------------------------------------------------------------------------------------------------

    def write(self, stream_id: int, data: bytes) -> int:
        """Queue bytes; gives how many were taken (bounded: write the rest when `unsent_bytes` falls)."""
        stream = self._session.streams.get(stream_id)
        if stream is None or stream.ending or self._session.closed:
            return 0
        taken = data[: max(0, SEND_BYTES_MAX - stream.bytes_out.waiting)]
        stream.bytes_out.write(taken)
        return len(taken)

    def unsent_bytes(self, stream_id: int) -> int:
        """Bytes that were written and did not leave yet."""
        stream = self._session.streams.get(stream_id)
        return 0 if stream is None else stream.bytes_out.waiting

    def all_acknowledged(self, stream_id: int) -> bool:
        """Whether the peer has all that was written."""
        stream = self._session.streams.get(stream_id)
        return stream is None or stream.bytes_out.finished

    def readable(self, stream_id: int) -> int:
        stream = self._session.streams.get(stream_id)
        return 0 if stream is None else stream.bytes_in.readable

    def read(self, stream_id: int, size_max: int = 2**31) -> bytes:
        """Take bytes that arrived; this lets the peer send more."""
        session = self._session
        stream = session.streams.get(stream_id)
        if stream is None:
            return b""
        octets = stream.bytes_in.take(size_max)
        session.bytes_read += len(octets)
        if stream.bytes_in.advance():
            stream.tell_data = True
            session.queue(StreamMaxData(stream_id, stream.bytes_in.advertised))
        window = self.settings.connection_bytes_max
        if session.bytes_read + window - session.bytes_advertised >= window // 2:
            session.bytes_advertised = session.bytes_read + window
            session.tell_bytes = True
            session.queue(ConnectionMaxData(session.bytes_advertised))
        return octets

    # --- what is known -------------------------------------------------------------------------------------------

    @property
    def totals(self) -> Totals:
        """What was sent on all streams. A live object: copy it to keep it."""
        totals = self._sender.traffic.totals
        totals.packets_in_flight = self._sender.packets_in_flight
        return totals

    @property
    def received(self) -> int:
        """What came in on all streams."""
        return self._receiver.total

    def stream_sent(self, stream_id: int) -> tuple[int, int, int]:
        """(sent, delivered, unknown) of a stream."""
        stream = self._session.streams[stream_id]
        return stream.sent, stream.delivered, stream.unknown

    def stream_delivered_max(self, stream_id: int) -> int:
        """What the peer has of a stream if everything arrived that it said nothing about."""
        return self._session.streams[stream_id].delivered_max

    def stream_received(self, stream_id: int) -> int:
        return self._session.streams[stream_id].received

    def receipt(self, stream_id: int) -> bytes:
        """The newest receipt for what we sent; empty without one."""
        return self._session.streams[stream_id].receipt

    @property
    def rate(self) -> Fraction:
        """The rate last seen, destination units per source unit; 0 while unknown."""
        return self._sender.traffic.outgoing.rate.fraction()

    @property
    def packet_max(self) -> int | None:
        """The path's maximum packet amount, as far as known."""
        return self._sender.traffic.outgoing.capacity.limit

    @property
    def window(self) -> int:
        """How many packets may be in flight now."""
        return self._sender.traffic.window.size

    @property
    def rtt_ms(self) -> int:
        return self._sender.traffic.window.rtt_ms

    @property
    def failure(self) -> Failure | None:
        """Why nothing is sent any more. Asking for something new tries again."""
        return self._sender.traffic.failure

    @property
    def peer_asset(self) -> Asset | None:
        return self._session.peer_asset

    @property
    def peer_address(self) -> str:
        return self._session.peer_address

    @property
    def next_number(self) -> int:
        """The sequence number of our next packet: what `first_sequence` of a later life must not be below."""
        return self._sender.next_number

    @property
    def closed(self) -> bool:
        return self._session.closed

    @property
    def idle(self) -> bool:
        """Nothing is in flight, held or wanted: the connection can be dropped and come again."""
        sender = self._sender
        return self._receiver.idle and not sender.packets_in_flight and not sender.traffic.wants()

    # --- the end -------------------------------------------------------------------------------------------------

    def close(self, code: int = NO_ERROR, message: str = "") -> None:
        """Send nothing new, wait for what is in flight, tell the peer; ends in `ConnectionClosed`."""
        if self._session.close_frame is None and self._sender.draining is None:
            self._sender.draining = ConnectionClose(code, message)
