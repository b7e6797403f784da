"""Payment channels: who may do what to one, and when it ends."""

from typing import Any

import pytest

from isthmus.ledgers.xrp.dev.channels import CLOSE, RENEW
from isthmus.ledgers.xrp.dev.entries import PayChannel
from isthmus.ledgers.xrp.hashes import channel_index
from isthmus.ledgers.xrp.signatures import SigningKey
from tests.ledgers.xrp.conftest import ALICE, BOB, CAROL, NOW, PRICES, XRP, Table, claim_fields

AMOUNT = 100 * XRP
KEY = {"PublicKey": ALICE.public_key.hex().upper()}


@pytest.fixture
def table() -> Table:
    table = Table()
    table.fund(ALICE, BOB, CAROL)
    return table


def of(table: Table, index: str) -> PayChannel | None:
    return table.ledger.open.channel(index)


def owned(table: Table, key: SigningKey) -> int:
    account = table.ledger.open.account(key.address)
    assert account is not None
    return account.owner_count


def create(table: Table, **fields: Any) -> str:
    fields = {"Destination": BOB.address, "Amount": str(AMOUNT), "SettleDelay": 60, **KEY, **fields}
    return table.result(ALICE, "PaymentChannelCreate", **fields)


def test_a_channel_sets_its_amount_aside_and_counts_towards_the_reserve(table: Table) -> None:
    before, sequence = table.balance(ALICE), table.ledger.next_sequence(ALICE.address)
    assert sequence is not None
    index = table.open_channel(ALICE, BOB, SourceTag=7, DestinationTag=8, CancelAfter=NOW + 1_000)
    assert index == channel_index(ALICE.address, BOB.address, sequence)
    channel = of(table, index)
    assert channel is not None
    assert (channel.amount, channel.balance, channel.settle_delay) == (AMOUNT, 0, 60)
    assert (channel.source_tag, channel.destination_tag, channel.cancel_after) == (7, 8, NOW + 1_000)
    assert table.balance(ALICE) == before - AMOUNT - 10
    assert (owned(table, ALICE), owned(table, BOB)) == (1, 0)
    assert [each.index for each in table.ledger.closed.channels_of(BOB.address)] == [index]


@pytest.mark.parametrize(
    "fields, expected",
    [
        ({"Amount": "0"}, "temBAD_AMOUNT"),
        ({"Amount": {"currency": "USD", "issuer": BOB.address, "value": "1"}}, "temBAD_AMOUNT"),
        ({"Destination": ALICE.address}, "temDST_IS_SRC"),
        ({"PublicKey": "04" + "AB" * 32}, "temMALFORMED"),
        ({"PublicKey": "ED" + "AB" * 31}, "temMALFORMED"),
        ({"Flags": CLOSE}, "temINVALID_FLAG"),
        ({"Destination": "rPT1Sjq2YGrBMTttX4GZHjKu9dyfzbpAYe"}, "tecNO_DST"),
        ({"Amount": str(2_000 * XRP)}, "tecUNFUNDED"),
        ({"CancelAfter": NOW}, "tecEXPIRED"),
    ],
)
def test_channels_that_can_t_be(table: Table, fields: dict[str, Any], expected: str) -> None:
    assert create(table, **fields) == expected
    assert owned(table, ALICE) == 0


def test_a_channel_s_owner_keeps_the_reserve_with_it(table: Table) -> None:
    rest = table.balance(ALICE) - PRICES.reserve(1)
    assert create(table, Amount=str(rest + 1)) == "tecUNFUNDED"
    assert create(table, Amount=str(rest - 10)) == "tesSUCCESS"
    assert table.balance(ALICE) == PRICES.reserve(1) - 10
    assert create(table, Amount="1") == "tecINSUFFICIENT_RESERVE"


def test_a_destination_may_want_none_or_a_tag(table: Table) -> None:
    table.submit(BOB, "AccountSet", SetFlag=14)
    assert create(table) == "tecNO_PERMISSION"
    table.submit(BOB, "AccountSet", ClearFlag=14)
    table.submit(BOB, "AccountSet", SetFlag=1)
    assert create(table) == "tecDST_TAG_NEEDED"
    assert create(table, DestinationTag=0) == "tesSUCCESS"


