"""Answers to our Prepares: in time, late, wrong, twice, by others, malformed, and none at all."""

from hashlib import sha256
from typing import TYPE_CHECKING

import pytest

from isthmus.connector.events import AccountId, Append, Inbound, LinkDown, LinkUp, Release, Undelivered
from isthmus.connector.lane import EXPIRED_MAX
from isthmus.ilp.packet import Fulfill, Reject, decode, encode_fulfill, encode_reject

if TYPE_CHECKING:
    from tests.connector.conftest import MakeNode, MakeTerms, Node

BOB = AccountId("bob")


def sent(node: "Node", amount: int = 100, **more: object) -> tuple[int, int]:
    """Alice pays Bob: the id of her request, and the id of ours."""
    asked = node.prepare("alice", "test.node.bob.x", amount, **more)
    return asked, node.taken("bob").request_id


def test_a_fulfill_moves_the_money_and_goes_upstream(node: "Node") -> None:
    """CONN-3, CONN-1, ILP-6."""
    asked, request_id = sent(node)
    assert (node.balance("alice"), node.balance("bob")) == (0, 0)
    packet = encode_fulfill(Fulfill(bytes(range(32)), b"data of the receiver"))
    node.reply("bob", request_id, packet)
    answer = node.taken("alice")
    assert (answer.request_id, answer.session, answer.packet) == (asked, b"session of peers", packet)
    assert (node.balance("alice"), node.balance("bob")) == (100, -100)
    assert node.in_flight() == 0


def test_a_reject_releases_the_money_and_goes_upstream_unchanged(node: "Node") -> None:
    """CONN-3, ILP-6, ILP-18: also with a code that nobody knows (X-8)."""
    asked, request_id = sent(node)
    packet = encode_reject(Reject("F09", "test.far.away", "Invalid Peer Response", b"\x00\x01"))
    node.reply("bob", request_id, packet)
    answer = node.taken("alice")
    assert (answer.request_id, answer.packet) == (asked, packet)
    assert (node.balance("alice"), node.balance("bob")) == (0, 0)
    assert node.in_flight() == 0


def test_a_reject_with_a_message_that_is_no_text_is_relayed(node: "Node") -> None:
    """P-14, ILP-6."""
    _, request_id = sent(node)
    packet = encode_reject(Reject("T00", "test.far", "abcd")).replace(b"abcd", b"\xff\xfe\x80\xc0")
    node.reply("bob", request_id, packet)
    assert node.taken("alice").packet == packet


def test_a_fulfill_just_before_the_expiry_counts(node: "Node") -> None:
    """ILP-9, P-6: read before the outgoing expiry, however late it is decided."""
    _, request_id = sent(node, left_ms=2_000)  # 1 s is kept for the way back
    read_at = node.mono + 999
    node._go(node.mono + 1_005)
    node.fulfil("bob", request_id, read_at=read_at)
    assert isinstance(node.packet("alice"), Fulfill)


def test_a_fulfill_at_the_expiry_is_too_late(node: "Node") -> None:
    """ILP-9, ILP-10, P-6, P-12, CONN-16: by our own clock."""
    _, request_id = sent(node, left_ms=2_000)
    node._go(node.mono + 1_000)
    node.fulfil("bob", request_id)
    assert node.rejected("alice").code == "R00"
    assert (node.balance("alice"), node.balance("bob")) == (0, 0)
    bob = node.kernel.books.peers[BOB]
    assert (bob.late_amount, bob.late_count) == (100, 1)
    assert node.kernel.switch.late == 1


def test_silence_is_rejected_at_the_expiry_at_once(node: "Node") -> None:
    """ILP-10, CONN-1."""
    start = node.mono
    sent(node, left_ms=2_000)
    node.wait(999)
    assert node.take("alice") == []
    assert node.in_flight() == 2
    woke = node.kernel.wakes_at()
    assert woke is not None
    assert start + 1_000 <= woke <= start + 1_008
    node.wait(9)
    reject = node.rejected("alice")
    assert (reject.code, reject.triggered_by, reject.data) == ("R00", "test.node", b"")
    assert node.in_flight() == 0


def test_after_the_expiry_a_fulfill_is_recorded_and_moves_nothing(node: "Node") -> None:
    """P-12, ILP-10."""
    _, request_id = sent(node, left_ms=2_000)
    node.wait(1_500)
    node.take("alice")
    effects = node.fulfil("bob", request_id)
    assert node.take("alice") == []
    assert node.kernel.books.peers[BOB].late_amount == 100
    appends = [effect for effect in effects if isinstance(effect, Append)]
    assert [single[:3] for single in appends[0].summary.singles] == [("late", BOB, 100)]
    node.fulfil("bob", request_id)  # once
    assert node.kernel.books.peers[BOB].late_count == 1


