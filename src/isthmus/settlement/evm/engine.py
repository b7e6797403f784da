"""What both engines on EVM chains share: the chain, their transactions, and how they ask each other."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Final

from isthmus.connector.events import AccountId
from isthmus.errors import CodecError
from isthmus.ledgers.evm import tokens
from isthmus.ledgers.evm.chain import Block, Chain, Receipt, WrongLedgerError
from isthmus.ledgers.evm.keys import Key
from isthmus.ledgers.evm.octets import NO_ADDRESS, checksummed
from isthmus.ledgers.evm.rpc import ChainNode, Node, NodeRefusedError
from isthmus.settlement.conversion import Converter
from isthmus.settlement.evm.messages import Hello, Message, decode, encode
from isthmus.settlement.evm.pending import Pending
from isthmus.settlement.evm.sending import Sender
from isthmus.settlement.evm.settings import ChainSettings
from isthmus.settlement.port import MessageRefusedError, Step
from isthmus.settlement.watch import Watch


class EvmEngine(Watch[Block]):
    """An engine that looks at its chain every `poll_ms`, and whenever something is due."""

    name = "evm"
    wrong = WrongLedgerError
    refused = (NodeRefusedError,)

    def __init__(
        self,
        settings: ChainSettings,
        key: Key,
        *,
        now: Callable[[], int],
        random: Callable[[], float],
        node_at: Callable[[str], ChainNode] = Node,
    ) -> None:
        """`now`: wall ms. `random`: from 0 up to 1, for pauses. `node_at`: what asks the node at a URL."""
        super().__init__(settings.poll_ms, now=now, random=random)
        self.settings: Final = settings
        self.key: Final = key
        self._chain: Final = Chain(settings.urls, settings.chain_id, node_at=node_at)
        self._sender: Final = Sender(
            self._chain, key, settings.fees, settings.confirmations, now, self._transaction_ended
        )

    @abstractmethod
    async def pay(self, account: AccountId, number: int, amount: int, key: bytes) -> None: ...

    @abstractmethod
    def describe(self, account: AccountId) -> Mapping[str, str]: ...

    async def _take(self, account: AccountId, data: bytes) -> bytes:
        return encode(await self._answer(account, decode(data)))

    @abstractmethod
    async def _answer(self, account: AccountId, message: Message) -> Message: ...

    @abstractmethod
    async def _transaction_ended(self, account: AccountId, one: Pending, receipt: Receipt | None, step: Step) -> None:
        """Take the step, with what its end means (`Sender`)."""

    def _whereabouts(self) -> Mapping[str, str | int]:
        return {"chain": self.settings.chain_id, "address": checksummed(self.key.address)}

    async def _prepare(self) -> None:
        """Look whether chain and contracts are those configured. WrongLedgerError."""
        await self._chain.check()
        await self._check_contracts(await self._chain.head())

    async def _check_contracts(self, head: Block) -> None:
        """WrongLedgerError."""
        token = self.settings.token
        if token == NO_ADDRESS:
            return
        decimals = await self._chain.token_word(token, tokens.decimals(), head.number)
        if decimals != self.settings.decimals:
            raise WrongLedgerError(f"the token has {decimals} decimal places, not {self.settings.decimals}")

    async def _look(self) -> Block:
        return await self._chain.head()

    async def _follow_transactions(self, account: AccountId, head: Block) -> None:
        await self._sender.look_after(self._port, account, head)

    def _transactions_left(self, account: AccountId) -> list[str]:
        """For people who want an account to end."""
        pending = self._sender.pending(self._port, account)
        purposes = ", ".join(sorted({one.purpose for one in pending}))
        return [f"{len(pending)} transactions are under way ({purposes}): wait"] if pending else []

    async def _close_ledger(self) -> None:
        await self._chain.close()

    def _converter(self, account: AccountId) -> Converter:
        return Converter(self._accounts[account].asset.scale, self.settings.decimals)

    async def _ask(self, account: AccountId, message: Message) -> Message:
        """The peer's answer. MessageRefusedError, also for one that makes no sense."""
        return self._answer_of(await self._ask_peer(account, encode(message)))

    @staticmethod
    def _answer_of(answer: bytes) -> Message:
        """MessageRefusedError for one that makes no sense."""
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
