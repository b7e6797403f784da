"""How each kind of fault is done to a world, and undone."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from isthmus.journal.memory import Fault
from isthmus.sim import plan as p
from isthmus.sim.ledger_faults import LEDGER_FAULTS
from isthmus.sim.plan import FaultPlan

if TYPE_CHECKING:
    from isthmus.sim.world import World

_DISK_FAULTS: Final = {p.TORN: Fault.TORN, p.FAILED_WRITE: Fault.FAIL, p.UNKNOWN_WRITE: Fault.UNKNOWN}
DOWN_LOOK_MS: Final = 100
# Does the fault, tells whether it met anything, and gives what ends it.
_Undo = Callable[[], None]


def arrange(world: "World", fault: FaultPlan) -> None:
    """Put a fault on the agenda."""
    world.agenda.at(fault.at_ms, lambda: _begin(world, fault))


def _begin(world: "World", fault: FaultPlan) -> None:
    world.tell(fault.target, str(fault))
    world.faults += 1
    undo = _DO[fault.kind](world, fault)
    if undo is not None:
        world.agenda.after(fault.lasts_ms, lambda: _end(world, fault, undo))


def _end(world: "World", fault: FaultPlan, undo: _Undo) -> None:
    undo()
    world.tell(fault.target, f"fault {fault.number} is over")


# --- links -----------------------------------------------------------------------------------------------------------


def _delay(world: "World", fault: FaultPlan) -> _Undo:
    line = world.lines[fault.target]
    line.extra_ms += fault.value
    line.trouble_begins()
    world.hit(fault.kind)

    def undo() -> None:
        line.extra_ms -= fault.value
        line.trouble_ends()

    return undo


def _cut(world: "World", fault: FaultPlan) -> _Undo:
    line = world.lines[fault.target]
    line.refuses += 1
    # Sometimes only one side notices at once; the other writes into the void until a ping goes unanswered.
    seen_by = ("", "", line.plan.a, line.plan.b)[fault.value % 4]
    if line.cut("the connection broke", seen_by=seen_by) or line.plan.carrier == p.HTTP:
        world.hit(fault.kind)

    def undo() -> None:
        line.refuses -= 1
        line.look()

    return undo


def _replace(world: "World", fault: FaultPlan) -> None:
    """The dialling side opens a second connection beside the first, with answers on their way on both."""
    line = world.lines[fault.target]
    if world.nodes[line.plan.a].dial_anew(line):
        world.hit(fault.kind)


def _partition(world: "World", fault: FaultPlan) -> _Undo:
    line = world.lines[fault.target]
    ways = [line.plan.a, line.plan.b]
    if fault.kind == p.HALF_OPEN:
        ways = [ways[fault.value % 2]]
    for way in ways:
        line.hold(way)
    world.hit(fault.kind)

    def undo() -> None:
        for way in ways:
            line.release(way)

    return undo


def _slow_peer(world: "World", fault: FaultPlan) -> _Undo:
    line = world.lines[fault.target]
    name = (line.plan.a, line.plan.b)[fault.value % 2]
    line.deafen(name)
    world.hit(fault.kind)
    return lambda: line.undeafen(name)


def _loss(world: "World", fault: FaultPlan) -> _Undo:
    line = world.lines[fault.target]
    line.lost += fault.value
    line.trouble_begins()

    def undo() -> None:
        line.lost -= fault.value
        line.trouble_ends()

    return undo


def _duplicate(world: "World", fault: FaultPlan) -> _Undo:
    line = world.lines[fault.target]
    line.doubled += fault.value

    def undo() -> None:
        line.doubled -= fault.value

    return undo


def _reorder(world: "World", fault: FaultPlan) -> _Undo:
    line = world.lines[fault.target]
    line.shuffled += fault.value
    line.trouble_begins()

    def undo() -> None:
        line.shuffled -= fault.value
        line.trouble_ends()

    return undo


# --- nodes -----------------------------------------------------------------------------------------------------------


def _crash(world: "World", fault: FaultPlan) -> None:
    node = world.nodes[fault.target]
    if node.crash(fault.lasts_ms, written=fault.value % 4, loses_power=fault.value % 3 == 0):
        world.hit(fault.kind)
        world.crashes += 1
    else:
        # It is down just now: it dies again as soon as it is back.
        world.agenda.after(DOWN_LOOK_MS, lambda: _crash(world, fault))


def _disk(world: "World", fault: FaultPlan) -> None:
    """The next sync fails; the node halts, and is started again."""
    node = world.nodes[fault.target]
    node.disk.fail_next(_DISK_FAULTS[fault.kind], lambda: world.hit(fault.kind))


def _slow_disk(world: "World", fault: FaultPlan) -> _Undo:
    node = world.nodes[fault.target]
    node.disk.slower_ms += fault.value
    world.stalls.append((node.name, world.agenda.now, fault.ends_at + fault.value))
    world.hit(fault.kind)

    def undo() -> None:
        node.disk.slower_ms -= fault.value

    return undo


def _clock_jump(world: "World", fault: FaultPlan) -> _Undo | None:
    node = world.nodes[fault.target]
    node.clock.offset_ms += fault.value
    world.hit(fault.kind)
    if not fault.lasts_ms:
        return None  # until all clocks are set right, when the faults are over

    def undo() -> None:
        node.clock.offset_ms -= fault.value

    return undo


def _rate(world: "World", fault: FaultPlan) -> _Undo:
    node = world.nodes[fault.target]
    node.rate_change[fault.number] = fault.value
    node.tables_changed()
    world.hit(fault.kind)

    def undo() -> None:
        del node.rate_change[fault.number]
        node.tables_changed()

    return undo


def _dry(world: "World", fault: FaultPlan) -> _Undo:
    node = world.nodes[fault.target]
    node.dry[fault.number] = None
    node.tables_changed()
    world.hit(fault.kind)

    def undo() -> None:
        del node.dry[fault.number]
        node.tables_changed()

    return undo


_DO: Final[dict[str, Callable[["World", FaultPlan], _Undo | None]]] = {
    p.DELAY: _delay,
    p.CUT: _cut,
    p.REPLACE: _replace,
    p.PARTITION: _partition,
    p.HALF_OPEN: _partition,
    p.SLOW_PEER: _slow_peer,
    p.LOSS: _loss,
    p.DUPLICATE: _duplicate,
    p.REORDER: _reorder,
    p.CRASH: _crash,
    p.TORN: _disk,
    p.FAILED_WRITE: _disk,
    p.UNKNOWN_WRITE: _disk,
    p.SLOW_DISK: _slow_disk,
    p.CLOCK_JUMP: _clock_jump,
    p.RATE: _rate,
    p.DRY: _dry,
    **LEDGER_FAULTS,
}
