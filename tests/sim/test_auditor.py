"""The auditor finds what it is there to find: each kind of wrong books once, and right ones never."""

from dataclasses import replace
from fractions import Fraction
from hashlib import sha256
from typing import Any

import pytest

from isthmus.sim.auditor import audit, examine
from isthmus.sim.evidence import Cut, Down, End, Evidence, Mark, Skew, Terms, Told
from tests.sim.conftest import EXPIRES_AT, Net, session_of


def kinds(evidence: Evidence) -> set[str]:
    return {finding.kind for finding in audit(evidence)}


def test_books_that_agree_have_no_finding(net: Net) -> None:
    net.packet(1, 1_000)
    net.packet(2, 500, posts=())
    net.told(1_000, 996)
    report = examine(net.evidence())
    assert report.findings == []
    assert (report.packets, report.fulfilled) == (6, 3)
    assert report.closing.balances["one"]["alice"] == 999
    assert report.closing.balances["one"]["revenue:spread:USD:9"] == -1


def test_a_packet_that_one_side_posted_and_the_other_voided_is_a_disagreement(net: Net) -> None:
    net.packet(1, 1_000, posts=("two", "bob"))
    net.told(0, 996, delivered=0)
    found = audit(net.evidence())
    assert {finding.kind for finding in found} == {"disagreement", "balance"}
    assert {finding.node for finding in found if finding.kind == "disagreement"} == {"two"}
    assert {finding.amount for finding in found} == {998}


def lost_by_two(net: Net) -> None:
    """Connector two fulfilled, connector one's books are void: two writes it off. Its leg expires at 98,000."""
    net.packet(1, 1_000, posts=("two", "bob"))
    net.books["two"].lose(1, 998)
    net.told(0, 996, delivered=0)


def test_a_loss_without_any_fault_is_not_permitted(net: Net) -> None:
    lost_by_two(net)
    assert kinds(net.evidence()) == {"loss"}


def test_a_loss_is_permitted_where_the_senders_side_was_down_until_the_expiry(net: Net) -> None:
    lost_by_two(net)
    report = examine(net.evidence(downs=[Down("one", 80_000, 99_000)]))
    assert report.findings == []
    assert [(loss.node, loss.peer, loss.amount) for loss in report.losses] == [("two", "one", 998)]


@pytest.mark.parametrize("down", [Down("alice", 80_000, 99_000), Down("one", 10_000, 20_000)])
def test_a_fault_elsewhere_or_long_before_permits_nothing(net: Net, down: Down) -> None:
    lost_by_two(net)
    assert kinds(net.evidence(downs=[down])) == {"loss"}


def test_a_node_that_is_back_with_five_seconds_left_permits_no_loss(net: Net) -> None:
    lost_by_two(net)
    posted = net.books["two"].rows[-3]["sequence"]
    net.marks["two"] = [Mark(80_000, posted - 1), Mark(80_500, posted)]
    assert kinds(net.evidence(downs=[Down("one", 81_000, 93_000)])) == {"loss"}
    assert kinds(net.evidence(downs=[Down("one", 81_000, 93_001)])) == set()


def test_what_was_fulfilled_after_the_fault_is_not_permitted(net: Net) -> None:
    lost_by_two(net)
    posted = net.books["two"].rows[-3]["sequence"]
    net.marks["two"] = [Mark(90_000, posted - 1), Mark(90_500, posted)]
    assert kinds(net.evidence(downs=[Down("one", 70_000, 89_000)])) == {"loss"}


def test_a_cut_between_the_two_permits_a_loss_and_one_elsewhere_does_not(net: Net) -> None:
    lost_by_two(net)
    assert kinds(replace(net.evidence(), cuts=[Cut("two", "one", 60_000, 98_000)])) == set()
    assert kinds(replace(net.evidence(), cuts=[Cut("alice", "one", 60_000, 98_000)])) == {"loss"}


def test_a_wrong_clock_of_either_permits_a_loss(net: Net) -> None:
    lost_by_two(net)
    assert kinds(replace(net.evidence(), skews=[Skew("one", 0, 200_000, 3_600_000)])) == set()


def fulfilled_between(net: Net, from_ms: int, to_ms: int) -> None:
    posted = net.books["two"].rows[-3]["sequence"]
    net.marks["two"] = [Mark(from_ms, posted - 1), Mark(to_ms, posted)]


def test_the_senders_clock_moves_the_expiry_and_permits_no_more(net: Net) -> None:
    lost_by_two(net)
    fulfilled_between(net, 90_000, 90_500)
    assert kinds(replace(net.evidence(), skews=[Skew("one", 0, 200_000, 6_500)])) == {"loss"}
    assert kinds(replace(net.evidence(), skews=[Skew("one", 0, 200_000, 6_501)])) == set()
    assert kinds(replace(net.evidence(), skews=[Skew("one", 0, 80_000, 6_501)])) == {"loss"}  # it was set right


