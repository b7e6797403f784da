"""`python -m tests.settlement.campaign`, which `make settle-crash` calls: episodes, a bar, and a verdict."""

import argparse
import asyncio
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import aiohttp
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from isthmus.errors import LedgerError
from tests.campaigns import commit, stop_by_terminate
from tests.settlement.campaign.ledgers import KINDS, missing, opened
from tests.settlement.campaign.record import Episode, Record
from tests.settlement.campaign.run import Campaign, Standing

EPISODE: Final = 200  # settlements: what an interruption loses at most
# How an episode breaks off when a node doesn't come up again, or the ledger's doesn't answer: a finding.
BREAKS: Final = (AssertionError, OSError, LedgerError, aiohttp.ClientError)


def main() -> int:
    given = _given()
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    lacking = [(kind, why) for kind in given.kind or KINDS if (why := missing(kind))]
    if lacking and given.again is None:
        for kind, why in lacking:
            console.print(f"{kind}: {why}; or choose others with --kind", markup=False, soft_wrap=True)
        return 2
    try:
        record = _record(given)
    except (OSError, ValueError, KeyError, TypeError) as error:
        console.print(f"{given.resume} has no campaign to go on with: {error!r}", markup=False, soft_wrap=True)
        return 2
    stop_by_terminate()
    console.print(f"commit {commit()}, seed {record.seed}, journals in {record.folder}", soft_wrap=True)
    columns = (TextColumn("{task.description}"), BarColumn(30), MofNCompleteColumn(), TimeElapsedColumn())
    try:
        with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
            if given.again is not None:
                return _again(record, given.again, bar)
            for kind in given.kind or KINDS:
                _kind(record, kind, given, bar)
    except KeyboardInterrupt:
        options = _repeated(given)
        console.print(f"interrupted; make settle-crash N={given.settlements} RESUME={record.folder}{options} goes on",
                      soft_wrap=True)  # fmt: skip
        return 130
    return _verdict(console, record)


def _given() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make settle-crash", description=__doc__)
    parser.add_argument("settlements", type=int, help="of each kind, at least")
    parser.add_argument("--kills", type=int, help="of each kind; a fifth of the settlements without")
    parser.add_argument("--kind", choices=KINDS, action="append", help="all of them without")
    parser.add_argument("--seed", type=int, help="of payments and victims; a fresh one without")
    parser.add_argument("--episode", type=int, default=EPISODE, help="settlements until an audit and a fresh ledger")
    parser.add_argument("--resume", type=Path, metavar="DIR", help="go on with a campaign that was interrupted")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="where ledgers, journals and the record go")
    parser.add_argument("--again", metavar="KIND/NUMBER", help="with --resume: one episode once more, with its seed")
    given = parser.parse_args()
    if given.kills is None:
        given.kills = given.settlements // 5
    if given.episode < 1:
        parser.error("an episode has one settlement at least")
    if given.again is not None and given.resume is None:
        parser.error("--again names an episode of the campaign in --resume")
    return given


def _record(given: argparse.Namespace) -> Record:
    """Of the campaign that goes on, or of a new one."""
    if given.resume is not None:
        record = Record.read(given.resume.resolve())
        if given.again is not None and record.named(given.again) is None:
            raise ValueError(f"no episode {given.again} has ended")
        return record
    seed = random.SystemRandom().randrange(2**32) if given.seed is None else given.seed
    folder = Path(tempfile.mkdtemp(prefix="isthmus-settle-")) if given.folder is None else given.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    record = Record(folder, seed)
    record.write()  # in its first episode it can be interrupted too
    return record


def _repeated(given: argparse.Namespace) -> str:
    """What was given besides, for the command that goes on."""
    options = [f"--kind {kind}" for kind in given.kind or ()]
    if given.kills != given.settlements // 5:
        options.append(f"--kills {given.kills}")
    if given.episode != EPISODE:
        options.append(f"--episode {given.episode}")
    return f' ARGS="{" ".join(options)}"' if options else ""


