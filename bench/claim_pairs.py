"""Pairs of connectors that settle by claims, and the development ledgers that hold their channels.

The first connector serves the load generator's sender, the second its receiver; packets go from the first to the
second, which is owed for them and paid by claims on a payment channel.
"""

import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import aiohttp
from xrpl.constants import CryptoAlgorithm
from xrpl.core.addresscodec import encode_seed

from bench.isthmus_node import ADMIN, SCALE, account_text, free_port, links_up, metric, process
from bench.js_process import JsProcess
from bench.targets import AMOUNT_UNLIMITED, ROOT, TOKENS, Target, js_account
from isthmus.ilp.asset import format_decimal
from isthmus.ledgers.xrp.signatures import SigningKey
from tests.ledgers.evm.anvil import ETHER, Anvil, a_key

AMOUNT: Final = 1_000  # of each packet, in base units of scale 9: a drop, or a gwei times a thousand
BLOCK_S: Final = 0.05
CLOSE_EVERY_MS: Final = 500
OPEN_S_MAX: Final = 90.0  # until the channels of both are open
PEER_TOKEN: Final = "token-between-the-connectors-of-the-bench-01"
KEYS: Final = {"one": a_key(21), "two": a_key(22)}


@dataclass(slots=True, frozen=True)
class Claims:
    """What was settled so far from the first connector to the second."""

    begun: int  # settlements of the first: each wants a claim
    taken: int  # claims that the second verified, wrote down and credited, each higher than the one before
    credited: int  # what they brought, in base units


@dataclass(slots=True, frozen=True)
class Pair:
    """Two connectors with a channel between them, once something was settled."""

    target: Target
    claims: Callable[[], Awaitable[Claims]]
    batches: Callable[[], Awaitable[int]] | None = None  # of both journals so far; None without journals


# Of a threshold in packets; None: nothing is settled.
PairMaker: TypeAlias = Callable[[int | None], AbstractAsyncContextManager[Pair]]


# --- ledgers ---------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def evm_chain() -> AsyncIterator[Anvil]:
    """Anvil with the channels' contract, and a block now and then."""
    chain = await Anvil.start()

    async def mine() -> None:
        while True:
            await chain.mine()
            await asyncio.sleep(BLOCK_S)

    task: asyncio.Task[None] | None = None
    try:
        await chain.fund(a_key(20), *KEYS.values(), amount=1_000_000 * ETHER)
        await chain.deploy_channels(a_key(20))
        task = asyncio.create_task(mine())
        yield chain
    finally:
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await chain.stop()


@dataclass(slots=True, frozen=True)
class XrpLedger:
    """`isthmus ledger xrp-dev`, as a process."""

    web_socket: str
    json_rpc: str

    async def new_seed(self, kind: CryptoAlgorithm) -> str:
        """Of an account that has money and never had a channel."""
        seed = encode_seed(os.urandom(16), kind)
        order = {"destination": SigningKey.from_seed(seed).address}
        async with aiohttp.ClientSession() as http, http.post(f"{self.json_rpc}/accounts", json=order) as answer:
            answer.raise_for_status()
        return seed


@contextlib.asynccontextmanager
async def xrp_ledger() -> AsyncIterator[XrpLedger]:
    command = ("-m", "isthmus", "ledger", "xrp-dev", "--port", "0", "--close-every", str(CLOSE_EVERY_MS), "--json")
    ledger = await asyncio.create_subprocess_exec(sys.executable, *command, stdout=asyncio.subprocess.PIPE, cwd=ROOT)
    assert ledger.stdout is not None
    try:
        facts = json.loads(await asyncio.wait_for(ledger.stdout.readline(), OPEN_S_MAX))
        yield XrpLedger(facts["web_socket"], facts["json_rpc"])
    finally:
        if ledger.returncode is None:
            ledger.send_signal(signal.SIGTERM)
        await ledger.wait()


# --- ours ------------------------------------------------------------------------------------------------------------


