"""Settles by payment channels: claims ride on the link, the chain sees openings, top-ups, redemptions and ends.

For each account there is at most one channel of ours to the peer, and some of the peer's to us. What is kept: `out`,
`in/ID` for each of theirs, and transactions under way.
"""

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final, final

from isthmus.connector.events import AccountId
from isthmus.errors import IsthmusError, LedgerError
from isthmus.ilp.asset import Asset, format_amount
from isthmus.ledgers.evm import contract, tokens
from isthmus.ledgers.evm.chain import CLOSED, Block, ChannelState, Receipt, WrongLedgerError
from isthmus.ledgers.evm.claims import AMOUNT_MAX, ChannelTerms, Domain, sign, signer
from isthmus.ledgers.evm.keys import Key
from isthmus.ledgers.evm.octets import NO_ADDRESS, checksummed, hexed
from isthmus.ledgers.evm.rpc import ChainNode, Node
from isthmus.ledgers.evm.transactions import Call
from isthmus.settlement.causes import CLOSE, MESSAGE, TERMS
from isthmus.settlement.channels import FUNDS_UNDER_WAY, Channel, left_open
from isthmus.settlement.claiming import Claiming, Outbox, Sent
from isthmus.settlement.decoded import Decoded
from isthmus.settlement.evm import shown
from isthmus.settlement.evm.engine import EvmEngine
from isthmus.settlement.evm.incoming import (
    ENDED_CHANNELS_MAX,
    INCOMING_MAX,
    PASSING,
    Fault,
    Incoming,
    Redeem,
    accept,
    covered,
    credited_again,
    fault_of,
    redeem,
)
from isthmus.settlement.evm.messages import Accepted, Agreed, Claim, Close, Hello, Message, decode, encode
from isthmus.settlement.evm.outgoing import Outgoing, decode_raws, with_raw
from isthmus.settlement.evm.pending import Pending
from isthmus.settlement.evm.settings import ChainSettings, ChannelPolicy
from isthmus.settlement.port import MessageRefusedError, Step, StepRefusedError
from isthmus.settlement.promises import Phase, deposit_for
from isthmus.settlement.watch import NotAnsweredYetError

RAWS: Final = b"raws"  # opening and latest top-ups
IN: Final = b"in/"
WANTED: Final = b"wanted"  # a channel that the operator asked for: how much it is to hold
NO_CHANNEL: Final = ChannelState(0, 0, 0)
STATE_MS_MAX: Final = 60_000  # a channel's state is asked for anew when a claim comes after this long
CLAIM_GAS: Final = 60_000  # what a redemption uses, to tell whether it is worth it
FUNDING: Final = frozenset({"approve", "open", "top-up"})
ENDINGS: Final = frozenset({"close", "start-close", "finish"})


