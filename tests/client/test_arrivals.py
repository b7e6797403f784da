"""What a listener is told of money that comes in."""

import pytest

from isthmus.client.arrivals import UNTOLD_MAX, Arrivals
from isthmus.client.control import ControlError
from isthmus.client.ledger import Receipts, WalletLedger

ONE, TWO, THREE = (bytes([number]) * 16 for number in (1, 2, 3))


@pytest.fixture
def ledger() -> WalletLedger:
    """Two connections: one got 5 at 100 ms, one got 7 at 200 ms."""
    ledger = WalletLedger()
    came(ledger, ONE, 5, at=100)
    came(ledger, TWO, 7, at=200)
    return ledger


def came(ledger: WalletLedger, connection: bytes, amount: int, *, at: int) -> None:
    receipts = ledger.receipts.setdefault(connection, Receipts(first_at=at, last_at=at))
    receipts.last_at = at
    receipts.total += amount
    receipts.packets += 1


def told(arrivals: Arrivals) -> dict[str, tuple[str, str, int]]:
    return {one["connection"]: (one["amount"], one["total"], one["packets"]) for one in arrivals.take()}


def test_what_came_before_is_not_told(ledger: WalletLedger) -> None:
    arrivals = Arrivals(ledger, None)
    assert told(arrivals) == {}
    came(ledger, ONE, 3, at=300)
    arrivals.credited(ONE)
    assert told(arrivals) == {ONE.hex(): ("3", "8", 1)}
    assert told(arrivals) == {}
    assert arrivals.told == 3


def test_credits_of_one_connection_are_told_together(ledger: WalletLedger) -> None:
    arrivals = Arrivals(ledger, None)
    for _ in range(3):
        came(ledger, TWO, 2, at=300)
        arrivals.credited(TWO)
    assert told(arrivals) == {TWO.hex(): ("6", "13", 3)}


def test_who_comes_back_is_told_what_came_in_between(ledger: WalletLedger) -> None:
    """One connection that it knows has grown, one is new since, one is older and did not move."""
    came(ledger, THREE, 9, at=260)
    came(ledger, TWO, 1, at=270)
    arrivals = Arrivals(ledger, {"at": 250, "told": {TWO.hex(): ["7", 1]}})
    assert told(arrivals) == {TWO.hex(): ("1", "8", 1), THREE.hex(): ("9", "9", 1)}


def test_who_comes_back_is_told_nothing_twice(ledger: WalletLedger) -> None:
    arrivals = Arrivals(ledger, {"at": 150, "told": {TWO.hex(): ["7", 1]}})
    assert told(arrivals) == {}


def test_a_connection_that_was_forgotten_begins_again(ledger: WalletLedger) -> None:
    arrivals = Arrivals(ledger, None)
    del ledger.receipts[TWO]
    arrivals.credited(TWO)
    assert told(arrivals) == {}
    came(ledger, TWO, 4, at=300)
    arrivals.credited(TWO)
    assert told(arrivals) == {TWO.hex(): ("4", "4", 1)}


def test_the_untold_connections_are_bounded_and_nothing_is_lost_of_the_next(ledger: WalletLedger) -> None:
    arrivals = Arrivals(ledger, None)
    many = [number.to_bytes(16, "big") for number in range(UNTOLD_MAX + 1)]
    for one in many:
        came(ledger, one, 1, at=300)
        arrivals.credited(one)
    assert len(told(arrivals)) == UNTOLD_MAX
    came(ledger, many[-1], 1, at=301)
    arrivals.credited(many[-1])
    assert told(arrivals) == {many[-1].hex(): ("2", "2", 2)}


@pytest.mark.parametrize(
    "since", [{}, {"at": "soon", "told": {}}, {"at": 1, "told": []}, {"at": 1, "told": {"x": [1, 1]}}, 3]
)
def test_what_is_no_mark_is_refused(ledger: WalletLedger, since: object) -> None:
    with pytest.raises(ControlError, match="not a request for 'receive'"):
        Arrivals(ledger, since)  # type: ignore[arg-type]
