"""Payments in XRP, their fees and the reserve."""

from typing import Any

import pytest

from isthmus.ledgers.xrp.dev.rules import NOBODY
from isthmus.ledgers.xrp.dev.transactions import DROPS_MAX
from tests.ledgers.xrp.conftest import ALICE, BOB, CAROL, GENESIS, PRICES, XRP, Table


@pytest.fixture
def table() -> Table:
    table = Table()
    table.fund(ALICE, BOB, xrp=100)
    return table


def test_a_payment_moves_its_amount_and_burns_its_fee(table: Table) -> None:
    drops = table.ledger.last.drops
    assert table.result(ALICE, "Payment", Destination=BOB.address, Amount="1234567", Fee="15") == "tesSUCCESS"
    table.close()
    assert table.balance(ALICE) == 100 * XRP - 1_234_567 - 15
    assert table.balance(BOB) == 100 * XRP + 1_234_567
    assert table.ledger.last.drops == drops - 15


def test_an_account_is_made_by_its_first_payment(table: Table) -> None:
    short = str(PRICES.reserve_base - 1)
    assert table.result(ALICE, "Payment", Destination=CAROL.address, Amount=short) == "tecNO_DST_INSUF_XRP"
    assert table.balance(CAROL) == -1
    enough = str(PRICES.reserve_base)
    assert table.result(ALICE, "Payment", Destination=CAROL.address, Amount=enough) == "tesSUCCESS"
    # Its sequence starts at the ledger's index, so that an account made anew never repeats old numbers.
    assert table.ledger.next_sequence(CAROL.address) == table.ledger.index


def test_the_reserve_stays_but_may_pay_the_fee(table: Table) -> None:
    most = 100 * XRP - PRICES.reserve_base
    assert table.result(ALICE, "Payment", Destination=BOB.address, Amount=str(most + 1)) == "tecUNFUNDED_PAYMENT"
    # The failed one cost its fee, out of what could be sent.
    assert table.result(ALICE, "Payment", Destination=BOB.address, Amount=str(most - 10)) == "tesSUCCESS"
    assert table.balance(ALICE) == PRICES.reserve_base - 10


def test_a_fee_above_the_reserve_takes_its_place(table: Table) -> None:
    fee = 3 * PRICES.reserve_base
    most = 100 * XRP - fee
    pay = {"Destination": BOB.address, "Fee": str(fee)}
    assert table.result(ALICE, "Payment", Amount=str(most + 1), **pay, fail_hard=True) == "tecUNFUNDED_PAYMENT"
    assert table.result(ALICE, "Payment", Amount=str(most), **pay) == "tesSUCCESS"
    assert table.balance(ALICE) == 0


def test_a_tec_costs_the_fee_and_uses_the_number(table: Table) -> None:
    before, sequence = table.balance(ALICE), table.ledger.next_sequence(ALICE.address)
    assert sequence is not None
    submitted = table.submit(ALICE, "Payment", Destination=BOB.address, Amount=str(500 * XRP))
    assert submitted.result.token == "tecUNFUNDED_PAYMENT" and submitted.included is not None
    assert table.balance(ALICE) == before - 10
    assert table.ledger.next_sequence(ALICE.address) == sequence + 1


def test_a_tec_with_fail_hard_does_nothing(table: Table) -> None:
    before, sequence = table.balance(ALICE), table.ledger.next_sequence(ALICE.address)
    submitted = table.submit(ALICE, "Payment", Destination=BOB.address, Amount=str(500 * XRP), fail_hard=True)
    assert submitted.result.token == "tecUNFUNDED_PAYMENT" and submitted.included is None
    assert (table.balance(ALICE), table.ledger.next_sequence(ALICE.address)) == (before, sequence)


