"""Two engines that settle with each other: each over a kernel's books, a link that can break, a ledger in the loop."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from xrpl.constants import CryptoAlgorithm
from xrpl.core.addresscodec import encode_seed

from isthmus.connector.events import AccountId
from isthmus.connector.settling import BEGUN, OPEN_STATES, Settlement
from isthmus.errors import JournalError
from isthmus.ledgers.xrp.hashes import channel_index
from isthmus.ledgers.xrp.signatures import SigningKey
from isthmus.ledgers.xrp.transactions import Fields, create_channel, sign_transaction
from isthmus.settlement.port import Engine, MessageRefusedError, SettlingAccount, Step
from isthmus.settlement.xrp.channels import ChannelEngine
from isthmus.settlement.xrp.engine import XrpEngine
from isthmus.settlement.xrp.outgoing import Outgoing
from isthmus.settlement.xrp.payments import PaymentEngine
from isthmus.settlement.xrp.pending import PREFIX
from isthmus.settlement.xrp.settings import ChannelPolicy, LedgerSettings
from tests.ledgers.xrp.dev.conftest import Serving
from tests.settlement.lightning.ports import PEER, Side

UNTIL_SECONDS: Final = 60.0
LEDGERS_MAX: Final = 60  # that a transaction may wait: `until` closes one in some milliseconds, and machines are busy
XRP: Final = 1_000_000
SCALE: Final = 6
POLICY: Final = ChannelPolicy(deposit=10 * XRP, settle_delay=3_600, settle_delay_min=3_600)


def a_key(number: int, *, secp256k1: bool = False) -> SigningKey:
    kind = CryptoAlgorithm.SECP256K1 if secp256k1 else CryptoAlgorithm.ED25519
    return SigningKey.from_seed(encode_seed(bytes([number]) * 16, kind))


class Clock:
    """Wall ms, which only tests move."""

    def __init__(self) -> None:
        self.now = 1_800_000_000_000

    def __call__(self) -> int:
        return self.now


class Process:
    """A `Port` of one process of a node. A killed one takes nothing any more."""

    def __init__(self, side: "Party") -> None:
        self.side: Final = side
        self.is_dead = False
        self.kill_at: int | None = None  # the step with this number is the last thing of this process
        self.kill_before = False  # and it isn't booked
        self.kill_sending = False  # the step that keeps a new transaction is the last
        self.disk = asyncio.Event()  # what is booked is durable while it is set
        self.disk.set()
        self.waiting = 0  # steps that aren't durable yet

    def _alive(self) -> None:
        if self.is_dead:
            raise JournalError("the node has stopped")

    async def step(self, account: AccountId, step: Step) -> Sequence[int]:
        gave = self.book(account, step)
        await asyncio.sleep(0)
        self.waiting += 1
        await self.disk.wait()
        self.waiting -= 1
        return gave

    def book(self, account: AccountId, step: Step) -> Sequence[int]:
        self._alive()
        is_sending = any(key.startswith(PREFIX) and value for key, value in step.kept)
        is_last = self.kill_at is not None and self.side.steps + 1 >= self.kill_at
        if is_last or (self.kill_sending and is_sending):
            self.is_dead = True
            if self.kill_before:
                raise JournalError("killed before the step")
            self._book(account, step)
            raise JournalError("killed after the step")
        return self._book(account, step)

    def _book(self, account: AccountId, step: Step) -> Sequence[int]:
        gave = self.side.book(account, step)
        self.side.steps += 1
        return gave

    async def message(self, account: AccountId, data: bytes) -> bytes:
        self._alive()
        answer = await self.side.carry(account, data)
        self._alive()
        return answer

    def kept(self, account: AccountId) -> Mapping[bytes, bytes]:
        return self.side.kept(account)

    def credited(self, account: AccountId, start: str) -> Sequence[str]:
        return self.side.credited(account, start)

    def open(self, account: AccountId) -> Sequence[Settlement]:
        return self.side.open(account)

    def log(self, level: str, event: str, fields: Mapping[str, str | int]) -> None:
        self.side.log(level, event, fields)

    def over(self, event: str, account: AccountId | str = "") -> None:
        self.side.over(event, account)


class Party(Side):
    """One side, whose engine can be killed and started again from the journal alone."""

    other: "Party"

    def __init__(self, name: str, make: Callable[[], Engine], scale: int = SCALE) -> None:
        super().__init__(name, scale, "XRP")
        self.make: Final = make
        self.steps = 0
        self.begin()
        self.engine = make()
        self.process = Process(self)
        self.link_is_up = True
        self.said: list[bytes] = []  # what our engine has told the peer's
        self._payer: asyncio.Task[None] | None = None

    async def start(self) -> "Party":
        await self.engine.start(self.process, self.accounts)
        self._payer = asyncio.create_task(self._pay(self.process, self.engine))
        return self

    async def kill(self) -> None:
        """Nothing more is booked; what was under way on the ledger goes on there."""
        self.process.is_dead = True
        await self.stop()

    async def stop(self) -> None:
        if self._payer is not None:
            self._payer.cancel()
            await asyncio.gather(self._payer, return_exceptions=True)
        await self.engine.close()

    async def restart(self) -> None:
        await self.kill()
        self.kernel = self._open()
        self.begin()
        self.engine = self.make()
        self.process = Process(self)
        await self.start()

    async def carry(self, account: AccountId, data: bytes) -> bytes:
        other = self.other
        self.said.append(data)
        if not self.link_is_up or other.process.is_dead:
            raise MessageRefusedError("T01", "the link is down")
        try:
            return await other.engine.take_message(account, data)
        except JournalError:
            raise MessageRefusedError("T00", "the peer has stopped") from None

    async def _pay(self, process: Process, engine: Engine) -> None:
        """As the node does: what was begun is told until the engine has it."""
        while not process.is_dead:
            for one in list(process.open(PEER)):
                if one.state == BEGUN:
                    try:
                        await engine.pay(PEER, one.number, one.amount, one.key)
                    except Exception as error:  # noqa: BLE001 - as the node: logged, and tried again
                        process.log("warning", "pay_failed", {"reason": str(error)})
            await asyncio.sleep(0.002)

    # --- what tests ask ---

    def owe(self, amount: int) -> None:
        """One more settlement."""
        self.settle(amount)

    @property
    def is_taken(self) -> bool:
        """The engine has them all: another may be begun."""
        return all(one.state != BEGUN for one in self.process.open(PEER))

    @property
    def is_paid(self) -> bool:
        """All our settlements are at their end."""
        return not [one for one in self.process.open(PEER) if one.state in OPEN_STATES]

    @property
    def channels(self) -> ChannelEngine:
        assert isinstance(self.engine, ChannelEngine)
        return self.engine

    @property
    def out(self) -> Outgoing:
        return self.channels.outgoing(PEER)

    def events(self, event: str) -> list[Mapping[str, str | int]]:
        return [fields for _, name, fields in self.logs if name == event]

    @property
    def accounts(self) -> list[SettlingAccount]:
        return [SettlingAccount(PEER, self.asset, self.settings)]


def join(one: Party, other: Party) -> None:
    one.other, other.other = other, one


def no_jitter() -> float:
    return 0.0


def settings_for(*ledgers: Serving, **changes: object) -> LedgerSettings:
    values: dict[str, object] = {
        "urls": tuple(ledger.json_rpc for ledger in ledgers),
        "network_id": ledgers[0].service.network_id,
        "poll_ms": 10,
        "ledgers_max": LEDGERS_MAX,
    }
    return LedgerSettings(**{**values, **changes})  # type: ignore[arg-type]


def channel_party(
    ledger: Serving,
    key: SigningKey,
    *,
    policy: ChannelPolicy = POLICY,
    clock: Callable[[], int] | None = None,
    scale: int = SCALE,
    **changes: object,
) -> Party:
    clock = clock or Clock()
    settings = settings_for(ledger, **changes)
    return Party(key.address, lambda: ChannelEngine(settings, policy, key, now=clock, random=no_jitter), scale)


def payment_party(
    ledger: Serving,
    key: SigningKey,
    *,
    clock: Callable[[], int] | None = None,
    scale: int = SCALE,
    **changes: object,
) -> Party:
    clock = clock or Clock()
    settings = settings_for(ledger, **changes)
    return Party(key.address, lambda: PaymentEngine(settings, key, now=clock, random=no_jitter), scale)


async def until(
    condition: Callable[[], object], ledger: Serving | None = None, *, seconds: float = UNTIL_SECONDS
) -> None:
    """Wait for it, while ledgers close."""
    async with asyncio.timeout(seconds):
        while not condition():
            if ledger is not None:
                ledger.service.close_ledger()
            await asyncio.sleep(0.005)


def let_expire(ledger: Serving) -> None:
    """Ledgers close, until none can take what has been signed so far."""
    for _ in range(LEDGERS_MAX + 1):
        ledger.service.close_ledger()


async def looked(party: Party, ledger: Serving | None = None, *, turns: int = 2) -> None:
    """Until the engine has looked at the ledger so often."""
    engine = party.engine
    assert isinstance(engine, XrpEngine)
    wanted = engine.turns + turns
    await until(lambda: engine.turns >= wanted, ledger)


# --- the ledger, past the engines ---


async def ask(ledger: Serving, method: str, **params: object) -> dict[str, Any]:
    _, answer = await ledger.post({"method": method, "params": [params]})
    return dict(answer["result"])


async def drops_of(ledger: Serving, key: SigningKey) -> int:
    return int(
        (await ask(ledger, "account_info", account=key.address, ledger_index="validated"))["account_data"]["Balance"]
    )


async def channel_on(ledger: Serving, channel: str) -> dict[str, Any] | None:
    """The channel's entry in the validated ledger."""
    return (await ask(ledger, "ledger_entry", payment_channel=channel, ledger_index="validated")).get("node")


async def send(ledger: Serving, key: SigningKey, fields: Fields) -> int:
    """A transaction of somebody who is no engine, validated; its sequence number."""
    info = await ask(ledger, "account_info", account=key.address, ledger_index="current")
    sequence = int(info["account_data"]["Sequence"])
    signed = sign_transaction(
        fields, key, network_id=1_000, sequence=sequence, last_ledger=ledger.service.last_index + 10, fee=10
    )
    answer = await ask(ledger, "submit", tx_blob=signed.blob.hex())
    assert answer["engine_result"] == "tesSUCCESS", answer
    ledger.service.close_ledger()
    return sequence


async def open_channel(
    ledger: Serving, source: SigningKey, to: SigningKey, drops: int, *, settle_delay: int = 3_600, **more: object
) -> str:
    """A channel of somebody who is no engine."""
    fields = create_channel(to.address, drops, settle_delay=settle_delay, public_key=source.public_key)
    return channel_index(source.address, to.address, await send(ledger, source, {**fields, **more}))
