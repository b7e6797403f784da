"""CCP: neighbours tell each other what they can reach; its bytes (no RFC: JS `ilp-protocol-ccp`, rs `interledger-ccp`).

A listener sends a route control, a speaker sends route updates; both are `peer.*` requests (CCP-1), checked as such by
the caller (PEER-2). What a table id, an epoch or a route means is the business of the routing machines.

    control     mode u8, table id 16, epoch u32, features: count and var UTF-8
    update      table id 16, current, from and to epoch u32, hold-down u32 ms, speaker var, routes: count and route,
                withdrawn: count and var prefix
    route       prefix var, path: count and var address, auth 32, props: count and (meta u8, id u16, value var)

Counts are VarUInts. Bytes after the last field are ignored, as are features and props that nobody knows (CCP-5).

An update whose structure is broken is a CodecError: our neighbour wrote it. A route that is written soundly but can't
be used (its prefix or a hop is no ILP address, or it is beyond the bounds below) is not taken, and the others of the
update are: neighbours pass routes on unread, and a stranger far away must not be able to silence a neighbour with one
bad route. If its prefix is sound, it stands among the withdrawn: what the speaker announced for it before is gone.
"""

from dataclasses import dataclass, field
from functools import lru_cache
from struct import Struct
from typing import Final, final

from isthmus.errors import CodecError
from isthmus.ilp.address import is_valid, is_valid_prefix, parse_address
from isthmus.ilp.ildcp import PEER_CONDITION, PEER_FULFILLMENT
from isthmus.ilp.packet import DATA_BYTES_MAX, Fulfill, Prepare, encode_fulfill, encode_prepare
from isthmus.oer import (
    U32_MAX,
    encode_var_octets,
    encode_var_uint,
    read_octets,
    read_uint,
    read_var_octets,
    read_var_octets_max,
    read_var_uint,
)

CONTROL_DESTINATION: Final = "peer.route.control"
UPDATE_DESTINATION: Final = "peer.route.update"

IDLE: Final = 0
SYNC: Final = 1

ROUTING_TABLE_ID_BYTES: Final = 16
NO_ROUTING_TABLE: Final = bytes(ROUTING_TABLE_ID_BYTES)  # of a listener that knows no table yet (CCP-2)
AUTH_BYTES: Final = 32
PROP_ID_MAX: Final = 2**16 - 1

# CCP-14: a speaker splits what is larger.
UPDATE_BYTES_MAX: Final = DATA_BYTES_MAX
# Empty prefix, no hops, no props: 1 + 2 + 32 + 2.
ROUTE_BYTES_MIN: Final = 37
# More have no room in an update.
ROUTES_MAX: Final = UPDATE_BYTES_MAX // ROUTE_BYTES_MIN
# So many of the shortest address, `g.a`, have room.
WITHDRAWN_MAX: Final = UPDATE_BYTES_MAX // 4

# No payment lives through 30 hops, its expiry being cut at each; twice that is room for what others count as hops.
PATH_MAX: Final = 64
PROPS_MAX: Final = 32
PROP_BYTES_MAX: Final = 1_024
# Bounds what a route costs to keep, and lets any one route into an update, whoever the speaker is.
ROUTE_BYTES_MAX: Final = 8_192

FEATURES_MAX: Final = 64
FEATURE_BYTES_MAX: Final = 255

# Names and props that are remembered, so that they are read once and stand in memory once: some megabytes at most.
_NAMES_MAX: Final = 8_192

_CONTROL_HEAD: Final = Struct(">B16sI")
_UPDATE_HEAD: Final = Struct(">16sIIII")
_PROP_HEAD: Final = Struct(">BH")
_PROP_BYTES_MIN: Final = 4
# A VarUInt above this would announce more than there can be bytes.
_COUNT_BYTES_MAX: Final = 3

_OPTIONAL: Final = 0x80
_TRANSITIVE: Final = 0x40
_PARTIAL: Final = 0x20
_UTF8: Final = 0x10


@final
@dataclass(slots=True, frozen=True)
class RouteControl:
    """A listener wants updates from this epoch of this table on (SYNC), or none (IDLE)."""

    mode: int
    last_known_routing_table_id: bytes  # 16 bytes, `NO_ROUTING_TABLE` for none
    last_known_epoch: int  # u32
    features: tuple[str, ...]


@final
@dataclass(slots=True, frozen=True)
class RouteProp:
    """Something about a route. One that isn't optional is transitive, and only optional transitive ones are partial."""

    id: int  # u16; none is assigned
    value: bytes  # `PROP_BYTES_MAX` at most; not checked to be UTF-8 where `is_utf8` says so
    is_optional: bool
    is_transitive: bool
    is_partial: bool
    is_utf8: bool


