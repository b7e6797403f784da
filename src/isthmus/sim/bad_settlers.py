"""What adversaries do about settlement: an honest engine, and a hand between it, its node and its ledger.

An adversary's own books are its own affair. What it may try and what answers it is told in docs/settlement.md.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, final

from isthmus.connector.events import AccountId
from isthmus.connector.settling import CONFIRMED, Settlement
from isthmus.errors import LedgerError
from isthmus.ledgers.bank.client import BankRefusedError
from isthmus.ledgers.bank.values import Order, Transfer
from isthmus.ledgers.evm.claims import ChannelTerms, Domain, sign
from isthmus.ledgers.evm.fees import Fee
from isthmus.ledgers.evm.keys import Key
from isthmus.ledgers.evm.octets import NO_ADDRESS, hexed
from isthmus.ledgers.evm.transactions import Call, sign_call
from isthmus.settlement.bank.engine import BankEngine
from isthmus.settlement.evm.channels import ChannelEngine
from isthmus.settlement.evm.engine import EvmEngine
from isthmus.settlement.evm.messages import Accepted, Claim, Hello, decode, encode
from isthmus.settlement.port import Engine, MessageRefusedError, Port, SettlingAccount, Step
from isthmus.sim import plan as p
from isthmus.sim.bank import BankHolder, SimBank
from isthmus.sim.chain import CHAIN_ID, ChainWay, SimChain, read_transaction

if TYPE_CHECKING:
    from isthmus.sim.till import Till

# Kinds of bad claims. Each is refused, or changes nothing.
REPLAYED: Final = "replayed"
LOWER: Final = "lower than before"
ABOVE: Final = "above the capacity"
NO_CHANNEL: Final = "of no channel"
NOT_OURS: Final = "of a channel to somebody else"
WRONG_KEY: Final = "signed by another key"
WRONG_CHAIN: Final = "for another chain"
WRONG_CONTRACT: Final = "for another contract"
WRONG_TOKEN: Final = "of a channel with another asset"
SHORT_DELAY: Final = "of a channel with too short a delay"
CLAIMS: Final = (
    REPLAYED,
    LOWER,
    ABOVE,
    NO_CHANNEL,
    NOT_OURS,
    WRONG_KEY,
    WRONG_CHAIN,
    WRONG_CONTRACT,
    WRONG_TOKEN,
    SHORT_DELAY,
)
CLAIMS_AT_A_TIME: Final = 3
_STRANGER: Final = Key(bytes(31) + b"\x07")
_OTHER_TOKEN: Final = "0x" + 20 * "70"
# How deep it digs: below what engines here take to stay, so that credits are undone.
DIG_BLOCKS: Final = 5
DIGS_MAX: Final = 2
DIG_LOOK_S: Final = 4.0
AGAIN_S: Final = 3.0
TIMES: Final = 3  # how many times what it owes
ODD: Final = 7  # units of the ledger besides, which may be less than a unit of the account
# Who paid too much has books that don't know it, and would pay again what it is paid back: after this it pays no more.
OVERPAYS_MAX: Final = 3


def cheat(till: "Till", ledger: str, engine: Engine) -> Engine:
    """The engine, or what a node with such a vice has in its place."""
    vice = till.node.plan.vice.partition(": ")[0]
    return BadEngine(till, ledger, engine, vice) if vice in p.SETTLE_VICES else engine


def holder_of(till: "Till", bank: SimBank) -> BankHolder:
    """The way to a bank."""
    if till.node.plan.vice in (p.SAME_KEY, p.WRONG_ASSET, p.OVERPAYS):
        return _BadHolder(till, bank)
    return BankHolder(bank, till.node.name, till.loop)


def way_of(till: "Till", chain: SimChain) -> "ChainWay | _Repeating":
    """The way to a chain."""
    way = ChainWay(chain, till.loop)
    return _Repeating(till, way) if till.node.plan.vice == p.SAME_KEY else way


@final
class BadEngine:
    """Implements `settlement.port.Engine` over an honest one."""

    def __init__(self, till: "Till", ledger: str, engine: Engine, vice: str) -> None:
        self._till: Final = till
        self._ledger: Final = till.node.world.ledgers[ledger]
        self._engine: Final = engine
        self._vice: Final = vice
        self._port: Port
        self._digs = 0
        self._overpaid: Final = till.node.overpaid

    def _strike(self) -> None:
        self._till.node.world.coverage.enter("vice", self._vice)

    async def start(self, port: Port, accounts: Sequence[SettlingAccount]) -> None:
        self._port = port
        if self._vice in (p.BAD_CLAIMS, p.OVERPAYS) and isinstance(self._engine, ChannelEngine):
            port = _BadPort(self._till, self._engine, port)
        await self._engine.start(port, accounts)
        if self._vice == p.DOUBLE_SPENDS and isinstance(self._ledger, SimChain):
            self._till.loop.call_later(DIG_LOOK_S, self._dig)

    async def accounts_changed(self, accounts: Sequence[SettlingAccount]) -> None:
        await self._engine.accounts_changed(accounts)

    async def pay(self, account: AccountId, number: int, amount: int, key: bytes) -> None:
        if self._vice == p.NEVER_SETTLES:
            self._strike()
            raise LedgerError("not today")
        if self._vice == p.PAYS_NOT:
            await self._port.step(account, Step(moved=[(number, CONFIRMED, "so we say")]))
            self._strike()
            await self._boast(account, amount)
        elif self._vice == p.WRONG_ASSET:
            await self._pay_otherwise(account, number, amount, key)
        else:
            if self._vice == p.OVERPAYS:
                if len(self._overpaid) >= OVERPAYS_MAX and (account, number) not in self._overpaid:
                    raise LedgerError("that was enough")
                self._overpaid.add((account, number))
                self._strike()
                amount *= TIMES
            await self._engine.pay(account, number, amount, key)

    async def take_message(self, account: AccountId, data: bytes) -> bytes:
        return await self._engine.take_message(account, data)

    def link_up(self, account: AccountId) -> None:
        self._engine.link_up(account)

    def unfinished(self, account: AccountId) -> Sequence[str]:
        return self._engine.unfinished(account)

    def describe(self, account: AccountId) -> Mapping[str, str]:
        return self._engine.describe(account)

    async def close(self) -> None:
        await self._engine.close()

    async def _boast(self, account: AccountId, amount: int) -> None:
        """Tell the peer of money that isn't there."""
        engine = self._engine
        if isinstance(engine, ChannelEngine):
            try:
                hello = decode(await self._port.message(account, encode(_hello(engine))))
                if isinstance(hello, Hello):
                    terms = ChannelTerms(engine.key.address, hello.address, NO_ADDRESS, 3_600, bytes(32))
                    await self._port.message(account, encode(_claim(engine, terms, amount)))
            except MessageRefusedError:
                return

    async def _pay_otherwise(self, account: AccountId, number: int, amount: int, key: bytes) -> None:
        """The same amount of something else, and nothing of what was agreed."""
        engine = self._engine
        if isinstance(engine, BankEngine):
            await engine.pay(account, number, amount, key)  # see `_BadHolder`
            return
        await self._port.step(account, Step(moved=[(number, CONFIRMED, "in something better")]))
        assert isinstance(engine, EvmEngine)
        try:
            hello = decode(await self._port.message(account, encode(_hello(engine))))
        except MessageRefusedError:
            return
        if not isinstance(hello, Hello):
            return
        self._strike()
        if isinstance(engine, ChannelEngine):
            terms = ChannelTerms(engine.key.address, hello.address, _OTHER_TOKEN, 3_600, bytes(32))
            try:
                await self._port.message(account, encode(_claim(engine, terms, amount)))
            except MessageRefusedError:
                return
        else:
            assert isinstance(self._ledger, SimChain)
            nonce = self._ledger.head.state.nonces.get(engine.key.address, 0)
            data = bytes.fromhex("a9059cbb") + bytes(12) + bytes.fromhex(hello.address[2:]) + amount.to_bytes(32, "big")
            call = Call(to=_OTHER_TOKEN, data=data)
            signed = sign_call(call, chain_id=CHAIN_ID, nonce=nonce, fee=Fee(0, 0), secret=engine.key.secret)
            await ChainWay(self._ledger, self._till.loop).call("eth_sendRawTransaction", hexed(signed.raw))

    def _dig(self) -> None:
        """Once a payment of ours is thought to stay: have the chain forget it, and spend the money ourselves."""
        chain, engine = self._ledger, self._engine
        assert isinstance(chain, SimChain)
        assert isinstance(engine, EvmEngine)
        for depth in range(DIG_BLOCKS, 2 * DIG_BLOCKS):
            block = chain.blocks[-depth] if depth < len(chain.blocks) else None
            for one, succeeded in [] if block is None else block.transactions:
                if one.sender == engine.key.address and one.value and succeeded:
                    call = Call(to=engine.key.address, value=one.value)
                    signed = sign_call(
                        call, chain_id=CHAIN_ID, nonce=one.nonce, fee=Fee(0, 0), secret=engine.key.secret
                    )
                    chain.reorganise(depth, instead=[read_transaction(signed.raw)])
                    self._strike()
                    self._digs += 1
                    if self._digs < DIGS_MAX:
                        self._till.loop.call_later(DIG_LOOK_S, self._dig)
                    return
        self._till.loop.call_later(DIG_LOOK_S, self._dig)


