"""Payments to us: each is credited once, by its hash, when lnd has it for good.

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
        place = (SETTLED, b"%d" % invoice.settle_index)
        paid = await self._paid_soon(invoice)
        if paid is None:
            await self._port.step(account, Step(kept=[place, (_DUE + invoice.payment_hash, b"1")]))
            self._added.set()
        else:
            await self._book(account, invoice, paid, [place])

    async def watch(self, accounts: Callable[[], Iterable[AccountId]]) -> None:
        """Look at what wasn't final, until the node stops."""
        pause_s = self._retry_s_min
        while True:
            self._added.clear()
            try:
                is_waited_for = any([await self._look(one) for one in list(accounts())])
            except JournalError:
                return
            try:
                async with asyncio.timeout(pause_s if is_waited_for else None):
                    await self._added.wait()
                pause_s = self._retry_s_min
            except TimeoutError:
                pause_s = min(LOOK_S_MAX, pause_s * 2)

    async def _look(self, account: AccountId) -> bool:
        """Whether something still waits."""
        for key in [key for key in self._port.kept(account) if key.startswith(_DUE)]:
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
        invoice = await self._lnd.invoice(key[len(_DUE) :])
        paid = None if invoice is None else await self._paid(invoice)
        if invoice is not None and paid is not None:
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
        if IN + invoice.payment_hash in self._port.kept(account):
            changes.append((IN + invoice.payment_hash, b""))
        credits = [(paid, MSAT_SCALE, name, f"Lightning payment {name}")] if paid else []
        await self._port.step(account, Step(credits=credits, kept=changes))
