"""Wallets in memory, paying each other through a connector on a real socket."""

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import pytest

import isthmus
from isthmus import Listener, PaymentError, StreamError, Wallet
from isthmus.client.hops import EndKind
from isthmus.client.payment import Progress
from isthmus.client.streams import Offer, as_fraction
from isthmus.client.terms import Receiver
from isthmus.client.trace import Trace
from isthmus.connector.events import AccountId, Inbound, Undelivered
from isthmus.errors import ConfigError, LinkError
from isthmus.ilp.asset import Asset
from isthmus.links.btp.client import BtpClient
from isthmus.runtime import clock
from isthmus.stream.orders import Failure

if TYPE_CHECKING:
    from tests.client.conftest import Connector, MakeConnector, MakeFolder

BTC = Asset("BTC", 8)
ETH = Asset("ETH", 9)


@dataclass
class World:
    """Alice can resolve "$bob": each time to a fresh address of his."""

    connector: "Connector"
    alice: Wallet
    bob: Wallet
    listener: Listener


@pytest.fixture
async def world(connector: "Connector") -> AsyncIterator[World]:
    async with isthmus.connect(connector.url("bob")) as bob:

        async def resolve(target: str) -> Receiver:
            assert target == "$bob"
            invitation = bob.listener.invite()
            return Receiver(invitation.address, invitation.shared_secret, "bob.example", "bob.example")

        async with Wallet.at(connector.url("alice"), resolve=resolve) as alice:
            yield World(connector, alice, bob, bob.listen())


# --- connecting ------------------------------------------------------------------------------------------------------


async def test_the_connector_tells_address_and_asset(world: World) -> None:
    """ILDCP-1, ILDCP-7: before there are books, for their asset is fixed for ever."""
    assert (world.alice.address, world.alice.asset) == ("test.connector.alice", BTC)
    assert (world.bob.address, world.bob.asset) == ("test.connector.bob", ETH)


async def test_a_wrong_token_is_told_at_once(connector: "Connector") -> None:
    with pytest.raises(LinkError, match="auth|token|refused"):
        await isthmus.connect(connector.url("alice", "wrong")).start()


async def test_a_connector_that_is_not_there_is_told() -> None:
    wallet = isthmus.connect("btp+ws://:x@127.0.0.1:1")
    with pytest.raises(LinkError):
        async with asyncio.timeout(60):
            await wallet.start()


async def test_a_url_without_a_token_is_a_mistake(connector: "Connector") -> None:
    with pytest.raises(ConfigError, match="token"):
        await isthmus.connect(connector.url("alice", "")).start()


# --- payments --------------------------------------------------------------------------------------------------------


async def test_a_fixed_source_amount_arrives(world: World) -> None:
    """All books agree: the payer's, the connector's, the receiver's."""
    result = await world.alice.pay("$bob", "0.01", min_rate="24")
    assert (result.status, result.sent, result.delivered, result.unknown) == ("completed", 1_000_000, 250_000_000, 0)
    assert result.rate == 25
    assert (world.connector.balance("alice"), world.connector.balance("bob")) == (1_000_000, -250_000_000)
    assert (world.alice.balance, world.bob.balance) == (-1_000_000, 250_000_000)
    assert [one.total for one in world.bob.received().values()] == [250_000_000]
    assert [one.status for one in world.alice.paid()] == ["completed"]


async def test_a_fixed_destination_amount_arrives(world: World) -> None:
    """At least what was asked for, at most what one more source unit buys."""
    result = await world.alice.pay("$bob", "0.1234567", min_rate="24", deliver=True)
    assert result.status == "completed"
    assert 123_456_700 <= result.delivered < 123_456_700 + 250
    assert result.delivered == sum(one.total for one in world.bob.received().values())


async def test_amounts_may_be_base_units(world: World) -> None:
    result = await world.alice.pay("$bob", 4_000, price=25)
    assert (result.sent, result.delivered) == (4_000, 1_000_000)


async def test_a_rate_below_the_minimum_moves_no_money(world: World) -> None:
    with pytest.raises(StreamError, match="below the minimum") as failed:
        await world.alice.pay("$bob", "0.01", min_rate="25.1")
    assert failed.value.failure is Failure.RATE_TOO_LOW
    assert world.connector.balance("alice") == 0
    assert world.alice.paid() == []


