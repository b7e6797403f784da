"""What a crash may lose of what goes to peers that can't be asked: listed once, whatever checkpoints there are."""

from typing import TYPE_CHECKING

import pytest

from isthmus.connector import record as r
from isthmus.connector.books import Books
from isthmus.connector.doubts import DOUBT_MS, DOUBTS_MAX
from isthmus.connector.events import AccountId, Append, Drain, Drained, LinkUp
from isthmus.connector.kernel import Kernel
from isthmus.connector.legs import IncomingLeg
from isthmus.connector.replay import Replay
from isthmus.connector.state import decode_state, encode_state
from isthmus.connector.tables import TablesChanged
from isthmus.errors import CodecError

if TYPE_CHECKING:
    from isthmus.connector.books import Account
    from tests.connector.conftest import MakeNode, MakeTerms, Node

ALICE = AccountId("alice")
BOB = AccountId("bob")


def pay(node: "Node", amount: int = 100) -> None:
    """From alice to bob, who fulfils."""
    node.prepare("alice", "test.node.bob.x", amount)
    node.fulfil("bob", node.taken("bob").request_id)


def alice_of(kernel: Kernel) -> "Account":
    return kernel.books.peers[ALICE]


@pytest.fixture
def node(make_node: "MakeNode", make_terms: "MakeTerms") -> "Node":
    """Alice and bob are BTP peers of another kind."""
    node = make_node(make_terms("alice"), make_terms("bob"), up=False)
    node.tell(LinkUp(ALICE, is_other=True), LinkUp(BOB, is_other=True))
    return node


def singles(node: "Node") -> list[tuple[str, str, int]]:
    appends = [effect for effect in node.effects if isinstance(effect, Append)]
    return [(one[0], one[1], one[2]) for append in appends for one in append.summary.singles]


def test_a_crash_lists_what_was_posted_before_it_once(node: "Node") -> None:
    """However quickly the node crashes again."""
    pay(node)
    pay(node, 11)
    after = node.restarted()
    assert singles(after) == [("at risk", "alice", 111)]
    for _ in range(4):
        assert alice_of(after.kernel).at_risk == 111
        after = after.restarted()
    assert [one[2] for one in after.kernel.books.at_risk] == [100, 11]


def test_a_crash_of_each_process_lists_what_that_one_posted(node: "Node") -> None:
    pay(node)
    after = node.restarted()
    after.tell(LinkUp(ALICE, is_other=True), LinkUp(BOB, is_other=True))
    pay(after, 7)
    assert alice_of(after.restarted().kernel).at_risk == 107


def test_a_checkpoint_keeps_what_is_in_doubt(node: "Node") -> None:
    """At the last batch and before it: one leg comes from the state, another from the batches after it."""
    pay(node)
    state, first = node.kernel.state(), node.kernel.sequence
    for amount, listed in ((0, 100), (11, 111)):
        if amount:
            pay(node, amount)
        kernel = Kernel(bytes(32))
        kernel.load_state(state)
        for sequence, record in enumerate(node.records[first:], first + 1):
            kernel.replay(sequence, record)
        assert kernel.digest() == node.kernel.digest()
        kernel.opened(node.now())
        kernel.handle([TablesChanged(node.tables)], node.now())
        assert alice_of(kernel).at_risk == listed


def test_what_was_posted_long_enough_before_the_end_is_not_in_doubt(node: "Node") -> None:
    """On the bound, and one millisecond before it."""
    pay(node)
    node.wait(5_000)
    pay(node, 11)
    assert alice_of(node.restarted().kernel).at_risk == 111
    node.wait(5_000)  # the first is 10 s old, and the next posted leg says so
    pay(node, 1)
    assert alice_of(node.restarted().kernel).at_risk == 12


def test_a_quiet_node_is_in_doubt_of_nothing(node: "Node") -> None:
    """One small batch says so, 10 s after the last leg."""
    pay(node)
    node.wait(DOUBT_MS - 1)
    assert alice_of(node.restarted().kernel).at_risk == 100
    before = len(node.records)
    node.wait(1)
    assert len(node.records) == before + 1
    assert alice_of(node.restarted().kernel).at_risk == 0
    node.wait(1_000_000)
    assert len(node.records) == before + 1


def test_a_clock_that_is_set_back_keeps_nothing_in_doubt_for_long(node: "Node") -> None:
    pay(node)
    node.wall -= 3_600_000
    pay(node, 11)
    assert alice_of(node.restarted().kernel).at_risk == 111
    node.wait(DOUBT_MS)
    assert alice_of(node.restarted().kernel).at_risk == 0


def test_a_stop_in_order_leaves_no_doubt(node: "Node") -> None:
    pay(node)
    node.tell(Drain())
    assert any(isinstance(effect, Drained) for effect in node.effects)
    assert alice_of(node.restarted().kernel).at_risk == 0


