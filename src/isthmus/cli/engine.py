"""`isthmus engine`: run one of our settlement engines for a connector of anybody's, and look after what it keeps."""

import asyncio
import json
import sqlite3
from pathlib import Path
from typing import Any, Final

import click

from isthmus.cli.accounts_view import console
from isthmus.cli.unmatched import table_of
from isthmus.errors import LedgerError


class _Types(click.Command):
    """Its help lists the types of engines."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from isthmus.node.engine_config import served_kinds

        super().format_options(ctx, formatter)
        with formatter.section("Types"):
            formatter.write_dl(list(served_kinds().items()))


class _TypesGroup(_Types, click.Group):
    """The same of a group."""


_RUN_EXAMPLES: Final = """\b
Examples:
  isthmus engine run xrp engine.toml                    # channels on the XRP Ledger
  isthmus engine run evm engine.toml                    # channels on a chain; method = "transfers" in the file
  isthmus engine run lightning engine.toml --log-level debug
  isthmus engine run bank engine.toml
\b
A file for `xrp`, beside a connector at port 3001:
  asset = "XRP"
  scale = 9
  listen = "127.0.0.1:3000"          # where the connector calls the engine
  [connector]
  url = "http://127.0.0.1:3001"      # where the engine tells what came in
  [engine]                           # as in [settlement.NAME] of a node
  network_id = 1
  rpc = "https://s.altnet.rippletest.net:51234"
  key_file = "xrp.seed"
  deposit = "20"
\b
All keys of each type: docs/configuration.md.
"""


@click.group(
    cls=_TypesGroup,
    epilog="""\b
Examples:
  isthmus engine run bank engine.toml
  isthmus engine show bank engine.toml
  isthmus engine retry bank engine.toml alice 7 --note "their account was closed; the new one is in the file"
