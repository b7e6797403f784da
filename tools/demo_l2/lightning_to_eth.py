"""Alice pays from a Lightning channel, Bob is paid by an Ethereum channel; all real programs, all money of theirs.

Alice's wallet settles ahead over Lightning (her connector gives her no credit). The connectors settle with each other
by transfers on the chain. Bob's wallet is paid by claims on a payment channel; he trusts his connector with a little.
"""

import asyncio
import contextlib
import json
import secrets
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import isthmus
from isthmus.cli.demo.audit import NodeBooks, disagreements, read_books
from isthmus.cli.demo.network import ALICE, BOB, BTP, HOST, UPLINK, Pair, btp_url
from isthmus.cli.demo.parties import make_wallet, start_receiving
from isthmus.cli.demo.processes import Child, DemoError, Processes, connected, free_ports, routed, running
from isthmus.cli.demo.run import write_private
from isthmus.client.payment import COMPLETED, Progress
from isthmus.client.session import open_session
from isthmus.client.streams import base_rate
from isthmus.connector.books import settled_name
from isthmus.ilp.asset import Asset, format_amount, parse_amount
from isthmus.ledgers.evm import contract
from isthmus.ledgers.evm.keys import Key
from isthmus.node.wallet_settlement import FILE, load_wallet_settlement
from tests.ledgers.evm.anvil import ETHER, Anvil
from tests.ledgers.lightning.simnet import Simnet
from tools.demo_l2.show import Audience, Fact, Result

BTC: Final = Asset("BTC", 11)  # to the millisatoshi
ETH: Final = Asset("ETH", 9)
WEI_ASSET: Final = Asset("ETH", 18)
WEI: Final = 10 ** (WEI_ASSET.scale - ETH.scale)  # for one of the accounts' base units
AMOUNT: Final = parse_amount("0.0004", BTC)
PRICE: Final = Fraction(25)  # ETH for a BTC
LEAST: Final = PRICE * Fraction(98, 100)
ONE, TWO = "connector-1", "connector-2"
PAIRS: Final = (
    Pair(ALICE, UPLINK, ONE, ALICE, BTP),
    Pair(ONE, TWO, TWO, ONE, BTP),
    Pair(TWO, BOB, BOB, UPLINK, BTP),
)
# What each is trusted with, in its own words; nothing beyond it is ever owed.
BOBS_TRUST: Final = "0.003"
CONNECTORS_TRUST: Final = "0.006"
BLOCK_S: Final = 0.05
QUIET_S_MAX: Final = 60.0
POLL_S: Final = 0.1
LEAVE_S_MAX: Final = 120.0


@dataclass(slots=True, kw_only=True)
class Keys:
    """On the chain. Each engine has one of its own: two senders of one key would take each other's turn."""

    one: Key
    two: Key
    channels: Key
    bob: Key


