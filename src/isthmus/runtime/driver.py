"""asyncio drives a kernel: it collects what links read, hands it over in batches, and carries out the effects.

The driver decides nothing. It owns the order in which the kernel hears of things: everything that the sockets had
ready in one turn of the loop is one batch, and timers come after it (design, "Time").
"""

import asyncio
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeAlias, TypeVar, final

from isthmus.connector.events import (
    AccountId,
    AddressLearned,
    Append,
    AppendFailed,
    CloseLink,
    Corrected,
    Correction,
    DigestAsked,
    Digested,
    Drain,
    Drained,
    Durable,
    Effect,
    Event,
    Halt,
    Inbound,
    LinkBlocked,
    LinkDown,
    LinkUp,
    LinkWritable,
    Log,
    Note,
    Noted,
    Now,
    Ping,
    Ponged,
    Release,
    SendSettlementMessage,
    Settle,
    SettlementAnswered,
    SettlementDue,
    SettlementMessage,
    SettlementMessageAnswered,
    SettlementMessageReply,
    SettlementStep,
    TablesTaken,
    Undelivered,
)
from isthmus.connector.kernel import Kernel
from isthmus.connector.tables import RatesChanged, RateTable, TableEvent, Tables, TablesChanged
from isthmus.errors import JournalError
from isthmus.ilp.packet import PREPARE
from isthmus.journal.interface import Journal
from isthmus.links.btp.link import BtpLink
from isthmus.links.port import Link
from isthmus.runtime import clock
from isthmus.runtime.fairness import Fairness

# A timer that is due a moment later costs nothing; one loop turn per millisecond would.
TIMER_GRAIN_MS: Final = 2
_PREPARE_BYTE: Final = bytes((PREPARE,))

T = TypeVar("T")
# Of a message to a peer's engine: what came of it. None: no answer in time; JournalError: the node halts or stops.
TellAnswer: TypeAlias = Callable[[SettlementMessageAnswered | JournalError | None], None]


@final
class CommitTimes:
    """How long commits took, in buckets for a histogram."""

    BOUNDS_MS: Final = (1, 2, 5, 10, 20, 50, 100, 200, 400, 1_000, 5_000)

    def __init__(self) -> None:
        self.counts: Final = [0] * (len(self.BOUNDS_MS) + 1)
        self.sum_ms = 0
        self._submitted: Final[dict[int, int]] = {}

    def submitted(self, sequence: int, now: int) -> None:
        self._submitted[sequence] = now

    def durable(self, sequence: int, now: int) -> None:
        """All batches up to this one are durable; the kernel has at most a few under way."""
        for one in [one for one in self._submitted if one <= sequence]:
            took = now - self._submitted.pop(one)
            self.sum_ms += took
            self.counts[bisect_left(self.BOUNDS_MS, took)] += 1


