"""The configuration that `isthmus node init` writes: commented, valid as it is, with secrets of its own."""

from dataclasses import dataclass
from enum import Enum

from isthmus.node.config_values import FROM_PARENT

FILE_NAME = "isthmus.toml"
SECRETS_FOLDER = "secrets"


class Keep(Enum):
    """Where the secrets go."""

    INLINE = "inline"
    FILES = "files"
    ENVIRONMENT = "env"


@dataclass(slots=True, frozen=True, kw_only=True)
class Template:
    """What the operator chose; `tokens` maps a secret's name to its text."""

    address: str | None  # None: from the parent
    asset: str
    scale: int
    parent_url: str | None  # with its token in it, or None for a node without a parent
    keep: Keep
    tokens: dict[str, str]

    def secret(self, name: str) -> str:
        """A secret's value in TOML."""
        if self.keep is Keep.FILES:
            return f'{{ file = "{SECRETS_FOLDER}/{name}" }}'
        if self.keep is Keep.ENVIRONMENT:
            return f'{{ env = "{variable(name)}" }}'
        return f'"{self.tokens[name]}"'

    def text(self) -> str:
        """The whole file."""
        parts = [_HEAD, self._address(), _DATA]
        if self.parent_url is not None:
            parts.append(self._parent())
        parts += [self._child(), _OTHER_LINKS, self._rates(), _SETTLEMENT, self._listeners(), self._admin(), _REST]
        return "\n".join(parts)

    def _address(self) -> str:
        return f'address = "{self.address or FROM_PARENT}"\n'

    def _parent(self) -> str:
        return f"""\
# The connector above us: it gives us our address, and takes what no other route takes.
[accounts.parent]
relation = "parent"
asset = "{self.asset}"
scale = {self.scale}
link = {{ type = "btp-client", url = "{self.parent_url}", token = {self.secret("parent")} }}

[accounts.parent.limits]
receivable = "100"      # the parent may owe us as much
payable = "100"         # we are willing to owe the parent as much
"""

    def _child(self) -> str:
        return f"""\
# Someone who connects to us: a wallet, or a smaller connector. It gets its address from us.
[accounts.alice]
relation = "child"
asset = "{self.asset}"
scale = {self.scale}
link = {{ type = "btp-server", token = {self.secret("alice")} }}

[accounts.alice.limits]
receivable = "10"       # alice may owe us ten {self.asset}; "0" would mean that she pays in advance
payable = "unlimited"   # what we are willing to owe alice
# packet = "1"          # the largest amount of one packet
# in_flight = "5"       # how much may wait for its outcome at a time
# per_second = "1"      # how much may pass in a second
# packets_per_minute = 60000
# hold = "30 s"
# margin = "1 s"
"""

    def _rates(self) -> str:
        return f"""\
# Which account packets leave by. Children are reached by their addresses, the parent takes the rest.
[routes]
# "test.bob" = "bob"
# default = "bob"

# What one unit of an asset is worth in another, before our spread; the way back is the inverse.
[rates]
spread = "0.2 %"
# "{self.asset}/EUR" = "0.92"
# "{self.asset}/XRP" = {{ rate = "1.9", spread = "20 bp" }}
# "EUR/CHF" = {{ source = "bank" }}   # fetched; one that is too old or has jumped stops its pair
# [rates.sources.bank]
# type = "ecb"
"""

    def _listeners(self) -> str:
        return """\
# Where peers reach us. On other addresses than this machine's own give tls, or put a reverse proxy before it.
[listeners.btp]
listen = "127.0.0.1:7768"
# tls = { cert_file = "fullchain.pem", key_file = "privkey.pem" }

# [listeners.http]
# listen = "127.0.0.1:7769"
"""

    def _admin(self) -> str:
        return f"""\
# /health /accounts /balances /routes /books/digest, /metrics for Prometheus; and corrections of the books.
[admin]
listen = "127.0.0.1:7770"
token = {self.secret("admin")}
"""


def variable(name: str) -> str:
    """The environment variable that holds a secret."""
    return f"ISTHMUS_{name.upper()}_TOKEN"


_HEAD = """\
# An isthmus node. `isthmus node check` says what is wrong with this file, `isthmus node run` runs it.
# All keys, with their defaults: docs/configuration.md. Amounts are strings in units of the asset: "0.5".

# Addresses begin with "g" on the live network and with "test" on a test network."""

_DATA = """\
# The journal, the books and what else the node must not lose; relative to this file.
data = "data"
"""

_SETTLEMENT = """\
# How what is owed is paid on a ledger: docs/settlement.md. Without it an account is settled by hand (isthmus settle).
# [settlement.house]
# type = "bank"            # a ledger that only transfers; or "xrp", "xrp-payment", "evm", "lightning", "rfc38"
# url = "https://bank.example"
# account = "us"
# token = { file = "secrets/bank" }
# asset = "EUR"
# [accounts.bob.settlement]
# engine = "house"
# threshold = "10"         # once we owe bob as much, he is paid
"""

_OTHER_LINKS = """\
# Two equals, over ILP over HTTP; each POSTs to the other.
# [accounts.bob]
# relation = "peer"
# asset = "EUR"
# scale = 9
# [accounts.bob.link]
# type = "http"
# url = "https://bob.example/ilp"
# outgoing = { auth = "bearer", token = { file = "secrets/to-bob" } }
# incoming = { auth = "bearer", token_sha256 = "…" }
# [accounts.bob.limits]
# receivable = "50"
# payable = "50"
"""

_REST = """\
[log]
level = "info"
"""
