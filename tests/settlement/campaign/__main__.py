"""`python -m tests.settlement.campaign`, which `make settle-crash` calls: a bar, and a verdict."""

import argparse
import asyncio
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tests.settlement.campaign.ledgers import KINDS, opened
from tests.settlement.campaign.run import Campaign, Standing

TOLD_EACH = 100  # settlements, where no bar can be shown


async def campaign(kind: str, folder: Path, given: argparse.Namespace, bar: Progress) -> Standing:
    told = 0
    task = bar.add_task(kind, total=given.settlements)

    def tell(standing: Standing) -> None:
        nonlocal told
        bar.update(task, completed=standing.settlements, description=f"{kind}, {standing.kills} kills")
        if bar.disable and standing.settlements >= told + TOLD_EACH:
            told = standing.settlements
            bar.console.print(f"{kind}: {standing.settlements} settlements, {standing.kills} kills")

    async with opened(kind, folder / "ledger") as ledger:
        run = Campaign(
            ledger, folder / "nodes", settlements=given.settlements, kills=given.kills, seed=given.seed, tell=tell
        )
        return await run.run()


def main() -> int:
    parser = argparse.ArgumentParser(prog="make settle-crash", description=__doc__)
    parser.add_argument("settlements", type=int, help="of each kind, at least")
    parser.add_argument("--kills", type=int, help="a fifth of the settlements without")
    parser.add_argument("--kind", choices=KINDS, action="append", help="all of them without")
    parser.add_argument("--seed", type=int, help="of payments and victims; a fresh one without")
    given = parser.parse_args()
    if given.kills is None:
        given.kills = given.settlements // 5
    if given.seed is None:
        given.seed = random.SystemRandom().randrange(2**32)
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    commit = subprocess.run(
        ("git", "rev-parse", "--short", "HEAD"), capture_output=True, text=True, check=False
    ).stdout.strip()
    place = Path(tempfile.mkdtemp(prefix="isthmus-settle-"))
    console.print(f"commit {commit}, seed {given.seed}, journals in {place}")
    columns = (TextColumn("{task.description}"), BarColumn(30), MofNCompleteColumn(), TimeElapsedColumn())
    failed = False
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        for kind in given.kind or KINDS:
            start = time.monotonic()
            folder = place / kind
            (folder / "ledger").mkdir(parents=True)
            found = asyncio.run(campaign(kind, folder, given, bar))
            console.print(
                f"{kind}: {found.settlements} settlements, {found.kills} kills ({found.ledger_kills} of the ledger's"
                f" node), {found.packets} packets; {len(found.problems)} problems; {time.monotonic() - start:.0f} s"
            )
            for side, amounts in found.left_in_flight.items():
                console.print(
                    f"  left in flight by {side}'s lnd itself, with no HTLC in a channel: {amounts}", markup=False
                )
            for problem in found.problems:
                console.print(f"  {problem}", style="red", markup=False)
            failed = failed or bool(found.problems)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
