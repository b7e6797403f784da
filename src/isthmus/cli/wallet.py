"""`isthmus wallet`: make a wallet and look at it."""

import asyncio
import os
import secrets
from pathlib import Path

import click

from isthmus.cli.wallet_channels import redeemed_lines
from isthmus.cli.wallet_session import default_folder, json_option, look, print_json, run_with_wallet, wallet_option
from isthmus.client.control import Json
from isthmus.client.session import AnySession
from isthmus.errors import ConfigError

TOKEN_VARIABLE = "ISTHMUS_TOKEN"


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def wallet() -> None:
    """Make a wallet and look at it."""


_INIT_EXAMPLES = """\b
Examples:
  isthmus wallet init --connector btp+wss://connector.example:7768        # asks for the token
  isthmus wallet init --connector btp+wss://connector.example:7768 --token-file token.txt
  ISTHMUS_TOKEN=… isthmus wallet init ./alice --connector btp+ws://127.0.0.1:7768
"""


@wallet.command(epilog=_INIT_EXAMPLES)
@click.argument("folder", metavar="[DIR]", type=click.Path(file_okay=False, path_type=Path), default=default_folder)
@click.option("--connector", required=True, metavar="URL", help="The connector's BTP URL, as its operator gave it.")
@click.option("--token-file", type=click.Path(dir_okay=False, path_type=Path), help="A file with the token.")
@click.option("--ca-file", type=click.Path(dir_okay=False, path_type=Path), help="Certificates to trust, as PEM.")
@click.option("--allow-insecure", is_flag=True, help="Allow ws:// to another machine: anybody on the way can read.")
@json_option
def init(
    folder: Path, connector: str, token_file: Path | None, ca_file: Path | None, allow_insecure: bool, as_json: bool
) -> None:
    """Make a wallet in DIR: connect to a connector, and keep what it tells of our address and asset.

    The token comes from the URL, a file, the environment (ISTHMUS_TOKEN), or is asked for. Without DIR the wallet is
    made in $ISTHMUS_WALLET or ~/.isthmus/wallet, where the other commands look for it.
    """
    from isthmus.client.folder import SETTINGS_FILE, init_folder
    from isthmus.client.service import asset_json
    from isthmus.client.uplink import ask_connector
    from isthmus.ilp.asset import Asset
    from isthmus.links.btp.url import parse_btp_url

    url = parse_btp_url(connector, allow_insecure=allow_insecure)
    if (folder / SETTINGS_FILE).exists():
        raise ConfigError(str(folder), "there is a wallet already", "Name another folder")
    token = _token(url.token, token_file)
    place = str(url)
    if url.username:
        place = place.replace("://", f"://{url.username}@", 1)
    certificates = None if ca_file is None else str(ca_file.resolve())
    told = asyncio.run(ask_connector(place, token=token, ca_file=certificates, allow_insecure=allow_insecure))
    init_folder(folder, place, token, told, ca_file=certificates, allow_insecure=allow_insecure)
    asset = Asset(told.asset_code, told.asset_scale)
    if as_json:
        print_json({"folder": str(folder), "address": told.address, "asset": asset_json(asset)})
        return
    click.echo(f"Made the wallet {folder} (mode 600 for its token and secret).")
    click.echo(f"Address: {told.address}")
    click.echo(f"Asset:   {asset.code}, {asset.scale} decimal places")
    option = "" if folder == default_folder() else f" --wallet {folder}"
    click.echo(f"\nNext:\n  isthmus receive{option}\n  isthmus pay{option} '$bob.example' 0.01")


def _token(in_url: str | None, token_file: Path | None) -> str:
    if token_file is not None:
        token = token_file.read_text(encoding="utf-8").strip()
    elif in_url is not None:
        token = in_url
    else:
        token = os.environ.get(TOKEN_VARIABLE) or click.prompt("Token", hide_input=True)
    if not token or any(char < " " for char in token):
        raise ConfigError("token", "empty, or more than one line", "Give the token that the connector's operator gave")
    return token


