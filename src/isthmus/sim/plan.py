"""What a run is made of: nodes, links, payments, faults. Plain values: a run can be repeated, and made smaller."""

from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Final, final

from isthmus.ilp.asset import Asset

CONNECTOR: Final = "connector"
WALLET: Final = "wallet"
BTP: Final = "btp"
HTTP: Final = "http"

# Base units differ by many orders of magnitude, as they do in life. Prices are dollars of one whole unit.
ASSETS: Final = {
    "USD": (Asset("USD", 9), Fraction(1)),
    "EUR": (Asset("EUR", 6), Fraction(11, 10)),
    "XRP": (Asset("XRP", 6), Fraction(1, 2)),
    "BTC": (Asset("BTC", 11), Fraction(64_000)),
    "JPY": (Asset("JPY", 4), Fraction(1, 150)),
}

# --- faults ----------------------------------------------------------------------------------------------------------

DELAY: Final = "delay"
CUT: Final = "cut"
REPLACE: Final = "replace"
PARTITION: Final = "partition"
HALF_OPEN: Final = "half-open"
SLOW_PEER: Final = "slow peer"
LOSS: Final = "loss"
DUPLICATE: Final = "duplicate"
REORDER: Final = "reorder"
CRASH: Final = "crash"
TORN: Final = "torn write"
FAILED_WRITE: Final = "failed write"
UNKNOWN_WRITE: Final = "unknown write"
SLOW_DISK: Final = "slow disk"
CLOCK_JUMP: Final = "clock jump"
SKEW: Final = "clock skew"
RATE: Final = "rate change"
DRY: Final = "no liquidity"

LINK_FAULTS: Final = (DELAY, CUT, REPLACE, PARTITION, HALF_OPEN, SLOW_PEER)
HTTP_FAULTS: Final = (LOSS, DUPLICATE, REORDER)
NODE_FAULTS: Final = (CRASH, TORN, FAILED_WRITE, UNKNOWN_WRITE, SLOW_DISK, CLOCK_JUMP)
CONNECTOR_FAULTS: Final = (RATE, DRY)
FAULTS: Final = (*LINK_FAULTS, *HTTP_FAULTS, *NODE_FAULTS, *CONNECTOR_FAULTS, SKEW)

# --- adversaries -----------------------------------------------------------------------------------------------------

WITHHOLD: Final = "withholds the fulfillment"
LAST_MOMENT: Final = "reveals at the last millisecond"
ANSWER_TWICE: Final = "answers twice"
WRONG_PREIMAGE: Final = "fulfils with a wrong preimage"
STEAL: Final = "keeps a Fulfill back"
SHORTEN: Final = "shortens expiries"
LENGTHEN: Final = "lengthens expiries"
FORGE: Final = "forges amounts"
REPLAY: Final = "replays packets"
FLOOD: Final = "floods tiny packets"
GRIEF: Final = "holds Prepares to the end"

CONNECTOR_VICES: Final = (
    ANSWER_TWICE,
    WRONG_PREIMAGE,
    STEAL,
    SHORTEN,
    LENGTHEN,
    FORGE,
    REPLAY,
    FLOOD,
    GRIEF,
)
# In networks that find their own routes.
TELLS_LIES: Final = "tells bad routes"
BLACK_HOLE: Final = "announces everything and rejects it"
ROUTE_VICES: Final = (TELLS_LIES, BLACK_HOLE)
WALLET_VICES: Final = (WITHHOLD, LAST_MOMENT, ANSWER_TWICE, REPLAY, FLOOD, GRIEF)
VICES: Final = (WITHHOLD, LAST_MOMENT, *CONNECTOR_VICES)

# --- settlement ------------------------------------------------------------------------------------------------------

# Kinds of ledgers, by what settles there.
BANK: Final = "bank"
TRANSFERS: Final = "transfers"  # on a chain
CHANNELS: Final = "channels"  # payment channels on a chain

