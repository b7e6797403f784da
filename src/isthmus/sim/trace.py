"""Events and effects as lines, the same on every Python: the trace of a run, and its timeline for people."""

from hashlib import sha256
from typing import Final

from isthmus.connector.events import (
    Append,
    CloseLink,
    Durable,
    Effect,
    Event,
    Halt,
    Inbound,
    LinkDown,
    Log,
    Note,
    Noted,
    Outbound,
    Release,
    Undelivered,
)
from isthmus.connector.tables import TablesChanged

_TYPES: Final = {12: "prepare", 13: "fulfill", 14: "reject"}


def line_of(what: Event | TablesChanged | Effect) -> str:
    """What happened, with enough of each packet to tell two runs apart."""
    name = type(what).__name__
    if isinstance(what, Inbound):
        return f"{name} {what.account} {_packet(what.session, what.request_id, what.packet)} at {what.read_at}"
    if isinstance(what, Release):
        return f"{name} {what.account} {', '.join(_frame(frame) for frame in what.frames)}"
    if isinstance(what, Append):
        return f"{name} {what.sequence} {len(what.record)} bytes {_short(what.record)}"
    if isinstance(what, Durable):
        return f"{name} {what.sequence}"
    if isinstance(what, Note):
        return f"{name} {what.token} {_short(what.data)}"
    if isinstance(what, Noted):
        return f"{name} {what.token}"
    if isinstance(what, Undelivered):
        return f"{name} {what.account} {what.request_id} {what.code} {what.message}"
    if isinstance(what, TablesChanged):
        return f"{name} {_short(what.tables.encode())}"
    if isinstance(what, Log):
        fields = " ".join(f"{key}={value}" for key, value in what.fields.items())
        return f"{name} {what.level} {what.event} {fields}"
    if isinstance(what, LinkDown | CloseLink):
        return f"{name} {what.account} {what.why}"
    if isinstance(what, Halt):
        return f"{name} {what.problem}"
    return f"{name} {getattr(what, 'account', '')}".rstrip()


def _frame(frame: Outbound) -> str:
    return _packet(frame.session, frame.request_id, frame.packet)


def _packet(session: bytes, request_id: int, packet: bytes) -> str:
    kind = _TYPES.get(packet[0], "?") if packet else "empty"
    return f"{kind} {session.hex()[:8]}/{request_id} {_short(packet)}"


def _short(data: bytes) -> str:
    return sha256(data).hexdigest()[:12]
