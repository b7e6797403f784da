"""What a payment still has to do and how it ended: the rules of `client.payment`, which the simulator goes by too."""

from dataclasses import dataclass, replace
from typing import Final, Protocol, final

from isthmus.client.ledger import Payment
from isthmus.stream.connection import Connection as Machine

COMPLETED: Final = "completed"
STOPPED: Final = "stopped"
FAILED: Final = "failed"
UNCERTAIN: Final = "uncertain"  # ended, and nobody can tell whether the goal was reached

STREAM_ID: Final = 1  # a payment is the first stream of its connection


class Totals(Protocol):
    """What became of a connection's money."""

    @property
    def sent(self) -> int: ...
    @property
    def delivered(self) -> int: ...
    @property
    def delivered_max(self) -> int: ...
    @property
    def unknown(self) -> int: ...


@final
@dataclass(slots=True, frozen=True)
class Rest:
    """What may leave still, and what is to arrive still (0 for a fixed source amount)."""

    left: int
    wanted: int


def rest(payment: Payment, machine: Machine) -> Rest | tuple[str, str]:
    """What is left to do of a payment; or status and detail, if that is nothing."""
    sent, delivered, unknown = machine.stream_sent(STREAM_ID)
    left = payment.source_max - sent - unknown
    # What may have arrived is not sent again.
    wanted = payment.deliver - machine.stream_delivered_max(STREAM_ID)
    if payment.deliver and wanted <= 0 and delivered < payment.deliver:
        why = "the receiver doesn't say what arrived of the packets in flight when the wallet was killed"
        return UNCERTAIN, why
    if left <= 0 or (payment.deliver and wanted <= 0):
        return COMPLETED, ""
    return Rest(left, wanted if payment.deliver else 0)


def with_totals(payment: Payment, totals: Totals) -> Payment:
    """As far as it has come."""
    return replace(
        payment,
        sent=totals.sent,
        delivered=totals.delivered,
        delivered_max=totals.delivered_max,
        unknown=totals.unknown,
    )


def ended(payment: Payment, status: str, detail: str, ended_at: int) -> Payment:
    """At its end. One that should have delivered more is not completed, whoever says so."""
    if status == COMPLETED and payment.deliver > payment.delivered:
        reached = payment.delivered_max >= payment.deliver
        status, detail = (UNCERTAIN, "") if reached else (FAILED, "all that may leave has left")
    return replace(payment, status=status, detail=detail, ended_at=ended_at)
