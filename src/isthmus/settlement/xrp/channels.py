"""Settles by payment channels: claims ride on the link, the ledger sees openings, top-ups, redemptions and ends.

For each account there is at most one channel of ours to the peer, and some of the peer's to us (`receiving`). What is
kept: `out`, `wanted`, the peer's address, and transactions under way.
"""

from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, final

from isthmus.connector.events import AccountId
from isthmus.errors import LedgerError
from isthmus.ilp.asset import Asset
from isthmus.ilp.packet import AMOUNT_MAX
from isthmus.ledgers.xrp import transactions as tx
from isthmus.ledgers.xrp.hashes import channel_index, claim_message
from isthmus.ledgers.xrp.network import Applied, Head, PayChan
from isthmus.ledgers.xrp.signatures import SigningKey
from isthmus.ledgers.xrp.transactions import DROPS_MAX, XRP_SCALE
from isthmus.settlement import channels as shown
from isthmus.settlement.causes import CLOSE
from isthmus.settlement.claiming import Claiming, Outbox, Sent
from isthmus.settlement.pauses import growing_pause
from isthmus.settlement.port import MessageRefusedError, Step, StepRefusedError
from isthmus.settlement.promises import Phase, deposit_for
from isthmus.settlement.watch import NotAnsweredYetError
from isthmus.settlement.xrp.messages import (
    NO_CHANNEL_YET,
    UNITS_MAX,
    Accepted,
    Address,
    ChannelTold,
    Claim,
    Close,
    Info,
    InfoAsked,
    Message,
    decode_question,
    encode,
    had_before,
)
from isthmus.settlement.xrp.outgoing import Outgoing
from isthmus.settlement.xrp.pending import Pending
from isthmus.settlement.xrp.receiving import ReceivingEngine, ends_at_ms
from isthmus.settlement.xrp.settings import ChannelPolicy, LedgerSettings

WANTED: Final = b"wanted"  # a channel that the operator asked for: how much it is to hold
# A peer that agreed to end a channel has so long to do it; then we begin to end it alone.
AGREED_MS: Final = 300_000
FUNDING: Final = frozenset({"open", "top-up"})
ENDINGS: Final = frozenset({"start-close", "finish"})
FUNDING_RETRY_S: Final = 5.0  # after a transaction that failed and cost its fee; longer each time


