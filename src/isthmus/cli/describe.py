"""Packets as plain values, for `isthmus decode`: nested dicts and lists of strings, numbers and booleans.

The same values are printed as JSON and drawn as a tree. Amounts and other 64-bit numbers are strings (P-1), bytes
are hex, times are ISO 8601. What can't be read inside a packet that can is a "problem" beside its bytes.
"""

from dataclasses import fields
from datetime import UTC, datetime, timedelta
from typing import Final, TypeAlias

from isthmus.errors import CodecError
from isthmus.ilp import ccp
from isthmus.ilp.codes import code_name
from isthmus.ilp.ildcp import PEER_CONDITION, PEER_FULFILLMENT, decode_response
from isthmus.ilp.packet import (
    FULFILL,
    PREPARE,
    REJECT,
    Fulfill,
    Packet,
    Prepare,
    Reject,
    decode_amount_too_large,
)
from isthmus.ilp.packet import decode as decode_ilp
from isthmus.links.btp import codec as btp
from isthmus.stream import packet as stream
from isthmus.stream.crypto import Keys
from isthmus.stream.receipt import decode_receipt

Value: TypeAlias = "str | int | bool | dict[str, Value] | list[Value]"
Described: TypeAlias = dict[str, Value]

ILP_TYPES: Final = {PREPARE: "prepare", FULFILL: "fulfill", REJECT: "reject"}
BTP_TYPES: Final = {btp.RESPONSE: "response", btp.ERROR: "error", btp.MESSAGE: "message", btp.TRANSFER: "transfer"}
CONTENT_TYPES: Final = {btp.OCTET_STREAM: "octet-stream", btp.TEXT_PLAIN: "text", btp.JSON: "json"}

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def describe(data: bytes, keys: Keys | None) -> Described:
    """Find out what the bytes are, and describe them; CodecError of the likeliest reading if they are nothing.

    An envelope that opens with the secret can be nothing else, so it is tried first. Otherwise the first byte tells:
    ILP has 12 to 14, BTP 1, 2, 6, 7, and a STREAM packet that was already decrypted 1, which no BTP frame of the
    right length shares.
    """
    if keys is not None:
        try:
            return {"protocol": "stream", "encrypted": True, **_describe_stream_packet(keys.decrypt(data))}
        except CodecError as error:
            # What opened and is no STREAM packet is a finding; what didn't open may be another thing.
            if error.field != "envelope":
                raise
    first = data[0] if data else -1
    if first in ILP_TYPES:
        return describe_ilp(decode_ilp(data), keys)
    if first in BTP_TYPES:
        try:
            return describe_btp(btp.decode(data), keys)
        except CodecError:
            if first != stream.VERSION:
                raise
            try:
                return {"protocol": "stream", "encrypted": False, **_describe_stream_packet(data)}
            except CodecError:
                pass
            raise
    if first < 0:
        raise CodecError("packet", 0, "no bytes")
    if keys is not None:
        raise CodecError("packet", 0, "not an ILP, BTP or STREAM packet, or not encrypted with this secret")
    raise CodecError("packet", 0, f"an ILP, BTP or STREAM packet does not begin with {first}; is it encrypted?")


# --- ILP -------------------------------------------------------------------------------------------------------------


def describe_ilp(packet: Packet, keys: Keys | None) -> Described:
    """Describe an ILP packet and what its data is, as far as that can be known."""
    if isinstance(packet, Prepare):
        described: Described = {
            "protocol": "ilp",
            "type": "prepare",
            "amount": str(packet.amount),
            "expires_at": iso(packet.expires_at),
            "condition": packet.condition.hex(),
            "destination": packet.destination,
            "data": packet.data.hex(),
        }
        if packet.condition == PEER_CONDITION:
            described["note"] = "the condition of requests to peer.*"
            _add_ccp(described, packet)
        elif keys is not None:
            described["fulfillable"] = keys.condition(packet.data) == packet.condition
        _add_stream(described, packet.data, keys, PREPARE)
        return described
    if isinstance(packet, Fulfill):
        described = {
            "protocol": "ilp",
            "type": "fulfill",
            "fulfillment": packet.fulfillment.hex(),
            "data": packet.data.hex(),
        }
        if packet.fulfillment == PEER_FULFILLMENT:
            _add_ildcp(described, packet.data)
        else:
            _add_stream(described, packet.data, keys, FULFILL)
        return described
    return _describe_reject(packet, keys)


