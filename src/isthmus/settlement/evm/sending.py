"""Sends an engine's transactions and follows each to its end: one key, one sequence of nonces, nothing but the port.

A key belongs to one engine. Were it used elsewhere too, a transaction could lose its nonce; that is seen, and told.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final, TypeAlias, final

from isthmus.connector.events import AccountId
from isthmus.ledgers.evm.chain import Block, Chain, Receipt
from isthmus.ledgers.evm.fees import FeePolicy
from isthmus.ledgers.evm.keys import Key
from isthmus.ledgers.evm.octets import hexed, keccak256
from isthmus.ledgers.evm.transactions import Call, sign_call
from isthmus.settlement.evm.pending import PREFIX, Ended, Pending, ended, with_ended
from isthmus.settlement.port import Port, Step, StepRefusedError
from isthmus.settlement.refusals import Refusals
from isthmus.settlement.remedies import REMEDIES

# What estimates leave open: the state may have changed when the transaction's turn comes.
GAS_PERCENT: Final = 130
# Nodes behind one address are apart by some blocks; after this long what they tell is what is so.
LAG_MS_MAX: Final = 600_000
# Told with the receipt once it is deep enough, or with None when another transaction has taken the nonce for good.
# What the step says besides is up to the engine; the transaction itself leaves with the same step.
Finished: TypeAlias = Callable[[AccountId, Pending, Receipt | None, Step], Awaitable[None]]


@final
class Sender:
    """The transactions of all accounts of an engine."""

    def __init__(
        self, chain: Chain, key: Key, fees: FeePolicy, confirmations: int, now: Callable[[], int], finished: Finished
    ) -> None:
        """`now`: wall ms."""
        self._chain: Final = chain
        self._key: Final = key
        self._fees: Final = fees
        self._confirmations: Final = confirmations
        self._now: Final = now
        self._finished: Final = finished
        self._lock: Final = asyncio.Lock()
        self._floor = (0, 0)  # the nonce after the last one that ended, and when: a node may lag behind that
        self._refusals: Final = Refusals()
        self._displaced: Final[dict[bytes, int]] = {}  # by key: since when another seems to have the nonce (wall ms)
        self._gone: Final[set[bytes]] = set()  # by key: ended ones that the chain doesn't have any more, told once

    def pending(self, port: Port, account: AccountId) -> list[Pending]:
        """In the order of their nonces."""
        kept = port.kept(account)
        return sorted((Pending.decode(kept[key]) for key in kept if key.startswith(PREFIX)), key=lambda one: one.nonce)

    async def gas(self, to: str, value: int, data: bytes) -> int:
        """At most so much for this call. NodeRefusedError if it would fail now."""
        return await self._chain.gas(self._key.address, to, value, data) * GAS_PERCENT // 100

    async def begin(
        self,
        port: Port,
        accounts: list[AccountId],
        account: AccountId,
        call: Call,
        *,
        purpose: str,
        about: str,
        urgent: bool = False,
        step: Callable[[Pending], Step],
    ) -> Pending:
        """Sign, keep by the step that is made for it, submit. StepRefusedError: nothing has happened.

        `accounts`: all of the engine. LedgerError: nothing has happened either; once it is kept, it will be submitted.
        """
        async with self._lock:
            head = await self._chain.head()
            free = await self._chain.transaction_count(self._key.address, head.number)
            ours = [one.nonce + 1 for each in accounts for one in self.pending(port, each)]
            ours += [one.nonce + 1 for each in accounts for one in ended(port.kept(each))]
            fee = self._fees.first(head.base_fee, urgent=urgent)
            floor, ended_at = self._floor
            lagging = [floor] if self._now() - ended_at < LAG_MS_MAX else []
            nonce = max([free, *ours, *lagging])
            signed = sign_call(call, chain_id=self._chain.id, nonce=nonce, fee=fee, secret=self._key.secret)
            one = Pending(
                purpose=purpose,
                about=about,
                nonce=nonce,
                call=call,
                urgent=urgent,
                fee=fee,
                raws=(signed.raw,),
                since=self._now(),
            )
            booked = step(one)
            booked.kept.append((one.key, one.encode()))
            await port.step(account, booked)
            await self._submit(port, account, one)
        return one

    async def look_after(self, port: Port, account: AccountId, head: Block) -> None:
        """See what became of this account's transactions; offer more, submit again, or tell their end."""
        await self._bring_back(port, account, head)
        for one in self.pending(port, account):
            asked = [(raw, await self._chain.receipt(keccak256(raw))) for raw in one.raws]
            found = [(raw, receipt) for raw, receipt in asked if receipt]
            if found:
                self._displaced.pop(one.key, None)
                await self._in_block(port, account, one, *found[0], head)
            elif not await self._is_displaced(port, account, one, head):
                await self._push(port, account, one, head)

    async def _bring_back(self, port: Port, account: AccountId, head: Block) -> None:
        """A reorganisation deeper than the confirmations took some away: the same bytes again, which count once."""
        known = [one for one in ended(port.kept(account)) if one.block <= head.number and one.is_kept(head.number)]
        if not known:
            return
        count = await self._chain.transaction_count(self._key.address, head.number)
        for one in known:
            if one.nonce < count:
                was_gone = one.key in self._gone
                self._gone.discard(one.key)
                if was_gone and not any(each.key in self._gone for each in known):
                    port.over("evm_transaction_reorganised", account)
                continue
            if one.key not in self._gone:
                self._gone.add(one.key)
                fields: dict[str, str | int] = {"account": account, "nonce": one.nonce}
                fields |= {"hash": hexed(keccak256(one.raw)), "remedy": REMEDIES["transaction_reorganised"]}
                port.log("warning", "evm_transaction_reorganised", fields)
            await self._chain.submit(one.raw)

    async def hurry(self, port: Port, account: AccountId, one: Pending) -> None:
        """From here on it is urgent."""
        if not one.urgent:
            urgent = replace(one, urgent=True, since=0)
            await port.step(account, Step(kept=[(one.key, urgent.encode())]))

    async def _in_block(
        self, port: Port, account: AccountId, one: Pending, raw: bytes, receipt: Receipt, head: Block
    ) -> None:
        if head.number - receipt.block + 1 < self._confirmations:
            return
        block = await self._chain.block(receipt.block)
        if block.hash == receipt.block_hash:
            new = Ended(nonce=one.nonce, raw=raw, block=receipt.block)
            await self._end(port, account, one, receipt, with_ended(port.kept(account), new, head.number))

    async def _is_displaced(self, port: Port, account: AccountId, one: Pending, head: Block) -> bool:
        """Whether the nonce was used by something else, so deep in the chain that none of our versions can come."""
        deep = head.number - self._confirmations + 1
        if deep < 0 or await self._chain.transaction_count(self._key.address, deep) <= one.nonce:
            self._displaced.pop(one.key, None)
            return False
        # One of ours may have come into a block just now; then the next turn finds it.
        if not all([await self._chain.is_in_no_block(each) for each in one.hashes]):
            return True
        # The count may come from a node that is ahead of those that know no receipt yet.
        now = self._now()
        since = self._displaced.setdefault(one.key, now)
        if now < since:
            self._displaced[one.key] = now
        if now < since + LAG_MS_MAX:
            return True
        fields: dict[str, str | int] = {"account": account, "purpose": one.purpose, "nonce": one.nonce}
        port.log("error", "evm_nonce_taken", {**fields, "remedy": "use this key nowhere else"})
        await self._end(port, account, one, None, [])
        return True

    async def _end(
        self, port: Port, account: AccountId, one: Pending, receipt: Receipt | None, kept: list[tuple[bytes, bytes]]
    ) -> None:
        self._not_refused(port, account, one)
        self._displaced.pop(one.key, None)
        self._floor = (max(self._floor[0], one.nonce + 1), self._now())
        await self._finished(account, one, receipt, Step(kept=[(one.key, b""), *kept]))

    async def _push(self, port: Port, account: AccountId, one: Pending, head: Block) -> None:
        now = self._now()
        if one.is_stale(now, self._fees.wait_ms):
            fee = self._fees.next(one.fee, head.base_fee, urgent=one.urgent)
            if fee is not None:
                signed = sign_call(one.call, chain_id=self._chain.id, nonce=one.nonce, fee=fee, secret=self._key.secret)
                one = one.version(signed.raw, fee, now=now)
                try:
                    await port.step(account, Step(kept=[(one.key, one.encode())]))
                except StepRefusedError:
                    return
                await self._submit(port, account, one)
                return
        if await self._chain.knows(one.hashes[-1]):
            self._not_refused(port, account, one)
        else:
            await port.step(account, Step())  # `begin` may still wait for the disk with it: it goes nowhere before
            await self._submit(port, account, one)

    async def _submit(self, port: Port, account: AccountId, one: Pending) -> None:
        reason = await self._chain.submit(one.raws[-1])
        if not reason or "already known" in reason:
            self._not_refused(port, account, one)
        elif self._refusals.is_new(one.key, reason):
            fields: dict[str, str | int] = {"account": account, "purpose": one.purpose, "reason": reason}
            fields |= {"hash": hexed(one.hashes[-1]), "remedy": REMEDIES["transaction_refused"]}
            port.log("warning", "evm_transaction_refused", fields)

    def _not_refused(self, port: Port, account: AccountId, one: Pending) -> None:
        """Not any more, if it was."""
        if self._refusals.end(one.key, (each.key for each in self.pending(port, account))):
            port.over("evm_transaction_refused", account)
