"""Corrections by the operator: each booked once for its key, durable before the answer, the same after a restart."""

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from isthmus.connector.books import ADJUST, Books
from isthmus.connector.corrections import TRANSFER_KEYS_MAX, correct
from isthmus.connector.events import (
    AccountId,
    Adjust,
    Append,
    CloseLink,
    Corrected,
    Drain,
    Drained,
    Effect,
    GiveUp,
    Inbound,
    LinkDown,
    LinkUp,
    Log,
    WriteOff,
)
from isthmus.connector.kernel import Kernel
from isthmus.connector.record import Transfer, decode_record
from isthmus.connector.tables import RateTable, RouteTable, Tables
from isthmus.errors import ConfigError
from isthmus.ilp.asset import Asset
from isthmus.ilp.outcomes import OutcomesReport, decode_report, encode_report
from isthmus.ilp.packet import Fulfill, Reject, decode, decode_prepare

if TYPE_CHECKING:
    from tests.connector.conftest import MakeNode, MakeTerms, Node

ALICE = AccountId("alice")
BOB = AccountId("bob")
THEIR_SESSION = b"session of peers"


def corrected(effects: list[Effect]) -> Corrected:
    (one,) = [effect for effect in effects if isinstance(effect, Corrected)]
    return one


def transfers(node: "Node") -> list[Transfer]:
    return [entry for record in node.records for entry in decode_record(record) if isinstance(entry, Transfer)]


@pytest.fixture
def node(make_node: "MakeNode", make_terms: "MakeTerms") -> "Node":
    """Alice owed us 100 at most, and voided what we fulfilled: a loss of 100."""
    node = make_node(make_terms("alice", receivable_max=100), make_terms("bob"))
    request_id = pay(node)
    assert isinstance(decode(node.taken("alice").packet), Fulfill)
    report = encode_report(OutcomesReport(THEIR_SESSION, request_id, [request_id], [], []), node.wall + 1_000)
    node.tell(Inbound(ALICE, THEIR_SESSION, 2**31, report, node.mono))
    node.take("alice")
    assert (node.balance("alice"), node.internal("loss:alice")) == (0, 100)
    return node


def pay(node: "Node") -> int:
    """A packet of 100 from alice to bob, who fulfils it if it comes."""
    request_id = node.prepare("alice", "test.node.bob.x")
    for frame in node.take("bob"):
        node.fulfil("bob", frame.request_id)
    return request_id


def write_off(key: str = "key", amount: int | None = None, token: int = 1) -> WriteOff:
    return WriteOff(ALICE, amount, key, "agreed by phone", token)


def adjust(amount: int, key: str = "key", token: int = 1, account: AccountId = ALICE) -> Adjust:
    return Adjust(account, amount, key, "paid twice", token)


def test_a_loss_counts_against_the_limit_until_it_is_written_off(node: "Node") -> None:
    """Issue 4, part 1."""
    pay(node)
    refused = decode(node.taken("alice").packet)
    assert isinstance(refused, Reject) and refused.code == "T04"
    assert corrected(node.tell(write_off())) == Corrected(1, 100, "")
    assert node.internal("loss:alice") == 0
    assert node.internal("written-off:USD:9") == 100
    pay(node)
    assert isinstance(decode(node.taken("alice").packet), Fulfill)
    assert node.balance("alice") == 100


def test_a_part_of_a_loss_frees_a_part_of_the_limit(node: "Node") -> None:
    assert corrected(node.tell(write_off(amount=30))) == Corrected(1, 30, "")
    assert node.internal("loss:alice") == 70
    node.prepare("alice", "test.node.bob.x", 31)
    assert isinstance(decode(node.taken("alice").packet), Reject)
    node.prepare("alice", "test.node.bob.x", 30)
    assert len(node.take("bob")) == 1


