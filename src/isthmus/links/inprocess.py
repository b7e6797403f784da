"""Links without a network: two kernels of one process joined in memory, and the link to endpoints of our own."""

import asyncio
from collections.abc import Callable
from typing import Final, final

from isthmus.connector.events import REQUEST_ID_MAX, SESSION_BYTES, AccountId, Inbound, Outbound, Undelivered
from isthmus.links.btp.answers import Answers
from isthmus.links.port import LinkOwner

_PREPARE: Final = 12


@final
class MemoryLink:
    """One end of a pair made by `memory_pair`. It has sessions, so replies carry the whole wire identity."""

    def __init__(self, account: AccountId, owner: LinkOwner) -> None:
        self.account = account
        self.answers: Final = Answers()
        self._owner: Final = owner
        self._loop: Final = asyncio.get_running_loop()
        self._other: MemoryLink | None = None
        self._is_up = False
        self._is_paused = False
        self._queue: list[Outbound] = []
        self._due = False

    @property
    def is_up(self) -> bool:
        return self._is_up

    def meet(self, other: "MemoryLink") -> None:
        self._other = other

    async def start(self) -> None:
        """The pair comes up when both ends were started."""
        self._is_up = True
        if self._other is not None and self._other.is_up:
            self._other.came_up()
            self.came_up()

    def came_up(self) -> None:
        self._owner.link_up(self.account)
        again = self.answers.take(self._owner.mono_ms(), knows_sessions=True)
        if again:
            self.write(again)

    def write(self, frames: list[Outbound]) -> None:
        other = self._other
        if other is not None and self._is_up and other.is_up:
            other.deliver(frames)
            return
        failures: list[Undelivered] = []
        for frame in frames:
            if frame.packet[0] == _PREPARE:
                failures.append(Undelivered(self.account, frame.request_id, "T01", "the link to the next hop is down"))
            else:
                self.answers.keep(frame, self._owner.mono_ms())
        if failures:
            self._owner.undelivered(failures)

    def deliver(self, frames: list[Outbound]) -> None:
        """From the other end. Handed over in a later turn of the loop, as a socket would."""
        self._queue += frames
        self._deliver_soon()

    def pause_reading(self) -> None:
        self._is_paused = True

    def resume_reading(self) -> None:
        self._is_paused = False
        self._deliver_soon()

    def reset(self, why: str) -> None:
        """Down and up again; what is on its way still arrives."""
        if self._other is not None and self._is_up and self._other.is_up:
            for end in (self, self._other):
                end.went_down(why)
            for end in (self, self._other):
                end.came_up()

    def went_down(self, why: str) -> None:
        self._owner.link_down(self.account, why)

    async def close(self) -> None:
        if self._is_up:
            self._is_up = False
            self.went_down("closing")
            if self._other is not None and self._other.is_up:
                self._other.went_down("the other end closed")

    def _deliver_soon(self) -> None:
        if self._queue and not self._due and not self._is_paused:
            self._due = True
            self._loop.call_soon(self._hand_over)

    def _hand_over(self) -> None:
        self._due = False
        if self._is_paused:
            return
        queue, self._queue = self._queue, []
        read_at = self._owner.mono_ms()
        self._owner.inbound(
            [Inbound(self.account, frame.session, frame.request_id, frame.packet, read_at) for frame in queue]
        )


def memory_pair(
    account: AccountId, owner: LinkOwner, other_account: AccountId, other_owner: LinkOwner
) -> tuple[MemoryLink, MemoryLink]:
    """Two links, each the other's peer. They may belong to one owner or to two."""
    one, other = MemoryLink(account, owner), MemoryLink(other_account, other_owner)
    one.meet(other)
    other.meet(one)
    return one, other


@final
class LocalLink:
    """The account of our own endpoints (STREAM senders and receivers) in the kernel of their process.

    `on_packets` gets what the kernel sends them: Prepares to answer, and the replies to their Prepares. They hand
    theirs over with `send`; a `note` is journaled in the batch that posts the Fulfill or reserves the Prepare.
    """

    def __init__(
        self, account: AccountId, owner: LinkOwner, on_packets: Callable[[list[Outbound]], None], *, session: bytes
    ) -> None:
        assert len(session) == SESSION_BYTES
        self.account = account
        self.session: Final = session  # 16 random bytes of this process: wire identity of the endpoints' Prepares
        self._owner: Final = owner
        self._on_packets: Final = on_packets
        self._last_id = 0
        self._is_paused = False
        self._held: list[Inbound] = []

    def prepare(self, packet: bytes, note: bytes = b"") -> Inbound:
        """A Prepare of an endpoint, to hand to `send`; its reply comes under the `request_id` set here."""
        assert packet[0] == _PREPARE
        assert self._last_id < REQUEST_ID_MAX
        self._last_id += 1
        return Inbound(self.account, self.session, self._last_id, packet, self._owner.mono_ms(), note)

    def reply(self, prepare: Outbound, packet: bytes, note: bytes = b"") -> Inbound:
        """The answer of an endpoint to a Prepare that it got."""
        assert packet[0] != _PREPARE
        return Inbound(self.account, prepare.session, prepare.request_id, packet, self._owner.mono_ms(), note)

    def send(self, packets: list[Inbound]) -> None:
        """Hand packets to the kernel; in order, held while reading is paused."""
        if self._is_paused:
            self._held += packets
        elif packets:
            self._owner.inbound(packets)

    async def start(self) -> None:
        self._owner.link_up(self.account)

    def write(self, frames: list[Outbound]) -> None:
        self._on_packets(frames)

    def pause_reading(self) -> None:
        self._is_paused = True

    def resume_reading(self) -> None:
        self._is_paused = False
        held, self._held = self._held, []
        if held:
            self._owner.inbound(held)

    def reset(self, why: str) -> None:
        """There is nothing to drop."""

    async def close(self) -> None:
        self._owner.link_down(self.account, "closing")
