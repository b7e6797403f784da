"""What the outcome of each packet of ours means: money gone, data to send again, limits learned, or the end.

ILP's codes tell a sender little: F08 is about one packet's size, T and R codes about the path as it is now, and only
the receiver's own encrypted words about the payment.
"""

from typing import Final, final

from isthmus.errors import CodecError, plain
from isthmus.ilp.packet import Fulfill, Reject
from isthmus.stream.congestion import PAUSE_MS_MIN, RATE_PAUSE_MS_MIN
from isthmus.stream.flight import Flight, Kind
from isthmus.stream.orders import Failure, PeerTotal, ReceiptArrived
from isthmus.stream.outgoing import FINAL_TRIES
from isthmus.stream.packet import (
    ConnectionMaxData,
    ConnectionMaxStreamId,
    Frame,
    StreamClose,
    StreamMaxData,
    StreamMaxMoney,
    StreamMoneyBlocked,
    StreamReceipt,
    decode_packet,
)
from isthmus.stream.receipt import decode_receipt
from isthmus.stream.substream import Stream
from isthmus.stream.traffic import Traffic
from isthmus.stream.wire import FULFILL_HEAD, NO_FRAMES, REJECT_HEAD, read_head

UNKNOWN_MAX: Final = 10_000  # packets without an answer that may still get one
CONTROL_LOSSES_MAX: Final = 5  # in a row; then what we wanted to say is dropped
LOW_RATE_MAX: Final = 3  # rounds of packets below the minimum, with growing pauses between
TOO_LARGE_ROUNDS_MAX: Final = 16  # F08 in a row, before we slow down: an honest path has a few maxima
REFUSALS_MAX: Final = 5  # rounds of packets that the receiver refuses without a reason that we can act on
TIMEOUT_REJECTS_MAX: Final = 3  # R02
REJECT_CODES_MAX: Final = 32  # counted one by one: RFC 0027 names fewer

_LATER: Final = (StreamClose, StreamMaxMoney, StreamMaxData, ConnectionMaxData, ConnectionMaxStreamId)
_FINAL: Final = {
    "F02": Failure.NO_ROUTE,
    "F07": Failure.REFUSED,
}


