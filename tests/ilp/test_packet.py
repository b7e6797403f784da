"""ILPv4 packets (RFC 0027)."""

from dataclasses import astuple, replace
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.errors import CodecError
from isthmus.ilp.packet import (
    AMOUNT_MAX,
    DATA_BYTES_MAX,
    FULFILL_BYTES_MAX,
    MESSAGE_BYTES_MAX,
    PREPARE_BYTES_MAX,
    REJECT_BYTES_MAX,
    Fulfill,
    Packet,
    Prepare,
    Reject,
    decode,
    decode_amount_too_large,
    decode_prepare,
    decode_reply,
    encode,
    encode_amount_too_large,
    encode_prepare,
    encode_reject,
    fulfillment_of,
    is_fulfilled_by,
    patch_prepare,
    reject_code_of,
    truncate_utf8,
    view_prepare,
)
from isthmus.ilp.timestamp import TIMESTAMP_MAX, TIMESTAMP_MIN, TimestampCache
from isthmus.oer import encode_length, encode_var_octets

EXPIRES_AT = 1514132072279
DIGITS = b"20171224161432279"
PREPARE = Prepare(107, EXPIRES_AT, bytes(range(32)), "example.alice", b"\x5d\xb3")
FULFILL = Fulfill(bytes(range(32)), b"\x41\x9e")
REJECT = Reject("F01", "example.us.ledger3.bob", "missing destination", b"\x09")
LONGEST = "g." + "a" * 1021

addresses = st.from_regex(r"(g|test[1-3]?|peer|private)(\.[a-zA-Z0-9_~-]{1,9}){1,6}", fullmatch=True)
payloads = st.binary(max_size=300) | st.integers(0, DATA_BYTES_MAX).map(bytes)
prepares = st.builds(
    Prepare,
    st.integers(0, AMOUNT_MAX),
    st.integers(TIMESTAMP_MIN, TIMESTAMP_MAX),
    st.binary(min_size=32, max_size=32),
    addresses,
    payloads,
)
fulfills = st.builds(Fulfill, st.binary(min_size=32, max_size=32), payloads)
rejects = st.builds(
    Reject,
    st.text(st.characters(max_codepoint=127), min_size=3, max_size=3),
    st.just("") | st.just("unknown") | addresses,
    st.text(max_size=99),
    payloads,
)


def enveloped(kind: int, body: bytes) -> bytes:
    return bytes((kind,)) + encode_length(len(body)) + body


def damaged(packet: bytes) -> st.SearchStrategy[bytes]:
    """The packet with one byte changed, cut off somewhere, or with bytes after it."""
    places = st.integers(0, len(packet) - 1)
    return st.one_of(
        st.tuples(places, st.integers(0, 255)).map(lambda t: packet[: t[0]] + bytes((t[1],)) + packet[t[0] + 1 :]),
        places.map(lambda place: packet[:place]),
        st.binary(min_size=1, max_size=9).map(lambda after: packet + after),
    )


# --- layout ----------------------------------------------------------------------------------------------------------


def test_a_prepare_is_laid_out_as_the_rfc_says() -> None:
    """ILP-1, ILP-2, OER-7."""
    body = (107).to_bytes(8, "big") + DIGITS + bytes(range(32)) + b"\x0dexample.alice" + b"\x02\x5d\xb3"
    assert encode(PREPARE) == b"\x0c" + bytes((len(body),)) + body
    assert decode(encode(PREPARE)) == PREPARE


def test_a_fulfill_is_laid_out_as_the_rfc_says() -> None:
    """ILP-1, ILP-3."""
    assert encode(FULFILL) == b"\x0d\x23" + bytes(range(32)) + b"\x02\x41\x9e"
    assert decode(encode(FULFILL)) == FULFILL == decode_reply(encode(FULFILL))


