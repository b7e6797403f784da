"""Payment, from XRP to XRP. Source: xrpl.org "Payment", "DepositAuth"; the order of checks is `rippled`'s."""

from typing import Final

from isthmus.ledgers.xrp.dev.entries import DEPOSIT_AUTH, REQUIRE_DESTINATION_TAG, AccountRoot
from isthmus.ledgers.xrp.dev.results import Result
from isthmus.ledgers.xrp.dev.rules import NOBODY, Case
from isthmus.ledgers.xrp.dev.transactions import DROPS_MAX, FULLY_CANONICAL, Transaction, drops

_NO_DIRECT: Final = 0x0001_0000
_PARTIAL: Final = 0x0002_0000
_LIMIT_QUALITY: Final = 0x0004_0000
_FLAGS: Final = FULLY_CANONICAL | _NO_DIRECT | _PARTIAL | _LIMIT_QUALITY
# Fields that belong to tokens, or to amendments that this ledger doesn't have.
_SWITCHED_OFF: Final = ("CredentialIDs", "DomainID")


def preflight(transaction: Transaction) -> Result:
    """Payments in tokens are switched off here; everything else is as on the main net."""
    if transaction.flags & ~_FLAGS:
        return Result.TEM_INVALID_FLAG
    if any(transaction.get(name) is not None for name in _SWITCHED_OFF):
        return Result.TEM_DISABLED
    amount = drops(transaction.get("Amount"))
    if amount is None or isinstance(transaction.get("SendMax"), dict):
        return Result.TEM_DISABLED
    if transaction.get("Destination") == NOBODY:
        return Result.TEM_DST_NEEDED
    if not 0 < amount <= DROPS_MAX:
        return Result.TEM_BAD_AMOUNT
    if transaction.account == transaction.get("Destination") and transaction.get("Paths") is None:
        return Result.TEM_REDUNDANT
    return _only_for_tokens(transaction)


def _only_for_tokens(transaction: Transaction) -> Result:
    flags = transaction.flags
    faults = (
        (transaction.get("SendMax") is not None, Result.TEM_BAD_SEND_XRP_MAX),
        (transaction.get("Paths") is not None, Result.TEM_BAD_SEND_XRP_PATHS),
        (flags & _PARTIAL, Result.TEM_BAD_SEND_XRP_PARTIAL),
        (flags & _LIMIT_QUALITY, Result.TEM_BAD_SEND_XRP_LIMIT),
        (flags & _NO_DIRECT, Result.TEM_BAD_SEND_XRP_NO_DIRECT),
        (transaction.get("DeliverMin") is not None, Result.TEM_BAD_AMOUNT),
    )
    return next((result for is_so, result in faults if is_so), Result.TES_SUCCESS)


def apply(case: Case) -> Result:
    """Move XRP; an account that isn't there yet is made by its first payment, if that covers the reserve."""
    transaction, prices = case.transaction, case.prices
    amount = int(transaction.get("Amount"))
    to = transaction.get("Destination")
    receiver = case.layer.account(to)
    if receiver is None:
        if amount < prices.reserve(0):
            return Result.TEC_NO_DST_INSUF_XRP
    elif receiver.has(REQUIRE_DESTINATION_TAG) and transaction.get("DestinationTag") is None:
        return Result.TEC_DST_TAG_NEEDED
    # The fee may come out of the reserve, the amount may not.
    reserve = prices.reserve(case.sender().owner_count)
    if case.prior_balance < amount + max(reserve, transaction.fee):
        return Result.TEC_UNFUNDED_PAYMENT
    if receiver is None:
        case.layer.put(AccountRoot(address=to, balance=0, sequence=case.moment.ledger_index))
    elif receiver.has(DEPOSIT_AUTH) and max(amount, receiver.balance) > prices.reserve(0):
        # An account that fell to its reserve may be helped up to it, so that it isn't locked for ever.
        return Result.TEC_NO_PERMISSION
    case.pay(transaction.account, -amount)
    case.pay(to, amount)
    return Result.TES_SUCCESS
