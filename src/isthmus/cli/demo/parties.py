"""Alice and Bob: a durable wallet that pays by the library, and one that is paid by `isthmus receive`."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Final

from isthmus.apps.spsp import SpspClient
from isthmus.cli.demo.processes import Processes
from isthmus.client.core import Core
from isthmus.client.folder import init_folder, load_folder
from isthmus.client.payment import PaymentResult, Payments, Progress
from isthmus.client.terms import Minimum, PaymentRequest
from isthmus.client.uplink import ask_connector
from isthmus.runtime import clock


async def make_wallet(folder: Path, connector: str, token: str) -> None:
    """What `isthmus wallet init` does."""
    told = await ask_connector(connector, token=token)
    init_folder(folder, connector, token, told)


class Payer:
    """Alice's wallet, open."""

    def __init__(self, folder: Path) -> None:
        self._core: Final = Core(load_folder(folder))
        self._spsp: Final = SpspClient(mono_ms=clock.mono_ms)
        self._payments: Final = Payments(self._core, self._resolve)

    async def __aenter__(self) -> "Payer":
        await self._core.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._payments.close()
        await self._core.close()
        await self._spsp.close()

    async def _resolve(self, target: str) -> tuple[str, bytes]:
        details = await self._spsp.query(target)
        return details.destination_account, details.shared_secret

    async def pay(
        self, url: str, amount: int, *, minimum_rate: Fraction, on_progress: Callable[[Progress], None]
    ) -> PaymentResult:
        """Send `amount` base units, for not less than `minimum_rate` (whole units for one of ours)."""
        request = PaymentRequest(target=url, amount=amount, minimum=Minimum(rate=minimum_rate))
        return await self._payments.pay(request, on_progress=on_progress)


class Payee:
    """Bob's wallet, served by a process of its own."""

    def __init__(self, url: str) -> None:
        self.url: Final = url

    @classmethod
    async def start(cls, processes: Processes, folder: Path) -> "Payee":
        raise NotImplementedError
