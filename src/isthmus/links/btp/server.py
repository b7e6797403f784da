"""The listening side of BTP: one port for many accounts, told apart by their tokens."""

import asyncio
import hmac
import os
import socket
import ssl
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, final

from isthmus.connector.events import SESSION_BYTES, AccountId, Log, Now
from isthmus.errors import ConfigError, LinkError
from isthmus.links.btp.channel import Channel
from isthmus.links.btp.link import BtpLink, Subprotocol, no_log
from isthmus.links.btp.orders import Answered, Asked, Ready
from isthmus.links.btp.session import Admission, Refusal, Session, Timing
from isthmus.links.btp.websocket import GOING_AWAY, PROTOCOL_ERROR, Bounds, Events, Library, choose_library
from isthmus.links.doorway import Doorway
from isthmus.links.places import StrangerBounds
from isthmus.links.port import LinkOwner
from isthmus.links.throttle import FailureThrottle


@final
@dataclass(slots=True, frozen=True)
class ServerAccount:
    """An account whose peer dials us. `token_hash`: SHA-256 of its token, hex; `session`: our session id for it."""

    account: AccountId
    token_hash: str
    session: bytes


def hash_token(token: str) -> str:
    """What the configuration holds in place of the token."""
    return sha256(token.encode()).hexdigest()


class Tokens:
    """Finds the account of a token. A name given beside it (in the path or as `auth_username`) must not contradict."""

    def __init__(self) -> None:
        self._hashes: dict[AccountId, bytes] = {}
        self._accounts: dict[bytes, AccountId] = {}

    def add(self, account: AccountId, token_hash: str) -> None:
        try:
            digest = bytes.fromhex(token_hash)
        except ValueError:
            digest = b""
        if len(digest) != 32:
            raise ConfigError(f"{account}: token_hash", "not a SHA-256 in hex", "Take it from `isthmus node init`.")
        if digest in self._accounts:
            other = self._accounts[digest]
            raise ConfigError(f"{account}: token_hash", f"{other} has the same token", "Give each its own token.")
        self._hashes[account] = digest
        self._accounts[digest] = account

    def remove(self, account: AccountId) -> None:
        digest = self._hashes.pop(account, None)
        if digest is not None:
            del self._accounts[digest]

    def hash_of(self, account: AccountId) -> str:
        return self._hashes[account].hex()

    def find(self, token: bytes, names: Iterable[str]) -> AccountId | None:
        """The account that the token opens, or None."""
        # The lookup is by a hash of what the peer sent: its timing tells nothing about a token (P-16).
        digest = sha256(token).digest()
        account = self._accounts.get(digest)
        for name in names:
            if AccountId(name) in self._hashes:
                account = AccountId(name)  # its token is the one to match, whomever else this one may open
        expected = self._hashes[account] if account is not None else bytes(32)
        return account if hmac.compare_digest(digest, expected) and account is not None else None


class _Visitor:
    """A stranger on his way in: finds his account by token, then hands his channel to its link."""

    def __init__(self, server: "BtpServer", path_name: str, host: str) -> None:
        self._server = server
        self._path_name = path_name
        self._host = host
        self._is_counted = False

    def admit(self, username: str, token: bytes) -> Admission | Refusal | None:
        """For the session (`session.Door`). Right credentials are let in, whatever came from that address before."""
        account = self._server.tokens.find(token, (username, self._path_name))
        if account is None:
            self._is_counted = True
            hold_ms = self._server.failed(self._host)
            return Refusal(hold_ms) if hold_ms else None
        return Admission(account, self._server.link(account).session)

    def ready(self, channel: Channel, order: Ready) -> None:
        self._server.link(order.account).ready(channel, order)

    def asked(self, channel: Channel, order: Asked) -> None:
        """Not before `ready`."""

    def answered(self, channel: Channel, order: Answered) -> None: ...

    def blocked(self, channel: Channel) -> None: ...

    def writable(self, channel: Channel) -> None: ...

    def ended(self, channel: Channel, why: str, refused: bool) -> None:
        if not self._is_counted:
            self._server.failed(self._host)  # it knocked, and said nothing that we know
        self._server.tell_refused(self._host, why)

    def log(self, fact: Log) -> None:
        self._server.log(fact)


