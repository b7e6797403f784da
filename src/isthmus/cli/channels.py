"""`isthmus channels`: payment channels with peers, whatever the ledger."""

import json
from pathlib import Path
from typing import Any, Final

import click

from isthmus.cli.accounts_view import console
from isthmus.cli.admin_api import AdminApi, find_api, node_options
from isthmus.cli.books_view import cell, new_table, time_of
from isthmus.errors import ConfigError
from isthmus.ilp.asset import Asset, format_amount, parse_amount

DIRECTIONS: Final = {"out": "to them", "in": "to us", "both": "both ways"}
ID_CHARS: Final = 18


@click.group(
    epilog="""\b
Examples:
  isthmus channels list
  isthmus channels show bob
  isthmus channels open bob 0.5
  isthmus channels fund bob 0.25
  isthmus channels redeem bob
  isthmus channels close bob"""
)
def channels() -> None:
    """List payment channels with peers; open, fund, redeem and close them.

    Engines do all of this by themselves, as their configuration says; these commands are for what it doesn't foresee.
    Amounts are in the ledger's coins.
    """


def _json_option(command: Any) -> Any:
    return click.option("--json", "as_json", is_flag=True, help="JSON; amounts are strings in the ledger's units.")(
        command
    )


@channels.command("list", epilog="\b\nExample:\n  isthmus channels list --json | jq '.channels[].unredeemed'")
@_json_option
@node_options
def list_channels(as_json: bool, config: Path | None, data: Path | None) -> None:
    """List the channels of all accounts: capacities, claims, and when they end."""
    found = find_api(config, data).call("GET", "/channels")
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    if not found["channels"]:
        click.echo("No channel is open." if found["accounts"] else "No engine of this node has channels.")
        return
    table = new_table(
        "Channels", "account", "id", "way", "state", "capacity", "can send", "can receive", "claimed", "not redeemed",
        "ends",
    )  # fmt: skip
    for each in found["channels"]:
        table.add_row(*map(cell, _row(each)))
    console().print(table)


def _row(each: dict[str, Any]) -> list[str]:
    id_ = each["id"]
    amounts = [_shown(each, name) for name in ("capacity", "can_send", "can_receive", "claimed", "unredeemed")]
    short = id_ if len(id_) <= ID_CHARS else f"{id_[:ID_CHARS]}…"
    ends = time_of(each["ends_at_ms"]) if "ends_at_ms" in each else ""
    return [each["account"], short, DIRECTIONS[each["direction"]], each["state"], *amounts, ends]


def _shown(each: dict[str, Any], name: str) -> str:
    return format_amount(int(each[name]), Asset(each["unit_code"], each["unit_scale"]))


@channels.command(epilog="\b\nExample:\n  isthmus channels show bob")
@click.argument("account", metavar="ACCOUNT")
@_json_option
@node_options
def show(account: str, as_json: bool, config: Path | None, data: Path | None) -> None:
    """Show all that is known of the channels with the peer of ACCOUNT."""
    api = find_api(config, data)
    found = api.call("GET", "/channels")
    _unit(found, account)
    each = [one for one in found["channels"] if one["account"] == account]
    engines = api.call("GET", "/settlements")["engines"]
    says = {key: value for one in engines for told in one["accounts"] if told["account"] == account
            for key, value in told["says"].items() if value}  # fmt: skip
    if as_json:
        click.echo(json.dumps({"account": account, "channels": each, "engine_says": says}, indent=2))
        return
    if not each:
        click.echo(f"No channel with {account}.")
    for one in each:
        for name, value in _details(one):
            click.echo(cell(f"{name:14} {value}").plain)
        click.echo()
    for key, value in says.items():
        click.echo(cell(f"{key.replace('_', ' ')}: {value}").plain)


