"""`peer.*` between neighbours, ILDCP both ways, and the echo."""

from hashlib import sha256
from typing import TYPE_CHECKING, Any

import pytest

from isthmus.connector.events import (
    AccountId,
    AddressLearned,
    Append,
    Inbound,
    LinkDown,
    LinkUp,
    Log,
    Outbound,
    Undelivered,
)
from isthmus.connector.protocols import ECHO_ANSWER, ECHO_PREFIX
from isthmus.connector.tables import TablesChanged
from isthmus.ilp.ildcp import PEER_CONDITION, PEER_FULFILLMENT, IldcpResponse, decode_response, encode_response
from isthmus.ilp.packet import Fulfill, Prepare, Reject, decode_prepare, encode_fulfill, encode_reject
from isthmus.oer import encode_var_octets

if TYPE_CHECKING:
    from tests.connector.conftest import MakeNode, MakeTerms, Node

ALICE = AccountId("alice")
BOB = AccountId("bob")


def ask(node: "Node", account: str = "alice", **changes: Any) -> None:
    fields: dict[str, Any] = {"amount": 0, "condition": PEER_CONDITION, **changes}
    node.prepare(account, fields.pop("to", "peer.config"), fields.pop("amount"), **fields)


@pytest.fixture
def parent(make_node: "MakeNode", make_terms: "MakeTerms") -> "Node":
    """A node with Alice as its child and Bob as a peer; even the default route doesn't capture `peer`."""
    alice = make_terms("alice", relation="child", ildcp_server=True, child_address="test.node.alice")
    return make_node(alice, make_terms("bob"), routes={"": "bob", "test.node.alice": "alice"})


# --- ILDCP as a parent ------------------------------------------------------------------------------------------------


def test_a_child_is_told_its_address_and_asset(parent: "Node") -> None:
    """ILDCP-1, ILDCP-2, ILDCP-3, PEER-1, CONN-14."""
    ask(parent)
    answer = parent.fulfilled("alice")
    assert answer.fulfillment == PEER_FULFILLMENT
    assert decode_response(answer.data) == IldcpResponse("test.node.alice", 9, "USD")


def test_the_vector_of_a_request_is_answered(parent: "Node") -> None:
    """ILDCP-1."""
    expiry = b"20270115080100000"
    packet = b"\x0c\x46" + bytes(8) + expiry + PEER_CONDITION + b"\x0bpeer.config\x00"
    parent.tell(Inbound(ALICE, b"session of peers", 3, packet, parent.mono))
    assert parent.taken("alice").packet[0] == 13


def test_the_data_of_a_request_is_ignored(parent: "Node") -> None:
    """ILDCP-6."""
    ask(parent, data=b"anything")
    assert parent.fulfilled("alice").fulfillment == PEER_FULFILLMENT


def test_only_children_are_served(parent: "Node") -> None:
    """ILDCP-6, ILDCP-4: F00, our address, no data."""
    ask(parent, "bob")
    reject = parent.rejected("bob")
    assert (reject.code, reject.triggered_by, reject.data) == ("F00", "test.node", b"")


@pytest.mark.parametrize(
    "changes",
    [{"amount": 1}, {"condition": bytes(32)}, {"left_ms": 0}, {"left_ms": -5}],
    ids=["amount", "condition", "expired now", "expired"],
)
def test_an_unsound_request_is_refused(parent: "Node", changes: dict[str, Any]) -> None:
    """PEER-2."""
    ask(parent, **changes)
    assert parent.rejected("alice").code == "F00"


@pytest.mark.parametrize("to", ["peer.config.x", "peer.configs", "peer.settle", "peer.route", "peer.route.updates"])
def test_other_destinations_are_unhandled(parent: "Node", to: str) -> None:
    """CONN-17, PEER-2, PEER-5: F01."""
    ask(parent, to=to)
    assert parent.rejected("alice").code == "F01"
    assert parent.take("bob") == []


def test_requests_of_neighbours_touch_neither_books_nor_limits(make_node: "MakeNode", make_terms: "MakeTerms") -> None:
    """PEER-5, PEER-3: before balances and routes; also with less time than a forwarded packet needs."""
    alice = make_terms(
        "alice", relation="child", ildcp_server=True, child_address="test.node.alice", receivable_max=0, payable_max=0
    )
    node = make_node(alice, routes={})
    appends = len(node.records)
    ask(node, left_ms=1)
    assert node.fulfilled("alice").fulfillment == PEER_FULFILLMENT
    assert len(node.records) == appends


def test_the_rate_limit_holds_for_neighbours_questions(make_node: "MakeNode", make_terms: "MakeTerms") -> None:
    """P-11."""
    alice = make_terms(
        "alice",
        relation="child",
        ildcp_server=True,
        child_address="test.node.alice",
        packets_per_minute=1,
        packets_burst=1,
    )
    node = make_node(alice)
    ask(node)
    node.take("alice")
    ask(node)
    assert node.rejected("alice").code == "T05"


# --- ILDCP as a child -------------------------------------------------------------------------------------------------


