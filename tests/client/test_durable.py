"""Wallets in folders: what a kill leaves, and how a payment goes on (design, "STREAM and the durable payment")."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import isthmus
from isthmus import Listener, Wallet
from isthmus.client.folder import JOURNAL_FILE
from isthmus.client.payment import PaymentResult
from isthmus.errors import JournalError
from isthmus.journal.reader import JournalReader

if TYPE_CHECKING:
    from tests.client.conftest import Connector, MakeConnector, MakeFolder

AMOUNT = 400_000  # in packets of 400
# A wallet's process that pays, tells how far it is, and never gets to its end by itself.
PAYER = """
import asyncio, sys
import isthmus

async def main():
    folder, address, secret, amount, key, deliver = sys.argv[1:]
    async with isthmus.connect(folder) as wallet:
        result = await wallet.pay(
            address, int(amount), secret=bytes.fromhex(secret), min_rate="24", key=key, deliver=bool(deliver),
            on_progress=lambda progress: print(progress.sent, flush=True),
        )
        print("ended", result.sent, flush=True)

asyncio.run(main())
"""


@dataclass
class World:
    connector: "Connector"
    folder: Path
    bob: Wallet
    listener: Listener

    async def kill_in_the_middle(
        self,
        key: str = "rent",
        *,
        amount: int = AMOUNT,
        deliver: bool = False,
        invitation: isthmus.Invitation | None = None,
    ) -> None:
        """Start the payment in a process of its own, and kill -9 it when some was sent."""
        address = self.listener.address if invitation is None else invitation.address
        secret = self.listener.secret if invitation is None else invitation.shared_secret
        arguments = [str(self.folder), address, secret.hex(), str(amount), key]
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", PAYER, *arguments, "yes" if deliver else "", stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        while line := await process.stdout.readline():
            assert not line.startswith(b"ended"), "the payment was too quick to be killed"
            if int(line) > 0:
                break
        process.send_signal(signal.SIGKILL)
        await process.communicate()

    async def pay(
        self, wallet: Wallet, key: str = "rent", *, amount: int = AMOUNT, deliver: bool = False
    ) -> PaymentResult:
        return await wallet.pay(
            self.listener.address, amount, secret=self.listener.secret, min_rate="24", key=key, deliver=deliver
        )

    @property
    def received(self) -> int:
        return sum(one.total for one in self.bob.received().values())


@pytest.fixture
async def world(make_connector: "MakeConnector", make_folder: "MakeFolder") -> AsyncIterator[World]:
    # 25,000 units of ETH are 100 of BTC: thousands of packets, so that a kill meets some in flight.
    connector = await make_connector(packet_amount_max=25_000, terms={"expiry_margin_ms": 200})
    folder = await make_folder(connector, "alice", timeout_ms=3_000)
    async with isthmus.connect(connector.url("bob")) as bob:
        yield World(connector, folder, bob, bob.listen())


# --- kills -----------------------------------------------------------------------------------------------------------


async def test_a_killed_payment_goes_on_with_the_same_key_and_pays_once(world: World) -> None:
    """Grants are durable before packets: nothing beyond the amount leaves in both lives together."""
    await world.kill_in_the_middle()
    async with isthmus.connect(world.folder) as wallet:
        (before,) = wallet.paid()
        assert before.status == "running"
        assert before.sent <= world.connector.balance("alice") <= before.granted
        result = await world.pay(wallet)
        assert (result.status, result.sent, result.unknown) == ("completed", AMOUNT, 0)
        assert world.connector.balance("alice") == AMOUNT
        assert world.received == result.delivered == result.delivered_max  # the receiver was asked
        again = await world.pay(wallet)
        assert (again.repeated, again.sent, again.delivered) == (True, result.sent, result.delivered)
        assert -wallet.balance == world.connector.balance("alice")


async def test_a_fixed_destination_amount_is_exact_over_a_kill(world: World) -> None:
    """What the receiver says it has is not sent again."""
    goal = 100_000_000
    await world.kill_in_the_middle(amount=goal, deliver=True)
    async with isthmus.connect(world.folder) as wallet:
        result = await world.pay(wallet, amount=goal, deliver=True)
        assert result.status == "completed"
        assert goal <= world.received < goal + 250
        assert result.delivered == world.received


@pytest.mark.slow
async def test_two_kills_are_no_worse_than_one(world: World) -> None:
    for _ in range(2):
        await world.kill_in_the_middle(amount=2 * AMOUNT)
    async with isthmus.connect(world.folder) as wallet:
        result = await world.pay(wallet, amount=2 * AMOUNT)
        assert (result.sent, result.unknown) == (2 * AMOUNT, 0)
        assert world.connector.balance("alice") == 2 * AMOUNT
        assert world.received == result.delivered


@pytest.mark.slow
async def test_what_a_silent_receiver_got_is_shown_as_between(world: World) -> None:
    """Our books tell what left; what arrived of it only the receiver could tell."""
    await world.kill_in_the_middle(key="")
    await world.bob.close()
    async with isthmus.connect(world.folder) as wallet:
        (payment,) = wallet.paid()
        sent_before, granted = payment.sent, payment.granted
        assert wallet.recovery is not None
        await wallet.recovery
        (payment,) = wallet.paid()
        assert payment.status == "stopped"
        assert sent_before <= payment.sent <= granted
        assert (payment.sent, payment.unknown) == (world.connector.balance("alice"), 0)
        assert payment.delivered_max - payment.delivered <= 250 * (payment.sent - sent_before)
        assert payment.delivered <= -world.connector.balance("bob") <= payment.delivered_max


async def test_where_replies_said_nothing_the_receiver_is_asked_at_the_end(world: World) -> None:
    """Simulator, seed 1924: the sender's word of what arrived was a guess by a rate that it hardly knew."""
    async with isthmus.connect(world.folder) as wallet:
        world.connector.links["alice"].skip = 3
        world.connector.links["alice"].left = 20
        result = await world.pay(wallet)
        assert not world.connector.links["alice"].left
        assert (result.status, result.sent) == ("completed", AMOUNT)
        assert result.delivered == result.delivered_max == world.received


