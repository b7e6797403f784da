"""Lightning as a ledger (design, "Settlement"): invoices asked for over the link, or keysends to a node that was told.

Outgoing: the payment hash is journaled before lnd hears of the payment, and followed to its end through restarts of
lnd, of us, of both. lnd pays a hash once. Another hash is taken for the same settlement only when lnd says that the
one before has failed, or never began, and its invoice has expired.
Incoming: what lnd says is settled is credited once, by its hash, with the place in lnd's order in the same entry.
"""

import asyncio
import hmac
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from typing import Final, TypeAlias, TypeVar, final

from isthmus.connector.events import AccountId
from isthmus.connector.settling import CONFIRMED, TAKEN
from isthmus.errors import CodecError, ConfigError, JournalError, LedgerError
from isthmus.ilp.asset import Asset
from isthmus.ledgers.lightning.lnd import (
    FAILED,
    IN_FLIGHT,
    SUCCEEDED,
    UNKNOWN,
    ChannelSeen,
    Invoice,
    Lnd,
    Payment,
    RefusedError,
    said,
)
from isthmus.settlement.causes import Causes
from isthmus.settlement.channels import BOTH, Channel
from isthmus.settlement.lightning.incoming import GRACE_S, IN, INVOICE_S, SETTLED, Incoming
from isthmus.settlement.lightning.messages import (
    InvoiceAsked,
    KeysendAsked,
    Outgoing,
    decode_invoice,
    decode_keysend,
    decode_outgoing,
    decode_question,
    encode_invoice,
    encode_keysend,
    encode_question,
    msat_of,
)
from isthmus.settlement.port import MessageRefusedError, Port, SettlingAccount, Step, StepRefusedError

# Less than this is left of an invoice: another one is asked for.
INVOICE_LEFT_S_MIN: Final = 120
# Invoices of earlier tries that have expired, one after the other.
ATTEMPTS_IN_ROW_MAX: Final = 16
# Invoices of ours that a peer has not paid, for one account; beyond it none is made.
INVOICES_MAX: Final = 256
# The custom record that says whose keysend it is.
TAG_RECORD: Final = 0x69_73_74_68
TAG_BYTES: Final = 16
RETRY_S_MIN: Final = 1.0
RETRY_S_MAX: Final = 600.0
# A payment that is in flight for so long is told as an alarm, each time.
SLOW_S: Final = 900
# So long an HTLC lives with usual fees and routes; what is in flight still is for an operator to look at.
STUCK_S: Final = 3 * 86_400
# A subscription of invoices that is there for so long hears them.
HEARD_S: Final = 10.0
# How often lnd is asked for its channels, which are only shown.
CHANNELS_S: Final = 30
SATOSHI_SCALE: Final = 8
SHOWN_MAX: Final = 8  # payments under way

Payments: TypeAlias = AsyncIterator[Payment]
_T = TypeVar("_T")
_U = TypeVar("_U")

_OUT: Final = b"out "
_SEED: Final = b"seed"