def test_late_answers_that_prove_nothing_are_not_recorded(node: "Node") -> None:
    """P-12: only a valid fulfillment."""
    _, request_id = sent(node, left_ms=2_000)
    node.wait(1_500)
    before = node.kernel.sequence
    node.fulfil("bob", request_id, bytes(32))
    node.reject("bob", request_id)
    node.reply("bob", request_id, b"\x0d\x01\x00")
    assert node.kernel.sequence == before
    assert node.kernel.switch.foreign == 3


def test_the_number_of_expired_legs_that_are_remembered_is_bounded(node: "Node") -> None:
    """P-12: the oldest are forgotten; a late Fulfill of theirs is one that answers nothing."""
    node.checks = False
    ids = [sent(node, left_ms=2_000)[1] for _ in range(EXPIRED_MAX + 1)]
    node.checks = True
    node.wait(1_100)
    node.fulfil("bob", ids[0])
    assert node.kernel.books.peers[BOB].late_count == 0
    node.fulfil("bob", ids[1])
    assert node.kernel.books.peers[BOB].late_count == 1


def test_a_wrong_fulfillment_is_never_paid(node: "Node") -> None:
    """ILP-11, ILP-21: F05 upstream."""
    asked, request_id = sent(node)
    node.fulfil("bob", request_id, bytes(32))
    frame = node.taken("alice")
    reject = decode(frame.packet)
    assert isinstance(reject, Reject)
    assert (frame.request_id, reject.code, reject.triggered_by) == (asked, "F05", "test.node")
    assert (node.balance("alice"), node.balance("bob")) == (0, 0)
    assert node.in_flight() == 0
    node.fulfil("bob", request_id)  # the right one afterwards: the leg is void for good
    assert node.take("alice") == []
    assert node.balance("bob") == 0


def test_the_fulfillment_is_checked_against_the_condition_of_its_own_prepare(node: "Node") -> None:
    """P-6: of two Prepares in flight each has its own."""
    _, first = sent(node)
    other = bytes(31) + b"\x07"
    _, second = sent(node, condition=sha256(other).digest())
    node.fulfil("bob", first, other)
    assert node.rejected("alice").code == "F05"
    node.fulfil("bob", second, other)
    assert node.fulfilled("alice").fulfillment == other


def test_a_second_answer_changes_nothing(node: "Node") -> None:
    """BTP-9, HTTP-5, HTTP-7: the first outcome stands."""
    _, request_id = sent(node)
    node.fulfil("bob", request_id)
    node.take("alice")
    sequence = node.kernel.sequence
    node.fulfil("bob", request_id)
    node.reject("bob", request_id)
    assert node.take("alice") == []
    assert node.kernel.sequence == sequence
    assert node.balance("bob") == -100
    assert node.kernel.switch.foreign == 2


def test_an_answer_on_another_account_is_foreign(make_node: "MakeNode", make_terms: "MakeTerms") -> None:
    """P-13, ILP-7: request ids belong to an account, and who answers is known by the link."""
    node = make_node(make_terms("alice"), make_terms("bob"), make_terms("mallory"))
    _, request_id = sent(node)
    node.fulfil("mallory", request_id)
    node.fulfil("alice", request_id)
    assert node.take("alice") == []
    assert node.kernel.switch.foreign == 2
    assert node.in_flight() == 2


def test_an_answer_of_another_session_is_foreign(node: "Node") -> None:
    """BTP-18: ids are unique within a session."""
    _, request_id = sent(node)
    node.fulfil("bob", request_id, session=b"some other one!!")
    assert node.in_flight() == 2
    node.fulfil("bob", request_id, session=node.kernel.session(BOB))
    assert node.in_flight() == 0


def test_ids_of_both_directions_do_not_collide(node: "Node") -> None:
    """P-13, BTP-8: Bob's request 1 and ours to Bob are two things."""
    _, request_id = sent(node)
    node.prepare("bob", "test.node.alice", request_id=request_id)
    to_alice = node.taken("alice").request_id
    node.fulfil("bob", request_id)
    assert node.balance("bob") == -100
    assert isinstance(node.packet("alice"), Fulfill)
    node.fulfil("alice", to_alice)
    assert node.balance("bob") == 0


@pytest.mark.parametrize("packet", [b"", b"\x0d", b"\x0d\x02ab", b"\x0e\x03F00", b"\x63abc", b"\x0e\x80"])
def test_a_malformed_answer_says_nothing(node: "Node", packet: bytes) -> None:
    """BTP-18, P-9: the peer may still fulfil in time, so the leg stays open."""
    _, request_id = sent(node)
    node.reply("bob", request_id, packet)
    assert node.take("alice") == []
    assert node.in_flight() == 2
    node.fulfil("bob", request_id)
    assert isinstance(node.packet("alice"), Fulfill)


