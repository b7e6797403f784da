"""What becomes of a peer's Prepare: forwarded, or refused with the code of the first rule that it breaks."""

from fractions import Fraction
from typing import TYPE_CHECKING, Any

import pytest

from isthmus.connector.events import AccountId, Drain, Inbound, LinkBlocked, LinkDown, LinkUp, LinkWritable
from isthmus.connector.tables import AccountTerms, RateTable, RouteTable, Tables, TablesChanged
from isthmus.ilp.asset import Asset
from isthmus.ilp.packet import (
    AMOUNT_MAX,
    DATA_BYTES_MAX,
    Prepare,
    Reject,
    decode_amount_too_large,
    decode_prepare,
    encode_prepare,
)

if TYPE_CHECKING:
    from tests.connector.conftest import MakeNode, MakeTerms, Node

ALICE = AccountId("alice")
BOB = AccountId("bob")


def refusal(node: "Node", to: str = "test.node.bob.x", amount: int = 100, **fields: Any) -> Reject:
    """The Reject that Alice gets; nothing else happened."""
    before = node.kernel.digest()
    node.prepare("alice", to, amount, **fields)
    reject = node.rejected("alice")
    assert node.take("bob") == []
    assert node.kernel.digest() == before
    assert reject.triggered_by == node.tables.address  # ILP-21
    if reject.code != "F08":
        assert reject.data == b""  # ILP-14
    return reject


def passes(node: "Node", to: str = "test.node.bob.x", amount: int = 100, **fields: Any) -> Prepare:
    node.prepare("alice", to, amount, **fields)
    assert node.take("alice") == []
    return node.forwarded("bob")


# --- what a forwarded Prepare looks like ------------------------------------------------------------------------------


def test_a_prepare_is_reserved_on_both_sides_and_sent_on(node: "Node") -> None:
    """CONN-3, CONN-2, ILP-7."""
    sent = passes(node, amount=100, left_ms=20_000, data=b"for the receiver")
    assert (sent.amount, sent.destination, sent.data) == (100, "test.node.bob.x", b"for the receiver")
    assert sent.expires_at == node.wall + 19_000
    alice, bob = node.kernel.books.peers[ALICE], node.kernel.books.peers[BOB]
    assert (alice.reserved_incoming, bob.reserved_outgoing) == (100, 100)


def test_forwarding_changes_amount_and_expiry_only(trader: "Node") -> None:
    """ILP-6, P-4: bytes after the last field and non-canonical ones stay."""
    event = trader.inbound("alice", "test.node.bob.x", 1_000_000, data=b"abc")
    body = event.packet[2:] + b"trailing"
    trader.tell(Inbound(ALICE, event.session, 7, bytes((12, len(body))) + body, trader.mono))
    sent = trader.taken("bob").packet
    assert sent[:2] == bytes((12, len(body)))
    assert sent[2 + 25 :] == body[25:]
    assert sent[2 : 2 + 25] != body[:25]


@pytest.mark.parametrize("amount", [0, 1, 2**53 + 1, 2**63, AMOUNT_MAX])
def test_every_amount_that_a_packet_can_carry_is_carried(node: "Node", amount: int) -> None:
    """P-1, ILP-8, P-5: also zero (X-15: another's patcher skips it)."""
    assert passes(node, amount=amount).amount == amount
    node.fulfil("bob", 1)
    assert node.balance("alice") == amount
    assert node.balance("bob") == -amount


def test_the_expiry_of_an_amount_of_zero_is_shortened_too(node: "Node") -> None:
    """P-5, P-11."""
    assert passes(node, amount=0, left_ms=5_000).expires_at == node.wall + 4_000


def test_request_ids_of_ours_ascend_and_carry_our_session(node: "Node") -> None:
    """BTP-8, BTP-18."""
    node.prepare("alice", "test.node.bob.x")
    node.prepare("alice", "test.node.bob.x")
    frames = node.take("bob")
    assert [frame.request_id for frame in frames] == [1, 2]
    assert {frame.session for frame in frames} == {node.kernel.session(BOB)}


# --- parse and size, duplicates ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("packet", [b"\x0c", b"\x0c\x00", b"\x0c\x46" + bytes(70), b"\x0c\x82\xff\xff" + bytes(99)])
def test_what_does_not_parse_is_f01(node: "Node", packet: bytes) -> None:
    """ILP-12, P-9: the Reject goes to the request, and the link lives."""
    node.tell(Inbound(ALICE, b"session of peers", 5, packet, node.mono))
    assert node.rejected("alice").code == "F01"
    passes(node)


