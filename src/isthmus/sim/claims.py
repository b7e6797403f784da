"""What a node says of its own books, in the words of `isthmus books show --json`: to compare with its rows."""

from typing import Any, Final

from isthmus.connector.books import CLEARING, PEER, ROUNDING, SPREAD, Books

_EARNINGS: Final = {SPREAD: "spread", ROUNDING: "rounding"}


def balances_of(books: Books) -> list[dict[str, Any]]:
    """Peer by peer."""
    return [
        {
            "account": account.name,
            "asset_code": account.asset_code,
            "asset_scale": account.asset_scale,
            "balance": str(account.balance),
            "loss": str(account.loss.balance),
            "reserved_incoming": str(account.reserved_incoming),
            "reserved_outgoing": str(account.reserved_outgoing),
        }
        for account in books.peers.values()
    ]


def assets_of(books: Books) -> list[dict[str, Any]]:
    """Asset by asset: position and earnings, signs as people read them. All that isn't a peer's or the position."""
    rows: dict[tuple[str, int], dict[str, Any]] = {}
    for account in books.accounts:
        asset = (account.asset_code, account.asset_scale)
        row = rows.setdefault(
            asset, {"asset_code": asset[0], "asset_scale": asset[1], "position": "0", "earnings": {"other": "0"}}
        )
        if account.kind == CLEARING:
            row["position"] = str(-account.balance)
        elif account.kind != PEER:
            kind = _EARNINGS.get(account.kind, "other")
            row["earnings"][kind] = str(int(row["earnings"].get(kind, "0")) - account.balance)
    return list(rows.values())
