"""Alice pays from a Lightning channel, Bob is paid by an Ethereum channel; all real programs, all money of theirs.

Alice's wallet settles ahead over Lightning (her connector gives her no credit). The connectors settle with each other
by transfers on the chain. Bob's wallet is paid by claims on a payment channel; he trusts his connector with a little.
"""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from isthmus.cli.demo.audit import NodeBooks
from isthmus.cli.demo.network import ALICE, BOB, UPLINK
from isthmus.cli.demo.processes import DemoError, Processes
from isthmus.client.session import open_session
from isthmus.ilp.asset import Asset, format_amount, parse_amount
from isthmus.ledgers.evm import contract
from isthmus.ledgers.evm.keys import Key
from isthmus.node.wallet_settlement import load_wallet_settlement
from tests.ledgers.evm.anvil import ETHER, Anvil
from tests.ledgers.lightning.simnet import Simnet
from tools.demo_l2.base import ONE, TWO, Demo, settled
from tools.demo_l2.show import Fact

BTC: Final = Asset("BTC", 11)  # to the millisatoshi
ETH: Final = Asset("ETH", 9)
WEI_ASSET: Final = Asset("ETH", 18)
WEI: Final = 10 ** (WEI_ASSET.scale - ETH.scale)  # for one of the accounts' base units
# What each is trusted with, in its own words; nothing beyond it is ever owed.
ALICES_TRUST: Final = "0.0002"  # what she pays ahead, and no more
BOBS_TRUST: Final = "0.003"
CONNECTORS_TRUST: Final = "0.006"
BLOCK_S: Final = 0.05


@dataclass(slots=True, frozen=True, kw_only=True)
class Seen:
    """What ledgers say at one moment."""

    alice_msat: int  # all that Alice's lnd has paid, with fees
    fees_msat: int
    received_msat: int  # all that the connector's lnd was paid
    wei: dict[str, int]  # of each key's address
    contract_wei: int


