"""The sending half of a connection: what to put into the next packet, and when.

Many packets are in flight, each of one kind: money for one stream, data of one stream, control frames, or a probe.
Kinds don't mix, so that a packet refused for its money never loses data on the way (ilp-protocol-stream takes the
data of packets that it rejects). `outgoing.py` chooses amounts, `outcomes.py` judges replies.
"""

from hashlib import sha256
from typing import Final, final

from isthmus.ilp.packet import PREPARE
from isthmus.stream.crypto import unfulfillable_condition
from isthmus.stream.flight import Flight, Kind
from isthmus.stream.orders import Failure, SendPrepare
from isthmus.stream.outcomes import Outcomes
from isthmus.stream.outgoing import Parcel
from isthmus.stream.packet import (
    INTERNAL_ERROR,
    ConnectionClose,
    ConnectionDataBlocked,
    Frame,
    StreamClose,
    StreamData,
    StreamDataBlocked,
    StreamMoneyBlocked,
    StreamPacket,
    encode_packet,
)
from isthmus.stream.probing import Prober
from isthmus.stream.session import Session
from isthmus.stream.settings import CHUNK_BYTES_MAX, CONTROL_BYTES_MAX, FRAMES_PER_PACKET_MAX, GRACE_MS
from isthmus.stream.substream import Stream
from isthmus.stream.traffic import Traffic
from isthmus.stream.wire import PREPARE_HEAD, money_tail, var_uint

POLL_MS_MIN: Final = 200  # a blocked sender asks again, ever more slowly
POLL_MS_MAX: Final = 10_000

# A packet without an answer for so long, and so many usual round trips, was most likely lost with a node on the way.
# That is certain at its expiry only, and its money stays committed until then; but others may go in its place.
QUIET_MS_MIN: Final = 1_000
QUIET_ROUND_TRIPS: Final = 4
FLIGHT_WINDOWS_MAX: Final = 2  # full windows in flight, silent packets included


