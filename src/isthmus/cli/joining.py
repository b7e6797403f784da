"""Two nodes become neighbours: `isthmus peer invite` and `accept`, `isthmus node join`.

The command speaks to both sides: to its own node by the admin API, to the other by `/join` of its HTTP listener. Its
own account is made disabled, and enabled when the other side has agreed, so that nothing half done takes packets.
"""

import secrets
import time
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import click

from isthmus.cli.admin_api import AdminApi, MisusedNodeError, RefusedByNodeError
from isthmus.cli.http_json import Json, NoAnswerError, RefusalError, exchange
from isthmus.errors import ConfigError, LinkError
from isthmus.ilp.address import is_prefix_of
from isthmus.links.http.urls import is_loopback
from isthmus.node.joining import PATH

TOKEN_BYTES: Final = 32  # AUTH-2
ANSWER_S_MAX: Final = 20.0
ANSWER_BYTES_MAX: Final = 65_536
# From an enabled account to the first answer of the peer.
UP_S_MAX: Final = 30.0
AGAIN_S: Final = 0.25
# An agreement whose answer was lost is asked for again: the other side gives the same answer to the same token.
AGREE_TRIES: Final = 3
UNAUTHORIZED: Final = 401  # an admin API
LISTENER: Final = "Give the URL of its HTTP listener ([listeners.http] in its file)"


class Place(NamedTuple):
    """Where the other side is asked, and the invitation's secret if there is one."""

    url: str
    secret: str | None


def place_of(text: str, *, allow_insecure: bool) -> Place:
    """From an invitation (URL#SECRET) or a node's URL. Raises ConfigError; the secret is never in its words."""
    parts = urlsplit(text.strip())
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
        raise ConfigError(
            "URL", "this is no node's URL, nor an invitation", "Write https://hub.example, or what invite gave"
        )
    if parts.scheme == "http" and not allow_insecure and not is_loopback(parts.hostname):
        raise ConfigError(
            "URL", f"http:// to {parts.hostname} shows everything on the way", "Use https://, or --allow-insecure"
        )
    return Place(f"{parts.scheme}://{parts.netloc}{PATH}", parts.fragment or None)


def ask(place: Place, **fields: Any) -> Json:
    """The other node's answer. RefusedByNodeError with its reason, LinkError without an answer."""
    body = {**fields, **({} if place.secret is None else {"secret": place.secret})}
    try:
        return exchange(
            "POST",
            place.url,
            body,
            token=None,
            wait_s_max=ANSWER_S_MAX,
            bytes_max=ANSWER_BYTES_MAX,
            directly=False,
        )
    except RefusalError as refusal:
        raise _refused(place, refusal) from None
    except NoAnswerError as error:
        raise LinkError(
            f"the node at {place.url} didn't answer: {error}. Look at the URL, and whether it runs"
        ) from None


def _refused(place: Place, refusal: RefusalError) -> RefusedByNodeError:
    """What was asked for makes no sense there, or can't be done now."""
    status, detail = refusal.status, refusal.detail
    if detail is None or status == UNAUTHORIZED:
        return MisusedNodeError(f"what answers at {place.url} ({status}) takes no neighbours. {LISTENER}")
    kind = MisusedNodeError if status in (400, 403, 404, 410, 413) else RefusedByNodeError
    return kind(f"the other node says: {detail}")