class LightningToEth(Demo[Seen]):
    """btcd, two lnds, anvil."""

    title = "Alice's Lightning channel → Bob's Ethereum address"
    source = BTC
    destination = ETH
    amount = parse_amount("0.0004", BTC)
    price = Fraction(25)
    least = price * Fraction(98, 100)

    @contextlib.asynccontextmanager
    async def ledgers(self, processes: Processes) -> AsyncIterator[None]:
        self.audience.step("Starting a Bitcoin simnet: btcd, two lnds with a channel between them")
        place = self.folder / "lightning"
        place.mkdir()
        async with contextlib.AsyncExitStack() as stack:
            self.simnet = await stack.enter_async_context(Simnet(place))
            self.audience.step("Starting an Ethereum chain (anvil) with the channels' contract on it")
            self.chain = await stack.enter_async_context(_chain())
            # Each engine has a key of its own: two senders of one key would take each other's turn.
            self.keys = {name: Key(secrets.token_bytes(32)) for name in ("one", "two", "channels", "bob")}
            for name, key in self.keys.items():
                await self.chain.fund(key, amount=ETHER // 100 if name == "bob" else 10 * ETHER)  # Bob's is for fees
            yield

    def one(self) -> str:
        lnd = self.simnet.bob.settings
        alice = self.account(
            ALICE, BTC, 'receivable = "0"  # no credit: she pays ahead\npacket = "0.000002"', 'engine = "lightning"'
        )
        two = self.account(TWO, ETH, 'receivable = "0"', 'engine = "chain"\nthreshold = "0.002"')
        return (
            f'address = "test.{ONE}"\ndata = "data"\n{alice}{two}'
            f'[settlement.lightning]\ntype = "lightning"\nurl = "{lnd.url}"\ncertificate = "{lnd.certificate}"\n'
            f'macaroon = "{lnd.macaroon}"\n{self._engine("chain", "transfers", "one")}'
            f'[rates]\n"BTC/ETH" = {{ rate = "{self.price}", spread = "0.3 %" }}\n'
        )

    def two(self) -> str:
        one = self.account(ONE, ETH, f'receivable = "{CONNECTORS_TRUST}"', 'engine = "chain"')
        bob = self.account(BOB, ETH, 'receivable = "0"', 'engine = "channels"\nthreshold = "0.001"')
        return (
            f'address = "test.{TWO}"\ndata = "data"\n{one}{bob}'
            f"{self._engine('chain', 'transfers', 'two')}{self._engine('channels', 'channels', 'channels')}"
        )

    def settlements(self) -> dict[str, str]:
        lnd = self.simnet.alice.settings
        return {
            ALICE: f'type = "lightning"\nthreshold = "-0.00005"\ntarget = "-{ALICES_TRUST}"\n'
            f'receivable = "{ALICES_TRUST}"\n[engine]\nurl = "{lnd.url}"\n'
            f'certificate = "{lnd.certificate}"\nmacaroon = "{lnd.macaroon}"\n',
            BOB: f'type = "evm"\nreceivable = "{BOBS_TRUST}"\n[engine]\n{self._options("channels", "bob")}',
        }

    def _engine(self, name: str, method: str, key: str) -> str:
        return f'[settlement.{name}]\ntype = "evm"\n{self._options(method, key)}'

    def _options(self, method: str, key: str) -> str:
        file = self.key(key, self.keys[key].secret.hex())
        deposit = 'deposit = "0.05"\n' if method == "channels" else ""
        return (
            f'method = "{method}"\nchain_id = {self.chain.chain_id}\nrpc = "{self.chain.url}"\nkey_file = "{file}"\n'
            f'confirmations = 3\npoll = "100 ms"\n{deposit}'
        )

    async def after(self) -> None:
        """Bob ends the channel."""
        self.audience.step("Bob ends the channel")
        session = await open_session(self.folder / BOB, settle=load_wallet_settlement)
        try:
            left = (await session.ask("leave", {"always": True, "ends": True}))["channels"]
        finally:
            await session.close()
        if not all(one["is_redeemed"] for one in left):
            raise DemoError("Bob's channel is not redeemed")

    async def look(self) -> Seen:
        payments = (await self.simnet.alice.api.get("/v1/payments"))["payments"]
        paid = [one for one in payments if one["status"] == "SUCCEEDED"]
        invoices = (await self.simnet.bob.api.get("/v1/invoices"))["invoices"]
        fees = sum(int(one["fee_msat"]) for one in paid)
        return Seen(
            alice_msat=sum(int(one["value_msat"]) for one in paid) + fees,
            fees_msat=fees,
            received_msat=sum(int(one["amt_paid_msat"]) for one in invoices if one["state"] == "SETTLED"),
            wei={name: await self.chain.balance(key.address) for name, key in self.keys.items()},
            contract_wei=await self.chain.balance(contract.address()),
        )

    async def compare(self, before: Seen, after: Seen, books: dict[str, NodeBooks]) -> tuple[list[Fact], list[str]]:
        lightning_fees = after.fees_msat - before.fees_msat
        fees = await self._fees()
        gained = {name: after.wei[name] - before.wei[name] for name in self.keys}
        settled_wei = settled(books, TWO, ONE) * WEI
        to_bob = settled(books, BOB, UPLINK) * WEI
        left = after.alice_msat - before.alice_msat
        received = after.received_msat - before.received_msat
        rows = (
            ("left Alice's lnd, with fees", left, BTC, -settled(books, ALICE, UPLINK) + lightning_fees),
            ("came to connector-1's lnd", received, BTC, settled(books, ONE, ALICE)),
            ("left connector-1's address, with fees", -gained["one"], WEI_ASSET, settled_wei + fees["one"]),
            ("came to connector-2's address", gained["two"], WEI_ASSET, settled_wei - fees["two"]),
            ("left connector-2's for channels, with fees", -gained["channels"], WEI_ASSET, to_bob + fees["channels"]),
            ("came to Bob's address, less fees", gained["bob"], WEI_ASSET, to_bob - fees["bob"]),
            ("left in the channels' contract", after.contract_wei, WEI_ASSET, 0),
        )
        paid = [
            f"Alice paid {format_amount(lightning_fees, BTC)} in routing fees of Lightning.",
            f"connector-1 paid the chain {format_amount(fees['one'], WEI_ASSET)} in fees, for its transfers.",
            f"connector-2 paid it {format_amount(fees['channels'], WEI_ASSET)}, for the channel to Bob.",
            f"Bob paid it {format_amount(fees['bob'], WEI_ASSET)}: to redeem, and to end the channel.",
        ]
        return [Fact(*row) for row in rows], paid

    async def _fees(self) -> dict[str, int]:
        """What each key's address has paid for gas, in all blocks."""
        names = {key.address: name for name, key in self.keys.items()}
        total = dict.fromkeys(self.keys, 0)
        for number in range(await self.chain.height() + 1):
            block = await self.chain.rpc("eth_getBlockByNumber", hex(number), True)
            for one in block["transactions"]:
                name = names.get(one["from"].lower())
                if name is not None:
                    receipt = await self.chain.receipt(one["hash"])
                    total[name] += int(receipt["gasUsed"], 16) * int(receipt["effectiveGasPrice"], 16)
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
        deployer = Key(secrets.token_bytes(32))
        await chain.fund(deployer)
        await chain.deploy_channels(deployer)
        task = asyncio.create_task(mine())
        yield chain
    finally:
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await chain.stop()
