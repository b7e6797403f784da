"""Links without a network."""

import asyncio
import itertools
from collections.abc import Callable

import pytest

from isthmus.connector.events import AccountId, Inbound, Outbound, Undelivered
from isthmus.links.inprocess import LocalLink, MemoryLink, memory_pair

HERE, THERE = AccountId("here"), AccountId("there")
SESSION = b"s" * 16
PREPARE, FULFILL = b"\x0c" + bytes(20), b"\x0d" + bytes(20)


class Owner:
    """Records what links tell it; its clock steps with each look."""

    def __init__(self) -> None:
        self.packets: list[Inbound] = []
        self.failures: list[Undelivered] = []
        self.facts: list[str] = []
        self._clock = itertools.count(1)

    def inbound(self, packets: list[Inbound]) -> None:
        self.packets += packets

    def undelivered(self, failures: list[Undelivered]) -> None:
        self.failures += failures

    def link_up(self, account: AccountId) -> None:
        self.facts.append(f"up {account}")

    def link_down(self, account: AccountId, why: str) -> None:
        self.facts.append(f"down {account}")

    def blocked(self, account: AccountId) -> None: ...

    def writable(self, account: AccountId) -> None: ...

    def mono_ms(self) -> int:
        return next(self._clock)


@pytest.fixture
async def pair() -> tuple[Owner, Owner, MemoryLink, MemoryLink]:
    one, other = Owner(), Owner()
    return one, other, *memory_pair(HERE, one, THERE, other)


async def turn() -> None:
    await asyncio.sleep(0)


Pair = tuple[Owner, Owner, MemoryLink, MemoryLink]


async def test_packets_cross_with_their_whole_wire_identity(pair: Pair) -> None:
    """CONN-1. In a later turn, as from a socket."""
    one, other, here, there = pair
    await here.start()
    assert one.facts == []
    await there.start()
    assert one.facts == ["up here"] and other.facts == ["up there"]
    here.write([Outbound(SESSION, 1, PREPARE), Outbound(SESSION, 2, PREPARE)])
    assert other.packets == []
    await turn()
    assert [(p.account, p.session, p.request_id) for p in other.packets] == [(THERE, SESSION, 1), (THERE, SESSION, 2)]
    there.write([Outbound(SESSION, 2, FULFILL)])
    await turn()
    assert [(p.account, p.session, p.request_id, p.packet) for p in one.packets] == [(HERE, SESSION, 2, FULFILL)]


async def test_while_down_prepares_fail_and_answers_wait(pair: Pair) -> None:
    """BTP-18."""
    one, other, here, there = pair
    await here.start()
    here.write([Outbound(SESSION, 1, PREPARE), Outbound(SESSION, 9, FULFILL)])
    assert [(failure.request_id, failure.code) for failure in one.failures] == [(1, "T01")]
    await there.start()
    await turn()
    assert [(p.request_id, p.packet) for p in other.packets] == [(9, FULFILL)]
    await there.close()
    assert one.facts[-1] == "down here" and other.facts[-1] == "down there"
    here.write([Outbound(SESSION, 2, PREPARE)])
    assert len(one.failures) == 2


async def test_reading_can_pause(pair: Pair) -> None:
    _, other, here, there = pair
    await here.start()
    await there.start()
    here.write([Outbound(SESSION, 1, PREPARE)])
    there.pause_reading()
    await turn()
    here.write([Outbound(SESSION, 2, PREPARE)])
    await turn()
    assert other.packets == []
    there.resume_reading()
    await turn()
    assert [packet.request_id for packet in other.packets] == [1, 2]


async def test_a_reset_is_seen_by_both(pair: Pair) -> None:
    one, other, here, there = pair
    await here.start()
    await there.start()
    here.reset("a test")
    assert one.facts == ["up here", "down here", "up here"] and other.facts == ["up there", "down there", "up there"]


@pytest.fixture
def local() -> tuple[Owner, LocalLink, list[Outbound]]:
    owner, got = Owner(), list[Outbound]()
    return owner, LocalLink(HERE, owner, got.extend, session=SESSION), got


Local = tuple[Owner, LocalLink, list[Outbound]]


async def test_endpoints_send_and_answer_with_notes(local: Local) -> None:
    """Each Prepare has its own id; a reply has the identity of its request; notes ride along."""
    owner, link, got = local
    await link.start()
    link.send([link.prepare(PREPARE, b"grant"), link.prepare(PREPARE)])
    assert [(p.session, p.request_id, p.note) for p in owner.packets] == [(SESSION, 1, b"grant"), (SESSION, 2, b"")]
    request = Outbound(b"k" * 16, 5, PREPARE)
    link.write([request])
    assert got == [request]
    link.send([link.reply(request, FULFILL, b"credit")])
    last = owner.packets[-1]
    assert (last.session, last.request_id, last.packet, last.note) == (b"k" * 16, 5, FULFILL, b"credit")
    await link.close()
    assert owner.facts == ["up here", "down here"]


@pytest.mark.parametrize("between", [lambda link: None, lambda link: link.reset("nothing")])
def test_a_paused_local_link_holds_packets_in_order(local: Local, between: Callable[[LocalLink], None]) -> None:
    owner, link, _ = local
    link.pause_reading()
    for _ in range(3):
        link.send([link.prepare(PREPARE)])
        between(link)
    assert owner.packets == []
    link.resume_reading()
    assert [packet.request_id for packet in owner.packets] == [1, 2, 3]
