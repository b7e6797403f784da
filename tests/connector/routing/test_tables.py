"""The routing base, the log of what we tell, and the forwarding table, each against a naive one."""

from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.connector.events import AccountId
from isthmus.connector.routing.forwarding import SWAP_MS, Forwarding
from isthmus.connector.routing.log import CHUNK_MAX, WITHDRAWN_MAX, Export, RouteLog
from isthmus.connector.routing.rib import Rib, Source
from isthmus.ilp.ccp import Route


def route(prefix: str, *path: str, auth: bytes = bytes(32)) -> Route:
    return Route(prefix, path, auth, ())


def source(account: str, relation: str = "peer", preference: int = 0) -> Source:
    return Source(AccountId(account), relation, preference)


def chosen(rib: Rib, prefix: str, now: int = 0) -> str | None:
    found = rib.choose(prefix, now)
    return None if found is None else found.source.account


# --- the choice -------------------------------------------------------------------------------------------------------


def test_relation_then_length_then_name_decide() -> None:
    """CCP-18, CONN-13; a peer is no better than a parent, or networks may never come to rest."""
    rib = Rib()
    ranked = [
        (source("zoe", "child"), route("test.x", "test.a", "test.b", "test.c")),
        (source("bob"), route("test.x", "test.a")),
        (source("carl"), route("test.x", "test.a")),
        (source("dad", "parent"), route("test.x", "test.a")),
        (source("amy"), route("test.x", "test.a", "test.b")),
    ]
    for one, way in reversed(ranked):
        rib.put(one, way)
    for one, way in ranked:
        assert chosen(rib, "test.x") == one.account
        rib.remove(one, way.prefix)
    assert chosen(rib, "test.x") is None
    assert rib.count == len(rib) == 0


def test_the_operators_preference_goes_before_the_relation() -> None:
    """CCP-18: extended by operator policy."""
    rib = Rib()
    rib.put(source("kid", "child"), route("test.x", "test.a"))
    rib.put(source("dad", "parent", preference=1), route("test.x", "test.a", "test.b"))
    assert chosen(rib, "test.x") == "dad"


def test_the_choice_does_not_depend_on_the_order_of_arrival() -> None:
    """CCP-18."""
    for names in (("bob", "carl"), ("carl", "bob")):
        rib = Rib()
        for name in names:
            rib.put(source(name), route("test.x", "test.a"))
        assert chosen(rib, "test.x") == "bob"


def test_a_dead_source_counts_no_more_at_once_and_is_cleared_away_in_slices() -> None:
    """CCP-20."""
    rib = Rib()
    bob, carl = source("bob"), source("carl")
    for number in range(10):
        rib.put(bob, route(f"test.x{number}", "test.a"))
    rib.put(carl, route("test.x3", "test.a", "test.b"))
    rib.dirty.clear()
    rib.kill(bob)
    assert chosen(rib, "test.x3") == "carl"
    assert chosen(rib, "test.x4") is None
    assert rib.bury(4) == 0
    assert rib.count == 7
    assert not rib.is_clean()
    assert rib.bury(100) == 94
    assert list(rib.dirty) == [f"test.x{number}" for number in reversed(range(10))]
    assert (rib.count, len(rib)) == (1, 1)


def test_the_same_route_again_is_no_change() -> None:
    rib = Rib()
    bob = source("bob")
    rib.put(bob, route("test.x", "test.a"))
    rib.dirty.clear()
    rib.put(bob, route("test.x", "test.a"))
    assert not rib.dirty
    rib.put(bob, route("test.x", "test.a", "test.b"))
    assert list(rib.dirty) == ["test.x"]
    assert rib.count == 1


# --- the log ----------------------------------------------------------------------------------------------------------


def export(prefix: str, account: str = "bob", *path: str) -> Export:
    return Export(route(prefix, *path), AccountId(account), is_customer=False)


