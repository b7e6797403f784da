"""`isthmus quote`, `pay`, `history` and `ping`."""

import asyncio
import json
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import click

from isthmus.cli.wallet_session import (
    INTERRUPTED,
    confirm,
    json_option,
    look,
    print_json,
    run_with_wallet,
    wallet_option,
)
from isthmus.client.control import Json
from isthmus.client.session import AnySession
from isthmus.client.streams import as_fraction
from isthmus.client.terms import Minimum, PaymentRequest
from isthmus.errors import ConfigError

PRICE_FILE_BYTES_MAX: Final = 1_048_576
HISTORY_MAX: Final = 10_000
_FAILED: Final = 1


def _rate(ctx: click.Context, param: click.Parameter, value: str | None) -> Fraction | None:
    if value is None:
        return None
    try:
        return as_fraction(value)
    except (ValueError, ZeroDivisionError):
        raise click.BadParameter(f"{value!r} is not a number like 24.5") from None


def _slippage(ctx: click.Context, param: click.Parameter, value: str) -> Fraction:
    try:
        share = as_fraction(value.strip().removesuffix("%")) / (100 if value.strip().endswith("%") else 1)
    except (ValueError, ZeroDivisionError):
        raise click.BadParameter(f"{value!r} is not a share like 1%") from None
    if share >= 1:
        raise click.BadParameter("it must be below 100%: all could be lost")
    return share


def terms_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What `quote` and `pay` share."""
    options: list[Callable[[Callable[..., Any]], Callable[..., Any]]] = [
        click.argument("target", metavar="POINTER_OR_URL"),
        click.argument("amount"),
        click.option("--deliver", is_flag=True, help="AMOUNT is what is to arrive, in the receiver's asset."),
        click.option(
            "--min-rate",
            metavar="RATE",
            callback=_rate,
            help="The least of the receiver's asset that must arrive for one unit of ours.",
        ),
        click.option(
            "--price",
            metavar="RATE|FILE",
            help="A price source: what one unit of ours is worth in the receiver's asset, or a JSON file with "
            'prices by asset code, {"BTC": "97000", "ETH": "3900"}.',
        ),
        click.option(
            "--slippage",
            metavar="SHARE",
            default="1%",
            show_default=True,
            callback=_slippage,
            help="How far below the price, or the quote that you confirm, the rate may fall.",
        ),
        wallet_option,
        json_option,
    ]
    for option in reversed(options):
        command = option(command)
    return command


def _minimum(min_rate: Fraction | None, price: str | None, slippage: Fraction) -> Minimum | None:
    if min_rate is not None and price is not None:
        raise click.UsageError("Give --min-rate or --price, not both")
    if min_rate is not None:
        return Minimum(rate=min_rate)
    if price is None:
        return None
    try:
        return Minimum(price=as_fraction(price), slippage=slippage)
    except (ValueError, ZeroDivisionError):
        return Minimum(prices=_prices(Path(price)), slippage=slippage)


def _prices(path: Path) -> dict[str, Fraction]:
    """`{"BTC": "97000", "ETH": 3900.5}`; numbers are read as they are written, without floats."""
    if not path.is_file():
        raise ConfigError("--price", f"{path} is neither a number nor a file", "Give one of them")
    with path.open("rb") as file:
        text = file.read(PRICE_FILE_BYTES_MAX + 1)
    if len(text) > PRICE_FILE_BYTES_MAX:
        raise ConfigError("--price", f"{path} is longer than {PRICE_FILE_BYTES_MAX} bytes", "Give a file with prices")
    try:
        loaded = json.loads(text, parse_float=str, parse_int=str)
        prices = {code: as_fraction(price) for code, price in loaded.items()}
    except (ValueError, TypeError, AttributeError, ZeroDivisionError) as error:
        raise ConfigError("--price", f"{path}: {error}", 'Write {"BTC": "97000", "ETH": "3900"}') from None
    return prices


# --- quote -----------------------------------------------------------------------------------------------------------

_QUOTE_EXAMPLES = """\b
Examples:
  isthmus quote '$bob.example' 0.015
  isthmus quote https://bob.example/pay 0.2 --deliver
  isthmus quote '$bob.example' 0.015 --min-rate 24 --json