class LightningToEth:
    """The run. `await run()` once."""

    title = "Alice's Lightning channel → Bob's Ethereum address"

    def __init__(self, folder: Path, audience: Audience) -> None:
        self._folder: Final = folder
        self._audience: Final = audience
        self._tokens: Final = {name: secrets.token_urlsafe(32) for name in ("alice", "two", "bob", "admin")}
        self._ports: Final = dict(zip(("one", "two", "one-admin", "two-admin"), free_ports(4), strict=True))

    async def run(self) -> Result:
        """DemoError if something fails; what doesn't add up is in the result."""
        async with contextlib.AsyncExitStack() as stack:
            self._audience.step("Starting a Bitcoin simnet: btcd, two lnds with a channel between them")
            simnet = await stack.enter_async_context(Simnet(_made(self._folder / "lightning")))
            self._audience.step("Starting an Ethereum chain (anvil) with the channels' contract on it")
            chain = await stack.enter_async_context(_chain())
            keys = await _keys(chain)
            return await self._with_ledgers(simnet, chain, keys)

    async def _with_ledgers(self, simnet: Simnet, chain: Anvil, keys: Keys) -> Result:
        before = await _Ledgers.look(simnet, chain, keys)
        async with Processes(self._folder / "logs") as processes:
            self._audience.step("Starting two connectors, a wallet for Alice and one for Bob")
            await self._start_connectors(processes, simnet, chain, keys)
            await self._make_wallets(simnet, chain, keys)
            receiver, url = await self._receive(processes)
            self._audience.step("Alice settles ahead over Lightning, and pays")
            result = await processes.guard(self._pay(url))
            self._audience.step("Bob's wallet redeems what the channel owes it, and closes")
            received = await _ended(receiver)
            processes.children.pop(BOB)
            self._audience.step("Bob ends the channel")
            await self._end_channel()
            await self._until_quiet()
            channels = await self._channels()
            self._audience.step("Stopping the connectors")
            badly = await processes.stop()
        after = await _Ledgers.look(simnet, chain, keys)
        books = await asyncio.to_thread(self._read)
        fees = await _fees(chain, keys.bob)
        facts = _facts(before, after, books, fees)
        problems = [*disagreements(PAIRS, books), *badly, *(fact.text for fact in facts if not fact.holds)]
        return Result(
            title=self.title,
            sent=(result.sent, BTC),
            delivered=(result.delivered, ETH),
            packets=result.packets,
            seconds=result.seconds,
            facts=facts,
            books=books,
            pairs=PAIRS,
            channels=channels,
            notes=[
                *(f"Bob's wallet said: {line}" for line in received.splitlines() if line and not line.startswith("{")),
                f"Bob paid the chain {format_amount(fees, WEI_ASSET)} in fees: to redeem, and to end the channel.",
            ],
            problems=problems,
        )

    # --- files ------------------------------------------------------------------------------------------------------

    async def _start_connectors(self, processes: Processes, simnet: Simnet, chain: Anvil, keys: Keys) -> None:
        for name, text in ((ONE, self._one(simnet, chain, keys)), (TWO, self._two(chain, keys))):
            write_private(self._folder / name / "isthmus.toml", text)
            write_private(self._folder / name / "admin.token", self._tokens["admin"] + "\n")
        children = []
        for name in (TWO, ONE):
            config = self._folder / name / "isthmus.toml"
            children.append(await processes.start(name, "node", "run", str(config)))
        for child in children:
            await running(child, self._folder / child.name / "data" / "running.json")
        for child in children:
            await connected(child, self._admin(child.name), waiting_for=frozenset((ALICE, BOB)))
        for child in children:
            other = TWO if child.name == ONE else ONE
            await routed(child, self._admin(child.name), self._tokens["admin"], frozenset((f"test.{other}",)))

    def _admin(self, name: str) -> str:
        return f"http://{HOST}:{self._ports['one-admin' if name == ONE else 'two-admin']}"

    def _one(self, simnet: Simnet, chain: Anvil, keys: Keys) -> str:
        lnd = simnet.bob.settings
        return f"""\
address = "test.{ONE}"
data = "data"

[accounts.{ALICE}]
asset = "BTC"
scale = {BTC.scale}
relation = "child"
link = {{ type = "btp-server", token = "{self._tokens["alice"]}" }}
[accounts.{ALICE}.limits]
receivable = "0"       # no credit: Alice pays ahead
packet = "0.000002"
[accounts.{ALICE}.settlement]
engine = "lightning"

[accounts.{TWO}]
asset = "ETH"
scale = {ETH.scale}
relation = "peer"
link = {{ type = "btp-client", url = "{btp_url(self._ports["two"])}", token = "{self._tokens["two"]}" }}
[accounts.{TWO}.limits]
receivable = "0"
[accounts.{TWO}.settlement]
engine = "chain"
threshold = "0.002"

[settlement.lightning]
type = "lightning"
url = "{lnd.url}"
certificate = "{lnd.certificate}"
macaroon = "{lnd.macaroon}"

{self._engine("chain", "transfers", chain, self._key(ONE, keys.one))}
[rates]
"BTC/ETH" = {{ rate = "{PRICE}", spread = "0.3 %" }}
{self._listeners("one")}"""

    def _two(self, chain: Anvil, keys: Keys) -> str:
        return f"""\
address = "test.{TWO}"
data = "data"

[accounts.{ONE}]
asset = "ETH"
scale = {ETH.scale}
relation = "peer"
link = {{ type = "btp-server", token = "{self._tokens["two"]}" }}
[accounts.{ONE}.limits]
receivable = "{CONNECTORS_TRUST}"
[accounts.{ONE}.settlement]
engine = "chain"

[accounts.{BOB}]
asset = "ETH"
scale = {ETH.scale}
relation = "child"
link = {{ type = "btp-server", token = "{self._tokens["bob"]}" }}
[accounts.{BOB}.limits]
receivable = "0"
[accounts.{BOB}.settlement]
engine = "channels"
threshold = "0.001"

{self._engine("chain", "transfers", chain, self._key(TWO, keys.two))}
{self._engine("channels", "channels", chain, self._key(f"{TWO}-channels", keys.channels))}
{self._listeners("two")}"""

    def _engine(self, name: str, method: str, chain: Anvil, key_file: Path) -> str:
        return f'[settlement.{name}]\ntype = "evm"\n{_evm(method, chain, key_file)}'

    def _listeners(self, which: str) -> str:
        return (
            f'[listeners.btp]\nlisten = "{HOST}:{self._ports[which]}"\n'
            f'[admin]\nlisten = "{HOST}:{self._ports[f"{which}-admin"]}"\ntoken = {{ file = "admin.token" }}\n'
        )

    def _key(self, name: str, key: Key) -> Path:
        path = self._folder / "keys" / f"{name}.key"
        write_private(path, key.secret.hex() + "\n")
        return path

    async def _make_wallets(self, simnet: Simnet, chain: Anvil, keys: Keys) -> None:
        lnd = simnet.alice.settings
        await make_wallet(self._folder / ALICE, btp_url(self._ports["one"]), self._tokens["alice"])
        write_private(
            self._folder / ALICE / FILE,
            f'type = "lightning"\nthreshold = "-0.00005"\ntarget = "-0.0002"\n[engine]\nurl = "{lnd.url}"\n'
            f'certificate = "{lnd.certificate}"\nmacaroon = "{lnd.macaroon}"\n',
        )
        await make_wallet(self._folder / BOB, btp_url(self._ports["two"]), self._tokens["bob"])
        write_private(
            self._folder / BOB / FILE,
            f'type = "evm"\nreceivable = "{BOBS_TRUST}"\n[engine]\n{_evm("channels", chain, self._key(BOB, keys.bob))}',
        )

    # --- what happens -----------------------------------------------------------------------------------------------

    async def _receive(self, processes: Processes) -> tuple[Child, str]:
        url = await start_receiving(processes, BOB, self._folder / BOB)
        return processes.children[BOB], url

    async def _pay(self, url: str) -> Any:
        def tell(progress: Progress) -> None:
            self._audience.progress(progress.sent, AMOUNT, progress.delivered, ETH)

        async with isthmus.connect(self._folder / ALICE) as wallet:
            result = await wallet.pay(url, AMOUNT, min_rate=LEAST, on_progress=tell)
        self._audience.done()
        if result.status != COMPLETED:
            raise DemoError(f"the payment {result.status}: {result.detail}")
        if result.delivered < int(AMOUNT * base_rate(LEAST, BTC, ETH)):
            raise DemoError(f"{result.delivered} gwei arrived, less than was promised")
        return result

    async def _end_channel(self) -> None:
        session = await open_session(self._folder / BOB, settle=load_wallet_settlement)
        try:
            left = (await session.ask("leave", {"always": True, "ends": True}))["channels"]
        finally:
            await session.close()
        if not all(one["is_redeemed"] for one in left):
            raise DemoError("Bob's channel is not redeemed")

    async def _channels(self) -> list[dict[str, Any]]:
        """Those that connectors still have."""
        found = []
        for name in (ONE, TWO):
            answer = await _get(f"{self._admin(name)}/channels", self._tokens["admin"])
            found += [{**one, "node": name} for one in answer["channels"]]
        return found

    async def _until_quiet(self) -> None:
        """Until no settlement is under way and neighbours' books agree."""
        deadline = asyncio.get_running_loop().time() + QUIET_S_MAX
        while True:
            under_way = 0
            for name in (ONE, TWO):
                answer = await _get(f"{self._admin(name)}/settlements", self._tokens["admin"])
                under_way += len(answer["settlements"])
            if not under_way and not disagreements(PAIRS, await asyncio.to_thread(self._read)):
                return
            if asyncio.get_running_loop().time() > deadline:
                return  # the result says what doesn't agree
            await asyncio.sleep(POLL_S)

    def _read(self) -> dict[str, NodeBooks]:
        folders = {ALICE: ALICE, BOB: BOB, ONE: f"{ONE}/data", TWO: f"{TWO}/data"}
        return {name: read_books(name, self._folder / place) for name, place in folders.items()}


