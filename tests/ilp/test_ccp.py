"""CCP's controls and updates as bytes."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.errors import CodecError
from isthmus.ilp import ccp
from isthmus.ilp.ccp import (
    IDLE,
    NO_ROUTING_TABLE,
    SYNC,
    Route,
    RouteControl,
    RouteProp,
    RouteUpdate,
    decode_control,
    decode_update,
    encode_control,
    encode_response,
    encode_update,
    route_bytes,
    update_overhead_bytes,
    withdrawn_bytes,
)
from isthmus.ilp.ildcp import PEER_CONDITION, PEER_FULFILLMENT
from isthmus.ilp.packet import DATA_BYTES_MAX, Fulfill, decode_prepare, decode_reply
from isthmus.ilp.timestamp import decode_timestamp
from isthmus.oer import encode_var_octets, encode_var_uint

PACKETS = json.loads((Path(__file__).parents[1] / "vectors/codec-values.json").read_text())["ccp"]
EXPIRES_AT = decode_timestamp(b"20150616000100000", 0, "x")
TABLE_ID = bytes.fromhex("21e55f8eabcd4e979ab9bf0ff00a224c")
AUTH = bytes(range(32))

CONTROL = RouteControl(SYNC, bytes.fromhex("70d1a134a0df4f47964f6e19e2ab3790"), 32, ("foo", "bar"))
CONTROL_DATA = "01" + "70d1a134a0df4f47964f6e19e2ab3790" + "00000020" + "0102" + "03666f6f" + "03626172"
HEARTBEAT = RouteUpdate(TABLE_ID, 52, 52, 52, 30_000, "example.alice", (), ())
HEARTBEAT_DATA = TABLE_ID.hex() + "00000034" * 3 + "00007530" + "0d6578616d706c652e616c696365" + "0100" + "0100"
UPDATE = RouteUpdate(
    bytes.fromhex("bffbf6ad0ddc4d3ba1e5b4f0537365bd"),
    52,
    46,
    50,
    30_000,
    "example.alice",
    (
        Route(
            "example.prefix1",
            ("example.prefix1",),
            bytes.fromhex("7a6c7d85867c46a2fabfad1afa7a4a5e229ce574fcce63f5edeedfc03f8468ea"),
            (),
        ),
        Route(
            "example.prefix2",
            ("example.connector1", "example.prefix2"),
            bytes.fromhex("2b08e53fbcc17c5f1bd54ae0d9ad7ba39a5f9a7b126ca9b5c0945609a35324cc"),
            (
                RouteProp(0, b"hello world", is_optional=False, is_transitive=True, is_partial=False, is_utf8=True),
                RouteProp(1, b"\xa0" * 4, is_optional=True, is_transitive=True, is_partial=True, is_utf8=False),
            ),
        ),
    ),
    ("example.prefix3", "example.prefix4"),
)

HEAD = bytes.fromhex(HEARTBEAT_DATA)[:-4]  # up to the routes
NONE = b"\x01\x00"


def update_data(update: RouteUpdate) -> bytes:
    return decode_prepare(encode_update(update, EXPIRES_AT)).data


def control_data(control: RouteControl) -> bytes:
    return decode_prepare(encode_control(control, EXPIRES_AT)).data


def route_data(
    prefix: bytes = b"g.a", path: tuple[bytes, ...] = (b"g.b",), auth: bytes = AUTH, props: bytes = NONE
) -> bytes:
    """A route written by somebody who checks nothing."""
    hops = b"".join(encode_var_octets(hop) for hop in path)
    return encode_var_octets(prefix) + encode_var_uint(len(path)) + hops + auth + props


def with_routes(*routes: bytes, withdrawn: bytes = NONE) -> bytes:
    return HEAD + encode_var_uint(len(routes)) + b"".join(routes) + withdrawn


# --- what others write -----------------------------------------------------------------------------------------------


def test_a_control_is_written_as_others_write_it() -> None:
    """CCP-1, CCP-2, PEER-1."""
    packet = encode_control(CONTROL, EXPIRES_AT)
    assert packet.hex() == PACKETS["control"]
    prepare = decode_prepare(packet)
    assert (prepare.amount, prepare.condition, prepare.destination) == (0, PEER_CONDITION, "peer.route.control")
    assert prepare.data.hex() == CONTROL_DATA
    assert decode_control(prepare.data) == CONTROL


def test_a_heartbeat_is_written_as_others_write_it() -> None:
    """CCP-1, CCP-3, PEER-1."""
    packet = encode_update(HEARTBEAT, EXPIRES_AT)
    assert packet.hex() == PACKETS["heartbeat"]
    prepare = decode_prepare(packet)
    assert (prepare.amount, prepare.condition, prepare.destination) == (0, PEER_CONDITION, "peer.route.update")
    assert prepare.data.hex() == HEARTBEAT_DATA
    assert decode_update(prepare.data) == HEARTBEAT


def test_routes_and_props_are_written_as_others_write_them() -> None:
    """CCP-3, CCP-4, CCP-5."""
    packet = encode_update(UPDATE, EXPIRES_AT)
    assert packet.hex() == PACKETS["update"]
    assert decode_update(decode_prepare(packet).data) == UPDATE


def test_the_answer_is_a_fulfill_without_data() -> None:
    """CCP-1, PEER-1."""
    assert encode_response().hex() == PACKETS["response"]
    assert decode_reply(encode_response()) == Fulfill(PEER_FULFILLMENT, b"")


def test_a_listener_without_a_table_says_so_with_zeros() -> None:
    """CCP-2."""
    control = RouteControl(IDLE, NO_ROUTING_TABLE, 0, ())
    assert control_data(control) == bytes(1 + 16 + 4) + NONE
    assert decode_control(bytes(1 + 16 + 4) + NONE) == control


# --- round trips -----------------------------------------------------------------------------------------------------

U32 = st.integers(0, 2**32 - 1)
SEGMENTS = st.text("abz09_~-", min_size=1, max_size=8)
ADDRESSES = st.builds(
    lambda scheme, segments: ".".join([scheme, *segments]),
    st.sampled_from(["g", "test", "example", "private"]),
    st.lists(SEGMENTS, min_size=1, max_size=4),
)
PREFIXES = ADDRESSES | st.sampled_from(["", "g", "test", "g." + "x" * 1021])
FLAGS = st.sampled_from([(False, True, False), (True, False, False), (True, True, False), (True, True, True)])
PROPS = st.builds(
    lambda number, value, flags, is_utf8: RouteProp(number, value, flags[0], flags[1], flags[2], is_utf8),
    st.integers(0, 2**16 - 1),
    st.binary(max_size=300),
    FLAGS,
    st.booleans(),
)


def tuples(each: st.SearchStrategy[object], size_max: int) -> st.SearchStrategy[tuple[object, ...]]:
    return st.lists(each, max_size=size_max).map(tuple)


ROUTES = st.builds(Route, PREFIXES, tuples(ADDRESSES, 5), st.binary(min_size=32, max_size=32), tuples(PROPS, 3))
UPDATES = st.builds(
    RouteUpdate,
    st.binary(min_size=16, max_size=16),
    U32,
    U32,
    U32,
    U32,
    ADDRESSES,
    tuples(ROUTES, 5),
    tuples(PREFIXES, 5),
)
CONTROLS = st.builds(
    RouteControl,
    st.sampled_from([IDLE, SYNC]),
    st.binary(min_size=16, max_size=16),
    U32,
    tuples(st.text(max_size=60), 4),
)


@given(CONTROLS)
def test_a_control_is_read_as_it_was_written(control: RouteControl) -> None:
    """CCP-2, CCP-5: features are kept, known or not."""
    data = control_data(control)
    assert decode_control(data) == decode_control(data + b"from a later version") == control


@given(UPDATES)
def test_an_update_is_read_as_it_was_written(update: RouteUpdate) -> None:
    """CCP-3, CCP-4, CCP-5: props are kept, known or not."""
    data = update_data(update)
    read = decode_update(data)
    assert read == decode_update(data + b"from a later version") == update
    assert read.skipped == 0
    assert update_data(read) == data


@given(UPDATES)
def test_a_speaker_can_tell_beforehand_how_long_an_update_gets(update: RouteUpdate) -> None:
    """CCP-14: two bytes, which longer counts would take, are kept free."""
    parts = [*map(route_bytes, update.new_routes), *map(withdrawn_bytes, update.withdrawn)]
    assert len(update_data(update)) == update_overhead_bytes(update.speaker) + sum(parts) - 2


@given(st.binary(max_size=300), st.sampled_from([b"", HEAD, HEAD + b"\x01\x01", HEAD + NONE]))
def test_any_bytes_give_a_value_or_a_codec_error(data: bytes, head: bytes) -> None:
    """CCP-6."""
    for decode in (decode_control, decode_update):
        try:
            decode(head + data)
        except CodecError as error:
            assert 0 <= error.offset <= len(head + data)


@given(st.data())
def test_an_update_that_is_cut_or_changed_gives_a_value_or_a_codec_error(data: st.DataObject) -> None:
    """CCP-6: what is kept can be written again."""
    octets = bytearray(decode_prepare(bytes.fromhex(PACKETS["update"])).data)
    for _ in range(data.draw(st.integers(1, 3))):
        octets[data.draw(st.integers(0, len(octets) - 1))] = data.draw(st.integers(0, 255))
    try:
        update = decode_update(bytes(octets[: data.draw(st.integers(0, len(octets)))]))
    except CodecError:
        return
    assert decode_update(update_data(update)) == update


# --- broken structure ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data, field",
    [
        (b"", "mode"),
        (b"\x02" + bytes(20) + NONE, "mode"),
        (b"\xff" + bytes(20) + NONE, "mode"),
        (b"\x01" + bytes(15), "lastKnownRoutingTableId"),
        (b"\x01" + bytes(19), "lastKnownEpoch"),
        (b"\x01" + bytes(20), "features"),
        (b"\x01" + bytes(20) + b"\x00", "features"),
        (b"\x01" + bytes(20) + b"\x01\x01", "features"),
        (b"\x01" + bytes(20) + b"\x01\x01\x02x", "features"),
        (b"\x01" + bytes(20) + b"\x01\x01\x81\x01x", "features"),
        (b"\x01" + bytes(20) + b"\x01\x01\x02\xc3\x28", "features"),
    ],
)
def test_what_is_no_control_is_refused(data: bytes, field: str) -> None:
    """CCP-6."""
    with pytest.raises(CodecError) as error:
        decode_control(data)
    assert error.value.field == field


@pytest.mark.parametrize(
    "data, field",
    [
        (b"", "update"),
        (bytes(31), "update"),
        (bytes(32), "speaker"),
        (bytes(32) + b"\x00" + NONE + NONE, "speaker"),
        (bytes(32) + b"\x01g" + NONE + NONE, "speaker"),
        (bytes(32) + b"\x05g.a b" + NONE + NONE, "speaker"),
        (bytes(32) + encode_var_octets(b"g." + b"a" * 1022) + NONE + NONE, "speaker"),
        (HEAD, "newRoutes"),
        (HEAD + b"\x00" + NONE, "newRoutes"),
        (HEAD + b"\x02\x00\x01" + NONE, "newRoutes"),
        (HEAD + NONE, "withdrawnRoutes"),
        (HEAD + NONE + b"\x01\x01", "withdrawnRoutes"),
        (HEAD + NONE + b"\x01\x01\x04g.a", "withdrawnRoutes"),
        (HEAD + b"\x01\x01" + b"\x26" + bytes(37), "prefix"),
        (HEAD + b"\x01\x01" + b"\x03g.a" + b"\x01\x28" + bytes(37), "path"),
        (HEAD + b"\x01\x01" + b"\x03g.a" + b"\x01\x02" + b"\x03g.b\x7f" + bytes(37), "path"),
        (HEAD + b"\x01\x01" + b"\x03g.a" + b"\x01\x01" + b"\x03g.b" + bytes(31), "auth"),
        (HEAD + b"\x01\x01" + route_data(props=b""), "props"),
        (HEAD + b"\x01\x01" + route_data(props=b"\x01\x02\xe0\x00\x01\x00"), "props"),
        (HEAD + b"\x01\x01" + route_data(props=b"\x01\x01\xe0\x00\x01\x02x"), "props"),
        (HEAD + b"\x01\x02" + route_data(path=(b"g.b",) * 10), "prefix"),
    ],
)
def test_what_is_no_update_is_refused(data: bytes, field: str) -> None:
    """CCP-6."""
    with pytest.raises(CodecError) as error:
        decode_update(data)
    assert error.value.field == field


@pytest.mark.parametrize("bits", [9, 16, 63, 64, 200, 20_000])
def test_a_count_is_compared_with_the_bytes_that_are_left(bits: int) -> None:
    """CCP-6: no memory is taken on a stranger's word, and no number of 6000 digits is printed."""
    number = encode_var_uint(2**bits)
    for data in (HEAD + number, HEAD + NONE + number):
        with pytest.raises(CodecError, match="announced"):
            decode_update(data + bytes(100))
    for route in (
        b"\x03g.a" + number + bytes(100),
        b"\x03g.a" + NONE + AUTH + number + bytes(100),
    ):
        with pytest.raises(CodecError, match="announced"):
            decode_update(with_routes(route))
    with pytest.raises(CodecError, match="announced"):
        decode_control(b"\x01" + bytes(20) + number + bytes(100))


