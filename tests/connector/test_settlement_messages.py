"""`peer.settle`: carried between engines, refused where there is none, and bounded."""

from typing import TYPE_CHECKING

import pytest

from isthmus.connector.events import (
    AccountId,
    Effect,
    Inbound,
    LinkDown,
    SendSettlementMessage,
    SettlementMessage,
    SettlementMessageAnswered,
    SettlementMessageReply,
    SettlementStep,
)
from isthmus.connector.settlement_messages import MESSAGE_MS, MESSAGES_MAX, PRINTED_CONDITION
from isthmus.connector.settling import SettleTerms
from isthmus.ilp.ildcp import PEER_CONDITION, PEER_FULFILLMENT
from isthmus.ilp.packet import Fulfill, Prepare, Reject, decode, encode_fulfill, encode_prepare, encode_reject

if TYPE_CHECKING:
    from tests.connector.conftest import MakeNode, MakeTerms, Node

BOB = AccountId("bob")
SESSION = b"session of peers"


@pytest.fixture
def node(make_node: "MakeNode", make_terms: "MakeTerms") -> "Node":
    return make_node(make_terms("alice"), make_terms("bob", settle=SettleTerms(engine="bank")))


def ask(
    node: "Node",
    data: bytes = b"hello",
    *,
    account: str = "bob",
    amount: int = 0,
    condition: bytes = PEER_CONDITION,
    left_ms: int = 10_000,
) -> list[SettlementMessage]:
    """A message of the peer's engine; what ours hears of it."""
    packet = encode_prepare(Prepare(amount, node.wall + left_ms, condition, "peer.settle", data))
    node.next_id += 1
    effects = node.tell(Inbound(AccountId(account), SESSION, node.next_id, packet, node.mono))
    return [effect for effect in effects if isinstance(effect, SettlementMessage)]


def answers(effects: list[Effect]) -> list[SettlementMessageAnswered]:
    return [effect for effect in effects if isinstance(effect, SettlementMessageAnswered)]


@pytest.mark.parametrize("condition", [PEER_CONDITION, PRINTED_CONDITION])
def test_a_message_goes_to_the_engine_and_its_answer_back(node: "Node", condition: bytes) -> None:
    """SE-12, SE-13, PEER-1."""
    (message,) = ask(node, b"\x00\xff", condition=condition)
    assert (message.account, message.data, message.wait_ms) == (BOB, b"\x00\xff", 10_000)
    node.tell(SettlementMessageReply(message.token, b"fine"))
    assert node.fulfilled("bob") == Fulfill(PEER_FULFILLMENT, b"fine")
    node.tell(SettlementMessageReply(message.token, b"again"))
    assert not node.take("bob")


def test_what_the_engine_cant_make_sense_of_is_rejected(node: "Node") -> None:
    """SE-12: `triggeredBy` is peer.settle."""
    (message,) = ask(node)
    node.tell(SettlementMessageReply(message.token, b"", "F01", "no such message"))
    assert node.rejected("bob") == Reject("F01", "peer.settle", "no such message")


@pytest.mark.parametrize("is_late", [False, True])
def test_a_message_leaves_with_packets_after_what_its_engine_had_booked(node: "Node", is_late: bool) -> None:
    """A commit may take so long that the packets have expired; the message leaves all the same."""
    node.prepare("alice", "test.node.bob.x")
    node.take("bob")
    node.durable = False
    node.tell(SettlementStep(BOB, 0, kept=[(b"channel", b"state")]))
    node.tell(SendSettlementMessage(BOB, b"claim", 5))
    node.prepare("alice", "test.node.bob.x")
    assert not node.take("bob") and len(node.undurable) == 1
    if is_late:
        node.wait(60_000)
    node.durable = True
    node.tell()
    packets = [decode(frame.packet) for frame in node.take("bob")]
    found = [one.destination for one in packets if isinstance(one, Prepare)]
    assert found == ["peer.settle", *([] if is_late else ["test.node.bob.x"])]


def test_an_answer_waits_for_what_its_engine_had_booked(node: "Node") -> None:
    (message,) = ask(node)
    node.durable = False
    node.tell(
        SettlementStep(BOB, 1, credits=[(5, 9, "claim", "")]),
        SettlementMessageReply(message.token, b"taken"),
    )
    assert not node.take("bob")
    node.commit()
    assert node.fulfilled("bob").data == b"taken"


def test_it_is_never_forwarded_and_needs_an_engine(node: "Node") -> None:
    """SE-12, SE-14."""
    assert not ask(node, account="alice")
    assert (node.rejected("alice").code, node.take("bob")) == ("F01", [])


@pytest.mark.parametrize(
    "change, code",
    [({"amount": 1}, "F00"), ({"condition": bytes(32)}, "F00"), ({"left_ms": 0}, "R00")],
)
def test_what_is_no_message_is_refused(node: "Node", change: dict[str, int], code: str) -> None:
    """PEER-2."""
    assert not ask(node, **change)  # type: ignore[arg-type]
    assert node.rejected("bob").code == code


def test_messages_without_an_answer_are_bounded(node: "Node") -> None:
    for _ in range(MESSAGES_MAX):
        assert ask(node)
    assert not ask(node)
    assert node.rejected("bob").code == "T03"
    node.wait(10_000)
    assert ask(node)


def test_our_engines_message_and_the_peers_answer(node: "Node") -> None:
    """SE-12, PEER-4."""
    node.tell(SendSettlementMessage(BOB, b"hello", 5))
    frame = node.taken("bob")
    prepare = decode(frame.packet)
    assert isinstance(prepare, Prepare)
    assert (prepare.amount, prepare.condition, prepare.destination) == (0, PEER_CONDITION, "peer.settle")
    assert (prepare.data, prepare.expires_at) == (b"hello", node.wall + MESSAGE_MS)
    (told,) = answers(node.reply("bob", frame.request_id, encode_fulfill(Fulfill(PEER_FULFILLMENT, b"hi"))))
    assert told == SettlementMessageAnswered(5, b"hi")


def test_a_refusal_by_the_peer_is_told(node: "Node") -> None:
    node.tell(SendSettlementMessage(BOB, b"hello", 5))
    frame = node.taken("bob")
    packet = encode_reject(Reject("F01", "peer.settle", "what?"))
    assert answers(node.reply("bob", frame.request_id, packet)) == [
        SettlementMessageAnswered(5, b"", "F01", "what?"),
    ]


def test_what_cant_be_sent_is_told_at_once(node: "Node") -> None:
    (told,) = answers(node.tell(SendSettlementMessage(AccountId("carol"), b"", 1)))
    assert (told.code, told.message) == ("T01", "there is no such account")
    (told,) = answers(node.tell(SendSettlementMessage(BOB, bytes(32_768), 1)))
    assert "at most" in told.message
    node.tell(LinkDown(BOB, "gone"))
    (told,) = answers(node.tell(SendSettlementMessage(BOB, b"", 1)))
    assert told.message == "the link is down"


def test_our_messages_without_an_answer_are_bounded(node: "Node") -> None:
    for token in range(MESSAGES_MAX):
        assert not answers(node.tell(SendSettlementMessage(BOB, b"", token)))
    assert answers(node.tell(SendSettlementMessage(BOB, b"", 99)))[0].token == 99
    node.wait(MESSAGE_MS)
    told = answers(node.tell(SendSettlementMessage(BOB, b"", 100)))
    assert [one.token for one in told] == list(range(MESSAGES_MAX))