"""


@click.command(epilog=_QUOTE_EXAMPLES)
@terms_options
def quote(
    target: str,
    amount: str,
    deliver: bool,
    min_rate: Fraction | None,
    price: str | None,
    slippage: Fraction,
    folder: Path,
    as_json: bool,
) -> int:
    """Say what a payment would cost and deliver.

    AMOUNT is in the wallet's asset, or with --deliver in the receiver's. No money moves. The exit status is 1 if the
    path offers less than the minimum.
    """
    request = PaymentRequest(target=target, amount=amount, deliver=deliver, minimum=_minimum(min_rate, price, slippage))

    async def work(session: AnySession, stop: asyncio.Event) -> Json:
        return await session.ask("quote", request.to_json(), cancelled=stop)

    found = run_with_wallet(folder, work)
    if as_json:
        print_json(found)
    else:
        from isthmus.cli.wallet_view import quote_table, show_table

        show_table(quote_table(found))
    return 0 if found["enough"] else _FAILED


# --- pay -------------------------------------------------------------------------------------------------------------

_PAY_EXAMPLES = """\b
Examples:
  isthmus pay '$bob.example' 0.015                              # shows the quote, and asks
  isthmus pay '$bob.example' 0.2 --deliver                      # 0.2 of the receiver's asset arrive
  isthmus pay '$bob.example' 0.015 --min-rate 24.2 --yes
  isthmus pay '$bob.example' 0.015 --price prices.json --slippage 0.5% --json
  isthmus pay '$bob.example' 0.015 --min-rate 24.2 --key rent-2030-05
"""


@click.command(epilog=_PAY_EXAMPLES)
@terms_options
@click.option("--yes", is_flag=True, help="Don't ask. Needs --min-rate or --price.")
@click.option("--key", default="", metavar="KEY", help="Pay once for this key, however often it is run, even killed.")
def pay(
    target: str,
    amount: str,
    deliver: bool,
    min_rate: Fraction | None,
    price: str | None,
    slippage: Fraction,
    folder: Path,
    as_json: bool,
    yes: bool,
    key: str,
) -> int:
    """Pay a payment pointer or URL.

    AMOUNT is what leaves, in the wallet's asset, or with --deliver what arrives, in the receiver's. On a terminal the
    quote is shown beside the minimum, and nothing moves before you agree. A script gives --min-rate or --price: the
    minimum must come from outside the path. Ctrl-C stops cleanly and tells what was delivered.
    """
    minimum = _minimum(min_rate, price, slippage)
    on_terminal = sys.stdin.isatty() and sys.stderr.isatty()
    if minimum is None and (yes or not on_terminal):
        raise ConfigError(
            "the minimum rate",
            "nobody is asked to confirm a quote, and a quote alone would believe any connector",
            "Give --min-rate RATE, or --price RATE or FILE (with --yes on a terminal)",
        )
    request = PaymentRequest(target=target, amount=amount, deliver=deliver, minimum=minimum, key=key)
    payer = _Payer(request, slippage, asks=on_terminal and not yes)
    result = run_with_wallet(folder, payer.work)
    if result is None:
        click.echo("nothing was paid", err=True)
        return _FAILED
    if as_json:
        print_json(result)
    else:
        from isthmus.cli.wallet_view import result_table, show_table

        show_table(result_table(result))
    if result["status"] == "stopped":
        return INTERRUPTED
    return 0 if result["status"] == "completed" else _FAILED


class _Payer:
    """Quote, question, payment, bar."""

    def __init__(self, request: PaymentRequest, slippage: Fraction, *, asks: bool) -> None:
        from rich.console import Console

        self._request = request
        self._slippage = slippage
        self._asks = asks
        self._console = Console(stderr=True, soft_wrap=True, markup=False, emoji=False)

    async def work(self, session: AnySession, stop: asyncio.Event) -> Json | None:
        """The payment's result; None if the answer was no."""
        request = self._request
        if self._asks and (not request.key or await self._is_new(session)):
            agreed = await self._agree(session, stop)
            if agreed is None:
                return None
            request = agreed
        from isthmus.cli.wallet_view import PaymentBar

        with PaymentBar(self._console) as bar:
            stopping = asyncio.create_task(_when(stop, bar.stopping))
            try:
                return await session.ask(
                    "pay",
                    request.to_json(),
                    on_event=lambda event: bar.show(event["progress"]),
                    cancelled=stop,
                )
            finally:
                stopping.cancel()

    async def _is_new(self, session: AnySession) -> bool:
        known = await session.ask("known", self._request.to_json())
        return bool(known["status"] == "new")

    async def _agree(self, session: AnySession, stop: asyncio.Event) -> PaymentRequest | None:
        """Show the quote beside the minimum, and ask."""
        from dataclasses import replace

        from isthmus.cli.wallet_view import quote_table

        request = self._request
        found = await session.ask("quote", request.to_json(), cancelled=stop)
        if request.minimum is None:
            # The person confirms the rate seen, less the slippage. Then it is a minimum from outside the path.
            confirmed = Minimum(price=Fraction(found["rate"]), slippage=self._slippage)
            request = replace(request, minimum=confirmed)
            found = await session.ask("quote", request.to_json(), cancelled=stop)
        self._console.print(quote_table(found), highlight=False)
        if not found["enough"]:
            self._console.print("The path offers less than the minimum.", style="bold red")
            return None
        return request if await confirm("Pay?", stop) else None


