"""`type = "bank"`: a ledger that only transfers, `isthmus ledger bank`."""

import os
from typing import Final

from isthmus.errors import ConfigError
from isthmus.ilp.asset import Asset
from isthmus.ledgers.bank.values import SCALE_MAX, RefusedError, check_asset, check_id
from isthmus.links.http.urls import check_url
from isthmus.node import config_model as model
from isthmus.node.config_lines import KeyPath
from isthmus.node.config_reader import Key, Section, Source, Table
from isthmus.node.config_schema_tls import CLIENT_TLS
from isthmus.node.config_values import Boolean, Duration, Integer, SecretText, Text
from isthmus.node.engines.kind import EngineKind, Options, Surroundings
from isthmus.node.tls import client_context
from isthmus.settlement.port import Engine

OPTIONS: Final[Section] = (
    Key("url", Text(), "Where the bank is: `http://127.0.0.1:7650`."),
    Key("account", Text(), "Our account there."),
    Key("token", SecretText(), "Its token: `isthmus ledger bank token new ACCOUNT`."),
    Key("asset", Text(), "What that account is in; the accounts that it settles are in the same."),
    Key("scale", Integer(0, SCALE_MAX), "Decimal places of the asset at the bank.", 2),
    Key("poll", Duration(100, 3_600_000), "How often the statement is read.", 10_000, '`"10 s"`'),
    Key("timeout", Duration(100, 60_000), "How long an answer of the bank may take.", 10_000, '`"10 s"`'),
    Key("tls", Table(CLIENT_TLS, model.ClientTls), "Certificates.", model.ClientTls(), "the system's"),
    Key("allow_insecure", Boolean(), "Allow no TLS beyond this machine, where another layer encrypts.", False),
)
ACCOUNT: Final[Section] = (
    Key(
        "peer_account", Text(), "The peer's account at the bank; no other is paid or pays.", None, "what the peer says"
    ),
)


def _check(source: Source, path: KeyPath, options: Options) -> None:
    try:
        check_url("url", options["url"], allow_insecure=options["allow_insecure"])
    except ConfigError as error:
        source.problem((*path, "url"), error.problem, error.remedy)
    _check_id(source, (*path, "account"), options["account"])
    try:
        check_asset(options["asset"], options["scale"])
    except RefusedError as refused:
        source.problem((*path, "asset"), "no asset of a bank", refused.detail)


def _check_account(source: Source, path: KeyPath, options: Options, asset: Asset) -> None:
    if options["peer_account"] is not None:
        _check_id(source, (*path, "peer_account"), options["peer_account"])


def _check_id(source: Source, path: KeyPath, text: str) -> None:
    try:
        check_id(text, path[-1])
    except RefusedError:
        source.problem(path, "no account of a bank", "Use up to 64 of a-z 0-9 . _ -.")


def _make(options: Options, surroundings: Surroundings) -> Engine:
    from isthmus.ledgers.bank.client import BankClient
    from isthmus.settlement.bank.engine import BankEngine

    is_secure = options["url"].startswith("https")
    client = BankClient(
        options["url"],
        options["account"],
        options["token"].reveal(),
        timeout_s=options["timeout"] / 1000,
        ssl_context=client_context(options["tls"]) if is_secure else None,
    )
    return BankEngine(
        client,
        Asset(options["asset"], options["scale"]),
        poll_ms=options["poll"],
        now=lambda: surroundings.now().wall_ms,
        random=surroundings.random,
        random_bytes=os.urandom,
    )


KIND: Final = EngineKind(
    summary="A ledger that only transfers: `isthmus ledger bank`.",
    make=_make,
    options=OPTIONS,
    account=ACCOUNT,
    check=_check,
    check_account=_check_account,
)