# --- routes that can't be used ---------------------------------------------------------------------------------------

GOOD = route_data(b"g.good")


@pytest.mark.parametrize("prefix", [b"g.a b", b"g.a.", b"h.a", b"g.\xc3\xbc", b"g.a\n", b"g." + b"a" * 1022, b"\xff"])
def test_one_bad_prefix_does_not_take_the_other_routes_with_it(prefix: bytes) -> None:
    """CCP-11: it is dropped before any import filter sees it, because peers pass on what they never read."""
    update = decode_update(with_routes(GOOD, route_data(prefix), GOOD))
    assert [route.prefix for route in update.new_routes] == ["g.good", "g.good"]
    assert (update.withdrawn, update.skipped) == ((), 1)
    withdrawn = b"\x01\x02" + encode_var_octets(prefix) + b"\x03g.a"
    update = decode_update(with_routes(withdrawn=withdrawn))
    assert (update.withdrawn, update.skipped) == (("g.a",), 1)


def test_the_default_and_bare_schemes_are_prefixes() -> None:
    """CCP-11: it is the import filter that doesn't take them."""
    update = decode_update(with_routes(route_data(b""), route_data(b"g"), withdrawn=b"\x01\x01\x00"))
    assert [route.prefix for route in update.new_routes] == ["", "g"]
    assert (update.withdrawn, update.skipped) == (("",), 0)