def test_sizes_are_bounded_in_what_is_forwarded(node: "Node") -> None:
    """ILP-13."""
    passes(node, data=bytes(DATA_BYTES_MAX))
    event = node.inbound("alice", "test.node.bob.x", data=bytes(DATA_BYTES_MAX))
    packet = bytearray(event.packet)
    at = packet.index(b"\x82\x7f\xff", 60)
    packet[at : at + 3] = b"\x82\x80\x00"
    packet += b"\x00"
    packet[2:4] = (int.from_bytes(packet[2:4], "big") + 1).to_bytes(2, "big")
    node.tell(Inbound(ALICE, event.session, 5, bytes(packet), node.mono))
    assert node.rejected("alice").code == "F01"


@pytest.mark.parametrize("destination", ["test.node.bob.a b", "test..bob", "what.a", "test", "test.node.bob\n"])
def test_a_destination_that_is_no_address_is_f01(node: "Node", destination: str) -> None:
    """ADDR-4, P-2, ILP-12: strict, and without normalisation."""
    good = encode_prepare(Prepare(1, node.wall + 9_000, bytes(32), "g." + "x" * (len(destination) - 2), b""))
    at = good.index(b"g.x")
    packet = good[:at] + destination.encode() + good[at + len(destination) :]
    assert len(packet) == len(good)
    node.tell(Inbound(ALICE, b"session of peers", 5, packet, node.mono))
    assert node.rejected("alice").code == "F01"


def test_the_same_request_is_not_processed_twice(node: "Node") -> None:
    """HTTP-7, BTP-8: while it is in flight; it gets its one answer."""
    first = node.inbound("alice", "test.node.bob.x", request_id=9)
    node.tell(first, first)
    assert len(node.take("bob")) == 1
    node.tell(first)
    assert node.take("bob") == []
    assert node.take("alice") == []
    assert node.kernel.switch.duplicates == 2
    node.fulfil("bob", 1)
    assert node.taken("alice").request_id == 9
    assert node.balance("alice") == 100


def test_a_repeated_request_has_no_second_answer_from_a_busy_node(node: "Node") -> None:
    """HTTP-7: neither T03 nor F01 while the first is in flight; found by the state machine."""
    first = node.inbound("alice", "test.node.bob.x", request_id=9)
    node.tell(first)
    node.tell(Inbound(ALICE, first.session, 9, b"\x0c\x00", node.mono))
    node.tell(Drain())
    node.tell(first)
    assert node.take("alice") == []
    assert node.kernel.switch.duplicates == 2


def test_the_same_request_id_in_another_session_is_another_request(node: "Node") -> None:
    """BTP-18."""
    node.prepare("alice", "test.node.bob.x", request_id=9)
    node.prepare("alice", "test.node.bob.x", request_id=9, session=b"the next session")
    assert len(node.take("bob")) == 2


# --- packet rate ------------------------------------------------------------------------------------------------------


def test_packets_a_minute_are_limited(make_node: "MakeNode", make_terms: "MakeTerms") -> None:
    """CONN-5, ILP-22: T05; the bucket fills again with time."""
    node = make_node(make_terms("alice", packets_per_minute=60, packets_burst=3), make_terms("bob"))
    for _ in range(3):
        passes(node)
    assert refusal(node).code == "T05"
    node._go(node.mono + 999)
    assert refusal(node).code == "T05"
    node._go(node.mono + 1)
    passes(node)
    assert refusal(node).code == "T05"


def test_packets_without_money_count_for_the_rate_and_not_for_balances(
    make_node: "MakeNode", make_terms: "MakeTerms"
) -> None:
    """P-11."""
    node = make_node(
        make_terms("alice", receivable_max=0, packets_per_minute=60, packets_burst=2, amount_per_second=1),
        make_terms("bob", payable_max=0, in_flight_max=0),
    )
    passes(node, amount=0)
    passes(node, amount=0)
    assert refusal(node, amount=0).code == "T05"


