"""What a node is configured with, as frozen values. `config.load_config` makes them from TOML; nothing here reads."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from fractions import Fraction
from pathlib import Path
from typing import Any, Final, TypeAlias

from isthmus.connector.events import AccountId
from isthmus.connector.routing.terms import NO_ROUTES, RouteTerms
from isthmus.connector.settling import SettleTerms
from isthmus.connector.tables import SPLIT_PPM
from isthmus.ilp.asset import Asset
from isthmus.links.http.auth import Algorithm
from isthmus.node.config_values import Endpoint, Secret
from isthmus.node.rates.answers import JsonForm


class Relation(Enum):
    """What the peer at the other end of an account is to us (RFC 0032)."""

    PARENT = "parent"
    PEER = "peer"
    CHILD = "child"


@dataclass(slots=True, frozen=True, kw_only=True)
class Limits:
    """What one account may do. Amounts are in the account's base units; None is unlimited."""

    receivable_max: int | None  # how much the peer may owe us
    payable_max: int | None  # how much we are willing to owe
    packet_amount_max: int | None
    in_flight_max: int | None
    per_second_max: int | None  # value, "payment bandwidth"
    packets_per_minute: int | None
    hold_ms_max: int
    margin_ms: int
    open_legs_max: int
    echo_amount_max: int


# --- links -----------------------------------------------------------------------------------------------------------


@dataclass(slots=True, frozen=True, kw_only=True)
class ClientTls:
    """How we check a server, and the certificate that we show it. None: the system's authorities, no certificate."""

    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None


@dataclass(slots=True, frozen=True, kw_only=True)
class ServerTls:
    """The certificate that a listener shows, and the authority that clients' certificates must come from."""

    cert_file: Path
    key_file: Path
    client_ca_file: Path | None = None


@dataclass(slots=True, frozen=True, kw_only=True)
class BtpClientLink:
    """We dial the peer. The URL may hold user and token."""

    url: str = field(repr=False)
    token: Secret | None = None
    username: str | None = None
    tls: ClientTls = ClientTls()
    allow_insecure: bool = False


@dataclass(slots=True, frozen=True, kw_only=True)
class BtpServerLink:
    """The peer dials our BTP listener and shows a token with this SHA-256 (hex)."""

    token_sha256: str


@dataclass(slots=True, frozen=True, kw_only=True)
class BearerAuth:
    """Outgoing: the token that the peer gave us."""

    token: Secret


@dataclass(slots=True, frozen=True, kw_only=True)
class BearerCheck:
    """Incoming: the SHA-256 (hex) of the tokens that open the account."""

    token_sha256s: tuple[str, ...]


@dataclass(slots=True, frozen=True, kw_only=True)
class JwtAuth:
    """JWT_HS_256 (key: the shared secret, base64) or JWT_RS_256 (key: PEM), both to make and to check."""

    algorithm: Algorithm
    key: Secret
    subject: str
    issuer: str | None = None
    audience: str | None = None


@dataclass(slots=True, frozen=True, kw_only=True)
class NoAuth:
    """Nothing in the header: the TLS client certificate speaks for us."""


OutgoingAuth: TypeAlias = BearerAuth | JwtAuth | NoAuth
IncomingAuth: TypeAlias = BearerCheck | JwtAuth


@dataclass(slots=True, frozen=True, kw_only=True)
class HttpLink:
    """ILP over HTTP, both ways: we POST to `url`, the peer POSTs to our listener."""

    url: str | None
    outgoing: OutgoingAuth
    incoming: IncomingAuth
    mode: str = "sync"  # how the peer answers our Prepares: "sync" or "async"
    answers: str = "any"  # how we answer the peer's: "any", "sync" or "async"
    callback_url: str | None = None
    peer_callback_url: str | None = None
    concurrency_max: int = 256
    tls: ClientTls = ClientTls()
    allow_insecure: bool = False


Link: TypeAlias = BtpClientLink | BtpServerLink | HttpLink


# --- settlement ------------------------------------------------------------------------------------------------------


@dataclass(slots=True, frozen=True, kw_only=True)
class EngineSettings:
    """A settlement engine: `[settlement.NAME]`. `options` are its kind's own."""

    name: str
    kind: str
    options: Mapping[str, Any]


@dataclass(slots=True, frozen=True, kw_only=True)
class AccountSettlement:
    """What an account settles by. `settings` are its own options for its engine, as text."""

    terms: SettleTerms
    settings: Mapping[str, str]


# --- the node --------------------------------------------------------------------------------------------------------


@dataclass(slots=True, frozen=True, kw_only=True)
class Account:
    """Our books with one peer in one asset (RFC 0032)."""

    id: AccountId
    asset: Asset
    relation: Relation
    link: Link
    limits: Limits
    segment: str  # the part of a child's address that follows ours
    spread: Fraction | None = None
    routes: RouteTerms = NO_ROUTES  # what is told of routes, each way
    settlement: AccountSettlement | None = None
    enabled: bool = True