def node_text(name: str, ports: dict[str, int], asset: str, settlement: str) -> str:
    """The first node dials the second. `settlement`: tables of the engine and of the account that it settles."""
    other = "two" if name == "one" else "one"
    wallet = "sender" if name == "one" else "receiver"
    served = f'{{ type = "btp-server", token = "{TOKENS[wallet]}" }}'
    url = f"btp+ws://127.0.0.1:{ports['two']}"
    link = (
        f'{{ type = "btp-client", url = "{url}", token = "{PEER_TOKEN}" }}'
        if name == "one"
        else f'{{ type = "btp-server", token = "{PEER_TOKEN}" }}'
    )
    accounts = account_text(wallet, served, "1000000") + account_text(other, link, "1000000").replace("child", "peer")
    return (
        f'address = "test.{name}"\n[listeners.btp]\nlisten = "127.0.0.1:{ports[name]}"\n'
        f'{ADMIN.format(port=ports[f"{name}-admin"])}[routes]\n"test.{other}" = "{other}"\n{accounts}{settlement}'
    ).replace('asset = "USD"', f'asset = "{asset}"')


def settlement_text(name: str, folder: Path, secret: str, engine: str, every: int) -> str:
    """The first node pays, so only it has a threshold."""
    file = folder / f"{name}.key"
    file.write_text(secret)
    file.chmod(0o600)
    threshold = f'threshold = "{format_decimal(every * AMOUNT, SCALE)}"\n' if name == "one" else ""
    other = "two" if name == "one" else "one"
    return (
        f'[accounts.{other}.settlement]\nengine = "ledger"\n{threshold}'
        f'[settlement.ledger]\nkey_file = "{file}"\npoll = "1 s"\ndeposit = "100"\n{engine}'
    )


@contextlib.asynccontextmanager
async def ours(asset: str, engine: str, secrets: dict[str, str], every: int | None) -> AsyncIterator[Pair]:
    """Two nodes with SQLite journals, all limits and metrics on."""
    ports = {name: free_port() for name in ("one", "two", "one-admin", "two-admin")}
    with tempfile.TemporaryDirectory(prefix="isthmus-bench-") as place:
        async with contextlib.AsyncExitStack() as stack:
            pids = []
            for name in ("two", "one"):
                home = Path(place) / name
                home.mkdir()
                settlement = "" if every is None else settlement_text(name, home, secrets[name], engine, every)
                config = home / "node.toml"
                config.write_text(node_text(name, ports, asset, settlement))
                pids.append((await stack.enter_async_context(process("isthmus", config, ports[name]))).pid)
            for name, other in (("one", "two"), ("two", "one")):
                await links_up(ports[f"{name}-admin"], frozenset({other}))
            target = pair_target("isthmus", ports["one"], ports["two"], pids[::-1])
            yield Pair(target, lambda: our_claims(ports), lambda: our_batches(ports))


def pair_target(name: str, sender_port: int, receiver_port: int, pids: list[int]) -> Target:
    return Target(
        name=name,
        sender_url=f"btp+ws://sender:{TOKENS['sender']}@127.0.0.1:{sender_port}/",
        receiver_url=f"btp+ws://receiver:{TOKENS['receiver']}@127.0.0.1:{receiver_port}/",
        destination="test.two.receiver",
        pid=pids[0],
        with_pids=tuple(pids[1:]),
    )


async def our_claims(ports: dict[str, int]) -> Claims:
    """From the metrics of both nodes."""
    begun = await metric(ports["one-admin"], "isthmus_settlements_total", 'event="begun"')
    taken = await metric(ports["two-admin"], "isthmus_settlements_total", 'event="credited"')
    return Claims(begun, taken, await metric(ports["two-admin"], "isthmus_settled", 'account="one"'))


async def our_batches(ports: dict[str, int]) -> int:
    name = "isthmus_journal_commit_seconds_count"
    return sum([await metric(ports[f"{one}-admin"], name, "") for one in ("one", "two")])


def ours_on_evm(chain: Anvil) -> PairMaker:
    engine = f'type = "evm"\nchain_id = {chain.chain_id}\nrpc = "{chain.url}"\nconfirmations = 1\n'
    secrets = {name: key.secret.hex() for name, key in KEYS.items()}
    return lambda every: ours("ETH", engine, secrets, every)


