"""Whatever engines alarm operators with says what to do, and is in the docs."""

import re
from pathlib import Path
from typing import Final

import pytest

from isthmus.settlement.remedies import REMEDIES

ROOT: Final = Path(__file__).resolve().parents[2]
SOURCES: Final = ROOT / "src" / "isthmus" / "settlement"
DOCS: Final = "".join(page.read_text() for page in sorted((ROOT / "docs").glob("*.md")))
# Whose events have the engine's name put before them; modules that engines share are told of by each.
ENGINES: Final = {"xrp": ["xrp"], "evm": ["evm"], "bank": ["bank"], "claiming": ["xrp", "evm"], "watch": ["xrp", "evm"]}
TOLD: Final = re.compile(r'_tell\(\s*(?:"(?:warning|error)"|level),\s*"(\w+)"')
LOGGED: Final = re.compile(r'log\("(?:warning|error)",\s*"(\w+)"')


def events() -> list[tuple[str, str]]:
    """Event, and the engine whose name stands before it; "" if its whole name is in the source."""
    found: set[tuple[str, str]] = set()
    for source in sorted(SOURCES.glob("**/*.py")):
        text = source.read_text()
        engines = ENGINES.get(source.parent.name) or ENGINES.get(source.stem) or [""]
        found |= {(event, engine) for event in TOLD.findall(text) for engine in engines}
        found |= {(event, "") for event in LOGGED.findall(text)}
    return sorted(found)


def test_all_are_found() -> None:
    """The test looks for what is there."""
    assert {("ledger_away", "evm"), ("unmatched", "bank"), ("lightning_payment_slow", "")} <= set(events())
    assert len(events()) > 40


@pytest.mark.parametrize(("event", "engine"), events(), ids=[f"{engine}_{event}" for event, engine in events()])
def test_an_alarm_says_what_to_do_and_is_in_the_docs(event: str, engine: str) -> None:
    name = f"{engine}_{event}" if engine else event
    assert f"`{name}`" in DOCS
    assert not engine or event in REMEDIES
    assert engine or name.partition("_")[0] in ("xrp", "evm", "bank", "lightning", "settlement", "credit"), name


def test_no_remedy_is_of_an_event_that_nobody_tells() -> None:
    told = {event for event, _ in events()} | {"bank_unmatched"}
    told |= {name.partition("_")[2] for name, engine in events() if not engine}
    assert set(REMEDIES) <= told
