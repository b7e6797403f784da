"""Rates for people: those of a configuration, and those of a running node."""

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

from rich.table import Table

from isthmus.cli.books_view import cell, new_table
from isthmus.node.config_model import FileFetch, Pair, Rates, RateSource
from isthmus.node.config_values import duration_text
from isthmus.node.rates.exact import decimal_text


def rate_lines(rates: Rates) -> Iterator[str]:
    """What a node would do with its rates: each source, then each pair."""
    for source in rates.sources:
        yield f"Rates from {source.name}: {_where(source)}, every {duration_text(source.interval_ms)}"
    for pair in rates.pairs:
        spread = pair.spread if pair.spread is not None else rates.spread
        yield f"1 {pair.source} = {_how(pair)}, spread {percent_text(spread)}"


def _where(source: RateSource) -> str:
    if isinstance(source.fetch, FileFetch):
        return str(source.fetch.path)
    # Without the query, where people put keys whatever we say.
    return source.fetch.url.partition("?")[0]


def _how(pair: Pair) -> str:
    if pair.rate is not None:
        return f"{decimal_text(pair.rate)} {pair.destination}"
    if pair.via is not None:
        return f"as many {pair.destination} as its {pair.via} are worth"
    assert pair.fetched is not None
    bounds = [f"stops when older than {duration_text(pair.max_age_ms)}", f"or moved by {percent_text(pair.jump_max)}"]
    if pair.least is not None:
        bounds.append(f"or below {decimal_text(pair.least)}")
    if pair.most is not None:
        bounds.append(f"or above {decimal_text(pair.most)}")
    return f"what {pair.fetched.name} says in {pair.destination} ({' '.join(bounds)})"


def percent_text(part: Fraction) -> str:
    return f"{decimal_text(part * 100, 6)} %"


# --- of a running node -----------------------------------------------------------------------------------------------


def rates_table(found: list[dict[str, Any]], spread: str) -> Table:
    table = new_table("Rates", "pair", "rate", "from", "age", "spread", "state")
    for each in found:
        rate = "none yet" if each["rate"] is None else decimal_text(Fraction(each["rate"]))
        own = spread if each["spread"] is None else each["spread"]
        note = "" if each["spread"] is not None else " or the account's"
        row = (each["pair"], rate, each["source"], _age(each["age_ms"]), f"{percent_text(Fraction(own))}{note}")
        table.add_row(*map(cell, (*row, state_text(each))))
    return table


def state_text(shown: dict[str, Any]) -> str:
    if shown["state"] != "stopped":
        return f"trading; {shown['problem']}" if shown["problem"] else "trading"
    parts = [f"stopped: {shown['why']}"]
    if shown["offered"] is not None:
        parts.append(f"its source says {decimal_text(Fraction(shown['offered']))}")
    if shown["problem"]:
        parts.append(shown["problem"])
    return "; ".join(parts)


def _age(age_ms: int | None) -> str:
    if age_ms is None:
        return ""
    seconds = age_ms // 1000
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
