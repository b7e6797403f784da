"""One stream of a connection: its money, its bytes, and how far it is closed on each side (RFC 0029 §4.4)."""

from typing import Final, final

from isthmus.oer import U64_MAX
from isthmus.stream.data import IncomingBytes, OutgoingBytes
from isthmus.stream.packet import NO_ERROR, StreamMaxMoney


@final
class Stream:
    """State that sender and receiver share. Source units are ours, destination units the peer's."""

    __slots__ = (
        "asked",
        "bytes_in",
        "bytes_out",
        "certain",
        "close_acknowledged",
        "close_code",
        "close_message",
        "close_queued",
        "delivered",
        "delivered_max",
        "delivery",
        "done_told",
        "ending",
        "expected",
        "final_tries",
        "half_open",
        "held",
        "id",
        "in_flight",
        "last_money",
        "ours",
        "packets_in_flight",
        "peer_ended",
        "peer_max",
        "peer_received",
        "peer_unlimited",
        "receipt",
        "receipt_total",
        "receive_max",
        "received",
        "send_max",
        "sent",
        "stopped",
        "tell_data",
        "tell_money",
        "unknown",
        "vague",
    )

    def __init__(self, stream_id: int, *, ours: bool, receive_max: int | None, window: int, peer_window: int) -> None:
        self.id: Final = stream_id
        self.ours: Final = ours  # we opened it
        # Money out, in source units; totals, never increments.
        self.send_max = 0
        self.sent = 0
        self.in_flight = 0
        self.unknown = 0  # in packets whose outcome nobody told; counts as sent
        self.packets_in_flight = 0
        # Money out, in destination units.
        self.delivered = 0  # at least
        self.delivered_max = 0  # if all arrived that the peer said nothing about
        self.certain = 0  # of it, what the peer said itself
        self.vague = 0  # source units that left, or may have, without a word of it
        self.expected = 0  # at most, of what is in flight or unknown
        self.delivery: int | None = None  # deliver so much and no more; None for a fixed source amount
        self.final_tries = 0
        self.stopped = False  # nothing more is sent, whatever happens to what is in flight
        self.peer_max: int | None = None  # None: the peer set no limit, or not yet
        self.peer_unlimited = False  # it said so, for good
        self.peer_received = 0
        self.receipt = b""
        self.receipt_total = 0
        self.done_told = True
        self.asked = False  # the application waits for the peer's total
        self.last_money = 0  # number of the newest packet with money of this stream
        # Money in, in our units.
        self.receive_max = receive_max  # None: everything
        self.received = 0
        self.held = 0  # waits for the application's decision; counts against the maximum
        self.tell_money = True
        # Bytes.
        self.bytes_in = IncomingBytes(window)
        self.bytes_out = OutgoingBytes(peer_window)
        self.tell_data = True
        # Closing.
        self.ending = False  # we shall send nothing more than what is queued
        self.half_open = False  # but the peer may
        self.close_code = NO_ERROR
        self.close_message = ""
        self.close_queued = False
        self.close_acknowledged = False
        self.peer_ended = False

    @property
    def committed(self) -> int:
        """Source units gone or on their way."""
        return self.sent + self.in_flight + self.unknown

    @property
    def sendable(self) -> int:
        """Source units that wait to be sent."""
        return self.send_max - self.committed

    @property
    def deliverable(self) -> int | None:
        """Destination units that may still be sent without going beyond what we or the peer want; None: no limit.

        The peer's own count may run ahead of ours, since replies get lost; neither is ever counted twice.
        """
        left: int | None = None
        if self.delivery is not None:
            left = self.delivery - self.delivered - self.expected
        if self.peer_max is not None:
            peer_left = self.peer_max - max(self.peer_received, self.delivered) - self.expected
            left = peer_left if left is None else min(left, peer_left)
        return left

    @property
    def wants_money(self) -> bool:
        """Whether money is still to be sent."""
        if self.stopped:
            return False
        if self.delivery is not None and self.delivered + self.expected >= self.delivery:
            return False
        return self.send_max > self.sent + self.in_flight + self.unknown

    @property
    def receivable(self) -> int | None:
        """How much more we take; None for everything."""
        return None if self.receive_max is None else max(0, self.receive_max - self.received - self.held)

    @property
    def quiet(self) -> bool:
        """Nothing of ours is queued or in flight on it."""
        return self.packets_in_flight == 0 and self.bytes_out.finished and not self.wants_money

    def max_money(self) -> StreamMaxMoney:
        """Our limit and total, for the peer; both saturate on the wire (STREAM-15)."""
        maximum = U64_MAX if self.receive_max is None else self.receive_max
        return StreamMaxMoney(self.id, maximum, self.received)

    def learn_peer_max(self, receive_max: int, total_received: int) -> bool:
        """Take the peer's limit and total; neither ever falls (STREAM-21). True if we may send more than before."""
        self.peer_received = max(self.peer_received, total_received)
        before = self.peer_max
        if self.peer_unlimited:
            return False
        if receive_max >= U64_MAX:
            self.peer_unlimited = True  # saturated: no limit that could be written
            self.peer_max = None
            return before is not None
        if before is None or receive_max > before:
            self.peer_max = receive_max
            return before is not None
        return False
