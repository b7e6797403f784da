"""An input as a program: what happens next, and with which details, is chosen by the fuzzer's bytes."""

from typing import Final, final


@final
class Input:
    """The fuzzer's bytes as a stream of choices; after their end it gives zeros, and `more` is False."""

    __slots__ = ("at", "data")

    def __init__(self, data: bytes) -> None:
        self.data: Final = data
        self.at = 0

    @property
    def more(self) -> bool:
        return self.at < len(self.data)

    def byte(self) -> int:
        at = self.at
        self.at = at + 1
        return self.data[at] if at < len(self.data) else 0

    def bytes(self, size: int) -> bytes:
        at = self.at
        self.at = at + size
        return self.data[at : at + size]
