"""Settles by plain payments in XRP; incoming ones are found by reading validated ledgers.

A payment is a peer's by its destination tag, or, without one, by a memo that is this number in digits: each account has
a tag of its own, which the peer asks for. Kept are `tag`, `since` (the last ledger whose payments were credited), and
`carried`. What a step credits is all that came up to a ledger, and the same step says up to which: so nothing counts
twice, whatever happens between two steps.
"""

import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Final, final

from isthmus.connector.events import AccountId
from isthmus.connector.settling import CONFIRMED, FAILED, TAKEN
from isthmus.errors import CodecError, LedgerError
from isthmus.ledgers.xrp.hashes import sha512_half
from isthmus.ledgers.xrp.network import Applied, Head
from isthmus.ledgers.xrp.signatures import SigningKey
from isthmus.ledgers.xrp.transactions import DROPS_MAX, XRP_SCALE, payment
from isthmus.settlement.causes import CREDIT
from isthmus.settlement.conversion import carried_of, carry
from isthmus.settlement.port import MessageRefusedError, Step, StepRefusedError
from isthmus.settlement.xrp.details import QUESTION, TAG_MAX, Details, check_question
from isthmus.settlement.xrp.engine import XrpEngine
from isthmus.settlement.xrp.pending import Pending
from isthmus.settlement.xrp.settings import LedgerSettings

TAG: Final = b"tag"
SINCE: Final = b"since"
LEDGERS_AT_ONCE: Final = 512  # read by one question
# After so many ledgers without a payment `since` moves on all the same: so far back must a server's history reach.
KEPT_LEDGERS: Final = 10_000
NAMED_MAX: Final = 3  # transactions that a credit's text names


