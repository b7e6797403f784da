"""Ledgers that close, what they hold, and transactions that wait."""

import json
from typing import Any

import pytest
from xrpl.core.binarycodec import decode, encode

from isthmus.ledgers.xrp.dev.channels import CLOSE
from isthmus.ledgers.xrp.dev.entries import addresses_of, read
from isthmus.ledgers.xrp.dev.held import HELD_MAX, HELD_PER_ACCOUNT_MAX, LEDGERS_MAX
from isthmus.ledgers.xrp.dev.ledger import FIRST_LEDGER, OPEN_TRANSACTIONS_MAX, Header
from isthmus.ledgers.xrp.dev.views import State
from tests.ledgers.xrp.conftest import ALICE, BOB, CAROL, GENESIS, XRP, Table, claim_fields, key_of, signed


@pytest.fixture
def table() -> Table:
    table = Table()
    table.fund(ALICE, BOB)
    return table


def test_ledgers_follow_each_other(table: Table) -> None:
    first, second = table.close(), table.close(0)
    assert second.header.index == first.header.index + 1
    assert second.header.parent_hash == first.header.hash
    assert second.header.parent_close_time == first.header.close_time
    # Faster than once a second they share a time, and none goes back.
    assert second.header.close_time == first.header.close_time
    assert table.ledger.close(0).header.close_time == first.header.close_time


def test_a_ledger_s_hash_covers_all_of_its_header(table: Table) -> None:
    header = table.close().header
    fields = {name: getattr(header, name) for name in Header.__slots__ if name != "hash"}
    assert Header.of(**fields) == header
    for name, value in fields.items():
        changed = value + 1 if isinstance(value, int) else bytes([value[0] ^ 1]) + value[1:]
        assert Header.of(**{**fields, name: changed}).hash != header.hash


def test_the_state_is_the_sum_of_its_changes(table: Table) -> None:
    """Whoever keeps what each ledger changed, and reads it back, has the same state with the same hash."""
    kept = dict(table.genesis.changes)
    # Two ledgers were closed by the fixture's means: take everything that is there now as their outcome.
    kept.update({each.index: each for each in table.ledger.closed.entries()})
    index = table.open_channel(ALICE, BOB)
    kept.update({each.index: each for each in table.ledger.closed.entries()})
    table.submit(BOB, "PaymentChannelClaim", Channel=index, Flags=CLOSE)
    kept.update(table.close().changes)
    again = State(read(key, each.fields()) for key, each in kept.items() if each is not None)
    assert kept[index] is None and len(again) == len(table.ledger.closed) == 3
    assert again.root() == table.ledger.last.account_hash


def test_metadata_can_be_written_in_the_ledger_s_format(table: Table) -> None:
    index = table.open_channel(ALICE, BOB)
    table.submit(BOB, "PaymentChannelClaim", **claim_fields(ALICE, index, XRP), Flags=CLOSE)
    table.submit(ALICE, "AccountSet", Domain="AB")
    table.submit(ALICE, "Payment", Destination=CAROL.address, Amount=str(XRP * 2))
    for included in table.close().transactions:
        blob = encode(included.meta)
        # The library writes numbers of 64 bits with all their digits.
        assert json.loads(json.dumps(decode(blob)).replace("0" * 16, "0")) == shortened(included.meta)


def shortened(meta: dict[str, Any]) -> Any:
    return json.loads(json.dumps(meta).replace("0" * 16, "0"))


def node(meta: dict[str, Any], kind: str, entry: str) -> dict[str, Any]:
    """The first node of that kind which tells more than that it was noted."""
    nodes = [each[kind] for each in meta["AffectedNodes"] if kind in each]
    return next(
        dict(each) for each in nodes if each["LedgerEntryType"] == entry and {"FinalFields", "NewFields"} & each.keys()
    )


def test_metadata_tells_what_changed(table: Table) -> None:
    before = table.balance(ALICE)
    index = table.open_channel(ALICE, BOB, drops=5 * XRP)
    submitted = table.submit(ALICE, "PaymentChannelFund", Channel=index, Amount="7")
    assert submitted.included is not None
    meta = submitted.included.meta
    channel = node(meta, "ModifiedNode", "PayChannel")
    assert channel["PreviousFields"] == {"Amount": str(5 * XRP)}
    assert channel["FinalFields"]["Amount"] == str(5 * XRP + 7)
    account = node(meta, "ModifiedNode", "AccountRoot")
    assert account["PreviousFields"]["Balance"] == str(before - 5 * XRP - 10)
    assert set(account["PreviousFields"]) == {"Balance", "Sequence"}
    assert account["PreviousTxnID"] == channel["PreviousTxnID"] != submitted.transaction.id
    # It concerns the channel's other side as well.
    assert submitted.included.affected == tuple(sorted([ALICE.address, BOB.address]))


def test_a_channel_that_comes_or_goes_is_noted_at_both_accounts(table: Table) -> None:
    index = table.open_channel(ALICE, BOB)
    bob = table.ledger.closed.account(BOB.address)
    channel = table.ledger.closed.channel(index)
    assert bob is not None and channel is not None
    assert bob.changed_by == channel.changed_by
    claim = claim_fields(ALICE, index, XRP)
    submitted = table.submit(BOB, "PaymentChannelClaim", **claim, Flags=CLOSE)
    assert submitted.included is not None
    gone = node(submitted.included.meta, "DeletedNode", "PayChannel")
    assert gone["FinalFields"]["Balance"] == str(XRP) and gone["PreviousFields"] == {"Balance": "0"}
    assert gone["FinalFields"]["PreviousTxnID"] == channel.changed_by
    alice = table.ledger.open.account(ALICE.address)
    assert alice is not None and alice.changed_by == submitted.transaction.id


