"""Prefixes that don't come to rest: when relations stop to count for them, for how long, and within which bounds."""

from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.connector.events import AccountId
from isthmus.connector.routing.rib import Rib, Source
from isthmus.connector.routing.unsteady import (
    RETURNS,
    UNSTEADY_MAX,
    UNSTEADY_MS,
    WATCHED_MAX,
    WITHIN_MS,
    Rank,
    Unsteady,
)
from isthmus.ilp.ccp import Route

if TYPE_CHECKING:
    from tests.connector.routing.conftest import MakeTeller, Net, Spoken

X = "test.x"
GOOD, BAD = (0, 1), (0, 2)  # preference, relation


def upset(unsteady: Unsteady, prefix: str = X, now: int = 0) -> None:
    """Back and forth until it is unsteady."""
    assert not unsteady.changed(prefix, GOOD, now)
    for number in range(RETURNS):
        assert not unsteady.changed(prefix, BAD, now)
        assert unsteady.changed(prefix, GOOD, now) == (number == RETURNS - 1)


def test_six_returns_in_a_row_make_a_prefix_unsteady() -> None:
    unsteady = Unsteady()
    for number in range(2 * RETURNS - 1):
        assert not unsteady.changed(X, (BAD, GOOD)[number % 2], number * WITHIN_MS)
        assert X not in unsteady
    assert unsteady.changed(X, GOOD, (2 * RETURNS - 1) * WITHIN_MS)
    assert X in unsteady and "test.y" not in unsteady
    assert unsteady.most == RETURNS


@pytest.mark.parametrize("ranks", [(BAD, BAD), (BAD, (-1, 1)), (BAD, (-1, 2)), ((1, 1), BAD)])
def test_what_changes_within_a_relation_or_by_preference_is_no_return(ranks: tuple[Rank, Rank]) -> None:
    """Lengths and prices come to rest by themselves; and preference counts for unsteady prefixes, too."""
    unsteady = Unsteady()
    for number in range(20 * RETURNS):
        assert not unsteady.changed(X, ranks[number % 2], number)
    assert unsteady.most == 0


def test_a_moment_without_a_hop_breaks_no_row() -> None:
    unsteady = Unsteady()
    for rank in (GOOD, BAD) * 10 * RETURNS:
        assert not unsteady.changed(X, rank, 0, is_new=True)  # not counted: nothing has changed before
    assert not unsteady.changed(X, BAD, 0)
    for number in range(RETURNS):
        assert unsteady.changed(X, GOOD, 0, is_new=True) == (number == RETURNS - 1)
        assert not unsteady.changed(X, BAD, 0)


def test_a_pause_begins_the_count_anew() -> None:
    unsteady = Unsteady()
    now = 0
    for _ in range(3):
        for _ in range(RETURNS - 1):
            assert not unsteady.changed(X, BAD, now)
            assert not unsteady.changed(X, GOOD, now)
        now += WITHIN_MS + 1
    assert X not in unsteady
    assert unsteady.most == RETURNS - 1


def test_it_lasts_five_minutes_after_the_last_change() -> None:
    unsteady = Unsteady()
    upset(unsteady)
    assert unsteady.left_ms(X, 0) == unsteady.wakes_at() == UNSTEADY_MS
    assert not unsteady.changed(X, BAD, 1_000)
    assert unsteady.end_old(UNSTEADY_MS, 100) == []
    assert unsteady.wakes_at() == UNSTEADY_MS + 1_000
    assert unsteady.end_old(UNSTEADY_MS + 1_000, 100) == [X]
    assert X not in unsteady and unsteady.wakes_at() is None and unsteady.left_ms(X, UNSTEADY_MS + 1_000) == 0
    upset(unsteady, now=UNSTEADY_MS + 1_000)  # and it takes as many returns as before


def test_prefixes_end_in_slices_the_oldest_first() -> None:
    unsteady = Unsteady()
    for number in range(5):
        upset(unsteady, f"test.x{number}", number)
    assert unsteady.end_old(UNSTEADY_MS + 3, 2) == ["test.x0", "test.x1"]
    assert unsteady.end_old(UNSTEADY_MS + 3, 100) == ["test.x2", "test.x3"]
    assert len(unsteady) == 1


def test_a_crowd_keeps_none_that_is_counted_from_being_counted_to_the_end() -> None:
    unsteady = Unsteady()
    for number in range(WATCHED_MAX):
        unsteady.changed(f"test.n{number}", GOOD, 0)
    for number in range(3 * RETURNS):
        assert not unsteady.changed(X, (BAD, GOOD)[number % 2], 0)  # no room: it isn't counted
    for number in range(2 * RETURNS):
        assert unsteady.changed("test.n7", (BAD, GOOD)[number % 2], 0) == (number == 2 * RETURNS - 1)
    upset(unsteady)  # there is room for one