def test_a_reject_is_laid_out_as_the_rfc_says() -> None:
    """ILP-1, ILP-4, OER-8: the code has no prefix."""
    body = b"F01" + b"\x16example.us.ledger3.bob" + b"\x13missing destination" + b"\x01\x09"
    assert encode(REJECT) == b"\x0e" + bytes((len(body),)) + body
    assert decode(encode(REJECT)) == REJECT == decode_reply(encode(REJECT))


@given(st.one_of(prepares, fulfills, rejects))
def test_packets_round_trip(packet: Packet) -> None:
    """ILP-1, ILP-5."""
    octets = encode(packet)
    assert decode(octets) == packet
    assert encode(decode(octets)) == octets


@pytest.mark.parametrize("amount", [0, 1, 2**53 + 1, 2**63, 2**64 - 1])
def test_amounts_are_exact(amount: int) -> None:
    """ILP-8, P-1."""
    octets = encode_prepare(replace(PREPARE, amount=amount))
    assert decode_prepare(octets).amount == amount == view_prepare(octets).amount
    assert patch_prepare(view_prepare(encode(PREPARE)), amount, EXPIRES_AT) == octets


def test_unknown_codes_decode() -> None:
    """ILP-18, X-8."""
    for code in ("F09", "T77", "X00", "abc"):
        octets = encode(replace(REJECT, code=code))
        assert decode(octets) == replace(REJECT, code=code)
        assert reject_code_of(octets) == code


# --- limits ----------------------------------------------------------------------------------------------------------


def test_the_largest_packets_have_the_sizes_we_reserve_for_them() -> None:
    """ILP-13, BTP-17, ADDR-2."""
    data = bytes(DATA_BYTES_MAX)
    largest: list[tuple[Packet, int]] = [
        (Prepare(AMOUNT_MAX, EXPIRES_AT, bytes(32), LONGEST, data), PREPARE_BYTES_MAX),
        (Fulfill(bytes(32), data), FULFILL_BYTES_MAX),
        (Reject("T00", LONGEST, "x" * MESSAGE_BYTES_MAX, data), REJECT_BYTES_MAX),
    ]
    for packet, size_max in largest:
        octets = encode(packet)
        assert len(octets) == size_max
        assert decode(octets) == packet
        with pytest.raises(CodecError, match=f"more than {size_max}"):
            decode(octets + b"\0")
    assert view_prepare(encode(largest[0][0])).destination == LONGEST.encode()
    with pytest.raises(CodecError, match="more than"):
        view_prepare(encode(largest[0][0]) + b"\0")


def test_data_above_the_limit_is_neither_written_nor_read() -> None:
    """ILP-13."""
    data = bytes(DATA_BYTES_MAX + 1)
    for packet in (replace(PREPARE, data=data), replace(FULFILL, data=data), replace(REJECT, data=data)):
        with pytest.raises(ValueError, match="at most 32767"):
            encode(packet)
    fixed = bytes(8) + DIGITS + bytes(32) + b"\x03g.a"
    bodies = {12: fixed, 13: bytes(32), 14: b"F00\0\0"}
    for kind, start in bodies.items():
        with pytest.raises(CodecError) as error:
            decode(enveloped(kind, start + encode_var_octets(data)))
        assert error.value.field == ("packet" if kind == 13 else "data")  # no other field makes a Fulfill longer
    with pytest.raises(CodecError, match="32768 bytes"):
        view_prepare(enveloped(12, fixed + encode_var_octets(data)))
    with pytest.raises(CodecError):
        fulfillment_of(enveloped(13, bytes(32) + encode_var_octets(data)))


def test_a_destination_has_1_to_1023_bytes() -> None:
    """ADDR-2, ADDR-10."""
    fixed = bytes(8) + DIGITS + bytes(32)
    for destination in (b"", b"g." + b"a" * 1022):
        octets = enveloped(12, fixed + encode_var_octets(destination) + b"\0")
        for read in (decode, view_prepare):
            with pytest.raises(CodecError) as error:
                read(octets)
            assert error.value.field == "destination"
    octets = enveloped(12, fixed + encode_var_octets(LONGEST.encode()) + b"\0")
    assert decode_prepare(octets).destination == LONGEST
    with pytest.raises(ValueError, match="not an ILP address"):
        encode(replace(PREPARE, destination=LONGEST + "a"))


