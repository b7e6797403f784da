"""What is believed of each pair, when it stops, and what the operator may say."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.node.config_model import FileFetch, Pair, Rates, RateSource
from isthmus.node.rates.answers import Answer
from isthmus.node.rates.board import (
    FUTURE_MS_MAX,
    NOTHING,
    SET_MAX,
    Board,
    Remembered,
    Why,
    Wish,
    WishError,
    remember,
)
from isthmus.node.rates.exact import Codes

WALL = 1_800_000_000_000
EUR_USD: Codes = ("EUR", "USD")
BTC_USD: Codes = ("BTC", "USD")
BANK = RateSource(
    name="bank",
    fetch=FileFetch(path=Path("rates.json")),
    base="EUR",
    interval_ms=1_000,
    max_age_ms=60_000,
    jump_max=Fraction(1, 10),
)
MARKET = replace(BANK, name="market", base=None)


def fetched(codes: Codes, source: RateSource = BANK, **more: object) -> Pair:
    pair = Pair(
        source=codes[0],
        destination=codes[1],
        rate=None,
        spread=None,
        fetched=source,
        max_age_ms=source.max_age_ms,
        jump_max=source.jump_max,
    )
    return replace(pair, **more)  # type: ignore[arg-type]


def fixed(codes: Codes, rate: str) -> Pair:
    return Pair(source=codes[0], destination=codes[1], rate=Fraction(rate), spread=None)


def rates(*pairs: Pair) -> Rates:
    sources = {pair.fetched.name: pair.fetched for pair in pairs if pair.fetched is not None}
    return Rates(spread=Fraction(1, 100), pairs=pairs, sources=tuple(sources.values()))


def board(*pairs: Pair, remembered: Remembered = NOTHING) -> Board:
    return Board(rates(*pairs), remembered)


def tell(told: Board, rate: str, now: int = 0, codes: Codes = EUR_USD, source: str = "bank", **more: int) -> str:
    return told.answered(source, Answer({codes: Fraction(rate)}, more.get("as_of_ms")), wall_ms=WALL, now=now)


def state(told: Board, now: int = 0, codes: Codes = EUR_USD) -> tuple[str | None, Why | None]:
    found = next(one for one in told.states(now) if one.codes == codes)
    return None if found.rate is None else str(found.rate), found.stopped


# --- age -------------------------------------------------------------------------------------------------------------


def test_nothing_is_exchanged_before_the_first_answer() -> None:
    """CONN-11: also where the rate before a restart is known: it may be hours old."""
    for remembered in (NOTHING, Remembered({EUR_USD: Fraction(1)}, {})):
        told = board(fetched(EUR_USD), remembered=remembered)
        assert told.table(0).stopped == {EUR_USD: "there is no rate yet"}
        tell(told, "1.05")
        assert told.table(0).stopped == {}
        assert told.table(0).rates == {EUR_USD: Fraction("1.05")}


def test_a_rate_holds_until_its_age_limit_and_not_a_millisecond_longer() -> None:
    told = board(fetched(EUR_USD))
    tell(told, "1.05", now=1_000)
    assert told.wakes_at(1_000) == 61_001
    assert state(told, 61_000) == ("21/20", None)
    assert state(told, 61_001) == ("21/20", Why.STALE)
    assert told.table(61_001).stopped == {EUR_USD: "its rate is too old"}
    assert told.wakes_at(61_001) is None
    tell(told, "1.06", now=70_000)
    assert state(told, 70_000) == ("53/50", None)


def test_a_failing_source_stops_its_pairs_by_age_only() -> None:
    told = board(fetched(EUR_USD))
    tell(told, "1.05")
    told.failed("bank", "it answers 503")
    assert state(told, 60_000) == ("21/20", None)
    assert state(told, 60_001) == ("21/20", Why.STALE)
    assert told.states(0)[0].problem == "it answers 503"
    assert told.failures == {"bank": 1}


def test_the_sources_own_time_counts() -> None:
    told = board(fetched(EUR_USD))
    tell(told, "1.05", now=100_000, as_of_ms=WALL - 59_000)
    assert state(told, 101_000) == ("21/20", None)
    assert state(told, 101_001) == ("21/20", Why.STALE)
    assert tell(told, "1.06", now=100_000, as_of_ms=WALL - 10**9) == ""  # a cache has an older one: ours is newer
    assert state(told, 100_000) == ("21/20", None)


def test_an_answer_from_the_future_is_refused_whole() -> None:
    """One of the two clocks is wrong, and it may be the one that ages are measured with."""
    told = board(fetched(EUR_USD))
    assert "in the future" in tell(told, "1.05", as_of_ms=WALL + FUTURE_MS_MAX + 1)
    assert state(told) == (None, Why.WAITING)
    assert tell(told, "1.05", as_of_ms=WALL + FUTURE_MS_MAX) == ""
    assert state(told, 60_001) == ("21/20", Why.STALE)  # and no younger than now


def test_a_pair_that_an_answer_leaves_out_ages() -> None:
    told = board(fetched(EUR_USD), fetched(("EUR", "GBP")))
    both = Answer({EUR_USD: Fraction(1), ("EUR", "GBP"): Fraction(1)})
    told.answered("bank", both, wall_ms=WALL, now=0)
    half = Answer({EUR_USD: Fraction(1)}, problems={("EUR", "GBP"): "'0' is not above zero"})
    told.answered("bank", half, wall_ms=WALL, now=50_000)
    assert state(told, 70_000)[1] is None
    assert state(told, 70_000, ("EUR", "GBP"))[1] is Why.STALE
    assert [one.problem for one in told.states(0)] == ["", "'0' is not above zero"]


# --- jumps and bounds ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rate", "stops"), [("1.1", False), ("1.10001", True), ("100", True), ("0.90909", True)])
@pytest.mark.parametrize("restarted", [False, True])
def test_a_jump_stops_the_pair_at_once(rate: str, stops: bool, restarted: bool) -> None:
    """Against the last accepted rate, also if another process accepted it. A fall counts as the rise back."""
    if restarted:
        told = board(fetched(EUR_USD), remembered=Remembered({EUR_USD: Fraction(1)}, {}))
    else:
        told = board(fetched(EUR_USD))
        tell(told, "1")
    tell(told, rate, now=5)
    assert state(told, 5)[1] is (Why.JUMPED if stops else None)
    if stops:
        assert told.table(5).rates == {EUR_USD: 1}  # what jumps are measured from, for the journal
        assert told.states(5)[0].offered == Fraction(rate)


def test_a_pair_goes_on_when_its_source_comes_back_to_its_senses() -> None:
    told = board(fetched(EUR_USD))
    tell(told, "1")
    tell(told, "1000", now=1)
    told.failed("bank", "it answers 500")
    assert state(told, 2) == ("1", Why.JUMPED)
    assert told.wakes_at(2) is None
    tell(told, "1.01", now=3)
    assert state(told, 3) == ("101/100", None)
    assert told.states(3)[0].offered is None


def test_the_operator_accepts_a_jump_by_its_rate() -> None:
    told = board(fetched(EUR_USD))
    tell(told, "1")
    with pytest.raises(WishError, match="no rate that waits"):
        told.accept(EUR_USD, Fraction(2))
    tell(told, "2", now=1)
    with pytest.raises(WishError, match="its source says 2 for EUR/USD"):
        told.accept(EUR_USD, Fraction("1.5"))
    assert state(told, 1) == ("1", Why.JUMPED)
    assert told.accept(EUR_USD, Fraction("1.95")) == EUR_USD
    assert state(told, 1) == ("2", None)
    tell(told, "4", now=2)
    assert told.accept(("USD", "EUR"), Fraction(1, 4)) == EUR_USD
    assert state(told, 2) == ("4", None)


def test_an_accepted_jump_is_as_old_as_it_is() -> None:
    told = board(fetched(EUR_USD))
    tell(told, "1")
    tell(told, "2", now=1_000)
    told.accept(EUR_USD, Fraction(2))
    assert state(told, 61_000) == ("2", None)
    assert state(told, 61_001) == ("2", Why.STALE)


@pytest.mark.parametrize(
    ("rate", "why"), [("0.9", None), ("0.8999", Why.BEYOND), ("1.2", None), ("1.2001", Why.BEYOND)]
)
def test_bounds_hold_for_the_first_rate_too(rate: str, why: Why | None) -> None:
    told = board(fetched(EUR_USD, least=Fraction("0.9"), most=Fraction("1.2")))
    tell(told, rate)
    assert state(told)[1] is why
    if why is not None:
        with pytest.raises(WishError, match="out of the bounds"):
            told.accept(EUR_USD, Fraction(rate))


@given(st.lists(st.tuples(st.integers(0, 40_000), st.fractions("0.01", 100)), max_size=30), st.integers(0, 10**6))
def test_what_is_traded_is_never_old_and_never_far_from_the_last(steps: list[tuple[int, Fraction]], late: int) -> None:
    """CONN-11, against a naive watcher."""
    told = board(fetched(EUR_USD))
    now, accepted, as_of = 0, None, 0
    for wait, rate in steps:
        now += wait
        told.answered("bank", Answer({EUR_USD: rate}), wall_ms=WALL, now=now)
        near = accepted is None or (rate <= accepted * Fraction(11, 10) and accepted <= rate * Fraction(11, 10))
        if near:
            accepted, as_of = rate, now
        table = told.table(now)
        assert (table.stopped == {}) is near
        assert table.rates.get(EUR_USD) == accepted
    table = told.table(now + late)
    if not table.stopped:
        assert accepted is not None and now + late - as_of <= 60_000


# --- cross rates -----------------------------------------------------------------------------------------------------


def test_a_source_crosses_through_its_own_currency() -> None:
    told = board(fetched(("USD", "GBP")))
    assert told.wanted("bank") == ["EUR", "GBP", "USD"]
    quotes = {EUR_USD: Fraction(5, 4), ("EUR", "GBP"): Fraction(4, 5)}
    told.answered("bank", Answer(quotes), wall_ms=WALL, now=0)
    assert state(told, codes=("USD", "GBP")) == ("16/25", None)


def test_a_pair_goes_via_another_asset_and_stops_with_either_part() -> None:
    """Exact, and the older part's age."""
    via = Pair(source="BTC", destination="EUR", rate=None, spread=None, via="USD")
    told = board(via, fetched(BTC_USD, MARKET), fetched(EUR_USD))
    assert state(told, codes=("BTC", "EUR")) == (None, Why.WAITING)
    tell(told, "60000", now=0, codes=BTC_USD, source="market")
    tell(told, "1.2", now=30_000)
    assert state(told, 60_000, ("BTC", "EUR")) == ("50000", None)
    assert told.states(40_000)[0].age_ms == 40_000
    assert state(told, 60_001, ("BTC", "EUR")) == ("50000", Why.STALE)
    tell(told, "60000", now=60_002, codes=BTC_USD, source="market")
    tell(told, "2", now=60_002)
    assert state(told, 60_002, ("BTC", "EUR")) == ("50000", Why.JUMPED)
    told.set(EUR_USD, Fraction(2))
    assert state(told, 60_002, ("BTC", "EUR")) == ("30000", None)


