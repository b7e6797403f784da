"""What an engine's file holds while its connector doesn't answer."""

import os
from pathlib import Path

import pytest

from isthmus.connector.events import AccountId
from isthmus.settlement.port import Step
from isthmus.settlement.rfc38 import store as module
from isthmus.settlement.rfc38.store import Store

ANN = AccountId("ann")


async def test_what_waits_for_the_connector_is_bounded_and_nothing_of_it_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SE-11: at the bound and beyond it; the oldest, which may be on its way, keeps its amount and key."""
    monkeypatch.setattr(module, "CREDITS_WAITING_MAX", 3)
    store = Store(tmp_path / "store.db", asset="USD", scale=2, wall_ms=lambda: 0, entropy=os.urandom)
    store.set_up(ANN)
    for number in range(3):
        store.book(ANN, Step(credits=[(100 + number, 2, f"k{number}", "first")]))
    first = store.first_credit(ANN)
    for number in range(3, 7):
        store.book(ANN, Step(credits=[(1, 4, f"k{number}", "later")]))
        store.book(ANN, Step(credits=[(1, 4, f"k{number}", "the same again")]))
    assert store.waiting() == {ANN: 3}
    assert store.first_credit(ANN) == first
    told = []
    while (credit := store.first_credit(ANN)) is not None:
        told.append((credit.amount, credit.scale))
        store.acknowledged(credit, None)
    assert told == [(100, 2), (101, 2), (10_204, 4)]
    store.close()
