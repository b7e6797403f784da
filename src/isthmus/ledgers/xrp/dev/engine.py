"""What a transaction does to the open ledger: the checks in `rippled`'s order, the fee, the transactor.

Pure: a view, prices and a moment go in, a result and a layer of changes come out. A `tec` result keeps the fee and the
sequence number and nothing else.
"""

from dataclasses import dataclass, replace
from typing import Final

from isthmus.ledgers.xrp.dev import channels, payments, settings
from isthmus.ledgers.xrp.dev.results import Result
from isthmus.ledgers.xrp.dev.rules import NOBODY, Apply, Case, Moment, Preflight, Prices
from isthmus.ledgers.xrp.dev.transactions import Transaction, preflight_common
from isthmus.ledgers.xrp.dev.views import Layer, View
from isthmus.ledgers.xrp.signatures import address_of, key_kind

_TRANSACTORS: Final[dict[str, tuple[Preflight, Apply]]] = {
    "Payment": (payments.preflight, payments.apply),
    "AccountSet": (settings.preflight, settings.apply),
    "PaymentChannelCreate": (channels.preflight_create, channels.create),
    "PaymentChannelFund": (channels.preflight_fund, channels.fund),
    "PaymentChannelClaim": (channels.preflight_claim, channels.claim),
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it. `layer` holds the changes if it is to be in the ledger, else None."""

    result: Result
    layer: Layer | None = None


def preflight(transaction: Transaction, *, network_id: int) -> Result:
    """All that can be said without a ledger; TES_SUCCESS to go on. The signature was checked when it came in."""
    if transaction.account == NOBODY:
        return Result.TEM_BAD_SRC_ACCOUNT
    outcome = preflight_common(transaction, network_id=network_id)
    if not outcome.is_success:
        return outcome
    check, _ = _TRANSACTORS[transaction.type]
    return check(transaction)


def apply(transaction: Transaction, view: View, *, prices: Prices, moment: Moment, fail_hard: bool = False) -> Outcome:
    """Judge a transaction that passed `preflight` against a view of the open ledger.

    With `fail_hard` a `tec` isn't claimed: its sender would rather have nothing happen.
    """
    refusal = _refusal(transaction, view, prices, moment)
    if refusal is not None:
        return Outcome(refusal)
    sender = view.account(transaction.account)
    assert sender is not None, "the checks ask for it"
    layer = _charged(transaction, view)
    _, transactor = _TRANSACTORS[transaction.type]
    result = transactor(Case(transaction, layer, prices, moment, sender.balance))
    if result.is_success:
        return Outcome(result, layer)
    if result.claims_fee and not fail_hard:
        return Outcome(result, _charged(transaction, view))
    return Outcome(result)


def _charged(transaction: Transaction, view: View) -> Layer:
    """A layer in which the fee is paid and the sequence number used."""
    account = view.account(transaction.account)
    assert account is not None
    own = dict(account.settings)
    if "AccountTxnID" in own:
        own["AccountTxnID"] = transaction.id
    layer = Layer(view)
    layer.put(
        replace(
            account,
            balance=account.balance - transaction.fee,
            sequence=transaction.sequence + 1,
            settings=tuple(sorted(own.items())),
        )
    )
    return layer


def is_by_its_account(transaction: Transaction) -> bool:
    """Whether the key that signed it is the account's own; there are no others here that could sign for it."""
    key = bytes.fromhex(transaction.get("SigningPubKey"))
    return key_kind(key) is not None and address_of(key) == transaction.account


def _refusal(transaction: Transaction, view: View, prices: Prices, moment: Moment) -> Result | None:
    """Why it can't be in this ledger; None if it can."""
    account = view.account(transaction.account)
    if account is None:
        return Result.TER_NO_ACCOUNT
    out_of_turn = _out_of_turn(transaction, account.sequence)
    if out_of_turn is not None:
        return out_of_turn
    prior = transaction.get("AccountTxnID")
    if prior is not None and prior != account.setting("AccountTxnID"):
        return Result.TEF_WRONG_PRIOR
    last = transaction.last_ledger
    if last is not None and moment.ledger_index > last:
        return Result.TEF_MAX_LEDGER
    if transaction.get("Signers") is not None:
        return Result.TEF_NOT_MULTI_SIGNING
    if not is_by_its_account(transaction):
        return Result.TEF_BAD_AUTH
    if transaction.fee < prices.base_fee:
        return Result.TEL_INSUF_FEE_P
    return Result.TER_INSUF_FEE_B if account.balance < transaction.fee else None


def _out_of_turn(transaction: Transaction, next_sequence: int) -> Result | None:
    ticket = transaction.get("TicketSequence")
    if ticket is not None:
        if transaction.sequence:
            return Result.TEM_SEQ_AND_TICKET
        # Nobody can make tickets here, so one that might exist never will.
        return Result.TER_PRE_TICKET if next_sequence <= ticket else Result.TEF_NO_TICKET
    if transaction.sequence > next_sequence:
        return Result.TER_PRE_SEQ
    return Result.TEF_PAST_SEQ if transaction.sequence < next_sequence else None