@wallet.command(epilog="\b\nExamples:\n  isthmus wallet show\n  isthmus wallet show --wallet ./alice --json")
@wallet_option
@json_option
def show(folder: Path, as_json: bool) -> None:
    """Show the wallet's address, asset and balance with its connector."""
    found = asyncio.run(look(folder, "show", {}))
    if as_json:
        print_json(found)
        return
    from isthmus.cli.wallet_channels import settlement_rows
    from isthmus.cli.wallet_view import money, rows, show_table

    balance = int(found["balance"])
    words = "settled" if not balance else "owed to us" if balance > 0 else "owed by us"
    table = rows()
    table.add_row("Folder", str(folder))
    table.add_row("Address", found["address"])
    table.add_row("Asset", f"{found['asset']['code']}, {found['asset']['scale']} decimal places")
    table.add_row("Connector", found["connector"])
    table.add_row("Link", "up" if found["up"] else found["problem"] or "not connected now")
    table.add_row("Balance", f"{money(str(abs(balance)), found['asset'])} {words}" if balance else words)
    if int(found["loss"]):
        table.add_row("Not paid", f"{money(found['loss'], found['asset'])} of it, by the connector")
    if found["settlement"] is not None:
        for name, text in settlement_rows(found["settlement"], found["asset"]):
            table.add_row(name, text)
    table.add_row("Received", money(found["received"], found["asset"]))
    table.add_row("Payments", str(found["payments"]))
    show_table(table)


@wallet.command(
    epilog="\b\nExamples:\n  isthmus wallet settle            # what settlement.toml says\n  isthmus wallet settle 0.01"
)
@click.argument("amount", metavar="[AMOUNT]", required=False)
@click.option("--note", default="", help="Why, for whoever reads the books later.")
@click.option("--key", help="Makes it happen once, however often you repeat it.  [default: a fresh one]")
@wallet_option
@json_option
def settle(amount: str | None, note: str, key: str | None, folder: Path, as_json: bool) -> int:
    """Pay the connector by the wallet's settlement engine: what we owe, or ahead; AMOUNT is in the wallet's asset.

    The books are debited before the engine pays. The command waits for the end, a minute at most.
    """
    request = {"amount": amount, "key": secrets.token_hex(16) if key is None else key, "note": note}

    async def work(session: AnySession, stop: asyncio.Event) -> Json:
        return await session.ask("settle", request, cancelled=stop)

    found = run_with_wallet(folder, work)
    if as_json:
        print_json(found)
        return 0
    from isthmus.cli.wallet_view import money

    shown = money(found["amount"], found["asset"])
    if found["state"] == "ended":
        click.echo(f"Settled {shown}.")
        return 0
    click.echo(f"{shown} is under way ({found['state']}): isthmus wallet show tells how it goes on.")
    for text in found["alarms"][:1]:
        click.echo(text, err=True)
    return 1


@wallet.command(
    epilog="\b\nExamples:\n  isthmus wallet redeem\n  isthmus wallet redeem --end      # and end the channels"
)
@click.option("--end", "ends", is_flag=True, help="End the channels with it: what they hold besides goes back.")
@wallet_option
@json_option
def redeem(ends: bool, folder: Path, as_json: bool) -> int:
    """Have the ledger pay out what the connector's channels owe this wallet, whatever that costs."""

    async def work(session: AnySession, stop: asyncio.Event) -> Json:
        return await session.ask("leave", {"always": True, "ends": ends}, cancelled=stop)

    channels = run_with_wallet(folder, work)["channels"]
    if as_json:
        print_json({"channels": channels})
    elif not channels:
        click.echo("There is nothing to redeem.")
    else:
        for line in redeemed_lines(channels):
            click.echo(line)
    return 0 if all(one["is_redeemed"] for one in channels) else 1
