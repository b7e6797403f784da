"""Banks on SQLite and on PostgreSQL, and one that is served."""

import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import sqlalchemy
from aiohttp import web

from isthmus.ledgers.bank.client import BankClient
from isthmus.ledgers.bank.database import Database, database_url
from isthmus.ledgers.bank.rules import Bank
from isthmus.ledgers.bank.server import BankServer
from isthmus.ledgers.bank.values import Account, Order
from isthmus.links.http.listener import HttpListener
from isthmus.links.places import StrangerBounds
from isthmus.runtime import clock
from tests.ledgers.bank.postgres import postgresql, why_not

START_MS = 1_800_000_000_000
_NUMBERS = itertools.count(1)


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The URL of a PostgreSQL."""
    reason = why_not()
    if reason:
        pytest.skip(reason)
    with postgresql() as url:
        yield url


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.ledger)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a new bank may be kept."""
    if request.param == "sqlite":
        return str(tmp_path / "bank.db")
    return new_database(request.getfixturevalue("server"))


def new_database(server: str) -> str:
    name = f"bank{next(_NUMBERS)}"
    engine = sqlalchemy.create_engine(database_url(server), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    engine.dispose()
    return server.replace("/postgres?", f"/{name}?")


def open_bank(place: str, now_ms: Callable[[], int] = lambda: START_MS) -> Bank:
    return Bank(Database(database_url(place), new_id=lambda: "the-bank"), now_ms=now_ms)


@pytest.fixture
def bank(place: str) -> Iterator[Bank]:
    """Empty."""
    bank = open_bank(place)
    yield bank
    bank.close()


def an_account(name: str, code: str = "USD", scale: int = 2, overdraft: int | None = 0) -> Account:
    return Account(
        id=name, name="", asset_code=code, asset_scale=scale, balance=0, overdraft=overdraft, entries=0, last_at_ms=0
    )


def an_order(payer: str, payee: str, amount: int, key: str = "k", reference: str = "") -> Order:
    return Order(payer=payer, key=key, payee=payee, amount=amount, reference=reference)


def furnish(bank: Bank, *names: str, money: int = 1_000) -> None:
    """An issuer, and these accounts with money."""
    bank.open_account(an_account("issuer", overdraft=None))
    for name in names:
        bank.open_account(an_account(name))
        bank.transfer(an_order("issuer", name, money, key=f"to-{name}"))


def listener_at(port: int = 0) -> Callable[[web.Application], HttpListener]:
    def make(app: web.Application) -> HttpListener:
        return HttpListener(
            app,
            ("127.0.0.1", port),
            mono_ms=clock.mono_ms,
            ssl_context=None,
            strangers=StrangerBounds(),
            connections_max=8,
            keepalive_timeout=75.0,
            shutdown_timeout=2.0,
        )

    return make


@asynccontextmanager
async def serving(bank: Bank, port: int = 0) -> AsyncIterator[BankServer]:
    server = BankServer(bank, listener_at(port), version="1")
    await server.start()
    try:
        yield server
    finally:
        await server.close()


@asynccontextmanager
async def client(server: BankServer, account: str, token: str, timeout_s: float = 10) -> AsyncIterator[BankClient]:
    one = BankClient(server.url, account, token, timeout_s=timeout_s)
    try:
        yield one
    finally:
        await one.close()
