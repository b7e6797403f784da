"""What a session tells its shell to do: frames to write, packets for the owner, orders about the connection."""

from dataclasses import dataclass, field
from typing import TypeAlias, final

from isthmus.connector.events import AccountId, Inbound, Log, Undelivered
from isthmus.links.btp.codec import BtpError, ProtocolData


@dataclass(slots=True)
class Ready:
    """Authenticated. `is_isthmus`: the peer announced a session id of its own."""

    account: AccountId
    is_isthmus: bool


@dataclass(slots=True)
class Close:
    """Close the connection with this WebSocket status, after the frames beside it were written."""

    code: int
    why: str
    refused: bool = False  # by the server, with a final code: asking again soon won't help (BTP-14)
    at_once: bool = False  # the peer takes nothing any more, so no farewell


@dataclass(slots=True)
class Ping:
    """Send a WebSocket ping."""


@dataclass(slots=True)
class Asked:
    """The peer's Message of a registered sub-protocol; answer with `Session.answer` or `Session.refuse`."""

    request_id: int
    protocol_data: list[ProtocolData]


@dataclass(slots=True)
class Answered:
    """The outcome of our sub-protocol request. `answer` is None if none came in time, or the connection ended."""

    request_id: int
    answer: list[ProtocolData] | BtpError | None


Order: TypeAlias = Ready | Close | Ping | Asked | Answered | Log


@final
@dataclass(slots=True)
class Output:
    """What one call caused. To carry out in this order: frames, orders but Close, packets, failures, Close."""

    frames: list[bytes] = field(default_factory=list)
    packets: list[Inbound] = field(default_factory=list)
    failures: list[Undelivered] = field(default_factory=list)
    orders: list[Order] = field(default_factory=list)