# --- the operator's word ---------------------------------------------------------------------------------------------


def again(told: Board, *pairs: Pair) -> Board:
    """The next process, with what the journal has."""
    kept = {key: value for key, value in told.settings() if value}
    return Board(rates(*pairs), remember(told.table(0).describe(), kept))


def test_what_is_set_holds_over_sources_and_restarts() -> None:
    """Issue 5: the run-time change wins until that item of the file changes."""
    told = board(fetched(EUR_USD))
    tell(told, "1")
    told.set(("USD", "EUR"), Fraction(1, 3))
    tell(told, "1.01", now=1)
    assert state(told, 10**9) == ("3", None)
    assert told.states(0)[0].source == "operator"
    assert told.wakes_at(0) is None or state(told, told.wakes_at(0) or 0) == ("3", None)
    for pair in (fetched(EUR_USD), fetched(EUR_USD, max_age_ms=5), fetched(EUR_USD, spread=Fraction(1, 9))):
        later = again(told, pair)
        assert state(later) == ("3", None) and not later.ended
    for pair in (fixed(EUR_USD, "7"), fetched(EUR_USD, MARKET)):
        later = again(told, pair)
        assert list(later.ended) == [EUR_USD]
        assert later.settings() == [(b"rate:EUR/USD", b"")]
        assert state(later)[0] != "3" or pair.rate is None


