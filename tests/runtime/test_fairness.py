"""Who is left unread for a while, and who isn't."""

from hypothesis import given
from hypothesis import strategies as st

from isthmus.connector.events import AccountId
from isthmus.runtime.fairness import OTHERS_MS, PAUSE_MS_MAX, PAUSE_US_PER_PACKET, READ_PACKETS_MAX, Fairness

ALICE, BOB, MALLORY = AccountId("alice"), AccountId("bob"), AccountId("mallory")
MANY = READ_PACKETS_MAX + 1


def test_alone_nobody_is_paused() -> None:
    rule = Fairness()
    assert [rule.read(MALLORY, 10_000, now) for now in range(5)] == [0] * 5


def test_many_at_once_while_others_pay_are_paused_for_their_number() -> None:
    rule = Fairness()
    assert rule.read(ALICE, 1, 0) == 0
    assert rule.read(MALLORY, READ_PACKETS_MAX, 1) == 0
    assert rule.read(MALLORY, MANY, 2) == MANY * PAUSE_US_PER_PACKET // 1_000
    assert rule.read(MALLORY, 10_000_000, 2) == PAUSE_MS_MAX
    assert rule.read(ALICE, 1, 3) == 0


def test_who_was_there_long_ago_is_not_there_now() -> None:
    rule = Fairness()
    rule.read(ALICE, 1, 0)
    assert rule.read(MALLORY, MANY, OTHERS_MS) > 0
    assert rule.read(MALLORY, MANY, OTHERS_MS + 1) == 0


@given(st.lists(st.tuples(st.sampled_from((ALICE, BOB, MALLORY)), st.integers(1, 2_000), st.integers(0, 50))))
def test_a_pause_is_bounded_and_small_reads_have_none(reads: list[tuple[AccountId, int, int]]) -> None:
    rule = Fairness()
    now = 0
    for account, packets, later in reads:
        now += later
        pause = rule.read(account, packets, now)
        assert 0 <= pause <= PAUSE_MS_MAX
        assert packets > READ_PACKETS_MAX or pause == 0
