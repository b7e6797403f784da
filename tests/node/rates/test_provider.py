"""When sources are asked, when tables change, and what is said about it; on a clock that only the test moves."""

import asyncio
import heapq
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from isthmus.connector.events import Log, Now
from isthmus.connector.tables import RatesChanged
from isthmus.node.config_model import FileFetch, Pair, Rates, RateSource
from isthmus.node.rates.answers import Answer
from isthmus.node.rates.board import NOTHING, Remembered, Wish
from isthmus.node.rates.exact import AnswerError, Codes
from isthmus.node.rates.metrics import RatesCollector
from isthmus.node.rates.provider import RETRY_MS_MAX, Provider

WALL = 1_800_000_000_000
EUR_USD: Codes = ("EUR", "USD")
BANK = RateSource(
    name="bank",
    fetch=FileFetch(path=Path("rates.json")),
    base=None,
    interval_ms=10_000,
    max_age_ms=60_000,
    jump_max=Fraction(1, 10),
)
PAIR = Pair(
    source="EUR",
    destination="USD",
    rate=None,
    spread=None,
    fetched=BANK,
    max_age_ms=60_000,
    jump_max=Fraction(1, 10),
)
RATES = Rates(spread=Fraction(0), pairs=(PAIR,), sources=(BANK,), pace_ms=25_000)


class Clock:
    """Time stands still until `run` moves it to the next sleeper's."""

    def __init__(self) -> None:
        self.mono = 1_000
        self.ahead = 0  # what the wall clock has gone more
        self._sleepers: list[tuple[int, int, asyncio.Future[None]]] = []
        self._count = 0

    def now(self) -> Now:
        return Now(WALL + self.mono + self.ahead, self.mono)

    def sleep(self, seconds: float) -> Awaitable[None]:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._count += 1
        heapq.heappush(self._sleepers, (self.mono + round(seconds * 1000), self._count, done))
        return done

    async def run(self, ms: int) -> None:
        """Let this time pass, waking everybody in turn."""
        end = self.mono + ms
        await self.turns()
        while self._sleepers and self._sleepers[0][0] <= end:
            at, _, done = heapq.heappop(self._sleepers)
            self.mono = max(self.mono, at)
            if not done.done():
                done.set_result(None)
            await self.turns()
        self.mono = end
        await self.turns()

    async def turns(self) -> None:
        for _ in range(10):
            await asyncio.sleep(0)


class Source:
    """Says what the test wants it to say: a rate, at times an older one, or an error."""

    def __init__(self) -> None:
        self.says: str | Exception = "1"
        self.as_of_ms: int | None = None
        self.asked: list[int] = []
        self.closed = 0
        self.clock: Clock

    async def fetch(self, wanted: Sequence[str], wall_ms: int) -> Answer:
        self.asked.append(wall_ms - WALL)
        if isinstance(self.says, Exception):
            raise self.says
        return Answer({EUR_USD: Fraction(self.says), ("EUR", "GBP"): Fraction(2)}, self.as_of_ms)

    async def close(self) -> None:
        self.closed += 1


class World:
    def __init__(self, rates: Rates = RATES, remembered: Remembered = NOTHING) -> None:
        self.clock = Clock()
        self.source = Source()
        self.published: list[tuple[int, RatesChanged]] = []
        self.log: list[Log] = []
        self.provider = Provider(
            rates,
            remembered,
            publish=lambda event: self.published.append((self.clock.mono, event)),
            on_log=self.log.append,
            now=self.clock.now,
            random=lambda: 0.0,
            sleep=self.clock.sleep,
            fetchers=lambda source: self.source,
        )

    def take(self) -> list[tuple[int, str, list[str]]]:
        """What was published since it was asked last: when, the rate, why it is stopped."""
        taken, self.published = self.published, []
        return [(at, str(event.rates.rates.get(EUR_USD)), list(event.rates.stopped.values())) for at, event in taken]

    def said(self) -> list[str]:
        said = [log.event for log in self.log]
        self.log.clear()
        return said


@pytest.fixture
async def world() -> World:
    world = World()
    world.provider.start()
    await world.clock.turns()
    return world


async def test_the_first_answer_opens_the_pair_at_once(world: World) -> None:
    """CONN-11: nothing is exchanged before it."""
    assert World().provider.table().stopped == {EUR_USD: "there is no rate yet"}
    assert world.source.asked == [1_000]
    assert world.take() == [(1_000, "1", [])]
    assert world.said() == []