@final
@dataclass(slots=True, frozen=True)
class Route:
    """What the speaker can reach, and through whom."""

    prefix: str  # may be a bare scheme or "" (the default): the import filter knows better than to take them
    path: tuple[str, ...]  # addresses, the nearest hop first; `PATH_MAX` at most
    auth: bytes  # 32 bytes
    props: tuple[RouteProp, ...]


@final
@dataclass(slots=True, frozen=True)
class RouteUpdate:
    """How the speaker's table changed over the epochs [from, to); a heartbeat if they are equal (CCP-7)."""

    routing_table_id: bytes  # 16 bytes
    current_epoch: int  # u32, as the other two; whether they fit each other is not checked
    from_epoch: int
    to_epoch: int
    hold_down_ms: int  # u32
    speaker: str
    new_routes: tuple[Route, ...]
    withdrawn: tuple[str, ...]  # prefixes
    # Routes and withdrawals that were read but can't be used. Never written.
    skipped: int = field(default=0, compare=False)


# --- encoding --------------------------------------------------------------------------------------------------------


def encode_control(control: RouteControl, expires_at: int) -> bytes:
    """The Prepare that carries a control; ValueError if a field is out of its range."""
    if control.mode not in (IDLE, SYNC):
        raise ValueError(f"a mode is {IDLE} or {SYNC}, not {control.mode}")
    _check_size("a routing table id", control.last_known_routing_table_id, ROUTING_TABLE_ID_BYTES)
    _check_u32("an epoch", control.last_known_epoch)
    features = [feature.encode("utf-8") for feature in control.features]
    if len(features) > FEATURES_MAX or any(len(feature) > FEATURE_BYTES_MAX for feature in features):
        raise ValueError(f"at most {FEATURES_MAX} features of {FEATURE_BYTES_MAX} bytes")
    head = _CONTROL_HEAD.pack(control.mode, control.last_known_routing_table_id, control.last_known_epoch)
    data = head + encode_var_uint(len(features)) + b"".join([encode_var_octets(feature) for feature in features])
    return encode_prepare(Prepare(0, expires_at, PEER_CONDITION, CONTROL_DESTINATION, data))


def encode_update(update: RouteUpdate, expires_at: int) -> bytes:
    """The Prepare that carries an update; ValueError if a field is out of its range, or the whole too large."""
    _check_size("a routing table id", update.routing_table_id, ROUTING_TABLE_ID_BYTES)
    for epoch in (update.current_epoch, update.from_epoch, update.to_epoch):
        _check_u32("an epoch", epoch)
    _check_u32("a hold-down", update.hold_down_ms)
    if not is_valid(update.speaker):
        raise ValueError(f"not an ILP address: {update.speaker[:80]!r}")
    if len(update.withdrawn) > WITHDRAWN_MAX:
        raise ValueError(f"at most {WITHDRAWN_MAX} prefixes are withdrawn at once, not {len(update.withdrawn)}")
    head = _UPDATE_HEAD.pack(
        update.routing_table_id, update.current_epoch, update.from_epoch, update.to_epoch, update.hold_down_ms
    )
    parts = [head, encode_var_octets(update.speaker.encode("ascii")), encode_var_uint(len(update.new_routes))]
    parts += [_encode_route(route) for route in update.new_routes]
    parts.append(encode_var_uint(len(update.withdrawn)))
    parts += [_encode_prefix(prefix) for prefix in update.withdrawn]
    return encode_prepare(Prepare(0, expires_at, PEER_CONDITION, UPDATE_DESTINATION, b"".join(parts)))


def encode_response() -> bytes:
    """The Fulfill that answers a control or an update (CCP-1)."""
    return encode_fulfill(Fulfill(PEER_FULFILLMENT, b""))


def route_bytes(route: Route) -> int:
    """How many bytes the route takes in an update. Above `ROUTE_BYTES_MAX` it can't be encoded."""
    size = _var_bytes(len(route.prefix)) + _count_bytes(len(route.path)) + AUTH_BYTES + _count_bytes(len(route.props))
    for hop in route.path:
        size += _var_bytes(len(hop))
    for prop in route.props:
        size += _PROP_HEAD.size + _var_bytes(len(prop.value))
    return size


def withdrawn_bytes(prefix: str) -> int:
    """How many bytes a withdrawn prefix takes in an update."""
    return _var_bytes(len(prefix))


def update_overhead_bytes(speaker: str) -> int:
    """How many bytes an update of this speaker takes besides its routes and withdrawn prefixes, at most."""
    return _UPDATE_HEAD.size + _var_bytes(len(speaker)) + _count_bytes(ROUTES_MAX) + _count_bytes(WITHDRAWN_MAX)


