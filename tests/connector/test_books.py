"""Double entry by itself: sums, legs, transfers, and the state that checkpoints hold."""

from contextlib import suppress
from fractions import Fraction
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.connector import state
from isthmus.connector.books import ADJUST, AT_RISK_MAX, Books
from isthmus.connector.events import AccountId
from isthmus.connector.legs import REJECTED, IncomingLeg, OutgoingLeg
from isthmus.connector.replay import Replay
from isthmus.connector.tables import RateTable
from isthmus.errors import CodecError
from isthmus.ilp.asset import Asset
from isthmus.ilp.packet import AMOUNT_MAX

if TYPE_CHECKING:
    from tests.connector.conftest import MakeTerms, Node

ALICE = AccountId("alice")
BOB = AccountId("bob")


@pytest.fixture
def books() -> Books:
    books = Books()
    books.open_peer(ALICE, "USD", 9)
    books.open_peer(BOB, "EUR", 6)
    return books


def legs(books: Books, incoming: int, outgoing: int, spread: int = 0, rounding: int = 0) -> OutgoingLeg:
    number = books.last_leg + 1
    condition, session = bytes(32), bytes(16)
    first = IncomingLeg(number, books.peers[ALICE], incoming, 5_000, condition, session, number, 0)
    return OutgoingLeg(
        number + 1,
        books.peers[BOB],
        outgoing,
        spread,
        rounding,
        4_000,
        condition,
        session,
        number,
        first,
        0,
        0,
    )


def test_reserved_is_apart_from_the_balance(books: Books) -> None:
    """CONN-3, CONN-6."""
    leg = legs(books, 100, 90)
    books.reserve(leg.incoming, leg)
    alice, bob = books.peers[ALICE], books.peers[BOB]
    assert (alice.balance, alice.reserved_incoming, bob.balance, bob.reserved_outgoing) == (0, 100, 0, 90)
    books.post(leg)
    assert (alice.balance, alice.reserved_incoming, bob.balance, bob.reserved_outgoing) == (100, 0, -90, 0)
    books.check()


def test_both_legs_at_once_are_the_same_entries_as_one_by_one(books: Books) -> None:
    """CONN-3: the fast way writes what the plain way writes."""
    plain = state.decode_state(state.encode_state(books))
    for decide in ("post", "void"):
        leg = legs(books, 100, 90, 3, 1)
        books.take_record()
        books.reserve(leg.incoming, leg)
        other = legs(plain, 100, 90, 3, 1)
        plain.take_record()
        plain.reserve_incoming(other.incoming)
        plain.reserve_outgoing(other)
        if decide == "post":
            books.post(leg)
            plain.post_outgoing(other)
            plain.post_incoming(other.incoming, in_doubt=True)
        else:
            for one, both in ((books, leg), (plain, other)):
                one.void_outgoing(both, REJECTED)
                one.void_incoming(both.incoming, REJECTED)
        assert books.take_record() == plain.take_record()
        assert state.digest(books) == state.digest(plain)


@given(
    st.lists(
        st.tuples(
            st.integers(0, AMOUNT_MAX),
            st.integers(0, AMOUNT_MAX),
            st.integers(0, AMOUNT_MAX),
            st.integers(0, 1),
            st.booleans(),
        ),
        max_size=12,
    )
)
def test_every_asset_sums_to_zero_and_replay_is_the_same(
    packets: list[tuple[int, int, int, int, bool]],
) -> None:
    """CONN-3, P-1: sums go beyond 64 bits."""
    books = Books()
    books.open_peer(ALICE, "USD", 9)
    books.open_peer(BOB, "EUR", 6)
    replayed = Books()
    replay = Replay(replayed)
    for incoming, outgoing, spread, rounding, posts in packets:
        leg = legs(books, incoming, outgoing, spread, rounding)
        books.reserve(leg.incoming, leg)
        books.check()
        replay.apply(books.take_record())
        if posts:
            books.post(leg)
        books.check()
        if books.has_entries():
            replay.apply(books.take_record())
        assert state.encode_state(replayed) == state.encode_state(books)
    copy = state.decode_state(state.encode_state(books))
    copy.check()
    assert state.encode_state(copy) == state.encode_state(books)


@given(
    st.integers(0, AMOUNT_MAX),
    st.fractions(Fraction(1, 10**12), Fraction(10**6)),
    st.fractions(Fraction(0), Fraction(1, 2)),
    st.integers(0, 18),
    st.integers(0, 18),
)
def test_spread_and_rounding_explain_the_whole_difference(
    amount: int, rate: Fraction, spread: Fraction, scale_in: int, scale_out: int
) -> None:
    """CONN-11: as integers, with the floor in our favour; the rounding is 0 or 1."""
    from isthmus.connector.tables import AccountTerms

    source = AccountTerms(id=ALICE, asset=Asset("AAA", scale_in), relation="peer")
    target = AccountTerms(id=BOB, asset=Asset("BBB", scale_out), relation="peer")
    conversion = RateTable({("AAA", "BBB"): rate}, spread=spread).conversion(source, target)
    assert conversion is not None
    exact = amount * rate * Fraction(10) ** (scale_out - scale_in)
    outgoing = conversion.outgoing(amount)
    assert outgoing == (exact * (1 - spread)).__floor__()
    kept = (amount * conversion.mid - amount * conversion.net) // conversion.denominator
    assert kept == (exact * spread).__floor__()
    rounding = amount * conversion.mid // conversion.denominator - outgoing - kept
    assert rounding in (0, 1)
    assert kept <= outgoing + 1
    limit = conversion.incoming_max(outgoing)
    assert conversion.outgoing(limit) <= outgoing
    assert limit == AMOUNT_MAX or conversion.outgoing(limit + 1) > outgoing


