"""What `isthmus peer accept` and `isthmus node join` share: the options of who agrees to another node's terms."""

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from isthmus.cli.admin_api import AdminApi
from isthmus.cli.limits import limit_options, limits_of

if TYPE_CHECKING:
    from isthmus.cli.joining import Place


def agreement_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--asset`, `--scale`, `--allow-insecure`, `--json` and the limits of our account."""
    options = (
        click.option("--asset", help="Refuse if they count in another asset."),
        click.option("--scale", type=int, help="Refuse if they count with another scale."),
        click.option("--allow-insecure", is_flag=True, help="Speak without TLS beyond this machine."),
        click.option("--json", "as_json", is_flag=True, help="One JSON object."),
    )
    command = limit_options(command)
    for option in reversed(options):
        command = option(command)
    return command


def agree(api: AdminApi, place: "Place", *, name: str | None, allow_insecure: bool, **options: Any) -> None:
    """Become the other node's neighbour on these terms, and print what happened."""
    from isthmus.cli.joining import come_together, tell

    agreed = {key: options[key] for key in ("asset", "scale")}
    limits = limits_of(options)
    found = come_together(api, place, name=name, limits=limits, agreed=agreed, allow_insecure=allow_insecure)
    if options["as_json"]:
        click.echo(json.dumps(found, indent=2))
    else:
        tell(found)
