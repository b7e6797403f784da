"""Plugins' settlement on a BTP connection: theirs comes in as `peer.settle`, ours leaves as they know it."""

import pytest

from isthmus.connector.events import Inbound, Now, Outbound
from isthmus.ilp import subprotocol
from isthmus.ilp.ildcp import PEER_CONDITION, PEER_FULFILLMENT
from isthmus.ilp.packet import (
    Fulfill,
    Prepare,
    Reject,
    decode_prepare,
    decode_reply,
    encode_fulfill,
    encode_prepare,
    encode_reject,
)
from isthmus.ilp.subprotocol import Entry
from isthmus.links.btp import codec
from isthmus.links.btp.carrying import CARRIED_MAX, QUESTION_MS, is_to_settle
from isthmus.links.btp.codec import BtpError, BtpMessage, BtpResponse, BtpTransfer, ProtocolData
from isthmus.links.btp.session import Session
from tests.links.btp.test_session import THEIRS, ready_client, ready_server

NOW = Now(1_800_000_000_000, 5_000)
CLAIM = b'{"amount":"7","signature":"AB"}'


def settle(entry: Entry) -> bytes:
    """As the kernel sends an engine's message."""
    return encode_prepare(Prepare(0, NOW.wall_ms + 30_000, PEER_CONDITION, "peer.settle", subprotocol.encode(entry)))


def asked(session: Session, packet: BtpMessage | BtpTransfer) -> Inbound:
    out = session.receive([codec.encode(packet)], NOW)
    assert not out.frames
    (inbound,) = out.packets
    return inbound


def answered(session: Session, inbound: Inbound, reply: bytes) -> codec.BtpPacket:
    (frame,) = session.encode([Outbound(inbound.session, inbound.request_id, reply)])
    return codec.decode(frame)


def test_a_claim_by_transfer_is_a_message_to_our_engine_and_its_answer_a_response() -> None:
    session = ready_server()
    inbound = asked(session, BtpTransfer(77, 5, [ProtocolData("claim", codec.JSON, CLAIM)]))
    prepare = decode_prepare(inbound.packet)
    assert (prepare.amount, prepare.destination, prepare.condition) == (0, "peer.settle", PEER_CONDITION)
    assert prepare.expires_at == NOW.wall_ms + QUESTION_MS
    assert subprotocol.decode(prepare.data) == Entry("claim", codec.JSON, CLAIM, 5)
    assert answered(session, inbound, encode_fulfill(Fulfill(PEER_FULFILLMENT, b""))) == BtpResponse(77, [])


def test_a_question_by_message_is_answered_by_an_entry() -> None:
    session = ready_server()
    inbound = asked(session, BtpMessage(78, [ProtocolData("xrp_address", codec.TEXT_PLAIN, b"rA")]))
    data = subprotocol.encode(Entry("xrp_address", codec.TEXT_PLAIN, b"rB"))
    answer = answered(session, inbound, encode_fulfill(Fulfill(PEER_FULFILLMENT, data)))
    assert answer == BtpResponse(78, [ProtocolData("xrp_address", codec.TEXT_PLAIN, b"rB")])


@pytest.mark.parametrize(("code", "btp"), [("F00", "F00"), ("F01", "F00"), ("T00", "T00"), ("R00", "T00")])
def test_a_refusal_is_an_error_with_its_words(code: str, btp: str) -> None:
    session = ready_server()
    inbound = asked(session, BtpTransfer(79, 5, [ProtocolData("claim", codec.JSON, CLAIM)]))
    answer = answered(session, inbound, encode_reject(Reject(code, "test.us", "no such channel")))
    assert isinstance(answer, BtpError)
    assert (answer.request_id, answer.code, answer.data) == (79, btp, b"no such channel")


def test_an_answer_that_no_plugin_understands_is_an_error() -> None:
    session = ready_server()
    inbound = asked(session, BtpTransfer(79, 5, [ProtocolData("claim", codec.JSON, CLAIM)]))
    answer = answered(session, inbound, encode_fulfill(Fulfill(PEER_FULFILLMENT, b'{"type":"accepted"}')))
    assert isinstance(answer, BtpError) and answer.code == "F00"


@pytest.mark.parametrize(
    "packet",
    [
        BtpTransfer(5, 9, []),
        BtpTransfer(5, 9, [ProtocolData("info", codec.OCTET_STREAM, b"\x02")]),
        BtpTransfer(5, 9, [ProtocolData("other", codec.JSON, b"{}"), ProtocolData("claim", codec.JSON, CLAIM)]),
        BtpMessage(5, [ProtocolData("claim", codec.JSON, CLAIM)]),  # a claim without its Transfer
        BtpMessage(5, [ProtocolData("balance", codec.OCTET_STREAM, b"")]),
    ],
)
def test_nothing_else_is_carried(packet: BtpMessage | BtpTransfer) -> None:
    """BTP-11, BTP-12: the primary entry decides, and a Transfer by itself settles nothing."""
    out = ready_server().receive([codec.encode(packet)], NOW)
    assert not out.packets
    (frame,) = out.frames
    error = codec.decode(frame)
    assert isinstance(error, BtpError) and (error.request_id, error.code) == (5, "F00")


