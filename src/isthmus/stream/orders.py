"""What the STREAM machines hand to their shell: packets to send, answers, and news for the application.

The order in the list is the order in which to act. Nothing here is encrypted bytes only: `SendPrepare.data` and the
replies' data are; the rest is for the shell's own use.
"""

from dataclasses import dataclass, field
from enum import Enum
from fractions import Fraction
from typing import TypeAlias, final

from isthmus.ilp.asset import Asset
from isthmus.ilp.packet import Fulfill, Prepare, Reject


class Failure(Enum):
    """Why sending ended without reaching its goal."""

    NO_ROUTE = "no route to the receiver"
    NO_ANSWER = "the receiver doesn't answer"
    NO_LIQUIDITY = "the path has no liquidity"
    NO_CAPACITY = "the path's packets are too small"
    RATE_TOO_LOW = "the path's exchange rate is below the minimum"
    TOO_SMALL = "the amount is too small to arrive"
    NOT_EXPRESSIBLE = "the amount can't be expressed on this path"
    NO_MINIMUM = "no minimum exchange rate was given"
    RECEIVER_FULL = "the receiver takes no more money"
    REFUSED = "the receiver refuses"
    PATH_ERROR = "the path refuses"
    CLOSED = "the connection is closed"


# --- packets ---------------------------------------------------------------------------------------------------------


@final
@dataclass(slots=True)
class SendPrepare:
    """Send this Prepare; give its reply back under `number`, which is unique in the connection."""

    number: int
    amount: int
    timeout_ms: int  # the shell adds it to its wall clock for the expiry
    condition: bytes
    destination: str
    data: bytes

    def prepare(self, wall_ms: int) -> Prepare:
        """The ILP packet, expiring `timeout_ms` after `wall_ms`."""
        return Prepare(self.amount, wall_ms + self.timeout_ms, self.condition, self.destination, self.data)


@final
@dataclass(slots=True)
class StreamCredit:
    """What one packet brought to one stream."""

    stream_id: int
    amount: int
    total: int  # received on this stream, this amount included


@final
@dataclass(slots=True)
class Credit:
    """Money that came in with one packet. To be durable before the Fulfill leaves; the application is told after."""

    connection_id: bytes
    sequence: int
    fingerprint: bytes  # 8 bytes of the condition: tells a repeated packet from another with the same sequence
    amount: int
    money: list[StreamCredit]


@final
@dataclass(slots=True)
class SendFulfill:
    """Answer a received Prepare. `credit` is None if it brought no money, or is a repetition."""

    request: int
    fulfill: Fulfill
    credit: Credit | None


@final
@dataclass(slots=True)
class SendReject:
    request: int
    reject: Reject


@final
@dataclass(slots=True)
class DecisionWanted:
    """Money is held: `accept(request)` or `refuse(request)` before the deadline, or it goes back."""

    request: int
    amount: int
    money: list[tuple[int, int]]  # stream id, amount


@final
@dataclass(slots=True)
class GrantWanted:
    """Make durable that up to `total` of our money may be on its way or gone; then call `grant` with the same.

    Also that packets with numbers below `sequence_ceiling` may have left.
    """

    total: int
    sequence_ceiling: int


# --- news of streams -------------------------------------------------------------------------------------------------


@final
@dataclass(slots=True)
class StreamOpened:
    """The peer opened a stream."""

    stream_id: int


@final
@dataclass(slots=True)
class DataArrived:
    """There are bytes to `read`."""

    stream_id: int


@final
@dataclass(slots=True)
class PeerEnded:
    """The peer will send nothing more on the stream; with another code than NoError it broke it off."""

    stream_id: int
    code: int
    message: str


@final
@dataclass(slots=True)
class StreamClosed:
    """Both sides are finished with the stream; it is forgotten."""

    stream_id: int


@final
@dataclass(slots=True)
class SendDone:
    """All that was asked for has been sent. `unsent` is what is too small to arrive; raise the maximum to send it."""

    stream_id: int
    sent: int
    delivered: int
    unsent: int


@final
@dataclass(slots=True)
class SendFailed:
    """The connection gave up sending money and data. Nothing of ours is in flight any more."""

    failure: Failure
    code: str = ""  # the ILP error code behind it, if any
    message: str = ""
    triggered_by: str = ""


@final
@dataclass(slots=True)
class PeerTotal:
    """The answer to `ask_total`: what the peer says that it received on the stream; None if it doesn't say."""

    stream_id: int
    total_received: int | None
    receive_max: int | None


@final
@dataclass(slots=True)
class ReceiptArrived:
    """A newer receipt (RFC 0039) for what we sent."""

    stream_id: int
    receipt: bytes


# --- news of the connection ------------------------------------------------------------------------------------------


@final
@dataclass(slots=True)
class PeerAsset:
    """The peer told us what its account counts in."""

    asset: Asset


@final
@dataclass(slots=True)
class PeerAddress:
    """The peer told us its (new) address."""

    address: str


@final
@dataclass(slots=True)
class StreamsAllowed:
    """The peer lets us open streams up to this id."""

    stream_id_max: int


@final
@dataclass(slots=True)
class Quote:
    """What the path offers now, found out with packets that nobody can fulfil."""

    source_amount: int
    destination_amount: int  # estimate at the rate seen
    destination_minimum: int  # what arrives at least; 0 if no minimum rate is set
    source_max: int  # what leaves at most: for a fixed destination amount, at the minimum rate
    rate: Fraction  # destination units per source unit
    packet_max: int | None  # the path's maximum packet amount; None if no connector named one


@final
@dataclass(slots=True)
class QuoteReady:
    quote: Quote


@final
@dataclass(slots=True)
class QuoteFailed:
    failure: Failure
    code: str = ""
    message: str = ""
    triggered_by: str = ""
    quote: Quote | None = None  # what the path offered, if that is the trouble


@final
@dataclass(slots=True)
class ConnectionClosed:
    """The connection is over. `code` is a STREAM error code."""

    code: int
    message: str
    by_peer: bool


@final
@dataclass(slots=True)
class Totals:
    """What a sender knows.

    The money gone is between `sent` and `sent + unknown`, what arrived is between `delivered` and `delivered_max`.
    """

    sent: int = 0
    delivered: int = 0
    delivered_max: int = 0
    unknown: int = 0  # source units of packets whose outcome nobody told
    in_flight: int = 0
    packets_sent: int = 0
    packets_in_flight: int = 0
    packets_fulfilled: int = 0
    packets_unknown: int = 0
    rejected: dict[str, int] = field(default_factory=dict)  # by ILP code


Order: TypeAlias = (
    SendPrepare
    | SendFulfill
    | SendReject
    | DecisionWanted
    | GrantWanted
    | StreamOpened
    | DataArrived
    | PeerEnded
    | StreamClosed
    | SendDone
    | SendFailed
    | PeerTotal
    | ReceiptArrived
    | PeerAsset
    | PeerAddress
    | StreamsAllowed
    | QuoteReady
    | QuoteFailed
    | ConnectionClosed
)
