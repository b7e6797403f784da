"""`isthmus sim`: whole networks on virtual time, from a seed: run one, sweep over many, shrink one that fails."""

import json
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from functools import partial
from pathlib import Path
from typing import Final

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from isthmus.cli import sim_view as view
from isthmus.cli.sim_topology import topology
from isthmus.errors import ConfigError
from isthmus.sim.kinds import PLAIN, ROUTES, SETTLE, plan_of
from isthmus.sim.plan import Plan
from isthmus.sim.shrink import shrink as make_smaller
from isthmus.sim.summary import Json, Tally, run_seed, summary_of
from isthmus.sim.world import World

FAILED: Final = 1
# Seeds handed to each worker ahead of need.
AHEAD: Final = 3


@click.group(
    epilog="""\b
Examples:
  isthmus sim run --seed 7
  isthmus sim sweep --seeds 200 --jobs 2
  isthmus sim shrink 7
  isthmus sim topology --graph scale-free --nodes 1000"""
)
def sim() -> None:
    """Simulate networks with faults and adversaries, and audit their books.

    Everything follows from a seed: the same seed and the same code make the same run, byte for byte.
    """


_SEED: Final = click.IntRange(0, 2**63 - 1)


def _kinds(command: Callable[..., int]) -> Callable[..., int]:
    """Options that say which kind of network is meant; each kind has seeds of its own."""
    routes = click.option("--routes", "kind", flag_value=ROUTES, help="Networks that find their routes by themselves.")
    settle = click.option("--settle", "kind", flag_value=SETTLE, help="Networks that settle on simulated ledgers.")
    return routes(settle(command))