def test_data_that_is_not_of_its_content_type_is_an_invalid_field() -> None:
    out = ready_server().receive([codec.encode(BtpTransfer(5, 9, [ProtocolData("claim", codec.JSON, b"\xff")]))], NOW)
    (frame,) = out.frames
    error = codec.decode(frame)
    assert isinstance(error, BtpError) and error.code == "F01" and not out.packets


def test_our_claim_leaves_as_a_transfer_and_comes_back_fulfilled() -> None:
    session = ready_client()
    (frame,) = session.encode([Outbound(b"", 3, settle(Entry("claim", codec.JSON, CLAIM, 5)))])
    assert codec.decode(frame) == BtpTransfer(3, 5, [ProtocolData("claim", codec.JSON, CLAIM)])
    out = session.receive([codec.encode(BtpResponse(3, []))], NOW)
    (inbound,) = out.packets
    assert decode_reply(inbound.packet) == Fulfill(PEER_FULFILLMENT, b"")
    assert inbound.request_id == 3
    assert not session.receive([codec.encode(BtpResponse(3, []))], NOW).packets  # once


def test_our_question_leaves_as_a_message_and_the_answer_is_its_entry() -> None:
    session = ready_client()
    (frame,) = session.encode([Outbound(b"", 4, settle(Entry("info", codec.OCTET_STREAM, b"\x02")))])
    assert codec.decode(frame) == BtpMessage(4, [ProtocolData("info", codec.OCTET_STREAM, b"\x02")])
    entries = [ProtocolData("other", codec.JSON, b"{}"), ProtocolData("info", codec.JSON, b'{"currencyScale":9}')]
    (inbound,) = session.receive([codec.encode(BtpResponse(4, entries))], NOW).packets
    reply = decode_reply(inbound.packet)
    assert isinstance(reply, Fulfill)
    assert subprotocol.decode(reply.data) == Entry("info", codec.JSON, b'{"currencyScale":9}')


@pytest.mark.parametrize(("btp", "code"), [("F00", "F00"), ("T00", "T00")])
def test_the_plugins_error_is_a_reject_with_its_words(btp: str, code: str) -> None:
    session = ready_client()
    session.encode([Outbound(b"", 5, settle(Entry("claim", codec.JSON, CLAIM, 5)))])
    error = BtpError(5, btp, codec.ERROR_NAMES[btp], NOW.wall_ms, b'{"message":"new claim is less\n"}')
    (inbound,) = session.receive([codec.encode(error)], NOW).packets
    reply = decode_reply(inbound.packet)
    assert isinstance(reply, Reject)
    assert (reply.code, reply.message) == (code, '{"message":"new claim is less?"}')


def test_an_answer_that_is_not_of_its_content_type_is_a_reject() -> None:
    session = ready_client()
    session.encode([Outbound(b"", 5, settle(Entry("info", codec.OCTET_STREAM, b"\x02")))])
    answer = codec.encode(BtpResponse(5, [ProtocolData("info", codec.JSON, b"\xff")]))
    (inbound,) = session.receive([answer], NOW).packets
    assert isinstance(decode_reply(inbound.packet), Reject)


def test_to_peers_of_our_kind_and_of_other_engines_it_stays_a_packet() -> None:
    packet = settle(Entry("claim", codec.JSON, CLAIM, 5))
    other = encode_prepare(Prepare(0, NOW.wall_ms, PEER_CONDITION, "peer.settle", b'{"type":"hello"}'))
    for session, sent in ((ready_client(THEIRS), packet), (ready_client(), other)):
        (frame,) = session.encode([Outbound(b"", 6, sent)])
        assert codec.decode(frame) == BtpMessage(6, [ProtocolData("ilp", codec.OCTET_STREAM, sent)])


@pytest.mark.parametrize("size", [0, 1, 100, 200, 5_000])
def test_prepares_to_peer_settle_are_told_apart(size: int) -> None:
    for destination, expected in (("peer.settle", True), ("peer.settler", False), ("test.peer.settle", False)):
        packet = encode_prepare(Prepare(0, NOW.wall_ms, bytes(32), destination, b"\x0bpeer.settle" * 3 + bytes(size)))
        assert is_to_settle(packet) is expected


def test_what_is_never_answered_is_forgotten() -> None:
    session = ready_server()
    for number in range(CARRIED_MAX + 1):
        asked(session, BtpTransfer(number, 5, [ProtocolData("claim", codec.JSON, CLAIM)]))
    reply = encode_fulfill(Fulfill(PEER_FULFILLMENT, b""))
    for number, is_kept in ((0, False), (1, True)):
        (frame,) = session.encode([Outbound(session.peer_session, number, reply)])
        found = codec.decode(frame)
        assert isinstance(found, BtpResponse) and (found.protocol_data == []) is is_kept
