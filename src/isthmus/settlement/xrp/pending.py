"""Transactions of ours whose end no validated ledger has shown yet: what is kept of each. Pure.

The signed bytes are kept before they go to a server. They can be in no ledger after `last`; once that is validated, the
account's sequence number tells whether they were in one. Then, and only then, others may be signed in their place.
"""

import json
from dataclasses import asdict, dataclass
from typing import Final, final

from isthmus.ledgers.xrp.hashes import transaction_id
from isthmus.ledgers.xrp.transactions import Fields

PREFIX: Final = b"tx/"


@final
@dataclass(slots=True, frozen=True, kw_only=True)
class Pending:
    """One transaction."""

    purpose: str  # the engine's word for it
    about: str  # what it is about, for the engine: a channel, a settlement's number
    fields: Fields  # what it does, to be signed anew if it doesn't come
    urgent: bool
    sequence: int
    fee: int  # drops
    first: int  # the ledgers that it can be in
    last: int
    blob: str  # the signed bytes, in hexadecimal
    # It certainly is in no ledger, and waits to be replaced; others may take its number meanwhile.
    is_dead: bool = False

    @property
    def key(self) -> bytes:
        """Where it is kept: under its sequence number, which no two share that one account has pending."""
        return PREFIX + str(self.sequence).encode()

    @property
    def hash(self) -> str:
        return transaction_id(bytes.fromhex(self.blob))

    def encode(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def decode(cls, data: bytes) -> "Pending":
        return cls(**json.loads(data))