@pytest.mark.parametrize("signer", [CAROL, BOB], ids=["ed25519", "secp256k1"])
def test_a_claim_pays_what_it_grants_beyond_what_was_paid(table: Table, signer: SigningKey) -> None:
    """Claims are cumulative: the channel's key, which may be of either kind, signs the sum of all so far."""
    index = table.open_channel(ALICE, BOB, PublicKey=signer.public_key.hex().upper())
    before = table.balance(BOB)
    assert table.result(BOB, "PaymentChannelClaim", **claim_fields(signer, index, 3 * XRP)) == "tesSUCCESS"
    assert table.result(BOB, "PaymentChannelClaim", **claim_fields(signer, index, 5 * XRP)) == "tesSUCCESS"
    assert table.balance(BOB) == before + 5 * XRP - 20


def test_a_claim_pays_only_once(table: Table) -> None:
    index = table.open_channel(ALICE, BOB)
    claim = claim_fields(ALICE, index, 5 * XRP)
    assert table.result(BOB, "PaymentChannelClaim", **claim) == "tesSUCCESS"
    before = table.balance(BOB)
    for drops in (5 * XRP, 4 * XRP):
        again = claim_fields(ALICE, index, drops)
        assert table.result(BOB, "PaymentChannelClaim", **again) == "tecUNFUNDED_PAYMENT"
    assert table.balance(BOB) == before - 20


def test_less_may_be_taken_than_a_claim_grants(table: Table) -> None:
    index = table.open_channel(ALICE, BOB)
    assert table.result(BOB, "PaymentChannelClaim", **claim_fields(ALICE, index, 9 * XRP, 2 * XRP)) == "tesSUCCESS"
    channel = of(table, index)
    assert channel is not None and channel.balance == 2 * XRP


def test_a_claim_reaches_as_far_as_the_channel(table: Table) -> None:
    index = table.open_channel(ALICE, BOB)
    assert table.result(BOB, "PaymentChannelClaim", **claim_fields(ALICE, index, AMOUNT + 1)) == "tecUNFUNDED_PAYMENT"
    assert table.result(BOB, "PaymentChannelClaim", **claim_fields(ALICE, index, AMOUNT)) == "tesSUCCESS"


def test_claims_that_are_none(table: Table) -> None:
    index, other = table.open_channel(ALICE, BOB), table.open_channel(ALICE, BOB)
    good = claim_fields(ALICE, index, 5 * XRP)
    forged = claim_fields(CAROL, index, 5 * XRP)
    cases: list[tuple[SigningKey, dict[str, Any], str]] = [
        (BOB, {**good, "Amount": str(6 * XRP)}, "temBAD_SIGNATURE"),
        (BOB, {**good, "Channel": other}, "temBAD_SIGNATURE"),
        (BOB, {**good, "Channel": "AB" * 32}, "temBAD_SIGNATURE"),
        (BOB, {**claim_fields(ALICE, "AB" * 32, XRP)}, "tecNO_TARGET"),
        (BOB, forged, "temBAD_SIGNER"),
        (BOB, {**forged, **KEY}, "temBAD_SIGNATURE"),
        (BOB, {**good, "Balance": str(6 * XRP)}, "temBAD_AMOUNT"),
        (BOB, {**good, "Balance": "0"}, "temBAD_AMOUNT"),
        (BOB, {key: value for key, value in good.items() if key != "PublicKey"}, "temMALFORMED"),
        (BOB, {key: value for key, value in good.items() if key != "Balance"}, "temMALFORMED"),
        (BOB, {"Channel": index, "Balance": "5", "Amount": "5"}, "temBAD_SIGNATURE"),
        (BOB, {**good, "Flags": CLOSE | RENEW}, "temMALFORMED"),
        (BOB, {**good, "Flags": 1}, "temINVALID_FLAG"),
        (BOB, {"Channel": index, "Flags": RENEW}, "tecNO_PERMISSION"),
        (BOB, {**good, "CredentialIDs": ["AB" * 32]}, "temDISABLED"),
        (CAROL, good, "tecNO_PERMISSION"),
        (CAROL, {"Channel": index, "Flags": CLOSE}, "tecNO_PERMISSION"),
    ]
    for key, fields, expected in cases:
        assert table.result(key, "PaymentChannelClaim", **fields) == expected, fields
    channel = of(table, index)
    assert channel is not None and channel.balance == 0 and channel.expiration is None
    assert table.result(BOB, "PaymentChannelClaim", **good) == "tesSUCCESS"


