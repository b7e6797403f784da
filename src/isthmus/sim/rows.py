"""A node's stored batches as rows, as `isthmus books export --what transfers --format json` writes them.

Read from the records alone: no books are kept here, so that what the auditor is given can't be wrong with them.
"""

from collections.abc import Iterable, Iterator
from typing import Any, Final

from isthmus.connector import record as r
from isthmus.journal.interface import StoredBatch

# By the numbers that journals hold.
_TRANSFERS: Final = {
    1: "adjustment",
    2: "loss",
    3: "write-off",
    4: "give-up",
    5: "settlement by us",
    6: "settlement by the peer",
    7: "settlement undone",
    8: "settlement by hand",
}
_REASONS: Final = {1: "rejected", 2: "expired", 3: "wrong fulfillment", 4: "undelivered", 5: "never sent"}
# Entries that move nothing.
_OTHERS: Final[dict[type, str]] = {
    r.LateFulfill: "late fulfill",
    r.AtRisk: "at risk",
    r.TermsChanged: "terms",
    r.RatesEntry: "rates",
    r.NoteEntry: "note",
    r.Acknowledged: "acknowledged",
    r.Passed: "passed",
    r.Forgotten: "forgotten",
    r.Confirmed: "confirmed",
    r.Hearing: "hearing",
    r.DrainedEntry: "drained",
    r.Dated: "dated",
    r.Listed: "listed",
    r.GivenUp: "given up",
    r.SettlementBegun: "settlement",
    r.SettlementMoved: "settlement",
    r.Credited: "settlement",
    r.KeyUsed: "settlement",
    r.EngineKept: "settlement",
}
_EMPTY: Final[dict[str, Any]] = dict.fromkeys(
    (
        "leg",
        "direction",
        "account",
        "counter_account",
        "asset_code",
        "asset_scale",
        "amount",
        "spread",
        "rounding",
        "expires_at_ms",
        "session",
        "request_id",
        "condition",
        "reason",
    )
)


def rows_of(batches: Iterable[StoredBatch]) -> Iterator[dict[str, Any]]:
    """Every entry of every batch, from the first batch on."""
    accounts: list[tuple[str, str, int]] = []
    # Incoming legs by what their senders call them: id and amount of the newest.
    names: dict[tuple[int, bytes, int], tuple[int, int]] = {}
    last_leg = 0
    for batch in batches:
        sequence = batch.sequence
        for position, entry in enumerate(r.decode_record(batch.record)):
            if isinstance(entry, r.Post | r.Fulfilled | r.Unkept):
                yield {"sequence": sequence, "position": position, "entry": "post", "leg": entry.leg}
                continue
            if isinstance(entry, r.Void):
                columns = {"entry": "void", "leg": entry.leg, "reason": _REASONS[entry.reason]}
            elif isinstance(entry, r.ReserveIncoming | r.ReserveOutgoing):
                last_leg += 1
                if isinstance(entry, r.ReserveIncoming):
                    names[entry.account, entry.session, entry.request_id] = (last_leg, entry.amount)
                columns = _reserve(entry, last_leg, accounts[entry.account])
            elif isinstance(entry, r.Lost):
                columns = _lost(entry, accounts[entry.account], *names[entry.account, entry.session, entry.request_id])
            else:
                if isinstance(entry, r.AccountOpened):
                    accounts.append((entry.name, entry.asset_code, entry.asset_scale))
                columns = _rare(entry, accounts)
            columns["sequence"] = sequence
            columns["position"] = position
            yield columns


def _reserve(entry: r.ReserveIncoming | r.ReserveOutgoing, leg: int, account: tuple[str, str, int]) -> dict[str, Any]:
    is_outgoing = isinstance(entry, r.ReserveOutgoing)
    return {
        "entry": "reserve",
        "leg": leg,
        "direction": "outgoing" if is_outgoing else "incoming",
        "account": account[0],
        "asset_code": account[1],
        "asset_scale": account[2],
        "amount": entry.amount,
        "spread": entry.spread if isinstance(entry, r.ReserveOutgoing) else 0,
        "rounding": entry.rounding if isinstance(entry, r.ReserveOutgoing) else 0,
        "expires_at_ms": entry.expires_at,
        "session": entry.session.hex(),
        "request_id": entry.request_id,
        "condition": entry.condition.hex(),
    }


def _lost(entry: r.Lost, account: tuple[str, str, int], leg: int, amount: int) -> dict[str, Any]:
    name, code, scale = account
    return _EMPTY | {
        "entry": "loss",
        "leg": leg,
        "account": name,
        "counter_account": f"loss:{name}",
        "asset_code": code,
        "asset_scale": scale,
        "amount": amount,
        "session": entry.session.hex(),
        "request_id": entry.request_id,
    }


def _rare(entry: r.Entry, accounts: list[tuple[str, str, int]]) -> dict[str, Any]:
    if isinstance(entry, r.AccountOpened):
        return _EMPTY | {
            "entry": "account opened",
            "account": entry.name,
            "asset_code": entry.asset_code,
            "asset_scale": entry.asset_scale,
        }
    if isinstance(entry, r.Transfer):
        name, code, scale = accounts[entry.debit]
        return _EMPTY | {
            "entry": _TRANSFERS.get(entry.kind, f"transfer of kind {entry.kind}"),
            "account": name,
            "counter_account": accounts[entry.credit][0],
            "asset_code": code,
            "asset_scale": scale,
            "amount": entry.amount,
        }
    return _EMPTY | {"entry": _OTHERS[type(entry)]}
