"""Payment channels as operators see and handle them, the same for all engines that have some."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, final, runtime_checkable

from isthmus.connector.events import AccountId
from isthmus.ilp.asset import Asset
from isthmus.settlement.promises import Phase, Promises

OUT = "out"  # ours, by which we pay
IN = "in"  # the peer's, by which we are paid
BOTH = "both"  # by which either pays

FUNDS_UNDER_WAY = "funds for this channel are under way already"


@final
@dataclass(slots=True, frozen=True, kw_only=True)
class Channel:
    """One channel with a peer, as it was seen last. Amounts are in the ledger's units.

    `paid`: all that its owner has signed for the other side. `redeemed`: what the ledger has given out of that. What
    lies between is worth what the claim is worth: it must be redeemed before `ends_at`. Both are 0 of a channel that
    holds money for both sides at any time (`BOTH`).
    """

    id: str
    direction: str
    state: str  # for people: "open", "closing", …
    unit: Asset
    capacity: int
    can_send: int = 0  # what we can pay by it still
    can_receive: int = 0  # what the peer can
    paid: int = 0
    redeemed: int = 0
    ends_at: int | None = None  # wall ms from which on its owner can take the rest; None: nobody has asked for that
    delay_s: int | None = None  # from the owner's wish to its end
    text: str = ""

    @property
    def is_to_us(self) -> bool:
        return self.direction == IN

    @property
    def unredeemed(self) -> int:
        return max(0, self.paid - self.redeemed)

    def to_json(self) -> dict[str, Any]:
        """Amounts as strings in the ledger's units; what isn't known is left out."""
        found: dict[str, Any] = {
            "id": self.id,
            "direction": self.direction,
            "state": self.state,
            "unit_code": self.unit.code,
            "unit_scale": self.unit.scale,
            "capacity": str(self.capacity),
            "can_send": str(self.can_send),
            "can_receive": str(self.can_receive),
            "claimed": str(self.paid),
            "redeemed": str(self.redeemed),
            "unredeemed": str(self.unredeemed),
            "text": self.text,
        }
        if self.ends_at is not None:
            found["ends_at_ms"] = self.ends_at
        if self.delay_s is not None:
            found["settle_delay_s"] = self.delay_s
        return found


def left_open(account: AccountId, promises: Promises, *, is_wanted: bool, incoming: int) -> list[str]:
    """What must be done about channels before their account can go, for people.

    `is_wanted`: one of ours is about to be opened. `incoming`: how many of the peer's are not at their end: what was
    credited of one that is forgotten could be credited again.
    """
    close = f"isthmus channels close {account}"
    left: list[str] = []
    if promises.phase is Phase.OPEN:
        left.append(f"our channel to it is open: {close}")
    elif promises.phase is Phase.ENDING:
        left.append("our channel to it is closing: wait until isthmus channels list doesn't show it")
    elif promises.phase is Phase.OPENING or is_wanted:
        left.append(f"a channel to it is being opened: wait until it is, then {close}")
    if incoming:
        left.append(f"{incoming} of its channels to us are open: isthmus channels redeem {account} --end")
    return left


@runtime_checkable
class ChannelKeeper(Protocol):
    """What an `Engine` with channels does for operators. All may raise LedgerError and MessageRefusedError."""

    def unit(self, account: AccountId) -> Asset:
        """What amounts of channels are in."""
        ...

    def channels(self, account: AccountId) -> Sequence[Channel]:
        """With this peer, as they were seen last: nothing is asked for now."""
        ...

    async def open_channel(self, account: AccountId, amount: int) -> bool:
        """Begin to open a channel to the peer that holds so much. False: there is one, or it is under way."""
        ...

    async def add_to_channel(self, account: AccountId, amount: int) -> bool:
        """Begin to put so much more into our channel. False: none is open, or funds are under way."""
        ...

    async def close_channel(self, account: AccountId) -> bool:
        """Begin to end our channel, with the peer's agreement or without. False: none is open."""
        ...

    async def redemption_fee(self, account: AccountId) -> int | None:
        """What redeeming costs now, in `unit`; None if the ledger takes its fee in another asset."""
        ...

    async def redeem_channels(self, account: AccountId, *, and_end: bool) -> int:
        """Begin to redeem what the peer's channels owe us, and end them if wanted; how many."""
        ...
