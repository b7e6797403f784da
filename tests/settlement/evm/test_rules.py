"""The rules that need no chain: channels both ways, transactions, messages, conversion."""

import json
from dataclasses import replace
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from isthmus.errors import CodecError
from isthmus.ledgers.evm.chain import CLOSED, ChannelState, Transfer
from isthmus.ledgers.evm.claims import AMOUNT_MAX, SETTLE_DELAY_MAX, ChannelTerms
from isthmus.ledgers.evm.fees import Fee
from isthmus.ledgers.evm.octets import hexed, word
from isthmus.ledgers.evm.transactions import Call
from isthmus.settlement.conversion import Converter
from isthmus.settlement.evm import arrivals
from isthmus.settlement.evm.arrivals import Arrival
from isthmus.settlement.evm.incoming import Fault, Incoming, Redeem, accept, covered, credited_again, redeem
from isthmus.settlement.evm.messages import Accepted, Agreed, Claim, Close, Hello, Message, decode, encode
from isthmus.settlement.evm.outgoing import Outgoing
from isthmus.settlement.evm.pending import ENDED_BLOCKS, ENDED_MAX, VERSIONS_MAX, Ended, Pending, ended, with_ended
from isthmus.settlement.promises import Phase, deposit_for

addresses = st.binary(min_size=20, max_size=20).map(hexed)
amounts = st.integers(0, AMOUNT_MAX)
signatures = st.binary(min_size=64, max_size=64)
terms = st.builds(
    ChannelTerms,
    addresses,
    addresses,
    addresses,
    st.integers(0, SETTLE_DELAY_MAX),
    st.binary(min_size=32, max_size=32),
)
messages = st.one_of(
    st.builds(
        Hello,
        chain_id=st.integers(1, 2**62),
        contract=addresses,
        token=addresses,
        address=addresses,
        settle_delay_min=st.integers(0, SETTLE_DELAY_MAX),
        proof=st.just(b"") | signatures,
    ),
    st.builds(
        Claim, chain_id=st.integers(1, 2**62), contract=addresses, terms=terms, amount=amounts, signature=signatures
    ),
    st.builds(Accepted, amounts),
    st.builds(Close, terms),
    st.builds(Agreed, amounts, signatures),
)
SOME = ChannelTerms("0x" + "11" * 20, "0x" + "22" * 20, "0x" + "00" * 20, 60, word(1))


# --- messages ---


@given(messages)
def test_messages_come_back(message: Message) -> None:
    assert decode(encode(message)) == message


@given(
    st.binary(max_size=300)
    | st.recursive(st.none() | st.text() | st.integers(), st.lists).map(lambda v: repr(v).encode())
)
def test_any_bytes_are_a_message_or_a_codec_error(data: bytes) -> None:
    try:
        decode(data)
    except CodecError:
        return


@given(messages, st.data())
def test_a_damaged_message_is_one_or_a_codec_error(message: Message, data: st.DataObject) -> None:
    octets = bytearray(encode(message))
    octets[data.draw(st.integers(0, len(octets) - 1))] = data.draw(st.integers(0, 255))
    try:
        decode(bytes(octets))
    except CodecError:
        return


# --- conversion ---


@given(st.lists(st.integers(1, 10**12), min_size=1, max_size=20), st.integers(0, 18), st.integers(0, 24))
def test_nothing_is_lost_between_units(settlements: list[int], scale: int, decimals: int) -> None:
    """What was settled is what was paid and what is carried, exactly (SE-11)."""
    converter = Converter(scale, decimals)
    paid = carried = 0
    for units in settlements:
        due, carried = converter.to_ledger(units, carried)
        paid += due
    total = Fraction(sum(settlements), 10**scale)
    assert Fraction(paid, 10**decimals) + Fraction(carried, 10**scale) == total
    assert Fraction(carried, 10**scale) < Fraction(1, 10**decimals)


@given(amounts, st.integers(0, 18), st.integers(0, 24))
def test_whole_units_are_what_fits(amount: int, scale: int, decimals: int) -> None:
    units, whole = Converter(scale, decimals).whole_units(amount)
    assert Fraction(units, 10**scale) == Fraction(whole, 10**decimals)
    assert 0 <= Fraction(amount - whole, 10**decimals) < Fraction(1, 10**scale)


