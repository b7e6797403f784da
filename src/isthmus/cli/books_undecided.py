"""`isthmus books undecided`: what is not settled between us and each peer yet, and who may be out of pocket by it.

The words are those of docs/outcomes.md: of our Prepares we decide, of the peer's it does. A leg that we fulfilled stays
at risk until the peer has told that it posted it; one that we voided without its word, until it knows.
"""

from typing import Final, NamedTuple

from rich.console import Group
from rich.table import Table
from rich.text import Text

from isthmus.cli.books_view import Json, cell, new_table, time_of
from isthmus.connector.books import TAKES_REPORTS, Account, Books
from isthmus.ilp.asset import Asset, format_amount

SESSION_DIGITS: Final = 8  # of a session id in a table: enough to tell a peer's sessions apart

# Heads of columns, and what they mean.
KINDS: Final = {"ours": "ours open", "theirs": "theirs open", "fulfilled": "fulfilled", "unsaid": "voided"}
MEANINGS: Final = {
    "ours": "our Prepares without an answer; the peer may still fulfil them",
    "theirs": "the peer's Prepares that we have not answered; nothing is lost if we don't",
    "fulfilled": "by us, and not acknowledged by the peer: at risk. What it has voided by its clock becomes our loss",
    "unsaid": "by us, and not confirmed by the peer; if it fulfilled them too late, the loss is the peer's",
    "loss": "fulfilled by us and void at the peer; counts against its limit until you write it off",
    "put_at_risk": "fulfilled after the peer's expiry, or shortly before the node stopped; in all, since ever",
    "reports": "whether the peer takes our reports of outcomes; if not, nothing is known of what it decided",
}


_LEGS: Final = {
    "ours": "ours, open",
    "theirs": "theirs, open",
    "fulfilled": "theirs, fulfilled, not acknowledged",
    "unsaid": "ours, voided, not confirmed",
}


class UndecidedLeg(NamedTuple):
    """One Prepare. `kind` is a key of `KINDS`; of an unsaid leg only its name and amount are kept."""

    kind: str
    session: bytes
    request_id: int
    amount: int
    expires_at: int | None  # wall ms


class UndecidedRow(NamedTuple):
    """What is undecided on one account, with its losses so far. Amounts in its asset."""

    account: str
    asset: Asset
    takes_reports: str  # of TAKES_REPORTS
    legs: list[UndecidedLeg]
    loss: int
    put_at_risk: int  # Fulfills that left after the peer's expiry, or of which nobody knows whether they left

    def count(self, kind: str) -> int:
        return sum(leg.kind == kind for leg in self.legs)

    def amount(self, kind: str) -> int:
        return sum(leg.amount for leg in self.legs if leg.kind == kind)


def undecided(books: Books) -> list[UndecidedRow]:
    """One row for each peer, in the order of the books."""
    return [
        UndecidedRow(
            account.name,
            Asset(account.asset_code, account.asset_scale),
            TAKES_REPORTS[account.hearing],
            _legs(account),
            account.loss.balance,
            account.at_risk,
        )
        for account in books.peers.values()
    ]


def _legs(account: Account) -> list[UndecidedLeg]:
    legs = [
        UndecidedLeg("ours", leg.session, leg.request_id, leg.amount, leg.expires_at) for leg in account.sent.values()
    ]
    for kind, incoming in (("theirs", account.received), ("fulfilled", account.fulfilled)):
        legs += [
            UndecidedLeg(kind, leg.session, leg.request_id, leg.amount, leg.expires_at) for leg in incoming.values()
        ]
    legs += [
        UndecidedLeg("unsaid", session, request_id, amount, None)
        for (session, request_id), amount in account.unsaid.items()
    ]
    return legs


