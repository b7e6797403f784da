"""`isthmus accounts`: list, add, change, disable, enable and remove the accounts of a running node."""

import json
import secrets
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click

from isthmus.cli.accounts_view import accounts_table, console
from isthmus.cli.admin_api import AdminApi, RefusedByNodeError, admin_options
from isthmus.cli.http_json import Json
from isthmus.cli.limits import limit_options, limits_of
from isthmus.cli.secret_text import read_secret, secret_from
from isthmus.errors import ConfigError, LinkError
from isthmus.links.btp.url import parse_btp_url

TOKEN_BYTES: Final = 32  # AUTH-2
NUMBER_CHARS_MAX: Final = 20
# Longer than the node waits for what is in flight.
DRAIN_WAIT_S_MAX: Final = 120.0
_JSON_HELP: Final = "One JSON object; amounts are strings in base units."


@click.group(
    epilog="""\b
Examples:
  isthmus accounts list
  isthmus accounts add bob --asset USD --scale 9 --relation peer --receivable 100
  isthmus accounts change bob --receivable 250
  isthmus accounts remove bob --drain"""
)
def accounts() -> None:
    """List and change the accounts of a running node.

    A change is durable when the command ends, and stays until the account's section of the node's file is changed.
    """


# --- list ------------------------------------------------------------------------------------------------------------


@accounts.command(
    "list",
    epilog="""\b
Examples:
  isthmus accounts list
  isthmus accounts list --config connector/isthmus.toml
  isthmus accounts list --json | jq '.accounts[] | select(.link == "down").id'""",
)
@click.option("--json", "as_json", is_flag=True, help=_JSON_HELP)
@admin_options
def list_accounts(api: AdminApi, as_json: bool) -> None:
    """List all accounts: link, balance, limits, and where their terms come from."""
    found = api.call("GET", "/accounts")
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        console().print(accounts_table(found["accounts"]))


@accounts.command(
    "show",
    epilog="""\b
Examples:
  isthmus accounts show bob
  isthmus accounts show bob | jq .definition.limits""",
)
@click.argument("name", metavar="ACCOUNT")
@admin_options
def show_account(api: AdminApi, name: str) -> None:
    """Show what ACCOUNT is configured with, as JSON and without secrets."""
    click.echo(json.dumps(api.call("GET", f"/accounts/{name}"), indent=2))


# --- add and change --------------------------------------------------------------------------------------------------


def _terms_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What can be set when an account is added, and changed later."""
    options = (
        click.option("--relation", type=click.Choice(["parent", "peer", "child"]), help="What the peer is to us."),
        click.option("--url", metavar="URL", help="Where to dial the peer by BTP; without it the peer dials us."),
        click.option("--username", help="A name to show beside the token, if the peer wants one."),
        click.option(
            "--token-file", metavar="FILE", help="The token, in a file (- for stdin): the peer's for --url, else ours."
        ),
        click.option("--token-env", metavar="NAME", help="The token, in an environment variable."),
        click.option("--allow-insecure", is_flag=True, help="Dial without TLS beyond this machine."),
        click.option("--segment", help="For a child: the part of its address that follows ours."),
        click.option("--spread", help='Our part of what leaves by it or comes from it: "0.2 %", "20 bp".'),
        click.option(
            "--settlement",
            "settlement",
            metavar="KEY=VALUE",
            multiple=True,
            help="A key of its settlement: engine=bank, threshold=100, or one that its engine knows.",
        ),
        click.option(
            "--from",
            "source",
            metavar="FILE",
            type=click.Path(dir_okay=False, path_type=Path),
            help="A TOML file with the keys of an account's section; for HTTP links, and all at once.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return limit_options(command)


@accounts.command(
    epilog="""\b
Examples:
  isthmus accounts add bob --asset USD --scale 9 --relation peer --receivable 100
  isthmus accounts add hub --asset USD --scale 9 --relation parent --receivable 0 \\
      --url btp+wss://hub.example:7768 --token-file hub.token
  isthmus accounts add carol --from carol.toml      # link = { type = "http", … }"""
)
@click.argument("name", metavar="ACCOUNT")
@click.option("--asset", help="The code of the asset: USD. For ever.")
@click.option("--scale", type=int, help="How many decimal places one base unit stands for. For ever.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object; with the token, if a fresh one was made.")
@_terms_options
@admin_options
def add(api: AdminApi, name: str, as_json: bool, asset: str | None, scale: int | None, **terms: Any) -> None:
    """Add ACCOUNT. Without --url the peer dials us, with a fresh token that is shown once."""
    definition = _definition({"asset": asset, "scale": scale}, terms)
    fresh = None
    if "link" not in definition:
        fresh = secrets.token_urlsafe(TOKEN_BYTES)
        definition["link"] = {"type": "btp-server", "token": fresh}
    answer = _asked_again(api, name, definition, fresh)
    if as_json:
        click.echo(json.dumps({**answer, **({"token": fresh} if fresh and answer["changed"] else {})}, indent=2))
    elif not answer["changed"]:
        click.echo(f"{name} is there already, with these terms.")
    else:
        click.echo(f"Added {name}.")
        if fresh is not None:
            click.echo(f"The peer dials our BTP listener with this token, which is shown only now:\n  {fresh}")


