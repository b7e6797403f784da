"""What settlement engines and connectors, and engines among themselves, send each other: a value, or a `CodecError`."""

import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from isthmus.connector.settling import QUANTITY_MAX, QUANTITY_SCALE_MAX
from isthmus.errors import CodecError
from isthmus.ledgers.bank.answers import account_of, bank_of, statement_of, transfer_of
from isthmus.ledgers.bank.client import WrongAnswerError
from isthmus.ledgers.evm.claims import ChannelTerms
from isthmus.ledgers.evm.octets import NO_ADDRESS
from isthmus.settlement.bank import messages as bank_messages
from isthmus.settlement.bank.records import checked_page
from isthmus.settlement.evm import messages
from isthmus.settlement.rfc38.quantity import decode_quantity, encode_quantity
from isthmus.settlement.xrp import messages as xrp
from isthmus.settlement.xrp.details import Details
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


def fuzz_bank_messages(data: bytes) -> None:
    try:
        hello = bank_messages.decode(data)
    except CodecError:
        return
    assert bank_messages.decode(bank_messages.encode(hello)) == hello


def seeds_bank_messages() -> Iterator[bytes]:
    yield bank_messages.encode(bank_messages.Hello("b" * 32, "west", "isthmus-" + "a" * 26))


def fuzz_bank_answers(data: bytes) -> None:
    """Whatever a bank answers: what is read writes itself as something that is read as the same."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return
    for decode in (account_of, transfer_of):
        with suppress(CodecError):
            value = decode(found)
            assert decode(value.to_json()) == value
    with suppress(CodecError):
        bank_of(found)
    with suppress(CodecError):
        account, entries = statement_of(found)
        again = {"account": account.to_json(), "entries": [each.to_json() for each in entries]}
        assert statement_of(again) == (account, entries)
        with suppress(WrongAnswerError):
            page = checked_page(entries, 0, None)
            assert [each.number for each in page] == list(range(1, len(page) + 1))


def seeds_bank_answers() -> Iterator[bytes]:
    account = {"id": "ann", "name": "Ann", "asset_code": "USD", "asset_scale": 2, "balance": "-5", "overdraft": None}
    entry = {"number": 1, "transfer": "t", "at_ms": 1, "amount": "5", "balance": "5", "counterparty": "b"}
    whole = {"account": {**account, "entries": 1}, "entries": [{**entry, "reference": "r"}]}
    yield json.dumps(whole["account"]).encode()
    yield json.dumps(whole).encode()
    transfer = {"id": "t", "key": "k", "from": "a", "to": "b", "amount": "7", "reference": "", "at_ms": 1}
    yield json.dumps(transfer).encode()
    yield b'{"id": "bank", "holder": null}'


def fuzz_xrp_messages(data: bytes) -> None:
    """By the first byte: a question, an answer, where to pay. What is read is written so that it is read again."""
    kind, rest = data[:1], data[1:]
    try:
        if kind == b"d":
            details = Details.decode(rest)
            assert Details.decode(details.encode()) == details
            return
        decode = xrp.decode_question if kind == b"q" else xrp.decode_answer
        message = decode(rest)
    except CodecError:
        return
    assert decode(xrp.encode(message)) == message


def seeds_xrp_messages() -> Iterator[bytes]:
    here, channel = "rHb9CJAWyB4rj91VRWn96DkukG4bwdtyTh", "AB" * 32
    claim = xrp.Claim(amount=7, signature=bytes(64), added=3, channel=channel, drops=7)
    for question in (xrp.Address(here), xrp.InfoAsked(), xrp.ChannelTold(channel), claim, xrp.Close(channel)):
        yield b"q" + xrp.encode(question)
    for answer in (xrp.Info(9, knows_drops=True), xrp.ChannelTold(""), xrp.Accepted(7), xrp.Accepted(None)):
        yield b"a" + xrp.encode(answer)
    yield b"a"
    yield b"d" + Details(here, 7).encode()


TARGETS: Final[dict[str, Target]] = {
    "bank-messages": Target(
        fuzz_bank_messages,
        seeds_bank_messages,
        (b'"type":"hello"', b'"bank":"', b'"account":"', b'"reference":"', b"\\u0000", b"\\ud800"),
        size_max=512,
    ),
    "bank-answers": Target(
        fuzz_bank_answers,
        seeds_bank_answers,
        (b'"entries":[', b'"amount":"-', b'"number":', b'"overdraft":null', b"1e9", b"-0", b"\\u0030", b"NaN"),
        size_max=1_024,
    ),
    "quantity": Target(
        fuzz_quantity, seeds_quantity, (b'"amount":', b'"scale":', b"1e9", b"-0", b"\\u0030", b"NaN"), size_max=512
    ),
    "evm-messages": Target(
        fuzz_evm_messages,
        seeds_evm_messages,
        (b'"type":"claim"', b'"channel":{', b'"0x', b'"settleDelay":"', b'"proof":null', b"1e9", b"-0", b"\\u0030"),
        size_max=1_024,
    ),
    "xrp-messages": Target(
        fuzz_xrp_messages,
        seeds_xrp_messages,
        (
            b'"btp":"claim"',
            b'"contentType":2',
            b'\\"amount\\":',
            b'\\"drops\\":\\"',
            b"currencyScale",
            b"xrpAddress",
            b"1e9",
        ),
        size_max=1_024,
    ),
}