@pytest.mark.parametrize("amount", [None, 40])
def test_a_repeated_key_gets_the_same_answer_and_books_nothing(node: "Node", amount: int | None) -> None:
    """Also while the first is on its way to the disk, and after a restart."""
    node.durable = False
    assert [effect for effect in node.tell(write_off(amount=amount)) if isinstance(effect, Corrected)] == []
    assert [one for one in node.tell(write_off(amount=amount, token=2)) if isinstance(one, Corrected)] == []
    booked = amount or 100
    answers = [effect for effect in node.commit() if isinstance(effect, Corrected)]
    assert answers == [Corrected(1, booked, ""), Corrected(2, booked, "")]
    node.durable = True
    again = node.restarted()
    assert corrected(again.tell(write_off(amount=amount, token=3))) == Corrected(3, booked, "")
    assert again.internal("loss:alice") == 100 - booked
    assert len(transfers(again)) == 1


def test_a_key_is_good_for_one_correction_only(node: "Node") -> None:
    node.tell(write_off(amount=40))
    for other in (write_off(amount=41), adjust(40), adjust(40, account=BOB)):
        told = corrected(node.tell(other))
        assert (told.amount, told.problem) == (0, "this key was used for another correction")
    assert corrected(node.tell(write_off("ke", amount=1))).problem == ""  # no prefix of a key is that key
    assert len(transfers(node)) == 2


def test_an_adjustment_moves_a_balance_either_way(node: "Node") -> None:
    """The peer owes us more with a positive amount; against the adjustments of the asset."""
    assert corrected(node.tell(adjust(70))) == Corrected(1, 70, "")
    assert (node.balance("alice"), node.internal("adjustment:USD:9")) == (70, -70)
    assert corrected(node.tell(adjust(-(2**200), "other"))) == Corrected(1, -(2**200), "")
    assert node.balance("alice") == 70 - 2**200
    assert corrected(node.tell(adjust(-(2**200), "other", token=9))) == Corrected(9, -(2**200), "")
    first, second = transfers(node)
    assert (first.amount, first.text, second.amount) == (70, "paid twice", 2**200)
    assert first.debit == second.credit == node.kernel.books.peers[ALICE].index


def test_an_answer_comes_once_it_is_durable_with_its_batch(node: "Node") -> None:
    node.durable = False
    effects = node.tell(write_off(), node.inbound("bob", "test.node.alice.x", 1))
    (append,) = [effect for effect in effects if isinstance(effect, Append)]
    assert append.summary.singles == [("write-off", ALICE, 100, "agreed by phone")]
    assert dict(append.summary.internal)["loss:alice"] == 0
    assert not any(isinstance(effect, Corrected) for effect in effects)
    assert corrected(node.commit()) == Corrected(1, 100, "")


def test_it_is_logged_once(node: "Node") -> None:
    effects = node.tell(write_off()) + node.tell(write_off())
    logs = [effect for effect in effects if isinstance(effect, Log)]
    assert [(log.event, log.fields) for log in logs] == [
        ("corrected", {"kind": "write-off", "account": "alice", "amount": "100"})
    ]


def test_what_can_not_be_booked_is_refused_in_words(node: "Node") -> None:
    for event, says in (
        (write_off(amount=101), "not above the loss of 100"),
        (write_off(amount=0), "must be above zero"),
        (write_off(amount=-5), "must be above zero"),
        (WriteOff(BOB, None, "key", "why", 1), "there is no loss"),
        (WriteOff(AccountId("nobody"), None, "key", "why", 1), "no such account"),
        (adjust(0), "the amount is zero"),
        (adjust(2**256), "too large"),
        (adjust(-(2**256)), "too large"),
    ):
        told = corrected(node.tell(event))
        assert told.amount == 0 and says in told.problem
    assert transfers(node) == []


def test_keys_are_bounded() -> None:
    """They are kept for ever, in every checkpoint."""
    books = Books()
    account = books.open_peer(ALICE, "USD", 9)
    books.transfer_keys.update({b"%d" % number: ADJUST for number in range(TRANSFER_KEYS_MAX - 1)})
    assert correct(books, account, adjust(1, "last")) == (Corrected(1, 1, ""), True)
    told, is_new = correct(books, account, adjust(1, "one too many"))
    assert "no more are taken" in told.problem and not is_new
    assert correct(books, account, adjust(1, "last")) == (Corrected(1, 1, ""), False)


