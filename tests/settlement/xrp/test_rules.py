"""The rules that need no ledger: messages, claims, what is redeemed, what is kept."""

import contextlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from isthmus.errors import CodecError
from isthmus.ledgers.xrp.hashes import claim_message
from isthmus.ledgers.xrp.network import PayChan
from isthmus.ledgers.xrp.transactions import DROPS_MAX
from isthmus.settlement.promises import Phase, deposit_for
from isthmus.settlement.xrp.incoming import (
    Fault,
    Incoming,
    Redeem,
    accept,
    fault_of,
    is_closing,
    is_signed,
    redeem,
)
from isthmus.settlement.xrp.messages import (
    SIGNATURE_BYTES_MAX,
    Accepted,
    Address,
    ChannelTold,
    Claim,
    Close,
    Info,
    InfoAsked,
    Message,
    decode_answer,
    decode_question,
    encode,
    had_before,
)
from isthmus.settlement.xrp.outgoing import Outgoing
from isthmus.settlement.xrp.pending import Pending
from tests.settlement.xrp.world import a_key

ALICE, BOB, EVE = a_key(1), a_key(2), a_key(3)
ID = "AB" * 32
drops = st.integers(0, DROPS_MAX)
ids = st.binary(min_size=32, max_size=32).map(lambda octets: octets.hex().upper())
addresses = st.sampled_from([ALICE.address, BOB.address, EVE.address])
claims = st.builds(
    Claim,
    amount=st.integers(0, 2**64),
    signature=st.binary(min_size=1, max_size=SIGNATURE_BYTES_MAX),
    added=st.integers(0, 2**64 - 1),
    channel=st.none() | ids,
    drops=st.none() | drops,
)
questions = st.one_of(
    st.builds(Address, addresses),
    st.just(InfoAsked()),
    st.builds(ChannelTold, ids),
    claims,
    st.builds(Close, ids),
)
answers = st.one_of(
    st.builds(Address, addresses),
    st.builds(Info, st.integers(0, 255), knows_drops=st.booleans()),
    st.builds(ChannelTold, ids | st.just("")),
    st.builds(Accepted, st.none() | drops),
    st.builds(Close, ids),
)


# --- messages ---


@given(questions)
def test_questions_come_as_they_were_sent(message: Message) -> None:
    assert decode_question(encode(message)) == message


@given(answers)
def test_answers_come_as_they_were_sent(message: Message) -> None:
    assert decode_answer(encode(message)) == message


@given(st.binary() | st.text().map(str.encode))
def test_any_bytes_are_a_message_or_an_error(data: bytes) -> None:
    for decode in (decode_question, decode_answer):
        with contextlib.suppress(CodecError):
            decode(data)


def test_a_plugin_answers_a_claim_with_nothing() -> None:
    assert decode_answer(b"") == Accepted(None)


@given(st.integers(0, 10**18), st.integers(0, 18))
def test_a_plugins_total_is_signed_in_drops_rounded_up(amount: int, scale: int) -> None:
    """`baseToXrp` of ilp-plugin-xrp-paychan: six decimal places, BigNumber.ROUND_UP."""
    total = Claim(amount=amount, signature=b"", added=0).total(scale)
    assert (total - 1) * 10**scale < amount * 10**6 <= total * 10**scale


def test_ours_tell_drops() -> None:
    assert Claim(amount=5, signature=b"", added=0, drops=7).total(9) == 7


@pytest.mark.parametrize(
    ("text", "total"),
    [
        ('{"message":"new claim is less than old claim. new=5 old=7"}', 7),
        ("new claim is less than old claim. new=5 old=", None),
        ("new claim is less than old claim. new=5 old=" + "9" * 31, None),
        ("the channel is closing", None),
    ],
)
def test_a_plugin_says_what_it_has_when_it_refuses_a_claim_that_is_not_higher(text: str, total: int | None) -> None:
    assert had_before(text) == total


# --- channels to us ---

CHANNEL = PayChan(
    id=ID,
    source=ALICE.address,
    destination=BOB.address,
    public_key=ALICE.public_key,
    settle_delay=3_600,
    amount=1_000,
    balance=0,
)
RECORD = Incoming.of(CHANNEL, 5)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({}, None),
        ({"destination": EVE.address}, Fault.RECEIVER),
        ({"source": EVE.address}, Fault.SOURCE),
        ({"settle_delay": 3_599}, Fault.DELAY),
        ({"cancel_after": 10_000 + 3_599}, Fault.CANCELLED),
        ({"cancel_after": 10_000 + 3_600}, None),
    ],
)
def test_which_channels_can_be_used(changes: dict[str, object], fault: Fault | None) -> None:
    channel = replace(CHANNEL, **changes)  # type: ignore[arg-type]
    found = fault_of(channel, receiver=BOB.address, source=ALICE.address, settle_delay_min=3_600, now=10_000)
    assert found is fault


@pytest.mark.parametrize(
    ("changes", "closing"),
    [
        ({}, False),
        ({"expiration": 99_999}, True),
        ({"cancel_after": 10_000 + 3_600}, False),
        ({"cancel_after": 10_000 + 3_599}, True),
    ],
)
def test_when_a_channel_is_closing(changes: dict[str, int], closing: bool) -> None:
    assert is_closing(replace(CHANNEL, **changes), settle_delay_min=3_600, now=10_000) is closing  # type: ignore[arg-type]


