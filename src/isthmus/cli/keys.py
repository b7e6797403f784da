"""`isthmus keys`: the keys with which settlement engines sign on their ledgers, and the contract they need there."""

import asyncio
import importlib.util
import json
import os
from pathlib import Path
from typing import Any, Final

import click

from isthmus.errors import ConfigError, LedgerError, not_installed

# The kinds of ledgers, each with the library without which nothing can be signed.
LIBRARIES: Final = {"evm": "eth_account", "xrp": "xrpl"}


@click.group(
    epilog="""\b
Examples:
  isthmus keys new xrp xrp.seed
  isthmus keys new evm evm.key --passphrase-variable EVM_PASSPHRASE
  isthmus keys address evm evm.key
  isthmus keys deploy evm.key --rpc https://node.example"""
)
def keys() -> None:
    """Make the keys with which settlement engines sign, and show their addresses.

    A key is for one engine of one node and nothing else: two that sign with it would be in each other's way. Lightning
    and the bank need none: lnd has its own, and a bank's account has a token.
    """


def _ledger_argument(command: Any) -> Any:
    return click.argument("ledger", type=click.Choice(list(LIBRARIES)))(command)


def _file_argument(command: Any) -> Any:
    return click.argument("file", type=click.Path(dir_okay=False, path_type=Path))(command)


def _options(command: Any) -> Any:
    command = click.option(
        "--json", "as_json", is_flag=True, help='`{"address": …}`, with what else was done.'
    )(command)  # fmt: skip
    return click.option(
        "--passphrase-variable", metavar="NAME", help="The environment variable with the file's passphrase."
    )(command)


@keys.command(epilog="\b\nExample:\n  isthmus keys new xrp xrp.seed")
@_ledger_argument
@_file_argument
@_options
def new(ledger: str, file: Path, passphrase_variable: str | None, as_json: bool) -> None:
    """Make a key in a new FILE, readable by its owner only, and print its address.

    With --passphrase-variable the file is encrypted, and the engine's configuration names the variable too.
    """
    kind = _keys_of(ledger)
    passphrase = os.environ.get(passphrase_variable, "") if passphrase_variable else None
    if passphrase == "":
        raise ConfigError("--passphrase-variable", f"the environment has no {passphrase_variable}", "Set it first.")
    try:
        key = kind.make_key_file(file, passphrase=passphrase)
    except OSError as error:
        raise ConfigError(str(file), f"{error.strerror}", "Name another file.") from None
    _tell(_address_of(key, ledger), as_json)


@keys.command(epilog="\b\nExample:\n  isthmus keys address evm evm.key --json")
@_ledger_argument
@_file_argument
@_options
def address(ledger: str, file: Path, passphrase_variable: str | None, as_json: bool) -> None:
    """Print the address of the key in FILE: where it is sent what it pays with."""
    _tell(_address_of(_read(ledger, file, passphrase_variable), ledger), as_json)


@keys.command(epilog="\b\nExample:\n  isthmus keys deploy evm.key --rpc http://127.0.0.1:8545")
@_file_argument
@click.option("--rpc", metavar="URL", required=True, envvar="ISTHMUS_EVM_RPC", help="A node of the chain.")
@_options
def deploy(file: Path, rpc: str, passphrase_variable: str | None, as_json: bool) -> None:
    """Put the channels' contract onto an EVM chain: once for each chain, by anybody. The key pays for it.

    A URL with a secret in it is better given by the variable ISTHMUS_EVM_RPC than in the command line.
    """
    key = _read("evm", file, passphrase_variable)
    from isthmus.ledgers.evm import contract
    from isthmus.ledgers.evm.deploying import deploy
    from isthmus.ledgers.evm.octets import checksummed

    try:
        done = asyncio.run(deploy(rpc, key))
    except TimeoutError:
        raise LedgerError("no block has taken it; look at the chain before you try again") from None
    if as_json:
        click.echo(json.dumps({"address": checksummed(contract.address()), "done": done}))
    else:
        click.echo(done)


def _keys_of(ledger: str) -> Any:
    """`isthmus.ledgers.LEDGER.keys`; both have the same functions. ConfigError without the library."""
    library = LIBRARIES[ledger]
    if importlib.util.find_spec(library) is None:
        raise not_installed(f"isthmus keys {ledger}", library, ledger)
    return importlib.import_module(f"isthmus.ledgers.{ledger}.keys")


def _read(ledger: str, file: Path, variable: str | None) -> Any:
    """The key in the file."""
    return _keys_of(ledger).read_key("FILE", file=file, variable=None, passphrase_variable=variable, environ=os.environ)


def _address_of(key: Any, ledger: str) -> str:
    """As people write it."""
    if ledger == "xrp":
        return str(key.address)
    from isthmus.ledgers.evm.octets import checksummed

    return checksummed(key.address)


def _tell(found: str, as_json: bool) -> None:
    click.echo(json.dumps({"address": found}) if as_json else found)