def test_of_an_http_peer_without_a_name_for_its_legs_it_is_the_same(
    make_node: "MakeNode", make_terms: "MakeTerms"
) -> None:
    """Kept for repeats, it is listed when it is forgotten; after a stop in order, up for less than a minute, never."""
    node = make_node(make_terms("alice"), make_terms("bob"))
    for number in range(2):
        node.prepare("alice", "test.node.bob.x", session=bytes([number]) * 16, request_id=0)
        node.fulfil("bob", node.taken("bob").request_id)
    crashed = node.restarted()
    crashed.tell(LinkUp(ALICE), LinkUp(BOB))
    crashed.wait(200_000)
    assert (alice_of(crashed.kernel).at_risk, len(alice_of(crashed.kernel).fulfilled)) == (200, 0)
    node.wait(1_000)
    node.tell(Drain())
    assert any(isinstance(effect, Drained) for effect in node.effects + node.wait(1_000))
    stopped = node.restarted()
    stopped.tell(LinkUp(ALICE), LinkUp(BOB))
    stopped.wait(200_000)
    assert alice_of(stopped.kernel).at_risk == 0


def test_one_record_has_one_time(node: "Node") -> None:
    """While it waits for the one before it the clock goes on, which replay doesn't see."""
    node.prepare("alice", "test.node.bob.x", 1)
    node.prepare("alice", "test.node.bob.x", 2)
    requests = [frame.request_id for frame in node.take("bob")]
    node.durable = False
    for amount in (5, 6):  # two appends are under way
        node.prepare("alice", "test.node.bob.x", amount)
    for request_id in requests:
        node.fulfil("bob", request_id)
        node.wait(7)
    while node.undurable:
        node.commit()  # the shadow's digest is the same
    assert len({leg[3] for leg in node.kernel.books.doubts.legs}) == 1


def test_our_own_endpoints_are_not_in_doubt(make_node: "MakeNode", make_terms: "MakeTerms") -> None:
    node = make_node(make_terms("alice", relation="local"), make_terms("bob"))
    pay(node)
    assert not node.kernel.books.doubts.legs
    assert alice_of(node.restarted().kernel).at_risk == 0


def test_the_legs_in_doubt_are_bounded(node: "Node") -> None:
    """On the bound and one past it: the oldest is left out."""
    books = Books()
    account = books.open_peer(ALICE, "USD", 9)
    books.doubts.tell_time(5)
    for number in range(DOUBTS_MAX + 1):
        leg = IncomingLeg(books.last_leg + 1, account, 3, 0, bytes(32), bytes(16), number + 1, 0)
        books.reserve_incoming(leg)
        books.post_incoming(leg, in_doubt=True)
    assert (len(books.doubts.legs), books.doubts.legs[0][0]) == (DOUBTS_MAX, 2)
    replayed = Books()
    Replay(replayed).apply(books.take_record())
    assert encode_state(replayed) == encode_state(books) == encode_state(decode_state(encode_state(books)))


def test_nothing_is_in_doubt_without_an_amount(node: "Node") -> None:
    pay(node, 0)
    assert not node.kernel.books.doubts.legs
    assert not any(isinstance(entry, r.Dated) for record in node.records for entry in r.decode_record(record))


def test_a_state_of_the_version_before_still_loads(node: "Node") -> None:
    """Without anything in doubt, its bytes are what they were."""
    before = encode_state(node.kernel.books)
    assert before[0] == 2 and encode_state(decode_state(before)) == before
    pay(node)
    assert encode_state(node.kernel.books)[0] == 4
    for version in (0, 1, 6):
        with pytest.raises(CodecError, match="another version"):
            decode_state(bytes([version]) + before[1:])


def test_settings_and_doubts_are_in_one_state(node: "Node") -> None:
    pay(node)
    node.kernel.books.change_setting(b"account:x", b"{}")
    state = encode_state(node.kernel.books)
    loaded = decode_state(state)
    assert (state[0], encode_state(loaded)) == (4, state)
    assert loaded.settings and list(loaded.doubts.legs) == list(node.kernel.books.doubts.legs)


def test_damaged_doubts_are_an_error_in_words(node: "Node") -> None:
    pay(node)
    books = node.kernel.books
    state = encode_state(books)
    doubts = len(books.doubts.legs) * 28
    with pytest.raises(CodecError, match=f"more than {DOUBTS_MAX}"):
        decode_state(state[: -doubts - 4] + (DOUBTS_MAX + 1).to_bytes(4, "big") + state[-doubts:])
    with pytest.raises(CodecError, match="account 99 is not a peer's"):
        decode_state(state[: -doubts + 8] + (99).to_bytes(4, "big") + state[-doubts + 12 :])
