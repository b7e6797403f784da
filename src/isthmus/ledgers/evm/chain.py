"""A chain as one or more nodes tell it: blocks, states of channels, transactions, transfers.

With more nodes than one, whatever money depends on is asked of all, about one block by its number, and they must agree.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar, final

from isthmus.errors import CodecError, LedgerError
from isthmus.ledgers.door import LedgersDisagreeError, ServerAwayError
from isthmus.ledgers.evm import contract, tokens
from isthmus.ledgers.evm.octets import hexed, parse_address, parse_hex, parse_quantity, word
from isthmus.ledgers.evm.rpc import ChainNode, Node, NodeRefusedError

CLOSED: Final = 2**32 - 1
LOGS_MAX: Final = 10_000
_T = TypeVar("_T")


class NodesDisagreeError(LedgersDisagreeError):
    """Two nodes tell different things about one block: one of them lies, or follows another branch."""


class WrongLedgerError(LedgerError):
    """The node is not on the chain that was configured, or the contract there is not ours."""


@final
@dataclass(slots=True, frozen=True)
class Block:
    number: int
    hash: bytes
    parent: bytes
    time: int  # seconds since 1970
    base_fee: int  # wei for a unit of gas


@final
@dataclass(slots=True, frozen=True)
class ChannelState:
    """What the contract knows. All zero: there is no such channel."""

    deposited: int
    claimed: int
    closing_at: int  # seconds since 1970; 0: open; CLOSED: it has ended

    @property
    def is_there(self) -> bool:
        return self.deposited > 0

    @property
    def has_ended(self) -> bool:
        return self.deposited == 0 and self.closing_at == CLOSED


@final
@dataclass(slots=True, frozen=True)
class Receipt:
    """A transaction's place in the chain."""

    block: int
    block_hash: bytes
    succeeded: bool
    cost: int  # wei for its gas


@final
@dataclass(slots=True, frozen=True)
class Transfer:
    """Coins or tokens that came to an address."""

    sender: str
    amount: int
    transaction: bytes
    index: int  # of the log; 0 for coins
    block: int


@final
class Chain:
    """Questions to a chain. All raise LedgerError: ServerAwayError, NodeRefusedError, NodesDisagreeError."""

    def __init__(self, urls: Sequence[str], chain_id: int, *, node_at: Callable[[str], ChainNode] = Node) -> None:
        assert urls
        self.id: Final = chain_id
        self._nodes: Final = [node_at(url) for url in urls]

    async def check(self) -> None:
        """All nodes are on the configured chain. WrongLedgerError."""
        for node in self._nodes:
            found = _read(parse_quantity, await node.call("eth_chainId"), "eth_chainId")
            if found != self.id:
                raise WrongLedgerError(f"{node.name} is on chain {found}, not on {self.id}")

    async def head(self) -> Block:
        """The newest block that all nodes have."""
        heights = await self._each("eth_blockNumber")
        return await self.block(min(_read(parse_quantity, one, "height") for one in heights))

    async def block(self, number: int) -> Block:
        return await self._agreed(_block, "eth_getBlockByNumber", hex(number), False)

    async def code(self, address: str, at: int) -> bytes:
        return await self._agreed(_octets("code"), "eth_getCode", address, hex(at))

    async def balance(self, address: str, at: int) -> int:
        """Coins, in wei."""
        return await self._agreed(_number("balance"), "eth_getBalance", address, hex(at))

    async def transaction_count(self, address: str, at: int) -> int:
        """The nonce that follows the last one used, as of this block."""
        return await self._agreed(_number("nonce"), "eth_getTransactionCount", address, hex(at))

    async def view(self, to: str, data: bytes, at: int) -> bytes:
        """What a call would answer after this block."""
        call = {"to": to, "data": hexed(data)}
        return await self._agreed(_octets("answer"), "eth_call", call, hex(at))

    async def channel(self, address: str, channel: bytes, at: int) -> ChannelState:
        """A channel of the contract at this address, as of a block."""
        words = await self.view(address, contract.channels(channel), at)
        if len(words) != 96:
            raise WrongLedgerError(f"the contract at {address} answers {len(words)} bytes about a channel")
        return ChannelState(*(int.from_bytes(words[at : at + 32], "big") for at in (0, 32, 64)))

    async def token_word(self, token: str, data: bytes, at: int) -> int:
        """A token's answer of one number."""
        answer = await self.view(token, data, at)
        if len(answer) != 32:
            raise WrongLedgerError(f"{token} answers {len(answer)} bytes; it is not an ERC-20 token")
        return int.from_bytes(answer, "big")

    async def gas(self, sender: str, to: str, value: int, data: bytes) -> int:
        """What the call would use now. NodeRefusedError if it would revert."""
        call = {"from": sender, "to": to, "value": hex(value), "data": hexed(data)}
        return _read(parse_quantity, await self._nodes[0].call("eth_estimateGas", call), "gas")

    async def receipt(self, transaction: bytes) -> Receipt | None:
        """Where this transaction is; None while any node has it in no block."""
        found = await self._each("eth_getTransactionReceipt", hexed(transaction))
        if any(one is None for one in found):
            return None
        return self._same([_read(_receipt, one, "receipt") for one in found], "a transaction's receipt")

    async def is_in_no_block(self, transaction: bytes) -> bool:
        """Whether all nodes say so. NodesDisagreeError if one of them has it: then the others' word proves nothing."""
        found = await self._each("eth_getTransactionReceipt", hexed(transaction))
        return self._same([one is None for one in found], "whether a transaction is in a block")

    async def knows(self, transaction: bytes) -> bool:
        """Whether a node has this transaction, in a block or waiting."""
        found = await self._each("eth_getTransactionByHash", hexed(transaction))
        return any(one is not None for one in found)

    async def submit(self, raw: bytes) -> str:
        """Give the bytes to all nodes: "" if one took them, else the first reason. ServerAwayError if none answers."""
        found = await asyncio.gather(
            *(node.call("eth_sendRawTransaction", hexed(raw)) for node in self._nodes), return_exceptions=True
        )
        reasons: list[str] = []
        for one in found:
            if isinstance(one, NodeRefusedError):
                reasons.append(one.message)
            elif not isinstance(one, BaseException):
                return ""
            elif not isinstance(one, LedgerError):
                raise one
        if not reasons:
            raise ServerAwayError("no node took the transaction: none answered")
        return reasons[0]

    async def coins_to(self, address: str, number: int) -> tuple[Block, list[Transfer]]:
        """A block, and the plain transfers of coins in it that came to this address; not those by contracts."""
        block, found = await self._agreed(_coins_to(address), "eth_getBlockByNumber", hex(number), True)
        arrived: list[Transfer] = []
        for one in found:
            receipt = await self.receipt(one.transaction)
            if receipt is None or receipt.block_hash != block.hash:
                raise ServerAwayError("a block and its transactions' receipts don't fit; the chain may be changing")
            if receipt.succeeded:
                arrived.append(one)
        return block, arrived

    async def tokens_to(self, token: str, address: str, first: int, last: int) -> list[Transfer]:
        """A token's transfers to this address in these blocks."""
        question = {
            "address": token,
            "fromBlock": hex(first),
            "toBlock": hex(last),
            "topics": [hexed(tokens.TRANSFERRED), None, hexed(word(address))],
        }
        return await self._agreed(_tokens_to, "eth_getLogs", question)

    async def close(self) -> None:
        for node in self._nodes:
            await node.close()

    async def _each(self, method: str, *params: object) -> list[Any]:
        if len(self._nodes) == 1:
            return [await self._nodes[0].call(method, *params)]
        return await asyncio.gather(*(node.call(method, *params) for node in self._nodes))

    async def _agreed(self, read: Callable[[Any], _T], method: str, *params: object) -> _T:
        found = [_read_with(read, one, method) for one in await self._each(method, *params)]
        return self._same(found, method)

    def _same(self, found: Sequence[_T], what: str) -> _T:
        if any(one != found[0] for one in found):
            names = ", ".join(node.name for node in self._nodes)
            raise NodesDisagreeError(f"the nodes disagree about {what}: {names}")
        return found[0]


