"""What goes wrong where neighbours settle, and how it is done to a world."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from isthmus.sim import plan as p
from isthmus.sim.plan import FaultPlan

if TYPE_CHECKING:
    from isthmus.sim.world import World

_Undo = Callable[[], None]


def _away(world: "World", fault: FaultPlan) -> _Undo:
    ledger = world.ledgers[fault.target]
    ledger.away += 1

    def undo() -> None:
        ledger.away -= 1

    return undo


def _late(world: "World", fault: FaultPlan) -> _Undo:
    """A part of the answers comes when nobody waits for them any more, and what was asked is done."""
    ledger = world.ledgers[fault.target]
    ledger.lates[fault.number] = fault.value

    def undo() -> None:
        del ledger.lates[fault.number]

    return undo


def _at_bank(world: "World", fault: FaultPlan) -> None:
    from isthmus.sim.bank import SimBank

    bank = world.ledgers[fault.target]
    assert isinstance(bank, SimBank)
    if fault.kind == p.SHOWN_TWICE:
        bank.doubles += 1
    else:
        bank.voids += 1


def _at_chain(world: "World", fault: FaultPlan) -> None:
    from isthmus.sim.chain import CONFIRMATIONS, SimChain

    chain = world.ledgers[fault.target]
    assert isinstance(chain, SimChain)
    if fault.kind == p.REORGANISED:
        chain.reorganise(fault.value)
    else:
        # What is deeper is nobody's to send again: its senders have forgotten it.
        chain.reorganise(min(fault.value, CONFIRMATIONS - 1), forgotten=True)
        chain.forget()


def _close_channel(world: "World", fault: FaultPlan) -> None:
    """The operator of a node ends its channels."""
    process = world.nodes[fault.target].process
    if process is not None and process.till is not None:
        process.till.close_channels()


LEDGER_FAULTS: Final[dict[str, Callable[["World", FaultPlan], _Undo | None]]] = {
    p.AWAY: _away,
    p.LATE: _late,
    p.SHOWN_TWICE: _at_bank,
    p.VOIDED: _at_bank,
    p.REORGANISED: _at_chain,
    p.FORGOTTEN: _at_chain,
    p.CHANNEL_CLOSED: _close_channel,
}
