"""What settlement engines and connectors, and engines among themselves, send each other: a value, or a `CodecError`."""

from collections.abc import Iterator
from typing import Final

from isthmus.connector.settling import QUANTITY_MAX, QUANTITY_SCALE_MAX
from isthmus.errors import CodecError
from isthmus.ledgers.evm.claims import ChannelTerms
from isthmus.ledgers.evm.octets import NO_ADDRESS
from isthmus.settlement.evm import messages
from isthmus.settlement.rfc38.quantity import decode_quantity, encode_quantity
from tests.fuzz.registry import Target


def fuzz_quantity(data: bytes) -> None:
    try:
        amount, scale = decode_quantity(data)
    except CodecError:
        return
    assert 0 <= amount <= QUANTITY_MAX
    assert 0 <= scale <= QUANTITY_SCALE_MAX
    assert decode_quantity(encode_quantity(amount, scale)) == (amount, scale)


def seeds_quantity() -> Iterator[bytes]:
    yield encode_quantity(0, 0)
    yield encode_quantity(QUANTITY_MAX, QUANTITY_SCALE_MAX)
    yield b'{"scale": 2, "amount": "254", "more": [null, {}]}'


def fuzz_evm_messages(data: bytes) -> None:
    try:
        message = messages.decode(data)
    except CodecError:
        return
    assert messages.decode(messages.encode(message)) == message


def seeds_evm_messages() -> Iterator[bytes]:
    here = "0x" + "5a" * 20
    terms = ChannelTerms(here, here, NO_ADDRESS, 86_400, bytes(32))
    yield messages.encode(messages.Hello(chain_id=1, contract=here, token=NO_ADDRESS, address=here, proof=bytes(64)))
    yield messages.encode(messages.Claim(chain_id=1, contract=here, terms=terms, amount=7, signature=bytes(64)))
    yield messages.encode(messages.Accepted(2**112 - 1))
    yield messages.encode(messages.Close(terms))
    yield messages.encode(messages.Agreed(0, bytes(64)))


TARGETS: Final[dict[str, Target]] = {
    "quantity": Target(
        fuzz_quantity, seeds_quantity, (b'"amount":', b'"scale":', b"1e9", b"-0", b"\\u0030", b"NaN"), size_max=512
    ),
    "evm-messages": Target(
        fuzz_evm_messages,
        seeds_evm_messages,
        (b'"type":"claim"', b'"channel":{', b'"0x', b'"settleDelay":"', b'"proof":null', b"1e9", b"-0", b"\\u0030"),
        size_max=1_024,
    ),
}