@final
class ChannelEngine(Claiming[Block, Outgoing], EvmEngine):
    """An `Engine` (settlement.port) on one chain with one key, for one coin or token."""

    total_max = AMOUNT_MAX
    unit_name = "the ledger's unit"

    def __init__(
        self,
        settings: ChainSettings,
        policy: ChannelPolicy,
        key: Key,
        *,
        now: Callable[[], int],
        random: Callable[[], float],
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
        node_at: Callable[[str], ChainNode] = Node,
    ) -> None:
        """`random_bytes`: for the salts that make channels different; they needn't be secret."""
        super().__init__(settings, key, now=now, random=random, node_at=node_at)
        self.policy: Final = policy
        self._random_bytes: Final = random_bytes
        self.domain: Final = Domain(settings.chain_id, settings.contract)
        self._states: Final[dict[bytes, tuple[int, ChannelState, ChannelState]]] = {}  # by id: when, confirmed, newest
        self._outbox: Outbox[Outgoing] = Outbox()
        self._records: Final = Decoded(Incoming.decode)
        self._asked_to_close: Final[set[bytes]] = set()

    async def _check_contracts(self, head: Block) -> None:
        await super()._check_contracts(head)
        if not contract.is_ours(await self._chain.code(self.settings.contract, head.number)):
            raise WrongLedgerError(
                f"chain {self.settings.chain_id} doesn't have our contract at {checksummed(self.settings.contract)}"
            )

    # --- what we pay (`Claiming`) ---

    def _decode(self, kept: bytes | None) -> Outgoing:
        return Outgoing.decode(kept)

    def _encode(self, state: Outgoing) -> bytes:
        return state.encode()

    def _channel_name(self, state: Outgoing) -> str:
        return "" if state.terms is None else hexed(state.terms.id)

    def _to_ledger(self, account: AccountId, amount: int, carried: int) -> tuple[int, int]:
        return self._converter(account).to_ledger(amount, carried)

    def _is_unsent(self, account: AccountId) -> bool:
        state = self.outgoing(account)
        if state.terms is None or state.signed == 0 or state.phase is Phase.ENDING:
            return False
        return not self._has(account, hexed(state.terms.id), state.signed)

    def _claim(self, account: AccountId) -> Sent:
        state = self.outgoing(account)
        terms = state.terms
        assert terms is not None
        claim = Claim(
            chain_id=self.settings.chain_id,
            contract=self.settings.contract,
            terms=terms,
            amount=state.signed,
            signature=sign(self.domain.claim_digest(terms.id, state.signed), self.key.private),
        )
        return Sent(hexed(terms.id), claim.amount, claim.amount, encode(claim))

    def _check_answer(self, account: AccountId, sent: Sent, answer: bytes | MessageRefusedError) -> None:
        if isinstance(answer, MessageRefusedError):
            raise answer
        accepted = self._answer_of(answer)
        if not isinstance(accepted, Accepted) or accepted.amount < sent.amount:
            raise MessageRefusedError("F00", "the peer answers a claim with something else than its amount")

    def incoming(self, account: AccountId) -> list[Incoming]:
        """This peer's channels to us that are not at their end."""
        return [one for one in self._watched(account) if one.ended is None]

    def _watched(self, account: AccountId) -> list[Incoming]:
        """The same, and those that ended not long ago."""
        kept = self._port.kept(account)
        return [self._records.of(account, key, kept[key]) for key in sorted(kept) if key.startswith(IN)]

    async def open_channel(self, account: AccountId, amount: int) -> bool:
        """Open a channel that holds so much (the ledger's units). False: there is one, or it is under way."""
        if self.outgoing(account).phase is not Phase.NONE or self._has_pending(account, FUNDING):
            return False
        if not 0 < amount <= AMOUNT_MAX:
            raise LedgerError(f"a channel holds 1 to {AMOUNT_MAX} units")
        await self._check_funds(account, amount)  # settlements would wait behind one that can't be opened
        await self._port.step(account, Step(kept=[(WANTED, b"%d" % amount)]))
        self._wake.set()
        return True

    async def _check_funds(self, account: AccountId, amount: int) -> None:
        """LedgerError if our address doesn't hold so much. Fees are for the transaction to find out."""
        head = await self._chain.head()
        token, ours = self.settings.token, self.key.address
        if token == NO_ADDRESS:
            held = await self._chain.balance(ours, head.number)
        else:
            held = await self._chain.token_word(token, tokens.balance_of(ours), head.number)
        if held < amount:
            has, needed = (format_amount(each, self.unit(account)) for each in (held, amount))
            raise LedgerError(f"{checksummed(ours)} has {has}, and {needed} are needed: send it more")

    async def close_channel(self, account: AccountId) -> bool:
        """Begin to end our channel to this peer, with its agreement or without. False: there is none."""
        state = self.outgoing(account)
        if state.phase is not Phase.OPEN:
            return False
        await self._port.step(account, Step(kept=[self._keep(account, replace(state, phase=Phase.ENDING))]))
        self._wake.set()
        return True

    async def add_to_channel(self, account: AccountId, amount: int) -> bool:
        """Put this much (the ledger's units) into our channel. False: none is open, or funds are under way."""
        state = self.outgoing(account)
        if state.phase is not Phase.OPEN or self._has_pending(account, FUNDING):
            return False
        if self.head is None:
            raise LedgerError("the chain has not been seen yet")
        if not 0 < amount <= AMOUNT_MAX - state.deposited:
            raise LedgerError(f"a channel holds {AMOUNT_MAX} units at most")
        await self._put_in(account, state, amount, self.head)
        return True

    async def redemption_fee(self, account: AccountId) -> int | None:
        """Of one channel, at the fee of the newest block; None for tokens: it is paid in the chain's coin."""
        if self.settings.token != NO_ADDRESS:
            return None
        return self._claim_fee(await self._chain.head())

    def _claim_fee(self, head: Block) -> int:
        return (head.base_fee + self.settings.fees.tip) * CLAIM_GAS

    async def redeem_channels(self, account: AccountId, *, and_end: bool) -> int:
        """Redeem the highest claims of this peer's channels, and end them if wanted. How many transactions began."""
        begun = 0
        for record in self.incoming(account):
            _, newest = await self._state(record.terms)
            rest = min(record.claim, newest.deposited) - newest.claimed
            if newest.is_there and not self._has_pending(account, {"release"}) and (and_end or rest > 0):
                await self._redeem(account, record, purpose="release" if and_end else "claim", urgent=False)
                begun += 1
        return begun

    # --- a turn ---

    async def _turn(self, account: AccountId, head: Block) -> None:
        for record in self._watched(account):
            await self._watch(account, record, head)
        await self._follow(account, head)
        await self._fund(account, head)
        if self._is_unsent(account):
            self._deliver_soon(account)

    async def _state(self, terms: ChannelTerms, head: Block | None = None) -> tuple[ChannelState, ChannelState]:
        """The channel as of a block that is deep enough, and as of the newest."""
        head = head or await self._chain.head()
        deep = head.number - self.settings.confirmations + 1
        newest = await self._chain.channel(self.settings.contract, terms.id, head.number)
        confirmed = NO_CHANNEL if deep < 0 else newest
        if 0 <= deep < head.number:
            confirmed = await self._chain.channel(self.settings.contract, terms.id, deep)
        self._states[terms.id] = (self._now(), confirmed, newest)
        return confirmed, newest

    async def _follow(self, account: AccountId, head: Block) -> None:
        """Our channel to the peer, as the chain has it."""
        state = self.outgoing(account)
        if state.terms is None:
            return
        confirmed, newest = await self._state(state.terms, head)
        state, moved = self._acknowledged(account)
        if confirmed.has_ended:
            after, done = state.ended(confirmed.claimed)
            moved += self._paid(account, done)
            self._outbox.has.pop(account, None)
            await self._port.step(account, Step(moved=moved, kept=[self._keep(account, after), (RAWS, b"")]))
            self._went_through(CLOSE, account)
            return
        state = self.outgoing(account)
        if confirmed.is_there and (confirmed.deposited != state.deposited or state.phase is Phase.OPENING):
            phase = Phase.OPEN if state.phase is Phase.OPENING else state.phase
            due = self._still_due(account, state)
            after = replace(due, deposited=confirmed.deposited, phase=phase).sign_waiting()
            await self._port.step(account, Step(kept=[self._keep(account, after)]))
            state = after
        if max(newest.deposited, confirmed.deposited) < state.deposited and not newest.has_ended:
            await self._restore(account, state)
        if state.phase is Phase.OPEN and confirmed.closing_at not in (0, CLOSED):
            state = replace(self.outgoing(account), phase=Phase.ENDING)
            await self._port.step(account, Step(kept=[self._keep(account, state)]))
        if state.phase is Phase.ENDING and newest.is_there and not self._has_pending(account, ENDINGS):
            await self._end(account, state, newest, head)

    async def _restore(self, account: AccountId, state: Outgoing) -> None:
        """The chain has forgotten the opening or a top-up: the same bytes again, which count once."""
        assert state.terms is not None
        self._tell("warning", "channel_reorganised", account, {"channel": hexed(state.terms.id)})
        for raw in decode_raws(self._port.kept(account).get(RAWS)):
            await self._chain.submit(raw)

    async def _end(self, account: AccountId, state: Outgoing, newest: ChannelState, head: Block) -> None:
        """One step nearer to the end of our channel: with the peer if it agrees, else after the settle delay."""
        terms = state.terms
        assert terms is not None
        if newest.closing_at == 0:
            agreed = await self._ask_to_close(account, state)
            if agreed is not None:
                await self._begin(account, contract.close(terms, agreed.amount, agreed.signature), "close", terms)
            else:
                await self._begin(account, contract.start_close(terms), "start-close", terms)
        elif head.time >= newest.closing_at:
            await self._begin(account, contract.finish(terms), "finish", terms)

    async def _ask_to_close(self, account: AccountId, state: Outgoing) -> Agreed | None:
        """The peer's agreement; None if it gives none, and then it isn't asked again by this process."""
        terms = state.terms
        assert terms is not None
        if terms.id in self._asked_to_close:
            return None
        try:
            answer = await self._ask(account, Close(terms))
        except NotAnsweredYetError:
            raise
        except MessageRefusedError as error:
            self._tell("warning", "close_not_agreed", account, {"reason": str(error)}, until=CLOSE)
            answer = None
        self._asked_to_close.add(terms.id)
        if isinstance(answer, Agreed) and answer.amount <= state.signed:
            digest = self.domain.close_digest(terms.id, answer.amount)
            if signer(digest, answer.signature) == terms.receiver:
                return answer
        return None

    async def _fund(self, account: AccountId, head: Block) -> None:
        """Open our channel or add to it, if that is due."""
        state = self._still_due(account, self.outgoing(account))
        amount = deposit_for(state, deposit=self.policy.deposit, reserve=self.policy.reserve, most=AMOUNT_MAX)
        if state.phase is Phase.NONE:
            amount = max(amount, int(self._port.kept(account).get(WANTED, b"0")))
        if amount > 0 and not self._has_pending(account, FUNDING):
            await self._put_in(account, state, amount, head)

    async def _put_in(self, account: AccountId, state: Outgoing, amount: int, head: Block) -> None:
        terms = state.terms or await self._new_terms(account)
        if terms is None or not await self._may_take(account, amount, head):
            return
        purpose = "top-up" if state.phase is Phase.OPEN else "open"
        data, value = (contract.top_up if purpose == "top-up" else contract.open_channel)(terms, amount)

        def step(one: Pending) -> Step:
            if self._has_pending(account, FUNDING):  # an operator's and a turn's, or two operators'
                raise StepRefusedError(FUNDS_UNDER_WAY)
            before = self._port.kept(account)
            kept = [(RAWS, with_raw(before.get(RAWS), one.raws[0]))]
            if purpose == "open":
                kept.append(self._keep(account, replace(self.outgoing(account), phase=Phase.OPENING, terms=terms)))
            if WANTED in before:
                kept.append((WANTED, b""))
            return Step(kept=kept)

        await self._begin(account, data, purpose, terms, value=value, step=step)

    async def _new_terms(self, account: AccountId) -> ChannelTerms | None:
        hello = self._check_hello(await self._ask(account, self._hello()))
        delay = max(self.policy.settle_delay, hello.settle_delay_min)
        if delay > self.policy.settle_delay_max:
            fields: dict[str, str | int] = {"reason": "the peer asks for a longer settle delay than we allow"}
            self._tell("error", "settle_delay_too_long", account, {**fields, "seconds": delay}, until=TERMS)
            return None
        self._went_through(TERMS, account)
        return ChannelTerms(self.key.address, hello.address, self.settings.token, delay, self._random_bytes(32))

    async def _may_take(self, account: AccountId, amount: int, head: Block) -> bool:
        """Whether the contract may take tokens of ours; if not, allow it. Always so for coins."""
        token = self.settings.token
        if token == NO_ADDRESS:
            return True
        question = tokens.allowance(self.key.address, self.settings.contract)
        if await self._chain.token_word(token, question, head.number) >= amount:
            return True
        if not any(self._has_pending(each, {"approve"}) for each in self._accounts):
            data = tokens.approve(self.settings.contract, tokens.ALLOWANCE_ALL)
            await self._begin(account, data, "approve", None, to=token)
        return False

    async def _begin(
        self,
        account: AccountId,
        data: bytes,
        purpose: str,
        terms: ChannelTerms | None,
        *,
        about: str = "",
        to: str | None = None,
        value: int = 0,
        urgent: bool = False,
        step: Callable[[Pending], Step] = lambda _: Step(),
    ) -> None:
        to = to or self.settings.contract
        call = Call(to=to, value=value, data=data, gas=await self._sender.gas(to, value, data))
        about = about or ("" if terms is None else hexed(terms.id))
        await self._sender.begin(
            self._port, list(self._accounts), account, call, purpose=purpose, about=about, urgent=urgent, step=step
        )
        self._port.log("info", "evm_transaction", {"account": account, "purpose": purpose, "about": about})

    def _has_pending(self, account: AccountId, purposes: frozenset[str] | set[str]) -> bool:
        return any(one.purpose in purposes for one in self._sender.pending(self._port, account))

    async def _transaction_ended(self, account: AccountId, one: Pending, receipt: Receipt | None, step: Step) -> None:
        if receipt is None or not receipt.succeeded:
            reason = "it reverted" if receipt else "its nonce was taken"
            self._tell("error", "transaction_failed", account, {"reason": f"{one.purpose}: {reason}"})
            if one.purpose == "open":
                after, _ = self.outgoing(account).ended(0)
                step.kept += [self._keep(account, after), (RAWS, b"")]
        await self._port.step(account, step)

    # --- what we are paid ---

    async def _answer(self, account: AccountId, message: Message) -> Message:
        if isinstance(message, Hello):
            self._check_hello(message)
            return self._hello()
        if isinstance(message, Claim):
            return await self._take_claim(account, message)
        if isinstance(message, Close):
            return await self._agree_to_close(account, message)
        raise MessageRefusedError("F00", "not a question")

    def _hello(self) -> Hello:
        return Hello(
            chain_id=self.settings.chain_id,
            contract=self.settings.contract,
            token=self.settings.token,
            address=self.key.address,
            settle_delay_min=self.policy.settle_delay_min,
        )

    def answer_now(self, account: AccountId, data: bytes) -> bytes | None:
        """As `PromptEngine.answer_now`: a claim on a channel that was looked at lately."""
        try:
            claim = decode(data)
            known = self._recent(claim) if isinstance(claim, Claim) else None
            if known is None or not isinstance(claim, Claim):
                return None
            self._check_claim(account, claim)
            answer = encode(self._credit_claim(account, claim, *known))
            self._went_through(MESSAGE, account)
            return answer
        except IsthmusError as error:
            raise self._refusal_for(account, error) from None

    async def _take_claim(self, account: AccountId, claim: Claim) -> Accepted:
        self._check_claim(account, claim)
        state = self._recent(claim) or await self._state(claim.terms)
        try:
            return self._credit_claim(account, claim, *state)
        finally:
            if not any(_key(claim) in self._port.kept(each) for each in self._accounts):
                self._states.pop(claim.terms.id, None)  # channels that are nobody's must not fill it

    def _check_claim(self, account: AccountId, claim: Claim) -> None:
        """Raise what is wrong with it, whatever the channel's state."""
        fault = fault_of(
            claim,
            self.domain,
            receiver=self.key.address,
            token=self.settings.token,
            settle_delay_min=self.policy.settle_delay_min,
        )
        if fault is not None:
            raise self._refusal(account, claim, fault)

    def _credit_claim(
        self, account: AccountId, claim: Claim, confirmed: ChannelState, newest: ChannelState
    ) -> Accepted:
        """What is kept is read here, after the last wait: others may have come meanwhile, over other accounts too."""
        key = _key(claim)
        if any(key in self._port.kept(each) for each in self._accounts if each != account):
            raise self._refusal(account, claim, Fault.ELSEWHERE)
        kept = self._port.kept(account)
        if key not in kept and len(self.incoming(account)) >= INCOMING_MAX:
            raise self._refusal(account, claim, Fault.MANY)
        record = self._records.of(account, key, kept[key]) if key in kept else Incoming(terms=claim.terms)
        found = accept(record, claim, confirmed, newest)
        if isinstance(found, Fault):
            raise self._refusal(account, claim, found)
        if found.claim > record.claim:
            growth = found.credited - record.credited
            credit = (growth, self.settings.decimals, "", f"claim on channel {found.name[:18]}…")
            data = found.encode()
            self._port.book(account, Step(credits=[credit], kept=[(key, data)]))
            self._records.put(account, key, data, found)
        return Accepted(found.claim)

    def _refusal(self, account: AccountId, claim: Claim, fault: Fault) -> MessageRefusedError:
        fields = {"reason": fault.value, "channel": hexed(claim.terms.id)}
        if fault not in PASSING:
            self._tell("warning", "claim_refused", account, fields)
        return MessageRefusedError("T00" if fault in PASSING else "F00", fault.value)

    def _recent(self, claim: Claim) -> tuple[ChannelState, ChannelState] | None:
        """The channel's state; None if it must be asked for anew: what we know is old, or can't be all."""
        known = self._states.get(claim.terms.id)
        if known is None:
            return None
        at, confirmed, newest = known
        is_recent = 0 <= self._now() - at < STATE_MS_MAX
        return (confirmed, newest) if is_recent and claim.amount <= min(confirmed.deposited, newest.deposited) else None

    async def _agree_to_close(self, account: AccountId, message: Close) -> Agreed:
        """Sign the end of a channel at what it owes us. From then on it brings us nothing more."""
        key = _key(message)
        kept = self._port.kept(account).get(key)
        if kept is None:
            raise MessageRefusedError("F00", "no claim on this channel has come")
        record = replace(self._records.of(account, key, kept), is_agreed=True)
        await self._port.step(account, Step(kept=[(key, record.encode())]))
        return Agreed(record.claim, sign(self.domain.close_digest(record.terms.id, record.claim), self.key.private))

    async def _watch(self, account: AccountId, record: Incoming, head: Block) -> None:
        """A channel to us: books follow the chain, and claims are redeemed in time."""
        confirmed, newest = await self._state(record.terms, head)
        if confirmed.has_ended:
            self._states.pop(record.terms.id, None)
            self._went_through(record.name, account)
        key = _key(record)
        kept = self._port.kept(account)[key]
        record = self._records.of(account, key, kept)
        step = Step()
        held = covered(record, confirmed, newest)
        if held < record.credited:
            units, amount = self._converter(account).whole_units(record.credited - held)
            record = replace(record, credited=record.credited - amount)
            if units:  # what is less stays in the leftover that counts with what comes next
                step.undone.append((units, f"channel {record.name[:18]}… doesn't hold it any more"))
                fields: dict[str, str | int] = {"channel": record.name, "amount": str(units)}
                self._tell("error", "credit_undone", account, fields)
        elif (again := credited_again(record, confirmed)) > record.credited:
            text = f"channel {record.name[:18]}… holds it"
            step.credits.append((again - record.credited, self.settings.decimals, "", text))
            record = replace(record, credited=again)
        after = record.at(head.number, has_ended=confirmed.has_ended)
        if after is None or after.encode() != kept:
            step.kept += self._kept_of(account, record, after)
            await self._port.step(account, step)
        if not confirmed.has_ended:
            await self._redeem_if_due(account, record, newest, head)

    def _kept_of(self, account: AccountId, record: Incoming, after: Incoming | None) -> list[tuple[bytes, bytes]]:
        """A channel as it is now; once it has ended, without those that ended before too many others."""
        if after is None:
            return [(_key(record), b"")]
        kept = [(_key(record), after.encode())]
        if after.ended is not None:
            ended = [one for one in self._watched(account) if one.ended is not None and one.terms != record.terms]
            ended.sort(key=lambda one: one.ended or 0)
            kept += [(_key(one), b"") for one in ended[: max(0, len(ended) + 1 - ENDED_CHANNELS_MAX)]]
        return kept

    async def _redeem_if_due(self, account: AccountId, record: Incoming, newest: ChannelState, head: Block) -> None:
        fee = self._claim_fee(head) if record.terms.token == NO_ADDRESS else 0
        due = redeem(record, newest, claim_above=self.policy.claim_above, fee=fee)
        urgent = due is Redeem.URGENT
        if not urgent:
            self._went_through(record.name, account)
        if due is Redeem.NO:
            return
        if urgent:
            fields: dict[str, str | int] = {"channel": record.name, "until": newest.closing_at}
            self._tell("warning", "channel_closing", account, fields, until=record.name)
        for one in self._sender.pending(self._port, account):
            if one.purpose in ("claim", "release") and one.about.startswith(record.name):
                if urgent:
                    await self._sender.hurry(self._port, account, one)
                if not urgent or one.about == f"{record.name} {record.claim}":
                    return
        await self._redeem(account, record, purpose="claim", urgent=urgent)

    async def _redeem(self, account: AccountId, record: Incoming, *, purpose: str, urgent: bool) -> None:
        make = contract.claim if purpose == "claim" else contract.release
        data = make(record.terms, record.claim, record.signature or bytes(64))
        about = f"{record.name} {record.claim}"
        await self._begin(account, data, purpose, record.terms, about=about, urgent=urgent)

    # --- what people see ---

    def unfinished(self, account: AccountId) -> Sequence[str]:
        """Channels of either side that are not at their end, and transactions."""
        is_wanted = WANTED in self._port.kept(account)
        incoming = len(self.incoming(account))
        left = left_open(account, self.outgoing(account), is_wanted=is_wanted, incoming=incoming)
        return left + self._transactions_left(account)

    def unit(self, account: AccountId) -> Asset:
        """The coin's or the token's own."""
        return Asset(self._accounts[account].asset.code, self.settings.decimals)

    def channels(self, account: AccountId) -> Sequence[Channel]:
        """Ours first."""
        unit, state, found = self.unit(account), self.outgoing(account), list[Channel]()
        if state.terms is not None:
            found.append(shown.ours(state, state.terms, self._seen(state.terms)[1], unit))
        return found + [shown.theirs(record, *self._seen(record.terms), unit) for record in self.incoming(account)]

    def _seen(self, terms: ChannelTerms) -> tuple[ChannelState, ChannelState]:
        """As it was looked at last: confirmed and newest."""
        _, confirmed, newest = self._states.get(terms.id, (0, NO_CHANNEL, NO_CHANNEL))
        return confirmed, newest

    def describe(self, account: AccountId) -> Mapping[str, str]:
        """Amounts are in the ledger's units."""
        state = self.outgoing(account)
        found = {
            "chain": str(self.settings.chain_id),
            "address": checksummed(self.key.address),
            "height": str(self.head.number) if self.head else "unknown",
            "outgoing": state.phase.value,
            "waiting": str(state.needed),
        }
        found |= self._describe_outgoing(account)
        if state.terms is not None:
            found["outgoing_settle_delay"] = f"{state.terms.settle_delay} s"
        for number, record in enumerate(self.incoming(account), start=1):
            found |= shown.described(f"incoming_{number}", record, *self._seen(record.terms))
        for one in self._sender.pending(self._port, account):
            found[f"transaction_{one.nonce}"] = f"{one.purpose}, {len(one.raws)} offered, {hexed(one.hashes[-1])}"
        return found


def _key(what: Incoming | Claim | Close) -> bytes:
    return IN + what.terms.id.hex().encode()