@final
class Outcomes:
    """Takes replies, and notices their absence."""

    def __init__(self, traffic: Traffic) -> None:
        self._traffic: Final = traffic
        self._session: Final = traffic.session
        self._window: Final = traffic.window
        self._outgoing: Final = traffic.outgoing
        self._totals: Final = traffic.totals
        self._flights: Final = traffic.flights
        self._low_rounds = 0
        self._refusals = 0
        self._too_large_rounds = 0
        self._round_from = 0
        self._timeout_rejects = 0
        self._control_losses = 0

    # --- replies -------------------------------------------------------------------------------------------------

    def reply_received(self, number: int, reply: Fulfill | Reject, now: int) -> bool:
        """Apply the outcome of one packet. False if the number is unknown, or its outcome known already."""
        flight = self._flights.pop(number, None)
        if flight is None:
            flight = self._traffic.unknown.pop(number, None)
            if flight is None:
                return False
            self._known_after_all(flight)
        elif flight.amount and flight.kind != Kind.MONEY:
            self._totals.in_flight -= flight.amount
        if isinstance(reply, Fulfill):
            if reply.fulfillment == flight.fulfillment and flight.kind != Kind.PROBE:
                self._fulfilled(flight, reply, now)
                return True
            # Whoever accepts this as a fulfillment pays for it himself (ILP-9).
            reply = Reject("F05", "", "wrong fulfillment")
        self._rejected(flight, reply, now)
        return True

    def _fulfilled(self, flight: Flight, fulfill: Fulfill, now: int) -> None:
        self._totals.packets_fulfilled += 1
        received = self._read_reply(flight, FULFILL_HEAD, fulfill.data, now)
        stream = flight.stream
        if flight.kind == Kind.MONEY and stream is not None:
            self._paid(flight, stream, received)
            self._outgoing.capacity.passed(flight.amount, now)
            self._low_rounds = self._refusals = self._timeout_rejects = self._too_large_rounds = 0
        elif flight.kind == Kind.DATA and stream is not None:
            stream.bytes_out.acknowledged()
        elif flight.kind == Kind.CONTROL:
            self._control_taken(flight)
        elif flight.kind == Kind.CLOSE:
            self._session.tell_closed()
        self._window.fulfilled(flight.number, now - flight.sent_at)
        if flight.kind <= Kind.DATA:
            self._traffic.progress_at = now
            self._traffic.trouble = ""
            self._traffic.poll_ms = 0

    def _paid(self, flight: Flight, stream: Stream, received: int | None) -> None:
        """Money of ours is gone, and the receiver has at least its minimum."""
        amount = flight.amount
        if received is None:
            # STREAM-28: count it as sent, and that only the minimum arrived.
            delivered = flight.minimum
            delivered_max = max(flight.expected, delivered)
            stream.vague += amount
            self._totals.packets_unknown += 1
        else:
            # A receiver that names less than the minimum broke the rules, or wants to be paid twice.
            delivered = delivered_max = max(received, flight.minimum)
            stream.certain += delivered
            self._outgoing.rate.observe(amount, received)
        stream.in_flight -= amount
        stream.sent += amount
        stream.packets_in_flight -= 1
        stream.expected -= flight.expected
        stream.delivered += delivered
        stream.delivered_max += delivered_max
        stream.final_tries = 0
        totals = self._totals
        totals.in_flight -= amount
        totals.sent += amount
        totals.delivered += delivered
        totals.delivered_max += delivered_max
        if stream.vague:
            self._estimate(stream)
        if flight.minimum < flight.floor and not flight.exact:
            self._outgoing.allowance_used(delivered < flight.floor)

    def _estimate(self, stream: Stream) -> None:
        """The rate may be known better now than when packets left about which the receiver was silent."""
        most = stream.certain + self._outgoing.rate.best_max(stream.vague)
        if most > stream.delivered_max:
            self._totals.delivered_max += most - stream.delivered_max
            stream.delivered_max = most

    def _read_reply(self, flight: Flight, head: bytes, data: bytes, now: int) -> int | None:
        """Read the receiver's own words; None if they are missing, unreadable or not about this packet.

        Words made for another packet or another type of packet don't count (STREAM-6, STREAM-7).
        """
        session = self._session
        try:
            plaintext = session.keys.decrypt(data)
            if plaintext[:2] != head:
                return None
            sequence, received, at = read_head(plaintext)
            if at and plaintext[at:] == NO_FRAMES:
                frames: list[Frame] = []
            else:
                packet = decode_packet(plaintext)
                sequence = packet.sequence
                received = packet.prepare_amount
                frames = packet.frames
        except CodecError:
            return None
        if sequence != flight.number:
            return None
        session.peer_heard = True
        if not session.peer_validated and session.validate_from and flight.number >= session.validate_from:
            session.peer_validated = True
        if frames:
            session.apply(frames, flight.number)
            self._receipts(frames)
        return received

    def _receipts(self, frames: list[Frame]) -> None:
        for frame in frames:
            if not isinstance(frame, StreamReceipt):
                continue
            stream = self._session.streams.get(frame.stream_id)
            if stream is None:
                continue
            try:
                receipt = decode_receipt(frame.receipt)
            except CodecError:
                continue
            # Replies arrive out of order: keep the one that proves most.
            if receipt.stream_id == stream.id and receipt.total_received > stream.receipt_total:
                stream.receipt_total = receipt.total_received
                stream.receipt = frame.receipt
                self._session.orders.append(ReceiptArrived(stream.id, frame.receipt))

    def _control_taken(self, flight: Flight) -> None:
        self._control_losses = 0
        session = self._session
        for frame in flight.control or ():
            if isinstance(frame, StreamClose):
                stream = session.streams.get(frame.stream_id)
                if stream is not None and stream.close_queued:
                    stream.close_acknowledged = session.ending = True
            elif isinstance(frame, StreamMoneyBlocked):
                stream = session.streams.get(frame.stream_id)
                if stream is not None and stream.asked and flight.number < stream.last_money:
                    session.queue(frame)  # an answer from before the last money: ask again
                elif stream is not None and stream.asked:
                    stream.asked = False
                    session.orders.append(PeerTotal(stream.id, None, None))

    # --- rejects -------------------------------------------------------------------------------------------------

    def _rejected(self, flight: Flight, reject: Reject, now: int) -> None:
        code = reject.code
        self._count(code)
        received = self._read_reply(flight, REJECT_HEAD, reject.data, now) if code == "F99" and reject.data else None
        self._undo(flight, heard=received is not None)
        if flight.kind == Kind.CLOSE:
            self._session.tell_closed()
            return
        if received is not None:
            self._answered(flight, received, reject, now)
            return
        self._traffic.trouble = code
        self._traffic.trouble_message = reject.message
        self._traffic.trouble_by = reject.triggered_by
        if code == "F08" and flight.amount > 0:
            self._amount_too_large(flight, reject, now)
            return
        self._outgoing.capacity.lost(flight.amount)
        if code == "R01" and flight.amount > 0:
            if flight.prober is not None:
                flight.prober.too_small(flight.amount)
            elif flight.exact and flight.stream is not None and flight.stream.final_tries < FINAL_TRIES:
                flight.stream.final_tries += 1
            else:
                self._traffic.fail(Failure.TOO_SMALL)
        elif code[:1] == "T" or code[:1] == "R":
            self._temporary(flight, code, now)
        elif code == "F99":
            if flight.prober is not None:
                flight.prober.scarce(flight.amount)
            self._refused(flight, now)
        elif code == "F04":
            self._below_minimum(flight, now)
        else:
            if flight.prober is not None:
                flight.prober.scarce(flight.amount)
            self._traffic.fail(_FINAL.get(code, Failure.PATH_ERROR))

    def _count(self, code: str) -> None:
        """By code; whatever a hostile connector invents, people can read it and it stays a short list."""
        rejected = self._totals.rejected
        known = plain(code) if code in rejected or len(rejected) < REJECT_CODES_MAX else "other"
        rejected[known] = rejected.get(known, 0) + 1

    def _undo(self, flight: Flight, *, heard: bool) -> None:
        """The packet failed: its money is ours again, its data and frames must go again."""
        stream = flight.stream
        if flight.kind == Kind.MONEY and stream is not None:
            stream.in_flight -= flight.amount
            stream.expected -= flight.expected
            stream.packets_in_flight -= 1
            self._totals.in_flight -= flight.amount
            if flight.minimum < flight.floor and not flight.exact:
                self._outgoing.allowance_used(False)
        elif flight.kind == Kind.DATA and stream is not None:
            stream.bytes_out.lost(flight.offset, flight.data)
        elif flight.kind == Kind.CONTROL:
            if heard:
                self._control_taken(flight)  # control frames count even in a refused packet
            else:
                self._control_lost(flight)

    def _control_lost(self, flight: Flight) -> None:
        self._control_losses += 1
        session = self._session
        frames = [frame for frame in flight.control or () if isinstance(frame, _LATER)]
        if self._control_losses <= CONTROL_LOSSES_MAX and session.close_frame is None:
            streams = session.streams
            asked = [
                frame
                for frame in flight.control or ()
                if isinstance(frame, StreamMoneyBlocked)
                and frame.stream_id in streams  # it may have ended meanwhile
                and streams[frame.stream_id].asked
            ]
            session.control.extendleft([*frames, *asked])
            return
        for frame in frames:
            stream = session.streams.get(frame.stream_id) if isinstance(frame, StreamClose) else None
            if stream is not None:
                stream.close_acknowledged = session.ending = True  # it will learn when it uses the stream

    def _answered(self, flight: Flight, received: int, reject: Reject, now: int) -> None:
        """The receiver itself refused, and says what arrived."""
        if flight.amount > 0:
            self._outgoing.rate.observe(flight.amount, received)
            self._outgoing.capacity.passed(flight.amount, now)
        if flight.kind == Kind.PROBE:
            self._traffic.progress_at = now
            self._window.fulfilled(flight.number, now - flight.sent_at)
            if flight.prober is not None:
                flight.prober.arrived(flight.amount, received)
            return
        stream = flight.stream
        if flight.kind == Kind.CONTROL or stream is None or self._session.close_frame is not None:
            return
        if flight.kind == Kind.MONEY and received < flight.minimum:
            if flight.exact and received >= flight.floor - 1:
                stream.final_tries += 1  # only the exact last packet fell short: the next is a little larger
            else:
                self._traffic.trouble = "F99"
                self._traffic.trouble_message = f"{received} arrived, less than the minimum of {flight.minimum}"
                self._below_minimum(flight, now)
            return
        left = stream.deliverable
        if stream.stopped or (flight.kind == Kind.MONEY and left is not None and left <= 0):
            return  # it told us why
        self._traffic.trouble = reject.code
        self._traffic.trouble_message = reject.message
        self._traffic.trouble_by = reject.triggered_by
        self._refused(flight, now)

    def _amount_too_large(self, flight: Flight, reject: Reject, now: int) -> None:
        if self._too_large_rounds < TOO_LARGE_ROUNDS_MAX:
            # The path answers, and smaller packets may pass: patience begins anew. After a node on the way was lost,
            # this is often the first word of the way around it, as late as we would give up.
            self._traffic.trouble = ""
            self._traffic.progress_at = now
        if flight.prober is not None:
            flight.prober.too_large()
        if flight.number >= self._round_from:
            self._round_from = self._traffic.next_number
            self._too_large_rounds += 1
            if self._too_large_rounds > TOO_LARGE_ROUNDS_MAX:
                self._window.trouble(flight.number, self._traffic.next_number, now)
        if not self._outgoing.capacity.too_large(flight.amount, reject.data, now):
            self._traffic.trouble = "F08"
            self._traffic.fail(Failure.NO_CAPACITY)

    def _temporary(self, flight: Flight, code: str, now: int) -> None:
        if flight.prober is not None:
            flight.prober.scarce(flight.amount)
        if code == "R02":
            self._timeout_rejects += 1
            if self._timeout_rejects > TIMEOUT_REJECTS_MAX:
                self._traffic.fail(Failure.PATH_ERROR)
                return
        alone = self._window.size == 1
        pause = RATE_PAUSE_MS_MIN if code == "T05" else PAUSE_MS_MIN
        reacted = self._window.trouble(flight.number, self._traffic.next_number, now, pause)
        if reacted and alone and code == "T04" and flight.kind == Kind.MONEY:
            self._outgoing.shrink(flight.amount)

    def _below_minimum(self, flight: Flight, now: int) -> None:
        if flight.number < self._round_from:
            return
        self._round_from = self._traffic.next_number
        self._low_rounds += 1
        if self._low_rounds >= LOW_RATE_MAX:
            self._traffic.fail(Failure.RATE_TOO_LOW)
        else:
            self._window.trouble(flight.number, self._traffic.next_number, now)

    def _refused(self, flight: Flight, now: int) -> None:
        if flight.number < self._round_from:
            return
        self._round_from = self._traffic.next_number
        self._refusals += 1
        if self._refusals >= REFUSALS_MAX:
            self._traffic.fail(Failure.REFUSED)
        else:
            self._window.trouble(flight.number, self._traffic.next_number, now)

    # --- time ----------------------------------------------------------------------------------------------------

    def expire(self, now: int) -> None:
        """Packets whose outcome nobody told in time: it stays unknown, and their money counts as sent."""
        for flight in list(self._flights.values()) if self._first_deadline() <= now else ():
            if flight.deadline > now:
                break
            del self._flights[flight.number]
            self._lose_sight(flight, now)

    def _first_deadline(self) -> int:
        for flight in self._flights.values():
            return flight.deadline
        return 2**63

    def _lose_sight(self, flight: Flight, now: int) -> None:
        totals = self._totals
        stream = flight.stream
        if flight.kind == Kind.MONEY and stream is not None:
            stream.in_flight -= flight.amount
            stream.unknown += flight.amount
            stream.delivered_max += flight.expected
            stream.vague += flight.amount
            stream.packets_in_flight -= 1
            totals.in_flight -= flight.amount
            totals.unknown += flight.amount
            totals.packets_unknown += 1
            totals.delivered_max += flight.expected
            if len(self._traffic.unknown) >= UNKNOWN_MAX:
                del self._traffic.unknown[next(iter(self._traffic.unknown))]
            self._traffic.unknown[flight.number] = flight
        else:
            if flight.kind == Kind.PROBE:
                totals.in_flight -= flight.amount
                if flight.prober is not None:
                    flight.prober.scarce(flight.amount)
            elif flight.kind == Kind.CLOSE:
                self._session.tell_closed()
            self._undo(flight, heard=False)
        self._outgoing.capacity.lost(flight.amount)
        self._traffic.trouble = "R00"
        self._traffic.trouble_message = "no answer"
        self._traffic.trouble_by = ""
        self._window.trouble(flight.number, self._traffic.next_number, now)

    def _known_after_all(self, flight: Flight) -> None:
        """A late outcome: the money moves back to "in flight", to be counted as usual."""
        totals = self._totals
        stream = flight.stream
        assert stream is not None
        stream.unknown -= flight.amount
        stream.delivered_max -= flight.expected
        stream.vague -= flight.amount
        stream.in_flight += flight.amount
        stream.packets_in_flight += 1
        stream.done_told = False
        totals.unknown -= flight.amount
        totals.in_flight += flight.amount
        totals.packets_unknown -= 1
        totals.delivered_max -= flight.expected