def test_a_pair_follows_its_source_again() -> None:
    told = board(fetched(EUR_USD))
    with pytest.raises(WishError, match="not set"):
        told.follow(EUR_USD)
    told.set(EUR_USD, Fraction(3))
    tell(told, "1", now=5)
    told.follow(("USD", "EUR"))
    assert state(told, 5) == ("1", None)
    assert told.settings() == [(b"rate:EUR/USD", b"")]


def test_a_stopped_pair_stays_stopped_over_a_restart() -> None:
    told = board(fetched(EUR_USD), fixed(BTC_USD, "60000"))
    told.set(BTC_USD, None)
    later = again(told, fetched(EUR_USD), fixed(BTC_USD, "60000"))
    assert state(later, codes=BTC_USD) == ("60000", Why.HALTED)
    with pytest.raises(WishError, match="not exchanged here"):
        told.set(("A", "B"), None)


def test_a_pair_that_the_file_has_not_may_be_set() -> None:
    """Until the file has it."""
    told = board()
    told.set(BTC_USD, Fraction(5))
    assert told.table(0).rates == {BTC_USD: 5}
    assert state(again(told), codes=BTC_USD) == ("5", None)
    assert state(again(told, fixed(BTC_USD, "6")), codes=BTC_USD) == ("6", None)


