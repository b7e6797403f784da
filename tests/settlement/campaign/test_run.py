"""The campaign in small, on the ledger that needs nothing: its verdict, and that it can be another."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.settlement.campaign import run as campaign
from tests.settlement.campaign.ledgers import Toy, opened
from tests.settlement.campaign.run import Campaign
from tests.settlement.toy import ToyLedger


@pytest.mark.slow
async def test_a_small_campaign_finds_nothing(tmp_path: Path) -> None:
    async with opened("toy", tmp_path) as ledger:
        run = Campaign(ledger, tmp_path / "nodes", settlements=20, kills=4, seed=1, tell=lambda _: None)
        standing = await run.run()
    assert standing.problems == []
    assert standing.settlements >= 20 and standing.kills == 4 and standing.packets > 20


@pytest.mark.slow
@pytest.mark.parametrize("how", ["doubled", "lost"])
async def test_a_ledger_that_tells_otherwise_is_found(tmp_path: Path, how: str) -> None:
    async with opened("toy", tmp_path) as ledger:
        assert isinstance(ledger, Toy)
        run = Campaign(ledger, tmp_path / "nodes", settlements=4, kills=0, seed=2, tell=lambda _: None)
        true = ledger.paid

        async def lying(side: str) -> list[int]:
            found = await true(side)
            return [*found, found[0]] if how == "doubled" else found[1:]

        ledger.paid = lying  # type: ignore[method-assign]
        standing = await run.run()
    assert len(standing.problems) >= 1 and "on the ledger" in standing.problems[0]


class Forgetful(ToyLedger):
    """Never ends the first transfer that it is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.forgotten: dict[str, Any] = {}

    async def _transfer(self, request: web.Request) -> web.StreamResponse:
        wanted = await request.json()
        self.forgotten = self.forgotten or wanted
        if wanted["id"] == self.forgotten["id"]:
            raise web.HTTPServiceUnavailable
        return await super()._transfer(request)


@pytest.mark.slow
@pytest.mark.parametrize("says_so", [True, False])
async def test_what_the_ledgers_server_lost_itself_is_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says_so: bool
) -> None:
    monkeypatch.setattr(campaign, "LEFT_AFTER_S", 0.0)
    monkeypatch.setattr(campaign, "QUIET_S_MAX", 20.0 if says_so else 2.0)
    forgetful = Forgetful()
    await forgetful.start()
    ledger = Toy(forgetful)

    async def left(side: str) -> list[int]:
        one = forgetful.forgotten
        return [int(one["amount"])] if says_so and one and one["source"] == side else []

    ledger.left_in_flight = left  # type: ignore[method-assign]
    try:
        run = Campaign(ledger, tmp_path / "nodes", settlements=6, kills=0, seed=3, tell=lambda _: None)
        standing = await run.run()
    finally:
        await forgetful.close()
    assert bool(standing.problems) is not says_so
    assert bool(standing.left_in_flight) is says_so


@pytest.mark.slow
async def test_a_node_that_is_not_up_in_time_ends_with_the_campaign(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(campaign, "START_S_MAX", 0.0)
    begun = asyncio.all_tasks()
    async with opened("toy", tmp_path) as ledger:
        run = Campaign(ledger, tmp_path / "nodes", settlements=1, kills=0, seed=4, tell=lambda _: None)
        with pytest.raises(TimeoutError):
            await run.run()
    # Whoever reads a node's log ends when the node has.
    assert asyncio.all_tasks() == begun
    assert (tmp_path / "nodes" / "east" / "node.toml").exists()
