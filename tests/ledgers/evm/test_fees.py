"""What transactions offer, and offer more."""

from hypothesis import given
from hypothesis import strategies as st

from isthmus.ledgers.evm.fees import Fee, FeePolicy

bases = st.integers(0, 10**13)


@st.composite
def policies(draw: st.DrawFn) -> FeePolicy:
    most = draw(st.integers(1, 10**12))
    return FeePolicy(tip=draw(st.integers(0, 10**10)), most=most, urgent=most * draw(st.integers(1, 20)))


@given(policies(), bases, st.booleans())
def test_an_offer_is_never_above_the_bound(policy: FeePolicy, base: int, urgent: bool) -> None:
    fee: Fee | None = policy.first(base, urgent=urgent)
    offers = 0
    while fee is not None:
        assert fee.tip <= fee.most <= policy.bound(urgent=urgent)
        offers += 1
        assert offers < 400
        fee = policy.next(fee, base, urgent=urgent)


@given(policies(), bases, bases)
def test_what_replaces_a_transaction_offers_a_tenth_more_in_both(policy: FeePolicy, base: int, later: int) -> None:
    first = policy.first(base, urgent=True)
    after = policy.next(first, later, urgent=True)
    if after is not None and first.most > 0:
        assert after.most * 10 >= first.most * 11
        assert after.tip * 10 >= first.tip * 11 or after.tip == after.most


def test_a_spike_is_followed_up_to_the_bound() -> None:
    policy = FeePolicy(tip=1, most=1_000, urgent=5_000)
    first = policy.first(10, urgent=False)
    assert first == Fee(21, 1)
    assert policy.next(first, 400, urgent=False) == Fee(801, 2)
    assert policy.next(Fee(801, 2), 4_000, urgent=False) == Fee(1_000, 3)
    assert policy.next(Fee(1_000, 3), 4_000, urgent=False) is None
    assert policy.next(Fee(1_000, 3), 4_000, urgent=True) == Fee(5_000, 4)
