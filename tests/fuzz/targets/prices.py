"""What sources of rates answer. Allowed is an answer of positive rates, or `AnswerError`; then a board takes it."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Final

from isthmus.node.config_model import FileFetch, Pair, Rates, RateSource
from isthmus.node.rates.answers import Answer, JsonForm, read_ecb, read_file, read_json
from isthmus.node.rates.board import NOTHING, Board
from isthmus.node.rates.exact import RATE_MAX, RATE_MIN, AnswerError, decimal_text
from isthmus.node.rates.paths import follow, parse_path, path_text
from tests.fuzz.registry import Target

WANTED: Final = ["BTC", "EUR", "GBP", "USD"]
FORM: Final = JsonForm(
    quotes=((("BTC", "USD"), ("r", "c", 0)), (("EUR", "GBP"), ("e",))), table=("t",), base="USD", as_of=("at",)
)
SOURCE: Final = RateSource(
    name="s",
    fetch=FileFetch(path=Path("rates.json")),
    base="EUR",
    interval_ms=1_000,
    max_age_ms=60_000,
    jump_max=Fraction(1, 10),
)
CODES: Final = (("BTC", "USD"), ("USD", "GBP"), ("EUR", "USD"))
RATES: Final = Rates(
    spread=Fraction(0),
    pairs=tuple(
        Pair(
            source=base,
            destination=quote,
            rate=None,
            spread=None,
            fetched=SOURCE,
            max_age_ms=60_000,
            jump_max=Fraction(1, 10),
        )
        for base, quote in CODES
    ),
    sources=(SOURCE,),
)
WALL: Final = 1_800_000_000_000


def fuzz_rates(data: bytes) -> None:
    """The first byte says which kind of answer the rest is."""
    if not data:
        return
    kind, body = data[0] % 5, data[1:]
    if kind == 4:
        _fuzz_path(body)
        return
    readers: tuple[Callable[[], Answer], ...] = (
        lambda: read_json(body, FORM, WANTED),
        lambda: read_ecb(body, WANTED),
        lambda: read_file(body, is_toml=True),
        lambda: read_file(body, is_toml=False),
    )
    try:
        answer = readers[kind]()
    except AnswerError as error:
        assert len(str(error)) < 1_000
        return
    for rate in answer.quotes.values():
        assert RATE_MIN <= rate <= RATE_MAX
        assert Fraction(decimal_text(rate)) <= rate
    _fuzz_board(answer)


def _fuzz_board(answer: Answer) -> None:
    """Whatever was read, what is traded is what was said, and no pair is both without a rate and traded."""
    board = Board(RATES, NOTHING)
    problem = board.answered("s", answer, wall_ms=WALL, now=0)
    table = board.table(0)
    table.check()
    for codes in CODES:
        assert (codes in table.stopped) or (codes in table.rates and not problem)
    assert board.reconfigured(RATES).table(0).encode() == table.encode()


def _fuzz_path(body: bytes) -> None:
    try:
        path = parse_path(body.decode("latin-1"))
    except ValueError:
        return
    with suppress(AnswerError):
        follow({"a": [{"b": 1}]}, path)
    assert parse_path(path_text(path)) == path


def seeds_rates() -> Iterator[bytes]:
    yield b'\x00{"r":{"c":["64000.5"]},"e":0.84,"t":{"USD":1,"EUR":"0.92"},"at":1719562800}'
    yield b'\x00{"r":{"c":[1e3]},"e":"x","t":{},"at":"2024-06-28T08:20:00Z"}'
    yield (
        b"\x01<?xml version='1.0'?><g:E xmlns:g='x'><Cube><Cube time='2024-06-28'><Cube currency='USD' rate='1.07'/>"
        b"<Cube currency='GBP' rate='0.84'/></Cube></Cube></g:E>"
    )
    yield b'\x02as_of=2024-06-28T08:20:00Z\n[rates]\n"EUR/USD"="1.07"\n"BTC/USD"=1e4\n'
    yield b'\x03{"as_of":1719562800,"rates":{"EUR/USD":"1.07","BTC/EUR":3}}'
    yield b"\x04$.a[0]['b c'].d"


TARGETS: Final[dict[str, Target]] = {
    "rates": Target(
        fuzz_rates,
        seeds_rates,
        (b"<!DOCTYPE", b"<!ENTITY", b"NaN", b"Infinity", b"1e400", b"rate='", b"time='", b'"rates":', b"\\u0000"),
        size_max=1_024,
    ),
}
