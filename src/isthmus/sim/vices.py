"""What adversaries do: an honest node, and a hand between it and its links."""

from random import Random
from typing import TYPE_CHECKING, Protocol

from isthmus.connector.events import AccountId, Inbound, Outbound
from isthmus.sim.plan import NodePlan

if TYPE_CHECKING:
    from isthmus.sim.process import Process


class Vice(Protocol):
    """Sees all that comes in and goes out of one node, and may change it."""

    def incoming(self, process: "Process", packets: list[Inbound]) -> list[Inbound]: ...

    def outgoing(self, process: "Process", account: AccountId, frames: list[Outbound]) -> list[Outbound]: ...


def vice_of(plan: NodePlan, rng: Random) -> Vice | None:
    """The vice of a node; None for an honest one."""
    return None