def test_the_source_may_pay_without_a_signature(table: Table) -> None:
    index = table.open_channel(ALICE, BOB)
    before = table.balance(BOB)
    assert table.result(ALICE, "PaymentChannelClaim", Channel=index, Balance=str(XRP)) == "tesSUCCESS"
    assert table.balance(BOB) == before + XRP


def test_who_wants_no_deposits_must_claim_by_himself(table: Table) -> None:
    index = table.open_channel(ALICE, BOB)
    table.submit(BOB, "AccountSet", SetFlag=9)
    assert table.result(ALICE, "PaymentChannelClaim", Channel=index, Balance=str(XRP)) == "tecNO_PERMISSION"
    assert table.result(BOB, "PaymentChannelClaim", **claim_fields(ALICE, index, XRP)) == "tesSUCCESS"


def test_the_destination_closes_at_once_and_the_rest_goes_back(table: Table) -> None:
    before = table.balance(ALICE)
    index = table.open_channel(ALICE, BOB)
    claim = claim_fields(ALICE, index, 30 * XRP)
    assert table.result(BOB, "PaymentChannelClaim", **claim, Flags=CLOSE) == "tesSUCCESS"
    assert of(table, index) is None and owned(table, ALICE) == 0
    assert table.balance(ALICE) == before - 30 * XRP - 10


def test_the_source_must_wait_the_settle_delay(table: Table) -> None:
    index = table.open_channel(ALICE, BOB, SettleDelay=60)
    now = table.ledger.last.close_time
    assert table.result(ALICE, "PaymentChannelClaim", Channel=index, Flags=CLOSE) == "tesSUCCESS"
    channel = of(table, index)
    assert channel is not None and channel.expiration == now + 60
    table.close(59)
    # A second request doesn't put it off.
    assert table.result(ALICE, "PaymentChannelClaim", Channel=index, Flags=CLOSE) == "tesSUCCESS"
    assert of(table, index) == channel or of(table, index) is not None
    # One second before the end the destination still gets what it was granted.
    assert table.ledger.last.close_time == now + 59
    assert table.result(BOB, "PaymentChannelClaim", **claim_fields(ALICE, index, XRP)) == "tesSUCCESS"
    table.close(1)
    before = table.balance(BOB)
    assert table.result(BOB, "PaymentChannelClaim", **claim_fields(ALICE, index, 2 * XRP)) == "tesSUCCESS"
    # Too late: the claim closed the channel and was paid nothing.
    assert of(table, index) is None and table.balance(BOB) == before - 10


def test_a_dry_channel_closes_at_once_for_its_source_too(table: Table) -> None:
    index = table.open_channel(ALICE, BOB)
    paid = {"Channel": index, "Balance": str(AMOUNT), "Flags": CLOSE}
    assert table.result(ALICE, "PaymentChannelClaim", **paid) == "tesSUCCESS"
    assert of(table, index) is None


def test_a_close_can_be_taken_back_before_it_happens(table: Table) -> None:
    index = table.open_channel(ALICE, BOB)
    table.submit(ALICE, "PaymentChannelClaim", Channel=index, Flags=CLOSE)
    assert table.result(ALICE, "PaymentChannelClaim", Channel=index, Flags=RENEW) == "tesSUCCESS"
    channel = of(table, index)
    assert channel is not None and channel.expiration is None


