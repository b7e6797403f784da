"""Two neighbours and what each knows of the other's outcomes: after lost frames, crashes, and late words."""

from typing import TYPE_CHECKING, Any

import pytest

from isthmus.connector import state
from isthmus.connector.books import DEAF, HEARS, OUTCOMES_MAX, UNKNOWN
from isthmus.connector.events import AccountId, Drain, Drained, Inbound, LinkDown, LinkUp, Log, Outbound, Undelivered
from isthmus.connector.legs import IncomingLeg
from isthmus.connector.outcomes import (
    ASK_AFTER_MS,
    ASK_EVERY_MS,
    NAMELESS_KEPT_MAX,
    REPORT_AFTER_MS,
    UNTAKEN_MAX,
)
from isthmus.ilp.ildcp import PEER_CONDITION
from isthmus.ilp.outcomes import (
    OUTCOMES_DESTINATION,
    VOIDED_MAX,
    OutcomesReport,
    decode_answer,
    decode_report,
    encode_answer,
    encode_report,
)
from isthmus.ilp.packet import (
    Fulfill,
    Prepare,
    Reject,
    decode,
    decode_prepare,
    encode_fulfill,
    encode_prepare,
    encode_reject,
)

if TYPE_CHECKING:
    from tests.connector.conftest import MakeNode, MakeTerms, Node

FULFILLMENT = bytes(range(32))
ANN, BEN = AccountId("ann"), AccountId("ben")
# Ben's own expiry of a Prepare that left ann's node with 29 s is one margin earlier.
HOLD_MS = 29_000


class Pair:
    """Payer - ann's node - ben's node - bob. `cut`: frames between the two nodes are lost."""

    def __init__(self, make_node: "MakeNode", make_terms: "MakeTerms", **terms_of_ann: Any) -> None:
        routes = {"test.bob": "ben", "test.payer": "payer"}
        self.ann: Node = make_node(make_terms("payer"), make_terms("ben"), address="test.ann", routes=routes)
        self.ben: Node = make_node(
            make_terms("ann", **terms_of_ann),
            make_terms("bob"),
            address="test.ben",
            routes={"test.bob": "bob", "test.payer": "ann"},
        )
        self.cut = False

    def carry(self) -> None:
        """Until nothing is on its way between the two."""
        while True:
            to_ben = self.ann.frames.pop(BEN, [])
            to_ann = self.ben.frames.pop(ANN, [])
            if not to_ben and not to_ann:
                return
            if not self.cut:
                self.ben.tell(*[_arrived(ANN, frame, self.ben.mono) for frame in to_ben])
                self.ann.tell(*[_arrived(BEN, frame, self.ann.mono) for frame in to_ann])

    def wait(self, ms: int) -> None:
        """Time passes on both sides alike."""
        left = ms
        while left:
            step = min(left, 50)
            self.ann.wait(step)
            self.ben.wait(step)
            self.carry()
            left -= step

    def pay(self, amount: int = 100) -> int:
        """A Prepare goes all the way to bob. Gives the id of the payer's request."""
        request = self.ann.prepare("payer", "test.bob.x", amount)
        self.carry()
        return request

    def bob_fulfils(self) -> None:
        fulfill = encode_fulfill(Fulfill(FULFILLMENT))
        found = [Inbound(AccountId("bob"), b"", one.request_id, fulfill, self.ben.mono) for one in self.ben.take("bob")]
        self.ben.tell(*found)

    def fall(self) -> None:
        """The connection breaks."""
        self.cut = True
        self.carry()
        self.cut = False
        self.ann.tell(LinkDown(BEN, "gone"))
        self.ben.tell(LinkDown(ANN, "gone"))

    def rise(self) -> None:
        self.ann.tell(LinkUp(BEN))
        self.ben.tell(LinkUp(ANN))
        self.carry()

    def restart_ann(self) -> None:
        self.fall()
        self.ann = self.ann.restarted()
        self.ann.tell(LinkUp(AccountId("payer")))

    def restart_ben(self) -> None:
        self.fall()
        self.ben = self.ben.restarted()
        self.ben.tell(LinkUp(AccountId("bob")))

    def agree(self) -> int:
        """Both books have the same balance and nothing undecided; gives what ann's node owes ben's."""
        anns, bens = self.ann.kernel.books.peers[BEN], self.ben.kernel.books.peers[ANN]
        assert not (anns.sent or bens.received or bens.fulfilled or anns.unsaid)
        assert bens.balance == -anns.balance
        return bens.balance


def _arrived(account: AccountId, frame: Outbound, at: int) -> Inbound:
    return Inbound(account, frame.session, frame.request_id, frame.packet, at)


@pytest.fixture
def pair(make_node: "MakeNode", make_terms: "MakeTerms") -> Pair:
    return Pair(make_node, make_terms)


