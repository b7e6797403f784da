"""Chains and rings of five connectors, ours and `ilp-connector` 23.0.2 in both orders, that find their routes by CCP.

In a ring a connector is killed in the middle of a payment: the payment goes on around it. Payments follow one another
while it is started again, until they pass it as before; then all books are compared, its own too. No route is
configured anywhere.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

import isthmus
from isthmus.cli.demo.audit import read_books
from isthmus.client.payment import Progress
from tests.ports import free_port

SECONDS = 60.0
ADMIN_TOKEN = "token-of-the-admin-api-of-a-mesh-0001"
PACKET = 1_000_000
AMOUNT = 3_000 * PACKET
WINDOW_MAX = 256
# Each hop takes a second off the expiry; what is lost with a node is known to be lost after this.
HOLD_S = 12
SETTINGS = {"routeBroadcastInterval": 1_000, "maxHoldTime": HOLD_S * 1_000, "initialConnectTimeout": 200}
# Pairs of neighbours, of which the first one listens. An ilp-connector that dials refuses who asks it for routes right
# then, since it isn't ready yet; another one asks again half a minute later, unless `ask` has it do so now.
CHAINS = {"ottto": ((1, 0), (1, 2), (2, 3), (3, 4)), "tooot": ((0, 1), (1, 2), (2, 3), (4, 3))}
# The victim, number 1, dials both of its neighbours: it comes back without a port to remember.
RING = ((0, 1), (2, 1), (3, 2), (3, 4), (0, 4))
VICTIM = "n1"


@dataclass
class Member:
    """One connector of the mesh, whoever wrote it."""

    name: str
    start: Callable[[], Awaitable[None]]
    kill: Callable[[], Awaitable[None]]
    routes: Callable[[], Awaitable[dict[str, str]]]  # prefix -> account
    balance: Callable[[str], Awaitable[int]]  # of an account; positive: owed to this connector
    url: str  # where a wallet of ours connects
    payer: Any  # where an endpoint of npm does that pays, and that is gone with its payment
    payee: Any  # and one that is paid, in the wallet's place
    ask: Callable[[str], Awaitable[None]] | None = None  # a neighbour for its routes, if it doesn't by itself


@dataclass
class Mesh:
    """Starts the members one after another: who listens comes before who dials."""

    nodes: Any
    peers: Any
    config: Any
    links: tuple[tuple[int, int], ...]
    members: dict[str, Member] = field(default_factory=dict)
    _ports: dict[tuple[str, str], tuple[int, str]] = field(default_factory=dict)  # listener, dialler: port, token

    async def begin(self, order: str) -> None:
        """`order` has a letter for each connector: o for ours, t for theirs."""
        dialled = {number: {pair[0] for pair in self.links if pair[1] == number} for number in range(len(order))}
        waiting = list(range(len(order)))
        while waiting:
            number = next(one for one in waiting if not dialled[one] & set(waiting))
            waiting.remove(number)
            await (self._ours if order[number] == "o" else self._theirs)(number)

    def _neighbours(self, number: int) -> tuple[list[str], list[str]]:
        """Those who dial it, and those whom it dials."""
        heard = [f"n{dialler}" for listener, dialler in self.links if listener == number]
        return heard, [f"n{listener}" for listener, dialler in self.links if dialler == number]

    async def _ours(self, number: int) -> None:
        name, port, admin = f"n{number}", free_port(), free_port()
        heard, dialled = self._neighbours(number)
        limits = {"hold": f"{HOLD_S} s"}
        accounts = [self.config.account(one, "peer", **limits) for one in heard]
        for one in dialled:
            there, token = self._ports[one, name]
            accounts.append(self.config.account(one, "peer", dial=there, token=token, **limits))
        accounts += [self.config.account("wallet", "child", packet="0.001", **limits)]
        accounts += [self.config.account("endpoint", "child", **limits)]
        accounts.append(f'[admin]\nlisten = "127.0.0.1:{admin}"\ntoken = "{ADMIN_TOKEN}"\n')
        for one in heard:
            self._ports[name, one] = (port, f"{self.config.TOKEN}-{one}")
        file: Path = await self.nodes.run(self.config.node(port, *accounts, address=f"test.{name}"), port)

        async def routes() -> dict[str, str]:
            headers = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
            url = f"http://127.0.0.1:{admin}/routes"
            async with aiohttp.ClientSession(headers=headers) as http, http.get(url) as answer:
                return {route["prefix"]: route["account"] for route in (await answer.json())["routes"]}

        async def balance(account: str) -> int:
            return read_books(name, file.parent / "data").balance(account)

        self.members[name] = Member(
            name,
            lambda: self.nodes.start(file, port),
            lambda: self.nodes.kill(file),
            routes,
            balance,
            f"btp+ws://:{self.config.TOKEN}-wallet@127.0.0.1:{port}",
            self.peers.dial(port, token=f"{self.config.TOKEN}-endpoint"),
            self.peers.dial(port, token=f"{self.config.TOKEN}-wallet"),
        )

    async def _theirs(self, number: int) -> None:
        name = f"n{number}"
        heard, dialled = self._neighbours(number)
        accounts = {one: self.peers.account("peer", self.peers.listener()) for one in heard}
        for one in dialled:
            port, token = self._ports[one, name]
            accounts[one] = self.peers.account("peer", self.peers.dial(port, token=token))
        for one in ("wallet", "endpoint"):
            accounts[one] = self.peers.account("child", self.peers.listener(), maxPacketAmount=str(PACKET))
        process: Any = None
        ports: dict[str, int] = {}

        async def start() -> None:
            nonlocal process, ports
            process, ports = await self.peers.connector(f"test.{name}", settings=SETTINGS, **accounts)

        async def ask(account: str) -> None:
            await process.call("ask", account=account)

        async def kill() -> None:
            process.process.kill()
            await process.process.wait()

        async def routes() -> dict[str, str]:
            found: dict[str, str] = await process.call("routes")
            return found

        async def balance(account: str) -> int:
            return int((await process.call("status"))["accounts"][account]["balance"] or 0)

        await start()
        for one in heard:
            self._ports[name, one] = (ports[one], "s")
        url = f"btp+ws://:s@127.0.0.1:{ports['wallet']}"
        payer, payee = self.peers.dial(ports["endpoint"]), self.peers.dial(ports["wallet"])
        self.members[name] = Member(name, start, kill, routes, balance, url, payer, payee, ask)
        await process.event("ready")
        for one in dialled:
            listener = self.members[one].ask
            if listener is not None:
                await listener(name)

    # --- what is waited for -------------------------------------------------------------------------------------

    async def until_routed(self, name: str, **by: str) -> None:
        """Until a connector has a route to all others; `n2="n1"`: to that one by this account."""
        addresses = {f"test.{one}" for one in self.members if one != name}
        async with asyncio.timeout(SECONDS):
            while True:
                routes = await self.members[name].routes()
                if addresses <= set(routes) and all(routes[f"test.{to}"] == via for to, via in by.items()):
                    return

    async def until_books_agree(self, *, but_for: str = "") -> None:
        """Until neighbours' books are equal to the unit: an `ilp-connector` counts what is in flight, too."""
        async with asyncio.timeout(SECONDS):
            for one, other in self.links:
                if but_for not in (f"n{one}", f"n{other}"):
                    while await self.gap(f"n{one}", f"n{other}"):
                        pass

    async def gap(self, one: str, other: str) -> int:
        """What the two claim of each other beyond what the other one owes by its own books."""
        return await self.members[one].balance(other) + await self.members[other].balance(one)

    async def until_gaps(self, name: str, *, total: int) -> dict[str, int]:
        """Until the gaps to all neighbours of `name` come to `total`, which ends with the last expiry; each of them."""
        heard, dialled = self._neighbours(int(name.removeprefix("n")))
        async with asyncio.timeout(SECONDS):
            while True:
                gaps = {each: await self.gap(name, each) for each in sorted([*heard, *dialled])}
                if sum(gaps.values()) == total:
                    return gaps


