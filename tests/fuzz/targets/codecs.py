"""The decoders below a link: OER, ILP packets, addresses, times, ILDCP, outcomes, CCP, BTP.

Allowed is a value or `CodecError`. A value encodes again, to bytes that decode to the same value; where a format is
canonical, to the very bytes that were read.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from isthmus import oer
from isthmus.errors import CodecError
from isthmus.ilp import address, ccp, ildcp, outcomes, packet, timestamp
from isthmus.ilp.packet import Fulfill, Prepare, Reject
from isthmus.links.btp import codec as btp
from isthmus.links.btp import generalized_time
from tests.fuzz.registry import Target

VALUES: Final[dict[str, Any]] = json.loads((Path(__file__).parents[2] / "vectors/codec-values.json").read_text())
WALL: Final = 1_800_000_000_000


def value_of(decode: Callable[[bytes], Any], data: bytes) -> Any:
    """What a decoder gives, None for a CodecError."""
    try:
        return decode(data)
    except CodecError as error:
        assert error.offset >= 0
        return None


# --- OER -------------------------------------------------------------------------------------------------------------


def fuzz_oer(data: bytes) -> None:
    """The first two bytes choose the offset and the size; the rest is read by every reader."""
    if len(data) < 2:
        return
    at, size = data[0] & 7, data[1]
    rest = data[2:]
    _read_lengths(rest, at)
    try:
        number, end = oer.read_var_uint(rest, at, "n")
        assert rest[at:end] == oer.encode_var_uint(number)
    except CodecError as error:
        assert error.offset == at
    try:
        number, end = oer.read_uint(rest, at, size & 15, "n")
        assert end == at + (size & 15) <= len(rest)
        assert rest[at:end] == oer.encode_uint(number, size & 15)
        assert oer.read_octets(rest, at, size & 15, "o") == (rest[at:end], end)
    except CodecError as error:
        assert error.offset == at
        assert len(rest) < at + (size & 15)
    try:
        octets, end = oer.read_var_octets_max(rest, at, "o", size)
        assert len(octets) <= size
        assert oer.read_var_octets(rest, at, "o") == (octets, end)
    except CodecError as error:
        assert error.offset == at


def _read_lengths(data: bytes, at: int) -> None:
    try:
        length, start = oer.read_length(data, at, "l")
    except CodecError as error:
        assert error.offset == at
        return
    assert data[at:start] == oer.encode_length(length)
    assert start + length <= len(data)
    octets, end = oer.read_var_octets(data, at, "o")
    assert data[at:end] == oer.encode_var_octets(octets)


def seeds_oer() -> Iterator[bytes]:
    for text, length in VALUES["lengths"]:
        yield b"\0\xff" + bytes.fromhex(text) + bytes(min(length, 300))
    for text in VALUES["lengths_bad"]:
        yield b"\0\x08" + bytes.fromhex(text)
    for number in (0, 1, 255, 256, 2**32, 2**64 - 1, 2**64, 2**520):
        yield b"\0\x08" + oer.encode_var_uint(number)


# --- ILP -------------------------------------------------------------------------------------------------------------


def fuzz_ilp(data: bytes) -> None:
    packet.decode_amount_too_large(data)
    decoded = value_of(packet.decode, data)
    kind = data[0] if data else 0
    if kind == packet.PREPARE:
        _view(data, decoded)
    elif kind == packet.FULFILL:
        fulfillment = value_of(packet.fulfillment_of, data)
        assert fulfillment == (None if decoded is None else decoded.fulfillment)
    elif kind == packet.REJECT:
        code = value_of(packet.reject_code_of, data)
        assert code == (None if decoded is None else decoded.code)
    if decoded is None:
        return
    again = packet.encode(decoded)
    decoded = _as_sent(decoded)
    assert packet.decode(again) == decoded
    assert packet.encode(decoded) == again


def _as_sent(decoded: packet.Packet) -> packet.Packet:
    """A message that isn't UTF-8 grows when it is read, and is cut when it is written (ILP-21)."""
    if isinstance(decoded, Reject):
        octets = packet.truncate_utf8(decoded.message, packet.MESSAGE_BYTES_MAX)
        return Reject(decoded.code, decoded.triggered_by, octets.decode(), decoded.data)
    return decoded


