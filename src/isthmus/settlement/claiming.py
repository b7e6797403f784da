"""The half of a channels' engine that pays: settlements become signatures, and the peer gets the highest claim.

What is signed is kept, durably, before it leaves (`Port.book`). That the peer has it may be kept a little later, with
the next settlement if those come fast: a process that forgets it sends the same claim again.
"""

import asyncio
import contextlib
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, Final, Generic, TypeVar

from isthmus.connector.events import AccountId
from isthmus.connector.settling import CONFIRMED, TAKEN
from isthmus.errors import JournalError, LedgerError
from isthmus.settlement.causes import CLAIM, LOOK
from isthmus.settlement.port import MessageRefusedError, Step, StepRefusedError
from isthmus.settlement.promises import Promises
from isthmus.settlement.watch import Head, Watch

OUT: Final = b"out"
RESEND_MS: Final = 600_000  # the highest claim is sent again after this long, besides at each `link_up`
NOTE_S: Final = 0.2  # what peers have been found to have is kept with the next settlement, or after this long
P = TypeVar("P", bound=Promises)


@dataclass(slots=True)
class Outbox(Generic[P]):
    """What this process knows of the claims that it sends, by account."""

    states: dict[AccountId, tuple[bytes, P]] = field(default_factory=dict)  # as kept, and what it says
    has: dict[AccountId, tuple[str, int, int]] = field(default_factory=dict)  # the peer: channel, total, when (wall ms)
    noted_at: dict[AccountId, float] = field(default_factory=dict)  # loop time
    timers: dict[AccountId, asyncio.TimerHandle] = field(default_factory=dict)
    delivering: dict[AccountId, asyncio.Task[None]] = field(default_factory=dict)


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

    @abstractmethod
    async def _send_claim(self, account: AccountId) -> None:
        """Tell the peer what it lacks, and call `_peer_has`."""

    @abstractmethod
    def _to_ledger(self, account: AccountId, amount: int, carried: int) -> tuple[int, int]:
        """As `Converter.to_ledger`."""

    # --- settlements ---

    async def pay(self, account: AccountId, number: int, amount: int, key: bytes) -> None:
        """As `Engine.pay`."""
        if not self._is_begun(account, number):
            return
        state, moved = self._acknowledged(account)
        if moved:
            self._outbox.noted_at[account] = asyncio.get_running_loop().time()
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
        return after, [(number, CONFIRMED, "") for number in done]

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
            with contextlib.suppress(StepRefusedError, JournalError):
                await self._note(account)
        await super().close()

    def _forget(self, account: AccountId) -> None:
        super()._forget(account)
        for each in (self._outbox.states, self._outbox.has, self._outbox.noted_at):
            each.pop(account, None)

    def _deliver_soon(self, account: AccountId) -> None:
        if account not in self._outbox.delivering:
            self._outbox.delivering[account] = asyncio.create_task(self._deliver(account))

    async def _deliver(self, account: AccountId) -> None:
        """Send the highest claim until the peer has it, as far as it answers; the next turn tries again."""
        try:
            while True:
                if self._is_unsent(account):
                    await self._send_claim(account)
                elif self._is_to_be_noted(account):
                    await self._note(account)
                else:
                    break
            self._went_through(CLAIM, account)
        except MessageRefusedError as error:
            level = "info" if error.code == "T01" else "warning"  # the link is down: it is sent when it is up again
            self._tell(level, "claim_not_taken", account, {"reason": str(error)}, until=CLAIM)
        except StepRefusedError as error:
            self._tell("warning", "step_refused", account, {"reason": str(error)}, until=CLAIM)
        except LedgerError as error:
            self._tell("warning", "ledger_away", "", {"reason": str(error)}, until=LOOK)
        except JournalError:
            pass  # the node stops; the next process sends it again
        finally:
            del self._outbox.delivering[account]

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

    async def _note(self, account: AccountId) -> None:
        """Keep what the peer has."""
        state, moved = self._acknowledged(account)
        if state != self.outgoing(account):
            self._outbox.noted_at[account] = asyncio.get_running_loop().time()
            await self._port.step(account, Step(moved=moved, kept=[self._keep(account, state)]))

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
