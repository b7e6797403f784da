"""What both halves of a connection share: streams, limits, what each side knows of the other, and how it ends.

The sending half puts frames of ours into Prepares, the receiving half into replies; frames of the peer come both
ways and are applied here, once, whatever carried them.
"""

from collections import deque
from collections.abc import Callable
from typing import Final, final

from isthmus.errors import plain
from isthmus.ilp.address import is_valid
from isthmus.ilp.asset import Asset
from isthmus.oer import U64_MAX
from isthmus.stream.crypto import Keys
from isthmus.stream.orders import (
    ConnectionClosed,
    Order,
    PeerAddress,
    PeerAsset,
    PeerEnded,
    PeerTotal,
    StreamClosed,
    StreamOpened,
    StreamsAllowed,
)
from isthmus.stream.packet import (
    NO_ERROR,
    PROTOCOL_VIOLATION,
    STREAM_ID_ERROR,
    ConnectionAssetDetails,
    ConnectionClose,
    ConnectionDataBlocked,
    ConnectionMaxData,
    ConnectionMaxStreamId,
    ConnectionNewAddress,
    ConnectionStreamIdBlocked,
    Frame,
    StreamClose,
    StreamDataBlocked,
    StreamMaxData,
    StreamMaxMoney,
    StreamMoneyBlocked,
)
from isthmus.stream.settings import PEER_CONNECTION_BYTES, PEER_STREAM_BYTES, STREAM_ID_MAX_DEFAULT, Settings
from isthmus.stream.substream import Stream
from isthmus.stream.wire import IvSource

# Closed streams above the lowest one that is not: beyond so many, an id that was left out counts as closed.
CLOSED_IDS_MAX: Final = 1_024
ASSET_CODE_CHARS_MAX: Final = 64
CONTROL_QUEUE_MAX: Final = 256  # frames waiting to leave; beyond it the oldest go: all of them can be asked for again


