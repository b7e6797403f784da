"""The demo's network as values: who is in it, what each connector charges, and the files that make it so.

Pure: ports and tokens come in, names and texts of files go out. Nothing is opened, started or drawn here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Final, NamedTuple

from isthmus.ilp.asset import Asset

ALICE: Final = "alice"
BOB: Final = "bob"
SCHEME: Final = "test"
HOST: Final = "127.0.0.1"
CONFIG_NAME: Final = "isthmus.toml"
UPLINK: Final = "uplink"  # what a wallet calls its account with its connector

BTP: Final = "btp"
HTTP: Final = "http"
ADMIN: Final = "admin"


class Listener(NamedTuple):
    """A port that somebody must be given."""

    node: str
    kind: str  # BTP, HTTP, ADMIN, or SPSP of the receiver


class Terms(NamedTuple):
    """What a connector agrees with one neighbour. Amounts are decimal texts in the asset."""

    asset: Asset
    credit: str  # how much the neighbour may owe
    packet: str  # the largest packet that it may send


class Pair(NamedTuple):
    """Two neighbours and the names of the accounts that each keeps with the other."""

    left: str
    left_account: str
    right: str
    right_account: str
    carrier: str


@dataclass(slots=True, frozen=True, kw_only=True)
class Connector:
    """One connector between two assets. Amounts are decimal texts in the asset towards Alice."""

    name: str
    source: Asset  # towards Alice
    destination: Asset  # towards Bob
    rate: Fraction  # whole units of destination for one of source, before the spread
    spread: str
    credit: str  # how much the neighbour towards Alice may owe
    credit_back: str  # how much the neighbour towards Bob may owe
    packet: str = "unlimited"  # the largest packet that comes from Alice's side

    @property
    def address(self) -> str:
        return f"{SCHEME}.{self.name}"


@dataclass(slots=True, frozen=True, kw_only=True)
class Network:
    """Alice, a chain of connectors, Bob. `carriers` are those of the links between connectors.

    Connectors tell each other what they reach (CCP), or have it in their files: then routes stand through any crash.
    """

    connectors: tuple[Connector, ...]
    carriers: tuple[str, ...] = ()
    finds_routes: bool = True

    def __post_init__(self) -> None:
        assert len(self.carriers) == len(self.connectors) - 1
        for left, right in pairwise(self.connectors):
            assert left.destination == right.source, f"{left.name} and {right.name} count in different assets"

    @property
    def source(self) -> Asset:
        return self.connectors[0].source

    @property
    def destination(self) -> Asset:
        return self.connectors[-1].destination

    @property
    def fair_rate(self) -> Fraction:
        """Whole units of what Bob gets for one of what Alice sends, if nobody charged anything."""
        rate = Fraction(1)
        for connector in self.connectors:
            rate *= connector.rate
        return rate

    @property
    def names(self) -> list[str]:
        """Everybody with books, from Alice to Bob."""
        return [ALICE, *(connector.name for connector in self.connectors), BOB]

    def pairs(self) -> list[Pair]:
        """All neighbours, from Alice to Bob."""
        names = self.names
        found = []
        for index, (left, right) in enumerate(pairwise(names)):
            carrier = self.carriers[index - 1] if 0 < index < len(names) - 2 else BTP
            left_account = UPLINK if left == ALICE else right
            right_account = UPLINK if right == BOB else left
            found.append(Pair(left, left_account, right, right_account, carrier))
        return found

    def terms(self, connector: Connector, peer: str) -> Terms:
        """What a connector agrees with a neighbour."""
        names = self.names
        if names.index(peer) < names.index(connector.name):
            return Terms(connector.source, connector.credit, connector.packet)
        return Terms(connector.destination, connector.credit_back, "unlimited")

    def learned_by(self, name: str) -> frozenset[str]:
        """The prefixes that a connector learns from its neighbours."""
        return frozenset(one.address for one in self.connectors if one.name != name and self.finds_routes)

    def listeners(self) -> list[Listener]:
        """Every port of the connectors. Of two connectors the right one listens for BTP; for HTTP both do."""
        found = [Listener(connector.name, ADMIN) for connector in self.connectors]
        for pair in self.pairs():
            if pair.carrier == HTTP:
                found += [Listener(pair.left, HTTP), Listener(pair.right, HTTP)]
            else:
                found.append(Listener(pair.left if pair.right == BOB else pair.right, BTP))
        return list(dict.fromkeys(found))


def btp_url(port: int) -> str:
    """Where a wallet dials its connector; the token is given beside it."""
    return f"btp+ws://{HOST}:{port}"


def token_names(network: Network) -> list[str]:
    """The secrets that the network needs: one for each link and way, and one for each admin API."""
    names = [f"{connector.name}/{ADMIN}" for connector in network.connectors]
    for pair in network.pairs():
        names.append(f"{pair.left}/{pair.right}")
        if pair.carrier == HTTP:
            names.append(f"{pair.right}/{pair.left}")
    return names


def files(network: Network, ports: Mapping[Listener, int], tokens: Mapping[str, str]) -> dict[str, str]:
    """Every connector's configuration and its secrets: path below the demo's folder → text."""
    found: dict[str, str] = {}
    for connector in network.connectors:
        folder = _Folder(network, connector, ports, tokens)
        found[f"{connector.name}/{CONFIG_NAME}"] = folder.config()
        found |= {f"{connector.name}/secrets/{name}": f"{token}\n" for name, token in folder.secrets.items()}
    return found


class _Folder:
    """One connector's files."""

    def __init__(
        self, network: Network, connector: Connector, ports: Mapping[Listener, int], tokens: Mapping[str, str]
    ) -> None:
        self.network = network
        self.connector = connector
        self.ports = ports
        self.tokens = tokens
        self.secrets: dict[str, str] = {}

    def config(self) -> str:
        connector = self.connector
        name = connector.name
        own = [pair for pair in self.network.pairs() if name in (pair.left, pair.right)]
        parts = [
            f"# {name} of the demo: it takes {connector.source.code} and gives {connector.destination.code}.",
            f'address = "{connector.address}"',
            'data = "data"',
            "",
            *(self._account(pair, pair.right if pair.left == name else pair.left) for pair in own),
            *([] if self.network.finds_routes else [self._routes(own[0].left, own[-1].right)]),
            self._rates(),
            *(self._listener(listener) for listener in self.network.listeners() if listener.node == name),
        ]
        return "\n".join(parts)

    def _account(self, pair: Pair, peer: str) -> str:
        terms = self.network.terms(self.connector, peer)
        relation = "child" if peer in (ALICE, BOB) else "peer"
        return f"""\
[accounts.{peer}]
asset = "{terms.asset.code}"
scale = {terms.asset.scale}
relation = "{relation}"
{"" if self.network.finds_routes else 'routes = "off"'}
{self._link(pair, peer)}
[accounts.{peer}.limits]
receivable = "{terms.credit}"  # how much {peer} may owe us
packet = "{terms.packet}"
"""

    def _link(self, pair: Pair, peer: str) -> str:
        header = f"[accounts.{peer}.link]\n"
        if pair.carrier == HTTP:
            port = self.ports[Listener(peer, HTTP)]
            outgoing = self._secret(f"to-{peer}", f"{self.connector.name}/{peer}")
            incoming = self._secret(f"from-{peer}", f"{peer}/{self.connector.name}")
            return f"""{header}\
type = "http"
url = "http://{HOST}:{port}/ilp"
outgoing = {{ auth = "bearer", token = {outgoing} }}
incoming = {{ auth = "bearer", token = {incoming} }}
"""
        token = self._secret(peer, f"{pair.left}/{pair.right}")
        if peer in (ALICE, BOB) or peer == pair.left:
            return f'{header}type = "btp-server"\ntoken = {token}\n'
        url = btp_url(self.ports[Listener(peer, BTP)])
        return f'{header}type = "btp-client"\nurl = "{url}"\ntoken = {token}\n'

    def _secret(self, name: str, token: str) -> str:
        self.secrets[name] = self.tokens[token]
        return f'{{ file = "secrets/{name}" }}'

    def _routes(self, left: str, right: str) -> str:
        lines = ["[routes]"]
        names = [connector.name for connector in self.network.connectors]
        own = names.index(self.connector.name)
        for index, connector in enumerate(self.network.connectors):
            if index != own:
                lines.append(f'"{connector.address}" = "{left if index < own else right}"')
        return "\n".join(lines) + "\n"

    def _rates(self) -> str:
        connector = self.connector
        if connector.source == connector.destination:
            return f'[rates]\nspread = "{connector.spread}"\n'
        pair = f"{connector.source.code}/{connector.destination.code}"
        return f'[rates]\n"{pair}" = {{ rate = "{connector.rate}", spread = "{connector.spread}" }}\n'

    def _listener(self, listener: Listener) -> str:
        place = f'listen = "{HOST}:{self.ports[listener]}"\n'
        if listener.kind == ADMIN:
            return f"[admin]\n{place}token = {self._secret(ADMIN, f'{self.connector.name}/{ADMIN}')}\n"
        return f"[listeners.{listener.kind}]\n{place}"


# --- the network of `isthmus demo` -----------------------------------------------------------------------------------

BTC: Final = Asset("BTC", 8)
USD: Final = Asset("USD", 9)
EUR: Final = Asset("EUR", 9)
ETH: Final = Asset("ETH", 9)

# Packets are kept small, so that the payment takes some hundreds of them and the bar is seen to move; the second
# connector's maximum is below the first one's, so that the sender learns of two.
DEMO: Final = Network(
    connectors=(
        Connector(
            name="connector-1",
            source=BTC,
            destination=USD,
            rate=Fraction("64250.5"),
            spread="0.25 %",
            credit="0.2",
            credit_back="20000",
            packet="0.00001",
        ),
        Connector(
            name="connector-2",
            source=USD,
            destination=EUR,
            rate=Fraction("0.92"),
            spread="0.05 %",
            credit="20000",
            credit_back="20000",
            packet="0.35",
        ),
        Connector(
            name="connector-3",
            source=EUR,
            destination=ETH,
            rate=Fraction(1, 2310),
            spread="0.3 %",
            credit="20000",
            credit_back="0",  # Bob can spend what he was paid
        ),
    ),
    carriers=(BTP, HTTP),
)
