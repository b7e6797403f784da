"""The half of a channels' engine that pays: settlements become signatures, and the peer gets the highest claim.

What is signed is kept, durably, before it leaves (`Port.book`). That the peer has it may be kept a little later, with
the next settlement if those come fast: a process that forgets it sends the same claim again.
"""

import asyncio
import contextlib
from abc import abstractmethod
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar, Final, Generic, NamedTuple, TypeVar

from isthmus.connector.events import AccountId
from isthmus.connector.settling import CONFIRMED, TAKEN
from isthmus.errors import IsthmusError, JournalError, LedgerError
from isthmus.settlement.causes import CLAIM, LOOK
from isthmus.settlement.port import MessageRefusedError, Step, StepRefusedError
from isthmus.settlement.promises import Promises
from isthmus.settlement.watch import Head, Watch

OUT: Final = b"out"
RESEND_MS: Final = 600_000  # the highest claim is sent again after this long, besides at each `link_up`
NOTE_S: Final = 0.2  # what peers have been found to have is kept with the next settlement, or after this long
P = TypeVar("P", bound=Promises)


class Sent(NamedTuple):
    """A claim that is on its way. `total` is in the ledger's units."""

    channel: str
    total: int
    amount: int  # as the message names it; engines that count in other units differ in it
    message: bytes


@dataclass(slots=True)
class Outbox(Generic[P]):
    """What this process knows of the claims that it sends, by account."""

    states: dict[AccountId, tuple[bytes, P]] = field(default_factory=dict)  # as kept, and what it says
    has: dict[AccountId, tuple[str, int, int]] = field(default_factory=dict)  # the peer: channel, total, when (wall ms)
    noted_at: dict[AccountId, float] = field(default_factory=dict)  # loop time
    timers: dict[AccountId, asyncio.TimerHandle] = field(default_factory=dict)
    delivering: dict[AccountId, asyncio.Future[Any]] = field(default_factory=dict)


