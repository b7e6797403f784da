"""Plain payments: what is paid once arrives once, whatever is killed; only what was delivered is credited."""

from typing import Any

import pytest

from isthmus.errors import CodecError, LedgerError
from isthmus.ledgers.xrp.transactions import payment
from isthmus.settlement.port import MessageRefusedError, Step
from isthmus.settlement.xrp.details import QUESTION, Details
from isthmus.settlement.xrp.payments import LEDGERS_AT_ONCE, PaymentEngine
from isthmus.settlement.xrp.pending import PREFIX, Pending
from tests.ledgers.xrp.dev.conftest import Serving
from tests.settlement.lightning.ports import PEER
from tests.settlement.xrp.test_faults import Liar, liar
from tests.settlement.xrp.world import (
    XRP,
    Party,
    a_key,
    drops_of,
    join,
    let_expire,
    looked,
    payment_party,
    send,
    until,
)

__all__ = ["liar"]

ALICE, BOB, EVE = a_key(1), a_key(2), a_key(3)
KILLS = 14


@pytest.fixture
async def pair(ledger: Serving, parties: list[Party]) -> tuple[Party, Party]:
    alice, bob = payment_party(ledger, ALICE), payment_party(ledger, BOB)
    join(alice, bob)
    parties += [await alice.start(), await bob.start()]
    return alice, bob


async def paid(ledger: Serving, alice: Party, bob: Party, amount: int) -> None:
    before = bob.balance
    alice.owe(amount)
    await until(lambda: alice.is_paid and bob.balance == before - amount, ledger)


def pending(party: Party) -> list[Pending]:
    kept = party.kept(PEER)
    return [Pending.decode(kept[key]) for key in kept if key.startswith(PREFIX)]


async def tag_of(party: Party) -> int:
    tag = Details.decode(await party.engine.take_message(PEER, QUESTION)).tag
    assert tag is not None
    return tag


async def test_settlements_are_payments_with_the_peers_tag(ledger: Serving, pair: tuple[Party, Party]) -> None:
    alice, bob = pair
    before = await drops_of(ledger, BOB)
    for amount in (3 * XRP, 1, 700):
        await paid(ledger, alice, bob, amount)
    assert await drops_of(ledger, BOB) == before + 3 * XRP + 701
    assert (alice.balance, bob.balance) == (3 * XRP + 701, -3 * XRP - 701)
    assert isinstance(bob.engine, PaymentEngine)
    assert bob.engine.describe(PEER)["tag"] == str(bob.engine.tag(PEER)) == str(await tag_of(bob))


async def test_both_pay_each_other(ledger: Serving, pair: tuple[Party, Party]) -> None:
    alice, bob = pair
    for _ in range(3):
        alice.owe(100)
        bob.owe(250)
        await until(lambda: alice.is_paid and bob.is_paid, ledger)
    await until(lambda: (alice.balance, bob.balance) == (-450, 450), ledger)


async def test_less_than_a_drop_is_carried(ledger: Serving, parties: list[Party]) -> None:
    alice, bob = payment_party(ledger, ALICE, scale=9), payment_party(ledger, BOB, scale=9)
    join(alice, bob)
    parties += [await alice.start(), await bob.start()]
    for amount in (1_500, 700, 800, 2_000):
        alice.owe(amount)
        await until(lambda: alice.is_paid, ledger)
    await until(lambda: bob.balance == -5_000, ledger)


@pytest.mark.parametrize("booked", [True, False], ids=["after", "before"])
@pytest.mark.parametrize("victim", ["payer", "payee"])
async def test_a_kill_at_any_step_pays_nothing_twice_and_loses_nothing(
    ledger: Serving, pair: tuple[Party, Party], victim: str, booked: bool
) -> None:
    alice, bob = pair
    before = await drops_of(ledger, BOB)
    killed = alice if victim == "payer" else bob
    kills = 0
    while kills < KILLS:
        if killed.process.kill_at is None:
            killed.process.kill_at = killed.steps + 1 + kills % 3
            killed.process.kill_before = not booked
        alice.owe(7 * XRP)
        await until(lambda: killed.process.is_dead or alice.is_paid, ledger)
        await until(lambda: killed.process.is_dead or bob.balance == -alice.balance, ledger)
        if killed.process.is_dead:
            kills += 1
            await killed.restart()
        await until(lambda: alice.is_paid, ledger)
    total = alice.balance
    await until(lambda: bob.balance == -total, ledger)
    await looked(bob, ledger, turns=4)
    assert bob.balance == -total
    assert await drops_of(ledger, BOB) == before + total