# --- nothing goes wrong ----------------------------------------------------------------------------------------------


def test_a_fulfilled_leg_is_kept_until_its_sender_has_decided(pair: Pair) -> None:
    pair.pay()
    pair.bob_fulfils()
    bens = pair.ben.kernel.books.peers[ANN]
    assert bens.fulfilled_amount == 100
    assert [leg.fulfillment for leg in bens.fulfilled.values()] == [FULFILLMENT]
    pair.carry()
    pair.wait(REPORT_AFTER_MS + 100)
    assert pair.agree() == 100
    assert pair.ann.kernel.books.peers[BEN].hearing == HEARS


def test_a_rejected_leg_is_nobodys_outcome_to_tell(pair: Pair) -> None:
    pair.pay()
    pair.ben.reject("bob", pair.ben.taken("bob").request_id)
    pair.carry()
    reported(pair.ann, "ben")
    pair.wait(10_000)
    assert all(report.watermark == 0 for report in reported(pair.ann, "ben"))  # only whether it takes any
    assert pair.agree() == 0


def test_a_report_rests_on_durable_outcomes(pair: Pair) -> None:
    """CONN-3: commit before send."""
    pair.pay()
    pair.bob_fulfils()
    pair.ann.durable = False
    pair.carry()
    pair.ann.wait(REPORT_AFTER_MS + 10)
    assert not pair.ann.take("ben") and not pair.ann.reports
    while pair.ann.undurable:
        pair.ann.commit()
    pair.ann.take("ben")
    assert [decode_report(decode_prepare(one.packet).data).watermark for one in pair.ann.reports] == [1]


def test_an_answer_rests_on_the_losses_that_it_caused(pair: Pair) -> None:
    pair.pay()
    pair.bob_fulfils()
    pair.ben.take("ann")
    pair.ben.durable = False
    session = next(iter(pair.ben.kernel.books.peers[ANN].fulfilled))[0]
    report = encode_report(OutcomesReport(session, 1, [1], [], []), pair.ben.wall + 5_000)
    pair.ben.tell(Inbound(ANN, session, 77, report, pair.ben.mono))
    assert not pair.ben.take("ann")
    while pair.ben.undurable:
        pair.ben.commit()
    assert isinstance(decode(pair.ben.taken("ann").packet), Fulfill)
    assert pair.ben.kernel.books.peers[ANN].loss.balance == 100


# --- frames lost, processes killed -----------------------------------------------------------------------------------


def test_a_fulfill_lost_with_its_node_is_asked_for(pair: Pair) -> None:
    """Killed after the commit and before the send, and back in time: nobody loses anything."""
    request = pair.pay()
    pair.bob_fulfils()
    pair.restart_ben()
    pair.rise()
    frame = pair.ann.taken("payer")
    assert (frame.request_id, decode(frame.packet)) == (request, Fulfill(FULFILLMENT))
    pair.wait(REPORT_AFTER_MS + 100)
    assert pair.agree() == 100


def test_a_sender_that_was_killed_asks_before_it_voids(pair: Pair) -> None:
    request = pair.pay()
    pair.bob_fulfils()
    pair.restart_ann()
    pair.ann.wait(HOLD_MS - 5_000)
    assert not pair.ann.take("payer")
    pair.ben.wait(HOLD_MS - 5_000)
    pair.rise()
    frame = pair.ann.taken("payer")
    assert (frame.request_id, decode(frame.packet)) == (request, Fulfill(FULFILLMENT))
    pair.wait(REPORT_AFTER_MS + 100)
    assert pair.agree() == 100
    assert pair.ben.kernel.books.peers[ANN].loss.balance == 0


def test_what_is_open_at_the_other_side_is_asked_about_again(pair: Pair) -> None:
    """Over HTTP the answer has nowhere to go after a restart; asking again finds it."""
    pair.pay()
    pair.restart_ann()
    pair.rise()
    pair.bob_fulfils()
    pair.ben.take("ann")  # the Fulfill is lost
    pair.wait(1_500)
    assert isinstance(decode(pair.ann.taken("payer").packet), Fulfill)
    pair.wait(REPORT_AFTER_MS + 100)
    assert pair.agree() == 100


def test_the_sender_was_away_until_the_expiry_and_the_other_side_books_the_loss(pair: Pair) -> None:
    """The side that sent the Prepare decides by its own clock, after a crash too."""
    pair.pay()
    pair.bob_fulfils()
    pair.fall()
    pair.ann.wait(HOLD_MS + 2_000)
    pair.ben.wait(HOLD_MS + 2_000)
    assert isinstance(decode(pair.ann.taken("payer").packet), Reject)
    pair.rise()
    bens = pair.ben.kernel.books.peers[ANN]
    assert pair.agree() == 0
    assert (bens.loss.balance, pair.ben.internal("loss:ann")) == (100, 100)
    assert pair.ben.balance("bob") == -100
    assert any(isinstance(effect, Log) and effect.event == "loss" for effect in pair.ben.effects)


