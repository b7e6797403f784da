"""Payments to us: each is credited once, when lnd has it for good.

An invoice by what is kept of it, which leaves with the step that credits it; a keysend by its place in lnd's order
of what was paid. An lnd that was recovered from its seed begins that order anew, and tells nothing of it until it is
beyond our place: so invoices that can be paid are looked up too, now and then.

lnd has an invoice as settled a moment before the payment's HTLCs are. One that is killed in between may fail them as it
starts again, and then nothing has come. So, where lnd keeps how HTLCs ended (`--store-final-htlc-resolutions`), what
has been paid is credited when each of them has ended, and what they brought; else what the invoice says, at once.
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import Final, final

from isthmus.connector.events import AccountId
from isthmus.errors import JournalError, LedgerError
from isthmus.ledgers.lightning.lnd import Invoice, Lnd, said
from isthmus.settlement.lightning.messages import MSAT_SCALE
from isthmus.settlement.port import Port, Step

# HTLCs end some milliseconds after their invoice is settled, where both sides are up.
END_WAIT_S: Final = 0.5
END_POLL_S: Final = 0.01
# lnd knows nothing of HTLCs that ended before it was told to keep that: so long after it, its invoice's word is taken.
UNKNOWN_S: Final = 3_600
LOOK_S_MAX: Final = 60.0
INVOICE_S: Final = 3_600
# After an invoice's expiry lnd may still hold a part of its payment; nothing is given up before.
GRACE_S: Final = 300
# An invoice is looked up from so long after it was made: of those that are paid lnd tells by itself.
LOOKED_UP_S: Final = 60

IN: Final = b"in "  # by hash: an invoice of ours that may be paid, and until when it is kept
SETTLED: Final = b"settled"  # the place in lnd's order up to which all is booked
_DUE: Final = b"due "  # by hash: settled, its HTLCs not ended yet


@final
class Incoming:
    """Of one engine. What is not final yet is kept, and looked at until it is."""

    def __init__(
        self,
        port: Port,
        lnd: Lnd,
        owner_of: Callable[[Invoice], AccountId | None],
        *,
        now_s: Callable[[], int],
        retry_s_min: float,
    ) -> None:
        self._port: Final = port
        self._lnd: Final = lnd
        self._owner_of: Final = owner_of
        self._now_s: Final = now_s
        self._retry_s_min: Final = retry_s_min
        self._keeps_ends: bool | None = None  # not asked yet
        self._added: Final = asyncio.Event()

    def described(self) -> str:
        """Whether lnd keeps how HTLCs ended."""
        if self._keeps_ends is None:
            return "not known yet"
        return "kept by lnd" if self._keeps_ends else "not kept: start lnd with --store-final-htlc-resolutions"

    def waiting(self, account: AccountId) -> int:
        """How many payments lnd has as settled, and whose HTLCs have not ended yet."""
        return sum(1 for key in self._port.kept(account) if key.startswith(_DUE))

    def begin(self, *, keeps_ends: bool) -> None:
        """Our lnd is there, perhaps with other settings than before."""
        self._keeps_ends = keeps_ends

    async def heard(self, invoice: Invoice) -> None:
        """Our lnd has this as settled. One at a time: so the place that is kept says what is booked."""
        account = self._owner_of(invoice)
        if account is None:
            return  # another business of this lnd's
        of_invoice = IN + invoice.payment_hash
        by = of_invoice if of_invoice in self._port.kept(account) else b""
        if not by and invoice.settle_index <= self._place(account):
            return
        paid = await self._paid_soon(invoice)
        place = (SETTLED, b"%d" % max(invoice.settle_index, self._place(account)))
        if by and by not in self._port.kept(account):  # it was looked up meanwhile
            await self._port.step(account, Step(kept=[place]))
        elif paid is None:
            await self._port.step(account, Step(kept=[place, (_DUE + invoice.payment_hash, b"1")]))
            self._added.set()
        else:
            await self._book(account, invoice, paid, [place])

    def _place(self, account: AccountId) -> int:
        return int(self._port.kept(account).get(SETTLED, b"0"))

    async def watch(self, accounts: Callable[[], Iterable[AccountId]]) -> None:
        """Look at what wasn't final, and at invoices that lnd may not tell of, until the node stops."""
        pause_s = self._retry_s_min
        while True:
            self._added.clear()
            try:
                is_waited_for = any([await self._look(one) for one in list(accounts())])
            except JournalError:
                return
            try:
                async with asyncio.timeout(pause_s if is_waited_for else LOOK_S_MAX):
                    await self._added.wait()
                pause_s = self._retry_s_min
            except TimeoutError:
                pause_s = min(LOOK_S_MAX, pause_s * 2)

    async def _look(self, account: AccountId) -> bool:
        """Whether something still waits for its end."""
        made_before = self._now_s() - LOOKED_UP_S
        kept = self._port.kept(account)
        old = [key for key in kept if key.startswith(IN) and int(kept[key]) - INVOICE_S - GRACE_S <= made_before]
        for key in [*(key for key in kept if key.startswith(_DUE)), *old]:
            try:
                await self._look_at(account, key)
            except JournalError:
                raise
            except LedgerError:
                break  # whoever hears of invoices tells that lnd is away
            except Exception as error:  # noqa: BLE001 - what the books refuse of one payment keeps no other waiting
                fields = {"account": account, "hash": key[len(_DUE) :].hex(), "problem": said(error)}
                self._port.log("error", "lightning_payment_not_booked", fields)
        return self.waiting(account) > 0

    async def _look_at(self, account: AccountId, key: bytes) -> None:
        payment_hash = key.partition(b" ")[2]
        invoice = await self._lnd.invoice(payment_hash)
        if invoice is None or not invoice.is_settled:
            return
        paid = await self._paid(invoice)
        kept = self._port.kept(account)
        if paid is None or key not in kept or (key.startswith(IN) and _DUE + payment_hash in kept):
            return
        if key.startswith(IN) and invoice.settle_index <= self._place(account):
            problem = (
                "lnd counts what was paid to it anew, as after a recovery from its seed, and tells nothing of it yet"
            )
            fields = {"account": account, "hash": payment_hash.hex(), "problem": problem}
            self._port.log("error", "lightning_order_anew", fields)
        await self._book(account, invoice, paid, [(key, b"")])

    async def _paid_soon(self, invoice: Invoice) -> int | None:
        """As `_paid`, a little later if need be."""
        pause_s, until = END_POLL_S, asyncio.get_running_loop().time() + END_WAIT_S
        while (paid := await self._paid(invoice)) is None and asyncio.get_running_loop().time() < until:
            await asyncio.sleep(pause_s)
            pause_s *= 2
        return paid

    async def _paid(self, invoice: Invoice) -> int | None:
        """What it has brought for good, in millisatoshi; None while that isn't known."""
        if self._keeps_ends is None:
            return None
        if not self._keeps_ends:
            return invoice.paid_msat
        is_old = self._now_s() - invoice.settled_at_s >= UNKNOWN_S
        lost = 0
        for htlc in invoice.htlcs:
            is_paid = await self._lnd.has_settled(htlc)
            if is_paid is None and not is_old:
                return None
            lost += htlc.msat if is_paid is False else 0
        return max(0, invoice.paid_msat - lost)

    async def _book(self, account: AccountId, invoice: Invoice, paid: int, changes: list[tuple[bytes, bytes]]) -> None:
        name = invoice.payment_hash.hex()
        if paid < invoice.paid_msat:
            problem = (
                f"lnd has the invoice as settled with {invoice.paid_msat} msat, and has failed HTLCs of it: "
                f"{paid} msat have come and are credited. The peer's lnd has the payment as failed, if none has"
            )
            fields = {"account": account, "hash": name, "problem": problem}
            self._port.log("error", "lightning_settled_and_not_paid", fields)
        of_invoice = (IN + invoice.payment_hash, b"")
        if of_invoice[0] in self._port.kept(account) and of_invoice not in changes:
            changes.append(of_invoice)
        credits = [(paid, MSAT_SCALE, "", f"Lightning payment {name}")] if paid else []
        await self._port.step(account, Step(credits=credits, kept=changes))
