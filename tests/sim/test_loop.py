"""The loop of engines: what asyncio needs, on virtual time, in the order of the agenda."""

import asyncio

import pytest

from isthmus.sim.agenda import Agenda, Timers
from isthmus.sim.loop import AgendaLoop


class Bench:
    def __init__(self) -> None:
        self.agenda = Agenda()
        self.timers = Timers(self.agenda)
        self.defects: list[str] = []
        self.loop = AgendaLoop(self.agenda, self.timers, self.defects.append)
        self.seen: list[tuple[int, str]] = []

    def note(self, what: str) -> None:
        self.seen.append((self.agenda.now, what))

    def die(self) -> None:
        self.timers.is_alive = False
        self.loop.die()

    def run(self) -> list[tuple[int, str]]:
        while self.agenda.step():
            pass
        return self.seen


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_task_sleeps_on_virtual_time(bench: Bench) -> None:
    async def work() -> None:
        bench.note("begin")
        await asyncio.sleep(3_600)
        bench.note("end")

    bench.loop.create_task(work())
    assert bench.run() == [(0, "begin"), (3_600_000, "end")]


def test_timeouts_events_and_locks_work(bench: Bench) -> None:
    lock, event = asyncio.Lock(), asyncio.Event()

    async def waits() -> None:
        async with lock:
            try:
                async with asyncio.timeout(0.25):
                    await event.wait()
            except TimeoutError:
                bench.note("timeout")
        await event.wait()
        bench.note("event")

    async def sets() -> None:
        async with lock:
            bench.note("lock")
            await asyncio.sleep(0.5)
            event.set()

    bench.loop.create_task(waits())
    bench.loop.create_task(sets())
    assert bench.run() == [(250, "timeout"), (250, "lock"), (750, "event")]


def test_a_timer_is_never_early(bench: Bench) -> None:
    """Whoever looks at the time then must find that it has come."""
    for delay in (1.0005, 0.0001, 12.3456):

        def look(deadline: float = delay) -> None:
            bench.note(f"{deadline} {bench.loop.time() >= deadline}")

        bench.loop.call_later(delay, look)
    assert bench.run() == [(1, "0.0001 True"), (1_001, "1.0005 True"), (12_346, "12.3456 True")]


def test_a_deadline_that_is_a_rounding_error_away_comes_a_millisecond_later(bench: Bench) -> None:
    """Else whoever waits for it looks again and again, and the run never comes to rest (seed 1122)."""
    deadline = 0.1 + 0.2

    async def wait() -> None:
        loop = asyncio.get_running_loop()
        assert 0 < deadline - loop.time() < 1e-9
        loop.call_at(deadline, lambda: bench.note(f"{loop.time() >= deadline}"))

    bench.agenda.at(300, lambda: bench.loop.create_task(wait()))
    assert bench.run() == [(301, "True")]


def test_nothing_runs_after_its_process(bench: Bench) -> None:
    async def work() -> None:
        try:
            await asyncio.sleep(1)
            bench.note("woke")
        finally:
            bench.note("closed")

    bench.loop.create_task(work())
    bench.agenda.at(500, bench.die)
    assert bench.run() == []


def test_an_exception_that_nobody_waits_for_is_told(bench: Bench) -> None:
    def fails() -> None:
        raise ValueError("so it is")

    bench.loop.call_soon(fails)
    bench.run()
    assert len(bench.defects) == 1
    assert "ValueError: so it is" in bench.defects[0]


def test_a_cancelled_timer_does_nothing(bench: Bench) -> None:
    handle = bench.loop.call_later(1.0, bench.note, "late")
    bench.loop.call_later(0.5, handle.cancel)
    assert bench.run() == []
