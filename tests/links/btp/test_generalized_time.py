"""GeneralizedTime, as BTP errors carry it."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.errors import CodecError
from isthmus.ilp.timestamp import TIMESTAMP_MAX, TIMESTAMP_MIN
from isthmus.links.btp.generalized_time import decode_generalized_time, encode_generalized_time

VALUES = json.loads((Path(__file__).parents[2] / "vectors/codec-values.json").read_text())


@pytest.mark.parametrize("text, ms", VALUES["generalized_times"])
def test_fractions_are_optional_and_second_60_is_legal(text: str, ms: int) -> None:
    """OER-14."""
    assert decode_generalized_time(text.encode(), "triggeredAt", 0) == ms


@pytest.mark.parametrize("text, ms", VALUES["generalized_times_padded"])
def test_three_decimals_may_end_in_zeros(text: str, ms: int) -> None:
    """OER-15: other implementations write them."""
    assert decode_generalized_time(text.encode(), "triggeredAt", 0) == ms


@pytest.mark.parametrize("text", VALUES["generalized_times_bad"])
def test_other_forms_are_refused(text: str) -> None:
    """OER-14, P-13: ILP's 17 digits too."""
    with pytest.raises(CodecError) as error:
        decode_generalized_time(text.encode(), "triggeredAt", 7)
    assert (error.value.field, error.value.offset) == ("triggeredAt", 7)


@given(st.integers(TIMESTAMP_MIN, TIMESTAMP_MAX))
def test_what_we_write_is_canonical_and_has_three_decimals(ms: int) -> None:
    """OER-15."""
    octets = encode_generalized_time(ms)
    assert len(octets) == 19
    assert octets[-2:-1] != b"0"
    assert 0 <= decode_generalized_time(octets, "x", 0) - ms <= 1


@given(st.binary(max_size=24) | st.from_regex(rb"[0-9]{14}([.,][0-9]{0,4})?(Z|\+0100)?\n?"))
def test_any_bytes_give_a_time_or_a_codec_error(octets: bytes) -> None:
    """OER-14."""
    try:
        ms = decode_generalized_time(octets, "x", 0)
    except CodecError:
        return
    assert TIMESTAMP_MIN <= ms <= TIMESTAMP_MAX
    encode_generalized_time(ms)
