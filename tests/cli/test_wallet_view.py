"""What people are shown."""

from fractions import Fraction

import pytest

from isthmus.cli.wallet_view import between, decimal, left, money, rows, show_table
from isthmus.client.streams import explain
from isthmus.stream.orders import Failure

BTC = {"code": "BTC", "scale": 8}
ETH = {"code": "ETH", "scale": 9}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Fraction(0), "0"),
        (Fraction(25), "25"),
        (Fraction(49, 2), "24.5"),
        (Fraction(1, 3), "0.33333333"),
        (Fraction(1, 3_000_000), "0.00000033333333"),
        (Fraction(2_000_000_000, 3), "666666667"),
        (Fraction(64250123456, 1000), "64250123"),
        (Fraction(99_999_999_999, 100_000_000_000), "1"),
    ],
)
def test_rates_are_shown_with_a_few_digits(value: Fraction, text: str) -> None:
    assert decimal(value) == text


def test_amounts_are_shown_in_the_assets_own_units() -> None:
    assert money("1500000", BTC) == "0.015 BTC"
    assert money("7", None) == "7 units"


def test_what_is_not_known_is_shown_as_between() -> None:
    result = {
        "sent": "1000",
        "unknown": "500",
        "delivered": "250000",
        "delivered_max": "375000",
        "source_asset": BTC,
        "destination_asset": ETH,
    }
    assert between(result) == "between 0.00025 ETH and about 0.000375 ETH delivered"
    assert left(result) == "between 0.00001 BTC and 0.000015 BTC sent"
    certain = {**result, "unknown": "0", "delivered_max": "250000"}
    assert between(certain) == "0.00025 ETH delivered"
    assert left(certain) == "0.00001 BTC sent"


def test_brackets_in_strangers_words_are_shown_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    """ILP-21: a Reject's message may hold anything; "[/x]" would be a broken tag in markup."""
    table = rows()
    table.add_row("", explain(Failure.PATH_ERROR, "F00", "[/x] [red]\x1b[2Jno :smile:" + "!" * 8_000, "test.hop"))
    show_table(table)
    shown = capsys.readouterr().out
    assert "[/x] [red]?[2Jno" in shown
    assert ":smile:!!!" in shown
    assert len(shown) < 1_000
