"""The accepting side of a wallet: invitations go out, connections come in."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Final, final

from isthmus.client.streams import Connection, Offer
from isthmus.ilp.asset import Asset
from isthmus.stream.connection import Connection as Machine
from isthmus.stream.orders import Credit
from isthmus.stream.tokens import Invitation

if TYPE_CHECKING:
    from isthmus.client.endpoint import Endpoint

CONNECTIONS_MAX: Final = 1_024  # accepted and not taken by iteration; the oldest goes, its money stays


@final
class Listener:
    """Iterating it gives the connections that others open. Implements `endpoint.Host`."""

    def __init__(self, endpoint: "Endpoint", *, accept: Callable[[Offer], bool] | None = None) -> None:
        self.on_credit: Callable[[Connection, Credit], None] | None = None
        self._endpoint: Final = endpoint
        self._accept: Final = accept
        self._first: Invitation | None = None
        self._waiting: Final[deque[Connection]] = deque(maxlen=CONNECTIONS_MAX)
        self._waiter: asyncio.Future[None] | None = None
        self._closed = False

    # --- invitations --------------------------------------------------------------------------------------------

    @property
    def address(self) -> str:
        """Of one invitation, for one client. `invite` makes more: never give the same to two."""
        return self._invitation.address

    @property
    def secret(self) -> bytes:
        """The shared secret that belongs to `address`; hand it over on an encrypted channel only."""
        return self._invitation.shared_secret

    def invite(self, *, tag: bytes = b"", receipt_nonce: bytes = b"", receipt_secret: bytes = b"") -> Invitation:
        """A fresh address and secret for one client; `tag` comes back with its connection."""
        return self._endpoint.invite(tag=tag, receipt_nonce=receipt_nonce, receipt_secret=receipt_secret)

    @property
    def _invitation(self) -> Invitation:
        if self._first is None:
            self._first = self.invite()
        return self._first

    @property
    def asset(self) -> Asset:
        """What we are paid in."""
        return self._endpoint.asset

    # --- connections --------------------------------------------------------------------------------------------

    def __aiter__(self) -> AsyncIterator[Connection]:
        return self._connections()

    async def _connections(self) -> AsyncIterator[Connection]:
        while not self._closed:
            if not self._waiting:
                self._waiter = asyncio.get_running_loop().create_future()
                await self._waiter
            while self._waiting:
                yield self._waiting.popleft()

    def accepted(self, machine: Machine, tag: bytes) -> Connection:
        connection = Connection(self._endpoint, machine, tag=tag)
        connection.decide = self._accept
        if self.on_credit is not None:
            tell = self.on_credit
            connection.on_credit = lambda credit: tell(connection, credit)
        self._waiting.append(connection)
        self._wake()
        return connection

    def close(self) -> None:
        """Take no more connections."""
        if not self._closed:
            self._closed = True
            self._endpoint.stop_listening()
            self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
