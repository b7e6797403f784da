"""`type = "lightning"`: Bitcoin Lightning by an lnd of the operator's own."""

import os
from typing import Final

from isthmus.errors import ConfigError
from isthmus.ilp.asset import Asset
from isthmus.links.http.urls import check_url
from isthmus.node.config_lines import KeyPath
from isthmus.node.config_reader import Key, Section, Source
from isthmus.node.config_values import FilePath, Integer, Text
from isthmus.node.engines.kind import EngineKind, Options, Surroundings
from isthmus.settlement.port import Engine

FEE_PPM_MAX: Final = 100_000
FEE_MSAT_LIMIT: Final = 100_000_000
NODE_CHARS: Final = 66

OPTIONS: Final[Section] = (
    Key("url", Text(), "lnd's REST interface: `https://127.0.0.1:8080`."),
    Key("certificate", FilePath(), "lnd's `tls.cert`; nothing else is trusted."),
    Key("macaroon", FilePath(), "A macaroon that may make invoices and pay: `admin.macaroon`, or one baked for it."),
    Key(
        "mode",
        Text(("invoice", "keysend")),
        "How we pay: by an invoice that the peer makes, or without one.",
        "invoice",
    ),
    Key("fee_ppm", Integer(0, FEE_PPM_MAX), "The most that routing may cost, in millionths of the amount.", 5_000),
    Key("fee_msat", Integer(0, FEE_MSAT_LIMIT), "But never refused below so many millisatoshi.", 10_000),
)

ACCOUNT: Final[Section] = (
    Key("node", Text(), "The public key of the peer's lnd, in hex; no other is paid.", None, "what the peer says"),
)


def _check(source: Source, path: KeyPath, options: Options) -> None:
    try:
        check_url("url", options["url"], allow_insecure=False)
    except ConfigError as error:
        source.problem((*path, "url"), error.problem, error.remedy)
    if not options["url"].startswith("https://"):
        source.problem((*path, "url"), "lnd answers over TLS only", "Begin it with https://.")


def _check_account(source: Source, path: KeyPath, options: Options, asset: Asset) -> None:
    if asset.code != "BTC":
        source.problem(path, f"the account counts in {asset.code}", "Lightning moves BTC only: use another engine.")
    node = options["node"]
    if node is not None and (len(node) != NODE_CHARS or any(one not in "0123456789abcdef" for one in node)):
        source.problem((*path, "node"), "not a public key", f"Use {NODE_CHARS} of 0-9 a-f: `lncli getinfo` tells it.")


def _make(options: Options, surroundings: Surroundings) -> Engine:
    from isthmus.ledgers.lightning.lnd import Lnd, LndSettings
    from isthmus.settlement.lightning.engine import LightningEngine

    lnd = Lnd(LndSettings(options["url"].rstrip("/"), options["certificate"], options["macaroon"]))
    lnd.check()
    return LightningEngine(
        lnd,
        uses_keysend=options["mode"] == "keysend",
        fee_ppm_max=options["fee_ppm"],
        fee_msat_min=options["fee_msat"],
        now_s=lambda: surroundings.now().wall_ms // 1_000,
        random_bytes=os.urandom,
    )


KIND: Final = EngineKind(
    summary="Bitcoin Lightning, by an lnd of your own.",
    make=_make,
    options=OPTIONS,
    account=ACCOUNT,
    check=_check,
    check_account=_check_account,
)