class Driver:
    """One kernel, its journal and its links on the running event loop. Implements `links.port.LinkOwner`."""

    def __init__(
        self,
        kernel: Kernel,
        journal: Journal,
        *,
        on_log: Callable[[Log], None],
        now: Callable[[], Now] = clock.system_now,
    ) -> None:
        self.kernel = kernel
        self.journal = journal
        self.links: dict[AccountId, Link] = {}
        self.commits: Final = CommitTimes()
        self.on_address: Callable[[AddressLearned], None] | None = None
        # Whoever runs engines: what is to be paid, and what peers' engines ask. Called after the turn that says so.
        self.on_settlement: Callable[[SettlementDue | SettlementMessage], None] | None = None
        # Called when a link is up, as soon as the kernel knows it: what is sent from then on can leave.
        self.on_link_up: Callable[[AccountId], None] | None = None
        # Called after each durable batch with its sequence; the checkpoint keeper listens here.
        self.on_commit: Callable[[int], None] | None = None
        self._on_log = on_log
        self._now = now
        self._loop = asyncio.get_running_loop()
        self._events: list[Event | TableEvent] = []
        self._turn_due = False
        self._is_turning = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at: int | None = None
        self._tokens = 0
        self._fairness: Final = Fairness()
        self._noted: dict[int, asyncio.Future[None]] = {}
        # Whoever waits for an answer with a token (Digested, Corrected, TablesTaken, …), as he asked.
        self._asked: dict[int, asyncio.Future[Any]] = {}
        # Messages to peers' engines without an answer, by token: until when (loop time), and who waits. All wait as
        # long, so the first is the next to give up; one timer is set for it.
        self._messages: Final[dict[int, tuple[float, TellAnswer]]] = {}
        self._messages_timer: asyncio.TimerHandle | None = None
        # What those who run engines are still to be told. They may post and book meanwhile; one turn follows for all.
        self._to_tell: Final[deque[SettlementDue | SettlementMessage]] = deque()
        self._is_telling = False
        self._is_turn_wanted = False
        self._drained: asyncio.Future[None] | None = None
        self._stopped = False
        # Resolves with the problem when the journal fails; the process must end then.
        self.halted: asyncio.Future[str] = self._loop.create_future()

    # --- life ---------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to append. Links are attached and started after this."""
        self.journal.start(self._durable_from_thread, self._failed_from_thread)
        self._turn_soon()

    def attach(self, link: Link) -> None:
        self.links[link.account] = link

    def detach(self, account: AccountId) -> Link | None:
        return self.links.pop(account, None)

    async def drain(self, timeout_ms: int) -> bool:
        """Take no new Prepares and wait for those in flight; False if some were left after `timeout_ms`."""
        if self.halted.done():
            return False
        if self._drained is None:
            self._drained = self._loop.create_future()
            self.post(Drain())
        either: set[asyncio.Future[Any]] = {self._drained, self.halted}
        await asyncio.wait(either, timeout=timeout_ms / 1000, return_when=asyncio.FIRST_COMPLETED)
        return self._drained.done()

    async def stop(self) -> None:
        """Close links, then the journal. What was submitted becomes durable before this returns."""
        await asyncio.gather(*(link.close() for link in self.links.values()), return_exceptions=True)
        # Nothing more is decided: its frames could not leave. What is open waits in the journal for the next start.
        self._stopped = True
        for timer in (self._timer, self._messages_timer):
            if timer is not None:
                timer.cancel()
        self._fail_waiting("the node has stopped")
        # On a thread of its own: those of the loop may all wait for name look-ups, which nothing can interrupt.
        with ThreadPoolExecutor(1) as thread:
            await self._loop.run_in_executor(thread, self.journal.close)

    # --- events in ----------------------------------------------------------------------------------------------

    def post(self, event: Event | TableEvent) -> None:
        self._events.append(event)
        self._turn_soon()

    def post_now(self, event: SettlementStep | SendSettlementMessage | SettlementMessageReply) -> None:
        """What an engine says: decided before this returns, with no turn of the loop in between if none is due."""
        try:
            for effect in self.kernel.settle(event, self._now()):
                self._carry_out(effect)
        except Exception as error:
            self._halt_by(error)
            raise
        if self._is_turning:
            self._turn_soon()
        elif self._is_telling:
            self._is_turn_wanted = True
        else:
            self._turn_if_due()

    def _turn_if_due(self) -> None:
        """After what was decided without a turn: none where it waits for packets, or one is due anyway."""
        if self._turn_due:
            return
        if self.kernel.is_held():
            self._set_timer()
        else:
            self._turn()

    def inbound(self, packets: list[Inbound]) -> None:
        self._events += packets
        if not self._turn_due:
            self._turn_soon()
        first = packets[0]
        if first.packet[:1] == _PREPARE_BYTE:
            pause_ms = self._fairness.read(first.account, len(packets), self._now().mono_ms)
            if pause_ms:
                self._leave_unread(first.account, pause_ms)

    def _leave_unread(self, account: AccountId, pause_ms: int) -> None:
        link = self.links.get(account)
        if isinstance(link, BtpLink):
            link.pause_reading()
            self._loop.call_later(pause_ms / 1000, link.resume_reading)

    def undelivered(self, failures: list[Undelivered]) -> None:
        self._events += failures
        self._turn_soon()

    def link_up(self, account: AccountId) -> None:
        link = self.links.get(account)
        self.post(LinkUp(account, is_other=isinstance(link, BtpLink) and not link.peer_is_isthmus))
        if self.on_link_up is not None:
            self._loop.call_soon(self.on_link_up, account)  # after the turn that was asked for

    def link_down(self, account: AccountId, why: str) -> None:
        self.post(LinkDown(account, why))

    def blocked(self, account: AccountId) -> None:
        self.post(LinkBlocked(account))

    def writable(self, account: AccountId) -> None:
        self.post(LinkWritable(account))

    def mono_ms(self) -> int:
        return self._now().mono_ms

    def fulfillment(self, account: AccountId, session: bytes, request_id: int) -> bytes | None:
        """For a link whose peer repeats a request."""
        return self.kernel.fulfillment(account, session, request_id)

    async def note(self, data: bytes) -> None:
        """Journal an application entry; returns once it is durable. Raises JournalError if the node halts or stops."""
        token = self._take_token()
        done = self._noted[token] = self._loop.create_future()
        self.post(Note(data, token))
        await done

    async def digest(self) -> Digested:
        """The books' digest right after a durable batch: the next boundary between two, if the node is busy.

        Replay of the journal up to this batch must give the same. Encoding the books costs the loop some 2 µs a leg.
        Raises JournalError if the node halts or stops.
        """
        token = self._take_token()
        done: asyncio.Future[Digested] = self._expect(token)
        self.post(DigestAsked(token))
        return await done

    async def correct(self, correction: Correction) -> Corrected:
        """Book what the operator says, once for its key; returns when it is durable. Its token is set here.

        Raises JournalError if the node halts or stops: then it may be booked or not, and the same key is safe.
        """
        correction.token = self._take_token()
        done: asyncio.Future[Corrected] = self._expect(correction.token)
        self.post(correction)
        return await done

    async def change_tables(
        self,
        tables: Tables,
        *,
        settings: Sequence[tuple[bytes, bytes]] = (),
        facts: Sequence[tuple[AccountId, str]] = (),
        forgotten: Sequence[AccountId] = (),
    ) -> TablesTaken:
        """Swap the tables, and journal what they were made from; returns when that is durable, or with a problem.

        Raises JournalError if the node halts or stops: then it may have been taken or not.
        """
        return await self._change(TablesChanged(tables, settings, facts, forgotten, self._take_token()))

    async def ping(self, account: AccountId, timeout_ms: int) -> Ponged | None:
        """Ask the neighbour something harmless; None if it doesn't answer in time. Raises JournalError as others."""
        token = self._take_token()
        done: asyncio.Future[Ponged] = self._expect(token)
        self.post(Ping(account, token))
        return await self._in_time(token, done, timeout_ms)

    async def settle(self, event: Settle) -> SettlementAnswered:
        """Pay a peer, once for its key; returns when it is booked, durably. Its token is set here.

        Raises JournalError if the node halts or stops: then it may be booked or not, and the same key is safe.
        """
        event.token = self._take_token()
        done: asyncio.Future[SettlementAnswered] = self._expect(event.token)
        self.post(event)
        return await done

    def step(self, event: SettlementStep) -> "asyncio.Future[SettlementAnswered]":
        """Book what an engine tells. When this returns it stands in the books; the answer comes once it is durable.

        So an engine never makes one step from what it kept before another. The answer fails with JournalError if the
        node halts or stops; it comes, and is lost, if nobody waits for it any more.
        """
        event.token = self._take_token()
        done: asyncio.Future[SettlementAnswered] = self._expect(event.token)
        self._events.append(event)
        self._turn()
        return done

    def book(self, event: SettlementStep) -> SettlementAnswered:
        """As `step`, for who needn't hear when it is durable: what he sends by us after this leaves later than that.

        Raises JournalError if the node halts or has stopped.
        """
        self._take_token()
        self.post_now(event)
        if event.told is None:
            raise JournalError(self.halted.result())
        return event.told

    def send_settlement_message(self, account: AccountId, data: bytes, timeout_s: float, tell: TellAnswer) -> None:
        """Ask the engine of an account's peer. `tell` is called once, by a turn of the kernel or a timer."""
        token = self._take_token()
        until = self._loop.time() + timeout_s
        self._messages[token] = (until, tell)
        if self._messages_timer is None:
            self._messages_timer = self._loop.call_at(until, self._give_up_messages)
        self.post_now(SendSettlementMessage(account, data, token))

    def _give_up_messages(self) -> None:
        """Those whose time is over; the timer is set again for the others."""
        self._messages_timer = None
        now = self._loop.time()
        for token, (until, tell) in list(self._messages.items()):
            if until > now:
                self._messages_timer = self._loop.call_at(until, self._give_up_messages)
                break
            del self._messages[token]
            tell(None)

    async def change_rates(self, rates: RateTable, *, settings: Sequence[tuple[bytes, bytes]] = ()) -> TablesTaken:
        """As `change_tables`, for the rates alone."""
        return await self._change(RatesChanged(rates, settings, self._take_token()))

    async def _change(self, event: TableEvent) -> TablesTaken:
        done: asyncio.Future[TablesTaken] = self._expect(event.token)
        self.post(event)
        return await done

    def _expect(self, token: int) -> "asyncio.Future[Any]":
        """What the answer to the event with this token will be; it fails with JournalError if the node ends before."""
        done = self._asked[token] = self._loop.create_future()
        return done

    async def _in_time(self, token: int, done: "asyncio.Future[T]", timeout_ms: int) -> T | None:
        """The answer of somebody else; None, and no longer expected, if it takes too long."""
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                return await done
        except TimeoutError:
            return None
        finally:
            self._asked.pop(token, None)

    def _take_token(self) -> int:
        """For an event that will have an answer."""
        if self._stopped or self.halted.done():
            raise JournalError(self.halted.result() if self.halted.done() else "the node has stopped")
        self._tokens += 1
        return self._tokens

    def _durable_from_thread(self, sequence: int) -> None:
        self._loop.call_soon_threadsafe(self._appended, Durable(sequence))

    def _failed_from_thread(self, sequence: int, problem: str) -> None:
        self._loop.call_soon_threadsafe(self._appended, AppendFailed(sequence, problem))

    def _appended(self, event: Durable | AppendFailed) -> None:
        # Not put off to a turn of its own: frames wait for exactly this.
        if isinstance(event, Durable):
            self.commits.durable(event.sequence, self.mono_ms())
        self._events.append(event)
        self._turn()
        if self.on_commit is not None and isinstance(event, Durable):
            self.on_commit(event.sequence)

    # --- turns --------------------------------------------------------------------------------------------------

    def _turn_soon(self) -> None:
        if not self._turn_due:
            self._turn_due = True
            # After all sockets that are ready in this turn of the loop were read.
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._turn_due = False
        if self._stopped or self.halted.done():
            self._events.clear()
            return
        events = self._events
        self._events = []
        self._is_turning = True
        try:
            for effect in self.kernel.handle(events, self._now()):
                self._carry_out(effect)
            self._set_timer()
        except Exception as error:
            self._halt_by(error)
            raise
        finally:
            self._is_turning = False
        if self._to_tell and not self._is_telling:
            self._tell_settlements()

    def _tell_settlements(self) -> None:
        """Whoever is told may book and post. At most one turn follows for all of it; there may be more to tell then."""
        self._is_telling = True
        try:
            while self._to_tell:
                self._is_turn_wanted = False
                while self._to_tell:
                    told = self._to_tell.popleft()
                    if self.on_settlement is not None:
                        self.on_settlement(told)
                if self._is_turn_wanted:
                    self._turn_if_due()
        except Exception as error:
            self._halt_by(error)
            raise
        finally:
            self._is_telling = False

    def _carry_out(self, effect: Effect) -> None:
        if isinstance(effect, Release):
            link = self.links.get(effect.account)
            if link is not None:
                link.write(effect.frames)
        elif isinstance(effect, Append):
            self.commits.submitted(effect.sequence, self.mono_ms())
            self.journal.submit(effect.sequence, effect.record, effect.summary)
        elif isinstance(effect, Noted):
            done = self._noted.pop(effect.token, None)
            if done is not None and not done.done():
                done.set_result(None)
        else:
            self._carry_out_rare(effect)

    def _carry_out_rare(self, effect: Effect) -> None:
        if isinstance(effect, Log):
            self._on_log(effect)
        elif isinstance(effect, SettlementDue | SettlementMessage):
            self._to_tell.append(effect)
        elif isinstance(effect, SettlementMessageAnswered):
            waiting = self._messages.pop(effect.token, None)
            if waiting is not None:
                waiting[1](effect)
        elif isinstance(effect, Digested | Corrected | TablesTaken | Ponged | SettlementAnswered):
            asked = self._asked.pop(effect.token, None)
            if asked is not None and not asked.done():
                asked.set_result(effect)
        elif isinstance(effect, CloseLink):
            self._reset(effect)
        elif isinstance(effect, AddressLearned):
            if self.on_address is not None:
                self.on_address(effect)
        elif isinstance(effect, Drained):
            if self._drained is not None and not self._drained.done():
                self._drained.set_result(None)
        elif isinstance(effect, Halt):
            self._halt(effect.problem)

    def _reset(self, effect: CloseLink) -> None:
        """Drop the connection; the next one announces the session that the kernel has by then."""
        link = self.links.get(effect.account)
        if link is not None:
            link.reset(effect.why)
            self._loop.call_soon(self._renew_session, link)

    def _renew_session(self, link: Link) -> None:
        self._turn()
        if isinstance(link, BtpLink):
            link.session = self.kernel.session(link.account)

    def _halt_by(self, error: Exception) -> None:
        """Half of what was decided may be carried out. Only replay knows where the books stand."""
        self._halt(f"a defect in isthmus: {type(error).__name__}: {error}")

    def _halt(self, problem: str) -> None:
        """Nothing leaves any more: what the kernel decided since may not be on disk."""
        if not self.halted.done():
            self.halted.set_result(problem)
        self._fail_waiting(problem)

    def _fail_waiting(self, problem: str) -> None:
        for done in [*self._noted.values(), *self._asked.values()]:
            if not done.done():
                done.set_exception(JournalError(problem))
        self._noted.clear()
        self._asked.clear()
        for _, tell in self._messages.values():
            tell(JournalError(problem))
        self._messages.clear()

    def _set_timer(self) -> None:
        """Wake when the kernel asks to. A later time needs no call: waking too early only sets the timer again."""
        at = self.kernel.wakes_at()
        if at is None or (self._timer_at is not None and self._timer_at <= at):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        wait_ms = max(TIMER_GRAIN_MS, at - self._now().mono_ms)
        self._timer = self._loop.call_later(wait_ms / 1000, self._timer_fired)

    def _timer_fired(self) -> None:
        self._timer = None
        self._timer_at = None
        at = self.kernel.wakes_at()
        if at is not None and at <= self._now().mono_ms:
            self._turn_soon()
        else:
            self._set_timer()  # what it was set for was done before
