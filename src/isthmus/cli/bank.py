"""`isthmus ledger bank`: a small double-entry ledger, and what its operator and its holders do with it."""

import json
import os
import secrets
import urllib.parse
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, Final

import click

from isthmus.cli.accounts_view import console
from isthmus.cli.books_view import cell, new_table, time_of
from isthmus.cli.http_json import Json, NoAnswerError, RefusalError, exchange
from isthmus.errors import ConfigError, LedgerError, not_installed
from isthmus.ilp.asset import Asset, format_amount, format_decimal, parse_amount

PORT: Final = 7650
URL: Final = f"http://127.0.0.1:{PORT}"
TOKEN_FILE: Final = "bank.token"
TOKEN_VARIABLE: Final = "ISTHMUS_BANK_TOKEN"
DATABASE: Final = "bank.db"
ANSWER_S_MAX: Final = 30.0
ANSWER_BYTES_MAX: Final = 1_048_576
PAGE: Final = 100
UNLIMITED: Final = "unlimited"


@click.group(
    epilog="""\b
Examples:
  isthmus ledger bank run
  isthmus ledger bank open issuer USD --scale 2 --overdraft unlimited
  isthmus ledger bank open ann USD --scale 2 --name "Ann"
  isthmus ledger bank transfer issuer ann 100 --reference "welcome"
  isthmus ledger bank statement ann
  isthmus ledger bank token new ann --label "her phone" """
)
def bank() -> None:
    """A small double-entry ledger that only transfers: for a club, a game, a test.

    `run` serves it; the other commands ask a running one, as its operator or with a holder's token.
    """


class MisusedBankError(click.ClickException):
    """What was asked makes no sense there."""

    exit_code = 2


class BankApi:
    """A running bank, and whose token it is asked with."""

    def __init__(self, url: str, token_file: Path) -> None:
        self._url: Final = url.rstrip("/")
        self._token_file: Final = token_file

    def call(self, method: str, path: str, body: Json | None = None, *, key: str | None = None, **query: str) -> Json:
        """What it answers. LedgerError, or a usage error for what makes no sense."""
        url = self._url + urllib.parse.quote(path) + (f"?{urllib.parse.urlencode(query)}" if query else "")
        headers = {} if key is None else {"Idempotency-Key": key}
        try:
            return exchange(
                method,
                url,
                body,
                token=_token(self._token_file),
                wait_s_max=ANSWER_S_MAX,
                bytes_max=ANSWER_BYTES_MAX,
                directly=True,
                headers=headers,
            )
        except RefusalError as refusal:
            detail = refusal.detail or f"it answers {refusal.status}, and gives no reason."
            if refusal.status == 401:
                detail += f" Set ${TOKEN_VARIABLE}, or give --token-file."
            if refusal.status >= 500:  # its database, most likely: nobody knows what became of it
                raise LedgerError(f"the bank says: {detail}") from None
            kind = MisusedBankError if refusal.status in (400, 401, 403, 404, 405, 422) else click.ClickException
            raise kind(f"the bank says: {detail}") from None
        except NoAnswerError as error:
            raise LedgerError(f"the bank at {self._url} didn't answer: {error}") from None

    def account(self, account: str) -> Json:
        return self.call("GET", f"/accounts/{account}")


def _with_api(command: Callable[..., Any]) -> Callable[..., Any]:
    @click.option("--url", envvar="ISTHMUS_BANK_URL", default=URL, show_default=True, help="Where the bank is.")
    @click.option(
        "--token-file",
        type=click.Path(dir_okay=False, path_type=Path),
        default=TOKEN_FILE,
        show_default=True,
        help=f"The token, if {TOKEN_VARIABLE} isn't set.",
    )
    @click.option("--json", "as_json", is_flag=True, help="JSON; amounts are strings in base units.")
    @wraps(command)
    def with_api(*args: Any, url: str, token_file: Path, **options: Any) -> Any:
        return command(*args, api=BankApi(_checked(url), token_file), **options)

    return with_api