def test_replay_and_checkpoint_have_the_same_books_and_keys(node: "Node") -> None:
    """Issue 4, part 7: the shadow kernel compares after each commit; here a checkpoint in between."""
    node.tell(write_off(amount=60), adjust(5, "second"))
    other = Kernel(bytes(32))
    other.load_state(node.kernel.state())
    node.tell(adjust(-6, "third"))
    other.replay(len(node.records), node.records[-1])
    assert other.digest() == node.kernel.digest()
    assert list(other.books.transfer_keys) == list(node.kernel.books.transfer_keys)


def test_a_correction_of_a_crashed_node_hides_no_amount_at_risk(make_node: "MakeNode", make_terms: "MakeTerms") -> None:
    """At risk is what the dead process posted before its end, however much the operator adds then."""
    node = make_node(make_terms("alice"), make_terms("bob"), up=False)
    node.tell(LinkUp(ALICE, is_other=True), LinkUp(BOB, is_other=True))
    pay(node)
    for number in range(6):  # as `isthmus books adjust` does with the node stopped
        books = replayed(node).books
        correct(books, books.peers[ALICE], adjust(1, f"key-{number}"))
        node.records.append(books.take_record())
    alice = node.restarted().kernel.books.peers[ALICE]
    assert (alice.balance, alice.at_risk) == (106, 100)


def replayed(node: "Node") -> Kernel:
    kernel = Kernel(bytes(32))
    for sequence, record in enumerate(node.records, 1):
        kernel.replay(sequence, record)
    return kernel


def test_accounts_in_other_assets_have_their_own_adjustments(make_node: "MakeNode", make_terms: "MakeTerms") -> None:
    btc = make_terms("carol", asset=Asset("BTC", 8))
    node = make_node(make_terms("alice"), btc, rates=RateTable({}))
    node.tell(Adjust(AccountId("carol"), 3, "k", "why", 1), adjust(4, "l"))
    assert (node.internal("adjustment:BTC:8"), node.internal("adjustment:USD:9")) == (-3, -4)
    node.kernel.books.check()


# --- outcomes given up -----------------------------------------------------------------------------------------------


def give_up(key: str = "key", token: int = 1) -> GiveUp:
    return GiveUp(ALICE, key, "gone for good", token)


@pytest.fixture
def lost(make_node: "MakeNode", make_terms: "MakeTerms") -> "Node":
    """Alice was paid for two Prepares, left a third of ours without a word, and never came back."""
    node = make_node(make_terms("alice"), make_terms("bob"))
    node.tell(Inbound(ALICE, THEIR_SESSION, 2**31, encode_report(OutcomesReport(THEIR_SESSION, 0, [], [], []), 0), 0))
    for _ in range(2):
        pay(node)
    node.prepare("bob", "test.node.alice.x", 7)
    node.tell(LinkDown(ALICE, "gone"), LinkDown(BOB, "gone too"))
    node.wait(10**7)
    alice = node.kernel.books.peers[ALICE]
    assert (len(alice.fulfilled), len(alice.unsaid), alice.at_risk) == (2, 1, 0)
    return node


def without_alice(node: "Node") -> Tables:
    accounts = {name: one for name, one in node.tables.accounts.items() if name != ALICE}
    return replace(node.tables, accounts=accounts, routes=RouteTable({"test.node.bob": BOB}))


