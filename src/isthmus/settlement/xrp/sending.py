"""Sends an engine's transactions and follows each to its end: one key, one sequence of numbers, nothing but the port.

A key belongs to one engine. Were it used elsewhere too, a transaction could lose its number; that is seen, and told.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from typing import Final, TypeAlias, final

from isthmus.connector.events import AccountId
from isthmus.errors import LedgerError
from isthmus.ledgers.xrp.network import Applied, Funds, Head, Network
from isthmus.ledgers.xrp.signatures import SigningKey
from isthmus.ledgers.xrp.transactions import Fields, sign_transaction
from isthmus.settlement.port import Port, Step
from isthmus.settlement.refusals import Refusals
from isthmus.settlement.remedies import REMEDIES
from isthmus.settlement.xrp.pending import PREFIX, Pending
from isthmus.settlement.xrp.settings import LedgerSettings

# Servers queue ten of an account at most.
PENDING_MAX: Final = 8
# Told with what a validated ledger has, or with None when it certainly can't be in one any more. What the step says
# besides is up to the engine; the transaction itself leaves with the same step.
Finished: TypeAlias = Callable[[AccountId, Pending, Applied | None, Step], Awaitable[None]]


class UnderfundedError(LedgerError):
    """The account doesn't hold what the transaction would take; nothing was signed."""


