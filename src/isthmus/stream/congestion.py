"""How many packets may be in flight: a window that grows with Fulfills and shrinks with T04, T05 and time-outs.

Slow start, then one more packet for each window that was fulfilled. Trouble halves the window once for all packets
that were in flight when it was noticed, and pauses sending; if nothing gets through then, single packets ask, after
pauses that double (P-10: a peer whose balance is full is not hammered).
"""

from typing import Final, final

WINDOW_START: Final = 10
PAUSE_MS_MIN: Final = 50
RATE_PAUSE_MS_MIN: Final = 250  # T05: packets per time, so only time helps
PAUSE_MS_MAX: Final = 5_000

# A round trip far above the best one seen means that our packets queue up somewhere: more of them won't help.
QUEUEING_FACTOR: Final = 8
QUEUEING_MS: Final = 200


@final
class Window:
    """The congestion window of one connection."""

    __slots__ = (
        "_before",
        "_fulfilled",
        "_maximum",
        "_pause_ms",
        "_since",
        "_threshold",
        "paused_until",
        "rtt_ms",
        "rtt_ms_min",
        "size",
    )

    def __init__(self, maximum: int) -> None:
        self._maximum = maximum
        self.size = min(WINDOW_START, maximum)
        self._threshold = maximum
        self._fulfilled = 0  # since the window last grew
        self._since = 0  # packets from this number on were sent after the last reduction
        self._before = 0  # and from this one on, after the one before it
        self._pause_ms = 0
        self.paused_until = 0
        self.rtt_ms = 0  # smoothed
        self.rtt_ms_min = 0

    def may_send(self, in_flight: int, now: int) -> bool:
        return in_flight < self.size and now >= self.paused_until

    def fulfilled(self, number: int, rtt_ms: int) -> None:
        """A packet got through."""
        if self.rtt_ms_min == 0 or rtt_ms < self.rtt_ms_min:
            self.rtt_ms_min = rtt_ms if rtt_ms > 0 else 1
        self.rtt_ms += (rtt_ms - self.rtt_ms) // 8 if self.rtt_ms else rtt_ms
        if number >= self._before:
            self._pause_ms = 0  # the path carries something since the last but one pause
        if self.size >= self._maximum or rtt_ms > self.rtt_ms_min * QUEUEING_FACTOR + QUEUEING_MS:
            return
        if self.size < self._threshold:
            self.size += 1
            return
        self._fulfilled += 1
        if self._fulfilled >= self.size:
            self._fulfilled = 0
            self.size += 1

    def trouble(self, number: int, next_number: int, now: int, pause_ms_min: int = PAUSE_MS_MIN) -> bool:
        """A packet met congestion. True if the window reacted: once for all packets that were in flight then."""
        if number < self._since:
            return False
        self._before = self._since
        self._since = next_number
        if self._pause_ms == 0:
            self.size = max(1, self.size // 2)
            self._threshold = self.size
        else:
            self.size = 1  # nothing got through since the last time: one packet asks, the others wait
        self._fulfilled = 0
        self._pause_ms = min(max(self._pause_ms * 2, pause_ms_min), PAUSE_MS_MAX)
        self.paused_until = now + self._pause_ms
        return True
