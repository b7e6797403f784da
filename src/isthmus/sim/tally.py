"""One journal's rows added up: legs, balances, and what is wrong with them by themselves."""

from collections.abc import Iterator, Mapping
from typing import Final, final

from isthmus.sim.evidence import Journal, Leg, Row, State, Terms

LOSS_PREFIX: Final = "loss:"
# Entries by which a balance changes without a leg: `account` is debited, `counter_account` credited.
_MOVES: Final = ("adjustment", "write-off")
_SETTLED: Final = ("settlement by us", "settlement by the peer", "settlement undone", "settlement by hand")
SETTLED_PREFIX: Final = "settled:"
_REVENUE: Final = ("spread", "rounding")


@final
class Tally:
    """The books of one node, derived anew from its rows. Problems are kept as (kind, text)."""

    def __init__(
        self, node: str, *, sequence: int, balances: dict[str, int], terms: Mapping[str, Terms] | None = None
    ) -> None:
        """`terms` by account: whose limits are known."""
        self.node: Final = node
        self.sequence = sequence
        self.balances: Final = dict(balances)
        self.legs: Final[dict[int, Leg]] = {}
        self.problems: Final[list[tuple[str, str]]] = []
        # By account: what was debited for settlements of ours, less what was reversed; credited for the peer's, less
        # what was undone; and all that was undone.
        self.paid: Final[dict[str, int]] = {}
        self.credited: Final[dict[str, int]] = {}
        self.undone: Final[dict[str, int]] = {}
        self._place = (0, 0)
        self._last: Leg | None = None
        self._terms: Final = terms or {}
        self._reserved: Final[dict[tuple[str, bool], int]] = {}  # by account and whether it is incoming

    def take(self, journal: Journal) -> None:
        """Add the rows that come after `sequence`. Where the first ones are missing, nothing can be said."""
        expected = self.sequence + 1
        audited = self.sequence
        for leg in self.open_legs():
            self._count(leg, leg.amount)
        for row in journal.rows:
            sequence, position = row["sequence"], row["position"]
            if sequence <= audited:
                continue
            if (sequence, position) <= self._place or sequence > expected:
                self._problem("gap", f"row {position} of batch {sequence} follows row {self._place}: rows are missing")
            self._place = (sequence, position)
            expected = sequence + 1
            self.sequence = sequence
            self._add(row)

    def _problem(self, kind: str, text: str) -> None:
        self.problems.append((kind, text))

    # --- entries ------------------------------------------------------------------------------------------------

    def _add(self, row: Row) -> None:
        entry = row["entry"]
        if entry == "reserve":
            self._reserve(row)
        elif entry in ("post", "void"):
            self._decide(row)
        elif entry == "loss":
            self._lose(row)
        elif entry == "account opened":
            self.balances.setdefault(row["account"], 0)
        elif entry in _SETTLED:
            self._settle(row)
        elif entry in _MOVES or entry.startswith("transfer"):
            self._move(row["account"], row["counter_account"], int(row["amount"]))

    def _reserve(self, row: Row) -> None:
        leg = Leg(
            node=self.node,
            id=row["leg"],
            account=row["account"],
            is_incoming=row["direction"] == "incoming",
            amount=int(row["amount"]),
            spread=int(row["spread"] or 0),
            rounding=int(row["rounding"] or 0),
            asset=_asset(row),
            expires_at=row["expires_at_ms"],
            session=row["session"],
            request_id=row["request_id"],
            condition=row["condition"],
            reserved=row["sequence"],
        )
        if leg.id in self.legs:
            self._problem("leg", f"{leg} is reserved twice")
        self.legs[leg.id] = leg
        self._count(leg, leg.amount)
        self._check_limit(leg)
        # The two legs of a packet are reserved one after the other, the incoming one first.
        last, self._last = self._last, leg
        if leg.is_incoming:
            return
        if last is None or not last.is_incoming or last.id != leg.id - 1 or last.condition != leg.condition:
            self._problem("forward", f"{leg} has no incoming leg before it")
            return
        leg.partner, last.partner = last, leg

    def _count(self, leg: Leg, amount: int) -> None:
        key = (leg.account, leg.is_incoming)
        self._reserved[key] = self._reserved.get(key, 0) + amount

    def _check_limit(self, leg: Leg) -> None:
        """Nobody owes more than was agreed, and what is reserved may come to be owed. Nothing needs no room."""
        terms = self._terms.get(leg.account)
        if terms is None or not leg.amount:
            return
        limit = terms.receivable_max if leg.is_incoming else terms.payable_max
        owed = self.balances.get(leg.account, 0)
        owed = owed + self.balances.get(LOSS_PREFIX + leg.account, 0) if leg.is_incoming else -owed
        owed += self._reserved[leg.account, leg.is_incoming]
        if limit is not None and owed > limit:
            self._problem("limit", f"with {leg} up to {owed} is owed, and {limit} was agreed")

    def _decide(self, row: Row) -> None:
        leg = self.legs.get(row["leg"])
        if leg is None:
            self._problem("leg", f"leg {row['leg']} is decided in batch {row['sequence']}, and was never reserved")
            return
        if leg.state is not State.OPEN:
            self._problem("leg", f"{leg} is decided twice: {leg.state.value}, then {row['entry']}")
            return
        leg.decided = row["sequence"]
        self._count(leg, -leg.amount)
        if row["entry"] == "void":
            leg.state, leg.reason = State.VOID, row["reason"] or ""
            return
        leg.state = State.POSTED
        if leg.is_incoming:
            self._move(leg.account, f"clearing:{leg.asset}", leg.amount)
            return
        kept = leg.spread + leg.rounding
        self._move(f"clearing:{leg.asset}", leg.account, leg.amount)
        self._move(f"clearing:{leg.asset}", f"revenue:spread:{leg.asset}", leg.spread)
        self._move(f"clearing:{leg.asset}", f"revenue:rounding:{leg.asset}", kept - leg.spread)

    def _lose(self, row: Row) -> None:
        names = [row["account"], row["counter_account"]]
        losses = [name for name in names if (name or "").startswith(LOSS_PREFIX)]
        peer = next((name for name in names if name not in losses), "")
        if len(losses) != 1 or losses[0] != LOSS_PREFIX + peer:
            self._problem("loss", f"batch {row['sequence']} books a loss between {names[0]} and {names[1]}")
            return
        amount = int(row["amount"])
        self._move(losses[0], peer, amount)
        leg = self.legs.get(row["leg"]) if row["leg"] is not None else None
        if leg is None:
            leg = self._by_name(peer, row)
        if leg is None:
            self._problem("loss", f"batch {row['sequence']} books {amount} lost to {peer}, and names no leg of it")
            return
        leg.lost += amount

    def _settle(self, row: Row) -> None:
        """A settlement, or the end of one: between a peer's account and the one that its settlements stand against."""
        debit, credit, amount = row["account"], row["counter_account"], int(row["amount"])
        self._move(debit, credit, amount)
        is_back = row["entry"] == "settlement undone"
        peer = credit if debit.startswith(SETTLED_PREFIX) else debit
        if {debit, credit} != {peer, SETTLED_PREFIX + peer}:
            self._problem("settlement", f"batch {row['sequence']} settles between {debit} and {credit}")
        elif (debit == peer) is is_back:  # the peer paid, or what it paid was undone
            self.credited[peer] = self.credited.get(peer, 0) + (-amount if is_back else amount)
            self.undone[peer] = self.undone.get(peer, 0) + (amount if is_back else 0)
        else:
            self.paid[peer] = self.paid.get(peer, 0) + (-amount if is_back else amount)
            if not is_back:
                self._check_ahead(peer, row["sequence"])

    def _check_ahead(self, peer: str, sequence: int) -> None:
        terms = self._terms.get(peer)
        if terms is not None and terms.ahead_max is not None and self.balances[peer] > terms.ahead_max:
            text = f"after batch {sequence} {self.balances[peer]} is paid ahead to {peer}, and {terms.ahead_max} agreed"
            self._problem("limit", text)

    def _by_name(self, peer: str, row: Row) -> Leg | None:
        name = (peer, row["session"], row["request_id"])
        for leg in reversed(self.legs.values()):
            if leg.is_incoming and (leg.account, leg.session, leg.request_id) == name:
                return leg
        return None

    def _move(self, debit: str, credit: str, amount: int) -> None:
        for name, signed in ((debit, amount), (credit, -amount)):
            self.balances[name] = self.balances.get(name, 0) + signed

    # --- what it comes to ---------------------------------------------------------------------------------------

    def open_legs(self) -> Iterator[Leg]:
        return (leg for leg in self.legs.values() if leg.state is State.OPEN)

    def compare(self, journal: Journal) -> None:
        """What the node says of its own balances against what its rows add up to."""
        for row in journal.balances:
            self._compare_account(row)
        for row in journal.assets:
            self._compare_asset(row, journal)

    def _compare_account(self, row: Row) -> None:
        name = row["account"]
        reserved = {True: 0, False: 0}
        for leg in self.open_legs():
            if leg.account == name:
                reserved[leg.is_incoming] += leg.amount
        derived = {
            "balance": self.balances.get(name, 0),
            "loss": self.balances.get(LOSS_PREFIX + name, 0),
            "reserved_incoming": reserved[True],
            "reserved_outgoing": reserved[False],
        }
        for key, amount in derived.items():
            if int(row[key]) != amount:
                words = key.replace("_", " ")
                self._problem("claim", f"the {words} of {name} is {row[key]} by its books, {amount} by its rows")

    def _compare_asset(self, row: Row, journal: Journal) -> None:
        """Position and earnings are what the peers' balances leave: together they are nothing."""
        asset = _asset(row)
        for kind, amount in row["earnings"].items():
            earned = -self.balances.get(f"revenue:{kind}:{asset}", 0)
            if kind in _REVENUE and int(amount) != earned:
                self._problem("claim", f"{amount} {asset} are earned as {kind} by its books, {earned} by its rows")
        position = -self.balances.get(f"clearing:{asset}", 0)
        if int(row["position"]) != position:
            self._problem("claim", f"the position in {asset} is {row['position']} by its books, {position} by its rows")
        peers = sum(int(one["balance"]) for one in journal.balances if _asset(one) == asset)
        left = peers - int(row["position"]) - sum(int(amount) for amount in row["earnings"].values())
        if journal.balances and left:
            self._problem("sum", f"the accounts in {asset} sum to {left}, not to zero")


def _asset(row: Row) -> str:
    return f"{row['asset_code']}:{row['asset_scale']}"
