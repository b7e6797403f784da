"""Runs settlement engines: hands them what is due, has booked what they tell, carries their messages.

Whose books these are is behind a `Desk`: a node's kernel (`kernel_desk.py`), or the store of an engine that serves
other connectors. What is due is handed over until the engine has it, with pauses that grow up to an hour (SE-9): the
books are the list of it, so nothing can be forgotten here. A message of a peer gets an answer in time, from the engine
or, if that raises or takes too long, from us (SE-12); what the engine is doing with it goes on. Engines that don't work
yet keep nothing else waiting.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, Protocol, final

from isthmus.connector.events import AccountId, Log, Now
from isthmus.connector.settling import BEGUN, Settlement, Settling
from isthmus.errors import ConfigError, IsthmusError, LedgerError, plain
from isthmus.ilp.packet import DATA_BYTES_MAX
from isthmus.runtime.asker import Answer, Asker
from isthmus.settlement.pauses import RETRY_S_MIN, growing_pause
from isthmus.settlement.port import (
    Engine,
    MessageRefusedError,
    PromptEngine,
    SettlingAccount,
    Step,
    StepRefusedError,
)

# A node that starts waits so long for an engine to say that it is misconfigured; then it goes on without it.
START_S_MAX: Final = 15.0
# Of one call of `pay`, which returns soon. What it has had booked by then stays.
PAY_S_MAX: Final = 120.0
# From a `pay` that returned to the step by which the engine takes the settlement.
TAKEN_S_MAX: Final = 60.0
# What an engine does about a message goes on after its answer would be late; then it is cancelled.
HANDLER_S_MAX: Final = 300.0
HANDLERS_MAX: Final = 32  # of one account
CLOSE_S_MAX: Final = 10.0
# An engine is told at once that a link is up; if it is up again within this time, once more at the end of it. So a link
# that flaps, or a peer that makes it flap, has claims sent every few seconds at most.
LINK_UP_S: Final = 5.0
ALARMS_MAX: Final = 64  # of one engine: the last ones, those that are over give way first
TEXT_CHARS_MAX: Final = 500


class Desk(Protocol):
    """Where it is booked what engines do, and who carries their messages."""

    def settling(self, account: AccountId) -> Settling | None:
        """What is booked of an account's settlements, durably or about to be; None for nothing."""
        ...

    async def step(self, account: AccountId, step: Step) -> Sequence[int]:
        """As `Port.step`; the caller's cancellation doesn't undo it."""
        ...

    def book(self, account: AccountId, step: Step) -> Sequence[int]:
        """As `Port.book`."""
        ...

    def message(self, account: AccountId, data: bytes) -> Awaitable[bytes]:
        """As `Port.message`."""
        ...


@final
@dataclass(slots=True)
class Alarm:
    """A warning or an error of an engine, as operators are shown it: the last one of its kind and account."""

    level: str
    event: str
    account: AccountId | None
    text: str
    at: int  # wall ms, the last time
    count: int = 1  # times, since the process began
    over_at: int | None = None  # wall ms, since when what it tells of has ended; None while it stands


@final
@dataclass(slots=True)
class Running:
    """An engine, and what is known of it."""

    name: str
    engine: Engine
    prompt: PromptEngine | None = field(init=False)  # the same, if it can be asked so
    accounts: dict[AccountId, SettlingAccount] = field(default_factory=dict)
    told: list[SettlingAccount] = field(default_factory=list)  # the accounts that the engine knows
    works: bool = False
    problem: str = ""  # why it doesn't work
    alarms: dict[tuple[str, str], Alarm] = field(default_factory=dict)  # by event and account; newest last
    alarm_count: int = 0  # since the process began

    def __post_init__(self) -> None:
        self.prompt = self.engine if isinstance(self.engine, PromptEngine) else None


