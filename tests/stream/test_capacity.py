"""The path's maximum packet amount."""

from hypothesis import given
from hypothesis import strategies as st

from isthmus.ilp.packet import AMOUNT_MAX, encode_amount_too_large
from isthmus.stream.capacity import GROW_AFTER_MS, GUESS_GROW_AFTER_MS, SOFT_STEPS, Capacity


def test_the_limit_is_scaled_by_ratio_in_wide_arithmetic() -> None:
    """ILP-17, P-8, P-1."""
    capacity = Capacity(AMOUNT_MAX)
    sent = 2**64 - 1
    assert capacity.too_large(sent, encode_amount_too_large(2**63 + 5, 2**62), 0)
    assert capacity.limit == sent * 2**62 // (2**63 + 5)


@given(
    sent=st.integers(1, AMOUNT_MAX),
    received=st.integers(0, AMOUNT_MAX),
    maximum=st.integers(0, AMOUNT_MAX),
    cut=st.integers(0, 16),
)
def test_each_f08_lowers_the_limit(sent: int, received: int, maximum: int, cut: int) -> None:
    """ILP-17: whatever the connector says: missing, short, or a maximum not below what it received."""
    capacity = Capacity(AMOUNT_MAX)
    usable = capacity.too_large(sent, encode_amount_too_large(received, maximum)[:cut], 0)
    assert capacity.limit is not None
    assert capacity.limit < sent
    assert usable == (capacity.limit > 0)
    if cut < 16 or maximum >= received:
        assert capacity.limit == sent // 2


def test_an_old_f08_does_not_raise_the_limit() -> None:
    """ILP-17: several maxima on one path, replies in any order."""
    capacity = Capacity(AMOUNT_MAX)
    capacity.too_large(1_000, encode_amount_too_large(1_000, 100), 0)
    capacity.too_large(5_000, encode_amount_too_large(5_000, 700), 0)
    assert capacity.limit == 100


def test_a_guess_is_narrowed_down_from_below() -> None:
    """ILP-17: without numbers, halve, then look for the limit step by step."""
    capacity = Capacity(AMOUNT_MAX)
    now = 0
    true_limit = 700
    amount = 1_000
    while amount > true_limit:
        capacity.too_large(amount, b"", now)
        amount = capacity.amount()
    for _ in range(20):
        now += GUESS_GROW_AFTER_MS
        trial = capacity.larger(now)
        if not trial:
            break
        capacity.trying(trial)
        assert capacity.larger(now) == 0  # one at a time
        if trial > true_limit:
            assert capacity.too_large(trial, b"", now)
        else:
            capacity.passed(trial, now)
    assert capacity.limit is not None
    assert true_limit * 9 // 10 <= capacity.limit <= true_limit


def test_a_named_limit_is_tried_again_rarely_and_by_a_tenth() -> None:
    capacity = Capacity(2_000)
    capacity.too_large(5_000, encode_amount_too_large(5_000, 1_000), 0)
    assert capacity.larger(GROW_AFTER_MS - 1) == 0
    assert capacity.larger(GROW_AFTER_MS) == 1_101
    capacity.trying(1_101)
    assert capacity.too_large(1_101, encode_amount_too_large(1_101, 1_000), GROW_AFTER_MS)
    assert capacity.limit == 1_000
    assert capacity.larger(2 * GROW_AFTER_MS - 1) == 0
    capacity.trying(capacity.larger(2 * GROW_AFTER_MS))
    capacity.lost(1_101)
    capacity.trying(capacity.larger(2 * GROW_AFTER_MS))
    capacity.passed(1_101, 2 * GROW_AFTER_MS)
    assert capacity.limit == 1_101
    assert capacity.larger(2 * GROW_AFTER_MS) == 1_101 + 110 + 1  # it works: go on


def test_the_ceiling_is_never_exceeded() -> None:
    capacity = Capacity(1_000)
    assert capacity.amount() == 1_000
    capacity.too_large(2_000, encode_amount_too_large(2_000, 1_500), 0)
    assert capacity.amount() == 1_000
    assert capacity.larger(10**9) == 0


def test_scarce_liquidity_makes_packets_smaller_and_success_larger_again() -> None:
    """P-10."""
    capacity = Capacity(AMOUNT_MAX)
    capacity.too_large(5_000, encode_amount_too_large(5_000, 1_000), 0)
    capacity.shrink(1_000)
    capacity.shrink(500)
    assert capacity.amount() == 250
    assert capacity.larger(10**9) == 0
    for _ in range(SOFT_STEPS):
        capacity.passed(250, 0)
    assert capacity.amount() == 500
    for _ in range(SOFT_STEPS):
        capacity.passed(500, 0)
    assert capacity.amount() == 1_000
    for _ in range(70):
        capacity.shrink(capacity.amount())
    assert capacity.amount() == 1
    capacity.shrink(1, least=300)  # what rounding would take too much of
    assert capacity.amount() == 300
    capacity.shrink(300, least=300)
    assert capacity.amount() == 300
    capacity.shrink(300, least=2_000)  # more than ever fits
    assert capacity.amount() == 1_000