def test_no_more_pairs_are_set_than_the_journal_should_keep() -> None:
    told = board()
    for number in range(SET_MAX):
        told.set((f"A{number}", "B"), Fraction(1))
    told.set(("A0", "B"), Fraction(2))
    with pytest.raises(WishError, match="set already"):
        told.set(("C", "D"), Fraction(1))


def test_other_settings_of_the_journal_are_left_alone() -> None:
    kept = {b"account:x": b"{}", b"rate:odd": b"{}", b"rate:A/B": Wish(Fraction(1, 3), "nothing").encode()}
    assert remember({}, kept) == Remembered({}, {("A", "B"): Wish(Fraction(1, 3), "nothing")})


# --- another configuration -------------------------------------------------------------------------------------------


def test_a_reload_keeps_what_is_known_of_unchanged_sources() -> None:
    told = board(fetched(EUR_USD))
    tell(told, "1.05", now=7)
    told.failed("bank", "busy")
    fresh = told.reconfigured(rates(fetched(EUR_USD, max_age_ms=10), fixed(BTC_USD, "5")))
    assert state(fresh, 17) == ("21/20", None)
    assert state(fresh, 18) == ("21/20", Why.STALE)
    assert state(fresh, 0, BTC_USD) == ("5", None)
    assert fresh.failures == {"bank": 1}
    other = told.reconfigured(rates(fetched(EUR_USD, replace(BANK, interval_ms=5_000))))
    assert state(other, 8) == ("21/20", Why.WAITING)  # another source: not before it has answered


def test_wider_bounds_judge_the_waiting_rate_anew() -> None:
    told = board(fetched(EUR_USD))
    tell(told, "1")
    tell(told, "1.5", now=3)
    fresh = told.reconfigured(rates(fetched(EUR_USD, jump_max=Fraction(1))))
    assert state(fresh, 3) == ("3/2", None)
    narrow = fresh.reconfigured(rates(fetched(EUR_USD, most=Fraction(1))))
    assert state(narrow, 3) == ("3/2", Why.BEYOND)


def test_spreads_of_pairs_hold_both_ways_unless_the_way_back_is_given() -> None:
    there = replace(fixed(EUR_USD, "1"), spread=Fraction(1, 50))
    assert board(there).table(0).pair_spreads == {EUR_USD: Fraction(1, 50), ("USD", "EUR"): Fraction(1, 50)}
    assert board(there, fixed(("USD", "EUR"), "1")).table(0).pair_spreads == {EUR_USD: Fraction(1, 50)}
    assert board(there).table(0).spread == Fraction(1, 100)