@final
class _BadPort:
    """A port on which a bad claim comes before each right one, or one that is a little higher in place of it."""

    def __init__(self, till: "Till", engine: ChannelEngine, port: Port) -> None:
        self._till: Final = till
        self._engine: Final = engine
        self._port: Final = port
        self._sent: Final[list[bytes]] = []

    async def message(self, account: AccountId, data: bytes) -> bytes:
        message = decode(data)
        if isinstance(message, Claim) and self._till.node.plan.vice == p.OVERPAYS:
            try:
                return await self._port.message(
                    account, encode(_claim(self._engine, message.terms, message.amount + ODD))
                )
            except MessageRefusedError:
                return await self._port.message(account, data)  # the channel holds no more
        if isinstance(message, Claim):
            _, _, wanted = self._till.node.plan.vice.partition(": ")
            for kind in (wanted,) if wanted else self._till.rng.sample(CLAIMS, CLAIMS_AT_A_TIME):
                await self._try(account, kind, message)
            self._sent.append(data)
        return await self._port.message(account, data)

    async def _try(self, account: AccountId, kind: str, claim: Claim) -> None:
        """A bad claim, and that nothing comes of it."""
        world = self._till.node.world
        world.coverage.enter("vice", p.BAD_CLAIMS)
        try:
            answer = decode(await self._port.message(account, self._bad(kind, claim)))
        except MessageRefusedError as refused:
            world.coverage.enter("bad claim", f"{kind}: {refused}")
            return
        world.coverage.enter("bad claim", f"{kind}: accepted at what was there")
        accepted = answer.amount if isinstance(answer, Accepted) else 0
        if kind not in (REPLAYED, LOWER) or accepted > claim.amount:
            world.found("claim", self._till.node.name, f"a claim {kind} was accepted")

    def _bad(self, kind: str, claim: Claim) -> bytes:
        engine, terms = self._engine, claim.terms
        if kind == REPLAYED and self._sent:
            return self._sent[0]
        if kind in (REPLAYED, LOWER):
            return encode(_claim(engine, terms, max(0, claim.amount - 1)))
        if kind == ABOVE:
            return encode(_claim(engine, terms, claim.amount + 10**24))
        if kind == NO_CHANNEL:
            return encode(_claim(engine, replace(terms, salt=self._till.rng.randbytes(32)), claim.amount))
        if kind == NOT_OURS:
            return encode(_claim(engine, replace(terms, receiver=_STRANGER.address), claim.amount))
        if kind == WRONG_KEY:
            digest = engine.domain.claim_digest(terms.id, claim.amount)
            return encode(replace(claim, signature=sign(digest, _STRANGER.private)))
        if kind == WRONG_CHAIN:
            return encode(_claim(engine, terms, claim.amount, Domain(CHAIN_ID + 1, engine.domain.contract)))
        if kind == WRONG_CONTRACT:
            return encode(_claim(engine, terms, claim.amount, Domain(CHAIN_ID, _OTHER_TOKEN)))
        if kind == WRONG_TOKEN:
            return encode(_claim(engine, replace(terms, token=_OTHER_TOKEN), claim.amount))
        assert kind == SHORT_DELAY
        return encode(_claim(engine, replace(terms, settle_delay=1), claim.amount))

    # --- the rest is honest

    async def step(self, account: AccountId, step: Step) -> Sequence[int]:
        return await self._port.step(account, step)

    def book(self, account: AccountId, step: Step) -> Sequence[int]:
        return self._port.book(account, step)

    def kept(self, account: AccountId) -> Mapping[bytes, bytes]:
        return self._port.kept(account)

    def credited(self, account: AccountId, start: str) -> Sequence[str]:
        return self._port.credited(account, start)

    def open(self, account: AccountId) -> Sequence[Settlement]:
        return self._port.open(account)

    def log(self, level: str, event: str, fields: Mapping[str, str | int]) -> None:
        self._port.log(level, event, fields)

    def over(self, event: str, account: AccountId | str = "") -> None:
        self._port.over(event, account)


