"""A node from start to stop: journal, kernel, links, admin API, signals.

`run` is what `isthmus node run FILE` calls. Everything that can be wrong with the configuration or the journal is said
before the first socket is opened.
"""

import asyncio
import contextlib
import gc
import json
import os
import random
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import structlog

from isthmus.connector.events import AddressLearned, Log
from isthmus.connector.kernel import Kernel
from isthmus.connector.tables import Tables, TablesChanged, address_of, rates_of
from isthmus.errors import ConfigError, IsthmusError, JournalError
from isthmus.journal.sqlite import SqliteJournal
from isthmus.links.throttle import FailureThrottle
from isthmus.node import logs
from isthmus.node.admin.everything import all_operations
from isthmus.node.admin.operation import Operation
from isthmus.node.admin.server import AdminServer
from isthmus.node.config import Document, config_of, load_document
from isthmus.node.config_model import NodeConfig
from isthmus.node.config_settlement import settling_accounts
from isthmus.node.control import Control, account_of, configure, ended_facts, tell_ended
from isthmus.node.engines.making import make_engines
from isthmus.node.joining import PATH as JOIN_PATH
from isthmus.node.joining import Joining
from isthmus.node.links import Links
from isthmus.node.rates.board import remember
from isthmus.node.rates.provider import Provider
from isthmus.node.settings import Item, settings_of
from isthmus.node.tables import build_tables
from isthmus.node.tls import server_context
from isthmus.node.vault import Vault
from isthmus.node.view import NodeView
from isthmus.runtime import clock
from isthmus.runtime.checkpoints import CheckpointKeeper, open_legs
from isthmus.runtime.driver import Driver
from isthmus.runtime.engines import EngineRunner
from isthmus.runtime.kernel_desk import KernelDesk
from isthmus.runtime.opening import open_kernel

JOURNAL_FILE: Final = "journal.db"
# Where a running node says how it is reached: for tools on this machine, and for ports that were chosen by the system.
RUNNING_FILE: Final = "running.json"
# Longer than the default hold. Legs that are held longer stay open in the journal, and end after the next start.
DRAIN_MS_MAX: Final = 35_000
ENTROPY_BYTES: Final = 32
# From the end of everything to the end of the process.
END_S_MAX: Final = 2.0
# A second signal after this long means it; before, it is the same one sent to the process and to its group.
IMPATIENT_S: Final = 1.0
# The core makes few cycles: collecting its young objects often costs more than it frees.
GC_THRESHOLDS: Final = (50_000, 20, 100)

Logger = structlog.typing.FilteringBoundLogger


def run(config_path: Path) -> int:
    """Run the node until it is told to stop; the exit status. Raises ConfigError before anything runs."""
    document = load_document(config_path)
    config = config_of(document)  # the file must be whole by itself
    logger = logs.set_up(level=config.log.level, form=config.log.form)
    return asyncio.run(_to_the_end(Node(document, config, logger)))


async def _to_the_end(node: "Node") -> int:
    status = await node.run()
    # All is closed. What may be left is a thread in a name look-up, which Python would wait for.
    end = threading.Timer(END_S_MAX, os._exit, (status,))
    end.daemon = True
    end.start()
    return status


class _Opened:
    """The configuration that holds after replay: the file, and what was set at run time."""

    def __init__(self, document: Document, vault: Vault) -> None:
        self._document = document
        self._vault = vault
        self.config: NodeConfig
        self.ended: tuple[Item, ...]
        self.last: Tables
        self.address: str | None = None

    def tables(self, kernel: Kernel) -> Tables:
        """Until the parent tells it anew, the address is what it was: else our children would be unreachable (F02)."""
        settings = settings_of(kernel.books.settings)
        self.config, self.ended = configure(self._document, settings, self._vault)
        self.last = build_tables(self.config)
        last = address_of(kernel.books.terms)
        if self.config.address is None and last:
            with contextlib.suppress(ConfigError, ValueError):  # the children may have got longer names meanwhile
                self.last = build_tables(self.config, last)
                self.address = last
        return self.last


