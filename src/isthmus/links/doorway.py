"""A listening socket: who connects gets one of the places that strangers have, or is sent away at once.

What happens on the connection is its owner's business: `let_in` gets the socket, and the place is free again when it
returns. It ends in bounded time, or by being cancelled when another stranger gets the place.
"""

import asyncio
import errno
import socket
from collections.abc import Callable, Coroutine
from typing import Any, Final, final

from isthmus.errors import LinkError
from isthmus.links.places import Place, Places, StrangerBounds

_ACCEPT_AGAIN_SECONDS: Final = 0.2
_NO_ROOM: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


def _nobody(count: int) -> None: ...


@final
class Doorway:
    """Accepts for one listener. `let_in(socket, host)` owns the socket; it raises nothing but CancelledError."""

    def __init__(
        self,
        listen: tuple[str, int],
        let_in: Callable[[socket.socket, str], Coroutine[None, None, None]],
        *,
        mono_ms: Callable[[], int],
        bounds: StrangerBounds,
        receive_buffer_bytes: int | None = None,
        on_left: Callable[[int], None] = _nobody,
    ) -> None:
        self._listen: Final = listen
        self._let_in: Final = let_in
        self._mono_ms: Final = mono_ms
        self._bounds: Final = bounds
        self._receive_buffer_bytes: Final = receive_buffer_bytes
        self._on_left: Final = on_left
        self.places: Final = Places(bounds)
        self._tasks: dict[Place, asyncio.Task[None]] = {}
        self._listener: socket.socket | None = None
        self._again: asyncio.TimerHandle | None = None

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens, once started."""
        assert self._listener is not None
        host, port = self._listener.getsockname()[:2]
        return host, port

    @property
    def strangers(self) -> int:
        """Connections that are not authenticated yet."""
        return len(self.places)

    async def start(self) -> None:
        """Listen. LinkError if the address can't be had."""
        host, port = self._listen
        try:
            family, address = await _place(host, port)
            listener = socket.socket(family, socket.SOCK_STREAM)
            try:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if self._receive_buffer_bytes is not None:
                    # Accepted sockets inherit it. It bounds how much one read, and so one batch, can hold.
                    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer_bytes)
                listener.setblocking(False)
                listener.bind(address)
                listener.listen(self._bounds.backlog)
            except OSError:
                listener.close()
                raise
        except OSError as error:
            raise LinkError(f"can't listen on {host}:{port}: {error.strerror or error}") from None
        self._listener = listener
        self._watch()

    async def close(self) -> None:
        """Let nobody in any more, and end what strangers have begun."""
        if self._again is not None:
            self._again.cancel()
        listener, self._listener = self._listener, None
        if listener is not None:
            asyncio.get_running_loop().remove_reader(listener)
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if listener is not None:
            listener.close()

    def _watch(self) -> None:
        # Not `loop.sock_accept`: cancelled when somebody has just come, it loses the socket and logs an error.
        assert self._listener is not None
        asyncio.get_running_loop().add_reader(self._listener, self._accept, self._listener)

    def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            peer, address = listener.accept()
        except OSError as error:
            if error.errno in _NO_ROOM:
                loop.remove_reader(listener)
                self._again = loop.call_later(_ACCEPT_AGAIN_SECONDS, self._watch)
            return  # else the peer left before we came to it
        self._meet(peer, str(address[0]))

    def _meet(self, peer: socket.socket, host: str) -> None:
        """Give the newcomer a place, or send him away."""
        place, evicted = self.places.take(host, self._mono_ms())
        if evicted is not None:
            self._tasks[evicted].cancel()
        if place is None:
            peer.close()
            return
        peer.setblocking(False)
        begun = False

        async def let_in() -> None:
            nonlocal begun
            begun = True
            await self._let_in(peer, host)

        task = asyncio.create_task(let_in())
        self._tasks[place] = task

        def left(task: asyncio.Task[None]) -> None:
            del self._tasks[place]
            if not begun:
                peer.close()
            self.places.leave(place)
            self._on_left(len(self.places))

        task.add_done_callback(left)


async def _place(host: str, port: int) -> tuple[int, tuple[Any, ...]]:
    """Family and address to listen on. Numbers are read here: threads may all wait for look-ups of other names."""
    try:
        flags = socket.AI_PASSIVE | socket.AI_NUMERICHOST
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)  # asks nobody
    except socket.gaierror:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, address = found[0]
    return family, address