async def test_a_number_that_was_used_meanwhile_is_not_used_again(
    ledger: Serving, parties: list[Party], liar: Liar
) -> None:
    """A server's word of our account, from before a payment of the same amount ended: each is a payment of its own.

    The two would else be the same bytes, found on the ledger once and taken for both. Seed 7 of the campaign.
    """
    alice = payment_party(ledger, ALICE, urls=(liar.json_rpc,))
    bob = payment_party(ledger, BOB)
    join(alice, bob)
    parties += [await alice.start(), await bob.start()]
    before = await drops_of(ledger, BOB)
    old: list[dict[str, Any]] = []

    def noted(result: dict[str, Any]) -> dict[str, Any]:
        old.append(result)
        return result

    liar.lies["account_info"] = noted
    alice.owe(500)
    await until(lambda: alice.is_paid, ledger)
    liar.lies["account_info"] = old[0]
    for _ in range(3):
        alice.owe(500)
        await until(lambda: alice.is_paid, ledger)
    await until(lambda: bob.balance == -2_000, ledger)
    assert await drops_of(ledger, BOB) == before + 2_000
    assert not alice.events("xrp_sequence_taken")
    # Ledgers close quickly here: where the machine is slow, a payment may expire, and is then signed anew.
    expired = {line["hash"] for line in alice.events("xrp_transaction_expired")}
    assert len({line["hash"] for line in alice.events("xrp_transaction")} - expired) == 4


# --- transactions that don't come ---


async def test_nothing_goes_to_the_ledger_before_it_is_durable(ledger: Serving, pair: tuple[Party, Party]) -> None:
    """A look at what is under way comes while the disk is slow. A power cut then would have it paid anew."""
    alice, bob = pair
    await tag_of(bob)
    before = await drops_of(ledger, BOB)
    alice.process.disk.clear()
    alice.owe(500)
    # The payment's step waits, and whoever would give its bytes to the ledger.
    await until(lambda: alice.process.waiting == 2)
    ledger.service.close_ledger()
    assert await drops_of(ledger, BOB) == before
    alice.process.disk.set()
    await until(lambda: alice.is_paid and bob.balance == -500, ledger)
    assert await drops_of(ledger, BOB) == before + 500


async def test_bytes_that_no_server_got_are_submitted_by_the_next_process(
    ledger: Serving, pair: tuple[Party, Party]
) -> None:
    alice, bob = pair
    alice.process.kill_sending = True
    alice.owe(500)
    await until(lambda: alice.process.is_dead)
    (one,) = pending(alice)
    await alice.restart()
    await until(lambda: alice.is_paid and bob.balance == -500, ledger)
    assert not [line for line in alice.events("xrp_transaction") if line["hash"] != one.hash]


async def test_a_payment_that_no_ledger_took_in_time_is_signed_anew_under_its_number(
    ledger: Serving, pair: tuple[Party, Party]
) -> None:
    alice, bob = pair
    before = await drops_of(ledger, BOB)
    alice.process.kill_sending = True
    alice.owe(500)
    await until(lambda: alice.process.is_dead)
    (old,) = pending(alice)
    let_expire(ledger)
    alice.process.kill_sending = False
    await alice.restart()
    await until(lambda: alice.is_paid and bob.balance == -500, ledger)
    assert await drops_of(ledger, BOB) == before + 500
    assert not pending(alice) and old.about == "1"


