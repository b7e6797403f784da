"""STREAM's shell behind the in-process link, with the kernel's part played by the test."""

from collections.abc import Callable
from typing import Any

import pytest

from isthmus.client.endpoint import UNDO_AFTER_MS, Endpoint
from isthmus.client.ledger import CREDIT_ONE
from isthmus.client.listener import Listener
from isthmus.client.tables import LOCAL
from isthmus.connector.events import AccountId, Inbound, Now, Outbound, Undelivered
from isthmus.ilp.asset import Asset
from isthmus.ilp.packet import FULFILL, REJECT, Fulfill, Reject, decode_reply, encode_prepare, encode_reject
from isthmus.stream.connection import Connection as Machine
from isthmus.stream.orders import SendPrepare
from isthmus.stream.settings import Settings
from isthmus.stream.tokens import Invitation

WALL_MS = 1_700_000_000_000
ADDRESS = "test.hub.bob"


class Kernel:
    """Takes what the endpoint sends; the test decides what becomes of it. Implements `links.port.LinkOwner`."""

    def __init__(self) -> None:
        self.now = Now(WALL_MS, 1_000)
        self.got: list[list[Inbound]] = []

    def inbound(self, packets: list[Inbound]) -> None:
        self.got.append(packets)

    def undelivered(self, failures: list[Undelivered]) -> None: ...

    def link_up(self, account: AccountId) -> None: ...

    def link_down(self, account: AccountId, why: str) -> None: ...

    def blocked(self, account: AccountId) -> None: ...

    def writable(self, account: AccountId) -> None: ...

    def mono_ms(self) -> int:
        return self.now.mono_ms

    def passes(self, ms: int) -> None:
        self.now = Now(self.now.wall_ms + ms, self.now.mono_ms + ms)


class World:
    """Bob's endpoint, and a payer's machine that speaks to it through the test."""

    def __init__(self) -> None:
        self.kernel = Kernel()
        self.old: list[Outbound] = []
        self.endpoint = Endpoint(
            self.kernel,
            session=b"s" * 16,
            server_secret=b"k" * 32,
            address=ADDRESS,
            asset=Asset("ETH", 9),
            timeout_ms=30_000,
            recall=lambda _: None,
            on_old_reply=self.old.append,
            now=lambda: self.kernel.now,
        )
        self.listener = Listener(self.endpoint)
        self.endpoint.listen(self.listener)
        self._requests = 0

    def payer(self, invitation: Invitation | None = None) -> Machine:
        to = invitation or self.listener.invite()
        machine = Machine(
            Settings(asset=Asset("ETH", 9)), to.shared_secret, random_bytes=bytes, peer_address=to.address
        )
        machine.set_minimum_rate(_one())
        return machine

    def frames(self, machine: Machine) -> list[tuple[SendPrepare, Outbound]]:
        """What the payer sends now, as the kernel would hand it over."""
        frames = []
        for order in machine.poll(self.kernel.now.mono_ms):
            if isinstance(order, SendPrepare):
                self._requests += 1
                packet = encode_prepare(order.prepare(self.kernel.now.wall_ms))
                frames.append((order, Outbound(b"p" * 16, self._requests, packet)))
        return frames

    def exchange(self, machine: Machine, *, until: Callable[[], bool]) -> None:
        """Back and forth, every Fulfill posted, until the condition holds."""
        for _ in range(50):
            if until():
                return
            frames = self.frames(machine)
            self.endpoint.link.write([frame for _, frame in frames])
            for answer in self.kernel.got.pop() if self.kernel.got else []:
                order = next(order for order, frame in frames if frame.request_id == answer.request_id)
                machine.reply_received(order.number, decode_reply(answer.packet), self.kernel.now.mono_ms)
        raise AssertionError("it never came to that")


def _one() -> Any:
    from fractions import Fraction

    return Fraction(1)


@pytest.fixture
async def world() -> World:
    return World()


def to_the_money(world: World) -> tuple[Machine, list[tuple[SendPrepare, Outbound]]]:
    """A payer that has found the rate, and its first packets of money."""
    machine = world.payer()
    stream = machine.open_stream()
    assert stream is not None
    machine.send_total(stream, 100)
    world.exchange(machine, until=lambda: machine.rate > 0)
    frames = world.frames(machine)
    assert frames
    return machine, frames


