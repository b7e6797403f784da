"""`python -m tests.crash`, which `make crash` calls: kills, a bar, and a verdict."""

import argparse
import asyncio
import os
import pickle
import random
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from tests.campaigns import stop_by_terminate
from tests.crash.campaign import MANNERS, OPEN_WANTED, SHARE_WANTED, Campaign, Standing

FINDINGS_SHOWN: Final = 8  # of each kind; the folder has the rows of all


def main() -> int:
    parser = argparse.ArgumentParser(prog="make crash", description="Kill a network under load, and audit its books.")
    parser.add_argument("kills", type=int, help="how many, at least")
    parser.add_argument("--seed", type=int, help="of everything that is drawn; a fresh one without")
    parser.add_argument("--resume", type=Path, metavar="DIR", help="go on with a campaign that was interrupted")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="where journals and logs go (a short path)")
    given = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    stop_by_terminate()
    columns = (TextColumn("kills"), BarColumn(30), MofNCompleteColumn(), TextColumn("{task.description}"))
    with Progress(*columns, TimeElapsedColumn(), console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=given.kills)
        said = 0.0

        def tell(campaign: Campaign) -> None:
            nonlocal said
            standing = campaign.standing
            bar.update(task, completed=standing.kills, description=campaign.phase)
            if not console.is_terminal and campaign.phase == "" and standing.rounds != said:
                said = standing.rounds
                console.print(_line(standing))

        if given.resume is not None:
            folder = given.resume.resolve()
            try:
                campaign = Campaign.resume(folder, given.kills, tell)
            except (OSError, pickle.UnpicklingError) as error:
                console.print(f"{folder} has no campaign to go on with: {error}", markup=False, soft_wrap=True)
                return 2
        else:
            seed = random.SystemRandom().randrange(2**32) if given.seed is None else given.seed
            folder = Path(tempfile.mkdtemp(prefix="isthmus-crash-")) if given.folder is None else given.folder
            folder.mkdir(parents=True, exist_ok=True)
            campaign = Campaign.begin(folder, given.kills, seed, tell)
        console.print(f"commit {campaign.commit}, seed {campaign.standing.seed}, journals and logs in {folder}")
        try:
            asyncio.run(campaign.run())
        except KeyboardInterrupt:
            console.print(f"interrupted; make crash N={given.kills} RESUME={folder} goes on")
            return 130
    return _verdict(console, campaign.standing, given.kills)


def _findings(console: Console, standing: Standing) -> None:
    """How many of each kind, and the first ones in words."""
    kinds = Counter(finding.kind for finding in standing.findings)
    for kind, count in kinds.items():
        amount = sum(finding.amount for finding in standing.findings if finding.kind == kind)
        console.print(f"{count} findings of kind {kind}, {amount} units", style="red")
        for finding in [one for one in standing.findings if one.kind == kind][:FINDINGS_SHOWN]:
            console.print(f"  {finding.node}: {finding.text}", markup=False, soft_wrap=True)


def _line(standing: Standing) -> str:
    return (
        f"{standing.kills} kills in {standing.rounds} rounds, {standing.loaded} met {OPEN_WANTED} open packets or more;"
        f" {standing.packets} packets over links, {len(standing.findings)} findings, {len(standing.losses)} losses;"
        f" {standing.seconds:.0f} s, {standing.kills / max(1, standing.seconds):.1f} kills a second"
    )


def _verdict(console: Console, standing: Standing, wanted: int) -> int:
    table = Table("died at", "kills", f"with {OPEN_WANTED} open packets or more", box=None)
    for point in MANNERS:
        table.add_row(point, str(standing.by_point[point]), str(standing.loaded_by_point[point]))
    console.print(table)
    console.print(", ".join(f"{name} {count}" for name, count in sorted(standing.by_node.items())))
    console.print(_line(standing))
    console.print(
        f"{standing.verified} journals of dead processes verified, {standing.digests} running nodes had the digest that"
        f" replay gives; {standing.payments} payments, {standing.fulfilled} packets fulfilled on both sides"
    )
    _findings(console, standing)
    lost: Counter[str] = Counter()
    for loss in standing.losses:
        lost[f"{loss.node} to {loss.peer} in {loss.asset}"] += loss.amount
    for what, amount in lost.items():
        console.print(f"permitted: {amount} lost by {what}")
    share = 100 * standing.loaded // max(1, standing.kills)
    missing = [point for point in MANNERS if not standing.by_point[point]] if standing.kills >= wanted >= 300 else []
    if share < SHARE_WANTED:
        console.print(f"only {share} % of the kills met {OPEN_WANTED} open packets or more", style="red")
    if missing:
        console.print(f"nobody died at {', '.join(missing)}", style="red")
    if not standing.digests:
        console.print("no running node gave a digest of its books that could be compared", style="red")
    return int(bool(standing.findings or missing) or share < SHARE_WANTED or not standing.digests)


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    sys.exit(main())
