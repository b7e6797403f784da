"""What sources answer, from bytes to quotes: JSON anywhere on the web, the ECB's XML, and a file of the operator's.

Nothing in an answer is trusted: its size was bounded before it came here, every number is read from its text, and
one that can't be used is told with its pair, so that the others stay usable.
"""

import json
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from fractions import Fraction
from typing import Any, Final, NoReturn
from xml.parsers import expat

from isthmus.node.rates.exact import AnswerError, Codes, Quotes, read_rate, split_pair
from isthmus.node.rates.paths import JsonPath, follow, path_text

QUOTES_MAX: Final = 4_096
# Published at about 16:00 in Frankfurt, which is 14:00 UTC in summer: rather a rate looks too old than too young.
ECB_PUBLISHED: Final = time(14, tzinfo=UTC)
ECB_BASE: Final = "EUR"
XML_DEPTH_MAX: Final = 16


@dataclass(slots=True, frozen=True)
class Answer:
    """What a source says. `problems` are of single pairs, `as_of_ms` (wall) is its own word, if it has one."""

    quotes: Quotes
    as_of_ms: int | None = None
    problems: Mapping[Codes, str] = field(default_factory=dict)


class _Number(str):
    """A number of a document, as it was written there."""

    __slots__ = ()


# --- JSON ------------------------------------------------------------------------------------------------------------


@dataclass(slots=True, frozen=True, kw_only=True)
class JsonForm:
    """Where an answer in JSON has what we want: single quotes by path, or a table of codes with a base, or both."""

    quotes: tuple[tuple[Codes, JsonPath], ...] = ()
    table: JsonPath | None = None
    base: str = ""  # one unit of it is worth what the table says of each code
    as_of: JsonPath | None = None


def read_json(body: bytes, form: JsonForm, wanted: Iterable[str]) -> Answer:
    """The quotes in a JSON answer; of a table only the codes that are wanted. AnswerError if it is none."""
    document = _json(body)
    quotes: dict[Codes, Fraction] = {}
    problems: dict[Codes, str] = {}
    for codes, path in form.quotes:
        try:
            quotes[codes] = read_rate(_text(follow(document, path), path_text(path)))
        except AnswerError as error:
            problems[codes] = str(error)
    if form.table is not None:
        table = follow(document, form.table)
        if not isinstance(table, dict):
            raise AnswerError(f"there is no object at {path_text(form.table)}")
        own = table.get(form.base)
        if own is not None and read_rate(_text(own, form.base)) != 1:
            raise AnswerError(
                f"its rates are not those of one {form.base}: it says {_shown(own)} for {form.base} itself"
            )
        for code in sorted(set(wanted) - {form.base}):
            if code not in table:
                continue
            try:
                quotes[form.base, code] = read_rate(_text(table[code], code))
            except AnswerError as error:
                problems[form.base, code] = str(error)
    as_of_ms = None if form.as_of is None else _instant(follow(document, form.as_of))
    return Answer(quotes, as_of_ms, problems)


def _json(body: bytes) -> Any:
    def refuse(name: str) -> NoReturn:
        raise AnswerError(f"it holds {name}, which is no number")

    try:
        return json.loads(body, parse_float=_Number, parse_int=_Number, parse_constant=refuse)
    except (ValueError, RecursionError):  # ValueError: also text that is not UTF-8
        raise AnswerError("it is not JSON") from None


def _text(value: object, where: str) -> str:
    """A number, or one in a string."""
    if isinstance(value, str):
        return value
    raise AnswerError(f"there is no number at {where}")


def _shown(value: object) -> str:
    return str(value)[:20]


def _instant(value: object) -> int:
    """Wall ms of a Unix time in seconds or milliseconds, or of an RFC 3339 text."""
    if isinstance(value, str):
        try:
            if value[:1].isdigit() and value.replace(".", "", 1).isdecimal() and len(value) <= 20:
                seconds = Fraction(value)
                return int(seconds if seconds >= 10**11 else seconds * 1000)
            found = datetime.fromisoformat(value)
            if found.tzinfo is not None:
                return int(found.timestamp() * 1000)
        except (ValueError, OverflowError):
            pass
    raise AnswerError("its time is neither a Unix time nor a date and time with a zone")


