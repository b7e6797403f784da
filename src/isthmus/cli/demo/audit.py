"""The books of all nodes, read twice: by the connector's own replay, and by a plain addition of what was posted.

The addition shares the journal's bytes with the replay, and nothing of its rules. Where both agree, and each pair of
neighbours holds the same number with opposite signs, nobody's books hide anything.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from isthmus.cli.books_replay import JOURNAL_NAME, Replayed, oldest
from isthmus.cli.demo.network import Pair
from isthmus.connector import record as r
from isthmus.connector.books import PEER, Account, Books, loss_name
from isthmus.ilp.asset import Asset
from isthmus.journal.reader import JournalReader

SPREAD: Final = "spread"
ROUNDING: Final = "rounding"


@dataclass(slots=True)
class Tally:
    """What a journal's entries add up to. Amounts in base units; a positive balance is owed to the node."""

    assets: dict[str, Asset] = field(default_factory=dict)  # of every account, by name
    peers: list[str] = field(default_factory=list)  # those of them that are kept with somebody
    balances: dict[str, int] = field(default_factory=dict)
    incoming: dict[str, int] = field(default_factory=dict)  # posted: what the account's peer paid us in packets
    outgoing: dict[str, int] = field(default_factory=dict)
    earned: dict[Asset, dict[str, int]] = field(default_factory=dict)  # SPREAD and ROUNDING
    packets: int = 0  # forwarded and fulfilled
    refused: int = 0  # forwarded and rejected, or expired
    open_legs: int = 0


@dataclass(slots=True, kw_only=True)
class NodeBooks:
    """One node's books, and what is wrong with them (nothing, one hopes)."""

    name: str
    folder: Path
    tally: Tally
    batches: int
    digest: bytes
    problems: list[str]

    def balance(self, account: str) -> int:
        return self.tally.balances.get(account, 0)


@dataclass(slots=True)
class _Leg:
    account: str
    amount: int
    is_incoming: bool
    spread: int = 0
    rounding: int = 0


def read_books(name: str, folder: Path) -> NodeBooks:
    """Both readings of a node's journal, running or stopped. Raises JournalError for a journal that can't be read."""
    with JournalReader(folder / JOURNAL_NAME) as reader:
        books = oldest(reader)
        adding = _Adding(books.books)
        for batch in reader.read_from(books.sequence + 1):
            books.apply(batch)
            adding.add(r.decode_record(batch.record))
        books.check()
        replayed = books.shown()
    tally = adding.tally
    tally.open_legs = len(adding.legs)
    return NodeBooks(
        name=name,
        folder=folder,
        tally=tally,
        batches=replayed.sequence,
        digest=replayed.digest,
        problems=_differences(name, tally, replayed),
    )


def disagreements(pairs: Iterable[Pair], books: Mapping[str, NodeBooks]) -> list[str]:
    """Everything that keeps the books from agreeing, a line each; empty if they do, to the unit."""
    problems = [problem for node in books.values() for problem in node.problems]
    for node in books.values():
        if node.tally.open_legs:
            problems.append(f"{node.name} still has {node.tally.open_legs} packets without an outcome")
    for pair in pairs:
        left, right = books[pair.left], books[pair.right]
        ours, theirs = left.balance(pair.left_account), right.balance(pair.right_account)
        if ours != -theirs:
            problems.append(
                f"{pair.left} has {ours} with {pair.right}, but {pair.right} has {theirs} with {pair.left} (base units)"
            )
    return problems


def _differences(name: str, tally: Tally, replayed: Replayed) -> list[str]:
    problems = []
    for row in replayed.accounts:
        added = tally.balances.get(row.account, 0)
        if (row.balance, row.asset) != (added, tally.assets.get(row.account)):
            problems.append(f"{name}: replay gives {row.account} {row.balance}, but its entries add up to {added}")
    for currency in replayed.currencies:
        earned = tally.earned.get(currency.asset, {})
        for kind in (SPREAD, ROUNDING):
            if currency.earnings.get(kind, 0) != earned.get(kind, 0):
                problems.append(f"{name}: replay and addition differ about the {kind} in {currency.asset.code}")
    return problems


