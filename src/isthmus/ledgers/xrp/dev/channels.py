"""Payment channels: create, fund, claim, close. Source: xrpl.org "PaymentChannelCreate", "PaymentChannelFund",
"PaymentChannelClaim"; the order of checks is `rippled`'s.

A channel has two ends in time: `CancelAfter`, fixed when it is made, and `Expiration`, which its source sets by asking
for the close: at least the settle delay away, so that the destination can still claim. Past either, the next
transaction that touches the channel closes it, whatever it asked for and whoever sent it. Time is that of the ledger
before (its close time), so two transactions in one ledger are judged at the same moment.
"""

from dataclasses import replace
from typing import Any, Final

from isthmus.ledgers.xrp.dev.entries import (
    DEPOSIT_AUTH,
    DISALLOW_INCOMING_CHANNEL,
    REQUIRE_DESTINATION_TAG,
    AccountRoot,
    PayChannel,
)
from isthmus.ledgers.xrp.dev.results import Result
from isthmus.ledgers.xrp.dev.rules import Case
from isthmus.ledgers.xrp.dev.transactions import DROPS_MAX, FULLY_CANONICAL, Transaction, drops
from isthmus.ledgers.xrp.hashes import channel_index, claim_message
from isthmus.ledgers.xrp.signatures import key_kind, verify

RENEW: Final = 0x0001_0000
CLOSE: Final = 0x0002_0000
_TIME_MAX: Final = 2**32 - 1  # what the ledger's format can hold


def _is_amount(value: Any) -> bool:
    amount = drops(value)
    return amount is not None and 0 < amount <= DROPS_MAX


def preflight_create(transaction: Transaction) -> Result:
    """The amount, the parties and the key."""
    if transaction.flags & ~FULLY_CANONICAL:
        return Result.TEM_INVALID_FLAG
    if not _is_amount(transaction.get("Amount")):
        return Result.TEM_BAD_AMOUNT
    if transaction.account == transaction.get("Destination"):
        return Result.TEM_DST_IS_SRC
    if key_kind(bytes.fromhex(transaction.get("PublicKey"))) is None:
        return Result.TEM_MALFORMED
    return Result.TES_SUCCESS


def create(case: Case) -> Result:
    """Set XRP aside in a new channel, which counts towards the source's reserve."""
    transaction, sender = case.transaction, case.sender()
    amount = int(transaction.get("Amount"))
    reserve = case.prices.reserve(sender.owner_count + 1)
    if case.prior_balance < reserve:
        return Result.TEC_INSUFFICIENT_RESERVE
    if case.prior_balance < reserve + amount:
        return Result.TEC_UNFUNDED
    receiver = case.layer.account(transaction.get("Destination"))
    refusal = _refusal_to_receive(receiver, transaction)
    if refusal is not None:
        return refusal
    cancel_after = transaction.get("CancelAfter")
    if cancel_after is not None and cancel_after < case.moment.parent_close_time:
        return Result.TEC_EXPIRED
    # The fee is paid by now: with a fee above the reserve's increment nothing may be left to set aside.
    if sender.balance < amount:
        return Result.TEC_UNFUNDED
    destination = transaction.get("Destination")
    channel = PayChannel(
        index=channel_index(transaction.account, destination, transaction.sequence),
        source=transaction.account,
        destination=destination,
        amount=amount,
        balance=0,
        public_key=transaction.get("PublicKey"),
        settle_delay=transaction.get("SettleDelay"),
        cancel_after=cancel_after,
        source_tag=transaction.get("SourceTag"),
        destination_tag=transaction.get("DestinationTag"),
    )
    case.layer.put(channel)
    case.pay(channel.source, -amount)
    case.own(channel.source, 1)
    return Result.TES_SUCCESS


def _refusal_to_receive(receiver: AccountRoot | None, transaction: Transaction) -> Result | None:
    if receiver is None:
        return Result.TEC_NO_DST
    if receiver.has(DISALLOW_INCOMING_CHANNEL):
        return Result.TEC_NO_PERMISSION
    if receiver.has(REQUIRE_DESTINATION_TAG) and transaction.get("DestinationTag") is None:
        return Result.TEC_DST_TAG_NEEDED
    return None


def preflight_fund(transaction: Transaction) -> Result:
    """The amount."""
    if transaction.flags & ~FULLY_CANONICAL:
        return Result.TEM_INVALID_FLAG
    return Result.TES_SUCCESS if _is_amount(transaction.get("Amount")) else Result.TEM_BAD_AMOUNT