def test_a_message_is_cut_on_a_character_boundary_and_not_believed_beyond_its_limit() -> None:
    """ILP-13, ILP-21, P-14."""
    euro = "€" * 2731  # 8193 bytes
    message = decode_reply(encode(replace(REJECT, message=euro)))
    assert isinstance(message, Reject)
    assert message.message == "€" * 2730
    assert truncate_utf8("x" * 5 + "€", 7) == b"xxxxx"
    assert truncate_utf8("x" * 5 + "€", 8) == "xxxxx€".encode()
    assert truncate_utf8("\ud800", 9) == b"?"
    with pytest.raises(CodecError) as error:
        decode(enveloped(14, b"F00\0" + encode_var_octets(b"x" * (MESSAGE_BYTES_MAX + 1)) + b"\0"))
    assert error.value.field == "message"


@pytest.mark.parametrize(
    "packet",
    [
        replace(PREPARE, amount=-1),
        replace(PREPARE, amount=2**64),
        replace(PREPARE, condition=bytes(31)),
        replace(PREPARE, destination="g"),
        replace(PREPARE, destination=""),
        replace(PREPARE, expires_at=TIMESTAMP_MAX + 1),
        replace(FULFILL, fulfillment=bytes(33)),
        replace(REJECT, code="F0"),
        replace(REJECT, code="F0é"),
        replace(REJECT, triggered_by="é"),
        replace(REJECT, triggered_by="g." + "a" * 1022),
    ],
)
def test_what_can_not_be_written_is_our_own_mistake(packet: Packet) -> None:
    """ILP-13."""
    with pytest.raises(ValueError, match=r"."):
        encode(packet)


# --- tolerance and strictness ----------------------------------------------------------------------------------------


def test_bytes_after_the_last_field_are_ignored_and_forwarded() -> None:
    """OER-9, P-4, ILP-6."""
    for packet in (PREPARE, FULFILL, REJECT):
        octets = encode(packet)
        longer = enveloped(octets[0], octets[2:] + b"later")
        assert decode(longer) == packet
        assert decode(longer + b"and beyond") == packet
    octets = encode(PREPARE)
    longer = enveloped(12, octets[2:] + b"later") + b"beyond"
    assert patch_prepare(view_prepare(longer), 107, EXPIRES_AT) == longer
    assert fulfillment_of(enveloped(13, bytes(range(32)) + b"\0later")) == FULFILL.fulfillment


def test_lengths_that_are_not_canonical_are_refused() -> None:
    """ILP-5, OER-4."""
    octets = encode(PREPARE)
    for prefix in (b"\x81", b"\x82\x00"):
        longer = b"\x0c" + prefix + octets[1:]
        for read in (decode, view_prepare):
            with pytest.raises(CodecError, match="shortest form"):
                read(longer)
    for padded in (b"\x81\x00", b"\x82\x00\x00"):
        with pytest.raises(CodecError, match="shortest form"):
            fulfillment_of(enveloped(13, bytes(32) + padded))
        with pytest.raises(CodecError, match="shortest form"):
            view_prepare(enveloped(12, octets[2:-3] + padded))


def test_no_field_reaches_beyond_its_body() -> None:
    """ILP-12, P-9: the bytes after the envelope are nobody's."""
    octets = encode(PREPARE)
    for read in (decode, view_prepare):
        with pytest.raises(CodecError):
            read(b"\x0c" + bytes((octets[1] - 1,)) + octets[2:])
    fulfill = encode(FULFILL)
    for read_reply in (decode, fulfillment_of):
        with pytest.raises(CodecError):
            read_reply(b"\x0d" + bytes((fulfill[1] - 1,)) + fulfill[2:])


