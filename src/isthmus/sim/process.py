"""One life of a node: a kernel, its journal and its links, driven on virtual time as `runtime.driver` does it live."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol, final

from isthmus.connector.events import (
    AccountId,
    AddressLearned,
    Append,
    CloseLink,
    Durable,
    Effect,
    Event,
    Halt,
    Inbound,
    LinkBlocked,
    LinkDown,
    LinkUp,
    LinkWritable,
    Log,
    Note,
    Noted,
    Outbound,
    Release,
    SettlementAnswered,
    SettlementDue,
    SettlementMessage,
    SettlementMessageAnswered,
    Undelivered,
)
from isthmus.connector.events import AppendFailed as Failed
from isthmus.connector.kernel import Kernel
from isthmus.connector.replay import Application
from isthmus.connector.tables import Tables, TablesChanged
from isthmus.runtime.opening import open_kernel
from isthmus.sim.agenda import Due, Timers
from isthmus.sim.trace import line_of

if TYPE_CHECKING:
    from isthmus.sim.node import Node
    from isthmus.sim.till import Till

ENTROPY_BYTES: Final = 32


class Carrier(Protocol):
    """A link as the process needs it."""

    account: AccountId

    def begin(self) -> None: ...

    def write(self, frames: list[Outbound]) -> None: ...

    def reset(self, why: str) -> None: ...

    def renew(self, session: bytes) -> None:
        """Our Prepares have another session from now on: the next connection announces it."""

    def die(self) -> None:
        """The process is gone."""


@final
class Process:
    """Implements `links.port.LinkOwner`. It decides nothing; a crash drops it with all that isn't on the disk."""

    def __init__(self, node: "Node", tables: Tables, application: Application | None) -> None:
        self.node: Final = node
        self.timers: Final = Timers(node.world.agenda)
        self.clock: Final = node.clock
        self.links: Final[dict[AccountId, Carrier]] = {}
        self.on_commit: Callable[[int], None] | None = None
        self.till: Till | None = None  # its settlement engines
        self.halted = ""
        self._events: list[Event | TablesChanged] = []
        self._due = False
        self._timer: Due | None = None
        self._timer_at: int | None = None
        self._tokens = 0
        self._noted: Final[dict[int, Callable[[], None]]] = {}
        self._is_traced: Final = node.world.is_traced
        self._vice: Final = node.vice
        journal = node.disk.open()
        self.kernel: Final[Kernel] = open_kernel(
            journal,
            tables,
            entropy=node.rng.randbytes(ENTROPY_BYTES),
            now=node.clock.now(),
            application=application,
        )
        node.committed_before(journal.last_sequence)
        node.disk.start(self.timers, self._durable, self._append_failed)
        self.post(TablesChanged(tables))

    def attach(self, link: Carrier) -> None:
        self.links[link.account] = link

    def die(self) -> None:
        """No event reaches it any more, and nothing leaves it."""
        self.timers.is_alive = False
        self._events.clear()
        for link in self.links.values():
            link.die()
        if self.till is not None:
            self.till.die()

    # --- events in (links.port.LinkOwner) -----------------------------------------------------------------------

    def post(self, event: Event | TablesChanged) -> None:
        self._events.append(event)
        self._turn_soon()

    def post_now(self, event: Event) -> None:
        """The same, decided before this returns."""
        self._events.append(event)
        self._turn()

    def inbound(self, packets: list[Inbound]) -> None:
        if self._vice is not None:
            packets = self._vice.incoming(self, packets)
        self._events += packets
        self._turn_soon()

    def undelivered(self, failures: list[Undelivered]) -> None:
        self._events += failures
        self._turn_soon()

    def link_up(self, account: AccountId) -> None:
        self.post(LinkUp(account))
        if self.till is not None:
            self.till.link_up(account)

    def link_down(self, account: AccountId, why: str) -> None:
        self.post(LinkDown(account, why))

    def blocked(self, account: AccountId) -> None:
        self.post(LinkBlocked(account))

    def writable(self, account: AccountId) -> None:
        self.post(LinkWritable(account))

    def mono_ms(self) -> int:
        return self.clock.mono_ms()

    def note(self, data: bytes, then: Callable[[], None]) -> None:
        """Journal an application's entry; `then` is called once it is durable, if the process lives so long."""
        self._tokens += 1
        self._noted[self._tokens] = then
        self.post(Note(data, self._tokens))

    def _durable(self, sequence: int) -> None:
        self._events.append(Durable(sequence))
        self._turn()
        if self.on_commit is not None and not self.halted:
            self.on_commit(sequence)
        self.node.committed(sequence)

    def _append_failed(self, sequence: int, problem: str) -> None:
        self.post(Failed(sequence, problem))

    # --- turns --------------------------------------------------------------------------------------------------

    def _turn_soon(self) -> None:
        if not self._due:
            self._due = True
            # After all else that is due in this millisecond.
            self.timers.call_soon(self._later_turn)

    def _later_turn(self) -> None:
        self._due = False
        self._turn()

    def _turn(self) -> None:
        if not self.timers.is_alive or self.halted:
            return
        events, self._events = self._events, []
        if self._is_traced:
            for event in events:
                self.node.world.trace(self.node.name, "<", line_of(event))
        effects = self.kernel.handle(events, self.clock.now())
        for effect in effects:
            if self._is_traced:
                self.node.world.trace(self.node.name, ">", line_of(effect))
            self._carry_out(effect)
        self._set_timer()

    def _carry_out(self, effect: Effect) -> None:
        if isinstance(effect, Release):
            frames = effect.frames
            self.node.sees(effect.account, frames)
            self.node.tells(effect.account, frames)
            if self._vice is not None:
                frames = self._vice.outgoing(self, effect.account, frames)
            link = self.links.get(effect.account)
            if link is not None and frames:
                link.write(frames)
        elif isinstance(effect, Append):
            self.node.disk.submit(effect.sequence, effect.record, effect.summary)
        elif isinstance(effect, Noted):
            then = self._noted.pop(effect.token, None)
            if then is not None:
                self.timers.call_soon(then)
        elif isinstance(effect, SettlementDue | SettlementMessage | SettlementAnswered | SettlementMessageAnswered):
            if self.till is not None:
                self.till.hear(effect)
        elif isinstance(effect, CloseLink):
            self._reset(effect)
        elif isinstance(effect, Halt):
            self.halted = effect.problem
            self.node.halted(effect.problem)
        elif isinstance(effect, Log):
            self.node.world.logged(self.node.name, effect)
        elif isinstance(effect, AddressLearned):
            assert effect.address == self.node.address, "a parent told another address than the plan's"

    def _reset(self, effect: CloseLink) -> None:
        link = self.links.get(effect.account)
        if link is not None:
            link.reset(effect.why)
            self.timers.call_soon(self._renew, link)

    def _renew(self, link: Carrier) -> None:
        self._turn()
        link.renew(self.kernel.session(link.account))

    def _set_timer(self) -> None:
        """Wake when the kernel asks to. A later time needs no call: waking too early only sets the timer again."""
        at = self.kernel.wakes_at()
        if at is None or (self._timer_at is not None and self._timer_at <= at):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        self._timer = self.timers.after(max(1, at - self.clock.mono_ms()), self._timer_fired)

    def _timer_fired(self) -> None:
        self._timer = None
        self._timer_at = None
        self._turn()
