"""`[rates]` of a configuration: pairs of assets, and the sources that their rates are fetched from.

What can be said only with all keys at hand is checked here, like the links in `config_links`.
"""

from fractions import Fraction
from typing import Any, Final, final

from isthmus.errors import ConfigError
from isthmus.links.http.urls import check_url
from isthmus.node import config_model as model
from isthmus.node import tls
from isthmus.node.config_lines import KeyPath
from isthmus.node.config_model import FileFetch, HttpFetch, Pair, Rates, RateSource
from isthmus.node.config_reader import Bad, Choice, Incomplete, Key, Section, Source, Table, describe
from isthmus.node.config_schema_tls import CLIENT_TLS
from isthmus.node.config_values import (
    Boolean,
    Duration,
    FilePath,
    Jump,
    KeptSecret,
    Mapped,
    PathInJson,
    Rate,
    Spread,
    Text,
)
from isthmus.node.rates.answers import ECB_BASE, JsonForm
from isthmus.node.rates.exact import cross, split_pair

ECB_URL: Final = "https://www.ecb.europa.eu/stats/eurofxref/eurofxref-daily.xml"
COINBASE_URL: Final = "https://api.coinbase.com/v2/exchange-rates?currency={base}"

SECOND_MS: Final = 1_000
HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS
# The ECB's longest pause: from Maundy Thursday to Tuesday after Easter. Some hours more, for its own delays.
ECB_MAX_AGE_MS: Final = 5 * DAY_MS + 4 * HOUR_MS
MAX_AGE_MS: Final = 600_000
FILE_MAX_AGE_MS: Final = HOUR_MS
JUMP_MAX: Final = Fraction(1, 10)
PACE_MS: Final = 5_000
SOURCES_MAX: Final = 64
PAIRS_MAX: Final = 1_024  # judging and journaling as many keeps the loop for some 10 ms
_HOW: Final = ("rate", "source", "via")
_PAIR_REMEDY: Final = 'Write it as "BTC/USD" = "64250.5".'


# --- keys ------------------------------------------------------------------------------------------------------------

_AGE: Final = "How old the last good rate may be; then the pair stops."
_JUMP: Final = (
    "How far a new rate may lie from the last accepted one; then the pair stops until `isthmus rates accept`."
)

RATE: Final[Section] = (
    Key("rate", Rate(), "Units of the second asset for one unit of the first, fixed.", None, "or `source`, or `via`"),
    Key("source", Text(), "The name of the source that it is fetched from.", None, "or `rate`, or `via`"),
    Key(
        "via",
        Text(),
        "A third asset: the rate is that of the first to it times that of it to the second, as given here.",
        None,
        "or `rate`, or `source`",
    ),
    Key("spread", Spread(), "Our part of this pair's conversions.", None, "the account's"),
    Key("max_age", Duration(SECOND_MS, 30 * DAY_MS), _AGE, None, "the source's"),
    Key("jump", Jump(), _JUMP, None, "the source's"),
    Key("least", Rate(), "A fetched rate below it is not believed.", None, "none"),
    Key("most", Rate(), "A fetched rate above it is not believed.", None, "none"),
)


def _polled(interval_ms: int, interval: str, max_age_ms: int, max_age: str) -> Section:
    return (
        Key(
            "interval",
            Duration(SECOND_MS, DAY_MS),
            "How long after an answer to ask again; after a failure sooner.",
            interval_ms,
            f'`"{interval}"`',
        ),
        Key("max_age", Duration(SECOND_MS, 30 * DAY_MS), _AGE, max_age_ms, f'`"{max_age}"`'),
        Key("jump", Jump(), _JUMP, JUMP_MAX, '`"10 %"`'),
    )


_ACCESS: Final[Section] = (
    Key(
        "timeout",
        Duration(100, 60_000),
        "How long an answer may take, from connecting to its last byte.",
        10_000,
        '`"10 s"`',
    ),
    Key("tls", Table(CLIENT_TLS, model.ClientTls), "Certificates.", model.ClientTls(), "the system's"),
    Key("allow_insecure", Boolean(), "Allow no TLS beyond this machine, where another layer encrypts.", False),
)

