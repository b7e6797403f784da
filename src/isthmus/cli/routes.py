"""`isthmus routes`: show the routes of a running node, and add and remove configured ones."""

import json

import click

from isthmus.cli.accounts_view import console, routes_table
from isthmus.cli.admin_api import AdminApi, admin_options


@click.group(
    epilog="""\b
Examples:
  isthmus routes show
  isthmus routes show test.bob.shop --why
  isthmus routes add test.bob bob
  isthmus routes remove test.bob"""
)
def routes() -> None:
    """Show the routes of a running node, and change those that are configured."""


@routes.command(
    epilog="""\b
Examples:
  isthmus routes show
  isthmus routes show test.bob.shop --why
  isthmus routes show --json | jq -r '.routes[].prefix'"""
)
@click.argument("prefix", required=False, default="")
@click.option("--why", is_flag=True, help="Say why packets to PREFIX take the route that they take.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@admin_options
def show(api: AdminApi, prefix: str, why: bool, as_json: bool) -> None:
    """Show the routes in force: all, or those below PREFIX and the one that its packets take."""
    if why and not prefix:
        raise click.UsageError("--why needs a PREFIX.", click.get_current_context())
    query = {**({"prefix": prefix} if prefix else {}), **({"why": "true"} if why else {})}
    found = api.call("GET", "/routes", query=query)
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    if why:
        click.echo(f"{prefix} → {found['why']['account'] or 'nowhere'}. {found['why']['text']}")
        for other in found["why"]["others"]:
            length = len(other["path"])
            click.echo(f"  {other['account']} ({other['relation']}) reaches it too: path of {length}; {other['text']}")
        click.echo()
    console().print(routes_table(found["routes"]))
    if found["left_off"]:
        click.echo(f"{found['left_off']} more are not shown: give a longer PREFIX.")


@routes.command(
    epilog="""\b
Examples:
  isthmus routes add test.bob bob
  isthmus routes add default hub      # what no other route takes"""
)
@click.argument("prefix")
@click.argument("account")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@admin_options
def add(api: AdminApi, prefix: str, account: str, as_json: bool) -> None:
    """Let packets to PREFIX leave by ACCOUNT; a route that was there for PREFIX is replaced."""
    answer = api.call("PUT", f"/routes/{prefix}", {"account": account})
    if as_json:
        click.echo(json.dumps(answer, indent=2))
    else:
        click.echo(f"{prefix} → {account}." if answer["changed"] else f"{prefix} → {account} already.")


@routes.command(epilog="\b\nExample:\n  isthmus routes remove test.bob")
@click.argument("prefix")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@admin_options
def remove(api: AdminApi, prefix: str, as_json: bool) -> None:
    """Remove the configured route of PREFIX."""
    answer = api.call("DELETE", f"/routes/{prefix}")
    if as_json:
        click.echo(json.dumps(answer, indent=2))
    else:
        click.echo(f"Removed {prefix}." if answer["changed"] else f"There is no configured route {prefix}.")
