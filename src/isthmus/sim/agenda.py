"""Virtual time: what is due when. Two things that are due at one millisecond come in the order of their entry."""

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any, Final, final

from isthmus.connector.events import Now

# 2027-01-15T08:00:00Z. Any instant would do; no run may depend on today's.
WALL_START_MS: Final = 1_800_000_000_000
# A run that needs more has a loop somewhere.
STEPS_MAX: Final = 3_000_000


@final
class Due:
    """A call that is due at a time; `cancel` makes it nothing."""

    __slots__ = ("action",)

    def __init__(self, action: Callable[[], object] | None) -> None:
        self.action = action

    def cancel(self) -> None:
        self.action = None


@final
class Agenda:
    """The one clock and the one queue of a run. Times are milliseconds since its start."""

    def __init__(self) -> None:
        self.now = 0
        self.steps = 0
        self._queue: Final[list[tuple[int, int, Due]]] = []
        self._number = 0

    def at(self, time: int, action: Callable[[], object]) -> Due:
        """Call `action` at this time, but not before what is due earlier."""
        self._number += 1
        due = Due(action)
        heappush(self._queue, (max(time, self.now), self._number, due))
        return due

    def after(self, ms: int, action: Callable[[], object]) -> Due:
        return self.at(self.now + ms, action)

    def step(self) -> bool:
        """Do the next thing; False if nothing is left."""
        while self._queue:
            time, _, due = heappop(self._queue)
            action = due.action
            if action is None:
                continue
            self.now = time
            self.steps += 1
            assert self.steps < STEPS_MAX, "the run never comes to rest"
            action()
            return True
        return False

    def next_at(self) -> int | None:
        """When the next thing is due."""
        while self._queue and self._queue[0][2].action is None:
            heappop(self._queue)
        return self._queue[0][0] if self._queue else None


@final
class Clock:
    """One node's clocks. The wall clock is off by `offset_ms` and may jump; the monotonic one starts with a process."""

    def __init__(self, agenda: Agenda, offset_ms: int) -> None:
        self._agenda: Final = agenda
        self.offset_ms = offset_ms
        self._mono_base = 0

    def boot(self, mono_base: int) -> None:
        """A new process: its monotonic clock has nothing to do with the one before."""
        self._mono_base = mono_base - self._agenda.now

    def now(self) -> Now:
        return Now(self.wall_ms(), self.mono_ms())

    def wall_ms(self) -> int:
        return WALL_START_MS + self._agenda.now + self.offset_ms

    def mono_ms(self) -> int:
        return self._mono_base + self._agenda.now


class _Fact:
    """Stands for a future that nobody waits for."""

    __slots__ = ("_done",)

    def __init__(self) -> None:
        self._done = False

    def done(self) -> bool:
        return self._done

    def set_result(self, result: object) -> None:
        self._done = True


@final
class Timers:
    """One process's part of the agenda: with the process its timers die. Implements `links.port.Scheduler`."""

    def __init__(self, agenda: Agenda) -> None:
        self._agenda: Final = agenda
        self.is_alive = True

    def call_soon(self, callback: Callable[..., object], /, *args: Any) -> Due:
        return self._at(self._agenda.now, lambda: callback(*args) if args else callback())

    def call_later(self, delay: float, callback: Callable[..., object], /) -> Due:
        """`delay` is seconds, as event loops have it."""
        return self.after(round(delay * 1000), callback)

    def after(self, ms: int, action: Callable[[], object]) -> Due:
        return self._at(self._agenda.now + max(0, ms), action)

    def create_future(self) -> Any:
        return _Fact()

    def _at(self, time: int, action: Callable[[], object]) -> Due:
        def guarded() -> None:
            if self.is_alive:
                action()

        return self._agenda.at(time, guarded)