def test_a_message_may_hold_anything() -> None:
    """P-14."""
    reject = decode(enveloped(14, b"T00\0" + b"\x04\xff\xfe:)" + b"\0"))
    assert reject == Reject("T00", "", "��:)", b"")
    assert decode(encode(reject)) == reject


@pytest.mark.parametrize("triggered_by", ["", "unknown", "g"])
def test_who_triggered_a_reject_may_be_nobody(triggered_by: str) -> None:
    """ADDR-10: and ilp-connector says "unknown" until it has an address; the code counts."""
    assert decode(encode(replace(REJECT, triggered_by=triggered_by))) == replace(REJECT, triggered_by=triggered_by)


@pytest.mark.parametrize(
    "octets, field",
    [
        (b"", "type"),
        (b"\x0b\x00", "type"),
        (b"\x0c", "body"),
        (b"\x0c\x00", "body"),
        (b"\x0d\x1f" + bytes(31), "fulfillment"),
        (b"\x0d\x20" + bytes(32), "data"),
        (b"\x0e\x02F0", "code"),
        (b"\x0e\x06F\xc30\0\0\0", "code"),
        (b"\x0e\x07F00\x01\xff\0\0", "triggeredBy"),
        (b"\x0e\x04F00\0", "message"),
        (b"\x0e\x05F00\0\0", "data"),
    ],
)
def test_errors_name_field_and_offset(octets: bytes, field: str) -> None:
    """ILP-12."""
    with pytest.raises(CodecError) as error:
        decode(octets)
    assert error.value.field == field
    assert 0 <= error.value.offset <= len(octets)


def test_a_destination_with_a_newline_is_no_destination() -> None:
    """P-2, ADDR-1."""
    octets = enveloped(12, bytes(8) + DIGITS + bytes(32) + b"\x04g.a\n" + b"\0")
    with pytest.raises(CodecError) as error:
        decode(octets)
    assert error.value.field == "destination"


@pytest.mark.parametrize(
    "digits", [b"20171224161460279", b"2017122416143227x", b"2017122x161432279", b"20171324161432279"]
)
def test_an_expiry_that_does_not_exist_makes_no_prepare(digits: bytes) -> None:
    """OER-11, P-3."""
    octets = enveloped(12, bytes(8) + digits + bytes(32) + b"\x03g.a\0")
    for cache in (None, TimestampCache()):
        with pytest.raises(CodecError) as error:
            view_prepare(octets, cache)
        assert (error.value.field, error.value.offset) == ("expiresAt", 10)
    with pytest.raises(CodecError):
        decode(octets)


def test_replies_and_prepares_are_told_apart() -> None:
    """ILP-1."""
    with pytest.raises(CodecError, match="not a Fulfill or Reject"):
        decode_reply(encode(PREPARE))
    for read in (decode_prepare, view_prepare):
        with pytest.raises(CodecError):
            read(encode(FULFILL))
    with pytest.raises(CodecError):
        fulfillment_of(encode(REJECT))
    with pytest.raises(CodecError):
        reject_code_of(encode(FULFILL))


# --- forwarding ------------------------------------------------------------------------------------------------------


@given(prepares, st.integers(0, AMOUNT_MAX), st.integers(TIMESTAMP_MIN, TIMESTAMP_MAX), st.booleans())
def test_forwarding_changes_amount_and_expiry_only(
    prepare: Prepare, amount: int, expires_at: int, cached: bool
) -> None:
    """ILP-6, P-4."""
    cache = TimestampCache() if cached else None
    octets = encode(prepare)
    view = view_prepare(octets, cache)
    assert (view.amount, view.expires_at, view.condition) == (prepare.amount, prepare.expires_at, prepare.condition)
    assert view.destination == prepare.destination.encode()
    assert patch_prepare(view, amount, expires_at, cache) == encode(
        replace(prepare, amount=amount, expires_at=expires_at)
    )


