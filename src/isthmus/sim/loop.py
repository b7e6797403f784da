"""The event loop that engines run on: tasks and timers of one process, on the agenda of the run.

Kernels, sessions and STREAM need none. Settlement engines and what runs them are coroutines, so that they can wait for
ledgers; the simulator steps the very same ones. There is no socket, no thread and no clock behind this loop, and it
ends with its process.
"""

import asyncio
from asyncio import events
from collections.abc import Callable
from contextvars import Context
from typing import Any, Final, TypeVarTuple, Unpack, cast, final

from isthmus.sim.agenda import Agenda, Timers

_Ts = TypeVarTuple("_Ts")


@final
class AgendaLoop:
    """As much of a loop as `asyncio` needs for tasks, futures, events, locks and timeouts."""

    def __init__(self, agenda: Agenda, timers: Timers, on_defect: Callable[[str], None]) -> None:
        """`on_defect`: is told of exceptions that nobody waits for."""
        self._agenda: Final = agenda
        self._timers: Final = timers
        self._on_defect: Final = on_defect
        self._loop: Final = cast("asyncio.AbstractEventLoop", self)
        # They are kept as long as the loop: a task that is collected in the middle would be closed in the middle.
        self._tasks: Final[list[asyncio.Task[Any]]] = []

    def run(self, callback: Callable[[Unpack[_Ts]], object], *args: *_Ts) -> None:
        """Call this now, as if the loop did."""
        self._run(asyncio.Handle(callback, args, self._loop))

    def die(self) -> None:
        """The process is gone: nothing runs any more, and nobody is told of what did not end."""
        for task in self._tasks:
            task._log_destroy_pending = False  # type: ignore[attr-defined]

    def _run(self, handle: asyncio.Handle) -> None:
        if handle.cancelled():
            return
        before = events._get_running_loop()  # as every loop does around its callbacks
        events._set_running_loop(self._loop)
        try:
            handle._run()
        finally:
            events._set_running_loop(before)

    # --- what asyncio asks of a loop --------------------------------------------------------------------------------

    def time(self) -> float:
        """Seconds, as asyncio has them; the agenda counts milliseconds."""
        return self._agenda.now / 1000

    def call_soon(
        self, callback: Callable[[Unpack[_Ts]], object], *args: *_Ts, context: Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self._loop, context)
        # Coroutines of a dead process are closed some day, by whom is Python's affair: what they do then is nothing.
        if self._timers.is_alive:
            self._timers.call_soon(self._run, handle)
        return handle

    def call_later(
        self,
        delay: float,
        callback: Callable[[Unpack[_Ts]], object],
        *args: *_Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[[Unpack[_Ts]], object], *args: *_Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self._loop, context)
        if self._timers.is_alive:
            # Rounded up: whoever looks at the time then must find that it has come, be it by a rounding error.
            at = -(-round(when * 1_000_000) // 1_000)
            wait_ms = max(at - self._agenda.now, 1 if when > self.time() else 0)
            self._timers.after(wait_ms, lambda: self._run(handle))
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """It stays on the agenda, and does nothing."""

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self._loop)

    def create_task(self, coro: Any, **options: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=self._loop, **options)
        if not self._timers.is_alive:
            task._log_destroy_pending = False  # type: ignore[attr-defined]
        self._tasks.append(task)
        return task

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if self._timers.is_alive:
            error = context.get("exception")
            self._on_defect(f"{context.get('message')}: {type(error).__name__}: {error}")