def _details(one: dict[str, Any]) -> list[tuple[str, str]]:
    found = [
        ("channel", one["id"]),
        ("way", f"{DIRECTIONS[one['direction']]}, by the engine {one['engine']}"),
        ("state", one["state"] + (f": {one['text']}" if one["text"] else "")),
        ("capacity", _shown(one, "capacity")),
    ]
    if one["direction"] != "in":
        found.append(("can send", _shown(one, "can_send")))
    if one["direction"] != "out":
        found.append(("can receive", _shown(one, "can_receive")))
    if one["direction"] != "both":
        found += [(name, _shown(one, key)) for name, key in (("claimed", "claimed"), ("redeemed", "redeemed"))]
        found.append(("not redeemed", _shown(one, "unredeemed")))
    if "settle_delay_s" in one:
        found.append(("settle delay", f"{one['settle_delay_s']} s"))
    if "ends_at_ms" in one:
        found.append(("ends", f"{time_of(one['ends_at_ms'])} UTC"))
    return found


@channels.command("open", epilog="\b\nExample:\n  isthmus channels open bob 0.5")
@click.argument("account", metavar="ACCOUNT")
@click.argument("amount", metavar="AMOUNT")
@_json_option
@node_options
def open_channel(account: str, amount: str, as_json: bool, config: Path | None, data: Path | None) -> None:
    """Open a channel to the peer of ACCOUNT that holds AMOUNT."""
    api = find_api(config, data)
    _change(api, account, "open", {"amount": _units(api, account, amount)}, as_json)


@channels.command(epilog="\b\nExample:\n  isthmus channels fund bob 0.25")
@click.argument("account", metavar="ACCOUNT")
@click.argument("amount", metavar="AMOUNT")
@_json_option
@node_options
def fund(account: str, amount: str, as_json: bool, config: Path | None, data: Path | None) -> None:
    """Put AMOUNT more into our channel to the peer of ACCOUNT."""
    api = find_api(config, data)
    _change(api, account, "fund", {"amount": _units(api, account, amount)}, as_json)


@channels.command(epilog="\b\nExample:\n  isthmus channels close bob")
@click.argument("account", metavar="ACCOUNT")
@_json_option
@node_options
def close(account: str, as_json: bool, config: Path | None, data: Path | None) -> None:
    """End our channel to the peer of ACCOUNT: at once if it agrees, else after the settle delay."""
    _change(find_api(config, data), account, "close", {}, as_json)


@channels.command(epilog="\b\nExamples:\n  isthmus channels redeem bob\n  isthmus channels redeem bob --end")
@click.argument("account", metavar="ACCOUNT")
@click.option("--end", "ends", is_flag=True, help="End the peer's channels with it: what they hold besides goes back.")
@_json_option
@node_options
def redeem(account: str, ends: bool, as_json: bool, config: Path | None, data: Path | None) -> None:
    """Have the ledger pay out what the channels of ACCOUNT's peer owe us."""
    _change(find_api(config, data), account, "redeem", {"ends": ends}, as_json)


def _change(api: AdminApi, account: str, verb: str, body: dict[str, Any], as_json: bool) -> None:
    found = api.call("POST", f"/accounts/{account}/channels/{verb}", body)
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        click.echo(f"{account}: {found['text']}; see isthmus channels list.")


def _units(api: AdminApi, account: str, text: str) -> str:
    unit = _unit(api.call("GET", "/channels"), account)
    try:
        amount = parse_amount(text, unit)
    except ValueError as error:
        raise ConfigError("AMOUNT", str(error), "Correct it") from None
    if amount == 0:
        raise ConfigError("AMOUNT", "it is zero", "Say how much")
    return str(amount)


def _unit(found: dict[str, Any], account: str) -> Asset:
    for each in found["accounts"]:
        if each["account"] == account:
            return Asset(each["unit_code"], each["unit_scale"])
    problem = "it has no settlement engine with channels, or that doesn't work"
    raise ConfigError(f"ACCOUNT {account}", problem, "See isthmus settlements list")