async def test_without_a_minimum_nothing_is_paid(world: World) -> None:
    with pytest.raises(ConfigError, match="minimum"):
        await world.alice.pay("$bob", "0.01")


async def test_a_rate_that_falls_in_the_middle_ends_the_payment(world: World) -> None:
    """What arrived until then is told, and the rest never leaves."""

    def fall(progress: Progress) -> None:
        if progress.sent > 100_000:
            world.connector.rate = Fraction(20)
            asyncio.get_running_loop().create_task(world.connector.change())

    with pytest.raises(PaymentError) as failed:
        await world.alice.pay("$bob", "0.2", min_rate="24", on_progress=fall)
    result = failed.value.result
    assert (result.status, result.delivered) == ("failed", result.sent * 250)
    assert 0 < result.sent < 20_000_000
    assert world.connector.balance("alice") == result.sent
    assert world.connector.balance("bob") == -result.delivered


async def test_a_stopped_payment_says_exactly_what_was_delivered(world: World) -> None:
    stop = asyncio.Event()

    def told(progress: Progress) -> None:
        if progress.delivered:
            stop.set()

    result = await world.alice.pay("$bob", "0.5", min_rate="24", on_progress=told, stop=stop)
    assert result.status == "stopped"
    assert (result.sent, result.delivered) == (world.connector.balance("alice"), -world.connector.balance("bob"))
    assert 0 < result.sent < 50_000_000


async def test_a_cancelled_payment_ends_cleanly(world: World) -> None:
    begun = asyncio.Event()
    paying = asyncio.create_task(
        world.alice.pay(
            "$bob",
            "0.5",
            min_rate="24",
            on_progress=lambda progress: begun.set() if progress.sent else None,
        )
    )
    await begun.wait()
    paying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await paying
    await world.alice.payments.close()
    (payment,) = world.alice.paid()
    assert (payment.status, payment.sent) == ("stopped", world.connector.balance("alice"))


async def test_a_payment_cancelled_before_money_moves_leaves_no_complaint(world: World) -> None:
    complaints: list[object] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    paying = asyncio.create_task(world.alice.pay("$bob", "0.5", min_rate="24"))
    await asyncio.sleep(0)
    paying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await paying
    await world.alice.payments.close()
    gc.collect()
    assert complaints == []
    assert world.alice.paid() == []


async def test_progress_is_told(world: World) -> None:
    told: list[Progress] = []
    await world.alice.pay("$bob", "0.02", min_rate="24", on_progress=told.append)
    assert told
    assert all(one.source_max == 2_000_000 for one in told)
    assert [one.sent for one in told] == sorted(one.sent for one in told)


async def test_two_payments_at_once_don_t_mix(world: World) -> None:
    invitations = [world.listener.invite() for _ in range(4)]
    results = await asyncio.gather(
        *(
            world.alice.pay(one.address, (n + 1) * 40_000, secret=one.shared_secret, min_rate="24")
            for n, one in enumerate(invitations)
        )
    )
    assert [one.sent for one in results] == [40_000, 80_000, 120_000, 160_000]
    assert sorted(one.total for one in world.bob.received().values()) == [n * 10_000_000 for n in (1, 2, 3, 4)]


async def test_an_unknown_receiver_fails_before_money_moves(world: World) -> None:
    with pytest.raises(StreamError, match="no route"):
        await world.alice.pay("test.connector.nobody.x", "0.01", secret=bytes(32), min_rate="24")


@pytest.mark.parametrize("amount", ["0", "0.000000001", "-1", "1 ETH", "1e3", 0, -5])
async def test_amounts_that_make_no_sense_are_mistakes(world: World, amount: int | str) -> None:
    with pytest.raises(ConfigError):
        await world.alice.pay("$bob", amount, min_rate="24")


