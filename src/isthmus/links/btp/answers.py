"""Answers that outlive a connection (BTP-18): those that fell due while none was up, and those that may be lost.

A Response that falls due while the link is down goes out on the account's next connection, under its old request id.
A Fulfill that was written shortly before a connection broke may never have arrived: to a peer that tells sessions
apart it goes out again, since a repetition costs nothing and a lost Fulfill costs money. To others it doesn't: a
process that has started anew may use the old request ids for new requests, and would take it for their answer.
"""

from collections import deque
from typing import Final, TypeAlias, final

from isthmus.connector.events import Outbound

# Fulfills are worth money, so their bound is in bytes, and far above what an account may have in flight: 64 MB are
# more than 100,000 of the usual size. A peer that makes them huge, and goes away, gets no more memory than that.
DUE_BYTES_MAX: Final = 64 * 1024 * 1024
# What a kept answer costs besides its packet.
_OVERHEAD_BYTES: Final = 400
# Rejects are replaced by the peer's own expiry.
REJECTS_MAX: Final = 1_024
# Fulfills on their way when a connection breaks: those of some ten milliseconds at full speed, or of a peer that
# stopped reading.
WRITTEN_MAX: Final = 16_384
WRITTEN_BYTES_MAX: Final = 16 * 1024 * 1024
# How long a Prepare may be held: after that the peer has ended the leg, and the answer is useless.
KEEP_MS: Final = 600_000
# A connection whose peer doesn't answer pings is given up sooner: what was written before this has arrived.
WRITTEN_MS: Final = 35_000

_FULFILL: Final = 13

# (number in the order of keeping, monotonic ms, answer)
_Due: TypeAlias = tuple[int, int, Outbound]


@final
class Answers:
    """The answers of one account that may be needed again."""

    def __init__(
        self,
        *,
        due_bytes_max: int = DUE_BYTES_MAX,
        rejects_max: int = REJECTS_MAX,
        written_max: int = WRITTEN_MAX,
        written_bytes_max: int = WRITTEN_BYTES_MAX,
    ) -> None:
        self._due_bytes_max: Final = due_bytes_max
        self._rejects_max: Final = rejects_max
        self._written_max: Final = written_max
        self._written_bytes_max: Final = written_bytes_max
        self._fulfills: deque[_Due] = deque()
        self._rejects: deque[_Due] = deque()
        self._number = 0
        self._due_bytes = 0
        self._written: deque[tuple[int, list[Outbound], int]] = deque()
        self._written_count = 0
        self._written_bytes = 0

    def __len__(self) -> int:
        """How many wait for a connection."""
        return len(self._fulfills) + len(self._rejects)

    def keep(self, answer: Outbound, now: int) -> None:
        """Put by an answer that no connection can take. At the bound the oldest goes, Rejects before Fulfills."""
        self._number += 1
        due = (self._number, now, answer)
        self._due_bytes += len(answer.packet) + _OVERHEAD_BYTES
        if answer.packet[0] == _FULFILL:
            self._fulfills.append(due)
        else:
            self._rejects.append(due)
            if len(self._rejects) > self._rejects_max:
                self._drop(self._rejects)
        while self._due_bytes > self._due_bytes_max:
            self._drop(self._rejects or self._fulfills)

    def _drop(self, kept: deque[_Due]) -> None:
        self._due_bytes -= len(kept.popleft()[2].packet) + _OVERHEAD_BYTES

    def written(self, frames: list[Outbound], now: int, size_bytes: int = 0) -> None:
        """These were handed to a connection. Cheap: the batch is kept as it is, and sorted out when it is needed."""
        self._written.append((now, frames, size_bytes))
        self._written_count += len(frames)
        self._written_bytes += size_bytes
        while (self._written_count > self._written_max or self._written_bytes > self._written_bytes_max) and len(
            self._written
        ) > 1:
            _, oldest, oldest_bytes = self._written.popleft()
            self._written_count -= len(oldest)
            self._written_bytes -= oldest_bytes

    def take(self, now: int, *, knows_sessions: bool) -> list[Outbound]:
        """What to send first on a new connection, the oldest first; nothing is kept after this."""
        again = [
            frame
            for at, frames, _ in self._written
            if knows_sessions and at > now - WRITTEN_MS
            for frame in frames[-self._written_max :]
            if frame.packet[0] == _FULFILL
        ]
        due = [answer for _, at, answer in sorted((*self._fulfills, *self._rejects), key=_number) if at > now - KEEP_MS]
        for kept in (self._written, self._fulfills, self._rejects):
            kept.clear()
        self._written_count = self._written_bytes = self._due_bytes = 0
        return again + due


def _number(due: _Due) -> int:
    return due[0]
