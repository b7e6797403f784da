"""What the operator decides, as immutable tables: terms of accounts, routes, exchange rates.

The control plane builds new tables and the kernel swaps them whole between two batches, so the hot path never sees
half a change. The switch reads them and never writes.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final, TypeAlias, final

from isthmus.connector.events import AccountId
from isthmus.connector.record import SETTING_BYTES_MAX, SETTING_KEY_BYTES_MAX
from isthmus.connector.routing.terms import NO_ROUTES, RouteTerms
from isthmus.connector.settling import NO_SETTLEMENT, SettleTerms
from isthmus.errors import CodecError, ConfigError
from isthmus.ilp.address import BOUNDED_SCHEMES, is_test, is_valid, is_valid_prefix, scheme_of
from isthmus.ilp.asset import Asset
from isthmus.ilp.packet import AMOUNT_MAX

if TYPE_CHECKING:
    from isthmus.connector.books import Account, Books

PARENT: Final = "parent"
PEER: Final = "peer"
CHILD: Final = "child"
LOCAL: Final = "local"  # an application in this process: STREAM endpoints
RELATIONS: Final = (PARENT, PEER, CHILD, LOCAL)

ACCOUNTS_MAX: Final = 65_535
ROUTES_MAX: Final = 1_000_000
SETTINGS_MAX: Final = 200_000  # what was set at run time: accounts, routes, rates
SETTINGS_BYTES_MAX: Final = 16 * 1024 * 1024  # of one change, which is one batch
TERMS_BYTES_MAX: Final = 32 * 1024 * 1024  # of all tables as they are journaled, in one batch with others' entries
RATES_BYTES_MAX: Final = 1024 * 1024  # of the rates alone, which may change every few seconds
SPLIT_PPM: Final = 2_000
SPLIT_PPM_MAX: Final = 100_000
EXPIRY_MARGIN_MS: Final = 1_000  # CONN-9
HOLD_MS_MAX: Final = 30_000  # CONN-9
HOLD_MS_LIMIT: Final = 600_000  # an operator may not ask for longer holds: money lies still, and tables grow
OPEN_LEGS_MAX: Final = 20_000  # per account and direction; about 1.5 KB each
PREPARES_PER_BATCH_MAX: Final = 512  # of one account, so that a flood can't fill a batch alone
INBOX_MAX: Final = 1_024  # waiting Prepares of one account; beyond it T03, without books or journal


@final
@dataclass(slots=True, frozen=True, kw_only=True)
class AccountTerms:
    """What we agreed with one peer about one account. Amounts are base units of the account; None is unlimited."""

    id: AccountId
    asset: Asset
    relation: str
    receivable_max: int | None = None  # up to which the peer may owe us, reserved amounts included
    payable_max: int | None = None  # up to which we are willing to owe the peer
    packet_amount_max: int | None = None
    packets_per_minute: int | None = None
    packets_burst: int | None = None  # None: what a tenth of a minute gives, at least 1
    in_flight_max: int | None = None  # value reserved at one time, each direction
    amount_per_second: int | None = None  # incoming value, "payment bandwidth"
    amount_burst: int | None = None  # None: what one second gives
    expiry_margin_ms: int = EXPIRY_MARGIN_MS
    hold_ms_max: int = HOLD_MS_MAX
    open_legs_max: int = OPEN_LEGS_MAX
    prepares_per_batch_max: int = PREPARES_PER_BATCH_MAX
    inbox_max: int = INBOX_MAX
    ildcp_client: bool = False  # ask the peer, our parent, for our address
    ildcp_server: bool = False  # tell the peer, our child, its address
    child_address: str = ""  # what a child is told, and is reached at
    echo_amount_max: int = 0  # CONN-18
    disabled: bool = False  # takes no new Prepares and is sent none; what is in flight ends as ever
    routes: RouteTerms = NO_ROUTES  # what is told of routes, each way
    settle: SettleTerms = NO_SETTLEMENT  # when we pay what we owe, on which ledger

    def check(self) -> None:
        """Raise ConfigError if these terms can't work."""
        key = f"accounts.{self.id}"
        if self.relation not in RELATIONS:
            raise ConfigError(f"{key}.relation", f"{self.relation!r} is none", f"Use one of {', '.join(RELATIONS)}")
        for name in ("receivable_max", "payable_max", "packet_amount_max", "in_flight_max"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ConfigError(f"{key}.{name}", "it is negative", "Use 0 or more, or leave it out for no limit")
        for name in ("packets_per_minute", "packets_burst", "amount_per_second", "amount_burst"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{key}.{name}", "no packet could pass", "Use at least 1")
        if not 0 <= self.expiry_margin_ms < self.hold_ms_max <= HOLD_MS_LIMIT:
            raise ConfigError(
                f"{key}.hold_ms_max",
                f"the margin ({self.expiry_margin_ms} ms) must be below it, and it at most {HOLD_MS_LIMIT} ms",
                f"The defaults are {EXPIRY_MARGIN_MS} and {HOLD_MS_MAX}",
            )
        for name in ("open_legs_max", "prepares_per_batch_max", "inbox_max"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{key}.{name}", "no packet could pass", "Use at least 1")
        if self.child_address and not is_valid(self.child_address):
            raise ConfigError(
                f"{key}.child_address", "it is no ILP address", "Use segments of letters, digits, _, ~, -"
            )
        if self.ildcp_server and self.relation != CHILD:
            raise ConfigError(f"{key}.ildcp_server", "only children are told an address", "Set relation = 'child'")
        if self.ildcp_client and self.relation != PARENT:
            raise ConfigError(f"{key}.ildcp_client", "only a parent gives an address", "Set relation = 'parent'")
        self.routes.check(f"{key}.routes")
        self.settle.check(f"{key}.settlement", payable_max=self.payable_max)


@final
@dataclass(slots=True, frozen=True)
class Conversion:
    """One direction of exchange between two accounts, as integers for the hot path.

    outgoing = incoming * net // denominator; the amount without spread is incoming * mid // denominator.
    """

    net: int
    mid: int
    denominator: int

    def outgoing(self, incoming: int) -> int:
        """Rounded down, in our favour (CONN-11)."""
        return incoming * self.net // self.denominator

    def incoming_max(self, outgoing_max: int) -> int:
        """The largest incoming amount that becomes at most `outgoing_max`, and that UInt64 holds."""
        if self.net == 0:
            return AMOUNT_MAX
        return min(AMOUNT_MAX, ((outgoing_max + 1) * self.denominator - 1) // self.net)


@final
class RateTable:
    """Exact rates between asset codes, in whole units ("1 BTC is 64250.5 USD"), and the spread we keep.

    A rate holds in the direction given, and backwards as its inverse unless that is given too. Spreads are fractions
    of the amount: by pair of asset codes, else of the outgoing account, else of the incoming one, else the default.

    A stopped pair is one that we exchange, but not now: its rate is too old, or not to be believed. `stopped` says
    why, in words that peers may read; such a pair may have no rate. It holds backwards as the rate does.
    """

    def __init__(
        self,
        rates: Mapping[tuple[str, str], Fraction],
        *,
        spread: Fraction = Fraction(0),
        pair_spreads: Mapping[tuple[str, str], Fraction] | None = None,
        account_spreads: Mapping[AccountId, Fraction] | None = None,
        stopped: Mapping[tuple[str, str], str] | None = None,
    ) -> None:
        self.rates: Final = dict(rates)
        self.stopped: Final = dict(stopped or {})
        self.spread: Final = spread
        self.pair_spreads: Final = dict(pair_spreads or {})
        self.account_spreads: Final = dict(account_spreads or {})
        for (base, quote), rate in self.rates.items():
            if rate <= 0:
                raise ConfigError(
                    f"rates.{base}/{quote}", "a rate must be above 0", "Give units of the second per one of the first"
                )
        for name, one in [("default", spread), *self.pair_spreads.items(), *self.account_spreads.items()]:
            # At most a half: then a packet's spread is never more than what goes out, and fits its journal field.
            if not 0 <= one <= Fraction(1, 2):
                raise ConfigError(f"rates.spread ({name})", f"{one} is not between 0 and 1/2", "Write 0.2 % as '0.2 %'")

    def rate(self, base: str, quote: str) -> Fraction | None:
        """Whole units of `quote` for one of `base`; None if we don't trade the pair."""
        if base == quote:
            return self.rates.get((base, quote), Fraction(1))
        found = self.rates.get((base, quote))
        if found is None and (quote, base) in self.rates:
            found = 1 / self.rates[quote, base]
        return found

    def stopped_why(self, base: str, quote: str) -> str | None:
        """Why the pair is stopped, in this direction; None if it isn't, or if we never exchange it."""
        why = self.stopped.get((base, quote))
        if why is None and (base, quote) not in self.rates:
            why = self.stopped.get((quote, base))
        return why

    def conversion(self, incoming: AccountTerms, outgoing: AccountTerms) -> Conversion | None:
        """How amounts go from one account to the other; None if we don't exchange the pair, or not now."""
        rate = self.rate(incoming.asset.code, outgoing.asset.code)
        if rate is None or self.stopped_why(incoming.asset.code, outgoing.asset.code) is not None:
            return None
        mid = rate * Fraction(10) ** (outgoing.asset.scale - incoming.asset.scale)
        net = mid * (1 - self._spread(incoming, outgoing))
        denominator = mid.denominator * net.denominator
        return Conversion(
            net=net.numerator * mid.denominator, mid=mid.numerator * net.denominator, denominator=denominator
        )

    def _spread(self, incoming: AccountTerms, outgoing: AccountTerms) -> Fraction:
        pair = (incoming.asset.code, outgoing.asset.code)
        if pair in self.pair_spreads:
            return self.pair_spreads[pair]
        if LOCAL in (incoming.relation, outgoing.relation):
            return Fraction(0)  # nobody charges himself
        return self.account_spreads.get(outgoing.id, self.account_spreads.get(incoming.id, self.spread))

    def with_account_spreads(self, account_spreads: Mapping[AccountId, Fraction]) -> "RateTable":
        """The same rates, with these in place of the accounts' spreads."""
        return RateTable(
            self.rates,
            spread=self.spread,
            pair_spreads=self.pair_spreads,
            account_spreads=account_spreads,
            stopped=self.stopped,
        )

    def describe(self) -> dict[str, object]:
        """Canonical values for the journal. What is empty and was not known to older versions is left out."""
        described: dict[str, object] = {
            "rates": {f"{base}/{quote}": str(rate) for (base, quote), rate in sorted(self.rates.items())},
            "spread": str(self.spread),
            "pair_spreads": {f"{a}/{b}": str(one) for (a, b), one in sorted(self.pair_spreads.items())},
            "account_spreads": {str(name): str(one) for name, one in sorted(self.account_spreads.items())},
        }
        if self.stopped:
            described["stopped"] = {f"{a}/{b}": why for (a, b), why in sorted(self.stopped.items())}
        return described

    def encode(self) -> bytes:
        """Canonical bytes: what stands for the rates in those of the tables."""
        return _canonical(self.describe())

    def check(self) -> None:
        """Raise ConfigError if this is too much for the journal."""
        size = len(self.encode())
        if size > RATES_BYTES_MAX:
            raise ConfigError("rates", f"they take {size} bytes", f"Keep them below {RATES_BYTES_MAX} together")


@final
class RouteTable:
    """Longest prefix on segment boundaries (ADDR-8). Prefixes may be bare schemes; "" is the default route (ADDR-9)."""

    def __init__(self, routes: Mapping[str, AccountId]) -> None:
        if len(routes) > ROUTES_MAX:
            raise ConfigError("routes", f"{len(routes)} of them", f"Keep at most {ROUTES_MAX}")
        for prefix in routes:
            if prefix and not is_valid_prefix(prefix):
                raise ConfigError(
                    f"routes.{prefix}", "it is no address prefix", "Use for example 'test.bob', 'g', or ''"
                )
            if scheme_of(prefix) == "peer":
                raise ConfigError(f"routes.{prefix}", "peer.* is never forwarded (ADDR-5)", "Remove it")
        self._accounts: Final[dict[bytes, AccountId]] = {
            prefix.encode("ascii"): account for prefix, account in routes.items()
        }
        # No prefix has more dots than this, so a long destination costs no more look-ups than a short one.
        self.dots_max: Final = max((prefix.count(".") for prefix in routes), default=0)
        self._by_account: dict[AccountId, list[str]] | None = None

    def lookup(self, destination: bytes) -> AccountId | None:
        """The account of the longest prefix; None without a route."""
        found = self.find(destination)
        return None if found is None else found[1]

    def find(self, destination: bytes) -> tuple[bytes, AccountId] | None:
        """The longest prefix and its account; None without a route. At most one look-up a segment."""
        accounts = self._accounts
        prefix = destination
        if prefix.count(b".") > self.dots_max:
            prefix = b".".join(prefix.split(b".", self.dots_max + 1)[:-1])
        while prefix:
            found = accounts.get(prefix)
            if found is not None:
                return prefix, found
            prefix = prefix[: max(0, prefix.rfind(b"."))]
        default = accounts.get(b"")
        return None if default is None else (b"", default)

    def at(self, prefix: bytes) -> AccountId | None:
        """The account of exactly this prefix."""
        return self._accounts.get(prefix)

    def prefixes(self) -> list[str]:
        """All prefixes, in the order that they were given in."""
        return [prefix.decode("ascii") for prefix in self._accounts]

    def prefixes_of(self, account: AccountId) -> list[str]:
        """The prefixes that lead to this account."""
        if self._by_account is None:
            self._by_account = {}
            for prefix, one in self._accounts.items():
                self._by_account.setdefault(one, []).append(prefix.decode("ascii"))
        return self._by_account.get(account, [])

    def items(self) -> list[tuple[str, AccountId]]:
        """All routes, sorted by prefix."""
        return sorted((prefix.decode("ascii"), account) for prefix, account in self._accounts.items())


@final
@dataclass(slots=True, frozen=True)
class Tables:
    """Everything the operator decides, at one time."""

    address: str  # our own; "" while a parent has not told it
    accounts: Mapping[AccountId, AccountTerms]
    routes: RouteTable
    rates: RateTable
    split_ppm: int = SPLIT_PPM  # packets are divided over hops whose prices lie so close together

    def check(self) -> None:
        """Raise ConfigError if the tables contradict themselves."""
        if self.address and not is_valid(self.address):
            raise ConfigError("address", f"{self.address!r} is no ILP address", "Use for example 'test.alice'")
        if not 0 <= self.split_ppm <= SPLIT_PPM_MAX:
            raise ConfigError("routing.split_within", f"{self.split_ppm} ppm", "Use 0 % to 10 %")
        if len(self.accounts) > ACCOUNTS_MAX:
            raise ConfigError("accounts", f"{len(self.accounts)} of them", f"Keep at most {ACCOUNTS_MAX}")
        clients = [terms.id for terms in self.accounts.values() if terms.ildcp_client]
        if len(clients) > 1:
            raise ConfigError(
                f"accounts.{clients[1]}.ildcp_client", f"{clients[0]} is asked already", "Ask one parent only (CONN-14)"
            )
        for terms in self.accounts.values():
            terms.check()
        for prefix, account in self.routes.items():
            if account not in self.accounts:
                raise ConfigError(f"routes.{prefix or 'default'}", f"there is no account {account}", "Name an account")
        self.rates.check()
        size = len(self.encode())
        if size > TERMS_BYTES_MAX:
            raise ConfigError(
                "routes", f"with all accounts they take {size} bytes", f"Keep them below {TERMS_BYTES_MAX} together"
            )

    def check_against(self, books: "Books", forgotten: Collection[AccountId] = ()) -> None:
        """Raise ConfigError if these tables contradict the books: an asset changed, or a needed account is missing.

        `forgotten`: what their engines keep is dropped together with these tables.
        """
        for name, account in books.peers.items():
            terms = self.accounts.get(name)
            if terms is None:
                needed = _still_needed(account, is_forgotten=name in forgotten)
                if needed:
                    raise ConfigError(f"accounts.{name}", f"it is missing, but {needed[0]}", needed[1])
            elif (terms.asset.code, terms.asset.scale) != (account.asset_code, account.asset_scale):
                raise ConfigError(
                    f"accounts.{name}.asset",
                    f"the books have it in {account.asset_code} with scale {account.asset_scale}, for ever",
                    "Open an account with another name",
                )

        for name, engine in _bound_engines(books, forgotten).items():
            terms = self.accounts[name]
            if terms.settle.engine != engine:
                raise ConfigError(
                    f"accounts.{name}.settlement.engine",
                    f"the engine {engine} has channels or payments of it on a ledger, and no other would find them",
                    f"Leave it at {engine}, and change it while the node runs: then {engine} says what is left to do",
                )

    def allows(self, destination: str) -> bool:
        """Whether we may carry packets to this address at all (ADDR-5, ADDR-6, ADDR-7)."""
        if not is_valid(destination):
            return False
        scheme = scheme_of(destination)
        if scheme in ("peer", "self"):
            return False
        if not self.address:
            return scheme not in BOUNDED_SCHEMES
        own = scheme_of(self.address)
        if scheme in BOUNDED_SCHEMES or own in BOUNDED_SCHEMES:
            return scheme == own
        return is_test(destination) == is_test(self.address)

    def encode(self) -> bytes:
        """Canonical bytes for the journal: equal tables give equal bytes. Nobody's secret is in them."""
        described = {
            "address": self.address,
            "accounts": [_describe_terms(self.accounts[name]) for name in sorted(self.accounts)],
            "routes": self.routes.items(),
            "rates": self.rates.describe(),
        }
        if self.split_ppm != SPLIT_PPM:
            described["split_ppm"] = str(self.split_ppm)
        return _canonical(described)


def _canonical(described: object) -> bytes:
    return json.dumps(described, separators=(",", ":"), sort_keys=True).encode()


_RATES_KEY: Final = b',"rates":{'
_ROUTES_KEY: Final = b',"routes":['


def with_rates(encoded: bytes, rates: bytes) -> bytes:
    """Tables' canonical bytes with other rates in them; CodecError if they are none.

    They are put in by their place: reading and writing a hundred thousand routes anew would keep packets waiting.
    Both keys can only be those of the whole: within a string their quotes would be escaped, no account's terms have
    such a key, and what an account of such a name is mapped to in the rates is a string.
    """
    start = encoded.find(_RATES_KEY)
    end = encoded.find(_ROUTES_KEY, start)
    if start < 0 or end < 0:
        raise CodecError("rates", 0, "there are no tables whose rates they could be")
    return b"".join((encoded[: start + len(_RATES_KEY) - 1], rates, encoded[end:]))


def rates_of(encoded: bytes) -> dict[str, Any]:
    """What `RateTable.describe` gave, from the tables with these canonical bytes; empty without any."""
    if not encoded:
        return {}
    found: dict[str, Any] = json.loads(encoded)["rates"]
    return found


def _bound_engines(books: "Books", forgotten: Collection[AccountId]) -> dict[AccountId, str]:
    """Which engine it is, for accounts whose settlements are under way or for which an engine keeps something."""
    settlers = [(one, one.settling) for one in books.peers.values() if one.settling is not None]
    bound = [
        account
        for account, settling in settlers
        if settling.open or (settling.engine and AccountId(account.name) not in forgotten)
    ]
    if not bound or not books.terms:
        return {}
    described = {one["id"]: one.get("settle", {}) for one in json.loads(books.terms)["accounts"]}
    engines = {AccountId(one.name): described.get(one.name, {}).get("engine", "") for one in bound}
    return {name: engine for name, engine in engines.items() if engine}


def _still_needed(account: "Account", *, is_forgotten: bool) -> tuple[str, str] | None:
    """Why the books can't do without an account, and what its operator can do."""
    if account.balance or account.loss.balance:
        return "has a balance or a loss", "Put it back, or clear it by `isthmus books adjust` and `write-off`"
    if account.received or account.sent:
        return "has packets in flight", "Put it back until they are decided"
    if account.settling is not None and account.settling.open:
        return "has settlements under way", "Put it back until `isthmus settlements list` shows none"
    if account.settling is not None and account.settling.engine and not is_forgotten:
        remedy = "Put it back, and remove it by `isthmus accounts remove`: its engine says what is left to do"
        return "its engine keeps channels or payments of it", remedy
    if account.fulfilled or account.unsaid:
        return (
            "has outcomes that its peer has not acknowledged or heard",
            "Put it back; if the peer is gone for good, say `isthmus books give-up`",
        )
    return None


def address_of(encoded: bytes) -> str:
    """Our address in the tables with these canonical bytes; "" without any."""
    return str(json.loads(encoded)["address"]) if encoded else ""


def longest_hold_ms(encoded: bytes) -> int:
    """The longest time that a packet was held under the tables with these canonical bytes; the limit without any."""
    described = json.loads(encoded)["accounts"] if encoded else []
    return max((int(account["hold_ms_max"]) for account in described), default=HOLD_MS_LIMIT)


def _describe_terms(terms: AccountTerms) -> dict[str, object]:
    described = {
        name: str(value) if isinstance(value, int) and not isinstance(value, bool) else value
        for name, value in asdict(terms).items()
        # Tables in which nothing is disabled or settled, and no routes are told, are written as before there was that.
        if name not in ("asset", "routes", "settle") and (name != "disabled" or value)
    }
    if terms.routes != NO_ROUTES:
        described["routes"] = asdict(terms.routes)
    if terms.settle != NO_SETTLEMENT:
        described["settle"] = {name: None if one is None else str(one) for name, one in asdict(terms.settle).items()}
    return {**described, "asset_code": terms.asset.code, "asset_scale": terms.asset.scale}


@final
@dataclass(slots=True)
class TablesChanged:
    """Event: from the next batch on, these tables hold, and the settings that they were made from.

    With a token it is answered by `TablesTaken`, as soon as it is durable; without one a refusal is only logged.
    """

    tables: Tables
    settings: Sequence[tuple[bytes, bytes]] = ()  # key, value; an empty value takes the key away
    facts: Sequence[tuple[AccountId, str]] = ()  # who changed what, for statements
    # Accounts of which nothing is open at their engines, as these say: what is kept for them is dropped.
    forgotten: Sequence[AccountId] = ()
    token: int = 0


@final
@dataclass(slots=True)
class RatesChanged:
    """Event: from the next batch on, these rates hold; all else of the tables stays, and the accounts' spreads too.

    Settings and token are as with `TablesChanged`.
    """

    rates: RateTable
    settings: Sequence[tuple[bytes, bytes]] = ()
    token: int = 0


TableEvent: TypeAlias = TablesChanged | RatesChanged


def check_settings(settings: Sequence[tuple[bytes, bytes]], books: "Books") -> None:
    """Raise ConfigError if the journal can't keep these beside those that it has."""
    for key, value in settings:
        if not 0 < len(key) <= SETTING_KEY_BYTES_MAX:
            raise ConfigError("settings", "the name of a setting is too long", f"Keep it below {SETTING_KEY_BYTES_MAX}")
        if len(value) > SETTING_BYTES_MAX:
            name = key.decode(errors="replace")
            raise ConfigError(name, f"it takes {len(value)} bytes", f"Keep it below {SETTING_BYTES_MAX}")
    if len(books.settings) + len(settings) > SETTINGS_MAX:
        raise ConfigError("settings", f"more than {SETTINGS_MAX}", "Write what is to stay into the node's file")
    if sum(len(key) + len(value) for key, value in settings) > SETTINGS_BYTES_MAX:
        raise ConfigError("settings", "too many at once", "Change less at a time")
