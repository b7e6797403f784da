"""The auditor's rules for settlements: both books against the ledger, exactly; and what a peer may owe at most."""

from typing import Any

import pytest

from isthmus.sim.evidence import End, Flow, Terms
from isthmus.sim.settled import exposed, unexplained

ONE, TWO = End("one", "two"), End("two", "one")


def flow(**changes: Any) -> Flow:
    """Accounts of scale 6 on a ledger of scale 4: 12.34 moved, a fraction carried."""
    usual: dict[str, Any] = {"asset_scale": 6, "scale": 4, "moved": 123_400, "carried": 56}
    return Flow(ONE, TWO, **(usual | changes))


def test_what_left_and_came_is_what_the_ledger_moved() -> None:
    assert list(unexplained(flow(), paid=12_340_056, credited=12_340_000)) == []


@pytest.mark.parametrize(
    ("changes", "paid"),
    [
        ({"waits": 100}, 12_350_056),  # the engine has it, the ledger not yet
        ({"untaken": 7_000_000}, 19_340_056),  # the engine doesn't have it
        ({"carried": -44}, 12_339_956),  # a payment that failed gave back what it had taken
    ],
)
def test_what_is_on_its_way_is_explained(changes: dict[str, int], paid: int) -> None:
    assert list(unexplained(flow(**changes), paid=paid, credited=12_340_000)) == []


@pytest.mark.parametrize(
    ("changes", "paid", "credited", "who"),
    [
        ({}, 12_340_055, 12_340_000, "one"),  # a unit was paid that was never debited
        ({}, 24_680_056, 12_340_000, "one"),  # debited twice, or lost on the way
        ({"moved": 246_800}, 12_340_056, 24_680_000, "one"),  # paid twice
        ({"carried": 0}, 12_340_056, 12_340_000, "one"),  # a leftover was dropped
        ({"carried": 100}, 12_340_100, 12_340_000, "one"),  # a whole unit of the ledger is "carried"
        ({}, 12_340_056, 12_340_001, "two"),  # credited for more than the ledger has
        ({}, 12_340_056, 12_339_999, "two"),  # came, and wasn't credited
        ({"leftover": (5, 7)}, 12_340_056, 12_340_000, "two"),
    ],
)
def test_a_unit_too_much_or_too_little_is_found(changes: dict[str, Any], paid: int, credited: int, who: str) -> None:
    found = list(unexplained(flow(**changes), paid=paid, credited=credited))
    assert [node for node, _ in found] == [who]


def test_leftovers_of_a_finer_ledger_are_part_of_what_came() -> None:
    fine = Flow(ONE, TWO, asset_scale=2, scale=4, moved=12_345, leftover=(45, 4), owed_back=0)
    assert list(unexplained(fine, paid=None, credited=123)) == []
    assert list(unexplained(fine._replace(owed_back=5, leftover=(5, 3)), paid=None, credited=123)) == []


def test_of_an_adversarys_books_nothing_is_expected() -> None:
    assert list(unexplained(flow(), paid=None, credited=12_340_000)) == []
    assert list(unexplained(flow(), paid=12_340_056, credited=None)) == []


def test_a_peer_owes_what_was_agreed_at_most() -> None:
    terms = Terms(receivable_max=100, payable_max=None, margin_ms=0, hold_ms_max=0, ahead_max=150)
    assert exposed(150, 0, terms) == ""
    assert exposed(151, 0, terms) == "owes 151, and 150 is the most that it may"
    assert exposed(151, 1, terms) == ""  # what a ledger took back
    assert exposed(10**9, 0, terms._replace(receivable_max=None)) == ""
