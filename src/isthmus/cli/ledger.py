"""`isthmus ledger`: ledgers to develop and test against, for people who have no real one at hand, and a small bank."""

import asyncio
import json
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from isthmus.cli.bank import bank
from isthmus.errors import ConfigError, not_installed

if TYPE_CHECKING:
    from isthmus.ledgers.xrp.dev.rules import Prices
    from isthmus.ledgers.xrp.dev.service import Service

PORT: Final = 6006  # where a stand-alone rippled has its WebSocket
_XRP_EXAMPLES: Final = """\b
Examples:
  isthmus ledger xrp-dev
  isthmus ledger xrp-dev --file xrp.db --close-every 300
  isthmus ledger xrp-dev --fund rPT1Sjq2YGrBMTttX4GZHjKu9dyfzbpAYe --fund-with 5000
  isthmus ledger xrp-dev --manual --port 0 --json
  curl -X POST http://127.0.0.1:6006/accounts          # a new account with money, as the test net's faucet gives
"""


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def ledger() -> None:
    """Run a ledger: for development and tests, or a small bank of your own."""


ledger.add_command(bank)


@ledger.command("xrp-dev", epilog=_XRP_EXAMPLES)
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen.")
@click.option(
    "--port", type=click.IntRange(0, 65_535), default=PORT, show_default=True, help="One for all; 0 takes a free one."
)
@click.option(
    "--file", type=click.Path(dir_okay=False, path_type=Path), help="Keep the ledger here.  [default: in memory only]"
)
@click.option(
    "--close-every", metavar="MS", type=int, help="Close a ledger every so often, 300 or more.  [default: 1000]"
)
@click.option("--manual", is_flag=True, help="Close ledgers only on the request `ledger_accept`.")
@click.option("--fund", metavar="ADDRESS", multiple=True, help="Give this address money if it has none; repeatable.")
@click.option("--fund-with", metavar="XRP", type=int, help="How much that is.  [default: 1000]")
@click.option(
    "--network-id", metavar="N", type=click.IntRange(0, 2**32 - 1), help="Which network it is.  [default: 1000]"
)
@click.option(
    "--history", metavar="N", type=click.IntRange(min=300), help="How many ledgers to keep.  [default: 250000]"
)
@click.option("--json", "as_json", is_flag=True, help="Say where it listens as one JSON object.")
def xrp_dev(
    host: str,
    port: int,
    file: Path | None,
    close_every: int | None,
    manual: bool,
    fund: tuple[str, ...],
    fund_with: int | None,
    network_id: int | None,
    history: int | None,
    as_json: bool,
) -> int:
    """A development ledger that answers as rippled does, the XRP Ledger's server.

    For developers' tests and demonstrations, never for money: one process, no consensus, a genesis account whose key
    everybody knows. Accounts, fees, reserves, signatures and payment channels follow the main net's rules. WebSocket,
    JSON-RPC and a faucet share one port. docs/xrp-dev.md lists what it leaves out.
    """
    try:
        import xrpl.core.binarycodec  # noqa: F401
    except ImportError:
        raise not_installed("isthmus ledger xrp-dev", "xrpl-py", "xrp") from None
    from isthmus.ledgers.xrp.dev.faucet import XRP_DEFAULT, XRP_MAX
    from isthmus.ledgers.xrp.dev.rules import Prices
    from isthmus.ledgers.xrp.dev.service import CLOSE_EVERY_MS, CLOSE_EVERY_MS_MIN, NETWORK_ID, Service
    from isthmus.ledgers.xrp.dev.store import LEDGERS_KEPT

    if manual and close_every is not None:
        raise ConfigError("--manual", "goes without --close-every", "Leave one of them out.")
    every = None if manual else CLOSE_EVERY_MS if close_every is None else close_every
    if every is not None and not CLOSE_EVERY_MS_MIN <= every <= 3_600_000:
        raise ConfigError("--close-every", f"{every} ms is not {CLOSE_EVERY_MS_MIN} to 3600000", "Name another time.")
    if fund_with is not None and not fund:
        raise ConfigError("--fund-with", "goes with --fund", "Name whom to fund.")
    amount = XRP_DEFAULT if fund_with is None else fund_with
    if not 1 <= amount <= XRP_MAX:
        raise ConfigError("--fund-with", f"{amount} is not 1 to {XRP_MAX}", "Name another amount.")
    for address in fund:
        _check_address(address)
    prices = Prices()
    service = Service(
        file,
        close_every_ms=every,
        network_id=NETWORK_ID if network_id is None else network_id,
        prices=prices,
        ledgers_kept=LEDGERS_KEPT if history is None else history,
    )
    _fund(service, fund, amount)
    asyncio.run(_run(service, _Welcome(service, host, file, every, prices, as_json), host, port))
    return 0