@dataclass
class Payments:
    """One after the other to the same receiver, for as long as the test wants; each must be complete."""

    sender: Any
    listener: Any
    sent: int = 0
    ended: int = 0
    _under_way: int = 0  # of the present payment
    _is_enough: bool = False
    _went_on: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        while not self._is_enough:
            await self.pay(AMOUNT)

    def stop(self) -> None:
        """The present one is the last."""
        self._is_enough = True

    async def pay(self, amount: int) -> None:
        invitation = self.listener.invite()
        paid = await self.sender.pay(
            invitation.address, amount, secret=invitation.shared_secret, min_rate=1, on_progress=self._told
        )
        assert (paid.status, paid.sent, paid.delivered) == ("completed", amount, amount), paid.detail
        self.sent += amount
        self.ended += 1
        self._under_way = 0
        self._went_on.set()

    def _told(self, progress: Progress) -> None:
        self._under_way = progress.sent
        self._went_on.set()

    async def until(self, *, ended: int) -> None:
        while self.ended < ended:
            await self.more()

    async def until_amid(self) -> None:
        """Until a quarter of a payment is through."""
        while self._under_way <= AMOUNT // 4:
            await self.more()

    async def more(self) -> None:
        """Until something has moved."""
        self._went_on.clear()
        await self._went_on.wait()