def _asked_again(api: AdminApi, name: str, definition: Json, fresh: str | None) -> Json:
    """Who repeats the command gets a fresh token each time: then the account's own is asked for before it's refused."""
    try:
        return api.call("PUT", f"/accounts/{name}", definition)
    except RefusedByNodeError as refused:
        if refused.status != 409 or fresh is None:
            raise
        try:
            there = api.call("GET", f"/accounts/{name}")["definition"]
        except RefusedByNodeError:
            raise refused from None
        link = there.get("link", {})
        if link.get("type") != "btp-server" or "token_sha256" not in link:
            raise
        same = {**definition, "link": {"type": "btp-server", "token_sha256": link["token_sha256"]}}
        return api.call("PUT", f"/accounts/{name}", same)


@accounts.command(
    epilog="""\b
Examples:
  isthmus accounts change bob --receivable 250 --in-flight unlimited
  isthmus accounts change bob --token-file bob.token
  isthmus accounts change bob --settlement engine=bank --settlement threshold=100
  isthmus accounts change bob --unset spread --unset limits.per_second"""
)
@click.argument("name", metavar="ACCOUNT")
@click.option(
    "--unset", multiple=True, metavar="KEY", help="Take this key back to its default: limits.payable, spread."
)
@click.option("--json", "as_json", is_flag=True, help=_JSON_HELP)
@_terms_options
@admin_options
def change(api: AdminApi, name: str, as_json: bool, unset: tuple[str, ...], **terms: Any) -> None:
    """Change what is given of ACCOUNT, and leave the rest as it is. Its connection stays, unless the link changes."""
    changes = _definition({}, terms)
    _complete_link(api, name, changes)
    for key in unset:
        *above, last = key.split(".")
        table = changes
        for part in above:
            table = table.setdefault(part, {})
        table[last] = None
    if not changes:
        raise click.UsageError("Nothing to change was given.", click.get_current_context())
    answer = api.call("PATCH", f"/accounts/{name}", changes)
    _tell(answer, as_json, f"Changed {name}.", f"{name} has these terms already.")


def _definition(fixed: Json, terms: dict[str, Any]) -> Json:
    """An account's section from what was given: a file first, then options."""
    source: Path | None = terms.pop("source")
    found = {} if source is None else _section_of(source)
    found |= {key: value for key, value in fixed.items() if value is not None}
    found |= {key: terms[key] for key in ("relation", "segment", "spread") if terms[key] is not None}
    limits = limits_of(terms)
    if limits:
        found["limits"] = {**found.get("limits", {}), **limits}
    if terms["settlement"]:
        found["settlement"] = {**found.get("settlement", {}), **dict(map(_pair, terms["settlement"]))}
    token = read_secret("token", terms["token_file"], terms["token_env"])
    link: Json = {key: terms[key] for key in ("url", "username") if terms[key] is not None}
    _check_url(link.get("url", ""))
    if terms["allow_insecure"]:
        link["allow_insecure"] = True
    if "url" in link and fixed:
        link = {"type": "btp-client", **link}
        if token is None:
            token = _asked("The token that the peer gave you")
    elif token is not None and fixed:
        link = {"type": "btp-server", **link}
    if token is not None:
        link["token"] = token
    if link:
        found["link"] = link
    return found