def fund(case: Case) -> Result:
    """Add XRP to a channel; its source may put off the expiration in the same go."""
    transaction, now = case.transaction, case.moment.parent_close_time
    channel = case.layer.channel(transaction.get("Channel"))
    if channel is None:
        return Result.TEC_NO_ENTRY
    if channel.is_over(now):
        return _close(case, channel)
    if channel.source != transaction.account:
        return Result.TEC_NO_PERMISSION
    wanted = transaction.get("Expiration")
    if wanted is not None:
        earliest = now + channel.settle_delay
        if channel.expiration is not None:
            earliest = min(earliest, channel.expiration)
        if wanted < earliest:
            return Result.TEM_BAD_EXPIRATION
        channel = replace(channel, expiration=wanted)
    sender, amount = case.sender(), int(transaction.get("Amount"))
    reserve = case.prices.reserve(sender.owner_count)
    if sender.balance < reserve:
        return Result.TEC_INSUFFICIENT_RESERVE
    if sender.balance < reserve + amount:
        return Result.TEC_UNFUNDED
    case.layer.put(replace(channel, amount=channel.amount + amount))
    case.pay(channel.source, -amount)
    return Result.TES_SUCCESS


def preflight_claim(transaction: Transaction) -> Result:
    """The amounts, the flags, and the claim's signature by the key that it names."""
    if transaction.flags & ~(FULLY_CANONICAL | RENEW | CLOSE):
        return Result.TEM_INVALID_FLAG
    if transaction.get("CredentialIDs") is not None:
        return Result.TEM_DISABLED
    balance, amount = transaction.get("Balance"), transaction.get("Amount")
    if any(each is not None and not _is_amount(each) for each in (balance, amount)):
        return Result.TEM_BAD_AMOUNT
    if balance is not None and amount is not None and int(balance) > int(amount):
        return Result.TEM_BAD_AMOUNT
    if transaction.flags & CLOSE and transaction.flags & RENEW:
        return Result.TEM_MALFORMED
    signature = transaction.get("Signature")
    return Result.TES_SUCCESS if signature is None else _check_claim(transaction, signature)


def _check_claim(transaction: Transaction, signature: str) -> Result:
    balance, amount, key = (transaction.get(name) for name in ("Balance", "Amount", "PublicKey"))
    if key is None or balance is None or key_kind(bytes.fromhex(key)) is None:
        return Result.TEM_MALFORMED
    message = claim_message(transaction.get("Channel"), int(balance if amount is None else amount))
    is_signed = verify(message, bytes.fromhex(signature), bytes.fromhex(key))
    return Result.TES_SUCCESS if is_signed else Result.TEM_BAD_SIGNATURE


def claim(case: Case) -> Result:
    """Pay out what a claim grants, then renew or close: one transaction may ask for two of them."""
    transaction, now = case.transaction, case.moment.parent_close_time
    channel = case.layer.channel(transaction.get("Channel"))
    if channel is None:
        return Result.TEC_NO_TARGET
    if channel.is_over(now):
        return _close(case, channel)
    if transaction.account not in (channel.source, channel.destination):
        return Result.TEC_NO_PERMISSION
    if transaction.get("Balance") is not None:
        refusal = _refusal_to_pay(case, channel)
        if refusal is not None:
            return refusal
        paid = int(transaction.get("Balance"))
        case.pay(channel.destination, paid - channel.balance)
        channel = replace(channel, balance=paid)
        case.layer.put(channel)
    if transaction.flags & RENEW:
        if transaction.account != channel.source:
            return Result.TEC_NO_PERMISSION
        channel = replace(channel, expiration=None)
        case.layer.put(channel)
    if transaction.flags & CLOSE:
        if transaction.account == channel.destination or channel.balance == channel.amount:
            return _close(case, channel)
        settled = min(now + channel.settle_delay, _TIME_MAX)
        if channel.expiration is None or channel.expiration > settled:
            case.layer.put(replace(channel, expiration=settled))
    return Result.TES_SUCCESS


def _refusal_to_pay(case: Case, channel: PayChannel) -> Result | None:
    """Why a claim isn't paid; None if it is. The source needs no signature: it may pay what it likes."""
    transaction = case.transaction
    if transaction.get("Signature") is None:
        if transaction.account == channel.destination:
            return Result.TEM_BAD_SIGNATURE
    elif transaction.get("PublicKey") != channel.public_key:
        return Result.TEM_BAD_SIGNER
    if not channel.balance < int(transaction.get("Balance")) <= channel.amount:
        return Result.TEC_UNFUNDED_PAYMENT
    receiver = case.layer.account(channel.destination)
    assert receiver is not None, "no account is ever deleted here"
    if receiver.has(DEPOSIT_AUTH) and transaction.account != channel.destination:
        return Result.TEC_NO_PERMISSION
    return None


def _close(case: Case, channel: PayChannel) -> Result:
    """What wasn't paid out goes back to the source."""
    case.layer.erase(channel)
    case.pay(channel.source, channel.amount - channel.balance)
    case.own(channel.source, -1)
    return Result.TES_SUCCESS