def test_zero_is_an_amount_to_patch() -> None:
    """P-5: amount 0 and the first millisecond of 1970 are values, not "leave it"."""
    patched = decode_prepare(patch_prepare(view_prepare(encode(PREPARE)), 0, 0))
    assert (patched.amount, patched.expires_at) == (0, 0)


@given(st.integers(0, 300), st.integers(0, 300))
def test_a_fulfillment_is_found_in_every_size_of_fulfill(size: int, trailing: int) -> None:
    """ILP-3."""
    octets = enveloped(13, bytes(range(32)) + encode_var_octets(bytes(size)) + bytes(trailing))
    assert fulfillment_of(octets) == bytes(range(32))


def test_a_fulfillment_fits_its_condition_or_not() -> None:
    """ILP-9."""
    fulfillment = bytes(range(32))
    assert is_fulfilled_by(sha256(fulfillment).digest(), fulfillment)
    assert not is_fulfilled_by(sha256(fulfillment).digest(), bytes(32))
    assert not is_fulfilled_by(fulfillment, fulfillment)


@given(st.one_of(st.binary(max_size=200), damaged(encode(PREPARE)), damaged(encode(replace(PREPARE, data=bytes(90))))))
def test_the_view_and_the_decoder_agree_on_any_bytes(octets: bytes) -> None:
    """ILP-12: the view differs only in that it leaves the destination's characters alone."""
    try:
        expected: Prepare | None = decode_prepare(octets)
    except CodecError as error:
        expected = None
        if error.field == "destination" and "not an ILP address" in error.problem:
            return
    for cache in (None, TimestampCache()):
        try:
            view = view_prepare(octets, cache)
        except CodecError:
            assert expected is None
        else:
            assert expected is not None
            assert astuple(expected)[:4] == (view.amount, view.expires_at, view.condition, view.destination.decode())


@given(
    st.one_of(
        st.binary(max_size=200),
        damaged(encode(FULFILL)),
        damaged(encode(Fulfill(bytes(32), bytes(110)))),
        damaged(encode(REJECT)),
    )
)
def test_the_short_ways_agree_with_the_decoder_on_any_bytes(octets: bytes) -> None:
    """ILP-12."""
    packet: Packet | None = None
    try:
        packet = decoded = decode(octets)
        assert decode(encode(decoded)) == decoded
    except CodecError as error:
        assert packet is None
        assert 0 <= error.offset <= len(octets)
    try:
        assert fulfillment_of(octets) == (packet.fulfillment if isinstance(packet, Fulfill) else None)
    except CodecError:
        assert not isinstance(packet, Fulfill)
    try:
        assert reject_code_of(octets) == (packet.code if isinstance(packet, Reject) else None)
    except CodecError:
        assert not isinstance(packet, Reject)


# --- F08 data --------------------------------------------------------------------------------------------------------


def test_amount_too_large_carries_two_amounts() -> None:
    """ILP-14, ILP-15, P-1."""
    data = encode_amount_too_large(2**64 - 1, 2**63)
    assert data.hex() == "ffffffffffffffff8000000000000000"
    assert decode_amount_too_large(data) == (2**64 - 1, 2**63)
    assert decode_amount_too_large(data + b"later") == (2**64 - 1, 2**63)
    for misuse in ((-1, 0), (0, 2**64)):
        with pytest.raises(ValueError, match="amounts"):
            encode_amount_too_large(*misuse)


def test_amount_too_large_may_lack_its_data() -> None:
    """ILP-17, X-16: the Java connector sends none."""
    assert decode_amount_too_large(b"") is None
    assert decode_amount_too_large(bytes(15)) is None
    assert decode_amount_too_large(bytes(16)) == (0, 0)


def test_a_longer_message_is_encoded_without_reading_it_whole() -> None:
    """ILP-21, P-9."""
    assert len(encode_reject(replace(REJECT, message="x" * 10_000_000))) < REJECT_BYTES_MAX
