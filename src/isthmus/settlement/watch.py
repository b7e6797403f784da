"""What engines share that look at their ledger again and again: a turn for each account at every look, and alarms."""

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Final, Generic, TypeVar

from isthmus.connector.events import AccountId
from isthmus.connector.settling import BEGUN
from isthmus.errors import CodecError, IsthmusError, JournalError, LedgerError
from isthmus.ledgers.door import LedgersDisagreeError
from isthmus.settlement.causes import LOOK, MESSAGE, TURN, Causes
from isthmus.settlement.port import MessageRefusedError, Port, SettlingAccount, StepRefusedError
from isthmus.settlement.remedies import remedy_of

PAUSE_MS_MAX: Final = 60_000  # between tries while the ledger can't be used
SAY_AGAIN_MS: Final = 3_600_000  # an alarm that stands is told again
BACK_MS: Final = 60_000  # one that is over is told again if its cause is back after this, so flapping fills no log
TOLD_MAX: Final = 1_000
SLOW_TURN_S: Final = 0.5  # so long a look waits for the turns that it began
ASK_S: Final = 1.0  # so long a turn waits for its peer; what that says later the next turn finds
ANSWER_S_MAX: Final = 60.0  # what nobody asked for again is no answer any more
DISAGREE_LOOKS: Final = 3  # one after the other, at which two servers disagreed
Head = TypeVar("Head")  # the newest that a ledger shows


class NotAnsweredYetError(MessageRefusedError):
    """The peer has been asked, and a later turn finds what it says."""


