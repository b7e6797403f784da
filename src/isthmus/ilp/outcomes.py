"""Outcomes between two isthmus neighbours: `peer.isthmus.outcomes`, version 1 (docs/outcomes.md).

The side that sent Prepares reports, session by session, what it has decided for good, and asks what became of Prepares
without an answer. The other side takes the report, and gives the fulfillments that it has. Both travel as any `peer.*`
request does (a Prepare of amount 0 and its Fulfill), so one format serves every kind of link, and a peer that doesn't
know it answers with a Reject, as it does to any `peer.*` address that it doesn't know.

    report   version u8, session 16, watermark u32, count u16 and request ids u32 (voided), the same again (asked),
             count u16 and pairs of request ids u32 (ranges above the watermark)
    answer   version u8, count u16 and pairs of request id u32 and fulfillment 32

Ids ascend. Bytes after the last field are ignored, so that a later version 1 may add fields.
"""

import struct
from dataclasses import dataclass
from itertools import pairwise
from struct import Struct
from typing import Final, final

from isthmus.errors import CodecError
from isthmus.ilp.ildcp import PEER_CONDITION, PEER_FULFILLMENT
from isthmus.ilp.packet import FULFILLMENT_BYTES, Fulfill, Prepare, encode_fulfill, encode_prepare

OUTCOMES_DESTINATION: Final = "peer.isthmus.outcomes"
OUTCOMES_VERSION: Final = 1

SESSION_BYTES: Final = 16
# All lists of a report, and the answer to all that it asks, fit into a packet's data.
VOIDED_MAX: Final = 4_000
ASKED_MAX: Final = 900
RANGES_MAX: Final = 1_000

_HEAD: Final = Struct(">B16sI")
_COUNT: Final = Struct(">H")
_ID_BYTES: Final = 4
_RANGE: Final = Struct(">II")
_ANSWER_HEAD: Final = Struct(">BH")
_ANSWERED: Final = Struct(">I32s")


@final
@dataclass(slots=True, frozen=True)
class OutcomesReport:
    """What the sender of Prepares has decided in one of its sessions, and what it wants to know.

    Every request id up to `watermark` has an outcome that will survive a crash: those in `voided` are void although
    the receiver didn't reject them, all others that the receiver fulfilled are posted. Above the watermark, beyond the
    oldest one that is open, the same holds for `ranges` (first and last id of each), in which none is void.
    """

    session: bytes  # 16 bytes, the sender's
    watermark: int  # u32; 0 for none
    voided: list[int]  # ascending, none above the watermark, `VOIDED_MAX` at most
    asked: list[int]  # ascending, all above the watermark, `ASKED_MAX` at most
    ranges: list[tuple[int, int]]  # ascending, apart, all above the watermark, `RANGES_MAX` at most


def encode_report(report: OutcomesReport, expires_at: int) -> bytes:
    """The Prepare that carries a report."""
    assert len(report.session) == SESSION_BYTES
    assert len(report.voided) <= VOIDED_MAX and len(report.asked) <= ASKED_MAX and len(report.ranges) <= RANGES_MAX
    parts = [_HEAD.pack(OUTCOMES_VERSION, report.session, report.watermark)]
    for ids in (report.voided, report.asked):
        parts.append(struct.pack(f">H{len(ids)}I", len(ids), *ids))
    parts.append(_COUNT.pack(len(report.ranges)))
    parts += [_RANGE.pack(first, last) for first, last in report.ranges]
    return encode_prepare(Prepare(0, expires_at, PEER_CONDITION, OUTCOMES_DESTINATION, b"".join(parts)))


