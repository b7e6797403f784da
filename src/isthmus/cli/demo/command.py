"""`isthmus demo`: the command, what a terminal shows of it, and how it ends."""

import asyncio
import contextlib
import json
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click
from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn
from rich.progress import Progress as Bar

from isthmus.cli.demo import report
from isthmus.cli.demo.mesh import MESH
from isthmus.cli.demo.mesh_run import MeshDemo
from isthmus.cli.demo.network import ALICE, BOB, DEMO, Network
from isthmus.cli.demo.processes import DemoError
from isthmus.cli.demo.run import Demo, Result
from isthmus.client.payment import Progress
from isthmus.errors import ConfigError, IsthmusError
from isthmus.ilp.asset import format_amount, parse_amount

AMOUNT: Final = "0.015"
AMOUNT_MIN: Final = "0.00000001"
MESH_AMOUNT_MIN: Final = "0.01"  # some thousand packets: with fewer the payment is over before a node is killed in it
PIPED_WIDTH: Final = 120  # where no terminal says how wide it is
BAR_WIDTH: Final = 22  # with the text beside it, a line of 80
NAME_PREFIX: Final = "isthmus-demo-"

EXAMPLES: Final = """\b
Examples:
  isthmus demo
  isthmus demo --keep                    # then try the commands that it prints
  isthmus demo --folder ~/demo           # keeps wallets, journals and logs
  isthmus demo --json | jq .delivered
  isthmus demo --mesh                    # a ring of five; one is killed while a payment passes
"""


@click.command(epilog=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--keep", is_flag=True, help="Leave the network up until Ctrl-C, and say what to try with it.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object instead; amounts are strings in base units."
)
@click.option(
    "--folder",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Put wallets, journals and logs here (a new or empty folder).  [default: a temporary one]",
)
@click.option("--amount", default=AMOUNT, show_default=True, metavar="BTC", help="How much Alice pays.")
@click.option("--mesh", is_flag=True, help="A ring of five connectors; one is killed in the middle of the payment.")
def demo(keep: bool, as_json: bool, folder: Path | None, amount: str, mesh: bool) -> None:
    """Send a payment from BTC to ETH over three connectors on this machine.

    Alice's wallet, three connectors with rates and books of their own, and Bob's wallet, each with its own process or
    folder. What left, what arrived and what each connector earned is shown, and that all their books agree.

    With --mesh, five connectors in a ring: the one that the payment passes is killed in the middle of it, the payment
    goes on by the other way, and another one passes the node after it was restarted.

    The exit status is 0 only if what was promised was delivered and the books agree.
    """
    network = MESH if mesh else DEMO
    base_units = _units(network, amount, least=MESH_AMOUNT_MIN if mesh else AMOUNT_MIN)
    with _folder(folder, keep=keep) as place:
        screen = _Screen(network, base_units, quiet=as_json)
        show = (MeshDemo if mesh else Demo)(network, place, base_units, screen)
        _perform(show, screen, keep=keep, as_json=as_json)


def _units(network: Network, amount: str, *, least: str) -> int:
    asset = network.source
    remedy = f"Write it in {asset.code}, like {AMOUNT}"
    try:
        units = parse_amount(amount, asset)
    except ValueError as error:
        raise ConfigError("--amount", str(error), remedy) from None
    most = network.connectors[0].credit
    if not parse_amount(least, asset) <= units <= parse_amount(most, asset):
        raise ConfigError("--amount", f"not from {least} to the {most} {asset.code} that Alice may owe", remedy)
    return units


def _perform(show: Demo, screen: "_Screen", *, keep: bool, as_json: bool) -> None:
    screen.begin(show)
    try:
        result = asyncio.run(_guarded(show, screen, keep=keep, as_json=as_json))
        if not keep:
            screen.result(show, result, as_json=as_json)
            show.check(result)
        if result.stopped_badly:
            raise DemoError("; ".join(result.stopped_badly))
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    except (IsthmusError, OSError) as error:
        raise DemoError(f"{error} (logs: {show.logs})") from error
    finally:
        screen.end()