@given(st.integers(1, 10**6), st.integers(-(10**5), 10**5), st.integers(0, 12), st.integers(0, 12))
def test_a_payment_that_fails_gives_back_what_it_took_of_what_was_carried(
    units: int, before: int, scale: int, decimals: int
) -> None:
    converter = Converter(scale, decimals)
    if decimals >= scale:
        before = 0  # nothing is ever carried
    amount, carried = converter.to_ledger(units, before)
    assert amount >= 0
    assert converter.carried_back(units, amount, carried) == before


# --- channels to us ---


def a_claim(amount: int) -> Claim:
    return Claim(chain_id=1, contract=SOME.token, terms=SOME, amount=amount, signature=bytes(64))


channel_states = st.one_of(
    st.just(ChannelState(0, 0, 0)),
    st.builds(lambda deposited, part, at: ChannelState(deposited, deposited * part // 10, at),
              st.integers(1, 100), st.integers(0, 10), st.sampled_from([0, 0, 1_000])),
    st.builds(lambda claimed: ChannelState(0, claimed, CLOSED), st.integers(0, 100)),
)  # fmt: skip
records = st.builds(
    lambda claim, less, agreed: Incoming(
        terms=SOME, claim=claim, signature=bytes(64), credited=claim - min(less, claim), is_agreed=agreed
    ),
    st.integers(0, 100),
    st.integers(0, 3),
    st.booleans(),
)


@given(records, st.integers(0, 120), channel_states, channel_states)
def test_a_claim_is_credited_by_its_growth_and_never_beyond_the_channel(
    record: Incoming, amount: int, confirmed: ChannelState, newest: ChannelState
) -> None:
    found = accept(record, a_claim(amount), confirmed, newest)
    if isinstance(found, Fault):
        assert amount > record.claim
        return
    assert found.claim >= record.claim and found.credited >= record.credited
    if found != record:
        assert found.credited == found.claim == amount <= min(confirmed.deposited, newest.deposited)
        assert not confirmed.closing_at and not newest.closing_at and not record.is_agreed


@given(records, channel_states, channel_states)
def test_what_the_chain_does_not_hold_is_taken_back_and_comes_again(
    record: Incoming, confirmed: ChannelState, newest: ChannelState
) -> None:
    held = covered(record, confirmed, newest)
    again = credited_again(record, confirmed)
    assert record.credited <= again <= max(record.credited, record.claim, confirmed.claimed)
    if confirmed.is_there and confirmed.deposited >= record.claim:
        assert held == record.claim and again == max(record.claim, record.credited)
    if not confirmed.is_there and not newest.is_there and not confirmed.has_ended and not newest.has_ended:
        assert held == 0
    assert Incoming.decode(record.encode()) == record


def test_a_channel_that_has_ended_is_watched_for_some_blocks_and_brings_nothing_more() -> None:
    record = Incoming(terms=SOME, claim=5, signature=bytes(64), credited=5)
    ended = record.at(100, has_ended=True)
    assert ended is not None and ended.ended == 100 and Incoming.decode(ended.encode()) == ended
    assert ended.at(100 + ENDED_BLOCKS, has_ended=True) == ended
    assert ended.at(101 + ENDED_BLOCKS, has_ended=True) is None
    assert ended.at(50, has_ended=False) == record
    again = ChannelState(9, 0, 0)
    assert accept(ended, a_claim(5), again, again) == ended
    assert accept(ended, a_claim(6), again, again) is Fault.CLOSED
    old = json.loads(record.encode())
    del old["ended"]  # as versions before have kept it
    assert Incoming.decode(json.dumps(old).encode()) == record


@given(records, channel_states, st.integers(0, 50), st.integers(0, 20))
def test_a_claim_goes_to_the_chain_when_it_closes_or_is_worth_it(
    record: Incoming, newest: ChannelState, above: int, fee: int
) -> None:
    due = redeem(record, newest, claim_above=above, fee=fee)
    rest = min(record.claim, newest.deposited) - newest.claimed
    if due is Redeem.NO:
        assert not newest.is_there or rest <= fee or (not newest.closing_at and (not above or rest < above))
    else:
        assert newest.is_there and rest > fee and (due is Redeem.URGENT) == bool(newest.closing_at)


# --- our channel ---


class Payer(RuleBasedStateMachine):
    """Whatever happens to channels, each settlement is paid once: signed, or waiting, or done."""

    def __init__(self) -> None:
        super().__init__()
        self.state = Outgoing()
        self.due: dict[int, int] = {}
        self.done: set[int] = set()
        self.received = 0  # by the peer, over all channels
        self.peer = 0  # the highest claim of this channel that the peer has

    def take(self, done: list[int]) -> None:
        assert not self.done & set(done)
        self.done |= set(done)

    @rule(amount=st.integers(1, 50))
    def settle(self, amount: int) -> None:
        number = len(self.due) + 1
        self.due[number] = amount
        self.state = self.state.settle(number, amount, 0)

    @precondition(lambda self: self.state.phase is Phase.NONE)
    @rule()
    def open(self) -> None:
        if deposit_for(self.state, deposit=20, reserve=0, most=AMOUNT_MAX):
            self.state = replace(self.state, phase=Phase.OPENING, terms=SOME)
            self.peer = 0

    @precondition(lambda self: self.state.phase is not Phase.NONE)
    @rule(amount=st.integers(0, 60))
    def deepen(self, amount: int) -> None:
        """The opening, or a top-up, or a reorganisation."""
        phase = Phase.OPEN if self.state.phase is Phase.OPENING else self.state.phase
        self.state = replace(self.state, phase=phase, deposited=amount).sign_waiting()

    @rule()
    def deliver(self) -> None:
        self.received += self.state.signed - self.peer
        self.peer = self.state.signed

    @rule()
    def acknowledge(self) -> None:
        self.state, done = self.state.acknowledge(self.peer)
        self.take(done)

    @precondition(lambda self: self.state.phase is not Phase.NONE)
    @rule()
    def end(self) -> None:
        """The peer redeems all that it has."""
        self.state, done = self.state.ended(self.peer)
        self.take(done)
        self.peer = 0

    @invariant()
    def each_is_paid_once(self) -> None:
        state = self.state
        assert state == Outgoing.decode(state.encode())
        waiting = dict(state.waiting)
        signed = {number for number, _ in state.signed_for}
        assert not signed & set(waiting) and not self.done & (signed | set(waiting))
        assert self.done | signed | set(waiting) == set(self.due)
        unsent = state.signed - self.peer
        assert self.received + unsent + sum(waiting.values()) == sum(self.due.values())
        assert all(amount <= self.due[number] for number, amount in waiting.items())


TestPayer = Payer.TestCase


@given(st.integers(1, 100), st.integers(0, 100), st.integers(0, 100), st.integers(0, 100))
def test_a_channel_is_filled_by_what_is_missing_or_the_usual(needed: int, left: int, usual: int, reserve: int) -> None:
    none = Outgoing(waiting=((1, needed),))
    assert deposit_for(none, deposit=usual, reserve=reserve, most=AMOUNT_MAX) == max(needed, usual)
    assert deposit_for(Outgoing(), deposit=usual, reserve=reserve, most=AMOUNT_MAX) == 0
    state = Outgoing(phase=Phase.OPEN, terms=SOME, deposited=left, waiting=((1, needed),))
    added = deposit_for(state, deposit=usual, reserve=reserve, most=AMOUNT_MAX)
    assert left + added >= needed
    assert deposit_for(replace(state, phase=Phase.ENDING), deposit=usual, reserve=reserve, most=AMOUNT_MAX) == 0


# --- transactions ---


def test_a_transaction_is_kept_in_all_its_versions_up_to_a_bound() -> None:
    call = Call(to=SOME.sender, value=2**70, data=b"\x01", gas=30_000)
    one = Pending(
        purpose="open", about="x", nonce=7, call=call, urgent=True, fee=Fee(5, 1), raws=(b"first",), since=1_000
    )
    assert Pending.decode(one.encode()) == one
    assert not one.is_stale(1_999, 1_000) and one.is_stale(2_000, 1_000)
    assert one.is_stale(999, 1_000)  # the clock went back
    while len(one.raws) < VERSIONS_MAX:
        one = one.version(b"next" + bytes([len(one.raws)]), Fee(6, 2), now=1_500)
    assert len(set(one.hashes)) == VERSIONS_MAX
    assert not one.is_stale(10**12, 1_000)


# --- transfers to us ---


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 10**4)), max_size=30), st.integers(0, 4), st.integers(0, 6))
def test_what_is_credited_and_undone_is_what_the_chain_kept(
    events: list[tuple[bool, int]], scale: int, decimals: int
) -> None:
    """Fractions of a unit that an undoing leaves come off the next credit."""
    converter = Converter(scale, decimals)
    kept: dict[bytes, bytes] = {}
    there: list[int] = []
    books = Fraction(0)
    for undo, amount in events:
        if undo and there:
            gone = there.pop()
            units, owed = arrivals.undo(kept, gone, converter)
            books -= Fraction(units, 10**scale)
        elif not undo:
            there.append(amount)
            credit, owed = arrivals.credit(kept, amount)
            books += Fraction(credit, 10**decimals)
        else:
            continue
        kept[arrivals.OWED_BACK] = str(owed).encode()
        assert books == Fraction(sum(there) + owed, 10**decimals)
        assert owed == 0 or Fraction(owed, 10**decimals) < Fraction(1, 10**scale) or undo is False


