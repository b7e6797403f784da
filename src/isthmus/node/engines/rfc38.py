"""`type = "rfc38"`: any settlement engine over HTTP (RFC 0038), of ours or of others."""

from typing import Any, Final

from aiohttp import web

from isthmus.errors import ConfigError
from isthmus.ilp.asset import Asset
from isthmus.links.http.listener import HttpListener
from isthmus.links.http.urls import check_url, is_loopback
from isthmus.links.places import StrangerBounds
from isthmus.node import config_model as model
from isthmus.node.config_lines import KeyPath
from isthmus.node.config_reader import Key, Section, Source, Table
from isthmus.node.config_schema_tls import CLIENT_TLS
from isthmus.node.config_values import Boolean, Duration, Endpoint, Listen, Secret, SecretText, Text
from isthmus.node.engines.kind import EngineKind, Options, Surroundings
from isthmus.node.tls import client_context
from isthmus.runtime import clock
from isthmus.settlement.rfc38.http import Client, MakeListener
from isthmus.settlement.rfc38.quantity import ACCOUNT_CHARS_MAX, is_account
from isthmus.settlement.rfc38.remote import RemoteEngine

# One engine calls, perhaps from some processes.
STRANGERS: Final = StrangerBounds(strangers_max=32, strangers_per_address_max=16)
CONNECTIONS_MAX: Final = 64
IDLE_S_MAX: Final = 75.0
STOP_S_MAX: Final = 2.0

OPTIONS: Final[Section] = (
    Key("url", Text(), "Where the engine is: `http://127.0.0.1:3000`."),
    Key("token", SecretText(), "A bearer token that it asks for; the RFC has none.", None, "none"),
    Key("listen", Listen(), "Where the engine calls us: its connector's URL. Of this machine unless there is a token."),
    Key("listen_token", SecretText(), "A bearer token that the engine must show us; the RFC has none.", None, "none"),
    Key("timeout", Duration(100, 60_000), "How long an answer of the engine may take.", 10_000, '`"10 s"`'),
    Key("tls", Table(CLIENT_TLS, model.ClientTls), "Certificates.", model.ClientTls(), "the system's"),
    Key("allow_insecure", Boolean(), "Allow no TLS beyond this machine, where another layer encrypts.", False),
)

ACCOUNT: Final[Section] = (Key("id", Text(), "What the engine knows the account by.", None, "the account's name"),)


def _check(source: Source, path: KeyPath, options: Options) -> None:
    try:
        check_url("url", options["url"], allow_insecure=options["allow_insecure"])
    except ConfigError as error:
        source.problem((*path, "url"), error.problem, error.remedy)
    if options["listen_token"] is None and not is_loopback(options["listen"].host):
        remedy = "Set listen_token, or listen on 127.0.0.1: whoever reaches it can credit peers."
        source.problem((*path, "listen_token"), "missing, and others can reach this address", remedy)


def _check_account(source: Source, path: KeyPath, options: Options, asset: Asset) -> None:
    wire_id = options["id"]
    if wire_id is not None and not is_account(wire_id):
        remedy = f"Use up to {ACCOUNT_CHARS_MAX} of A-Z a-z 0-9 . _ ~ -."
        source.problem((*path, "id"), f"{wire_id!r} can't stand in a URL", remedy)


def listener_at(endpoint: Endpoint) -> MakeListener:
    """Bounded as the admin API is: few callers, each with some connections."""

    def make(app: web.Application) -> HttpListener:
        return HttpListener(
            app,
            (endpoint.host, endpoint.port),
            mono_ms=clock.mono_ms,
            ssl_context=None,
            strangers=STRANGERS,
            connections_max=CONNECTIONS_MAX,
            keepalive_timeout=IDLE_S_MAX,
            shutdown_timeout=STOP_S_MAX,
        )

    return make


def digest_of(token: Secret | None) -> bytes | None:
    return None if token is None else bytes.fromhex(token.sha256())


def _make(options: Options, surroundings: Surroundings) -> RemoteEngine:
    is_secure = options["url"].startswith("https")
    token: Any = options["token"]
    client = Client(
        "the engine",
        options["url"],
        token=None if token is None else token.reveal(),
        timeout_ms=options["timeout"],
        ssl_context=client_context(options["tls"]) if is_secure else None,
    )
    return RemoteEngine(
        client,
        listener_at(options["listen"]),
        token_sha256=digest_of(options["listen_token"]),
        random=surroundings.random,
    )


KIND: Final = EngineKind(
    summary="An engine of anybody's, over HTTP (RFC 0038).",
    make=_make,
    options=OPTIONS,
    account=ACCOUNT,
    check=_check,
    check_account=_check_account,
)