def prop_data(size: int) -> bytes:
    return b"\xc0\x00\x07" + encode_var_octets(bytes(size))


LONG_HOP = b"g." + b"h" * 1021
# With these hops and a prop of 964 bytes a route is as long as a route may be.
LONG_PATH = (LONG_HOP,) * 7

UNUSABLE = {
    "a hop that is no address": route_data(path=(b"g.b", b"unknown")),
    "a hop that is a scheme": route_data(path=(b"g",)),
    "an empty hop": route_data(path=(b"",)),
    "a hop too long": route_data(path=(LONG_HOP + b"h",)),
    "too many hops": route_data(path=(b"g.b",) * (ccp.PATH_MAX + 1)),
    "too many props": route_data(props=encode_var_uint(ccp.PROPS_MAX + 1) + prop_data(0) * (ccp.PROPS_MAX + 1)),
    "a prop too long": route_data(props=b"\x01\x01" + prop_data(ccp.PROP_BYTES_MAX + 1)),
    "too many bytes": route_data(path=LONG_PATH, props=b"\x01\x01" + prop_data(965)),
}


@pytest.mark.parametrize("octets", UNUSABLE.values(), ids=UNUSABLE.keys())
def test_a_route_that_can_not_be_used_stands_for_its_withdrawal(octets: bytes) -> None:
    """CCP-4, CCP-10: what was announced for this prefix before is no longer true."""
    update = decode_update(with_routes(octets, GOOD, withdrawn=b"\x01\x01\x03g.c"))
    assert [route.prefix for route in update.new_routes] == ["g.good"]
    assert (update.withdrawn, update.skipped) == (("g.a", "g.c"), 1)


