"""The bounds and terms of one STREAM connection."""

from dataclasses import dataclass
from typing import Final

from isthmus.ilp.asset import Asset
from isthmus.ilp.packet import AMOUNT_MAX

PACKETS_MAX: Final = 2**31  # per endpoint; more under one key would endanger AES-GCM (STREAM-12)
STREAM_ID_MAX_DEFAULT: Final = 20  # ten streams for each side (STREAM-18)

# What we assume that a peer takes before it says so: the defaults of ilp-protocol-stream.
PEER_STREAM_BYTES: Final = 16_384
PEER_CONNECTION_BYTES: Final = 65_534

# What we take: not below the assumption above, or such a peer would overrun us with its first packets. And no more
# than fits a packet: ilp-protocol-stream, given room, fills a packet's data one byte beyond ILP's limit.
STREAM_BYTES_MAX: Final = 32_000
CONNECTION_BYTES_MAX: Final = 262_144
SEND_BYTES_MAX: Final = 1_048_576  # written, but not yet taken by the peer, per stream

SEQUENCES_MAX: Final = 1_024  # answered money packets that are remembered, to know a repeated one
HELD_MAX: Final = 1_024  # packets whose money waits for the application
CHUNK_BYTES_MAX: Final = 32_000  # data in one packet: leaves room for the other frames
FRAMES_PER_PACKET_MAX: Final = 64  # control frames that ride along; each is below 1100 bytes, most below 20
CONTROL_BYTES_MAX: Final = 16_000

WINDOW_MAX: Final = 256  # packets in flight
TIMEOUT_MS: Final = 30_000  # from a Prepare's departure to its expiry
GRACE_MS: Final = 5_000  # beyond the expiry, until we stop waiting for the reply
STALL_MS: Final = 30_000  # without any progress


@dataclass(slots=True, frozen=True, kw_only=True)
class Settings:
    """How one end of a connection behaves."""

    is_server: bool = False
    connection_id: bytes = b""  # 16 bytes; names the connection in credits
    address: str = ""  # ours, told to the peer; empty if we can't be sent Prepares
    asset: Asset | None = None  # ours, told to the peer
    receive_max: int | None = None  # of each stream unless set otherwise; None takes everything
    ask: bool = False  # hold money until the application decides
    receipt_nonce: bytes = b""
    receipt_secret: bytes = b""
    first_sequence: int = 1  # above all that this secret was ever used with
    packet_amount_max: int = AMOUNT_MAX  # our own cap, besides the path's
    timeout_ms: int = TIMEOUT_MS
    stall_ms: int = STALL_MS
    window_max: int = WINDOW_MAX
    packets_max: int = PACKETS_MAX
    stream_id_max: int = STREAM_ID_MAX_DEFAULT
    stream_bytes_max: int = STREAM_BYTES_MAX
    connection_bytes_max: int = CONNECTION_BYTES_MAX

    def __post_init__(self) -> None:
        if bool(self.receipt_nonce) != bool(self.receipt_secret):
            raise ValueError("a receipt nonce and a receipt secret go together")
        if self.stream_bytes_max < PEER_STREAM_BYTES or self.connection_bytes_max < PEER_CONNECTION_BYTES:
            raise ValueError("the receive buffers are smaller than what peers send before they are told")
        if self.first_sequence < 1 or self.window_max < 1 or self.packet_amount_max < 1:
            raise ValueError("first_sequence, window_max and packet_amount_max are at least 1")