def decode_report(data: bytes) -> OutcomesReport:
    """Read the data of a report's Prepare; CodecError if it is none, or one of another version."""
    if len(data) < _HEAD.size:
        raise CodecError("report", len(data), "the bytes end inside its head")
    version, session, watermark = _HEAD.unpack_from(data)
    _check_version(version)
    voided, at = _read_ids(data, _HEAD.size, "voided", VOIDED_MAX)
    asked_at = at
    asked, at = _read_ids(data, at, "asked", ASKED_MAX)
    if voided and voided[-1] > watermark:
        raise CodecError("voided", _HEAD.size, f"request {voided[-1]} is above the watermark {watermark}")
    if asked and asked[0] <= watermark:
        raise CodecError("asked", asked_at, f"request {asked[0]} is not above the watermark {watermark}")
    return OutcomesReport(session, watermark, voided, asked, _read_ranges(data, at, watermark))


def encode_answer(fulfillments: list[tuple[int, bytes]]) -> bytes:
    """The Fulfill that answers a report: of the requests that it asks about those that were fulfilled."""
    assert len(fulfillments) <= ASKED_MAX
    parts = [_ANSWER_HEAD.pack(OUTCOMES_VERSION, len(fulfillments))]
    parts += [_ANSWERED.pack(request_id, fulfillment) for request_id, fulfillment in fulfillments]
    return encode_fulfill(Fulfill(PEER_FULFILLMENT, b"".join(parts)))


def decode_answer(data: bytes) -> list[tuple[int, bytes]]:
    """Read the data of an answer's Fulfill; CodecError if it is none."""
    if len(data) < _ANSWER_HEAD.size:
        raise CodecError("answer", len(data), "the bytes end inside its head")
    version, count = _ANSWER_HEAD.unpack_from(data)
    _check_version(version)
    if count > ASKED_MAX:
        raise CodecError("answer", 1, f"{count} fulfillments, more than {ASKED_MAX}")
    end = _ANSWER_HEAD.size + count * _ANSWERED.size
    if end > len(data):
        raise CodecError("answer", len(data), f"the bytes end before its {count} fulfillments")
    found: list[tuple[int, bytes]] = []
    for at in range(_ANSWER_HEAD.size, end, _ANSWERED.size):
        request_id, fulfillment = _ANSWERED.unpack_from(data, at)
        assert len(fulfillment) == FULFILLMENT_BYTES
        found.append((request_id, fulfillment))
    return found


def _check_version(version: int) -> None:
    if version != OUTCOMES_VERSION:
        raise CodecError("version", 0, f"{version}; version {OUTCOMES_VERSION} is spoken here")


def _read_ids(data: bytes, at: int, field: str, count_max: int) -> tuple[list[int], int]:
    if at + _COUNT.size > len(data):
        raise CodecError(field, at, "the bytes end before their number")
    (count,) = _COUNT.unpack_from(data, at)
    at += _COUNT.size
    if count > count_max:
        raise CodecError(field, at, f"{count} request ids, more than {count_max}")
    end = at + count * _ID_BYTES
    if end > len(data):
        raise CodecError(field, at, f"the bytes end before the {count} request ids")
    ids: list[int] = list(struct.unpack_from(f">{count}I", data, at))
    for before, after in pairwise(ids):
        if after <= before:
            raise CodecError(field, at, f"request {after} after {before}: they must ascend")
    return ids, end


def _read_ranges(data: bytes, at: int, watermark: int) -> list[tuple[int, int]]:
    if at + _COUNT.size > len(data):
        raise CodecError("ranges", at, "the bytes end before their number")
    (count,) = _COUNT.unpack_from(data, at)
    at += _COUNT.size
    if count > RANGES_MAX:
        raise CodecError("ranges", at, f"{count} ranges, more than {RANGES_MAX}")
    if at + count * _RANGE.size > len(data):
        raise CodecError("ranges", len(data), f"the bytes end before the {count} ranges")
    ids = struct.unpack_from(f">{2 * count}I", data, at)
    ranges: list[tuple[int, int]] = list(zip(ids[::2], ids[1::2], strict=True))
    before = watermark
    for first, last in ranges:
        if first <= before or last < first:
            raise CodecError("ranges", at, f"{first} to {last} after {before}: they must ascend, above the watermark")
        before = last
    return ranges
