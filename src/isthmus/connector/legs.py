"""The two legs of a packet on its way through us: each a transfer of its own, joined from the outgoing to the incoming.

The join goes one way only, so that decided legs are freed at once, without waiting for a cycle collector.
"""

from typing import TYPE_CHECKING, Final, final

if TYPE_CHECKING:
    from isthmus.connector.books import Account

# Why a leg was voided. The numbers are in journals: never change their meaning.
REJECTED: Final = 1  # the next hop said so
EXPIRED: Final = 2
WRONG_FULFILLMENT: Final = 3
UNDELIVERED: Final = 4  # the peer certainly didn't take the Prepare
NEVER_SENT: Final = 5  # the link went down, or the time ran out, before the Prepare was handed to it
# The next hop said nothing to these, or nothing that we believe: it may have fulfilled, and must be told.
UNSAID: Final = (EXPIRED, WRONG_FULFILLMENT, UNDELIVERED)
VOID_REASONS: Final = {
    REJECTED: "rejected",
    EXPIRED: "expired",
    WRONG_FULFILLMENT: "wrong fulfillment",
    UNDELIVERED: "undelivered",
    NEVER_SENT: "never sent",
}


@final
class IncomingLeg:
    """A peer's Prepare that we took: its amount is reserved until it is posted or voided."""

    __slots__ = (
        "account",
        "amount",
        "condition",
        "deadline",
        "expires_at",
        "fulfillment",
        "id",
        "request_id",
        "session",
    )

    def __init__(
        self,
        id: int,
        account: "Account",
        amount: int,
        expires_at: int,
        condition: bytes,
        session: bytes,
        request_id: int,
        deadline: int,
    ) -> None:
        self.id: Final = id
        self.account: Final = account
        self.amount: Final = amount
        self.expires_at: Final = expires_at  # wall ms, as the peer wrote it
        self.condition: Final = condition
        self.session: Final = session  # the peer's
        self.request_id: Final = request_id
        self.deadline = deadline  # `expires_at` on our monotonic clock; not part of the books
        self.fulfillment = b""  # 32 bytes once it was fulfilled


@final
class OutgoingLeg:
    """A Prepare of ours: its amount is reserved until it is posted or voided."""

    __slots__ = (
        "account",
        "amount",
        "condition",
        "deadline",
        "destination",
        "expires_at",
        "id",
        "incoming",
        "request_id",
        "rounding",
        "session",
        "spread",
        "started_at",
    )

    def __init__(
        self,
        id: int,
        account: "Account",
        amount: int,
        spread: int,
        rounding: int,
        expires_at: int,
        condition: bytes,
        session: bytes,
        request_id: int,
        incoming: IncomingLeg,
        deadline: int,
        started_at: int,
        destination: bytes = b"",
    ) -> None:
        self.id: Final = id
        self.account: Final = account
        self.amount: Final = amount
        self.spread: Final = spread  # what we keep, in units of the outgoing account
        self.rounding: Final = rounding
        self.expires_at: Final = expires_at  # wall ms, as we wrote it
        self.condition: Final = condition
        self.session: Final = session  # ours
        self.request_id: Final = request_id
        self.incoming: Final = incoming
        self.deadline = deadline  # monotonic ms; not part of the books
        self.started_at = started_at  # when its Prepare was read, monotonic ms; not part of the books
        self.destination: Final = destination  # empty after a restart; not part of the books
