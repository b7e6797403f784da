"""Settlements with one peer: what was agreed, what the books keep, and when how much is due (design, "Settlement").

Pure values and integers. What moves money and writes entries is in `settlements.py`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, final

from isthmus.errors import ConfigError
from isthmus.ilp.asset import SCALE_MAX

# States of a settlement of ours. The numbers are in journals: never change their meaning.
BEGUN: Final = 1  # the payable is debited; the engine has not said yet that it will see to it
TAKEN: Final = 2  # the engine has it, durably, and follows it to its end
FAILED: Final = 3  # the ledger proves that it can't happen any more: an operator reverses it
CONFIRMED: Final = 4  # it is final on the ledger; nothing is kept of it
ENDED: Final = 5  # an engine elsewhere has acknowledged it, and our part ends (RFC 38); nothing is kept of it
REVERSED: Final = 6  # the operator took it back; nothing is kept of it
STATES: Final = {
    BEGUN: "begun",
    TAKEN: "taken",
    FAILED: "failed",
    CONFIRMED: "confirmed",
    ENDED: "ended",
    REVERSED: "reversed",
}
OPEN_STATES: Final = (BEGUN, TAKEN, FAILED)

# Settlements of one account that are not at their end. Beyond it none is begun, and the limits stop the peer.
OPEN_SETTLEMENTS_MAX: Final = 64
# Keys under which incoming settlements of one account were credited. Each is kept for a week after its last use (a day
# is asked for, SE-7); at the bound no other is credited, and the engine asks again.
CREDIT_KEYS_MAX: Final = 10_000
CREDIT_KEY_MS: Final = 7 * 86_400_000
# A repeated use is written down if the key's last use is longer ago.
CREDIT_KEY_USED_MS: Final = 86_400_000
CREDIT_KEY_BYTES_MAX: Final = 255
# What an engine keeps for one account: some channels, transactions under way, claims.
ENGINE_KEYS_MAX: Final = 1_024
ENGINE_VALUE_BYTES_MAX: Final = 65_536
SETTLEMENT_KEY_BYTES: Final = 16
# A quantity of RFC 38 has any size; this is 2^256 units of the finest token, at the largest scale.
QUANTITY_MAX: Final = 2**256 - 1
QUANTITY_SCALE_MAX: Final = 255

assert SCALE_MAX <= QUANTITY_SCALE_MAX


@final
@dataclass(slots=True, frozen=True, kw_only=True)
class SettleTerms:
    """When we settle an account by ourselves. Amounts are base units of the account.

    What we owe is the negative balance; below zero we have paid ahead, and the peer owes us that.
    """

    engine: str = ""  # the name of the account's engine; "" for none
    threshold: int | None = None  # from what we owe on; None: only when the operator says so
    target: int = 0  # what we owe afterwards; negative to pay ahead
    ahead_max: int = 0  # never pay so that the peer owes us more than this
    minimum: int = 1  # no settlement is smaller
    amount_max: int | None = None  # none is larger; what is left follows
    ledger_scale: int | None = None  # of a ledger that counts in coarser units; None: it takes any amount

    def check(self, key: str, *, payable_max: int | None) -> None:
        """Raise ConfigError if these terms can't work."""
        if self.threshold is not None and not self.engine:
            raise ConfigError(f"{key}.threshold", "the account has no engine", "Name one by `engine`, or leave it out")
        if self.threshold is not None and self.threshold <= self.target:
            raise ConfigError(
                f"{key}.threshold",
                f"{self.threshold} is not above the target of {self.target}",
                "Settle from more than what is owed afterwards",
            )
        if self.threshold is not None and payable_max is not None and self.threshold > payable_max:
            raise ConfigError(
                f"{key}.threshold",
                f"{self.threshold} is above what we are willing to owe, {payable_max}",
                "Keep it below payable_max, or packets end in T04 before anything is settled",
            )
        if self.ahead_max < 0 or -self.target > self.ahead_max:
            raise ConfigError(
                f"{key}.ahead_max",
                f"the target pays ahead by {-self.target}, and {self.ahead_max} is allowed",
                "Raise ahead_max, or the target",
            )
        if self.minimum < 1 or (self.amount_max is not None and self.amount_max < self.minimum):
            raise ConfigError(f"{key}.minimum", "no settlement could be made", "Use 1 to amount_max")
        if self.ledger_scale is not None and not 0 <= self.ledger_scale <= SCALE_MAX:
            raise ConfigError(f"{key}.ledger_scale", f"{self.ledger_scale}", f"Use 0 to {SCALE_MAX}")

    def unit(self, asset_scale: int) -> int:
        """The smallest amount that the ledger can pay, in units of the account."""
        if self.ledger_scale is None or self.ledger_scale >= asset_scale:
            return 1
        unit: int = 10 ** (asset_scale - self.ledger_scale)
        return unit

    def due(self, owed: int, asset_scale: int) -> int:
        """How much to settle now that we owe this; 0 for nothing. What the ledger can't pay stays owed (SE-11)."""
        if self.threshold is None or owed < self.threshold:
            return 0
        return self.payable(owed, asset_scale)

    def payable(self, owed: int, asset_scale: int) -> int:
        """What leads to the target, as far as ledger and bounds allow; 0 for nothing."""
        amount = owed - self.target
        if self.amount_max is not None:
            amount = min(amount, self.amount_max)
        amount -= amount % self.unit(asset_scale)
        return amount if amount >= self.minimum else 0


