"""Plain transfers to us: whose they are, which are credited, and which the chain took back. Pure.

A transfer is credited once: its record is kept by the step that credits it, for as long as blocks may be read again;
older blocks than `since` are never read again for this account.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, final

from isthmus.ledgers.evm.chain import Transfer
from isthmus.settlement.conversion import Converter

RECORD: Final = b"in/"
SINCE: Final = b"since"
OWED_BACK: Final = b"owed-back"
# A reorganisation so deep behind the confirmations is seen; blocks are read again from there.
UNDO_BLOCKS: Final = 64
# Records are dropped, and `since` moves on, once so many blocks have gone by.
KEPT_BLOCKS: Final = 4 * UNDO_BLOCKS
RECORDS_MAX: Final = 900  # a peer's transfers in KEPT_BLOCKS; it would pay thousands of fees to get there


@final
@dataclass(slots=True, frozen=True, kw_only=True)
class Arrival:
    """A transfer that was credited."""

    transfer: Transfer
    block_hash: bytes

    @property
    def key(self) -> bytes:
        return key_of(self.transfer)

    def encode(self) -> bytes:
        one = self.transfer
        fields = [one.sender, str(one.amount), one.transaction.hex(), one.index, one.block, self.block_hash.hex()]
        return json.dumps(fields).encode()

    @classmethod
    def decode(cls, data: bytes) -> "Arrival":
        sender, amount, transaction, index, block, block_hash = json.loads(data)
        transfer = Transfer(sender, int(amount), bytes.fromhex(transaction), index, block)
        return cls(transfer=transfer, block_hash=bytes.fromhex(block_hash))


def key_of(transfer: Transfer) -> bytes:
    """One for each transfer of a token: a transaction may hold more. In another block its log has another index."""
    return RECORD + transfer.transaction.hex().encode() + f"/{transfer.block}/{transfer.index}".encode()


def records(kept: Mapping[bytes, bytes]) -> list[Arrival]:
    return [Arrival.decode(kept[key]) for key in sorted(kept) if key.startswith(RECORD)]


def since(kept: Mapping[bytes, bytes]) -> int | None:
    """The first block whose transfers count for this account; None if that was not decided yet."""
    found = kept.get(SINCE)
    return None if found is None else int(found)


def is_new(kept: Mapping[bytes, bytes], transfer: Transfer) -> bool:
    first = since(kept)
    return first is not None and transfer.block >= first and key_of(transfer) not in kept


def credit(kept: Mapping[bytes, bytes], amount: int) -> tuple[int, int]:
    """What of this to credit, and what is owed back after it: fractions of a unit that an undoing left."""
    owed = int(kept.get(OWED_BACK, b"0"))
    return max(0, amount - owed), max(0, owed - amount)


def undo(kept: Mapping[bytes, bytes], amount: int, converter: Converter) -> tuple[int, int]:
    """Whole units to take back, and what is owed back after it."""
    total = amount + int(kept.get(OWED_BACK, b"0"))
    units, whole = converter.whole_units(total)
    return units, total - whole


def tidy(kept: Mapping[bytes, bytes], scanned: int) -> list[tuple[bytes, bytes]]:
    """What to keep no longer now that blocks were read up to here: nothing, or records and a later `since`."""
    first = since(kept)
    if first is None or scanned - first < 2 * KEPT_BLOCKS:
        return []
    after = scanned - KEPT_BLOCKS
    old = [(one.key, b"") for one in records(kept) if one.transfer.block < after]
    return [(SINCE, str(after).encode()), *old]
