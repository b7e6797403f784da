"""The short cuts say the same as the frame codec."""

import random

from hypothesis import given
from hypothesis import strategies as st

from isthmus.errors import CodecError
from isthmus.ilp.packet import FULFILL, PREPARE
from isthmus.oer import encode_var_uint
from isthmus.stream.packet import StreamMoney, StreamPacket, decode_packet, encode_packet
from isthmus.stream.wire import FULFILL_HEAD, NO_FRAMES, PREPARE_HEAD, IvSource, money_tail, read_head, var_uint

U64 = st.integers(0, 2**64 - 1)


@given(sequence=U64, minimum=U64, stream_id=U64, shares=U64)
def test_a_money_packet_is_what_the_codec_would_write(sequence: int, minimum: int, stream_id: int, shares: int) -> None:
    """STREAM-4, STREAM-13."""
    quick = PREPARE_HEAD + var_uint(sequence) + money_tail(minimum, stream_id, shares)
    assert quick == encode_packet(StreamPacket(PREPARE, sequence, minimum, [StreamMoney(stream_id, shares)]))
    assert read_head(quick)[:2] == (sequence, minimum)


@given(sequence=U64, amount=U64)
def test_an_answer_without_frames_is_what_the_codec_would_write(sequence: int, amount: int) -> None:
    """STREAM-4."""
    quick = FULFILL_HEAD + var_uint(sequence) + var_uint(amount) + NO_FRAMES
    assert quick == encode_packet(StreamPacket(FULFILL, sequence, amount, []))
    assert read_head(quick) == (sequence, amount, len(quick) - 2)


@given(st.binary(max_size=40))
def test_the_head_of_any_bytes_agrees_with_the_codec_or_is_left_to_it(data: bytes) -> None:
    """P-9."""
    sequence, amount, at = read_head(PREPARE_HEAD + data)
    try:
        packet = decode_packet(PREPARE_HEAD + data)
    except CodecError:
        return
    if at:
        assert (packet.sequence, packet.prepare_amount) == (sequence, amount)


@given(st.integers(0, 2**200))
def test_var_uints_agree_with_oer(n: int) -> None:
    assert var_uint(n) == encode_var_uint(n)


def test_no_iv_is_given_twice() -> None:
    """STREAM-1, STREAM-2: also across the pool's end. P-17: so no connector takes a packet for another's repetition."""
    source = IvSource(random.Random(1).randbytes)
    ivs = [source.next() for _ in range(1_000)]
    assert len(set(ivs)) == 1_000
    assert {len(iv) for iv in ivs} == {12}