class EngineRunner:
    """The engines of one node, or of one process that serves connectors. `start` comes when its desk is open."""

    def __init__(
        self,
        desk: Desk,
        engines: Mapping[str, Engine],
        *,
        on_log: Callable[[Log], None],
        now: Callable[[], Now],
        random: Callable[[], float],
        retry_s_min: float = RETRY_S_MIN,
        link_up_s: float = LINK_UP_S,
    ) -> None:
        self._desk: Final = desk
        self._engines: Final = {name: Running(name, engine) for name, engine in engines.items()}
        self._by_account: Final[dict[AccountId, Running]] = {}
        self._on_log: Final = on_log
        self._now: Final = now
        self._random: Final = random
        self._retry_s_min: Final = retry_s_min
        self._link_up_s: Final = link_up_s
        self._paying: Final[dict[tuple[AccountId, int], asyncio.Task[None]]] = {}
        self._handling: Final[dict[AccountId, int]] = {}
        self._tasks: Final[set[asyncio.Task[None]]] = set()
        self._changed = asyncio.Event()  # replaced each time it is set: whoever waits looks again
        self._closing = False
        # Accounts whose engines were told that the link is up: until when they rest, and whether it came up meanwhile.
        self._resting: Final[dict[AccountId, asyncio.TimerHandle]] = {}
        self._up_again: Final[set[AccountId]] = set()

    # --- life -------------------------------------------------------------------------------------------------------

    async def start(self, accounts: Mapping[str, Sequence[SettlingAccount]]) -> None:
        """Start all engines, with their accounts. Raises what one of them says about its configuration.

        One that takes longer than `START_S_MAX` goes on starting by itself.
        """
        self._take_accounts(accounts)
        starting = {
            asyncio.create_task(self._start(one, self._by_name(accounts, one))): one for one in self._engines.values()
        }
        if not starting:
            return
        done, late = await asyncio.wait(starting, timeout=START_S_MAX, return_when=asyncio.FIRST_EXCEPTION)
        for task in late:
            self._keep(task)
        for task in done:
            await task  # raises what is wrong
        for task in late:
            one = starting[task]
            self._alarm(one, "warning", "engine_starts_slowly", None, f"not started within {START_S_MAX:g} s")

    async def _start(self, one: Running, accounts: Sequence[SettlingAccount]) -> None:
        try:
            await one.engine.start(EnginePort(self, one), accounts)
        except (ConfigError, LedgerError) as error:
            one.problem = str(error)
            self._log("error", "engine_unusable", {"engine": one.name, "problem": one.problem})
            raise
        one.works = True
        one.told = list(accounts)
        self.over(one, "engine_starts_slowly")
        self._log("info", "engine_started", {"engine": one.name, "accounts": len(one.accounts)})
        self.look_again()
        await self._tell_accounts(one)  # they may have changed while it started

    async def follow(self, accounts: Mapping[str, Sequence[SettlingAccount]]) -> None:
        """The configuration has changed, and the kernel has taken it."""
        self._take_accounts(accounts)
        for one in self._engines.values():
            if one.works:
                try:
                    async with asyncio.timeout(START_S_MAX):
                        await self._tell_accounts(one)
                    self.over(one, "engine_accounts_not_changed")
                except Exception as error:  # noqa: BLE001  (an engine's defect must not undo what the books have)
                    self._alarm(one, "error", "engine_accounts_not_changed", None, _told(error))
        self.look_again()

    @staticmethod
    async def _tell_accounts(one: Running) -> None:
        after = list(one.accounts.values())
        if after != one.told:
            one.told = after
            await one.engine.accounts_changed(after)

    def unfinished(self, account: AccountId) -> Sequence[str]:
        """What its engine has open of an account, with what to do; nothing of one that may be forgotten."""
        settling = self.settling(account)
        if settling is None or not settling.engine:
            return ()
        one = self._by_account.get(account)
        if one is None:
            return ("its engine is in no configuration: put it back, and it says what is open",)
        if not one.works:
            return (f"its engine {one.name} doesn't work, and nobody else can say what is open: {one.problem}",)
        return one.engine.unfinished(account)

    def let_go(self, account: AccountId) -> None:
        """From now on nothing that its engine says of this account is booked. `follow` comes next, whatever happens."""
        one = self._by_account.pop(account, None)
        if one is not None:
            one.accounts.pop(account, None)

    def _take_accounts(self, accounts: Mapping[str, Sequence[SettlingAccount]]) -> None:
        self._by_account.clear()
        for one in self._engines.values():
            one.accounts = {account.id: account for account in self._by_name(accounts, one)}
            self._by_account.update(dict.fromkeys(one.accounts, one))
            for alarm in list(one.alarms.values()):
                if alarm.account is not None and alarm.account not in one.accounts:
                    self.over(one, alarm.event, alarm.account)  # nothing that was in its way is in anybody's now

    @staticmethod
    def _by_name(accounts: Mapping[str, Sequence[SettlingAccount]], one: Running) -> Sequence[SettlingAccount]:
        return accounts.get(one.name, ())

    async def close(self) -> None:
        """Stop paying, let engines stop, then what is left of messages. Before the driver: steps can still be booked.

        Steps that were asked for are booked to their end by the driver, also if nobody waits for them any more.
        """
        self._closing = True
        for timer in self._resting.values():
            timer.cancel()
        paying = list(self._paying.values())
        for task in paying:
            task.cancel()
        await asyncio.gather(*paying, return_exceptions=True)
        closing = {asyncio.create_task(one.engine.close()): one for one in self._engines.values()}
        if closing:
            done, late = await asyncio.wait(closing, timeout=CLOSE_S_MAX)
            for task in done:
                error = task.exception()
                if error is not None:
                    self._log("warning", "engine_not_closed", {"engine": closing[task].name, "problem": _told(error)})
            for task in late:
                task.cancel()
                problem = f"not closed within {CLOSE_S_MAX:g} s"
                self._log("warning", "engine_not_closed", {"engine": closing[task].name, "problem": problem})
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, *closing, return_exceptions=True)

    def port(self, name: str, accounts: Mapping[str, Sequence[SettlingAccount]]) -> "EnginePort":
        """For an engine that is looked at and not started."""
        self._take_accounts(accounts)
        return EnginePort(self, self._engines[name])

    # --- what is shown ----------------------------------------------------------------------------------------------

    def engines(self) -> list[Running]:
        """All of them, in the order of the configuration."""
        return list(self._engines.values())

    def engine_of(self, account: AccountId) -> Running | None:
        """The one that settles this account."""
        return self._by_account.get(account)

    def describe(self, account: AccountId) -> Mapping[str, str]:
        """What the account's engine tells operators of it; nothing of one that doesn't work."""
        one = self._by_account.get(account)
        if one is None or not one.works:
            return {}
        try:
            return one.engine.describe(account)
        except Exception as error:  # noqa: BLE001  (it is only shown)
            return {"problem": _told(error)}

    # --- what the desk says -----------------------------------------------------------------------------------------

    def due(self, account: AccountId, number: int) -> None:
        """A settlement was begun, or was not with its engine when the last process ended."""
        key = (account, number)
        if key in self._paying or self._closing:  # if so, it comes again in the next process
            return
        if not self._pays_now(account, number):
            task = self._paying[key] = asyncio.create_task(self._see_to(*key))
            task.add_done_callback(self._ended)

    def link_up(self, account: AccountId) -> None:
        """The link to this account's peer is up: its engine is told, now or after a rest."""
        if self._closing or account not in self._by_account:
            return
        if account in self._resting:
            self._up_again.add(account)
            return
        self._resting[account] = asyncio.get_running_loop().call_later(self._link_up_s, self._rested, account)
        one = self._by_account[account]
        if not one.works:
            return  # as it starts, it says all that there is to say
        try:
            one.engine.link_up(account)
            self.over(one, "engine_defect", account)
        except Exception as error:  # noqa: BLE001  (an engine's defect must not end the node)
            self._alarm(one, "error", "engine_defect", account, _told(error))

    def _rested(self, account: AccountId) -> None:
        del self._resting[account]
        if account in self._up_again:
            self._up_again.discard(account)
            self.link_up(account)

    def look_again(self) -> None:
        """Something has changed that whoever waits may wait for."""
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def wait(self, seconds: float | None) -> None:
        """Until something changes, or so long."""
        changed = self._changed
        try:
            async with asyncio.timeout(seconds):
                await changed.wait()
        except TimeoutError:
            return

    # --- paying -----------------------------------------------------------------------------------------------------

    async def _see_to(self, account: AccountId, number: int) -> None:
        """Ask the engine to pay until the settlement is with it, at its end, or reversed."""
        attempt = 0
        was_told = False
        while (settlement := self._begun(account, number)) is not None:
            one = self._by_account.get(account)
            if self._is_behind(account, number):
                await self.wait(None)
                continue
            if one is None or not one.works:
                if not was_told and one is None:
                    problem = "its account has no engine in the configuration"
                    fields: dict[str, str | int] = {"account": account, "number": number, "problem": problem}
                    self._log("error", "settlement_waits", fields)
                was_told = True
                await self.wait(None)
                continue
            problem = await self._pay(one, account, settlement)
            if self._begun(account, number) is None:
                break
            pause_s = growing_pause(attempt, self._retry_s_min, self._random())
            attempt += 1
            text = f"settlement {number} of {settlement.amount} units: {problem}; again in {pause_s:.0f} s"
            self._alarm(one, "warning", "settlement_not_taken", account, text)
            await self._until_taken(account, number, pause_s)
        if attempt and (one := self._by_account.get(account)) is not None:
            self.over(one, "settlement_not_taken", account)

    def _pays_now(self, account: AccountId, number: int) -> bool:
        """Whether the engine has it already. What it raises, it raises again where it is told, and tried again."""
        one, settlement = self._by_account.get(account), self._begun(account, number)
        if settlement is None or one is None or one.prompt is None or not one.works or self._is_behind(account, number):
            return False
        try:
            is_taken = one.prompt.pay_now(account, number, settlement.amount, settlement.key)
        except Exception:  # noqa: BLE001
            return False
        return is_taken and self._begun(account, number) is None

    def _is_behind(self, account: AccountId, number: int) -> bool:
        """Whether an earlier one is not with the engine yet: they come in their order."""
        settling = self.settling(account)
        return settling is not None and any(
            earlier < number and one.state == BEGUN for earlier, one in settling.open.items()
        )

    async def _pay(self, one: Running, account: AccountId, settlement: Settlement) -> str:
        """One attempt; why the engine doesn't have it, if it doesn't."""
        try:
            async with asyncio.timeout(PAY_S_MAX):
                await one.engine.pay(account, settlement.number, settlement.amount, settlement.key)
        except TimeoutError:
            return f"the engine didn't return within {PAY_S_MAX:g} s"
        except Exception as error:  # noqa: BLE001  (whatever it raises is told, and tried again)
            return _told(error)
        await self._until_taken(account, settlement.number, TAKEN_S_MAX)
        return "the engine has not taken it"

    async def _until_taken(self, account: AccountId, number: int, seconds: float) -> None:
        deadline = asyncio.get_running_loop().time() + seconds
        while self._begun(account, number) is not None:
            left_s = deadline - asyncio.get_running_loop().time()
            if left_s <= 0:
                return
            await self.wait(left_s)

    def _begun(self, account: AccountId, number: int) -> Settlement | None:
        settling = self.settling(account)
        settlement = None if settling is None else settling.open.get(number)
        return settlement if settlement is not None and settlement.state == BEGUN else None

    def settling(self, account: AccountId) -> Settling | None:
        """What is booked of the settlements of an account."""
        return self._desk.settling(account)

    # --- messages ---------------------------------------------------------------------------------------------------

    async def answer(self, account: AccountId, data: bytes, wait_ms: int) -> bytes:
        """What the account's engine says to the peer's, within this time; MessageRefusedError, whatever it does."""
        answered: asyncio.Future[bytes | MessageRefusedError] = asyncio.get_running_loop().create_future()
        self.answer_to(account, data, wait_ms, answered.set_result)
        found = await answered
        if isinstance(found, MessageRefusedError):
            raise found
        return found

    def answer_to(self, account: AccountId, data: bytes, wait_ms: int, tell: Callable[[Answer], None]) -> None:
        """The same for who is called: `tell` hears the answer or a refusal, once, perhaps before this returns.

        An engine that takes longer goes on: what it has had booked must not be left half done for want of an answer.
        """
        one = self._by_account.get(account)
        if one is None or not one.works or self._closing:
            tell(MessageRefusedError("T00", "the settlement engine is not working yet"))
        elif self._handling.get(account, 0) >= HANDLERS_MAX:
            tell(MessageRefusedError("T03", "the settlement engine is busy with earlier messages"))
        elif (answer := self._answers_now(one, account, data)) is not None:
            tell(answer)
        else:
            self._handling[account] = self._handling.get(account, 0) + 1
            self._keep(asyncio.create_task(self._handle(one, account, data, Asker(tell, wait_ms))))

    def _answers_now(self, one: Running, account: AccountId, data: bytes) -> Answer | None:
        try:
            return None if one.prompt is None else one.prompt.answer_now(account, data)
        except MessageRefusedError as refused:
            return refused
        except Exception as error:  # noqa: BLE001  (as below)
            return self._failed(one, account, error)

    def _failed(self, one: Running, account: AccountId, error: Exception) -> MessageRefusedError:
        """A message must not end the node, and the peer gets an answer."""
        self._alarm(one, "error", "settlement_message_failed", account, _told(error))
        return MessageRefusedError("T00", "the settlement engine failed")

    async def _handle(self, one: Running, account: AccountId, data: bytes, asker: "Asker") -> None:
        """Let the engine answer. Nobody may wait for it any more."""
        found: Answer
        try:
            async with asyncio.timeout(HANDLER_S_MAX):
                found = await one.engine.take_message(account, data)
            if len(found) > DATA_BYTES_MAX:
                raise LedgerError(f"an answer of {len(found)} bytes, and {DATA_BYTES_MAX} are the most")
        except MessageRefusedError as refused:
            found = refused
        except TimeoutError:
            found = MessageRefusedError("R00", "the settlement engine doesn't answer")
            self._alarm(one, "warning", "settlement_message_dropped", account, f"no end after {HANDLER_S_MAX:g} s")
        except asyncio.CancelledError:
            asker.tell(MessageRefusedError("T00", "the settlement engine stops"))
            raise
        except Exception as error:  # noqa: BLE001  (whatever it is)
            found = self._failed(one, account, error)
        finally:
            self._handling[account] -= 1
            if not self._handling[account]:
                del self._handling[account]
        asker.tell(found)

    # --- what engines ask of the port -------------------------------------------------------------------------------

    async def take_step(self, one: Running, account: AccountId, step: Step) -> Sequence[int]:
        with self._stepping(one, account, step):
            return await self._desk.step(account, step)

    def book_step(self, one: Running, account: AccountId, step: Step) -> Sequence[int]:
        with self._stepping(one, account, step):
            return self._desk.book(account, step)

    @contextmanager
    def _stepping(self, one: Running, account: AccountId, step: Step) -> Iterator[None]:
        self._check(one, account)
        yield
        if step.moved:
            self.look_again()

    def send(self, one: Running, account: AccountId, data: bytes) -> Awaitable[bytes]:
        self._check(one, account)
        return self._desk.message(account, data)

    @staticmethod
    def _check(one: Running, account: AccountId) -> None:
        if account not in one.accounts:
            raise StepRefusedError(f"{account} is no account of the engine {one.name}")

    def tell(self, one: Running, level: str, event: str, fields: Mapping[str, str | int]) -> None:
        """An engine's line for the log, and an alarm if it is one."""
        account = fields.get("account")
        if level in ("warning", "error"):
            text = ", ".join(f"{key} {value}" for key, value in fields.items() if key != "account")
            self._remember(one, level, event, None if account is None else AccountId(str(account)), text)
        self._log(level, event, {"engine": one.name, **fields})

    def over(self, one: Running, event: str, account: AccountId | str = "", note: str = "") -> bool:
        """What this alarm told of has ended: the engine says so or, with a note, an operator. False: none stands."""
        alarm = one.alarms.get((event, account))
        if alarm is None or alarm.over_at is not None:
            return False
        alarm.over_at = self._now().wall_ms
        fields: dict[str, str | int] = {"engine": one.name, "alarm": event, "was": alarm.level}
        if account:
            fields["account"] = account
        if note:
            fields["note"] = note
        self._log("info", "alarm_over", fields)
        return True

    # --- log and alarms ---------------------------------------------------------------------------------------------

    def _alarm(self, one: Running, level: str, event: str, account: AccountId | None, text: str) -> None:
        self._remember(one, level, event, account, text)
        fields: dict[str, str | int] = {"engine": one.name, "problem": text}
        if account is not None:
            fields["account"] = account
        self._log(level, event, fields)

    def _remember(self, one: Running, level: str, event: str, account: AccountId | None, text: str) -> None:
        key = (event, account or "")
        before = one.alarms.pop(key, None)
        count = 1 if before is None else before.count + 1
        one.alarms[key] = Alarm(level, event, account, plain(text, TEXT_CHARS_MAX), self._now().wall_ms, count)
        one.alarm_count += 1
        if len(one.alarms) > ALARMS_MAX:
            ended = (key for key, each in one.alarms.items() if each.over_at is not None)
            del one.alarms[next(ended, next(iter(one.alarms)))]

    def _log(self, level: str, event: str, fields: Mapping[str, str | int]) -> None:
        self._on_log(Log(level, event, dict(fields)))

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        for key in [key for key, one in self._paying.items() if one is task]:
            del self._paying[key]
        if not task.cancelled():
            error = task.exception()
            if error is not None and not isinstance(error, IsthmusError):
                self._log("error", "engine_defect", {"problem": _told(error)})


