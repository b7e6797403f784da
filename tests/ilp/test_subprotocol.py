"""Sub-protocols of BTP in the data of `peer.settle`: round trips, and nothing else is taken."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.errors import CodecError
from isthmus.ilp import subprotocol
from isthmus.ilp.packet import AMOUNT_MAX, DATA_BYTES_MAX
from isthmus.ilp.subprotocol import CLAIM, JSON, NAMES, OCTETS, TEXT, Entry, decode, encode

amounts = st.none() | st.integers(0, AMOUNT_MAX)
entries = st.one_of(
    st.builds(Entry, st.sampled_from(sorted(NAMES)), st.just(OCTETS), st.binary(), amounts),
    st.builds(Entry, st.sampled_from(sorted(NAMES)), st.sampled_from((TEXT, JSON)), st.text().map(str.encode), amounts),
)


@given(entries)
def test_what_is_written_is_read(entry: Entry) -> None:
    assert decode(encode(entry)) == entry


@given(st.binary() | st.text().map(str.encode))
def test_any_bytes_are_an_entry_or_an_error(data: bytes) -> None:
    with contextlib.suppress(CodecError):
        assert isinstance(decode(data), Entry)


@pytest.mark.parametrize(
    "data",
    [
        b'{"btp":"ilp","contentType":0,"data":""}',
        b'{"btp":"claim","contentType":3,"data":""}',
        b'{"btp":["claim"],"contentType":1,"data":""}',
        b'{"btp":"claim","contentType":true,"data":1}',
        b'{"btp":"claim","contentType":0,"data":"xy"}',
        b'{"btp":"claim","contentType":1,"data":"\\ud800"}',
        b'{"btp":"claim","contentType":2,"data":"","amount":5}',
        b'{"btp":"claim","contentType":2,"data":"","amount":"18446744073709551616"}',
        b"[" * 10_000,
        b" " * (DATA_BYTES_MAX + 1),
    ],
)
def test_what_is_no_entry_is_refused(data: bytes) -> None:
    with pytest.raises(CodecError):
        decode(data)


def test_text_that_is_no_utf8_cannot_be_written() -> None:
    with pytest.raises(ValueError):
        encode(Entry(CLAIM, subprotocol.JSON, b"\xff"))