AWAY: Final = "ledger away"
LATE: Final = "ledger answers late"
SHOWN_TWICE: Final = "transfer shown twice"
VOIDED: Final = "key voided"
REORGANISED: Final = "reorganisation"
FORGOTTEN: Final = "transactions forgotten"
CHANNEL_CLOSED: Final = "channel closed by its owner"  # its target is a node; those of the others are ledgers
BANK_FAULTS: Final = (AWAY, LATE, SHOWN_TWICE, VOIDED)
CHAIN_FAULTS: Final = (AWAY, LATE, REORGANISED, FORGOTTEN)
LEDGER_FAULTS: Final = (AWAY, LATE, SHOWN_TWICE, VOIDED, REORGANISED, FORGOTTEN, CHANNEL_CLOSED)

PAYS_NOT: Final = "says that it settled, and didn't"
NEVER_SETTLES: Final = "never settles"
OVERPAYS: Final = "settles too much"
WRONG_ASSET: Final = "settles in another asset"
SAME_KEY: Final = "settles twice with one key"
BAD_CLAIMS: Final = "sends bad claims"
DOUBLE_SPENDS: Final = "takes back what it settled"
SETTLE_VICES: Final = (PAYS_NOT, NEVER_SETTLES, OVERPAYS, WRONG_ASSET, SAME_KEY, BAD_CLAIMS, DOUBLE_SPENDS)


@final
@dataclass(slots=True, frozen=True, kw_only=True)
class NodePlan:
    """A connector or a wallet. A node with a `vice` is an adversary: its own books are nobody's business."""

    name: str
    kind: str
    home: str = ""  # of a wallet: its connector
    asset: str = ""  # of a wallet
    skew_ms: int = 0  # how far its wall clock is off
    sync_ms: int = 2  # what its disk needs for a sync
    spread: Fraction = Fraction(0)  # what a connector keeps
    timeout_ms: int = 0  # of a wallet's packets
    vice: str = ""
    vice_rate: int = 0  # in percent of the chances it has
    seed: int = 0

    @property
    def is_honest(self) -> bool:
        return not self.vice


@final
@dataclass(slots=True, frozen=True, kw_only=True)
class LedgerPlan:
    """Where neighbours settle. All of a ledger is in one asset. Values are cents."""

    name: str
    kind: str
    asset: str
    decimals: int  # of its unit; fewer than the asset's scale leave something over
    deposit: int = 0  # of channels: what is put into one at a time
    claim_above: int = 0  # of channels: redeemed once so much is; 0: only as they close
    seed: int = 0


@final
@dataclass(slots=True, frozen=True, kw_only=True)
class SettlePlan:
    """How one end of a link settles, and what it trusts the other with. Values are cents.

    Of two ends at most one has a target below zero, and the other's threshold is above what that one pays ahead. Else
    each pays what the other has paid back to it, for ever.
    """

    threshold: int | None  # None: never by itself
    target: int
    receivable: int | None  # what the other may owe it
    minimum: int = 0
    amount_max: int | None = None
    knows_scale: bool = True  # pays only what the ledger can; else fractions of its unit are carried

    @property
    def ahead(self) -> int:
        return max(0, -self.target)


@final
@dataclass(slots=True, frozen=True, kw_only=True)
class LinkPlan:
    """Two neighbours with one account in one asset. `a` dials. Values are cents; None is no limit."""

    a: str
    b: str
    asset: str
    carrier: str = BTP
    delay_ms: int
    jitter_ms: int
    credit: int | None = None  # how much either may owe the other
    packet_max: int | None = None
    packets_per_minute: int | None = None
    value_per_second: int | None = None
    asynchronous: bool = False  # HTTP: replies come by POSTs of their own
    seed: int = 0
    ledger: str = ""  # where its account is settled; "" for nowhere
    settle_a: SettlePlan | None = None
    settle_b: SettlePlan | None = None
    parent: str = ""  # the end that is the other one's parent; "" for peers. Wallets are children in any case

    @property
    def name(self) -> str:
        return f"{self.a}-{self.b}"

    def settle(self, node: str) -> SettlePlan | None:
        """How this end of it settles."""
        return self.settle_a if node == self.a else self.settle_b


