"""Who sends much at once while others pay is read again a little later: a flood leaves the loop to the rest.

The kernel shares out its batches and refuses what is above an account's bounds, but reading, parsing and refusing cost
time too, and the loop can't be divided. The rule is pure: what each read brought and the time go in, a pause comes
out. Alone, an account is never paused. Only connections that can be left unread are: over HTTP each request waits for
its answer, and the number of requests is bounded.
"""

from typing import Final, final

from isthmus.connector.events import AccountId

# What a peer of good size has ready after a commit. A read that brings more is a flood, or the peer was kept waiting.
READ_PACKETS_MAX: Final = 128
# A packet costs 20 to 30 µs from its frame to its refusal, twice that if it is forwarded: an account that is held to
# this pace, 10,000 packets a second, leaves the loop half of its time.
PAUSE_US_PER_PACKET: Final = 100
# Well under the expiry margin: answers that come on the same connection wait as long.
PAUSE_MS_MAX: Final = 100
# Whether others pay is told by the reads since.
OTHERS_MS: Final = 100


@final
class Fairness:
    """Watches the reads that began with a Prepare."""

    def __init__(self) -> None:
        self._last: AccountId | None = None
        self._other: AccountId | None = None
        self._last_at = 0
        self._other_at = -(2**32)  # when somebody else than `_last` was last read

    def read(self, account: AccountId, packets: int, now: int) -> int:
        """How long (ms) to leave this account unread after a read of so many packets; 0 for not at all."""
        if account != self._last:
            self._other, self._other_at = self._last, self._last_at
            self._last = account
            if self._other is None:
                self._other_at = -(2**32)
        self._last_at = now
        if packets <= READ_PACKETS_MAX or now - self._other_at > OTHERS_MS:
            return 0
        return min(PAUSE_MS_MAX, packets * PAUSE_US_PER_PACKET // 1_000)
