"""Reports of outcomes: what the peer must hear, and when (docs/outcomes.md)."""

from isthmus.ilp.outcomes import OutcomesReport, decode_report
from isthmus.ilp.packet import decode_prepare
from tests.connector.conftest import MakeNode, MakeTerms, Node


def reported(node: Node, account: str) -> list[OutcomesReport]:
    """What the node has told this peer since it was asked last."""
    node.take(account)
    reports = [decode_report(decode_prepare(frame.packet).data) for frame in node.reports]
    node.reports.clear()
    return reports


def test_an_outcome_that_waited_for_a_rejected_one_below_it_is_reported(
    make_node: MakeNode, make_terms: MakeTerms
) -> None:
    """Crash suite, seed 104: the last packet was rejected, and 38 fulfilled ones above it stayed untold for ever."""
    node = make_node(make_terms("alice"), make_terms("bob"))
    for _ in range(2):
        node.prepare("alice", "test.node.bob")
    first, second = (frame.request_id for frame in node.take("bob"))
    node.fulfil("bob", second)
    node.wait(1_000)
    assert reported(node, "bob") == []  # the watermark stands below the open one
    node.reject("bob", first)
    node.wait(1_000)
    assert [(report.watermark, report.voided) for report in reported(node, "bob")] == [(second, [])]


def test_rejected_packets_alone_are_no_news(make_node: MakeNode, make_terms: MakeTerms) -> None:
    """The peer rejected them itself."""
    node = make_node(make_terms("alice"), make_terms("bob"))
    for _ in range(3):
        node.prepare("alice", "test.node.bob")
        node.reject("bob", node.taken("bob").request_id)
    node.wait(1_000)
    assert reported(node, "bob") == []