@pytest.fixture
def child(make_node: "MakeNode", make_terms: "MakeTerms") -> "Node":
    uplink = make_terms("uplink", relation="parent", ildcp_client=True)
    return make_node(uplink, make_terms("bob"), address="", routes={"": "uplink"}, up=False)


def learned(node: "Node") -> list[AddressLearned]:
    return [effect for effect in node.effects if isinstance(effect, AddressLearned)]


def question(node: "Node") -> Outbound:
    frame = node.taken("uplink")
    prepare = decode_prepare(frame.packet)
    assert (prepare.destination, prepare.amount, prepare.condition) == ("peer.config", 0, PEER_CONDITION)
    assert prepare.data == b""
    assert prepare.expires_at == node.wall + 60_000  # PEER-3
    return frame


def test_the_parent_is_asked_when_its_link_comes_up(child: "Node") -> None:
    """ILDCP-1, ILDCP-5, CONN-14, PEER-3: any valid address is taken."""
    assert child.take("uplink") == []
    child.tell(LinkUp(AccountId("uplink")), LinkUp(BOB))
    frame = question(child)
    answer = encode_response(IldcpResponse("test.elsewhere.us", 4, "XAM"))
    child.reply("uplink", frame.request_id, answer + b"", session=child.kernel.session(AccountId("uplink")))
    assert learned(child) == [AddressLearned(AccountId("uplink"), "test.elsewhere.us", "XAM", 4)]
    child.wait(120_000)
    assert child.take("uplink") == child.take("bob") == []


def test_trailing_bytes_of_the_answer_are_ignored(child: "Node") -> None:
    """ILDCP-6."""
    child.tell(LinkUp(AccountId("uplink")))
    data = b"\x0etest.client.us\x09\x03XAM" + b"more"
    child.reply("uplink", question(child).request_id, encode_fulfill(Fulfill(PEER_FULFILLMENT, data)))
    assert learned(child)[0].address == "test.client.us"


def test_the_address_is_asked_for_again_on_every_connection(child: "Node") -> None:
    """ILDCP-7."""
    for number in range(3):
        child.tell(LinkUp(AccountId("uplink")))
        frame = question(child)
        child.reply("uplink", frame.request_id, encode_response(IldcpResponse(f"test.us{number}", 9, "USD")))
        child.tell(LinkDown(AccountId("uplink"), "gone"))
    assert [one.address for one in learned(child)] == ["test.us0", "test.us1", "test.us2"]


@pytest.mark.parametrize(
    "answer",
    [
        encode_fulfill(Fulfill(b"\x01" * 32, b"\x07test.us\x09\x03USD")),
        encode_fulfill(Fulfill(PEER_FULFILLMENT, b"\x07test us\x09\x03USD")),
        encode_fulfill(Fulfill(PEER_FULFILLMENT, b"\x04test\x09\x03USD")),
        encode_fulfill(Fulfill(PEER_FULFILLMENT, b"\x07test.us")),
        encode_fulfill(Fulfill(PEER_FULFILLMENT, b"")),
        encode_reject(Reject("F00", "test.parent", "not a child")),
        b"\x0d\x00",
    ],
    ids=["fulfillment", "characters", "no segment", "cut", "empty", "refused", "malformed"],
)
def test_a_bad_answer_is_not_believed(child: "Node", answer: bytes) -> None:
    """PEER-4, ILDCP-4, ILDCP-5: asked again, after a pause."""
    child.tell(LinkUp(AccountId("uplink")))
    child.reply("uplink", question(child).request_id, answer)
    assert learned(child) == []
    assert [effect.event for effect in child.effects if isinstance(effect, Log)] == ["address_not_learned"]
    child.wait(999)
    assert child.take("uplink") == []
    child.wait(1)
    question(child)


def test_the_pauses_double_up_to_a_minute(child: "Node") -> None:
    """ILDCP-7: for ever, and ever slower."""
    child.tell(LinkUp(AccountId("uplink")))
    pauses = []
    for _ in range(9):
        child.reply("uplink", question(child).request_id, encode_reject(Reject("F00", "test.p", "")))
        asked_at = child.mono
        while not child.frames.get(AccountId("uplink")):
            child._go(child.kernel.wakes_at() or 0)
            child.tell()
            child.frames[AccountId("uplink")] = child.take("uplink")  # without reports of outcomes
        pauses.append(child.mono - asked_at)
    assert pauses == [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000, 60_000]


def test_a_parent_that_is_silent_or_not_reached_is_asked_again(child: "Node") -> None:
    """ILDCP-7."""
    child.tell(LinkUp(AccountId("uplink")))
    first = question(child)
    child.wait(60_000 + 1_000)
    second = question(child)
    assert second.request_id != first.request_id
    child.reply("uplink", first.request_id, encode_response(IldcpResponse("test.us", 9, "USD")))
    assert learned(child) == []  # the first question is over
    child.tell(Undelivered(AccountId("uplink"), second.request_id, "T01", "refused"))
    child.wait(2_000)
    question(child)


