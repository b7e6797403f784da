"""The ledgers of the campaign: how nodes are configured for each, and what each says was paid."""

import asyncio
import contextlib
import json
import sys
from base64 import b64decode
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final, Protocol

import aiohttp
import sqlalchemy
from xrpl.constants import CryptoAlgorithm
from xrpl.core.addresscodec import encode_seed

from isthmus.errors import LedgerError
from isthmus.ledgers.evm import contract
from isthmus.ledgers.evm.keys import Key
from isthmus.ledgers.xrp.signatures import SigningKey
from tests.ledgers.evm.anvil import ETHER, Anvil, a_key
from tests.ledgers.evm.anvil import missing as missing_chain
from tests.ledgers.lightning.simnet import Simnet
from tests.ledgers.lightning.simnet import why_not as missing_lnd
from tests.ports import free_port
from tests.settlement.conftest import engine
from tests.settlement.toy import ToyLedger

BLOCK_S: Final = 0.02
WEI: Final = 10**9
NANO_A_DROP: Final = 1_000
SIDES: Final = ("east", "west")


class Ledger(Protocol):
    """One ledger, with both sides on it."""

    asset: str
    unit: int  # what one settlement pays at least, in units of accounts, which have nine decimal places
    kills_itself: bool  # whether `kill` can stop and start it again

    def engine(self, side: str, folder: Path) -> str:
        """The TOML of a side's engine, called `bank`."""
        ...

    def account(self, other: str) -> str:
        """Further keys of the account's settlement."""
        ...

    async def paid(self, side: str) -> list[int]:
        """Each payment of this side's, in units of accounts; one sum where the ledger sees no single ones."""
        ...

    async def kill(self, side: str) -> None: ...

    async def left_in_flight(self, side: str) -> list[int]:
        """Payments of this side's that the ledger's server will never end, though nothing of them is under way."""
        return []


class Toy(Ledger):
    """The ledger of the tests: transfers, each once for its id."""

    asset = "USD"
    unit = 10**6
    kills_itself = False

    def __init__(self, ledger: ToyLedger) -> None:
        self._ledger: Final = ledger

    def engine(self, side: str, folder: Path) -> str:
        return engine(self._ledger, side)

    def account(self, other: str) -> str:
        return f'holder = "{other}"\n'

    async def paid(self, side: str) -> list[int]:
        return [int(one["amount"]) for one in self._ledger.transfers if one["source"] == side]

    async def kill(self, side: str) -> None: ...