# --- the operator's file ---------------------------------------------------------------------------------------------


def read_file(body: bytes, *, is_toml: bool) -> Answer:
    """`{"as_of": …, "rates": {"EUR/USD": "1.0843"}}`, or the same in TOML. One bad entry spoils all: it is ours."""
    if is_toml:
        try:
            document: Any = tomllib.loads(body.decode(), parse_float=_Number)
        except (ValueError, RecursionError):
            raise AnswerError("it is not TOML") from None
    else:
        document = _json(body)
    rates = document.get("rates") if isinstance(document, dict) else None
    if not isinstance(rates, dict) or not rates:
        raise AnswerError('it has no table "rates" with pairs in it')
    if len(rates) > QUOTES_MAX:
        raise AnswerError(f"it has {len(rates)} rates, more than {QUOTES_MAX}")
    quotes: dict[Codes, Fraction] = {}
    for name, value in rates.items():
        codes = split_pair(name)
        if codes is None:
            raise AnswerError(f"{name[:40]!r} is not a pair of assets")
        try:
            quotes[codes] = read_rate(str(value) if type(value) is int else _text(value, name))
        except AnswerError as error:
            raise AnswerError(f"{name[:40]}: {error}") from None
    as_of = document.get("as_of")
    if isinstance(as_of, datetime):
        as_of = as_of.isoformat()
    elif type(as_of) is int:
        as_of = str(as_of)
    return Answer(quotes, None if as_of is None else _instant(as_of))


# --- the ECB's XML ---------------------------------------------------------------------------------------------------


def read_ecb(body: bytes, wanted: Iterable[str]) -> Answer:
    """The euro foreign exchange reference rates (eurofxref-daily.xml). AnswerError if it is something else."""
    reader = _EcbReader(set(wanted))
    parser = expat.ParserCreate()
    # Without a document type there are no entities of its own: none to expand a thousandfold, none to fetch.
    parser.StartDoctypeDeclHandler = reader.refuse
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    try:
        parser.Parse(body, True)
    except expat.ExpatError as error:
        raise AnswerError(f"it is not XML: {expat.errors.messages.get(error.code, 'broken')}") from None
    except LookupError:
        raise AnswerError("it is not XML: an unknown encoding") from None
    if reader.day is None or not (reader.quotes or reader.problems):
        raise AnswerError("it holds no day with rates of the euro that are wanted")
    published = datetime.combine(reader.day, ECB_PUBLISHED)
    return Answer(reader.quotes, int(published.timestamp() * 1000), reader.problems)


class _EcbReader:
    """Takes `<Cube time=…>` and the `<Cube currency=… rate=…/>` within it."""

    def __init__(self, wanted: set[str]) -> None:
        self.day: date | None = None
        self.quotes: dict[Codes, Fraction] = {}
        self.problems: dict[Codes, str] = {}
        self._wanted = wanted
        self._depth = 0

    def refuse(self, *_: object) -> NoReturn:
        raise AnswerError("it has a document type, which the ECB's has not")

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        if self._depth > XML_DEPTH_MAX:
            raise AnswerError("it is not the ECB's: too deep")
        if name.rpartition(":")[2] != "Cube":
            return
        if "time" in attributes:
            if self.day is not None:
                raise AnswerError("it holds more than one day")  # the 90 days' file: which rate is today's?
            try:
                self.day = date.fromisoformat(attributes["time"])
            except ValueError:
                raise AnswerError(f"{attributes['time'][:20]!r} is not a day") from None
        code = attributes.get("currency")
        if code is None or code not in self._wanted:
            return
        codes = (ECB_BASE, code)
        if self.day is None or codes in self.quotes or codes in self.problems:
            raise AnswerError(f"{code} is there twice, or without a day")
        try:
            self.quotes[codes] = read_rate(attributes.get("rate", ""))
        except AnswerError as error:
            self.problems[codes] = str(error)

    def end(self, name: str) -> None:
        self._depth -= 1