def _read(parse: Callable[[object, str], _T], value: object, field: str) -> _T:
    try:
        return parse(value, field)
    except CodecError as error:
        raise ServerAwayError(f"a node's answer can't be read: {error}") from None


def _read_with(read: Callable[[Any], _T], value: Any, method: str) -> _T:
    try:
        return read(value)
    except CodecError as error:
        raise ServerAwayError(f"a node's answer to {method} can't be read: {error}") from None


def _octets(field: str) -> Callable[[Any], bytes]:
    return lambda value: parse_hex(value, field)


def _number(field: str) -> Callable[[Any], int]:
    return lambda value: parse_quantity(value, field)


def _fields(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise CodecError(what, 0, "there is none")
    return value


def _block(value: Any) -> Block:
    block = _fields(value, "block")
    return Block(
        parse_quantity(block.get("number"), "number"),
        parse_hex(block.get("hash"), "hash", size=32),
        parse_hex(block.get("parentHash"), "parentHash", size=32),
        parse_quantity(block.get("timestamp"), "timestamp"),
        parse_quantity(block.get("baseFeePerGas", "0x0"), "baseFeePerGas"),
    )


def _receipt(value: object, field: str) -> Receipt:
    receipt = _fields(value, field)
    return Receipt(
        parse_quantity(receipt.get("blockNumber"), "blockNumber"),
        parse_hex(receipt.get("blockHash"), "blockHash", size=32),
        parse_quantity(receipt.get("status"), "status") == 1,
        parse_quantity(receipt.get("gasUsed"), "gasUsed")
        * parse_quantity(receipt.get("effectiveGasPrice", "0x0"), "effectiveGasPrice"),
    )


def _coins_to(address: str) -> Callable[[Any], tuple[Block, list[Transfer]]]:
    def read(value: Any) -> tuple[Block, list[Transfer]]:
        block = _block(value)
        found: list[Transfer] = []
        for one in _list(value.get("transactions")):
            fields = _fields(one, "transaction")
            to = fields.get("to")
            if not isinstance(to, str) or to.lower() != address:
                continue
            amount = parse_quantity(fields.get("value"), "value")
            if amount > 0:
                sender = parse_address(fields.get("from"), "from")
                transaction = parse_hex(fields.get("hash"), "hash", size=32)
                found.append(Transfer(sender, amount, transaction, 0, block.number))
        return block, found

    return read


def _tokens_to(value: Any) -> list[Transfer]:
    found: list[Transfer] = []
    for one in _list(value):
        fields = _fields(one, "log")
        topics = _list(fields.get("topics"))
        if len(topics) != 3 or fields.get("removed") is True:
            continue
        sender = hexed(parse_hex(topics[1], "from", size=32)[12:])
        amount = int.from_bytes(parse_hex(fields.get("data"), "data", size=32), "big")
        transaction = parse_hex(fields.get("transactionHash"), "transactionHash", size=32)
        index = parse_quantity(fields.get("logIndex"), "logIndex")
        block = parse_quantity(fields.get("blockNumber"), "blockNumber")
        if amount > 0:
            found.append(Transfer(sender, amount, transaction, index, block))
    return found


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list) or len(value) > LOGS_MAX:
        raise CodecError("list", 0, "not a list, or too long")
    return value
