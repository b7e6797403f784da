"""What sources answer: recorded ones are read, and whatever else comes is refused with the reason."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.node.rates.answers import Answer, JsonForm, read_ecb, read_file, read_json
from isthmus.node.rates.exact import AnswerError
from isthmus.node.rates.paths import parse_path

ANSWERS = Path(__file__).parent / "answers"
ECB = (ANSWERS / "eurofxref-daily.xml").read_bytes()
BTC_USD = ("BTC", "USD")
PRICE = JsonForm(quotes=((BTC_USD, ("price",)),))
TABLE = JsonForm(table=("data", "rates"), base="USD")


def wall(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


# --- recorded answers ------------------------------------------------------------------------------------------------


def test_the_ecbs_rates_are_of_the_euro_and_of_their_day() -> None:
    """P-1."""
    answer = read_ecb(ECB, ["EUR", "USD", "GBP"])
    assert answer.quotes == {("EUR", "USD"): Fraction("1.0705"), ("EUR", "GBP"): Fraction("0.84638")}
    assert answer.as_of_ms == wall("2024-06-28T14:00:00")
    assert not answer.problems


def test_a_table_of_coinbase() -> None:
    """P-1: only what is wanted is read."""
    answer = read_json((ANSWERS / "coinbase.json").read_bytes(), TABLE, ["BTC", "EUR", "USD"])
    assert answer.quotes == {BTC_USD[::-1]: Fraction("0.0000155634719454"), ("USD", "EUR"): Fraction("0.9224")}
    assert answer.as_of_ms is None


def test_quotes_of_kraken_and_coingecko() -> None:
    """P-1: numbers in strings, and numbers with exponents, from their text."""
    form = JsonForm(quotes=((BTC_USD, parse_path("result.XXBTZUSD.c[0]")),))
    assert read_json((ANSWERS / "kraken.json").read_bytes(), form, []).quotes == {BTC_USD: Fraction("64253.4")}
    form = JsonForm(
        quotes=((BTC_USD, parse_path("bitcoin.usd")), (("XRP", "EUR"), parse_path("$.ripple.eur"))),
        as_of=parse_path("bitcoin.last_updated_at"),
    )
    answer = read_json((ANSWERS / "coingecko.json").read_bytes(), form, [])
    assert answer.quotes == {BTC_USD: Fraction("64253.4"), ("XRP", "EUR"): Fraction("0.4373")}
    assert answer.as_of_ms == 1719562800_000


# --- JSON that is not what was agreed --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"<html>busy</html>",
        (ANSWERS / "coinbase.json").read_bytes()[:-20],
        b'{"price": NaN}',
        b'{"price": Infinity}',
        b'{"price": -Infinity}',
        b"\xff\xfe\x00",
        b"[" * 100_000,
        b'{"a":' * 100_000,
    ],
)
def test_what_is_not_json_is_refused_whole(body: bytes) -> None:
    """P-9: NaN too, which Python would take."""
    with pytest.raises(AnswerError):
        read_json(body, PRICE, [])


@pytest.mark.parametrize(
    "price",
    ["0", "-1", "1e400", "null", "true", "[]", "{}", '"NaN"', '"0"', '"-5"', '""', '"1e400"', "9" * 5_000, '"1 USD"'],
)
def test_a_bad_number_is_told_with_its_pair(price: str) -> None:
    """P-9: the others stay usable."""
    form = JsonForm(quotes=((BTC_USD, ("price",)), (("XRP", "USD"), ("other",))))
    answer = read_json(b'{"other": 2, "price": %s}' % price.encode(), form, [])
    assert answer.quotes == {("XRP", "USD"): 2}
    assert list(answer.problems) == [BTC_USD]
    assert len(answer.problems[BTC_USD]) < 200


def test_a_table_of_another_base_is_refused_whole() -> None:
    """A source that answers for euros when dollars were asked would be a wrong price for all."""
    with pytest.raises(AnswerError, match="not those of one USD"):
        read_json(b'{"data": {"rates": {"USD": "1.07", "EUR": "1"}}}', TABLE, ["EUR"])
    with pytest.raises(AnswerError, match="no object"):
        read_json(b'{"data": {"rates": [1]}}', TABLE, ["EUR"])
    with pytest.raises(AnswerError, match="nothing at"):
        read_json(b'{"data": null}', TABLE, ["EUR"])


def test_bad_numbers_of_a_table_are_told_and_unwanted_ones_are_not_looked_at() -> None:
    answer = read_json(b'{"data": {"rates": {"BTC": 0, "EUR": 2, "ODD": "?"}}}', TABLE, ["BTC", "EUR", "GBP"])
    assert answer.quotes == {("USD", "EUR"): 2}
    assert list(answer.problems) == [("USD", "BTC")]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("1719562800", 1719562800_000),
        ("1719562800.5", 1719562800_500),
        ("1719562800500", 1719562800_500),
        ('"1719562800"', 1719562800_000),
        ('"2024-06-28T08:20:00Z"', 1719562800_000),
        ('"2024-06-28T10:20:00+02:00"', 1719562800_000),
    ],
)
def test_times_are_unix_or_with_a_zone(value: str, expected: int) -> None:
    form = JsonForm(quotes=((BTC_USD, ("price",)),), as_of=("at",))
    assert read_json(b'{"price": 1, "at": %s}' % value.encode(), form, []).as_of_ms == expected


@pytest.mark.parametrize("value", ['"2024-06-28T08:20:00"', '"yesterday"', "-5", "1e9", "null", '"99999-01-01"', "{}"])
def test_a_time_that_could_be_another_is_refused(value: str) -> None:
    form = JsonForm(quotes=((BTC_USD, ("price",)),), as_of=("at",))
    with pytest.raises(AnswerError):
        read_json(b'{"price": 1, "at": %s}' % value.encode(), form, [])


@given(
    st.binary(max_size=200)
    | st.recursive(st.none() | st.floats() | st.text(), st.lists).map(json.dumps).map(str.encode)
)
def test_any_bytes_are_an_answer_or_refused(body: bytes) -> None:
    """P-9."""
    readers: tuple[Callable[[], Answer], ...] = (
        lambda: read_json(body, PRICE, ["USD"]),
        lambda: read_json(body, TABLE, ["USD"]),
        lambda: read_ecb(body, ["USD"]),
        lambda: read_file(body, is_toml=True),
        lambda: read_file(body, is_toml=False),
    )
    for read in readers:
        try:
            answer = read()
        except AnswerError:
            continue
        assert all(rate > 0 for rate in answer.quotes.values())


# --- XML that is not the ECB's ---------------------------------------------------------------------------------------

BOMB = (
    b'<?xml version="1.0"?><!DOCTYPE z [<!ENTITY a "aaaaaaaaaa">'
    + b"".join(b'<!ENTITY %c "%s">' % (c, b"&%c;" % (c - 1) * 10) for c in range(ord("b"), ord("k")))
    + b"]><z>&j;</z>"
)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "not XML"),
        (ECB[:-30], "not XML"),
        (b'{"price": 1}', "not XML"),
        (BOMB, "document type"),
        (b'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><x>&e;</x>', "document type"),
        (b'<!DOCTYPE x SYSTEM "http://127.0.0.1/x.dtd"><x/>', "document type"),
        (b"<a>" * 50_000, "too deep"),
        (b"<Envelope/>", "no day"),
        (ECB.replace(b"time='2024-06-28'", b"time='today'"), "not a day"),
        (ECB.replace(b"<Cube time='2024-06-28'>", b"<Cube>"), "without a day"),
        (ECB.replace(b"currency='JPY'", b"currency='USD'"), "twice"),
        (ECB.replace(b"<Cube currency='JPY' rate='171.94'/>", b"<Cube time='2024-06-27'/>"), "more than one day"),
        (b'<?xml version="1.0" encoding="no-such"?><a/>', "not XML"),
    ],
)
def test_other_xml_is_refused_whole(body: bytes, why: str) -> None:
    """P-9: no entity is ever expanded or fetched."""
    with pytest.raises(AnswerError, match=why):
        read_ecb(body, ["USD", "GBP"])


def test_a_bad_rate_of_the_ecb_is_told_with_its_pair() -> None:
    for bad in (b"0", b"-1.07", b"N/A", b""):
        answer = read_ecb(ECB.replace(b"rate='1.0705'", b"rate='%s'" % bad), ["USD", "GBP"])
        assert list(answer.quotes) == [("EUR", "GBP")] and list(answer.problems) == [("EUR", "USD")]


# --- the operator's file ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "is_toml"),
    [
        ('as_of = 2024-06-28T14:00:00Z\n[rates]\n"EUR/USD" = "1.0705"\n"BTC/USD" = 64253.4\n"A/B" = 3', True),
        ('{"as_of": "2024-06-28T14:00:00Z", "rates": {"EUR/USD": "1.0705", "BTC/USD": 64253.4, "A/B": 3}}', False),
    ],
)
def test_the_operators_file_in_both_languages(text: str, is_toml: bool) -> None:
    """P-1: numbers with a point are read from their text too."""
    answer = read_file(text.encode(), is_toml=is_toml)
    assert answer.as_of_ms == wall("2024-06-28T14:00:00")
    assert answer.quotes == {("EUR", "USD"): Fraction("1.0705"), BTC_USD: Fraction("64253.4"), ("A", "B"): 3}


@pytest.mark.parametrize(
    ("text", "is_toml", "why"),
    [
        ("[rates", True, "not TOML"),
        ("{", False, "not JSON"),
        ("[]", False, 'no table "rates"'),
        ("[rates]", True, 'no table "rates"'),
        ('[rates]\nEURUSD = "1"', True, "not a pair"),
        ('[rates]\n"EUR/USD" = "0"', True, "EUR/USD: .* not above zero"),
        ('[rates]\n"EUR/USD" = nan', True, "not a number"),
        ('[rates]\n"EUR/USD" = -inf', True, "not a number"),
        ('[rates]\n"EUR/USD" = 1e400', True, "beyond all prices|not a number"),
        ('[rates]\n"EUR/USD" = true', True, "no number"),
        ('as_of = 2024-06-28T14:00:00\n[rates]\n"EUR/USD" = 1', True, "zone"),
        ('as_of = 2024-06-28\n[rates]\n"EUR/USD" = 1', True, "zone"),
    ],
)
def test_one_bad_entry_spoils_the_operators_file(text: str, is_toml: bool, why: str) -> None:
    """Half a file may be half written."""
    with pytest.raises(AnswerError, match=why):
        read_file(text.encode(), is_toml=is_toml)