def test_each_prefix_is_in_the_log_once_with_its_last_change() -> None:
    """CCP-7."""
    log = RouteLog()
    for number in range(5):
        assert log.put(f"test.x{number}", export(f"test.x{number}"))
    assert log.put("test.x1", export("test.x1", "carl"))
    assert log.put("test.x2", None)
    assert not log.put("test.x2", None)
    assert not log.put("test.x9", None)
    assert not log.put("test.x1", export("test.x1", "carl"))
    assert [(change.epoch, change.prefix) for change in log.since(0)] == [
        (0, "test.x0"),
        (3, "test.x3"),
        (4, "test.x4"),
        (5, "test.x1"),
        (6, "test.x2"),
    ]
    assert [change.epoch for change in log.since(4)] == [4, 5, 6]
    assert log.epoch == 7


def test_the_withdrawn_that_are_remembered_are_bounded() -> None:
    log = RouteLog()
    for number in range(WITHDRAWN_MAX + 2):
        log.put(f"test.x{number}", export(f"test.x{number}"))
        log.put(f"test.x{number}", None)
    assert len(log) == WITHDRAWN_MAX
    assert log.floor == 4


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 2)), max_size=200), st.integers(0, 250))
def test_the_log_is_like_a_naive_one(changes: list[tuple[int, int]], since: int) -> None:
    """CCP-7."""
    log = RouteLog()
    naive: list[tuple[int, str, str | None]] = []
    for number, to in changes:
        prefix = f"test.x{number}"
        account = f"peer{to}" if to else None
        before = next((one[2] for one in reversed(naive) if one[1] == prefix), None)
        changed = log.put(prefix, None if account is None else export(prefix, account))
        assert changed is (before != account)
        if changed:
            naive = [one for one in naive if one[1] != prefix] + [(log.epoch - 1, prefix, account)]
    told = [
        (change.epoch, change.prefix, None if change.export is None else change.export.account)
        for change in log.since(since)
    ]
    assert told == [one for one in naive if one[0] >= since]


def test_a_long_log_is_kept_in_chunks_that_join_again() -> None:
    log = RouteLog()
    count = 20 * CHUNK_MAX
    for number in range(count):
        log.put(f"test.x{number}", export(f"test.x{number}"))
    for number in range(count - 10):
        log.put(f"test.x{number % 7}", export(f"test.x{number % 7}", f"peer{number}"))
        if number >= 7:
            log.put(f"test.x{number}", export(f"test.x{number}", "carl"))
    assert len(log) == count
    epochs = [change.epoch for change in log.since(0)]
    assert epochs == sorted(epochs)
    assert len(epochs) == count


# --- forwarding -------------------------------------------------------------------------------------------------------


def test_a_set_of_changes_is_seen_whole() -> None:
    table = Forwarding()
    for number in range(10):
        table.put(b"test.x%d" % number, AccountId("bob"))
    assert not table.work(6, 1_000)
    assert not table.live
    assert table.work(6, 1_001)
    assert len(table.live) == 10
    table.put(b"test.x3", None)
    assert not table.work(100, 1_002)
    assert len(table.live) == 10
    assert table.wakes_at(1_002) == 1_001 + SWAP_MS
    assert table.work(100, 1_001 + SWAP_MS)
    assert b"test.x3" not in table.live


@given(st.lists(st.tuples(st.integers(0, 9), st.booleans(), st.integers(0, 4), st.integers(0, 60)), max_size=80))
def test_both_tables_come_to_the_same(steps: list[tuple[int, bool, int, int]]) -> None:
    table = Forwarding()
    naive: dict[bytes, AccountId] = {}
    now = 0
    for number, is_there, budget, passed in steps:
        prefix = b"test.x%d" % number
        account = AccountId(f"peer{passed % 3}") if is_there else None
        table.put(prefix, account)
        if account is None:
            naive.pop(prefix, None)
        else:
            naive[prefix] = account
        now += passed
        table.work(budget, now)
    while (at := table.wakes_at(now)) is not None:
        now = max(now, at)
        table.work(3, now)
    assert table.live == naive
    table.put(b"test.x0", None)
    naive.pop(b"test.x0", None)
    table.work(9, now + SWAP_MS)
    assert table.live == naive