def test_routes_at_the_bounds_are_taken() -> None:
    """CCP-4."""
    routes = [
        route_data(path=()),
        route_data(path=(LONG_HOP,)),
        route_data(path=(b"g.b",) * ccp.PATH_MAX),
        route_data(props=encode_var_uint(ccp.PROPS_MAX) + prop_data(0) * ccp.PROPS_MAX),
        route_data(props=b"\x01\x01" + prop_data(ccp.PROP_BYTES_MAX)),
        route_data(path=LONG_PATH, props=b"\x01\x01" + prop_data(964)),
    ]
    update = decode_update(with_routes(*routes))
    assert update.skipped == 0
    assert [route_bytes(route) for route in update.new_routes] == [len(octets) for octets in routes]
    assert route_bytes(update.new_routes[-1]) == ccp.ROUTE_BYTES_MAX
    assert decode_update(update_data(update)) == update


@pytest.mark.parametrize(
    "meta, flags",
    [
        (0x00, (False, True, False, False)),
        (0x40, (False, True, False, False)),
        (0x20, (False, True, False, False)),
        (0x80, (True, False, False, False)),
        (0xA0, (True, False, False, False)),
        (0xC0, (True, True, False, False)),
        (0xE0, (True, True, True, False)),
        (0xFF, (True, True, True, True)),
        (0x1F, (False, True, False, True)),
    ],
)
def test_the_flags_of_a_prop_are_made_to_fit_each_other(meta: int, flags: tuple[bool, bool, bool, bool]) -> None:
    """CCP-5: as JS and Java write them; the low bits mean nothing, and text need not be UTF-8."""
    update = decode_update(with_routes(route_data(props=b"\x01\x01" + bytes((meta,)) + b"\xff\xff\x02\xc3\x28")))
    assert update.new_routes[0].props == (RouteProp(0xFFFF, b"\xc3\x28", *flags),)
    assert decode_update(update_data(update)) == update


