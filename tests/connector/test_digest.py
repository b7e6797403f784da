"""The digest of a running node's books: of a durable batch, however busy the node is, and the one that replay gives."""

from typing import TYPE_CHECKING

from isthmus.connector.events import AccountId, Append, DigestAsked, Digested, Durable, Effect
from isthmus.connector.kernel import APPENDS_MAX, Kernel

if TYPE_CHECKING:
    from tests.connector.conftest import MakeNode, MakeTerms, Node

ALICE = AccountId("alice")


def digested(effects: list[Effect]) -> list[tuple[int, int, bytes]]:
    return [(one.token, one.sequence, one.digest) for one in effects if isinstance(one, Digested)]


def replayed(node: "Node", sequence: int) -> bytes:
    """What a second kernel has after this batch."""
    other = Kernel(bytes(32))
    for number, record in enumerate(node.records[:sequence], 1):
        other.replay(number, record)
    return other.digest()


def test_an_idle_node_tells_at_once_and_writes_nothing(make_node: "MakeNode", make_terms: "MakeTerms") -> None:
    node = make_node(make_terms("alice"), make_terms("bob"))
    count = len(node.records)
    assert digested(node.tell(DigestAsked(7))) == [(7, count, node.kernel.digest())]
    assert len(node.records) == count


def test_a_digest_is_told_once_its_batch_is_durable(make_node: "MakeNode", make_terms: "MakeTerms") -> None:
    """Else a crash could take back a batch whose digest an operator has written down."""
    node = make_node(make_terms("alice"), make_terms("bob"))
    node.durable = False
    node.prepare("alice", "test.node.bob.x")
    appended = len(node.records)
    assert digested(node.tell(DigestAsked(1), DigestAsked(2))) == []
    node.prepare("alice", "test.node.bob.x")
    assert digested(node.commit()) == [(1, appended, replayed(node, appended)), (2, appended, replayed(node, appended))]


def test_a_node_that_is_never_between_two_batches_tells_its_digest(
    make_node: "MakeNode", make_terms: "MakeTerms"
) -> None:
    """Whenever `handle` returns, a batch is open: the boundary is within."""
    node = make_node(make_terms("alice", prepares_per_batch_max=1), make_terms("bob"))
    node.durable = False
    node.tell(*[node.inbound("alice", "test.node.bob.x") for _ in range(20)])
    told = []
    for token in range(8):
        assert not node.kernel.at_boundary() and len(node.undurable) == APPENDS_MAX
        node.tell(DigestAsked(token))
        told += digested(node.commit())
    assert len(told) >= 6
    for _, sequence, digest in told:
        assert digest == replayed(node, sequence)
    appended = [one for one in node.effects if isinstance(one, Append)]
    durable = appended[-1].sequence - len(node.undurable)
    assert max(sequence for _, sequence, _ in told) <= durable
    node.tell(Durable(appended[-1].sequence))
