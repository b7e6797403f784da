"""AccountSet: flags and optional fields of an account. Source: xrpl.org "AccountSet"; `rippled`'s order of checks.

Without regular keys and signer lists the master key can't be disabled here; flags about tokens are kept and shown, as
clients set them, though this ledger has no tokens on which they could act.
"""

from dataclasses import replace
from typing import Any, Final

from isthmus.ledgers.xrp.dev import entries
from isthmus.ledgers.xrp.dev.entries import NO_TRANSACTION, AccountRoot
from isthmus.ledgers.xrp.dev.results import Result
from isthmus.ledgers.xrp.dev.rules import Case
from isthmus.ledgers.xrp.dev.transactions import FULLY_CANONICAL, Transaction
from isthmus.ledgers.xrp.signatures import key_kind

DOMAIN_BYTES_MAX: Final = 256
_RATE_ONE: Final = 1_000_000_000
_TICKS: Final = (3, 16)

_REQUIRE_DESTINATION: Final = 1
_REQUIRE_AUTH: Final = 2
_DISALLOW_XRP: Final = 3
_DISABLE_MASTER: Final = 4
_ACCOUNT_TXN_ID: Final = 5
_NO_FREEZE: Final = 6
_GLOBAL_FREEZE: Final = 7
_NFTOKEN_MINTER: Final = 10
_CLAWBACK: Final = 16

# Set or cleared by a number, or by one of the two flags of the transaction that are older.
_OLD_FLAGS: Final = {
    _REQUIRE_DESTINATION: (entries.REQUIRE_DESTINATION_TAG, 0x0001_0000, 0x0002_0000),
    _REQUIRE_AUTH: (entries.REQUIRE_AUTH, 0x0004_0000, 0x0008_0000),
    _DISALLOW_XRP: (entries.DISALLOW_XRP, 0x0010_0000, 0x0020_0000),
}
_PLAIN_FLAGS: Final = {
    8: entries.DEFAULT_RIPPLE,
    9: entries.DEPOSIT_AUTH,
    12: entries.DISALLOW_INCOMING_NFT_OFFER,
    13: entries.DISALLOW_INCOMING_CHECK,
    14: entries.DISALLOW_INCOMING_CHANNEL,
    15: entries.DISALLOW_INCOMING_TRUSTLINE,
}
_FLAGS: Final = FULLY_CANONICAL | 0x003F_0000
# Fields that a value of zeros or nothing takes away again.
_CLEARED_BY: Final = {
    "EmailHash": ("0" * 32,),
    "WalletLocator": ("0" * 64,),
    "MessageKey": ("",),
    "Domain": ("",),
    "TransferRate": (0, _RATE_ONE),
    "TickSize": (0, _TICKS[1]),
}


def preflight(transaction: Transaction) -> Result:
    """Flags that contradict each other, and values out of range."""
    if transaction.flags & ~_FLAGS:
        return Result.TEM_INVALID_FLAG
    to_set, to_clear = _asked(transaction)
    if to_set and to_set == to_clear:
        return Result.TEM_INVALID_FLAG
    for number, (_, sets, clears) in _OLD_FLAGS.items():
        both = (to_set == number or transaction.flags & sets) and (to_clear == number or transaction.flags & clears)
        if both:
            return Result.TEM_INVALID_FLAG
    return _preflight_fields(transaction, to_set, to_clear)


def _asked(transaction: Transaction) -> tuple[int, int]:
    return transaction.get("SetFlag") or 0, transaction.get("ClearFlag") or 0