async def _guarded(show: Demo, screen: "_Screen", *, keep: bool, as_json: bool) -> Result:
    """The demo, ended cleanly by SIGINT, SIGTERM and SIGHUP; once it is only kept up, that is its normal end."""
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None
    enough: asyncio.Future[None] = loop.create_future()
    is_kept = False

    def told() -> None:
        if not is_kept:
            task.cancel()
        elif not enough.done():
            enough.set_result(None)

    async def kept(result: Result) -> None:
        nonlocal is_kept
        screen.result(show, result, as_json=as_json)
        show.check(result)
        is_kept = True
        screen.kept(show, to_stderr=as_json)
        await enough

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, told)
    return await show.run(kept if keep else None)


@contextlib.contextmanager
def _folder(given: Path | None, *, keep: bool) -> Iterator[Path]:
    """The given folder, or a temporary one that is removed unless it is wanted or something failed."""
    if given is not None:
        if given.exists() and any(given.iterdir()):
            raise ConfigError("--folder", f"{given} is not empty", "Name a new or empty folder")
        given.mkdir(mode=0o700, parents=True, exist_ok=True)
        yield given.resolve()
        return
    place = Path(tempfile.mkdtemp(prefix=NAME_PREFIX))
    try:
        yield place
    except KeyboardInterrupt:
        shutil.rmtree(place, ignore_errors=True)
        raise
    if not keep:
        shutil.rmtree(place, ignore_errors=True)


class _Screen:
    """A terminal, a pipe, or nobody (`quiet`). Implements `run.Audience`."""

    def __init__(self, network: Network, amount: int, *, quiet: bool) -> None:
        self._network: Final = network
        self._amount: Final = amount
        self._quiet: Final = quiet
        width = None if sys.stdout.isatty() else PIPED_WIDTH
        self._console: Final = Console(width=width, highlight=False, quiet=quiet)
        self._bar: Bar | None = None

    def begin(self, show: Demo) -> None:
        self._console.print(show.picture(self._console.width))

    def end(self) -> None:
        """No bar is left moving."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def step(self, text: str) -> None:
        self.end()
        self._console.print(f"{text} …", style="dim")

    def progress(self, progress: Progress) -> None:
        if self._quiet or not self._console.is_terminal:
            return
        if self._bar is None:
            self._bar = Bar(
                BarColumn(BAR_WIDTH), TaskProgressColumn(), TextColumn("{task.description}"), console=self._console
            )
            self._bar.add_task("", total=self._amount)
            self._bar.start()
        arrived = format_amount(progress.delivered, self._network.destination)
        packets = f"{progress.packets_in_flight} in flight, {sum(progress.rejected.values())} rejected"
        self._bar.update(self._bar.task_ids[0], completed=progress.sent, description=f"Bob has {arrived}, {packets}")

    def paid(self, outcome: report.Outcome) -> None:
        if self._bar is not None:
            arrived = format_amount(outcome.delivered, self._network.destination)
            self._bar.update(self._bar.task_ids[0], completed=outcome.sent, description=f"Bob has {arrived}")
        self.end()

    def result(self, show: Demo, result: Result, *, as_json: bool) -> None:
        if as_json:
            click.echo(json.dumps(show.as_json(result)))
            return
        self._console.print()
        self._console.print(show.tables(result))
        self._console.print(report.agreement(self._network, result.books, result.problems))

    def kept(self, show: Demo, *, to_stderr: bool) -> None:
        """What to try while the network is up."""
        click.echo("\n".join(_suggestions(show)), err=to_stderr)


def _suggestions(show: Demo) -> list[str]:
    first = show.network.connectors[0].name
    alice, url = show.folder / ALICE, show.url
    price = f"--min-rate {report.rate_text(show.minimum_rate)} --yes"
    lines = [
        "",
        "The network is up. In another terminal:",
        f"  isthmus pay --wallet {alice} {url} 0.001 {price}",
        f"  isthmus quote --wallet {alice} {url} 0.001",
        f"  isthmus ping --wallet {alice} {url}",
        f"  isthmus trace --wallet {alice} {url}",
        f"  isthmus history --wallet {show.folder / BOB}",
        f'  curl -H "Authorization: Bearer $(cat {show.secret(first)})" {show.admin_url(first)}/metrics',
        f"  isthmus books show {show.data(first)}",
        f"  isthmus books verify {show.data(first)}",
        "",
        "Wallets and journals:",
    ]
    lines += [f"  {name:<12} {show.data(name)}" for name in show.network.names]
    return [*lines, f"  {'logs':<12} {show.logs}", "", "Ctrl-C stops all; the folders stay."]
