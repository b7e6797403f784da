"""How a peer wants to be paid: question and answer of the engine `settlement-xrp`, which ours understands. Pure.

`{"type": "paymentDetails"}` is answered by `{"xrpAddress": "r…", "destinationTag": 7}`. The tag says whose payment it
is. `settlement-xrp` makes one for each question and forgets it after five minutes; ours gives an account one for ever.
"""

import json
from dataclasses import dataclass
from typing import Any, Final, final

from isthmus.errors import CodecError
from isthmus.ledgers.xrp.transactions import is_address

MESSAGE_BYTES_MAX: Final = 1_024
TAG_MAX: Final = 2**32 - 1
QUESTION: Final = b'{"type":"paymentDetails"}'


@final
@dataclass(slots=True, frozen=True)
class Details:
    """Where to pay, and the tag to pay with."""

    address: str
    tag: int | None

    def encode(self) -> bytes:
        return json.dumps({"xrpAddress": self.address, "destinationTag": self.tag}, separators=(",", ":")).encode()

    @classmethod
    def decode(cls, data: bytes) -> "Details":
        """CodecError for anything else, whatever the bytes."""
        fields = _object(data)
        address, tag = fields.get("xrpAddress"), fields.get("destinationTag")
        if not isinstance(address, str) or not is_address(address):
            raise CodecError("xrpAddress", 0, "not a classic address of the XRP Ledger")
        if not isinstance(tag, int) or isinstance(tag, bool) or not 0 <= tag <= TAG_MAX:
            raise CodecError("destinationTag", 0, f"not 0 to {TAG_MAX}")
        return cls(address, tag)


def check_question(data: bytes) -> None:
    """CodecError if it is anything else than the question."""
    if _object(data).get("type") != "paymentDetails":
        raise CodecError("type", 0, "not a message of an engine that pays by XRP payments")


def _object(data: bytes) -> dict[str, Any]:
    if len(data) > MESSAGE_BYTES_MAX:
        raise CodecError("message", MESSAGE_BYTES_MAX, "too long")
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError):
        raise CodecError("message", 0, "not JSON") from None
    if not isinstance(fields, dict):
        raise CodecError("message", 0, "not an object")
    return fields
