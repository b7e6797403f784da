"""What an engine is configured with. Pure."""

from dataclasses import dataclass
from typing import Final, final

# A transaction may wait for so many ledgers, each of three to five seconds; then it certainly can't come any more.
LEDGERS_MAX: Final = 20


@final
@dataclass(slots=True, frozen=True, kw_only=True)
class LedgerSettings:
    """The network, and how we speak with it. Fees are in drops."""

    urls: tuple[str, ...]
    network_id: int
    fee_max: int = 5_000
    fee_max_urgent: int = 1_000_000  # for what would be lost if it came late
    ledgers_max: int = LEDGERS_MAX
    poll_ms: int = 2_000


@final
@dataclass(slots=True, frozen=True, kw_only=True)
class ChannelPolicy:
    """When channels are opened, filled and redeemed. Amounts are in drops, delays in seconds."""

    deposit: int  # what a new channel holds at least, and what is added at a time
    reserve: int = 0  # more is added when less than this is left to sign
    claim_above: int = 0  # an open channel's claim is redeemed once so much is unredeemed; 0: only as it closes
    settle_delay: int = 86_400  # of the channels that we open
    settle_delay_min: int = 3_600  # the least for channels to us: so long we may be away