def test_the_other_sides_clock_permits_only_what_was_fulfilled_late(net: Net) -> None:
    lost_by_two(net)
    skews = [Skew("two", 0, 200_000, 3_600_000)]
    fulfilled_between(net, 90_000, 90_500)
    assert kinds(replace(net.evidence(), skews=skews)) == {"loss"}
    fulfilled_between(net, 98_000, 98_500)
    assert kinds(replace(net.evidence(), skews=skews)) == set()


def test_a_clock_that_is_wrong_excuses_nobody_who_was_linked_for_five_seconds(net: Net) -> None:
    """Seed 189: a receiver whose clock was 6 s ahead refused every report as expired."""
    lost_by_two(net)
    fulfilled_between(net, 80_000, 80_500)
    found = replace(net.evidence(), skews=[Skew("two", 0, 200_000, 6_412)])
    assert kinds(replace(found, cuts=[Cut("two", "one", 80_000, 93_000)])) == {"loss"}
    assert kinds(replace(found, cuts=[Cut("two", "one", 80_000, 93_001)])) == set()


def test_more_than_the_leg_is_never_permitted(net: Net) -> None:
    lost_by_two(net)
    net.books["two"].lose(1, 1)
    assert "loss" in kinds(net.evidence(downs=[Down("one", 80_000, 99_000)]))


def test_writing_off_what_was_paid_is_found(net: Net) -> None:
    net.packet(1, 1_000)
    net.books["two"].lose(1, 998)
    assert "loss" in kinds(net.evidence(downs=[Down("one", 80_000, 99_000)]))


def test_the_side_that_sent_can_lose_nothing(net: Net) -> None:
    net.packet(1, 1_000)
    net.books["one"].lose(2, 998)
    assert "loss" in kinds(net.evidence(downs=[Down("two", 80_000, 99_000)]))


def test_what_is_lost_to_a_dishonest_peer_is_permitted(net: Net) -> None:
    lost_by_two(net)
    assert kinds(net.evidence(dishonest=frozenset({"one"}))) == set()


def test_a_leg_that_was_refused_by_other_means_than_time_is_found_even_if_it_is_written_off(net: Net) -> None:
    net.packet(1, 1_000, posts=("two", "bob"))
    for row in net.books["one"].rows:
        if row["entry"] == "void":
            row["reason"] = "never sent"
    net.books["two"].lose(1, 998)
    net.told(0, 996, delivered=0)
    assert kinds(net.evidence(downs=[Down("one", 80_000, 99_000)])) == {"refused"}


def test_a_sender_that_is_debited_for_what_nobody_got_is_found(net: Net) -> None:
    net.packet(1, 1_000, posts=("alice", "one"))
    net.told(1_000, 0, delivered=0)
    assert {"debited", "disagreement", "balance"} == kinds(net.evidence())


def test_a_prepare_that_the_senders_books_do_not_have_was_sent_before_it_was_kept(net: Net) -> None:
    net.packet(1, 1_000, posts=())
    alice = net.books["alice"]
    alice.rows = [row for row in alice.rows if row["entry"] == "account opened"]
    assert kinds(net.evidence()) == {"unsent"}


def test_one_prepare_that_is_posted_twice_is_found(net: Net) -> None:
    net.packet(1, 1_000)
    again = net.books["two"].reserve(1, 998, 2)
    net.books["two"].post(*reversed(again))
    assert "twice" in kinds(net.evidence())


def test_a_request_id_that_is_used_twice_is_found(net: Net) -> None:
    net.packet(1, 1_000)
    again = net.books["one"].reserve(1, 999, 1)
    net.books["one"].void(*reversed(again))
    assert "identity" in kinds(net.evidence())


def test_one_leg_of_a_packet_that_moves_alone_is_found(net: Net) -> None:
    incoming, outgoing = net.books["one"].reserve(1, 999, 1)
    net.books["one"].post(incoming)
    net.books["one"].void(outgoing)
    assert "forward" in kinds(net.evidence())


def test_what_is_still_reserved_is_listed_only_when_all_should_be_quiet(net: Net) -> None:
    net.books["alice"].reserve(1, 1_000, 0)
    assert kinds(net.evidence()) == {"open"}
    assert kinds(net.evidence(is_quiet=False)) == set()


def test_a_leg_that_is_decided_twice_is_found(net: Net) -> None:
    legs = net.books["one"].reserve(1, 999, 1)
    net.books["one"].post(*legs)
    net.books["one"].void(*legs)
    assert "leg" in kinds(net.evidence())