def _preflight_fields(transaction: Transaction, to_set: int, to_clear: int) -> Result:
    rate, tick = transaction.get("TransferRate"), transaction.get("TickSize")
    key, domain = transaction.get("MessageKey"), transaction.get("Domain")
    has_minter = transaction.get("NFTokenMinter") is not None
    faults = (
        (rate and not _RATE_ONE <= rate <= 2 * _RATE_ONE, Result.TEM_BAD_TRANSFER_RATE),
        (tick and not _TICKS[0] <= tick <= _TICKS[1], Result.TEM_BAD_TICK_SIZE),
        (key and key_kind(bytes.fromhex(key)) is None, Result.TEL_BAD_PUBLIC_KEY),
        (domain and len(domain) // 2 > DOMAIN_BYTES_MAX, Result.TEL_BAD_DOMAIN),
        (to_set == _NFTOKEN_MINTER and not has_minter, Result.TEM_MALFORMED),
        (to_clear == _NFTOKEN_MINTER and has_minter, Result.TEM_MALFORMED),
    )
    return next((result for is_so, result in faults if is_so), Result.TES_SUCCESS)


def apply(case: Case) -> Result:
    """Change flags and fields, or none of them."""
    transaction, account = case.transaction, case.sender()
    refusal = _refusal(case, account)
    if refusal is not None:
        return refusal
    case.layer.put(replace(account, flags=_flags(account.flags, transaction), settings=_settings(account, transaction)))
    return Result.TES_SUCCESS


def _refusal(case: Case, account: AccountRoot) -> Result | None:
    to_set, _ = _asked(case.transaction)
    wants_auth = to_set == _REQUIRE_AUTH or case.transaction.flags & _OLD_FLAGS[_REQUIRE_AUTH][1]
    has_entries = bool(case.layer.channels_of(account.address))
    if wants_auth and not account.has(entries.REQUIRE_AUTH) and has_entries:
        return Result.TEC_OWNERS
    if to_set == _CLAWBACK:
        if account.has(entries.NO_FREEZE):
            return Result.TEC_NO_PERMISSION
        if has_entries:
            return Result.TEC_OWNERS
    if to_set == _NO_FREEZE and account.has(entries.ALLOW_TRUSTLINE_CLAWBACK):
        return Result.TEC_NO_PERMISSION
    return Result.TEC_NO_ALTERNATIVE_KEY if to_set == _DISABLE_MASTER else None


def _flags(before: int, transaction: Transaction) -> int:
    to_set, to_clear = _asked(transaction)
    after = before
    for number, (flag, sets, clears) in _OLD_FLAGS.items():
        if to_set == number or transaction.flags & sets:
            after |= flag
        if to_clear == number or transaction.flags & clears:
            after &= ~flag
    after |= _PLAIN_FLAGS.get(to_set, 0)
    after &= ~_PLAIN_FLAGS.get(to_clear, 0)
    if to_set == _NO_FREEZE:
        after |= entries.NO_FREEZE
    if to_set == _GLOBAL_FREEZE:
        after |= entries.GLOBAL_FREEZE
    elif to_clear == _GLOBAL_FREEZE and not after & entries.NO_FREEZE:
        after &= ~entries.GLOBAL_FREEZE
    if to_set == _CLAWBACK:
        after |= entries.ALLOW_TRUSTLINE_CLAWBACK
    return after


def _settings(account: AccountRoot, transaction: Transaction) -> tuple[tuple[str, Any], ...]:
    after = dict(account.settings)
    for name, clearing in _CLEARED_BY.items():
        value = transaction.get(name)
        if value is None:
            continue
        if value in clearing:
            after.pop(name, None)
        else:
            after[name] = value
    to_set, to_clear = _asked(transaction)
    if to_set == _ACCOUNT_TXN_ID:
        after.setdefault("AccountTxnID", NO_TRANSACTION)
    if to_clear == _ACCOUNT_TXN_ID:
        after.pop("AccountTxnID", None)
    if to_set == _NFTOKEN_MINTER:
        after["NFTokenMinter"] = transaction.get("NFTokenMinter")
    if to_clear == _NFTOKEN_MINTER:
        after.pop("NFTokenMinter", None)
    return tuple(sorted(after.items()))