""",
)
def engine() -> None:
    """Run a settlement engine for another connector (Interledger RFC 38)."""


_FILE = click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
_KIND = click.argument("kind", metavar="TYPE")


@engine.command(cls=_Types, epilog=_RUN_EXAMPLES)
@_KIND
@_FILE
@click.option(
    "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info", show_default=True
)
def run(kind: str, file: Path, log_level: str) -> int:
    """Run an engine of TYPE, as FILE configures it, until it is told to stop."""
    from isthmus.node import engine_process
    from isthmus.node.engine_config import load_engine

    return engine_process.run(load_engine(kind, file), level=log_level)


@engine.command(epilog="\b\nExample:\n  isthmus engine show bank engine.toml --json")
@_KIND
@_FILE
@click.option("--json", "as_json", is_flag=True, help="One JSON object; amounts are strings in base units.")
def show(kind: str, file: Path, as_json: bool) -> None:
    """Show what is under way: settlements that are not at their end, and what the connector has not acknowledged."""
    from isthmus.connector.settling import OPEN_STATES, STATES
    from isthmus.ilp.asset import format_amount
    from isthmus.node.engine_config import load_engine
    from isthmus.node.engine_process import STORE_FILE

    config = load_engine(kind, file)
    path = config.data / STORE_FILE
    if not path.is_file():
        raise LedgerError(f"{path} isn't there: the engine has never run")
    try:
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as db:
            marks = ", ".join("?" * len(OPEN_STATES))
            found = db.execute(
                f"SELECT account, number, amount, state, text FROM settlements WHERE state IN ({marks})",  # noqa: S608
                OPEN_STATES,
            ).fetchall()
            waiting = db.execute("SELECT account, amount, scale, text FROM credits ORDER BY id").fetchall()
        db.close()
    except sqlite3.Error as error:
        raise LedgerError(f"{path}: {error}") from None
    settlements = [
        {"account": row[0], "number": row[1], "amount": row[2], "state": STATES[row[3]], "text": row[4]}
        for row in found
    ]
    credits = [{"account": row[0], "amount": row[1], "scale": row[2], "text": row[3]} for row in waiting]
    if as_json:
        click.echo(json.dumps({"settlements": settlements, "credits": credits}, indent=2))
        return
    for one in settlements:
        amount = format_amount(int(one["amount"]), config.asset)
        click.echo(f"{one['account']}  settlement {one['number']}  {amount}  {one['state']}  {one['text']}".rstrip())
    for each in credits:
        click.echo(
            f"{each['account']}  {each['amount']} at scale {each['scale']} came in, not acknowledged  {each['text']}"
        )
    if not settlements and not credits:
        click.echo("Nothing is under way.")


@engine.command(epilog='\b\nExample:\n  isthmus engine retry bank engine.toml alice 7 --note "they opened an account"')
@_KIND
@_FILE
@click.argument("account")
@click.argument("number", type=click.IntRange(1))
@click.option("--note", required=True, help="Why, for whoever looks at it later.")
def retry(kind: str, file: Path, account: str, number: int, note: str) -> None:
    """Replace settlement NUMBER of ACCOUNT, which has failed for good, by a new one. The engine must be stopped."""
    from isthmus.connector.events import AccountId
    from isthmus.node.engine_config import load_engine
    from isthmus.node.engine_process import open_store

    store = open_store(load_engine(kind, file))
    try:
        fresh = store.begin_again(AccountId(account), number, note)
    finally:
        store.close()
    click.echo(f"Settlement {fresh} takes its place; the engine pays it when it runs.")


@engine.command(epilog="\b\nExample:\n  isthmus engine unmatched bank engine.toml")
@_KIND
@_FILE
@click.option("--json", "as_json", is_flag=True, help="JSON; amounts are strings in base units.")
def unmatched(kind: str, file: Path, as_json: bool) -> None:
    """List transfers to us that say nothing of whose they are. The engine must be stopped."""
    from isthmus.node.engine_config import load_engine
    from isthmus.node.engine_process import looked_at

    async def look() -> list[dict[str, Any]]:
        async with looked_at(load_engine(kind, file)) as keeper:
            return [{"engine": kind, **each.to_json()} for each in keeper.unmatched()]

    found = asyncio.run(look())
    if as_json:
        click.echo(json.dumps({"transfers": found}, indent=2))
    elif found:
        console().print(table_of(found))
    else:
        click.echo("Nothing waits.")


@engine.command(epilog='\b\nExample:\n  isthmus engine assign bank engine.toml alice 42 --note "their mail of 3 May"')
@_KIND
@_FILE
@click.argument("account")
@click.argument("transfer")
@click.option("--note", required=True, help="How you know, for whoever looks at it later.")
def assign(kind: str, file: Path, account: str, transfer: str, note: str) -> None:
    """Credit TRANSFER, which was nobody's, to ACCOUNT, once. The engine must be stopped; it tells its connector."""
    from isthmus.connector.events import AccountId
    from isthmus.node.engine_config import load_engine
    from isthmus.node.engine_process import looked_at

    async def change() -> None:
        async with looked_at(load_engine(kind, file)) as keeper:
            await keeper.assign(transfer, AccountId(account), note)

    asyncio.run(change())
    click.echo(f"{account} is credited for transfer {transfer}; the engine tells its connector when it runs.")


@engine.command(epilog='\b\nExample:\n  isthmus engine dismiss bank engine.toml 42 --note "a gift; it was sent back"')
@_KIND
@_FILE
@click.argument("transfer")
@click.option("--note", required=True, help="Why, for whoever looks at it later.")
def dismiss(kind: str, file: Path, transfer: str, note: str) -> None:
    """Take TRANSFER from the list, with nothing credited. The engine must be stopped."""
    from isthmus.node.engine_config import load_engine
    from isthmus.node.engine_process import looked_at

    async def change() -> None:
        async with looked_at(load_engine(kind, file)) as keeper:
            await keeper.dismiss(transfer, note)

    asyncio.run(change())
    click.echo(f"Transfer {transfer} is dismissed.")
