"""A wallet at work: kernel, journal, link to the connector and STREAM endpoint, put together and taken apart.

The kernel has two accounts: `uplink` to the connector, our parent, and `local`, the STREAM endpoint of this process.
What is below our own address goes to the endpoint, everything else to the connector.
"""

import asyncio
import hmac
import logging
import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Final, final

from isthmus.client.aftermath import Aftermath
from isthmus.client.control import Json
from isthmus.client.endpoint import Endpoint
from isthmus.client.folder import JOURNAL_FILE, WalletSettings
from isthmus.client.ledger import WalletLedger
from isthmus.client.settling import Settler, WalletSettling, settlement_json
from isthmus.client.tables import UPLINK, wallet_tables
from isthmus.client.uplink import ask_connector, wait_up
from isthmus.client.volatile import VolatileJournal
from isthmus.connector.events import AddressLearned, Log, Outbound
from isthmus.connector.kernel import Kernel
from isthmus.connector.settling import NO_SETTLEMENT
from isthmus.connector.tables import Tables, TablesChanged
from isthmus.errors import JournalError, LinkError
from isthmus.ilp.asset import Asset
from isthmus.journal.interface import Journal, StoredBatch
from isthmus.journal.sqlite import SqliteJournal
from isthmus.links.btp.client import BtpClient
from isthmus.runtime import clock
from isthmus.runtime.checkpoints import CheckpointKeeper
from isthmus.runtime.driver import Driver
from isthmus.runtime.opening import open_kernel, replay_wallet
from isthmus.stream.crypto import Keys

# Verifies checkpoints of a wallet's journal, in a process of its own.
REPLAYER: Final = "isthmus.client.core:replay_journal"

ENTROPY_BYTES: Final = 32
SESSION_BYTES: Final = 16
DRAIN_MS_MAX: Final = 2_000  # at the end: what is in flight then is in the journal, and ends by itself

_LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_logger: Final = logging.getLogger("isthmus")
_logger.addHandler(logging.NullHandler())


def log(fact: Log) -> None:
    """To the standard library's logger `isthmus`."""
    _logger.log(_LEVELS[fact.level], "%s %s", fact.event, fact.fields)


