"""Payments between two wallets over a connector in a process of its own: cheats, and amounts at the end of UInt64."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import pytest

from isthmus.cli.demo.audit import NodeBooks, read_books
from isthmus.cli.demo.network import ALICE, BOB, BTC, ETH, Connector, Network
from isthmus.cli.demo.processes import Processes
from isthmus.cli.demo.report import Outcome
from isthmus.cli.demo.run import Demo
from isthmus.client.payment import Progress
from isthmus.client.streams import StreamError
from isthmus.client.wallet import Wallet
from isthmus.ilp.asset import Asset
from isthmus.stream.orders import Failure

MIDDLE = "middle"
AMOUNT_MAX = 2**64 - 1


class Nobody:
    """An audience that isn't there."""

    def step(self, text: str) -> None: ...

    def progress(self, progress: Progress) -> None: ...

    def paid(self, outcome: Outcome) -> None: ...


@dataclass
class Town:
    """One connector, and two wallets in memory."""

    show: Demo
    alice: Wallet
    bob: Wallet

    async def pay(self, amount: int, min_rate: Fraction) -> tuple[int, int]:
        """Sent and delivered."""
        listener = self.bob.listen()
        paid = await self.alice.pay(listener.address, amount, secret=listener.secret, min_rate=min_rate)
        return paid.sent, paid.delivered

    def books(self) -> NodeBooks:
        return read_books(MIDDLE, self.show.data(MIDDLE))


def a_network(source: Asset, destination: Asset, rate: Fraction) -> Network:
    connector = Connector(
        name=MIDDLE,
        source=source,
        destination=destination,
        rate=rate,
        spread="0 %",
        credit="1000000",
        credit_back="0",
    )
    return Network(connectors=(connector,))


@contextlib.asynccontextmanager
async def a_town(network: Network, folder: Path) -> AsyncIterator[Town]:
    show = Demo(network, folder, 1, Nobody())
    async with Processes(show.logs) as processes:
        await show.start_connectors(processes)
        (alice_url, alice_token), (bob_url, bob_token) = show.door(ALICE), show.door(BOB)
        async with (
            Wallet.at(alice_url, token=alice_token) as alice,
            Wallet.at(bob_url, token=bob_token) as bob,
        ):
            yield Town(show, alice, bob)


# --- a connector that cheats -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("has_quote", [True, False], ids=["after a quote", "without a quote"])
async def test_where_a_connector_cheats_on_the_rate_no_money_moves(tmp_path: Path, has_quote: bool) -> None:
    """The sender's minimum comes from outside the path, and holds for every packet."""
    fair = Fraction(25)
    async with a_town(a_network(BTC, ETH, fair / 2), tmp_path) as town:
        with pytest.raises(StreamError) as failed:
            if has_quote:
                await town.pay(1_000_000, fair * Fraction("0.99"))
            else:
                listener = town.bob.listen()
                async with await town.alice.open(
                    listener.address, listener.secret, min_rate=fair * Fraction("0.99")
                ) as connection:
                    await connection.stream().send(1_000_000)
        assert failed.value.failure is Failure.RATE_TOO_LOW
        assert (town.alice.balance, town.bob.balance) == (0, 0)
        assert (failed.value.sent, failed.value.delivered, failed.value.unknown) == (0, 0, 0)
    books = town.books()
    assert books.problems == []
    assert not any(books.tally.balances.values())
    assert not any(books.tally.incoming.values())


# --- scale 18 --------------------------------------------------------------------------------------------------------

FINE = Asset("ETH", 18)
OTHER = Asset("DAI", 18)


async def test_amounts_at_the_end_of_uint64_arrive_to_the_unit(tmp_path: Path) -> None:
    """P-1."""
    amounts = (2**63 - 1, 2**63, 2**63 + 1, AMOUNT_MAX, AMOUNT_MAX + 1, 2**66 + 7)
    async with a_town(a_network(FINE, OTHER, Fraction(1)), tmp_path) as town:
        for amount in amounts:
            assert await town.pay(amount, Fraction(1)) == (amount, amount)
        total = sum(amounts)
        assert (town.alice.balance, town.bob.balance) == (-total, total)
    books = town.books()
    assert books.problems == []
    assert (books.balance(ALICE), books.balance(BOB)) == (total, -total)


@pytest.mark.parametrize("rate", [Fraction(3, 2), Fraction(1000), Fraction(1, 3)])
async def test_packets_that_would_grow_beyond_uint64_are_made_smaller(tmp_path: Path, rate: Fraction) -> None:
    """P-1, CONN-11."""
    amount = 2**64 + 1
    async with a_town(a_network(FINE, OTHER, rate), tmp_path) as town:
        sent, delivered = await town.pay(amount, rate * Fraction("0.99"))
        assert sent == amount
        assert int(amount * rate * Fraction("0.99")) <= delivered <= amount * rate
    books = town.books()
    assert (books.balance(ALICE), books.balance(BOB)) == (amount, -delivered)


async def test_what_no_packet_can_carry_is_refused_by_the_quote(tmp_path: Path) -> None:
    """P-1. One unit of the source becomes more units of the destination than a packet can carry."""
    rate = Fraction(20)
    async with a_town(a_network(Asset("GOLD", 0), FINE, rate), tmp_path) as town:
        with pytest.raises(StreamError, match="packets are too small .*F08") as failed:
            await town.pay(1, rate)
        assert failed.value.failure is Failure.NO_CAPACITY
        assert (town.alice.balance, town.bob.balance) == (0, 0)
    assert not any(town.books().tally.balances.values())


async def test_a_minimum_that_no_packet_can_express_is_refused_before_the_first(tmp_path: Path) -> None:
    """P-1. The path could carry one unit, but the least that must arrive for it can't be written in a packet."""
    async with a_town(a_network(Asset("GOLD", 0), FINE, Fraction(10)), tmp_path) as town:
        listener = town.bob.listen()
        connection = await town.alice.open(listener.address, listener.secret, min_rate=20)
        async with connection:
            packets = connection.totals.packets_sent
            with pytest.raises(StreamError, match="can't be expressed") as failed:
                await connection.stream().send(1)
            assert failed.value.failure is Failure.NOT_EXPRESSIBLE
            assert connection.totals.packets_sent == packets
    assert not any(town.books().tally.balances.values())