def a_transfer(number: int, block: int, sender: str = SOME.sender) -> Arrival:
    return Arrival(
        transfer=Transfer(sender, number, number.to_bytes(32, "big"), 0, block), block_hash=block.to_bytes(32, "big")
    )


def test_however_many_transfers_a_block_brings_are_one_record_and_credited_once() -> None:
    kept = {arrivals.SINCE: b"7"}
    found = [a_transfer(number, block) for block in (6, 7, 8) for number in range(1, 2_000)]
    new = arrivals.new(kept, found)
    assert [(one.transfer.block, one.transfer.amount) for one in new] == [(7, 1_999_000), (8, 1_999_000)]
    kept |= {one.key: one.encode() for one in new}
    assert arrivals.new(kept, found) == []
    assert [one for _, one in arrivals.records(kept)] == new
    (other,) = arrivals.new(kept, [a_transfer(5, 8, SOME.receiver)])  # the address that the peer has registered since
    assert other.transfer.amount == 5
    assert [key for key, value in arrivals.tidy(kept, 8 + 2 * arrivals.KEPT_BLOCKS) if not value] == [
        one.key for one in new
    ]


def test_transfers_that_were_kept_one_by_one_are_not_credited_again() -> None:
    """By versions before."""
    one, other = a_transfer(1, 9), a_transfer(2, 9)
    old = b"in/" + one.transfer.transaction.hex().encode() + b"/9/0"
    kept = {arrivals.SINCE: b"7", old: one.encode()}
    assert arrivals.new(kept, [one, other]) == [other]
    assert arrivals.records(kept) == [(old, one)]


# --- transactions that have come -------------------------------------------------------------------------------------


def test_the_last_transactions_that_came_are_kept_for_some_blocks() -> None:
    kept: dict[bytes, bytes] = {}

    def end(nonce: int, block: int) -> list[int]:
        for key, value in with_ended(kept, Ended(nonce=nonce, raw=b"raw", block=block), block):
            if value:
                kept[key] = value
            else:
                del kept[key]
        return [one.nonce for one in ended(kept)]

    assert [end(nonce, 100) for nonce in range(ENDED_MAX)][-1] == list(range(ENDED_MAX))
    assert end(ENDED_MAX, 101) == list(range(1, ENDED_MAX + 1))
    assert end(ENDED_MAX + 1, 100 + ENDED_BLOCKS) == list(range(2, ENDED_MAX + 2))
    assert end(ENDED_MAX + 2, 101 + ENDED_BLOCKS) == [ENDED_MAX, ENDED_MAX + 1, ENDED_MAX + 2]
    assert Ended(nonce=1, raw=b"", block=5).is_kept(5 + ENDED_BLOCKS)
    assert not Ended(nonce=1, raw=b"", block=5).is_kept(6 + ENDED_BLOCKS)
