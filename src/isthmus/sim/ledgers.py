"""Ledgers on virtual time: what all kinds share. Where they are asked, how long that takes, and what goes wrong there.

A ledger belongs to nobody in the network: it goes on while nodes are down, and what was asked of it is done even if
whoever asked died meanwhile.
"""

import asyncio
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Any, Final, TypeVar, final

from isthmus.errors import LedgerError
from isthmus.sim import plan as p
from isthmus.sim.agenda import WALL_START_MS, Agenda

if TYPE_CHECKING:
    from isthmus.sim.loop import AgendaLoop

T = TypeVar("T")
# One way, for a question or an answer.
WAY_MS: Final = (3, 60)
# A ledger that isn't there is noticed at once or after a while; an answer that is later than this is none any more.
PATIENCE_MS: Final = 10_000


class Ledger:
    """One ledger of a run. `on_hit` is told when something that goes wrong has met something."""

    def __init__(self, agenda: Agenda, name: str, rng: Random) -> None:
        self.agenda: Final = agenda
        self.name: Final = name
        self.rng: Final = rng
        self.away = 0  # faults under way that keep it from answering
        self.lates: Final[dict[int, int]] = {}  # percent of answers that come too late, by fault
        self.on_hit: Callable[[str], None] = lambda kind: None

    def calm(self) -> None:
        """Nothing that waits to go wrong does so any more."""

    @property
    def now_ms(self) -> int:
        """Its own clock, which is right."""
        return WALL_START_MS + self.agenda.now


@final
class Way:
    """One process's way to a ledger."""

    def __init__(self, ledger: Ledger, loop: "AgendaLoop", away: Callable[[str], LedgerError]) -> None:
        """`away` makes the error of a ledger that doesn't answer."""
        self._ledger: Final = ledger
        self._loop: Final = loop
        self._away: Final = away

    async def ask(self, question: Callable[[], T]) -> T:
        """The answer, or what the question raises there. An error of `away` if none comes: then it may be done."""
        ledger = self._ledger
        answer: asyncio.Future[T] = self._loop.create_future()
        ledger.agenda.after(ledger.rng.randint(*WAY_MS), lambda: self._arrive(question, answer))
        return await answer

    def _arrive(self, question: Callable[[], T], answer: "asyncio.Future[T]") -> None:
        ledger = self._ledger
        if ledger.away:
            ledger.on_hit(p.AWAY)
            wait_ms = ledger.rng.choice((5, PATIENCE_MS))
            error = self._away(f"{ledger.name} doesn't answer")
            ledger.agenda.after(wait_ms, lambda: _fail(answer, error))
            return
        late = max(ledger.lates.values(), default=0)
        is_late = late > 0 and ledger.rng.randrange(100) < late
        try:
            found = question()
        except Exception as error:  # noqa: BLE001 - whatever the ledger says goes to whoever asked
            refusal = error
            ledger.agenda.after(ledger.rng.randint(*WAY_MS), lambda: _fail(answer, refusal))
            return
        if is_late:
            ledger.on_hit(p.LATE)
            gone = self._away(f"{ledger.name} didn't answer in time")
            ledger.agenda.after(PATIENCE_MS, lambda: _fail(answer, gone))
            return
        ledger.agenda.after(ledger.rng.randint(*WAY_MS), lambda: _tell(answer, found))


def _tell(answer: "asyncio.Future[T]", found: T) -> None:
    if not answer.done():
        answer.set_result(found)


def _fail(answer: "asyncio.Future[Any]", error: Exception) -> None:
    if not answer.done():
        answer.set_exception(error)
