"""What an engine and its peer's say to each other: the sub-protocols of `ilp-plugin-xrp-paychan` 2.4.1, and more. Pure.

- `xrp_address` tells an address, and is answered by the other's.
- `info` asks for the scale that amounts are counted in: `{"currencyScale": 6}`, and from us `"drops": true`.
- `ripple_channel_id` tells of a channel to the peer, and asks for the peer's. Again after each top-up.
- `claim` grants a total on the channel that was told last, as a Transfer of what it grew by: `{"amount", "signature"}`,
  in units of the scale; the signature is for drops, rounded up. Ours says more: `channel`, and the total in `drops`. It
  is answered with the highest total known, in drops; the plugin answers nothing.
- `xrp_close` (ours alone) asks the peer to end a channel to it; the answer is the same.

Entries travel in the form of `ilp.subprotocol`.
"""

import json
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final, TypeAlias, final

from isthmus.errors import CodecError
from isthmus.ilp import subprotocol
from isthmus.ilp.subprotocol import ADDRESS, CHANNEL, CLAIM, CLOSE, INFO, Entry
from isthmus.ledgers.xrp.transactions import DROPS_MAX, XRP_SCALE, is_address

_JSON: Final = json.JSONEncoder(separators=(",", ":"))  # `json.dumps` would make one each time
MESSAGE_BYTES_MAX: Final = 4_096
SIGNATURE_BYTES_MAX: Final = 80  # a DER signature has 72 at most, one of Ed25519 has 64
SCALE_MAX: Final = 255
# A total in units of the account. Beyond it, at scales that no plugin has, only the drops tell.
UNITS_MAX: Final = 10**39
# How a question for our channel is refused while there is none: the channel that it told is taken all the same.
NO_CHANNEL_YET: Final = "there is no channel to you yet"
_ID: Final = re.compile(r"[0-9A-Fa-f]{64}")
_INFO_ALL: Final = b"\x02"
_LESS: Final = re.compile(r"new claim is less than old claim\. new=[0-9]+ old=([0-9]{1,30})(?![0-9])")


@final
@dataclass(slots=True, frozen=True)
class Address:
    """Where the sender's account is."""

    address: str


@final
@dataclass(slots=True, frozen=True)
class InfoAsked:
    """The receiver is asked what it counts in."""


@final
@dataclass(slots=True, frozen=True)
class Info:
    """Decimal places of the amounts in claims; and whether the claims that count are told in drops besides."""

    scale: int
    knows_drops: bool = False


@final
@dataclass(slots=True, frozen=True)
class ChannelTold:
    """The sender's channel to the receiver, 64 hexadecimal digits; "" for none."""

    channel: str


