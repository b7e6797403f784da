"""What one account's HTTP link is configured with, and what passes between server and link."""

from dataclasses import dataclass
from enum import Enum
from typing import Final

from isthmus.errors import ConfigError
from isthmus.links.http.urls import check_url

# Between two isthmus: the session and request id behind a Request-Id. Others ignore it.
LEG_HEADER: Final = "Isthmus-Leg"
OCTETS: Final = "application/octet-stream"
# ilp-plugin-http sends a type of its own, and takes ours.
PACKET_TYPES: Final = (OCTETS, "application/ilp+octet-stream")
# Prepares that wait for a connection, beyond it T03. The owner is told `blocked` at a quarter and `writable` again at
# a sixteenth.
QUEUE_MAX: Final = 4_096
CONCURRENCY_MAX: Final = 256
# How much longer than the expiry a synchronous response is waited for (HTTP-14), and held back by us: the owner's own
# Reject at the expiry comes first.
GRACE_MS: Final = 2_000


class OutgoingMode(Enum):
    """How the peer answers our Prepares: in the response, or by a POST to our callback URL."""

    SYNC = "sync"
    ASYNC = "async"


class IncomingMode(Enum):
    """How we answer the peer's: `ANY` goes by the headers of each request (`Prefer: respond-async`, Callback-Url)."""

    ANY = "any"
    SYNC = "sync"
    ASYNC = "async"


@dataclass(slots=True, frozen=True, kw_only=True)
class HttpSettings:
    """One account's link, as configured."""

    url: str | None  # where our Prepares go; None for a peer that only sends
    outgoing: OutgoingMode = OutgoingMode.SYNC
    incoming: IncomingMode = IncomingMode.ANY
    callback_url: str | None = None  # where the peer shall POST replies to us; None if agreed out of band
    peer_callback_url: str | None = None  # where our replies go without a Callback-Url; also the host that one may name
    concurrency_max: int = CONCURRENCY_MAX  # POSTs of Prepares at a time, each on a connection of its own
    queue_max: int = QUEUE_MAX
    grace_ms: int = GRACE_MS
    allow_insecure: bool = False

    def check(self) -> None:
        """Raise ConfigError if these settings can't work."""
        for key, url in (
            ("url", self.url),
            ("callback_url", self.callback_url),
            ("peer_callback_url", self.peer_callback_url),
        ):
            if url is not None:
                check_url(key, url, allow_insecure=self.allow_insecure)
        if self.incoming is IncomingMode.ASYNC and self.url is None and self.peer_callback_url is None:
            raise ConfigError(
                "incoming", "asynchronous replies need somewhere to go", "Set peer_callback_url, or incoming = 'sync'."
            )
        if self.concurrency_max < 1:
            raise ConfigError("concurrency_max", "no request could be sent", "Set at least 1.")


@dataclass(slots=True)
class Post:
    """An authenticated POST from the peer, as the server read it."""

    packet: bytes
    request_id: bytes | None  # 16 bytes; None if the header is absent
    respond_async: bool = False
    callback_url: str | None = None
    leg: tuple[bytes, int] | None = None  # session and request id, if the peer names them


@dataclass(slots=True)
class Answer:
    """What to respond: a packet or nothing below 400, a problem (RFC 9457) from there on."""

    status: int
    packet: bytes = b""
    problem: str = ""
    preference_applied: bool = False
