"""A connector for wallets to talk to: a real kernel on a real socket, in the test's own loop."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path

import pytest

from isthmus.client.folder import SETTINGS_FILE, init_folder
from isthmus.client.uplink import ask_connector
from isthmus.client.volatile import VolatileJournal
from isthmus.connector.events import AccountId, Log, Outbound
from isthmus.connector.kernel import Kernel
from isthmus.connector.tables import CHILD, AccountTerms, RateTable, RouteTable, Tables, TablesChanged
from isthmus.ilp.asset import Asset
from isthmus.ilp.ildcp import PEER_FULFILLMENT
from isthmus.ilp.packet import FULFILL, Fulfill, decode_reply, encode_fulfill
from isthmus.links.btp.server import BtpServer, ServerAccount, hash_token
from isthmus.links.port import Link
from isthmus.runtime.driver import Driver

ADDRESS = "test.connector"


@dataclass
class Muffled:
    """A link whose connector takes receivers' words out of Fulfills: the condition doesn't cover them."""

    link: Link
    skip: int = 0  # so many pass untouched, then
    left: int = 0  # so many lose their words

    def __post_init__(self) -> None:
        self.account = self.link.account

    async def start(self) -> None:
        await self.link.start()

    def write(self, frames: list[Outbound]) -> None:
        self.link.write([self._muffle(frame) for frame in frames])

    def _muffle(self, frame: Outbound) -> Outbound:
        fulfill = decode_reply(frame.packet) if frame.packet[0] == FULFILL and self.left else None
        if not isinstance(fulfill, Fulfill) or fulfill.fulfillment == PEER_FULFILLMENT:
            return frame
        if self.skip:
            self.skip -= 1
            return frame
        self.left -= 1
        return Outbound(frame.session, frame.request_id, encode_fulfill(Fulfill(fulfill.fulfillment)))

    def pause_reading(self) -> None:
        self.link.pause_reading()

    def resume_reading(self) -> None:
        self.link.resume_reading()

    def reset(self, why: str) -> None:
        self.link.reset(why)

    async def close(self) -> None:
        await self.link.close()


@dataclass
class Connector:
    """Accounts `alice` (BTC, scale 8) and `bob` (ETH, scale 9) unless told otherwise; the token is the name."""

    assets: dict[str, Asset] = field(default_factory=lambda: {"alice": Asset("BTC", 8), "bob": Asset("ETH", 9)})
    rate: Fraction = Fraction(25)  # ETH for a BTC
    packet_amount_max: int | None = 100_000
    terms: dict[str, object] = field(default_factory=dict)  # for all accounts
    logs: list[Log] = field(default_factory=list)
    driver: Driver | None = None
    server: BtpServer | None = None
    links: dict[str, Muffled] = field(default_factory=dict)

    async def start(self, port: int = 0) -> None:
        self.kernel = Kernel(os.urandom(32))
        driver = Driver(self.kernel, VolatileJournal(), on_log=self.logs.append)
        accounts = [
            ServerAccount(AccountId(name), hash_token(name), self.kernel.session(AccountId(name)))
            for name in self.assets
        ]
        self.server = BtpServer(("127.0.0.1", port), accounts, driver)
        driver.start()
        driver.post(TablesChanged(self.tables()))
        for name in self.assets:
            self.links[name] = Muffled(self.server.link(AccountId(name)))
            driver.attach(self.links[name])
        self.driver = driver
        await self.server.start()

    def tables(self) -> Tables:
        accounts = {}
        for name, asset in self.assets.items():
            terms = AccountTerms(
                id=AccountId(name),
                asset=asset,
                relation=CHILD,
                packet_amount_max=self.packet_amount_max,
                ildcp_server=True,
                child_address=f"{ADDRESS}.{name}",
            )
            accounts[AccountId(name)] = replace(terms, **self.terms)  # type: ignore[arg-type]
        routes = {terms.child_address: name for name, terms in accounts.items()}
        return Tables(ADDRESS, accounts, RouteTable(routes), RateTable({("BTC", "ETH"): self.rate}))

    async def change(self, **changes: object) -> None:
        """New rates or limits, from the next packet on."""
        for name, value in changes.items():
            setattr(self, name, value)
        assert self.driver is not None
        self.driver.post(TablesChanged(self.tables()))
        await asyncio.sleep(0)

    def url(self, name: str, token: str | None = None) -> str:
        assert self.server is not None
        host, port = self.server.address
        secret = name if token is None else token
        return f"btp+ws://:{secret}@{host}:{port}" if secret else f"btp+ws://{host}:{port}"

    def balance(self, name: str) -> int:
        return self.kernel.books.peers[AccountId(name)].balance

    async def stop(self) -> None:
        assert self.driver is not None and self.server is not None
        await self.server.close()
        await self.driver.stop()


MakeConnector = Callable[..., Awaitable[Connector]]


@pytest.fixture
async def make_connector() -> AsyncIterator[MakeConnector]:
    """`await make_connector(rate=..., packet_amount_max=...)`."""
    made: list[Connector] = []

    async def make(**settings: object) -> Connector:
        connector = Connector(**settings)  # type: ignore[arg-type]
        await connector.start()
        made.append(connector)
        return connector

    yield make
    for connector in made:
        await connector.stop()


@pytest.fixture
async def connector(make_connector: MakeConnector) -> Connector:
    return await make_connector()


MakeFolder = Callable[..., Awaitable[Path]]


@pytest.fixture
async def make_folder(tmp_path: Path) -> MakeFolder:
    """`await make_folder(connector, "alice", timeout_ms=2_000)`: what `isthmus wallet init` makes."""

    async def make(connector: Connector, name: str, *, timeout_ms: int | None = None) -> Path:
        told = await ask_connector(connector.url(name))
        folder = tmp_path / name
        init_folder(folder, connector.url(name, token=""), name, told)
        if timeout_ms is not None:
            with (folder / SETTINGS_FILE).open("a") as file:
                file.write(f"packet_timeout_ms = {timeout_ms}\n")
        return folder

    return make