async def test_all_answers_of_a_batch_leave_in_one_call(world: World) -> None:
    machine = world.payer()
    stream = machine.open_stream()
    assert stream is not None
    machine.start_quote()
    frames = world.frames(machine)
    assert len(frames) > 1
    world.endpoint.link.write([frame for _, frame in frames])
    assert [len(batch) for batch in world.kernel.got] == [len(frames)]


async def test_a_credit_rides_with_its_fulfill(world: World) -> None:
    """Books and the receiver's total can't disagree: one batch holds both."""
    _, frames = to_the_money(world)
    world.endpoint.link.write([frame for _, frame in frames])
    (answers,) = world.kernel.got
    assert all(answer.packet[0] == FULFILL and answer.note[0] == CREDIT_ONE for answer in answers)
    assert all(answer.account == LOCAL and answer.session == b"p" * 16 for answer in answers)


async def test_the_application_hears_of_money_once_it_is_durable(world: World) -> None:
    _, frames = to_the_money(world)
    world.endpoint.link.write([frame for _, frame in frames])
    connection = await anext(aiter(world.listener))
    world.endpoint.credit_posted(connection.id, frames[0][0].number, 7)
    assert connection.received == 0
    world.endpoint.durable(6)
    assert connection.received == 0
    world.endpoint.durable(7)
    assert connection.received == frames[0][0].amount


async def test_a_fulfill_that_the_kernel_didn_t_take_is_undone(world: World) -> None:
    """P-12: it came too late, so the money isn't ours; the receiver's total says so."""
    machine, frames = to_the_money(world)
    world.endpoint.link.write([frame for _, frame in frames])
    connection = await anext(aiter(world.listener))
    assert connection.machine.received == 100
    world.kernel.passes(30_000 + UNDO_AFTER_MS - 1)
    world.endpoint.link.write([])
    assert connection.machine.received == 100
    world.kernel.passes(1)
    world.endpoint.link.write([])
    assert connection.machine.received == 0
    assert connection.received == 0
    assert machine.totals.delivered == 0


async def test_packets_to_nobody_are_refused_without_a_word(world: World) -> None:
    """STREAM-9."""
    invitation = world.listener.invite()
    stranger = world.payer(Invitation(invitation.address, b"x" * 32))
    stranger.start_quote()
    world.endpoint.link.write([frame for _, frame in world.frames(stranger)])
    for answer in world.kernel.got.pop():
        reject = decode_reply(answer.packet)
        assert isinstance(reject, Reject)
        assert (reject.code, reject.data) == ("F06", b"")


async def test_without_a_listener_packets_are_refused(world: World) -> None:
    machine = world.payer()
    world.listener.close()
    machine.start_quote()
    world.endpoint.link.write([frame for _, frame in world.frames(machine)])
    assert all(answer.packet[0] == REJECT for batch in world.kernel.got for answer in batch)


async def test_a_destination_that_is_no_address_is_refused(world: World) -> None:
    """The kernel forwards without looking at each character."""
    _, frames = to_the_money(world)
    damaged = frames[0][1].packet.replace(b"test.hub.bob.", b"test.hub.bob ")
    world.endpoint.link.write([Outbound(b"p" * 16, 99, damaged)])
    (answer,) = world.kernel.got.pop()
    reject = decode_reply(answer.packet)
    assert isinstance(reject, Reject)
    assert reject.code == "F01"


async def test_replies_to_an_earlier_process_are_for_its_aftermath(world: World) -> None:
    frame = Outbound(b"earlier process!", 1, encode_reject(Reject("R00", "", "")))
    world.endpoint.link.write([frame])
    assert world.old == [frame]


async def test_a_probe_gets_its_reply_and_a_closing_endpoint_gives_one(world: World) -> None:
    heard: list[Fulfill | Reject] = []
    for _ in range(2):
        world.endpoint.probe("test.far", 0, b"", heard.append)
    first = world.kernel.got[0][0]
    reply = encode_reject(Reject("F02", "test.hub", "no route"))
    world.endpoint.link.write([Outbound(first.session, first.request_id, reply)])
    world.endpoint.close()
    assert [one.code for one in heard if isinstance(one, Reject)] == ["F02", "T01"]


async def test_a_new_address_makes_new_invitations(world: World) -> None:
    """ILDCP-7."""
    world.endpoint.move("test.other.bob")
    assert world.listener.invite().address.startswith("test.other.bob.")
