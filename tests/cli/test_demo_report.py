"""What the demo shows after the payment."""

import io
import json
from fractions import Fraction
from pathlib import Path

import pytest
from rich.console import Console, RenderableType

from isthmus.cli.demo import report
from isthmus.cli.demo.audit import NodeBooks, Tally
from isthmus.cli.demo.network import BTC, DEMO, ETH, EUR, USD

AMOUNTS = (1_500_000, 961_348_105_770, 883_998_036_860, 381_534_456)
OUTCOME = report.Outcome(
    sent=AMOUNTS[0],
    delivered=AMOUNTS[-1],
    promised=380_000_000,
    packets=802,
    rejects={"F08": 6, "T01": 1},
    seconds=2.0,
)


@pytest.fixture
def books() -> dict[str, NodeBooks]:
    """Of a payment that went well."""
    found = {
        name: NodeBooks(name=name, folder=Path(), tally=Tally(), batches=3, digest=b"", problems=[])
        for name in DEMO.names
    }
    for pair, asset, amount in zip(DEMO.pairs(), (BTC, USD, EUR, ETH), AMOUNTS, strict=True):
        for name, account, sign in ((pair.left, pair.left_account, -1), (pair.right, pair.right_account, 1)):
            tally = found[name].tally
            tally.assets[account] = asset
            tally.peers.append(account)
            tally.balances[account] = sign * amount
            (tally.incoming if sign > 0 else tally.outgoing)[account] = amount
    found["connector-1"].tally.earned = {USD: {"spread": 2_409_393_430, "rounding": 800}}
    found["alice"].tally.earned = {BTC: {"spread": 0, "rounding": 0}}
    return found


def text_of(shown: RenderableType, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(shown)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [60, 80, 100, 120])
def test_the_path_names_everybody_and_what_carries_packets(width: int) -> None:
    shown = text_of(report.path(DEMO, width), width)
    for part in ("Alice", "connector-1", "BTC → USD", "connector-2", "USD → EUR", "connector-3", "EUR → ETH", "Bob"):
        assert part in shown
    assert shown.count("HTTP") == 1
    assert shown.count("BTP") == 3
    assert max(map(len, shown.splitlines())) <= width


def test_the_tables_say_what_left_arrived_and_was_earned(books: dict[str, NodeBooks]) -> None:
    shown = text_of(report.tables(DEMO, OUTCOME, books))
    for part in (
        "0.015 BTC",
        "0.381534456 ETH",
        "64089.874 USD/BTC",  # what connector-1 gave for what it took
        "2.40939343 USD",
        "0.0000008 USD",
        "F08 Amount Too Large",
        "T01 Peer Unreachable",
        "2.00 s (401 packets a second)",
    ):
        assert part in shown


def test_neighbours_that_agree_are_shown_with_both_amounts(books: dict[str, NodeBooks]) -> None:
    shown = text_of(report.agreement(DEMO, books, []))
    assert shown.count("961.34810577 USD") == 2
    assert shown.count("equal") == 4
    assert "All books agree to the unit" in shown


def test_a_debt_the_other_way_round_is_said_in_words(books: dict[str, NodeBooks]) -> None:
    for name, account in (("connector-3", "bob"), ("bob", "uplink")):
        books[name].tally.balances[account] *= -1
    shown = text_of(report.agreement(DEMO, books, []), 120)
    assert "is owed 0.381534456 ETH" in shown
    assert "owes 0.381534456 ETH" in shown
    assert shown.count("equal") == 4


def test_one_unit_is_a_disagreement(books: dict[str, NodeBooks]) -> None:
    books["bob"].tally.balances["uplink"] -= 1
    shown = text_of(report.agreement(DEMO, books, ["connector-3 has …"]))
    assert "1 apart" in shown
    assert shown.count("equal") == 3
    assert "agree to the unit" not in shown


def test_the_json_object_has_the_promised_keys_and_no_numbers_for_money(books: dict[str, NodeBooks]) -> None:
    shown = json.loads(json.dumps(report.as_json(DEMO, OUTCOME, books, [])))
    assert list(shown) == ["sent", "delivered", "packets", "rejected", "seconds", "nodes", "books_agree"]
    assert (shown["sent"], shown["delivered"], shown["packets"], shown["rejected"]) == ("1500000", "381534456", 802, 7)
    assert shown["books_agree"] is True
    names = [node["name"] for node in shown["nodes"]]
    assert names == ["alice", "connector-1", "connector-2", "connector-3", "bob"]
    assert shown["nodes"][0]["earnings"] == {}
    assert shown["nodes"][1] == {
        "name": "connector-1",
        "earnings": {"USD": "2409394230"},
        "accounts": [
            {"account": "alice", "asset_code": "BTC", "asset_scale": 8, "balance": "1500000"},
            {"account": "connector-2", "asset_code": "USD", "asset_scale": 9, "balance": "-961348105770"},
        ],
    }
    assert report.as_json(DEMO, OUTCOME, books, ["no"])["books_agree"] is False


@pytest.mark.parametrize(
    "rate, text",
    [
        (Fraction("64250.5"), "64250.5"),
        (Fraction(1, 2310), "0.00043290043"),
        (Fraction(1), "1"),
        (Fraction(2, 3), "0.66666667"),
        (Fraction(123_456_789_123), "123456789123"),
        (Fraction(0), "0"),
    ],
)
def test_rates_are_shown_with_eight_digits_and_no_exponent(rate: Fraction, text: str) -> None:
    assert report.rate_text(rate) == text


@pytest.mark.parametrize("delivered, kept", [(380_000_000, True), (379_999_999, False)])
def test_a_promise_is_kept_from_the_promised_unit_on(delivered: int, kept: bool) -> None:
    assert report.Outcome(sent=1, delivered=delivered, promised=380_000_000, packets=1).is_kept is kept