NO_SETTLEMENT: Final = SettleTerms()


@final
@dataclass(slots=True)
class Settlement:
    """One payment of ours on a ledger, of which the books have been debited already."""

    number: int  # counts up for each account
    amount: int
    key: bytes  # 16 bytes: the idempotency key towards the engine, for ever
    begun_at: int  # wall ms
    state: int = BEGUN
    text: str = ""  # why, for people: the operator's note, or what went wrong


@final
class Settling:
    """What the books keep of the settlements with one peer, besides balances."""

    __slots__ = ("credited", "engine", "last", "leftover", "leftover_scale", "open")

    def __init__(self) -> None:
        self.last = 0  # number of our newest settlement
        self.open: Final[dict[int, Settlement]] = {}  # by number
        # Of what came in: less than a unit of the account, in units of a finer scale. It counts with what comes next.
        self.leftover = 0
        self.leftover_scale = 0
        self.credited: Final[dict[bytes, tuple[int, int]]] = {}  # by key: amount, last use (wall ms); oldest first
        self.engine: Final[dict[bytes, bytes]] = {}  # the engine's own

    def under_way(self) -> Settlement | None:
        """The settlement before whose end, or whose way to the engine, no other is begun."""
        return next((one for one in self.open.values() if one.state != TAKEN), None)

    def keys_at(self, now: int) -> int:
        """How many keys of credits must still be remembered."""
        return len(self.credited) - sum(1 for _ in self.old_keys(now))

    def old_keys(self, now: int) -> Iterator[bytes]:
        """Keys that may be forgotten.

        They stand in the order of their last use. Where the clock went back, some stay until those before them go.
        """
        for key, (_, used_at) in self.credited.items():
            if used_at > now - CREDIT_KEY_MS:
                return
            yield key


# From the begin of a settlement of ours to its end, as far as its engine tells; the last is all above.
SETTLEMENT_BOUNDS_MS: Final = (100, 1_000, 5_000, 30_000, 120_000, 600_000, 3_600_000, 86_400_000)


@final
class SettlementTally:
    """What happened since the process began, for metrics."""

    __slots__ = ("counts", "latency", "latency_sum_ms")

    def __init__(self) -> None:
        self.counts: Final[dict[tuple[str, str], int]] = {}  # by account and what: "begun", "confirmed", "credited", …
        self.latency: Final = [0] * (len(SETTLEMENT_BOUNDS_MS) + 1)
        self.latency_sum_ms = 0

    def count(self, account: str, what: str) -> None:
        self.counts[account, what] = self.counts.get((account, what), 0) + 1

    def moved(self, account: str, settlement: Settlement, state: int, wall: int) -> None:
        """A settlement of ours is in another state."""
        self.count(account, STATES[state])
        if state in (CONFIRMED, ENDED):
            took_ms = max(0, wall - settlement.begun_at)
            self.latency_sum_ms += took_ms
            self.latency[sum(1 for bound in SETTLEMENT_BOUNDS_MS if took_ms > bound)] += 1


def credit_of(amount: int, scale: int, leftover: tuple[int, int], asset_scale: int) -> tuple[int, tuple[int, int]]:
    """Whole units of the account in a quantity and what was left before, and what is left now (SE-11).

    Leftovers are an amount and its scale; (0, 0) for none. Exact: nothing is ever rounded away.
    """
    left, left_scale = leftover
    finest = max(scale, left_scale, asset_scale)
    total = amount * 10 ** (finest - scale) + left * 10 ** (finest - left_scale)
    units, rest = divmod(total, 10 ** (finest - asset_scale))
    if rest == 0:
        return units, (0, 0)
    while rest % 10 == 0:
        rest //= 10
        finest -= 1
    return units, (rest, finest)