def test_terms_that_change_on_the_wire_are_found(net: Net) -> None:
    net.packet(1, 1_000)
    net.told(1_000, 996)
    row = next(row for row in net.books["two"].rows if row["direction"] == "incoming")
    row["expires_at_ms"] = EXPIRES_AT
    assert kinds(net.evidence()) == {"leg"}


def test_missing_rows_are_found(net: Net) -> None:
    net.packet(1, 1_000)
    del net.books["one"].rows[2:4]
    assert "gap" in kinds(net.evidence())


def test_a_leg_that_came_by_http_is_known_by_its_request_id(net: Net) -> None:
    net.packet(1, 1_000)
    net.told(1_000, 996)
    for row in net.books["two"].rows:
        if row["direction"] == "incoming":
            name = bytearray(sha256(bytes.fromhex(row["session"]) + (1).to_bytes(4, "big")).digest()[:16])
            name[6], name[8] = name[6] & 0x0F | 0x40, name[8] & 0x3F | 0x80
            row |= {"session": name.hex(), "request_id": 0}
    assert kinds(net.evidence()) == set()


# --- what was agreed ------------------------------------------------------------------------------------------------


def agreed(net: Net, **changes: Any) -> Evidence:
    """What connector one agreed to with Alice: what the packets of `net` just keep to, but for the changes."""
    net.packet(1, 1_000)
    net.told(1_000, 996)
    net.marks["one"] = [Mark(70_000, net.books["one"].batch)]
    agreed: dict[str, Any] = {"receivable_max": 999, "payable_max": None, "margin_ms": 1_000, "hold_ms_max": 30_000}
    rates = {("one", "USD:9", "USD:9"): Fraction(998, 999)}
    return replace(net.evidence(), terms={End("one", "alice"): Terms(**agreed | changes)}, rates=rates)


def test_a_packet_that_keeps_to_what_was_agreed_is_fine(net: Net) -> None:
    assert kinds(agreed(net)) == set()


@pytest.mark.parametrize(
    "changes, expected",
    [({"receivable_max": 998}, "limit"), ({"margin_ms": 1_001}, "time"), ({"hold_ms_max": 27_000}, "time")],
)
def test_a_packet_that_goes_beyond_what_was_agreed_is_found(net: Net, changes: dict[str, Any], expected: str) -> None:
    assert kinds(agreed(net, **changes)) == {expected}


def test_what_is_posted_after_its_expiry_is_found_unless_the_disk_was_slow(net: Net) -> None:
    net.packet(1, 1_000)
    net.told(1_000, 996)
    posted = net.books["one"].batch
    net.marks["one"] = [Mark(98_401, posted - 1), Mark(98_410, posted)]  # 98,000, and what clock and disk may take
    assert kinds(net.evidence()) == {"late"}
    assert kinds(net.evidence(downs=[Down("one", 97_000, 98_300)])) == set()
    net.marks["one"] = [Mark(98_400, posted - 1), Mark(98_410, posted)]
    assert kinds(net.evidence()) == set()


def test_an_outcome_that_is_told_before_it_is_on_the_disk_is_found(net: Net) -> None:
    net.packet(1, 1_000)
    net.told(1_000, 996)
    posted = net.books["one"].batch
    net.marks["one"] = [Mark(80_000, posted - 1), Mark(80_010, posted)]
    told = [Told("one", "two", session_of(2), watermark, at_ms) for watermark, at_ms in ((0, 80_000), (1, 80_010))]
    assert kinds(replace(net.evidence(), told=told)) == set()
    assert kinds(replace(net.evidence(), told=[told[1]._replace(at_ms=80_009)])) == {"early"}


def test_a_limit_counts_what_is_reserved(net: Net) -> None:
    for number in (1, 2):
        net.books["one"].reserve(number, 600, 1)
    terms = {End("one", "alice"): Terms(1_000, None, 0, 30_000)}
    assert "limit" in kinds(replace(net.evidence(), terms=terms))


def test_more_than_the_rate_gives_is_found(net: Net) -> None:
    evidence = agreed(net)
    assert kinds(replace(evidence, rates={("one", "USD:9", "USD:9"): Fraction(997, 999)})) == {"rate"}


def test_an_amount_of_which_nothing_goes_on_is_found(net: Net) -> None:
    net.books["one"].void(*reversed(net.books["one"].reserve(1, 1, 1)))
    assert "zero" in kinds(net.evidence())


# --- what nodes and wallets say of themselves ---------------------------------------------------------------------