@pytest.fixture
def mesh(nodes: Any, peers: Any, config: Any) -> Callable[[tuple[tuple[int, int], ...]], Mesh]:
    return lambda links: Mesh(nodes, peers, config, links)


MakeMesh = Callable[[tuple[tuple[int, int], ...]], Mesh]


@pytest.mark.parametrize("order", ["ottto", "tooot"], ids=["theirs in the middle", "ours in the middle"])
async def test_routes_spread_through_a_chain_and_payments_pass_it_both_ways(
    mesh: MakeMesh, peers: Any, order: str
) -> None:
    """CCP-1 to CCP-4, CCP-13, CCP-17: ilp-protocol-stream at both ends."""
    chain = mesh(CHAINS[order])
    await chain.begin(order)
    for name in chain.members:
        await chain.until_routed(name)
    first, last = chain.members["n0"], chain.members["n4"]
    for source, destination in ((first, last), (last, first)):
        receiver = await peers.endpoint(destination.payee)
        sender = await peers.endpoint(source.payer)
        told = await receiver.call("listen")
        paid = await sender.call("pay", amount="123456789", address=told["address"], secret=told["secret"])
        assert (paid["sent"], paid["delivered"]) == ("123456789", "123456789")
    await chain.until_books_agree()


@pytest.mark.parametrize("order", ["ototo", "totot"], ids=["theirs is killed", "ours is killed"])
async def test_a_killed_connector_is_routed_around_and_used_again(mesh: MakeMesh, order: str) -> None:
    """Payments by STREAM all the while: when it dies, while it is dead, when it starts, and when it is used again."""
    ring = mesh(RING)
    await ring.begin(order)
    for name in ring.members:
        await ring.until_routed(name)
    await ring.until_routed("n0", n2=VICTIM)
    victim, last = ring.members[VICTIM], ring.members["n2"]
    alice, bob = ring.members["n0"].url, last.url
    async with (
        asyncio.timeout(5 * SECONDS),
        isthmus.connect(alice) as sender,
        isthmus.connect(bob) as receiver,
        asyncio.TaskGroup() as tasks,
    ):
        payments = Payments(sender, receiver.listen())
        paying = tasks.create_task(payments.run())
        await payments.until_amid()
        assert payments.ended == 0
        await victim.kill()
        await payments.until(ended=1)  # the one that it was killed in has gone on around it
        assert 0 < await last.balance("n3") < AMOUNT + WINDOW_MAX * PACKET
        at_death = {name: await ring.members[name].balance(VICTIM) for name in ("n0", "n2")}

        await payments.until_amid()
        await victim.start()
        await ring.until_routed(VICTIM)
        await ring.until_routed("n0", n2=VICTIM)
        while await last.balance(VICTIM) < at_death["n2"] + AMOUNT // 4:
            await payments.more()
        assert not paying.done()
        payments.stop()
        await paying

        # The victim bears what passed it and whose outcome it couldn't learn: what was delivered and not paid for.
        # Nobody else's books differ, and its own by no more than that.
        loss = receiver.balance - payments.sent
        assert 0 <= loss <= WINDOW_MAX * PACKET
        await ring.until_books_agree(but_for=VICTIM)
        gaps = await ring.until_gaps(VICTIM, total=loss)
        if order[1] == "t":  # an ilp-connector keeps its balances in memory: it began again from zero
            assert gaps == at_death
        else:
            assert all(0 <= gap <= loss for gap in gaps.values())

        around, through = await last.balance("n3"), await last.balance(VICTIM)
        await payments.pay(AMOUNT // 10)
        assert await last.balance("n3") == around
        assert await last.balance(VICTIM) - through == AMOUNT // 10
        await ring.until_books_agree(but_for=VICTIM)
        assert await ring.until_gaps(VICTIM, total=loss) == gaps
