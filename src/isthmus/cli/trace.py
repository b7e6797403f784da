"""`isthmus trace`: the hops on the way to an address, as traceroute shows them."""

import asyncio
from fractions import Fraction
from pathlib import Path
from typing import Final

import click
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from isthmus.cli.wallet_session import json_option, print_json, run_with_wallet, wallet_option
from isthmus.cli.wallet_view import PIPED_WIDTH, decimal, money, rate_text
from isthmus.client.control import Json
from isthmus.client.session import AnySession
from isthmus.client.trace import TRACE_S, TRACE_S_MAX
from isthmus.ilp.codes import code_name

_FAILED: Final = 1
_EXAMPLES: Final = """\b
Examples:
  isthmus trace g.connector.bob
  isthmus trace '$bob.example' --seconds 40
  isthmus trace https://bob.example/pay --no-rates --json
"""


@click.command(epilog=_EXAMPLES)
@click.argument("target", metavar="ADDRESS|POINTER|URL")
@click.option(
    "--seconds",
    type=click.FloatRange(0, TRACE_S_MAX, min_open=True),
    default=TRACE_S,
    show_default=True,
    help="Stop after so long, with what is known by then.",
)
@click.option("--no-rates", is_flag=True, help="Send no amounts: packets of nothing show the hops, not their rates.")
@wallet_option
@json_option
def trace(target: str, seconds: float, no_rates: bool, folder: Path, as_json: bool) -> int:
    """Show the hops on the way to an address or payment pointer, as far as they can be known.

    At most 256 packets that nobody can fulfil go out with different times left and amounts: no money moves. A connector
    that refuses one in its own name is a row, with its last code, the quickest answer, and the rate after it where
    answers tell one: base units of the next hop for one base unit of ours. `*` stands for what doesn't show itself;
    a hop may also leave no sign at all. The exit status is 1 if the target didn't answer.
    """
    console = Console(markup=False, emoji=False)
    if not console.is_terminal:
        console = Console(width=PIPED_WIDTH, markup=False, emoji=False)
    live = Live(console=console, auto_refresh=False, transient=True)
    shows = console.is_terminal and not as_json

    def show(event: Json) -> None:
        if shows:
            live.update(hops_table(event["trace"]), refresh=True)

    async def work(session: AnySession, stop: asyncio.Event) -> Json:
        params = {"target": target, "seconds": seconds, "with_amounts": not no_rates}
        if not shows:
            return await session.ask("trace", params, on_event=show, cancelled=stop)
        with live:
            return await session.ask("trace", params, on_event=show, cancelled=stop)

    found = run_with_wallet(folder, work)
    if as_json:
        print_json(found)
    else:
        console.print(hops_table(found), highlight=False)
        for line in closing_lines(found):
            click.echo(line)
    return 0 if found["ending"]["kind"] == "reached" else _FAILED


def hops_table(found: Json) -> Table:
    """A row for each hop; below them `*` where the path goes on in silence."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("Hop", justify="right")
    for name in ("Address", "Code", "Delay", "Rate after"):
        table.add_column(name)
    for hop in found["hops"]:
        delay = "*" if hop["ms"] is None else f"{hop['ms']:.2f} ms"
        table.add_row(str(hop["number"]), hop["address"] or "*", hop["code"], delay, _rate_after(hop["rate_after"]))
    if found["ending"]["kind"] == "silent":
        table.add_row(Text(str(len(found["hops"]) + 1)), "*", "", "*", "*")
    return table


def _rate_after(known: Json | None) -> str:
    if known is None:
        return "*"
    # From R01 only the size is known, to a hundredth at best.
    return f"{'about ' if known['from'] == 'R01' else ''}{decimal(Fraction(known['rate']))}"


def closing_lines(found: Json) -> list[str]:
    """How it ended, and what is known of the whole path."""
    lines = [f"{_ending(found)} ({found['packets']} packets, {found['seconds']:.1f} s)"]
    if found["mixed"]:
        lines.append("The packets took more than one way: rows at the same distance may be beside each other.")
    if found["rate"] is not None:
        lines.append(f"Rate: {rate_text(found['rate'], found['source_asset'], found['destination_asset'])}")
    if found["largest"] is not None and int(found["largest"]) < 2**64 - 1:
        more = ", or up to eight times that: a larger one met no room just now" if found["largest_by_room"] else ""
        lines.append(f"Largest packet: {money(found['largest'], found['source_asset'])}{more}")
    return lines


def _ending(found: Json) -> str:
    ending = found["ending"]
    code = ending["code"]
    who = ending["by"] or "a node that doesn't say who it is"
    said = f": {ending['message']}" if ending["message"] else ""
    if ending["kind"] == "reached":
        return f"Reached: {code} ({code_name(code)}) from {ending['by'] or 'the target'}"
    if ending["kind"] == "refused":
        return f"Not reached: {code} ({code_name(code)}) from {who}{said}"
    if ending["kind"] == "silent":
        return f"Not reached: what is behind {who} doesn't answer"
    if ending["kind"] == "too long":
        return f"Not reached: no packet lives long enough to get further than {who}"
    return "Not reached: out of time; --seconds gives more"
