"""ILP error codes (RFC 0027)."""

import json
from pathlib import Path

import pytest

from isthmus.ilp.codes import UNKNOWN_NAME, ErrorCode, code_name, is_final, is_relative, is_temporary

VALUES = json.loads((Path(__file__).parents[1] / "vectors/codec-values.json").read_text())


def test_codes_have_the_names_of_the_table() -> None:
    """ILP-22."""
    assert {code.value: code_name(code) for code in ErrorCode} == VALUES["error_names"]
    assert str(ErrorCode.F05_WRONG_CONDITION) == "F05"


@pytest.mark.parametrize("code", ["F09", "T42", "R98", "X00", "", "???"])
def test_unknown_codes_are_judged_by_their_letter(code: str) -> None:
    """ILP-18, X-8: the Rust implementation sends F09."""
    assert code_name(code) == UNKNOWN_NAME
    assert is_final(code) == code.startswith("F")
    assert is_temporary(code) == code.startswith("T")
    assert is_relative(code) == code.startswith("R")


def test_every_code_has_exactly_one_class() -> None:
    """ILP-19."""
    for code in ErrorCode:
        assert [is_final(code), is_temporary(code), is_relative(code)].count(True) == 1
