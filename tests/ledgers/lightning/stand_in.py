"""A server that speaks as lnd's REST interface does, for answers that no lnd can be made to give."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

from isthmus.ledgers.lightning.lnd import LndSettings
from tests.certificates import self_signed


@asynccontextmanager
async def in_place_of_lnd(
    answer: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]], folder: Path
) -> AsyncIterator[LndSettings]:
    """It serves over TLS as long as the context lasts; how it is reached."""
    (folder / "macaroon").write_bytes(b"m")
    runner = web.ServerRunner(web.Server(answer, handler_cancellation=True), shutdown_timeout=0.1)
    await runner.setup()
    certificate = self_signed(folder)
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=certificate.server()).start()
    url = f"https://127.0.0.1:{runner.addresses[0][1]}"
    yield LndSettings(url, certificate.file, folder / "macaroon")
    await runner.cleanup()
