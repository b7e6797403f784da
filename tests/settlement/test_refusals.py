"""A refusal is told once, and is over when nothing is refused any more."""

from isthmus.settlement.refusals import Refusals


def test_a_reason_is_told_once_and_another_one_anew() -> None:
    refusals = Refusals()
    assert refusals.is_new(b"a", "no money")
    assert not refusals.is_new(b"a", "no money")
    assert refusals.is_new(b"a", "too cheap")
    assert refusals.is_new(b"b", "too cheap")


def test_it_is_over_with_the_last_that_was_refused() -> None:
    refusals = Refusals()
    for key in (b"a", b"b"):
        refusals.is_new(key, "no money")
    assert not refusals.end(b"c", [b"a", b"b", b"c"])
    assert not refusals.end(b"a", [b"a", b"b"])
    assert refusals.end(b"b", [b"b"])
    assert refusals.is_new(b"a", "no money")