def _checked(url: str) -> str:
    from isthmus.links.http.urls import check_url

    check_url("--url", url, allow_insecure=False)
    return url


def _token(file: Path) -> str:
    token = os.environ.get(TOKEN_VARIABLE, "").strip()
    if token:
        return token
    try:
        token = file.read_text().strip()
    except (OSError, ValueError):
        remedy = f"Set {TOKEN_VARIABLE}, or name the file that `isthmus ledger bank run` wrote"
        raise ConfigError("--token-file", f"{file} can't be read", remedy) from None
    if not token.isascii() or not token.isprintable():
        raise ConfigError("--token-file", f"{file} has no token", "Name the one that `isthmus ledger bank run` wrote")
    return token


def _asset(account: Json) -> Asset:
    return Asset(account["asset_code"], account["asset_scale"])


def _units(option: str, text: str, asset: Asset) -> str:
    try:
        return str(parse_amount(text, asset))
    except ValueError as error:
        raise ConfigError(option, str(error), f"Write it in {asset.code}") from None


def _overdraft(text: str, asset: Asset) -> str | None:
    return None if text == UNLIMITED else _units("--overdraft", text, asset)


@bank.command(
    epilog="""\b
Examples:
  isthmus ledger bank run
  isthmus ledger bank run --database club.db --port 8000
  ISTHMUS_BANK_DATABASE=postgresql://bank:…@db.example/bank isthmus ledger bank run"""
)
@click.option(
    "--database",
    envvar="ISTHMUS_BANK_DATABASE",
    default=DATABASE,
    show_default=True,
    help="A file, or postgresql://…; one with a password belongs into ISTHMUS_BANK_DATABASE.",
)
@click.option(
    "--token-file",
    type=click.Path(dir_okay=False, path_type=Path),
    default=TOKEN_FILE,
    show_default=True,
    help="The operator's token; made if it isn't there.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen.")
@click.option("--port", type=click.IntRange(0, 65_535), default=PORT, show_default=True, help="0 takes a free one.")
@click.option("--cert-file", type=click.Path(dir_okay=False, path_type=Path), help="For TLS: the certificate.")
@click.option("--key-file", type=click.Path(dir_okay=False, path_type=Path), help="For TLS: its private key.")
@click.option("--allow-insecure", is_flag=True, help="No TLS beyond this machine, where another layer encrypts.")
@click.option("--json", "as_json", is_flag=True, help="Say where it listens as one JSON object.")
def run(
    database: str,
    token_file: Path,
    host: str,
    port: int,
    cert_file: Path | None,
    key_file: Path | None,
    allow_insecure: bool,
    as_json: bool,
) -> None:
    """Serve the bank in --database, which is made if it isn't there, until it is told to stop."""
    run_bank = _bank_run().run_bank
    from isthmus.node.config_model import ServerTls

    if (cert_file is None) != (key_file is None):
        raise ConfigError("--key-file", "TLS needs --cert-file and --key-file", "Give both")
    tls = None if cert_file is None or key_file is None else ServerTls(cert_file=cert_file, key_file=key_file)
    run_bank(database, token_file, host, port, tls, allow_insecure=allow_insecure, as_json=as_json)


def _bank_run() -> Any:
    try:
        from isthmus.cli import bank_run
    except ImportError as error:
        raise not_installed("isthmus ledger bank", error.name, "bank") from None
    return bank_run


@bank.command("open", epilog="\b\nExample:\n  isthmus ledger bank open ann USD --scale 2 --name Ann --overdraft 50")
@click.argument("account", metavar="ACCOUNT")
@click.argument("asset", metavar="ASSET")
@click.option("--scale", type=click.IntRange(0, 18), default=2, show_default=True, help="Decimal places of the asset.")
@click.option("--name", default="", help="Whose it is.")
@click.option(
    "--overdraft",
    default="0",
    show_default=True,
    help=f"How far below zero it may go; {UNLIMITED!r} for who issues the asset.",
)
@_with_api
def open_account(account: str, asset: str, scale: int, name: str, overdraft: str, as_json: bool, api: BankApi) -> None:
    """Open an account for ASSET. The same again changes nothing."""
    limit = _overdraft(overdraft, Asset(asset, scale))
    body = {"id": account, "name": name, "asset_code": asset, "asset_scale": scale, "overdraft": limit}
    found = api.call("POST", "/accounts", body)
    _show(found, as_json, f"{account} is open; its balance is {_amount(found, 'balance')}.")


