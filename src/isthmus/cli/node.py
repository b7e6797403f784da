"""`isthmus node`: make, check and run a connector from a TOML file."""

import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

import click

from isthmus.cli.node_join import join
from isthmus.errors import ConfigError
from isthmus.links.btp.url import parse_btp_url
from isthmus.node.config_template import FILE_NAME, SECRETS_FOLDER, Keep, Template, variable

if TYPE_CHECKING:
    from rich.table import Table

    from isthmus.node.config_model import Account, NodeConfig

TOKEN_BYTES = 32  # AUTH-2


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def node() -> None:
    """Make, check and run a connector."""


node.add_command(join)

# --- init ------------------------------------------------------------------------------------------------------------

_INIT_EXAMPLES = """\b
Examples:
  isthmus node init                                        # into ./isthmus.toml
  isthmus node init connector --address test.alice --asset EUR --scale 9
  isthmus node init connector --parent btp+wss://:TOKEN@parent.example:7768
  isthmus node init connector --secrets files
"""


@node.command(epilog=_INIT_EXAMPLES)
@click.argument("folder", metavar="[DIR]", type=click.Path(file_okay=False, path_type=Path), default=Path())
@click.option("--address", help="The node's ILP address.  [default: test. and random letters; with --parent, from it]")
@click.option("--asset", default="USD", show_default=True, help="The asset of its accounts.")
@click.option("--scale", type=click.IntRange(0, 255), default=9, show_default=True, help="The asset's decimal places.")
@click.option("--parent", metavar="URL", help="A connector above: its BTP URL, with the token that it gave you.")
@click.option(
    "--secrets",
    "keep",
    type=click.Choice([each.value for each in Keep]),
    default=Keep.INLINE.value,
    show_default=True,
    help="Write secrets into the file, into files of their own, or refer to environment variables.",
)
def init(folder: Path, address: str | None, asset: str, scale: int, parent: str | None, keep: str) -> None:
    """Write a commented configuration with fresh secrets to DIR/isthmus.toml."""
    from isthmus.ilp.address import is_valid

    path = folder / FILE_NAME
    if path.exists():
        raise ConfigError(str(path), "exists already", "Name another folder, or remove it first.")
    if address is not None and not is_valid(address):
        raise ConfigError("--address", f"{address!r} is not an ILP address", 'Write one like "test.alice".')
    if not asset.strip() or not asset.isprintable() or '"' in asset or "\\" in asset:
        raise ConfigError("--asset", f"{asset!r} is not an asset code", 'Write one like "USD".')
    if address is None and parent is None:
        address = "test." + "".join(secrets.choice("abcdefghijkmnpqrstuvwxyz") for _ in range(10))
    tokens = {name: secrets.token_urlsafe(TOKEN_BYTES) for name in ("alice", "admin")}
    url = _parent_url(parent, tokens) if parent is not None else None
    template = Template(address=address, asset=asset, scale=scale, parent_url=url, keep=Keep(keep), tokens=tokens)
    folder.mkdir(parents=True, exist_ok=True)
    _write_private(path, template.text())
    click.echo(f"Wrote {path} (mode 600).")
    _keep_secrets(folder, template)
    click.echo(f"\nAlice connects with the token of accounts.alice:  btp+ws://:{_shown(template)}@127.0.0.1:7768")
    click.echo(f"\nNext:\n  isthmus node check {path}\n  isthmus node run {path}")


def _parent_url(text: str, tokens: dict[str, str]) -> str:
    """The URL without its token, which goes to the other secrets."""
    url = parse_btp_url(text, allow_insecure=False)
    if url.token is None:
        raise ConfigError("--parent", "the URL holds no token", "Write btp+wss://:TOKEN@host:port.")
    tokens["parent"] = url.token
    place = str(url)
    return place.replace("://", f"://{url.username}@", 1) if url.username else place


def _keep_secrets(folder: Path, template: Template) -> None:
    if template.keep is Keep.FILES:
        (folder / SECRETS_FOLDER).mkdir(mode=0o700, exist_ok=True)
        for name, token in template.tokens.items():
            _write_private(folder / SECRETS_FOLDER / name, token + "\n")
        click.echo(f"Wrote the secrets to {folder / SECRETS_FOLDER} (mode 600).")
    elif template.keep is Keep.ENVIRONMENT:
        click.echo("The secrets are shown only now; set them for the node's process:")
        for name, token in template.tokens.items():
            click.echo(f"  export {variable(name)}={token}")


