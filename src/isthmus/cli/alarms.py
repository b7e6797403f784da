"""Of `isthmus settlements`: an alarm that its operator has looked after."""

import json

import click

from isthmus.cli.admin_api import AdminApi, admin_options
from isthmus.cli.books_view import cell


@click.command(
    epilog="""\b
Examples:
  isthmus settlements clear eth evm_transaction_failed bob --note "too little gas money; sent 1 ETH"
  isthmus settlements clear bank bank_transfer_to_nobody --note "they are written to" """
)
@click.argument("engine", metavar="ENGINE")
@click.argument("alarm", metavar="ALARM")
@click.argument("account", metavar="[ACCOUNT]", default="")
@click.option("--note", required=True, help="What was done, for the log.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@admin_options
def clear(engine: str, alarm: str, account: str, note: str, as_json: bool, api: AdminApi) -> None:
    """Say that what ALARM of ENGINE told of has been looked after. It is shown again if it happens again.

    Alarms end by themselves where an engine sees that their cause has ended; what happened once has no end to see.
    """
    about = {"account": account} if account else {}
    found = api.call("POST", f"/engines/{engine}/alarms/{alarm}/clear", {"note": note, **about})
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        click.echo(cell(f"{alarm} of {engine}{f' for {account}' if account else ''} stands no more.").plain)
