"""An EVM chain on virtual time: blocks, coins, the channels' contract, and what goes wrong with chains.

It answers JSON-RPC, so that engines ask it by their own client and sign what they send. Gas costs nothing here. A
reorganisation takes the newest blocks away and puts as many empty ones, and one more, in their place; what was in
them comes again later, unless all nodes have forgotten it, or its sender has spent the money otherwise meanwhile.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any, Final, final

from eth_account import Account

from isthmus.ledgers.door import ServerAwayError
from isthmus.ledgers.evm.claims import ChannelTerms, Domain
from isthmus.ledgers.evm.contract import address, artifact, selector
from isthmus.ledgers.evm.octets import hexed, keccak256, word
from isthmus.ledgers.evm.rpc import NodeRefusedError
from isthmus.sim import contract
from isthmus.sim import plan as p
from isthmus.sim.agenda import Agenda
from isthmus.sim.contract import Channel, Revert
from isthmus.sim.ledgers import Ledger, Way

if TYPE_CHECKING:
    from isthmus.sim.loop import AgendaLoop

BLOCK_MS: Final = 1_000
CONFIRMATIONS: Final = 3  # after which engines take a block to stay
CHAIN_ID: Final = 31_337
FUNDS: Final = 10**30
GAS: Final = 100_000
TAKEN_PERCENT: Final = 75  # of the transactions that wait, as a block is made
HELD_MS: Final = (500, 9_000)  # from a reorganisation until what it took away may come again
_CHANNELS: Final = selector("channels(bytes32)")


@final
@dataclass(slots=True, frozen=True)
class Transaction:
    """One that was sent, read from its bytes."""

    hash: bytes
    sender: str
    nonce: int
    to: str
    value: int
    data: bytes


@final
@dataclass(slots=True)
class State:
    """What a block leaves. Blocks without transactions share it."""

    coins: dict[str, int] = field(default_factory=dict)  # what came and went: everybody begins with `FUNDS`
    nonces: dict[str, int] = field(default_factory=dict)
    channels: dict[bytes, Channel] = field(default_factory=dict)

    def copy(self) -> "State":
        return State(dict(self.coins), dict(self.nonces), dict(self.channels))


@final
@dataclass(slots=True)
class Block:
    number: int
    hash: bytes
    parent: bytes
    time: int  # seconds
    state: State
    transactions: list[tuple[Transaction, bool]] = field(default_factory=list)  # and whether it succeeded


@final
class SimChain(Ledger):
    """A chain with one node."""

    def __init__(self, agenda: Agenda, name: str, rng: Random) -> None:
        super().__init__(agenda, name, rng)
        self.domain: Final = Domain(CHAIN_ID, address())
        self._salt = 0
        self.blocks: Final[list[Block]] = [Block(0, self._hash(b"genesis"), bytes(32), self._seconds(), State())]
        self._waiting: Final[dict[bytes, Transaction]] = {}
        self._lasting: Final[set[bytes]] = set()  # taken from so deep that its sender has forgotten it: nodes haven't
        self._held: Final[dict[bytes, int]] = {}  # not before this time
        self._terms: Final[dict[bytes, ChannelTerms]] = {}  # of channels, by id
        self._places: Final[dict[bytes, int]] = {}  # block of each transaction that is in one
        agenda.after(BLOCK_MS, self._tick)

    def _seconds(self) -> int:
        return self.now_ms // 1_000

    def _hash(self, content: bytes) -> bytes:
        self._salt += 1
        return keccak256(self.name.encode() + word(self._salt) + content)

    @property
    def head(self) -> Block:
        return self.blocks[-1]

    # --- blocks ---------------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        now = self.agenda.now
        ready = [
            one
            for name, one in self._waiting.items()
            if self._held.get(name, 0) <= now and self.rng.randrange(100) < TAKEN_PERCENT
        ]
        self._make_block(ready, self._seconds())
        self.agenda.after(BLOCK_MS, self._tick)

    def _make_block(self, ready: Sequence[Transaction], time: int) -> None:
        parent = self.head
        state = parent.state.copy() if ready else parent.state
        block = Block(parent.number + 1, self._hash(parent.hash), parent.hash, time, state)
        for one in sorted(ready, key=lambda each: each.nonce):
            if one.nonce == state.nonces.get(one.sender, 0):
                state.nonces[one.sender] = one.nonce + 1
                block.transactions.append((one, self._execute(state, one, time)))
                self._places[one.hash] = block.number
                del self._waiting[one.hash]
        self.blocks.append(block)
        for name in [name for name, one in self._waiting.items() if one.nonce < state.nonces.get(one.sender, 0)]:
            del self._waiting[name]  # another one has its nonce

    def _execute(self, state: State, one: Transaction, time: int) -> bool:
        if one.to != self.domain.contract:
            _pay(state, one.sender, one.to, one.value)
            return True
        try:
            self._call(state.channels, one, time, lambda to, amount: _pay(state, one.to, to, amount))
        except Revert:
            return False
        _pay(state, one.sender, one.to, one.value)
        return True

    def _call(
        self, channels: dict[bytes, Channel], one: Transaction, time: int, pay: Callable[[str, int], None]
    ) -> None:
        terms = contract.call(
            self.domain, channels, sender=one.sender, value=one.value, data=one.data, time=time, pay=pay
        )
        self._terms[terms.id] = terms

    # --- what goes wrong ------------------------------------------------------------------------------------------

    def reorganise(self, depth: int, *, instead: Sequence[Transaction] = (), forgotten: bool = False) -> None:
        """The newest `depth` blocks are others now. `instead`: what is in the first of them."""
        depth = min(depth, self.head.number)
        gone = [self.blocks.pop() for _ in range(depth)][::-1]
        taken = [one for block in gone for one, _ in block.transactions]
        self._lasting.update(one.hash for block in gone[: -CONFIRMATIONS + 1] for one, _ in block.transactions)
        if taken:
            self.on_hit(p.FORGOTTEN if forgotten else p.REORGANISED)
        for one in taken:
            del self._places[one.hash]
            if not forgotten:
                self._waiting[one.hash] = one
                self._held[one.hash] = self.agenda.now + self.rng.randint(*HELD_MS)
        for one in instead:
            self._waiting[one.hash] = one
        for number, block in enumerate(gone):
            self._make_block(instead if number == 0 else (), block.time)
        self._make_block((), self._seconds())

    def forget(self) -> None:
        """Nodes have no memory of what waits any more."""
        if self._waiting:
            self.on_hit(p.FORGOTTEN)
        for name in [name for name in self._waiting if name not in self._lasting]:
            del self._waiting[name]

    # --- what the auditor is told ---------------------------------------------------------------------------------

    def moved(self, payer: str, payee: str) -> int:
        """Coins that went straight from one address to another."""
        return sum(
            one.value
            for block in self.blocks
            for one, succeeded in block.transactions
            if succeeded and (one.sender, one.to) == (payer, payee)
        )

    def has(self, transaction: bytes) -> bool:
        """Whether it is in a block."""
        return transaction in self._places

    def waits(self, sender: str) -> bool:
        """Whether a transaction of this address waits for a block."""
        return any(one.sender == sender for one in self._waiting.values())

    def channel(self, name: bytes) -> Channel:
        return self.head.state.channels.get(name, Channel())

    def known_channels(self) -> list[tuple[ChannelTerms, Channel]]:
        return [(self._terms[name], one) for name, one in self.head.state.channels.items()]

    def coins(self, address: str) -> int:
        """What came to an address, less what left it."""
        return self.head.state.coins.get(address, 0)

    # --- JSON-RPC -------------------------------------------------------------------------------------------------

    def answer(self, method: str, params: Sequence[Any]) -> Any:
        """What a node says. NodeRefusedError."""
        return _METHODS[method](self, *params)

    def _chain_id(self) -> str:
        return hex(CHAIN_ID)

    def _block_number(self) -> str:
        return hex(self.head.number)

    def _at(self, number: str) -> Block | None:
        at = int(number, 16)
        return self.blocks[at] if at < len(self.blocks) else None

    def _block(self, number: str, full: bool) -> dict[str, Any] | None:
        block = self._at(number)
        if block is None:
            return None
        fields: dict[str, Any] = {
            "number": hex(block.number),
            "hash": hexed(block.hash),
            "parentHash": hexed(block.parent),
            "timestamp": hex(block.time),
            "baseFeePerGas": "0x0",
        }
        if full:
            fields["transactions"] = [
                {"hash": hexed(one.hash), "from": one.sender, "to": one.to, "value": hex(one.value)}
                for one, _ in block.transactions
            ]
        return fields

    def _code(self, at: str, number: str) -> str:
        return str(artifact()["runtime"]) if at == self.domain.contract else "0x"

    def _count(self, account: str, number: str) -> str:
        block = self._at(number)
        return hex(0 if block is None else block.state.nonces.get(account, 0))

    def _view(self, call: dict[str, str], number: str) -> str:
        data = bytes.fromhex(call["data"][2:])
        block = self._at(number)
        if block is None or call["to"] != self.domain.contract or data[:4] != _CHANNELS:
            return "0x"
        return hexed(b"".join(word(one) for one in block.state.channels.get(data[4:], Channel())))

    def _estimate(self, call: dict[str, str]) -> str:
        one = Transaction(b"", call["from"], 0, call["to"], int(call["value"], 16), bytes.fromhex(call["data"][2:]))
        if one.to == self.domain.contract:
            try:
                self._call(dict(self.head.state.channels), one, self._seconds(), lambda to, amount: None)
            except Revert as error:
                raise NodeRefusedError(self.name, 3, f"execution reverted: {error}") from None
        return hex(GAS)

    def _receipt(self, name: str) -> dict[str, str] | None:
        found = bytes.fromhex(name[2:])
        number = self._places.get(found)
        if number is None:
            return None
        block = self.blocks[number]
        succeeded = next(succeeded for one, succeeded in block.transactions if one.hash == found)
        return {
            "blockNumber": hex(number),
            "blockHash": hexed(block.hash),
            "status": "0x1" if succeeded else "0x0",
            "gasUsed": hex(GAS),
            "effectiveGasPrice": "0x0",
        }

    def _transaction(self, name: str) -> dict[str, str] | None:
        found = bytes.fromhex(name[2:])
        return {"hash": name} if found in self._waiting or found in self._places else None

    def _send(self, raw: str) -> str:
        one = read_transaction(bytes.fromhex(raw[2:]))
        if one.hash in self._waiting or one.hash in self._places:
            raise NodeRefusedError(self.name, -32_000, "already known")
        if one.nonce < self.head.state.nonces.get(one.sender, 0):
            raise NodeRefusedError(self.name, -32_000, "nonce too low")
        for name, other in list(self._waiting.items()):
            if (other.sender, other.nonce) == (one.sender, one.nonce):
                del self._waiting[name]
        self._waiting[one.hash] = one
        return hexed(one.hash)


def read_transaction(raw: bytes) -> Transaction:
    """What is signed in these bytes (EIP-1559)."""
    fields = _strings(raw[1:])
    sender = str(Account.recover_transaction(raw)).lower()
    return Transaction(
        keccak256(raw),
        sender,
        int.from_bytes(fields[1], "big"),
        "0x" + fields[5].hex(),
        int.from_bytes(fields[6], "big"),
        fields[7],
    )


def _strings(rlp: bytes) -> list[bytes]:
    """The strings in an RLP list that has no list but an empty one in it."""
    at = 1 + (rlp[0] - 0xF7 if rlp[0] > 0xF7 else 0)
    found: list[bytes] = []
    while at < len(rlp):
        first, at = rlp[at], at + 1
        if first < 0x80:
            found.append(bytes([first]))
            continue
        size = 0 if first == 0xC0 else first - 0x80
        if 0xB7 < first < 0xC0:
            size, at = int.from_bytes(rlp[at : at + first - 0xB7], "big"), at + first - 0xB7
        found.append(rlp[at : at + size])
        at += size
    return found


def _pay(state: State, payer: str, payee: str, amount: int) -> None:
    state.coins[payer] = state.coins.get(payer, 0) - amount
    state.coins[payee] = state.coins.get(payee, 0) + amount


_METHODS: Final[dict[str, Callable[..., Any]]] = {
    "eth_chainId": SimChain._chain_id,
    "eth_blockNumber": SimChain._block_number,
    "eth_getBlockByNumber": SimChain._block,
    "eth_getCode": SimChain._code,
    "eth_getTransactionCount": SimChain._count,
    "eth_call": SimChain._view,
    "eth_estimateGas": SimChain._estimate,
    "eth_getTransactionReceipt": SimChain._receipt,
    "eth_getTransactionByHash": SimChain._transaction,
    "eth_sendRawTransaction": SimChain._send,
}


@final
class ChainWay:
    """The node as one process asks it: `ledgers.evm.rpc.ChainNode`."""

    def __init__(self, chain: SimChain, loop: "AgendaLoop") -> None:
        self.chain: Final = chain
        self.name: Final = chain.name
        self._way: Final = Way(chain, loop, ServerAwayError)

    async def call(self, method: str, *params: object) -> Any:
        return await self._way.ask(lambda: self.chain.answer(method, params))

    async def close(self) -> None:
        """There is nothing to close."""
