"""When how much is settled, and what is carried: pure arithmetic, with properties."""

from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.connector.settling import QUANTITY_MAX, SettleTerms, credit_of
from isthmus.errors import ConfigError

TERMS = SettleTerms(engine="bank", threshold=1_000, target=200)


def test_nothing_is_due_below_the_threshold() -> None:
    """CONN-7."""
    assert TERMS.due(999, 9) == 0
    assert TERMS.due(1_000, 9) == 800


def test_who_pays_ahead_owes_less_than_nothing_afterwards() -> None:
    ahead = replace(TERMS, threshold=-500, target=-1_000, ahead_max=1_000)
    ahead.check("key", payable_max=0)
    assert ahead.due(-501, 9) == 0
    assert ahead.due(-500, 9) == 500
    assert ahead.due(0, 9) == 1_000


def test_a_coarser_ledger_leaves_the_rest_owed() -> None:
    """SE-11."""
    cents = replace(TERMS, ledger_scale=2)
    assert cents.due(12_345, 4) == 12_100
    assert replace(TERMS, ledger_scale=18).due(12_345, 4) == 12_145


def test_no_settlement_is_smaller_or_larger_than_agreed() -> None:
    assert replace(TERMS, minimum=801).due(1_000, 9) == 0
    assert replace(TERMS, minimum=800).due(1_000, 9) == 800
    assert replace(TERMS, amount_max=500).due(1_000, 9) == 500


@pytest.mark.parametrize(
    "changes, key",
    [
        ({"engine": ""}, "threshold"),
        ({"target": 1_000}, "threshold"),
        ({"threshold": 5_001}, "threshold"),
        ({"target": -1}, "ahead_max"),
        ({"ahead_max": -1}, "ahead_max"),
        ({"minimum": 0}, "minimum"),
        ({"amount_max": 5, "minimum": 6}, "minimum"),
        ({"ledger_scale": 256}, "ledger_scale"),
    ],
)
def test_terms_that_cant_work_are_told(changes: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError) as told:
        replace(TERMS, **changes).check("accounts.bob.settlement", payable_max=5_000)
    assert told.value.key == f"accounts.bob.settlement.{key}"


@given(
    st.lists(st.tuples(st.integers(0, QUANTITY_MAX), st.integers(0, 255)), max_size=8),
    st.integers(0, 255),
)
def test_no_fraction_of_a_unit_is_ever_lost_or_made(quantities: list[tuple[int, int]], asset_scale: int) -> None:
    """SE-11: what was credited and what is left over are exactly what came in, and less than a unit is left."""
    total, leftover = 0, (0, 0)
    for amount, scale in quantities:
        units, leftover = credit_of(amount, scale, leftover, asset_scale)
        total += units
        left = Fraction(leftover[0], 10 ** leftover[1])
        assert 0 <= left < Fraction(1, 10**asset_scale)
    came_in = sum(Fraction(amount, 10**scale) for amount, scale in quantities)
    assert Fraction(total, 10**asset_scale) + Fraction(leftover[0], 10 ** leftover[1]) == came_in
