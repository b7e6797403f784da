"""What our engines say to each other by `peer.settle`: where each wants to be paid. Pure.

`hello` names the bank, the sender's account there, and the reference that transfers to it must carry. The answer is the
same of the other side.
"""

import json
from dataclasses import dataclass
from typing import Final, final

from isthmus.errors import CodecError, plain
from isthmus.ledgers.bank.values import ID_CHARS_MAX, REFERENCE_CHARS_MAX, RefusedError, check_id

MESSAGE_BYTES_MAX: Final = 2_048


@final
@dataclass(slots=True, frozen=True)
class Hello:
    """Where its sender wants to be paid."""

    bank: str  # what tells the bank from others
    account: str
    reference: str


def encode(hello: Hello) -> bytes:
    fields = {"type": "hello", "bank": hello.bank, "account": hello.account, "reference": hello.reference}
    return json.dumps(fields, separators=(",", ":")).encode()


def decode(data: bytes) -> Hello:
    """CodecError for anything else, whatever the bytes."""
    if len(data) > MESSAGE_BYTES_MAX:
        raise CodecError("message", MESSAGE_BYTES_MAX, "too long")
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError):
        raise CodecError("message", 0, "not JSON") from None
    if not isinstance(fields, dict) or fields.get("type") != "hello":
        raise CodecError("type", 0, "not a message of a bank's engine")
    account = fields.get("account")
    try:
        check_id(account, "account")
    except RefusedError as refused:
        raise CodecError("account", 0, refused.detail) from None
    assert isinstance(account, str)
    return Hello(_text(fields, "bank", ID_CHARS_MAX), account, _text(fields, "reference", REFERENCE_CHARS_MAX))


def _text(fields: dict[str, object], name: str, chars_max: int) -> str:
    found = fields.get(name)
    if not isinstance(found, str) or not 0 < len(found) <= chars_max or plain(found, chars_max) != found:
        raise CodecError(name, 0, f"not a text of 1 to {chars_max} printable characters")
    return found