class Evm(Ledger):
    """anvil, by plain transfers or by channels."""

    asset = "ETH"
    unit = 10**6
    kills_itself = True
    KEYS: Final = {"east": a_key(11), "west": a_key(12)}

    def __init__(self, chain: Anvil, method: str) -> None:
        self._chain: Final = chain
        self._method: Final = method

    def engine(self, side: str, folder: Path) -> str:
        key: Key = self.KEYS[side]
        file = folder / f"{side}.key"
        if not file.exists():
            file.write_text(key.secret.hex())
            file.chmod(0o600)
        return (
            f'[settlement.bank]\ntype = "evm"\nmethod = "{self._method}"\nchain_id = {self._chain.chain_id}\n'
            f'rpc = "{self._chain.url}"\nkey_file = "{file}"\nconfirmations = 3\npoll = "100 ms"\ndeposit = "500"\n'
        )

    def account(self, other: str) -> str:
        return ""

    async def paid(self, side: str) -> list[int]:
        if self._method == "channels":
            return []  # claims: the books of both sides are what tells
        found = []
        for number in range(await self._chain.height() + 1):
            block = await self._chain.rpc("eth_getBlockByNumber", hex(number), True)
            for one in block["transactions"]:
                if one["from"].lower() == self.KEYS[side].address:
                    assert int((await self._chain.receipt(one["hash"]))["status"], 16) == 1
                    found.append(int(one["value"], 16) // WEI)
        return found

    async def kill(self, side: str) -> None:
        await self._chain.start_again()


class Lightning(Ledger):
    """Two lnds on a simnet, which can be killed too."""

    asset = "BTC"
    unit = 10**4  # a thousand satoshi: the channel's liquidity lasts
    kills_itself = True

    def __init__(self, simnet: Simnet, *, keysend: bool) -> None:
        self._simnet: Final = simnet
        self._mode: Final = "keysend" if keysend else "invoice"
        self._nodes: Final = {"east": simnet.alice, "west": simnet.bob}

    def engine(self, side: str, folder: Path) -> str:
        lnd = self._nodes[side].settings
        return (
            f'[settlement.bank]\ntype = "lightning"\nurl = "{lnd.url}"\ncertificate = "{lnd.certificate}"\n'
            f'macaroon = "{lnd.macaroon}"\nmode = "{self._mode}"\n'
        )

    def account(self, other: str) -> str:
        return ""

    async def paid(self, side: str) -> list[int]:
        """A unit of accounts is a hundred millisatoshi: nine decimal places of a bitcoin."""
        return [amount for amount, status, _ in await self._payments(side) if status == "SUCCEEDED"]

    async def left_in_flight(self, side: str) -> list[int]:
        """What this lnd calls in flight, though no channel of it holds an HTLC for it (docs/lightning.md)."""
        channels = (await self._nodes[side].api.get("/v1/channels"))["channels"]
        held = {b64decode(htlc["hash_lock"]).hex() for one in channels for htlc in one["pending_htlcs"]}
        payments = await self._payments(side)
        return [amount for amount, status, hash_ in payments if status == "IN_FLIGHT" and hash_ not in held]

    async def _payments(self, side: str) -> list[tuple[int, str, str]]:
        query = "/v1/payments?max_payments=10000&include_incomplete=true"
        found = (await self._nodes[side].api.get(query))["payments"]
        return [(int(one["value_msat"]) // 100, str(one["status"]), str(one["payment_hash"])) for one in found]

    async def kill(self, side: str) -> None:
        node = self._nodes[side]
        await node.kill()
        await node.start()


class Xrp(Ledger):
    """`isthmus ledger xrp-dev` with a file, by channels or by plain payments: a process that is killed too."""

    asset = "XRP"
    unit = 10**6
    kills_itself = True
    SEEDS: Final = {side: encode_seed(side.encode() * 4, CryptoAlgorithm.ED25519) for side in SIDES}

    def __init__(self, folder: Path, kind: str) -> None:
        self._file: Final = folder / "xrp.db"
        self._kind: Final = kind
        self._port: Final = free_port()
        self._url: Final = f"http://127.0.0.1:{self._port}"
        self._process: asyncio.subprocess.Process | None = None

    async def begin(self) -> None:
        place = ("--file", str(self._file), "--port", str(self._port), "--close-every", "300", "--json")
        funds = [f"--fund={SigningKey.from_seed(seed).address}" for seed in self.SEEDS.values()]
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "isthmus", "ledger", "xrp-dev", *place, *funds, "--fund-with", "10000"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        assert self._process.stdout is not None
        assert await self._process.stdout.readline(), "the ledger ended"

    def engine(self, side: str, folder: Path) -> str:
        file = folder / f"{side}.seed"
        if not file.exists():
            file.write_text(self.SEEDS[side])
            file.chmod(0o600)
        deposit = 'deposit = "50"\n' if self._kind == "xrp" else ""
        return (
            f'[settlement.bank]\ntype = "{self._kind}"\nnetwork_id = 1000\nrpc = "{self._url}"\n'
            f'key_file = "{file}"\npoll = "100 ms"\n{deposit}'
        )

    def account(self, other: str) -> str:
        return ""

    async def paid(self, side: str) -> list[int]:
        if self._kind == "xrp":
            return []  # claims, as with `Evm`
        source, found = SigningKey.from_seed(self.SEEDS[side]).address, []
        asked: dict[str, Any] = {"account": source, "forward": True, "limit": 400}
        async with aiohttp.ClientSession() as session:
            while True:
                async with session.post(self._url, json={"method": "account_tx", "params": [asked]}) as response:
                    result = (await response.json())["result"]
                for one in result["transactions"]:
                    if one["tx"]["Account"] == source:
                        assert one["meta"]["TransactionResult"] == "tesSUCCESS", one
                        found.append(int(one["tx"]["Amount"]) * NANO_A_DROP)
                if "marker" not in result:
                    return found
                asked["marker"] = result["marker"]

    async def kill(self, side: str) -> None:
        await self.close()
        await self.begin()

    async def close(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()


class Bank(Ledger):
    """`isthmus ledger bank`, a process that is killed too."""

    asset = "USD"
    unit = 10**7  # a cent
    kills_itself = True

    def __init__(self, folder: Path) -> None:
        self._folder: Final = folder
        self._port: Final = free_port()
        self._tokens: Final[dict[str, str]] = {}
        self._process: asyncio.subprocess.Process | None = None

    async def begin(self) -> None:
        await self._start()
        await self._command("open", "issuer", "USD", "--overdraft", "unlimited")
        for side in SIDES:
            await self._command("open", side, "USD", "--overdraft", "unlimited")
            self._tokens[side] = (await self._command("token", "new", side))["token"]

    async def _start(self) -> None:
        place = ("--database", str(self._folder / "bank.db"), "--token-file", str(self._folder / "bank.token"))
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "isthmus", "ledger", "bank", "run", *place, "--port", str(self._port), "--json"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        assert self._process.stdout is not None
        assert await self._process.stdout.readline(), "the bank ended"

    async def _command(self, *arguments: str) -> dict[str, Any]:
        at = ("--url", f"http://127.0.0.1:{self._port}", "--token-file", str(self._folder / "bank.token"))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "isthmus", "ledger", "bank", *arguments, "--json", *at),
            stdout=asyncio.subprocess.PIPE,
        )
        out, _ = await process.communicate()
        assert process.returncode == 0, arguments
        found: dict[str, Any] = json.loads(out)
        return found

    def engine(self, side: str, folder: Path) -> str:
        return (
            f'[settlement.bank]\ntype = "bank"\nurl = "http://127.0.0.1:{self._port}"\naccount = "{side}"\n'
            f'token = "{self._tokens[side]}"\nasset = "USD"\nscale = 2\npoll = "100 ms"\n'
        )

    def account(self, other: str) -> str:
        return "ledger_scale = 2\n"

    async def paid(self, side: str) -> list[int]:
        found: list[int] = []
        engine = sqlalchemy.create_engine(f"sqlite:///{self._folder / 'bank.db'}")
        with engine.connect() as connection:
            rows = connection.exec_driver_sql("SELECT amount FROM transfers WHERE payer = ?", (side,))
            found += [int(row[0]) * self.unit for row in rows]
        engine.dispose()
        return found

    async def kill(self, side: str) -> None:
        await self.close()
        await self._start()

    async def close(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()


@contextlib.asynccontextmanager
async def opened(kind: str, folder: Path) -> AsyncIterator[Ledger]:
    """The ledger of this kind, running."""
    if kind == "toy":
        ledger = await ToyLedger().start()
        try:
            yield Toy(ledger)
        finally:
            await ledger.close()
    elif kind == "bank":
        bank = Bank(folder)
        try:
            await bank.begin()
            yield bank
        finally:
            await bank.close()
    elif kind in ("xrp", "xrp-payment"):
        xrp = Xrp(folder, kind)
        try:
            await xrp.begin()
            yield xrp
        finally:
            await xrp.close()
    elif kind in ("transfers", "channels"):
        async with _chain(folder) as chain:
            yield Evm(chain, kind)
    else:
        async with Simnet(folder) as simnet:
            yield Lightning(simnet, keysend=kind == "keysend")


def missing(kind: str) -> str:
    """Why there can be no such ledger here; "" if there can."""
    if kind in ("transfers", "channels"):
        return missing_chain() or ""
    return missing_lnd() if kind in ("lightning", "keysend") else ""


KINDS: Final = ("toy", "bank", "xrp", "xrp-payment", "transfers", "channels", "lightning", "keysend")


@contextlib.asynccontextmanager
async def _chain(folder: Path) -> AsyncIterator[Anvil]:
    chain = await Anvil.start(state=folder / "chain.json")

    async def mine() -> None:
        while True:
            with contextlib.suppress(LedgerError):  # it is started again
                await chain.mine()
            await asyncio.sleep(BLOCK_S)

    task: asyncio.Task[None] | None = None
    try:
        deployer = a_key(10)
        await chain.fund(deployer, *Evm.KEYS.values(), amount=100_000 * ETHER)
        await chain.deploy_channels(deployer)
        assert contract.address()
        task = asyncio.create_task(mine())
        yield chain
    finally:
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await chain.stop()
