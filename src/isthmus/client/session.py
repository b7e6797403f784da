"""One wallet, many commands: the process that takes the journal holds the link and serves the others by a socket.

`open_session` gives the same interface either way. Who holds the wallet and has finished waits for what others do
through it; a process that finds the socket of a killed one takes the role itself.
"""

import asyncio
from pathlib import Path
from typing import Final, Protocol, TypeAlias, final

from isthmus.client.control import ControlServer, Emit, Json, call
from isthmus.client.folder import SOCKET_FILE, load_folder
from isthmus.client.payment import Resolve
from isthmus.client.service import Service
from isthmus.client.settling import LoadSettling
from isthmus.client.wallet import Wallet
from isthmus.errors import LinkError
from isthmus.journal.lock import JournalInUseError

# Between another process's taking the journal and its serving the socket lies its connecting to the connector.
OPEN_S: Final = 20.0
RETRY_S: Final = 0.05


def _ignore(event: Json) -> None: ...


class Session(Protocol):
    """A wallet at work, here or in another process."""

    async def ask(
        self, method: str, params: Json, *, on_event: Emit = _ignore, cancelled: asyncio.Event | None = None
    ) -> Json:
        """One request of `client.service`. Raises IsthmusError."""

    async def close(self, hurry: asyncio.Event | None = None) -> None: ...


@final
class LocalSession:
    """This process holds the wallet."""

    def __init__(self, wallet: Wallet, folder: Path) -> None:
        self.wallet: Final = wallet
        self.service: Final = Service(wallet)
        self._server: Final = ControlServer(folder / SOCKET_FILE, self.service.handle)

    async def start(self) -> None:
        await self.wallet.start()
        try:
            await self._server.start()
        except BaseException:
            await self.wallet.close()
            raise

    async def ask(
        self, method: str, params: Json, *, on_event: Emit = _ignore, cancelled: asyncio.Event | None = None
    ) -> Json:
        return await self.service.handle(method, params, on_event, asyncio.Event() if cancelled is None else cancelled)

    @property
    def others(self) -> int:
        """What other commands do through us just now."""
        return self.service.busy

    async def close(self, hurry: asyncio.Event | None = None) -> None:
        """Let other commands finish; with `hurry` set their payments are stopped cleanly."""
        waits: list[asyncio.Future[None] | asyncio.Task[bool]] = [asyncio.create_task(self.service.idle())]
        if hurry is not None:
            waits.append(asyncio.create_task(hurry.wait()))
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        await self.wallet.payments.close()
        await self._server.close()
        await self.wallet.close()


@final
class RemoteSession:
    """Another process holds the wallet."""

    def __init__(self, folder: Path) -> None:
        self._path: Final = folder / SOCKET_FILE

    async def ask(
        self, method: str, params: Json, *, on_event: Emit = _ignore, cancelled: asyncio.Event | None = None
    ) -> Json:
        return await call(self._path, method, params, on_event=on_event, cancelled=cancelled)

    async def close(self, hurry: asyncio.Event | None = None) -> None:
        """Nothing is held."""


@final
class OfflineSession:
    """This process has the journal, and no connection: enough to look at it."""

    def __init__(self, wallet: Wallet) -> None:
        self.wallet: Final = wallet
        self._service: Final = Service(wallet)

    async def ask(
        self, method: str, params: Json, *, on_event: Emit = _ignore, cancelled: asyncio.Event | None = None
    ) -> Json:
        return await self._service.handle(method, params, on_event, asyncio.Event() if cancelled is None else cancelled)

    async def close(self, hurry: asyncio.Event | None = None) -> None:
        await self.wallet.core.close()


AnySession: TypeAlias = LocalSession | RemoteSession | OfflineSession


async def open_session(
    folder: Path, *, resolve: Resolve | None = None, settle: LoadSettling | None = None, online: bool = True
) -> AnySession:
    """Hold the wallet, or reach who does; not `online`: only to look. Raises ConfigError, LinkError, JournalError.

    `settle` reads what the wallet settles by, if it does.
    """
    settings = load_folder(folder)
    assert settings.asset is not None
    settling = None if settle is None else settle(folder, settings.asset)
    loop = asyncio.get_running_loop()
    gives_up_at = loop.time() + OPEN_S
    while True:
        if (folder / SOCKET_FILE).exists():
            remote = RemoteSession(folder)
            try:
                await remote.ask("show", {})
                return remote
            except LinkError:
                pass  # a killed process left it behind, or one that has just ended
        wallet = Wallet(settings, resolve=resolve, settling=settling)
        try:
            if not online:
                wallet.core.open_offline()
                return OfflineSession(wallet)
            local = LocalSession(wallet, folder)
            await local.start()
            return local
        except JournalInUseError:
            if loop.time() > gives_up_at:
                raise
        await asyncio.sleep(RETRY_S)
