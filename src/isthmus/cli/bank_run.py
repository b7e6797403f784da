"""`isthmus ledger bank run`: the bank as a process, from its database and its token file to the end."""

import asyncio
import json
import os
import secrets
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Final

import click

from isthmus import __version__
from isthmus.errors import ConfigError, LedgerError
from isthmus.ledgers.bank.database import SQLITE, Database, database_url
from isthmus.ledgers.bank.rules import Bank, new_operator_token
from isthmus.ledgers.bank.server import BankServer
from isthmus.ledgers.bank.values import RefusedError
from isthmus.links.http.listener import HttpListener
from isthmus.links.http.urls import is_loopback
from isthmus.links.places import StrangerBounds
from isthmus.node.config_model import ServerTls
from isthmus.node.tls import server_context
from isthmus.runtime import clock

TOKEN_LABEL: Final = "operator"  # of the token in the file; another file replaces it
CONNECTIONS_MAX: Final = 64  # of one holder
STRANGERS: Final = StrangerBounds(strangers_max=128, strangers_per_address_max=64)
IDLE_S_MAX: Final = 75.0
STOP_S_MAX: Final = 5.0


def open_bank(database: str) -> Bank:
    """The bank in this file or database, which is made if there is none. ConfigError, LedgerError."""
    url = database_url(database)
    if url.get_backend_name() == SQLITE:
        assert url.database is not None
        try:
            # For its owner alone, from the first moment.
            os.close(os.open(url.database, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
        except OSError as error:
            raise ConfigError("--database", f"{url.database}: {error.strerror}", "Name a file") from None
    return Bank(Database(url, new_id=lambda: secrets.token_hex(16)), now_ms=lambda: clock.system_now().wall_ms)


def operator_token(bank: Bank, file: Path) -> None:
    """The token in this file is the operator's; there is one if there was none."""
    try:
        with os.fdopen(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600), "w") as new:
            new.write(new_operator_token() + "\n")
    except FileExistsError:
        pass
    except OSError as error:
        raise ConfigError("--token-file", f"{file}: {error.strerror}", "Name a file") from None
    try:
        bank.ensure_operator(file.read_text().strip(), TOKEN_LABEL)
    except RefusedError:
        raise ConfigError("--token-file", f"{file} has no token of a bank", "Remove it: a new one is made") from None
    except (OSError, ValueError):
        raise ConfigError("--token-file", f"{file} can't be read", "Name a file") from None


def run_bank(
    database: str,
    token_file: Path,
    host: str,
    port: int,
    tls: ServerTls | None,
    *,
    allow_insecure: bool,
    as_json: bool,
) -> None:
    """Until SIGTERM or SIGINT."""
    if tls is None and not allow_insecure and not is_loopback(host):
        remedy = "Give --cert-file and --key-file, or --allow-insecure if another layer encrypts"
        raise ConfigError("--host", f"{host} can be reached by others, and tokens would travel in the clear", remedy)
    context = None if tls is None else server_context(tls)
    bank = open_bank(database)
    try:
        operator_token(bank, token_file)
        server = BankServer(
            bank,
            lambda app: HttpListener(
                app,
                (host, port),
                mono_ms=clock.mono_ms,
                ssl_context=context,
                strangers=STRANGERS,
                connections_max=CONNECTIONS_MAX,
                keepalive_timeout=IDLE_S_MAX,
                shutdown_timeout=STOP_S_MAX,
            ),
            version=__version__,
            is_secure=tls is not None,
        )
        asyncio.run(_serve(server, lambda url: _welcome(bank, url, database, token_file, as_json=as_json)))
    finally:
        bank.close()


async def _serve(server: BankServer, say: Callable[[str], None]) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await server.start()
    try:
        say(server.url)
        await stop.wait()
    finally:
        await server.close()


def _welcome(bank: Bank, url: str, database: str, token_file: Path, *, as_json: bool) -> None:
    place = database_url(database).render_as_string(hide_password=True)
    if as_json:
        click.echo(json.dumps({"url": url, "bank": bank.id, "database": place, "token_file": str(token_file)}))
        return
    lines = {"API": f"{url}, described at {url}/openapi.json", "Bank": bank.id, "Kept in": place,
             "Token": f"{token_file}: who has it is the operator"}  # fmt: skip
    click.echo("A bank of yours.\n")
    for name, text in lines.items():
        click.echo(f"  {name:<8} {text}")
    click.echo("\nCtrl-C ends.")


def audit_database(database: str) -> list[str]:
    """What is wrong with the books there, read without the server."""
    url = database_url(database)
    if url.get_backend_name() == SQLITE and not Path(str(url.database)).is_file():
        raise LedgerError(f"{url.database} isn't there")
    bank = open_bank(database)
    try:
        return bank.audit()
    finally:
        bank.close()
