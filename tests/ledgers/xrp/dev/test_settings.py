"""AccountSet."""

from typing import Any

import pytest

from isthmus.ledgers.xrp.dev.entries import DEFAULT_RIPPLE, GLOBAL_FREEZE, NO_FREEZE, AccountRoot
from tests.ledgers.xrp.conftest import ALICE, BOB, Table


@pytest.fixture
def table() -> Table:
    table = Table()
    table.fund(ALICE, BOB)
    return table


def account(table: Table) -> AccountRoot:
    found = table.ledger.open.account(ALICE.address)
    assert found is not None
    return found


@pytest.mark.parametrize("number, flag", [(1, 0x20000), (2, 0x40000), (3, 0x80000), (8, DEFAULT_RIPPLE), (14, 1 << 28)])
def test_a_flag_is_set_and_cleared(table: Table, number: int, flag: int) -> None:
    assert table.result(ALICE, "AccountSet", SetFlag=number) == "tesSUCCESS"
    assert account(table).flags == flag
    assert table.result(ALICE, "AccountSet", ClearFlag=number) == "tesSUCCESS"
    assert account(table).flags == 0


def test_the_older_way_to_set_a_flag(table: Table) -> None:
    assert table.result(ALICE, "AccountSet", Flags=0x00010000 | 0x00100000) == "tesSUCCESS"
    assert account(table).flags == 0x20000 | 0x80000
    assert table.result(ALICE, "AccountSet", Flags=0x00020000) == "tesSUCCESS"
    assert account(table).flags == 0x80000


def test_fields_are_set_kept_and_taken_away(table: Table) -> None:
    fields = {
        "Domain": b"example.com".hex().upper(),
        "EmailHash": "AB" * 16,
        "TickSize": 5,
        "TransferRate": 1_100_000_000,
    }
    assert table.result(ALICE, "AccountSet", **fields) == "tesSUCCESS"
    assert table.result(ALICE, "AccountSet") == "tesSUCCESS"
    assert dict(account(table).settings) == fields
    cleared = {"Domain": "", "EmailHash": "0" * 32, "TickSize": 0, "TransferRate": 0}
    assert table.result(ALICE, "AccountSet", **cleared) == "tesSUCCESS"
    assert account(table).settings == ()


def test_an_account_can_ask_for_its_transactions_to_be_chained(table: Table) -> None:
    table.submit(ALICE, "AccountSet", SetFlag=5)
    first = table.submit(ALICE, "AccountSet")
    assert account(table).setting("AccountTxnID") == first.transaction.id
    assert table.result(ALICE, "AccountSet", AccountTxnID="AB" * 32) == "tefWRONG_PRIOR"
    assert table.result(ALICE, "AccountSet", AccountTxnID=first.transaction.id) == "tesSUCCESS"


def test_a_freeze_given_up_can_t_be_lifted(table: Table) -> None:
    for number in (6, 7):
        assert table.result(ALICE, "AccountSet", SetFlag=number) == "tesSUCCESS"
    assert table.result(ALICE, "AccountSet", ClearFlag=7) == "tesSUCCESS"
    assert account(table).flags == NO_FREEZE | GLOBAL_FREEZE


def test_flags_that_need_an_account_without_entries(table: Table) -> None:
    table.open_channel(BOB, ALICE)
    assert table.result(ALICE, "AccountSet", SetFlag=2) == "tecOWNERS"
    assert table.result(ALICE, "AccountSet", SetFlag=16) == "tecOWNERS"


@pytest.mark.parametrize(
    "fields, expected",
    [
        ({"SetFlag": 4}, "tecNO_ALTERNATIVE_KEY"),
        ({"SetFlag": 8, "ClearFlag": 8}, "temINVALID_FLAG"),
        ({"SetFlag": 1, "Flags": 0x00020000}, "temINVALID_FLAG"),
        ({"Flags": 0x00400000}, "temINVALID_FLAG"),
        ({"TransferRate": 999_999_999}, "temBAD_TRANSFER_RATE"),
        ({"TransferRate": 2_000_000_001}, "temBAD_TRANSFER_RATE"),
        ({"TickSize": 2}, "temBAD_TICK_SIZE"),
        ({"TickSize": 17}, "temBAD_TICK_SIZE"),
        ({"MessageKey": "04" + "AB" * 32}, "telBAD_PUBLIC_KEY"),
        ({"Domain": "AB" * 257}, "telBAD_DOMAIN"),
        ({"SetFlag": 10}, "temMALFORMED"),
        ({"ClearFlag": 10, "NFTokenMinter": BOB.address}, "temMALFORMED"),
    ],
)
def test_settings_that_can_t_be(table: Table, fields: dict[str, Any], expected: str) -> None:
    assert table.result(ALICE, "AccountSet", **fields) == expected
    assert account(table).flags == 0 and account(table).settings == ()
