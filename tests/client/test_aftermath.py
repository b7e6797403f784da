"""What is known of a payment after a kill, if the receiver says nothing."""

from isthmus.client.aftermath import arrived
from isthmus.client.ledger import Payment


def payment(*, sent: int, delivered: int, rate: str, minimum: str = "9/10") -> Payment:
    return Payment(
        id="00" * 16,
        key="",
        terms="",
        target="bob",
        destination="test.bob",
        secret="",
        source_max=10_000,
        minimum=minimum,
        rate=rate,
        deliver=0,
        asset_code="EUR",
        asset_scale=6,
        started_at=0,
        sent=sent,
        delivered=delivered,
    )


def test_the_receivers_word_is_taken() -> None:
    assert arrived(payment(sent=0, delivered=0, rate="1"), 1_000, 0, 990) == (990, 0)


def test_a_silent_receiver_may_have_got_all_at_the_rate_that_was_offered() -> None:
    """Found by the simulator: packets that were rounded down showed a rate a little too low."""
    known = payment(sent=100, delivered=99, rate="995/1000")
    delivered, more = arrived(known, 10_100, 0, None)
    assert delivered == 99 + 9_000 - 2
    assert delivered + more == 99 + 9_950


def test_a_receiver_that_has_forgotten_is_not_believed() -> None:
    known = payment(sent=1_000, delivered=995, rate="995/1000")
    delivered, more = arrived(known, 1_000, 0, 3)
    assert delivered == 995
    assert more == 0


def test_a_rate_that_became_better_counts() -> None:
    known = payment(sent=1_000, delivered=1_200, rate="1")
    assert arrived(known, 1_000, 500, None) == (1_200, 600)
