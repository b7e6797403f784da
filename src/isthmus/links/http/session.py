"""What is known of each ILP-over-HTTP request, both ways (RFC 0035): who was asked, who has answered, when to retry.

Pure: the shell (`client.py`, `server.py`) does the HTTP, tells what came of it, and passes in the time (monotonic ms).
The packets themselves are judged by the kernel; this module only pairs replies with requests.
"""

import re
from dataclasses import dataclass
from enum import Enum, auto
from hashlib import sha256
from heapq import heappop, heappush
from typing import Final, TypeAlias, final

from isthmus.connector.events import REQUEST_ID_MAX
from isthmus.ilp.packet import FULFILL

# A peer's Prepares that we remember until they expire. Beyond it new ones get T03 (or 503): nothing is forgotten early,
# since a forgotten Request-Id would be processed twice (HTTP-7).
KNOWN_MAX: Final = 131_072
# Answers kept so that a repeated request can be answered again. Beyond it the oldest are dropped, their ids stay known.
KEPT_REPLY_BYTES_MAX: Final = 4 * 1024 * 1024
# How long after its expiry a request of ours is remembered, so that a late reply can be recorded (P-12).
LATE_MS: Final = 10_000
# Our clock and the kernel's round the same expiry differently by at most this: inside it the kernel has the say.
SKEW_MS: Final = 2
# Delays between attempts to deliver one reply: doubling from the first to the last, and never more than a quarter of
# the time that is left, so that several attempts fit in before the expiry (HTTP-6).
RETRY_MS_FIRST: Final = 250
RETRY_MS_MAX: Final = 4_000
RETRY_MS_MIN: Final = 20

_FULFILL_BYTE: Final = bytes((FULFILL,))
_LEG: Final = re.compile(r"([0-9a-f]{32})-([1-9][0-9]{0,9})")
_UUID: Final = re.compile(r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}")


def request_key(session: bytes, request_id: int) -> bytes:
    """The 16 bytes of the Request-Id (UUIDv4) that one of our Prepares has on the wire.

    Derived, so that a replayed journal knows it without having stored it. Sessions are random and secret, so the
    result is as unguessable as a drawn UUID.
    """
    digest = sha256(session + request_id.to_bytes(4, "big")).digest()
    return digest[:6] + bytes([digest[6] & 0x0F | 0x40, digest[7], digest[8] & 0x3F | 0x80]) + digest[9:16]


def format_leg(session: bytes, request_id: int) -> str | None:
    """The `Isthmus-Leg` header: what a Request-Id was derived from, so that both ends name the leg alike.

    None for request 0, which no kernel uses: it stands for a Prepare that is known by its Request-Id alone.
    """
    if request_id == 0:
        return None
    return f"{session.hex()}-{request_id}"


def parse_leg(text: str, key: bytes | None) -> tuple[bytes, int] | None:
    """Session and request id of an `Isthmus-Leg` header; None if it isn't one, or not that of this Request-Id."""
    found = _LEG.fullmatch(text)
    if found is None or int(found[2]) > REQUEST_ID_MAX:
        return None
    session, request_id = bytes.fromhex(found[1]), int(found[2])
    return (session, request_id) if request_key(session, request_id) == key else None


def format_uuid(key: bytes) -> str:
    text = key.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def parse_uuid(text: str) -> bytes | None:
    """The 16 bytes of a Request-Id, None if it isn't a UUID. Versions other than 4 pass: nothing hangs on it."""
    return bytes.fromhex(text.replace("-", "")) if _UUID.fullmatch(text) else None


# --- our Prepares -----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Deliver:
    """A reply to a Prepare of ours, for the owner. `in_time` is False once the request's expiry has passed."""

    session: bytes
    request_id: int
    packet: bytes
    in_time: bool


@dataclass(slots=True)
class NotTaken:
    """The peer certainly did not take our Prepare (HTTP-8)."""

    request_id: int
    code: str
    message: str


OutgoingEffect: TypeAlias = Deliver | NotTaken