def sums(rows: list[UndecidedRow]) -> dict[Asset, UndecidedRow]:
    """The rows of each asset as one."""
    found: dict[Asset, UndecidedRow] = {}
    for row in rows:
        before = found.get(row.asset)
        if before is None:
            found[row.asset] = row._replace(account="in sum", takes_reports="")
        else:
            found[row.asset] = before._replace(
                legs=before.legs + row.legs,
                loss=before.loss + row.loss,
                put_at_risk=before.put_at_risk + row.put_at_risk,
            )
    return found


# --- as people read it -----------------------------------------------------------------------------------------------


def undecided_table(rows: list[UndecidedRow]) -> Group:
    """A line for each account, one for each asset with several, and what the columns mean; none that is empty."""
    shown = [name for name in (*KINDS, "loss", "put_at_risk") if any(_of(row, name)[0] for row in rows)]
    if not shown:
        return Group(Text(f"Nothing is undecided on {len(rows)} account{'' if len(rows) == 1 else 's'}."))
    table = new_table("Undecided", "account", "reports")
    for name in shown:
        table.add_column(_head(name), justify="right", overflow="fold")
    for row in rows:
        _add(table, row, shown)
    table.add_section()
    totals = sums(rows)
    for asset, total in totals.items():
        if sum(row.asset == asset for row in rows) > 1:
            _add(table, total, shown)
    at_risk = [format_amount(total.amount("fulfilled"), asset) for asset, total in totals.items() if total.legs]
    lines = [f"At risk: {', '.join(at_risk) or 'nothing'}.", ""]
    lines += [f"{_head(name)}: {MEANINGS[name]}." for name in (*shown, "reports")]
    return Group(table, Text(), *[Text(line) for line in lines])


def _head(name: str) -> str:
    return KINDS.get(name, name.replace("_", " "))


def _of(row: UndecidedRow, name: str) -> tuple[bool, str]:
    """Whether there is something in this column, and its words."""
    if name in KINDS:
        count = row.count(name)
        return count > 0, f"{format_amount(row.amount(name), row.asset)} in {count}" if count else "none"
    amount = row.loss if name == "loss" else row.put_at_risk
    return amount != 0, format_amount(amount, row.asset) if amount else "none"


def _add(table: Table, row: UndecidedRow, shown: list[str]) -> None:
    table.add_row(cell(row.account), row.takes_reports, *[_of(row, name)[1] for name in shown])


def legs_table(row: UndecidedRow) -> Table:
    """Each Prepare of one account."""
    table = new_table(f"Undecided Prepares of {cell(row.account).plain} (UTC)", "what", "session", "request")
    table.add_column("amount", justify="right", no_wrap=True)
    table.add_column("expires", no_wrap=True)
    for leg in row.legs:
        expires = "past" if leg.expires_at is None else time_of(leg.expires_at)
        amount = format_amount(leg.amount, row.asset)
        table.add_row(_LEGS[leg.kind], leg.session.hex()[:SESSION_DIGITS], str(leg.request_id), amount, expires)
    return table


# --- as programs read it ---------------------------------------------------------------------------------------------


def undecided_json(rows: list[UndecidedRow]) -> dict[str, Json]:
    return {
        "accounts": [
            {
                "account": row.account,
                **_sums_json(row),
                "takes_reports": row.takes_reports,
                "legs": [_leg_json(leg) for leg in row.legs],
            }
            for row in rows
        ],
        "assets": [_sums_json(total) for total in sums(rows).values()],
    }


def _sums_json(row: UndecidedRow) -> dict[str, Json]:
    found: dict[str, Json] = {"asset_code": row.asset.code, "asset_scale": row.asset.scale}
    for kind in KINDS:
        found[kind] = {"count": row.count(kind), "amount": str(row.amount(kind))}
    found["at_risk"] = str(row.amount("fulfilled"))
    found["loss"] = str(row.loss)
    found["put_at_risk"] = str(row.put_at_risk)
    return found


def _leg_json(leg: UndecidedLeg) -> Json:
    return {
        "kind": leg.kind,
        "session": leg.session.hex(),
        "request_id": leg.request_id,
        "amount": str(leg.amount),
        "expires_at_ms": leg.expires_at,
    }