def test_a_reload_gives_no_second_burst(make_node: "MakeNode", make_terms: "MakeTerms") -> None:
    """CONN-5."""
    node = make_node(make_terms("alice", packets_per_minute=60, packets_burst=2), make_terms("bob"))
    passes(node)
    passes(node)
    faster = make_terms("alice", packets_per_minute=120, packets_burst=4)
    node.tell(
        TablesChanged(Tables("test.node", {**node.tables.accounts, ALICE: faster}, node.tables.routes, RateTable({})))
    )
    assert refusal(node).code == "T05"
    node._go(node.mono + 500)
    passes(node)


# --- expiry -----------------------------------------------------------------------------------------------------------


def test_the_outgoing_expiry_is_earlier(node: "Node") -> None:
    """CONN-9: by the margin, and never later than the longest hold."""
    assert passes(node, left_ms=10_000).expires_at == node.wall + 9_000
    assert passes(node, left_ms=31_000).expires_at == node.wall + 30_000
    assert passes(node, left_ms=31_001).expires_at == node.wall + 30_000
    assert passes(node, left_ms=86_400_000).expires_at == node.wall + 30_000


@pytest.mark.parametrize("left_ms", [999, 1_000, 1])
def test_too_little_time_is_r02(node: "Node", left_ms: int) -> None:
    """CONN-9, ILP-22: with exactly the margin nothing would be left for the next hop."""
    assert refusal(node, left_ms=left_ms).code == "R02"


def test_a_moment_above_the_margin_is_enough(node: "Node") -> None:
    """CONN-9."""
    assert passes(node, left_ms=1_001).expires_at == node.wall + 1


@pytest.mark.parametrize("left_ms", [0, -1, -10_000_000])
def test_an_expired_prepare_is_r02(node: "Node", left_ms: int) -> None:
    """CONN-10."""
    assert refusal(node, left_ms=left_ms).code == "R02"


def test_an_account_in_process_needs_no_margin(make_node: "MakeNode", make_terms: "MakeTerms") -> None:
    """CONN-9."""
    node = make_node(make_terms("alice", relation="local", expiry_margin_ms=0), make_terms("bob"))
    assert passes(node, left_ms=500).expires_at == node.wall + 500
    assert refusal(node, left_ms=0).code == "R02"


# --- maximum packet amount --------------------------------------------------------------------------------------------


def test_the_maximum_amount_passes_and_one_more_does_not(make_node: "MakeNode", make_terms: "MakeTerms") -> None:
    """ILP-15, ILP-16."""
    node = make_node(make_terms("alice", packet_amount_max=1_000), make_terms("bob"))
    passes(node, amount=1_000)
    reject = refusal(node, amount=1_001)
    assert (reject.code, len(reject.data)) == ("F08", 16)
    assert decode_amount_too_large(reject.data) == (1_001, 1_000)


def test_the_next_hops_maximum_is_told_in_units_of_the_sender(make_node: "MakeNode", make_terms: "MakeTerms") -> None:
    """P-8, ILP-15, ILP-16: exactly the largest amount that passes."""
    rates = RateTable({("USD", "EUR"): Fraction(7, 9)}, spread=Fraction("0.003"))
    bob = make_terms("bob", asset=Asset("EUR", 7), packet_amount_max=1_000)
    node = make_node(make_terms("alice"), bob, rates=rates)
    received_and_maximum = decode_amount_too_large(refusal(node, amount=10**9).data)
    assert received_and_maximum is not None
    received, maximum = received_and_maximum
    assert received == 10**9
    assert passes(node, amount=maximum).amount == 1_000
    assert refusal(node, amount=maximum + 1).code == "F08"


def test_what_would_not_fit_into_64_bits_is_f08(make_node: "MakeNode", make_terms: "MakeTerms") -> None:
    """CONN-11, P-1."""
    node = make_node(make_terms("alice"), make_terms("bob", asset=Asset("USD", 18)))
    largest = AMOUNT_MAX // 10**9
    assert passes(node, amount=largest).amount == largest * 10**9
    reject = refusal(node, amount=largest + 1)
    assert decode_amount_too_large(reject.data) == (largest + 1, largest)


# --- routes -----------------------------------------------------------------------------------------------------------