def claim(net: Net, **changes: Any) -> Evidence:
    """Connector one's own balances and assets, true but for the changes."""
    net.packet(1, 1_000)
    net.told(1_000, 996)
    asset: dict[str, Any] = {"asset_code": "USD", "asset_scale": 9}
    nothing = {"loss": "0", "reserved_incoming": "0", "reserved_outgoing": "0"}
    balances = [
        {"account": "alice", "balance": "999", **nothing, **asset},
        {"account": "two", "balance": "-998", **nothing, **asset},
    ]
    balances[0] |= {key: value for key, value in changes.items() if key in balances[0]}
    assets = [{"position": "0", "earnings": {"spread": "1"}, **asset}]
    assets[0] |= {key: value for key, value in changes.items() if key in assets[0]}
    evidence = net.evidence()
    journals = [
        replace(one, balances=balances, assets=assets) if one.node == "one" else one for one in evidence.journals
    ]
    return replace(evidence, journals=journals)


def test_true_claims_are_believed(net: Net) -> None:
    assert kinds(claim(net)) == set()


@pytest.mark.parametrize(
    "changes, expected",
    [
        ({"balance": "1000"}, {"claim", "sum"}),
        ({"reserved_incoming": "5"}, {"claim"}),
        ({"loss": "5"}, {"claim"}),
        ({"position": "1"}, {"claim", "sum"}),
        ({"earnings": {"spread": "2"}}, {"claim", "sum"}),
        ({"earnings": {"rounding": "1"}}, {"claim"}),
    ],
)
def test_a_claim_that_the_rows_do_not_bear_out_is_found(net: Net, changes: dict[str, Any], expected: set[str]) -> None:
    assert kinds(claim(net, **changes)) == expected


def test_a_receiver_that_credits_more_than_it_fulfilled_is_found(net: Net) -> None:
    net.packet(1, 1_000)
    net.told(1_000, 2 * 996, delivered=996)
    assert kinds(net.evidence()) == {"credited", "delivered"}


def test_a_wallet_that_says_it_sent_less_than_its_books_is_found(net: Net) -> None:
    net.packet(1, 1_000)
    net.told(999, 996)
    assert kinds(net.evidence()) == {"sent"}
    net.paid = [replace(net.paid[0], unknown=1)]
    assert kinds(net.evidence()) == set()


def test_a_sender_that_believes_more_arrived_than_did_is_found(net: Net) -> None:
    net.packet(1, 1_000)
    net.told(1_000, 996, delivered=997)
    assert kinds(net.evidence()) == {"delivered"}


def test_more_than_a_senders_estimate_may_arrive_but_not_more_than_the_price(net: Net) -> None:
    net.packet(1, 1_000)
    net.told(1_000, 996)
    net.paid = [replace(net.paid[0], delivered=990, delivered_max=990)]
    assert kinds(net.evidence()) == {"delivered"}
    net.paid = [replace(net.paid[0], at_price=995)]
    assert kinds(net.evidence()) == {"delivered"}
    net.paid = [replace(net.paid[0], at_price=996)]
    assert kinds(net.evidence()) == set()


def test_a_forger_on_the_way_may_add_to_what_arrives_and_take_nothing_from_what_is_certain(net: Net) -> None:
    net.packet(1, 1_000)
    net.told(1_000, 996)
    net.paid = [replace(net.paid[0], delivered=990, delivered_max=990)]
    forgers = frozenset({"two"})
    assert kinds(replace(net.evidence(), forgers=forgers)) == set()
    net.paid = [replace(net.paid[0], delivered=997)]
    assert kinds(replace(net.evidence(), forgers=forgers)) == {"delivered"}


def test_what_a_liar_says_of_its_own_payments_is_nobodys_business(net: Net) -> None:
    net.packet(1, 1_000)
    net.told(1_000, 996, delivered=997)
    assert kinds(net.evidence(dishonest=frozenset({"alice"}))) == set()


# --- long runs ----------------------------------------------------------------------------------------------------


def test_a_run_is_audited_in_parts_and_each_begins_where_the_last_one_ended(net: Net) -> None:
    net.packet(1, 1_000)
    net.told(1_000, 996)
    first = examine(net.evidence())
    assert first.findings == []
    net.packet(2, 500)
    net.told(1_500, 996 + 496)
    for books in net.books.values():
        books.rows = books.rows[-5:]  # what came before was pruned, but for one row
    assert audit(net.evidence(opening=first.closing)) == []
    assert "gap" in kinds(net.evidence())


def test_rows_that_were_pruned_before_they_were_audited_are_found(net: Net) -> None:
    net.packet(1, 1_000)
    net.told(1_000, 996)
    opening = examine(net.evidence()).closing
    net.packet(2, 500)
    net.packet(3, 500)
    for books in net.books.values():
        books.rows = books.rows[-4:]
    assert "gap" in kinds(net.evidence(opening=opening))