SOURCE: Final = Choice(
    "type",
    {
        "file": (
            (
                Key(
                    "path", FilePath(must_exist=False), "A `.toml` or `.json` file, replaced whole by a tool of yours."
                ),
                Key("base", Text(), "The asset through which pairs are crossed that it doesn't name.", None, "none"),
                *_polled(2_000, "2 s", FILE_MAX_AGE_MS, "1 h"),
            ),
            dict,
        ),
        "http": (
            (
                Key("url", Text(), "Where an answer in JSON is fetched; without a key in it."),
                Key(
                    "quotes",
                    Mapped(PathInJson()),
                    'Pair → place in the answer: `"BTC/USD" = "bitcoin.usd"`.',
                    {},
                    "none",
                ),
                Key("table", PathInJson(), "The place of an object of asset codes and rates to `base`.", None, "none"),
                Key(
                    "base",
                    Text(),
                    "One unit of it is worth what `table` says; other pairs are crossed through it.",
                    None,
                    "none",
                ),
                Key("as_of", PathInJson(), "The place of the time that the rates are of.", None, "when it is fetched"),
                Key("key", KeptSecret(), "A key to the API.", None, "none"),
                Key("key_header", Text(), "The header that the key goes into.", None, "or `key_query`"),
                Key("key_query", Text(), "The parameter of the query that the key goes into.", None, "or `key_header`"),
                *_polled(60_000, "1 min", MAX_AGE_MS, "10 min"),
                *_ACCESS,
            ),
            dict,
        ),
        "ecb": (
            (
                Key("url", Text(), "Where the ECB's daily XML is fetched.", ECB_URL, "the ECB's"),
                *_polled(HOUR_MS, "1 h", ECB_MAX_AGE_MS, "124 h"),
                *_ACCESS,
            ),
            dict,
        ),
        "coinbase": (
            (
                Key("base", Text(), "The asset whose rates are asked for; pairs are crossed through it.", "USD"),
                Key("url", Text(), "Where; `{base}` stands for the asset.", COINBASE_URL, "Coinbase's, without a key"),
                *_polled(60_000, "1 min", MAX_AGE_MS, "10 min"),
                *_ACCESS,
            ),
            dict,
        ),
    },
)

PACE: Final = Duration(100, HOUR_MS)


@final
class RatesTable:
    """`spread`, `pace` and `sources` beside pairs, each a rate alone or a table."""

    label = "table"

    def read(self, value: object, source: Source, path: KeyPath) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise Bad(f"a table is needed, not {describe(value)}", "Write rates below [rates].")
        found: dict[str, Any] = {}
        for name, item in value.items():
            here = (*path, name)
            try:
                found[name] = _read(name, item, source, here)
            except Bad as bad:
                source.problem(here, bad.problem, bad.remedy)
            except Incomplete:
                continue
        return found


def _read(name: str, item: object, source: Source, here: KeyPath) -> Any:
    if name == "spread":
        return Spread().read(item, source, here)
    if name == "pace":
        return PACE.read(item, source, here)
    if name == "sources":
        read = Mapped(SOURCE).read(item, source, here)
        return {**dict.fromkeys(item), **read} if isinstance(item, dict) else read  # None: what is wrong was said
    if isinstance(item, dict):
        return Table(RATE).read(item, source, here)
    nothing: dict[str, Any] = dict.fromkeys(key.name for key in RATE)
    return {**nothing, "rate": Rate().read(item, source, here)}


# --- values ----------------------------------------------------------------------------------------------------------


def build_rates(source: Source, given: dict[str, Any]) -> Rates:
    """What the schema read, as values; reports what only shows between keys."""
    raw_sources: dict[str, Any] = given.get("sources") or {}
    sources: dict[str, RateSource | None] = {}
    for name, raw in raw_sources.items():
        path = ("rates", "sources", name)
        sources[name] = None if raw is None else _source(source, path, name, raw)
    if len(sources) > SOURCES_MAX:
        source.problem(("rates", "sources"), f"{len(sources)} of them", f"Keep at most {SOURCES_MAX}.")
    pairs: list[Pair] = []
    for name, raw in given.items():
        if name in ("spread", "pace", "sources"):
            continue
        codes = split_pair(name)
        if codes is None:
            source.problem(("rates", name), "not a pair of assets", _PAIR_REMEDY)
            continue
        pair = _pair(source, ("rates", name), codes, raw, sources)
        if pair is not None:
            pairs.append(pair)
    if len(pairs) > PAIRS_MAX:
        source.problem(("rates",), f"{len(pairs)} pairs", f"Keep at most {PAIRS_MAX}.")
    _check_ways(source, pairs)
    return Rates(
        spread=given.get("spread", Fraction(0)),
        pairs=tuple(pairs),
        sources=tuple(each for each in sources.values() if each is not None),
        pace_ms=given.get("pace", PACE_MS),
    )


def _pair(
    source: Source,
    path: KeyPath,
    codes: tuple[str, str],
    raw: dict[str, Any],
    sources: dict[str, RateSource | None],
) -> Pair | None:
    ways = [name for name in _HOW if raw[name] is not None]
    if len(ways) != 1:
        problem = "it has no rate" if not ways else f"{' and '.join(ways)} can't both hold"
        source.problem(path, problem, 'Write a rate, or { source = "NAME" }, or { via = "USD" }.')
        return None
    least, most = raw["least"], raw["most"]
    if least is not None and most is not None and least > most:
        source.problem((*path, "least"), "it is above most", "Exchange them.")
    fetched = None
    if raw["source"] is not None:
        name = raw["source"]
        if name not in sources:
            known = ", ".join(sorted(sources)) or "none yet"
            source.problem((*path, "source"), f"there is no source {name!r}", f"Sources: {known}.")
            return None
        fetched = sources[name]
        if fetched is None:
            return None  # what is wrong with it was said
        _check_quoted(source, path, codes, fetched)
    elif any(raw[name] is not None for name in ("max_age", "jump", "least", "most")):
        source.problem(path, "max_age, jump, least and most are for fetched rates", "Give it a source, or remove them.")
    return Pair(
        source=codes[0],
        destination=codes[1],
        rate=raw["rate"],
        spread=raw["spread"],
        fetched=fetched,
        via=raw["via"],
        max_age_ms=raw["max_age"] or (fetched.max_age_ms if fetched else 0),
        jump_max=raw["jump"] if raw["jump"] is not None else fetched.jump_max if fetched else Fraction(0),
        least=least,
        most=most,
    )