@final
class Sender:
    """The transactions of all accounts of an engine."""

    def __init__(self, network: Network, key: SigningKey, settings: LedgerSettings, finished: Finished) -> None:
        self._network: Final = network
        self._key: Final = key
        self._settings: Final = settings
        self._finished: Final = finished
        self._lock: Final = asyncio.Lock()
        self._floor = 0  # the number after the last one that a validated ledger has, as far as this process has seen
        self._refusals: Final = Refusals()

    def pending(self, port: Port, account: AccountId) -> list[Pending]:
        """In the order of their numbers."""
        kept = port.kept(account)
        found = (Pending.decode(kept[key]) for key in kept if key.startswith(PREFIX))
        return sorted(found, key=lambda one: one.sequence)

    async def fee(self, *, urgent: bool = False) -> int:
        """What we would offer now, in drops."""
        most = self._settings.fee_max_urgent if urgent else self._settings.fee_max
        return min(await self._network.fee(), most)

    async def begin(
        self,
        port: Port,
        accounts: Iterable[AccountId],
        account: AccountId,
        fields: Fields,
        *,
        purpose: str,
        about: str,
        takes: int = 0,
        urgent: bool = False,
        instead_of: Pending | None = None,
        step: Callable[[Pending], Step],
    ) -> Pending:
        """Sign, keep by the step that is made for it, submit. StepRefusedError: nothing has happened.

        `accounts`: all of the engine. `takes`: drops that it takes from us beside the fee (UnderfundedError).
        `instead_of`: one that is certainly dead, and leaves with the same step.
        LedgerError: nothing has happened either. Once it is kept, it will be submitted, whatever this raises.
        """
        async with self._lock:
            head = await self._network.head()
            fee = await self.fee(urgent=urgent)
            funds = await self._funds(head, takes + fee)
            # What was asked for may be older than what was seen to end since: a number is never used twice.
            sequence = max(funds.sequence, self._floor)
            # Now, and not before the wait: what has ended meanwhile has raised the floor.
            pending = [(each, one) for each in accounts for one in self.pending(port, each) if one != instead_of]
            # A number whose transaction died is free for other accounts: who may replace it may wait for its peer long.
            used = {one.sequence for each, one in pending if each == account or not one.is_dead}
            if len(used) >= PENDING_MAX:
                raise LedgerError(f"{PENDING_MAX} transactions of ours are under way")
            # The lowest that is free: one that died must not leave a gap before those that are alive.
            while sequence in used:
                sequence += 1
            last = head.index + self._settings.ledgers_max
            signed = sign_transaction(
                fields, self._key, network_id=self._network.id, sequence=sequence, last_ledger=last, fee=fee
            )
            one = Pending(
                purpose=purpose,
                about=about,
                fields=fields,
                urgent=urgent,
                sequence=sequence,
                fee=fee,
                first=head.index + 1,
                last=last,
                blob=signed.blob.hex(),
            )
            booked = step(one)
            if instead_of is not None:
                booked.kept.append((instead_of.key, b""))
            booked.kept.append((one.key, one.encode()))
            await port.step(account, booked)
            with contextlib.suppress(LedgerError):  # it is submitted again at each look
                await self._submit(port, account, one)
        return one

    async def check_funds(self, takes: int) -> None:
        """UnderfundedError if the account doesn't hold so many drops and the fee."""
        await self._funds(await self._network.head(), takes + await self.fee())

    async def _funds(self, head: Head, needed: int) -> Funds:
        address = self._key.address
        found = await self._network.funds(address, head.index)
        if found is None:
            raise UnderfundedError(f"{address} is not funded yet: the ledger has no such account; send it XRP")
        if found.balance < needed:
            raise UnderfundedError(f"{address} has {found.balance} drops, and {needed} are needed: send it more")
        return found

    async def look_after(self, port: Port, account: AccountId, head: Head) -> None:
        """See what became of this account's transactions: tell their end, or submit the same bytes again."""
        for one in self.pending(port, account):
            if one.is_dead:
                await self._end(port, account, one, None)
                continue
            found = await self._network.transaction(one.hash, first=one.first, last=one.last)
            if isinstance(found, Applied):
                await self._end(port, account, one, found)
            elif head.index < one.last:
                await port.step(account, Step())  # `begin` may still wait for the disk with it: it goes nowhere before
                await self._submit(port, account, one)
            elif await self._is_dead(port, account, one, head, everywhere=found.everywhere):
                dead = replace(one, is_dead=True)
                await port.step(account, Step(kept=[(dead.key, dead.encode())]))
                await self._end(port, account, dead, None)

    async def _is_dead(self, port: Port, account: AccountId, one: Pending, head: Head, *, everywhere: bool) -> bool:
        """Whether it certainly is in no ledger: all that it could be in are validated by now."""
        funds = await self._network.funds(self._key.address, head.index)
        if funds is None or funds.sequence <= one.sequence:
            return True  # nothing of ours with this number was applied
        fields: dict[str, str | int] = {"account": account, "purpose": one.purpose, "sequence": one.sequence}
        if everywhere:
            port.log("error", "xrp_sequence_taken", {**fields, "remedy": "use this key nowhere else"})
            return True
        remedy = f"use a server that has the ledgers {one.first} to {one.last}"
        port.log("error", "xrp_history_missing", {**fields, "hash": one.hash, "remedy": remedy})
        return False

    async def _end(self, port: Port, account: AccountId, one: Pending, found: Applied | None) -> None:
        self._not_refused(port, account, one)
        if found is not None:
            self._floor = max(self._floor, one.sequence + 1)
        await self._finished(account, one, found, Step(kept=[(one.key, b"")]))

    async def _submit(self, port: Port, account: AccountId, one: Pending) -> None:
        reason = await self._network.submit(bytes.fromhex(one.blob))
        if reason and self._refusals.is_new(one.key, reason):
            fields: dict[str, str | int] = {"account": account, "purpose": one.purpose, "reason": reason}
            fields |= {"hash": one.hash, "remedy": REMEDIES["transaction_refused"]}
            port.log("warning", "xrp_transaction_refused", fields)
        elif not reason:
            self._not_refused(port, account, one)

    def _not_refused(self, port: Port, account: AccountId, one: Pending) -> None:
        """Not any more, if it was."""
        if self._refusals.end(one.key, (each.key for each in self.pending(port, account))):
            port.over("xrp_transaction_refused", account)
