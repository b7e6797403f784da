"""One of our engines as a process of its own, from start to stop: `isthmus engine run`."""

import asyncio
import contextlib
import os
import random
import secrets
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Final, final

import structlog

from isthmus.connector.events import AccountId, Log
from isthmus.errors import LedgerError
from isthmus.node import logs
from isthmus.node.engine_config import EngineFile
from isthmus.node.engines.kind import Surroundings
from isthmus.node.engines.rfc38 import digest_of, listener_at
from isthmus.node.tls import client_context
from isthmus.runtime import clock
from isthmus.runtime.engines import EngineRunner
from isthmus.settlement.port import SettlingAccount
from isthmus.settlement.rfc38.http import Client
from isthmus.settlement.rfc38.server import EngineServer, StoreDesk
from isthmus.settlement.rfc38.store import Store
from isthmus.settlement.unmatched import UnmatchedKeeper

STORE_FILE: Final = "engine.db"
NAME: Final = "engine"

Logger = structlog.typing.FilteringBoundLogger


def run(file: EngineFile, *, level: str = "info") -> int:
    """Run it until SIGTERM or SIGINT; the exit status. Raises IsthmusError if it can't be started."""
    logger = logs.set_up(level=level)
    return asyncio.run(EngineProcess(file, logger).run())


def open_store(file: EngineFile) -> Store:
    """The engine's file, for this process alone. Raises LedgerError."""
    file.data.mkdir(mode=0o700, parents=True, exist_ok=True)
    return Store(
        file.data / STORE_FILE,
        asset=file.asset.code,
        scale=file.asset.scale,
        wall_ms=lambda: clock.system_now().wall_ms,
        entropy=secrets.token_bytes,
    )


def _runner_of(file: EngineFile, store: Store, connector: Client, on_log: Callable[[Log], None]) -> EngineRunner:
    surroundings = Surroundings(name=NAME, data=file.data, now=clock.system_now, random=random.random)
    return EngineRunner(
        StoreDesk(store, connector),
        {NAME: file.kind.make(file.options, surroundings)},
        on_log=on_log,
        now=clock.system_now,
        random=random.random,
    )


@contextlib.asynccontextmanager
async def looked_at(file: EngineFile) -> AsyncIterator[UnmatchedKeeper]:
    """The engine of this file as its store has it, without its ledger: for what waits for the operator.

    LedgerError if it runs, has never run, or knows whose each payment is.
    """
    if not (file.data / STORE_FILE).is_file():
        raise LedgerError(f"{file.data / STORE_FILE} isn't there: the engine has never run")
    store = open_store(file)
    process = EngineProcess(file, structlog.get_logger())
    connector = process.client()
    try:
        runner = _runner_of(file, store, connector, lambda _: None)
        (running,) = runner.engines()
        keeper = running.engine
        if not isinstance(keeper, UnmatchedKeeper):
            raise LedgerError("such an engine knows whose each payment is")
        accounts = process.accounts(store)
        keeper.look_at(runner.port(NAME, accounts), accounts[NAME])
        yield keeper
    finally:
        await connector.close()
        store.close()


@final
class EngineProcess:
    """A store, an engine, and the server between it and a connector."""

    def __init__(self, file: EngineFile, logger: Logger) -> None:
        self._file: Final = file
        self._logger: Final = logger
        self._runner: EngineRunner

    async def run(self) -> int:
        file = self._file
        store = open_store(file)
        try:
            client = self.client()
            server = EngineServer(
                store,
                client,
                listener_at(file.listen),
                token_sha256=digest_of(file.token),
                check=self._check,
                changed=lambda: asyncio.ensure_future(self._runner.follow(self.accounts(store))),
                log=self._tell,
                random=random.random,
            )
            self._runner = _runner_of(file, store, client, self._log)
            return await self._serve(server, store)
        finally:
            store.close()

    async def _serve(self, server: EngineServer, store: Store) -> int:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        try:
            await self._runner.start(self.accounts(store))
            await server.start(self._runner)
            self._logger.info("running", listening=server.url, pid=os.getpid())
            await stop.wait()
        finally:
            with contextlib.suppress(asyncio.CancelledError):
                await self._runner.close()
            await server.close()
        self._logger.info("stopped")
        return 0

    def client(self) -> Client:
        """To the connector."""
        connector = self._file.connector
        token = connector["token"]
        is_secure = connector["url"].startswith("https")
        return Client(
            "the connector",
            connector["url"],
            token=None if token is None else token.reveal(),
            timeout_ms=connector["timeout"],
            ssl_context=client_context(connector["tls"]) if is_secure else None,
        )

    def _check(self, account: AccountId) -> str:
        others = self._file.others
        return others if isinstance(others, str) and account not in self._file.accounts else ""

    def accounts(self, store: Store) -> dict[str, list[SettlingAccount]]:
        """Those that were set up, and whom the file knows."""
        others = {} if isinstance(self._file.others, str) else self._file.others
        return {
            NAME: [
                SettlingAccount(account, self._file.asset, self._file.accounts.get(account, others))
                for account in store.accounts()
                if not self._check(account)
            ]
        }

    def _tell(self, level: str, event: str, fields: Mapping[str, str | int]) -> None:
        self._log(Log(level, event, dict(fields)))

    def _log(self, log: Log) -> None:
        logs.write(self._logger, log)
