"""Why a ledger refuses transactions: told once, until it does no more. Pure."""

from collections.abc import Iterable
from typing import Final, final


@final
class Refusals:
    """Of one sender, by the keys under which its transactions are kept; as many as are under way."""

    def __init__(self) -> None:
        self._said: Final[dict[bytes, str]] = {}

    def is_new(self, key: bytes, reason: str) -> bool:
        """Whether this is to be told: nothing, or something else, was before."""
        was = self._said.get(key)
        self._said[key] = reason
        return was != reason

    def end(self, key: bytes, pending: Iterable[bytes]) -> bool:
        """This one isn't refused any more. True if it was, and none of these is."""
        return self._said.pop(key, None) is not None and not any(each in self._said for each in pending)
