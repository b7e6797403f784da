"""Alice and Bob: a durable wallet that pays by the library, and one that is paid by `isthmus receive`."""

from pathlib import Path
from typing import Final

from isthmus.apps.spsp import SpspClient
from isthmus.cli.demo.processes import Processes
from isthmus.client.folder import init_folder
from isthmus.client.uplink import ask_connector
from isthmus.client.wallet import Wallet
from isthmus.runtime import clock


async def make_wallet(folder: Path, connector: str, token: str) -> None:
    """What `isthmus wallet init` does."""
    told = await ask_connector(connector, token=token)
    init_folder(folder, connector, token, told)


class Payer:
    """Alice's wallet, open."""

    def __init__(self, folder: Path) -> None:
        self._spsp: Final = SpspClient(mono_ms=clock.mono_ms)
        self.wallet: Final = Wallet.at(folder, resolve=self._resolve)

    async def __aenter__(self) -> Wallet:
        await self.wallet.start()
        return self.wallet

    async def __aexit__(self, *_: object) -> None:
        await self.wallet.close()
        await self._spsp.close()

    async def _resolve(self, target: str) -> tuple[str, bytes]:
        details = await self._spsp.query(target)
        return details.destination_account, details.shared_secret


class Payee:
    """Bob's wallet, served by a process of its own."""

    def __init__(self, url: str) -> None:
        self.url: Final = url

    @classmethod
    async def start(cls, processes: Processes, folder: Path) -> "Payee":
        raise NotImplementedError
