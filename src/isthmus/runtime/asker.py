"""Who asked an engine something for a peer, and waits for its answer."""

import asyncio
from collections.abc import Callable
from typing import Final, TypeAlias, final

from isthmus.settlement.port import MessageRefusedError

Answer: TypeAlias = bytes | MessageRefusedError


@final
class Asker:
    """It hears one answer, or after its time that there is none."""

    __slots__ = ("_tell", "_timer")

    def __init__(self, tell: Callable[[Answer], None], wait_ms: int) -> None:
        self._tell: Callable[[Answer], None] | None = tell
        late = MessageRefusedError("R00", "the settlement engine doesn't answer in time")
        self._timer: Final = asyncio.get_running_loop().call_later(wait_ms / 1000, self.tell, late)

    def tell(self, answer: Answer) -> None:
        tell, self._tell = self._tell, None
        if tell is not None:
            self._timer.cancel()
            tell(answer)
