"""What is known of a payment after a kill, if the receiver says nothing."""

from isthmus.client.aftermath import arrived
from isthmus.client.ledger import Payment


def payment(
    *,
    sent: int,
    delivered: int,
    delivered_max: int | None = None,
    unknown: int = 0,
    rate: str,
    minimum: str = "9/10",
) -> Payment:
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
        delivered_max=delivered if delivered_max is None else delivered_max,
        unknown=unknown,
    )


def test_the_receivers_word_is_taken() -> None:
    assert arrived(payment(sent=0, delivered=0, rate="1"), 1_000, 0, 990) == (990, 990)


def test_a_silent_receiver_may_have_got_all_at_the_rate_that_was_offered() -> None:
    """Found by the simulator: packets that were rounded down showed a rate a little too low."""
    known = payment(sent=100, delivered=99, rate="995/1000")
    least, most = arrived(known, 10_100, 0, None)
    assert least == 99 + 9_000 - 2
    assert most == 99 + 9_950


def test_a_receiver_that_has_forgotten_is_not_believed() -> None:
    known = payment(sent=1_000, delivered=995, rate="995/1000")
    assert arrived(known, 1_000, 0, 3) == (995, 995)


def test_a_rate_that_became_better_counts() -> None:
    known = payment(sent=1_000, delivered=1_200, rate="1")
    assert arrived(known, 1_000, 500, None) == (1_200, 1_800)


def test_what_was_known_by_its_minimum_only_stays_an_estimate() -> None:
    """Simulator, seed 1105: packets without the receiver's words before the kill, and no word of it after."""
    known = payment(sent=100, delivered=80, delivered_max=100, rate="1")
    assert arrived(known, 100, 50, None) == (80, 150)
    assert arrived(known, 150, 0, None) == (80 + 45 - 2, 150)


def test_what_was_unknown_before_is_estimated_once() -> None:
    """The books have decided it since, so it is among what left, or came to nothing."""
    known = payment(sent=100, delivered=100, delivered_max=200, unknown=100, rate="1")
    least, most = arrived(known, 200, 0, None)
    assert least == 100 + 90 - 2
    assert 200 <= most <= 200 + 12  # but for what it was expected to bring beyond its minimum