def _shown(template: Template) -> str:
    return template.tokens["alice"] if template.keep is Keep.ENVIRONMENT else "TOKEN"


def _write_private(path: Path, text: str) -> None:
    """Only this user may read it, from the first byte on; never over something that is there."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)


# --- check -----------------------------------------------------------------------------------------------------------


@node.command(epilog="\b\nExample:\n  isthmus node check isthmus.toml")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path), default=Path(FILE_NAME))
def check(file: Path) -> int:
    """Say what is wrong with FILE, with key, line and remedy; or what it configures.

    The exit status is 2 if something is wrong.
    """
    from isthmus.node.config import check_config

    checked = check_config(file)
    for problem in checked.problems:
        where = f"line {problem.line}: " if problem.line is not None else ""
        key = "" if problem.key == str(file) else f"{problem.key}: "  # the whole file's
        click.echo(f"{file}: {where}{key}{problem.problem}. {problem.remedy}", err=True)
    if checked.config is None:
        count = len(checked.problems)
        click.echo(f"{count} problem{'s' if count > 1 else ''} in {file}", err=True)
        return 2
    _show(checked.config)
    for warning in checked.warnings:
        click.echo(f"warning: {warning}", err=True)
    return 0


def _show(config: "NodeConfig") -> None:
    from rich.console import Console

    from isthmus.cli.rates_view import rate_lines

    console = Console(soft_wrap=True)
    console.print(f"Address: {config.address or 'from the parent'}   Data: {config.data}", highlight=False)
    console.print(_accounts_table(config))
    for line in rate_lines(config.rates):
        console.print(line, highlight=False)
    for engine in config.engines:
        settled = [
            each.id for each in config.accounts if each.settlement and each.settlement.terms.engine == engine.name
        ]
        console.print(f"Engine {engine.name} ({engine.kind}): {', '.join(settled) or 'no account'}", highlight=False)
    for prefix, account in config.routes:
        console.print(f"{prefix or 'default'} → {account}", highlight=False)


def _accounts_table(config: "NodeConfig") -> "Table":
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD)
    for heading in ("Account", "Relation", "Asset", "May owe us", "We may owe"):
        table.add_column(heading, no_wrap=True)
    table.add_column("Link", overflow="fold")
    for account in config.accounts:
        table.add_row(
            account.id,
            account.relation.value,
            f"{account.asset.code}, scale {account.asset.scale}",
            _limit(account, account.limits.receivable_max),
            _limit(account, account.limits.payable_max),
            _link_text(account),
        )
    return table


def _link_text(account: "Account") -> str:
    from isthmus.node.config_model import BtpClientLink, BtpServerLink

    link = account.link
    if isinstance(link, BtpClientLink):
        return str(parse_btp_url(link.url, allow_insecure=True))
    if isinstance(link, BtpServerLink):
        return "BTP, dials us"
    return f"HTTP, {link.url}" if link.url else "HTTP, only sends"


def _limit(account: "Account", amount: int | None) -> str:
    from isthmus.ilp.asset import format_amount

    return "unlimited" if amount is None else format_amount(amount, account.asset)


# --- run -------------------------------------------------------------------------------------------------------------

_RUN_EXAMPLES = """\b
Examples:
  isthmus node run isthmus.toml
  kill -HUP PID     # read rates, routes and limits again
  kill -TERM PID    # finish what is in flight, then stop
"""


@node.command(epilog=_RUN_EXAMPLES)
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path), default=Path(FILE_NAME))
def run(file: Path) -> int:
    """Run the node that FILE configures, until it is told to stop."""
    from isthmus.node.config import check_config

    problems = check_config(file).problems
    if len(problems) > 1:
        raise ConfigError(
            problems[0].key,
            problems[0].problem,
            f"{problems[0].remedy} ({len(problems) - 1} more: isthmus node check {file})",
            line=problems[0].line,
        )
    from isthmus.node import runtime

    return runtime.run(file)