@dataclass(slots=True)
class _Asked:
    session: bytes
    request_id: int
    ends_at: int


@final
class OutgoingRequests:
    """Our Prepares that have no reply yet. The first reply per Request-Id counts, however it comes (HTTP-7).

    A request leaves the table with its first outcome, so what comes afterwards meets an unknown id. One that stays
    without outcome is left to the kernel, which rejects it at its expiry.
    """

    def __init__(self, *, asynchronous: bool) -> None:
        self._asynchronous = asynchronous
        self._asked: dict[bytes, _Asked] = {}
        self._ends: list[tuple[int, bytes]] = []

    def __len__(self) -> int:
        return len(self._asked)

    def open(self, session: bytes, request_id: int, ends_at: int) -> bytes:
        """A Prepare is about to be sent (or was, before a restart); returns the key of its Request-Id."""
        key = request_key(session, request_id)
        self._asked[key] = _Asked(session, request_id, ends_at)
        heappush(self._ends, (ends_at + LATE_MS, key))
        return key

    def responded(self, key: bytes, status: int, reply: bytes | None, now: int) -> OutgoingEffect | None:
        """The peer's HTTP response to our POST; `reply` is the Fulfill or Reject in its body, if there is a valid one.

        None means that the Prepare has no outcome yet: a reply may still be posted to us, or the expiry decides.
        """
        asked = self._asked.get(key)
        if asked is None:
            return None  # answered by a callback that overtook this response
        if 200 <= status < 300:
            # Not only the agreed status: a 2xx says that the peer took the Prepare, so it can't be "not taken".
            return None if reply is None else self._deliver(key, asked, reply, now)
        if 400 <= status < 500:
            return self._not_taken(key, asked, code_for_status(status), f"peer answered HTTP {status}")
        if self._asynchronous and status not in (502, 504):
            # 502 and 504 are a proxy's words: the peer behind it may have taken the Prepare all the same.
            return self._not_taken(key, asked, "T00", f"peer answered HTTP {status}")
        return None

    def not_connected(self, key: bytes, why: str) -> NotTaken | None:
        """No connection came about, so no byte of the Prepare left us."""
        asked = self._asked.get(key)
        return None if asked is None else self._not_taken(key, asked, "T01", why)

    def replied(self, key: bytes, packet: bytes, now: int) -> tuple[int, Deliver | None]:
        """A Fulfill or Reject POSTed to us, and the HTTP status that it gets (HTTP-4, HTTP-5).

        A late one is refused, as the peer has to know; the owner gets it too, for the record.
        """
        asked = self._asked.get(key)
        if asked is None:
            return 400, None
        deliver = self._deliver(key, asked, packet, now)
        return (200 if deliver.in_time else 400), deliver

    def sweep(self, now: int) -> None:
        """Forget what ended long enough ago."""
        ends = self._ends
        while ends and ends[0][0] <= now:
            key = heappop(ends)[1]
            asked = self._asked.get(key)
            if asked is not None and asked.ends_at + LATE_MS <= now:
                del self._asked[key]

    def _deliver(self, key: bytes, asked: _Asked, packet: bytes, now: int) -> Deliver:
        del self._asked[key]
        return Deliver(asked.session, asked.request_id, packet, now < asked.ends_at + SKEW_MS)

    def _not_taken(self, key: bytes, asked: _Asked, code: str, message: str) -> NotTaken:
        del self._asked[key]
        return NotTaken(asked.request_id, code, message)


def code_for_status(status: int) -> str:
    """The ILP code for a 4xx (RFC 0035, "Error Handling"): final if the packet is at fault, else temporary."""
    if status in (401, 403, 404, 405, 407, 408, 421):
        return "T01"  # the link is set up wrongly: another packet would fare no better, another route might
    if status in (425, 429):
        return "T03"
    return "F00"


# --- the peer's Prepares ----------------------------------------------------------------------------------------------


class Take(Enum):
    """What to do with a Prepare that came in."""

    NEW = auto()  # hand it to the owner
    REPEATED = auto()  # known and open: wait for the same reply
    ANSWERED = auto()  # known and answered: give the same reply again, if it is kept
    CONFLICT = auto()  # its Request-Id belongs to another packet
    FULL = auto()  # no room to remember it