def _describe_reject(reject: Reject, keys: Keys | None) -> Described:
    described: Described = {
        "protocol": "ilp",
        "type": "reject",
        "code": reject.code,
        "name": code_name(reject.code),
        "triggered_by": reject.triggered_by,
        "message": reject.message,
        "data": reject.data.hex(),
    }
    amounts = decode_amount_too_large(reject.data) if reject.code == "F08" else None
    if amounts is not None:
        described["amount_too_large"] = {"received": str(amounts[0]), "maximum": str(amounts[1])}
    else:
        _add_stream(described, reject.data, keys, REJECT)
    return described


def _add_ildcp(described: Described, data: bytes) -> None:
    """A fulfillment of zeros answers any request to `peer.*`; only ILDCP's answers have data."""
    if not data:
        described["note"] = "the answer to a request to peer.*"
        return
    try:
        response = decode_response(data)
    except CodecError:
        return
    described["ildcp"] = {
        "address": response.address,
        "asset_scale": response.asset_scale,
        "asset_code": response.asset_code,
    }


def _add_ccp(described: Described, prepare: Prepare) -> None:
    try:
        if prepare.destination == ccp.CONTROL_DESTINATION:
            described["ccp"] = _describe_control(ccp.decode_control(prepare.data))
        elif prepare.destination == ccp.UPDATE_DESTINATION:
            described["ccp"] = _describe_update(ccp.decode_update(prepare.data))
    except CodecError as error:
        described["ccp"] = {"problem": str(error)}


def _describe_control(control: ccp.RouteControl) -> Described:
    features: list[Value] = [{"name": feature} for feature in control.features]
    return {
        "protocol": "ccp",
        "type": "control",
        "mode": "sync" if control.mode == ccp.SYNC else "idle",
        "last_known_routing_table_id": control.last_known_routing_table_id.hex(),
        "last_known_epoch": control.last_known_epoch,
        "features": features,
    }


def _describe_update(update: ccp.RouteUpdate) -> Described:
    new_routes: list[Value] = [_describe_route(route) for route in update.new_routes]
    withdrawn: list[Value] = [{"name": prefix} for prefix in update.withdrawn]
    described: Described = {
        "protocol": "ccp",
        "type": "update",
        "routing_table_id": update.routing_table_id.hex(),
        "current_epoch": update.current_epoch,
        "from_epoch": update.from_epoch,
        "to_epoch": update.to_epoch,
        "hold_down_ms": update.hold_down_ms,
        "speaker": update.speaker,
        "new_routes": new_routes,
        "withdrawn": withdrawn,
    }
    if update.skipped:
        described["problem"] = f"{update.skipped} of the routes or withdrawals can't be used"
    return described


def _describe_route(route: ccp.Route) -> Described:
    props: list[Value] = [
        {
            "name": str(prop.id),
            "optional": prop.is_optional,
            "transitive": prop.is_transitive,
            "partial": prop.is_partial,
            **({"text": prop.value.decode("utf-8", "replace")} if prop.is_utf8 else {"data": prop.value.hex()}),
        }
        for prop in route.props
    ]
    return {"name": route.prefix, "path": " ".join(route.path), "auth": route.auth.hex(), "props": props}


# --- STREAM ----------------------------------------------------------------------------------------------------------