# --- transfers --------------------------------------------------------------------------------------------------------


def test_an_adjustment_is_a_transfer_once_for_its_key(books: Books) -> None:
    """CONN-3: nothing changes a balance by any other way, and a reversal is a new transfer."""
    alice, adjustment = books.peers[ALICE], books.internal["adjustment:USD:9"]
    assert books.transfer(alice, adjustment, 2**70, ADJUST, b"key 1", "opening balance")
    assert not books.transfer(alice, adjustment, 2**70, ADJUST, b"key 1", "opening balance")
    assert alice.balance == 2**70
    assert books.transfer(adjustment, alice, 2**70, ADJUST, b"key 2", "a mistake")
    assert books.transfer(alice, adjustment, 5, ADJUST, b"", "no key")
    assert books.transfer(alice, adjustment, 5, ADJUST, b"", "no key")
    assert alice.balance == 10
    books.check()
    copy = state.decode_state(state.encode_state(books))
    assert not copy.transfer(copy.peers[ALICE], copy.internal["adjustment:USD:9"], 1, ADJUST, b"key 1", "")


def test_a_transfer_between_assets_is_our_own_mistake(books: Books) -> None:
    """CONN-2."""
    with pytest.raises(AssertionError):
        books.transfer(books.peers[ALICE], books.peers[BOB], 1, ADJUST, b"", "")


def test_accounts_of_one_asset_share_its_clearing_account(books: Books) -> None:
    """CONN-2: the same code with another scale is another asset."""
    carol = books.open_peer(AccountId("carol"), "USD", 9)
    dave = books.open_peer(AccountId("dave"), "USD", 6)
    assert carol.clearing is books.peers[ALICE].clearing
    assert dave.clearing is not carol.clearing
    assert carol.loss is not books.peers[ALICE].loss


def test_the_list_of_amounts_at_risk_is_bounded(books: Books) -> None:
    """P-6: the total stays."""
    alice = books.peers[ALICE]
    for number in range(AT_RISK_MAX + 1):
        books.put_at_risk(alice, number, 2, 1)
    assert len(books.at_risk) == AT_RISK_MAX
    assert books.at_risk[0][1] == 1
    assert alice.at_risk == 2 * (AT_RISK_MAX + 1)


# --- state ------------------------------------------------------------------------------------------------------------


@given(st.data())
def test_damaged_states_are_books_or_a_codec_error(data: st.DataObject) -> None:
    """P-9."""
    books = Books()
    books.open_peer(ALICE, "USD", 9)
    books.open_peer(BOB, "USD", 9)
    leg = legs(books, 5, 5)
    books.reserve(leg.incoming, leg)
    books.put_at_risk(books.peers[ALICE], 1, 2, 3)
    books.transfer(books.peers[ALICE], books.internal["adjustment:USD:9"], 1, ADJUST, b"key", "")
    books.change_terms(b"{}")
    whole = bytearray(state.encode_state(books))
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] = data.draw(st.integers(0, 255))
    del whole[data.draw(st.integers(0, len(whole))) :]
    with suppress(CodecError):
        state.decode_state(bytes(whole))


def test_a_state_whose_balances_are_off_zero_is_refused(books: Books) -> None:
    """CONN-3: each field of it is sound, and the sum is money from nowhere."""
    books.peers[ALICE].balance += 10
    with pytest.raises(CodecError, match="add up to zero"):
        state.decode_state(state.encode_state(books))


def test_a_state_has_one_way_to_be_written(books: Books) -> None:
    """P-9: or its digest would differ from that of the books that it holds."""
    books.transfer(books.peers[ALICE], books.internal["adjustment:USD:9"], 77, ADJUST, b"key", "")
    data = state.encode_state(books)
    assert data.count(b"\x01\x4d") == 1
    with pytest.raises(CodecError, match="another way"):
        state.decode_state(data.replace(b"\x01\x4d", b"\x02\x00\x4d"))


def test_open_legs_are_in_the_state(node: "Node", make_terms: "MakeTerms") -> None:
    """CONN-1: kept until decided, through checkpoints."""
    node.prepare("alice", "test.node.bob.x", 55)
    copy = state.decode_state(state.encode_state(node.kernel.books))
    assert copy.peers[ALICE].reserved_incoming == 55
    (leg,) = copy.peers[BOB].sent.values()
    assert leg.incoming is next(iter(copy.peers[ALICE].received.values()))
    copy.post(leg)
    copy.check()
