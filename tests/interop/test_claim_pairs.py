"""The pairs that `bench/claims.py` measures: all that is owed is settled, by a claim for each packet sent alone."""

from collections.abc import AsyncIterator

import pytest

from bench.claim_pairs import AMOUNT, PairMaker, XrpLedger, ours_on_xrp, theirs_on_xrp, until_settled, xrp_ledger
from bench.fire import generate

PACKETS = 20


@pytest.fixture
async def ledger() -> AsyncIterator[XrpLedger]:
    async with xrp_ledger() as running:
        yield running


async def settle_all(maker: PairMaker, *, every: int) -> tuple[int, int]:
    """Settlements and claims of some packets, sent one by one once the channel is there."""
    async with maker(every) as pair:
        one_by_one = ("--packets", str(PACKETS), "--warm-up", "0", "--window", "1")
        first = await generate(pair.target, *one_by_one)
        owed = (PACKETS - sum(first.rejects.values())) * AMOUNT
        before = await until_settled(pair, owed, every)
        measured = await generate(pair.target, *one_by_one)
        assert (measured.received, measured.rejects) == (PACKETS, {})
        after = await until_settled(pair, owed + PACKETS * AMOUNT, every)
    assert after.credited <= owed + PACKETS * AMOUNT
    assert after.credited % AMOUNT == 0
    return after.begun - before.begun, after.taken - before.taken


async def test_two_ilp_connectors_make_a_claim_for_each_packet(ledger: XrpLedger) -> None:
    assert await settle_all(theirs_on_xrp(ledger), every=1) == (PACKETS, PACKETS)


async def test_two_nodes_settle_each_packet(ledger: XrpLedger) -> None:
    """Packets that come while a settlement isn't with its engine yet share the next one."""
    begun, taken = await settle_all(ours_on_xrp(ledger), every=1)
    assert 1 <= taken <= begun <= PACKETS


async def test_two_nodes_settle_once_in_a_hundred_packets(ledger: XrpLedger) -> None:
    """Forty are below the threshold."""
    async with ours_on_xrp(ledger)(100) as pair:
        await generate(pair.target, "--packets", "40", "--warm-up", "0", "--window", "10")
        assert (await pair.claims()).begun == 0
        await generate(pair.target, "--packets", "60", "--warm-up", "0", "--window", "10")
        found = await until_settled(pair, 100 * AMOUNT, 1)
    assert (found.begun, found.taken, found.credited) == (1, 1, 100 * AMOUNT)
