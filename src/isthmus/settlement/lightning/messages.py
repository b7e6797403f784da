"""What two Lightning engines ask each other, and what each keeps: small JSON objects, checked field by field.

    {"v": 1, "ask": "invoice", "key": HEX16, "attempt": 0, "msat": "1000"}    → {"invoice": "lnbc…"}
    {"v": 1, "ask": "keysend"}                                                → {"node": HEX33, "tag": HEX16}

Amounts are strings of digits. A refusal is a Reject of the message.
"""

import json
import re
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, final

from isthmus.errors import CodecError

VERSION: Final = 1
MESSAGE_BYTES_MAX: Final = 8_192
INVOICE_CHARS_MAX: Final = 4_096
MSAT_SCALE: Final = 11  # of a bitcoin
MSAT_MAX: Final = 21_000_000 * 10**MSAT_SCALE
ATTEMPTS_MAX: Final = 2**31 - 1

_HEX: Final = re.compile(r"[0-9a-f]*", re.ASCII)
_DIGITS: Final = re.compile(r"[1-9][0-9]{0,18}", re.ASCII)
_INVOICE: Final = re.compile(rf"ln[a-z0-9]{{20,{INVOICE_CHARS_MAX}}}", re.ASCII)


@final
@dataclass(slots=True, frozen=True)
class InvoiceAsked:
    """Make an invoice for this settlement of ours; the same again gets the same invoice."""

    key: bytes  # 16 bytes: the settlement's
    attempt: int  # another one, after the invoice before has expired unpaid
    msat: int


@final
@dataclass(slots=True, frozen=True)
class KeysendAsked:
    """Say where we may send without an invoice, and what is to come along."""


Question: TypeAlias = InvoiceAsked | KeysendAsked


def encode_question(question: Question) -> bytes:
    if isinstance(question, KeysendAsked):
        return _encode({"v": VERSION, "ask": "keysend"})
    fields = {"key": question.key.hex(), "attempt": question.attempt, "msat": str(question.msat)}
    return _encode({"v": VERSION, "ask": "invoice", **fields})


def decode_question(data: bytes) -> Question:
    """CodecError for whatever a peer may send instead."""
    found = _object(data)
    if found.get("v") != VERSION:
        raise CodecError("v", 0, "a version that isn't known here")
    ask = found.get("ask")
    if ask == "keysend":
        return KeysendAsked()
    if ask != "invoice":
        raise CodecError("ask", 0, "neither invoice nor keysend")
    attempt = found.get("attempt")
    if type(attempt) is not int or not 0 <= attempt <= ATTEMPTS_MAX:
        raise CodecError("attempt", 0, "not a small number")
    msat = found.get("msat")
    if not isinstance(msat, str) or _DIGITS.fullmatch(msat) is None or int(msat) > MSAT_MAX:
        raise CodecError("msat", 0, "not an amount above zero, and below all bitcoin")
    return InvoiceAsked(_hex(found, "key", 16), attempt, int(msat))


def encode_invoice(request: str) -> bytes:
    return _encode({"invoice": request})


def decode_invoice(data: bytes) -> str:
    request = _object(data).get("invoice")
    if not isinstance(request, str) or _INVOICE.fullmatch(request) is None:
        raise CodecError("invoice", 0, "not one")
    return request


def encode_keysend(node: str, tag: bytes) -> bytes:
    return _encode({"node": node, "tag": tag.hex()})


def decode_keysend(data: bytes) -> tuple[str, bytes]:
    """The node's public key in hex, and the tag (16 bytes)."""
    found = _object(data)
    return _hex(found, "node", 33).hex(), _hex(found, "tag", 16)


@final
@dataclass(slots=True, frozen=True)
class Outgoing:
    """A settlement of ours on its way, as it is kept before lnd hears of it."""

    payment_hash: bytes  # 32 bytes
    msat: int
    fee_msat_max: int
    attempt: int = 0
    request: str = ""  # BOLT 11; empty for a keysend
    payee: str = ""  # of a keysend: the node
    tag: bytes = b""  # of a keysend: what it is known by there
    preimage: bytes = b""  # of a keysend
    expires_at_s: int = 0  # of the invoice, seconds since 1970

    def encode(self) -> bytes:
        fields = {
            "hash": self.payment_hash.hex(),
            "msat": str(self.msat),
            "fee": str(self.fee_msat_max),
            "attempt": self.attempt,
            "request": self.request,
            "payee": self.payee,
            "tag": self.tag.hex(),
            "preimage": self.preimage.hex(),
            "expires": self.expires_at_s,
        }
        return _encode({name: value for name, value in fields.items() if value not in ("", 0)})


def decode_outgoing(data: bytes) -> Outgoing:
    """What `Outgoing.encode` wrote: our own journal's."""
    found = _object(data)
    return Outgoing(
        _hex(found, "hash", 32),
        int(found["msat"]),
        int(found.get("fee", "0")),
        int(found.get("attempt", 0)),
        found.get("request", ""),
        found.get("payee", ""),
        bytes.fromhex(found.get("tag", "")),
        bytes.fromhex(found.get("preimage", "")),
        int(found.get("expires", 0)),
    )


def msat_of(amount: int, scale: int) -> int | None:
    """Millisatoshi of an amount of an account in BTC; None if it has a fraction of one."""
    if scale <= MSAT_SCALE:
        msat: int = amount * 10 ** (MSAT_SCALE - scale)
        return msat
    msat, rest = divmod(amount, 10 ** (scale - MSAT_SCALE))
    return None if rest else msat


def _encode(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields, separators=(",", ":")).encode()


def _object(data: bytes) -> dict[str, Any]:
    if len(data) > MESSAGE_BYTES_MAX:
        raise CodecError("message", 0, f"longer than {MESSAGE_BYTES_MAX} bytes")
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        raise CodecError("message", 0, "not JSON") from None
    if not isinstance(found, dict):
        raise CodecError("message", 0, "not a JSON object")
    return found


def _hex(found: dict[str, Any], name: str, size: int) -> bytes:
    value = found.get(name)
    if not isinstance(value, str) or len(value) != 2 * size or _HEX.fullmatch(value) is None:
        raise CodecError(name, 0, f"not {size} bytes in hex")
    return bytes.fromhex(value)