async def test_sources_are_asked_at_their_interval_and_tables_change_no_faster_than_the_pace(world: World) -> None:
    world.take()
    for rate in ("1.01", "1.02", "1.03", "1.04", "1.05", "1.06"):
        world.source.says = rate
        await world.clock.run(10_000)
    assert world.source.asked == list(range(1_000, 62_000, 10_000))
    assert world.take() == [(26_000, "51/50", []), (51_000, "21/20", [])]
    assert world.take() == [] and world.said() == []


async def test_equal_rates_change_nothing(world: World) -> None:
    world.take()
    await world.clock.run(600_000)
    assert len(world.source.asked) == 61
    assert world.take() == []


async def test_a_jump_stops_the_pair_without_waiting_for_the_pace(world: World) -> None:
    """One line when it stops, one when it goes on."""
    world.take()
    world.source.says = "1000"
    await world.clock.run(10_000)
    assert world.take() == [(11_000, "1", ["its rate has jumped"])]
    await world.clock.run(30_000)
    assert world.take() == []
    stopped = world.log[0]
    assert (stopped.level, stopped.fields["offered_rate"], stopped.fields["pair"]) == ("warning", "1000", "EUR/USD")
    world.source.says = "1.02"
    await world.clock.run(10_000)
    assert world.take() == [(51_000, "51/50", [])]
    assert world.said() == ["pair_stopped", "pair_resumed"]


async def test_a_machine_that_was_suspended_trades_at_no_rate_from_before(world: World) -> None:
    """Monotonic time stood still; a second after waking the pair has stopped, until the next answer."""
    world.take()
    await world.clock.run(2_000)
    world.clock.ahead += 3_600_000
    await world.clock.run(1_000)
    assert world.take() == [(4_000, "1", ["its rate is too old"])]
    await world.clock.run(8_000)
    assert world.take() == [(11_000, "1", [])]
    for correction in (900, -(10**9), 900):
        world.clock.ahead += correction
        await world.clock.run(3_000)
    assert world.take() == []


async def test_a_source_that_fails_is_asked_again_soon_and_then_less_often(world: World) -> None:
    """And its pair stops when its age is up, to the millisecond."""
    world.take()
    await world.clock.run(10_000)
    world.source.asked.clear()
    world.source.says = AnswerError("it answers 503")
    await world.clock.run(100_000)
    assert world.source.asked[:7] == [21_000, 22_000, 24_000, 28_000, 36_000, 46_000, 56_000]
    assert world.take() == [(71_001, "1", ["its rate is too old"])]
    assert world.said() == ["rates_source_fails", "pair_stopped"]
    world.source.says = "1"
    await world.clock.run(10_000)
    assert world.said() == ["rates_source_recovered", "pair_resumed"]
    assert world.provider.board.failures["bank"] == 12


async def test_retries_of_slow_sources_are_bounded() -> None:
    """A source that is asked once a day is not left for a day."""
    slow = replace(BANK, interval_ms=86_400_000)
    world = World(replace(RATES, sources=(slow,), pairs=(replace(PAIR, fetched=slow),)))
    world.source.says = AnswerError("busy")
    world.provider.start()
    await world.clock.run(3_600_000)
    pauses = [after - before for before, after in zip(world.source.asked, world.source.asked[1:], strict=False)]
    assert pauses[:4] == [1_000, 2_000, 4_000, 8_000] and max(pauses) == RETRY_MS_MAX
    assert world.said() == ["rates_source_fails", "pair_stopped"]


async def test_a_defect_in_reading_a_source_is_a_failure_of_it(world: World) -> None:
    """Its pairs stop, the node goes on."""
    world.source.says = ZeroDivisionError("oops")
    await world.clock.run(80_000)
    assert world.take()[-1] == (61_001, "1", ["its rate is too old"])
    assert "ZeroDivisionError" in str(world.log[0].fields["problem"])
    assert not world.provider.broken.done()


async def test_the_node_is_told_if_nobody_watches_ages_any_more(world: World) -> None:
    """A rate that nobody finds too old would be exchanged at for ever."""
    world.provider._publish = None  # type: ignore[assignment]
    world.source.says = "1.01"
    await world.clock.run(30_000)
    assert world.provider.broken.done() and "a defect" in world.provider.broken.result()