def test_a_loss_counts_against_the_limit_of_the_peer_that_refused(
    make_node: "MakeNode", make_terms: "MakeTerms"
) -> None:
    pair = Pair(make_node, make_terms, receivable_max=150)
    pair.pay()
    pair.bob_fulfils()
    pair.fall()
    pair.ann.wait(HOLD_MS + 2_000)
    pair.ben.wait(HOLD_MS + 2_000)
    pair.rise()
    pair.ann.take("payer")
    pair.pay()
    answer = decode(pair.ann.taken("payer").packet)
    assert isinstance(answer, Reject) and answer.code == "T04"


def test_both_are_killed_again_and_again(pair: Pair) -> None:
    for number in range(6):
        pair.pay(100 + number)
        pair.bob_fulfils()
        (pair.restart_ann if number % 2 else pair.restart_ben)()
        pair.rise()
        pair.wait(REPORT_AFTER_MS)
    pair.wait(2_000)
    assert pair.agree() == sum(100 + number for number in range(6))
    # Sessions that have ended are told of once, and then forgotten.
    assert list(pair.ann.kernel.books.peers[BEN].sessions) in ([], [pair.ann.kernel.session(BEN)])


def test_a_leg_decided_before_it_was_fulfilled_is_lost_at_once(pair: Pair) -> None:
    """Ben's clock is slow: it fulfils what ann's node has voided, and has told it that."""
    pair.pay()
    for _ in range((HOLD_MS + REPORT_AFTER_MS) // 100 + 1):
        pair.ann.wait(100)
        pair.carry()  # the report arrives; the leg is still open at ben's
    assert len(pair.ben.kernel.books.peers[ANN].received) == 1
    pair.bob_fulfils()
    pair.carry()
    assert pair.ben.kernel.books.peers[ANN].loss.balance == 100
    assert pair.agree() == 0


def test_a_fulfillment_is_applied_only_while_the_hold_is_open(pair: Pair) -> None:
    pair.pay()
    pair.bob_fulfils()
    pair.restart_ann()
    pair.ann.tell(LinkUp(BEN))
    question = pair.ann.take("ben") or pair.ann.reports
    asked = decode_report(decode_prepare(question[0].packet).data)
    assert asked.asked == [1]
    pair.ann.wait(4_900)
    answer = encode_answer([(1, FULFILLMENT)])
    late = pair.ann.mono + HOLD_MS
    pair.ann.wall += HOLD_MS
    pair.ann.mono = late
    pair.ann.tell(Inbound(BEN, b"", question[0].request_id, answer, late))
    assert isinstance(decode(pair.ann.taken("payer").packet), Reject)
    assert pair.ann.balance("ben") == 0


# --- who may ask what ------------------------------------------------------------------------------------------------


def test_a_peer_may_ask_only_about_its_own_account(pair: Pair) -> None:
    pair.pay()
    pair.bob_fulfils()
    session = next(iter(pair.ben.kernel.books.peers[ANN].fulfilled))[0]
    pair.ben.take("ann")
    report = encode_report(OutcomesReport(session, 0, [], [1], []), pair.ben.wall + 5_000)
    pair.ben.tell(Inbound(AccountId("bob"), b"session of bobs.", 9, report, pair.ben.mono))
    answer = decode(pair.ben.taken("bob").packet)
    assert isinstance(answer, Fulfill) and decode_answer(answer.data) == []
    pair.ben.tell(Inbound(ANN, session, 9, report, pair.ben.mono))
    answer = decode(pair.ben.taken("ann").packet)
    assert isinstance(answer, Fulfill) and decode_answer(answer.data) == [(1, FULFILLMENT)]


@pytest.mark.parametrize(
    "prepare, code",
    [
        (Prepare(1, 10**13, PEER_CONDITION, OUTCOMES_DESTINATION, b""), "F00"),
        (Prepare(0, 10**13, bytes(32), OUTCOMES_DESTINATION, b""), "F00"),
        (Prepare(0, 10**13, PEER_CONDITION, OUTCOMES_DESTINATION, b""), "F01"),
        (Prepare(0, 10**13, PEER_CONDITION, OUTCOMES_DESTINATION, b"\x02" + bytes(24)), "F01"),
    ],
)
def test_a_report_that_is_none_is_refused_and_changes_nothing(node: "Node", prepare: Prepare, code: str) -> None:
    """PEER-5."""
    before = node.kernel.digest()
    node.tell(Inbound(AccountId("alice"), b"session of peers", 3, encode_prepare(prepare), node.mono))
    assert node.rejected("alice").code == code
    assert node.kernel.digest() == before


def test_a_repeated_prepare_gets_its_fulfill_again_and_is_booked_once(pair: Pair) -> None:
    """HTTP-7, across a crash."""
    pair.ann.prepare("payer", "test.bob.x")
    sent = pair.ann.taken("ben")
    pair.ben.tell(_arrived(ANN, sent, pair.ben.mono))
    pair.bob_fulfils()
    pair.restart_ben()
    pair.ben.tell(LinkUp(ANN), _arrived(ANN, sent, pair.ben.mono))
    frame = pair.ben.taken("ann")
    assert (frame.session, frame.request_id) == (sent.session, sent.request_id)
    assert decode(frame.packet) == Fulfill(FULFILLMENT)
    assert pair.ben.balance("ann") == 100


# --- peers that know nothing of it -----------------------------------------------------------------------------------


def _pay_alice_to_bob(node: "Node", count: int = 1) -> None:
    for _ in range(count):
        node.prepare("alice", "test.node.bob.x")
    for frame in node.take("bob"):
        node.fulfil("bob", frame.request_id)
    node.take("alice")


def test_a_peer_that_rejects_reports_hears_no_more_of_them(node: "Node") -> None:
    _pay_alice_to_bob(node)
    node.wait(REPORT_AFTER_MS + 10)
    node.take("bob")
    (report,) = node.reports
    node.tell(
        Inbound(AccountId("bob"), b"", report.request_id, encode_reject(Reject("F02", "test.bob", "")), node.mono)
    )
    bob = node.kernel.books.peers[AccountId("bob")]
    assert (bob.hearing, bob.sessions, bob.unsaid) == (DEAF, {}, {})
    _pay_alice_to_bob(node)
    node.prepare("alice", "test.node.bob.x")
    node.wait(40_000)  # it expires
    node.reports.clear()
    assert not node.take("bob")[1:] and not node.reports and not bob.unsaid
    node.tell(LinkDown(AccountId("bob"), "upgraded"), LinkUp(AccountId("bob")))
    assert not node.take("bob")
    (probe,) = node.reports
    node.tell(Inbound(AccountId("bob"), b"", probe.request_id, encode_answer([]), node.mono))
    assert bob.hearing == HEARS


@pytest.mark.parametrize("reply", [encode_fulfill(Fulfill(FULFILLMENT)), encode_fulfill(Fulfill(bytes(32), b"?"))])
def test_an_answer_without_sense_is_that_of_a_peer_that_knows_no_reports(node: "Node", reply: bytes) -> None:
    _pay_alice_to_bob(node)
    node.wait(REPORT_AFTER_MS + 10)
    node.take("bob")
    node.tell(Inbound(AccountId("bob"), b"", node.reports[0].request_id, reply, node.mono))
    assert node.kernel.books.peers[AccountId("bob")].hearing == DEAF


@pytest.mark.parametrize("code", ["T01", "T03", "T05", "R00"])
def test_a_peer_that_is_busy_is_told_again(node: "Node", code: str) -> None:
    _pay_alice_to_bob(node)
    node.wait(REPORT_AFTER_MS + 10)
    node.take("bob")
    busy = encode_reject(Reject(code, "test.bob", "busy"))
    node.tell(Inbound(AccountId("bob"), b"", node.reports[0].request_id, busy, node.mono))
    node.wait(600)
    node.take("bob")
    assert len(node.reports) == 2
    assert node.kernel.books.peers[AccountId("bob")].hearing == UNKNOWN


def test_a_peer_that_says_nothing_is_told_again_with_longer_pauses(node: "Node") -> None:
    _pay_alice_to_bob(node)
    node.wait(120_000)
    node.take("bob")
    assert 4 <= len(node.reports) <= 20


def test_a_peer_without_outcomes_of_its_own_shows_it_when_the_link_comes_up(node: "Node") -> None:
    """We ask whether it takes reports before there is anything to tell; so it learns that it should tell us its own."""
    node.wait(REPORT_AFTER_MS)
    node.take("bob")
    (probe,) = node.reports
    report = decode_report(decode_prepare(probe.packet).data)
    assert (report.watermark, report.voided, report.asked, report.ranges) == (0, [], [], [])


@pytest.mark.parametrize("code", ["F00", "F02"])
def test_a_status_of_the_link_is_not_the_peers_word_at_once(node: "Node", code: str) -> None:
    """A proxy in between may have statuses of its own; but if it goes on, there is nobody who takes reports."""
    bob = node.kernel.books.peers[AccountId("bob")]
    for _ in range(UNTAKEN_MAX + 1):
        assert bob.hearing == UNKNOWN
        while not node.reports:
            node.wait(50)
            node.take("bob")
        node.tell(Undelivered(AccountId("bob"), node.reports.pop().request_id, code, "413 Content Too Large"))
    assert bob.hearing == DEAF


def test_a_peer_that_tells_us_its_outcomes_takes_ours_whatever_a_proxy_said(node: "Node") -> None:
    bob = node.kernel.books.peers[AccountId("bob")]
    node.wait(REPORT_AFTER_MS)
    node.take("bob")
    refusal = encode_reject(Reject("F02", "test.proxy", ""))
    node.tell(Inbound(AccountId("bob"), b"", node.reports.pop().request_id, refusal, node.mono))
    assert bob.hearing == DEAF
    report = encode_report(OutcomesReport(b"session of peers", 3, [], [], []), node.wall + 5_000)
    node.tell(Inbound(AccountId("bob"), b"", 4, report, node.mono))
    node.wait(REPORT_AFTER_MS)
    node.take("bob")
    node.tell(Inbound(AccountId("bob"), b"", node.reports.pop().request_id, encode_answer([]), node.mono))
    assert bob.hearing == HEARS


# --- legs without an identity (HTTP, other implementations) ----------------------------------------------------------

NAMELESS = b"their Request-Id"


def _pay_nameless(node: "Node", count: int = 1, first: int = 0) -> None:
    for number in range(first, first + count):
        session = number.to_bytes(8, "big") + NAMELESS[8:]
        node.prepare("alice", "test.node.bob.x", request_id=0, session=session)
        node.fulfil("bob", node.taken("bob").request_id)
        assert isinstance(node.packet("alice"), Fulfill)


def test_what_no_report_can_name_is_forgotten_when_it_would_have_expired(node: "Node") -> None:
    _pay_nameless(node)
    alice = node.kernel.books.peers[AccountId("alice")]
    node.wait(29_000)
    assert len(alice.fulfilled) == 1  # its Prepare may be repeated
    node.wait(2_000)
    assert not alice.fulfilled and not alice.at_risk


def test_after_a_crash_what_no_report_can_name_is_at_risk(node: "Node") -> None:
    _pay_nameless(node, 3)
    after = node.restarted()
    after.tell(LinkUp(AccountId("alice")), LinkUp(AccountId("bob")))
    after.wait(31_000)
    alice = after.kernel.books.peers[AccountId("alice")]
    assert not alice.fulfilled
    assert (alice.at_risk, alice.balance) == (300, 300)


def test_what_no_report_can_name_is_not_decided_by_one(node: "Node") -> None:
    """An isthmus becomes another program, or a proxy takes the header away: what it pays is no loss."""
    report = encode_report(OutcomesReport(b"session of peers", 5, [], [], []), node.wall + 5_000)
    node.tell(Inbound(AccountId("alice"), b"", 9, report, node.mono))
    node.take("alice")
    _pay_nameless(node)
    alice = node.kernel.books.peers[AccountId("alice")]
    assert (alice.balance, alice.loss.balance) == (100, 0)


def test_a_report_that_names_the_session_of_what_has_no_id_ends_nothing_else(node: "Node") -> None:
    """A peer may take its Request-Id for a session's. The node waited for a leg that was no longer there, and died."""
    _pay_nameless(node)
    (session, _) = next(iter(node.kernel.books.peers[AccountId("alice")].fulfilled))
    report = encode_report(OutcomesReport(session, 5, [], [], []), node.wall + 5_000)
    node.tell(Inbound(AccountId("alice"), b"", 9, report, node.mono))
    node.take("alice")
    node.wait(31_000)
    assert (node.balance("alice"), node.kernel.books.peers[AccountId("alice")].at_risk) == (100, 0)


def test_a_repeat_gets_its_answer_from_a_node_that_takes_no_new_prepares(node: "Node") -> None:
    _pay_nameless(node)
    node.prepare("alice", "test.node.bob.x")  # holds up the end
    node.tell(Drain())
    node.prepare("alice", "test.node.bob.x", request_id=0, session=bytes(8) + NAMELESS[8:])
    assert isinstance(node.packet("alice"), Fulfill)


# --- bounds ----------------------------------------------------------------------------------------------------------


def _fill(node: "Node", name: str, count: int) -> None:
    account = node.kernel.books.peers[AccountId(name)]
    for number in range(count):
        leg = IncomingLeg(0, account, 0, 0, bytes(32), b"another session!", number + 1, 10**9)
        leg.fulfillment = bytes(32)
        account.fulfilled[leg.session, leg.request_id] = leg


def test_above_the_bound_new_prepares_wait_until_outcomes_are_acknowledged(node: "Node") -> None:
    """A peer that acknowledged once, and doesn't any more."""
    node.kernel.books.acknowledge(node.kernel.books.peers[AccountId("alice")], b"an older session", 1)
    node.tell()
    _fill(node, "alice", OUTCOMES_MAX - 1)
    _pay_alice_to_bob_unchecked(node)
    node.prepare("alice", "test.node.bob.x")
    assert node.rejected("alice").code == "T03"


def _pay_alice_to_bob_unchecked(node: "Node") -> None:
    """As a batch of its own, without the comparison with a shadow that knows nothing of what was filled in."""
    node.shadow = _Blind()  # type: ignore[assignment]
    node.prepare("alice", "test.node.bob.x", request_id=1_000)
    node.fulfil("bob", node.taken("bob").request_id)
    assert isinstance(node.packet("alice"), Fulfill)


class _Blind:
    def replay(self, sequence: int, record: bytes) -> None: ...

    def digest(self) -> "Any":
        return _Anything()


class _Anything:
    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


def test_answers_that_may_be_asked_for_again_never_reach_the_bound(node: "Node") -> None:
    node.checks = False
    _pay_nameless(node, NAMELESS_KEPT_MAX)
    node.checks = True
    _pay_nameless(node, first=NAMELESS_KEPT_MAX)
    assert len(node.kernel.books.peers[AccountId("alice")].fulfilled) < NAMELESS_KEPT_MAX


def test_reports_have_a_price(node: "Node") -> None:
    """However many a peer makes, and however long they are: what they may cost us in a second is bounded."""
    refused = 0
    packet = b""
    for number in range(200):
        report = OutcomesReport(b"session of peers", 10_000 + number, list(range(1, VOIDED_MAX)), [], [])
        packet = encode_report(report, node.wall + 5_000)
        node.tell(Inbound(AccountId("alice"), b"", number, packet, node.mono))
        reply = node.packet("alice")
        refused += isinstance(reply, Reject) and reply.code == "T05"
    assert 170 < refused < 190
    node.wait(1_000)
    node.tell(Inbound(AccountId("alice"), b"", 201, packet, node.mono))
    assert isinstance(node.packet("alice"), Fulfill)


def test_more_open_prepares_than_one_report_asks_about(pair: Pair) -> None:
    pair.ann.tell(*[pair.ann.inbound("payer", "test.bob.x", 1) for _ in range(1_000)])
    pair.carry()
    pair.bob_fulfils()
    pair.restart_ann()
    pair.rise()
    pair.carry()
    pair.wait(REPORT_AFTER_MS + 500)
    assert pair.agree() == 1_000


def test_outcomes_are_part_of_the_state(pair: Pair) -> None:
    pair.pay()
    pair.bob_fulfils()
    pair.fall()
    pair.ann.wait(HOLD_MS + 100)
    for node in (pair.ann, pair.ben):
        encoded = state.encode_state(node.kernel.books)
        again = state.decode_state(encoded)
        again.check()
        assert state.encode_state(again) == encoded
    assert pair.ann.kernel.books.peers[BEN].unsaid
    assert pair.ben.kernel.books.peers[ANN].fulfilled


# --- what is news ----------------------------------------------------------------------------------------------------


def reported(node: "Node", account: str) -> list[OutcomesReport]:
    """What the node has told this peer since it was asked last."""
    node.take(account)
    reports = [decode_report(decode_prepare(frame.packet).data) for frame in node.reports]
    node.reports.clear()
    return reports


def _all_taken(node: "Node", account: str, ms: int) -> list[OutcomesReport]:
    """Time passes, and the peer takes each report. Gives those that it was told."""
    found = reported(node, account)
    for _ in range(ms // 50):
        request_id = node.kernel.switch.lanes[AccountId(account)].reporter.request_id
        if request_id:
            node.tell(Inbound(AccountId(account), b"", request_id, encode_answer([]), node.mono))
        node.wait(50)
        found += reported(node, account)
    return found


def test_an_outcome_that_waited_for_a_rejected_one_below_it_is_reported(
    make_node: "MakeNode", make_terms: "MakeTerms"
) -> None:
    """Crash suite, seed 104: the last packet was rejected, and 38 fulfilled ones above it stayed untold for ever."""
    node = make_node(make_terms("alice"), make_terms("bob"))
    for _ in range(2):
        node.prepare("alice", "test.node.bob")
    first, second = (frame.request_id for frame in node.take("bob"))
    node.fulfil("bob", second)
    node.wait(1_000)
    (report,) = reported(node, "bob")
    assert (report.watermark, report.ranges) == (0, [(second, second)])
    node.prepare("alice", "test.node.bob", left_ms=2_000)
    assert not any(report.voided for report in _all_taken(node, "bob", 2_500))
    node.reject("bob", first)
    (voided,) = [report.voided for report in _all_taken(node, "bob", 1_000) if report.voided]
    assert voided[0] > second


def test_rejected_packets_alone_are_no_news(make_node: "MakeNode", make_terms: "MakeTerms") -> None:
    """The peer rejected them itself."""
    node = make_node(make_terms("alice"), make_terms("bob"))
    for _ in range(3):
        node.prepare("alice", "test.node.bob")
        node.reject("bob", node.taken("bob").request_id)
    node.wait(1_000)
    assert len(_all_taken(node, "bob", 1_000)) == 1  # whether it takes any
    node.prepare("alice", "test.node.bob")
    node.reject("bob", node.taken("bob").request_id)
    assert _all_taken(node, "bob", 10_000) == []


# --- other implementations -------------------------------------------------------------------------------------------


def test_of_another_implementation_nothing_is_kept(make_node: "MakeNode", make_terms: "MakeTerms") -> None:
    node = make_node(make_terms("alice"), make_terms("bob"), up=False)
    node.tell(LinkUp(AccountId("alice"), is_other=True), LinkUp(AccountId("bob"), is_other=True))
    _pay_alice_to_bob(node)
    alice, bob = (node.kernel.books.peers[AccountId(name)] for name in ("alice", "bob"))
    assert (alice.hearing, bob.hearing) == (DEAF, DEAF)
    assert not alice.fulfilled and not bob.untold_sessions()
    node.wait(10_000)
    node.take("bob")
    assert not node.reports


def test_what_another_implementation_may_not_have_got_before_a_crash_is_at_risk(
    make_node: "MakeNode", make_terms: "MakeTerms"
) -> None:
    node = make_node(make_terms("alice"), make_terms("bob"), up=False)
    node.tell(LinkUp(AccountId("alice"), is_other=True), LinkUp(AccountId("bob"), is_other=True))
    for _ in range(5):
        _pay_alice_to_bob(node)
    after = node.restarted()
    alice = after.kernel.books.peers[AccountId("alice")]
    assert (alice.balance, alice.at_risk) == (500, 500)  # all within the last 10 s


def test_after_a_stop_in_order_nothing_is_at_risk(make_node: "MakeNode", make_terms: "MakeTerms") -> None:
    node = make_node(make_terms("alice"), make_terms("bob"), up=False)
    node.tell(LinkUp(AccountId("alice"), is_other=True), LinkUp(AccountId("bob"), is_other=True))
    _pay_alice_to_bob(node)
    effects = node.tell(Drain())
    assert any(isinstance(effect, Drained) for effect in effects + node.tell())
    assert node.restarted().kernel.books.peers[AccountId("alice")].at_risk == 0


def test_what_an_isthmus_left_open_waits_for_it_while_another_program_is_there(pair: Pair) -> None:
    pair.pay()
    pair.bob_fulfils()
    pair.carry()
    pair.wait(REPORT_AFTER_MS + 100)
    pair.pay(7)
    pair.bob_fulfils()
    pair.fall()
    pair.ann.tell(LinkUp(BEN, is_other=True))
    pair.ben.tell(LinkUp(ANN, is_other=True))
    bens = pair.ben.kernel.books.peers[ANN]
    assert (bens.hearing, len(bens.fulfilled)) == (DEAF, 1)
    pair.ann.wait(HOLD_MS + 100)
    assert len(pair.ann.kernel.books.peers[BEN].unsaid) == 1
    pair.fall()
    pair.rise()
    pair.wait(2_000)
    assert pair.agree() == 100
    assert bens.loss.balance == 7


def test_a_connection_as_another_program_erases_nothing_that_the_peer_must_hear(pair: Pair) -> None:
    pair.pay()
    pair.bob_fulfils()
    pair.carry()
    pair.wait(REPORT_AFTER_MS + 100)
    pair.pay(7)
    pair.bob_fulfils()
    pair.fall()
    pair.ann.wait(HOLD_MS + 100)
    pair.ann.tell(LinkUp(BEN, is_other=True))
    pair.ann.tell(LinkDown(BEN, "gone"))
    pair.rise()
    pair.wait(2_000)
    assert pair.agree() == 100
    assert pair.ben.kernel.books.peers[ANN].loss.balance == 7


# --- what a review found ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ahead_ms", [-60_000, 6_000, 60_000])
def test_a_report_is_taken_by_whatever_clock(pair: Pair, ahead_ms: int) -> None:
    """It was refused where the receiver's clock was 5 s ahead, and with it every question."""
    for _ in range(3):
        pair.pay()
        pair.bob_fulfils()
        pair.carry()
    pair.ben.wall += ahead_ms
    pair.wait(REPORT_AFTER_MS + 100)
    assert pair.agree() == 300


def test_a_held_prepare_holds_up_no_outcomes_but_its_own(pair: Pair) -> None:
    """Watermarks stand below it; the ranges above are told."""
    pair.pay(7)
    held = pair.ben.taken("bob")
    for _ in range(3):
        pair.pay()
        pair.bob_fulfils()
        pair.carry()
    pair.pay(9)
    also_held = pair.ben.taken("bob")
    pair.pay()
    pair.bob_fulfils()
    pair.carry()
    pair.wait(REPORT_AFTER_MS + 100)
    assert not pair.ben.kernel.books.peers[ANN].fulfilled
    pair.ben.fulfil("bob", also_held.request_id)
    pair.ben.fulfil("bob", held.request_id)
    pair.carry()
    pair.wait(REPORT_AFTER_MS + 100)
    assert pair.agree() == 416


def test_ranges_have_a_gap_where_something_is_void(pair: Pair) -> None:
    """Above a Prepare that is held one expires at its sender, and is fulfilled too late."""
    pair.ann.prepare("payer", "test.bob.x", 7, left_ms=29_900)
    pair.carry()
    held = pair.ben.taken("bob")
    pair.ann.prepare("payer", "test.bob.x", 100, left_ms=3_000)
    pair.carry()
    pair.bob_fulfils()
    pair.cut = True
    pair.carry()  # the Fulfill is lost, and the connection stays
    pair.wait(2_500)
    pair.cut = False
    pair.pay(5)
    pair.bob_fulfils()
    pair.carry()
    pair.wait(3_000)
    assert [leg.amount for leg in pair.ben.kernel.books.peers[ANN].fulfilled.values()] == [100]
    pair.ben.fulfil("bob", held.request_id)
    pair.carry()
    pair.wait(REPORT_AFTER_MS + 100)
    assert pair.agree() == 12
    assert pair.ben.kernel.books.peers[ANN].loss.balance == 100


def test_a_prepare_that_is_open_for_long_is_asked_about_though_the_link_stays(pair: Pair) -> None:
    """Where a proxy answers for a peer that restarts, no link goes down."""
    pair.pay()
    pair.bob_fulfils()
    pair.cut = True
    pair.carry()
    pair.cut = False
    pair.wait(ASK_AFTER_MS + ASK_EVERY_MS + REPORT_AFTER_MS + 200)
    assert pair.agree() == 100


def test_a_prepare_that_its_sender_has_decided_is_not_forwarded(node: "Node") -> None:
    report = encode_report(OutcomesReport(b"session of peers", 5, [], [], []), node.wall + 5_000)
    node.tell(Inbound(AccountId("alice"), b"", 9, report, node.mono))
    node.take("alice")
    node.prepare("alice", "test.node.bob.x", request_id=5, session=b"session of peers")
    assert node.rejected("alice").code == "F00"
    assert not node.kernel.books.peers[AccountId("alice")].received


def test_an_isthmus_keeps_every_leg_until_its_sender_has_decided(pair: Pair) -> None:
    """The first packet is held, the Fulfills of the next are lost, and thousands follow: none of them is given up."""
    pair.pay(7)
    pair.ben.taken("bob")
    for number in range(4):
        pair.ann.tell(*[pair.ann.inbound("payer", "test.bob.x", 5) for _ in range(1_000)])
        pair.carry()
        pair.bob_fulfils()
        if number == 0:
            pair.cut = True
            pair.carry()
            pair.cut = False
        pair.carry()
    pair.fall()
    pair.rise()
    pair.wait(2_000)
    assert pair.ann.kernel.books.peers[BEN].balance == -20_000
    pair.wait(31_000)
    assert pair.agree() == 20_000


def test_an_answer_to_an_earlier_process_is_not_taken_for_ours(pair: Pair) -> None:
    """Simulator, seed 1575: ids of reports are in no journal, so the next process asks under the same ones again."""
    pair.wait(1_000)  # each knows that the other takes reports
    pair.pay()
    pair.restart_ann()
    pair.ann.tell(LinkUp(BEN))
    (report,) = pair.ann.frames.pop(BEN)
    pair.ben.tell(LinkUp(ANN), _arrived(ANN, report, pair.ben.mono))
    (answer,) = pair.ben.frames.pop(ANN)  # is on its way for long
    pair.bob_fulfils()
    pair.carry()
    pair.restart_ann()
    pair.ann.tell(LinkUp(BEN))
    (again,) = pair.ann.frames.pop(BEN)
    assert again.request_id == report.request_id
    assert again.session != report.session
    pair.ann.tell(_arrived(BEN, answer, pair.ann.mono))
    pair.fall()  # the report of this process never arrives
    pair.rise()
    pair.wait(2_000)
    assert pair.agree() == 100