async def test_the_peer_that_cannot_be_asked_again_is_waited_for(ledger: Serving, pair: tuple[Party, Party]) -> None:
    alice, bob = pair
    alice.process.kill_sending = True
    alice.owe(500)
    await until(lambda: alice.process.is_dead)
    let_expire(ledger)
    alice.link_is_up = False
    await alice.restart()
    await until(lambda: alice.events("xrp_peer_refused"), ledger)
    assert len(pending(alice)) == 1 and not alice.is_paid
    assert ("xrp_peer_refused", PEER) not in alice.overs
    alice.link_is_up = True
    await until(lambda: alice.is_paid and bob.balance == -500, ledger)
    await until(lambda: ("xrp_peer_refused", PEER) in alice.overs)


async def test_two_that_died_are_both_paid_again_and_once(ledger: Serving, pair: tuple[Party, Party]) -> None:
    alice, bob = pair
    alice.owe(5)
    await until(lambda: alice.is_taken)
    alice.owe(6)
    await until(lambda: alice.is_taken and len(pending(alice)) == 2)
    await alice.kill()
    await send(ledger, EVE, payment(BOB.address, 1, tag=None, memo=b""))
    await alice.restart()
    await until(lambda: alice.is_paid and bob.balance == -11, ledger)


async def test_a_payment_that_the_ledger_has_as_failed_is_a_failure(ledger: Serving, parties: list[Party]) -> None:
    """To an address that is no account yet, with less than a reserve."""
    nobody = a_key(9)
    alice = payment_party(ledger, ALICE)
    alice.settings |= {"peer_address": nobody.address, "peer_tag": "5"}
    parties.append(await alice.start())
    alice.owe(300)
    await until(lambda: alice.events("xrp_transaction"), ledger)
    await until(lambda: [one for one in alice.open(PEER) if one.state == 3], ledger)
    (one,) = alice.open(PEER)
    assert "tecNO_DST_INSUF_XRP" in one.text
    await looked(alice, ledger)
    assert len(alice.events("xrp_transaction")) == 1


async def test_what_a_payment_took_of_what_was_carried_comes_back_if_it_fails(
    ledger: Serving, parties: list[Party]
) -> None:
    """The operator reverses what that settlement was for, and no more."""
    alice = payment_party(ledger, ALICE, scale=9)
    alice.settings |= {"peer_address": a_key(9).address, "peer_tag": "5"}
    parties.append(await alice.start())
    alice.owe(700)
    await until(lambda: alice.is_paid, ledger)
    alice.owe(1_500)
    await until(lambda: alice.kept(PEER)[b"carried"] == b"200")
    await until(lambda: [one for one in alice.open(PEER) if one.state == 3], ledger)
    assert alice.kept(PEER)[b"carried"] == b"700"


async def test_without_money_it_waits(ledger: Serving, parties: list[Party]) -> None:
    poor = a_key(5)
    ledger.service.fund(poor.address, 5)
    ledger.service.close_ledger()
    alice, bob = payment_party(ledger, poor), payment_party(ledger, BOB)
    join(alice, bob)
    parties += [await alice.start(), await bob.start()]
    alice.owe(6 * XRP)
    await until(lambda: alice.events("pay_failed"), ledger)
    assert "are needed" in str(alice.events("pay_failed")[-1]["reason"])
    await send(ledger, EVE, payment(poor.address, 20 * XRP, tag=None, memo=b""))
    await until(lambda: alice.is_paid and bob.balance == -6 * XRP, ledger)


# --- what counts ---


async def test_a_tag_or_a_memo_says_whose_payment_it_is(ledger: Serving, pair: tuple[Party, Party]) -> None:
    _, bob = pair
    tag = await tag_of(bob)
    await send(ledger, EVE, payment(BOB.address, 5, tag=tag, memo=b""))
    await send(ledger, EVE, payment(BOB.address, 7, tag=None, memo=str(tag).encode()))
    await until(lambda: bob.balance == -12, ledger)
    for other, memo in ((None, b""), (tag ^ 1, str(tag).encode()), (None, b"0x5"), (None, b"")):
        await send(ledger, EVE, payment(BOB.address, 1_000, tag=other, memo=memo))
    await looked(bob, ledger, turns=4)
    assert bob.balance == -12
    assert len(bob.events("xrp_unmatched")) == 4


