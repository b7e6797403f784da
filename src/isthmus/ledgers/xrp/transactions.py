"""Transactions that we send, built and signed here: servers get bytes, never a secret. Pure."""

from dataclasses import dataclass
from typing import Any, Final, TypeAlias, final

from xrpl.core.addresscodec import is_valid_classic_address
from xrpl.core.binarycodec import encode, encode_for_signing

from isthmus.ledgers.xrp.hashes import transaction_id
from isthmus.ledgers.xrp.signatures import SigningKey

# What a channel or a payment can hold: all XRP there is. An amount is a count of drops (10^-6 XRP).
DROPS_MAX: Final = 10**17
XRP_SCALE: Final = 6
EPOCH_UNIX: Final = 946_684_800  # the ledger counts seconds from the year 2000 on
CLOSE: Final = 0x0002_0000  # tfClose of a PaymentChannelClaim
# Networks above this are named in transactions, so that one isn't valid on two of them.
NETWORK_NAMED: Final = 1_024

Fields: TypeAlias = dict[str, Any]


@final
@dataclass(slots=True, frozen=True)
class Signed:
    """The very bytes for the ledger, and the hash that it is found by."""

    blob: bytes
    hash: str


def is_address(text: str) -> bool:
    """Whether it is a classic address with the right checksum."""
    return text.isascii() and len(text) <= 40 and is_valid_classic_address(text)


def sign_transaction(
    fields: Fields, key: SigningKey, *, network_id: int, sequence: int, last_ledger: int, fee: int
) -> Signed:
    """`fields`: the transaction's own, as JSON. It can't be in a ledger after `last_ledger`. `fee` is in drops."""
    whole: Fields = {
        **fields,
        "Account": key.address,
        "Sequence": sequence,
        "LastLedgerSequence": last_ledger,
        "Fee": str(fee),
        "SigningPubKey": key.public_key.hex().upper(),
    }
    if network_id > NETWORK_NAMED:
        whole["NetworkID"] = network_id
    whole["TxnSignature"] = key.sign(bytes.fromhex(encode_for_signing(whole))).hex().upper()
    blob = bytes.fromhex(encode(whole))
    return Signed(blob, transaction_id(blob))


def create_channel(destination: str, drops: int, *, settle_delay: int, public_key: bytes) -> Fields:
    """Set `drops` aside; `settle_delay` in seconds."""
    return {
        "TransactionType": "PaymentChannelCreate",
        "Destination": destination,
        "Amount": str(drops),
        "SettleDelay": settle_delay,
        "PublicKey": public_key.hex().upper(),
    }


def fund_channel(channel: str, drops: int) -> Fields:
    return {"TransactionType": "PaymentChannelFund", "Channel": channel, "Amount": str(drops)}


def claim_channel(channel: str, drops: int, signature: bytes, public_key: bytes, *, and_end: bool) -> Fields:
    """Have what was granted paid out to its destination; `drops` is the total since the channel began."""
    fields = {
        "TransactionType": "PaymentChannelClaim",
        "Channel": channel,
        "Balance": str(drops),
        "Amount": str(drops),
        "Signature": signature.hex().upper(),
        "PublicKey": public_key.hex().upper(),
    }
    return {**fields, "Flags": CLOSE} if and_end else fields


def end_channel(channel: str) -> Fields:
    """Its destination ends it at once; its source after the settle delay, by asking once before and once after it."""
    return {"TransactionType": "PaymentChannelClaim", "Channel": channel, "Flags": CLOSE}


def payment(destination: str, drops: int, *, tag: int | None, memo: bytes = b"", invoice: str = "") -> Fields:
    """A plain payment: all of it arrives, or none. `invoice`: 64 hexadecimal digits, so that no two are the same."""
    fields: Fields = {"TransactionType": "Payment", "Destination": destination, "Amount": str(drops)}
    if tag is not None:
        fields["DestinationTag"] = tag
    if invoice:
        fields["InvoiceID"] = invoice
    if memo:
        fields["Memos"] = [{"Memo": {"MemoData": memo.hex().upper()}}]
    return fields