class BtpServer:
    """Listens, lets peers in, and keeps one link per account.

    `listen` is (host, port), port 0 for any free one. A peer dials `path`, or `path/ACCOUNT`. TLS needs a server-side
    `ssl_context`; without one put a reverse proxy before it.
    """

    def __init__(
        self,
        listen: tuple[str, int],
        accounts: Iterable[ServerAccount],
        owner: LinkOwner,
        *,
        path: str = "/",
        ssl_context: ssl.SSLContext | None = None,
        bounds: StrangerBounds = StrangerBounds(),  # noqa: B008 - frozen
        send_bounds: Bounds = Bounds(),  # noqa: B008 - frozen
        timing: Timing = Timing(),  # noqa: B008 - frozen
        entropy: Callable[[int], bytes] = os.urandom,
        library: Library | None = None,
        throttle: FailureThrottle | None = None,
        on_log: Callable[[Log], None] = no_log,
    ) -> None:
        self.tokens: Final = Tokens()
        # Sub-protocols of all links: name -> handler. Register before `start`.
        self.subprotocols: Final[dict[str, Subprotocol]] = {}
        self.log: Final = on_log
        self._throttle: Final = throttle if throttle is not None else FailureThrottle()
        self._owner: Final = owner
        self._path: Final = "/" + path.strip("/")
        self._tls: Final = ssl_context
        self._send_bounds: Final = send_bounds
        self._timing: Final = timing
        self._entropy: Final = entropy
        self._library: Final = library if library is not None else choose_library()
        self._links: dict[AccountId, BtpLink] = {}
        self._doorway: Final = Doorway(
            listen,
            self._let_in,
            mono_ms=owner.mono_ms,
            bounds=bounds,
            receive_buffer_bytes=send_bounds.receive_buffer_bytes,
            on_left=self._stranger_left,
        )
        for account in accounts:
            self.add(account)

    def add(self, account: ServerAccount) -> BtpLink:
        """Serve one more account."""
        self.tokens.add(account.account, account.token_hash)
        link = BtpLink(
            account.account,
            self._owner,
            session=account.session,
            on_log=self.log,
            subprotocols=self.subprotocols,
        )
        self._links[account.account] = link
        return link

    def remove(self, account: AccountId) -> None:
        """Let its peer in no more. Its link is the caller's to close."""
        self.tokens.remove(account)
        self._links.pop(account, None)

    def change_token(self, account: AccountId, token_hash: str) -> None:
        """From now on another token opens the account; a connection that is up stays."""
        before = self.tokens.hash_of(account)
        self.tokens.remove(account)
        try:
            self.tokens.add(account, token_hash)
        except ConfigError:
            self.tokens.add(account, before)
            raise

    def link(self, account: AccountId) -> BtpLink:
        return self._links[account]

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens, once started."""
        return self._doorway.address

    @property
    def strangers(self) -> int:
        """Connections that are not authenticated yet."""
        return self._doorway.strangers

    async def start(self) -> None:
        """Listen. LinkError if the address can't be had."""
        await self._doorway.start()

    async def close(self) -> None:
        """Let nobody in any more and end all connections."""
        await self._doorway.close()
        for link in self._links.values():
            await link.close()

    # --- strangers ----------------------------------------------------------------------------------------------

    def failed(self, host: str) -> int:
        """Count a failure of this address; how long (ms) its refusal is to be held back."""
        verdict = self._throttle.failed(host, self._owner.mono_ms())
        if verdict is None:
            return 0
        if verdict.is_news:
            self.log(Log("warning", "btp.throttled", {"address": host, "retry_after_s": verdict.retry_after_s}))
        return verdict.hold_ms

    def tell_refused(self, host: str, why: str) -> None:
        """One line each while the address is within its limit: else whoever can connect could fill the log."""
        level = "debug" if self._throttle.is_above(host, self._owner.mono_ms()) else "info"
        self.log(Log(level, "btp.refused", {"address": host, "why": why}))

    def _stranger_left(self, count: int) -> None:
        self.log(Log("debug", "btp.strangers", {"count": count}))

    async def _let_in(self, peer: socket.socket, host: str) -> None:
        """A stranger's place is taken until he is authenticated or gone: both take bounded time."""
        channels: list[Channel] = []

        def open_path(path: str) -> Events | None:
            name = self._name_in(path)
            if name is None:
                return None
            channels.append(self._channel(name, host))
            return channels[0]

        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            await self._library.accept(peer, open_path, tls=self._tls, entropy=self._entropy, bounds=self._send_bounds)
            for channel in channels:
                if channel.session is None:
                    channel.close(PROTOCOL_ERROR, "the upgrade failed")  # after its path was found good
                await channel.settled
        except LinkError:
            return  # a port scan, a browser, a health check
        except asyncio.CancelledError:
            for channel in channels:
                channel.close(GOING_AWAY, "the place is needed")
            raise

    def _name_in(self, path: str) -> str | None:
        """The account named by a request's path: "" without one, None if the path is not ours."""
        place = path.partition("?")[0].rstrip("/") or "/"
        if place == self._path:
            return ""
        prefix = self._path.rstrip("/") + "/"
        return place[len(prefix) :] if place.startswith(prefix) else None

    def _channel(self, name: str, host: str) -> Channel:
        visitor = _Visitor(self, name, host)

        def session(now: Now) -> Session:
            return Session.server(
                visitor,
                fallback_session=self._entropy(SESSION_BYTES),
                now=now,
                subprotocols=tuple(self.subprotocols),
                timing=self._timing,
            )

        return Channel.of(visitor, self._owner, session)