def test_a_malformed_answer_and_then_silence_is_a_timeout(node: "Node") -> None:
    """BTP-18: R00 at the expiry."""
    _, request_id = sent(node, left_ms=2_000)
    node.reply("bob", request_id, b"\x0d\x00")
    node.wait(1_100)
    assert node.rejected("alice").code == "R00"


def test_what_the_peer_did_not_take_is_rejected_at_once(node: "Node") -> None:
    """BTP-18, HTTP-8: with the code that the link found."""
    _, request_id = sent(node)
    node.tell(Undelivered(BOB, request_id, "T00", "BTP Error"))
    reject = node.rejected("alice")
    assert (reject.code, reject.message, reject.triggered_by) == ("T00", "BTP Error", "test.node")
    assert node.in_flight() == 0
    node.tell(Undelivered(BOB, request_id, "T01", "again"))
    assert node.take("alice") == []


def test_a_code_of_the_link_that_is_none_becomes_t00(node: "Node") -> None:
    """ILP-22 of our own making: what we send parses."""
    _, request_id = sent(node)
    node.tell(Undelivered(BOB, request_id, "oops", "?"))
    assert node.rejected("alice").code == "T00"


def test_undelivered_for_nothing_of_ours_is_ignored(node: "Node") -> None:
    """BTP-9."""
    assert node.tell(Undelivered(BOB, 99, "T00", "?"), Undelivered(AccountId("nobody"), 1, "T00", "?")) == []


def test_a_broken_link_decides_nothing(node: "Node") -> None:
    """BTP-18, HTTP-8: what was written may be fulfilled; the answer may come on the next connection."""
    asked, request_id = sent(node)
    node.tell(LinkDown(BOB, "reset by peer"))
    assert node.take("alice") == []
    node.tell(LinkUp(BOB))
    assert node.take("bob") == []  # and it is never sent again
    node.fulfil("bob", request_id)
    assert node.taken("alice").request_id == asked


def test_a_broken_link_and_silence_is_a_timeout(node: "Node") -> None:
    """BTP-18."""
    sent(node, left_ms=5_000)
    node.tell(LinkDown(BOB, "gone"))
    node.wait(4_100)
    assert node.rejected("alice").code == "R00"
    assert node.take("bob") == []


def test_answers_are_given_also_while_the_asking_link_is_down(node: "Node") -> None:
    """BTP-18: the link keeps them for its next connection, under the old id."""
    asked, request_id = sent(node)
    node.tell(LinkDown(AccountId("alice"), "gone"))
    node.fulfil("bob", request_id)
    assert node.taken("alice").request_id == asked
    assert node.balance("alice") == 100


def test_an_answer_before_the_prepare_left_is_foreign(node: "Node") -> None:
    """BTP-9, P-6: nobody can answer what was not sent."""
    node.durable = False
    node.prepare("alice", "test.node.bob.x")
    node.fulfil("bob", 1)
    assert node.kernel.switch.foreign == 1
    node.commit()
    node.durable = True
    node.fulfil("bob", node.taken("bob").request_id)
    assert node.fulfilled("alice").fulfillment == bytes(range(32))


def test_a_fulfill_whose_commit_ends_after_the_incoming_expiry_is_relayed_and_listed(node: "Node") -> None:
    """P-6: list the amount as at risk."""
    _, request_id = sent(node, left_ms=3_000)
    node.durable = False
    node._go(node.mono + 1_500)
    node.fulfil("bob", request_id)
    node._go(node.mono + 1_600)
    effects = node.commit()
    releases = [effect for effect in effects if isinstance(effect, Release)]
    assert releases[0].account == "alice"
    node.commit()
    alice = node.kernel.books.peers[AccountId("alice")]
    assert alice.at_risk == 100
    assert [(one[2], one[3]) for one in node.kernel.books.at_risk] == [(100, 100)]


def test_a_commit_that_ends_just_before_the_incoming_expiry_is_no_risk(node: "Node") -> None:
    """P-6."""
    _, request_id = sent(node, left_ms=3_000)
    node.durable = False
    node.fulfil("bob", request_id)
    node._go(node.mono + 2_999)
    node.commit()
    assert node.kernel.books.at_risk == []


def test_latency_is_counted_in_its_bucket(node: "Node") -> None:
    _, request_id = sent(node)
    node._go(node.mono + 7)
    node.fulfil("bob", request_id)
    assert [index for index, count in enumerate(node.kernel.switch.latency) if count] == [3]  # up to 10 ms
    assert node.kernel.switch.latency_sum_ms == 7


def test_an_inbound_for_an_account_that_does_not_exist_is_ignored(node: "Node") -> None:
    node.tell(Inbound(AccountId("nobody"), bytes(16), 1, b"\x0d\x00", node.mono))
    assert node.kernel.switch.foreign == 1