def test_old_counts_make_room_by_themselves() -> None:
    unsteady = Unsteady()
    for number in range(WATCHED_MAX):
        unsteady.changed(f"test.n{number}", GOOD, 0)
    upset(unsteady, now=WITHIN_MS + 1)


def test_unsteady_prefixes_are_bounded() -> None:
    unsteady = Unsteady()
    for number in range(UNSTEADY_MAX):
        name = str(number)
        for rank in (GOOD, BAD) * RETURNS:
            unsteady.changed(name, rank, 0)
        unsteady.changed(name, GOOD, 0)
    for rank in (BAD, GOOD) * 3 * RETURNS:
        assert not unsteady.changed(X, rank, 0)
    assert X not in unsteady and len(unsteady) == UNSTEADY_MAX
    assert len(unsteady.end_old(UNSTEADY_MS, UNSTEADY_MAX)) == UNSTEADY_MAX
    upset(unsteady, now=UNSTEADY_MS)


RANKS = st.tuples(st.just(0), st.sampled_from((1, 2)))


@given(st.lists(st.tuples(st.sampled_from("ab"), RANKS, st.integers(0, 2 * WITHIN_MS)), max_size=200))
def test_only_what_returned_so_often_is_unsteady(story: list[tuple[str, Rank, int]]) -> None:
    """Against the rule written down anew, over all that ever happened."""
    unsteady, now = Unsteady(), 0
    rows: dict[str, list[tuple[Rank, int]]] = {"a": [], "b": []}
    until: dict[str, int] = {}
    for prefix, rank, wait in story:
        now += wait
        for one in unsteady.end_old(now, 100):
            assert until.pop(one) <= now
            rows[one] = []
        assert all(end > now for end in until.values())
        row = rows[prefix]
        if row and now - row[-1][1] > WITHIN_MS:
            row.clear()
        row.append((rank, now))
        returns = sum(after[0] < before[0] for before, after in pairwise(row))
        is_new = prefix not in until and returns >= RETURNS
        assert unsteady.changed(prefix, rank, now) == is_new
        if is_new or prefix in until:
            until[prefix] = now + UNSTEADY_MS
        assert {one for one in "ab" if one in unsteady} == set(until)


def test_an_unsteady_prefix_goes_by_preference_and_length_alone() -> None:
    rib = Rib()
    hops = {"child": ("child", 0, 3), "parent": ("parent", 0, 2), "liked": ("peer", 5, 9)}
    sources = {name: Source(AccountId(name), relation, liked) for name, (relation, liked, _) in hops.items()}
    for name, (_, _, length) in hops.items():
        rib.put(sources[name], Route(X, tuple(f"test.h{n}" for n in range(length)), bytes(32), ()))

    def ranked(now: int) -> list[str]:
        chosen = rib.choose(X, now)
        found: list[str] = [one.source.account for one in rib.ranked(X, now)]
        assert chosen is not None and chosen.source.account == found[0]
        return found

    assert ranked(0) == ["liked", "child", "parent"]
    upset(rib.unsteady)
    assert ranked(0) == ["liked", "parent", "child"]
    rib.unsteady.end_old(UNSTEADY_MS, 1)
    assert ranked(UNSTEADY_MS) == ["liked", "child", "parent"]


def test_the_operator_hears_of_a_prefix_that_goes_back_and_forth(
    net: "Net", make_spoken: "Spoken", make_teller: "MakeTeller"
) -> None:
    """CCP-18: a child that tells a route and withdraws it, again and again; the parent's is shorter."""
    net.add("me", make_spoken("kid", relation="child", child_address="test.kid"), make_spoken("dad", relation="parent"))
    for name in ("kid", "dad"):
        net.link("me", name)
    net.run(1)
    kid, dad = make_teller("kid"), make_teller("dad")
    dad.tells(Route(X, ("test.dad", X), bytes(32), ()))
    long = Route(X, ("test.kid", "test.uncle", X), bytes(32), ())
    for number in range(RETURNS + 1):  # the first is no return
        assert net.events("me", "routes_unsteady") == []
        kid.tells(long)
        net.run(1_000)
        if number < RETURNS:
            assert net.hop("me", X) == "kid"
            kid.tells(withdrawn=(X,))
            net.run(1_000)
        assert net.hop("me", X) == "dad"
    (line,) = net.events("me", "routes_unsteady")
    assert (line.fields["prefix"], line.fields["hop"], line.fields["prefixes"]) == (X, "kid", 1)
    net.run(UNSTEADY_MS)
    assert net.hop("me", X) == "kid"
