"""The congestion window."""

from hypothesis import given
from hypothesis import strategies as st

from isthmus.stream.congestion import PAUSE_MS_MAX, PAUSE_MS_MIN, RATE_PAUSE_MS_MIN, WINDOW_START, Window


def test_slow_start_doubles_each_round_trip_up_to_the_maximum() -> None:
    window = Window(100)
    assert window.size == WINDOW_START
    for number in range(200):
        window.fulfilled(number, 10)
    assert window.size == 100
    assert window.rtt_ms == 10


def test_trouble_halves_once_for_all_that_was_in_flight() -> None:
    window = Window(100)
    for number in range(200):
        window.fulfilled(number, 10)
    assert window.trouble(150, 260, 1_000)
    assert window.size == 50
    assert not window.trouble(200, 260, 1_000)
    assert window.size == 50
    assert window.paused_until == 1_000 + PAUSE_MS_MIN
    assert not window.may_send(0, 1_000)
    assert window.may_send(49, 1_000 + PAUSE_MS_MIN)
    assert not window.may_send(50, 1_000 + PAUSE_MS_MIN)


def test_after_trouble_the_window_grows_by_one_a_round() -> None:
    window = Window(100)
    window.trouble(0, 10, 0)
    size = window.size
    for number in range(10, 10 + size):
        window.fulfilled(number, 10)
    assert window.size == size + 1


def test_pauses_double_while_nothing_gets_through_and_single_packets_ask() -> None:
    """P-10."""
    window = Window(100)
    now = 0
    pauses = []
    for number in range(12):
        window.trouble(number * 10, number * 10 + 10, now)
        pauses.append(window.paused_until - now)
        now = window.paused_until
    assert pauses[:4] == [PAUSE_MS_MIN, 2 * PAUSE_MS_MIN, 4 * PAUSE_MS_MIN, 8 * PAUSE_MS_MIN]
    assert pauses[-1] == PAUSE_MS_MAX
    assert window.size == 1
    window.fulfilled(200, 10)
    window.trouble(201, 210, now)
    assert window.paused_until - now == PAUSE_MS_MIN


def test_a_packet_rate_limit_gets_a_longer_pause() -> None:
    window = Window(100)
    window.trouble(0, 1, 0, RATE_PAUSE_MS_MIN)
    assert window.paused_until == RATE_PAUSE_MS_MIN


def test_a_growing_round_trip_stops_the_growth() -> None:
    window = Window(100)
    window.fulfilled(0, 5)
    size = window.size
    for number in range(50):
        window.fulfilled(number, 5_000)
    assert window.size == size


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 1_000), st.integers(0, 5_000)), max_size=100))
def test_the_window_is_never_below_one_or_above_its_maximum(events: list[tuple[bool, int, int]]) -> None:
    window = Window(20)
    number = 0
    for good, back, rtt in events:
        number += 3
        if good:
            window.fulfilled(max(0, number - back), rtt)
        else:
            window.trouble(max(0, number - back), number, number)
        assert 1 <= window.size <= 20
        assert window.paused_until <= number + PAUSE_MS_MAX
