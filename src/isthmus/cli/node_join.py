"""`isthmus node join`: a running node becomes the child of another."""

from typing import Any

import click

from isthmus.cli.admin_api import AdminApi, admin_options
from isthmus.cli.agreement import agree, agreement_options


@click.command(
    epilog="""\b
Examples:
  isthmus node join https://hub.example --receivable 0
  isthmus node join https://hub.example --receivable 100 --asset USD --scale 9 --config isthmus.toml"""
)
@click.argument("url", metavar="URL")
@click.option("--name", metavar="ACCOUNT", help="What we call the account.  [default: parent]")
@agreement_options
@admin_options
def join(
    api: AdminApi,
    url: str,
    name: str | None,
    allow_insecure: bool,
    **options: Any,
) -> None:
    """Make the running node a child of the node at URL, if that takes children: account, address, route, ping.

    The parent says what it counts in and how much we may owe it; --receivable is how much it may owe us.
    """
    from isthmus.cli.joining import place_of

    place = place_of(url, allow_insecure=allow_insecure)
    agree(api, place, name=name, allow_insecure=allow_insecure, **options)