@pytest.mark.slow
async def test_what_a_receiver_does_not_say_after_a_kill_it_may_say_at_the_end(world: World) -> None:
    """Simulator, seeds 1135 and 1250. Of a fixed destination amount, what is known to be missing then follows."""
    goal = 100_000_000
    await world.kill_in_the_middle(amount=goal, deliver=True)
    world.connector.links["alice"].left = 1  # the answer that is asked for first
    async with isthmus.connect(world.folder) as wallet:
        result = await world.pay(wallet, amount=goal, deliver=True)
        assert not world.connector.links["alice"].left
        assert result.status == "completed"
        assert goal <= world.received < goal + 250
        assert result.delivered == result.delivered_max == world.received


@pytest.mark.slow
async def test_of_two_killed_payments_the_unknown_counts_as_sent(world: World) -> None:
    """It is never sent again by itself: each keeps below its amount, whatever the truth is."""
    first, second = world.listener.invite(), world.listener.invite()
    await world.kill_in_the_middle("one", invitation=first)
    await world.kill_in_the_middle("two", invitation=second)
    async with isthmus.connect(world.folder) as wallet:
        one, two = wallet.paid()
        results = [
            await wallet.pay(each.address, AMOUNT, secret=each.shared_secret, min_rate="24", key=key)
            for each, key in ((first, "one"), (second, "two"))
        ]
        assert all(result.sent + result.unknown == AMOUNT for result in results)
        assert sum(result.sent for result in results) <= world.connector.balance("alice") <= 2 * AMOUNT
        assert world.received == sum(result.delivered for result in results)
        assert one.granted
        assert two.granted


@pytest.mark.slow
async def test_a_killed_payment_without_a_key_is_closed_at_the_next_start(world: World) -> None:
    await world.kill_in_the_middle(key="")
    async with isthmus.connect(world.folder) as wallet:
        assert wallet.recovery is not None
        await wallet.recovery
        (payment,) = wallet.paid()
        assert (payment.status, payment.detail) == ("stopped", "the wallet was killed in the middle")
        assert payment.delivered == world.received
        assert payment.sent + payment.unknown <= AMOUNT


# --- receivers -------------------------------------------------------------------------------------------------------


async def test_a_receiver_s_credits_survive_and_go_on(
    make_connector: "MakeConnector", make_folder: "MakeFolder"
) -> None:
    """The credit is in the batch of its Fulfill; the same connection goes on after a restart, in the same address."""
    connector = await make_connector()
    folder = await make_folder(connector, "bob")
    async with isthmus.connect(connector.url("alice")) as alice:
        async with isthmus.connect(folder) as bob:
            invitation = bob.listener.invite()
            connection = await alice.open(invitation.address, invitation.shared_secret, min_rate="24")
            stream = connection.stream()
            await stream.send(4_000)
            assert [one.total for one in bob.received().values()] == [1_000_000]
        async with isthmus.connect(folder) as bob:
            assert [one.total for one in bob.received().values()] == [1_000_000]
            await stream.send(4_000)
            assert [one.total for one in bob.received().values()] == [2_000_000]
            assert await connection.peer_total(stream.id) == 2_000_000
        assert -connector.balance("bob") == 2_000_000


async def test_history_outlives_the_process(make_connector: "MakeConnector", make_folder: "MakeFolder") -> None:
    connector = await make_connector()
    folder = await make_folder(connector, "alice")
    async with isthmus.listen(connector.url("bob")) as server:
        async with isthmus.connect(folder) as alice:
            await alice.pay(server.address, 4_000, secret=server.secret, min_rate="24", key="first")
        async with isthmus.connect(folder) as alice:
            (payment,) = alice.paid()
            assert (payment.status, payment.sent, payment.delivered, payment.key) == (
                "completed", 4_000, 1_000_000, "first")  # fmt: skip
            repeated = await alice.pay(server.address, 4_000, secret=server.secret, min_rate="24", key="first")
            assert repeated.repeated
            assert connector.balance("alice") == 4_000


