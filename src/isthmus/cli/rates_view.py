"""Rates for people: those of a configuration, and those of a running node."""

from collections.abc import Iterator
from fractions import Fraction

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
