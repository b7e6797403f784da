"""A ping to a neighbour: any answer shows that packets pass; nothing is booked."""

from typing import TYPE_CHECKING, Any

import pytest

from isthmus.connector.events import AccountId, LinkDown, Ping, Ponged, Undelivered
from isthmus.connector.ping import PINGS_MAX
from isthmus.ilp.ildcp import IldcpResponse, encode_response
from isthmus.ilp.packet import Fulfill, Reject, decode_prepare, encode_fulfill, encode_reject

if TYPE_CHECKING:
    from tests.connector.conftest import Node

BOB = AccountId("bob")


def pongs(effects: list[Any]) -> list[Ponged]:
    return [effect for effect in effects if isinstance(effect, Ponged)]


def test_a_peers_refusal_is_an_answer(node: "Node") -> None:
    """PEER-4: not every peer serves `peer.config`, and any answer will do."""
    before = len(node.records)
    assert not pongs(node.tell(Ping(BOB, 7)))
    sent = node.taken("bob")
    prepare = decode_prepare(sent.packet)
    assert (prepare.destination, prepare.amount) == ("peer.config", 0)
    node.wait(40)
    told = pongs(node.reply("bob", sent.request_id, encode_reject(Reject("F00", "test.bob", "not a child"))))
    assert told == [Ponged(7, 40, "F00", "test.bob")]
    assert len(node.records) == before


def test_a_parent_tells_what_it_counts_in(node: "Node") -> None:
    """ILDCP-7."""
    node.tell(Ping(BOB, 8))
    answer = encode_response(IldcpResponse("test.top.us", 9, "USD"))
    told = pongs(node.reply("bob", node.taken("bob").request_id, answer))
    assert told == [Ponged(8, 0, "", "test.top.us", "USD", 9)]


@pytest.mark.parametrize("packet", [b"", b"\x0d\x01\x00", encode_fulfill(Fulfill(bytes(32)))])
def test_nonsense_is_told_as_such(node: "Node", packet: bytes) -> None:
    """P-9."""
    node.tell(Ping(BOB, 9))
    told = pongs(node.reply("bob", node.taken("bob").request_id, packet))
    assert not told or "doesn't parse" in told[0].problem


def test_what_can_not_be_asked_is_told_at_once(node: "Node") -> None:
    assert pongs(node.tell(Ping(AccountId("nobody"), 1)))[0].problem == "there is no such account"
    node.tell(Ping(BOB, 2))
    refused = node.tell(Undelivered(BOB, node.taken("bob").request_id, "T01", "the link broke"))
    assert pongs(refused) == [Ponged(2, 0, problem="the link broke")]
    node.tell(LinkDown(BOB, "gone"))
    assert pongs(node.tell(Ping(BOB, 3)))[0].problem == "the link is down"


def test_pings_without_an_answer_are_bounded(node: "Node") -> None:
    for token in range(PINGS_MAX + 3):
        node.tell(Ping(BOB, token))
    assert len(node.kernel.switch.lanes[BOB].questions) == PINGS_MAX
    first, *_, last = node.take("bob")
    assert not pongs(node.reply("bob", first.request_id, encode_reject(Reject("F00", "test.bob", ""))))
    assert pongs(node.reply("bob", last.request_id, encode_reject(Reject("F00", "test.bob", ""))))