@final
class ChannelEngine(Claiming[Head, Outgoing], ReceivingEngine):
    """An `Engine` (settlement.port) on one network with one key."""

    total_max = DROPS_MAX
    unit_name = "a drop"

    def __init__(
        self,
        settings: LedgerSettings,
        policy: ChannelPolicy,
        key: SigningKey,
        *,
        now: Callable[[], int],
        random: Callable[[], float],
    ) -> None:
        super().__init__(settings, policy, key, now=now, random=random)
        self._outbox: Outbox[Outgoing] = Outbox()
        self._announced: Final[dict[AccountId, tuple[str, int]]] = {}  # channel and what it held, as the peer was told
        self._understood: Final[set[AccountId]] = set()  # peers that count as we do, as of this process
        self._agreed: Final[dict[str, int | None]] = {}  # ends that we asked for: agreed when; None: refused
        self._failures: Final[dict[AccountId, tuple[int, int]]] = {}  # of funding: how many, not before (wall ms)

    def _forget(self, account: AccountId) -> None:
        super()._forget(account)
        for each in (self._announced, self._failures, self._searched):
            each.pop(account, None)
        self._understood.discard(account)

    async def open_channel(self, account: AccountId, amount: int) -> bool:
        """Open a channel that holds so many drops. False: there is one, or it is under way."""
        if self.outgoing(account).phase is not Phase.NONE or self._has_pending(account, FUNDING):
            return False
        if not 0 < amount <= DROPS_MAX:
            raise LedgerError(f"a channel holds 1 to {DROPS_MAX} drops")
        await self._sender.check_funds(amount)  # settlements would wait behind one that can't be opened
        await self._port.step(account, Step(kept=[(WANTED, b"%d" % amount)]))
        self._failures.pop(account, None)
        self._wake.set()
        return True

    async def add_to_channel(self, account: AccountId, amount: int) -> bool:
        """Put this many drops into our channel. False: none is open, or funds are under way."""
        state = self.outgoing(account)
        if state.phase is not Phase.OPEN or self._has_pending(account, FUNDING):
            return False
        if not 0 < amount <= DROPS_MAX - state.deposited:
            raise LedgerError(f"a channel holds {DROPS_MAX} drops at most")
        await self._top_up(account, state.channel, amount)
        return True

    async def _top_up(self, account: AccountId, channel: str, amount: int) -> None:
        def step(_: Pending) -> Step:
            if self._has_pending(account, FUNDING):  # an operator's and a turn's, or two operators'
                raise StepRefusedError(shown.FUNDS_UNDER_WAY)
            return Step()

        await self._begin(account, tx.fund_channel(channel, amount), "top-up", channel, takes=amount, step=step)

    async def close_channel(self, account: AccountId) -> bool:
        """Begin to end our channel to this peer, with its agreement or without. False: none is open."""
        state = self.outgoing(account)
        if state.phase is not Phase.OPEN:
            return False
        await self._port.step(account, Step(kept=[self._keep(account, replace(state, phase=Phase.ENDING))]))
        self._wake.set()
        return True

    # --- claims (`Claiming`) ---

    def _decode(self, kept: bytes | None) -> Outgoing:
        return Outgoing.decode(kept)

    def _encode(self, state: Outgoing) -> bytes:
        return state.encode()

    def _channel_name(self, state: Outgoing) -> str:
        return state.channel

    def _to_ledger(self, account: AccountId, amount: int, carried: int) -> tuple[int, int]:
        return self._converter(account).to_ledger(amount, carried)

    def _is_unsent(self, account: AccountId) -> bool:
        state = self.outgoing(account)
        if state.phase is not Phase.OPEN:
            return False
        if self._announced.get(account) != (state.channel, state.deposited):
            return True
        return state.signed > 0 and not self._has(account, state.channel, state.signed)

    def _before_claim(self, account: AccountId) -> Coroutine[Any, Any, None] | None:
        """Our channel is told before its first claim."""
        state = self.outgoing(account)
        is_told = self._announced.get(account) == (state.channel, state.deposited)
        return None if is_told else self._announce(account)

    def _claim(self, account: AccountId) -> Sent:
        state = self.outgoing(account)
        total = state.signed
        claim = Claim(
            amount=min(self._in_units(account, total), UNITS_MAX),
            signature=self.key.sign(claim_message(state.channel, total)),
            added=min(self._in_units(account, total - state.acknowledged), AMOUNT_MAX),  # for people: nobody credits it
            channel=state.channel,
            drops=total,
        )
        return Sent(state.channel, total, claim.amount, encode(claim))

    def _check_answer(self, account: AccountId, sent: Sent, answer: bytes | MessageRefusedError) -> None:
        """A plugin refuses what it has already."""
        if isinstance(answer, MessageRefusedError):
            before = had_before(answer.message)
            if before is None or before < sent.amount:
                raise answer
            return
        accepted = self._answer_of(answer)
        if not isinstance(accepted, Accepted) or (accepted.drops is not None and accepted.drops < sent.total):
            raise MessageRefusedError("F00", "the peer answers a claim with something else than its amount")

    async def _announce(self, account: AccountId) -> None:
        """Tell the peer which channel is ours, and that it holds more; learn which is the peer's."""
        state = self.outgoing(account)
        told = (state.channel, state.deposited)
        if state.phase is not Phase.OPEN or self._announced.get(account) == told:
            return
        await self._compare_scales(account)
        try:
            answer = await self._ask(account, ChannelTold(state.channel))
        except MessageRefusedError as refused:
            if NO_CHANNEL_YET not in refused.message:  # an engine over RFC 38 tells it in words of its connector's
                raise
            answer = ChannelTold("")
        self._announced[account] = told
        if isinstance(answer, ChannelTold) and answer.channel:
            await self._learn(account, answer.channel)

    async def _compare_scales(self, account: AccountId) -> None:
        """Claims of plugins are in units of the account: both must count the same. Engines of ours tell drops too."""
        if account in self._understood:
            return
        answer = await self._ask(account, InfoAsked())
        if not isinstance(answer, Info):
            raise MessageRefusedError("F00", "the peer's engine doesn't tell its scale")
        if answer.scale != self._scale(account) and not answer.knows_drops:
            raise MessageRefusedError(
                "F00", f"the peer counts with {answer.scale} decimal places, and we with {self._scale(account)}"
            )
        self._understood.add(account)

    def _in_units(self, account: AccountId, drops: int) -> int:
        """Units of the account. Exact: what is signed is a whole number of them."""
        scale = self._scale(account)
        up, down = max(0, scale - XRP_SCALE), max(0, XRP_SCALE - scale)
        units: int = drops * 10**up // 10**down
        return units

    # --- a turn ---

    async def _turn(self, account: AccountId, head: Head) -> None:
        await super()._turn(account, head)
        await self._follow(account, head)
        await self._fund(account)
        if self._is_unsent(account):
            self._deliver_soon(account)

    async def _follow(self, account: AccountId, head: Head) -> None:
        """Our channel to the peer, as the ledger has it."""
        state = self.outgoing(account)
        if not state.channel or head.index < state.since:
            return
        channel = await self._state(state.channel, head)
        state = self.outgoing(account)
        if channel is None:
            if not self._has_pending(account, {"open"}):
                await self._ended(account, state, head)
            return
        if channel.amount != state.deposited or state.phase is Phase.OPENING:
            phase = Phase.OPEN if state.phase is Phase.OPENING else state.phase
            due = self._still_due(account, state)
            state = replace(due, deposited=channel.amount, phase=phase).sign_waiting()
            await self._port.step(account, Step(kept=[self._keep(account, state)]))
        if state.phase is Phase.OPEN and channel.expiration is not None:
            state = replace(self.outgoing(account), phase=Phase.ENDING)
            await self._port.step(account, Step(kept=[self._keep(account, state)]))
        if state.phase is Phase.ENDING and not self._has_pending(account, ENDINGS):
            await self._end(account, channel, head)

    async def _ended(self, account: AccountId, state: Outgoing, head: Head) -> None:
        """The channel is gone. What the peer got out of it is paid; what else was signed waits for the next one."""
        claimed = await self._network.last_of_channel(state.channel, self.key.address, state.since, head.index)
        known, moved = self._acknowledged(account)
        after, done = known.ended(claimed)
        self._outbox.has.pop(account, None)
        self._agreed.pop(state.channel, None)
        self._states.pop(state.channel, None)
        moved += self._paid(account, done)
        await self._port.step(account, Step(moved=moved, kept=[self._keep(account, after)]))
        self._went_through(CLOSE, account)

    async def _end(self, account: AccountId, channel: PayChan, head: Head) -> None:
        """One step nearer to the end of our channel: by the peer if it agrees, else after the settle delay."""
        if channel.expiration is None:
            if not await self._peer_ends(account, channel.id):
                await self._begin(account, tx.end_channel(channel.id), "start-close", channel.id)
        elif head.time >= channel.expiration:
            await self._begin(account, tx.end_channel(channel.id), "finish", channel.id)

    async def _peer_ends(self, account: AccountId, channel: str) -> bool:
        """Whether to wait for the peer, which can end the channel at once. Asked once by each process."""
        if channel not in self._agreed:
            try:
                answer = await self._ask(account, Close(channel))
            except NotAnsweredYetError:
                raise
            except MessageRefusedError as error:
                self._tell("warning", "close_not_agreed", account, {"reason": str(error)}, until=CLOSE)
                answer = None
            self._agreed[channel] = self._now() if answer == Close(channel) else None
        agreed_at = self._agreed[channel]
        return agreed_at is not None and 0 <= self._now() - agreed_at < AGREED_MS

    async def _fund(self, account: AccountId) -> None:
        """Open our channel or add to it, if that is due."""
        state = self._still_due(account, self.outgoing(account))
        policy = self.policy
        amount = deposit_for(state, deposit=policy.deposit, reserve=policy.reserve, most=DROPS_MAX)
        if state.phase is Phase.NONE:
            amount = max(amount, int(self._port.kept(account).get(WANTED, b"0")))
        not_before = self._failures.get(account, (0, 0))[1]
        if amount == 0 or self._has_pending(account, FUNDING) or self._now() < not_before:
            return
        if state.phase is Phase.OPEN:
            await self._top_up(account, state.channel, amount)
        else:
            await self._open(account, amount)

    async def _open(self, account: AccountId, amount: int) -> None:
        destination = await self._introduce(account)
        delay = self.policy.settle_delay
        fields = tx.create_channel(destination, amount, settle_delay=delay, public_key=self.key.public_key)

        def step(one: Pending) -> Step:
            state = replace(
                self.outgoing(account),
                phase=Phase.OPENING,
                channel=channel_index(self.key.address, destination, one.sequence),
                destination=destination,
                settle_delay=delay,
                since=one.first,
            )
            is_wanted = WANTED in self._port.kept(account)
            return Step(kept=[self._keep(account, state), *([(WANTED, b"")] if is_wanted else [])])

        await self._begin(account, fields, "open", destination, takes=amount, step=step)

    async def _transaction_ended(self, account: AccountId, one: Pending, found: Applied | None, step: Step) -> None:
        if found is None or not found.succeeded:
            self._failed(account, one, found)
            if one.purpose == "open":
                after, _ = self.outgoing(account).ended(0)
                step.kept.append(self._keep(account, after))
        elif one.purpose == "open":
            step.kept.append(self._keep(account, replace(self.outgoing(account), since=found.ledger)))
        if found is not None and found.succeeded and one.purpose in FUNDING:
            self._failures.pop(account, None)
        await self._port.step(account, step)

    def _failed(self, account: AccountId, one: Pending, found: Applied | None) -> None:
        """It is done anew if it is due: at once if no ledger took it, else after a pause, since it cost its fee."""
        if found is None:
            fields = {"account": account, "purpose": one.purpose, "hash": one.hash}
            self._port.log("info", "xrp_transaction_expired", fields)
            return
        self._tell("error", "transaction_failed", account, {"reason": f"{one.purpose}: {found.result}"})
        if one.purpose in FUNDING:
            failures = self._failures.get(account, (0, 0))[0]
            pause_s = growing_pause(failures, FUNDING_RETRY_S, self._random())
            self._failures[account] = (failures + 1, self._now() + int(pause_s * 1000))

    # --- what the peer asks ---

    async def _take(self, account: AccountId, data: bytes) -> bytes:
        return encode(await self._answer(account, decode_question(data)))

    async def _answer(self, account: AccountId, message: Message) -> Message:
        if isinstance(message, Address):
            return await self._take_address(account, message)
        if isinstance(message, InfoAsked):
            return Info(self._scale(account), knows_drops=True)
        if isinstance(message, ChannelTold):
            return await self._take_channel(account, message)
        if isinstance(message, Claim):
            return await self._take_claim(account, message)
        if isinstance(message, Close):
            return await self._agree_to_close(account, message)
        raise MessageRefusedError("F00", "not a question")

    async def _take_channel(self, account: AccountId, told: ChannelTold) -> ChannelTold:
        """The peer tells its channel, or that it holds more, and wants to know ours.

        A plugin that gets "" for its first question refuses all packets from then on; one that tells of a top-up needs
        an answer. So no answer is given to the first unless there is a channel.
        """
        grew = await self._note_channel(account, told.channel)
        self._outbox.has.pop(account, None)  # the peer may be a new process: it gets the highest claim again
        self._wake.set()
        state = self.outgoing(account)
        if state.phase is Phase.OPEN:
            return ChannelTold(state.channel)
        if grew:
            return ChannelTold("")
        raise MessageRefusedError("T00", NO_CHANNEL_YET)

    # --- what people see ---

    def unfinished(self, account: AccountId) -> Sequence[str]:
        """Channels of either side that are not at their end, and transactions."""
        is_wanted = WANTED in self._port.kept(account)
        incoming = len(self.incoming(account))
        left = shown.left_open(account, self.outgoing(account), is_wanted=is_wanted, incoming=incoming)
        return left + self._transactions_left(account)

    def unit(self, account: AccountId) -> Asset:
        """Drops of XRP."""
        return Asset(self._accounts[account].asset.code, XRP_SCALE)

    def channels(self, account: AccountId) -> Sequence[shown.Channel]:
        """Ours first."""
        state = self.outgoing(account)
        found: list[shown.Channel] = []
        if state.channel:
            channel = self._seen(state.channel)
            closing = state.phase is Phase.ENDING or (channel is not None and channel.expiration is not None)
            found.append(
                shown.Channel(
                    id=state.channel,
                    direction=shown.OUT,
                    state="closing" if closing else state.phase.value,
                    unit=self.unit(account),
                    capacity=state.deposited,
                    can_send=state.left,
                    paid=state.signed,
                    redeemed=0 if channel is None else channel.balance,
                    ends_at=ends_at_ms(channel),
                    delay_s=state.settle_delay,
                    text=f"{state.needed} drops wait for more funds" if state.needed else "",
                )
            )
        return [*found, *self._incoming_shown(account)]

    def describe(self, account: AccountId) -> Mapping[str, str]:
        """Amounts are in drops."""
        state = self.outgoing(account)
        found = {
            "network": str(self.settings.network_id),
            "address": self.key.address,
            "peer_address": self.peer_address(account) or "not known yet",
            "height": str(self.head.index) if self.head else "unknown",
            "outgoing": state.phase.value,
            "waiting": str(state.needed),
        }
        found |= self._describe_outgoing(account)
        if state.channel:
            found["outgoing_settle_delay"] = f"{state.settle_delay} s"
        found |= self._incoming_described(account)
        for one in self._sender.pending(self._port, account):
            found[f"transaction_{one.sequence}"] = f"{one.purpose}, until ledger {one.last}, {one.hash}"
        return found