def _check_address(address: str) -> None:
    from isthmus.ledgers.xrp.dev.desk import checked_address
    from isthmus.ledgers.xrp.dev.faults import Fault

    try:
        checked_address(address)
    except Fault:
        raise ConfigError("--fund", f"{address!r} is no address", "Write a classic one, like r…") from None


def _fund(service: "Service", addresses: tuple[str, ...], amount: int) -> None:
    """Those that aren't there yet, so that a restart with the same command line changes nothing."""
    new = [each for each in dict.fromkeys(addresses) if not service.has(each)]
    for address in new:
        service.fund(address, amount)
    if new:
        service.close_ledger()


async def _run(service: "Service", welcome: "_Welcome", host: str, port: int) -> None:
    from isthmus.ledgers.xrp.dev.running import serve

    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await serve(service, host, port, welcome.say, stop)


class _Welcome:
    """What is printed once the port is open."""

    def __init__(
        self, service: "Service", host: str, file: Path | None, every: int | None, prices: "Prices", as_json: bool
    ) -> None:
        self._service = service
        self._host = f"[{host}]" if ":" in host else host
        self._file = file
        self._every = every
        self._prices = prices
        self._as_json = as_json

    def say(self, port: int) -> None:
        from isthmus.ledgers.xrp.dev.ledger import GENESIS_ADDRESS, GENESIS_SEED

        place = f"{self._host}:{port}"
        network = self._service.network_id
        if self._as_json:
            facts = {
                "web_socket": f"ws://{place}",
                "json_rpc": f"http://{place}",
                "faucet": f"http://{place}/accounts",
                "network_id": network,
                "ledger_index": self._service.last_index,
                "genesis": {"address": GENESIS_ADDRESS, "seed": GENESIS_SEED},
            }
            click.echo(json.dumps(facts))
            return
        prices = self._prices
        lines = {
            "WebSocket": f"ws://{place}",
            "JSON-RPC": f"http://{place}",
            "Faucet": f"POST http://{place}/accounts",
            "Network": f"{network}; at ledger {self._service.last_index}, {self._pace()}",
            "Kept in": str(self._file) if self._file is not None else "memory only, until it ends (--file keeps it)",
            "Prices": f"fee {prices.base_fee} drops; reserve {_xrp(prices.reserve_base)} XRP, and "
            f"{_xrp(prices.reserve_increment)} XRP for each channel",
            "Genesis": f"{GENESIS_ADDRESS}, seed {GENESIS_SEED}",
        }
        click.echo("XRP development ledger: for tests, nothing on it has any value.\n")
        for name, text in lines.items():
            click.echo(f"  {name:<10} {text}")
        click.echo("\nCtrl-C ends.")

    def _pace(self) -> str:
        return "closed by ledger_accept" if self._every is None else f"one every {self._every} ms"


def _xrp(drops: int) -> str:
    return f"{drops // 1_000_000}.{drops % 1_000_000:06d}".rstrip("0").rstrip(".")
