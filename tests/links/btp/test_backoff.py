"""When a client dials again."""

from isthmus.links.btp.backoff import Backoff


def test_the_wait_grows_within_its_bound_and_is_jittered() -> None:
    """BTP-14: a growing delay."""
    for random, share in ((0.0, 0.5), (0.5, 0.75), (0.999999, 1.0)):
        backoff = Backoff(lambda value=random: value, first_ms=200, max_ms=3_000)  # type: ignore[misc]
        waits = [backoff.after(lasted_ms=0, refused=False) for _ in range(40)]
        ceilings = [200, 400, 800, 1_600, 3_000, 3_000]
        assert all(abs(wait - ceiling * share) <= 1 for wait, ceiling in zip(waits, ceilings, strict=False))
        assert max(waits) <= 3_000


def test_a_good_connection_starts_the_waits_anew() -> None:
    backoff = Backoff(lambda: 0.0, first_ms=100, max_ms=10_000, good_after_ms=1_000)
    for _ in range(5):
        backoff.after(lasted_ms=0, refused=False)
    assert backoff.after(lasted_ms=999, refused=False) > 50
    assert backoff.after(lasted_ms=1_000, refused=False) == 50


def test_a_refusal_waits_the_longest() -> None:
    """BTP-14: what was refused for good is not asked again at once."""
    assert Backoff(lambda: 0.0, max_ms=2_000, refused_ms=9_000).after(lasted_ms=0, refused=True) == 9_000


def test_a_peer_that_fell_often_is_found_while_its_packets_still_live() -> None:
    """Seen in the crash suite: links that lasted a few seconds each were dialled again after half a minute only."""
    backoff = Backoff(lambda: 0.999999)
    assert max(backoff.after(lasted_ms=5_000, refused=False) for _ in range(50)) <= 2_000
