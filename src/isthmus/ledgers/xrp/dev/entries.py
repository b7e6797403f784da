"""What the ledger's state consists of: accounts and payment channels, as immutable values.

`fields` gives an entry as the JSON that clients know; `read` makes one from it. Money is in drops, times in seconds
since 2000-01-01 ("Ripple epoch"). Source: xrpl.org "AccountRoot", "PayChannel".
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, TypeAlias

from xrpl.core.binarycodec import encode

from isthmus.ledgers.xrp.hashes import account_index

Fields: TypeAlias = dict[str, Any]

# Flags of an AccountRoot.
REQUIRE_DESTINATION_TAG: Final = 0x0002_0000
REQUIRE_AUTH: Final = 0x0004_0000
DISALLOW_XRP: Final = 0x0008_0000
DISABLE_MASTER: Final = 0x0010_0000
NO_FREEZE: Final = 0x0020_0000
GLOBAL_FREEZE: Final = 0x0040_0000
DEFAULT_RIPPLE: Final = 0x0080_0000
DEPOSIT_AUTH: Final = 0x0100_0000
DISALLOW_INCOMING_NFT_OFFER: Final = 0x0400_0000
DISALLOW_INCOMING_CHECK: Final = 0x0800_0000
DISALLOW_INCOMING_CHANNEL: Final = 0x1000_0000
DISALLOW_INCOMING_TRUSTLINE: Final = 0x2000_0000
ALLOW_TRUSTLINE_CLAWBACK: Final = 0x8000_0000

# Both are also fields of an entry's JSON, but no part of what metadata calls its fields.
THREAD_FIELDS: Final = ("PreviousTxnID", "PreviousTxnLgrSeq")
NO_TRANSACTION: Final = "0" * 64
_ACCOUNT_FIELDS: Final = frozenset(
    ("LedgerEntryType", "Account", "Balance", "Sequence", "OwnerCount", "Flags", *THREAD_FIELDS)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountRoot:
    """One account. `settings` are its optional fields (Domain, MessageKey, …) as JSON, in the order of their names."""

    TYPE: ClassVar[str] = "AccountRoot"

    address: str
    balance: int
    sequence: int
    owner_count: int = 0
    flags: int = 0
    settings: tuple[tuple[str, Any], ...] = ()
    changed_by: str = NO_TRANSACTION
    changed_at: int = 0  # index of the ledger that the change is in

    @property
    def index(self) -> str:
        """Its key in the state."""
        return account_index(self.address)

    def has(self, flag: int) -> bool:
        """Whether a flag is set."""
        return bool(self.flags & flag)

    def setting(self, name: str) -> Any:
        """An optional field, or None."""
        return dict(self.settings).get(name)

    def fields(self) -> Fields:
        """As JSON, without its index."""
        return {
            "LedgerEntryType": self.TYPE,
            "Account": self.address,
            "Balance": str(self.balance),
            "Flags": self.flags,
            "OwnerCount": self.owner_count,
            "Sequence": self.sequence,
            **dict(self.settings),
            "PreviousTxnID": self.changed_by,
            "PreviousTxnLgrSeq": self.changed_at,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class PayChannel:
    """One payment channel: `amount` drops set aside by `source`, of which `balance` were paid to `destination`."""

    TYPE: ClassVar[str] = "PayChannel"

    index: str
    source: str
    destination: str
    amount: int
    balance: int
    public_key: str  # hexadecimal; signs claims
    settle_delay: int  # seconds
    expiration: int | None = None
    cancel_after: int | None = None
    source_tag: int | None = None
    destination_tag: int | None = None
    changed_by: str = NO_TRANSACTION
    changed_at: int = 0

    def is_over(self, parent_close_time: int) -> bool:
        """Past its expiration or CancelAfter: the next transaction that touches it closes it, whatever it asks."""
        ends = [each for each in (self.expiration, self.cancel_after) if each is not None]
        return any(parent_close_time >= each for each in ends)

    def fields(self) -> Fields:
        """As JSON, without its index."""
        optional = {
            "Expiration": self.expiration,
            "CancelAfter": self.cancel_after,
            "SourceTag": self.source_tag,
            "DestinationTag": self.destination_tag,
        }
        return {
            "LedgerEntryType": self.TYPE,
            "Account": self.source,
            "Destination": self.destination,
            "Amount": str(self.amount),
            "Balance": str(self.balance),
            "PublicKey": self.public_key,
            "SettleDelay": self.settle_delay,
            "Flags": 0,
            "OwnerNode": "0",
            "DestinationNode": "0",
            **{name: value for name, value in optional.items() if value is not None},
            "PreviousTxnID": self.changed_by,
            "PreviousTxnLgrSeq": self.changed_at,
        }


Entry: TypeAlias = AccountRoot | PayChannel


def read(index: str, fields: Mapping[str, Any]) -> Entry:
    """The entry of its own JSON, as `fields` gave it."""
    if fields["LedgerEntryType"] == AccountRoot.TYPE:
        return AccountRoot(
            address=fields["Account"],
            balance=int(fields["Balance"]),
            sequence=fields["Sequence"],
            owner_count=fields["OwnerCount"],
            flags=fields["Flags"],
            settings=tuple(sorted((name, value) for name, value in fields.items() if name not in _ACCOUNT_FIELDS)),
            changed_by=fields["PreviousTxnID"],
            changed_at=fields["PreviousTxnLgrSeq"],
        )
    return PayChannel(
        index=index,
        source=fields["Account"],
        destination=fields["Destination"],
        amount=int(fields["Amount"]),
        balance=int(fields["Balance"]),
        public_key=fields["PublicKey"],
        settle_delay=fields["SettleDelay"],
        expiration=fields.get("Expiration"),
        cancel_after=fields.get("CancelAfter"),
        source_tag=fields.get("SourceTag"),
        destination_tag=fields.get("DestinationTag"),
        changed_by=fields["PreviousTxnID"],
        changed_at=fields["PreviousTxnLgrSeq"],
    )


def serialised(entry: Entry) -> bytes:
    """The canonical bytes, of which the state's hash is made."""
    return bytes.fromhex(encode(entry.fields()))


def addresses_of(entry: Entry) -> tuple[str, ...]:
    """Whose entry it is, in either role."""
    return (entry.address,) if isinstance(entry, AccountRoot) else (entry.source, entry.destination)