# --- ledgers ---------------------------------------------------------------------------------------------------------


@dataclass(slots=True, frozen=True, kw_only=True)
class _Ledgers:
    """What ledgers say at one moment."""

    alice_msat: int  # all that Alice's lnd has paid, with fees
    fees_msat: int
    received_msat: int  # all that the connector's lnd was paid
    two_wei: int
    bob_wei: int
    contract_wei: int

    @classmethod
    async def look(cls, simnet: Simnet, chain: Anvil, keys: Keys) -> "_Ledgers":
        payments = (await simnet.alice.api.get("/v1/payments"))["payments"]
        paid = [one for one in payments if one["status"] == "SUCCEEDED"]
        invoices = (await simnet.bob.api.get("/v1/invoices"))["invoices"]
        fees = sum(int(one["fee_msat"]) for one in paid)
        return cls(
            alice_msat=sum(int(one["value_msat"]) for one in paid) + fees,
            fees_msat=fees,
            received_msat=sum(int(one["amt_paid_msat"]) for one in invoices if one["state"] == "SETTLED"),
            two_wei=await chain.balance(keys.two.address),
            bob_wei=await chain.balance(keys.bob.address),
            contract_wei=await chain.balance(contract.address()),
        )


def _facts(before: _Ledgers, after: _Ledgers, books: dict[str, NodeBooks], bobs_fees: int) -> list[Fact]:
    """Each what a ledger says beside what books say; they must be the same to the unit."""

    def settled(name: str, account: str) -> int:
        return books[name].tally.balances.get(settled_name(account), 0)

    fees = after.fees_msat - before.fees_msat
    received = after.received_msat - before.received_msat
    rows = (
        ("left Alice's lnd, with fees", after.alice_msat - before.alice_msat, BTC, -settled(ALICE, UPLINK) + fees),
        ("came to connector-1's lnd", received, BTC, settled(ONE, ALICE)),
        ("came to connector-2's address", after.two_wei - before.two_wei, WEI_ASSET, settled(TWO, ONE) * WEI),
        (
            "came to Bob's address, less fees",
            after.bob_wei - before.bob_wei,
            WEI_ASSET,
            settled(BOB, UPLINK) * WEI - bobs_fees,
        ),
        ("left in the channels' contract", after.contract_wei, WEI_ASSET, 0),
    )
    return [Fact(*row) for row in rows]