def _claim(engine: ChannelEngine, terms: ChannelTerms, amount: int, domain: Domain | None = None) -> Claim:
    """With the signature of the engine's key."""
    where = domain or engine.domain
    return Claim(
        chain_id=where.chain_id,
        contract=where.contract,
        terms=terms,
        amount=amount,
        signature=sign(where.claim_digest(terms.id, amount), engine.key.private),
    )


def _hello(engine: EvmEngine) -> Hello:
    return Hello(
        chain_id=CHAIN_ID,
        contract=engine.domain.contract if isinstance(engine, ChannelEngine) else NO_ADDRESS,
        token=NO_ADDRESS,
        address=engine.key.address,
        settle_delay_min=1,
    )


@final
class _BadHolder(BankHolder):
    """Uses a key twice, pays a little more than its engine says, or from an account in another asset."""

    def __init__(self, till: "Till", bank: SimBank) -> None:
        super().__init__(bank, till.node.name, till.loop)
        self._till: Final = till

    async def transfer(self, key: str, body: bytes) -> Transfer:
        world, vice = self._till.node.world, self._till.node.plan.vice
        world.coverage.enter("vice", vice)
        if vice == p.WRONG_ASSET:
            # It has no account that could pay this one: the bank says so, and its own engine is told another thing.
            order = self.order(key, body)
            return Transfer(id="elsewhere", order=order, at_ms=self.ledger.now_ms)
        if vice == p.OVERPAYS:
            order = self.order(key, body)
            return replace(await self.asked(self.changed(order, order.amount + ODD)), order=order)
        done = await super().transfer(key, body)
        again = await super().transfer(key, body)
        assert again == done
        try:
            order = self.changed(done.order, done.order.amount + 1)
            await self.asked(order)
            world.found("twice", self._till.node.name, "the bank took one key for two transfers")
        except BankRefusedError:
            pass
        return done

    async def asked(self, order: Order) -> Transfer:
        """An order as it is."""
        return await self._way.ask(lambda: self.ledger.transfer(order))


@final
class _Repeating:
    """A way to a chain on which all transactions are sent again and again."""

    def __init__(self, till: "Till", way: ChainWay) -> None:
        self.name: Final = way.name
        self._till: Final = till
        self._way: Final = way

    async def call(self, method: str, *params: object) -> Any:
        found = await self._way.call(method, *params)
        if method == "eth_sendRawTransaction":
            self._till.node.world.coverage.enter("vice", p.SAME_KEY)
            self._till.loop.create_task(self._again(*params))
        return found

    async def _again(self, *params: object) -> None:
        for _ in range(TIMES):
            await asyncio.sleep(AGAIN_S)
            try:
                await self._way.call("eth_sendRawTransaction", *params)
            except LedgerError:
                continue

    async def close(self) -> None:
        await self._way.close()
