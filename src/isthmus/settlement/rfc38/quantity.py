"""Quantities, keys and account ids on the wire (RFC 0038, "Quantity object", "Idempotence", "Accounts")."""

import json
import re
from hashlib import sha256
from typing import Final

from isthmus.connector.settling import QUANTITY_MAX, QUANTITY_SCALE_MAX
from isthmus.errors import CodecError

# {"amount": 78 digits, "scale": 255}, with room for spaces and for keys that we don't know.
QUANTITY_BYTES_MAX: Final = 4_096
# What journals keep is this or, for longer keys, a hash of it.
KEY_CHARS_MAX: Final = 255
ACCOUNT_CHARS_MAX: Final = 128

_AMOUNT: Final = re.compile(r"[0-9]{1,78}", re.ASCII)
_KEY: Final = re.compile(rf"[!-~]{{1,{KEY_CHARS_MAX}}}", re.ASCII)
_ACCOUNT: Final = re.compile(rf"[A-Za-z0-9._~-]{{1,{ACCOUNT_CHARS_MAX}}}", re.ASCII)


def encode_quantity(amount: int, scale: int) -> bytes:
    """JSON, the amount as a string (SE-1)."""
    return json.dumps({"amount": str(amount), "scale": scale}, separators=(",", ":")).encode()


def decode_quantity(body: bytes) -> tuple[int, int]:
    """Amount and scale (SE-1); CodecError for anything else. Keys that we don't know are left alone."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        raise CodecError("quantity", 0, "no JSON") from None
    if not isinstance(found, dict):
        raise CodecError("quantity", 0, "no JSON object")
    amount, scale = found.get("amount"), found.get("scale")
    if not isinstance(amount, str) or _AMOUNT.fullmatch(amount) is None or int(amount) > QUANTITY_MAX:
        raise CodecError("amount", 0, f"a string of digits, up to 2^256 - 1, is needed: {amount!r:.100}")
    if type(scale) is not int or not 0 <= scale <= QUANTITY_SCALE_MAX:
        raise CodecError("scale", 0, f"an integer from 0 to {QUANTITY_SCALE_MAX} is needed: {scale!r:.100}")
    return int(amount), scale


def is_key(text: str) -> bool:
    """Whether an idempotency key can be one: printable ASCII without spaces."""
    return _KEY.fullmatch(text) is not None


def is_account(text: str) -> bool:
    """Whether a text can be an account's id: RFC 3986's unreserved characters (SE-6), and no path of its own."""
    return _ACCOUNT.fullmatch(text) is not None and text.strip(".") != ""


def kept_key(key: str) -> str:
    """How the key of a request is kept: what its input was is added after it, so that another input is noticed."""
    return sha256(key.encode()).hexdigest()[:40] + ":"


def input_mark(amount: int, scale: int) -> str:
    """The same for the same input, as it was sent: 100 at scale 2 is not 1 at scale 0."""
    return sha256(f"{amount} {scale}".encode()).hexdigest()[:24]
