"""Of `isthmus settlements`: money that came in and is nobody's yet, and whose it is in its operator's word."""

import json
from typing import Any

import click
from rich.table import Table

from isthmus.cli.accounts_view import console
from isthmus.cli.admin_api import AdminApi, admin_options
from isthmus.cli.books_view import cell, new_table, time_of
from isthmus.ilp.asset import Asset, format_amount


def table_of(transfers: list[dict[str, Any]]) -> Table:
    """For people; amounts in coins."""
    table = new_table("Unmatched", "engine", "transfer", "time (UTC)", "from", "reference", "amount", "why")
    for each in transfers:
        amount = format_amount(int(each["amount"]), Asset(each["unit_code"], each["unit_scale"]))
        row = (
            each["engine"],
            each["id"],
            time_of(each["at_ms"]),
            each["payer"],
            each["reference"],
            amount,
            each["why"],
        )
        table.add_row(*map(cell, row))
    return table


_JSON = click.option("--json", "as_json", is_flag=True, help="JSON; amounts are strings in base units.")


@click.command(
    epilog="""\b
Example:
  isthmus settlements unmatched --json | jq '.transfers[] | select(.payer == "ann")'"""
)
@_JSON
@admin_options
def unmatched(as_json: bool, api: AdminApi) -> None:
    """List transfers to us that say nothing, or too little, of whose they are."""
    found = api.call("GET", "/unmatched")
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    if not found["transfers"]:
        click.echo("Nothing waits." if found["engines"] else "No engine of this node finds such transfers.")
        return
    console().print(table_of(found["transfers"]))


@click.command(
    epilog='\b\nExample:\n  isthmus settlements assign bob 42 --note "they forgot the reference: their mail of 3 May"'
)
@click.argument("account", metavar="ACCOUNT")
@click.argument("transfer", metavar="TRANSFER")
@click.option("--note", required=True, help="How you know, for whoever reads the books later.")
@_JSON
@admin_options
def assign(account: str, transfer: str, note: str, as_json: bool, api: AdminApi) -> None:
    """Credit TRANSFER, one of `isthmus settlements unmatched`, to the peer of ACCOUNT. It happens once."""
    found = api.call("POST", f"/accounts/{account}/unmatched/{transfer}/assign", {"note": note})
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        click.echo(cell(f"{account} was credited {found['amount']} base units for transfer {transfer}.").plain)


@click.command(epilog='\b\nExample:\n  isthmus settlements dismiss bank 42 --note "a gift; it was sent back"')
@click.argument("engine", metavar="ENGINE")
@click.argument("transfer", metavar="TRANSFER")
@click.option("--note", required=True, help="Why, for the log.")
@_JSON
@admin_options
def dismiss(engine: str, transfer: str, note: str, as_json: bool, api: AdminApi) -> None:
    """Take TRANSFER from the list of ENGINE, with nothing credited."""
    found = api.call("POST", f"/unmatched/{engine}/{transfer}/dismiss", {"note": note})
    click.echo(json.dumps(found, indent=2) if as_json else f"Transfer {transfer} is dismissed.")


COMMANDS: tuple[click.Command, ...] = (unmatched, assign, dismiss)