def _encode_route(route: Route) -> bytes:
    _check_size("an auth", route.auth, AUTH_BYTES)
    if len(route.path) > PATH_MAX or len(route.props) > PROPS_MAX:
        raise ValueError(f"a route has at most {PATH_MAX} hops and {PROPS_MAX} props: {route.prefix[:80]!r}")
    parts = [_encode_prefix(route.prefix), encode_var_uint(len(route.path))]
    parts += [_encode_hop(hop) for hop in route.path]
    parts += [route.auth, encode_var_uint(len(route.props))]
    parts += [_encode_prop(prop) for prop in route.props]
    octets = b"".join(parts)
    if len(octets) > ROUTE_BYTES_MAX:
        raise ValueError(f"a route has at most {ROUTE_BYTES_MAX} bytes, not {len(octets)}: {route.prefix[:80]!r}")
    return octets


@lru_cache(maxsize=_NAMES_MAX)
def _encode_hop(hop: str) -> bytes:
    if not is_valid(hop):
        raise ValueError(f"not an ILP address: {hop[:80]!r}")
    return encode_var_octets(hop.encode("ascii"))


@lru_cache(maxsize=_NAMES_MAX)
def _encode_prefix(prefix: str) -> bytes:
    if not is_valid_prefix(prefix):
        raise ValueError(f"not a prefix of ILP addresses: {prefix[:80]!r}")
    return encode_var_octets(prefix.encode("ascii"))


def _encode_prop(prop: RouteProp) -> bytes:
    if not 0 <= prop.id <= PROP_ID_MAX or len(prop.value) > PROP_BYTES_MAX:
        raise ValueError(f"a prop has an id of 16 bits and at most {PROP_BYTES_MAX} bytes: {prop.id}")
    if not prop.is_optional and not prop.is_transitive:
        raise ValueError(f"prop {prop.id}: what isn't optional is transitive")
    if prop.is_partial and not (prop.is_optional and prop.is_transitive):
        raise ValueError(f"prop {prop.id}: only what is optional and transitive can be partial")
    meta = _OPTIONAL if prop.is_optional else 0
    meta |= _TRANSITIVE if prop.is_transitive else 0
    meta |= _PARTIAL if prop.is_partial else 0
    meta |= _UTF8 if prop.is_utf8 else 0
    return _PROP_HEAD.pack(meta, prop.id) + encode_var_octets(prop.value)


def _check_size(what: str, octets: bytes, size: int) -> None:
    if len(octets) != size:
        raise ValueError(f"{what} has {size} bytes, not {len(octets)}")


def _check_u32(what: str, n: int) -> None:
    if not 0 <= n <= U32_MAX:
        raise ValueError(f"{what} is 0 to 2^32-1, not {n}")


def _var_bytes(size: int) -> int:
    """The bytes of a length-prefixed octet string; nothing here is longer than 65535."""
    return size + (1 if size < 0x80 else 2 if size < 0x100 else 3)


def _count_bytes(count: int) -> int:
    return 2 if count < 0x100 else 3


# --- decoding --------------------------------------------------------------------------------------------------------


def decode_control(data: bytes) -> RouteControl:
    """Read the data of a control's Prepare; CodecError if it is none."""
    mode, at = read_uint(data, 0, 1, "mode")
    if mode not in (IDLE, SYNC):
        raise CodecError("mode", 0, f"{mode}, neither {IDLE} nor {SYNC}")  # CCP-6
    table_id, at = read_octets(data, at, ROUTING_TABLE_ID_BYTES, "lastKnownRoutingTableId")
    epoch, at = read_uint(data, at, 4, "lastKnownEpoch")
    count_at = at
    count, at = _read_count(data, at, "features", 1)
    if count > FEATURES_MAX:
        raise CodecError("features", count_at, f"{count} features, more than {FEATURES_MAX}")
    features: list[str] = []
    for _ in range(count):
        start = at
        octets, at = read_var_octets_max(data, start, "features", FEATURE_BYTES_MAX)
        try:
            features.append(octets.decode("utf-8"))
        except UnicodeDecodeError:
            raise CodecError("features", start, "not UTF-8") from None
    return RouteControl(mode, table_id, epoch, tuple(features))


