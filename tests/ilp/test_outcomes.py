"""Reports of outcomes and their answers as bytes."""

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.errors import CodecError
from isthmus.ilp.ildcp import PEER_CONDITION, PEER_FULFILLMENT
from isthmus.ilp.outcomes import (
    ASKED_MAX,
    OUTCOMES_DESTINATION,
    RANGES_MAX,
    VOIDED_MAX,
    OutcomesReport,
    decode_answer,
    decode_report,
    encode_answer,
    encode_report,
)
from isthmus.ilp.packet import DATA_BYTES_MAX, Fulfill, decode_prepare, decode_reply

SESSION = bytes(range(16))
IDS = st.integers(1, 2**32 - 1)


@st.composite
def reports(draw: st.DrawFn) -> OutcomesReport:
    watermark = draw(st.integers(0, 2**32 - 2))
    below = st.integers(0, watermark)
    voided = sorted(draw(st.sets(below, max_size=20)))
    asked = sorted(draw(st.sets(st.integers(watermark + 1, 2**32 - 1), max_size=20)))
    ends = sorted(draw(st.sets(st.integers(watermark + 1, 2**32 - 1), max_size=20)))
    ranges = list(zip(ends[::2], ends[1::2], strict=False))
    return OutcomesReport(draw(st.binary(min_size=16, max_size=16)), watermark, voided, asked, ranges)


@given(reports())
def test_a_report_is_read_as_it_was_written(report: OutcomesReport) -> None:
    prepare = decode_prepare(encode_report(report, 1_000))
    assert (prepare.amount, prepare.condition, prepare.destination) == (0, PEER_CONDITION, OUTCOMES_DESTINATION)
    assert decode_report(prepare.data) == report
    assert decode_report(prepare.data + b"from a later version") == report


@given(st.lists(st.tuples(IDS, st.binary(min_size=32, max_size=32)), max_size=30))
def test_an_answer_is_read_as_it_was_written(found: list[tuple[int, bytes]]) -> None:
    reply = decode_reply(encode_answer(found))
    assert isinstance(reply, Fulfill) and reply.fulfillment == PEER_FULFILLMENT
    assert decode_answer(reply.data) == found


@given(st.binary(max_size=200))
def test_any_bytes_give_a_value_or_a_codec_error(data: bytes) -> None:
    for decode in (decode_report, decode_answer):
        try:
            decode(data)
        except CodecError:
            continue


def test_the_largest_report_and_answer_fit_into_a_packet() -> None:
    ranges = [(10_000 + 2 * number, 10_000 + 2 * number) for number in range(RANGES_MAX)]
    report = OutcomesReport(SESSION, 5_000, list(range(VOIDED_MAX)), list(range(6_000, 6_000 + ASKED_MAX)), ranges)
    prepare = decode_prepare(encode_report(report, 1_000))
    assert len(prepare.data) <= DATA_BYTES_MAX
    reply = decode_reply(encode_answer([(number, bytes(32)) for number in range(ASKED_MAX)]))
    assert len(reply.data) <= DATA_BYTES_MAX


@pytest.mark.parametrize(
    "data, says",
    [
        (b"", "head"),
        (b"\x02" + bytes(24), "version 1 is spoken here"),
        (b"\x01" + SESSION + bytes(4), "number"),
        (b"\x01" + SESSION + bytes(4) + b"\x00\x01", "before the 1 request ids"),
        (b"\x01" + SESSION + bytes(4) + b"\x00\x01" + b"\x00\x00\x00\x01" + b"\x00\x00", "above the watermark"),
        (b"\x01" + SESSION + b"\x00\x00\x00\x05" + b"\x00\x00" + b"\x00\x01\x00\x00\x00\x05", "not above"),
        (b"\x01" + SESSION + b"\xff" * 4 + b"\x00\x02" + b"\x00\x00\x00\x02" * 2 + b"\x00\x00", "ascend"),
        (b"\x01" + SESSION + bytes(4) + (VOIDED_MAX + 1).to_bytes(2, "big"), "more than"),
        (b"\x01" + SESSION + bytes(8), "before their number"),
        (b"\x01" + SESSION + bytes(8) + b"\x00\x01" + bytes(7), "before the 1 ranges"),
        (b"\x01" + SESSION + bytes(8) + (RANGES_MAX + 1).to_bytes(2, "big"), "more than"),
        (b"\x01" + SESSION + bytes(8) + b"\x00\x01" + bytes(8), "above the watermark"),
        (b"\x01" + SESSION + bytes(8) + b"\x00\x02" + b"\x00\x00\x00\x03" * 4, "ascend"),
        (b"\x01" + SESSION + bytes(8) + b"\x00\x01" + b"\x00\x00\x00\x03\x00\x00\x00\x02", "ascend"),
    ],
)
def test_what_is_no_report_says_why(data: bytes, says: str) -> None:
    with pytest.raises(CodecError, match=says):
        decode_report(data)


@pytest.mark.parametrize(
    "data, says",
    [
        (b"\x01", "head"),
        (b"\x07\x00\x00", "version"),
        (b"\x01\x00\x01" + bytes(35), "before its 1"),
        (b"\x01" + (ASKED_MAX + 1).to_bytes(2, "big"), "more than"),
    ],
)
def test_what_is_no_answer_says_why(data: bytes, says: str) -> None:
    with pytest.raises(CodecError, match=says):
        decode_answer(data)


def test_the_bytes_of_a_report_never_change() -> None:
    """Other versions of isthmus read them."""
    report = OutcomesReport(SESSION, 7, [3, 5], [9], [(10, 12)])
    data = decode_prepare(encode_report(report, 1_000)).data
    assert data.hex() == (
        "01000102030405060708090a0b0c0d0e0f00000007" + "0002" + "00000003" + "00000005" + "0001" + "00000009"
        "0001" + "0000000a" + "0000000c"
    )
    preimage = sha256(b"x").digest()
    reply = decode_reply(encode_answer([(9, preimage)]))
    assert reply.data.hex() == "01000100000009" + preimage.hex()
