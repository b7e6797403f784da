"""The campaign in small, on the ledger that needs nothing: its verdict, and that it can be another."""

from pathlib import Path

import pytest

from tests.settlement.campaign.ledgers import Toy, opened
from tests.settlement.campaign.run import Campaign


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
