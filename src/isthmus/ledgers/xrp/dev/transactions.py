"""A signed transaction: from bytes to fields, and what can be said of it without looking at a ledger.

Two kinds of refusal, as the server this one is shaped like has them. What breaks the format, or was never signed by
its own key, is a `LocalRefusal`: an error of the request. What is well formed and can't be meant is a `tem` result.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from xrpl.core.binarycodec import decode as decode_fields
from xrpl.core.binarycodec import encode, encode_for_signing
from xrpl.core.binarycodec.binary_wrappers import BinaryParser

from isthmus.errors import CodecError, IsthmusError
from isthmus.ledgers.xrp.dev.results import Result
from isthmus.ledgers.xrp.hashes import transaction_id
from isthmus.ledgers.xrp.signatures import key_kind, verify

TRANSACTION_BYTES_MAX: Final = 16_384  # those that this ledger knows have 200 to 1,500
NESTING_MAX: Final = 10  # as rippled has it; a memo is nested twice
_NESTING: Final = ("STObject", "STArray")
_ENDS: Final = ("ObjectEndMarker", "ArrayEndMarker")
MEMOS_BYTES_MAX: Final = 1_024
DROPS_MAX: Final = 100_000_000_000 * 1_000_000
FULLY_CANONICAL: Final = 0x8000_0000  # allowed on every transaction; nothing else was ever accepted here
INNER_BATCH: Final = 0x4000_0000

_COMMON: Final = (
    "TransactionType Account Fee Sequence Flags SigningPubKey TxnSignature AccountTxnID LastLedgerSequence Memos "
    "NetworkID Signers SourceTag TicketSequence Delegate PreviousTxnID OperationLimit"
)
_COMMON_NEEDED: Final = ("Account", "Fee", "Sequence", "SigningPubKey")
# What each type must have, and may have.
_FORMATS: Final[dict[str, tuple[str, str]]] = {
    "Payment": (
        "Destination Amount",
        "SendMax Paths InvoiceID DestinationTag DeliverMin CredentialIDs DomainID",
    ),
    "AccountSet": (
        "",
        "EmailHash WalletLocator WalletSize MessageKey Domain TransferRate SetFlag ClearFlag TickSize NFTokenMinter",
    ),
    "PaymentChannelCreate": ("Destination Amount SettleDelay PublicKey", "CancelAfter DestinationTag"),
    "PaymentChannelFund": ("Channel Amount", "Expiration"),
    "PaymentChannelClaim": ("Channel", "Amount Balance Signature PublicKey CredentialIDs"),
}
_MEMO_FIELDS: Final = frozenset(("MemoType", "MemoData", "MemoFormat"))
# RFC 3986, as far as a memo's type and format go.
_URL_CHARACTERS: Final = frozenset(
    b"0123456789-._~:/?#[]@!$&'()*+,;=%ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
)


class LocalRefusal(IsthmusError):
    """The transaction fails checks that need no ledger; the text is for the one who sent it."""


@dataclass(frozen=True, slots=True)
class Transaction:
    """One signed transaction, well formed. `fields` is its JSON, to be read only."""

    blob: bytes = field(repr=False)
    id: str
    fields: Mapping[str, Any] = field(repr=False)

    @property
    def type(self) -> str:
        """`Payment` and the like."""
        kind: str = self.fields["TransactionType"]
        return kind

    @property
    def account(self) -> str:
        """Who sends it and pays for it."""
        address: str = self.fields["Account"]
        return address

    @property
    def fee(self) -> int:
        """Drops, burnt."""
        return drops(self.fields["Fee"]) or 0

    @property
    def sequence(self) -> int:
        """Its place among the account's transactions; 0 with a ticket."""
        number: int = self.fields["Sequence"]
        return number

    @property
    def flags(self) -> int:
        """As given; 0 without."""
        bits: int = self.fields.get("Flags", 0)
        return bits

    @property
    def last_ledger(self) -> int | None:
        """The last ledger that may hold it."""
        return self.fields.get("LastLedgerSequence")

    def get(self, name: str) -> Any:
        """A field, or None."""
        return self.fields.get(name)


def drops(amount: object) -> int | None:
    """An amount of XRP from its JSON; None for other currencies. May be negative or too large."""
    if not isinstance(amount, str):
        return None
    return int(amount)


def decode(blob: bytes) -> Transaction:
    """A transaction from its bytes. CodecError, whatever the bytes; LocalRefusal for fields that don't belong."""
    if not 0 < len(blob) <= TRANSACTION_BYTES_MAX:
        raise CodecError("transaction", 0, f"must have 1 to {TRANSACTION_BYTES_MAX} bytes, has {len(blob)}")
    try:
        _check_nesting(BinaryParser(blob.hex()))
        fields = decode_fields(blob.hex())
        again = encode(fields)
    except Exception as error:  # the library is sure of its input and raises whatever it stumbles over
        raise CodecError("transaction", 0, "is not in the ledger's binary format") from error
    if bytes.fromhex(again) != blob:
        raise CodecError("transaction", 0, "is not in canonical form")
    _check_fields(fields)
    return Transaction(blob, transaction_id(blob), fields)