def _view(data: bytes, decoded: Prepare | None) -> None:
    """A forwarder's view reads what the decoder reads, and a patch changes nothing else."""
    view = value_of(packet.view_prepare, data)
    cache = timestamp.TimestampCache()
    for _ in range(2):
        assert view == value_of(lambda octets: packet.view_prepare(octets, cache), data)
    if view is None:
        assert decoded is None
        return
    if decoded is None:
        assert not address.is_valid(view.destination.decode("latin-1"))
        return
    assert (view.amount, view.expires_at, view.condition) == (decoded.amount, decoded.expires_at, decoded.condition)
    assert view.destination.decode("ascii") == decoded.destination
    patched = packet.decode_prepare(packet.patch_prepare(view, 7, WALL, cache))
    assert patched == Prepare(7, WALL, decoded.condition, decoded.destination, decoded.data)


def seeds_ilp() -> Iterator[bytes]:
    for size in (0, 1, 100, 200):
        yield packet.encode_prepare(Prepare(2**63, WALL, bytes(range(32)), "test.alice.~x", bytes(size)))
        yield packet.encode_fulfill(Fulfill(bytes(32), bytes(size)))
        yield packet.encode_reject(Reject("F08", "test.bob", "too much" * (size // 8), bytes(16)))
    yield packet.encode_prepare(Prepare(0, WALL, bytes(32), "g." + "a" * 300, b""))
    yield packet.encode_reject(Reject("T99", "", "\N{EURO SIGN}", b""))


# --- addresses and times ---------------------------------------------------------------------------------------------


def fuzz_address(data: bytes) -> None:
    text = data.decode("latin-1")
    valid = address.is_valid(text)
    parsed = value_of(address.parse_address, data)
    assert parsed == (text if valid else None)
    assert value_of(lambda _: address.parse_address(text), data) == parsed
    is_prefix = address.is_valid_prefix(text)
    assert is_prefix or not valid
    if not is_prefix:
        return
    assert text.isascii()
    head, _, tail = text.rpartition(".")
    assert address.is_prefix_of(text, text)
    assert address.is_prefix_of(head, text)
    assert not address.is_prefix_of(text + "x", text)
    if valid:
        assert address.scheme_of(text) in address.SCHEMES
        assert "." not in head or address.append_segments(head, tail) == text


def seeds_address() -> Iterator[bytes]:
    for scheme in address.SCHEMES:
        yield f"{scheme}.a~B_9-x".encode()
    yield b"g." + b"a" * (address.ADDRESS_BYTES_MAX - 2)
    yield from (b"", b"g", b"g.", b"g..a", b"test.\xc3\xbc", b"test.a\n", b"G.a", b"test4.a")


def fuzz_time(data: bytes) -> None:
    """Both formats of time; the cache reads and writes as the plain functions do."""
    ms = value_of(lambda octets: timestamp.decode_timestamp(octets, 0, "t"), data)
    cache = timestamp.TimestampCache()
    for _ in range(2):
        assert value_of(lambda octets: cache.decode(octets, 0, "t"), data) == ms
    if ms is not None:
        assert timestamp.encode_timestamp(ms) == data[: timestamp.TIMESTAMP_BYTES] == cache.encode(ms)
    general = value_of(lambda octets: generalized_time.decode_generalized_time(octets, "t", 0), data)
    if general is not None:
        again = generalized_time.encode_generalized_time(general)
        # At most a millisecond later: a last digit that isn't zero is what all readers take.
        assert generalized_time.decode_generalized_time(again, "t", 0) - general == (general % 10 == 0)


def seeds_time() -> Iterator[bytes]:
    yield from (text.encode() for text, _ in (*VALUES["timestamps"], *VALUES["generalized_times"]))
    yield from (text.encode() for text in (*VALUES["timestamps_bad"], *VALUES["generalized_times_bad"]))


# --- ILDCP -----------------------------------------------------------------------------------------------------------


def fuzz_ildcp(data: bytes) -> None:
    response = value_of(ildcp.decode_response, data)
    if response is not None:
        again = ildcp.encode_response_data(response)
        assert data.startswith(again), "canonical but for what follows it"
        assert ildcp.decode_response(again) == response


def seeds_ildcp() -> Iterator[bytes]:
    for code in ("USD", "", "\N{EURO SIGN}", "x" * 255):
        yield ildcp.encode_response_data(ildcp.IldcpResponse("test.parent.child", 9, code))


# --- outcomes --------------------------------------------------------------------------------------------------------


def fuzz_outcomes(data: bytes) -> None:
    """The first bit says whether a report or an answer follows. Only what follows the last field is lost."""
    rest = data[1:]
    if data[:1] < b"\x80":
        report = value_of(outcomes.decode_report, rest)
        if report is not None:
            again = packet.decode_prepare(outcomes.encode_report(report, WALL))
            assert (again.amount, again.destination) == (0, outcomes.OUTCOMES_DESTINATION)
            assert rest.startswith(again.data)
            assert outcomes.decode_report(again.data) == report
        return
    answer = value_of(outcomes.decode_answer, rest)
    if answer is not None:
        fulfill = packet.decode_reply(outcomes.encode_answer(answer))
        assert isinstance(fulfill, Fulfill)
        assert fulfill.fulfillment == ildcp.PEER_FULFILLMENT
        assert rest.startswith(fulfill.data)
        assert outcomes.decode_answer(fulfill.data) == answer


def seeds_outcomes() -> Iterator[bytes]:
    session = bytes(range(16))
    for voided, asked in (([], []), ([1, 7], [8]), ([], [9, 10, 2**32 - 1]), (list(range(1, 8)), [])):
        ranges = [(20, 20), (30, 2**32 - 1)] if asked else []
        report = outcomes.OutcomesReport(session, 7, voided, asked, ranges)
        yield b"\0" + packet.decode_prepare(outcomes.encode_report(report, WALL)).data
    for fulfilled in ([], [(8, bytes(32))], [(9, session * 2), (2**32 - 1, bytes(32))]):
        reply = packet.decode_reply(outcomes.encode_answer(fulfilled))
        yield b"\x80" + reply.data


# --- CCP -------------------------------------------------------------------------------------------------------------


def fuzz_ccp(data: bytes) -> None:
    """The first bit says whether a control or an update follows."""
    rest = data[1:]
    if data[:1] < b"\x80":
        control = value_of(ccp.decode_control, rest)
        if control is not None:
            prepare = packet.decode_prepare(ccp.encode_control(control, WALL))
            assert (prepare.amount, prepare.destination) == (0, ccp.CONTROL_DESTINATION)
            assert rest.startswith(prepare.data)
            assert ccp.decode_control(prepare.data) == control
        return
    update = value_of(ccp.decode_update, rest)
    if update is None:
        return
    prepare = packet.decode_prepare(ccp.encode_update(update, WALL))
    assert (prepare.amount, prepare.destination) == (0, ccp.UPDATE_DESTINATION)
    again = ccp.decode_update(prepare.data)
    assert (again, again.skipped) == (update, 0)
    sizes = [*map(ccp.route_bytes, update.new_routes), *map(ccp.withdrawn_bytes, update.withdrawn)]
    # Short counts take a byte less each than those that a speaker must expect.
    assert 0 <= ccp.update_overhead_bytes(update.speaker) + sum(sizes) - len(prepare.data) <= 2
    if not update.skipped:
        # Nothing but bits that mean nothing and bytes after the end can differ.
        assert len(prepare.data) <= len(rest)


def seeds_ccp() -> Iterator[bytes]:
    table_id = bytes(range(16))
    for features in ((), ("foo", "\N{EURO SIGN}")):
        for mode in (ccp.IDLE, ccp.SYNC):
            control = ccp.RouteControl(mode, table_id, 32, features)
            yield b"\0" + packet.decode_prepare(ccp.encode_control(control, WALL)).data
    prop = ccp.RouteProp(0, b"hello", is_optional=False, is_transitive=True, is_partial=False, is_utf8=True)
    other = ccp.RouteProp(1, b"\xa0", is_optional=True, is_transitive=True, is_partial=True, is_utf8=False)
    plain = ccp.Route("test.a", ("test.bob", "test.a"), bytes(32), ())
    rich = ccp.Route("test.b", ("test.bob",), table_id * 2, (prop, other))
    for routes, withdrawn in (((), ()), ((plain,), ("test.c",)), ((plain, rich), ()), ((), ("", "g", "g.a"))):
        update = ccp.RouteUpdate(table_id, 9, 3, 9, 30_000, "test.bob", routes, withdrawn)
        octets = packet.decode_prepare(ccp.encode_update(update, WALL)).data
        yield b"\x80" + octets
        yield b"\x80" + octets.replace(b"test.a", b"test a")


# --- BTP -------------------------------------------------------------------------------------------------------------


def fuzz_btp(data: bytes) -> None:
    fast = btp.ilp_fast(data)
    frame = value_of(btp.decode, data)
    head = btp.read_head(data)
    if fast is not None:
        kind, request_id, ilp = fast
        entries = [btp.ProtocolData(btp.ILP_NAME, btp.OCTET_STREAM, ilp)]
        known = btp.BtpMessage if kind == btp.MESSAGE else btp.BtpResponse
        assert frame == known(request_id, entries)
        assert btp.encode_ilp(kind, request_id, ilp) == data
    if frame is None:
        return
    assert head is not None and head[1] == frame.request_id
    if isinstance(frame, btp.BtpError):
        frame = _as_written(frame)
    again = btp.encode(frame)
    assert btp.decode(again) == frame
    assert btp.encode(btp.decode(again)) == again


def _as_written(error: btp.BtpError) -> btp.BtpError:
    """A name that isn't UTF-8 may be cut when it is written, and a time gets a last digit that isn't zero (OER-15)."""
    name = packet.truncate_utf8(error.name, btp.ERROR_NAME_BYTES_MAX).decode()
    at = error.triggered_at
    return btp.BtpError(error.request_id, error.code, name, at if at % 10 else at + 1, error.data, error.protocol_data)


def seeds_btp() -> Iterator[bytes]:
    ilp = packet.encode_fulfill(Fulfill(bytes(32), b"data"))
    entries = [btp.ProtocolData("ilp", 0, ilp), btp.ProtocolData("isthmus_session", 0, bytes(16))]
    auth = [btp.ProtocolData("auth", 0, b""), btp.ProtocolData("auth_token", 1, b"token")]
    yield btp.encode(btp.BtpMessage(1, auth))
    yield btp.encode(btp.BtpMessage(2, entries))
    yield btp.encode(btp.BtpResponse(2**32 - 1, entries[::-1]))
    yield btp.encode(btp.BtpResponse(3, []))
    yield btp.encode(btp.BtpTransfer(4, 2**64 - 1, entries[:1]))
    yield btp.encode(btp.BtpError(5, "F00", "NotAcceptedError", WALL, b"why", entries))
    for size in (0, 1, 100, 119, 120, 127, 128, 246, 247, 255, 256, 1100):
        yield btp.encode_ilp(btp.MESSAGE, 7, bytes(size))


TARGETS: Final[dict[str, Target]] = {
    "oer": Target(fuzz_oer, seeds_oer, (b"\x81\x80", b"\x82\x01\x00", b"\x88"), size_max=512),
    "ilp": Target(
        fuzz_ilp, seeds_ilp, (b"20270115080000000", b"test.", b"\x0c\x81", b"\x0d\x82", b"\x0e"), size_max=1_500
    ),
    "address": Target(
        fuzz_address, seeds_address, tuple(f"{one}.".encode() for one in address.SCHEMES), size_max=1_100
    ),
    "time": Target(fuzz_time, seeds_time, (b"2000", b"0229", b"5960", b"9999123123595", b".999Z", b"Z"), size_max=32),
    "ildcp": Target(fuzz_ildcp, seeds_ildcp, (b"test.", b"\x81\x80"), size_max=600),
    "outcomes": Target(fuzz_outcomes, seeds_outcomes, (b"\x00\x01", b"\x0f\xa0", b"\x03\x84"), size_max=600),
    "ccp": Target(fuzz_ccp, seeds_ccp, (b"test.", b"\x01\x01", b"\x02\x01\x00", b"\xe0\x00"), size_max=1_500),
    "btp": Target(
        fuzz_btp, seeds_btp, (b"\x01\x01\x03ilp\x00", b"auth_token", b"F00", b"20270115080000.001Z"), size_max=1_500
    ),
}