class Node:
    """One node in this process."""

    def __init__(self, document: Document, config: NodeConfig, logger: Logger) -> None:
        self._document = document
        self._config = config  # the file's; what was set at run time is `Control`'s
        self._logger = logger
        self._vault = Vault(config.data)
        self._was_told = False  # our address, by the parent, in this process
        self._stop = asyncio.Event()
        self._stopping_since: float | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> int:
        """Open, serve, stop. 0 after a clean stop, 1 if the journal failed."""
        self._config.data.mkdir(mode=0o700, parents=True, exist_ok=True)
        journal = SqliteJournal(self._config.data / JOURNAL_FILE, archive=self._config.journal.archive)
        try:
            opened = _Opened(self._document, self._vault)
            kernel = open_kernel(journal, opened.tables, entropy=os.urandom(ENTROPY_BYTES), now=clock.system_now())
            gc.collect()
            gc.freeze()
            gc.set_threshold(*GC_THRESHOLDS)
            return await self._serve(kernel, journal, opened)
        finally:
            journal.close()

    async def _serve(self, kernel: Kernel, journal: SqliteJournal, opened: "_Opened") -> int:
        driver = Driver(kernel, journal, on_log=self._log)
        rates = self._provider(opened.config, driver)
        control = Control(
            self._document, opened.config, driver, self._vault, rates, address=opened.address, logger=self._logger
        )
        driver.on_address = self._address_learned(control)
        keeper = CheckpointKeeper(
            driver, journal, on_log=self._log, every_batches=self._config.journal.checkpoint_every
        )

        def committed(sequence: int) -> None:
            keeper.committed(sequence)
            control.committed()

        driver.on_commit = committed
        throttle = FailureThrottle()  # one for all listeners: an address is an address
        links = control.links = Links(opened.config, driver, throttle=throttle, on_log=self._log)
        engines = control.engines = self._engines(opened.config, driver)
        view = NodeView(driver, control.sources, rates, engines)
        joining = Joining(control, throttle=throttle, listening=links.listening)
        if links.http is not None:
            links.http.app.router.add_post(JOIN_PATH, joining.serve)
        operations = all_operations(view, control, driver, rates, joining, engines, str(journal.path))
        admin = self._admin(view, operations, throttle)
        self._install_signals(control)
        driver.start()
        tell_ended(self._logger, opened.ended)
        ended = [(item.key, b"") for item in opened.ended]
        driver.post(TablesChanged(control.tables(opened.config), ended, ended_facts(opened.ended)))
        rates.start()
        try:
            # Before the links: a peer's claim must find its engine.
            await engines.start(settling_accounts(opened.config.accounts))
            await links.start()
            if admin is not None:
                await admin.start()
            self._announce(links, admin)
            status = await self._until_stopped(driver, keeper, rates)
        finally:
            with contextlib.suppress(OSError):  # a folder that turned read-only must not keep the rest from ending
                (self._config.data / RUNNING_FILE).unlink(missing_ok=True)
            await engines.close()
            await rates.close()
            await keeper.close()
            await driver.stop()
            await control.close()
            await links.close()
            if admin is not None:
                await admin.close()
        self._logger.info("stopped")
        return status

    async def _until_stopped(self, driver: Driver, keeper: CheckpointKeeper, rates: Provider) -> int:
        stop = asyncio.ensure_future(self._stop.wait())
        either: set[asyncio.Future[Any]] = {stop, driver.halted, rates.broken}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if rates.broken.done():
            self._logger.error("halted", problem=rates.broken.result())
            return 1
        if driver.halted.done():
            self._logger.error("halted", problem=driver.halted.result())
            return 1
        self._logger.info("stopping", in_flight=open_legs(driver.kernel))
        drained = await driver.drain(DRAIN_MS_MAX)
        if driver.halted.done():
            self._logger.error("halted", problem=driver.halted.result())
            return 1
        if not drained:
            self._logger.warning("packets were still in flight", open_legs=open_legs(driver.kernel))
        with contextlib.suppress(JournalError):
            await keeper.close()
            await keeper.last()
        return 0

    # --- configuration while running ------------------------------------------------------------------------------

    def _address_learned(self, control: Control) -> Callable[[AddressLearned], None]:
        def learned(answer: AddressLearned) -> None:
            account = account_of(control.config, answer.account)
            if account is None or (self._was_told and control.address == answer.address):
                return
            if (answer.asset_code, answer.asset_scale) != (account.asset.code, account.asset.scale):
                self._logger.error(
                    "the parent counts in another asset",
                    account=answer.account,
                    ours=f"{account.asset.code} scale {account.asset.scale}",
                    theirs=f"{answer.asset_code} scale {answer.asset_scale}",
                    remedy="make asset and scale of the account the same on both sides",
                )
                return
            task = asyncio.get_running_loop().create_task(self._learn(control, answer))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        return learned

    async def _learn(self, control: Control, answer: AddressLearned) -> None:
        with contextlib.suppress(JournalError):  # the node stops
            problem = await control.learn_address(answer.address)
            if problem:
                self._logger.error("the parent's address can't be used", parent=answer.account, problem=problem)
                return
            self._was_told = True
            self._logger.info("address learned", address=answer.address, parent=answer.account)

    async def _reload(self, control: Control) -> None:
        try:
            await control.reload()
        except IsthmusError as error:
            self._logger.error("configuration not reloaded", problem=str(error))
            return
        self._logger.info("configuration reloaded")

    def _provider(self, config: NodeConfig, driver: Driver) -> Provider:
        return Provider(
            config.rates,
            remember(rates_of(driver.kernel.books.terms), driver.kernel.books.settings),
            publish=driver.post,
            on_log=self._log,
            now=clock.system_now,
            random=random.random,
        )

    def _engines(self, config: NodeConfig, driver: Driver) -> EngineRunner:
        desk = KernelDesk(driver)
        runner = EngineRunner(
            desk,
            make_engines(config, now=clock.system_now, random=random.random),
            on_log=self._log,
            now=clock.system_now,
            random=random.random,
        )
        desk.serve(runner)
        return runner

    # --- the world ------------------------------------------------------------------------------------------------

    def _install_signals(self, control: Control) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._told_to_stop)
        loop.add_signal_handler(signal.SIGHUP, self._told_to_reload, control)

    def _told_to_reload(self, control: Control) -> None:
        task = asyncio.get_running_loop().create_task(self._reload(control))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _told_to_stop(self) -> None:
        now = asyncio.get_running_loop().time()
        if self._stopping_since is None:
            self._stopping_since = now
            self._stop.set()
        elif now - self._stopping_since > IMPATIENT_S:
            # What is open is in the journal, and its outcome is taken up at the next start.
            self._logger.warning("stopping without waiting for packets in flight")
            os._exit(1)

    def _admin(self, view: NodeView, operations: list[Operation], throttle: FailureThrottle) -> AdminServer | None:
        settings = self._config.admin
        if settings is None:
            return None
        context = None if settings.tls is None else server_context(settings.tls)
        return AdminServer(
            settings,
            operations,
            metrics=view.metrics,
            ssl_context=context,
            throttle=throttle,
            on_log=self._log,
        )

    def _announce(self, links: Links, admin: AdminServer | None) -> None:
        listening = links.listening()
        if admin is not None:
            listening["admin"] = admin.url
        path = self._config.data / RUNNING_FILE
        fresh = path.with_suffix(".new")
        fresh.unlink(missing_ok=True)  # left by a kill
        with open(fresh, "x", encoding="utf-8", opener=_private) as file:
            file.write(json.dumps({"pid": os.getpid(), "listening": listening}) + "\n")
        fresh.replace(path)
        self._logger.info("running", address=self._config.address or "from the parent", **listening)

    def _log(self, log: Log) -> None:
        logs.write(self._logger, log)


def _private(path: str, flags: int) -> int:
    """For the owner only, whatever the umask is."""
    return os.open(path, flags, 0o600)
