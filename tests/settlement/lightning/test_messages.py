"""Messages between Lightning engines: what is written is read, and nothing else is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.errors import CodecError
from isthmus.settlement.lightning import messages as m

QUESTIONS = st.builds(
    m.InvoiceAsked, st.binary(min_size=16, max_size=16), st.integers(0, m.ATTEMPTS_MAX), st.integers(1, m.MSAT_MAX)
) | st.just(m.KeysendAsked())


@given(QUESTIONS)
def test_a_question_is_read_as_it_was_written(question: m.Question) -> None:
    assert m.decode_question(m.encode_question(question)) == question


@given(st.binary(max_size=200) | st.text(max_size=50).map(str.encode))
def test_any_bytes_are_a_question_or_an_error(data: bytes) -> None:
    for decode in (m.decode_question, m.decode_invoice, m.decode_keysend):
        try:
            decode(data)
        except CodecError:
            continue


@pytest.mark.parametrize(
    "data",
    [
        b"{}",
        b"[]",
        b'{"v":2,"ask":"keysend"}',
        b'{"v":1,"ask":"invoice","key":"00","attempt":0,"msat":"1"}',
        b'{"v":1,"ask":"invoice","key":"00000000000000000000000000000000","attempt":true,"msat":"1"}',
        b'{"v":1,"ask":"invoice","key":"00000000000000000000000000000000","attempt":-1,"msat":"1"}',
        b'{"v":1,"ask":"invoice","key":"00000000000000000000000000000000","attempt":0,"msat":"0"}',
        b'{"v":1,"ask":"invoice","key":"00000000000000000000000000000000","attempt":0,"msat":1}',
        b'{"v":1,"ask":"invoice","key":"00000000000000000000000000000000","attempt":0,"msat":"2100000000000000001"}',
        b'{"v":1,"ask":"invoice","key":"0000000000000000000000000000000G","attempt":0,"msat":"1"}',
        b" " * (m.MESSAGE_BYTES_MAX + 1),
    ],
)
def test_what_is_no_question_is_told(data: bytes) -> None:
    with pytest.raises(CodecError):
        m.decode_question(data)


def test_answers_are_checked() -> None:
    request = "lnbc" + "a" * 100
    assert m.decode_invoice(m.encode_invoice(request)) == request
    for bad in ("ln" + "a" * 5_000, "LNBC1" + "a" * 30, "https://evil.example", "lnbc\n" + "a" * 30):
        with pytest.raises(CodecError):
            m.decode_invoice(m.encode_invoice(bad))
    node = "02" + "ab" * 32
    assert m.decode_keysend(m.encode_keysend(node, bytes(16))) == (node, bytes(16))
    with pytest.raises(CodecError):
        m.decode_keysend(m.encode_keysend("02", bytes(16)))


@given(
    st.builds(
        m.Outgoing,
        st.binary(min_size=32, max_size=32),
        st.integers(1, m.MSAT_MAX),
        st.integers(0, m.MSAT_MAX),
        st.integers(0, 5),
        st.sampled_from(["", "lnbc1"]),
        st.sampled_from(["", "02ab"]),
        st.binary(max_size=16),
        st.binary(max_size=32),
        st.integers(0, 2**40),
    )
)
def test_what_is_kept_is_found_again(kept: m.Outgoing) -> None:
    assert m.decode_outgoing(kept.encode()) == kept


def test_amounts_are_millisatoshi_or_none() -> None:
    """SE-11: nothing is rounded."""
    assert m.msat_of(5, 8) == 5_000
    assert m.msat_of(5, 11) == 5
    assert m.msat_of(50, 12) == 5
    assert m.msat_of(51, 12) is None
