"""Every key of a node's configuration: what it holds, its default, and what it means.

This is what is read, and what docs/configuration.md is made from.
"""

from typing import Final

from isthmus.node import config_model as model
from isthmus.node.config_rates import RatesTable
from isthmus.node.config_reader import Choice, Key, Section, Table
from isthmus.node.config_routes import AccountRoutes
from isthmus.node.config_schema_limits import LIMITS
from isthmus.node.config_schema_tls import CLIENT_TLS, SERVER_TLS
from isthmus.node.config_settlement import AccountSettlementTable, EngineTable
from isthmus.node.config_values import (
    Amount,
    Boolean,
    FilePath,
    IlpAddress,
    Integer,
    Listen,
    Mapped,
    SecretText,
    Sha256,
    Spread,
    Text,
)

_SUBJECT: Final = Key("subject", Text(), "The `sub` claim: who the bearer is.")
_ISSUER: Final = Key("issuer", Text(), "The `iss` claim.", None)
_AUDIENCE: Final = Key("audience", Text(), "The `aud` claim.", None)

HS256: Final[Section] = (
    Key("secret", SecretText(), "The shared secret, base64 of at least 32 random bytes."),
    _SUBJECT,
    _ISSUER,
    _AUDIENCE,
)

OUTGOING: Final = Choice(
    "auth",
    {
        "bearer": ((Key("token", SecretText(), "The token that the peer gave us."),), dict),
        "jwt_hs256": (HS256, dict),
        "jwt_rs256": (
            (
                Key("private_key", SecretText(), "Our private key, PEM."),
                _SUBJECT,
                Key("issuer", Text(), "The `iss` claim."),
                Key("audience", Text(), "The `aud` claim."),
            ),
            dict,
        ),
        "none": ((), dict),
    },
)

INCOMING: Final = Choice(
    "auth",
    {
        "bearer": (
            (
                Key("token", SecretText(), "The token that the peer shows.", None, "or `token_sha256`"),
                Key("token_sha256", Sha256(), "The SHA-256 of the token, in hex.", None, "or `token`"),
                Key("old_token_sha256", Sha256(), "A token that is still taken while the peer changes to a new.", None),
            ),
            dict,
        ),
        "jwt_hs256": (HS256, dict),
        "jwt_rs256": (
            (
                Key("public_key", SecretText(), "The peer's public key, PEM."),
                _SUBJECT,
                Key("issuer", Text(), "The `iss` claim that is asked for."),
                Key("audience", Text(), "The `aud` claim that is asked for."),
            ),
            dict,
        ),
    },
)

_ALLOW_INSECURE: Final = Key(
    "allow_insecure", Boolean(), "Allow no TLS beyond this machine, where another layer encrypts.", False
)

LINK: Final = Choice(
    "type",
    {
        "btp-client": (
            (
                Key("url", Text(), "Where to dial: `btp+wss://host:port/path`; user and token may stand in it."),
                Key("token", SecretText(), "The token that the peer gave us.", None, "the URL's"),
                Key("username", Text(), "A name to show beside the token, if the peer wants one.", None, "the URL's"),
                Key("tls", Table(CLIENT_TLS, model.ClientTls), "Certificates.", model.ClientTls(), "the system's"),
                _ALLOW_INSECURE,
            ),
            dict,
        ),
        "btp-server": (
            (
                Key("token", SecretText(), "The token that the peer shows.", None, "or `token_sha256`"),
                Key("token_sha256", Sha256(), "The SHA-256 of the token, in hex.", None, "or `token`"),
            ),
            dict,
        ),
        "http": (
            (
                Key("url", Text(), "Where our Prepares go; without it the peer can only send.", None, "none"),
                Key("outgoing", OUTGOING, "How we show who we are; needed with `url`.", None, "none"),
                Key("incoming", INCOMING, "How the peer shows who it is."),
                Key("mode", Text(("sync", "async")), "How the peer answers our Prepares.", "sync"),
                Key(
                    "answers",
                    Text(("any", "sync", "async")),
                    "How we answer the peer's; `any` goes by the headers of each request.",
                    "any",
                ),
                Key("callback_url", Text(), "Where the peer sends its answers to us (asynchronous).", None, "none"),
                Key("peer_callback_url", Text(), "Where we send our answers (asynchronous).", None, "the request's"),
                Key("concurrency", Integer(1, 10_000), "How many of our requests may be open at a time.", 256),
                Key("tls", Table(CLIENT_TLS, model.ClientTls), "Certificates.", model.ClientTls(), "the system's"),
                _ALLOW_INSECURE,
            ),
            dict,
        ),
    },
)

ACCOUNT: Final[Section] = (
    Key("asset", Text(), 'The code of the asset: `"USD"`.'),
    Key("scale", Integer(0, 255), "How many decimal places one base unit stands for; both sides must agree."),
    Key("relation", Text(("parent", "peer", "child")), "What the peer is to us. A child gets its address from us."),
    Key("link", LINK, "How packets get to the peer and back."),
    Key("limits", Table(LIMITS), "What the account may do. Amounts are strings in units of the asset."),
    Key("segment", Text(), "For a child: the part of its address that follows ours.", None, "the account's name"),
    Key(
        "spread",
        Spread(),
        "Our part of what leaves by this account, or of what comes from it.",
        None,
        "that of `rates`",
    ),
    Key(
        "routes",
        AccountRoutes(),
        'Who tells whom what it reaches (CCP): keys, or `"ilp-connector"` or `"interledger-rs"` after the program that '
        'the peer runs, or `"off"`.',
        None,
        "by relation",
    ),
    Key(
        "settlement",
        AccountSettlementTable(),
        "How and when the peer is paid what we owe it, and by which engine its payments are seen.",
        None,
        "by hand only",
    ),
    Key("enabled", Boolean(), "Whether it takes packets and is sent some; its books are kept in any case.", True),
)


