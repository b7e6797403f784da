"""The bytes of one stream, both ways: cut into frames, put together again, within what each side allows.

RFC 0029 §4.4.3, §4.4.4, §5.3.11.
"""

from bisect import bisect_left
from collections import deque
from typing import Final, final

from isthmus.stream.packet import FLOW_CONTROL_ERROR, PROTOCOL_VIOLATION

FITS: Final = 0
TOO_MANY: Final = -1  # no violation: the fragment may come again when gaps are filled

# Beyond gaps, per stream: each costs far more memory than a byte or two, which is all that it may bring.
FRAGMENTS_MAX: Final = 512


@final
class IncomingBytes:
    """Puts arriving fragments in order. Never holds more than the window, nor more than so many fragments."""

    __slots__ = (
        "_fragments",
        "_ready",
        "_starts",
        "_window",
        "advertised",
        "contiguous",
        "highest",
        "read",
    )

    def __init__(self, window: int) -> None:
        self._window: Final = window
        self._fragments: dict[int, bytes] = {}  # beyond a gap
        self._starts: list[int] = []  # their offsets, sorted
        self._ready = bytearray()
        self.contiguous = 0  # all bytes below this offset have arrived
        self.highest = 0  # the end of the furthest fragment
        self.read = 0  # the application has taken the bytes below it
        self.advertised = window  # the peer may send up to here; never lowered (STREAM-21)

    def check(self, offset: int, size: int) -> int:
        """FITS, TOO_MANY, or the error code that the fragment deserves."""
        end = offset + size
        if end > self.advertised:
            return FLOW_CONTROL_ERROR
        if size == 0 or end <= self.contiguous:
            return FITS  # sent again
        if offset < self.contiguous:
            return PROTOCOL_VIOLATION
        at = bisect_left(self._starts, offset)
        if at < len(self._starts):
            start = self._starts[at]
            if start == offset and len(self._fragments[start]) == size:
                return FITS  # sent again
            if start < end:
                return PROTOCOL_VIOLATION
        if at > 0:
            before = self._starts[at - 1]
            if before + len(self._fragments[before]) > offset:
                return PROTOCOL_VIOLATION  # STREAM-22: fragments never overlap
        return TOO_MANY if offset > self.contiguous and len(self._starts) >= FRAGMENTS_MAX else FITS

    def check_all(self, parts: list[tuple[int, int]]) -> int:
        """The same for all (offset, size) of one packet, sorted: they must fit together as well."""
        taken = 0
        for offset, size in parts:
            code = self.check(offset, size)
            if code == FITS and offset < taken and offset + size > self.contiguous:
                code = PROTOCOL_VIOLATION
            if code != FITS:
                return code
            taken = max(taken, offset + size)
        return TOO_MANY if len(parts) > 1 and len(self._starts) + len(parts) > FRAGMENTS_MAX else FITS

    def push(self, offset: int, data: bytes) -> bool:
        """Take a checked fragment. True if there are new bytes to read."""
        end = offset + len(data)
        if not data or end <= self.contiguous or offset in self._fragments:
            return False
        self.highest = max(self.highest, end)
        if offset > self.contiguous:
            self._fragments[offset] = data
            self._starts.insert(bisect_left(self._starts, offset), offset)
            return False
        self._append(data)
        while self._starts and self._starts[0] == self.contiguous:
            self._append(self._fragments.pop(self._starts.pop(0)))
        return True

    def _append(self, data: bytes) -> None:
        self._ready += data
        self.contiguous += len(data)

    @property
    def readable(self) -> int:
        return len(self._ready)

    def take(self, size_max: int) -> bytes:
        """Give the application up to `size_max` bytes in order."""
        octets = bytes(self._ready[:size_max])
        del self._ready[:size_max]
        self.read += len(octets)
        return octets

    def advance(self) -> bool:
        """Raise the advertised offset after reads. True if it grew by enough to tell the peer at once."""
        new = self.read + self._window
        if new - self.advertised < self._window // 2:
            return False
        self.advertised = new
        return True


@final
class OutgoingBytes:
    """Cuts written bytes into frames, and keeps those that must be sent again: the same offset, the same bytes."""

    __slots__ = ("_again", "_pending", "_pending_bytes", "dropped", "in_flight", "offset", "peer_max")

    def __init__(self, peer_max: int) -> None:
        self._pending: deque[bytes] = deque()
        self._pending_bytes = 0
        self._again: deque[tuple[int, bytes]] = deque()
        self.dropped = False  # the stream was broken off
        self.offset = 0  # of the next new byte
        self.in_flight = 0  # frames whose fate is open
        self.peer_max = peer_max

    @property
    def wanted(self) -> int:
        """Up to which offset there are bytes."""
        return self.offset + self._pending_bytes

    @property
    def waiting(self) -> int:
        """Bytes that were written and not yet sent once."""
        return self._pending_bytes

    @property
    def finished(self) -> bool:
        """All that was written has been acknowledged."""
        return not self._pending_bytes and not self._again and not self.in_flight

    @property
    def blocked(self) -> bool:
        """There are bytes, and the peer's limit for this stream keeps them back."""
        return self._pending_bytes > 0 and self.offset >= self.peer_max and not self._again

    def write(self, data: bytes) -> None:
        if data and not self.dropped:
            self._pending.append(data)
            self._pending_bytes += len(data)

    def drop(self) -> None:
        """Forget what was not sent: the stream was broken off."""
        self._pending.clear()
        self._again.clear()
        self._pending_bytes = 0
        self.dropped = True

    def can_send(self, connection_left: int) -> bool:
        if self._again:
            return True
        return self._pending_bytes > 0 and self.offset < self.peer_max and connection_left > 0

    def next_chunk(self, size_max: int, connection_left: int) -> tuple[int, bytes]:
        """The next frame's offset and bytes. Call only if `can_send`."""
        self.in_flight += 1
        if self._again:
            return self._again.popleft()
        left = min(size_max, self.peer_max - self.offset, connection_left)
        parts: list[bytes] = []
        while self._pending and left > 0:
            first = self._pending[0]
            if len(first) > left:
                self._pending[0] = first[left:]
                first = first[:left]
            else:
                self._pending.popleft()
            parts.append(first)
            left -= len(first)
        octets = b"".join(parts)
        offset = self.offset
        self.offset += len(octets)
        self._pending_bytes -= len(octets)
        return offset, octets

    def acknowledged(self) -> None:
        self.in_flight -= 1

    def lost(self, offset: int, data: bytes) -> None:
        self.in_flight -= 1
        if not self.dropped:
            self._again.append((offset, data))
