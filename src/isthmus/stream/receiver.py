"""The receiving half of a connection: judges each Prepare, credits its money, and answers (RFC 0029 §3.5, §4.4, §6.3).

What is refused is answered with F99 and an encrypted reply that says what arrived; senders learn the rate from it
(STREAM-10). A packet that can't be decrypted gets F06 and nothing else (STREAM-9).
"""

from collections.abc import Iterable
from hashlib import sha256
from typing import Final, final

from isthmus.errors import CodecError
from isthmus.ilp.packet import FULFILL, REJECT, Fulfill, Prepare, Reject
from isthmus.oer import U64_MAX
from isthmus.stream.data import FITS, TOO_MANY
from isthmus.stream.orders import Credit, DataArrived, DecisionWanted, SendFulfill, SendReject, StreamCredit
from isthmus.stream.packet import (
    FLOW_CONTROL_ERROR,
    FRAME_FORMAT_ERROR,
    PROTOCOL_VIOLATION,
    STREAM_STATE_ERROR,
    ConnectionClose,
    Frame,
    StreamClose,
    StreamData,
    StreamMaxData,
    StreamMaxMoney,
    StreamMoney,
    StreamPacket,
    StreamReceipt,
    decode_packet,
    encode_packet,
)
from isthmus.stream.receipt import Receipt, can_be_receipted, encode_receipt
from isthmus.stream.session import Session
from isthmus.stream.settings import HELD_MAX, SEQUENCES_MAX
from isthmus.stream.substream import Stream
from isthmus.stream.wire import FULFILL_HEAD, NO_FRAMES, PREPARE_HEAD, read_head, var_uint

FINGERPRINT_BYTES: Final = 8
TAIL_BYTES_MAX: Final = 64  # frames of the last packet are remembered if they are no longer than this
SURPLUS_PARTS: Final = 100  # a hundredth above what we want is taken, as by ilp-protocol-stream


@final
class Held:
    """A packet whose money waits for the application."""

    __slots__ = ("amounts", "condition", "data", "deadline", "frames", "prepare_amount", "request", "sequence")

    def __init__(
        self,
        request: int,
        sequence: int,
        prepare: Prepare,
        amounts: list[tuple[Stream, int]],
        frames: list[Frame],
        deadline: int,
    ) -> None:
        self.request: Final = request
        self.sequence: Final = sequence
        self.prepare_amount: Final = prepare.amount
        self.condition: Final = prepare.condition
        self.data: Final = prepare.data
        self.amounts: Final = amounts
        self.frames: Final = frames
        self.deadline: Final = deadline