def come_together(
    api: AdminApi, place: Place, *, name: str | None, limits: Json, agreed: Json, allow_insecure: bool
) -> Json:
    """Make both sides of the account, check them, and ping; what came of it, for people and programs."""
    terms = ask(place, look=True)
    try:
        asset, scale, relation, url = terms["asset"], terms["scale"], terms["we_are_your"], terms["btp"]
    except KeyError:
        raise LinkError(f"the node at {place.url} answers something else") from None
    for key, wanted in agreed.items():
        if wanted is not None and wanted != terms[key]:
            raise ConfigError(f"--{key}", f"they count in {asset} with scale {scale}", "Agree on one with them")
    name = name or _name_for(terms, relation)
    token = secrets.token_urlsafe(TOKEN_BYTES)
    definition: Json = {
        "asset": asset,
        "scale": scale,
        "relation": relation,
        "link": {"type": "btp-client", "url": url, "token": token, "allow_insecure": allow_insecure},
        "limits": limits,
        "enabled": False,
    }
    api.call("PUT", f"/accounts/{name}", definition)
    try:
        _agree(place, asset=asset, scale=scale, token_sha256=_sha256(token))
    except (RefusedByNodeError, LinkError):
        api.call("DELETE", f"/accounts/{name}")  # nothing was agreed: nothing stays
        raise
    api.call("POST", f"/accounts/{name}/enable")
    pong = _first_pong(api, name, url)
    _check(pong, asset, scale, name)
    return {
        "account": name,
        "relation": relation,
        "asset": asset,
        "scale": scale,
        "their_address": terms["address"],
        "address": api.call("GET", "/health")["address"],
        "took_ms": pong["took_ms"],
        "default_route": _default_route(api),
    }


def _agree(place: Place, **terms: Any) -> None:
    for left in reversed(range(AGREE_TRIES)):
        try:
            ask(place, **terms)
        except LinkError as error:
            if left == 0:
                raise LinkError(f"{error}. If it has made its side all the same, that is to be removed there") from None
            time.sleep(AGAIN_S)
        else:
            return


def tell(found: Json) -> None:
    """What happened, for people."""
    click.echo(f"Account {found['account']}: {found['asset']}, scale {found['scale']}, the same on both sides.")
    role = {"parent": "our parent", "child": "our child", "peer": "a peer"}[found["relation"]]
    click.echo(f"{found['their_address'] or 'The other node'} is {role}, and answered a ping in {found['took_ms']} ms.")
    if found["relation"] == "parent":
        click.echo(f"Our address: {found['address'] or 'not told yet'}")
        if found["default_route"] == found["account"]:
            click.echo("What no other route takes goes there.")
        if found["address"] and not is_prefix_of(found["their_address"], found["address"]):
            takes_ours = f'routes = {{ receive = true, speaker = "{found["address"]}" }}'
            click.echo(
                f"That isn't below {found['their_address']}, so nothing comes to us by it, unless they take our routes "
                f'({takes_ours}), or our file says address = "from parent".'
            )


def _name_for(terms: Json, relation: str) -> str:
    """A parent is called so; others by the last part of their address."""
    return "parent" if relation == "parent" else str(terms["address"]).rpartition(".")[2] or relation


def _sha256(token: str) -> str:
    from hashlib import sha256

    return sha256(token.encode()).hexdigest()


def _first_pong(api: AdminApi, name: str, url: str) -> Json:
    """Ask until the link is up and the peer answers; the account stays, whatever comes of it."""
    until = time.monotonic() + UP_S_MAX
    while True:
        try:
            return api.call("POST", f"/accounts/{name}/ping")
        except RefusedByNodeError as refused:
            if time.monotonic() > until:
                raise LinkError(
                    f"{name} is agreed on both sides, but {refused.message.removeprefix('the node says: ')} They say"
                    f" that they listen at {url}: is that so? isthmus accounts ping {name} tries again"
                ) from None
            time.sleep(AGAIN_S)


def _check(pong: Json, asset: str, scale: int, name: str) -> None:
    """What a parent tells by ILDCP must be what was agreed."""
    if pong["code"]:
        return
    if (pong["asset_code"], pong["asset_scale"]) != (asset, scale):
        raise LinkError(
            f"{name} counts in {pong['asset_code']} with scale {pong['asset_scale']}, and not in {asset} with {scale}:"
            f" remove it with isthmus accounts remove {name}"
        )


def _default_route(api: AdminApi) -> str | None:
    routes = api.call("GET", "/routes")["routes"]
    return next((route["account"] for route in routes if not route["prefix"]), None)