@final
class EnginePort:
    """Implements `settlement.port.Port` for one engine of a node."""

    def __init__(self, runner: EngineRunner, one: Running) -> None:
        self._runner: Final = runner
        self._one: Final = one

    async def step(self, account: AccountId, step: Step) -> Sequence[int]:
        return await self._runner.take_step(self._one, account, step)

    def book(self, account: AccountId, step: Step) -> Sequence[int]:
        return self._runner.book_step(self._one, account, step)

    def message(self, account: AccountId, data: bytes) -> Awaitable[bytes]:
        return self._runner.send(self._one, account, data)

    def kept(self, account: AccountId) -> Mapping[bytes, bytes]:
        settling = self._runner.settling(account)
        return {} if settling is None else dict(settling.engine)

    def credited(self, account: AccountId, start: str) -> Sequence[str]:
        settling = self._runner.settling(account)
        begin = start.encode()
        return [] if settling is None else [key.decode() for key in settling.credited if key.startswith(begin)]

    def open(self, account: AccountId) -> Sequence[Settlement]:
        settling = self._runner.settling(account)
        return [] if settling is None else list(settling.open.values())

    def log(self, level: str, event: str, fields: Mapping[str, str | int]) -> None:
        self._runner.tell(self._one, level, event, fields)

    def over(self, event: str, account: AccountId | str = "") -> None:
        self._runner.over(self._one, event, account)


def _told(error: BaseException) -> str:
    """For the log and for operators, on one line: engines raise LedgerError with words, and libraries anything."""
    text = plain(" ".join(str(error).split()), TEXT_CHARS_MAX)
    if isinstance(error, IsthmusError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
