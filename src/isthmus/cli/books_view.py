"""Books as people read them: balances in words, position apart from earnings, tables, JSON and rows to export.

It knows neither files nor how books are kept: `cli/books.py` fills these values from a journal.
"""

from datetime import UTC, datetime
from typing import Final, NamedTuple, TypeAlias

from rich.table import Table
from rich.text import Text

from isthmus.ilp.asset import Asset, format_amount, format_decimal
from isthmus.journal.projection import DAY_MS, HOUR_MS, MINUTE_MS
from isthmus.journal.reader import Period, Single

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | bool | None"
SPANS: Final = {MINUTE_MS: "minute", HOUR_MS: "hour", DAY_MS: "day"}


class AccountRow(NamedTuple):
    """One account at one moment. Amounts in its asset; a positive balance is owed to us."""

    account: str
    asset: Asset
    balance: int
    loss: int  # what the peer refused to pay, until it is written off: less is owed by us than the balance says
    reserved_incoming: int
    reserved_outgoing: int
    receivable_max: int | None
    payable_max: int | None
    open_incoming: int
    open_outgoing: int
    unacknowledged: int  # fulfilled by us, and not yet known to be posted by the peer
    unsaid: int  # voided by us, and the peer hasn't confirmed that it knows
    at_risk: int  # fulfilled after the peer's expiry (P-6)
    late: int  # fulfilled by the peer after ours (P-12)


class CurrencyRow(NamedTuple):
    """One asset over all accounts: what we hold in it, and what was earned in it."""

    asset: Asset
    position: int  # positive: our peers owe us more than we owe
    earnings: dict[str, int]  # by kind: spread, rounding, …; losses are negative
    on_ledgers: int = 0  # what peers paid us by settlements, less what we paid them


def in_words(balance: int, asset: Asset) -> str:
    """Never a bare sign: "owed to us 0.015 BTC", "owed by us 0.015 BTC", "even"."""
    if balance == 0:
        return "even"
    return f"owed {'to' if balance > 0 else 'by'} us {format_amount(abs(balance), asset)}"