@bank.command(epilog="\b\nExample:\n  isthmus ledger bank change ann --overdraft 100")
@click.argument("account", metavar="ACCOUNT")
@click.option("--name", help="Whose it is.")
@click.option("--overdraft", help=f"How far below zero it may go, or {UNLIMITED!r}.")
@_with_api
def change(account: str, name: str | None, overdraft: str | None, as_json: bool, api: BankApi) -> None:
    """Change an account's name or overdraft."""
    body: Json = {} if name is None else {"name": name}
    if overdraft is not None:
        body["overdraft"] = _overdraft(overdraft, _asset(api.account(account)))
    if not body:
        raise ConfigError("isthmus ledger bank change", "nothing to change", "Give --name or --overdraft")
    _show(api.call("PATCH", f"/accounts/{account}", body), as_json, f"{account} is changed.")


@bank.command(epilog="\b\nExample:\n  isthmus ledger bank accounts --json | jq '.accounts[].balance'")
@_with_api
def accounts(as_json: bool, api: BankApi) -> None:
    """List all accounts and their balances."""
    found: list[Json] = []
    page = api.call("GET", "/accounts")
    found += page["accounts"]
    while page["next"] is not None:
        page = api.call("GET", "/accounts", after=page["next"])
        found += page["accounts"]
    if as_json:
        click.echo(json.dumps({"accounts": found}, indent=2))
        return
    if not found:
        click.echo("No account is open: isthmus ledger bank open --help")
        return
    table = new_table("Accounts", "account", "name", "balance", "overdraft", "entries")
    for each in found:
        limit = UNLIMITED if each["overdraft"] is None else _amount(each, "overdraft")
        table.add_row(*map(cell, (each["id"], each["name"], _amount(each, "balance"), limit, str(each["entries"]))))
    console().print(table)


@bank.command(
    epilog="""\b
Examples:
  isthmus ledger bank transfer ann bob 12.5 --reference "lunch"
  isthmus ledger bank transfer ann bob 12.5 --key 3d2c    # again and again: it happens once"""
)
@click.argument("payer", metavar="FROM")
@click.argument("payee", metavar="TO")
@click.argument("amount", metavar="AMOUNT")
@click.option("--reference", default="", help="Shown in both statements.")
@click.option("--key", help="Makes it happen once, however often you repeat it.  [default: a fresh one]")
@_with_api
def transfer(payer: str, payee: str, amount: str, reference: str, key: str | None, as_json: bool, api: BankApi) -> None:
    """Transfer AMOUNT from an account to another one in the same asset."""
    asset = _asset(api.account(payer))
    used = secrets.token_hex(16) if key is None else key
    body = {"to": payee, "amount": _units("AMOUNT", amount, asset), "reference": reference}
    try:
        found = api.call("POST", f"/accounts/{payer}/transfers", body, key=used)
    except LedgerError as error:
        raise LedgerError(f"{error}; it may be done: repeat it with --key {used}") from None
    text = f"{payer} paid {payee} {format_amount(int(found['amount']), asset)}. Key: {used}"
    _show(found, as_json, text)