async def test_what_came_before_anybody_asked_counts_for_nobody(ledger: Serving, parties: list[Party]) -> None:
    await send(ledger, EVE, payment(BOB.address, 1_000, tag=7, memo=b""))
    bob = payment_party(ledger, BOB)
    parties.append(await bob.start())
    await tag_of(bob)
    await looked(bob, ledger, turns=4)
    assert bob.balance == 0


async def test_a_fixed_address_is_the_only_one_that_pays(ledger: Serving, pair: tuple[Party, Party]) -> None:
    alice, bob = pair
    bob.settings["peer_address"] = ALICE.address
    tag = await tag_of(bob)
    await send(ledger, EVE, payment(BOB.address, 5, tag=tag, memo=b""))
    await until(lambda: bob.events("xrp_stranger_paid"), ledger)
    await paid(ledger, alice, bob, 9)
    alice.settings["peer_address"] = EVE.address
    alice.owe(5)
    await until(lambda: alice.events("pay_failed"))
    assert "not the address agreed on" in str(alice.events("pay_failed")[-1]["reason"])


def changed(tag: int, **changes: Any) -> Any:
    """The payment with this tag, as a server tells it otherwise."""

    def lie(result: dict[str, Any]) -> dict[str, Any]:
        found = []
        for one in result["transactions"]:
            if one["tx"].get("DestinationTag") == tag:
                meta = {name: value for name, value in one["meta"].items() if name != "delivered_amount"}
                one = {**one, "tx": {**one["tx"], **changes.get("tx", {})}, "meta": {**meta, **changes.get("meta", {})}}
            found.append(one)
        return {**result, "transactions": found}

    return lie


@pytest.mark.parametrize(
    ("changes", "credited"),
    [
        # A partial payment: of its Amount only a part was delivered.
        ({"tx": {"Amount": "1000000", "Flags": 0x20000}, "meta": {"delivered_amount": "3"}}, 3),
        ({"tx": {"Amount": "1000000", "Flags": 0x20000}, "meta": {"DeliveredAmount": "3"}}, 3),
        ({"tx": {"Amount": "1000000", "Flags": 0x20000}, "meta": {}}, 0),
        ({"tx": {"Amount": "1000000"}, "meta": {"delivered_amount": "unavailable"}}, 0),
        ({"meta": {}}, 1_000),  # it isn't partial, so its Amount is what arrived
        ({"meta": {"delivered_amount": {"currency": "USD", "issuer": EVE.address, "value": "1000"}}}, 0),
        ({"tx": {"Amount": {"currency": "USD", "issuer": EVE.address, "value": "1000"}}, "meta": {}}, 0),
        ({"meta": {"TransactionResult": "tecPATH_DRY", "delivered_amount": "1000"}}, 0),
        ({"tx": {"Destination": EVE.address}, "meta": {"delivered_amount": "1000"}}, 0),
        ({"tx": {"TransactionType": "CheckCash"}, "meta": {"delivered_amount": "1000"}}, 0),
    ],
)
async def test_only_what_was_delivered_in_xrp_is_credited(
    ledger: Serving, parties: list[Party], liar: Liar, changes: dict[str, Any], credited: int
) -> None:
    bob = payment_party(ledger, BOB, urls=(liar.json_rpc,))
    parties.append(await bob.start())
    tag = await tag_of(bob)
    liar.lies["account_tx"] = changed(tag, **changes)
    await send(ledger, EVE, payment(BOB.address, 1_000, tag=tag, memo=b""))
    await looked(bob, ledger, turns=5)
    await until(lambda: bob.balance == -credited, ledger)
    await looked(bob, ledger)
    assert bob.balance == -credited


async def test_a_server_that_invents_a_payment_is_not_believed_if_another_is_asked_too(
    ledger: Serving, parties: list[Party], liar: Liar
) -> None:
    bob = payment_party(ledger, BOB, urls=(liar.json_rpc, ledger.json_rpc))
    parties.append(await bob.start())
    tag = await tag_of(bob)
    liar.lies["account_tx"] = changed(tag, meta={"delivered_amount": "1000000"})
    await send(ledger, EVE, payment(BOB.address, 1_000, tag=tag, memo=b""))
    await until(lambda: bob.events("xrp_nodes_disagree"), ledger)
    assert bob.balance == 0
    liar.lies.clear()
    await until(lambda: bob.balance == -1_000, ledger)