def decode_update(data: bytes) -> RouteUpdate:
    """Read the data of an update's Prepare; CodecError if it is none. Routes that can't be used are skipped."""
    if len(data) > UPDATE_BYTES_MAX:
        raise CodecError("update", 0, f"{len(data)} bytes, more than {UPDATE_BYTES_MAX}")
    if len(data) < _UPDATE_HEAD.size:
        raise CodecError("update", len(data), "the bytes end inside its head")
    table_id, current, first, end, hold_down_ms = _UPDATE_HEAD.unpack_from(data)
    octets, at = read_var_octets(data, _UPDATE_HEAD.size, "speaker")
    speaker = parse_address(octets, "speaker", _UPDATE_HEAD.size)
    count, at = _read_count(data, at, "newRoutes", ROUTE_BYTES_MIN)
    routes: list[Route] = []
    withdrawn: list[str] = []
    skipped = 0
    for _ in range(count):
        prefix, route, at = _read_route(data, at)
        if route is not None:
            routes.append(route)
            continue
        skipped += 1
        if prefix is not None:
            withdrawn.append(prefix)
    withdrawn_at = at
    count, at = _read_count(data, at, "withdrawnRoutes", 1)
    if count + len(withdrawn) > WITHDRAWN_MAX:
        raise CodecError("withdrawnRoutes", withdrawn_at, f"more than {WITHDRAWN_MAX} prefixes are withdrawn")
    for _ in range(count):
        prefix, at = _read_prefix(data, at, "withdrawnRoutes")
        if prefix is None:
            skipped += 1
        else:
            withdrawn.append(prefix)
    return RouteUpdate(
        table_id, current, first, end, hold_down_ms, speaker, tuple(routes), tuple(withdrawn), skipped=skipped
    )


def _read_route(data: bytes, start: int) -> tuple[str | None, Route | None, int]:
    """The prefix if it is one, the route if it can be used, and the offset after it."""
    prefix, at = _read_prefix(data, start, "prefix")
    path, at = _read_path(data, at)
    auth, at = read_octets(data, at, AUTH_BYTES, "auth")
    props, at = _read_props(data, at)
    if prefix is None or path is None or props is None or at - start > ROUTE_BYTES_MAX:
        return prefix, None, at
    return prefix, Route(prefix, path, auth, props), at


def _read_prefix(data: bytes, at: int, field_name: str) -> tuple[str | None, int]:
    octets, at = read_var_octets(data, at, field_name)
    return _prefix(octets), at


# The same few hops stand in the paths of most routes, and a prefix comes from each neighbour: one string for all, and
# one look at it.


@lru_cache(maxsize=_NAMES_MAX)
def _prefix(octets: bytes) -> str | None:
    # Latin-1 never fails, and valid is ASCII only.
    prefix = octets.decode("latin-1")
    return prefix if is_valid_prefix(prefix) else None


@lru_cache(maxsize=_NAMES_MAX)
def _hop(octets: bytes) -> str | None:
    hop = octets.decode("latin-1")
    return hop if is_valid(hop) else None


def _read_path(data: bytes, at: int) -> tuple[tuple[str, ...] | None, int]:
    """None if there are too many hops, or one is no address. What isn't kept is read all the same, for its end."""
    count, at = _read_count(data, at, "path", 1)
    is_usable = count <= PATH_MAX
    hops: list[str] = []
    for _ in range(count):
        octets, at = read_var_octets(data, at, "path")
        if is_usable:
            hop = _hop(octets)
            if hop is None:
                is_usable = False
            else:
                hops.append(hop)
    return (tuple(hops) if is_usable else None), at


def _read_props(data: bytes, at: int) -> tuple[tuple[RouteProp, ...] | None, int]:
    """None if there are too many, or one is too long."""
    count, at = _read_count(data, at, "props", _PROP_BYTES_MIN)
    is_usable = count <= PROPS_MAX
    props: list[RouteProp] = []
    for _ in range(count):
        meta, at = read_uint(data, at, 1, "props")
        prop_id, at = read_uint(data, at, 2, "props")
        value, at = read_var_octets(data, at, "props")
        is_usable = is_usable and len(value) <= PROP_BYTES_MAX
        if is_usable:
            props.append(_prop(meta, prop_id, value))
    return (tuple(props) if is_usable else None), at


@lru_cache(maxsize=_NAMES_MAX)
def _prop(meta: int, prop_id: int, value: bytes) -> RouteProp:
    """A prop with flags that fit each other, as JS and Java write them (CCP-5); the low four bits mean nothing."""
    is_optional = meta & _OPTIONAL != 0
    is_transitive = not is_optional or meta & _TRANSITIVE != 0
    is_partial = is_optional and is_transitive and meta & _PARTIAL != 0
    return RouteProp(prop_id, value, is_optional, is_transitive, is_partial, meta & _UTF8 != 0)


def _read_count(data: bytes, start: int, field_name: str, size_min: int) -> tuple[int, int]:
    """A count of things that take `size_min` bytes each at least: no more than there can be in the bytes left."""
    count, at = read_var_uint(data, start, field_name)
    # By the bytes it took first: a VarUInt can be as long as the data, and then too long to be printed.
    if at - start > 1 + _COUNT_BYTES_MAX or count * size_min > len(data) - at:
        raise CodecError(field_name, start, f"more are announced than the {len(data) - at} bytes left can hold")
    return count, at