@bank.command(
    epilog="""\b
Examples:
  isthmus ledger bank statement ann
  isthmus ledger bank statement ann --after 1200 --json"""
)
@click.argument("account", metavar="ACCOUNT")
@click.option("--last", type=click.IntRange(1, 10_000), default=50, show_default=True, help="So many of the newest.")
@click.option("--after", type=click.IntRange(0), help="Or all after the entry of this number, 10,000 at most.")
@_with_api
def statement(account: str, last: int, after: int | None, as_json: bool, api: BankApi) -> None:
    """Show what came and went on ACCOUNT, oldest first."""
    about = api.account(account)
    start = max(0, about["entries"] - last) if after is None else after
    entries: list[Json] = []
    while len(entries) < 10_000:
        page = api.call("GET", f"/accounts/{account}/entries", after=str(start), limit=str(PAGE))
        about = page["account"]
        entries += page["entries"]
        if len(page["entries"]) < PAGE:
            break
        start = page["entries"][-1]["number"]
    if as_json:
        click.echo(json.dumps({"account": about, "entries": entries}, indent=2))
        return
    asset = _asset(about)
    table = new_table(f"{account}, in {asset.code}", "number", "time (UTC)", "with", "reference", "amount", "balance")
    for each in entries:
        amounts = (format_decimal(int(each[name]), asset.scale) for name in ("amount", "balance"))
        row = (str(each["number"]), time_of(each["at_ms"]), each["counterparty"], each["reference"], *amounts)
        table.add_row(*map(cell, row))
    if entries:
        console().print(table)
    click.echo(f"Balance: {_amount(about, 'balance')}")


@bank.group()
def token() -> None:
    """Tokens of an account's holder: what its app or its settlement engine shows."""


@token.command("new", epilog="\b\nExample:\n  isthmus ledger bank token new ann --label engine > ann.token")
@click.argument("account", metavar="ACCOUNT")
@click.option("--label", default="", help="What it is for.")
@_with_api
def new_token(account: str, label: str, as_json: bool, api: BankApi) -> None:
    """Make a token for ACCOUNT and print it: it is told this once."""
    found = api.call("POST", f"/accounts/{account}/tokens", {"label": label})
    _show(found, as_json, found["token"])


@token.command("list", epilog="\b\nExample:\n  isthmus ledger bank token list ann")
@click.argument("account", metavar="ACCOUNT")
@_with_api
def list_tokens(account: str, as_json: bool, api: BankApi) -> None:
    """List the tokens of ACCOUNT, without their secrets."""
    found = api.call("GET", f"/accounts/{account}/tokens")
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    table = new_table(f"Tokens of {account}", "token", "made (UTC)", "label")
    for each in found["tokens"]:
        table.add_row(*map(cell, (each["id"], time_of(each["created_at_ms"]), each["label"])))
    console().print(table)


@token.command(epilog="\b\nExample:\n  isthmus ledger bank token revoke ann 0f3c2a9d81e64b57")
@click.argument("account", metavar="ACCOUNT")
@click.argument("token_id", metavar="TOKEN")
@_with_api
def revoke(account: str, token_id: str, as_json: bool, api: BankApi) -> None:
    """Refuse the token whose id is TOKEN, from here on."""
    found = api.call("DELETE", f"/accounts/{account}/tokens/{token_id}")
    _show(found, as_json, f"The token {token_id} is good for nothing any more.")


@bank.command(epilog="\b\nExample:\n  isthmus ledger bank audit --database bank.db")
@click.option(
    "--database", envvar="ISTHMUS_BANK_DATABASE", help="Read it here, without the server.  [default: ask the server]"
)
@_with_api
def audit(database: str | None, as_json: bool, api: BankApi) -> int:
    """Read all books: each asset sums to zero, each balance is the sum of its entries. Exit status 1 if not."""
    problems = api.call("GET", "/audit")["problems"] if database is None else _bank_run().audit_database(database)
    if as_json:
        click.echo(json.dumps({"problems": problems}, indent=2))
    else:
        for each in problems:
            click.echo(cell(each).plain)
        click.echo(f"{len(problems)} problems." if problems else "The books are right: each asset sums to zero.")
    return 1 if problems else 0


def _amount(account: Json, name: str) -> str:
    return format_amount(int(account[name]), _asset(account))


def _show(found: Json, as_json: bool, text: str) -> None:
    click.echo(json.dumps(found, indent=2) if as_json else cell(text).plain)
