"""Answers that outlive a connection (BTP-18): those that fell due while none was up, and those that may be lost.

A Response that falls due while the link is down goes out on the account's next connection, under its old request id.
A Fulfill that was written shortly before a connection broke may never have arrived: to a peer that tells sessions
apart it goes out again, since a repetition costs nothing and a lost Fulfill costs money. To others it doesn't: a
process that has started anew may use the old request ids for new requests, and would take it for their answer.
"""

from collections import deque
from typing import Final, final

from isthmus.connector.events import Outbound

# As many as the Prepares that one account may have in flight with us; more can't all be worth something.
ANSWERS_MAX: Final = 1_024
# Longer than any Prepare is held: after that the peer has ended the leg, and the answer is useless.
KEEP_MS: Final = 35_000

_FULFILL: Final = 13


@final
class Answers:
    """The answers of one account that may be needed again."""

    def __init__(self, *, answers_max: int = ANSWERS_MAX, keep_ms: int = KEEP_MS) -> None:
        self._answers_max: Final = answers_max
        self._keep_ms: Final = keep_ms
        self._due: deque[tuple[int, Outbound]] = deque()
        self._written: deque[tuple[int, list[Outbound]]] = deque()
        self._written_count = 0

    def __len__(self) -> int:
        """How many wait for a connection."""
        return len(self._due)

    def keep(self, answer: Outbound, now: int) -> None:
        """Put by an answer that no connection can take. At the bound Rejects go first: an expiry replaces them."""
        self._due.append((now, answer))
        if len(self._due) > self._answers_max:
            for index, (_, kept) in enumerate(self._due):
                if kept.packet[0] != _FULFILL:
                    del self._due[index]
                    return
            self._due.popleft()

    def written(self, frames: list[Outbound], now: int) -> None:
        """These were handed to a connection. Cheap: the batch is kept as it is, and sorted out when it is needed."""
        self._written.append((now, frames))
        self._written_count += len(frames)
        while self._written_count > self._answers_max and len(self._written) > 1:
            self._written_count -= len(self._written.popleft()[1])

    def take(self, now: int, *, knows_sessions: bool) -> list[Outbound]:
        """What to send first on a new connection, the oldest first; nothing is kept after this."""
        since = now - self._keep_ms
        again = [
            frame
            for at, frames in self._written
            if knows_sessions and at > since
            for frame in frames[-self._answers_max :]
            if frame.packet[0] == _FULFILL
        ]
        due = [answer for at, answer in self._due if at > since]
        self._written.clear()
        self._written_count = 0
        self._due.clear()
        return again + due
