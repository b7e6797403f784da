"""The half of the channels' engine that is paid: which channels are a peer's, what claims bring, what is redeemed.

Kept are the peer's address, `in/ID` for each of the peer's channels to us, and `gone/ID` for those that ended last. A
claim is credited by what the verified signature grew by, never by an amount that the peer names beside it.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from isthmus.connector.events import AccountId
from isthmus.errors import CodecError, IsthmusError
from isthmus.ilp.asset import Asset
from isthmus.ledgers.xrp import transactions as tx
from isthmus.ledgers.xrp.network import Head, PayChan
from isthmus.ledgers.xrp.signatures import SigningKey
from isthmus.ledgers.xrp.transactions import DROPS_MAX, EPOCH_UNIX, XRP_SCALE
from isthmus.settlement import channels as shown
from isthmus.settlement.causes import MESSAGE
from isthmus.settlement.decoded import Decoded
from isthmus.settlement.port import MessageRefusedError, Step
from isthmus.settlement.xrp.engine import XrpEngine
from isthmus.settlement.xrp.incoming import (
    INCOMING_MAX,
    PASSING,
    Fault,
    Incoming,
    Redeem,
    accept,
    fault_of,
    is_closing,
    is_signed,
    redeem,
)
from isthmus.settlement.xrp.messages import (
    Accepted,
    Address,
    Claim,
    Close,
    Message,
    decode_answer,
    decode_question,
    encode,
)
from isthmus.settlement.xrp.settings import ChannelPolicy, LedgerSettings

PEER: Final = b"peer"  # the peer's address, as it has told it
IN: Final = b"in/"
GONE: Final = b"gone/"  # channels to us that have ended, and in which ledger that was seen
# So many of one account are known, the newest: a server that is behind may show one as it was, and what was credited of
# it would be credited again.
GONE_MAX: Final = 16
STATE_MS_MAX: Final = 60_000  # a channel's state is asked for anew when a claim comes after this long
SEARCH_MS: Final = 10_000  # a peer's channels are looked for on the ledger not more often than this
REDEMPTIONS: Final = frozenset({"claim", "release"})


class ReceivingEngine(XrpEngine):
    """Watches the channels to us."""

    def __init__(
        self,
        settings: LedgerSettings,
        policy: ChannelPolicy,
        key: SigningKey,
        *,
        now: Callable[[], int],
        random: Callable[[], float],
    ) -> None:
        super().__init__(settings, key, now=now, random=random)
        self.policy: Final = policy
        # By id: when it was looked at (wall ms), as of which ledger, and what was there.
        self._states: Final[dict[str, tuple[int, Head, PayChan | None]]] = {}
        self._searched: Final[dict[AccountId, int]] = {}
        self._records: Final = Decoded(Incoming.decode)

    def incoming(self, account: AccountId) -> list[Incoming]:
        """This peer's channels to us."""
        kept = self._port.kept(account)
        return [self._records.of(account, key, kept[key]) for key in sorted(kept) if key.startswith(IN)]

    def _record(self, account: AccountId, channel: str) -> Incoming | None:
        key = _key(channel)
        kept = self._port.kept(account).get(key)
        return None if kept is None else self._records.of(account, key, kept)

    async def _state(self, channel: str, head: Head | None = None) -> PayChan | None:
        """The channel as of this ledger, or the newest."""
        head = head or await self._network.head()
        found = await self._network.channel(channel, head.index)
        self._states[channel] = (self._now(), head, found)
        return found

    def _seen(self, channel: str) -> PayChan | None:
        """The channel as it was looked at last."""
        known = self._states.get(channel)
        return None if known is None else known[2]

    # --- addresses ---

    async def _take_address(self, account: AccountId, told: Address) -> Address:
        """The peer says where it is: there we pay. What it pays us is known by channels, or by tags."""
        await self._note_address(account, told.address)
        return Address(self.key.address)

    async def _introduce(self, account: AccountId) -> str:
        """Tell the peer where we are, and learn where it is. MessageRefusedError."""
        answer = await self._ask(account, Address(self.key.address))
        if not isinstance(answer, Address):
            raise MessageRefusedError("F00", "the peer's engine doesn't tell its address")
        await self._note_address(account, answer.address)
        return answer.address

    async def _note_address(self, account: AccountId, address: str) -> None:
        configured = self._configured(account)
        if configured not in (None, address):
            raise MessageRefusedError("F00", "another address was agreed on")
        if address == self.key.address:
            raise MessageRefusedError("F00", "both of us have the same key")
        if self._port.kept(account).get(PEER) != address.encode():
            await self._port.step(account, Step(kept=[(PEER, address.encode())]))

    def peer_address(self, account: AccountId) -> str | None:
        """Where the peer is: as agreed on, or as it told; None if it hasn't."""
        told = self._port.kept(account).get(PEER)
        return self._configured(account) or (None if told is None else told.decode())

    async def _ask(self, account: AccountId, message: Message) -> Message:
        """The peer's answer. MessageRefusedError, also for one that makes no sense."""
        return self._answer_of(await self._ask_peer(account, encode(message)))

    @staticmethod
    def _answer_of(answer: bytes) -> Message:
        """MessageRefusedError for one that makes no sense."""
        try:
            return decode_answer(answer)
        except CodecError as error:
            raise MessageRefusedError("F00", f"the peer's answer: {error}") from None

    # --- which channels are the peer's ---

    async def _note_channel(self, account: AccountId, channel: str) -> bool:
        """The peer tells a channel to us: whether we knew it, and it holds more by now. MessageRefusedError."""
        before = self._record(account, channel)
        found = await self._learn(account, channel)
        if isinstance(found, Fault):
            raise self._refusal(account, channel, found)
        return before is not None and found.capacity > before.capacity

    async def _learn(self, account: AccountId, channel: str) -> Incoming | Fault:
        """Look at a channel, and keep it as this peer's if it can be used."""
        seen = await self._state(channel)
        _, head, _ = self._states[channel]
        fault = Fault.ABSENT if seen is None else self._fault_of(account, seen, head)
        # What is kept is read after the last wait: another message may have come meanwhile.
        record = self._record(account, channel)
        if fault is not None or seen is None:
            if record is None:
                self._states.pop(channel, None)  # strangers must not fill it
            return fault or Fault.ABSENT
        if record is None:
            if is_closing(seen, settle_delay_min=self.policy.settle_delay_min, now=head.time):
                return Fault.CLOSING
            if sum(1 for key in self._port.kept(account) if key.startswith(IN)) >= INCOMING_MAX:
                return Fault.MANY
            record = Incoming.of(seen, head.index)
        elif record.capacity == seen.amount:
            return record
        record = replace(record, capacity=seen.amount)
        await self._port.step(account, Step(kept=[(_key(channel), record.encode())]))
        return record

    def _fault_of(self, account: AccountId, channel: PayChan, head: Head) -> Fault | None:
        if any(GONE + channel.id.encode() in self._port.kept(each) for each in self._accounts):
            return Fault.ABSENT
        if any(_key(channel.id) in self._port.kept(each) for each in self._accounts if each != account):
            return Fault.ELSEWHERE
        return fault_of(
            channel,
            receiver=self.key.address,
            source=self._configured(account),
            settle_delay_min=self.policy.settle_delay_min,
            now=head.time,
        )

    async def _channel_of(self, account: AccountId, claim: Claim, drops: int) -> Incoming | Fault:
        """Which of the peer's channels a claim is for: the one that it names, or whose key has signed it."""
        if claim.channel is not None:
            record = self._record(account, claim.channel) or await self._learn(account, claim.channel)
            if isinstance(record, Fault):
                return record
            key = bytes.fromhex(record.public_key)
            return record if is_signed(record.channel, drops, claim.signature, key) else Fault.SIGNATURE
        known = self.incoming(account)
        for record in known:
            if is_signed(record.channel, drops, claim.signature, bytes.fromhex(record.public_key)):
                return record
        # A plugin may not have told its channel yet.
        for channel in await self._search(account):
            if is_signed(channel.id, drops, claim.signature, channel.public_key):
                return await self._learn(account, channel.id)
        return Fault.SIGNATURE if known else Fault.UNKNOWN

    async def _search(self, account: AccountId) -> list[PayChan]:
        """The peer's channels to us on the ledger, if it has told where it is and wasn't searched just now."""
        address, at = self.peer_address(account), self._searched.get(account)
        if address is None or (at is not None and 0 <= self._now() - at < SEARCH_MS):
            return []
        self._searched[account] = self._now()
        head = await self._network.head()
        return await self._network.channels(address, self.key.address, head.index)

    # --- claims ---

    def answer_now(self, account: AccountId, data: bytes) -> bytes | None:
        """As `PromptEngine.answer_now`: a claim that names a channel which was looked at lately."""
        try:
            claim = decode_question(data)
            record = self._record(account, claim.channel) if isinstance(claim, Claim) and claim.channel else None
            if record is None or not isinstance(claim, Claim):
                return None
            drops = claim.total(self._scale(account))
            known = self._recent(record, drops)
            if known is None:
                return None
            if not is_signed(record.channel, drops, claim.signature, bytes.fromhex(record.public_key)):
                raise self._refusal(account, record.channel, Fault.SIGNATURE)
            answer = encode(self._credit_claim(account, record, claim, drops, *known))
            self._went_through(MESSAGE, account)
            return answer
        except IsthmusError as error:
            raise self._refusal_for(account, error) from None

    async def _take_claim(self, account: AccountId, claim: Claim) -> Accepted:
        drops = claim.total(self._scale(account))
        name = claim.channel or ""
        if drops > DROPS_MAX:
            raise self._refusal(account, name, Fault.CAPACITY)
        known = await self._channel_of(account, claim, drops)
        if isinstance(known, Fault):
            raise self._refusal(account, name, known)
        recent = self._recent(known, drops)
        if recent is None:
            seen = await self._state(known.channel)
            if seen is None:
                raise self._refusal(account, known.channel, Fault.ABSENT)
            recent = seen, self._states[known.channel][1]
        # What is kept is read after the last wait: another claim may have come meanwhile.
        record = self._record(account, known.channel)
        if record is None:
            raise self._refusal(account, known.channel, Fault.ABSENT)
        return self._credit_claim(account, record, claim, drops, *recent)

    def _credit_claim(
        self, account: AccountId, record: Incoming, claim: Claim, drops: int, seen: PayChan, head: Head
    ) -> Accepted:
        """`record`: as it is kept now."""
        closing = is_closing(seen, settle_delay_min=self.policy.settle_delay_min, now=head.time)
        found = accept(record, drops, claim.signature, seen, closing=closing)
        if isinstance(found, Fault):
            raise self._refusal(account, record.channel, found)
        if found.claim > record.claim:
            credit = (found.claim - record.claim, XRP_SCALE, "", f"claim on channel {record.channel[:16]}…")
            key, data = _key(record.channel), found.encode()
            self._port.book(account, Step(credits=[credit], kept=[(key, data)]))
            self._records.put(account, key, data, found)
        return Accepted(found.claim)

    def _recent(self, record: Incoming, drops: int) -> tuple[PayChan, Head] | None:
        """The channel as it was looked at; None if it must be asked for anew: that is old, or can't be all."""
        known = self._states.get(record.channel)
        if known is None:
            return None
        at, head, seen = known
        is_recent = 0 <= self._now() - at < STATE_MS_MAX
        return (seen, head) if seen is not None and is_recent and drops <= seen.amount else None

    def _refusal(self, account: AccountId, channel: str, fault: Fault) -> MessageRefusedError:
        if fault not in PASSING:
            self._tell("warning", "claim_refused", account, {"reason": fault.value, "channel": channel})
        return MessageRefusedError("T00" if fault in PASSING else "F00", fault.value)

    async def _agree_to_close(self, account: AccountId, asked: Close) -> Close:
        """From here on the channel brings us nothing more, and we end it as it stands."""
        record = self._record(account, asked.channel)
        if record is None:
            raise MessageRefusedError("F00", "it is no channel of this account")
        await self._port.step(account, Step(kept=[(_key(record.channel), replace(record, is_agreed=True).encode())]))
        self._wake.set()
        return asked

    # --- what is redeemed ---

    async def _turn(self, account: AccountId, head: Head) -> None:
        for record in self.incoming(account):
            if head.index >= record.since:
                await self._watch(account, record.channel, head)

    async def _watch(self, account: AccountId, name: str, head: Head) -> None:
        """A channel to us: books follow the ledger, and claims are redeemed in time."""
        channel = await self._state(name, head)
        record = self._record(account, name)
        if record is None:
            return
        if channel is None:
            await self._gone(account, record, head)
            self._went_through(name, account)
            return
        if channel.balance > record.claim:  # its source has paid us more than it signed
            record = await self._credit_balance(account, record, channel.balance)
        closing = is_closing(channel, settle_delay_min=self.policy.settle_delay_min, now=head.time)
        if closing and record.claim > channel.balance:
            until = ends_at_ms(channel) or 0
            fields: dict[str, str | int] = {"channel": name, "until_ms": until}
            self._tell("warning", "channel_closing", account, fields, until=name)
        else:
            self._went_through(name, account)
        if self._has_pending(account, REDEMPTIONS, name):
            return
        if record.is_agreed:
            await self._redeem(account, record, channel, and_end=True, urgent=closing)
        elif record.claim > channel.balance and (closing or self.policy.claim_above):
            fee = await self._sender.fee(urgent=closing)
            above = self.policy.claim_above
            due = redeem(record, channel, claim_above=above, fee=fee, closing=closing, now=head.time)
            if due is not Redeem.NO:
                await self._redeem(account, record, channel, and_end=False, urgent=due is Redeem.URGENT)

    async def _credit_balance(self, account: AccountId, record: Incoming, balance: int) -> Incoming:
        found = replace(record, claim=balance, signature="")
        credit = (balance - record.claim, XRP_SCALE, "", f"paid out of channel {record.channel[:16]}…")
        await self._port.step(account, Step(credits=[credit], kept=[(_key(record.channel), found.encode())]))
        return found

    async def _gone(self, account: AccountId, record: Incoming, head: Head) -> None:
        """The channel has ended: what of the claim was not paid out by then is owed to us again."""
        balance = await self._network.last_of_channel(record.channel, record.source, record.since, head.index)
        record = self._record(account, record.channel) or record
        step = Step(kept=[(_key(record.channel), b""), *self._gone_with(account, record.channel, head)])
        lost = record.claim - balance
        if lost > 0:
            units, _ = self._converter(account).whole_units(lost)
            if units:
                step.undone.append((units, f"channel {record.channel[:16]}… ended before it was redeemed"))
            self._tell("error", "credit_undone", account, {"channel": record.channel, "amount": str(units)})
        elif lost < 0:
            step.credits.append((-lost, XRP_SCALE, "", f"paid out of channel {record.channel[:16]}…"))
        self._states.pop(record.channel, None)
        await self._port.step(account, step)

    def _gone_with(self, account: AccountId, channel: str, head: Head) -> list[tuple[bytes, bytes]]:
        """What is kept of channels that have ended, with one more of them."""
        kept = self._port.kept(account)
        known = sorted((int(kept[key]), key) for key in kept if key.startswith(GONE))
        new = GONE + channel.encode()
        old = [(key, b"") for _, key in known[: max(0, len(known) + 1 - GONE_MAX)] if key != new]
        return [*old, (new, b"%d" % head.index)]

    async def redemption_fee(self, account: AccountId) -> int | None:
        """Of one channel, in drops."""
        return await self._sender.fee()

    async def redeem_channels(self, account: AccountId, *, and_end: bool) -> int:
        """Redeem the highest claims of this peer's channels, and end them if wanted. How many transactions began."""
        begun = 0
        for record in self.incoming(account):
            channel = await self._state(record.channel)
            if channel is None or self._has_pending(account, REDEMPTIONS, record.channel):
                continue
            if and_end or record.claim > channel.balance:
                await self._redeem(account, record, channel, and_end=and_end, urgent=False)
                begun += 1
        return begun

    async def _redeem(
        self, account: AccountId, record: Incoming, channel: PayChan, *, and_end: bool, urgent: bool
    ) -> None:
        if record.claim > channel.balance:
            signature, key = bytes.fromhex(record.signature), channel.public_key
            fields = tx.claim_channel(channel.id, record.claim, signature, key, and_end=and_end)
        else:
            fields = tx.end_channel(channel.id)
        await self._begin(account, fields, "release" if and_end else "claim", channel.id, urgent=urgent)

    # --- what people see ---

    @abstractmethod
    def unit(self, account: AccountId) -> Asset: ...

    def _incoming_shown(self, account: AccountId) -> list[shown.Channel]:
        found: list[shown.Channel] = []
        for record in self.incoming(account):
            channel = self._seen(record.channel)
            closing = record.is_agreed or (channel is not None and channel.expiration is not None)
            capacity = record.capacity if channel is None else channel.amount
            found.append(
                shown.Channel(
                    id=record.channel,
                    direction=shown.IN,
                    state="closing" if closing else "open",
                    unit=self.unit(account),
                    capacity=capacity,
                    can_receive=0 if closing else max(0, capacity - record.claim),
                    paid=record.claim,
                    redeemed=0 if channel is None else channel.balance,
                    ends_at=ends_at_ms(channel),
                    delay_s=None if channel is None else channel.settle_delay,
                    text="its end is agreed" if record.is_agreed else "",
                )
            )
        return found

    def _incoming_described(self, account: AccountId) -> Mapping[str, str]:
        found: dict[str, str] = {}
        for number, record in enumerate(self.incoming(account), start=1):
            channel = self._seen(record.channel)
            ends_at = ends_at_ms(channel)
            begin = f"incoming_{number}"
            found[f"{begin}_channel"] = record.channel
            found[f"{begin}_capacity"] = str(record.capacity)
            found[f"{begin}_claim"] = str(record.claim)
            found[f"{begin}_redeemed"] = "unknown" if channel is None else str(channel.balance)
            found[f"{begin}_ends_at_ms"] = "no" if ends_at is None else str(ends_at)
        return found


def ends_at_ms(channel: PayChan | None) -> int | None:
    """When its owner gets the rest, wall ms."""
    end = None if channel is None else channel.ends_at
    return None if end is None else (end + EPOCH_UNIX) * 1_000


def _key(channel: str) -> bytes:
    return IN + channel.encode()
