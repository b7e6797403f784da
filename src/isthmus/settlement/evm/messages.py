"""What our engines say to each other by `peer.settle`: JSON objects with a `type`. Pure.

- `hello` tells where its sender stands (chain, contract, token, address) and is answered by the same. With `proof`, it
  also registers the address that the sender will pay from: a signature of EIP-712 data `Peer(address from,address to)`.
- `claim` brings a channel's terms, a total and its signature; the answer is `accepted` with the highest total known.
- `close` asks the receiver to end a channel; the answer is `agreed` with a total and the receiver's signature.
"""

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, TypeAlias, final

from isthmus.errors import CodecError
from isthmus.ledgers.evm.claims import AMOUNT_MAX, SETTLE_DELAY_MAX, SIGNATURE_BYTES, ChannelTerms
from isthmus.ledgers.evm.octets import hexed, parse_address, parse_hex

MESSAGE_BYTES_MAX: Final = 4_096
FIELD_CHARS_MAX: Final = 80  # of a channel's terms: 32 bytes in hexadecimal, and some more
TERMS_MAX: Final = 256  # channels whose terms are known by their texts
Fields: TypeAlias = dict[str, Any]


@final
@dataclass(slots=True, frozen=True, kw_only=True)
class Hello:
    """Where an engine stands. `settle_delay_min`: seconds that it asks for in channels to it."""

    chain_id: int
    contract: str  # NO_ADDRESS for an engine that makes plain transfers
    token: str
    address: str
    settle_delay_min: int = 0
    proof: bytes = b""


@final
@dataclass(slots=True, frozen=True, kw_only=True)
class Claim:
    chain_id: int
    contract: str
    terms: ChannelTerms
    amount: int
    signature: bytes


@final
@dataclass(slots=True, frozen=True)
class Accepted:
    amount: int


@final
@dataclass(slots=True, frozen=True)
class Close:
    terms: ChannelTerms


@final
@dataclass(slots=True, frozen=True)
class Agreed:
    amount: int
    signature: bytes


Message: TypeAlias = Hello | Claim | Accepted | Close | Agreed


def encode(message: Message) -> bytes:
    """As JSON. Amounts are texts."""
    # Each claim and its answer come by here: what `json` makes for them costs ten times as much.
    if isinstance(message, Claim):
        return (
            f'{{"type":"claim","chain":"{message.chain_id}","contract":"{message.contract}",'
            f'"channel":{message.terms.text},"amount":"{message.amount}","signature":"{hexed(message.signature)}"}}'
        ).encode()
    if isinstance(message, Accepted):
        return b'{"type":"accepted","amount":"%d"}' % message.amount
    if isinstance(message, Close):
        return f'{{"type":"close","channel":{message.terms.text}}}'.encode()
    return json.dumps(_fields_of(message), separators=(",", ":")).encode()


def decode(data: bytes) -> Message:
    """CodecError for anything else than a message, whatever the bytes."""
    if len(data) > MESSAGE_BYTES_MAX:
        raise CodecError("message", MESSAGE_BYTES_MAX, "too long")
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError):
        raise CodecError("message", 0, "not JSON") from None
    if not isinstance(fields, dict):
        raise CodecError("message", 0, "not an object")
    kind = fields.get("type")
    if kind == "hello":
        return _hello(fields)
    if kind == "claim":
        return Claim(
            chain_id=number(fields, "chain"),
            contract=parse_address(fields.get("contract"), "contract"),
            terms=terms_from(fields.get("channel")),
            amount=number(fields, "amount"),
            signature=parse_hex(fields.get("signature"), "signature", size=SIGNATURE_BYTES),
        )
    if kind == "accepted":
        return Accepted(number(fields, "amount"))
    if kind == "close":
        return Close(terms_from(fields.get("channel")))
    if kind == "agreed":
        signature = parse_hex(fields.get("signature"), "signature", size=SIGNATURE_BYTES)
        return Agreed(number(fields, "amount"), signature)
    raise CodecError("type", 0, "not a message of an EVM engine")


def terms_from(value: object) -> ChannelTerms:
    """CodecError."""
    if not isinstance(value, dict):
        raise CodecError("channel", 0, "not an object")
    fields = tuple(value.get(name) for name in ("sender", "receiver", "token", "settleDelay", "salt"))
    if all(isinstance(one, str) and len(one) <= FIELD_CHARS_MAX for one in fields):
        return _terms(*fields)
    return _terms.__wrapped__(*fields)  # it says which one is wrong


@lru_cache(maxsize=TERMS_MAX)
def _terms(sender: object, receiver: object, token: object, settle_delay: object, salt: object) -> ChannelTerms:
    """The same object for the same texts: each claim brings its channel's terms, and their id is two hashes."""
    return ChannelTerms(
        parse_address(sender, "sender"),
        parse_address(receiver, "receiver"),
        parse_address(token, "token"),
        number({"settleDelay": settle_delay}, "settleDelay", SETTLE_DELAY_MAX),
        parse_hex(salt, "salt", size=32),
    )


def number(fields: Fields, name: str, most: int = AMOUNT_MAX) -> int:
    """A whole number, written as text. CodecError."""
    text = fields.get(name)
    if not isinstance(text, str) or not text.isascii() or not text.isdigit() or len(text) > 40 or int(text) > most:
        raise CodecError(name, 0, f"not a whole number up to {most}, as text")
    return int(text)


def _hello(fields: Fields) -> Hello:
    proof = fields.get("proof")
    return Hello(
        chain_id=number(fields, "chain"),
        contract=parse_address(fields.get("contract"), "contract"),
        token=parse_address(fields.get("token"), "token"),
        address=parse_address(fields.get("address"), "address"),
        settle_delay_min=number(fields, "settleDelayMin", SETTLE_DELAY_MAX),
        proof=b"" if proof is None else parse_hex(proof, "proof", size=SIGNATURE_BYTES),
    )


def _fields_of(message: Hello | Agreed) -> Fields:
    if isinstance(message, Hello):
        fields = {
            "type": "hello",
            "chain": str(message.chain_id),
            "contract": message.contract,
            "token": message.token,
            "address": message.address,
            "settleDelayMin": str(message.settle_delay_min),
        }
        return {**fields, "proof": hexed(message.proof)} if message.proof else fields
    return {"type": "agreed", "amount": str(message.amount), "signature": hexed(message.signature)}