# --- bounds ----------------------------------------------------------------------------------------------------------


def test_features_are_bounded() -> None:
    """CCP-2."""
    most = replace(CONTROL, features=("x" * ccp.FEATURE_BYTES_MAX,) * ccp.FEATURES_MAX)
    assert decode_control(control_data(most)) == most
    for features in (("x",) * (ccp.FEATURES_MAX + 1), ("x" * (ccp.FEATURE_BYTES_MAX + 1),)):
        with pytest.raises(ValueError, match="at most"):
            encode_control(replace(CONTROL, features=features), EXPIRES_AT)
        octets = b"".join(encode_var_octets(feature.encode()) for feature in features)
        with pytest.raises(CodecError, match="more than"):
            decode_control(b"\x01" + bytes(20) + encode_var_uint(len(features)) + octets)


def test_the_largest_update_fits_into_a_packet_and_one_byte_more_does_not() -> None:
    """CCP-14."""
    assert ccp.UPDATE_BYTES_MAX == DATA_BYTES_MAX
    route = Route("g." + "a" * 100, ("g.b",), AUTH, ())
    routes = (route,) * ((ccp.UPDATE_BYTES_MAX - update_overhead_bytes("g.b")) // route_bytes(route))
    rest = ccp.UPDATE_BYTES_MAX - len(update_data(replace(HEARTBEAT, speaker="g.b", new_routes=routes)))
    assert 4 < rest < 0x80
    largest = replace(HEARTBEAT, speaker="g.b", new_routes=routes, withdrawn=("g." + "c" * (rest - 3),))
    assert withdrawn_bytes(largest.withdrawn[0]) == rest
    assert len(update_data(largest)) == ccp.UPDATE_BYTES_MAX
    assert decode_update(update_data(largest)) == largest
    with pytest.raises(ValueError, match="at most 32767 bytes, not 32768"):
        encode_update(replace(largest, withdrawn=(largest.withdrawn[0] + "c",)), EXPIRES_AT)


def test_any_route_of_any_speaker_has_room_in_an_update() -> None:
    """CCP-14."""
    assert update_overhead_bytes("g." + "a" * 1021) + ccp.ROUTE_BYTES_MAX <= ccp.UPDATE_BYTES_MAX
    with pytest.raises(ValueError, match="a packet's data"):
        encode_update(replace(HEARTBEAT, new_routes=(Route("g.a", (), AUTH, ()),) * ccp.ROUTES_MAX), EXPIRES_AT)
    with pytest.raises(CodecError, match="more than 32767"):
        decode_update(HEAD + NONE + NONE + bytes(ccp.UPDATE_BYTES_MAX))


def test_withdrawn_prefixes_are_bounded() -> None:
    """CCP-3."""
    most = replace(HEARTBEAT, withdrawn=("",) * ccp.WITHDRAWN_MAX)
    assert decode_update(update_data(most)) == most
    with pytest.raises(ValueError, match="at once"):
        encode_update(replace(HEARTBEAT, withdrawn=("",) * (ccp.WITHDRAWN_MAX + 1)), EXPIRES_AT)
    many = encode_var_uint(ccp.WITHDRAWN_MAX) + bytes(ccp.WITHDRAWN_MAX)
    assert decode_update(with_routes(GOOD, withdrawn=many)).skipped == 0
    with pytest.raises(CodecError, match="more than 8191"):
        decode_update(with_routes(route_data(path=(b"",)), withdrawn=many))
    with pytest.raises(CodecError, match="more than 8191"):
        decode_update(with_routes(withdrawn=encode_var_uint(ccp.WITHDRAWN_MAX + 1) + bytes(ccp.WITHDRAWN_MAX + 1)))


# --- our own mistakes ------------------------------------------------------------------------------------------------

ROUTE = Route("g.a", ("g.b",), AUTH, ())
PROP = RouteProp(0, b"", is_optional=True, is_transitive=True, is_partial=False, is_utf8=False)


@pytest.mark.parametrize(
    "control",
    [
        replace(CONTROL, mode=2),
        replace(CONTROL, mode=-1),
        replace(CONTROL, last_known_routing_table_id=bytes(15)),
        replace(CONTROL, last_known_epoch=2**32),
        replace(CONTROL, last_known_epoch=-1),
        replace(CONTROL, features=("\ud800",)),
    ],
)
def test_a_control_out_of_range_is_not_written(control: RouteControl) -> None:
    """CCP-2."""
    with pytest.raises(ValueError):
        encode_control(control, EXPIRES_AT)


@pytest.mark.parametrize(
    "update",
    [
        replace(HEARTBEAT, routing_table_id=bytes(17)),
        replace(HEARTBEAT, current_epoch=2**32),
        replace(HEARTBEAT, from_epoch=-1),
        replace(HEARTBEAT, to_epoch=2**32),
        replace(HEARTBEAT, hold_down_ms=2**32),
        replace(HEARTBEAT, speaker="g"),
        replace(HEARTBEAT, withdrawn=("g.",)),
        *(
            replace(HEARTBEAT, new_routes=(route,))
            for route in (
                replace(ROUTE, prefix="g."),
                replace(ROUTE, path=("g",)),
                replace(ROUTE, path=("g.b",) * (ccp.PATH_MAX + 1)),
                replace(ROUTE, path=("g." + "h" * 1021,) * 8),
                replace(ROUTE, auth=bytes(31)),
                replace(ROUTE, props=(PROP,) * (ccp.PROPS_MAX + 1)),
                replace(ROUTE, props=(replace(PROP, id=2**16),)),
                replace(ROUTE, props=(replace(PROP, value=bytes(ccp.PROP_BYTES_MAX + 1)),)),
                replace(ROUTE, props=(replace(PROP, is_optional=False, is_transitive=False),)),
                replace(ROUTE, props=(replace(PROP, is_optional=False, is_partial=True),)),
                replace(ROUTE, props=(replace(PROP, is_transitive=False, is_partial=True),)),
            )
        ),
    ],
)
def test_an_update_out_of_range_is_not_written(update: RouteUpdate) -> None:
    """CCP-3, CCP-4, CCP-5."""
    with pytest.raises(ValueError):
        encode_update(update, EXPIRES_AT)
