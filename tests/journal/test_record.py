"""The envelope: round trips, any bytes give a value or a CodecError, and the chain shows every change."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.errors import CodecError
from isthmus.journal.record import (
    ENVELOPE_OVERHEAD_BYTES,
    SEQUENCE_MAX,
    SHARD_ID_MAX,
    Envelope,
    decode_envelope,
    encode_envelope,
    first_digest,
    next_digest,
    read_envelope,
)

JOURNAL_ID = bytes(range(16))
GOLDEN_CHECKSUM = "12644852"
GOLDEN_DIGEST = "a674dfd863bc5e83db5120d76e2965d795bf9d99866d70139570e812c648156b"

envelopes = st.builds(
    Envelope,
    journal_id=st.binary(min_size=16, max_size=16),
    shard_id=st.integers(0, SHARD_ID_MAX),
    sequence=st.integers(1, SEQUENCE_MAX),
    entries=st.binary(max_size=300),
)


def encoded(envelope: Envelope) -> bytes:
    return encode_envelope(envelope.journal_id, envelope.shard_id, envelope.sequence, envelope.entries)


@given(envelopes)
def test_an_envelope_comes_back_as_it_was(envelope: Envelope) -> None:
    data = encoded(envelope)
    assert decode_envelope(data) == envelope
    assert len(data) == len(envelope.entries) + ENVELOPE_OVERHEAD_BYTES


@given(st.binary(max_size=400))
def test_any_bytes_give_an_envelope_or_a_codec_error(data: bytes) -> None:
    """P-9."""
    try:
        envelope = decode_envelope(data)
    except CodecError as error:
        assert error.field
        assert 0 <= error.offset <= max(len(data), 33)
    else:
        assert encoded(envelope) == data


@given(envelopes, st.data())
def test_a_changed_bit_is_an_error(envelope: Envelope, data: st.DataObject) -> None:
    whole = bytearray(encoded(envelope))
    bit = data.draw(st.integers(0, len(whole) * 8 - 1))
    whole[bit // 8] ^= 1 << bit % 8
    with pytest.raises(CodecError):
        decode_envelope(bytes(whole))


@given(envelopes, st.data())
def test_a_cut_or_longer_envelope_is_an_error(envelope: Envelope, data: st.DataObject) -> None:
    whole = encoded(envelope)
    with pytest.raises(CodecError):
        decode_envelope(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(CodecError, match="1 bytes follow"):
        decode_envelope(whole + b"\x00")


def test_a_huge_length_is_refused_before_anything_is_taken() -> None:
    """P-9."""
    data = bytearray(encode_envelope(JOURNAL_ID, 0, 1, b""))
    data[29:33] = b"\xff\xff\xff\xff"
    with pytest.raises(CodecError, match="length at byte 29"):
        decode_envelope(bytes(data))


def test_another_version_is_named() -> None:
    data = b"\x07" + encode_envelope(JOURNAL_ID, 0, 1, b"")[1:]
    with pytest.raises(CodecError, match="version at byte 0: 7 is not known"):
        decode_envelope(data)


def test_the_format_stays_as_it_is() -> None:
    """Journals written today must be readable for ever: golden bytes of this format, version 1."""
    data = encode_envelope(JOURNAL_ID, 7, 2**40, b"entries")
    assert data.hex() == (
        "01000102030405060708090a0b0c0d0e0f00000007000001000000000000000007656e7472696573" + data[-4:].hex()
    )
    assert data[-4:].hex() == GOLDEN_CHECKSUM
    assert next_digest(first_digest(JOURNAL_ID, 7), data).hex() == GOLDEN_DIGEST


def test_envelopes_can_stand_one_after_the_other() -> None:
    data = b"".join(encode_envelope(JOURNAL_ID, 0, sequence, b"x" * sequence) for sequence in (1, 2, 3))
    offset = 0
    seen = []
    while offset < len(data):
        envelope, offset = read_envelope(data, offset)
        seen.append(envelope.sequence)
    assert seen == [1, 2, 3]


@pytest.mark.parametrize(
    ("journal_id", "shard_id", "sequence"),
    [(b"short", 0, 1), (JOURNAL_ID, -1, 1), (JOURNAL_ID, SHARD_ID_MAX + 1, 1), (JOURNAL_ID, 0, 0)],
)
def test_our_own_misuse_is_a_value_error(journal_id: bytes, shard_id: int, sequence: int) -> None:
    with pytest.raises(ValueError):
        encode_envelope(journal_id, shard_id, sequence, b"")


def test_the_chain_depends_on_the_journal_the_order_and_every_batch() -> None:
    one, two = (encode_envelope(JOURNAL_ID, 0, sequence, b"") for sequence in (1, 2))
    start = first_digest(JOURNAL_ID, 0)
    assert start != first_digest(JOURNAL_ID, 1)
    assert start != first_digest(bytes(16), 0)
    assert next_digest(next_digest(start, one), two) != next_digest(next_digest(start, two), one)
    assert next_digest(next_digest(start, one), two) != next_digest(start, two)