async def _when(event: asyncio.Event, then: Callable[[], None]) -> None:
    await event.wait()
    then()


# --- history ---------------------------------------------------------------------------------------------------------


@click.command(epilog="\b\nExamples:\n  isthmus history\n  isthmus history --limit 5\n  isthmus history --json | jq .")
@click.option("--limit", type=click.IntRange(1, HISTORY_MAX), default=20, show_default=True, help="How many entries.")
@wallet_option
@json_option
def history(limit: int, folder: Path, as_json: bool) -> None:
    """List what a wallet paid and was paid, the newest first."""

    async def collect() -> tuple[list[Json], int]:
        entries: list[Json] = []
        while True:
            page = await look(folder, "history", {"offset": len(entries), "limit": limit - len(entries)})
            entries += page["entries"]
            if not page["entries"] or len(entries) >= limit:
                return entries, page["count"]

    entries, count = asyncio.run(collect())
    if as_json:
        print_json({"entries": entries, "count": count})
        return
    from isthmus.cli.wallet_view import history_table, show_table

    if not entries:
        click.echo("Nothing was paid or received yet.")
        return
    show_table(history_table(entries))
    if count > len(entries):
        click.echo(f"… and {count - len(entries)} more (--limit)")


# --- ping ------------------------------------------------------------------------------------------------------------


@click.command(
    epilog="\b\nExamples:\n  isthmus ping g.connector\n  isthmus ping '$bob.example' --count 10\n  "
    "isthmus ping https://bob.example/pay --json"
)
@click.argument("target", metavar="ADDRESS|POINTER|URL")
@click.option("--count", type=click.IntRange(1, 1_000), default=5, show_default=True, help="How many packets.")
@click.option("--interval", type=click.FloatRange(0, 60), default=0.2, show_default=True, help="Seconds between them.")
@wallet_option
@json_option
def ping(target: str, count: int, interval: float, folder: Path, as_json: bool) -> int:
    """Measure the way to an address or payment pointer.

    Packets that nobody can fulfil go there and come back: no money moves. For a pointer or URL the path's exchange
    rate is told, too. The exit status is 1 if the target didn't answer.
    """

    def show(event: Json) -> None:
        if not as_json:
            pong = event["pong"]
            who = pong["by"] or "the target"
            mark = "" if pong["reached"] else "  not reached"
            click.echo(f"{pong['code']} from {who}: {pong['ms']:.2f} ms{mark}")

    async def work(session: AnySession, stop: asyncio.Event) -> Json:
        params = {"target": target, "count": count, "interval_ms": round(interval * 1000)}
        return await session.ask("ping", params, on_event=show, cancelled=stop)

    found = run_with_wallet(folder, work)
    reached = [pong["ms"] for pong in found["pongs"] if pong["reached"]]
    if as_json:
        times = {"min": min(reached), "avg": sum(reached) / len(reached), "max": max(reached)} if reached else None
        print_json({**found, "ms": times})
    elif reached:
        average = sum(reached) / len(reached)
        click.echo(
            f"{len(reached)} of {len(found['pongs'])} answered; round trip min/avg/max "
            f"{min(reached):.2f}/{average:.2f}/{max(reached):.2f} ms"
        )
        if found["rate"] is not None:
            from isthmus.cli.wallet_view import rate_text

            click.echo(f"Rate: {rate_text(found['rate'], found['source_asset'], found['destination_asset'])}")
    return 0 if reached else _FAILED