def _kind(record: Record, kind: str, given: argparse.Namespace, bar: Progress) -> None:
    """Episode after episode, until all settlements and kills are done, or one couldn't be brought to its end."""
    task = bar.add_task(kind, total=given.settlements)
    while True:
        done = record.sum(kind)
        episode = record.following(kind, settlements=given.settlements, kills=given.kills, size=given.episode)
        bar.update(task, completed=done.settlements)
        if episode is None:
            return

        def tell(now: Standing, done: Standing = done) -> None:
            kills = f"{kind}, {done.kills + now.kills} kills"
            bar.update(task, completed=done.settlements + now.settlements, description=kills)

        folder = record.folder / kind / str(episode.number)
        shutil.rmtree(folder, ignore_errors=True)  # it was interrupted, and is begun again
        whole = _run(episode, folder, tell)
        record.episodes.append(episode)
        record.write()
        _show(bar.console, episode)
        if not episode.standing.problems:
            shutil.rmtree(folder)
        if not whole:
            return


def _run(episode: Episode, folder: Path, tell: Callable[[Standing], None]) -> bool:
    """One episode, into its standing; whether it came to its end."""
    start = time.monotonic()
    episode.commit = commit()
    (folder / "ledger").mkdir(parents=True)

    async def play() -> None:
        async with opened(episode.kind, folder / "ledger") as ledger:
            run = Campaign(
                ledger,
                folder / "nodes",
                settlements=episode.settlements,
                kills=episode.kills,
                seed=episode.seed,
                tell=tell,
            )
            episode.standing = run.standing
            await run.run()

    try:
        asyncio.run(play())
    except BREAKS as error:
        episode.standing.problems.append(f"broke off: {error!r}")
        return False
    finally:
        episode.seconds = round(time.monotonic() - start, 1)
    return True


def _again(record: Record, name: str, bar: Progress) -> int:
    """An episode of before with the same seed, in a folder of its own; the record stays as it is."""
    before = record.named(name)
    assert before is not None, name
    episode = Episode(
        kind=before.kind,
        number=before.number,
        seed=before.seed,
        settlements=before.settlements,
        kills=before.kills,
    )
    folder = Path(tempfile.mkdtemp(prefix=f"again-{before.kind}-{before.number}-", dir=record.folder))
    _run(episode, folder, lambda _: None)
    _show(bar.console, episode)
    bar.console.print(f"journals in {folder}", soft_wrap=True)
    return int(bool(episode.standing.problems))


def _figures(standing: Standing) -> str:
    return (
        f"{standing.settlements} settlements, {standing.kills} kills ({standing.ledger_kills} of the ledger's node),"
        f" {standing.packets} packets; {len(standing.problems)} problems"
    )


def _show(console: Console, episode: Episode) -> None:
    console.print(f"{episode.name}: {_figures(episode.standing)}; {episode.seconds:.0f} s")
    for problem in episode.standing.problems:
        console.print(f"  {problem}", style="red", markup=False, soft_wrap=True)


def _verdict(console: Console, record: Record) -> int:
    """The sum over all sittings, by kind; 1 if there was a problem in any."""
    failed = False
    console.print("all sittings:")
    for kind in record.kinds():
        episodes, total = record.of(kind), record.sum(kind)
        commits = ", ".join(dict.fromkeys(one.commit for one in episodes))
        seconds = sum(one.seconds for one in episodes)
        console.print(
            f"{kind}: {_figures(total)}; {len(episodes)} episodes at {commits}; {seconds:.0f} s", soft_wrap=True
        )
        for side, amounts in total.left_in_flight.items():
            console.print(
                f"  left in flight by {side}'s lnd itself, with no HTLC in a channel: {amounts}", markup=False
            )
        for problem in total.problems:
            failed = True
            console.print(f"  {problem}", style="red", markup=False, soft_wrap=True)
        for name in [one.name for one in episodes if one.standing.problems]:
            console.print(
                f"  once more: make settle-crash RESUME={record.folder} ARGS='--again {name}'", soft_wrap=True
            )
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