@final
class LightningEngine:
    """Implements `settlement.port.Engine`. `now_s` is the wall clock, `random_bytes` makes secrets."""

    def __init__(
        self,
        lnd: Lnd,
        *,
        uses_keysend: bool,
        fee_ppm_max: int,
        fee_msat_min: int,
        now_s: Callable[[], int],
        random_bytes: Callable[[int], bytes],
        retry_s_min: float = RETRY_S_MIN,
    ) -> None:
        self._lnd: Final = lnd
        self._uses_keysend: Final = uses_keysend
        self._fee_ppm_max: Final = fee_ppm_max
        self._fee_msat_min: Final = fee_msat_min
        self._now_s: Final = now_s
        self._random_bytes: Final = random_bytes
        self._retry_s_min: Final = retry_s_min
        self._port: Port
        self._incoming: Incoming
        self._accounts: Final[dict[AccountId, SettlingAccount]] = {}
        self._following: Final[dict[tuple[AccountId, int], asyncio.Task[None]]] = {}
        self._watches: Final[list[asyncio.Task[None]]] = []
        self._seen: Sequence[ChannelSeen] = ()
        self._asking: Final[dict[AccountId, asyncio.Lock]] = {}
        self._causes: Final = Causes()
        self._node = ""
        self._problem = ""

    # --- life -------------------------------------------------------------------------------------------------------

    async def start(self, port: Port, accounts: Sequence[SettlingAccount]) -> None:
        self._port = port
        self._incoming = Incoming(port, self._lnd, self._owner_of, now_s=self._now_s, retry_s_min=self._retry_s_min)
        self._lnd.check()
        await self.accounts_changed(accounts)
        for one in accounts:
            for key in port.kept(one.id):
                if key.startswith(_OUT):
                    self._follow(one.id, int(key[len(_OUT) :]))
        self._watches.extend(
            asyncio.create_task(one()) for one in (self._watch_incoming, self._watch_ends, self._watch_channels)
        )

    async def accounts_changed(self, accounts: Sequence[SettlingAccount]) -> None:
        for one in accounts:
            if one.asset.code != "BTC":
                key = f"accounts.{one.id}.settlement.engine"
                raise ConfigError(key, f"the account counts in {one.asset.code}", "Lightning moves BTC only")
        self._accounts.clear()
        self._accounts.update({one.id: one for one in accounts})

    async def close(self) -> None:
        tasks = [*self._following.values(), *self._watches]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._lnd.close()

    def unfinished(self, account: AccountId) -> Sequence[str]:
        """Payments that lnd may still make, and invoices of ours that can still be paid."""
        kept = self._port.kept(account)
        left: list[str] = []
        if any(key.startswith(_OUT) for key in kept):
            left.append("payments to it are under way: wait")
        if waiting := self._incoming.waiting(account):
            left.append(f"{waiting} payments of the peer's have not ended: wait until its lnd and ours are connected")
        until = [int(value) for key, value in kept.items() if key.startswith(IN)]
        left_s = max(until, default=0) - self._now_s()
        if left_s >= 0:
            left.append(f"{len(until)} invoices of ours can still be paid: wait {left_s // 60 + 1} minutes")
        return left

    def link_up(self, account: AccountId) -> None:
        """Nothing is said of itself: who pays asks for an invoice, and `pay` comes again."""

    def describe(self, account: AccountId) -> Mapping[str, str]:
        kept = self._port.kept(account)
        numbers = sorted(int(key[len(_OUT) :]) for key in kept if key.startswith(_OUT))
        under_way = {f"payment of settlement {one}": self._described(account, one) for one in numbers[:SHOWN_MAX]}
        return {
            "node": self._node or "not known yet",
            "payments under way": str(len(numbers)),
            **under_way,
            "invoices not paid": str(sum(1 for key in kept if key.startswith(IN))),
            "ends of HTLCs": self._incoming.described(),
            "payments to us not ended": str(self._incoming.waiting(account)),
            "problem": self._problem or "none",
        }

    def _described(self, account: AccountId, number: int) -> str:
        name = decode_outgoing(self._port.kept(account)[_place(number)]).payment_hash.hex()
        age_s = self._age_s(account, number)
        return f"{name}, " + ("reversed, and lnd may still pay it" if age_s is None else f"begun {_as_time(age_s)} ago")

    # --- channels ---------------------------------------------------------------------------------------------------

    async def _watch_channels(self) -> None:
        while True:
            with suppress(LedgerError):  # it is told by whoever pays
                await self._look()
            await asyncio.sleep(CHANNELS_S)

    async def _look(self) -> None:
        self._seen = await self._lnd.channels()

    def unit(self, account: AccountId) -> Asset:
        return Asset("BTC", SATOSHI_SCALE)

    def channels(self, account: AccountId) -> Sequence[Channel]:
        """Those with the peer's node if it is configured, else all of our lnd's: each may carry a part of a payment."""
        node = self._accounts[account].settings.get("node", "")
        return [
            Channel(
                id=one.point,
                direction=BOTH,
                state=one.state,
                unit=self.unit(account),
                capacity=one.capacity,
                can_send=one.local,
                can_receive=one.remote,
                text=f"with {one.node[:16]}…",
            )
            for one in self._seen
            if not node or one.node == node
        ]

    async def open_channel(self, account: AccountId, amount: int) -> bool:
        await self._lnd.open_channel(self._configured_node(account), amount)
        await self._look()
        return True

    async def add_to_channel(self, account: AccountId, amount: int) -> bool:
        raise LedgerError("nothing can be added to a Lightning channel: open another one beside it")

    async def close_channel(self, account: AccountId) -> bool:
        """Those that are open with the peer's node, with its agreement."""
        node = self._configured_node(account)
        await self._look()
        closing = [one.point for one in self._seen if one.node == node and one.state == "open"]
        for point in closing:
            await self._lnd.close_channel(point)
        await self._look()
        return bool(closing)

    async def redemption_fee(self, account: AccountId) -> int | None:
        return 0

    async def redeem_channels(self, account: AccountId, *, and_end: bool) -> int:
        """What Lightning channels hold is ours at any time."""
        return 0

    def _configured_node(self, account: AccountId) -> str:
        node = self._accounts[account].settings.get("node", "")
        if not node:
            raise LedgerError(f"the peer's node isn't configured: set accounts.{account}.settlement.node")
        return node

    # --- outgoing ---------------------------------------------------------------------------------------------------

    async def pay(self, account: AccountId, number: int, amount: int, key: bytes) -> None:
        """Raises LedgerError or MessageRefusedError while nothing is journaled: then it is tried again."""
        if _place(number) in self._port.kept(account):
            self._follow(account, number)
            return
        found = await self._prepare(account, amount, key, 0)
        taken = Step(moved=[(number, TAKEN, "")], kept=[(_place(number), found.encode())])
        try:
            await self._port.step(account, taken)
        except asyncio.CancelledError:  # it is booked all the same, and nobody asks for it again
            self._follow(account, number)
            raise
        self._follow(account, number, is_fresh=True)

    async def _prepare(self, account: AccountId, amount: int, key: bytes, attempt: int) -> Outgoing:
        """Who is to be paid by which hash. Nothing has been sent anywhere."""
        scale = self._accounts[account].asset.scale
        msat = msat_of(amount, scale)
        if msat is None:
            raise LedgerError(f"{amount} at scale {scale} has a fraction of a millisatoshi: set ledger_scale = 11")
        fee = max(self._fee_msat_min, msat * self._fee_ppm_max // 1_000_000)
        if self._uses_keysend:
            return await self._prepare_keysend(account, msat, fee, attempt)
        for another in range(attempt, attempt + ATTEMPTS_IN_ROW_MAX):
            question = encode_question(InvoiceAsked(key, another, msat))
            answer, _ = await _both(self._port.message(account, question), self._check_liquidity(msat))
            try:
                request = decode_invoice(answer)
            except CodecError as error:
                raise LedgerError(f"the peer's engine gave no invoice: {error}") from None
            invoice = await self._lnd.decode(request)
            if invoice.expires_at_s - self._now_s() < INVOICE_LEFT_S_MIN:
                continue  # of a try before, from which nothing was sent
            self._check_invoice(account, invoice, msat)
            await self._check_route(invoice, fee)
            return Outgoing(invoice.payment_hash, msat, fee, another, request, expires_at_s=invoice.expires_at_s)
        raise LedgerError("the peer's invoices have expired, or are about to: clocks may be wrong")

    def _check_invoice(self, account: AccountId, invoice: Invoice, msat: int) -> None:
        expected = self._accounts[account].settings.get("node", "")
        if invoice.amount_msat != msat:
            raise LedgerError(f"the peer's invoice is of {invoice.amount_msat} msat, not of {msat}")
        if expected and invoice.payee != expected:
            raise LedgerError("the peer's invoice pays another node than the one configured")

    async def _check_liquidity(self, msat: int) -> None:
        outbound = await self._lnd.outbound_msat()
        if outbound < msat:
            raise LedgerError(f"our channels could send {outbound} msat, and {msat} are due: open or fill one")

    async def _check_route(self, invoice: Invoice, fee: int) -> None:
        """What can't be routed is not tried blindly."""
        cost = await self._lnd.routing_fee_msat(invoice)
        if cost is None:
            raise LedgerError("no route to the peer's node has the liquidity now")
        if cost > fee:
            raise LedgerError(f"the cheapest route would cost {cost} msat, and the limit is {fee}")

    async def _prepare_keysend(self, account: AccountId, msat: int, fee: int, attempt: int) -> Outgoing:
        question = encode_question(KeysendAsked())
        answer, _ = await _both(self._port.message(account, question), self._check_liquidity(msat))
        try:
            node, tag = decode_keysend(answer)
        except CodecError as error:
            raise LedgerError(f"the peer's engine doesn't say where to send: {error}") from None
        expected = self._accounts[account].settings.get("node", "")
        if expected and node != expected:
            raise LedgerError("the peer names another node than the one configured")
        preimage = self._random_bytes(32)
        payment_hash = sha256(preimage).digest()
        return Outgoing(payment_hash, msat, fee, attempt, payee=node, tag=tag, preimage=preimage)

    def _follow(self, account: AccountId, number: int, *, is_fresh: bool = False) -> None:
        """`is_fresh`: lnd has never heard of it, and needn't be asked before it is told."""
        running = self._following.get((account, number))
        if running is None or running.done():
            self._following[account, number] = asyncio.create_task(self._to_its_end(account, number, is_fresh=is_fresh))

    async def _to_its_end(self, account: AccountId, number: int, *, is_fresh: bool) -> None:
        """Until the settlement is confirmed, or the operator has reversed it."""
        pause_s = self._retry_s_min
        while True:
            try:
                is_first, is_fresh = is_fresh, False
                if await self._try_once(account, number, is_fresh=is_first):
                    self._following.pop((account, number), None)
                    self._over(account, number)
                    return
                pause_s = self._retry_s_min
            except StepRefusedError as refused:
                self._tell("error", "lightning_payment_not_booked", account, number, str(refused), lasts=True)
            except JournalError:
                return  # the node stops
            except Exception as error:  # noqa: BLE001 - also of an answer that no lnd gives: it must still be followed
                self._problem = said(error)
                self._tell("warning", "lightning_payment_waits", account, number, self._problem, lasts=True)
            await asyncio.sleep(pause_s)
            pause_s = min(RETRY_S_MAX, pause_s * 2)

    async def _try_once(self, account: AccountId, number: int, *, is_fresh: bool) -> bool:
        """Look what lnd knows of the payment, and take it one step further. True at its end."""
        kept = self._port.kept(account).get(_place(number))
        if kept is None:
            return True
        found = decode_outgoing(kept)
        payment = Payment(UNKNOWN)
        if not is_fresh:
            await self._port.step(account, Step())  # `pay` may have been cancelled while this was not durable yet
            payment = await self._last(self._lnd.track(found.payment_hash), account, number)
        settlement = next((one for one in self._port.open(account) if one.number == number), None)
        if settlement is None and payment.status in (FAILED, UNKNOWN):
            # The operator has reversed it: nothing more is sent, and what lnd has ended is forgotten.
            await self._port.step(account, Step(kept=[(_place(number), b"")]))
            return True
        if payment.status in (FAILED, UNKNOWN) and settlement is not None:
            if self._is_over(found):
                await self._take_another(account, number, settlement.amount, settlement.key, found)
                return False
            payment = await self._last(self._send(found), account, number)
        if payment.status == SUCCEEDED:
            await self._confirm(account, number, found, payment, is_open=settlement is not None)
            self._problem = ""
            return True
        if payment.status == FAILED:
            raise LedgerError(f"lnd could not pay: {payment.why}")
        return False

    async def _confirm(
        self, account: AccountId, number: int, found: Outgoing, payment: Payment, *, is_open: bool
    ) -> None:
        text = f"Lightning payment {found.payment_hash.hex()}, {payment.fee_msat} msat in fees"
        moved = [(number, CONFIRMED, text)] if is_open else []
        await self._port.step(account, Step(moved=moved, kept=[(_place(number), b"")]))
        if not is_open:
            problem = f"{text}: it was paid, and is owed again"
            self._tell("error", "settlement_paid_and_reversed", account, number, problem)

    def _tell(
        self, level: str, event: str, account: AccountId, number: int, problem: str, *, lasts: bool = False
    ) -> None:
        """`lasts`: until the payment has come to its end."""
        if lasts:
            self._causes.add(str(number), account, event)
        self._port.log(level, event, {"account": account, "number": number, "problem": problem})

    def _over(self, account: AccountId, number: int) -> None:
        for event in self._causes.end(str(number), account):
            self._port.over(event, account)

    def _is_over(self, found: Outgoing) -> bool:
        """Whether this hash can't be paid any more: its invoice has expired. A keysend's hash is good for ever."""
        return bool(found.request) and self._now_s() > found.expires_at_s + GRACE_S

    async def _take_another(self, account: AccountId, number: int, amount: int, key: bytes, before: Outgoing) -> None:
        """Another invoice for the same settlement: lnd has ended the payment before, whose invoice nobody can pay."""
        found = await self._prepare(account, amount, key, before.attempt + 1)
        await self._port.step(account, Step(kept=[(_place(number), found.encode())]))

    def _send(self, found: Outgoing) -> Payments:
        if found.request:
            return self._lnd.pay(found.request, found.fee_msat_max)
        records = {TAG_RECORD: found.tag}
        return self._lnd.keysend(
            found.payee, found.msat, found.preimage, found.payment_hash, records, found.fee_msat_max
        )

    async def _last(self, payments: Payments, account: AccountId, number: int) -> Payment:
        """The end of what lnd tells of a payment; as long as it takes, with an alarm each quarter of an hour."""
        waiting = asyncio.ensure_future(_end_of(payments))
        try:
            while True:
                done, _ = await asyncio.wait({waiting}, timeout=SLOW_S)
                if done:
                    return waiting.result()
                self._tell_slow(account, number)
        finally:
            if not waiting.done():
                waiting.cancel()
                with suppress(asyncio.CancelledError, LedgerError):
                    await waiting

    def _tell_slow(self, account: AccountId, number: int) -> None:
        """Lnd knows no outcome. What the operator can do depends on how long that is so, through all processes."""
        kept = self._port.kept(account).get(_place(number))
        age_s = self._age_s(account, number)
        if kept is None or age_s is None:
            return
        name, age = decode_outgoing(kept).payment_hash.hex(), _as_time(age_s)
        if age_s < STUCK_S:
            problem = f"lnd has {name} in flight for {age}; it ends when its HTLC times out, so wait"
            self._tell("warning", "lightning_payment_slow", account, number, problem, lasts=True)
            return
        problem = (
            f"lnd has {name} in flight for {age}, more than an HTLC lives: if `lncli listchannels` has none of it, and"
            f" the peer has no such payment, isthmus settlements reverse {account} {number} --certain"
        )
        self._tell("error", "lightning_payment_stuck", account, number, problem, lasts=True)

    def _age_s(self, account: AccountId, number: int) -> int | None:
        """Since the settlement was begun; None if it isn't open any more."""
        begun = (one.begun_at for one in self._port.open(account) if one.number == number)
        return next((max(0, self._now_s() - at // 1_000) for at in begun), None)

    # --- incoming ---------------------------------------------------------------------------------------------------

    async def take_message(self, account: AccountId, data: bytes) -> bytes:
        try:
            question = decode_question(data)
        except CodecError as error:
            raise MessageRefusedError("F01", f"the Lightning engine doesn't understand it: {error}") from None
        try:
            if not self._node:
                self._node = await self._lnd.identity()
            async with self._asking.setdefault(account, asyncio.Lock()):
                if isinstance(question, KeysendAsked):
                    return encode_keysend(self._node, self._tag(account, await self._seed(account)))
                return encode_invoice(await self._invoice(account, question))
        except LedgerError as error:
            self._problem = str(error)
            raise MessageRefusedError("T00", "our lnd can't be asked now") from None

    async def _seed(self, account: AccountId) -> bytes:
        """A secret for this account, from which its preimages come: so a question that comes again has one answer."""
        found = self._port.kept(account).get(_SEED)
        if found is None:
            found = self._random_bytes(32)
            await self._port.step(account, Step(kept=[(_SEED, found)]))
        return found

    def _tag(self, account: AccountId, seed: bytes) -> bytes:
        return hmac.digest(seed, b"tag " + account.encode(), "sha256")[:TAG_BYTES]

    async def _invoice(self, account: AccountId, asked: InvoiceAsked) -> str:
        seed = await self._seed(account)
        name = b"%s %d %d" % (asked.key.hex().encode(), asked.attempt, asked.msat)
        preimage = hmac.digest(seed, b"invoice " + name, "sha256")
        payment_hash = sha256(preimage).digest()
        kept = self._port.kept(account)
        place = IN + payment_hash
        found = await self._lnd.invoice(payment_hash)
        if found is not None and found.is_settled:  # and so is never kept anew: what is kept is credited once more
            raise MessageRefusedError("F00", "this settlement was paid already")
        if place not in kept:
            await self._forget_old(account)
            if sum(1 for key in self._port.kept(account) if key.startswith(IN)) >= INVOICES_MAX:
                raise MessageRefusedError("T03", f"{INVOICES_MAX} invoices are not paid yet")
            until = self._now_s() + INVOICE_S + GRACE_S
            await self._port.step(account, Step(kept=[(place, b"%d" % until)]))
        if found is None:
            found = await self._lnd.add_invoice(asked.msat, preimage, "settlement", INVOICE_S)
        return found.request

    async def _forget_old(self, account: AccountId) -> None:
        """Invoices that have expired unpaid, by lnd's own word."""
        now = self._now_s()
        gone: list[tuple[bytes, bytes]] = []
        for key, until in self._port.kept(account).items():
            if key.startswith(IN) and int(until) < now:
                found = await self._lnd.invoice(key[len(IN) :])
                if found is None or not found.is_settled:
                    gone.append((key, b""))
        if gone:
            await self._port.step(account, Step(kept=gone))

    async def _watch_incoming(self) -> None:
        pause_s = self._retry_s_min
        while True:
            try:
                about = await self._lnd.about()
                self._node = about.node
                self._incoming.begin(keeps_ends=about.keeps_ends)
                # The stream says nothing as it begins: one that is there for a while is taken for one that hears.
                heard = asyncio.get_running_loop().call_later(HEARD_S, self._port.over, "lightning_not_heard")
                places = [int(self._port.kept(one).get(SETTLED, b"0")) for one in self._accounts]
                try:
                    async for invoice in self._lnd.settled(max(places, default=0)):
                        pause_s = self._retry_s_min
                        await self._incoming.heard(invoice)
                finally:
                    heard.cancel()
                problem = "lnd has ended the subscription of invoices"
            except JournalError:
                return  # the node stops
            except Exception as error:  # noqa: BLE001 - also of an answer that no lnd gives: it must still be heard
                problem = said(error)
            self._problem = problem
            self._port.log("warning", "lightning_not_heard", {"problem": f"{problem}; again in {pause_s:.0f} s"})
            await asyncio.sleep(pause_s)
            pause_s = min(RETRY_S_MAX, pause_s * 2)

    async def _watch_ends(self) -> None:
        await self._incoming.watch(lambda: self._accounts)

    def _owner_of(self, invoice: Invoice) -> AccountId | None:
        tag = (invoice.records or {}).get(TAG_RECORD, b"") if invoice.is_keysend else b""
        for account in self._accounts:
            kept = self._port.kept(account)
            if IN + invoice.payment_hash in kept:
                return account
            seed = kept.get(_SEED)
            if tag and seed is not None and hmac.compare_digest(tag, self._tag(account, seed)):
                return account
        return None


def _as_time(seconds: int) -> str:
    """For people."""
    hours = seconds // 3_600
    return f"{hours // 24} days" if hours >= 48 else f"{hours} hours" if hours else f"{seconds // 60} minutes"


def _place(number: int) -> bytes:
    return _OUT + b"%d" % number


async def _both(one: Awaitable[_T], other: Awaitable[_U]) -> tuple[_T, _U]:
    """Side by side, and both to their end before the first error is raised: nothing goes on that nobody waits for."""
    found, beside = await asyncio.gather(one, other, return_exceptions=True)
    if isinstance(found, BaseException):
        raise found
    if isinstance(beside, BaseException):
        raise beside
    return found, beside


async def _end_of(payments: Payments) -> Payment:
    last = Payment(IN_FLIGHT)
    try:
        async for payment in payments:
            last = payment
            if payment.status != IN_FLIGHT:
                break
    except RefusedError as refused:
        if "already paid" in str(refused) or "in transition" in str(refused) or "in flight" in str(refused):
            return Payment(IN_FLIGHT)  # by an earlier call: it is to be tracked
        raise
    return last