def _check_nesting(parser: BinaryParser, depth: int = 0) -> None:
    """ValueError for objects nested too deeply: the library reads each of them once for every level above it."""
    if depth > NESTING_MAX:
        raise ValueError("nested too deeply")
    while not parser.is_end():
        field = parser.read_field()
        if field.name in _ENDS:
            return
        if field.type in _NESTING:
            _check_nesting(parser, depth + 1)
        else:
            parser.read_field_value(field)


def _check_fields(fields: Mapping[str, Any]) -> None:
    """The types of fields are the binary format's; which of them there are is checked here."""
    kind = fields.get("TransactionType")
    if not isinstance(kind, str):
        raise LocalRefusal("Field not found: TransactionType")
    for name in _COMMON_NEEDED:
        if name not in fields:
            raise LocalRefusal(f"Field '{name}' is required but missing.")
    if kind not in _FORMATS:
        return  # a type that this ledger has switched off; the result says so
    needed, optional, common = (set(names.split()) for names in (*_FORMATS[kind], _COMMON))
    for name in sorted(needed - fields.keys()):
        raise LocalRefusal(f"Field '{name}' is required but missing.")
    for name in sorted(fields.keys() - needed - optional - common):
        raise LocalRefusal(f"Field '{name}' found in disallowed location.")


def check_locally(transaction: Transaction) -> None:
    """Signature and memos: LocalRefusal if either is wrong. What is multi-signed is refused by the ledger later."""
    _check_memos(transaction.get("Memos"))
    if transaction.get("Signers") is not None:
        return
    key, signature = _bytes(transaction.get("SigningPubKey")), _bytes(transaction.get("TxnSignature"))
    if not key:
        raise LocalRefusal("fails local checks: Empty SigningPubKey.")
    message = bytes.fromhex(encode_for_signing(dict(transaction.fields)))
    if not verify(message, signature, key):
        raise LocalRefusal("fails local checks: Invalid signature.")


def _check_memos(memos: Any) -> None:
    if memos is None:
        return
    # Without the array's own first and last byte, which that limit never counted.
    if len(bytes.fromhex(encode({"Memos": memos}))) - 2 > MEMOS_BYTES_MAX:
        raise LocalRefusal("fails local checks: The memo exceeds the maximum allowed size.")
    for each in memos:
        memo = each.get("Memo")
        if memo is None or len(each) != 1:
            raise LocalRefusal("fails local checks: A memo array may contain only Memo objects.")
        if memo.keys() - _MEMO_FIELDS:
            raise LocalRefusal("fails local checks: A memo may contain only MemoType, MemoData or MemoFormat fields.")
        for name in ("MemoType", "MemoFormat"):
            if not set(_bytes(memo.get(name))) <= _URL_CHARACTERS:
                raise LocalRefusal(
                    "fails local checks: The MemoType and MemoFormat fields may only contain characters that are "
                    "allowed in URLs under RFC 3986."
                )


def _bytes(text: str | None) -> bytes:
    return bytes.fromhex(text) if text else b""


def preflight_common(transaction: Transaction, *, network_id: int) -> Result:
    """What every type is held to before a ledger is asked; TES_SUCCESS to go on."""
    fields = transaction.fields
    for outcome in (_preflight_network(fields.get("NetworkID"), network_id), _preflight_fields(transaction)):
        if not outcome.is_success:
            return outcome
    if transaction.type not in _FORMATS or "Delegate" in fields:
        return Result.TEM_DISABLED
    return Result.TES_SUCCESS


def _preflight_network(given: int | None, ours: int) -> Result:
    # Up to 1,024 the networks of old, whose transactions name none.
    if ours <= 1_024:
        return Result.TES_SUCCESS if given is None else Result.TEL_NETWORK_ID_MAKES_TX_NON_CANONICAL
    if given is None:
        return Result.TEL_REQUIRES_NETWORK_ID
    return Result.TES_SUCCESS if given == ours else Result.TEL_WRONG_NETWORK


def _preflight_fields(transaction: Transaction) -> Result:
    fee = drops(transaction.fields["Fee"])
    if fee is None or not 0 <= fee <= DROPS_MAX:
        return Result.TEM_BAD_FEE
    key = _bytes(transaction.get("SigningPubKey"))
    if key and key_kind(key) is None:
        return Result.TEM_BAD_SIGNATURE
    has_ticket = transaction.get("TicketSequence") is not None
    if has_ticket and transaction.get("AccountTxnID") is not None:
        return Result.TEM_INVALID
    if transaction.flags & INNER_BATCH:
        return Result.TEM_INVALID_FLAG
    return Result.TES_SUCCESS