@final
class Session:
    """Shared state of one connection's two halves."""

    def __init__(
        self, settings: Settings, shared_secret: bytes, peer_address: str, random_bytes: Callable[[int], bytes]
    ) -> None:
        self.settings: Final = settings
        self.keys: Final = Keys(shared_secret)
        self.random_bytes: Final = random_bytes
        self.ivs: Final = IvSource(random_bytes)
        self.orders: list[Order] = []
        # The peer.
        self.peer_address = peer_address
        self.peer_validated = bool(peer_address) and not settings.is_server
        self.validate_from = 0  # replies to packets from this number on come from the new address
        self.peer_asset: Asset | None = None
        self.peer_heard = False  # it has authenticated a packet of ours, so it knows our address
        # Streams.
        self.streams: dict[int, Stream] = {}
        self.committed_by_ended = 0  # source units of streams that are gone: sent, or in packets without an outcome
        self._closed_ids: dict[int, None] = {}
        self._closed_floor = [0, 0]  # by parity: all ids up to here are closed
        self._next_stream_id = 2 if settings.is_server else 1
        self.stream_id_max = settings.stream_id_max  # that the peer may open
        self.peer_stream_id_max = STREAM_ID_MAX_DEFAULT
        # Bytes over all streams.
        self.bytes_in = 0
        self.bytes_read = 0
        self.bytes_advertised = settings.connection_bytes_max
        self.bytes_out = 0
        self.peer_bytes_max = PEER_CONNECTION_BYTES
        # What to tell the peer.
        self.control: deque[Frame] = deque()  # worth a packet of their own
        self.tell = True  # something for the next reply
        self.tell_greeting = True
        self.tell_bytes = True
        self.tell_stream_id_max = False
        # The end.
        self.close_frame: ConnectionClose | None = None  # we are closed, and this is why
        self.close_unsent = False
        self.ending = False  # some stream may be through
        self.closed = False
        self.closed_told = False

    # --- streams -------------------------------------------------------------------------------------------------

    def open_stream(self) -> Stream | None:
        """Open one of ours; None at the peer's limit, which it is then told (STREAM-18)."""
        stream_id = self._next_stream_id
        if stream_id > self.peer_stream_id_max:
            self.queue(ConnectionStreamIdBlocked(stream_id))
            return None
        self._next_stream_id += 2
        return self.add_stream(stream_id, ours=True)

    def add_stream(self, stream_id: int, *, ours: bool) -> Stream:
        settings = self.settings
        stream = Stream(
            stream_id,
            ours=ours,
            receive_max=settings.receive_max,
            window=settings.stream_bytes_max,
            peer_window=PEER_STREAM_BYTES,
        )
        self.streams[stream_id] = stream
        if ours and stream_id >= self._next_stream_id:
            self._next_stream_id = stream_id + 2
        self.tell = True
        return stream

    def is_ours(self, stream_id: int) -> bool:
        """Clients open odd streams, servers even ones (STREAM-17)."""
        return (stream_id % 2 == 0) == self.settings.is_server

    def was_closed(self, stream_id: int) -> bool:
        return stream_id in self._closed_ids or 0 < stream_id <= self._closed_floor[stream_id % 2]

    def admit(self, stream_id: int) -> bool:
        """Open a stream that the peer uses for the first time; False if that is a violation: we are closed then."""
        if self.is_ours(stream_id) or stream_id == 0:
            self.fail(PROTOCOL_VIOLATION, f"stream {stream_id} is not the peer's to open")
            return False
        if stream_id > self.stream_id_max:
            self.fail(STREAM_ID_ERROR, f"stream {stream_id} is above the maximum of {self.stream_id_max}")
            return False
        self.add_stream(stream_id, ours=False)
        if stream_id * 4 > self.stream_id_max * 3:
            self.tell_stream_id_max = True
        self.orders.append(StreamOpened(stream_id))
        return True

    def remove(self, stream: Stream) -> None:
        """Both sides are finished with the stream. The peer may open another in its stead."""
        stream_id = stream.id
        del self.streams[stream_id]
        self.committed_by_ended += stream.committed
        parity = stream_id % 2
        self._closed_ids[stream_id] = None
        floor = self._closed_floor[parity] or (parity - 2)
        while floor + 2 in self._closed_ids or floor + 2 == 0:
            floor += 2
            self._closed_ids.pop(floor, None)
        if len(self._closed_ids) > CLOSED_IDS_MAX:
            floor = max(closed for closed in self._closed_ids if closed % 2 == parity)
            self._closed_ids = {closed: None for closed in self._closed_ids if closed > floor or closed % 2 != parity}
        self._closed_floor[parity] = max(floor, 0)
        self.orders.append(StreamClosed(stream_id))
        if not stream.ours:
            self.stream_id_max = min(self.stream_id_max + 2, U64_MAX)
            self.queue(ConnectionMaxStreamId(self.stream_id_max))

    # --- telling the peer ----------------------------------------------------------------------------------------

    def queue(self, frame: Frame) -> None:
        """Put a frame into a Prepare soon, and into a reply if one goes first."""
        if self.peer_address:
            if len(self.control) >= CONTROL_QUEUE_MAX:
                self.control.popleft()
            self.control.append(frame)
        self.tell = True
        if isinstance(frame, ConnectionMaxStreamId):
            self.tell_stream_id_max = True

    def greeting(self) -> list[Frame]:
        """Our address and asset, in Prepares until the peer has answered one (RFC 0029 §4.3)."""
        frames: list[Frame] = []
        if self.settings.address:
            frames.append(ConnectionNewAddress(self.settings.address))
        if self.settings.asset is not None:
            frames.append(ConnectionAssetDetails(self.settings.asset.code, self.settings.asset.scale))
        return frames

    def reply_frames(self) -> list[Frame]:
        """What the peer should know, for the reply that goes now."""
        frames: list[Frame] = []
        self.tell = False
        if self.close_frame is not None:
            self.tell = True  # in every reply from now on
            return [self.close_frame]
        if self.tell_greeting:
            self.tell_greeting = False
            asset = self.settings.asset
            if asset is not None:
                frames.append(ConnectionAssetDetails(asset.code, asset.scale))
            self.tell_stream_id_max = True
        if self.tell_stream_id_max:
            self.tell_stream_id_max = False
            frames.append(ConnectionMaxStreamId(self.stream_id_max))
        if self.tell_bytes:
            self.tell_bytes = False
            frames.append(ConnectionMaxData(self.bytes_advertised))
        for stream in self.streams.values():
            if stream.tell_money:
                stream.tell_money = False
                frames.append(stream.max_money())
            if stream.tell_data:
                stream.tell_data = False
                frames.append(StreamMaxData(stream.id, stream.bytes_in.advertised))
            if stream.close_queued and not stream.close_acknowledged:
                frames.append(StreamClose(stream.id, stream.close_code, stream.close_message))
                if not self.peer_address:
                    stream.close_acknowledged = True  # this is the only way to say it
        return frames

    # --- hearing the peer ----------------------------------------------------------------------------------------

    def apply(self, frames: list[Frame], answers: int | None = None) -> None:
        """Apply what the peer says of itself; money, data and receipts are for the two halves.

        `answers`: the number of our packet that it says it in the reply to.
        """
        for frame in frames:
            if isinstance(frame, StreamMaxMoney):
                self._max_money(frame, answers)
            elif isinstance(frame, StreamMaxData):
                stream = self.streams.get(frame.stream_id)
                if stream is not None and frame.max_offset > stream.bytes_out.peer_max:
                    stream.bytes_out.peer_max = frame.max_offset
            elif isinstance(frame, ConnectionMaxData):
                # ilp-protocol-stream starts with 65534, our assumption: nothing is ever taken back (STREAM-21).
                self.peer_bytes_max = max(self.peer_bytes_max, frame.max_offset)
            elif isinstance(frame, StreamMoneyBlocked):
                stream = self.streams.get(frame.stream_id)
                if stream is not None:
                    stream.tell_money = self.tell = True
            elif isinstance(frame, StreamDataBlocked):
                stream = self.streams.get(frame.stream_id)
                if stream is not None:
                    stream.bytes_in.advance()
                    stream.tell_data = self.tell = True
            elif isinstance(frame, StreamClose):
                self._stream_close(frame)
            else:
                self._apply_rare(frame)

    def _apply_rare(self, frame: Frame) -> None:
        if isinstance(frame, ConnectionNewAddress):
            self._new_address(frame.address)
        elif isinstance(frame, ConnectionAssetDetails):
            self._asset_details(frame)
        elif isinstance(frame, ConnectionMaxStreamId):
            if frame.max_stream_id > self.peer_stream_id_max:
                self.peer_stream_id_max = frame.max_stream_id
                self.orders.append(StreamsAllowed(frame.max_stream_id))
        elif isinstance(frame, ConnectionStreamIdBlocked):
            self.tell_stream_id_max = self.tell = True
        elif isinstance(frame, ConnectionDataBlocked):
            self.tell_bytes = self.tell = True
        elif isinstance(frame, ConnectionClose):
            self._peer_closed(frame)

    def _max_money(self, frame: StreamMaxMoney, answers: int | None) -> None:
        stream = self.streams.get(frame.stream_id)
        if stream is None:
            return
        stream.learn_peer_max(frame.receive_max, frame.total_received)
        # The reply to a packet before the last money may come after that money's, and wouldn't count it.
        if stream.asked and (answers is None or answers > stream.last_money):
            stream.asked = False
            self.orders.append(PeerTotal(stream.id, frame.total_received, frame.receive_max))

    def _stream_close(self, frame: StreamClose) -> None:
        stream = self.streams.get(frame.stream_id)
        if stream is None or stream.bytes_out.dropped or (stream.peer_ended and frame.code == NO_ERROR):
            return
        stream.peer_ended = self.ending = True
        self.orders.append(PeerEnded(stream.id, frame.code, frame.message))
        if frame.code != NO_ERROR:
            # Broken off: what we had queued has nowhere to go.
            stream.bytes_out.drop()
            stream.stopped = stream.ending = True
            stream.close_queued = stream.close_acknowledged = True

    def _new_address(self, address: str) -> None:
        if not is_valid(address) or address == self.peer_address:
            self.tell_greeting = self.tell = True  # it hasn't heard us yet, or asks again
            return
        self.peer_address = address
        self.peer_validated = False  # STREAM-25: one small packet first
        self.validate_from = 0
        self.tell_greeting = self.tell = True
        self.orders.append(PeerAddress(address))

    def _asset_details(self, frame: ConnectionAssetDetails) -> None:
        # People read it beside amounts, and it is kept for ever.
        asset = Asset(plain(frame.code, ASSET_CODE_CHARS_MAX), frame.scale)
        if self.peer_asset is None:
            self.peer_asset = asset
            self.orders.append(PeerAsset(asset))
        elif asset != self.peer_asset:
            self.fail(PROTOCOL_VIOLATION, "asset details never change")  # STREAM-24

    def _peer_closed(self, frame: ConnectionClose) -> None:
        if self.closed:
            return
        self.closed = True
        self.close_frame = ConnectionClose(NO_ERROR)
        self.tell = True
        self.control.clear()
        self._tell_closed(frame.code, frame.message, by_peer=True)

    # --- the end -------------------------------------------------------------------------------------------------

    def fail(self, code: int, message: str) -> None:
        """Close because the peer broke a rule."""
        if self.close_frame is None:
            self.close_with(ConnectionClose(code, message))
            self._tell_closed(code, message, by_peer=False)

    def close_with(self, frame: ConnectionClose) -> None:
        """From now on every reply says that the connection is closed, and one Prepare does."""
        self.closed = True
        self.close_frame = frame
        self.close_unsent = bool(self.peer_address)
        self.control.clear()
        self.tell = True

    def _tell_closed(self, code: int, message: str, *, by_peer: bool) -> None:
        if not self.closed_told:
            self.closed_told = True
            self.orders.append(ConnectionClosed(code, message, by_peer))

    def tell_closed(self) -> None:
        """Our own close has reached the peer, or never will."""
        frame = self.close_frame
        if frame is not None:
            self._tell_closed(frame.code, frame.message, by_peer=False)