async def test_scale_18_and_amounts_beyond_2_63(make_connector: "MakeConnector") -> None:
    """P-1: 12 units of scale 18 are above 2^63; a payment of many packets is beyond 2^64."""
    wei = Asset("ETH", 18)
    connector = await make_connector(assets={"alice": wei, "bob": wei}, rate=Fraction(1), packet_amount_max=None)
    async with isthmus.connect(connector.url("alice")) as alice, isthmus.listen(connector.url("bob")) as server:
        result = await alice.pay(server.address, "30", secret=server.secret, min_rate="0.99")
        assert result.delivered == 30 * 10**18
        assert connector.balance("bob") == -30 * 10**18


# --- the same key ----------------------------------------------------------------------------------------------------


async def test_the_same_key_pays_once(world: World) -> None:
    first = await world.alice.pay("$bob", 4_000, min_rate="24", key="rent")
    again = await world.alice.pay("$bob", 4_000, min_rate="24", key="rent")
    assert (first.repeated, again.repeated) == (False, True)
    assert (again.id, again.sent, again.delivered) == (first.id, first.sent, first.delivered)
    assert world.connector.balance("alice") == 4_000


async def test_the_same_key_at_the_same_time_pays_once(world: World) -> None:
    invitation = world.listener.invite()
    results = await asyncio.gather(
        *(
            world.alice.pay(invitation.address, 40_000, secret=invitation.shared_secret, min_rate="24", key="rent")
            for _ in range(3)
        )
    )
    assert len({one.id for one in results}) == 1
    assert world.connector.balance("alice") == 40_000


async def test_the_same_key_with_other_terms_is_an_error(world: World) -> None:
    await world.alice.pay("$bob", 4_000, min_rate="24", key="rent")
    with pytest.raises(isthmus.KeyConflictError, match="send 4000 base units"):
        await world.alice.pay("$bob", 4_001, min_rate="24", key="rent")
    assert world.connector.balance("alice") == 4_000


async def test_a_key_is_free_again_if_nothing_left(world: World) -> None:
    """A quote below the minimum is no payment."""
    for rate in ("26", "24"):
        try:
            await world.alice.pay("$bob", "0.00004", price=rate, key="rent")
        except StreamError:
            assert rate == "26"
    assert world.connector.balance("alice") == 4_000


# --- quotes and pings ------------------------------------------------------------------------------------------------