@final
class PaymentEngine(XrpEngine):
    """An `Engine` (settlement.port) on one network with one key."""

    def __init__(
        self, settings: LedgerSettings, key: SigningKey, *, now: Callable[[], int], random: Callable[[], float]
    ) -> None:
        super().__init__(settings, key, now=now, random=random)
        self._read: Final[dict[AccountId, int]] = {}  # the last ledger that this process has read for each account

    # --- what we pay ---

    async def pay(self, account: AccountId, number: int, amount: int, key: bytes) -> None:
        if not self._is_begun(account, number):
            return
        before = carried_of(self._port.kept(account))
        due, carried = self._converter(account).to_ledger(amount, before)
        if due == 0:
            text = "less than a drop; it is paid with the next"
            await self._port.step(account, Step(moved=[(number, CONFIRMED, text)], kept=[carry(carried)]))
            return
        if due > DROPS_MAX:
            raise LedgerError(f"{due} drops are more than there are")
        # Two payments of one amount must never be the same bytes: one would be taken for both.
        invoice = sha512_half(key).hex().upper()

        def step(_: Pending) -> Step:
            now = (
                carried_of(self._port.kept(account)) + carried - before
            )  # one that failed meanwhile may have changed it
            return Step(moved=[(number, TAKEN, "")], kept=[carry(now)])

        await self._sign(account, number, due, invoice, step)

    async def _sign(
        self,
        account: AccountId,
        number: int,
        due: int,
        invoice: str,
        step: Callable[[Pending], Step],
        *,
        instead_of: Pending | None = None,
    ) -> None:
        to = await self._details(account)
        fields = payment(to.address, due, tag=to.tag, invoice=invoice)
        await self._begin(account, fields, "pay", str(number), takes=due, instead_of=instead_of, step=step)

    async def _details(self, account: AccountId) -> Details:
        """Where the peer wants to be paid, asked each time. MessageRefusedError."""
        configured = self._configured(account)
        if configured is not None and (tag := self._accounts[account].settings.get("peer_tag")) is not None:
            return Details(configured, int(tag))
        try:
            found = Details.decode(await self._ask_peer(account, QUESTION))
        except CodecError as error:
            raise MessageRefusedError("F00", f"the peer doesn't tell where to pay: {error}") from None
        if configured not in (None, found.address):
            raise MessageRefusedError("F00", f"the peer tells {found.address}, not the address agreed on")
        if found.address == self.key.address:
            raise MessageRefusedError("F00", "both of us have the same key")
        return found

    async def _transaction_ended(self, account: AccountId, one: Pending, found: Applied | None, step: Step) -> None:
        number = int(one.about)
        if found is None:
            await self._pay_anew(account, one, number, step)
            return
        if found.succeeded:
            step.moved.append((number, CONFIRMED, ""))
        else:
            step.moved.append((number, FAILED, f"the ledger has it as {found.result} in ledger {found.ledger}"))
            for each in self._port.open(account):
                if each.number == number:
                    amount, carried = int(one.fields["Amount"]), carried_of(self._port.kept(account))
                    step.kept.append(carry(self._converter(account).carried_back(each.amount, amount, carried)))
        try:
            await self._port.step(account, step)
        except StepRefusedError as error:  # an operator has reversed it as certain
            if found.succeeded:
                self._tell("error", "paid_and_reversed", account, {"reason": str(error), "hash": found.hash})
            await self._port.step(account, Step(kept=[(one.key, b"")]))

    async def _pay_anew(self, account: AccountId, one: Pending, number: int, step: Step) -> None:
        """No ledger has taken it, and none can any more."""
        taken = Step(moved=[(number, TAKEN, "")])
        if not any(each.number == number for each in self._port.open(account)):
            await self._port.step(account, step)  # reversed meanwhile
            return
        told = {"account": account, "purpose": one.purpose, "hash": one.hash}
        self._port.log("info", "xrp_transaction_expired", told)
        due, invoice = int(one.fields["Amount"]), str(one.fields["InvoiceID"])
        await self._sign(account, number, due, invoice, lambda _: taken, instead_of=one)

    # --- how we want to be paid ---

    async def _take(self, account: AccountId, data: bytes) -> bytes:
        check_question(data)
        return Details(self.key.address, await self._tag(account)).encode()

    async def _tag(self, account: AccountId) -> int:
        """The account's own; the first question makes it. Payments count from the newest ledger before that on."""
        known = self.tag(account)
        if known is not None:
            return known
        head = await self._network.head()
        used = {self.tag(each) for each in self._accounts}
        if (known := self.tag(account)) is not None:  # another question was faster
            return known
        tag = next(one for one in iter(lambda: secrets.randbelow(TAG_MAX) + 1, 0) if one not in used)
        kept = [(TAG, str(tag).encode()), (SINCE, str(head.index).encode())]
        await self._port.step(account, Step(kept=kept))
        return tag

    def tag(self, account: AccountId) -> int | None:
        """What payments to us for this account are known by; None before anybody asked."""
        found = self._port.kept(account).get(TAG)
        return None if found is None else int(found)

    def _since(self, account: AccountId) -> int | None:
        found = self._port.kept(account).get(SINCE)
        return None if found is None else int(found)

    def _read_up_to(self, account: AccountId) -> int | None:
        """What came up to this ledger is credited; None before anybody asked for a tag."""
        since = self._since(account)
        return None if since is None else max(since, self._read.get(account, 0))

    # --- what we are paid ---

    async def _turn(self, account: AccountId, head: Head) -> None:
        """All is done for all accounts together."""

    async def _look_around(self, head: Head) -> None:
        """Read what was validated since the last look."""
        ends = {each: upto for each in self._accounts if (upto := self._read_up_to(each)) is not None}
        if not ends:
            return
        behind = min(ends, key=ends.__getitem__)
        first = ends[behind] + 1
        # The newest ledger's transactions may not stand in a server's index yet.
        last = min(head.index - 1, first + LEDGERS_AT_ONCE - 1)
        if first > last:
            return
        found = await self._network.transactions(self.key.address, first, last)
        arrived = [one for one in found if one.kind == "Payment" and one.succeeded and self._is_to_us(one)]
        for account in list(self._accounts):
            upto = self._read_up_to(account)
            if upto is None or not first <= upto + 1 <= last:  # it has asked, or has come, since these were read
                continue
            try:
                await self._credit(account, arrived, upto, last)
                self._went_through(CREDIT, account)
            except StepRefusedError as error:  # others are credited; this one again at the next look
                self._tell("warning", "step_refused", account, {"reason": str(error)}, until=CREDIT)
        tags = {self.tag(each) for each in self._accounts}
        for one in arrived:
            if _tag_of(one) is None or _tag_of(one) not in tags:
                self._tell("warning", "unmatched", "", {"reason": _told(one)})
        if last < head.index - 1 and self._read_up_to(behind) != first - 1:
            self._wake.set()  # there is more to read, and nothing is in the way

    def _is_to_us(self, one: Applied) -> bool:
        if one.destination != self.key.address or one.source == self.key.address:
            return False
        if one.delivered is None:
            self._tell("warning", "not_in_xrp", "", {"reason": f"what {one.hash} brought isn't known in drops"})
        return one.delivered is not None

    async def _credit(self, account: AccountId, arrived: list[Applied], before: int, upto: int) -> None:
        """What came for this account after the ledger `before`, and that it is credited up to `upto`: one step."""
        tag, since = self.tag(account), self._since(account)
        assert tag is not None and since is not None, "both are kept together"
        mine = [one for one in arrived if one.ledger > before and _tag_of(one) == tag and self._may_pay(account, one)]
        if mine or upto - since >= KEPT_LEDGERS:
            step = Step(kept=[(SINCE, str(upto).encode())])
            total = sum(one.delivered or 0 for one in mine)
            if total:
                names = ", ".join(one.hash for one in mine[:NAMED_MAX])
                more = f" and {len(mine) - NAMED_MAX} more" if len(mine) > NAMED_MAX else ""
                step.credits.append((total, XRP_SCALE, "", f"payment {names}{more}"))
            await self._port.step(account, step)
        self._read[account] = upto

    def _may_pay(self, account: AccountId, one: Applied) -> bool:
        """Where an address was agreed on, others' payments count for nothing: somebody must look at them."""
        configured = self._configured(account)
        if configured in (None, one.source):
            return True
        self._tell("warning", "stranger_paid", account, {"reason": _told(one)})
        return False

    # --- what people see ---

    def unfinished(self, account: AccountId) -> Sequence[str]:
        """Transactions. What comes with a tag that is forgotten is told in the log, and nobody's."""
        return self._transactions_left(account)

    def _forget(self, account: AccountId) -> None:
        self._read.pop(account, None)

    def describe(self, account: AccountId) -> Mapping[str, str]:
        """Addresses, tags, and what is under way."""
        tag = self.tag(account)
        shown = {
            "network": str(self.settings.network_id),
            "address": self.key.address,
            "tag": "none was asked for yet" if tag is None else str(tag),
            "height": str(self.head.index) if self.head else "unknown",
            "read_up_to": str(self._read_up_to(account) or "unknown"),
        }
        for one in self._sender.pending(self._port, account):
            shown[f"transaction_{one.sequence}"] = f"settlement {one.about}, until ledger {one.last}, {one.hash}"
        return shown


def _told(one: Applied) -> str:
    return f"{one.delivered} drops from {one.source}: {one.hash}"


def _tag_of(one: Applied) -> int | None:
    """The payment's tag; if it has none, a memo that is nothing but digits."""
    if one.tag is not None:
        return one.tag
    for memo in one.memos:
        if 0 < len(memo) <= 10 and memo.isdigit():
            return int(memo)
    return None