def _check_quoted(source: Source, path: KeyPath, codes: tuple[str, str], fetched: RateSource) -> None:
    """Whether the source can ever tell this pair, as far as its settings say what it tells."""
    fetch = fetched.fetch
    if isinstance(fetch, FileFetch) or fetch.form is None or fetch.form.table is not None:
        return
    quotes = dict.fromkeys((each for each, _ in fetch.form.quotes), Fraction(1))
    if cross(quotes, codes[0], codes[1], fetched.base) is None:
        through = f", nor a way through {fetched.base}" if fetched.base else ""
        source.problem(
            (*path, "source"),
            f"{fetched.name} doesn't tell {codes[0]}/{codes[1]}{through}",
            f"Add it to rates.sources.{fetched.name}.quotes, or set base there.",
        )


def _check_ways(source: Source, pairs: list[Pair]) -> None:
    """Both parts of a pair that goes via a third asset are there, and go straight."""
    if any(problem.key.startswith("rates") for problem in source.problems):
        return  # a part may be among them
    straight = {codes for pair in pairs if pair.via is None for codes in (pair.codes, pair.codes[::-1])}
    for pair in pairs:
        if pair.via is None:
            continue
        for codes in ((pair.source, pair.via), (pair.via, pair.destination)):
            if codes not in straight:
                source.problem(
                    ("rates", f"{pair.source}/{pair.destination}"),
                    f"there is no rate {codes[0]}/{codes[1]} to go by",
                    "Give one, fixed or from a source.",
                )


def _source(source: Source, path: KeyPath, name: str, raw: dict[str, Any]) -> RateSource | None:
    before = len(source.problems)
    base: str | None = raw.get("base")
    fetch: FileFetch | HttpFetch
    if "path" in raw:
        fetch = FileFetch(path=raw["path"])
        if fetch.path.suffix not in (".toml", ".json"):
            source.problem((*path, "path"), "neither .toml nor .json", "Name it by what is in it.")
    elif "quotes" in raw:
        fetch = _http(source, path, raw)
    elif "base" in raw:
        form = JsonForm(table=("data", "rates"), base=raw["base"])
        fetch = _get(source, path, raw, raw["url"].replace("{base}", raw["base"]), form)
    else:
        fetch = _get(source, path, raw, raw["url"], None)
        base = ECB_BASE
    if len(source.problems) != before:
        return None
    return RateSource(
        name=name,
        fetch=fetch,
        base=base,
        interval_ms=raw["interval"],
        max_age_ms=raw["max_age"],
        jump_max=raw["jump"],
    )


def _http(source: Source, path: KeyPath, raw: dict[str, Any]) -> HttpFetch:
    quotes = []
    for name, place in raw["quotes"].items():
        codes = split_pair(name)
        if codes is None:
            source.problem((*path, "quotes", name), "not a pair of assets", 'Write it as "BTC/USD" = "bitcoin.usd".')
        else:
            quotes.append((codes, place))
    if not quotes and raw["table"] is None:
        source.problem(path, "nothing in its answer is named", "Give quotes or table.")
    if raw["table"] is not None and raw["base"] is None:
        source.problem((*path, "base"), "missing", "Name the asset that the table's rates are of.")
    if (raw["key"] is None) != (raw["key_header"] is None and raw["key_query"] is None):
        source.problem((*path, "key"), "key goes with key_header or key_query", "Give both, or neither.")
    if raw["key_header"] is not None and raw["key_query"] is not None:
        source.problem((*path, "key_query"), "key_header is given too", "The key goes into one of them.")
    if raw["key_header"] is not None and not raw["key_header"].replace("-", "").isalnum():
        source.problem((*path, "key_header"), "not the name of a header", 'Write it like "X-API-Key".')
    form = JsonForm(quotes=tuple(quotes), table=raw["table"], base=raw["base"] or "", as_of=raw["as_of"])
    return _get(source, path, raw, raw["url"], form)


def _get(source: Source, path: KeyPath, raw: dict[str, Any], url: str, form: JsonForm | None) -> HttpFetch:
    try:
        check_url("url", url, allow_insecure=raw["allow_insecure"])
    except ConfigError as error:
        source.problem((*path, "url"), error.problem.replace("tokens and packets", "what is asked"), error.remedy)
    try:
        tls.client_context(raw["tls"])
    except ConfigError as error:
        source.problem((*path, "tls"), error.problem, error.remedy)
    return HttpFetch(
        url=url,
        form=form,
        key=raw.get("key"),
        key_header=raw.get("key_header"),
        key_query=raw.get("key_query"),
        timeout_ms=raw["timeout"],
        tls=raw["tls"],
        allow_insecure=raw["allow_insecure"],
    )
