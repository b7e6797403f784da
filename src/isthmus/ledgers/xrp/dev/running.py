"""The development ledger as a process has it: a service, its port, and its end."""

import asyncio
from collections.abc import Callable

from aiohttp import web

from isthmus.errors import LedgerError
from isthmus.ledgers.xrp.dev.server import application
from isthmus.ledgers.xrp.dev.service import Service

GOODBYE_S = 2.0  # how long connections may take to end


async def serve(service: Service, host: str, port: int, started: Callable[[int], None], stop: asyncio.Event) -> None:
    """Serve until `stop` is set; `started` is told the port, which port 0 leaves to the system.

    LedgerError if the port can't be had, or a ledger can't be kept.
    """
    runner = web.AppRunner(application(service), access_log=None, shutdown_timeout=GOODBYE_S)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        try:
            await site.start()
        except OSError as error:
            raise LedgerError(f"can't listen on {host} port {port}: {error.strerror or error}") from error
        started(runner.addresses[0][1])
        running, stopping = asyncio.ensure_future(service.run()), asyncio.ensure_future(stop.wait())
        try:
            await asyncio.wait((running, stopping), return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                running.result()
        finally:
            for task in (running, stopping):
                task.cancel()
            await asyncio.gather(running, stopping, return_exceptions=True)
    finally:
        await runner.cleanup()
        service.stop()