@pytest.mark.parametrize(
    "fields, expected",
    [
        ({"Amount": "0"}, "temBAD_AMOUNT"),
        ({"Amount": str(DROPS_MAX)}, "tecUNFUNDED_PAYMENT"),
        ({"Destination": ALICE.address}, "temREDUNDANT"),
        ({"Destination": NOBODY}, "temDST_NEEDED"),
        ({"SendMax": "5"}, "temBAD_SEND_XRP_MAX"),
        ({"DeliverMin": "5"}, "temBAD_AMOUNT"),
        ({"Flags": 0x00010000}, "temBAD_SEND_XRP_NO_DIRECT"),
        ({"Flags": 0x00020000}, "temBAD_SEND_XRP_PARTIAL"),
        ({"Flags": 0x00040000}, "temBAD_SEND_XRP_LIMIT"),
        ({"Flags": 0x00080000}, "temINVALID_FLAG"),
        ({"Flags": 0x40000000}, "temINVALID_FLAG"),
        ({"Amount": {"currency": "USD", "issuer": BOB.address, "value": "1"}}, "temDISABLED"),
        ({"Fee": "9"}, "telINSUF_FEE_P"),
        ({"Fee": str(200 * XRP)}, "terINSUF_FEE_B"),
        ({"Fee": {"currency": "USD", "issuer": BOB.address, "value": "1"}}, "temBAD_FEE"),
        ({"NetworkID": 1_000}, "telNETWORK_ID_MAKES_TX_NON_CANONICAL"),
        ({"Sequence": 1}, "tefPAST_SEQ"),
        ({"Sequence": 0, "TicketSequence": 1}, "tefNO_TICKET"),
        ({"Sequence": 0, "TicketSequence": 9_999}, "terPRE_TICKET"),
        ({"TicketSequence": 9_999}, "temSEQ_AND_TICKET"),
        ({"AccountTxnID": "AB" * 32}, "tefWRONG_PRIOR"),
        ({"LastLedgerSequence": 2}, "tefMAX_LEDGER"),
        ({"Account": CAROL.address}, "terNO_ACCOUNT"),
        ({"Account": BOB.address, "Destination": CAROL.address, "Sequence": 2}, "tefBAD_AUTH"),
        ({"Account": NOBODY}, "temBAD_SRC_ACCOUNT"),
        ({"Signers": []}, "tefNOT_MULTI_SIGNING"),
    ],
)
def test_what_is_no_payment_leaves_no_trace(table: Table, fields: dict[str, Any], expected: str) -> None:
    before = table.balance(ALICE)
    fields = {"Destination": BOB.address, "Amount": "5", **fields}
    submitted = table.submit(ALICE, "Payment", **fields)
    assert submitted.result.token == expected
    if not expected.startswith("tec"):
        assert submitted.included is None and table.balance(ALICE) == before


def test_the_last_ledger_is_the_last(table: Table) -> None:
    last = table.ledger.index
    pay = {"Destination": BOB.address, "Amount": "5", "LastLedgerSequence": last}
    assert table.result(ALICE, "Payment", **pay) == "tesSUCCESS"
    table.close()
    assert table.result(ALICE, "Payment", **pay) == "tefMAX_LEDGER"


def test_a_tag_may_be_asked_for(table: Table) -> None:
    assert table.result(BOB, "AccountSet", SetFlag=1) == "tesSUCCESS"
    pay = {"Destination": BOB.address, "Amount": "5"}
    assert table.result(ALICE, "Payment", **pay) == "tecDST_TAG_NEEDED"
    assert table.result(ALICE, "Payment", **pay, DestinationTag=0) == "tesSUCCESS"


def test_who_wants_no_deposits_can_still_be_helped_up_to_the_reserve(table: Table) -> None:
    assert table.result(BOB, "AccountSet", SetFlag=9) == "tesSUCCESS"
    assert table.result(ALICE, "Payment", Destination=BOB.address, Amount="1") == "tecNO_PERMISSION"
    rest = table.balance(BOB) - PRICES.reserve_base - 10
    assert table.result(BOB, "Payment", Destination=ALICE.address, Amount=str(rest)) == "tesSUCCESS"
    assert table.balance(BOB) == PRICES.reserve_base
    assert table.result(ALICE, "Payment", Destination=BOB.address, Amount="1") == "tesSUCCESS"
    assert table.result(ALICE, "Payment", Destination=BOB.address, Amount="1") == "tecNO_PERMISSION"


def test_a_network_of_today_wants_its_number_in_every_transaction() -> None:
    table = Table(network_id=1_025)
    pay = {"Destination": ALICE.address, "Amount": str(50 * XRP)}
    assert table.result(GENESIS, "Payment", **pay) == "telREQUIRES_NETWORK_ID"
    assert table.result(GENESIS, "Payment", **pay, NetworkID=1_026) == "telWRONG_NETWORK"
    assert table.result(GENESIS, "Payment", **pay, NetworkID=1_025) == "tesSUCCESS"


@pytest.mark.parametrize("kind", ["TrustSet", "SetRegularKey", "TicketCreate"])
def test_other_types_are_switched_off(table: Table, kind: str) -> None:
    fields: dict[str, Any] = {"TicketCount": 1} if kind == "TicketCreate" else {}
    if kind == "TrustSet":
        fields = {"LimitAmount": {"currency": "USD", "issuer": BOB.address, "value": "1"}}
    assert table.result(ALICE, kind, **fields) == "temDISABLED"
