"""The accepting end: many connections behind one address, none of them stored before its first packet.

The token in a Prepare's destination gives the connection's secret; a packet that doesn't decrypt with it creates
nothing and gets F06. The number of connections is bounded, and idle ones are dropped: they come again with their
next packet, from what the shell recalls of them, if it keeps a journal.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias, final

from isthmus.errors import CodecError
from isthmus.ilp.packet import Prepare, Reject
from isthmus.stream.connection import Connection
from isthmus.stream.crypto import Keys, token_of
from isthmus.stream.orders import Order, SendReject
from isthmus.stream.settings import Settings
from isthmus.stream.tokens import Invitation, Token, Tokens

CONNECTIONS_MAX: Final = 1_024
IDLE_MS: Final = 120_000  # longer than any packet lives, so that no repeated packet meets a connection without memory
LINGER_MS: Final = 40_000  # of a closed connection, for the same reason


@final
@dataclass(slots=True)
class Recollection:
    """What a shell with a journal knows of a connection's earlier life."""

    totals: list[tuple[int, int]] = field(default_factory=list)  # stream id, received
    seen: list[tuple[int, bytes, int]] = field(default_factory=list)  # sequence, fingerprint or b"", amount
    sequence_floor: int = 0
    first_sequence: int = 1  # above all that we sent with


@final
@dataclass(slots=True)
class ConnectionAccepted:
    """A client's first packet. Set it up now: the orders that follow belong to it."""

    connection: Connection
    tag: bytes


@final
@dataclass(slots=True)
class ConnectionDropped:
    """Idle, or closed for long: forgotten. Its next packet makes a new one."""

    connection: Connection


ServerOrder: TypeAlias = Order | ConnectionAccepted | ConnectionDropped


@final
class Server:
    """Routes Prepares to connections."""

    def __init__(
        self,
        server_secret: bytes,
        settings: Settings,
        *,
        random_bytes: Callable[[int], bytes],
        recall: Callable[[bytes], Recollection | None] | None = None,
        connections_max: int = CONNECTIONS_MAX,
        idle_ms: int = IDLE_MS,
    ) -> None:
        """`settings.address` is the base of all addresses; `recall` is asked once for each new connection id."""
        self.settings: Final = settings
        self._tokens: Final = Tokens(server_secret, random_bytes)
        self._random_bytes: Final = random_bytes
        self._recall: Final = recall
        self._connections_max: Final = connections_max
        self._idle_ms: Final = idle_ms
        self._connections: dict[str, Connection] = {}  # by token, the one longest silent first
        self._tokens_of: dict[Connection, str] = {}
        self._touched: dict[Connection, None] = {}
        self._wakes: dict[Connection, int] = {}  # only those that wait for something
        self._orders: list[tuple[Connection | None, ServerOrder]] = []

    # --- addresses -----------------------------------------------------------------------------------------------

    def invite(self, *, tag: bytes = b"", receipt_nonce: bytes = b"", receipt_secret: bytes = b"") -> Invitation:
        """A fresh address and secret for one client."""
        return self._tokens.invite(
            self.settings.address, tag=tag, receipt_nonce=receipt_nonce, receipt_secret=receipt_secret
        )

    # --- packets -------------------------------------------------------------------------------------------------

    def prepare_received(self, request: int, prepare: Prepare, now: int, deadline: int) -> Connection | None:
        """Route one Prepare; None if it belongs to no connection of ours, and was refused."""
        token = token_of(self.settings.address, prepare.destination)
        if token is None:
            self._refuse(request, "F06")
            return None
        connection = self._connections.get(token)
        if connection is None:
            connection = self._accept(token, request, prepare, now)
            if connection is None:
                return None
        if connection.prepare_received(request, prepare, now, deadline):
            # Last in the order of silence.
            del self._connections[token]
            self._connections[token] = connection
        self._touched[connection] = None
        return connection

    def _accept(self, token: str, request: int, prepare: Prepare, now: int) -> Connection | None:
        """Make the connection if the packet proves that its sender has the secret."""
        says = self._tokens.read(token)
        if says is None or not _decrypts(says, prepare):
            self._refuse(request, "F06")  # STREAM-9: with no data, and no word
            return None
        if len(self._connections) >= self._connections_max and not self._make_room():
            self._refuse(request, "T99")  # all are busy: the sender may try again
            return None
        recollection = None if self._recall is None else self._recall(says.connection_id)
        settings = replace(
            self.settings,
            is_server=True,
            connection_id=says.connection_id,
            address=f"{self.settings.address}.{token}",
            receipt_nonce=says.receipt_nonce,
            receipt_secret=says.receipt_secret,
            first_sequence=1 if recollection is None else recollection.first_sequence,
        )
        connection = Connection(settings, says.shared_secret, random_bytes=self._random_bytes)
        connection.active_at = now
        if recollection is not None:
            connection.restore(recollection.totals, recollection.seen, recollection.sequence_floor)
        self._connections[token] = connection
        self._tokens_of[connection] = token
        self._orders.append((connection, ConnectionAccepted(connection, says.tag)))
        return connection

    def _refuse(self, request: int, code: str) -> None:
        self._orders.append((None, SendReject(request, Reject(code, self.settings.address, ""))))

    def poll(self, now: int) -> list[tuple[Connection | None, ServerOrder]]:
        """Orders of the connections that got packets or were touched, and of those whose time has come."""
        touched = self._touched
        self._touched = {}
        for connection in [connection for connection, wakes_at in self._wakes.items() if wakes_at <= now]:
            touched[connection] = None
        orders = self._orders
        self._orders = []
        for connection in touched:
            orders.extend((connection, order) for order in connection.poll(now))
            wakes_at = connection.wakes_at(now)
            if wakes_at is None:
                self._wakes.pop(connection, None)
            else:
                self._wakes[connection] = wakes_at
        for connection in self._forgettable(now):
            self._drop(connection)
        orders.extend(self._orders)
        self._orders = []
        return orders

    def touch(self, connection: Connection) -> None:
        """Say that methods of the connection were called (replies included): the next `poll` looks at it."""
        if connection in self._tokens_of:
            self._touched[connection] = None

    def wakes_at(self) -> int | None:
        """When to poll again if nothing happens before."""
        times = list(self._wakes.values())
        for connection in self._connections.values():
            times.append(connection.active_at + (LINGER_MS if connection.closed else self._idle_ms))
            break
        return min(times, default=None)

    # --- the number of connections -------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._connections)

    def connections(self) -> list[Connection]:
        return list(self._connections.values())

    def _forgettable(self, now: int) -> list[Connection]:
        gone: list[Connection] = []
        for connection in self._connections.values():
            silent_ms = now - connection.active_at
            if silent_ms < min(LINGER_MS, self._idle_ms):
                break  # all others were heard later
            if connection.idle and silent_ms >= (LINGER_MS if connection.closed else self._idle_ms):
                gone.append(connection)
        return gone

    def _make_room(self) -> bool:
        for connection in self._connections.values():
            if connection.idle:
                self._drop(connection)
                return True
        return False

    def _drop(self, connection: Connection) -> None:
        token = self._tokens_of.pop(connection)
        del self._connections[token]
        self._touched.pop(connection, None)
        self._wakes.pop(connection, None)
        self._orders.append((connection, ConnectionDropped(connection)))


def _decrypts(says: Token, prepare: Prepare) -> bool:
    try:
        Keys(says.shared_secret).decrypt(prepare.data)
    except CodecError:
        return False
    return True