# --- the folder ------------------------------------------------------------------------------------------------------


async def test_the_journal_holds_no_secret_in_the_clear(
    make_connector: "MakeConnector", make_folder: "MakeFolder"
) -> None:
    connector = await make_connector()
    folder = await make_folder(connector, "alice")
    async with isthmus.listen(connector.url("bob")) as server:
        async with isthmus.connect(folder) as alice:
            await alice.pay(server.address, 4_000, secret=server.secret, min_rate="24")
        with JournalReader(str(folder / JOURNAL_FILE)) as reader:
            records = b"".join(batch.record for batch in reader.read_from(1))
        assert server.address.encode() in records
        assert server.secret not in records
        assert server.secret.hex().encode() not in records


async def test_a_second_process_on_the_same_folder_is_refused(
    make_connector: "MakeConnector", make_folder: "MakeFolder"
) -> None:
    connector = await make_connector()
    folder = await make_folder(connector, "alice")
    async with isthmus.connect(folder):
        with pytest.raises(JournalError, match="in use by another process"):
            await isthmus.connect(folder).start()


async def test_a_checkpoint_is_reproduced_by_replay(make_connector: "MakeConnector", make_folder: "MakeFolder") -> None:
    """The wallet's own state is part of it."""
    from isthmus.client.core import replay_journal
    from isthmus.client.ledger import WalletLedger

    connector = await make_connector()
    folder = await make_folder(connector, "alice")
    async with isthmus.listen(connector.url("bob")) as server, isthmus.connect(folder) as alice:
        await alice.pay(server.address, 40_000, secret=server.secret, min_rate="24", key="k")
        live = alice.core.ledger.encode_state()
    with JournalReader(str(folder / JOURNAL_FILE)) as reader:
        checkpoint = reader.load_checkpoint()
        first = 1 if checkpoint is None else checkpoint.sequence + 1
        state = replay_journal(None if checkpoint is None else checkpoint.state, reader.read_from(first))
    assert live in state
    loaded = WalletLedger()
    loaded.load_state(live)
    assert [one.key for one in loaded.payments.values()] == ["k"]


async def test_another_address_by_the_connector_is_taken_up(
    make_connector: "MakeConnector", make_folder: "MakeFolder"
) -> None:
    """ILDCP-7: the kernel asks again on each connection; invitations then are for the new address."""
    connector = await make_connector()
    folder = await make_folder(connector, "bob")
    text = (folder / "wallet.toml").read_text()
    (folder / "wallet.toml").write_text(text.replace("test.connector.bob", "test.elsewhere.bob"))
    async with isthmus.connect(folder) as bob, isthmus.connect(connector.url("alice")) as alice:
        await alice.ping("test.connector.bob", count=1)  # by then bob has heard
        assert bob.address == "test.connector.bob"
        invitation = bob.listener.invite()
        result = await alice.pay(invitation.address, 4_000, secret=invitation.shared_secret, min_rate="24")
        assert result.delivered == 1_000_000


async def test_another_asset_by_the_connector_stops_the_wallet(
    make_connector: "MakeConnector", make_folder: "MakeFolder"
) -> None:
    connector = await make_connector()
    folder = await make_folder(connector, "bob")
    text = (folder / "wallet.toml").read_text()
    (folder / "wallet.toml").write_text(text.replace("scale = 9", "scale = 6"))
    async with isthmus.connect(folder) as bob:
        with pytest.raises(isthmus.IsthmusError, match="now counts in ETH with scale 9"):
            await bob.ping("test.connector", count=2, interval_ms=500)
            _ = bob.core.endpoint


async def test_a_receiver_that_has_forgotten_is_not_paid_twice(
    make_connector: "MakeConnector", make_folder: "MakeFolder"
) -> None:
    """Our books know what left, and every packet brought its minimum: a smaller total is not believed."""
    connector = await make_connector(packet_amount_max=25_000, terms={"expiry_margin_ms": 200})
    folder = await make_folder(connector, "alice", timeout_ms=3_000)
    bobs = await make_folder(connector, "bob", timeout_ms=3_000)
    goal = 100_000_000
    async with isthmus.connect(bobs) as bob:
        world = World(connector, folder, bob, bob.listen())
        invitation = world.listener.invite()
        await world.kill_in_the_middle(amount=goal, deliver=True, invitation=invitation)
    for path in bobs.glob(f"{JOURNAL_FILE}*"):
        path.unlink()
    async with isthmus.connect(bobs), isthmus.connect(folder) as wallet:
        result = await wallet.pay(
            invitation.address, goal, secret=invitation.shared_secret, min_rate="24", key="rent", deliver=True
        )
        # A kill may meet no packet whose outcome the wallet had not seen: then nothing is uncertain.
        assert (result.status, result.unknown) == ("completed" if result.delivered >= goal else "uncertain", 0)
        assert goal <= result.delivered_max
        assert result.delivered <= -connector.balance("bob") <= result.delivered_max
        assert -connector.balance("bob") < goal + 1_000