@final
@dataclass(slots=True, frozen=True, kw_only=True)
class Claim:
    """A total that is granted, in drops. `amount`: the same in the scale's units. `added`: what it grew by."""

    amount: int
    signature: bytes
    added: int
    channel: str | None = None
    drops: int | None = None

    def total(self, scale: int) -> int:
        """In drops: what is signed. Rounded up where the scale is finer, as the plugin does it."""
        if self.drops is not None:
            return self.drops
        fraction = Fraction(10) ** (XRP_SCALE - scale)
        return -(-self.amount * fraction.numerator // fraction.denominator)


@final
@dataclass(slots=True, frozen=True)
class Accepted:
    """The highest total known, in drops; None from a plugin, which says nothing."""

    drops: int | None


@final
@dataclass(slots=True, frozen=True)
class Close:
    """The channel that its source wants to end."""

    channel: str


Message: TypeAlias = Address | InfoAsked | Info | ChannelTold | Claim | Accepted | Close


def encode(message: Message) -> bytes:
    """As `peer.settle` carries it."""
    return subprotocol.encode(_entry(message))


def _entry(message: Message) -> Entry:
    if isinstance(message, Address):
        return Entry(ADDRESS, subprotocol.TEXT, message.address.encode())
    if isinstance(message, InfoAsked):
        return Entry(INFO, subprotocol.OCTETS, _INFO_ALL)
    if isinstance(message, Info):
        return _json(INFO, {"currencyScale": message.scale, **({"drops": True} if message.knows_drops else {})})
    if isinstance(message, ChannelTold):
        return Entry(CHANNEL, subprotocol.TEXT, message.channel.encode())
    if isinstance(message, Accepted):
        return _json(CLAIM, {} if message.drops is None else {"drops": str(message.drops)})
    if isinstance(message, Close):
        return _json(CLOSE, {"channel": message.channel})
    fields = {"amount": str(message.amount), "signature": message.signature.hex()}
    if message.channel is not None:
        fields["channel"] = message.channel
    if message.drops is not None:
        fields["drops"] = str(message.drops)
    return _json(CLAIM, fields, amount=message.added)


def _json(name: str, fields: dict[str, Any], amount: int | None = None) -> Entry:
    return Entry(name, subprotocol.JSON, _JSON.encode(fields).encode(), amount)


def decode_question(data: bytes) -> Message:
    """What the peer's engine says by itself. CodecError for anything else, whatever the bytes."""
    entry = _read(data)
    if entry.name == ADDRESS:
        return Address(_address(entry.data))
    if entry.name == INFO:
        return InfoAsked()
    if entry.name == CHANNEL:
        return ChannelTold(_channel(entry.data.decode("latin-1")))
    fields = _fields(entry)
    if entry.name == CLOSE:
        return Close(_channel(fields.get("channel")))
    channel, drops = fields.get("channel"), fields.get("drops")
    return Claim(
        amount=_number(fields.get("amount"), "amount", UNITS_MAX),
        signature=_signature(fields.get("signature")),
        added=entry.amount or 0,
        channel=None if channel is None else _channel(channel),
        drops=None if drops is None else _number(drops, "drops", DROPS_MAX),
    )


def decode_answer(data: bytes) -> Message:
    """What the peer's engine answers; nothing at all is an answer to a claim. CodecError."""
    if not data:
        return Accepted(None)
    entry = _read(data)
    if entry.name == ADDRESS:
        return Address(_address(entry.data))
    if entry.name == CHANNEL:
        text = entry.data.decode("latin-1")
        return ChannelTold(_channel(text) if text else "")
    fields = _fields(entry)
    if entry.name == INFO:
        scale = fields.get("currencyScale", XRP_SCALE)
        if not isinstance(scale, int) or isinstance(scale, bool) or not 0 <= scale <= SCALE_MAX:
            raise CodecError("currencyScale", 0, f"not 0 to {SCALE_MAX}")
        return Info(scale, knows_drops=fields.get("drops") is True)
    if entry.name == CLOSE:
        return Close(_channel(fields.get("channel")))
    drops = fields.get("drops")
    return Accepted(None if drops is None else _number(drops, "drops", DROPS_MAX))


def had_before(refusal: str) -> int | None:
    """The total, in the scale's units, that a plugin has already, if this is why it refuses a claim; else None."""
    found = _LESS.search(refusal)
    return None if found is None else int(found.group(1))


def _read(data: bytes) -> Entry:
    if len(data) > MESSAGE_BYTES_MAX:
        raise CodecError("message", MESSAGE_BYTES_MAX, "too long")
    return subprotocol.decode(data)


def _fields(entry: Entry) -> dict[str, Any]:
    try:
        fields = json.loads(entry.data)
    except (ValueError, RecursionError):
        raise CodecError(entry.name, 0, "not JSON") from None
    if not isinstance(fields, dict):
        raise CodecError(entry.name, 0, "not an object")
    return fields


def _address(data: bytes) -> str:
    text = data.decode("latin-1")
    if not is_address(text):
        raise CodecError(ADDRESS, 0, "not a classic address of the XRP Ledger")
    return text


def _channel(text: object) -> str:
    if not isinstance(text, str) or not _ID.fullmatch(text):
        raise CodecError(CHANNEL, 0, "a channel is 64 hexadecimal digits")
    return text.upper()


def _number(text: object, name: str, most: int) -> int:
    if not isinstance(text, str) or not text.isascii() or not text.isdigit() or len(text) > 40 or int(text) > most:
        raise CodecError(name, 0, f"not a whole number up to {most}, as text")
    return int(text)


def _signature(text: object) -> bytes:
    try:
        found = bytes.fromhex(text) if isinstance(text, str) else b""
    except ValueError:
        found = b""
    if not 0 < len(found) <= SIGNATURE_BYTES_MAX:
        raise CodecError("signature", 0, "not a signature in hexadecimal")
    return found
