"""Settlements as they are shown: what is under way since when, what was lately, what is left over, what engines say.

Made of a node's books and journal, whether it runs or not; what engines say only a running one knows.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from isthmus.connector.books import Account, Books, settled_name
from isthmus.connector.settling import STATES
from isthmus.journal.reader import JournalReader, Single
from isthmus.runtime.engines import Running

Json = dict[str, Any]

# Kinds of singles that tell of settlements.
SINGLES: Final = (
    "settlement",
    "settlement by hand",
    "settlement failed",
    "settlement reversed",
    "settlement undone",
)
RECENT_MAX: Final = 50


def settlements_json(books: Books, recent: list[Single], now_ms: int) -> Json:
    """What books and journal tell. Amounts are strings in base units of the account."""
    settlers = [one for one in books.peers.values() if one.settling is not None]
    return {
        "settlements": [each for account in settlers for each in _open(account, now_ms)],
        "accounts": [_account(books, account) for account in settlers],
        "recent": [
            {
                "time_ms": one.wall_ms,
                "kind": one.kind,
                "account": one.account,
                "amount": str(one.amount),
                "text": one.text,
            }
            for one in recent
        ],
    }


def recent_settlements(path: str) -> list[Single]:
    """The last facts about settlements in a journal. Raises JournalError."""
    with JournalReader(path) as reader:
        return reader.last_singles(SINGLES, RECENT_MAX)


def _open(account: Account, now_ms: int) -> list[Json]:
    assert account.settling is not None
    return [
        {
            "account": account.name,
            "number": str(one.number),
            "amount": str(one.amount),
            "asset_code": account.asset_code,
            "asset_scale": account.asset_scale,
            "state": STATES[one.state],
            "begun_at_ms": one.begun_at,
            "age_ms": max(0, now_ms - one.begun_at),
            "key": one.key.hex(),
            "text": one.text,
        }
        for one in account.settling.open.values()
    ]


def _account(books: Books, account: Account) -> Json:
    settling = account.settling
    assert settling is not None
    settled = books.internal.get(settled_name(account.name))
    return {
        "account": account.name,
        "asset_code": account.asset_code,
        "asset_scale": account.asset_scale,
        "balance": str(account.balance),
        "on_ledger": str(0 if settled is None else settled.balance),
        "leftover": str(settling.leftover),
        "leftover_scale": settling.leftover_scale,
        "kept_by_engine": len(settling.engine),
    }


def engines_json(engines: list[Running], describe: Callable[[Any], Mapping[str, str]]) -> list[Json]:
    """What engines say of themselves and of their accounts."""
    return [
        {
            "name": one.name,
            "works": one.works,
            "problem": one.problem,
            "accounts": [{"account": account, "says": dict(describe(account))} for account in one.accounts],
            "alarms": [
                {
                    "level": alarm.level,
                    "event": alarm.event,
                    "account": alarm.account or "",
                    "text": alarm.text,
                    "at_ms": alarm.at,
                    "count": alarm.count,
                    "over_at_ms": alarm.over_at,
                }
                for alarm in reversed(one.alarms.values())
            ],
        }
        for one in engines
    ]