def test_the_longest_prefix_on_segment_boundaries_wins(make_node: "MakeNode", make_terms: "MakeTerms") -> None:
    """ADDR-8, ADDR-4."""
    node = make_node(
        make_terms("alice"),
        make_terms("bob"),
        make_terms("carol"),
        make_terms("dave"),
        address="g.node",
        routes={"": "dave", "g.far": "carol", "g.far.bob": "bob"},
    )
    for destination, account in [
        ("g.far.bob", "bob"),
        ("g.far.bob.x", "bob"),
        ("g.far.bobx", "carol"),
        ("g.far.b", "carol"),
        ("g.far.Bob", "carol"),
        ("g.farx", "dave"),
        ("g.other.y", "dave"),
    ]:
        node.prepare("alice", destination)
        assert node.forwarded(account).destination == destination


def test_no_route_is_f02(node: "Node") -> None:
    """CONN-12."""
    assert refusal(node, "test.elsewhere").code == "F02"


def test_a_route_back_to_the_sender_is_f02(node: "Node") -> None:
    """CONN-12, P-15."""
    assert refusal(node, "test.node.alice.x").code == "F02"


def test_what_lies_under_our_address_is_never_sent_to_the_parent(
    make_node: "MakeNode", make_terms: "MakeTerms"
) -> None:
    """P-15: it would come back."""
    node = make_node(make_terms("alice"), make_terms("bob"), routes={"": "bob", "test": "bob"})
    assert refusal(node, "test.node.nobody").code == "F02"
    passes(node, "test.nodes")


@pytest.mark.parametrize("destination", ["g.bob", "self.bob", "local.bob", "private.bob", "example.bob"])
def test_a_test_node_carries_test_addresses(make_node: "MakeNode", make_terms: "MakeTerms", destination: str) -> None:
    """ADDR-6, ADDR-7."""
    node = make_node(make_terms("alice"), make_terms("bob"), routes={"": "bob"})
    assert refusal(node, destination).code == "F02"
    passes(node, "test.x")
    passes(node, "test3.x")


@pytest.mark.parametrize("destination", ["test.bob", "test1.bob", "test2.bob", "test3.bob", "local.bob", "private.x"])
def test_a_live_node_carries_live_addresses(make_node: "MakeNode", make_terms: "MakeTerms", destination: str) -> None:
    """ADDR-6, ADDR-7."""
    node = make_node(make_terms("alice"), make_terms("bob"), address="g.node", routes={"": "bob"})
    assert refusal(node, destination).code == "F02"
    passes(node, "g.x")


def test_peer_addresses_are_never_forwarded(make_node: "MakeNode", make_terms: "MakeTerms") -> None:
    """ADDR-5, PEER-5, CONN-17: no route captures them."""
    node = make_node(make_terms("alice"), make_terms("bob"), routes={"": "bob"})
    for destination in ("peer.config.x", "peer.settle.x", "peer.route.x", "peer.x"):
        assert refusal(node, destination).code == "F01"


def test_destinations_are_remembered_until_the_tables_change(make_node: "MakeNode", make_terms: "MakeTerms") -> None:
    """CONN-12: a new table holds from its batch on."""
    node = make_node(make_terms("alice"), make_terms("bob"), make_terms("carol"), routes={"test.x": "bob"})
    passes(node, "test.x.1")
    routes = RouteTable({"test.x": AccountId("carol")})
    node.tell(TablesChanged(Tables("test.node", node.tables.accounts, routes, RateTable({}))))
    node.prepare("alice", "test.x.1")
    assert node.forwarded("carol").destination == "test.x.1"


def test_the_memory_of_destinations_is_bounded(node: "Node") -> None:
    for number in range(1_025):
        node.prepare("alice", f"test.node.bob.{number}")
    assert len(node.kernel.switch.lanes[ALICE].hops) == 1


# --- rates ------------------------------------------------------------------------------------------------------------


def test_the_exchange_is_exact_and_rounded_down(trader: "Node") -> None:
    """CONN-11: 0.9 less 1 % is 0.891; 1,000 units of 10^-9 are one of 10^-6."""
    assert passes(trader, amount=1_000_000_000).amount == 891_000
    assert passes(trader, amount=1_999).amount == 1


