"""The bank's process is killed while holders pay: what was answered is there, what is sent again happens once."""

import asyncio
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Final

import pytest
import sqlalchemy

from isthmus.errors import LedgerError
from isthmus.ledgers.bank.client import BankAwayError, BankClient
from isthmus.ledgers.bank.database import database_url
from isthmus.ledgers.bank.values import Transfer
from tests.ledgers.bank.conftest import an_order, furnish, new_database, open_bank
from tests.ports import free_port

pytestmark = pytest.mark.slow

HOLDERS: Final = ("ann", "bob", "cy")
TRANSFERS: Final = 40  # of each holder
KILLS: Final = 4
WAIT_S: Final = 60.0


class Process:
    """`isthmus ledger bank run` at one port, again and again."""

    def __init__(self, place: str, folder: Path) -> None:
        self._place: Final = place
        self._folder: Final = folder
        self.port: Final = free_port()
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        command = (sys.executable, "-m", "isthmus", "ledger", "bank", "run", "--json", "--port", str(self.port))
        environment = {**os.environ, "ISTHMUS_BANK_DATABASE": self._place}
        self._process = await asyncio.create_subprocess_exec(
            *command, cwd=self._folder, env=environment, stdout=asyncio.subprocess.PIPE
        )
        assert self._process.stdout is not None
        assert await self._process.stdout.readline()

    async def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        await self._process.wait()


async def test_transfers_happen_once_through_kills_of_the_bank(place: str, tmp_path: Path) -> None:
    """Each is sent until it is answered, by three holders in a ring."""
    bank = open_bank(place)
    furnish(bank, *HOLDERS, money=1_000)
    tokens = {name: bank.new_token(name, "")[1] for name in HOLDERS}
    process = Process(place, tmp_path)
    await process.start()
    done: list[Transfer] = []
    progress = asyncio.Condition()

    async def pay(name: str, payee: str) -> None:
        client = BankClient(f"http://127.0.0.1:{process.port}", name, tokens[name], timeout_s=WAIT_S)
        body = f'{{"to": "{payee}", "amount": "7"}}'.encode()
        for number in range(TRANSFERS):
            made: Transfer | None = None
            while made is None:
                try:
                    made = await client.transfer(f"{name}-{number}", body)
                except BankAwayError:
                    await asyncio.sleep(0.01)  # it is killed, or starts
            async with progress:
                done.append(made)
                progress.notify_all()
        await client.close()

    async with asyncio.timeout(4 * WAIT_S):
        paying = [
            asyncio.create_task(pay(name, payee))
            for name, payee in zip(HOLDERS, (*HOLDERS[1:], HOLDERS[0]), strict=True)
        ]
        for kill in range(1, KILLS + 1):
            wanted = kill * len(HOLDERS) * TRANSFERS // (KILLS + 1)
            async with progress:
                await progress.wait_for(lambda wanted=wanted: len(done) >= wanted)  # type: ignore[misc]
            await process.kill()
            await process.start()
        await asyncio.gather(*paying)
    await process.kill()
    assert bank.audit() == []
    for name in HOLDERS:
        account, entries = bank.statement(name, 0)
        assert (account.balance, account.entries) == (1_000, 1 + 2 * TRANSFERS)
        assert {each.id for each in done if each.order.payer == name} == {
            each.transfer for each in entries if each.amount < 0
        }
    assert set(Counter(each.id for each in done).values()) == {1}
    bank.close()


@pytest.mark.ledger
def test_a_database_that_comes_back_is_used_again(server: str) -> None:
    """Its connections are cut by its operator: what was under way is told as not done, and the next one works."""
    place = new_database(server)
    bank = open_bank(place)
    furnish(bank, "ann", "bob")
    engine = sqlalchemy.create_engine(database_url(place), isolation_level="AUTOCOMMIT")
    cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname IS NOT NULL"

    def pay_while_cut(database: sqlalchemy.Connection) -> None:
        with engine.connect() as connection:
            connection.exec_driver_sql(cut)
        database.exec_driver_sql("SELECT 1")

    with pytest.raises(LedgerError, match="terminat"):
        bank._database.write(pay_while_cut)
    assert bank.transfer(an_order("ann", "bob", 5))[1]
    assert bank.audit() == []
    engine.dispose()
    bank.close()
