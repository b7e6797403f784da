"""Time that goes wrong under a running node: a process that stands still, a wall clock that jumps.

Time itself is what these tests wait for (`pass_by`), as there is no event for it.
"""

import asyncio
import signal
import time
from typing import Any

import pytest

from isthmus.ilp.packet import Fulfill, Reject
from tests.faults.test_disk import settled, verify

HOUR_S = 3_600


async def pass_by(milliseconds: int) -> None:
    """Let that much monotonic time go."""
    await asyncio.sleep(milliseconds / 1_000)


@pytest.fixture
def quick(config: Any) -> str:
    return str(config.toml(*(config.account(name, margin="200 ms", hold="5 s") for name in ("alice", "bob"))))


@pytest.mark.slow
async def test_a_process_that_stands_still_beyond_an_expiry(nodes: Any, quick: str, peer: Any) -> None:
    """Bob's Fulfill lies unread until the hold is over: it is judged by the time when it was read, so nobody pays.

    The side that fulfilled too late sees its loss in its own books; this one lists the late Fulfill.
    """
    node = await nodes.run(quick)
    alice, bob = await peer(node, "alice"), await peer(node, "bob")
    late = alice.prepare("test.node.bob", 5, left_ms=4_000)
    request = await bob.request()
    node.signal(signal.SIGSTOP)
    bob.fulfil(request)
    await pass_by(4_100)
    node.signal(signal.SIGCONT)
    async with asyncio.timeout(60):
        answer = await late
    assert isinstance(answer, Reject) and answer.code == "R00"
    await settled(node)
    assert await node.balances() == {"alice": 0, "bob": 0}
    bob.fulfil_all()
    assert isinstance(await alice.pay("test.node.bob", 7), Fulfill)
    assert await node.balances() == {"alice": 7, "bob": -7}


async def test_a_process_that_stands_still_for_less(nodes: Any, quick: str, peer: Any) -> None:
    """What is due in time is paid in time: on waking, sockets are read before timers fire."""
    node = await nodes.run(quick)
    alice, bob = await peer(node, "alice"), await peer(node, "bob")
    paid = alice.prepare("test.node.bob", 5, left_ms=4_800)
    request = await bob.request()
    node.signal(signal.SIGSTOP)
    bob.fulfil(request)
    await pass_by(500)
    node.signal(signal.SIGCONT)
    async with asyncio.timeout(60):
        assert isinstance(await paid, Fulfill)
    assert await node.balances() == {"alice": 5, "bob": -5}


@pytest.mark.slow
async def test_a_process_that_stands_still_for_a_minute(nodes: Any, two: str, peer: Any) -> None:
    """Twice the longest hold: all that was in flight is void, links come back, and payments pass."""
    node = await nodes.run(two)
    alice, bob = await peer(node, "alice"), await peer(node, "bob")
    held = [alice.prepare("test.node.bob", 1 + number) for number in range(50)]
    requests = [await bob.request() for _ in held]
    node.signal(signal.SIGSTOP)
    for request in requests[:25]:
        bob.fulfil(request)
    await pass_by(60_000)
    node.signal(signal.SIGCONT)
    await alice.until(lambda: alice.is_up)
    await bob.until(lambda: bob.is_up)
    await settled(node)
    assert await node.balances() == {"alice": 0, "bob": 0}
    assert not any(answer.done() and isinstance(answer.result(), Fulfill) for answer in held)
    bob.fulfil_all()
    async with asyncio.timeout(60):
        while not isinstance(await alice.pay("test.node.bob", 7), Fulfill):
            pass  # her link was found dead meanwhile, and comes back
    assert await node.balances() == {"alice": 7, "bob": -7}


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [-HOUR_S, HOUR_S])
async def test_a_wall_clock_that_jumps_by_an_hour(nodes: Any, quick: str, peer: Any, faults: Any, seconds: int) -> None:
    """What is in flight ends by the monotonic clock, at its time. New packets pass or are refused; nothing is lost."""
    switches = faults()
    node = await nodes.run(quick, wrapper=switches.wrapper)
    alice, bob = await peer(node, "alice"), await peer(node, "bob")
    kept = alice.prepare("test.node.bob", 5, left_ms=4_000)
    expires = alice.prepare("test.node.bob", 6, left_ms=2_000)
    requests = [await bob.request() for _ in range(2)]
    began = time.monotonic()
    switches.on("clock", str(seconds))
    bob.fulfil(requests[0])
    async with asyncio.timeout(60):
        assert isinstance(await kept, Fulfill)
        refused = await expires
    assert isinstance(refused, Reject) and refused.code == "R00"
    assert time.monotonic() - began < 10  # neither at once nor an hour later
    bob.answer = bob.fulfil
    answers = [await alice.pay("test.node.bob", 10) for _ in range(3)]
    paid = 5 + 10 * sum(isinstance(answer, Fulfill) for answer in answers)
    await settled(node)
    assert await node.balances() == {"alice": paid, "bob": -paid}
    switches.off("clock")
    assert isinstance(await alice.pay("test.node.bob", 7), Fulfill)
    assert await node.balances() == {"alice": paid + 7, "bob": -paid - 7}
    await node.kill()
    verify(node.folder)
    # And by its own clock again: what was recorded under the wrong one is replayed as it is.
    node = await nodes.run(quick, folder=node.folder, wrapper=switches.wrapper)
    assert await node.balances() == {"alice": paid + 7, "bob": -paid - 7}