def test_what_a_peer_wont_acknowledge_is_given_up_and_at_risk(lost: "Node") -> None:
    """Once for its key, also after a restart; no balance changes."""
    alice = lost.kernel.books.peers[ALICE]
    effects = lost.tell(give_up())
    assert corrected(effects) == Corrected(1, 200, "")
    assert (len(alice.fulfilled), alice.fulfilled_amount, len(alice.unsaid)) == (0, 0, 0)
    assert (alice.at_risk, [one[2] for one in lost.kernel.books.at_risk], alice.balance) == (200, [100, 100], 200)
    appends = [effect for effect in effects if isinstance(effect, Append)]
    assert [one for append in appends for one in append.summary.singles] == [
        ("give-up", ALICE, 200, "gone for good"),
    ]
    again = lost.restarted()
    assert corrected(again.tell(give_up(token=2))) == Corrected(2, 200, "")
    assert again.kernel.books.peers[ALICE].at_risk == 200
    assert corrected(again.tell(give_up("another"))).problem == "nothing is kept for this peer"


def test_an_account_goes_only_without_anything_that_its_peer_must_hear(lost: "Node") -> None:
    """What we fulfilled and it has not acknowledged, what we voided and it does not know; each until it is given up."""
    lost.tell(adjust(-200, "settled"))
    alice = lost.kernel.books.peers[ALICE]
    kept = dict(alice.fulfilled)
    alice.fulfilled.clear()
    with pytest.raises(ConfigError, match="has outcomes that its peer has not acknowledged or heard"):
        lost.kernel.check_tables(without_alice(lost))
    alice.fulfilled.update(kept)
    with pytest.raises(ConfigError, match="isthmus books give-up"):
        lost.kernel.check_tables(without_alice(lost))
    lost.tell(give_up())
    lost.kernel.check_tables(without_alice(lost))


def test_nothing_is_given_up_while_packets_are_in_flight(node: "Node") -> None:
    node.prepare("bob", "test.node.alice.x")
    assert "packets are in flight on this account (1)" in corrected(node.tell(give_up())).problem
    assert corrected(node.tell(GiveUp(BOB, "k", "why", 1))).problem != ""


def test_a_session_whose_outcomes_were_given_up_is_left(lost: "Node") -> None:
    """A later report of it would tell its voided legs as posted."""
    before = lost.kernel.session(ALICE)
    assert any(session == before for session, _ in lost.kernel.books.peers[ALICE].unsaid)
    lost.tell(LinkUp(ALICE))
    lost.take("alice")
    lost.reports.clear()
    effects = lost.tell(give_up())
    assert [one.account for one in effects if isinstance(one, CloseLink)] == [ALICE]
    lost.tell(LinkDown(ALICE, "as was asked"), LinkUp(ALICE))
    assert lost.kernel.session(ALICE) != before
    lost.wait(60_000)
    lost.take("alice")
    assert all(decode_report(decode_prepare(one.packet).data).session != before for one in lost.reports)


def test_legs_without_a_name_are_given_up_too(make_node: "MakeNode", make_terms: "MakeTerms") -> None:
    """And nobody tries to forget them afterwards, nor lists them a second time."""
    node = make_node(make_terms("alice"), make_terms("bob"))
    node.prepare("alice", "test.node.bob.x", session=b"a request's uuid", request_id=0)
    node.fulfil("bob", node.taken("bob").request_id)
    assert corrected(node.tell(give_up())) == Corrected(1, 100, "")
    crashed = node.restarted()
    for one in (node, crashed):
        one.tell(LinkUp(ALICE), LinkUp(BOB))
        one.wait(200_000)
        assert one.kernel.books.peers[ALICE].at_risk == 100
    node.prepare("alice", "test.node.bob.x", session=b"another one's ..", request_id=0)
    node.fulfil("bob", node.taken("bob").request_id)
    node.tell(Drain())
    assert any(isinstance(effect, Drained) for effect in node.effects)


def test_giving_up_replays_as_it_was(lost: "Node") -> None:
    state, first = lost.kernel.state(), lost.kernel.sequence
    lost.tell(give_up())
    kernel = Kernel(bytes(32))
    kernel.load_state(state)
    for sequence, record in enumerate(lost.records[first:], first + 1):
        kernel.replay(sequence, record)
    assert kernel.digest() == lost.kernel.digest()
