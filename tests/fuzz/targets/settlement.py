"""What settlement engines and connectors send each other: a quantity, or a `CodecError`."""

from collections.abc import Iterator
from typing import Final

from isthmus.connector.settling import QUANTITY_MAX, QUANTITY_SCALE_MAX
from isthmus.errors import CodecError
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


TARGETS: Final[dict[str, Target]] = {
    "quantity": Target(
        fuzz_quantity, seeds_quantity, (b'"amount":', b'"scale":', b"1e9", b"-0", b"\\u0030", b"NaN"), size_max=512
    ),
}