@final
class Sender:
    """Sends Prepares."""

    def __init__(self, session: Session) -> None:
        self.traffic: Final = Traffic(session)
        self.outcomes: Final = Outcomes(self.traffic)
        self._session: Final = session
        self._window: Final = self.traffic.window
        self._outgoing: Final = self.traffic.outgoing
        self._totals: Final = self.traffic.totals
        self._flights: Final = self.traffic.flights
        self.draining: ConnectionClose | None = None  # to be said when nothing is in flight
        self._turn = 0
        self._data_turn = 0
        self._wanting = False
        self._poll_at = 0
        self._quiet_at: int | None = None  # when the oldest packet that isn't yet silent for too long will be
        # The last money packet's tail: most packets of a payment are alike.
        self._tail = b""
        self._tail_key = (-1, -1, -1)

    # --- state ---------------------------------------------------------------------------------------------------

    @property
    def next_number(self) -> int:
        return self.traffic.next_number

    @property
    def packets_in_flight(self) -> int:
        return len(self._flights)

    def wakes_at(self, now: int) -> int | None:
        """When to poll again if nothing happens."""
        times: list[int] = []
        for flight in self._flights.values():
            times.append(flight.deadline)
            break
        if self._wanting and self.traffic.failure is None:
            times.append(self.traffic.progress_at + self._patience())
            if self._window.paused_until > now:
                times.append(self._window.paused_until)
            if self._quiet_at is not None and self._quiet_at > now:
                times.append(self._quiet_at)
            # Otherwise the question is on its way, or waits for the end of a pause: nothing to do then.
            if self.traffic.poll_ms and not self._flights and not self._session.control:
                times.append(self._poll_at)
        elif self._session.control and self._window.paused_until > now:
            times.append(self._window.paused_until)
        return min(times, default=None)

    def try_again(self) -> None:
        """Something new is wanted: an earlier failure that was told is over, and patience begins anew."""
        if self.traffic.failed_told:
            self.traffic.failure = None
        self._wanting = False

    # --- the loop ------------------------------------------------------------------------------------------------

    def poll(self, now: int) -> None:
        """Send what may be sent now, and notice what time has brought."""
        self.outcomes.expire(now)
        if not self._is_closing():
            self._work(now)
        if self._is_closing():
            self._wanting = False  # or its time, once past, would wake us without end
            self._closing(now)
        self._tell_failed()

    def _is_closing(self) -> bool:
        return self._session.close_frame is not None or self.draining is not None

    def _work(self, now: int) -> None:
        session = self._session
        self._settle_probes(now)
        self._watch(now)
        if session.ending:
            for stream in list(session.streams.values()):
                self._end_stream(stream)
        if self.traffic.failure is None and session.peer_address:
            flights = self._flights
            window = self._window
            senders = self._outgoing.senders()
            quiet = self._count_quiet(now)
            flights_max = FLIGHT_WINDOWS_MAX * session.settings.window_max
            while now >= window.paused_until and len(flights) < min(window.size + quiet, flights_max):
                if not self._send_next(now, senders):
                    break
        self._outgoing.tell_done()

    def _count_quiet(self, now: int) -> int:
        """How many packets are silent for far longer than a round trip. To the window they are congestion, once."""
        self._quiet_at = None
        if not self._window.rtt_ms:
            return 0  # nothing has come back yet
        after_ms = max(QUIET_MS_MIN, QUIET_ROUND_TRIPS * self._window.rtt_ms)
        quiet = newest = 0
        for flight in self._flights.values():
            if flight.sent_at + after_ms > now:
                self._quiet_at = flight.sent_at + after_ms
                break
            quiet += 1
            newest = flight.number
        if quiet:
            self._window.trouble(newest, self.traffic.next_number, now)
        return quiet

    def _send_next(self, now: int, senders: list[Stream]) -> bool:
        session = self._session
        if self.traffic.next_number >= session.settings.packets_max - 1:
            # The last number is for the ConnectionClose (STREAM-12).
            self.draining = ConnectionClose(INTERNAL_ERROR, "too many packets for one key")
            return False
        if not session.peer_validated:
            if self._flights or not (self._wanting or session.control):
                return False
            self._send_control(now)
            return True
        if self.traffic.prober is not None:
            amount = self.traffic.prober.next_amount()
            if amount:
                self._send_probe(amount, now)
                return True
            senders.clear()  # money waits for what the probes say
        if session.control:
            self._send_control(now)
            return True
        if self._send_data(now):
            return True
        while senders:
            self._turn += 1
            stream = senders[self._turn % len(senders)]
            parcel = self._outgoing.next_parcel(stream, self.traffic.next_number, self._window.size, now)
            if parcel is not None:
                self._send_money(parcel, now)
                return True
            senders.remove(stream)
        return False

    def _watch(self, now: int) -> None:
        """Start, poll and give up: what depends on how long we have wanted something."""
        wanting = self.traffic.wants()
        if wanting and not self._wanting:
            self.traffic.progress_at = now
            if self.traffic.failure is not None and self.traffic.failed_told:
                self.traffic.failure = None  # something new is wanted: try again
        self._wanting = wanting
        if not wanting or self.traffic.failure is not None:
            return
        if now - self.traffic.progress_at >= self._patience():
            self.traffic.fail(self._stalled())
            return
        failure = self._outgoing.needs()
        if failure is not None:
            self.traffic.fail(failure)
        elif self.traffic.prober is None and self._outgoing.needs_rate():
            self.investigate(self._outgoing.probe(for_quote=False))
        self._ask_when_blocked(now)

    def _patience(self) -> int:
        """How long nothing may go forward. A whole window can be lost with one connection on the way, and is known to
        be lost only at its expiry: there must be time for another try after it.
        """
        settings = self._session.settings
        lost = self.traffic.trouble == "R00" or (self._flights and not self.traffic.trouble)
        return settings.stall_ms + (settings.timeout_ms if lost else 0)

    def _stalled(self) -> Failure:
        code = self.traffic.trouble
        if code == "T04":
            return Failure.NO_LIQUIDITY
        if code[:1] in ("T", "F") or code == "R02":
            return Failure.PATH_ERROR
        streams = self._session.streams.values()
        return Failure.RECEIVER_FULL if any(map(_is_refused_more, streams)) and not code else Failure.NO_ANSWER

    def _ask_when_blocked(self, now: int) -> None:
        """Tell the peer that its limits hold us back, and so ask for the present ones (RFC 0029 §4.4.4)."""
        if self._flights or self._session.control or not self._session.peer_validated:
            return
        frames: list[Frame] = []
        session = self._session
        for stream in session.streams.values():
            if _is_refused_more(stream):
                frames.append(StreamMoneyBlocked(stream.id, stream.send_max, stream.committed))
            if stream.bytes_out.blocked:
                frames.append(StreamDataBlocked(stream.id, stream.bytes_out.wanted))
            elif stream.bytes_out.waiting and session.bytes_out >= session.peer_bytes_max:
                frames.append(ConnectionDataBlocked(session.bytes_out + stream.bytes_out.waiting))
        if not frames:
            self.traffic.poll_ms = 0
        elif self.traffic.poll_ms == 0 or now >= self._poll_at:
            self.traffic.poll_ms = min(max(self.traffic.poll_ms * 2, POLL_MS_MIN), POLL_MS_MAX)
            self._poll_at = now + self.traffic.poll_ms
            session.control.extend(frames)

    def _tell_failed(self) -> None:
        traffic = self.traffic
        if traffic.failed is not None and not traffic.failed_told and not self._flights:
            traffic.failed_told = True
            self._session.orders.append(traffic.failed)

    def _end_stream(self, stream: Stream) -> None:
        """Say that we are through with a stream, or forget it when both sides are."""
        session = self._session
        quiet = stream.packets_in_flight == 0 and stream.bytes_out.finished
        done = not stream.wants_money or self._outgoing.is_dust(stream) or self.traffic.failure is not None
        if stream.ending and not stream.close_queued and quiet and done:
            stream.close_queued = True
            session.queue(StreamClose(stream.id, stream.close_code, stream.close_message))
        over = stream.peer_ended or not stream.half_open
        if stream.close_acknowledged and over and quiet and stream.ending:
            self._outgoing.tell_done()
            session.remove(stream)

    def _closing(self, now: int) -> None:
        """Say goodbye once nothing is in flight; then nothing more leaves."""
        session = self._session
        if session.close_frame is None and self.draining is not None:
            if self._flights:
                return
            session.close_with(self.draining)
        frame = session.close_frame
        assert frame is not None
        if session.close_unsent:
            session.close_unsent = False
            self._send_frames(Kind.CLOSE, 0, [frame], now)
        elif not self._flights and not session.closed_told:
            session.tell_closed()
        if self.traffic.wants() and self.traffic.failure is None:
            self.traffic.fail(Failure.CLOSED)

    # --- sending -------------------------------------------------------------------------------------------------

    def _send_money(self, parcel: Parcel, now: int) -> None:
        """The common packet: built without the frame codec."""
        stream = parcel.stream
        amount = parcel.amount
        key = (amount, parcel.minimum, stream.id)
        if key != self._tail_key:
            self._tail_key = key
            self._tail = money_tail(parcel.minimum, stream.id, amount)
        number = self.traffic.next_number
        plaintext = PREPARE_HEAD + var_uint(number) + self._tail
        flight = self._launch(Kind.MONEY, amount, plaintext, now)
        flight.stream = stream
        stream.last_money = number
        flight.minimum = parcel.minimum
        flight.floor = parcel.floor
        flight.expected = parcel.expected
        flight.exact = parcel.exact
        stream.in_flight += amount
        stream.expected += parcel.expected
        stream.packets_in_flight += 1
        self._totals.in_flight += amount

    def _launch(self, kind: Kind, amount: int, plaintext: bytes, now: int) -> Flight:
        session = self._session
        settings = session.settings
        keys = session.keys
        data = keys.encrypt(plaintext, session.ivs.next())
        if kind == Kind.PROBE:
            fulfillment = b""
            condition = unfulfillable_condition(session.random_bytes(32))
        else:
            fulfillment = keys.fulfillment(data)
            condition = sha256(fulfillment).digest()
        number = self.traffic.next_number
        self.traffic.next_number = number + 1
        flight = Flight(kind, number, amount, fulfillment, now, now + settings.timeout_ms + GRACE_MS)
        self._flights[number] = flight
        self._totals.packets_sent += 1
        session.orders.append(SendPrepare(number, amount, settings.timeout_ms, condition, session.peer_address, data))
        return flight

    def _send_frames(self, kind: Kind, amount: int, frames: list[Frame], now: int) -> Flight:
        session = self._session
        if not session.peer_heard:
            frames = session.greeting() + frames
        plaintext = encode_packet(StreamPacket(PREPARE, self.traffic.next_number, 0, frames))
        return self._launch(kind, amount, plaintext, now)

    def _send_probe(self, amount: int, now: int) -> None:
        self._send_frames(Kind.PROBE, amount, [], now).prober = self.traffic.prober
        self._totals.in_flight += amount

    def _send_control(self, now: int) -> None:
        """Frames that are worth a packet of their own; without any it validates the peer's address (STREAM-25)."""
        control = self._session.control
        frames: list[Frame] = []
        size = 0
        while control and len(frames) < FRAMES_PER_PACKET_MAX and size < CONTROL_BYTES_MAX:
            frame = control.popleft()
            size += len(frame.message) * 4 + 32 if isinstance(frame, StreamClose | ConnectionClose) else 32
            frames.append(frame)
        flight = self._send_frames(Kind.CONTROL, 0, frames, now)
        flight.control = frames
        if not self._session.peer_validated:
            self._session.validate_from = flight.number

    def _send_data(self, now: int) -> bool:
        session = self._session
        left = session.peer_bytes_max - session.bytes_out
        ready = [stream for stream in session.streams.values() if stream.bytes_out.can_send(left)]
        if not ready:
            return False
        self._data_turn += 1
        stream = ready[self._data_turn % len(ready)]
        before = stream.bytes_out.offset
        offset, data = stream.bytes_out.next_chunk(CHUNK_BYTES_MAX, left)
        session.bytes_out += stream.bytes_out.offset - before
        flight = self._send_frames(Kind.DATA, 0, [StreamData(stream.id, offset, data)], now)
        flight.stream = stream
        flight.offset = offset
        flight.data = data
        return True

    # --- probes --------------------------------------------------------------------------------------------------

    def investigate(self, prober: Prober) -> None:
        """Find out rate and capacity."""
        self.traffic.prober = prober
        prober.start(self._outgoing.capacity)

    def _settle_probes(self, now: int) -> None:
        prober = self.traffic.prober
        if prober is None:
            return
        prober.settle(self._outgoing.capacity, self._outgoing.rate)
        if not prober.done:
            return
        failure = prober.failure or self._outgoing.judge_rate()
        if failure is not None:
            self.traffic.fail(failure)
            return
        self.traffic.prober = None
        if prober.for_quote:
            self._session.orders.append(self._outgoing.quote(prober))


def _is_refused_more(stream: Stream) -> bool:
    """Whether money waits for the peer to raise its maximum."""
    left = stream.deliverable
    return stream.wants_money and stream.peer_max is not None and left is not None and left <= 0