# --- rates -----------------------------------------------------------------------------------------------------------


@dataclass(slots=True, frozen=True, kw_only=True)
class FileFetch:
    """A file that a tool of the operator's replaces."""

    path: Path


@dataclass(slots=True, frozen=True, kw_only=True)
class HttpFetch:
    """A GET. `form` None is the ECB's XML."""

    url: str = field(repr=False)  # may hold a password
    form: JsonForm | None
    key: Secret | None = None
    key_header: str | None = None  # where the key goes: a header, or a parameter of the query
    key_query: str | None = None
    timeout_ms: int = 10_000
    tls: ClientTls = ClientTls()
    allow_insecure: bool = False


@dataclass(slots=True, frozen=True, kw_only=True)
class RateSource:
    """Where rates come from while the node runs, and how far it is believed."""

    name: str
    fetch: FileFetch | HttpFetch
    base: str | None  # the currency through which its other pairs are crossed
    interval_ms: int
    max_age_ms: int
    jump_max: Fraction  # against the last accepted rate; 1/10 is 10 %


@dataclass(slots=True, frozen=True, kw_only=True)
class Pair:
    """The rate from one asset to another in whole units of each, before the spread: fixed, fetched or crossed."""

    source: str
    destination: str
    rate: Fraction | None  # None: it comes from `fetched`, or by way of `via`
    spread: Fraction | None
    fetched: RateSource | None = None
    via: str | None = None  # the product of this pair with the first, and with the second: both are configured
    max_age_ms: int = 0  # of fetched ones
    jump_max: Fraction = Fraction(0)
    least: Fraction | None = None  # what is outside is not believed
    most: Fraction | None = None

    @property
    def codes(self) -> tuple[str, str]:
        return self.source, self.destination


@dataclass(slots=True, frozen=True, kw_only=True)
class Rates:
    """Rates by asset codes. Spreads: the pair's, else the outgoing account's, the incoming's, this.

    A pair serves both ways unless the way back is among the pairs too.
    """

    spread: Fraction
    pairs: tuple[Pair, ...]
    sources: tuple[RateSource, ...] = ()
    pace_ms: int = 5_000


@dataclass(slots=True, frozen=True, kw_only=True)
class Listener:
    listen: Endpoint
    path: str
    tls: ServerTls | None = None
    allow_insecure: bool = False


@dataclass(slots=True, frozen=True, kw_only=True)
class Admin:
    """The admin API, and the metrics beside it."""

    listen: Endpoint
    token: Secret | None = None
    token_sha256: str | None = None  # instead of the token; hex
    tls: ServerTls | None = None
    metrics: bool = True
    metrics_need_token: bool = True

    @property
    def token_digest(self) -> str | None:
        """SHA-256 (hex) of the token that is asked for; None for none."""
        return self.token_sha256 if self.token is None else self.token.sha256()


@dataclass(slots=True, frozen=True, kw_only=True)
class Join:
    """How others become our peers and children while we run. Invitations are answered in any case."""

    http: str | None = None  # our HTTP listener as others reach it; None: as it listens
    btp: str | None = None  # our BTP listener as others reach it
    children: bool = False  # whoever asks becomes a child
    children_max: int = 100
    asset: str | None = None  # of children
    scale: int | None = None
    receivable: str = "0"
    payable: str | None = None  # None: unlimited


SPLIT_WITHIN: Final = Fraction(SPLIT_PPM, 1_000_000)


@dataclass(slots=True, frozen=True, kw_only=True)
class Routing:
    """How next hops are chosen."""

    split_within: Fraction = SPLIT_WITHIN


@dataclass(slots=True, frozen=True, kw_only=True)
class JournalSettings:
    archive: Path | None = None
    checkpoint_every: int = 20_000  # batches


@dataclass(slots=True, frozen=True, kw_only=True)
class LogSettings:
    level: str = "info"
    form: str = "auto"


@dataclass(slots=True, frozen=True, kw_only=True)
class NodeConfig:
    """One node. `address` is None until the parent tells it (ILDCP)."""

    path: Path
    address: str | None
    data: Path
    accounts: tuple[Account, ...]
    routes: tuple[tuple[str, AccountId], ...]  # prefix -> account; "" is the default
    rates: Rates
    btp: Listener | None
    http: Listener | None
    admin: Admin | None
    join: Join
    journal: JournalSettings
    log: LogSettings
    engines: tuple[EngineSettings, ...] = ()
    routing: Routing = Routing()

    def account(self, account: AccountId) -> Account:
        """The account of this name; KeyError if there is none."""
        for each in self.accounts:
            if each.id == account:
                return each
        raise KeyError(account)

    @property
    def parent(self) -> Account | None:
        return next((each for each in self.accounts if each.relation is Relation.PARENT), None)
