"""What an engine is configured with. Pure."""

from dataclasses import dataclass, field
from typing import Final, final

from isthmus.ledgers.evm.fees import FeePolicy
from isthmus.ledgers.evm.octets import NO_ADDRESS

COIN_DECIMALS: Final = 18


@final
@dataclass(slots=True, frozen=True, kw_only=True)
class ChainSettings:
    """The chain, and how we speak with it."""

    urls: tuple[str, ...]
    chain_id: int
    contract: str  # the channels' contract
    token: str = NO_ADDRESS  # NO_ADDRESS: the chain's coin
    decimals: int = COIN_DECIMALS  # of coin or token
    confirmations: int = 12  # blocks, with its own, after which a block is taken to stay
    fees: FeePolicy = field(default_factory=FeePolicy)
    poll_ms: int = 4_000


@final
@dataclass(slots=True, frozen=True, kw_only=True)
class ChannelPolicy:
    """When channels are opened, filled and redeemed. Amounts are in the ledger's units, delays in seconds."""

    deposit: int  # what a new channel holds at least, and what is added at a time
    reserve: int = 0  # more is added when less than this is left to sign
    claim_above: int = 0  # an open channel's claim is redeemed once so much is unredeemed; 0: only as it closes
    settle_delay: int = 86_400  # of the channels that we open, unless the peer asks for more
    settle_delay_min: int = 43_200  # the least for channels to us: so long we may be away
    settle_delay_max: int = 7 * 86_400  # the most for channels that we open
