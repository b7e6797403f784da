"""`isthmus settle`: pay a peer now by the account's engine, or book what was paid where no engine looks."""

import json
import secrets
from pathlib import Path
from typing import Final

import click

from isthmus.cli.admin_api import AdminApi, find_api, find_node, node_options
from isthmus.cli.books_correct import asset_of, book, key_and_note, show_booked, units_of
from isthmus.cli.books_replay import journal_path
from isthmus.cli.http_json import Json
from isthmus.connector.events import AccountId, RecordSettlement
from isthmus.errors import ConfigError
from isthmus.ilp.asset import Asset, format_amount

BY_US: Final = "by-us"
BY_PEER: Final = "by-peer"


@click.command(
    epilog="""\b
Examples:
  isthmus settle bob                       # what leads to the target of the account's terms
  isthmus settle bob 12.5 --note "before the weekend"
  isthmus settle bob 12.5 --by-hand --paid by-us --note "bank transfer of 3 May, reference 4711"
  isthmus settle bob 12.5 --by-hand --paid by-peer --note "cash\""""
)
@click.argument("account", metavar="ACCOUNT")
@click.argument("amount", metavar="[AMOUNT]", required=False)
@click.option("--by-hand", is_flag=True, help="It was paid already, elsewhere: only book it. Also of a stopped node.")
@click.option("--paid", type=click.Choice([BY_US, BY_PEER]), help="With --by-hand: who paid whom.")
@click.option("--note", help="Why, for whoever reads the books later; needed with --by-hand.")
@click.option("--key", help="Makes it happen once, however often you repeat it.  [default: a fresh one]")
@click.option("--json", "as_json", is_flag=True, help="One JSON object; the amount is a string in base units.")
@node_options
def settle(
    account: str,
    amount: str | None,
    by_hand: bool,
    paid: str | None,
    note: str | None,
    key: str | None,
    as_json: bool,
    config: Path | None,
    data: Path | None,
) -> None:
    """Pay the peer of ACCOUNT what we owe it, or AMOUNT of it, now.

    The books are debited when the command ends; `isthmus settlements list` tells how the payment goes on.
    """
    if by_hand:
        if amount is None or paid is None or note is None:
            raise click.UsageError("--by-hand needs AMOUNT, --paid and --note.", click.get_current_context())
        _by_hand(account, amount, paid, note, key, as_json, config, data)
        return
    if paid is not None:
        raise click.UsageError("--paid is for --by-hand.", click.get_current_context())
    api = find_api(config, data)
    asset = _asset(api, account)
    body: Json = {"key": secrets.token_hex(16) if key is None else key}
    if note is not None:
        body["note"] = note
    if amount is not None:
        body["amount"] = str(units_of("AMOUNT", amount, asset))
    found = api.call("POST", f"/accounts/{account}/settle", body)
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    shown = format_amount(int(found["amount"]), asset)
    number = f"settlement {found['number']}" if found["number"] != "0" else "by this key before"
    click.echo(f"Settled {shown} with {account}: {number}. Key: {found['key']}")


def _by_hand(
    account: str,
    amount: str,
    paid: str,
    note: str,
    key: str | None,
    as_json: bool,
    config: Path | None,
    data: Path | None,
) -> None:
    config, data, _ = find_node(config, data)
    path = journal_path(data)
    asset = asset_of(path, account)
    units = units_of("AMOUNT", amount, asset)
    signed = units if paid == BY_PEER else -units
    event = RecordSettlement(AccountId(account), signed, *key_and_note(key, note), 0)
    booked, where = book(path, event, config)
    who = f"{account} paid us" if booked > 0 else f"we paid {account}"
    show_booked(event, booked, f"Booked {where}: {who} {format_amount(abs(booked), asset)}", as_json)


def _asset(api: AdminApi, account: str) -> Asset:
    for each in api.call("GET", "/accounts")["accounts"]:
        if each["id"] == account:
            return Asset(each["asset_code"], each["asset_scale"])
    raise ConfigError(f"ACCOUNT {account}", "there is no such account", "See isthmus accounts list")