def test_a_parent_of_a_reloaded_table_is_asked(make_node: "MakeNode", make_terms: "MakeTerms") -> None:
    """ILDCP-7, CONN-14."""
    node = make_node(make_terms("uplink", relation="parent"))
    assert node.take("uplink") == []
    asking = make_node(make_terms("uplink", relation="parent", ildcp_client=True)).tables
    node.tell(TablesChanged(asking))
    question(node)


def test_answers_to_our_questions_are_for_the_parent_only(child: "Node") -> None:
    """P-13."""
    child.tell(LinkUp(AccountId("uplink")), LinkUp(BOB))
    frame = question(child)
    child.reply("bob", frame.request_id, encode_response(IldcpResponse("test.mallory", 9, "USD")))
    child.reply(
        "uplink",
        frame.request_id,
        encode_response(IldcpResponse("test.mallory", 9, "USD")),
        session=b"another session!",
    )
    assert learned(child) == []


# --- the echo ---------------------------------------------------------------------------------------------------------


def echo_data(source: str, kind: int = 0) -> bytes:
    return ECHO_PREFIX + bytes((kind,)) + encode_var_octets(source.encode())


def test_an_echo_goes_back_to_its_sender(node: "Node") -> None:
    """CONN-18: a new Prepare with the same amount and condition; its fulfilment fulfils the request."""
    condition = sha256(b"\x05" * 32).digest()
    asked = node.prepare("alice", "test.node", 0, data=echo_data("test.node.alice.ping"), condition=condition)
    frame = node.taken("alice")
    answer = decode_prepare(frame.packet)
    assert answer == Prepare(0, node.wall + 29_000, condition, "test.node.alice.ping", ECHO_ANSWER)
    node.fulfil("alice", frame.request_id, b"\x05" * 32)
    assert node.taken("alice").request_id == asked
    assert node.in_flight() == 0


def test_an_echo_is_reserved_as_any_prepare(make_node: "MakeNode", make_terms: "MakeTerms") -> None:
    """CONN-18: margin, limits and books; the cap is inclusive."""
    node = make_node(make_terms("alice", echo_amount_max=10, receivable_max=10), make_terms("bob"))
    node.prepare("alice", "test.node", 10, data=echo_data("test.node.alice"))
    frame = node.taken("alice")
    assert decode_prepare(frame.packet).amount == 10
    node.prepare("alice", "test.node", 1, data=echo_data("test.node.alice"))
    assert node.rejected("alice").code == "T04"
    node.fulfil("alice", frame.request_id)
    assert node.balance("alice") == 0  # out and back again
    node.take("alice")
    node.prepare("alice", "test.node", 1, data=echo_data("test.node.alice"), left_ms=1_000)
    assert node.rejected("alice").code == "R02"
    node.prepare("alice", "test.node", 11, data=echo_data("test.node.alice"))
    assert node.rejected("alice").code == "F02"


@pytest.mark.parametrize("source", ["test.node.bob", "test.elsewhere", "g.alice", "peer.x", "test.node"])
def test_an_echo_to_somebody_else_is_refused(node: "Node", source: str) -> None:
    """CONN-18: else cheap units could be turned into dear ones."""
    node.prepare("alice", "test.node", 0, data=echo_data(source))
    assert node.rejected("alice").code == "F02"
    assert node.take("bob") == []


def test_an_echo_with_an_amount_needs_a_cap(node: "Node") -> None:
    """CONN-18: the default is 0."""
    node.prepare("alice", "test.node", 1, data=echo_data("test.node.alice"))
    assert node.rejected("alice").code == "F02"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"ECHO",
        ECHO_PREFIX,
        echo_data("test.node.alice", 1),
        echo_data("test.node.alice", 2),
        echo_data("no address"),
        ECHO_PREFIX + b"\x00\x50test",
    ],
    ids=["empty", "short", "no type", "answer", "unknown type", "source", "cut"],
)
def test_anything_else_to_our_own_address_is_f01(node: "Node", data: bytes) -> None:
    """CONN-18."""
    node.prepare("alice", "test.node", 0, data=data)
    assert node.rejected("alice").code == "F01"


def test_no_echo_where_the_amount_would_change(make_node: "MakeNode", make_terms: "MakeTerms") -> None:
    """CONN-18: with a spread the answer could not have the same amount."""
    from fractions import Fraction

    from isthmus.connector.tables import RateTable

    node = make_node(make_terms("alice"), rates=RateTable({}, spread=Fraction(1, 100)))
    node.prepare("alice", "test.node", 0, data=echo_data("test.node.alice"))
    assert node.rejected("alice").code == "F02"


def test_the_questions_of_neighbours_leave_no_entry(child: "Node") -> None:
    """PEER-1: nothing to recover after a crash; it is asked anew."""
    appends = len(child.records)
    child.tell(LinkUp(AccountId("uplink")))
    question(child)
    assert len(child.records) == appends
    assert not any(isinstance(effect, Append) for effect in child.effects[-1:])
