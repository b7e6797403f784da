"""What engines keep, decoded once: each claim changes a record, and the next one finds it as it was made."""

from collections.abc import Callable
from typing import Final, Generic, TypeVar, final

from isthmus.connector.events import AccountId

RECORDS_MAX: Final = 1_024  # beyond it all are decoded anew
T = TypeVar("T")


@final
class Decoded(Generic[T]):
    """Records by account and key. They never change: one that is kept anew is another."""

    def __init__(self, decode: Callable[[bytes], T]) -> None:
        self._decode: Final = decode
        self._known: Final[dict[tuple[AccountId, bytes], tuple[bytes, T]]] = {}

    def of(self, account: AccountId, key: bytes, kept: bytes) -> T:
        """What these bytes say. They are what the journal has: others than before if anybody else kept them."""
        known = self._known.get((account, key))
        if known is not None and known[0] == kept:
            return known[1]
        return self.put(account, key, kept, self._decode(kept))

    def put(self, account: AccountId, key: bytes, kept: bytes, record: T) -> T:
        """The bytes say this."""
        if len(self._known) >= RECORDS_MAX:
            self._known.clear()
        self._known[account, key] = (kept, record)
        return record