def ours_on_xrp(ledger: XrpLedger) -> PairMaker:
    engine = f'type = "xrp"\nnetwork_id = 1000\nrpc = "{ledger.json_rpc}"\n'

    @contextlib.asynccontextmanager
    async def pair(every: int | None) -> AsyncIterator[Pair]:
        secrets = {name: await ledger.new_seed(CryptoAlgorithm.ED25519) for name in ("one", "two")}
        async with ours("XRP", engine, secrets, every) as found:
            yield found

    return pair


# --- ilp-connector ---------------------------------------------------------------------------------------------------


def js_peer(plugin: dict[str, Any], every: int | None) -> dict[str, Any]:
    """A peer account. Once its balance is below `settleThreshold` the connector pays up to `settleTo`, which is 0: with
    a threshold of 0 each Fulfill makes a payment of one packet, and each payment is a claim of its own.
    """
    balance = {"minimum": f"-{AMOUNT_UNLIMITED}", "maximum": AMOUNT_UNLIMITED}
    if every is not None:
        balance["settleThreshold"] = str(-(every - 1) * AMOUNT)
    return {**js_account("sender"), "relation": "peer", "assetCode": "XRP", "balance": balance, "plugin": plugin}


@contextlib.asynccontextmanager
async def theirs(ledger: XrpLedger, every: int | None) -> AsyncIterator[Pair]:
    """Two processes of ilp-connector with ilp-plugin-xrp-paychan between them, all in memory.

    With nothing to settle they have the same plugin and channels, and no threshold.
    """
    async with contextlib.AsyncExitStack() as stack:
        connectors: dict[str, JsProcess] = {}
        ports: dict[str, int] = {}
        server: dict[str, Any] = {"listener": {"port": 0, "secret": PEER_TOKEN}}
        for name, other, wallet in (("two", "one", "receiver"), ("one", "two", "sender")):
            options = {
                "xrpServer": ledger.web_socket,
                "secret": await ledger.new_seed(CryptoAlgorithm.SECP256K1),
                "assetScale": SCALE,
                "channelAmount": str(100 * 10**SCALE),  # no top-up comes into the run
                "claimInterval": 3_600_000,  # nor a redemption
                **server,
            }
            plugin = {"module": "paychan", "options": options}
            accounts = {
                other: js_peer(plugin, every if name == "one" else None),
                wallet: {**js_account(wallet), "assetCode": "XRP"},
            }
            connector = await JsProcess.start("connector")
            stack.push_async_callback(connector.close)
            routes = [{"targetPrefix": f"test.{other}", "peerId": other}]
            config = {"env": "test", "ilpAddress": f"test.{name}", "accounts": accounts, "routes": routes}
            await connector.call("start", config={**config, "initialConnectTimeout": 1000})
            ports[name] = (await connector.event("listening", account=wallet))["port"]
            if name == "two":
                port = (await connector.event("listening", account=other))["port"]
                server = {"server": f"btp+ws://:{PEER_TOKEN}@127.0.0.1:{port}"}
            connectors[name] = connector
        for name, other in (("two", "one"), ("one", "two")):
            await connectors[name].event("connected", account=other, seconds=OPEN_S_MAX)
            await connectors[name].event("ready", seconds=OPEN_S_MAX)

        async def claims() -> Claims:
            signed = await connectors["one"].call("claims", account="two")
            taken = await connectors["two"].call("claims", account="one")
            return Claims(signed["signed"], taken["taken"], int(taken["total"]))

        pids = [connectors["one"].pid, connectors["two"].pid]
        yield Pair(pair_target("ilp-connector", ports["one"], ports["two"], pids), claims)


def theirs_on_xrp(ledger: XrpLedger) -> PairMaker:
    return lambda every: theirs(ledger, every)


async def until_settled(pair: Pair, owed: int, every: int) -> Claims:
    """Wait until less than the threshold is owed, of what so far was."""
    deadline = time.monotonic() + OPEN_S_MAX
    while (found := await pair.claims()).credited <= owed - every * AMOUNT:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{pair.target.name}: of {owed} only {found.credited} was settled in {OPEN_S_MAX:g} s")
        await asyncio.sleep(0.1)
    return found
