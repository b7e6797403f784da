"""Plain transfers to us: whose they are, which are credited, and which the chain took back. Pure.

What comes in a block is credited once: its record is kept by the step that credits it, for as long as blocks may be
read again; older blocks than `since` are never read again for this account. One record for all of a block: however
many transfers a peer makes, there are no more records than blocks.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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


@final
@dataclass(slots=True, frozen=True, kw_only=True)
class Arrival:
    """What one sender's transfers brought in one block: the first of them, with the amount of all."""

    transfer: Transfer
    block_hash: bytes

    @property
    def key(self) -> bytes:
        return RECORD + f"{self.transfer.block}/{self.block_hash.hex()}/{self.transfer.sender}".encode()

    def encode(self) -> bytes:
        one = self.transfer
        fields = [one.sender, str(one.amount), one.transaction.hex(), one.index, one.block, self.block_hash.hex()]
        return json.dumps(fields).encode()

    @classmethod
    def decode(cls, data: bytes) -> "Arrival":
        sender, amount, transaction, index, block, block_hash = json.loads(data)
        transfer = Transfer(sender, int(amount), bytes.fromhex(transaction), index, block)
        return cls(transfer=transfer, block_hash=bytes.fromhex(block_hash))


def _key_of_one(transfer: Transfer) -> bytes:
    """As versions before kept each transfer by itself."""
    return RECORD + transfer.transaction.hex().encode() + f"/{transfer.block}/{transfer.index}".encode()


def records(kept: Mapping[bytes, bytes]) -> list[tuple[bytes, Arrival]]:
    """With the keys under which they are kept."""
    return [(key, Arrival.decode(kept[key])) for key in sorted(kept) if key.startswith(RECORD)]


def since(kept: Mapping[bytes, bytes]) -> int | None:
    """The first block whose transfers count for this account; None if that was not decided yet."""
    found = kept.get(SINCE)
    return None if found is None else int(found)


def is_credited(kept: Mapping[bytes, bytes], one: Arrival) -> bool:
    """Whether it is among what is kept of an account."""
    return one.key in kept or _key_of_one(one.transfer) in kept


def new(kept: Mapping[bytes, bytes], found: Sequence[Arrival]) -> list[Arrival]:
    """Of one sender's transfers what wasn't credited yet, block by block."""
    first = since(kept)
    sums: dict[bytes, Arrival] = {}
    for one in found:
        transfer = one.transfer
        if first is None or transfer.block < first or is_credited(kept, one):
            continue
        before = sums.get(one.key)
        if before is not None:
            amount = before.transfer.amount + transfer.amount
            one = replace(before, transfer=replace(before.transfer, amount=amount))
        sums[one.key] = one
    return list(sums.values())


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
    old = [(key, b"") for key, one in records(kept) if one.transfer.block < after]
    return [(SINCE, str(after).encode()), *old]
