"""`isthmus settlements`: what engines say, as people read it."""

from typing import Any

import pytest
from rich.console import Console

from isthmus.cli.settlements import FACTS_SHOWN, VALUE_CHARS, _lines, _of_account, _tables
from isthmus.errors import ConfigError

LONG = "0x" + "ab" * 32


def found() -> dict[str, Any]:
    says = {"channel": LONG, "ours": "account east", "nothing": "", **{f"fact_{n}": str(n) for n in range(9)}}
    alarm = {"level": "warning", "account": "bob", "at_ms": 0, "count": 3}
    alarms = [
        {**alarm, "event": "evm_refused", "text": "too little money", "over_at_ms": None},
        {**alarm, "event": "evm_peer_refused", "text": "T00 busy", "over_at_ms": 60_000},
        {**alarm, "event": "evm_refused", "account": "eve", "text": "of another", "over_at_ms": None},
    ]
    accounts = [{"account": "bob", "says": says}, {"account": "eve", "says": {}}]
    engine = {"name": "chain", "works": True, "problem": "", "accounts": accounts, "alarms": alarms}
    return {"settlements": [], "accounts": [], "recent": [], "engines": [engine]}


def shown(each: dict[str, Any], *, is_whole: bool, width: int = 100) -> str:
    console = Console(width=width)
    with console.capture() as text:
        for table in _tables(each, is_whole=is_whole):
            console.print(table)
        for line in _lines(each):
            console.print(line)
    return text.get()


def test_the_list_shortens_what_engines_say_and_names_where_the_rest_is() -> None:
    text = shown(found(), is_whole=False)
    assert LONG[:VALUE_CHARS] + "…" in text and LONG not in text
    assert f"fact {FACTS_SHOWN - 3}: " in text and f"fact {FACTS_SHOWN - 2}: " not in text
    assert "isthmus settlements show bob" in text
    assert "isthmus settlements show eve" not in text, "eve's engine has said nothing"
    assert max(map(len, text.splitlines())) <= 100


def test_the_list_has_alarms_that_stand_and_counts_the_others() -> None:
    text = shown(found(), is_whole=False)
    assert "warning evm_refused" in text and "too little money" in text
    assert "evm_peer_refused" not in text
    assert "Engine chain works; alarms that are over: 1 (--json has them)" in text


def test_of_one_account_all_is_shown_and_nothing_of_others() -> None:
    text = shown(_of_account(found(), "bob"), is_whole=True, width=200)
    assert LONG in text and "fact 8: 8" in text
    assert "over since 1970-01-01T00:01:00Z: T00 busy" in text
    assert "eve" not in text and "of another" not in text


def test_an_account_without_settlement_is_refused() -> None:
    with pytest.raises(ConfigError, match="nothing was ever settled with it"):
        _of_account(found(), "carol")
