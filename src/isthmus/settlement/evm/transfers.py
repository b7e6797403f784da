"""Settles by plain transfers of the chain's coin or of a token; incoming ones are found by reading blocks.

A transfer is a peer's by the address that it comes from: the peer registers it by a signature for ours, or the
account's `peer_address` names it. Kept are `to` and `from` (the peer's address, to pay and to be paid from), `carried`,
and what `arrivals` keeps.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, final

from isthmus.connector.events import AccountId
from isthmus.connector.settling import CONFIRMED, FAILED, TAKEN
from isthmus.errors import LedgerError
from isthmus.ledgers.evm import tokens
from isthmus.ledgers.evm.chain import Block, Receipt
from isthmus.ledgers.evm.claims import Domain, sign, signer
from isthmus.ledgers.evm.keys import Key
from isthmus.ledgers.evm.octets import NO_ADDRESS, checksummed, hexed
from isthmus.ledgers.evm.rpc import ChainNode, Node
from isthmus.ledgers.evm.transactions import Call
from isthmus.settlement.causes import CREDIT
from isthmus.settlement.conversion import carried_of, carry
from isthmus.settlement.evm import arrivals
from isthmus.settlement.evm.arrivals import UNDO_BLOCKS, Arrival
from isthmus.settlement.evm.engine import EvmEngine
from isthmus.settlement.evm.messages import Hello, Message
from isthmus.settlement.evm.pending import Pending
from isthmus.settlement.evm.settings import ChainSettings
from isthmus.settlement.port import MessageRefusedError, Step, StepRefusedError

TO: Final = b"to"
FROM: Final = b"from"
BLOCKS_MAX: Final = 64  # read in one turn for coins, each a question
LOG_BLOCKS_MAX: Final = 256  # read by one question for a token


@final
class TransferEngine(EvmEngine):
    """An `Engine` (settlement.port) on one chain with one key, for one coin or token."""

    def __init__(
        self,
        settings: ChainSettings,
        key: Key,
        *,
        now: Callable[[], int],
        random: Callable[[], float],
        node_at: Callable[[str], ChainNode] = Node,
    ) -> None:
        super().__init__(settings, key, now=now, random=random, node_at=node_at)
        self.domain: Final = Domain(settings.chain_id, NO_ADDRESS)
        self._scanned: Block | None = None  # the last block that was read
        self._registered: Final[set[AccountId]] = set()  # peers that know our address, as of this process
        self._maybe_new: Final[set[AccountId]] = set()  # of these, those whose link came up since: told once more

    # --- what we pay ---

    async def pay(self, account: AccountId, number: int, amount: int, key: bytes) -> None:
        if not self._is_begun(account, number):
            return
        before = carried_of(self._port.kept(account))
        due, carried = self._converter(account).to_ledger(amount, before)
        if due == 0:
            text = "less than the ledger's unit; it is paid with the next"
            await self._port.step(account, Step(moved=[(number, CONFIRMED, text)], kept=[carry(carried)]))
            return
        to = self.pays_to(account)
        if to is None:
            raise LedgerError("the peer has not told its address yet")
        token = self.settings.token
        value, data = (due, b"") if token == NO_ADDRESS else (0, tokens.transfer(to, due))
        target = to if token == NO_ADDRESS else token
        gas = await self._sender.gas(target, value, data)

        def step(_: Pending) -> Step:
            now = (
                carried_of(self._port.kept(account)) + carried - before
            )  # one that failed meanwhile may have changed it
            return Step(moved=[(number, TAKEN, "")], kept=[carry(now)])

        await self._sender.begin(
            self._port,
            list(self._accounts),
            account,
            Call(to=target, value=value, data=data, gas=gas),
            purpose="pay",
            about=str(number),
            step=step,
        )

    async def _transaction_ended(self, account: AccountId, one: Pending, receipt: Receipt | None, step: Step) -> None:
        number = int(one.about)
        if receipt is None:
            step.moved.append((number, FAILED, "another transaction of our key has taken its nonce"))
        elif not receipt.succeeded:
            step.moved.append((number, FAILED, f"the chain has it as failed in block {receipt.block}"))
        else:
            step.moved.append((number, CONFIRMED, ""))
        found = next((each for each in self._port.open(account) if each.number == number), None)
        if found is None:  # an operator has reversed it as certain
            if receipt is not None and receipt.succeeded:
                fields = {"reason": f"settlement {number}", "hash": hexed(one.hashes[-1])}
                self._tell("error", "paid_and_reversed", account, fields)
            step.moved.clear()
        elif receipt is None or not receipt.succeeded:
            sent = one.call.value or int.from_bytes(one.call.data[-32:], "big")  # coins, or a token's transfer
            carried = self._converter(account).carried_back(found.amount, sent, carried_of(self._port.kept(account)))
            step.kept.append(carry(carried))
        await self._port.step(account, step)

    def pays_to(self, account: AccountId) -> str | None:
        """The peer's address, if we know it and the peer knows ours."""
        configured = self._configured(account)
        if configured is not None:
            return configured
        if account not in self._registered:
            return None
        found = self._port.kept(account).get(TO)
        return None if found is None else found.decode()

    def paid_from(self, account: AccountId) -> str | None:
        """Where this peer's transfers come from."""
        found = self._port.kept(account).get(FROM)
        return self._configured(account) or (None if found is None else found.decode())

    def _configured(self, account: AccountId) -> str | None:
        found = self._accounts[account].settings.get("peer_address")
        return None if found is None else found.lower()

    # --- addresses ---

    def _hello(self, proof: bytes = b"") -> Hello:
        return Hello(
            chain_id=self.settings.chain_id,
            contract=NO_ADDRESS,
            token=self.settings.token,
            address=self.key.address,
            proof=proof,
        )

    async def _answer(self, account: AccountId, message: Message) -> Message:
        if not isinstance(message, Hello):
            raise MessageRefusedError("F00", "this engine makes plain transfers")
        self._check_hello(message)
        if message.proof:
            await self._register(account, message)
        return self._hello()

    async def _register(self, account: AccountId, hello: Hello) -> None:
        """From here on, what comes from this address is this peer's."""
        digest = self.domain.peer_digest(sender=hello.address, receiver=self.key.address)
        if signer(digest, hello.proof) != hello.address:
            raise MessageRefusedError("F00", "the address has not signed that it pays us")
        configured = self._configured(account)
        if configured not in (None, hello.address):
            raise MessageRefusedError("F00", "another address was agreed on")
        owner = next((one for one in self._accounts if self.paid_from(one) == hello.address), account)
        if owner != account:
            fields: dict[str, str | int] = {"address": checksummed(hello.address), "belongs_to": owner}
            self._tell("error", "address_claimed_twice", account, fields)
            raise MessageRefusedError("F00", "the address belongs to another account")
        if self._port.kept(account).get(FROM) != hello.address.encode():
            await self._port.step(account, Step(kept=[(FROM, hello.address.encode())]))

    async def _introduce(self, account: AccountId) -> None:
        """Tell the peer which address we pay from, and learn which to pay to."""
        hello = self._check_hello(await self._ask(account, self._hello()))
        configured = self._configured(account)
        if configured not in (None, hello.address):
            raise MessageRefusedError("F00", f"the peer tells {checksummed(hello.address)}, not the address agreed on")
        digest = self.domain.peer_digest(sender=self.key.address, receiver=hello.address)
        await self._ask(account, self._hello(sign(digest, self.key.private)))
        if self._port.kept(account).get(TO) != hello.address.encode():
            await self._port.step(account, Step(kept=[(TO, hello.address.encode())]))
        self._registered.add(account)
        self._maybe_new.discard(account)

    # --- what we are paid ---

    async def _turn(self, account: AccountId, head: Block) -> None:
        kept = self._port.kept(account)
        if arrivals.since(kept) is None:
            first = max(0, head.number - self.settings.confirmations + 2)
            await self._port.step(account, Step(kept=[(arrivals.SINCE, str(first).encode())]))
        if account not in self._registered or account in self._maybe_new:
            await self._introduce(account)

    async def _look_around(self, head: Block) -> None:
        """Read the blocks that are deep enough by now."""
        deep = head.number - self.settings.confirmations + 1
        firsts = [one for one in (arrivals.since(self._port.kept(each)) for each in self._accounts) if one is not None]
        if deep < 0 or not firsts:
            return
        scanned = self._scanned
        if scanned is None or (await self._chain.block(scanned.number)).hash != scanned.hash:
            if scanned is not None:
                self._tell("warning", "reorganised", "", {"reason": f"at block {scanned.number}"})
            await self._check_records()
            start = min(firsts) if scanned is None else max(min(firsts), scanned.number - UNDO_BLOCKS)
        else:
            start = scanned.number + 1
        size = BLOCKS_MAX if self.settings.token == NO_ADDRESS else LOG_BLOCKS_MAX
        end = min(deep, start + size - 1)
        if start > end:
            return
        await self._read(start, end)
        if end < deep:
            self._wake.set()

    async def _read(self, start: int, end: int) -> None:
        """Credit what these blocks bring; then remember that they were read."""
        last = await self._chain.block(end)
        found = await self._arrivals(start, end)
        refused = False
        owners = self._owners()
        for account in list(self._accounts):
            if account not in self._accounts:
                continue  # it has gone meanwhile
            others = [self._port.kept(each) for each in self._accounts if each != account]
            mine = [
                one
                for one in found
                if owners.get(one.transfer.sender) == account
                and not any(arrivals.is_credited(kept, one) for kept in others)
            ]
            try:
                await self._credit(account, mine, end)
            except StepRefusedError as error:  # others are credited; these blocks are read again at the next look
                refused = True
                self._tell("warning", "step_refused", account, {"reason": str(error)}, until=CREDIT)
            else:
                self._went_through(CREDIT, account)
        if refused:
            return
        for one in found:
            if one.transfer.sender not in owners and one.transfer.sender != self.key.address:
                reason = f"{one.transfer.amount} from {checksummed(one.transfer.sender)}"
                self._tell("warning", "unmatched", "", {"reason": f"{reason} in {hexed(one.transfer.transaction)}"})
        self._scanned = last

    def _owners(self) -> dict[str, AccountId]:
        """Accounts by the addresses that pay them. One that stands in the settings of two is the first one's."""
        owners: dict[str, AccountId] = {}
        for account in self._accounts:
            address = self.paid_from(account)
            if address is not None and (owner := owners.setdefault(address, account)) != account:
                fields: dict[str, str | int] = {"address": checksummed(address), "belongs_to": owner}
                self._tell("error", "address_claimed_twice", account, fields)
        return owners

    async def _arrivals(self, start: int, end: int) -> list[Arrival]:
        if self.settings.token == NO_ADDRESS:
            arrived: list[Arrival] = []
            for number in range(start, end + 1):
                block, coins = await self._chain.coins_to(self.key.address, number)
                arrived += [Arrival(transfer=one, block_hash=block.hash) for one in coins]
            return arrived
        found = await self._chain.tokens_to(self.settings.token, self.key.address, start, end)
        hashes = {one.block: (await self._chain.block(one.block)).hash for one in found}
        return [Arrival(transfer=one, block_hash=hashes[one.block]) for one in found]

    async def _credit(self, account: AccountId, found: list[Arrival], scanned: int) -> None:
        kept = self._port.kept(account)
        new = arrivals.new(kept, found)
        step = Step(kept=arrivals.tidy(kept, scanned))
        if new:
            amount, owed = arrivals.credit(kept, sum(one.transfer.amount for one in new))
            text = f"transaction {hexed(new[0].transfer.transaction)}" + (" and others" if len(found) > 1 else "")
            if amount:
                step.credits.append((amount, self.settings.decimals, "", text))
            step.kept += [(one.key, one.encode()) for one in new]
            step.kept.append((arrivals.OWED_BACK, str(owed).encode() if owed else b""))
        if step.kept:
            await self._port.step(account, step)

    async def _check_records(self) -> None:
        """After a reorganisation: what was credited and isn't in the chain any more is taken back."""
        for account in list(self._accounts):
            for key, record in arrivals.records(self._port.kept(account)):
                if (await self._chain.block(record.transfer.block)).hash != record.block_hash:
                    await self._undo(account, key, record)

    async def _undo(self, account: AccountId, key: bytes, record: Arrival) -> None:
        """In another block it counts anew, once that is deep enough."""
        kept = self._port.kept(account)
        units, owed = arrivals.undo(kept, record.transfer.amount, self._converter(account))
        name = hexed(record.transfer.transaction)
        undone = [(units, f"transaction {name} left the chain")] if units else []
        left = [(key, b""), (arrivals.OWED_BACK, str(owed).encode() if owed else b"")]
        self._tell("error", "credit_undone", account, {"reason": name, "amount": str(units)})
        await self._port.step(account, Step(undone=undone, kept=left))

    # --- what people see ---

    def unfinished(self, account: AccountId) -> Sequence[str]:
        """Transactions, and transfers to us that the chain may still take back."""
        left = self._transactions_left(account)
        newest = max((one.transfer.block for _, one in arrivals.records(self._port.kept(account))), default=None)
        read = -1 if self._scanned is None else self._scanned.number
        if newest is not None and read < newest + UNDO_BLOCKS:
            left.append(f"a transfer of block {newest} was credited: wait for block {newest + UNDO_BLOCKS}")
        return left

    def link_up(self, account: AccountId) -> None:
        """The peer is told our address again: it may have removed the account, and have it anew."""
        self._maybe_new.add(account)
        super().link_up(account)

    def _forget(self, account: AccountId) -> None:
        self._registered.discard(account)
        self._maybe_new.discard(account)

    def describe(self, account: AccountId) -> Mapping[str, str]:
        """Addresses, and what is under way."""
        to, sender = self.pays_to(account), self.paid_from(account)
        shown = {
            "chain": str(self.settings.chain_id),
            "address": checksummed(self.key.address),
            "height": str(self.head.number) if self.head else "unknown",
            "read_up_to": str(self._scanned.number) if self._scanned else "unknown",
            "pays_to": checksummed(to) if to else "not known yet",
            "paid_from": checksummed(sender) if sender else "not known yet",
        }
        for one in self._sender.pending(self._port, account):
            name = f"settlement {one.about}, {len(one.raws)} offered, {hexed(one.hashes[-1])}"
            shown[f"transaction_{one.nonce}"] = name
        return shown
