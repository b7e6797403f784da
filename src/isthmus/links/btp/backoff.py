"""How long to wait before dialling again: growing, jittered, bounded. Pure; the shell brings the randomness."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import final


@final
@dataclass(slots=True)
class Backoff:
    """Full jitter under an exponential ceiling, so that a thousand clients don't come back in one second.

    `random` gives [0, 1). A refusal waits its full time at once: the same credentials won't do better (BTP-14).
    """

    random: Callable[[], float]
    first_ms: int = 200
    # Packets live for half a minute. A peer that comes back while some of them are open must be found while their
    # outcomes can still be told, however often it fell before.
    max_ms: int = 2_000
    refused_ms: int = 30_000
    # A connection that lasted this long was a good one. One that is replaced at once, by another process with the
    # same token, was not: without this the two would throw each other out several times a second.
    good_after_ms: int = 10_000
    failures: int = 0

    def after(self, *, lasted_ms: int, refused: bool) -> int:
        """The wait in ms after a connection (or an attempt, which lasted 0) ended."""
        if refused:
            self.failures += 1
            return self.refused_ms
        if lasted_ms >= self.good_after_ms:
            self.failures = 0
        ceiling = min(self.max_ms, self.first_ms << min(self.failures, 20))
        self.failures += 1
        return ceiling // 2 + int(self.random() * (ceiling - ceiling // 2))