class _Adding:
    """Walks the entries. Ids of accounts and legs count up, as the format says.

    It starts where the journal does: with nothing, or at a checkpoint if what was before it was pruned.
    """

    def __init__(self, start: Books) -> None:
        self.tally: Final = Tally()
        self.legs: Final[dict[int, _Leg]] = {}
        self._names: Final[list[str]] = []
        self._last_leg = start.last_leg
        self._amounts: Final[dict[tuple[int, bytes, int], int]] = {}  # of incoming legs, by wire identity
        for account in start.accounts:
            self._begin(account)

    def _begin(self, account: Account) -> None:
        tally, name = self.tally, account.name
        asset = Asset(account.asset_code, account.asset_scale)
        self._open(account.kind, name, asset)
        tally.balances[name] = account.balance
        if account.kind == PEER:
            tally.incoming[name], tally.outgoing[name] = account.posted_incoming, account.posted_outgoing
            tally.packets += account.posted_outgoing_count
            tally.earned[asset] = {SPREAD: -account.spread.balance, ROUNDING: -account.rounding.balance}
        for incoming in account.received.values():
            self.legs[incoming.id] = _Leg(name, incoming.amount, True)
        for leg in (*account.received.values(), *account.fulfilled.values()):
            self._amounts[account.index, leg.session, leg.request_id] = leg.amount
        for sent in account.sent.values():
            self.legs[sent.id] = _Leg(name, sent.amount, False, sent.spread, sent.rounding)

    def _open(self, kind: int, name: str, asset: Asset) -> None:
        self._names.append(name)
        self.tally.assets[name] = asset
        if kind == PEER:
            self.tally.peers.append(name)

    def add(self, entries: Iterable[r.Entry]) -> None:
        for entry in entries:
            if isinstance(entry, r.AccountOpened):
                self._open(entry.kind, entry.name, Asset(entry.asset_code, entry.asset_scale))
            elif isinstance(entry, r.ReserveIncoming):
                self._reserve(_Leg(self._names[entry.account], entry.amount, True))
                self._amounts[entry.account, entry.session, entry.request_id] = entry.amount
            elif isinstance(entry, r.ReserveOutgoing):
                name = self._names[entry.account]
                self._reserve(_Leg(name, entry.amount, False, entry.spread, entry.rounding))
            elif isinstance(entry, r.Post | r.Fulfilled | r.Unkept):
                self._post(self.legs.pop(entry.leg))
            elif isinstance(entry, r.Lost):
                self._lose(entry)
            elif isinstance(entry, r.Void):
                self.tally.refused += not self.legs.pop(entry.leg).is_incoming
            elif isinstance(entry, r.Transfer):
                self._grow(self.tally.balances, self._names[entry.debit], entry.amount)
                self._grow(self.tally.balances, self._names[entry.credit], -entry.amount)

    def _reserve(self, leg: _Leg) -> None:
        self._last_leg += 1
        self.legs[self._last_leg] = leg

    def _post(self, leg: _Leg) -> None:
        tally = self.tally
        if leg.is_incoming:
            self._grow(tally.balances, leg.account, leg.amount)
            self._grow(tally.incoming, leg.account, leg.amount)
            return
        tally.packets += 1
        self._grow(tally.balances, leg.account, -leg.amount)
        self._grow(tally.outgoing, leg.account, leg.amount)
        earned = tally.earned.setdefault(tally.assets[leg.account], {})
        self._grow(earned, SPREAD, leg.spread)
        self._grow(earned, ROUNDING, leg.rounding)

    def _lose(self, entry: r.Lost) -> None:
        name = self._names[entry.account]
        amount = self._amounts[entry.account, entry.session, entry.request_id]
        self._grow(self.tally.balances, name, -amount)
        self._grow(self.tally.balances, loss_name(name), amount)

    def _grow(self, sums: dict[str, int], name: str, amount: int) -> None:
        sums[name] = sums.get(name, 0) + amount
