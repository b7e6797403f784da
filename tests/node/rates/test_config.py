"""`[rates]` of a configuration: sources, and pairs that are fixed, fetched, or go via another asset."""

from fractions import Fraction
from pathlib import Path

import pytest

from isthmus.cli.rates_view import rate_lines
from isthmus.node.config import Checked, parse_config
from isthmus.node.config_model import FileFetch, HttpFetch, Rates
from isthmus.node.rates.answers import JsonForm

HEAD = 'address = "test.hub"\n'
GOOD = """
[rates]
spread = "0.2 %"
pace = "10 s"
"BTC/USD" = { source = "exchange", spread = "0.5 %", max_age = "30 s", jump = "20 %", least = "1000", most = "1/1 000" }
"EUR/USD" = { source = "bank" }
"USD/XRP" = { source = "ours" }
"ETH/USD" = { source = "coinbase" }
"BTC/EUR" = { via = "USD" }
"USD/MXN" = "17.05"
"EUR/MXN" = "18.25"

[rates.sources.bank]
type = "ecb"

[rates.sources.coinbase]
type = "coinbase"

[rates.sources.ours]
type = "file"
path = "rates.toml"
base = "USD"

[rates.sources.exchange]
type = "http"
url = "https://api.exchange.example/ticker"
quotes = { "BTC/USD" = "result.XXBTZUSD.c[0]", "ETH/USD" = "$.result.XETHZUSD.c[0]" }
as_of = "time"
key = { env = "KEY" }
key_header = "X-API-Key"
interval = "5 s"
timeout = "3 s"
""".replace("1/1 000", "1000000")


def checked(text: str) -> Checked:
    return parse_config(HEAD + text, Path("/etc/isthmus/node.toml"), {"KEY": "abc"})


def rates(text: str = GOOD) -> Rates:
    found = checked(text)
    assert found.config is not None, found.problems
    return found.config.rates


def problem(text: str) -> tuple[str, int | None, str]:
    problems = checked(text).problems
    assert len(problems) == 1, problems
    return problems[0].key, problems[0].line, problems[0].problem


def test_sources_have_sane_bounds_by_themselves() -> None:
    found = {source.name: source for source in rates().sources}
    bank, coinbase, ours, exchange = (found[name] for name in ("bank", "coinbase", "ours", "exchange"))
    assert (bank.base, bank.interval_ms, bank.max_age_ms, bank.jump_max) == (
        "EUR",
        3_600_000,
        446_400_000,
        Fraction(1, 10),
    )
    assert isinstance(bank.fetch, HttpFetch) and bank.fetch.form is None
    assert bank.fetch.url == "https://www.ecb.europa.eu/stats/eurofxref/eurofxref-daily.xml"
    assert isinstance(coinbase.fetch, HttpFetch)
    assert coinbase.fetch.url == "https://api.coinbase.com/v2/exchange-rates?currency=USD"
    assert coinbase.fetch.form == JsonForm(table=("data", "rates"), base="USD")
    assert (coinbase.base, coinbase.max_age_ms) == ("USD", 600_000)
    assert ours.fetch == FileFetch(path=Path("/etc/isthmus/rates.toml"))
    assert (ours.base, ours.interval_ms, ours.max_age_ms) == ("USD", 2_000, 3_600_000)
    assert isinstance(exchange.fetch, HttpFetch) and exchange.fetch.key is not None
    assert (exchange.interval_ms, exchange.fetch.timeout_ms, exchange.fetch.key_header) == (5_000, 3_000, "X-API-Key")
    assert exchange.fetch.form == JsonForm(
        quotes=((("BTC", "USD"), ("result", "XXBTZUSD", "c", 0)), (("ETH", "USD"), ("result", "XETHZUSD", "c", 0))),
        as_of=("time",),
    )
    assert "abc" not in repr(rates())


def test_pairs_take_their_sources_bounds_or_their_own() -> None:
    """P-1."""
    pairs = {pair.codes: pair for pair in rates().pairs}
    btc, eur = pairs["BTC", "USD"], pairs["EUR", "USD"]
    assert (btc.max_age_ms, btc.jump_max) == (30_000, Fraction(1, 5))
    assert (btc.least, btc.most) == (Fraction(1000), Fraction(1_000_000))
    assert (eur.max_age_ms, eur.jump_max, eur.least, eur.most) == (446_400_000, Fraction(1, 10), None, None)
    assert pairs["USD", "MXN"].rate == Fraction("17.05") and pairs["BTC", "EUR"].via == "USD"
    assert rates().pace_ms == 10_000


def test_check_says_what_would_be_done() -> None:
    lines = list(rate_lines(rates()))
    assert "Rates from bank: https://www.ecb.europa.eu/stats/eurofxref/eurofxref-daily.xml, every 1 h" in lines
    assert "Rates from coinbase: https://api.coinbase.com/v2/exchange-rates, every 1 min" in lines
    assert "Rates from ours: /etc/isthmus/rates.toml, every 2 s" in lines
    assert (
        "1 BTC = what exchange says in USD (stops when older than 30 s or moved by 20 % or below 1000 or above 1000000)"
        ", spread 0.5 %"
    ) in lines
    assert "1 BTC = as many EUR as its USD are worth, spread 0.2 %" in lines
    assert "1 USD = 17.05 MXN, spread 0.2 %" in lines