@dataclass(slots=True)
class Known:
    """A Prepare of the peer. `callback` is where its reply is POSTed; None in synchronous mode.

    `reply` is kept for a while; whether it was a Fulfill, as long as the Prepare is known.
    """

    fingerprint: bytes
    ends_at: int
    callback: str | None
    answered: bool = False
    fulfilled: bool = False
    reply: bytes | None = None


@final
class IncomingRequests:
    """The peer's Prepares until they expire, so that none is processed twice (HTTP-7)."""

    def __init__(self, *, known_max: int = KNOWN_MAX, kept_reply_bytes_max: int = KEPT_REPLY_BYTES_MAX) -> None:
        self._known_max = known_max
        self._kept_bytes_max = kept_reply_bytes_max
        self._known: dict[bytes, Known] = {}
        self._ends: list[tuple[int, bytes]] = []
        self._kept: dict[bytes, int] = {}  # insertion order is age
        self._kept_bytes = 0

    def __len__(self) -> int:
        return len(self._known)

    def is_known(self, key: bytes) -> bool:
        return key in self._known

    def prepare(self, key: bytes, packet: bytes, ends_at: int, callback: str | None) -> tuple[Take, Known | None]:
        """A Prepare came in under the Request-Id `key`."""
        fingerprint = sha256(packet).digest()
        known = self._known.get(key)
        if known is not None:
            if known.fingerprint != fingerprint:
                return Take.CONFLICT, None
            return (Take.ANSWERED if known.answered else Take.REPEATED), known
        if len(self._known) >= self._known_max:
            return Take.FULL, None
        known = Known(fingerprint, ends_at, callback)
        self._known[key] = known
        heappush(self._ends, (ends_at, key))
        return Take.NEW, known

    def reply(self, key: bytes, packet: bytes) -> Known | None:
        """Our reply to the Prepare `key`. None if it is unknown or has its reply already: the first one stands."""
        known = self._known.get(key)
        if known is None or known.answered:
            return None
        known.answered = True
        known.fulfilled = packet[:1] == _FULFILL_BYTE
        known.reply = packet
        self._kept[key] = len(packet)
        self._kept_bytes += len(packet)
        while self._kept_bytes > self._kept_bytes_max:
            self._drop_reply(next(iter(self._kept)))
        return known

    def forget(self, key: bytes) -> None:
        """The Prepare had no Request-Id of its own, so nobody can ask again."""
        if self._known.pop(key, None) is not None:
            self._drop_reply(key)

    def sweep(self, now: int) -> None:
        """Forget what has expired: a copy that comes later is refused by its expiry (R02)."""
        ends = self._ends
        while ends and ends[0][0] <= now:
            key = heappop(ends)[1]
            known = self._known.get(key)
            if known is not None and known.ends_at <= now:
                self.forget(key)

    def _drop_reply(self, key: bytes) -> None:
        self._kept_bytes -= self._kept.pop(key, 0)
        known = self._known.get(key)
        if known is not None:
            known.reply = None


@final
@dataclass(slots=True)
class ReplyDelivery:
    """One reply on its way to the peer's callback URL (RFC 0035, "Retry Behavior"; HTTP-6)."""

    key: bytes
    url: str
    packet: bytes
    ends_at: int  # the expiry of the peer's Prepare
    attempts: int = 0

    def result(self, status: int | None, now: int) -> int | None:
        """What one attempt brought (None: no response). Returns the ms until the next attempt, None to stop."""
        self.attempts += 1
        if status is not None and (200 <= status < 300 or 400 <= status < 500):
            return None
        left_ms = self.ends_at - now
        if left_ms <= RETRY_MS_MIN:
            return None
        doubled = RETRY_MS_FIRST << min(self.attempts - 1, 10)
        return max(RETRY_MS_MIN, min(RETRY_MS_MAX, doubled, left_ms // 4))