@final
class Receiver:
    """Takes Prepares, gives answers."""

    def __init__(self, session: Session) -> None:
        self._session: Final = session
        self._answered: dict[int, tuple[bytes, int]] = {}  # sequence -> fingerprint, amount; in order of arrival
        self._sequence_floor = 0  # at or below it we no longer know what was credited
        self._held: dict[int, Held] = {}  # by request
        self._tail = b""
        self._tail_frames: list[Frame] = []
        self._closes: list[Frame] = []  # for the next refusal
        self.total = 0

    # --- events --------------------------------------------------------------------------------------------------

    def prepare_received(self, request: int, prepare: Prepare, deadline: int) -> bool:
        """Judge one Prepare. False if it isn't from the peer (F06 is answered then)."""
        session = self._session
        try:
            plaintext = session.keys.decrypt(prepare.data)
        except CodecError:
            self._refuse_unread(request)
            return False
        if plaintext[:2] != PREPARE_HEAD:
            # Another version, or made for another type of ILP packet: an intermediary swapped it (STREAM-6).
            self._refuse_unread(request)
            return False
        sequence, minimum, at = read_head(plaintext)
        tail = plaintext[at:]
        if at == 0 or tail != self._tail:
            try:
                packet = decode_packet(plaintext)
            except CodecError as problem:
                self._malformed(request, sequence, prepare, problem)
                return True
            sequence = packet.sequence
            minimum = packet.prepare_amount
            if at and len(tail) <= TAIL_BYTES_MAX:
                self._tail = tail
                self._tail_frames = packet.frames
            frames = packet.frames
        else:
            frames = self._tail_frames
        self._judge(request, prepare, sequence, minimum, frames, deadline)
        return True

    def _judge(
        self, request: int, prepare: Prepare, sequence: int, minimum: int, frames: list[Frame], deadline: int
    ) -> None:
        session = self._session
        if session.close_frame is not None or sequence >= session.settings.packets_max:
            if session.close_frame is None:
                session.fail(PROTOCOL_VIOLATION, "too many packets for one key")  # STREAM-12
            self._reject(request, sequence, prepare.amount)
            return
        if len(frames) != 1 or not isinstance(frames[0], StreamMoney) or frames[0].stream_id not in session.streams:
            if not self._open_streams(frames):
                self._reject(request, sequence, prepare.amount)
                return
            session.apply(frames)
            if session.closed:
                self._end_by_peer(request, sequence, prepare, frames)
                return
        fulfillment = session.keys.fulfillment(prepare.data)
        if prepare.amount < minimum or sha256(fulfillment).digest() != prepare.condition:
            self._reject(request, sequence, prepare.amount)
            return
        known = self._answered.get(sequence)
        if known is not None and prepare.amount > 0:
            self._repeat(request, sequence, prepare, known, fulfillment)
            return
        if prepare.amount > 0 and sequence <= self._sequence_floor:
            self._reject(request, sequence, prepare.amount)
            return
        self._take(request, prepare, sequence, frames, fulfillment, deadline)

    def _take(
        self,
        request: int,
        prepare: Prepare,
        sequence: int,
        frames: list[Frame],
        fulfillment: bytes,
        deadline: int,
    ) -> None:
        """A packet that may be fulfilled: see whether its streams can take what it brings."""
        session = self._session
        amounts: list[tuple[Stream, int]] = []
        if prepare.amount > 0 or any(isinstance(frame, StreamMoney) for frame in frames):
            split = self._split(prepare.amount, frames)
            if split is None:
                self._reject(request, sequence, prepare.amount)
                return
            amounts = split
        if len(frames) > len(amounts) and not self._data_fits(frames):
            self._reject(request, sequence, prepare.amount)
            return
        if session.settings.ask and prepare.amount > 0:
            self._hold(Held(request, sequence, prepare, amounts, frames, deadline))
            return
        self._accept(request, sequence, prepare.amount, prepare.condition, fulfillment, amounts, frames)

    # --- streams -------------------------------------------------------------------------------------------------

    def _open_streams(self, frames: list[Frame]) -> bool:
        """Open the streams that frames name for the first time (STREAM-19). False: refuse the packet."""
        session = self._session
        for frame in frames:
            if not isinstance(frame, StreamMoney | StreamData | StreamMaxMoney | StreamMaxData):
                continue
            # ilp-protocol-stream opens streams with the maxima, too.
            strict = isinstance(frame, StreamMoney | StreamData)
            stream_id = frame.stream_id
            if stream_id in session.streams:
                continue
            if session.was_closed(stream_id):
                if strict:
                    self._stream_is_closed(stream_id)
                    return False
                continue
            if (strict or not session.is_ours(stream_id)) and not session.admit(stream_id):
                return False
        return True

    def _split(self, amount: int, frames: list[Frame]) -> list[tuple[Stream, int]] | None:
        """Divide the amount by shares (STREAM-20); None if it can't all be taken."""
        session = self._session
        if len(frames) == 1:
            frame = frames[0]
            if not isinstance(frame, StreamMoney) or frame.shares == 0:
                return None
            stream = session.streams[frame.stream_id]
            return [(stream, amount)] if self._can_take(stream, amount, amount, frame.shares) else None
        shares: dict[int, int] = {}
        for frame in frames:
            if isinstance(frame, StreamMoney):
                shares[frame.stream_id] = shares.get(frame.stream_id, 0) + frame.shares
        total = sum(shares.values())
        if not 0 < total <= U64_MAX:
            return None
        parts = {stream_id: amount * share // total for stream_id, share in shares.items()}
        rest = amount - sum(parts.values())
        if rest:
            lucky = self._lowest_open(parts)
            parts[lucky] = parts.get(lucky, 0) + rest
        amounts: list[tuple[Stream, int]] = []
        for stream_id, part in parts.items():
            stream = session.streams[stream_id]
            if not self._can_take(stream, part, amount, total):
                return None
            amounts.append((stream, part))
        return amounts

    def _lowest_open(self, parts: dict[int, int]) -> int:
        streams = self._session.streams
        for stream_id in sorted(streams):
            stream = streams[stream_id]
            left = stream.receivable
            if not stream.peer_ended and (left is None or left > parts.get(stream_id, 0)):
                return stream_id
        return min(parts)

    def _can_take(self, stream: Stream, part: int, amount: int, shares: int) -> bool:
        if stream.peer_ended or (stream.ending and not stream.half_open):
            self._stream_is_closed(stream.id)
            return False
        left = stream.receivable
        if left is None or part <= left:
            return True
        # Shares are source units: a fixed amount may come with what one more of them buys, or with a hundredth.
        surplus = max(-(-amount // shares), left // SURPLUS_PARTS)
        if left > 0 and part <= left + surplus:
            return True
        stream.tell_money = self._session.tell = True
        return False

    def _stream_is_closed(self, stream_id: int) -> None:
        """The answer to this packet says so."""
        self._closes = [StreamClose(stream_id, STREAM_STATE_ERROR, "the stream is closed")]

    def _data_fits(self, frames: list[Frame]) -> bool:
        """Check all data of a packet before any is taken; a violation closes the connection (STREAM-21, STREAM-22)."""
        session = self._session
        parts: dict[int, set[tuple[int, int]]] = {}
        for frame in frames:
            if isinstance(frame, StreamData):
                parts.setdefault(frame.stream_id, set()).add((frame.offset, len(frame.data)))
        growth = 0
        for stream_id, pieces in parts.items():
            stream = session.streams[stream_id]
            if stream.peer_ended or (stream.ending and not stream.half_open):
                self._stream_is_closed(stream_id)
                return False
            code = stream.bytes_in.check_all(sorted(pieces))
            growth += max(0, max(offset + size for offset, size in pieces) - stream.bytes_in.highest)
            if code == FITS and session.bytes_in + growth > session.bytes_advertised:
                code = FLOW_CONTROL_ERROR
            if code == TOO_MANY:
                return False  # no violation: it may come again
            if code != FITS:
                what = "more data than allowed" if code == FLOW_CONTROL_ERROR else "overlapping data"
                session.fail(code, f"{what} on stream {stream_id}")
                return False
        return True

    # --- outcomes ------------------------------------------------------------------------------------------------

    def _accept(
        self,
        request: int,
        sequence: int,
        amount: int,
        condition: bytes,
        fulfillment: bytes,
        amounts: list[tuple[Stream, int]],
        frames: list[Frame],
    ) -> None:
        session = self._session
        credit: Credit | None = None
        if amount > 0:
            money: list[StreamCredit] = []
            for stream, part in amounts:
                stream.received += part
                money.append(StreamCredit(stream.id, part, stream.received))
            self.total += amount
            fingerprint = condition[:FINGERPRINT_BYTES]
            self._remember(sequence, fingerprint, amount)
            credit = Credit(session.settings.connection_id, sequence, fingerprint, amount, money)
        if len(frames) > len(amounts):
            self._take_data(frames)
        fulfill = Fulfill(fulfillment, self._fulfill_data(sequence, amount, amounts))
        session.orders.append(SendFulfill(request, fulfill, credit))

    def _take_data(self, frames: list[Frame]) -> None:
        session = self._session
        for frame in frames:
            if isinstance(frame, StreamData):
                incoming = session.streams[frame.stream_id].bytes_in
                before = incoming.highest
                if incoming.push(frame.offset, frame.data):
                    session.orders.append(DataArrived(frame.stream_id))
                session.bytes_in += incoming.highest - before

    def _fulfill_data(self, sequence: int, amount: int, amounts: list[tuple[Stream, int]]) -> bytes:
        session = self._session
        settings = session.settings
        if not session.tell and not settings.receipt_secret:
            plaintext = FULFILL_HEAD + var_uint(sequence) + var_uint(amount) + NO_FRAMES
        else:
            frames = session.reply_frames() if session.tell else []
            if settings.receipt_secret:
                for stream, _ in amounts:
                    if can_be_receipted(stream.id):  # RCPT-9
                        receipt = Receipt(settings.receipt_nonce, stream.id, stream.received)
                        frames.append(StreamReceipt(stream.id, encode_receipt(receipt, settings.receipt_secret)))
            plaintext = encode_packet(StreamPacket(FULFILL, sequence, amount, frames))
        return session.keys.encrypt(plaintext, session.ivs.next())

    def _remember(self, sequence: int, fingerprint: bytes, amount: int) -> None:
        answered = self._answered
        answered[sequence] = (fingerprint, amount)
        if len(answered) > SEQUENCES_MAX:
            oldest = next(iter(answered))
            del answered[oldest]
            if oldest > self._sequence_floor:
                self._sequence_floor = oldest

    def _repeat(
        self, request: int, sequence: int, prepare: Prepare, known: tuple[bytes, int], fulfillment: bytes
    ) -> None:
        """The same packet again gets the same answer and no credit; another with its number is refused."""
        fingerprint, amount = known
        if fingerprint != prepare.condition[:FINGERPRINT_BYTES]:
            self._reject(request, sequence, prepare.amount)
            return
        fulfill = Fulfill(fulfillment, self._fulfill_data(sequence, amount, []))
        self._session.orders.append(SendFulfill(request, fulfill, None))

    def _reject(self, request: int, sequence: int, amount: int) -> None:
        """F99 with an encrypted reply: JS senders read replies only from F99 (STREAM-9)."""
        session = self._session
        frames = session.reply_frames() if session.tell else []
        if self._closes:
            frames.extend(self._closes)
            self._closes = []
        plaintext = encode_packet(StreamPacket(REJECT, sequence, amount, frames))
        data = session.keys.encrypt(plaintext, session.ivs.next())
        session.orders.append(SendReject(request, Reject("F99", session.settings.address, "", data)))

    def _refuse_unread(self, request: int) -> None:
        # Without a word: nobody on the path should learn what listens here.
        self._session.orders.append(SendReject(request, Reject("F06", self._session.settings.address, "")))

    def _malformed(self, request: int, sequence: int, prepare: Prepare, problem: CodecError) -> None:
        if sequence == 0:
            self._refuse_unread(request)
            return
        self._session.fail(FRAME_FORMAT_ERROR, problem.field)
        self._reject(request, sequence, prepare.amount)

    def _end_by_peer(self, request: int, sequence: int, prepare: Prepare, frames: list[Frame]) -> None:
        """The packet closed the connection. A ConnectionClose without money is acknowledged; all else is refused."""
        fulfillment = self._session.keys.fulfillment(prepare.data)
        closes = any(isinstance(frame, ConnectionClose) for frame in frames)
        if closes and prepare.amount == 0 and sha256(fulfillment).digest() == prepare.condition:
            fulfill = Fulfill(fulfillment, self._fulfill_data(sequence, 0, []))
            self._session.orders.append(SendFulfill(request, fulfill, None))
            return
        self._reject(request, sequence, prepare.amount)

    # --- money that waits ----------------------------------------------------------------------------------------

    def _hold(self, held: Held) -> None:
        twin = any(other.sequence == held.sequence for other in self._held.values())
        if twin or len(self._held) >= HELD_MAX:
            self._reject(held.request, held.sequence, held.prepare_amount)
            return
        self._held[held.request] = held
        for stream, part in held.amounts:
            stream.held += part
        money = [(stream.id, part) for stream, part in held.amounts]
        self._session.orders.append(DecisionWanted(held.request, held.prepare_amount, money))

    def accept(self, request: int) -> bool:
        """The application takes the money. False if it is no longer held."""
        held = self._release(request)
        if held is None:
            return False
        gone = any(stream.id not in self._session.streams for stream, _ in held.amounts)
        # Another packet may have brought the same bytes, or broken the rules, meanwhile.
        if gone or self._session.close_frame is not None or not self._data_fits(held.frames):
            self._reject(request, held.sequence, held.prepare_amount)
            return False
        fulfillment = self._session.keys.fulfillment(held.data)
        self._accept(
            request, held.sequence, held.prepare_amount, held.condition, fulfillment, held.amounts, held.frames
        )
        return True

    def refuse(self, request: int) -> bool:
        """The application doesn't want the money: it goes back."""
        held = self._release(request)
        if held is None:
            return False
        self._reject(request, held.sequence, held.prepare_amount)
        return True

    def _release(self, request: int) -> Held | None:
        held = self._held.pop(request, None)
        if held is not None:
            for stream, part in held.amounts:
                stream.held -= part
        return held

    def expire(self, now: int) -> None:
        """Give back what nobody decided in time."""
        for held in [held for held in self._held.values() if now >= held.deadline]:
            self.refuse(held.request)

    def wakes_at(self) -> int | None:
        return min((held.deadline for held in self._held.values()), default=None)

    @property
    def idle(self) -> bool:
        """Nothing is held."""
        return not self._held

    # --- durability ----------------------------------------------------------------------------------------------

    def undo(self, credit: Credit) -> None:
        """The Fulfill never left (it came too late): the money isn't ours."""
        if self._answered.pop(credit.sequence, None) is None:
            return
        self.total -= credit.amount
        for part in credit.money:
            stream = self._session.streams.get(part.stream_id)
            if stream is not None:
                stream.received -= part.amount

    def restore(
        self,
        totals: Iterable[tuple[int, int]],
        seen: Iterable[tuple[int, bytes, int]],
        sequence_floor: int,
    ) -> None:
        """Continue after a crash: per-stream totals, answered packets (sequence, fingerprint, amount), and the
        sequence up to which answers are no longer known.

        Without its fingerprint (empty) a repeated packet is refused instead of fulfilled: no second credit either way.
        """
        for stream_id, total in totals:
            stream = self._session.streams.get(stream_id)
            if stream is None:
                stream = self._session.add_stream(stream_id, ours=self._session.is_ours(stream_id))
            stream.received = total
            self.total += total
        for sequence, fingerprint, amount in sorted(seen):
            self._remember(sequence, fingerprint, amount)
        self._sequence_floor = max(self._sequence_floor, sequence_floor)
