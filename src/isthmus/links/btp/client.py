"""The dialling side of BTP: one account, one URL, dialled again whenever the connection ends."""

import asyncio
import os
import random
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Final

from isthmus.connector.events import SESSION_BYTES, AccountId, Log, Now
from isthmus.errors import ConfigError, LinkError
from isthmus.links.btp.backoff import Backoff
from isthmus.links.btp.channel import Channel
from isthmus.links.btp.link import BtpLink, Subprotocol, no_log
from isthmus.links.btp.orders import Ready
from isthmus.links.btp.session import Credentials, Session, Timing
from isthmus.links.btp.url import parse_btp_url
from isthmus.links.btp.websocket import HANDSHAKE_SECONDS, NORMAL, Bounds, Library, choose_library
from isthmus.links.port import LinkOwner

# Name lookup, TCP, TLS and the upgrade together.
CONNECT_SECONDS: Final = 2 * HANDSHAKE_SECONDS


class BtpClient(BtpLink):
    """A link that dials.

    `url` is `btp+wss://user:token@host/path`; `token` and `username` given apart win over those in it. Certificates
    are verified, with the system's authorities or those of `ca_file`; an `ssl_context` replaces both.
    """

    def __init__(
        self,
        account: AccountId,
        url: str,
        owner: LinkOwner,
        *,
        session: bytes,
        token: str | None = None,
        username: str | None = None,
        ca_file: str | Path | None = None,
        ssl_context: ssl.SSLContext | None = None,
        allow_insecure: bool = False,
        backoff: Backoff | None = None,
        send_bounds: Bounds = Bounds(),  # noqa: B008 - frozen
        timing: Timing = Timing(),  # noqa: B008 - frozen
        entropy: Callable[[int], bytes] = os.urandom,
        library: Library | None = None,
        on_log: Callable[[Log], None] = no_log,
        subprotocols: dict[str, Subprotocol] | None = None,
    ) -> None:
        super().__init__(account, owner, session=session, on_log=on_log, subprotocols=subprotocols)
        self._url: Final = parse_btp_url(url, allow_insecure=allow_insecure)
        secret = token if token is not None else self._url.token
        if secret is None:
            raise ConfigError(f"{account}: token", "missing", "Write it into the URL, or give it apart.")
        self._credentials: Final = Credentials(secret, username if username is not None else self._url.username)
        self._tls: Final = self._context(ssl_context, ca_file) if self._url.is_secure else None
        self._backoff: Final = backoff if backoff is not None else Backoff(random.SystemRandom().random)
        self._send_bounds: Final = send_bounds
        self._timing: Final = timing
        self._entropy: Final = entropy
        self._library: Final = library if library is not None else choose_library()
        self._dialling: asyncio.Task[None] | None = None
        self._attempt: Channel | None = None
        self._up_since: int | None = None
        self._is_closing = False
        self._changed: Final = asyncio.Event()
        # Why the last connection or attempt ended; None before the first.
        self.last_failure: str | None = None

    @staticmethod
    def _context(context: ssl.SSLContext | None, ca_file: str | Path | None) -> ssl.SSLContext:
        if context is not None:
            return context
        try:
            return ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
        except OSError as error:
            raise ConfigError("ca_file", str(error), "Give a PEM file with certificates.") from None

    async def start(self) -> None:
        """Begin to dial, in the background."""
        if self._dialling is None:
            self._dialling = asyncio.create_task(self._dial_forever())

    async def wait_up(self, timeout_ms: int) -> None:
        """Wait for the link; LinkError with the last reason if it is not up in time, or was refused."""
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                while not self.is_up:
                    self._changed.clear()
                    await self._changed.wait()
                    if self._attempt is not None and self._attempt.refused:
                        raise LinkError(self.last_failure or "refused")
        except TimeoutError:
            raise LinkError(self.last_failure or f"no connection to {self._url} in time") from None

    async def close(self) -> None:
        self._is_closing = True
        if self._attempt is not None:
            self._attempt.close(NORMAL, "closing")
            await self._attempt.flushed()
        if self._dialling is not None:
            self._dialling.cancel()
            await asyncio.gather(self._dialling, return_exceptions=True)

    def ready(self, channel: Channel, order: Ready) -> None:
        self._up_since = self._owner.mono_ms()
        super().ready(channel, order)
        self._changed.set()

    async def _dial_forever(self) -> None:
        while not self._is_closing:
            channel = Channel.of(self, self._owner, self._session)
            self._attempt = channel
            self._up_since = None
            await self._dial(channel)
            self.last_failure = channel.why
            self._changed.set()
            was_up, lasted_ms = self._lasted()
            wait_ms = self._backoff.after(lasted_ms=lasted_ms, refused=channel.refused)
            if not was_up:
                self._log("warning", "btp.no_connection", why=channel.why, again_in_ms=wait_ms)
            await asyncio.sleep(wait_ms / 1000)

    def _lasted(self) -> tuple[bool, int]:
        if self._up_since is None:
            return False, 0
        return True, self._owner.mono_ms() - self._up_since

    async def _dial(self, channel: Channel) -> None:
        """One connection from the first packet to the last; `channel` tells how it ended."""
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await self._library.connect(
                    self._url.websocket_url,
                    channel,
                    tls=self._tls,
                    entropy=self._entropy,
                    bounds=self._send_bounds,
                )
        except TimeoutError:
            channel.close(NORMAL, f"no connection to {self._url} in time")
        except LinkError as error:
            channel.close(NORMAL, f"can't connect to {self._url}: {error}")
        except asyncio.CancelledError:
            channel.close(NORMAL, "closing")
            raise
        except Exception as error:  # noqa: BLE001 - as a host that is no name; the task must not end unseen
            channel.close(NORMAL, f"can't connect to {self._url}: {type(error).__name__}: {error}")
        await channel.over

    def _session(self, now: Now) -> Session:
        return Session.client(
            self.account,
            self._credentials,
            own_session=self.session,
            fallback_session=self._entropy(SESSION_BYTES),
            now=now,
            subprotocols=tuple(self.subprotocols),
            timing=self._timing,
        )
