"""Places for strangers: bounded in all and for each address, and nobody keeps one for long against others."""

from hypothesis import given
from hypothesis import strategies as st

from isthmus.links.places import KEPT_MS, Place, Places, StrangerBounds

A, B = "192.0.2.1", "192.0.2.2"


def test_the_bound_of_an_address_and_one_past_it() -> None:
    places = Places(StrangerBounds(strangers_max=10, strangers_per_address_max=2))
    assert places.take(A, 0)[0] is not None and places.take(A, 0)[0] is not None
    assert places.take(A, 0) == (None, None) and places.refused == 1
    assert places.take(B, 0)[0] is not None


def test_the_oldest_of_the_address_makes_room_once_it_had_its_time() -> None:
    places = Places(StrangerBounds(strangers_max=10, strangers_per_address_max=2))
    first, _ = places.take(A, 0)
    places.take(B, 0)
    places.take(A, 1)
    assert places.take(A, KEPT_MS - 1) == (None, None)
    newcomer, evicted = places.take(A, KEPT_MS)
    assert newcomer is not None and evicted is first
    assert len(places) == 3


def test_the_oldest_of_all_makes_room_where_all_places_are_taken() -> None:
    places = Places(StrangerBounds(strangers_max=2, strangers_per_address_max=2))
    first, _ = places.take(A, 0)
    places.take(B, 1)
    assert places.take("192.0.2.3", KEPT_MS - 1) == (None, None)
    assert places.take("192.0.2.3", KEPT_MS)[1] is first


def test_who_has_shown_himself_takes_no_place() -> None:
    places = Places(StrangerBounds(strangers_max=1, strangers_per_address_max=1))
    first, _ = places.take(A, 0)
    assert first is not None
    places.leave(first)
    places.leave(first)
    assert len(places) == 0
    assert places.take(A, 0)[0] is not None


@given(st.lists(st.tuples(st.sampled_from((A, B, "::1", "leave")), st.integers(0, KEPT_MS)), max_size=100))
def test_the_bounds_hold_whatever_comes(steps: list[tuple[str, int]]) -> None:
    bounds = StrangerBounds(strangers_max=5, strangers_per_address_max=2)
    places = Places(bounds)
    inside: list[Place] = []
    now = 0
    for host, pause in steps:
        now += pause
        if host == "leave":
            if inside:
                places.leave(inside.pop())
            continue
        place, evicted = places.take(host, now)
        if evicted is not None:
            assert now - evicted.since >= bounds.kept_ms
            inside.remove(evicted)
        if place is not None:
            inside.append(place)
        assert len(places) == len(inside) <= bounds.strangers_max
        assert all(sum(one.address == each.address for one in inside) <= 2 for each in inside)