@final
class Core:
    """One running wallet. `open` or `open_offline` first, `close` last; everything in one event loop."""

    def __init__(self, settings: WalletSettings, settling: WalletSettling | None = None) -> None:
        self.settings = settings
        self._settling: Final = settling
        self.settler: Settler | None = None  # settles with the connector, once the wallet is open
        self.ledger: Final = WalletLedger()
        # Encrypts what the journal must keep secret.
        self.keys: Final = Keys(_derive(settings.secret, b"isthmus wallet journal"))
        self.problem: str | None = None  # why nothing works any more
        self._kernel: Kernel | None = None
        self._journal: Journal | None = None
        self._driver: Driver | None = None
        self._endpoint: Endpoint | None = None
        self._link: BtpClient | None = None
        self._keeper: CheckpointKeeper | None = None
        self._halted: asyncio.Task[None] | None = None
        self._aftermath: Aftermath | None = None
        self._settled: Final = asyncio.Event()

    # --- life ---------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Take the journal, connect. Raises JournalError, LinkError, ConfigError."""
        if self.settings.asset is None:
            await self._ask()
        self._open_books()
        try:
            await self._start()
            assert self._link is not None
            await wait_up(self._link)
        except BaseException:
            await self.close()
            raise

    def open_offline(self) -> None:
        """Take the journal to read it: nothing is sent or written."""
        assert self.settings.asset is not None
        self._open_books()

    async def close(self) -> None:
        """Finish what is in flight (bounded), let go of everything."""
        driver, journal = self._driver, self._journal
        if driver is not None:
            if self._has_money_in_flight():
                await driver.drain(DRAIN_MS_MAX)
            if self.settler is not None:
                await self.settler.close()
            if self._keeper is not None:
                await self._keeper.close()
            await driver.stop()
        elif journal is not None:
            await asyncio.to_thread(journal.close)
        if self._endpoint is not None:
            self._endpoint.close()
        if self._halted is not None:
            self._halted.cancel()
        self._driver = self._journal = self._link = None

    def _has_money_in_flight(self) -> bool:
        assert self._kernel is not None
        return any(one.reserved_incoming or one.reserved_outgoing for one in self._kernel.books.peers.values())

    async def _ask(self) -> None:
        settings = self.settings
        told = await ask_connector(
            settings.connector, token=settings.token, ca_file=settings.ca_file, allow_insecure=settings.allow_insecure
        )
        self.settings = replace(settings, address=told.address, asset=Asset(told.asset_code, told.asset_scale))

    def _open_books(self) -> None:
        settings = self.settings
        assert settings.asset is not None
        folder = settings.folder
        self._journal = VolatileJournal() if folder is None else SqliteJournal(folder / JOURNAL_FILE)
        self._kernel = open_kernel(
            self._journal, self._tables(), entropy=os.urandom(ENTROPY_BYTES), now=clock.system_now(),
            application=self.ledger,
        )  # fmt: skip
        self._aftermath = Aftermath(self._kernel.books, self.ledger)

    async def _start(self) -> None:
        settings, kernel, journal = self.settings, self._kernel, self._journal
        assert kernel is not None and journal is not None and settings.asset is not None
        driver = Driver(kernel, journal, on_log=log)
        self._driver = driver
        driver.on_address = self._address_learned
        driver.on_commit = self._committed
        if isinstance(journal, SqliteJournal):
            self._keeper = CheckpointKeeper(driver, journal, on_log=log, replayer=REPLAYER)
        endpoint = Endpoint(
            driver,
            session=os.urandom(SESSION_BYTES),
            server_secret=receiver_secret(settings.secret),
            address=settings.address,
            asset=settings.asset,
            timeout_ms=settings.packet_timeout_ms,
            recall=self.ledger.receipts.get,
            on_old_reply=self._old_reply,
        )
        self._endpoint = endpoint
        # A credit is applied while its batch is open: the one after the last appended.
        self.ledger.on_credit = lambda connection, sequence: endpoint.credit_posted(
            connection, sequence, kernel.sequence + 1
        )
        self._link = BtpClient(
            UPLINK,
            settings.connector,
            driver,
            session=kernel.session(UPLINK),
            token=settings.token,
            ca_file=settings.ca_file,
            allow_insecure=settings.allow_insecure,
            on_log=log,
        )
        if self._settling is not None:
            self.settler = Settler(driver, self._settling, settings.asset, log)
        self._halted = asyncio.create_task(self._watch(driver))
        driver.start()
        driver.post(TablesChanged(self._tables()))
        if self.settler is not None:
            await self.settler.start()  # before the link: the connector's claims must find the engine
        for link in (endpoint.link, self._link):
            driver.attach(link)
            await link.start()

    # --- parts --------------------------------------------------------------------------------------------------

    @property
    def endpoint(self) -> Endpoint:
        if self._endpoint is None or self.problem is not None:
            raise LinkError(self.problem or "the wallet is not open")
        return self._endpoint

    @property
    def asset(self) -> Asset:
        assert self.settings.asset is not None
        return self.settings.asset

    @property
    def address(self) -> str:
        return self.settings.address

    @property
    def is_durable(self) -> bool:
        return self.settings.folder is not None

    @property
    def is_up(self) -> bool:
        return self._link is not None and self._link.is_up

    @property
    def trouble(self) -> str | None:
        """Why the connector can't be reached, if it can't."""
        return None if self._link is None or self._link.is_up else self._link.last_failure or "no connection yet"

    @property
    def balance(self) -> int:
        """Of the account with the connector; positive: the connector owes us."""
        assert self._kernel is not None
        account = self._kernel.books.peers.get(UPLINK)
        return 0 if account is None else account.balance

    @property
    def loss(self) -> int:
        """What the connector didn't pay of what we fulfilled: less is owed by us than the balance says."""
        assert self._kernel is not None
        account = self._kernel.books.peers.get(UPLINK)
        return 0 if account is None else account.loss.balance

    async def note(self, data: bytes) -> None:
        """Journal an entry of ours and wait until it is durable."""
        if self.problem is not None or self._driver is None:
            raise JournalError(self.problem or "the wallet is closed")
        await self._driver.note(data)

    def settlement_json(self) -> Json | None:
        """How we settle with the connector; None if we don't by ourselves."""
        if self.settler is not None:
            return self.settler.to_json()
        if self._settling is None:
            return None
        assert self._kernel is not None
        account = self._kernel.books.peers.get(UPLINK)
        return settlement_json(self._settling, None if account is None else account.settling)

    async def until_paid_ahead(self) -> None:
        """Where the connector is paid ahead: wait for what is being paid now, for a while."""
        if self.settler is not None:
            await self.settler.until_paid_ahead()

    async def until_settled(self) -> Aftermath:
        """Wait until each packet of an earlier process has its outcome, by our own clock."""
        aftermath = self._aftermath
        assert aftermath is not None
        while not aftermath.is_settled:
            self._settled.clear()
            await self._settled.wait()
            if self.problem is not None:
                raise JournalError(self.problem)
        return aftermath

    def _old_reply(self, frame: Outbound) -> None:
        assert self._aftermath is not None
        self._aftermath.decided(frame)
        self._settled.set()

    # --- what the driver tells ----------------------------------------------------------------------------------

    def _committed(self, sequence: int) -> None:
        assert self._endpoint is not None
        self._endpoint.durable(sequence)
        if self._keeper is not None:
            self._keeper.committed(sequence)

    def _address_learned(self, told: AddressLearned) -> None:
        asset = Asset(told.asset_code, told.asset_scale)
        if asset != self.asset:
            self._stop_with(
                f"the connector now counts in {asset.code} with scale {asset.scale}, this wallet's books are in"
                f" {self.asset.code} with scale {self.asset.scale}: ask its operator, or make a new wallet"
            )
        elif told.address != self.settings.address:
            self.settings = replace(self.settings, address=told.address)
            assert self._driver is not None and self._endpoint is not None
            self._driver.post(TablesChanged(self._tables()))
            self._endpoint.move(told.address)

    async def _watch(self, driver: Driver) -> None:
        self._stop_with(f"the journal failed: {await driver.halted}")

    def _stop_with(self, problem: str) -> None:
        """Nothing works any more; whoever waits is told."""
        self.problem = problem
        log(Log("error", "wallet.stopped", {"problem": problem}))
        if self._endpoint is not None:
            self._endpoint.close()
        self._settled.set()

    def _tables(self) -> Tables:
        settling = self._settling
        return wallet_tables(
            self.settings.address,
            self.asset,
            self.settings.packet_timeout_ms,
            settle=NO_SETTLEMENT if settling is None else settling.terms,
            receivable_max=None if settling is None else settling.receivable_max,
        )


def replay_journal(state: bytes | None, batches: Iterator[StoredBatch]) -> bytes:
    """The `Replayer` of `journal.verify` for wallets."""
    return replay_wallet(state, batches, WalletLedger())


def receiver_secret(secret: bytes) -> bytes:
    """What all receiving addresses of a wallet follow from, whichever process makes them."""
    return _derive(secret, b"isthmus wallet receiver")


def _derive(secret: bytes, purpose: bytes) -> bytes:
    """A key of its own for each purpose."""
    return hmac.digest(secret, purpose, "sha256")
