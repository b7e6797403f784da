"""Sub-protocols of BTP with which plugins settle, as the data of `peer.settle` messages (RFC 0023, RFC 0038). Pure.

Plugins of the JavaScript reference speak with each other by entries of their own in BTP's Messages, and pay by BTP's
Transfers. Engines here speak by `peer.settle` on links of any kind. This is the form in which one is the other: a BTP
link writes it as a plugin would to a peer that isn't isthmus, and reads it back.
"""

import json
from dataclasses import dataclass
from typing import Final, final

from isthmus.errors import CodecError
from isthmus.ilp.packet import AMOUNT_MAX, DATA_BYTES_MAX

# Content types of BTP's entries.
OCTETS: Final = 0
TEXT: Final = 1
JSON: Final = 2
# Those that are carried, and nothing else: `ilp-plugin-xrp-paychan`'s, and what our engine has besides.
CLAIM: Final = "claim"
ADDRESS: Final = "xrp_address"
INFO: Final = "info"
CHANNEL: Final = "ripple_channel_id"
CLOSE: Final = "xrp_close"
_JSON: Final = json.JSONEncoder(separators=(",", ":"))  # `json.dumps` would make one each time
NAMES: Final = frozenset({CLAIM, ADDRESS, INFO, CHANNEL, CLOSE})


@final
@dataclass(slots=True, frozen=True)
class Entry:
    """One entry, alone in its Message or its answer. With an `amount` it is a Transfer's."""

    name: str
    content_type: int
    data: bytes
    amount: int | None = None


def encode(entry: Entry) -> bytes:
    """As JSON. Data that is no text is in hexadecimal. ValueError for text that isn't UTF-8."""
    data = entry.data.hex() if entry.content_type == OCTETS else entry.data.decode()
    fields: dict[str, object] = {"btp": entry.name, "contentType": entry.content_type, "data": data}
    if entry.amount is not None:
        fields["amount"] = str(entry.amount)
    return _JSON.encode(fields).encode()


def decode(data: bytes) -> Entry:
    """CodecError for anything else, whatever the bytes."""
    if len(data) > DATA_BYTES_MAX:
        raise CodecError("message", DATA_BYTES_MAX, "too long")
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError):
        raise CodecError("message", 0, "not JSON") from None
    if not isinstance(fields, dict):
        raise CodecError("message", 0, "not an object")
    name, content_type, text = fields.get("btp"), fields.get("contentType"), fields.get("data")
    if not isinstance(name, str) or name not in NAMES:
        raise CodecError("btp", 0, "not an entry that is known here")
    if isinstance(content_type, bool) or content_type not in (OCTETS, TEXT, JSON):
        raise CodecError("contentType", 0, "not 0, 1 or 2")
    if not isinstance(text, str):
        raise CodecError("data", 0, "not text")
    amount = fields.get("amount")
    if amount is not None and not _is_amount(amount):
        raise CodecError("amount", 0, f"not a whole number up to {AMOUNT_MAX}, as text")
    try:
        found = bytes.fromhex(text) if content_type == OCTETS else text.encode()
    except ValueError:
        raise CodecError("data", 0, "not what its content type says") from None
    return Entry(name, content_type, found, None if amount is None else int(amount))


def _is_amount(text: object) -> bool:
    if not isinstance(text, str) or not text.isascii() or not text.isdigit() or len(text) > 20:
        return False
    return int(text) <= AMOUNT_MAX