def _add_stream(described: Described, data: bytes, keys: Keys | None, ilp_type: int) -> None:
    if keys is None or not data:
        return
    try:
        packet = stream.decode_packet(keys.decrypt(data))
    except CodecError as error:
        described["stream"] = {"problem": str(error)}
        return
    inner = describe_stream(packet)
    if packet.ilp_type != ilp_type:
        inner["problem"] = f"made for an ILP packet of type {packet.ilp_type}, carried by one of type {ilp_type}"
    described["stream"] = inner


def _describe_stream_packet(plaintext: bytes) -> Described:
    packet = stream.decode_packet(plaintext)
    if packet.ilp_type not in ILP_TYPES:
        raise CodecError("ilpPacketType", 1, f"{packet.ilp_type} is no ILP packet type")
    return describe_stream(packet)


def describe_stream(packet: stream.StreamPacket) -> Described:
    """Describe a decrypted STREAM packet."""
    frames: list[Value] = [_describe_frame(frame) for frame in packet.frames]
    return {
        "ilp_type": ILP_TYPES.get(packet.ilp_type, str(packet.ilp_type)),
        "sequence": str(packet.sequence),
        "prepare_amount": str(packet.prepare_amount),
        "frames": frames,
    }


def _describe_frame(frame: stream.Frame) -> Described:
    described: Described = {"type": type(frame).__name__}
    for entry in fields(frame):
        value = getattr(frame, entry.name)
        if entry.name == "code" and isinstance(value, int):
            described["code"] = value
            described["name"] = stream.ERROR_NAMES.get(value, "unknown")
        elif entry.name == "scale":
            described["scale"] = value
        else:
            described[entry.name] = value.hex() if isinstance(value, bytes) else str(value)
    if isinstance(frame, stream.StreamReceipt):
        try:
            receipt = decode_receipt(frame.receipt)
        except CodecError as error:
            described["problem"] = str(error)
        else:
            described["claims"] = {
                "nonce": receipt.nonce.hex(),
                "stream_id": str(receipt.stream_id),
                "total_received": str(receipt.total_received),
            }
    return described


# --- BTP -------------------------------------------------------------------------------------------------------------


def describe_btp(packet: btp.BtpPacket, keys: Keys | None) -> Described:
    """Describe a BTP frame with the ILP packets in it."""
    described: Described = {"protocol": "btp", "type": _btp_type(packet), "request_id": packet.request_id}
    if isinstance(packet, btp.BtpTransfer):
        described["amount"] = str(packet.amount)
    if isinstance(packet, btp.BtpError):
        described["code"] = packet.code
        described["name"] = packet.name
        described["triggered_at"] = iso(packet.triggered_at)
        described["data"] = packet.data.decode("utf-8", "replace")
    entries: list[Value] = [_describe_entry(entry, keys) for entry in packet.protocol_data]
    described["protocol_data"] = entries
    return described


def _btp_type(packet: btp.BtpPacket) -> str:
    if isinstance(packet, btp.BtpMessage):
        return BTP_TYPES[btp.MESSAGE]
    if isinstance(packet, btp.BtpResponse):
        return BTP_TYPES[btp.RESPONSE]
    if isinstance(packet, btp.BtpTransfer):
        return BTP_TYPES[btp.TRANSFER]
    return BTP_TYPES[btp.ERROR]


def _describe_entry(entry: btp.ProtocolData, keys: Keys | None) -> Described:
    described: Described = {
        "name": entry.name,
        "content_type": CONTENT_TYPES.get(entry.content_type, str(entry.content_type)),
    }
    if entry.name == btp.ILP_NAME:
        try:
            described["ilp"] = describe_ilp(decode_ilp(entry.data), keys)
        except CodecError as error:
            described["data"] = entry.data.hex()
            described["problem"] = str(error)
    elif entry.content_type in (btp.TEXT_PLAIN, btp.JSON):
        described["text"] = entry.data.decode("utf-8", "replace")
    else:
        described["data"] = entry.data.hex()
    return described


def iso(wall_ms: int) -> str:
    """Milliseconds since 1970 as ISO 8601 in UTC."""
    at = _EPOCH + timedelta(milliseconds=wall_ms)
    return at.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"