@pytest.mark.parametrize(
    ("old", "new", "key", "what"),
    [
        ('source = "bank"', 'source = "bnak"', 'rates."EUR/USD".source', "there is no source 'bnak'"),
        ('{ source = "bank" }', '{ source = "bank", rate = "1" }', 'rates."EUR/USD"', "can't both hold"),
        ('{ source = "bank" }', "{ }", 'rates."EUR/USD"', "it has no rate"),
        ('{ source = "bank" }', '{ rate = "1", jump = "5 %" }', 'rates."EUR/USD"', "are for fetched rates"),
        ('via = "USD"', 'via = "MXN"', 'rates."BTC/EUR"', "there is no rate BTC/MXN"),
        ('least = "1000"', 'least = "10000000"', 'rates."BTC/USD".least', "above most"),
        ('jump = "20 %"', 'jump = "20"', 'rates."BTC/USD".jump', "not a part of a rate"),
        ('jump = "20 %"', 'jump = "0 %"', 'rates."BTC/USD".jump', "not a part of a rate"),
        ('max_age = "30 s"', 'max_age = "30"', 'rates."BTC/USD".max_age', "not a duration"),
        ('type = "ecb"', 'type = "fed"', "rates.sources.bank.type", "'fed' is not known here"),
        ('type = "ecb"', 'type = "ecb"\npath = "x"', "rates.sources.bank.path", "no such key"),
        ('path = "rates.toml"', 'path = "rates.csv"', "rates.sources.ours.path", "neither .toml nor .json"),
        ("https://api.exchange", "http://api.exchange", "rates.sources.exchange.url", "in the clear"),
        ("https://api.exchange", "ftp://api.exchange", "rates.sources.exchange.url", "not an http(s) URL"),
        ('{ env = "KEY" }', '"abc"', "rates.sources.exchange.key", "stands in this file"),
        ('{ env = "KEY" }', '{ env = "NONE" }', "rates.sources.exchange.key", "NONE is not set"),
        ('key_header = "X-API-Key"', "", "rates.sources.exchange.key", "key goes with"),
        ('key_header = "X-API-Key"', 'key_header = "a b"', "rates.sources.exchange.key_header", "not the name"),
        (
            'key_header = "X-API-Key"',
            'key_header = "a"\nkey_query = "b"',
            "rates.sources.exchange.key_query",
            "given too",
        ),
        ('as_of = "time"', 'as_of = "time["', "rates.sources.exchange.as_of", "no place in JSON"),
        ('"ETH/USD" = "$', '"ETHUSD" = "$', "rates.sources.exchange.quotes.ETHUSD", "not a pair"),
        ('source = "ours"', 'source = "exchange"', 'rates."USD/XRP".source', "exchange doesn't tell USD/XRP"),
        ('as_of = "time"', 'table = "data"', "rates.sources.exchange.base", "missing"),
        ('interval = "5 s"', 'interval = "5 ms"', "rates.sources.exchange.interval", "out of range"),
        ('pace = "10 s"', 'pace = "10 ms"', "rates.pace", "out of range"),
        ('pace = "10 s"', 'pace = "10 s"\nsources = 3', "syntax", "not TOML"),
    ],
)
def test_mistakes_are_told_with_key_and_line(old: str, new: str, key: str, what: str) -> None:
    assert GOOD.count(old) == 1, old
    text = GOOD.replace(old, new)
    found, line, told = problem(text)
    assert found == key and what in told
    place = new.rsplit("\n", maxsplit=1)[-1] if "\n" in new else new
    if place and key != "syntax" and "base" not in key and key != "rates.sources.exchange.key":
        assert line is not None and place in (HEAD + text).split("\n")[line - 1]


def test_a_source_that_says_nothing_is_a_mistake() -> None:
    text = '[rates.sources.x]\ntype = "http"\nurl = "https://x.example"\n'
    assert problem(text) == ("rates.sources.x", 2, "nothing in its answer is named")


def test_no_source_is_a_warning_where_a_pair_has_one() -> None:
    """And what is fetched is no pair without a rate."""
    account = '[accounts.{0}]\nasset = "{1}"\nscale = 2\nrelation = "child"\n'
    account += 'link = {{ type = "btp-server", token = "{0}" }}\n'
    limits = '[accounts.{0}.limits]\nreceivable = "0"\n'
    accounts = "".join((account + limits).format(*each) for each in (("a", "EUR"), ("b", "USD")))
    listener = '[listeners.btp]\nlisten = "127.0.0.1:0"\n'
    found = checked(GOOD + accounts + listener)
    assert found.config is not None, found.problems
    assert not [one for one in found.warnings if "rate" in one]
