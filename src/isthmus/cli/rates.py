"""`isthmus rates`: what a running node exchanges at, and the operator's word over its sources'."""

import json
from fractions import Fraction

import click

from isthmus.cli.accounts_view import console
from isthmus.cli.admin_api import AdminApi, admin_options
from isthmus.cli.http_json import Json
from isthmus.cli.rates_view import rates_table, state_text
from isthmus.errors import ConfigError
from isthmus.node.rates.exact import Codes, decimal_text, pair_text, split_pair


@click.group(
    epilog="""\b
Examples:
  isthmus rates show
  isthmus rates set EUR/USD 1.0843
  isthmus rates accept BTC/USD         # a rate that jumped, and is right
  isthmus rates follow EUR/USD         # again what the file says"""
)
def rates() -> None:
    """Show the rates of a running node, and set them."""


_AS_JSON = click.option("--json", "as_json", is_flag=True, help="One JSON object; rates are exact, as strings.")


@rates.command(
    epilog="""\b
Examples:
  isthmus rates show
  isthmus rates show --json | jq -r '.rates[] | select(.state == "stopped").pair'"""
)
@_AS_JSON
@admin_options
def show(api: AdminApi, as_json: bool) -> None:
    """Show all pairs: rate, source, age, spread, and whether they are exchanged."""
    found = api.call("GET", "/rates")
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    console().print(rates_table(found["rates"], found["spread"]))


@rates.command("set", epilog="\b\nExample:\n  isthmus rates set EUR/USD 1.0843")
@click.argument("pair")
@click.argument("rate")
@_AS_JSON
@admin_options
def set_(api: AdminApi, pair: str, rate: str, as_json: bool) -> None:
    """Exchange PAIR at RATE, whatever its source says.

    It holds over restarts, until `follow`, or until the pair is changed in the node's file.
    """
    _tell(api, {"pair": _pair(pair), "action": "set", "rate": rate}, as_json)


@rates.command(epilog="\b\nExample:\n  isthmus rates stop EUR/USD")
@click.argument("pair")
@_AS_JSON
@admin_options
def stop(api: AdminApi, pair: str, as_json: bool) -> None:
    """Exchange PAIR no more for now: its packets get T01, which senders retry.

    It holds over restarts, until `follow` or `set`, or until the pair is changed in the node's file.
    """
    _tell(api, {"pair": _pair(pair), "action": "stop"}, as_json)


@rates.command(epilog="\b\nExample:\n  isthmus rates follow EUR/USD")
@click.argument("pair")
@_AS_JSON
@admin_options
def follow(api: AdminApi, pair: str, as_json: bool) -> None:
    """Exchange PAIR again as the node's file says: take back `set` or `stop`."""
    _tell(api, {"pair": _pair(pair), "action": "follow"}, as_json)


@rates.command(
    epilog="""\b
Examples:
  isthmus rates accept BTC/USD
  isthmus rates accept BTC/USD 81000   # only if its source says about that"""
)
@click.argument("pair")
@click.argument("rate", required=False)
@_AS_JSON
@admin_options
def accept(api: AdminApi, pair: str, rate: str | None, as_json: bool) -> None:
    """Believe a rate of PAIR that jumped: the one that its source says now, if that is near RATE."""
    name = _pair(pair)
    _tell(api, {"pair": name, "action": "accept", "rate": rate or _offered(api, name)}, as_json)


def _offered(api: AdminApi, name: str) -> str:
    """What the source of a pair says, in the direction in which the pair was named."""
    codes = _codes(name)
    for each in api.call("GET", "/rates")["rates"]:
        if _codes(each["pair"]) in (codes, codes[::-1]) and each["offered"] is not None:
            offered = Fraction(each["offered"])
            # Near is enough: it says which of several jumps is meant, and the node takes its source's exact rate.
            return decimal_text(offered if _codes(each["pair"]) == codes else 1 / offered)
    raise ConfigError(f"PAIR {name}", "it has no rate that waits to be accepted", "See isthmus rates show")


def _tell(api: AdminApi, body: Json, as_json: bool) -> None:
    answer = api.call("POST", "/rates", body)
    if as_json:
        click.echo(json.dumps(answer, indent=2))
        return
    if answer["source"] == "none":
        click.echo(f"{answer['pair']} is exchanged no more: {answer['why']}.")
        return
    rate = "" if answer["rate"] is None else f" at {decimal_text(Fraction(answer['rate']))}"
    click.echo(f"{answer['pair']}{rate}, from {answer['source']}: {state_text(answer)}.")


def _pair(text: str) -> str:
    return pair_text(_codes(text))


def _codes(text: str) -> Codes:
    codes = split_pair(text)
    if codes is None:
        raise ConfigError(f"PAIR {text}", "it is not two asset codes", "Write it like EUR/USD")
    return codes