def _listener(default_path: str, what: str) -> Section:
    return (
        Key("listen", Listen(), f"Where to listen for {what}."),
        Key("path", Text(), "The path; an account's own is below it.", default_path, f'`"{default_path}"`'),
        Key("tls", Table(SERVER_TLS, model.ServerTls), "The certificate; none behind a reverse proxy.", None, "none"),
        _ALLOW_INSECURE,
    )


LISTENERS: Final[Section] = (
    Key("btp", Table(_listener("/", "BTP"), model.Listener), "For accounts whose link is `btp-server`.", None, "none"),
    Key("http", Table(_listener("/ilp", "HTTP"), model.Listener), "For accounts whose link is `http`.", None, "none"),
)

ADMIN: Final[Section] = (
    Key("listen", Listen(), "Where the admin API listens: `/health`, `/accounts`, `/balances`, `/routes`, `/books`."),
    Key(
        "token",
        SecretText(),
        "The bearer token that it asks for; needed beyond this machine and for corrections.",
        None,
        "none",
    ),
    Key("token_sha256", Sha256(), "The SHA-256 of the token, in hex, instead of the token.", None, "none"),
    Key("tls", Table(SERVER_TLS, model.ServerTls), "The certificate; none behind a reverse proxy.", None, "none"),
    Key("metrics", Boolean(), "Serve metrics for Prometheus at `/metrics`.", True),
    Key("metrics_need_token", Boolean(), "Ask for the token there too.", True),
)

JOIN: Final[Section] = (
    Key("http", Text(), "Our HTTP listener as others reach it: `https://hub.example`.", None, "where it listens"),
    Key("btp", Text(), "Our BTP listener as others reach it: `btp+wss://hub.example`.", None, "where it listens"),
    Key("children", Boolean(), "Whether anybody who asks becomes a child.", False),
    Key("children_max", Integer(1, 65_535), "How many children there may be, invited ones too.", 100),
    Key("asset", Text(), "The asset of children who asked; needed for them.", None, "none"),
    Key("scale", Integer(0, 255), "Its scale; needed for them.", None, "none"),
    Key("receivable", Amount(may_be_unlimited=False), "How much each may owe us.", "0", '`"0"`: it pays in advance'),
    Key("payable", Amount(), "How much we are willing to owe each.", None, "unlimited"),
)

ROUTING: Final[Section] = (
    Key(
        "split_within",
        Spread(),
        "Where a hop lacks liquidity, packets are divided over those whose prices lie so close together; up to 10 %.",
        model.SPLIT_WITHIN,
        '`"0.2 %"`',
    ),
)

JOURNAL: Final[Section] = (
    Key("archive", FilePath(must_exist=False), "A folder for what is pruned from the journal.", None, "not kept"),
    Key("checkpoint_every", Integer(100, 10_000_000), "How many batches lie between checkpoints.", 20_000),
)

LOG: Final[Section] = (
    Key("level", Text(("debug", "info", "warning", "error")), "What is worth a line.", "info"),
    Key("form", Text(("auto", "json", "text")), "`auto` is text on a terminal and JSON elsewhere.", "auto"),
)

ROOT: Final[Section] = (
    Key("address", IlpAddress(), "The node's ILP address; a parent tells it by ILDCP."),
    Key("data", FilePath(must_exist=False), "The folder of journal and books.", None, '`"data"` beside this file'),
    Key("accounts", Mapped(Table(ACCOUNT)), "One table for each account, by a name of your choice.", {}, "none"),
    Key(
        "routes",
        Mapped(Text()),
        "Address prefix → account; the longest prefix wins. `default` takes the rest.",
        {},
        "children by their addresses, the rest to the parent",
    ),
    Key(
        "rates",
        RatesTable(),
        '`"BTC/USD" = "64250.5"`: one BTC gives 64250.5 USD, before the spread. The way back is the inverse, unless '
        "it is given too. `spread` is our part of whatever passes from one account to another, in one asset too; "
        '`sources` are where rates are fetched, at most once in `pace` (`"5 s"`) the node takes new ones.',
        {},
        "none",
    ),
    Key(
        "settlement",
        Mapped(EngineTable()),
        "One table for each settlement engine, by a name of your choice: how value moves on a ledger.",
        {},
        "none",
    ),
    Key("routing", Table(ROUTING, model.Routing), "How hops are chosen.", model.Routing(), "as below"),
    Key("listeners", Table(LISTENERS), "Where peers reach us.", {"btp": None, "http": None}, "none"),
    Key("admin", Table(ADMIN, model.Admin), "The admin API and metrics.", None, "off"),
    Key("join", Table(JOIN, model.Join), "How others become our peers and children.", model.Join(), "by invitation"),
    Key("journal", Table(JOURNAL, model.JournalSettings), "Durable books.", model.JournalSettings(), "as below"),
    Key("log", Table(LOG, model.LogSettings), "The log, on stderr.", model.LogSettings(), "as below"),
)