async def test_a_server_without_the_ledgers_in_between_is_not_skipped(
    ledger: Serving, parties: list[Party], liar: Liar
) -> None:
    bob = payment_party(ledger, BOB, urls=(liar.json_rpc,))
    parties.append(await bob.start())
    tag = await tag_of(bob)
    liar.lies["account_tx"] = lambda result: {**result, "ledger_index_min": 10**6, "transactions": []}
    await send(ledger, EVE, payment(BOB.address, 1_000, tag=tag, memo=b""))
    await until(lambda: bob.events("xrp_ledger_away"), ledger)
    liar.lies.clear()
    await until(lambda: bob.balance == -1_000, ledger)


async def test_what_came_while_nobody_looked_is_found_behind_many_ledgers(
    ledger: Serving, pair: tuple[Party, Party]
) -> None:
    """More than are read at once, and payments before, in and after them."""
    _, bob = pair
    tag = await tag_of(bob)
    await bob.kill()
    for amount in (5, 7, 11):
        await send(ledger, EVE, payment(BOB.address, amount, tag=tag, memo=b""))
        for _ in range(LEDGERS_AT_ONCE // 2 + 10):
            ledger.service.close_ledger()
    await bob.restart()
    await until(lambda: bob.balance == -23)
    await looked(bob, ledger, turns=3)
    assert bob.balance == -23


# --- messages ---


async def test_an_account_that_comes_back_has_another_tag_and_nothing_is_credited_twice(
    ledger: Serving, pair: tuple[Party, Party]
) -> None:
    alice, bob = pair
    alice.owe(5)
    await until(lambda: alice.engine.unfinished(PEER))
    assert alice.engine.unfinished(PEER) == ["1 transactions are under way (pay): wait"]
    await until(lambda: alice.is_paid and bob.balance == -5, ledger)
    assert [*alice.engine.unfinished(PEER), *bob.engine.unfinished(PEER)] == []
    before = bob.kept(PEER)[b"tag"]
    await bob.step(PEER, Step(kept=[(key, b"") for key in bob.kept(PEER)]))
    await bob.engine.accounts_changed([])
    await bob.engine.accounts_changed(bob.accounts)
    alice.owe(6)
    await until(lambda: alice.is_paid and bob.balance == -11, ledger)
    assert bob.kept(PEER)[b"tag"] != before


@pytest.mark.parametrize("data", [b"", b"[]", b'{"type":"hello"}', b"{" * 2_000, b'{"btp":"claim"}'])
async def test_nonsense_is_refused(pair: tuple[Party, Party], data: bytes) -> None:
    with pytest.raises(MessageRefusedError, match="F00"):
        await pair[1].engine.take_message(PEER, data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b'{"xrpAddress":"rX","destinationTag":1}',
        b'{"xrpAddress":"%s","destinationTag":4294967296}' % BOB.address.encode(),
        b'{"xrpAddress":"%s","destinationTag":true}' % BOB.address.encode(),
        b'{"xrpAddress":"%s"}' % BOB.address.encode(),
    ],
)
def test_details_that_are_none_are_refused(data: bytes) -> None:
    with pytest.raises(CodecError):
        Details.decode(data)


def test_details_are_those_of_settlement_xrp() -> None:
    data = Details(BOB.address, 7).encode()
    assert data == b'{"xrpAddress":"%s","destinationTag":7}' % BOB.address.encode()
    assert Details.decode(data) == Details(BOB.address, 7)


async def test_a_server_of_another_network_keeps_the_engine_from_starting(
    ledger: Serving, parties: list[Party]
) -> None:
    alice = payment_party(ledger, ALICE, network_id=1)
    parties.append(alice)
    with pytest.raises(LedgerError, match="of the network 1000, not 1"):
        await alice.start()
