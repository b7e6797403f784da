"""What both engines on EVM chains share: a turn at every look at the chain, and their transactions."""

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from isthmus.connector.events import AccountId
from isthmus.connector.settling import BEGUN
from isthmus.errors import CodecError, JournalError, LedgerError
from isthmus.ledgers.evm import tokens
from isthmus.ledgers.evm.chain import Block, Chain, Receipt, WrongLedgerError
from isthmus.ledgers.evm.keys import Key
from isthmus.ledgers.evm.octets import NO_ADDRESS, checksummed
from isthmus.ledgers.evm.rpc import NodeRefusedError
from isthmus.settlement.evm.messages import Hello, Message, decode, encode
from isthmus.settlement.evm.pending import Pending
from isthmus.settlement.evm.sending import Sender
from isthmus.settlement.evm.settings import ChainSettings, Converter
from isthmus.settlement.port import MessageRefusedError, Port, SettlingAccount, Step, StepRefusedError

PAUSE_MS_MAX: Final = 60_000  # between tries while the chain can't be used
SAY_AGAIN_MS: Final = 3_600_000  # an alarm that stands is told again


class EvmEngine(ABC):
    """An engine that looks at its chain every `poll_ms`, and whenever something is due."""

    def __init__(
        self, settings: ChainSettings, key: Key, *, now: Callable[[], int], random: Callable[[], float]
    ) -> None:
        """`now`: wall ms. `random`: from 0 up to 1, for pauses."""
        self.settings: Final = settings
        self.key: Final = key
        self._now: Final = now
        self._random: Final = random
        self._chain: Final = Chain(settings.urls, settings.chain_id)
        self._sender: Final = Sender(
            self._chain, key, settings.fees, settings.confirmations, now, self._transaction_ended
        )
        self._accounts: dict[AccountId, SettlingAccount] = {}
        self._port_or_none: Port | None = None
        self._wake: Final = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._is_prepared = False
        self._told: Final[dict[tuple[str, str], int]] = {}  # alarms that were told, and when
        self.turns = 0  # looks at the chain that came to their end
        self.head: Block | None = None

    @property
    def _port(self) -> Port:
        assert self._port_or_none is not None
        return self._port_or_none

    async def start(self, port: Port, accounts: Sequence[SettlingAccount]) -> None:
        """WrongLedgerError (a LedgerError) if nodes or contract are not those configured."""
        self._port_or_none = port
        self._accounts = {one.id: one for one in accounts}
        port.log("info", "evm_engine", {"chain": self.settings.chain_id, "address": checksummed(self.key.address)})
        try:
            await self._prepare_once()
        except WrongLedgerError:
            await self._chain.close()
            raise
        except LedgerError as error:
            self._tell("warning", "evm_ledger_away", "", {"reason": str(error)})
        self._task = asyncio.create_task(self._run())

    async def accounts_changed(self, accounts: Sequence[SettlingAccount]) -> None:
        self._accounts = {one.id: one for one in accounts}
        self._wake.set()

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self._chain.close()

    async def take_message(self, account: AccountId, data: bytes) -> bytes:
        """MessageRefusedError F00 for nonsense, T00 for what may work later."""
        try:
            message = decode(data)
        except CodecError as error:
            raise MessageRefusedError("F00", str(error)) from None
        try:
            return encode(await self._answer(account, message))
        except LedgerError:
            raise MessageRefusedError("T00", "the ledger can't be asked now") from None
        except StepRefusedError as error:
            raise MessageRefusedError("T00", f"it can't be booked now: {error}") from None

    @abstractmethod
    async def pay(self, account: AccountId, number: int, amount: int, key: bytes) -> None: ...

    @abstractmethod
    def describe(self, account: AccountId) -> Mapping[str, str]: ...

    @abstractmethod
    async def _answer(self, account: AccountId, message: Message) -> Message: ...

    @abstractmethod
    async def _turn(self, account: AccountId, head: Block) -> None:
        """What the newest block makes due for one account."""

    async def _look_around(self, head: Block) -> None:  # noqa: B027 - an engine may have nothing to do here
        """What the newest block makes due for all accounts together."""

    @abstractmethod
    async def _transaction_ended(self, account: AccountId, one: Pending, receipt: Receipt | None, step: Step) -> None:
        """Take the step, with what its end means (`Sender`)."""

    async def _prepare(self, head: Block) -> None:
        """Look whether chain and contracts are those configured. WrongLedgerError."""
        token = self.settings.token
        if token == NO_ADDRESS:
            return
        decimals = await self._chain.token_word(token, tokens.decimals(), head.number)
        if decimals != self.settings.decimals:
            raise WrongLedgerError(f"the token has {decimals} decimal places, not {self.settings.decimals}")

    async def _prepare_once(self) -> None:
        if not self._is_prepared:
            await self._chain.check()
            await self._prepare(await self._chain.head())
            self._is_prepared = True

    async def _run(self) -> None:
        failures = 0
        while True:
            try:
                await self._prepare_once()
                head = await self._chain.head()
                self.head = head
                await self._look_around(head)
                for account in list(self._accounts):
                    await self._turn_of(account, head)
                self.turns += 1
                failures = 0
            except JournalError:
                return  # the node stops; the next process goes on
            except LedgerError as error:
                failures += 1
                level = "error" if isinstance(error, WrongLedgerError) else "warning"
                self._tell(level, "evm_ledger_away", "", {"reason": str(error)})
            except Exception as error:  # noqa: BLE001 - whatever happens, the watch over channels goes on
                failures += 1
                self._tell("error", "evm_engine_defect", "", {"reason": f"{type(error).__name__}: {error}"})
            pause = min(self.settings.poll_ms << min(failures, 10), max(PAUSE_MS_MAX, self.settings.poll_ms))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), pause * (1 - self._random() / 4) / 1000)
            self._wake.clear()

    async def _turn_of(self, account: AccountId, head: Block) -> None:
        try:
            await self._sender.look_after(self._port, account, head)
            await self._turn(account, head)
        except NodeRefusedError as error:
            self._tell("warning", "evm_refused", account, {"reason": str(error)})
        except StepRefusedError as error:
            self._tell("warning", "evm_step_refused", account, {"reason": str(error)})
        except MessageRefusedError as error:
            self._tell("warning", "evm_peer_refused", account, {"reason": str(error)})
        except (LedgerError, JournalError):
            raise
        except Exception as error:  # noqa: BLE001 - one account's trouble must not stop the watch over the others
            self._tell("error", "evm_engine_defect", account, {"reason": f"{type(error).__name__}: {error}"})

    def _tell(self, level: str, event: str, account: str, fields: Mapping[str, str | int]) -> None:
        """In the log, and again after an hour if it still is so."""
        now = self._now()
        what = (event, account + str(fields.get("reason", fields.get("channel", ""))))
        told = self._told.get(what)
        if told is not None and 0 <= now - told < SAY_AGAIN_MS:
            return
        if len(self._told) > 1_000:
            self._told.clear()
        self._told[what] = now
        shown = {"account": account, **fields} if account else dict(fields)
        self._port.log(level, event, shown)

    def _is_begun(self, account: AccountId, number: int) -> bool:
        """Whether nothing was taken of this settlement yet."""
        return any(one.number == number and one.state == BEGUN for one in self._port.open(account))

    def _converter(self, account: AccountId) -> Converter:
        return Converter(self._accounts[account].asset.scale, self.settings.decimals)

    async def _ask(self, account: AccountId, message: Message) -> Message:
        """The peer's answer. MessageRefusedError, also for one that makes no sense."""
        answer = await self._port.message(account, encode(message))
        try:
            return decode(answer)
        except CodecError as error:
            raise MessageRefusedError("F00", f"the peer's answer: {error}") from None

    def _check_hello(self, hello: Message) -> Hello:
        """The peer stands where we do. MessageRefusedError."""
        if not isinstance(hello, Hello):
            raise MessageRefusedError("F00", "the peer's engine doesn't tell where it stands")
        ours = self._hello()
        for what, mine, theirs in (
            ("chain", ours.chain_id, hello.chain_id),
            ("contract", ours.contract, hello.contract),
            ("token", ours.token, hello.token),
        ):
            if mine != theirs:
                raise MessageRefusedError("F00", f"another {what}: {theirs}, not {mine}")
        if hello.address == self.key.address:
            raise MessageRefusedError("F00", "both of us have the same key")
        return hello

    @abstractmethod
    def _hello(self) -> Hello: ...