def _pair(text: str) -> tuple[str, Any]:
    """A key and its value: numbers, true and false as such, everything else as text."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ConfigError(f"--settlement {text}", "no key and value", "Write it like threshold=100")
    if value in ("true", "false"):
        return key, value == "true"
    is_number = value.isascii() and value.removeprefix("-").isdecimal() and len(value) <= NUMBER_CHARS_MAX
    return key, int(value) if is_number else value


def _check_url(url: str) -> None:
    try:
        holds_token = parse_btp_url(url, allow_insecure=True).token is not None
    except ConfigError:
        return  # the node says what is wrong with it
    if holds_token:
        raise ConfigError("--url", "it holds a token, and others see command lines", "Give it with --token-file")


def _complete_link(api: AdminApi, name: str, changes: Json) -> None:
    """A new URL is for the link that dials already; for an account whose peer dialled us it is another link."""
    link = changes.get("link", {})
    if "url" not in link or "type" in link:
        return
    before = api.call("GET", f"/accounts/{name}")["definition"].get("link", {})
    if before.get("type") != "btp-client":
        link["type"] = "btp-client"
        if "token" not in link:
            link["token"] = _asked("The token that the peer gave you")


def _section_of(path: Path) -> Json:
    """An account's section in a file of its own, with secrets read here."""
    import tomllib

    try:
        section = tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"--from {path}", error.strerror or "can't be read", "Name a TOML file") from None
    except ValueError as error:
        raise ConfigError(f"--from {path}", f"not TOML: {error}", "Write the keys of an account's section") from None
    return dict(secret_from(section, path.parent))


def _asked(what: str) -> str:
    if not sys.stdin.isatty():
        raise ConfigError("--token-file", "missing", "Give the token in a file, or with --token-env")
    text: str = click.prompt(what, hide_input=True, err=True)
    return text


@accounts.command(epilog="\b\nExample:\n  isthmus accounts ping bob")
@click.argument("name", metavar="ACCOUNT")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@admin_options
def ping(api: AdminApi, name: str, as_json: bool) -> None:
    """Ask the peer of ACCOUNT something harmless: that it answers, and how fast.

    A parent says what it counts in, too: the exit status is 1 if that isn't what our account is in.
    """
    found = api.call("POST", f"/accounts/{name}/ping")
    theirs = None if found["code"] else (found["asset_code"], found["asset_scale"])
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        says = f"says {found['code']}" if theirs is None else f"counts in {theirs[0]} with scale {theirs[1]}"
        click.echo(f"{name} answered in {found['took_ms']} ms, and {says} ({found['address'] or 'no address'}).")
    if theirs is not None:
        ours = api.call("GET", f"/accounts/{name}")["definition"]
        if theirs != (ours["asset"], ours["scale"]):
            raise LinkError(
                f"our account is in {ours['asset']} with scale {ours['scale']}, and {name} counts in something else."
                f" Add an account with another name, in what it counts in"
            )


# --- disable, enable, remove -----------------------------------------------------------------------------------------


@accounts.command(epilog="\b\nExample:\n  isthmus accounts disable bob")
@click.argument("name", metavar="ACCOUNT")
@click.option("--json", "as_json", is_flag=True, help=_JSON_HELP)
@admin_options
def disable(api: AdminApi, name: str, as_json: bool) -> None:
    """Take no packets of ACCOUNT and send it none. What is in flight ends, then the link closes; the books stay."""
    answer = api.call("POST", f"/accounts/{name}/disable")
    _tell(answer, as_json, f"Disabled {name}.", f"{name} is disabled already.")


@accounts.command(epilog="\b\nExample:\n  isthmus accounts enable bob")
@click.argument("name", metavar="ACCOUNT")
@click.option("--json", "as_json", is_flag=True, help=_JSON_HELP)
@admin_options
def enable(api: AdminApi, name: str, as_json: bool) -> None:
    """Let ACCOUNT work again."""
    _tell(api.call("POST", f"/accounts/{name}/enable"), as_json, f"Enabled {name}.", f"{name} is enabled already.")


@accounts.command(
    epilog="""\b
Examples:
  isthmus accounts remove bob
  isthmus accounts remove bob --drain --with-routes"""
)
@click.argument("name", metavar="ACCOUNT")
@click.option("--drain", is_flag=True, help="Take no new packets, wait for those in flight, then remove it.")
@click.option("--with-routes", is_flag=True, help="Remove the configured routes that lead to it too.")
@click.option("--json", "as_json", is_flag=True, help=_JSON_HELP)
@admin_options
def remove(api: AdminApi, name: str, drain: bool, with_routes: bool, as_json: bool) -> None:
    """Remove ACCOUNT. Refused, with what to do, while something is owed, under way, or open on a ledger."""
    query = {name: "true" for name, wanted in (("drain", drain), ("with_routes", with_routes)) if wanted}
    answer = api.call("DELETE", f"/accounts/{name}", wait_s_max=DRAIN_WAIT_S_MAX, query=query)
    _tell(answer, as_json, f"Removed {name}. Its books are kept.", f"{name} was removed before.")


def _tell(answer: Json, as_json: bool, changed: str, unchanged: str) -> None:
    if as_json:
        click.echo(json.dumps(answer, indent=2))
    else:
        click.echo(changed if answer["changed"] else unchanged)