def test_spread_and_rounding_are_earned_apart(trader: "Node") -> None:
    """CONN-11: the position reads off the clearing accounts, the earnings off the revenue accounts."""
    passes(trader, amount=1_000_000_000)
    trader.fulfil("bob", 1)
    trader.take("alice")
    assert trader.internal("clearing:USD:9") == -1_000_000_000
    assert trader.internal("clearing:EUR:6") == 900_000
    assert trader.internal("revenue:spread:EUR:6") == -9_000
    passes(trader, amount=200_500_500)  # 180,450.45 at the mid rate, 178,645.9455 less the spread
    trader.fulfil("bob", 2)
    assert trader.balance("bob") == -891_000 - 178_645
    assert trader.internal("revenue:spread:EUR:6") == -9_000 - 1_804
    assert trader.internal("revenue:rounding:EUR:6") == -1
    assert trader.internal("clearing:EUR:6") == 900_000 + 180_450


def test_an_amount_that_becomes_zero_is_refused(trader: "Node") -> None:
    """CONN-11, ILP-22: R01; never raised to one."""
    assert refusal(trader, amount=1).code == "R01"
    assert refusal(trader, amount=1_122).code == "R01"
    assert passes(trader, amount=1_123).amount == 1
    assert passes(trader, amount=0).amount == 0


def test_assets_that_are_not_exchanged_are_f02(make_node: "MakeNode", make_terms: "MakeTerms") -> None:
    """CONN-12."""
    node = make_node(make_terms("alice"), make_terms("bob", asset=Asset("XAM", 9)))
    assert refusal(node).code == "F02"


# --- balances, value in flight, bandwidth -----------------------------------------------------------------------------


def test_the_peers_limit_counts_what_is_reserved(make_node: "MakeNode", make_terms: "MakeTerms") -> None:
    """CONN-4, CONN-6, P-10."""
    node = make_node(make_terms("alice", receivable_max=300), make_terms("bob"))
    passes(node, amount=100)
    passes(node, amount=200)
    assert refusal(node, amount=1).code == "T04"
    node.fulfil("bob", 1)
    node.reject("bob", 2)
    node.take("alice")
    assert refusal(node, amount=201).code == "T04"
    passes(node, amount=200)


def test_a_limit_of_zero_is_prepaid(make_node: "MakeNode", make_terms: "MakeTerms") -> None:
    """CONN-4: what flowed the other way may be spent."""
    node = make_node(make_terms("alice", receivable_max=0), make_terms("bob"))
    assert refusal(node, amount=1).code == "T04"
    node.prepare("bob", "test.node.alice", 50)
    node.fulfil("alice", node.taken("alice").request_id)
    node.take("bob")
    assert refusal(node, amount=51).code == "T04"
    passes(node, amount=50)


def test_losses_count_against_the_peers_limit_until_written_off(make_node: "MakeNode", make_terms: "MakeTerms") -> None:
    """CONN-4: a peer that refuses our Fulfills soon stops being served."""
    from isthmus.connector.books import BOOK_LOSS, WRITE_OFF

    node = make_node(make_terms("alice", receivable_max=100), make_terms("bob"))
    passes(node, amount=100)
    node.fulfil("bob", 1)
    node.take("alice")
    books = node.kernel.books
    alice = books.peers[ALICE]
    assert books.transfer(alice.loss, alice, 100, BOOK_LOSS, b"loss 1", "Alice was faster")
    node.tell()
    assert node.balance("alice") == 0
    assert refusal(node, amount=1).code == "T04"
    assert books.transfer(books.internal["written-off:USD:9"], alice.loss, 100, WRITE_OFF, b"", "forgiven")
    node.tell()
    passes(node, amount=100)


def test_how_far_we_are_willing_to_owe_is_limited(make_node: "MakeNode", make_terms: "MakeTerms") -> None:
    """CONN-5, CONN-6."""
    node = make_node(make_terms("alice"), make_terms("bob", payable_max=300))
    passes(node, amount=300)
    assert refusal(node, amount=1).code == "T04"
    node.fulfil("bob", 1)
    node.take("alice")
    assert refusal(node, amount=1).code == "T04"
    node.prepare("bob", "test.node.alice", 40)
    node.fulfil("alice", node.taken("alice").request_id)
    node.take("bob")
    assert refusal(node, amount=41).code == "T04"
    passes(node, amount=40)


def test_value_in_flight_is_capped_on_both_sides(make_node: "MakeNode", make_terms: "MakeTerms") -> None:
    """CONN-15, CONN-5, CONN-6."""
    for capped in ("alice", "bob"):
        limits = {"in_flight_max": 100}
        node = make_node(*[make_terms(name, **(limits if name == capped else {})) for name in ("alice", "bob")])
        passes(node, amount=60)
        assert refusal(node, amount=41).code == "T04"
        passes(node, amount=40)
        node.reject("bob", 1)
        node.take("alice")
        passes(node, amount=60)


