"""Answers that outlive a connection."""

from isthmus.connector.events import Outbound
from isthmus.connector.tables import HOLD_MS_LIMIT, OPEN_LEGS_MAX
from isthmus.links.btp.answers import KEEP_MS, WRITTEN_MS, Answers

PREPARE, FULFILL, REJECT = b"\x0c", b"\x0d", b"\x0e"


def frame(request_id: int, packet: bytes = FULFILL) -> Outbound:
    return Outbound(bytes(16), request_id, packet)


def ids(frames: list[Outbound]) -> list[int]:
    return [one.request_id for one in frames]


def test_an_answer_that_fell_due_while_down_goes_out_once_under_its_id() -> None:
    """BTP-18."""
    answers = Answers()
    answers.keep(frame(7), 0)
    answers.keep(frame(8, REJECT), 5)
    assert len(answers) == 2
    assert ids(answers.take(10, knows_sessions=True)) == [7, 8]
    assert answers.take(11, knows_sessions=True) == []


def test_an_answer_is_kept_until_it_is_useless() -> None:
    """BTP-18. Just inside the bound, and on it. No leg is open for longer."""
    assert KEEP_MS >= HOLD_MS_LIMIT
    for age, expected in ((KEEP_MS - 1, [7]), (KEEP_MS, [])):
        answers = Answers()
        answers.keep(frame(7), 0)
        assert ids(answers.take(age, knows_sessions=True)) == expected


def test_what_was_written_before_the_last_pong_has_arrived() -> None:
    """BTP-18."""
    for age, expected in ((WRITTEN_MS - 1, [7]), (WRITTEN_MS, [])):
        answers = Answers()
        answers.written([frame(7)], 0)
        assert ids(answers.take(age, knows_sessions=True)) == expected


def test_every_fulfill_that_an_account_may_have_in_flight_is_kept() -> None:
    """BTP-18. It is posted: one that were dropped here would be money lost."""
    answers = Answers()
    packet = FULFILL + bytes(200)
    for request_id in range(OPEN_LEGS_MAX):
        answers.keep(frame(request_id, packet), 0)
    assert ids(answers.take(1, knows_sessions=False)) == list(range(OPEN_LEGS_MAX))


def test_at_the_bound_the_oldest_reject_goes_first() -> None:
    answers = Answers(due_bytes_max=3 * 401)
    for request_id, packet in ((1, FULFILL), (2, REJECT), (3, FULFILL), (4, REJECT)):
        answers.keep(frame(request_id, packet), 0)
    assert ids(answers.take(1, knows_sessions=True)) == [1, 3, 4]
    for request_id in range(4):
        answers.keep(frame(request_id), 0)
    assert ids(answers.take(1, knows_sessions=True)) == [1, 2, 3]


def test_rejects_have_a_bound_of_their_own() -> None:
    answers = Answers(rejects_max=2)
    for request_id in range(4):
        answers.keep(frame(request_id, REJECT), 0)
    assert ids(answers.take(1, knows_sessions=True)) == [2, 3]


def test_a_fulfill_written_just_before_the_break_goes_out_again() -> None:
    """BTP-18, BTP-9: it may be lost, and the peer ignores it if it isn't. Prepares are never sent twice."""
    answers = Answers()
    answers.written([frame(1, PREPARE), frame(2), frame(3, REJECT)], 0)
    answers.written([frame(4)], 1)
    answers.keep(frame(5), 2)
    assert ids(answers.take(3, knows_sessions=True)) == [2, 4, 5]


def test_what_was_written_is_kept_within_a_bound() -> None:
    answers = Answers(written_max=10)
    for start in range(0, 100, 5):
        answers.written([frame(start + i) for i in range(5)], 0)
    assert ids(answers.take(1, knows_sessions=True)) == list(range(90, 100))
    answers.written([frame(i) for i in range(50)], 0)
    assert ids(answers.take(1, knows_sessions=True)) == list(range(40, 50))


def test_what_was_written_is_kept_within_a_bound_of_bytes() -> None:
    answers = Answers(written_bytes_max=100)
    for request_id in range(5):
        answers.written([frame(request_id)], 0, 40)
    assert ids(answers.take(1, knows_sessions=True)) == [3, 4]


def test_a_written_fulfill_is_not_repeated_to_a_peer_that_knows_no_sessions() -> None:
    """BTP-18. Its new process may use the old request ids for new requests."""
    answers = Answers()
    answers.written([frame(1)], 0)
    answers.keep(frame(2), 0)
    assert ids(answers.take(1, knows_sessions=False)) == [2]
