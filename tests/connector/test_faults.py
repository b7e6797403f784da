"""What misfortune or a hostile peer can do between two steps: links that come and go, clocks, strange codes."""

from typing import TYPE_CHECKING

import pytest

from isthmus.connector.events import AccountId, CloseLink, LinkDown, LinkUp
from isthmus.connector.lane import RENEW_SESSION_AT
from isthmus.connector.tables import HOLD_MS_MAX, TERMS_BYTES_MAX, RateTable, RouteTable, Tables, TablesChanged
from isthmus.errors import ConfigError
from isthmus.ilp.packet import FULFILL
from isthmus.journal.record import ENTRIES_BYTES_MAX

if TYPE_CHECKING:
    from tests.connector.conftest import MakeNode, MakeTerms, Node

ALICE, BOB = AccountId("alice"), AccountId("bob")
HOUR_MS = 3_600_000


@pytest.fixture
def node(make_node: "MakeNode", make_terms: "MakeTerms") -> "Node":
    return make_node(make_terms("alice"), make_terms("bob"))


def test_a_prepare_of_an_old_session_does_not_leave_in_a_new_one(node: "Node") -> None:
    """BTP-8, BTP-18. Its answer would name the new session, and meet no leg: a Fulfill would be lost."""
    node.kernel.switch.lanes[BOB].next_request_id = RENEW_SESSION_AT
    node.durable = False
    first = node.prepare("alice", "test.node.bob.x")
    assert any(isinstance(effect, CloseLink) for effect in node.effects)
    node.tell(LinkDown(BOB, "renewed"), LinkUp(BOB))
    node.commit()
    assert node.take("bob") == []  # not a byte of it left, so upstream hears it at once
    while node.undurable:
        node.commit()
    frame = node.taken("alice")
    assert frame.request_id == first
    node.durable = True
    assert node.in_flight() == 0
    node.prepare("alice", "test.node.bob.x")
    fresh = node.taken("bob")
    assert (fresh.request_id, fresh.session) == (2, node.kernel.session(BOB))  # a report took 1


def test_a_link_that_was_down_for_a_moment_sends_what_waited(node: "Node") -> None:
    """BTP-18. Nothing of it was handed to the link before, and the session is the same."""
    node.durable = False
    node.prepare("alice", "test.node.bob.x")
    node.tell(LinkDown(BOB, "cut"), LinkUp(BOB))
    node.commit()
    sent = node.taken("bob")
    assert sent.session == node.kernel.session(BOB)


def test_codes_that_peers_invent_are_counted_together(node: "Node") -> None:
    """ILP-18. Three letters give a peer millions of counters, each a line of the metrics."""
    for number in range(100):
        node.prepare("alice", "test.node.bob.x")
        node.reject("bob", node.taken("bob").request_id, f"X{number:02}")
    lanes = node.kernel.switch.lanes
    assert lanes[ALICE].rejected == {"other": 100}
    assert lanes[BOB].relayed == {"other": 100}


@pytest.mark.parametrize("jump_ms", [HOUR_MS, -HOUR_MS])
def test_a_wall_clock_that_jumped_over_a_restart_holds_nothing_longer(node: "Node", jump_ms: int) -> None:
    """CONN-9. What is open ends within the longest hold of the terms that it was reserved under."""
    node.prepare("alice", "test.node.bob.x")
    sent = node.taken("bob")
    node.wall += jump_ms
    after = node.restarted()
    after.tell(LinkUp(ALICE), LinkUp(BOB))
    after.wait(HOLD_MS_MAX + 8)
    assert after.in_flight() == 0
    assert after.rejected("alice").code == "R00"
    after.fulfil("bob", sent.request_id, session=sent.session)
    assert (after.balance("alice"), after.balance("bob")) == (0, 0)


def test_without_a_jump_a_restart_changes_no_deadline(node: "Node") -> None:
    """ILP-10."""
    node.prepare("alice", "test.node.bob.x")
    sent = node.taken("bob")
    after = node.restarted()
    after.tell(LinkUp(ALICE), LinkUp(BOB))
    after.wait(28_999)
    after.fulfil("bob", sent.request_id, session=sent.session)
    assert after.taken("alice").packet[0] == FULFILL


def test_what_waits_on_a_removed_account_is_refused(make_node: "MakeNode", make_terms: "MakeTerms") -> None:
    node = make_node(make_terms("alice"), make_terms("bob"), make_terms("carol"))
    tables = node.tables
    without = {name: one for name, one in tables.accounts.items() if name != ALICE}
    node.tell(
        node.inbound("alice", "test.node.bob.x"),
        TablesChanged(Tables(tables.address, without, type(tables.routes)({"test.node.bob": BOB}), tables.rates)),
    )
    assert node.rejected("alice").code == "T03"
    assert node.in_flight() == 0


def test_no_value_a_second_is_no_setting(make_terms: "MakeTerms") -> None:
    """A bucket that never fills would still let its burst pass."""
    with pytest.raises(ConfigError, match="amount_per_second"):
        make_terms("alice", amount_per_second=0).check()


def test_tables_that_no_batch_can_hold_are_refused(make_terms: "MakeTerms") -> None:
    """Else the journal would fail on them, at each start anew."""
    assert TERMS_BYTES_MAX < ENTRIES_BYTES_MAX
    routes = RouteTable({f"test.{number}.{'a' * 1_000}": BOB for number in range(TERMS_BYTES_MAX // 1_000)})
    with pytest.raises(ConfigError, match="bytes"):
        Tables("test.node", {BOB: make_terms("bob")}, routes, RateTable({})).check()