class Claiming(Watch[Head], Generic[Head, P]):
    """Stands before the engine's other base class; its `__init__` makes the outbox."""

    total_max: ClassVar[int]  # of one channel, in the ledger's units
    unit_name: ClassVar[str]
    _outbox: Outbox[P]

    # --- what each engine says ---

    @abstractmethod
    def _decode(self, kept: bytes | None) -> P: ...

    @abstractmethod
    def _encode(self, state: P) -> bytes: ...

    @abstractmethod
    def _channel_name(self, state: P) -> str:
        """Of our channel; "" for none."""

    @abstractmethod
    def _is_unsent(self, account: AccountId) -> bool:
        """Whether the peer is to be told something."""

    def _before_claim(self, account: AccountId) -> Coroutine[Any, Any, None] | None:
        """What the peer must be told before the next claim, if there is something."""
        return None

    @abstractmethod
    def _claim(self, account: AccountId) -> Sent:
        """The highest claim, signed. The peer lacks it."""

    @abstractmethod
    def _check_answer(self, account: AccountId, sent: Sent, answer: bytes | MessageRefusedError) -> None:
        """MessageRefusedError if the peer doesn't have the claim now."""

    @abstractmethod
    def _to_ledger(self, account: AccountId, amount: int, carried: int) -> tuple[int, int]:
        """As `Converter.to_ledger`."""

    # --- settlements ---

    async def pay(self, account: AccountId, number: int, amount: int, key: bytes) -> None:
        """As `Engine.pay`."""
        self.pay_now(account, number, amount, key)

    def pay_now(self, account: AccountId, number: int, amount: int, key: bytes) -> bool:
        """As `PromptEngine.pay_now`. It always does."""
        if self._is_begun(account, number):
            self._pay(account, number, amount)
        return True

    def _pay(self, account: AccountId, number: int, amount: int) -> None:
        state, moved = self._acknowledged(account)
        if state != self.outgoing(account):
            self._outbox.noted_at[account] = asyncio.get_running_loop().time()
        state = self._still_due(account, state)
        due, carried = self._to_ledger(account, amount, state.carried)
        if due > self.total_max:
            raise LedgerError(f"{due} is more than a channel can hold")
        if due == 0:
            after = replace(state, carried=carried)
            moved.append((number, CONFIRMED, f"less than {self.unit_name}; it is paid with the next"))
        else:
            after = state.settle(number, due, carried)
            moved.append((number, TAKEN, ""))
        self._port.book(account, Step(moved=moved, kept=[self._keep(account, after)]))
        if after.signed > state.signed:
            self._deliver_soon(account)
        elif due:
            self._wake.set()

    def outgoing(self, account: AccountId) -> P:
        """Our channel to this peer, as it is kept."""
        kept = self._port.kept(account).get(OUT)
        known = self._outbox.states.get(account)
        if known is not None and known[0] is kept:
            return known[1]
        state = self._decode(kept)
        if kept is not None:
            self._outbox.states[account] = (kept, state)
        return state

    def _keep(self, account: AccountId, state: P) -> tuple[bytes, bytes]:
        """What a step keeps of our channel."""
        data = self._encode(state)
        self._outbox.states[account] = (data, state)
        return OUT, data

    def _acknowledged(self, account: AccountId) -> tuple[P, list[tuple[int, int, str]]]:
        """Our channel with all that the peer has, kept or not, and which settlements that ends: parts of a step."""
        state = self.outgoing(account)
        channel, total, _ = self._outbox.has.get(account, ("", 0, 0))
        if not total or channel != self._channel_name(state):
            return state, []
        after, done = state.acknowledge(total)
        return after, self._paid(account, done)

    def _paid(self, account: AccountId, numbers: list[int]) -> list[tuple[int, int, str]]:
        """These settlements are at their end: part of a step. An operator may have reversed some as certain."""
        if not numbers:
            return []
        known = {one.number for one in self._port.open(account)}
        for number in numbers:
            if number not in known:
                self._tell("error", "paid_and_reversed", account, {"reason": f"settlement {number}"})
        return [(number, CONFIRMED, "") for number in numbers if number in known]

    def _still_due(self, account: AccountId, state: P) -> P:
        """Without what waits to be signed and was reversed meanwhile. Before anything is signed that waited."""
        if not state.waiting:
            return state
        known = {one.number for one in self._port.open(account)}
        waiting = tuple(one for one in state.waiting if one[0] in known)
        return state if len(waiting) == len(state.waiting) else replace(state, waiting=waiting)

    # --- claims ---

    def link_up(self, account: AccountId) -> None:
        """The peer gets the highest claim again: it may be a new process, or have lost what it had."""
        super().link_up(account)
        if account in self._accounts:
            self._outbox.has.pop(account, None)
            if self._is_unsent(account):
                self._deliver_soon(account)

    async def close(self) -> None:
        for timer in self._outbox.timers.values():
            timer.cancel()
        delivering = list(self._outbox.delivering.values())
        for task in delivering:
            task.cancel()
        await asyncio.gather(*delivering, return_exceptions=True)
        for account in list(self._outbox.has):
            if self._acknowledged(account)[0] != self.outgoing(account):
                with contextlib.suppress(StepRefusedError, JournalError):
                    await self._port.step(account, self._note(account))
        await super().close()

    def _forget(self, account: AccountId) -> None:
        super()._forget(account)
        for each in (self._outbox.states, self._outbox.has, self._outbox.noted_at):
            each.pop(account, None)

    def _deliver_soon(self, account: AccountId) -> None:
        """Send the highest claim, as far as the peer answers; the next turn tries again.

        One is on its way at a time. What comes meanwhile goes with the next, as soon as that one is answered.
        """
        if account in self._outbox.delivering:
            return
        try:
            if not self._is_unsent(account):
                if self._is_to_be_noted(account):
                    self._port.book(account, self._note(account))
                self._went_through(CLAIM, account)
                return
            first = self._before_claim(account)
            sent = None if first is not None else self._claim(account)
            answer = first if sent is None else self._port.message(account, sent.message)
        except IsthmusError as error:
            self._undelivered(account, error)
        else:
            assert answer is not None
            told: asyncio.Future[Any] = asyncio.ensure_future(answer)
            self._outbox.delivering[account] = told
            told.add_done_callback(partial(self._delivered, account, sent))

    def _delivered(self, account: AccountId, sent: Sent | None, told: "asyncio.Future[Any]") -> None:
        """The peer has answered, or won't. `sent`: None if it was told something else first."""
        if self._outbox.delivering.get(account) is told:
            del self._outbox.delivering[account]
        if told.cancelled():
            return
        error = told.exception()
        try:
            if sent is not None and (error is None or isinstance(error, MessageRefusedError)):
                self._check_answer(account, sent, error or told.result())
                self._peer_has(account, sent.channel, sent.total)
            elif error is not None:
                raise error
        except Exception as refused:  # noqa: BLE001 - whatever it is: the next turn tries again
            self._undelivered(account, refused)
        else:
            self._deliver_soon(account)

    def _undelivered(self, account: AccountId, error: Exception) -> None:
        if isinstance(error, MessageRefusedError):
            level = "info" if error.code == "T01" else "warning"  # the link is down: it is sent when it is up again
            self._tell(level, "claim_not_taken", account, {"reason": str(error)}, until=CLAIM)
        elif isinstance(error, StepRefusedError):
            self._tell("warning", "step_refused", account, {"reason": str(error)}, until=CLAIM)
        elif isinstance(error, LedgerError):
            self._tell("warning", "ledger_away", "", {"reason": str(error)}, until=LOOK)
        elif not isinstance(error, JournalError):  # then the node stops; the next process sends it again
            reason = f"{type(error).__name__}: {error}"
            self._tell("error", "engine_defect", account, {"reason": reason}, until=CLAIM)

    def _peer_has(self, account: AccountId, channel: str, total: int) -> None:
        self._outbox.has[account] = (channel, total, self._now())

    def _has(self, account: AccountId, channel: str, total: int) -> bool:
        """Whether the peer said in this process, and not too long ago, that it has a claim of this total."""
        its, has, at = self._outbox.has.get(account, ("", 0, 0))
        return its == channel and has >= total and 0 <= self._now() - at < RESEND_MS

    def _is_to_be_noted(self, account: AccountId) -> bool:
        """Whether to keep now what the peer has. If it is too early, it will be looked at again."""
        loop = asyncio.get_running_loop()
        noted_at = self._outbox.noted_at.get(account)
        is_early = noted_at is not None and loop.time() < noted_at + NOTE_S
        if is_early and account in self._outbox.timers:
            return False
        if self._acknowledged(account)[0] == self.outgoing(account):
            return False
        if noted_at is not None and is_early:
            self._outbox.timers[account] = loop.call_at(noted_at + NOTE_S, self._look_at_notes, account)
        return not is_early

    def _look_at_notes(self, account: AccountId) -> None:
        del self._outbox.timers[account]
        self._outbox.noted_at.pop(account, None)  # the time has come, whatever a clock of fractions says
        self._deliver_soon(account)

    def _note(self, account: AccountId) -> Step:
        """What keeps what the peer has."""
        state, moved = self._acknowledged(account)
        self._outbox.noted_at[account] = asyncio.get_running_loop().time()
        return Step(moved=moved, kept=[self._keep(account, state)])

    def _describe_outgoing(self, account: AccountId) -> Mapping[str, str]:
        """Of our channel, in the ledger's units; nothing if there is none."""
        state, _ = self._acknowledged(account)
        name = self._channel_name(state)
        if not name:
            return {}
        return {
            "outgoing_channel": name,
            "outgoing_deposited": str(state.deposited),
            "outgoing_signed": str(state.signed),
            "outgoing_acknowledged": str(state.acknowledged),
        }