async def _fees(chain: Anvil, key: Key) -> int:
    """What an address has paid for gas, in all blocks."""
    total = 0
    for number in range(await chain.height() + 1):
        block = await chain.rpc("eth_getBlockByNumber", hex(number), True)
        for one in block["transactions"]:
            if one["from"].lower() == key.address:
                receipt = await chain.receipt(one["hash"])
                total += int(receipt["gasUsed"], 16) * int(receipt["effectiveGasPrice"], 16)
    return total


@contextlib.asynccontextmanager
async def _chain() -> AsyncIterator[Anvil]:
    """A chain that makes blocks by itself."""
    chain = await Anvil.start()

    async def mine() -> None:
        while True:
            await chain.mine()
            await asyncio.sleep(BLOCK_S)

    task: asyncio.Task[None] | None = None
    try:
        deployer = _new_key()
        await chain.fund(deployer)
        await chain.deploy_channels(deployer)
        task = asyncio.create_task(mine())
        yield chain
    finally:
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await chain.stop()


async def _keys(chain: Anvil) -> Keys:
    keys = Keys(one=_new_key(), two=_new_key(), channels=_new_key(), bob=_new_key())
    await chain.fund(keys.one, keys.two, keys.channels, amount=10 * ETHER)
    await chain.fund(keys.bob, amount=ETHER // 100)  # for fees
    return keys


def _new_key() -> Key:
    return Key(secrets.token_bytes(32))


def _evm(method: str, chain: Anvil, key_file: Path) -> str:
    deposit = 'deposit = "0.05"\n' if method == "channels" else ""
    return (
        f'method = "{method}"\nchain_id = {chain.chain_id}\nrpc = "{chain.url}"\nkey_file = "{key_file}"\n'
        f'confirmations = 3\npoll = "100 ms"\n{deposit}'
    )


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


async def _ended(child: Child) -> str:
    """End `isthmus receive` as Ctrl-C does; what it said."""
    child.tell(signal.SIGINT)
    async with asyncio.timeout(LEAVE_S_MAX):
        status = await child.ended()
    if status:
        raise DemoError(child.obituary())
    return child.log.read_text()


async def _get(url: str, token: str) -> dict[str, Any]:
    import aiohttp

    headers = {"Authorization": f"Bearer {token}"}
    async with aiohttp.ClientSession(headers=headers) as http, http.get(url) as answer:
        found: dict[str, Any] = json.loads(await answer.text())
        return found
