"""The bank's tables.

Amounts are decimal text in both databases: an SQLite integer has 63 bits and its NUMERIC turns larger ones into floats.
All arithmetic on them is Python's, inside the transaction that reads and writes them.
"""

from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Dialect,
    ForeignKey,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    UniqueConstraint,
)
from sqlalchemy.types import TypeDecorator

from isthmus.ledgers.bank.values import (
    AMOUNT_MAX,
    ID_CHARS_MAX,
    KEY_CHARS_MAX,
    NAME_CHARS_MAX,
    REFERENCE_CHARS_MAX,
)

VERSION: Final = 1
_DIGITS_MAX: Final = len(f"-{AMOUNT_MAX}")


class Units(TypeDecorator[int]):
    """A whole number from -AMOUNT_MAX to AMOUNT_MAX, kept as text."""

    impl = String(_DIGITS_MAX)
    cache_ok = True
    """Columns of it are alike."""

    def process_bind_param(self, value: int | None, dialect: Dialect) -> str | None:
        """To the database."""
        assert value is None or (type(value) is int and -AMOUNT_MAX <= value <= AMOUNT_MAX)
        return None if value is None else str(value)

    def process_result_value(self, value: Any | None, dialect: Dialect) -> int | None:
        """From it."""
        return None if value is None else int(value)


metadata: Final = MetaData()

meta: Final = Table("meta", metadata, Column("name", String(32), primary_key=True), Column("value", String(64)))

# A code has one scale, whichever account uses it.
assets: Final = Table(
    "assets", metadata, Column("code", String(12), primary_key=True), Column("scale", Integer, nullable=False)
)

accounts: Final = Table(
    "accounts",
    metadata,
    Column("id", String(ID_CHARS_MAX), primary_key=True),
    Column("name", String(NAME_CHARS_MAX), nullable=False),
    Column("asset_code", ForeignKey("assets.code"), nullable=False),
    Column("balance", Units, nullable=False),
    Column("overdraft", Units),
    Column("entries", BigInteger, nullable=False),
    Column("last_at_ms", BigInteger, nullable=False),
    CheckConstraint("entries >= 0", name="accounts_entries"),
)

transfers: Final = Table(
    "transfers",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("payer", ForeignKey("accounts.id"), nullable=False),
    Column("key", String(KEY_CHARS_MAX), nullable=False),
    Column("payee", ForeignKey("accounts.id"), nullable=False),
    Column("amount", Units, nullable=False),
    Column("reference", String(REFERENCE_CHARS_MAX), nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    UniqueConstraint("payer", "key", name="transfers_once"),
    CheckConstraint("payer <> payee", name="transfers_between_two"),
)

# Keys that nothing can be done under any more.
voided: Final = Table(
    "voided",
    metadata,
    Column("payer", ForeignKey("accounts.id"), nullable=False),
    Column("key", String(KEY_CHARS_MAX), nullable=False),
    PrimaryKeyConstraint("payer", "key", name="voided_once"),
)

entries: Final = Table(
    "entries",
    metadata,
    Column("account", ForeignKey("accounts.id"), nullable=False),
    Column("number", BigInteger, nullable=False),
    Column("transfer", ForeignKey("transfers.id"), nullable=False),
    Column("amount", Units, nullable=False),
    Column("balance", Units, nullable=False),
    PrimaryKeyConstraint("account", "number", name="entries_in_order"),
    UniqueConstraint("account", "transfer", name="entries_once"),
    CheckConstraint("number > 0", name="entries_numbers"),
)

tokens: Final = Table(
    "tokens",
    metadata,
    Column("id", String(16), primary_key=True),
    Column("account", ForeignKey("accounts.id")),  # none: the operator's
    Column("label", String(NAME_CHARS_MAX), nullable=False),
    Column("digest", LargeBinary(32), nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
)