def test_new_entries_are_told_without_their_zeros(table: Table) -> None:
    submitted = table.submit(ALICE, "Payment", Destination=CAROL.address, Amount=str(2 * XRP))
    assert submitted.included is not None
    new = node(submitted.included.meta, "CreatedNode", "AccountRoot")["NewFields"]
    assert new == {"Account": CAROL.address, "Balance": str(2 * XRP), "Sequence": table.ledger.index}


def test_a_failure_tells_the_fee_alone(table: Table) -> None:
    submitted = table.submit(ALICE, "PaymentChannelFund", Channel="AB" * 32, Amount="7")
    assert submitted.included is not None
    assert submitted.included.meta["TransactionResult"] == "tecNO_ENTRY"
    assert len(submitted.included.meta["AffectedNodes"]) == 1


def test_entries_read_back_as_they_were(table: Table) -> None:
    table.open_channel(ALICE, BOB, SourceTag=0, CancelAfter=2**32 - 1)
    table.submit(ALICE, "AccountSet", Domain="AB", SetFlag=5)
    table.close()
    for entry in table.ledger.closed.entries():
        assert read(entry.index, entry.fields()) == entry
        assert addresses_of(entry)


def pay(sequence: int, **fields: Any) -> dict[str, Any]:
    return {"Destination": BOB.address, "Amount": "1", "Sequence": sequence, **fields}


def test_transactions_that_overtook_each_other_all_get_in(table: Table) -> None:
    first = table.ledger.next_sequence(ALICE.address)
    assert first is not None
    late = [table.submit(ALICE, "Payment", **pay(first + ahead)) for ahead in (3, 1, 2)]
    assert [each.result.token for each in late] == ["terPRE_SEQ"] * 3 and all(each.kept for each in late)
    assert table.ledger.next_free_sequence(ALICE.address) == first
    assert table.result(ALICE, "Payment", **pay(first)) == "tesSUCCESS"
    assert table.ledger.held == 0
    assert [each.transaction.sequence for each in table.close().transactions] == list(range(first, first + 4))


def test_one_that_came_before_its_account_gets_in_once_that_is_funded(table: Table) -> None:
    sequence = table.ledger.index
    early = table.submit(CAROL, "AccountSet", Sequence=sequence)
    assert early.result.token == "terNO_ACCOUNT" and early.kept
    assert table.result(ALICE, "Payment", Destination=CAROL.address, Amount=str(5 * XRP)) == "tesSUCCESS"
    assert early.transaction.id in [each.transaction.id for each in table.close().transactions]


def test_what_is_held_is_dropped_in_the_end(table: Table) -> None:
    first = table.ledger.next_sequence(ALICE.address)
    assert first is not None
    table.submit(ALICE, "Payment", **pay(first + 1, LastLedgerSequence=table.ledger.index + 1))
    table.submit(ALICE, "Payment", **pay(first + 2))
    table.close()
    assert table.ledger.held == 2
    table.close()
    assert table.ledger.held == 1
    for _ in range(LEDGERS_MAX):
        table.close()
    assert table.ledger.held == 0


def test_only_an_account_s_own_transactions_wait_and_one_for_each_number(table: Table) -> None:
    first = table.ledger.next_sequence(ALICE.address)
    assert first is not None
    forged = signed(CAROL, **{**pay(first + 1), "TransactionType": "Payment", "Account": ALICE.address})
    submitted = table.ledger.submit(forged)
    assert submitted.result.token == "terPRE_SEQ" and not submitted.kept
    assert not table.submit(ALICE, "Payment", **pay(first + 1), fail_hard=True).kept
    assert table.ledger.held == 0
    for amount, kept in (("1", True), ("1", True), ("2", False)):
        assert table.submit(ALICE, "Payment", **pay(first + 1, Amount=amount)).kept is kept
        assert table.ledger.held == 1
    assert table.result(ALICE, "Payment", **pay(first)) == "tesSUCCESS"
    assert [each.transaction.get("Amount") for each in table.close().transactions] == ["1", "1"]
    assert table.ledger.held == 0


@pytest.mark.slow
def test_nobody_can_fill_the_table(table: Table) -> None:
    first = table.ledger.next_sequence(ALICE.address)
    assert first is not None
    kept = [table.submit(ALICE, "Payment", **pay(first + 1 + place)).kept for place in range(HELD_PER_ACCOUNT_MAX + 1)]
    assert kept == [True] * HELD_PER_ACCOUNT_MAX + [False]
    others = [key_of(f"other {number}") for number in range(HELD_MAX // HELD_PER_ACCOUNT_MAX + 1)]
    for key in others:
        for place in range(HELD_PER_ACCOUNT_MAX):
            table.submit(key, "AccountSet", Sequence=place + 1)
    assert table.ledger.held == HELD_MAX


def test_an_open_ledger_has_room_for_so_many(table: Table) -> None:
    filler = table.submit(ALICE, "AccountSet").included
    assert filler is not None
    table.ledger.included = [filler] * OPEN_TRANSACTIONS_MAX
    assert table.result(BOB, "AccountSet") == "telCAN_NOT_QUEUE_FULL"


def test_the_first_ledger_holds_all_there_is() -> None:
    table = Table()
    assert table.ledger.last.index == FIRST_LEDGER
    assert table.balance(GENESIS) == table.ledger.last.drops == 10**17
