"""Our sessions and request ids: never reused, renewed in time, and new in every process."""

from typing import TYPE_CHECKING

from isthmus.connector.events import AccountId, CloseLink, LinkDown, LinkUp
from isthmus.connector.kernel import Kernel
from isthmus.connector.lane import RENEW_SESSION_AT, RESTART_GAP
from isthmus.ilp.packet import FULFILL

if TYPE_CHECKING:
    from tests.connector.conftest import Node

ALICE = AccountId("alice")
BOB = AccountId("bob")


def test_request_ids_go_on_above_those_of_the_process_before(node: "Node") -> None:
    """BTP-8, BTP-18: peers without sessions match by the id alone."""
    for _ in range(3):
        node.prepare("alice", "test.node.bob.x")
    last = node.take("bob")[-1]
    node.fulfil("bob", last.request_id)
    after = node.restarted()
    after.tell(LinkUp(ALICE), LinkUp(BOB))
    after.prepare("alice", "test.node.bob.x")
    fresh = after.taken("bob")
    assert fresh.request_id == last.request_id + RESTART_GAP + 1  # a report took the first
    assert fresh.session != last.session


def test_ids_near_their_end_begin_anew_in_the_next_process(node: "Node") -> None:
    """BTP-8."""
    node.kernel.switch.lanes[BOB].next_request_id = RENEW_SESSION_AT
    node.prepare("alice", "test.node.bob.x")
    after = node.restarted()
    after.tell(LinkUp(ALICE), LinkUp(BOB))
    after.prepare("alice", "test.node.bob.x")
    assert after.taken("bob").request_id == 2  # a report of outcomes took 1


def test_a_session_is_renewed_before_its_ids_run_out(node: "Node") -> None:
    """BTP-8: the link is closed, and the next connection has a new session."""
    old = node.kernel.session(BOB)
    node.kernel.switch.lanes[BOB].next_request_id = RENEW_SESSION_AT
    effects = node.tell(node.inbound("alice", "test.node.bob.x"), node.inbound("alice", "test.node.bob.x"))
    assert [effect.account for effect in effects if isinstance(effect, CloseLink)] == ["bob"]
    before = node.take("bob")
    node.tell(LinkDown(BOB, "renewed"))
    node.tell(LinkUp(BOB))
    assert node.kernel.session(BOB) != old
    node.prepare("alice", "test.node.bob.x")
    fresh = node.taken("bob")
    assert (fresh.request_id, fresh.session) == (2, node.kernel.session(BOB))
    node.fulfil("bob", before[0].request_id, session=old)  # what is in flight is not forgotten
    assert node.taken("alice").packet[0] == FULFILL


def test_a_prepare_of_an_old_session_does_not_leave_in_a_new_one(node: "Node") -> None:
    """BTP-18: the peer would file it under the session that the new connection announced."""
    node.kernel.switch.lanes[BOB].next_request_id = RENEW_SESSION_AT
    node.durable = False
    node.prepare("alice", "test.node.bob.x")
    node.tell(LinkDown(BOB, "renewed"))
    node.tell(LinkUp(BOB))
    node.durable = True
    node.tell()
    assert node.take("bob") == []
    assert node.rejected("alice").code == "T01"
    node.prepare("alice", "test.node.bob.x")
    assert node.taken("bob").request_id == 2


def test_without_ids_left_prepares_are_refused(node: "Node") -> None:
    """BTP-8, ILP-22: T01."""
    node.kernel.switch.lanes[BOB].next_request_id = 2**32
    node.prepare("alice", "test.node.bob.x")
    assert node.rejected("alice").code == "T01"


def test_sessions_differ_by_account_and_process(node: "Node") -> None:
    """BTP-18."""
    other = Kernel(b"\x01" * 32)
    ids = {node.kernel.session(ALICE), node.kernel.session(BOB), other.session(ALICE), other.session(BOB)}
    assert len(ids) == 4
    assert {len(one) for one in ids} == {16}