@given(st.integers(0, 2_000), st.integers(0, 1_000), st.booleans(), st.booleans())
def test_a_claim_counts_if_it_is_higher_and_the_channel_holds_it(
    amount: int, before: int, closing: bool, agreed: bool
) -> None:
    record = replace(RECORD, claim=before, is_agreed=agreed)
    found = accept(record, amount, b"\x01", CHANNEL, closing=closing)
    if amount == before:
        assert found == record
    elif amount < before:
        assert found is Fault.LOWER
    elif closing or agreed:
        assert found is Fault.CLOSING
    elif amount > CHANNEL.amount:
        assert found is Fault.CAPACITY
    else:
        assert isinstance(found, Incoming) and (found.claim, found.signature) == (amount, "01")


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_a_signature_is_for_one_amount_on_one_channel_by_one_key(amount: int, other: int) -> None:
    signature = ALICE.sign(claim_message(ID, amount))
    assert is_signed(ID, amount, signature, ALICE.public_key)
    assert is_signed(ID, other, signature, ALICE.public_key) is (other == amount)
    assert not is_signed("CD" * 32, amount, signature, ALICE.public_key)
    assert not is_signed(ID, amount, signature, EVE.public_key)


@pytest.mark.parametrize(
    ("claim", "closing", "ends_at", "above", "due"),
    [
        (110, False, None, 0, Redeem.NO),
        (110, False, None, 100, Redeem.NO),  # what is unredeemed is 60, the fee is 50
        (150, False, None, 100, Redeem.NOW),
        (100, True, 500, 0, Redeem.NO),  # not more than the fee
        (101, True, 500, 0, Redeem.URGENT),
        (101, True, 400, 0, Redeem.NO),  # too late
    ],
)
def test_what_is_redeemed_when(claim: int, closing: bool, ends_at: int | None, above: int, due: Redeem) -> None:
    channel = replace(CHANNEL, balance=50, expiration=ends_at)
    record = replace(RECORD, claim=claim)
    assert redeem(record, channel, claim_above=above, fee=50, closing=closing, now=400) is due


# --- what is kept ---


@given(st.builds(Incoming, channel=ids, source=addresses, public_key=ids, since=drops, capacity=drops, claim=drops,
                 signature=ids, is_agreed=st.booleans()))  # fmt: skip
def test_a_channel_to_us_is_kept_whole(record: Incoming) -> None:
    assert Incoming.decode(record.encode()) == record


@given(
    st.builds(
        Outgoing,
        phase=st.sampled_from(Phase),
        deposited=drops,
        signed=drops,
        acknowledged=drops,
        signed_for=st.lists(st.tuples(drops, drops)).map(tuple),
        waiting=st.lists(st.tuples(drops, drops)).map(tuple),
        carried=drops,
        channel=ids,
        destination=addresses,
        settle_delay=drops,
        since=drops,
    )
)
def test_our_channel_is_kept_whole(state: Outgoing) -> None:
    assert Outgoing.decode(state.encode()) == state


def test_a_transaction_is_kept_whole_under_its_number() -> None:
    one = Pending(
        purpose="open", about="rX", fields={"A": 1}, urgent=True, sequence=7, fee=10, first=1, last=9, blob="12"
    )
    assert Pending.decode(one.encode()) == one
    assert one.key == b"tx/7"


# --- both sides of a channel, whatever is lost between them ---


class Channels(RuleBasedStateMachine):
    """One channel after the other; claims may be lost, answers too. What was settled is paid once, on whichever."""

    def __init__(self) -> None:
        super().__init__()
        self.state = Outgoing()
        self.record = RECORD
        self.amount = 0  # what the ledger's channel holds
        self.number = 0
        self.settled = 0
        self.confirmed: dict[int, int] = {}
        self.amounts: dict[int, int] = {}
        self.credited = 0

    @rule(amount=st.integers(1, 50))
    def settle(self, amount: int) -> None:
        self.number += 1
        self.amounts[self.number] = amount
        self.settled += amount
        self.state = self.state.settle(self.number, amount, 0)

    @precondition(lambda self: self.state.phase is Phase.NONE)
    @rule()
    def open(self) -> None:
        amount = deposit_for(self.state, deposit=20, reserve=0, most=DROPS_MAX)
        if amount:
            self.amount = amount
            self.state = replace(self.state, phase=Phase.OPEN, channel=ID, deposited=amount).sign_waiting()
            self.record = replace(RECORD, capacity=amount)

    @precondition(lambda self: self.state.phase is Phase.OPEN)
    @rule()
    def top_up(self) -> None:
        self.amount += deposit_for(self.state, deposit=20, reserve=0, most=DROPS_MAX)
        self.state = replace(self.state, deposited=self.amount).sign_waiting()

    @precondition(lambda self: self.state.phase is Phase.OPEN)
    @rule(answered=st.booleans())
    def claim(self, answered: bool) -> None:
        total = self.state.signed
        found = accept(self.record, total, b"\x01", replace(CHANNEL, amount=self.amount), closing=False)
        assert isinstance(found, Incoming)
        self.credited += found.claim - self.record.claim
        self.record = found
        if answered:
            self.state, done = self.state.acknowledge(total)
            self._confirm(done)

    @precondition(lambda self: self.state.phase is Phase.OPEN)
    @rule()
    def end(self) -> None:
        self.state, done = self.state.ended(self.record.claim)
        self._confirm(done)
        self.record = RECORD

    def _confirm(self, done: list[int]) -> None:
        for number in done:
            assert number not in self.confirmed
            self.confirmed[number] = self.amounts[number]

    @invariant()
    def nothing_is_paid_twice(self) -> None:
        assert sum(self.confirmed.values()) <= self.credited <= self.settled
        assert self.state.signed <= max(self.amount, 0)
        open_numbers = {one for one, _ in (*self.state.signed_for, *self.state.waiting)}
        assert open_numbers == set(self.amounts) - set(self.confirmed)


TestChannels = Channels.TestCase
