"""`isthmus node join`: a running node becomes the child of another."""

import json
from typing import Any

import click

from isthmus.cli.admin_api import AdminApi, admin_options
from isthmus.cli.limits import limit_options, limits_of


@click.command(
    epilog="""\b
Examples:
  isthmus node join https://hub.example --receivable 0
  isthmus node join https://hub.example --receivable 100 --asset USD --scale 9 --config isthmus.toml"""
)
@click.argument("url", metavar="URL")
@click.option("--name", metavar="ACCOUNT", help="What we call the account.  [default: parent]")
@click.option("--asset", help="Refuse if they count in another asset.")
@click.option("--scale", type=int, help="Refuse if they count with another scale.")
@click.option("--allow-insecure", is_flag=True, help="Speak without TLS beyond this machine.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@limit_options
@admin_options
def join(
    api: AdminApi,
    url: str,
    name: str | None,
    asset: str | None,
    scale: int | None,
    allow_insecure: bool,
    as_json: bool,
    **terms: Any,
) -> None:
    """Make the running node a child of the node at URL, if that takes children: account, address, route, ping.

    The parent says what it counts in and how much we may owe it; --receivable is how much it may owe us.
    """
    from isthmus.cli.joining import come_together, place_of, tell

    place = place_of(url, allow_insecure=allow_insecure)
    agreed = {"asset": asset, "scale": scale}
    limits = limits_of(terms)
    found = come_together(api, place, name=name, limits=limits, agreed=agreed, allow_insecure=allow_insecure)
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        tell(found)