@final
@dataclass(slots=True, frozen=True, kw_only=True)
class PaymentPlan:
    """A user's wish. Without a key it isn't taken up again after a crash, but recorded as stopped."""

    number: int
    payer: str
    payee: str
    at_ms: int
    value: int  # cents
    deliver: bool  # a fixed amount is to arrive, instead of to leave
    slack: int  # percent below the path's rate that are accepted
    key: str

    def __str__(self) -> str:
        goal = "deliver" if self.deliver else "send"
        return f"payment {self.number}: {self.payer} to {self.payee}, {goal} {self.value / 100:.2f} dollars' worth"


@final
@dataclass(slots=True, frozen=True, kw_only=True)
class FaultPlan:
    """One thing that goes wrong. `target` is a node or a link; what `value` means depends on the kind."""

    number: int
    kind: str
    at_ms: int
    lasts_ms: int
    target: str
    value: int = 0

    @property
    def ends_at(self) -> int:
        return self.at_ms + self.lasts_ms

    def __str__(self) -> str:
        for_ms = f" for {self.lasts_ms} ms" if self.lasts_ms else ""
        return f"fault {self.number}: {self.kind} at {self.target} after {self.at_ms} ms{for_ms}"


@final
@dataclass(slots=True, frozen=True, kw_only=True)
class Plan:
    """Everything that a run depends on."""

    seed: int
    nodes: tuple[NodePlan, ...]
    links: tuple[LinkPlan, ...]
    payments: tuple[PaymentPlan, ...]
    faults: tuple[FaultPlan, ...]
    by_ccp: bool = False  # connectors find their routes by themselves, and have none configured
    ledgers: tuple[LedgerPlan, ...] = ()  # where some of the links settle
    packets_min: int = 0  # in the quiet time users go on paying until so many Prepares have left wallets
    left_out: dict[str, tuple[int, ...]] = field(default_factory=dict)  # what a shrunk plan lacks, for its command

    def node(self, name: str) -> NodePlan:
        return next(node for node in self.nodes if node.name == name)

    def link(self, name: str) -> LinkPlan:
        return next(link for link in self.links if link.name == name)

    def ledger(self, name: str) -> LedgerPlan:
        return next(ledger for ledger in self.ledgers if ledger.name == name)

    @property
    def quiet_at(self) -> int:
        """From here on nothing goes wrong any more, but for adversaries: those never rest."""
        return max((fault.ends_at for fault in self.faults), default=0)

    def without(self, *, faults: tuple[int, ...] = (), payments: tuple[int, ...] = ()) -> "Plan":
        """The same but for these faults and payments; nothing else changes its randomness by that."""
        return replace(
            self,
            faults=tuple(one for one in self.faults if one.number not in faults),
            payments=tuple(one for one in self.payments if one.number not in payments),
            packets_min=self.packets_min if not faults and not payments else 0,
            left_out={"faults": faults, "payments": payments},
        )

    @property
    def command(self) -> str:
        """What repeats a run of this plan."""
        left_out = "".join(
            f" --without-{what} {','.join(map(str, numbers))}" for what, numbers in self.left_out.items() if numbers
        )
        kind = " --routes" if self.by_ccp else " --settle" if self.ledgers else ""
        return f"isthmus sim run{kind} --seed {self.seed}{left_out}"


def price(code: str) -> Fraction:
    """Dollars of one whole unit."""
    return ASSETS[code][1]


def units(cents: int, code: str) -> int:
    """How many base units of an asset are worth so much."""
    asset, dollars = ASSETS[code]
    return int(Fraction(cents, 100) / dollars * 10**asset.scale)


def unit_value(code: str) -> Fraction:
    """Dollars of one base unit."""
    asset, dollars = ASSETS[code]
    return Fraction(dollars.numerator, dollars.denominator * 10**asset.scale)
