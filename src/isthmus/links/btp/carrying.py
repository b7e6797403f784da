"""Settlement with a peer whose plugin speaks sub-protocols of BTP: `peer.settle` packets on our side of a connection.

Plugins of the JavaScript reference know no `peer.settle`. Engines here know nothing else. So a Message or Transfer of a
known sub-protocol (`ilp.subprotocol`) comes in as a Prepare to `peer.settle`, and its answer leaves as a Response or an
Error; a Prepare of ours whose data is such an entry leaves as the plugin would send it, if the peer isn't isthmus. What
decides about them, bounds them and orders their answers is the kernel, as with all packets.
"""

from typing import Final, final

from isthmus.errors import CodecError, plain
from isthmus.ilp import subprotocol
from isthmus.ilp.codes import ErrorCode
from isthmus.ilp.ildcp import PEER_CONDITION, PEER_FULFILLMENT
from isthmus.ilp.packet import (
    Fulfill,
    Prepare,
    Reject,
    decode_prepare,
    decode_reply,
    encode_fulfill,
    encode_prepare,
    encode_reject,
)
from isthmus.ilp.subprotocol import CLAIM, NAMES, Entry
from isthmus.links.btp import codec
from isthmus.links.btp.codec import (
    ERROR_NAMES,
    BtpError,
    BtpMessage,
    BtpPacket,
    BtpResponse,
    BtpTransfer,
    ProtocolData,
)

SETTLE: Final = "peer.settle"
QUESTION_MS: Final = 30_000  # how long our engine may take; plugins wait for 35 s
# Requests without an answer, each way: far more than the kernel leaves open. Beyond it the oldest is forgotten.
CARRIED_MAX: Final = 256
MESSAGE_CHARS_MAX: Final = 500
# The destination, in a Prepare: behind the body's length, of one to three bytes, and its fixed fields.
_SETTLE_ENTRY: Final = b"\x0bpeer.settle"
_SETTLE_FROM: Final = 59
_SETTLE_UPTO: Final = _SETTLE_FROM + 2 + len(_SETTLE_ENTRY)


def is_to_settle(packet: bytes) -> bool:
    """Whether a Prepare goes to `peer.settle`. Cheap: it is asked of each that leaves to a peer that isn't isthmus."""
    return packet.find(_SETTLE_ENTRY, _SETTLE_FROM, _SETTLE_UPTO) >= 0


@final
class Carrier:
    """What is carried on one connection."""

    __slots__ = ("_ours", "_theirs")

    def __init__(self) -> None:
        self._theirs: dict[int, int] = {}  # by request id: when it came (wall ms); each waits for our answer
        self._ours: dict[int, str] = {}  # by request id: the sub-protocol

    # --- what the peer asks ---

    def takes(self, packet: BtpMessage | BtpTransfer) -> bool:
        """Whether it is one of those that are carried. Claims come by Transfers, all others by Messages."""
        if not packet.protocol_data:
            return False
        name = packet.protocol_data[0].name
        return name == CLAIM if isinstance(packet, BtpTransfer) else name in NAMES and name != CLAIM

    def take(self, packet: BtpMessage | BtpTransfer, wall_ms: int) -> bytes:
        """The Prepare that it is to us. CodecError if its data isn't what its content type says."""
        first = packet.protocol_data[0]
        entry = Entry(
            first.name, first.content_type, first.data, packet.amount if isinstance(packet, BtpTransfer) else None
        )
        try:
            data = subprotocol.encode(entry)
            prepare = encode_prepare(Prepare(0, wall_ms + QUESTION_MS, PEER_CONDITION, SETTLE, data))
        except ValueError:
            raise CodecError(first.name, 0, "its data is too long, or not of its content type") from None
        self._theirs[packet.request_id] = wall_ms
        _bound(self._theirs)
        return prepare

    @property
    def owes_answers(self) -> bool:
        return bool(self._theirs)

    def answer(self, request_id: int, reply: bytes) -> bytes | None:
        """The frame that answers the peer; None if this reply is for something else."""
        asked_at = self._theirs.pop(request_id, None)
        if asked_at is None:
            return None
        packet = decode_reply(reply)
        if isinstance(packet, Reject):
            code = "T00" if packet.code[:1] != "F" else "F00"
            text = packet.message.encode()[: codec.ERROR_DATA_BYTES_MAX]
            return codec.encode(BtpError(request_id, code, ERROR_NAMES[code], asked_at, text))
        entries = []
        if packet.data:
            try:
                entry = subprotocol.decode(packet.data)
            except CodecError:  # an engine that takes such a question, and answers in words of its own
                text = b"the settlement engine speaks another protocol"
                return codec.encode(BtpError(request_id, "F00", ERROR_NAMES["F00"], asked_at, text))
            entries = [ProtocolData(entry.name, entry.content_type, entry.data)]
        return codec.encode(BtpResponse(request_id, entries))

    # --- what we ask ---

    def ask(self, request_id: int, prepare: bytes) -> bytes | None:
        """The frame for a Prepare to `peer.settle`; None if its data is nothing that a plugin knows."""
        try:
            entry = subprotocol.decode(decode_prepare(prepare).data)
        except CodecError:
            return None
        entries = [ProtocolData(entry.name, entry.content_type, entry.data)]
        self._ours[request_id] = entry.name
        _bound(self._ours)
        packet: BtpPacket = BtpMessage(request_id, entries)
        if entry.amount is not None:
            packet = BtpTransfer(request_id, entry.amount, entries)
        return codec.encode(packet)

    def answered(self, packet: BtpResponse | BtpError) -> bytes | None:
        """The ILP reply that the peer's answer is to us; None if it answers something else."""
        name = self._ours.pop(packet.request_id, None)
        if name is None:
            return None
        if isinstance(packet, BtpError):
            code = ErrorCode.F00_BAD_REQUEST if packet.code[:1] == "F" else ErrorCode.T00_INTERNAL_ERROR
            said = packet.data.decode("utf-8", "replace") or packet.name
            return encode_reject(Reject(code, SETTLE, plain(said, MESSAGE_CHARS_MAX)))
        found = next((one for one in packet.protocol_data if one.name == name), None)
        if found is None:
            return encode_fulfill(Fulfill(PEER_FULFILLMENT, b""))
        try:
            data = subprotocol.encode(Entry(found.name, found.content_type, found.data))
            return encode_fulfill(Fulfill(PEER_FULFILLMENT, data))
        except ValueError:
            said = f"the answer's {name} is too long, or not of its content type"
            return encode_reject(Reject(ErrorCode.F00_BAD_REQUEST, SETTLE, said))


def _bound(carried: dict[int, int] | dict[int, str]) -> None:
    if len(carried) > CARRIED_MAX:
        del carried[next(iter(carried))]