def test_value_a_second_is_limited(make_node: "MakeNode", make_terms: "MakeTerms") -> None:
    """CONN-5: payment bandwidth is T04."""
    node = make_node(make_terms("alice", amount_per_second=1_000, amount_burst=1_500), make_terms("bob"))
    passes(node, amount=1_500)
    assert refusal(node, amount=1).code == "T04"
    node._go(node.mono + 100)
    assert refusal(node, amount=101).code == "T04"
    passes(node, amount=100)


def test_a_refused_packet_takes_nothing_of_the_bandwidth(make_node: "MakeNode", make_terms: "MakeTerms") -> None:
    """CONN-5."""
    node = make_node(make_terms("alice", amount_per_second=1_000), make_terms("bob"))
    node.tell(LinkDown(BOB, "gone"))
    assert refusal(node, amount=1_000).code == "T01"
    node.tell(LinkUp(BOB))
    passes(node, amount=1_000)


@pytest.mark.parametrize("capped", ["alice", "bob"])
def test_open_legs_are_bounded(make_node: "MakeNode", make_terms: "MakeTerms", capped: str) -> None:
    """CONN-15, ILP-22: T03, and free again with the first outcome."""
    node = make_node(*[make_terms(name, open_legs_max=2 if name == capped else 9) for name in ("alice", "bob")])
    passes(node)
    passes(node)
    assert refusal(node).code == "T03"
    node.fulfil("bob", 1)
    node.take("alice")
    passes(node)


# --- links ------------------------------------------------------------------------------------------------------------


def test_a_link_that_is_down_is_t01(node: "Node") -> None:
    """CONN-12, ILP-20: no byte was handed to the link."""
    node.tell(LinkDown(BOB, "gone"))
    assert refusal(node).code == "T01"
    node.tell(LinkUp(BOB))
    passes(node)


def test_a_link_that_takes_no_more_is_t02(node: "Node") -> None:
    """ILP-20, ILP-22: nothing is reserved towards it."""
    node.tell(LinkBlocked(BOB))
    assert refusal(node).code == "T02"
    node.tell(LinkWritable(BOB))
    passes(node)


def test_a_new_connection_is_not_blocked(node: "Node") -> None:
    node.tell(LinkBlocked(BOB), LinkDown(BOB, "gone"), LinkUp(BOB))
    passes(node)


def test_the_order_of_the_rules(make_node: "MakeNode", make_terms: "MakeTerms") -> None:
    """ILP-22, PEER-5: who breaks all of them hears of the first, and so on."""
    alice: dict[str, Any] = {"packets_per_minute": 60, "packets_burst": 100, "packet_amount_max": 500}
    node = make_node(make_terms("alice", **alice), make_terms("bob", payable_max=0))
    node.tell(LinkDown(BOB, "gone"))
    assert refusal(node, "test.elsewhere", 501, left_ms=5).code == "R02"
    assert refusal(node, "test.elsewhere", 501).code == "F08"
    assert refusal(node, "test.elsewhere", 500).code == "F02"
    assert refusal(node, amount=500).code == "T04"
    assert refusal(node, amount=0).code == "T01"
    node.kernel.switch.lanes[ALICE].packets.take(95)  # type: ignore[union-attr]
    assert refusal(node, "peer.unknown", 501, left_ms=5).code == "T05"


def test_messages_are_for_people_and_fit(node: "Node") -> None:
    """ILP-21: our address, and a text."""
    reject = refusal(node, "test.elsewhere")
    assert reject.message == "no route to the destination"
    assert decode_prepare(node.inbound("alice", "test.x").packet).destination == "test.x"


def test_settings_of_one_account_do_not_touch_another(make_node: "MakeNode", make_terms: "MakeTerms") -> None:
    """CONN-8, CONN-5: one at its limits, the other free."""
    carol: AccountTerms = make_terms("carol")
    node = make_node(make_terms("alice", receivable_max=0), make_terms("bob"), carol)
    assert refusal(node, amount=1).code == "T04"
    node.prepare("carol", "test.node.bob")
    assert node.forwarded("bob").amount == 100