async def test_a_jump_against_the_process_before_is_seen_at_the_first_answer() -> None:
    world = World(remembered=Remembered({EUR_USD: Fraction(2)}, {}))
    world.provider.start()
    await world.clock.turns()
    assert world.take() == [(1_000, "2", ["its rate has jumped"])]
    codes, event = world.provider.wish(lambda board: board.accept(EUR_USD, Fraction(1)))
    assert codes == EUR_USD
    assert event.rates.stopped == {} and event.rates.rates == {EUR_USD: Fraction(1)}
    await world.clock.turns()
    assert world.take() == []  # whoever wished posts it
    assert world.said() == ["pair_stopped", "pair_resumed"]


async def test_a_wish_that_fails_changes_nothing(world: World) -> None:
    before = world.provider.board

    def wish(board: object) -> Codes:
        raise KeyError

    with pytest.raises(KeyError):
        world.provider.wish(wish)
    assert world.provider.board is before


async def test_a_changed_file_ends_what_was_set_over_it() -> None:
    """Issue 5: and not without a word."""
    world = World(remembered=Remembered({}, {EUR_USD: Wish(Fraction(3), "rate 5")}))
    world.provider.start()
    assert [log.event for log in world.log] == ["the file wins over run time"]
    assert world.published[0][1].settings == [(b"rate:EUR/USD", b"")]


async def test_a_reload_asks_changed_sources_at_once_and_leaves_others(world: World) -> None:
    world.take()
    await world.clock.run(5_000)
    same = replace(RATES, pairs=(replace(PAIR, max_age_ms=7_000),))
    world.provider.adopt(same, world.provider.prepared(same))
    await world.clock.turns()
    assert world.source.asked == [1_000] and world.source.closed == 0
    changed = replace(BANK, interval_ms=20_000)
    other = replace(RATES, sources=(changed,), pairs=(replace(PAIR, fetched=changed),))
    world.provider.adopt(other, world.provider.prepared(other))
    await world.clock.turns()
    assert world.source.asked == [1_000, 6_000] and world.source.closed == 1
    assert world.take() == []  # answered before anybody could see that it waited
    gone = replace(RATES, sources=(), pairs=())
    world.provider.adopt(gone, world.provider.prepared(gone))
    await world.clock.run(100_000)
    assert world.source.asked == [1_000, 6_000] and world.source.closed == 2
    assert world.take() == [(26_000, "None", [])]


async def test_a_new_pair_of_a_known_source_does_not_wait_for_its_interval(world: World) -> None:
    gbp = replace(PAIR, destination="GBP")
    more = replace(RATES, pairs=(PAIR, gbp))
    world.provider.adopt(more, world.provider.prepared(more))
    await world.clock.turns()
    assert world.source.asked == [1_000, 1_000]
    assert world.provider.table().rates == {EUR_USD: 1, ("EUR", "GBP"): 2}


async def test_closing_ends_all_tasks(world: World) -> None:
    await world.provider.close()
    assert world.source.closed == 1
    await world.clock.run(100_000)
    assert world.source.asked == [1_000]
    assert not world.provider.broken.done()


async def test_metrics_tell_age_and_stop(world: World) -> None:
    """Prometheus counts in floats; nothing else does."""
    world.source.as_of_ms = WALL + 1_000
    await world.clock.run(30_000)

    def values() -> dict[str, float]:
        return {
            sample.name: sample.value
            for family in RatesCollector(world.provider).collect()
            for sample in family.samples
        }

    assert values() == {
        "isthmus_rate": 1.0,
        "isthmus_rate_age_seconds": 30.0,
        "isthmus_pair_stopped": 0,
        "isthmus_rate_failures_total": 0,
    }
    await world.clock.run(31_000)
    assert values()["isthmus_pair_stopped"] == 1


def test_pauses_are_scattered_by_a_tenth() -> None:
    """So that a thousand nodes started together don't ask together."""

    async def pause(chance: float) -> int:
        world = World()
        random: Callable[[], float] = lambda: chance  # noqa: E731
        world.provider._random = random
        return world.provider._pause_ms(BANK, 0)

    assert asyncio.run(pause(0.0)) == 10_000
    assert asyncio.run(pause(0.999)) == 9_001
