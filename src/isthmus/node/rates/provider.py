"""Keeps a node's rates: asks the sources at their times, tells the board, and hands new tables to the kernel.

The board decides what is believed; here are the clock, the tasks, and how often the tables change. A pair that stops
or goes on is told at once; other changes wait until the last table is `pace` old, as each is an entry in the journal.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, final

from isthmus.connector.events import Log, Now
from isthmus.connector.tables import RatesChanged, RateTable
from isthmus.node.config_model import Rates, RateSource
from isthmus.node.rates.board import Board, PairState, Remembered, Why
from isthmus.node.rates.exact import AnswerError, Codes, pair_text
from isthmus.node.rates.fetch import Fetcher, fetcher_for

# After a failure: 1 s, 2 s, 4 s… up to the interval, but never later than this.
RETRY_MS_MIN: Final = 1_000
RETRY_MS_MAX: Final = 300_000
# Monotonic time stands still while a machine is suspended, and rates get old all the same. So both clocks are looked at
# this often: what the wall clock has gone more was slept.
LOOK_MS: Final = 1_000
SLEPT_MS_MIN: Final = 1_000  # below it, the wall clock is only being corrected

Sleep = Callable[[float], Awaitable[None]]


@final
class Provider:
    """The rates of one node. Nothing is fetched before `start`; until then fetched pairs are stopped."""

    def __init__(
        self,
        rates: Rates,
        remembered: Remembered,
        *,
        publish: Callable[[RatesChanged], None],
        on_log: Callable[[Log], None],
        now: Callable[[], Now],
        random: Callable[[], float],
        sleep: Sleep = asyncio.sleep,
        fetchers: Callable[[RateSource], Fetcher] = fetcher_for,
    ) -> None:
        self._publish = publish
        self._on_log = on_log
        self._now = now
        self._random = random
        self._sleep = sleep
        self._fetchers = fetchers
        self._rates = rates
        self._looked = now()
        self._slept_ms = 0
        self.board = Board(rates, remembered)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._published = self.board.table(self._mono())
        self._published_at = self._mono() - rates.pace_ms
        self._stopped: dict[Codes, Why] = {}
        self._failing: set[str] = set()
        self._watch: asyncio.Task[None] | None = None
        self._changed: asyncio.Event = asyncio.Event()
        # Resolves if nobody asks a source or watches the rates' age any more: then the node must not go on.
        self.broken: Final[asyncio.Future[str]] = asyncio.get_running_loop().create_future()

    # --- life -------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to ask the sources. The tables of the start, with all fetched pairs stopped, were published before."""
        self._watch = asyncio.create_task(self._keep())
        self._watch.add_done_callback(self._ended)
        self._forget_ended()
        for source in self._rates.sources:
            self._ask(source)

    async def close(self) -> None:
        tasks = [*self._tasks.values(), *([self._watch] if self._watch is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and not self.broken.done():
            error = task.exception()
            self.broken.set_result(f"a defect in isthmus: {type(error).__name__}: {error}")

    def table(self) -> RateTable:
        """What holds now, for tables that are swapped whole."""
        return self.table_of(self.board)

    def table_of(self, board: Board) -> RateTable:
        return board.table(self._mono())

    def prepared(self, rates: Rates) -> Board:
        """What the board would be with another configuration; `adopt` it if that is good."""
        return self.board.reconfigured(rates)

    def adopt(self, rates: Rates, board: Board) -> None:
        """Take another configuration. Sources that it changes, or asks for more, are asked at once; others go on."""
        before = {source.name: source for source in self._rates.sources}
        self._rates = rates
        self.board = board
        after = {source.name: source for source in rates.sources}
        for name, source in before.items():
            if name in self._tasks and (after.get(name) != source or board.waits_for(name)):
                self._tasks.pop(name).cancel()
        self._failing &= after.keys()
        if self._watch is None:
            return
        self._forget_ended()
        for source in rates.sources:
            if source.name not in self._tasks:
                self._ask(source)
        self._tell_changes()
        self._changed.set()

    def _forget_ended(self) -> None:
        """What the operator set over an item of the file ends when that is changed, and not without a word."""
        if self.board.ended:
            for codes in self.board.ended:
                fields: dict[str, str | int] = {"item": f"rates.{pair_text(codes)}"}
                self._on_log(Log("warning", "the file wins over run time", fields))
            self._publish(self._all())

    # --- what is shown, and the operator's wishes -------------------------------------------------------------------

    def states(self) -> list[PairState]:
        return self.board.states(self._mono())

    @property
    def rates(self) -> Rates:
        return self._rates

    def wish(self, tell: Callable[[Board], Codes]) -> tuple[Codes, RatesChanged]:
        """Let the operator tell the board something; the pair, and what to post at once and to wait for.

        Raises what `tell` raises, or ConfigError if it is too much for the journal; then nothing is changed.
        """
        board = self.board.reconfigured(self._rates)
        codes = tell(board)
        board.table(self._mono()).check()
        self.board = board
        self._tell_changes()
        return codes, self._all()

    def _all(self) -> RatesChanged:
        """What holds now and what is set, as one event that is posted in any case."""
        self._published = self.table()
        self._published_at = self._mono()
        self._changed.set()
        return RatesChanged(self._published, self.board.settings())

    # --- sources ----------------------------------------------------------------------------------------------------

    def _ask(self, source: RateSource) -> None:
        task = self._tasks[source.name] = asyncio.create_task(self._poll(source))
        task.add_done_callback(self._ended)

    async def _poll(self, source: RateSource) -> None:
        fetcher = self._fetchers(source)
        failures = 0
        try:
            while True:
                failures = 0 if await self._fetch(source, fetcher) else failures + 1
                await self._sleep(self._pause_ms(source, failures) / 1000)
        finally:
            await fetcher.close()

    async def _fetch(self, source: RateSource, fetcher: Fetcher) -> bool:
        name = source.name
        try:
            answer = await fetcher.fetch(self.board.wanted(name), self._now().wall_ms)
            now = self._mono()
            problem = self.board.answered(name, answer, wall_ms=self._now().wall_ms, now=now)
        except AnswerError as error:
            problem = self.board.failed(name, str(error))
        except Exception as error:  # noqa: BLE001  (a defect, here or in a library: without answers its pairs will stop)
            problem = self.board.failed(name, f"a defect in isthmus: {type(error).__name__}: {error}")
        self._note_source(name, problem)
        self._publish_if_due(self._mono())
        self._tell_changes()
        self._changed.set()
        return not problem

    def _pause_ms(self, source: RateSource, failures: int) -> int:
        """With up to a tenth less by chance, so that nodes started together don't ask together."""
        pause_ms = source.interval_ms
        if failures:
            pause_ms = min(pause_ms, RETRY_MS_MAX, RETRY_MS_MIN << min(failures - 1, 20))
        return pause_ms - int(self._random() * pause_ms) // 10

    # --- the kernel's table -----------------------------------------------------------------------------------------

    async def _keep(self) -> None:
        """Publish what changes, not too often, and notice what gets too old."""
        while True:
            self._changed.clear()
            mono = self._mono()
            wakes_at = self._publish_if_due(mono)
            self._tell_changes()
            stale_at = self.board.wakes_at(mono)
            if stale_at is not None and (wakes_at is None or stale_at < wakes_at):
                wakes_at = stale_at
            while not self._changed.is_set() and (wakes_at is None or self._mono() < wakes_at):
                await self._until(LOOK_MS if wakes_at is None else min(LOOK_MS, wakes_at - self._mono()))

    async def _until(self, wait_ms: int) -> None:
        """Until something changes, or the time has come."""
        changed = asyncio.ensure_future(self._changed.wait())
        timer = asyncio.ensure_future(self._sleep(max(0, wait_ms) / 1000))
        try:
            await asyncio.wait((changed, timer), return_when=asyncio.FIRST_COMPLETED)
        finally:
            changed.cancel()
            timer.cancel()

    def _publish_if_due(self, mono: int) -> int | None:
        """Publish now, or say when; None if there is nothing new."""
        table = self.board.table(mono)
        if table.describe() == self._published.describe():
            return None
        due_at = self._published_at + self._rates.pace_ms
        if table.stopped == self._published.stopped and mono < due_at:
            return due_at
        self._published = table
        self._published_at = mono
        self._publish(RatesChanged(table))
        return None

    # --- the log ----------------------------------------------------------------------------------------------------

    def _note_source(self, name: str, problem: str) -> None:
        """One line when a source begins to fail, and one when it answers again."""
        if problem and name not in self._failing:
            self._failing.add(name)
            self._on_log(Log("warning", "rates_source_fails", {"source": name, "problem": problem}))
        elif not problem and name in self._failing:
            self._failing.discard(name)
            self._on_log(Log("info", "rates_source_recovered", {"source": name}))

    def _tell_changes(self) -> None:
        """One line when a pair stops, and one when it goes on; the kernel was told before."""
        now: dict[Codes, Why] = {}
        for state in self.states():
            why = state.stopped
            if why is Why.WAITING and not state.problem:
                continue  # just started: its source will answer, or fail
            if why is not None:
                now[state.codes] = why
            before = self._stopped.get(state.codes)
            if why is before:
                continue
            fields: dict[str, str | int] = {"pair": pair_text(state.codes), "source": state.source}
            if why is None:
                self._on_log(Log("info", "pair_resumed", {**fields, "rate": str(state.rate)}))
                continue
            fields["why"] = why.value
            if state.rate is not None:
                fields["last_rate"] = str(state.rate)
            if state.offered is not None:
                fields["offered_rate"] = str(state.offered)
            if state.problem:
                fields["problem"] = state.problem
            self._on_log(Log("warning", "pair_stopped", fields))
        self._stopped = now

    def _mono(self) -> int:
        """Monotonic ms, with the time that the machine was suspended. A wall clock set forward counts as that too:
        then pairs stop too early, until the next answer.
        """
        now = self._now()
        slept_ms = (now.wall_ms - self._looked.wall_ms) - (now.mono_ms - self._looked.mono_ms)
        if slept_ms > SLEPT_MS_MIN:
            self._slept_ms += slept_ms
        self._looked = now
        return now.mono_ms + self._slept_ms
