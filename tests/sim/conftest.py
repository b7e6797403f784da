"""A network of rows, as nodes export them: two wallets, two connectors, one asset."""

from collections.abc import Sequence
from typing import Any

import pytest

from isthmus.sim.evidence import Down, End, Evidence, Journal, Mark, Opening, Paid, Received, Wire

PATH = ("alice", "one", "two", "bob")
ACCOUNTS = {
    "alice": ("local", "uplink"),
    "one": ("alice", "two"),
    "two": ("one", "bob"),
    "bob": ("uplink", "local"),
}
WIRES = [
    Wire(End("alice", "uplink"), End("one", "alice")),
    Wire(End("one", "two"), End("two", "one")),
    Wire(End("two", "bob"), End("bob", "uplink")),
]
EXPIRES_AT = 100_000  # of the first leg; each hop takes a second


class Books:
    """Writes one node's rows."""

    def __init__(self, node: str) -> None:
        self.node = node
        self.rows: list[dict[str, Any]] = []
        self.batch = 0
        self.legs = 0
        self.sequence_start = 0
        for account in ACCOUNTS[node]:
            self.add(entry="account opened", account=account)

    def add(self, **columns: Any) -> None:
        """One row in a batch of its own."""
        self.batch += 1
        self.also(**columns)

    def also(self, **columns: Any) -> None:
        """One more row in the same batch."""
        position = sum(row["sequence"] == self.batch for row in self.rows)
        names = "entry leg direction account counter_account amount spread rounding expires_at_ms session request_id"
        empty = dict.fromkeys([*names.split(), "condition", "reason"])
        asset = {"asset_code": "USD", "asset_scale": 9}
        self.rows.append({"sequence": self.batch, "position": position, **empty, **asset, **columns})

    def reserve(self, number: int, amount: int, hop: int) -> tuple[int, int]:
        """Both legs of packet `number`; each hop keeps one unit. Their ids."""
        into, out = ACCOUNTS[self.node]
        common = {"entry": "reserve", "condition": f"{number:064x}", "request_id": number}
        self.add(
            **common, leg=self.legs + 1, direction="incoming", account=into, amount=str(amount),
            session=session_of(hop), expires_at_ms=EXPIRES_AT - 1_000 * hop,
        )  # fmt: skip
        self.also(
            **common, leg=self.legs + 2, direction="outgoing", account=out, amount=str(amount - 1), spread="1",
            rounding="0", session=session_of(hop + 1), expires_at_ms=EXPIRES_AT - 1_000 * (hop + 1),
        )  # fmt: skip
        self.legs += 2
        return self.legs - 1, self.legs

    def post(self, *legs: int) -> None:
        self._decide(legs, entry="post")

    def void(self, *legs: int, reason: str = "expired") -> None:
        self._decide(legs, entry="void", reason=reason)

    def _decide(self, legs: Sequence[int], **columns: Any) -> None:
        self.add(**columns, leg=legs[0])
        for leg in legs[1:]:
            self.also(**columns, leg=leg)

    def lose(self, leg: int, amount: int) -> None:
        peer = next(row["account"] for row in self.rows if row["leg"] == leg)
        self.add(entry="loss", account=peer, counter_account=f"loss:{peer}", amount=str(amount), leg=leg)


def session_of(hop: int) -> str:
    return f"{hop:032x}"


class Net:
    """All four journals."""

    def __init__(self) -> None:
        self.books = {node: Books(node) for node in PATH}
        self.paid: list[Paid] = []
        self.received: list[Received] = []
        self.marks: dict[str, list[Mark]] = {}

    def packet(self, number: int, amount: int, *, posts: Sequence[str] = PATH) -> None:
        """One packet from Alice to Bob; the nodes in `posts` post it, the others void it."""
        for hop, node in enumerate(PATH):
            books = self.books[node]
            legs = books.reserve(number, amount - hop, hop)
            if node in posts:
                books.post(*reversed(legs))
            else:
                books.void(*reversed(legs))

    def told(self, sent: int, received: int, *, delivered: int | None = None) -> None:
        """What the wallets say at the end, in one payment."""
        arrived = received if delivered is None else delivered
        payment = Paid(
            node="alice", payee="bob", id="p", sent=sent, unknown=0, delivered=arrived, delivered_max=arrived,
            connection="c",
        )  # fmt: skip
        self.paid = [payment]
        self.received = [Received(node="bob", connection="c", amount=received)]

    def evidence(
        self,
        *,
        downs: Sequence[Down] = (),
        dishonest: frozenset[str] = frozenset(),
        opening: Opening | None = None,
        is_quiet: bool = True,
    ) -> Evidence:
        return Evidence(
            journals=[
                Journal(node=node, rows=books.rows, marks=self.marks.get(node, ()))
                for node, books in self.books.items()
            ],
            wires=WIRES,
            paid=self.paid,
            received=self.received,
            downs=downs,
            dishonest=dishonest,
            opening=opening,
            is_quiet=is_quiet,
        )


@pytest.fixture
def net() -> Net:
    return Net()
