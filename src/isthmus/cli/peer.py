"""`isthmus peer`: two running nodes become peers by an invitation, without touching a file."""

import json
import re
import sys
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote

import click

from isthmus.cli.admin_api import AdminApi, admin_options
from isthmus.cli.agreement import agree, agreement_options
from isthmus.cli.limits import limit_options, limits_of
from isthmus.errors import ConfigError

UNIT_S: Final = {"m": 60, "h": 3_600, "d": 86_400}


@click.group(
    epilog="""\b
Examples:
  isthmus peer invite bob --asset USD --scale 9 --receivable 100
  isthmus peer accept https://alice.example/join#SECRET --receivable 100
  isthmus peer invitations list"""
)
def peer() -> None:
    """Become neighbours with another node: one side invites, the other accepts."""


@peer.command(
    epilog="""\b
Examples:
  isthmus peer invite bob --asset USD --scale 9 --receivable 100
  isthmus peer invite shop --relation child --asset EUR --scale 9 --receivable 0 --expires 7d"""
)
@click.argument("name", metavar="ACCOUNT")
@click.option("--asset", required=True, help="The code of the asset: USD.")
@click.option("--scale", type=int, required=True, help="How many decimal places one base unit stands for.")
@click.option(
    "--relation",
    type=click.Choice(["peer", "child", "parent"]),
    default="peer",
    show_default=True,
    help="What they will be to us.",
)
@click.option("--expires", default="24h", show_default=True, metavar="TIME", help="How long it is good: 30m, 24h, 7d.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@limit_options
@admin_options
def invite(
    api: AdminApi, name: str, asset: str, scale: int, relation: str, expires: str, as_json: bool, **terms: Any
) -> None:
    """Make an invitation for whoever will be ACCOUNT. It is good once, and shown only now."""
    span = re.fullmatch(r"([0-9]{1,5})([mhd])", expires)
    if span is None:
        raise ConfigError(f"--expires {expires}", "this is no time", "Write 30m, 24h or 7d")
    definition = {"asset": asset, "scale": scale, "relation": relation, "limits": limits_of(terms)}
    life_s = int(span[1]) * UNIT_S[span[2]]
    found = api.call("POST", "/invitations", {"account": name, "definition": definition, "life_s": life_s})
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    click.echo(
        f"Give them this, in private. It is good once, until {_when(found['expires_at_ms'])}:\n  {found['invitation']}"
    )
    click.echo("They run: isthmus peer accept -    (and paste it)")


@peer.command(
    epilog="""\b
Examples:
  isthmus peer accept - --receivable 100 < invitation       # or paste it when asked
  isthmus peer accept https://alice.example/join#SECRET --receivable 100 --asset USD --scale 9"""
)
@click.argument("invitation", metavar="INVITATION")
@click.option("--name", metavar="ACCOUNT", help="What we call the account.  [default: the end of their address]")
@agreement_options
@admin_options
def accept(
    api: AdminApi,
    invitation: str,
    name: str | None,
    allow_insecure: bool,
    **options: Any,
) -> None:
    """Accept INVITATION (- reads it from stdin): make both sides of the account, check them, and ping."""
    from isthmus.cli.joining import place_of

    if invitation == "-":
        tty = sys.stdin.isatty()
        invitation = click.prompt("The invitation", hide_input=True, err=True) if tty else sys.stdin.read(4_096)
    place = place_of(invitation, allow_insecure=allow_insecure)
    if place.secret is None:
        raise ConfigError("INVITATION", "there is no secret in it", "Give all of what isthmus peer invite printed")
    agree(api, place, name=name, allow_insecure=allow_insecure, **options)


@peer.group(
    epilog="""\b
Examples:
  isthmus peer invitations list
  isthmus peer invitations revoke 5feceb66ffc86f38"""
)
def invitations() -> None:
    """See invitations that were made, and take them back."""


@invitations.command(
    "list",
    epilog="""\b
Examples:
  isthmus peer invitations list
  isthmus peer invitations list --json | jq '.invitations[] | select(.state == "open")'""",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@admin_options
def list_invitations(api: AdminApi, as_json: bool) -> None:
    """List invitations: for whom, until when, and whether they were used. Their secrets are nowhere."""
    found = api.call("GET", "/invitations")
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    for one in found["invitations"]:
        terms = f"{one['relation']}, {one['asset']} with scale {one['scale']}"
        click.echo(f"{one['id']}  {one['state']:<5}  until {_when(one['expires_at_ms'])}  {one['account']}: {terms}")
    if not found["invitations"]:
        click.echo("No invitations.")


@invitations.command(
    epilog="""\b
Examples:
  isthmus peer invitations revoke 5feceb66ffc86f38"""
)
@click.argument("invitation", metavar="ID")
@admin_options
def revoke(api: AdminApi, invitation: str) -> None:
    """Take back the invitation ID, as `list` shows it. One that was used is an account now: disable or remove that."""
    found = api.call("DELETE", f"/invitations/{quote(invitation, safe='')}")
    click.echo(f"The invitation for {found['account']} is good no more.")


def _when(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms // 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")
