"""How the wallet's commands show amounts, rates, progress and outcomes to people."""

from datetime import datetime
from fractions import Fraction
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from isthmus.client.control import Json
from isthmus.client.service import asset_from
from isthmus.ilp.asset import format_amount

RATE_DIGITS: Final = 8  # significant ones, where people read
# Where no terminal says how wide it is: tables take what they need.
PIPED_WIDTH: Final = 200


def show_table(table: Table) -> None:
    """Print it to stdout."""
    # No markup: what connectors and receivers say may have brackets in it.
    console = Console(markup=False, emoji=False)
    if not console.is_terminal:
        console = Console(width=PIPED_WIDTH, markup=False, emoji=False)
    console.print(table, highlight=False)


def money(amount: str, asset: Json | None) -> str:
    """Base units as people write them: "0.015 BTC"."""
    if asset is None or not asset["code"]:
        return f"{amount} units"
    return format_amount(int(amount), asset_from(asset))


def rate_text(rate: str | None, source: Json, destination: Json | None) -> str:
    """An exact rate as a decimal: "24.5 ETH for 1 BTC"."""
    if rate is None or destination is None:
        return "unknown"
    return f"{decimal(Fraction(rate))} {destination['code']} for 1 {source['code']}"


def decimal(value: Fraction) -> str:
    """For people only: rounded to a few significant digits."""
    if value == 0:
        return "0"
    digits = RATE_DIGITS
    whole = value.numerator // value.denominator
    if whole:
        digits = max(0, RATE_DIGITS - len(str(whole)))
    else:
        while value * 10 ** (digits - RATE_DIGITS + 1) < 1:
            digits += 1
    scaled = round(value * 10**digits)
    text = str(scaled).rjust(digits + 1, "0")
    if not digits:
        return text
    return f"{text[:-digits]}.{text[-digits:]}".rstrip("0").rstrip(".")


def between(result: Json) -> str:
    """What arrived; both ends where it isn't known. The upper one is by the best rate seen, and so an estimate."""
    asset = result["destination_asset"]
    least, most = result["delivered"], result["delivered_max"]
    if least == most:
        return f"{money(least, asset)} delivered"
    return f"between {money(least, asset)} and about {money(most, asset)} delivered"


def left(result: Json) -> str:
    """What left."""
    source = result["source_asset"]
    if result["unknown"] == "0":
        return f"{money(result['sent'], source)} sent"
    most = int(result["sent"]) + int(result["unknown"])
    return f"between {money(result['sent'], source)} and {money(str(most), source)} sent"


def rejects(rejected: dict[str, int]) -> str:
    """`F08 2, T04 17`."""
    return ", ".join(f"{code} {count}" for code, count in sorted(rejected.items())) or "none"


# --- tables ----------------------------------------------------------------------------------------------------------


def rows(title: str | None = None) -> Table:
    """A table of names and values."""
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0), title=title, title_justify="left")
    table.add_column(style="dim")
    table.add_column()
    return table


def quote_table(quote: Json) -> Table:
    """The quote beside the minimum."""
    source, destination = quote["source_asset"], quote["destination_asset"]
    table = rows()
    if quote["host"]:
        table.add_row("To", _hosts(quote))
    table.add_row("Leaves", money(quote["source_amount"], source))
    if quote["source_max"] != quote["source_amount"]:
        table.add_row("At most", money(quote["source_max"], source))
    table.add_row("Arrives", f"about {money(quote['destination_amount'], destination)}")
    if quote["minimum"] is not None:
        table.add_row("At least", money(quote["destination_minimum"], destination))
    table.add_row("Rate", rate_text(quote["rate"], source, destination))
    if quote["minimum"] is not None:
        style = "" if quote["enough"] else "bold red"
        table.add_row("Minimum", Text(rate_text(quote["minimum"], source, destination), style=style))
    if quote["packet_max"] is not None:
        table.add_row("Packets", f"of at most {money(quote['packet_max'], source)}")
    return table


def _hosts(quote: Json) -> str:
    if quote["host"] == quote["final_host"]:
        return str(quote["host"])
    return f"{quote['host']}, which sends us on to {quote['final_host']}"


def result_table(result: Json) -> Table:
    """How a payment ended."""
    table = rows()
    style = {"completed": "green", "stopped": "yellow"}.get(result["status"], "bold red")
    status = result["status"] + (" (before; its key was used again)" if result["repeated"] else "")
    table.add_row("Payment", Text(status, style=style))
    if result["detail"]:
        table.add_row("", result["detail"])
    table.add_row("Left", left(result))
    table.add_row("Arrived", between(result))
    if result["rate"] is not None:
        table.add_row("Rate", rate_text(result["rate"], result["source_asset"], result["destination_asset"]))
    if not result["repeated"]:
        table.add_row(
            "Packets", f"{result['packets']} in {result['seconds']:.2f} s; rejected: {rejects(result['rejected'])}"
        )
    return table


def history_table(entries: list[Json]) -> Table:
    """Payments and receipts, newest first."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("When", "", "Amount", "Arrived", "Whom", "Status"):
        table.add_column(name)
    for entry in entries:
        when = datetime.fromtimestamp(entry["at"] / 1000).astimezone().strftime("%Y-%m-%d %H:%M:%S")
        if entry["kind"] == "received":
            amount = Text(f"+{money(entry['amount'], entry['asset'])}", style="green")
            table.add_row(when, "received", amount, "", f"connection {entry['id'][:8]}", f"{entry['packets']} packets")
            continue
        status = Text(entry["status"], style="" if entry["status"] == "completed" else "yellow")
        status.append(f" key {entry['key']}" if entry["key"] else "", style="dim")
        sent = left(entry).removesuffix(" sent")
        arrived = between(entry).removesuffix(" delivered")
        table.add_row(when, "paid", f"-{sent}" if sent[0].isdigit() else sent, arrived, entry["target"], status)
    return table


# --- progress --------------------------------------------------------------------------------------------------------


class _Numbers(ProgressColumn):
    """Delivered amount, rate, packets in flight, rejects by code."""

    def render(self, task: Task) -> Text:
        progress: Json | None = task.fields.get("progress")
        if progress is None:
            return Text("asking the path …", style="dim")
        source, destination = progress["source_asset"], progress["destination_asset"]
        text = Text(f"{money(progress['delivered'], destination)} delivered", style="green")
        text.append(f"  {decimal(Fraction(progress['rate']))} {destination['code']}/{source['code']}", style="")
        text.append(f"  {progress['packets_in_flight']} in flight", style="cyan")
        if progress["rejected"]:
            text.append(f"  rejected {rejects(progress['rejected'])}", style="yellow")
        return text


class PaymentBar:
    """A live bar on a terminal; silent elsewhere."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f} %"),
            _Numbers(),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._task = self._progress.add_task("Paying", total=None)

    def __enter__(self) -> "PaymentBar":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, progress: Json) -> None:
        """Take what the wallet tells."""
        fixed = int(progress["deliver"])
        total = fixed or int(progress["source_max"])
        done = int(progress["delivered"]) if fixed else int(progress["sent"])
        # A float is good enough for a bar, whatever the scale.
        fields: dict[str, Any] = {"progress": progress}
        self._progress.update(self._task, total=1.0, completed=min(1.0, done / total) if total else 0.0, **fields)

    def stopping(self) -> None:
        self._progress.update(self._task, description="Stopping")