async def test_a_quote_moves_no_money(world: World) -> None:
    offer = await world.alice.quote("$bob", "0.01", min_rate="24")
    assert (offer.source_amount, offer.destination_amount) == (1_000_000, 250_000_000)
    assert (offer.destination_minimum, offer.is_enough) == (239_999_999, True)
    assert (offer.source_asset, offer.destination_asset) == (BTC, ETH)
    assert world.connector.balance("alice") == 0
    delivery = await world.alice.quote("$bob", "0.25", min_rate="24", deliver=True)
    assert (delivery.source_amount, delivery.destination_minimum) == (1_000_000, 250_000_000)
    assert delivery.source_max == -(-250_000_000 // 240)


async def test_a_ping_times_the_way_there_and_back(world: World) -> None:
    result = await world.alice.ping(world.listener.address, count=2, interval_ms=1)
    assert [pong.reached for pong in result.pongs] == [True, True]
    assert all(pong.ms > 0 for pong in result.pongs)


async def test_a_ping_of_a_receiver_tells_the_rate(world: World) -> None:
    result = await world.alice.ping(world.listener.address, secret=world.listener.secret, count=1)
    assert (result.rate, result.asset) == (Fraction(25), ETH)


async def test_a_ping_of_a_connector_is_answered_by_it(world: World) -> None:
    (pong,) = (await world.alice.ping("test.connector", count=1)).pongs
    assert (pong.reached, pong.by) == (True, "test.connector")


async def test_a_ping_that_finds_no_route_has_not_reached(world: World) -> None:
    (pong,) = (await world.alice.ping("test.connector.nobody", count=1)).pongs
    assert (pong.reached, pong.code) == (False, "F02")


async def test_a_trace_shows_the_connector_and_the_receiver_with_the_rate_between(world: World) -> None:
    """It tells what it knows as it comes."""
    told: list[Trace] = []
    result = await world.alice.trace("$bob", on_change=told.append)
    assert [hop.address for hop in result.hops] == ["test.connector", "test.connector.bob"]
    assert (result.rate, result.asset) == (Fraction(25), ETH)
    assert 1 <= len(told) and told[-1].hops == result.hops
    assert world.connector.balance("alice") == 0


async def test_a_trace_that_is_out_of_time_tells_what_it_knows(world: World) -> None:
    result = await world.alice.trace("test.connector.bob", seconds=1e-9)
    assert (result.ending.kind, result.rate) == (EndKind.STOPPED, None)
    with pytest.raises(ConfigError, match="seconds"):
        await world.alice.trace("test.connector.bob", seconds=0)


async def test_a_trace_to_a_silent_peer_ends_at_the_hop_before_it(
    connector: "Connector", make_folder: "MakeFolder"
) -> None:
    """It is connected, and answers nothing."""

    class Deaf:
        """Implements `links.port.LinkOwner`."""

        def inbound(self, packets: list[Inbound]) -> None: ...

        def undelivered(self, failures: list[Undelivered]) -> None: ...

        def link_up(self, account: AccountId) -> None: ...

        def link_down(self, account: AccountId, why: str) -> None: ...

        def blocked(self, account: AccountId) -> None: ...

        def writable(self, account: AccountId) -> None: ...

        def mono_ms(self) -> int:
            return clock.mono_ms()

    deaf = BtpClient(AccountId("bob"), connector.url("bob", token=""), Deaf(), session=bytes(16), token="bob")
    await deaf.start()
    await deaf.wait_up(10_000)
    async with Wallet.at(await make_folder(connector, "alice", timeout_ms=2_000)) as alice:
        result = await alice.trace("test.connector.bob")
    assert [hop.address for hop in result.hops] == ["test.connector"]
    assert (result.ending.kind, result.ending.by) == (EndKind.SILENT, "test.connector")
    await deaf.close()


# --- being paid ------------------------------------------------------------------------------------------------------


async def test_a_listener_gives_connections_streams_and_money(connector: "Connector") -> None:
    """The example in the README."""
    received: list[tuple[int, int]] = []

    async def serve(server: Listener, done: asyncio.Event) -> None:
        async for connection in server:
            async for stream in connection:
                async for money in stream:
                    received.append((money.amount, money.total))
                    if money.total == 1_000_000:
                        done.set()

    async with isthmus.listen(connector.url("bob")) as server, isthmus.connect(connector.url("alice")) as alice:
        done = asyncio.Event()
        serving = asyncio.create_task(serve(server, done))
        await alice.pay(server.address, 4_000, secret=server.secret, min_rate="24")
        async with asyncio.timeout(60):
            await done.wait()
        serving.cancel()
    assert sum(amount for amount, _ in received) == 1_000_000
    assert received[-1][1] == 1_000_000


async def test_money_can_be_refused(world: World) -> None:
    """It is held until the application says no; then it goes back."""
    asked: list[int] = []

    def accept(offer: Offer) -> bool:
        asked.append(offer.amount)
        return False

    listener = world.bob.listen(accept=accept)
    with pytest.raises(PaymentError) as failed:
        await world.alice.pay(listener.address, 400, secret=listener.secret, min_rate="24")
    assert failed.value.result.sent == 0
    assert asked
    assert world.connector.balance("alice") == 0


async def test_a_receiver_s_limit_holds(world: World) -> None:
    listener = world.bob.listen(receive_max=1_000_000)
    connection = await world.alice.open(listener.address, listener.secret, min_rate="24")
    stream = connection.stream()
    sending = asyncio.create_task(stream.send(8_000))
    accepted = await anext(aiter(listener))
    incoming = await anext(aiter(accepted))
    total = 0
    async for money in incoming:
        total = money.total
        if total >= 1_000_000:
            break
    assert total < 1_000_000 + 250
    assert not sending.done()
    incoming.limit(2_000_000)
    done = await asyncio.wait_for(sending, 60)
    assert done.sent == 8_000
    await connection.close()


async def test_tags_come_back_with_their_connection(world: World) -> None:
    invitation = world.listener.invite(tag=b"order 7")
    connection = await world.alice.open(invitation.address, invitation.shared_secret, min_rate="24")
    await connection.stream().send(400)
    accepted = await anext(aiter(world.listener))
    assert accepted.tag == b"order 7"
    await connection.close()


# --- streams ---------------------------------------------------------------------------------------------------------


async def test_bytes_go_both_ways(world: World) -> None:
    connection = await world.alice.open(world.listener.address, world.listener.secret)
    stream = connection.stream()
    question = bytes(range(256)) * 1_000  # several windows
    writing = asyncio.create_task(stream.write(question))
    accepted = await anext(aiter(world.listener))
    incoming = await anext(aiter(accepted))
    heard = b""
    while len(heard) < len(question):
        heard += await incoming.read()
    assert heard == question
    await writing
    stream.end()
    assert await incoming.read() == b""
    await incoming.write(b"answer")
    incoming.end()
    assert await stream.read() == b"answer"
    assert await stream.read() == b""
    await connection.close()


async def test_money_goes_both_ways(world: World) -> None:
    connection = await world.alice.open(world.listener.address, world.listener.secret, min_rate="24")
    stream = connection.stream()
    await stream.send(4_000)
    accepted = await anext(aiter(world.listener))
    incoming = await anext(aiter(accepted))
    assert (await anext(incoming)).total > 0
    await accepted.require_rate("0.03")
    back = await incoming.send(500_000)
    assert (back.sent, back.delivered) == (500_000, 2_000)
    total = 0
    async for money in stream:
        total = money.total
        if total == 2_000:
            break
    assert world.connector.balance("alice") == 2_000
    await connection.close()


async def test_a_closed_connection_ends_iteration_and_sending(world: World) -> None:
    connection = await world.alice.open(world.listener.address, world.listener.secret, min_rate="24")
    stream = connection.stream()
    await stream.send(400)
    accepted = await anext(aiter(world.listener))
    incoming = await anext(aiter(accepted))
    await connection.close()
    assert [money.total async for money in incoming] == [100_000]
    assert [one async for one in accepted] == []
    with pytest.raises(StreamError, match="closed"):
        await stream.send(400)


@pytest.mark.parametrize("amount", [0.015, True, None])
async def test_floats_are_no_amounts(world: World, amount: object) -> None:
    with pytest.raises(TypeError, match="floats are not exact"):
        await world.alice.pay("$bob", amount, min_rate="24")  # type: ignore[arg-type]


@pytest.mark.parametrize("rate", ["1e999999999", "1/0", "-1", "abc", "1" * 101])
def test_rates_that_are_no_numbers_or_fill_the_memory_are_refused(rate: str) -> None:
    with pytest.raises(ValueError, match="rate|literal"):
        as_fraction(rate)


async def test_floats_are_no_rates(world: World) -> None:
    with pytest.raises(TypeError, match="float"):
        await world.alice.open(world.listener.address, world.listener.secret, min_rate=24.5)  # type: ignore[arg-type]


async def test_receipts_reach_the_payer(world: World) -> None:
    """RCPT-6: the payer gets receipts, and learns nothing of their secret."""
    invitation = world.listener.invite(receipt_nonce=bytes(16), receipt_secret=bytes(32))
    result = await world.alice.pay(invitation.address, 4_000, secret=invitation.shared_secret, min_rate="24")
    assert len(result.receipt) == 58


# --- trouble on the way ----------------------------------------------------------------------------------------------


@pytest.mark.slow  # what was in the air when the connection broke is waited for until it expires
async def test_a_payment_survives_a_connector_s_reconnection(world: World) -> None:
    """BTP-18: packets that may have left are never sent again; others are, with new numbers."""
    from isthmus.connector.events import AccountId

    broken = False

    def told(progress: Progress) -> None:
        nonlocal broken
        if progress.sent > 10_000 and not broken:
            broken = True
            assert world.connector.server is not None
            world.connector.server.link(AccountId("alice")).reset("for the test")

    async with AsyncExitStack():
        result = await world.alice.pay(
            world.listener.address, "0.02", secret=world.listener.secret, min_rate="24", on_progress=told
        )
    assert broken
    assert (result.status, result.sent, result.unknown) == ("completed", 2_000_000, 0)
    assert world.connector.balance("alice") == 2_000_000
    assert sum(one.total for one in world.bob.received().values()) == result.delivered