@sim.command(
    epilog="""\b
Examples:
  isthmus sim run --seed 7
  isthmus sim run --seed 7 --trace | less
  isthmus sim run --seed 7 --without-faults 2,5"""
)
@click.option("--seed", type=_SEED, required=True, help="Which run.")
@_kinds
@click.option("--trace", is_flag=True, help="Print every event and effect of every node.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.option("--without-faults", metavar="N,N", default="", help="Leave these faults out.")
@click.option("--without-payments", metavar="N,N", default="", help="Leave these payments out.")
def run(seed: int, kind: str | None, trace: bool, as_json: bool, without_faults: str, without_payments: str) -> int:
    """Run one seed: what happened when, and what the auditor says. Exit status 1 if it found something."""
    plan = _plan(plan_of(kind or PLAIN, seed), without_faults, without_payments)
    result = World(plan, trace_to=click.echo if trace else None).run()
    if as_json:
        click.echo(json.dumps(summary_of(result), indent=2))
    elif trace:
        for line in view.verdict(result):
            click.echo(line)
    else:
        for line in view.run(result):
            click.echo(line)
    return FAILED if result.findings else 0


@sim.command(
    epilog="""\b
Examples:
  isthmus sim sweep --seeds 200
  isthmus sim sweep --seeds 10000 --jobs 2 --log sweep.jsonl
  isthmus sim sweep --seeds 40 --stop-at-first --json"""
)
@click.option("--seeds", type=click.IntRange(1), default=200, show_default=True, help="How many.")
@click.option("--first", type=_SEED, default=1, show_default=True, help="The first seed.")
@click.option("--jobs", type=click.IntRange(1, 256), default=1, show_default=True, help="Processes at a time.")
@click.option(
    "--log",
    "log_path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Append each seed's result to \
this file; seeds that are in it already are not run again.",
)
@_kinds
@click.option("--stop-at-first", is_flag=True, help="Stop at the first seed that fails.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def sweep(
    seeds: int, first: int, jobs: int, log_path: Path | None, kind: str | None, stop_at_first: bool, as_json: bool
) -> int:
    """Run many seeds. Exit status 1 if a seed has a finding or is too small, or a kind of fault was never met."""
    kind = kind or PLAIN
    tally = Tally(kind=kind)
    wanted = list(range(first, first + seeds))
    for known in _known(log_path, wanted):
        tally.add(known)
        wanted.remove(known["seed"])
    console = Console(stderr=True)
    with _progress(console, quiet=as_json) as progress:
        task = progress.add_task("seeds", total=seeds, completed=tally.seeds)
        for one in _results(wanted, jobs, kind):
            tally.add(one)
            _append(log_path, one)
            progress.advance(task)
            if one["findings"] and not as_json:
                progress.console.print(view.failure(one), highlight=False, soft_wrap=True, markup=False)
            if stop_at_first and tally.failures:
                break
    if as_json:
        click.echo(json.dumps(tally.to_json(), indent=2))
    else:
        for line in view.sweep(tally):
            click.echo(line)
    return 0 if tally.is_good else FAILED


@sim.command(
    epilog="""\b
Examples:
  isthmus sim shrink 7
  isthmus sim shrink 7 --json"""
)
@click.argument("seed", type=_SEED)
@_kinds
@click.option("--json", "as_json", is_flag=True, help="One JSON object: the smallest run; null if nothing is found.")
def shrink(seed: int, kind: str | None, as_json: bool) -> int:
    """Leave out faults and payments of a failing seed, as long as the finding stays."""
    result = make_smaller(plan_of(kind or PLAIN, seed), tell=lambda text: click.echo(text, err=True))
    if as_json:
        click.echo(json.dumps(None if result is None else summary_of(result), indent=2))
        return 0 if result is None else FAILED
    if result is None:
        click.echo(f"seed {seed}: nothing is found")
        return 0
    for line in view.plan(result.plan):
        click.echo(line)
    for line in view.verdict(result):
        click.echo(line)
    return FAILED


sim.add_command(topology)


def _plan(plan: Plan, without_faults: str, without_payments: str) -> Plan:
    faults = _numbers("--without-faults", without_faults, (fault.number for fault in plan.faults))
    payments = _numbers("--without-payments", without_payments, (payment.number for payment in plan.payments))
    return plan.without(faults=faults, payments=payments) if faults or payments else plan


def _numbers(option: str, text: str, known: Iterable[int]) -> tuple[int, ...]:
    try:
        numbers = tuple(int(part) for part in text.split(",") if part)
    except ValueError:
        raise ConfigError(option, f"{text!r} is no list of numbers", "Write 2,5,7") from None
    there = set(known)
    for number in numbers:
        if number not in there:
            raise ConfigError(option, f"this seed has no number {number}", "Look at `isthmus sim run --seed …`")
    return numbers


# --- many seeds ------------------------------------------------------------------------------------------------------


def _results(seeds: list[int], jobs: int, kind: str) -> Iterator[Json]:
    """Each seed's summary, as it comes."""
    if jobs == 1:
        yield from map(partial(run_seed, kind=kind), seeds)
        return
    pool = ProcessPoolExecutor(jobs)
    try:
        waiting: set[Future[Json]] = set()
        for seed in seeds:
            waiting.add(pool.submit(run_seed, seed, kind=kind))
            if len(waiting) >= jobs * AHEAD:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                yield from _in_order(done)
        while waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            yield from _in_order(done)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _in_order(done: Iterable[Future[Json]]) -> list[Json]:
    key: Callable[[Json], int] = lambda one: int(one["seed"])  # noqa: E731
    return sorted((future.result() for future in done), key=key)


def _known(path: Path | None, wanted: list[int]) -> list[Json]:
    """Results of an earlier sweep that was stopped. A last line that isn't whole is run again."""
    if path is None or not path.exists():
        return []
    found: dict[int, Json] = {}
    there = set(wanted)
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            one = json.loads(line)
        except ValueError:
            continue
        if one["seed"] in there:
            found[one["seed"]] = one
    return [found[seed] for seed in sorted(found)]


def _append(path: Path | None, one: Json) -> None:
    if path is not None:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(one, separators=(",", ":")) + "\n")


def _progress(console: Console, *, quiet: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=quiet or not console.is_terminal,
    )