def test_cancel_after_ends_it_whatever_was_agreed_since(table: Table) -> None:
    index = table.open_channel(ALICE, BOB, CancelAfter=NOW + 100)
    table.close(100)
    # Anybody may end it then; what he sent does nothing else.
    assert table.result(CAROL, "PaymentChannelClaim", Channel=index) == "tesSUCCESS"
    assert of(table, index) is None


def test_both_transactions_of_one_ledger_are_judged_at_its_parent_s_time(table: Table) -> None:
    index = table.open_channel(ALICE, BOB, CancelAfter=NOW + 100)
    table.close(NOW + 99 - table.now)
    assert table.result(BOB, "PaymentChannelClaim", **claim_fields(ALICE, index, XRP)) == "tesSUCCESS"
    assert table.result(BOB, "PaymentChannelClaim", **claim_fields(ALICE, index, 2 * XRP)) == "tesSUCCESS"
    channel = of(table, index)
    assert channel is not None and channel.balance == 2 * XRP


def test_the_source_adds_to_a_channel(table: Table) -> None:
    index = table.open_channel(ALICE, BOB)
    before = table.balance(ALICE)
    assert table.result(ALICE, "PaymentChannelFund", Channel=index, Amount=str(XRP)) == "tesSUCCESS"
    channel = of(table, index)
    assert channel is not None and channel.amount == AMOUNT + XRP
    assert table.balance(ALICE) == before - XRP - 10
    assert table.result(BOB, "PaymentChannelFund", Channel=index, Amount=str(XRP)) == "tecNO_PERMISSION"
    assert table.result(ALICE, "PaymentChannelFund", Channel="AB" * 32, Amount="1") == "tecNO_ENTRY"
    assert table.result(ALICE, "PaymentChannelFund", Channel=index, Amount="0") == "temBAD_AMOUNT"
    assert table.result(ALICE, "PaymentChannelFund", Channel=index, Amount="1", Flags=CLOSE) == "temINVALID_FLAG"
    rest = table.balance(ALICE) - PRICES.reserve(1)
    assert table.result(ALICE, "PaymentChannelFund", Channel=index, Amount=str(rest - 9)) == "tecUNFUNDED"
    assert table.result(ALICE, "PaymentChannelFund", Channel=index, Amount=str(rest - 20)) == "tesSUCCESS"
    assert table.balance(ALICE) == PRICES.reserve(1)
    assert table.result(ALICE, "PaymentChannelFund", Channel=index, Amount="1") == "tecINSUFFICIENT_RESERVE"


def test_an_expiration_is_at_least_the_settle_delay_away_or_later_than_it_was(table: Table) -> None:
    index = table.open_channel(ALICE, BOB, SettleDelay=60)
    now = table.ledger.last.close_time
    fund: dict[str, Any] = {"Channel": index, "Amount": "1"}
    assert table.result(ALICE, "PaymentChannelFund", **fund, Expiration=now + 59) == "temBAD_EXPIRATION"
    assert table.result(ALICE, "PaymentChannelFund", **fund, Expiration=now + 60) == "tesSUCCESS"
    table.close(30)
    assert table.result(ALICE, "PaymentChannelFund", **fund, Expiration=now + 59) == "temBAD_EXPIRATION"
    assert table.result(ALICE, "PaymentChannelFund", **fund, Expiration=now + 61) == "tesSUCCESS"
    table.close(31)
    assert table.result(ALICE, "PaymentChannelFund", **fund, Expiration=now + 500) == "tesSUCCESS"
    assert of(table, index) is None  # over: the money came back instead


def test_an_end_beyond_the_format_s_time_is_its_last_second(table: Table) -> None:
    index = table.open_channel(ALICE, BOB, SettleDelay=2**32 - 1)
    assert table.result(ALICE, "PaymentChannelClaim", Channel=index, Flags=CLOSE) == "tesSUCCESS"
    channel = of(table, index)
    assert channel is not None and channel.expiration == 2**32 - 1
    table.close()
