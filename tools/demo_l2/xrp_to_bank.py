"""Alice pays from an XRP payment channel, Bob is paid by transfers on a bank's ledger.

The ledgers are the development ledger of the XRP Ledger's kind and `isthmus ledger bank`, both processes of their own.
Alice's wallet settles ahead by claims on a channel; the connectors settle with each other, and the second one with Bob,
by transfers at the bank.
"""

import asyncio
import contextlib
import json
import os
import secrets
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

import aiohttp
from xrpl.constants import CryptoAlgorithm
from xrpl.core.addresscodec import encode_seed

from isthmus.cli.demo.audit import NodeBooks
from isthmus.cli.demo.network import ALICE, BOB, UPLINK
from isthmus.cli.demo.processes import Child, DemoError, Processes, awaited
from isthmus.ilp.asset import Asset, format_amount, parse_amount
from isthmus.ledgers.xrp.signatures import SigningKey
from tools.demo_l2.base import ONE, TWO, Demo, settled
from tools.demo_l2.show import Fact

XRP: Final = Asset("XRP", 9)
USD: Final = Asset("USD", 6)
DROPS: Final = Asset("XRP", 6)
CENTS: Final = Asset("USD", 2)
PER_DROP: Final = 10 ** (XRP.scale - DROPS.scale)
PER_CENT: Final = 10 ** (USD.scale - CENTS.scale)
ALICES_TRUST: Final = "8"  # what she pays ahead, and no more
BOBS_TRUST: Final = "1"
CONNECTORS_TRUST: Final = "2"
HOLDERS: Final = ("connector-1", "connector-2", "bob")


@dataclass(slots=True, frozen=True, kw_only=True)
class Seen:
    """What ledgers say at one moment."""

    claimed: int  # drops that Alice's channel owes the first connector, redeemed or not
    cents: dict[str, int]  # of each holder at the bank