class Watch(ABC, Generic[Head]):
    """Half of an engine: it looks at its ledger every `poll_ms`, and whenever something is due."""

    name: ClassVar[str]  # its events in the log begin so
    wrong: ClassVar[type[LedgerError]]  # the ledger isn't the one that is configured
    refused: ClassVar[tuple[type[LedgerError], ...]]  # it doesn't do what one account needs; others may go on
    # Of different accounts, not counting those that wait for their peers. One where accounts share what is signed.
    turns_at_once: ClassVar[int] = 1

    def __init__(self, poll_ms: int, *, now: Callable[[], int], random: Callable[[], float]) -> None:
        """`now`: wall ms. `random`: from 0 up to 1, for pauses."""
        self._poll_ms: Final = poll_ms
        self._now: Final = now
        self._random: Final = random
        self._accounts: dict[AccountId, SettlingAccount] = {}
        self._port_or_none: Port | None = None
        self._wake: Final = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._is_prepared = False
        self._told: Final[dict[tuple[str, str, str], int]] = {}  # event, account and reason of alarms, and when
        self._causes: Final = Causes()
        self._turning: Final[dict[AccountId, asyncio.Task[None]]] = {}  # turns that go on beside the looks
        self._places: Final = asyncio.Semaphore(self.turns_at_once)
        self._placed_now: Final[set[AccountId]] = set()
        # What turns ask their peers, and since when (loop time).
        self._asked: Final[dict[tuple[AccountId, bytes], tuple[asyncio.Future[bytes], float]]] = {}
        self.turns = 0  # looks at the ledger that came to their end
        self.head: Head | None = None

    @property
    def _port(self) -> Port:
        assert self._port_or_none is not None
        return self._port_or_none

    async def start(self, port: Port, accounts: Sequence[SettlingAccount]) -> None:
        """LedgerError (`wrong`) if the ledger is not the one that is configured."""
        self._port_or_none = port
        self._accounts = {one.id: one for one in accounts}
        port.log("info", f"{self.name}_engine", self._whereabouts())
        try:
            await self._prepare_once()
        except self.wrong:
            await self._close_ledger()
            raise
        except LedgerError as error:
            self._tell("warning", "ledger_away", "", {"reason": str(error)}, until=LOOK)
        self._task = asyncio.create_task(self._run())

    async def accounts_changed(self, accounts: Sequence[SettlingAccount]) -> None:
        gone = set(self._accounts) - {one.id for one in accounts}
        self._accounts = {one.id: one for one in accounts}
        for account in sorted(gone):
            self._forget(account)
            self._causes.forget(account)
            if account in self._turning:
                self._turning[account].cancel()  # nor what a turn has asked its peer
            for key in [key for key in self._asked if key[0] == account]:
                self._asked.pop(key)[0].cancel()
        self._wake.set()

    def link_up(self, account: AccountId) -> None:
        """Look at once: what waited for the peer may go now."""
        self._wake.set()

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        left: list[asyncio.Future[Any]] = [*self._turning.values(), *(asked for asked, _ in self._asked.values())]
        for each in left:
            each.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await self._close_ledger()

    # --- what each engine says ---

    @abstractmethod
    def _whereabouts(self) -> Mapping[str, str | int]:
        """For the log: which ledger, and who we are there."""

    def _pause_ms(self) -> int:
        """How long to wait for the next look if nothing calls for one before."""
        return self._poll_ms

    @abstractmethod
    def unfinished(self, account: AccountId) -> Sequence[str]:
        """Part of `settlement.port.Engine`."""

    @abstractmethod
    async def _prepare(self) -> None:
        """Look whether the ledger is the one that is configured. LedgerError (`wrong`)."""

    @abstractmethod
    async def _look(self) -> Head: ...

    @abstractmethod
    async def _follow_transactions(self, account: AccountId, head: Head) -> None:
        """See what became of this account's transactions."""

    @abstractmethod
    async def _turn(self, account: AccountId, head: Head) -> None:
        """What the newest look makes due for one account."""

    async def _look_around(self, head: Head) -> None:
        """What the newest look makes due for all accounts together."""

    def _forget(self, account: AccountId) -> None:
        """An account is gone: what is remembered of it in this process is not to count if it comes back."""

    @abstractmethod
    async def _close_ledger(self) -> None: ...

    # --- the watch ---

    async def _prepare_once(self) -> None:
        if not self._is_prepared:
            await self._prepare()
            self._is_prepared = True

    async def _run(self) -> None:
        failures = 0
        while True:
            try:
                await self._prepare_once()
                head = await self._look()
                self.head = head
                await self._look_around(head)
                await self._take_turns()
                if not self._turning:
                    self.turns += 1
                    self._went_through(LOOK)
                failures = 0
            except JournalError:
                return  # the node stops; the next process goes on
            except LedgersDisagreeError as error:
                failures += 1
                if failures < DISAGREE_LOOKS:  # for a moment they may be at different places
                    self._tell("warning", "ledger_away", "", {"reason": str(error)}, until=LOOK)
                else:
                    self._tell_disagreement("error", "", error, until=LOOK)
            except LedgerError as error:
                failures += 1
                level = "error" if isinstance(error, self.wrong) else "warning"
                self._tell(level, "ledger_away", "", {"reason": str(error)}, until=LOOK)
            except Exception as error:  # noqa: BLE001 - whatever happens, the watch over channels goes on
                failures += 1
                self._tell("error", "engine_defect", "", {"reason": f"{type(error).__name__}: {error}"}, until=LOOK)
            pause = min(self._poll_ms << min(failures, 10), max(PAUSE_MS_MAX, self._poll_ms))
            if not failures:
                pause = self._pause_ms()
            # Not wait_for: in Python 3.11 it forgets that it was cancelled if the event is set at the same moment.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause * (1 - self._random() / 4) / 1000):
                    await self._wake.wait()
            self._wake.clear()

    async def _take_turns(self) -> None:
        """A turn of each account. One that takes long goes on by itself, and the next looks pass its account over."""
        begun = [account for account in self._accounts if account not in self._turning]
        for account in begun:
            self._turning[account] = asyncio.create_task(self._placed(account))
        if begun:
            await asyncio.wait([self._turning[account] for account in begun], timeout=SLOW_TURN_S)
        ended = [self._turning.pop(account) for account, turn in list(self._turning.items()) if turn.done()]
        errors = [turn.exception() for turn in ended if not turn.cancelled()]
        for error in errors:
            if error is not None:
                raise error

    async def _placed(self, account: AccountId) -> None:
        await self._take_place(account)
        try:
            head = self.head
            assert head is not None, "turns begin after a look"
            await self._turn_of(account, head)
        finally:
            self._leave_place(account)

    async def _take_place(self, account: AccountId) -> None:
        await self._places.acquire()
        self._placed_now.add(account)

    def _leave_place(self, account: AccountId) -> None:
        """Nothing if it has none: whoever is cancelled while it waits for one has none to leave."""
        if account in self._placed_now:
            self._placed_now.remove(account)
            self._places.release()

    async def take_message(self, account: AccountId, data: bytes) -> bytes:
        """MessageRefusedError F00 for nonsense, T00 for what may work later."""
        try:
            answer = await self._take(account, data)
            self._went_through(MESSAGE, account)
            return answer
        except IsthmusError as error:
            raise self._refusal_for(account, error) from None

    def _refusal_for(self, account: AccountId, error: IsthmusError) -> IsthmusError:
        """What the peer is told of an error."""
        if isinstance(error, CodecError):
            return MessageRefusedError("F00", str(error))
        if isinstance(error, LedgersDisagreeError):
            # A claim on a channel that one of them invents: no look at what is ours would ever show it.
            self._tell_disagreement("warning", account, error, until=MESSAGE)
        if isinstance(error, LedgerError):
            return MessageRefusedError("T00", "the ledger can't be asked now")
        if isinstance(error, StepRefusedError):
            return MessageRefusedError("T00", f"it can't be booked now: {error}")
        return error

    @abstractmethod
    async def _take(self, account: AccountId, data: bytes) -> bytes:
        """What the peer's engine asks; its answer. CodecError for nonsense."""

    async def _ask_peer(self, account: AccountId, data: bytes) -> bytes:
        """As `Port.message`. A turn waits a moment, and leaves its place to another's meanwhile.

        NotAnsweredYetError after that: the peer may be silent, and the account has more to do than to wait for it.
        """
        if asyncio.current_task() is not self._turning.get(account):
            return await self._port.message(account, data)
        asked = self._question(account, data)
        self._leave_place(account)
        try:
            await asyncio.wait([asked], timeout=ASK_S)
        finally:
            await self._take_place(account)
        if not asked.done():
            asked.add_done_callback(lambda _: self._wake.set())
            raise NotAnsweredYetError("T01", "the peer has not answered yet")
        self._asked.pop((account, data), None)
        return asked.result()

    def _question(self, account: AccountId, data: bytes) -> asyncio.Future[bytes]:
        """The same as before if that has no answer yet, or one that is new."""
        now = asyncio.get_running_loop().time()
        for key in [key for key, (asked, at) in self._asked.items() if asked.done() and now - at > ANSWER_S_MAX]:
            del self._asked[key]
        known = self._asked.get((account, data))
        if known is None:
            known = asyncio.ensure_future(self._port.message(account, data)), now
            known[0].add_done_callback(_note_end)
            self._asked[account, data] = known
        return known[0]

    async def _turn_of(self, account: AccountId, head: Head) -> None:
        try:
            await self._follow_transactions(account, head)
            await self._turn(account, head)
            self._went_through(TURN, account)
        except self.refused as error:
            self._tell("warning", "refused", account, {"reason": str(error)}, until=TURN)
        except StepRefusedError as error:
            self._tell("warning", "step_refused", account, {"reason": str(error)}, until=TURN)
        except NotAnsweredYetError:
            pass  # it is told when the peer refuses, or says nothing in all its time
        except MessageRefusedError as error:
            self._tell("warning", "peer_refused", account, {"reason": str(error)}, until=TURN)
        except (LedgerError, JournalError):
            raise
        except Exception as error:  # noqa: BLE001 - one account's trouble must not stop the watch over the others
            if account not in self._accounts:
                return  # it has gone meanwhile
            reason = f"{type(error).__name__}: {error}"
            self._tell("error", "engine_defect", account, {"reason": reason}, until=TURN)

    def _tell_disagreement(self, level: str, account: str, error: LedgersDisagreeError, *, until: str) -> None:
        self._tell(level, "nodes_disagree", account, {"reason": str(error)}, until=until)

    def _tell(
        self, level: str, event: str, account: str, fields: Mapping[str, str | int], *, until: str | None = None
    ) -> None:
        """In the log, and again after an hour if it still is so. `event` without the engine's name before it.

        `until`: the work that says by `_went_through` when this is over; None for what just happened.
        """
        if until is not None:
            self._causes.add(until, account, event)
        now = self._now()
        what = (event, account, str(fields.get("reason", fields.get("channel", ""))))
        told = self._told.get(what)
        if told is not None and 0 <= now - told < SAY_AGAIN_MS:
            return
        if len(self._told) > TOLD_MAX:
            self._told.clear()
        self._told[what] = now
        shown = {"account": account, **fields} if account else dict(fields)
        shown["remedy"] = remedy_of(self.name, event)
        self._port.log(level, f"{self.name}_{event}", shown)

    def _went_through(self, work: str, account: str = "") -> None:
        """What was told `until` this work goes through is over, as far as nothing else has the same trouble."""
        for event in self._causes.end(work, account):
            self._port.over(f"{self.name}_{event}", account)
            for what in self._told:
                if what[:2] == (event, account):
                    self._told[what] = self._now() - SAY_AGAIN_MS + BACK_MS

    def _is_begun(self, account: AccountId, number: int) -> bool:
        """Whether nothing was taken of this settlement yet."""
        return any(one.number == number and one.state == BEGUN for one in self._port.open(account))


def _note_end(asked: "asyncio.Future[bytes]") -> None:
    """Nobody may ask for it any more; what it failed of is no defect."""
    if not asked.cancelled():
        asked.exception()
