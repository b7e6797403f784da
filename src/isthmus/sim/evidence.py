"""What the auditor is given, as plain values: exported books, who faces whom, the wallets' words, what was broken when.

Nothing here computes anything. Times are wall-clock milliseconds of whoever watched, amounts are base units.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from fractions import Fraction
from typing import Any, Final, NamedTuple, TypeAlias

# One line of `isthmus books export --format json` (or of the lists in `isthmus books show --json`).
Row: TypeAlias = Mapping[str, Any]

# Longer than any packet may be on its way: where it isn't known when a leg was fulfilled, it was at most so long
# before its expiry.
HOLD_MS: Final = 60_000
# Two neighbours that are up and linked for so long have told each other every outcome.
SETTLE_MS: Final = 5_000


class End(NamedTuple):
    """One account of one node."""

    node: str
    account: str


class Wire(NamedTuple):
    """Two accounts that face each other: what one owes, the other is owed."""

    left: End
    right: End


class Terms(NamedTuple):
    """What a node agreed to on one account, at its most generous. None: no limit."""

    receivable_max: int | None  # up to which the peer may owe it, reserved amounts included
    payable_max: int | None  # up to which it may owe the peer
    margin_ms: int  # how much sooner than a packet of the peer's its own one expires
    hold_ms_max: int  # how long it holds money for the peer
    ahead_max: int | None = None  # up to which it pays before it owes


class Flow(NamedTuple):
    """What one of two neighbours settled with the other, as far as it isn't in both books' rows.

    `moved` and `waits` are units of the ledger, of which 10^scale are one of the asset; the rest is units of the
    accounts, of which 10^asset_scale are.
    """

    payer: End
    payee: End
    asset_scale: int
    scale: int
    moved: int  # what the ledger moved, or holds for a claim that the payer has signed
    waits: int = 0  # what the payer's engine has taken on, and the ledger doesn't show yet
    untaken: int = 0  # what the payer's books have debited, and its engine doesn't have, or can't pay any more
    carried: int = 0  # of the payer's: less than a unit of the ledger, to be paid with what comes next
    leftover: tuple[int, int] = (0, 0)  # of the payee's: less than a unit of the account, and its scale
    owed_back: int = 0  # of the payee's, in units of the ledger: what an undoing left, and the next credit makes good


class Mark(NamedTuple):
    """At `at_ms` the node's journal held batches up to `sequence`. Seen from outside, or exact in a simulation."""

    at_ms: int
    sequence: int


class Told(NamedTuple):
    """A report of outcomes as it left: all that the node sent in this session up to the watermark is decided."""

    node: str
    account: str
    session: str
    watermark: int
    at_ms: int


class State(Enum):
    """What became of a leg."""

    OPEN = "open"
    POSTED = "posted"
    VOID = "void"


@dataclass(slots=True, kw_only=True, eq=False)
class Leg:
    """One leg of one packet in one node's books."""

    node: str
    id: int
    account: str
    is_incoming: bool
    amount: int
    spread: int
    rounding: int
    asset: str  # "USD:9"
    expires_at: int
    session: str
    request_id: int
    condition: str
    reserved: int = 0  # the batch that reserved it
    state: State = State.OPEN
    reason: str = ""  # of a void
    decided: int = 0  # the batch that posted or voided it
    lost: int = 0  # what the node wrote off of it
    partner: "Leg | None" = None  # the packet's other leg in the same node

    def __str__(self) -> str:
        way = "from" if self.is_incoming else "to"
        return f"leg {self.id} of {self.node} ({way} {self.account}, request {self.request_id} of {self.session[:8]})"


@dataclass(slots=True, kw_only=True)
class Journal:
    """The books of one node, as it exports them.

    `rows` are the transfers, oldest first; `balances` the balances, `assets` the list of that name in `books show
    --json`. The last two are claims that are compared with what the rows add up to; empty: nothing is claimed.
    """

    node: str
    rows: Iterable[Row]
    balances: Sequence[Row] = ()
    assets: Sequence[Row] = ()
    marks: Sequence[Mark] = ()  # in the order of time


@dataclass(slots=True, kw_only=True)
class Paid:
    """One payment, as the sender's wallet tells it when it has ended."""

    node: str
    payee: str  # the node that it went to
    id: str
    sent: int
    unknown: int  # may have left besides
    delivered: int
    delivered_max: int
    slack: int = 0  # `delivered_max` is an estimate: assets on the way may be too coarse for it by up to so much
    at_price: int = 0  # what all that may have left brings at the prices of the way, where they are known
    connection: str = ""  # the receiver's name for it, where it is known


@dataclass(slots=True, kw_only=True)
class Received:
    """One connection, as the receiver's wallet tells it."""

    node: str
    connection: str
    amount: int


class Down(NamedTuple):
    """A node that wasn't there: killed, stopped, or its disk stood still. It is back when its links can be up."""

    node: str
    from_ms: int
    to_ms: int


class Cut(NamedTuple):
    """Nothing passes between two nodes."""

    left: str
    right: str
    from_ms: int
    to_ms: int


class Skew(NamedTuple):
    """A node's wall clock is wrong by up to so much."""

    node: str
    from_ms: int
    to_ms: int
    by_ms: int


@dataclass(slots=True, kw_only=True)
class Opening:
    """Where the last audit ended, by its own addition: journals are pruned, and long runs are audited in parts."""

    sequences: dict[str, int] = field(default_factory=dict)  # rows up to it were audited before
    balances: dict[str, dict[str, int]] = field(default_factory=dict)  # node → account → balance
    legs: list[Leg] = field(default_factory=list)  # open ones
    left: dict[str, int] = field(default_factory=dict)  # what each wallet's own packets posted
    credited: dict[str, int] = field(default_factory=dict)  # what each wallet fulfilled as a receiver
    arrived: dict[tuple[str, str], int] = field(default_factory=dict)  # sender, receiver → credited and paid for
    unpaid: dict[tuple[str, str], int] = field(default_factory=dict)  # credited, and lost on the way back


@dataclass(slots=True, kw_only=True)
class Evidence:
    """One network at the end of a run, or of a part of it.

    Accounts that are in no wire are ends: a wallet's own packets come in there, and what it is paid goes out there.
    A node that is in `dishonest` may say anything; nodes in a wire without a journal are strangers. Of neither are
    books expected to agree, and what an honest node lost to them is permitted.
    """

    journals: Sequence[Journal]
    wires: Sequence[Wire]
    paid: Sequence[Paid] = ()
    received: Sequence[Received] = ()
    downs: Sequence[Down] = ()
    cuts: Sequence[Cut] = ()
    skews: Sequence[Skew] = ()
    dishonest: frozenset[str] = frozenset()
    opening: Opening | None = None
    rates_rose: int = 0  # by up to so many percent, while payments were on their way
    forgers: frozenset[str] = frozenset()  # of the dishonest, who may pass on more than came in, at their own expense
    # What nodes told their peers, what they agreed to, and their best rates (node, incoming asset, outgoing asset →
    # outgoing units for one). Where nothing is known, nothing is checked.
    told: Sequence[Told] = ()
    terms: Mapping[End, Terms] = field(default_factory=dict)
    rates: Mapping[tuple[str, str, str], Fraction] = field(default_factory=dict)
    flows: Sequence[Flow] = ()  # settlements on ledgers that are known
    # The faults are over, everything that was open has had time to end. False: only contradictions are looked for.
    is_quiet: bool = True
    hold_ms: int = HOLD_MS
    settle_ms: int = SETTLE_MS