class XrpToBank(Demo[Seen]):
    """`isthmus ledger xrp-dev` and `isthmus ledger bank`."""

    title = "Alice's XRP payment channel → Bob's account at a bank"
    source = XRP
    destination = USD
    amount = parse_amount("20", XRP)
    price = Fraction(1, 2)
    least = price * Fraction(98, 100)

    @contextlib.asynccontextmanager
    async def ledgers(self, processes: Processes) -> AsyncIterator[None]:
        self.audience.step("Starting a development ledger of the XRP Ledger's kind, and a bank")
        self.seeds = {name: encode_seed(secrets.token_bytes(16), CryptoAlgorithm.ED25519) for name in ("alice", "one")}
        funds = [part for seed in self.seeds.values() for part in ("--fund", SigningKey.from_seed(seed).address)]
        options = ("--port", "0", "--json", "--close-every", "300")
        xrp = await processes.start("xrp-dev", "ledger", "xrp-dev", *options, *funds)
        self.xrp_url = (await awaited(xrp, lambda: _said(xrp)))["json_rpc"]
        self.operator = self.folder / "bank.token"
        place = ("--database", str(self.folder / "bank.db"), "--token-file", str(self.operator))
        bank = await processes.start("bank", "ledger", "bank", "run", *place, "--port", "0", "--json")
        self.bank_url = (await awaited(bank, lambda: _said(bank)))["url"]
        await self._open("issuer", "unlimited")
        self.bank_tokens = {}
        for holder in HOLDERS:
            await self._open(holder, "0")
            told = await self._bank("token", "new", holder)
            self.bank_tokens[holder] = told["token"]
        await self._bank("transfer", "issuer", "connector-1", "100", "--reference", "what it begins with")
        await self._bank("transfer", "issuer", "connector-2", "100", "--reference", "what it begins with")
        yield

    async def _open(self, holder: str, overdraft: str) -> None:
        await self._bank("open", holder, "USD", "--overdraft", overdraft)

    async def _bank(self, *arguments: str) -> dict[str, Any]:
        """A command of the bank's operator, as people type it."""
        command = (sys.executable, "-m", "isthmus", "ledger", "bank", *arguments, "--json")
        process = await asyncio.create_subprocess_exec(
            *command,
            *("--url", self.bank_url, "--token-file", str(self.operator)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=dict(os.environ),
        )
        out, problem = await process.communicate()
        if process.returncode:
            raise DemoError(f"the bank: {problem.decode().strip()}")
        found: dict[str, Any] = json.loads(out)
        return found

    def one(self) -> str:
        alice = self.account(
            ALICE, XRP, 'receivable = "0"  # no credit: she pays ahead\npacket = "0.1"', 'engine = "xrp"'
        )
        two = self.account(TWO, USD, 'receivable = "0"', 'engine = "bank"\nthreshold = "0.5"\nledger_scale = 2')
        return (
            f'address = "test.{ONE}"\ndata = "data"\n{alice}{two}'
            f'[settlement.xrp]\ntype = "xrp"\n{self._xrp("one")}[settlement.bank]\ntype = "bank"\n{self._holder(ONE)}'
            f'[rates]\n"XRP/USD" = {{ rate = "{self.price}", spread = "0.3 %" }}\n'
        )

    def two(self) -> str:
        one = self.account(ONE, USD, f'receivable = "{CONNECTORS_TRUST}"', 'engine = "bank"')
        bob = self.account(BOB, USD, 'receivable = "0"', 'engine = "bank"\nthreshold = "0.25"\nledger_scale = 2')
        return f'address = "test.{TWO}"\ndata = "data"\n{one}{bob}[settlement.bank]\ntype = "bank"\n{self._holder(TWO)}'

    def settlements(self) -> dict[str, str]:
        return {
            ALICE: (
                f'type = "xrp"\nthreshold = "-2"\ntarget = "-{ALICES_TRUST}"\nreceivable = "{ALICES_TRUST}"\n'
                f"[engine]\n{self._xrp('alice')}"
            ),
            BOB: f'type = "bank"\nreceivable = "{BOBS_TRUST}"\n[engine]\n{self._holder("bob")}',
        }

    def _xrp(self, name: str) -> str:
        file = self.key(name, self.seeds[name])
        return f'network_id = 1000\nrpc = "{self.xrp_url}"\nkey_file = "{file}"\npoll = "100 ms"\ndeposit = "50"\n'

    def _holder(self, holder: str) -> str:
        return (
            f'url = "{self.bank_url}"\naccount = "{holder}"\ntoken = "{self.bank_tokens[holder]}"\nasset = "USD"\n'
            'scale = 2\npoll = "100 ms"\n'
        )

    async def look(self) -> Seen:
        owner = SigningKey.from_seed(self.seeds["alice"]).address
        found = await self._ask_xrp("account_channels", {"account": owner})
        accounts = (await self._bank("accounts"))["accounts"]
        cents = {one["id"]: int(one["balance"]) for one in accounts if one["id"] in HOLDERS}
        # What was claimed and not redeemed yet only the claim's holder knows.
        return Seen(claimed=sum(int(one["balance"]) for one in found["channels"]), cents=cents)

    async def _ask_xrp(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        body = {"method": method, "params": [params]}
        async with aiohttp.ClientSession() as http, http.post(self.xrp_url, json=body) as answer:
            found: dict[str, Any] = json.loads(await answer.text())["result"]
            return found

    async def after(self) -> None:
        """The first connector redeems what Alice's channel owes it."""
        self.audience.step("The first connector redeems what Alice's channel owes it")
        headers = {"Authorization": f"Bearer {self.tokens['admin']}"}
        url = f"{self._admin(ONE)}/accounts/{ALICE}/channels/redeem"
        async with aiohttp.ClientSession(headers=headers) as http, http.post(url, json={}) as answer:
            if answer.status != 200:
                raise DemoError(f"connector-1: {await answer.text()}")
        async with asyncio.timeout(30):
            while any(int(one["unredeemed"]) for one in await self._channels()):  # noqa: ASYNC110 - over HTTP
                await asyncio.sleep(0.1)

    async def compare(self, before: Seen, after: Seen, books: dict[str, NodeBooks]) -> tuple[list[Fact], list[str]]:
        came = {name: after.cents[name] - before.cents[name] for name in HOLDERS}
        two_net = settled(books, TWO, ONE) + settled(books, TWO, BOB)
        rows = (
            (
                "redeemed from Alice's channel",
                after.claimed - before.claimed,
                DROPS,
                settled(books, ONE, ALICE) // PER_DROP,
            ),
            ("left connector-1's account", -came["connector-1"], CENTS, -settled(books, ONE, TWO) // PER_CENT),
            ("stayed with connector-2", came["connector-2"], CENTS, two_net // PER_CENT),
            ("came to Bob's account", came["bob"], CENTS, settled(books, BOB, UPLINK) // PER_CENT),
        )
        ahead = -books[ALICE].balance(UPLINK) if books[ALICE].balance(UPLINK) < 0 else books[ALICE].balance(UPLINK)
        fees = ", ".join([f"{who} {await self._fees(name)} drops" for who, name in (("Alice", "alice"), (ONE, "one"))])
        notes = [f"Alice has {format_amount(ahead, XRP)} left that she paid ahead.", f"Fees of the XRP ledger: {fees}."]
        return [Fact(*row) for row in rows], notes

    async def _fees(self, name: str) -> int:
        """What an address has paid in fees, in drops."""
        owner = SigningKey.from_seed(self.seeds[name]).address
        found = await self._ask_xrp("account_tx", {"account": owner, "ledger_index_min": -1, "ledger_index_max": -1})
        sent = [one["tx"] for one in found["transactions"] if one["tx"]["Account"] == owner]
        return sum(int(one["Fee"]) for one in sent)


def _said(child: Child) -> dict[str, Any] | None:
    """Where it listens, once it says so."""
    for line in child.log.read_text().splitlines():
        if line.startswith("{"):
            found: dict[str, Any] = json.loads(line)
            listening: dict[str, Any] = found.get("listening", found)
            return listening
    return None