def time_of(wall_ms: int) -> str:
    """UTC, to the second; a time that no calendar has is shown as its number."""
    try:
        return datetime.fromtimestamp(wall_ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (OverflowError, ValueError, OSError):
        return f"{wall_ms} ms"


def accounts_table(rows: list[AccountRow]) -> Table:
    table = new_table("Accounts", "account", "asset", "balance")
    has_loss = any(row.loss for row in rows)
    if has_loss:  # beside what the balance says that we owe, for it is to be subtracted
        table.add_column("loss", justify="right", overflow="fold")
    for name in ("reserved in", "reserved out", "may owe us", "we may owe"):
        table.add_column(name, justify="right", overflow="fold")
    may_be = ("unacknowledged", "unsaid", "at_risk", "late")
    troubles = [name for name in may_be if any(getattr(row, name) for row in rows)]
    for name in troubles:
        words = name.split("_")
        table.add_column(" ".join(words), justify="right", overflow="fold", min_width=max(map(len, words)))
    for row in rows:
        amounts: list[int | None] = [row.loss] if has_loss else []
        amounts += [row.reserved_incoming, row.reserved_outgoing, row.receivable_max, row.payable_max]
        amounts += [getattr(row, name) for name in troubles]
        shown = ["no limit" if amount is None else format_amount(amount, row.asset) for amount in amounts]
        table.add_row(*map(cell, (row.account, _name(row.asset), in_words(row.balance, row.asset), *shown)))
    return table


def currencies_table(rows: list[CurrencyRow]) -> Table:
    kinds = ["spread", "rounding"]
    kinds += sorted({kind for row in rows for kind, amount in row.earnings.items() if amount and kind not in kinds})
    table = new_table("Position and earnings", "asset", "position")
    has_settled = any(row.on_ledgers for row in rows)
    if has_settled:
        table.add_column("on ledgers", justify="right", no_wrap=True)
    for kind in kinds:
        table.add_column(kind, justify="right", no_wrap=True)
    for row in rows:
        earned = [_earned(row.earnings.get(kind, 0), row.asset) for kind in kinds]
        settled = [_earned(row.on_ledgers, row.asset)] if has_settled else []
        table.add_row(*map(cell, (_name(row.asset), in_words(row.position, row.asset), *settled, *earned)))
    return table


def statement_table(account: AccountRow, periods: list[Period]) -> Table:
    table = new_table(f"Statement of {cell(account.account).plain} (UTC)", "from", "span")
    for name in ("in", "packets in", "out", "packets out", "rejected"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("balance at the end", no_wrap=True)
    for period in periods:
        totals = period.totals
        table.add_row(
            time_of(period.starts_at),
            SPANS.get(period.span_ms, f"{period.span_ms} ms"),
            format_amount(totals.incoming, account.asset),
            str(totals.incoming_packets),
            format_amount(totals.outgoing, account.asset),
            str(totals.outgoing_packets),
            str(totals.rejected_packets),
            in_words(totals.balance, account.asset),
        )
    return table


def singles_table(singles: list[Single], assets: dict[str, Asset]) -> Table:
    table = new_table("Losses, settlements, adjustments, changes (UTC)", "time", "account", "what", "amount", "note")
    for single in singles:
        asset = assets.get(single.account)
        amount = str(single.amount) if asset is None else format_amount(single.amount, asset)
        if single.kind == "adjustment" and asset is not None:
            amount = in_words(single.amount, asset)
        elif single.kind == "setting":
            amount = ""  # what was set is in the note
        table.add_row(*map(cell, (time_of(single.wall_ms), single.account, single.kind, amount, single.text)))
    return table


def account_json(row: AccountRow) -> dict[str, Json]:
    """Amounts are strings: a number in JSON ends at 2^53 (P-1)."""
    return {
        "account": row.account,
        "asset_code": row.asset.code,
        "asset_scale": row.asset.scale,
        "balance": str(row.balance),
        "balance_in_words": in_words(row.balance, row.asset),
        "loss": str(row.loss),
        "reserved_incoming": str(row.reserved_incoming),
        "reserved_outgoing": str(row.reserved_outgoing),
        "receivable_max": None if row.receivable_max is None else str(row.receivable_max),
        "payable_max": None if row.payable_max is None else str(row.payable_max),
        "open_incoming": row.open_incoming,
        "open_outgoing": row.open_outgoing,
        "fulfilled_unacknowledged": str(row.unacknowledged),
        "unsaid": str(row.unsaid),
        "at_risk": str(row.at_risk),
        "late": str(row.late),
    }


def currency_json(row: CurrencyRow) -> dict[str, Json]:
    return {
        "asset_code": row.asset.code,
        "asset_scale": row.asset.scale,
        "position": str(row.position),
        "on_ledgers": str(row.on_ledgers),
        "earnings": {kind: str(amount) for kind, amount in sorted(row.earnings.items())},
    }


def period_json(period: Period) -> dict[str, Json]:
    totals = period.totals
    return {
        "account": period.account,
        "internal": period.internal,
        "from": time_of(period.starts_at),
        "from_ms": period.starts_at,
        "span_ms": period.span_ms,
        "incoming": str(totals.incoming),
        "outgoing": str(totals.outgoing),
        "incoming_packets": totals.incoming_packets,
        "outgoing_packets": totals.outgoing_packets,
        "rejected_packets": totals.rejected_packets,
        "balance": str(totals.balance),
        "sequence": totals.sequence,
    }


def single_json(single: Single) -> dict[str, Json]:
    return {
        "sequence": single.sequence,
        "time": time_of(single.wall_ms),
        "time_ms": single.wall_ms,
        "kind": single.kind,
        "account": single.account,
        "amount": str(single.amount),
        "text": single.text,
    }


def balance_json(row: AccountRow) -> dict[str, Json]:
    """One line of an export: base units, and the decimal number that a spreadsheet wants beside them."""
    return {**account_json(row), "balance_decimal": format_decimal(row.balance, row.asset.scale)}


def _earned(amount: int, asset: Asset) -> str:
    return format_amount(amount, asset) if amount >= 0 else f"lost {format_amount(-amount, asset)}"


def _name(asset: Asset) -> str:
    return f"{asset.code}, scale {asset.scale}"


def cell(text: str) -> Text:
    """Text that peers or operators wrote: no markup, and no character that moves a terminal's cursor."""
    return Text("".join(one if one.isprintable() else "?" for one in text))


def new_table(title: str, *columns: str) -> Table:
    table = Table(title=Text(title), title_justify="left", title_style="bold", header_style="bold")
    for name in columns:
        table.add_column(name, no_wrap=True)
    return table
