"""The listening side of BTP: one port for many accounts, told apart by their tokens."""

import asyncio
import errno
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
from isthmus.links.btp.session import Admission, Answered, Asked, Ready, Session, Timing
from isthmus.links.btp.websocket import GOING_AWAY, PROTOCOL_ERROR, Bounds, Events, Library, choose_library
from isthmus.links.port import LinkOwner

_ACCEPT_AGAIN_SECONDS: Final = 0.2
_NO_ROOM: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


@final
@dataclass(slots=True, frozen=True)
class ServerAccount:
    """An account whose peer dials us. `token_hash`: SHA-256 of its token, hex; `session`: our session id for it."""

    account: AccountId
    token_hash: str
    session: bytes


@final
@dataclass(slots=True, frozen=True)
class ServerBounds:
    """How much room strangers get: connections that are not authenticated yet. Above it they are closed at once."""

    strangers_max: int = 256
    strangers_per_address_max: int = 16
    backlog: int = 128


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

    def __init__(self, server: "BtpServer", path_name: str) -> None:
        self._server = server
        self._path_name = path_name

    def admit(self, username: str, token: bytes) -> Admission | None:
        """For the session (`session.Door`)."""
        account = self._server.tokens.find(token, (username, self._path_name))
        if account is None:
            return None
        return Admission(account, self._server.link(account).session)

    def ready(self, channel: Channel, order: Ready) -> None:
        self._server.link(order.account).ready(channel, order)

    def asked(self, channel: Channel, order: Asked) -> None:
        """Not before `ready`."""

    def answered(self, channel: Channel, order: Answered) -> None: ...

    def blocked(self, channel: Channel) -> None: ...

    def writable(self, channel: Channel) -> None: ...

    def ended(self, channel: Channel, why: str, refused: bool) -> None:
        self._server.log(Log("info", "btp.refused", {"why": why}))

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
        bounds: ServerBounds = ServerBounds(),
        send_bounds: Bounds = Bounds(),  # noqa: B008 - frozen
        timing: Timing = Timing(),  # noqa: B008 - frozen
        entropy: Callable[[int], bytes] = os.urandom,
        library: Library | None = None,
        on_log: Callable[[Log], None] = no_log,
    ) -> None:
        self.tokens: Final = Tokens()
        # Sub-protocols of all links: name -> handler. Register before `start`.
        self.subprotocols: Final[dict[str, Subprotocol]] = {}
        self.log: Final = on_log
        self._listen: Final = listen
        self._owner: Final = owner
        self._path: Final = "/" + path.strip("/")
        self._tls: Final = ssl_context
        self._bounds: Final = bounds
        self._send_bounds: Final = send_bounds
        self._timing: Final = timing
        self._entropy: Final = entropy
        self._library: Final = library if library is not None else choose_library()
        self._links: dict[AccountId, BtpLink] = {}
        self._listener: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._strangers: dict[asyncio.Task[None], str] = {}
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

    def link(self, account: AccountId) -> BtpLink:
        return self._links[account]

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens, once started."""
        assert self._listener is not None
        host, port = self._listener.getsockname()[:2]
        return host, port

    @property
    def strangers(self) -> int:
        """Connections that are not authenticated yet."""
        return len(self._strangers)

    async def start(self) -> None:
        """Listen. LinkError if the address can't be had."""
        host, port = self._listen
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            family, _, _, _, address = found[0]
            listener = socket.socket(family, socket.SOCK_STREAM)
            try:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                # Accepted sockets inherit it. It bounds how much one read, and so one batch, can hold.
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._send_bounds.receive_buffer_bytes)
                listener.setblocking(False)
                listener.bind(address)
                listener.listen(self._bounds.backlog)
            except OSError:
                listener.close()
                raise
        except OSError as error:
            raise LinkError(f"can't listen on {host}:{port}: {error.strerror or error}") from None
        self._listener = listener
        self._accepting = asyncio.create_task(self._accept())

    async def close(self) -> None:
        """Let nobody in any more and end all connections."""
        tasks = list(self._strangers)
        if self._accepting is not None:
            tasks.append(self._accepting)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._listener is not None:
            self._listener.close()
        for link in self._links.values():
            await link.close()

    # --- strangers ----------------------------------------------------------------------------------------------

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        assert self._listener is not None
        while True:
            try:
                peer, address = await loop.sock_accept(self._listener)
            except OSError as error:
                if error.errno in _NO_ROOM:
                    await asyncio.sleep(_ACCEPT_AGAIN_SECONDS)
                continue  # else the peer left before we came to it
            host = str(address[0])
            if not self._has_room(host):
                peer.close()
                continue
            task = asyncio.create_task(self._let_in(peer))
            self._strangers[task] = host
            task.add_done_callback(self._stranger_gone)

    def _stranger_gone(self, task: asyncio.Task[None]) -> None:
        del self._strangers[task]
        self.log(Log("debug", "btp.strangers", {"count": len(self._strangers)}))

    def _has_room(self, host: str) -> bool:
        if len(self._strangers) >= self._bounds.strangers_max:
            return False
        same = sum(1 for other in self._strangers.values() if other == host)
        return same < self._bounds.strangers_per_address_max

    async def _let_in(self, peer: socket.socket) -> None:
        """A stranger's place is taken until he is authenticated or gone: both take bounded time."""
        channels: list[Channel] = []

        def open_path(path: str) -> Events | None:
            name = self._name_in(path)
            if name is None:
                return None
            channels.append(self._channel(name))
            return channels[0]

        peer.setblocking(False)
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
                channel.close(GOING_AWAY, "the server is closing")
            raise

    def _name_in(self, path: str) -> str | None:
        """The account named by a request's path: "" without one, None if the path is not ours."""
        place = path.partition("?")[0].rstrip("/") or "/"
        if place == self._path:
            return ""
        prefix = self._path.rstrip("/") + "/"
        return place[len(prefix) :] if place.startswith(prefix) else None

    def _channel(self, name: str) -> Channel:
        visitor = _Visitor(self, name)

        def session(now: Now) -> Session:
            return Session.server(
                visitor,
                fallback_session=self._entropy(SESSION_BYTES),
                now=now,
                subprotocols=tuple(self.subprotocols),
                timing=self._timing,
            )

        return Channel.of(visitor, self._owner, session)
