"""Settles by transfers at a bank; incoming ones are found by reading the statement.

Outgoing: the very request is journaled, with the settlement's key, before the bank hears of it, and sent again until
the bank says what was done under this key. It has failed when the bank has voided the key: nothing can be done under it
any more. Incoming: a transfer is a peer's by its reference, which we have made and told nobody else. What has
none of them waits for the operator.
"""

from base64 import b32encode
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, Final, final

from isthmus.connector.events import AccountId
from isthmus.connector.settling import CONFIRMED, FAILED, TAKEN
from isthmus.errors import CodecError, ConfigError, LedgerError
from isthmus.ilp.asset import Asset
from isthmus.ledgers.bank.client import BankRefusedError, Holder, WrongAnswerError
from isthmus.ledgers.bank.values import AMOUNT_MAX, Account, Entry, Order
from isthmus.settlement.bank import records
from isthmus.settlement.bank.messages import Hello, decode, encode
from isthmus.settlement.bank.records import Cursor, Payment, Waiting, credit_key, place
from isthmus.settlement.causes import CREDIT, UNMATCHED
from isthmus.settlement.conversion import Converter, carried_of, carry
from isthmus.settlement.port import MessageRefusedError, Port, SettlingAccount, Step, StepRefusedError
from isthmus.settlement.unmatched import Unmatched
from isthmus.settlement.watch import Watch

REFERENCE_BYTES: Final = 16
PAGES_MAX: Final = 20  # of the statement, in one look; more follows at once
# An account for which nothing came is told that the statement was read once it is so far behind.
LAG_MAX: Final = 500
# Transfers that wait for the operator. Beyond it the smallest gives way: who pays little can't push out who paid more.
UNMATCHED_MAX: Final = 256
# The bank will say the same to the same request; whatever else it refuses may work later.
_HOPELESS: Final = ("no-such-payee", "other-asset", "same-account")


class WrongBankError(LedgerError):
    """The bank, or our account there, is not what is configured."""


@final
class BankEngine(Watch[Account]):
    """An `Engine` (settlement.port) with one account at one bank. `asset` is what that account must be in."""

    name: ClassVar[str] = "bank"
    wrong: ClassVar[type[LedgerError]] = WrongBankError
    refused: ClassVar[tuple[type[LedgerError], ...]] = (BankRefusedError, WrongAnswerError)
    turns_at_once: ClassVar[int] = 8  # requests of different accounts; one that hangs keeps no other waiting

    def __init__(
        self,
        client: Holder,
        asset: Asset,
        *,
        poll_ms: int,
        now: Callable[[], int],
        random: Callable[[], float],
        random_bytes: Callable[[int], bytes],
    ) -> None:
        """`now`: wall ms. `random`: from 0 up to 1, for pauses. `random_bytes`: for references, a secret's quality."""
        super().__init__(poll_ms, now=now, random=random)
        self._client: Final = client
        self._asset: Final = asset
        self._random_bytes: Final = random_bytes
        self._bank = ""  # its id, once known
        self._read: int | None = None  # the statement's last entry that was read, for all accounts
        self._balance: int | None = None  # after it
        self._is_behind = False  # some account's books did not take what was read; it is read again
        self._greeted: Final[set[AccountId]] = set()  # peers that told where to pay them, as of this process

    # --- the bank ---

    async def start(self, port: Port, accounts: Sequence[SettlingAccount]) -> None:
        """ConfigError for an account in another asset; LedgerError if the bank isn't the one that is configured."""
        self._check_assets(accounts)
        await super().start(port, accounts)

    async def accounts_changed(self, accounts: Sequence[SettlingAccount]) -> None:
        self._check_assets(accounts)
        await super().accounts_changed(accounts)

    def _check_assets(self, accounts: Sequence[SettlingAccount]) -> None:
        for one in accounts:
            if one.asset.code != self._asset.code:
                key = f"accounts.{one.id}.settlement.engine"
                problem = f"the account counts in {one.asset.code}, and the bank's in {self._asset.code}"
                raise ConfigError(key, problem, "Use an engine with an account in this asset")

    def _whereabouts(self) -> Mapping[str, str | int]:
        return {"bank_account": self._client.account, "asset": self._asset.code}

    async def _prepare(self) -> None:
        try:
            bank, holder = await self._client.bank()
        except BankRefusedError as error:
            if error.status == 401:
                raise WrongBankError("the bank doesn't know our token") from None
            raise
        if holder not in (None, self._client.account):
            raise WrongBankError(f"our token is for the account {holder}, not for {self._client.account}")
        self._bank = bank
        await self._look()

    async def _look(self) -> Account:
        try:
            head = await self._client.show()
        except BankRefusedError as error:
            if error.status in (401, 403, 404):
                raise WrongBankError(f"our account {self._client.account}: {error}") from None
            raise
        if head.id != self._client.account:
            raise WrongAnswerError("the bank tells of another account than ours")
        if (head.asset_code, head.asset_scale) != (self._asset.code, self._asset.scale):
            theirs = f"{head.asset_code} with {head.asset_scale} decimal places"
            raise WrongBankError(f"our account is in {theirs}, not in {self._asset.code} with {self._asset.scale}")
        return head

    async def _close_ledger(self) -> None:
        await self._client.close()

    # --- what we pay ---

    async def pay(self, account: AccountId, number: int, amount: int, key: bytes) -> None:
        if not self._is_begun(account, number):
            return
        hello = self.pays_to(account)
        if hello is None:
            raise LedgerError("the peer's engine has not told yet where to pay it")
        kept = self._port.kept(account)
        before = carried_of(kept)
        units, carried = Converter(self._accounts[account].asset.scale, self._asset.scale).to_ledger(amount, before)
        if units == 0:
            text = "less than the bank's unit; it is paid with the next"
            await self._port.step(account, Step(moved=[(number, CONFIRMED, text)], kept=[carry(carried)]))
            return
        if units > AMOUNT_MAX:
            raise LedgerError(f"{units} of the bank's units are due, and a transfer has {AMOUNT_MAX} at most")
        order = Order(
            payer=self._client.account,
            key=key.hex(),
            payee=hello.account,
            amount=units,
            reference=hello.reference,
        )
        payment = Payment.of(order, carried - before)
        step = Step(
            moved=[(number, TAKEN, "")],
            kept=[(place(records.OUT, number), payment.encode()), carry(carried)],
        )
        await self._port.step(account, step)
        self._wake.set()

    async def _follow_transactions(self, account: AccountId, head: Account) -> None:
        kept = self._port.kept(account)
        open_now = {one.number for one in self._port.open(account)}
        for number in records.numbers(kept, records.OUT):
            payment = Payment.decode(kept[place(records.OUT, number)])
            if number in open_now:
                await self._send(account, number, payment)
            else:
                await self._abandon(account, number, payment)

    async def _send(self, account: AccountId, number: int, payment: Payment) -> None:
        """The same request as ever; the settlement's end if the bank has an end of it."""
        try:
            done = await self._client.transfer(payment.key, payment.body)
        except BankRefusedError as error:
            if error.code == "key-void":
                await self._fail(account, number, payment, "its key was voided at the bank")
            elif error.code in _HOPELESS and await self._void(payment):
                await self._fail(account, number, payment, f"{error}")
            else:
                raise
            return
        if done.order != payment.order(self._client.account):
            raise WrongAnswerError(f"the bank says that it did something else for settlement {number}: {done.id}")
        step = Step(
            moved=[(number, CONFIRMED, f"transfer {done.id} to {done.order.payee}")],
            kept=[(place(records.OUT, number), b"")],
        )
        await self._port.step(account, step)

    async def _void(self, payment: Payment) -> bool:
        """See to it that it can't happen, even if one of our requests is still on its way. False: it has happened."""
        try:
            await self._client.void(payment.key)
        except BankRefusedError as error:
            if error.code == "key-used":
                return False
            raise
        return True

    async def _fail(self, account: AccountId, number: int, payment: Payment, why: str) -> None:
        kept = [(place(records.OUT, number), b""), records.uncarried(payment, self._port.kept(account))]
        await self._port.step(account, Step(moved=[(number, FAILED, why)], kept=kept))

    async def _abandon(self, account: AccountId, number: int, payment: Payment) -> None:
        """The operator has reversed it: it is owed again, so it must not happen any more."""
        gone = [(place(records.OUT, number), b"")]
        if await self._void(payment):
            uncarried = records.uncarried(payment, self._port.kept(account))
            await self._port.step(account, Step(kept=[*gone, uncarried]))
            return
        fields: dict[str, str | int] = {"account": account, "number": number, "key": payment.key}
        remedy = "it was paid and is owed again: book it by hand with the peer"
        self._port.log("error", "settlement_paid_and_reversed", {**fields, "remedy": remedy})
        await self._port.step(account, Step(kept=gone))

    # --- who is paid how ---

    def pays_to(self, account: AccountId) -> Hello | None:
        """Where the peer wants to be paid, if it has said so to this process."""
        found = self._port.kept(account).get(records.TO)
        return None if found is None or account not in self._greeted else decode(found)

    async def _take(self, account: AccountId, data: bytes) -> bytes:
        hello = decode(data)
        ours = self._hello(account)
        if ours is None:
            raise MessageRefusedError("T00", "the bank can't be asked now")
        self._check(account, hello)
        await self._pay_to(account, hello)
        return encode(ours)

    def _hello(self, account: AccountId) -> Hello | None:
        reference = self._port.kept(account).get(records.REFERENCE)
        if reference is None or not self._bank:
            return None
        return Hello(self._bank, self._client.account, reference.decode())

    def _check(self, account: AccountId, hello: Hello) -> None:
        """The peer banks where we do, and as was agreed. MessageRefusedError."""
        agreed = self._accounts[account].settings.get("peer_account")
        if hello.bank != self._bank:
            raise MessageRefusedError("F00", f"another bank: {hello.bank}, not {self._bank}")
        if hello.account == self._client.account:
            raise MessageRefusedError("F00", "both of us have the same account")
        if agreed not in (None, hello.account):
            raise MessageRefusedError("F00", f"another account was agreed on than {hello.account}")

    async def _pay_to(self, account: AccountId, hello: Hello) -> None:
        encoded = encode(hello)
        if self._port.kept(account).get(records.TO) != encoded:
            await self._port.step(account, Step(kept=[(records.TO, encoded)]))
        self._greeted.add(account)

    async def _turn(self, account: AccountId, head: Account) -> None:
        if records.REFERENCE not in self._port.kept(account):
            # No transfer that was read before can have it: it is told to nobody yet.
            secret = b32encode(self._random_bytes(REFERENCE_BYTES)).decode().rstrip("=").lower()
            cursor = Cursor(self._position(head), 0)
            kept = [(records.REFERENCE, f"isthmus-{secret}".encode()), (records.CURSOR, cursor.encode())]
            await self._port.step(account, Step(kept=kept))
        ours = self._hello(account)
        if account not in self._greeted and ours is not None:
            try:
                hello = decode(await self._ask_peer(account, encode(ours)))
            except CodecError as error:
                raise MessageRefusedError("F00", f"the peer's answer: {error}") from None
            self._check(account, hello)
            await self._pay_to(account, hello)

    # --- what we are paid ---

    def _cursors(self) -> dict[AccountId, Cursor]:
        found = {account: Cursor.of(self._port.kept(account)) for account in sorted(self._accounts)}
        return {account: cursor for account, cursor in found.items() if cursor is not None}

    def _position(self, head: Account) -> int:
        """From where on the statement is still to be read."""
        if self._read is not None:
            return self._read
        return min((each.number for each in self._cursors().values()), default=head.entries)

    async def _look_around(self, head: Account) -> None:
        """Read what is new in the statement."""
        await self._end_assignments()
        cursors = self._cursors()
        if not cursors:
            return
        if self._read is None:
            self._read, self._balance = self._position(head), None
        known = max(self._read, *(each.number for each in cursors.values()))
        if head.entries < known:
            raise WrongAnswerError(f"the bank's statement has {head.entries} entries, and {known} were there before")
        for _ in range(PAGES_MAX):
            if self._read >= head.entries:
                break
            _, entries = await self._client.statement(self._read)
            page = records.checked_page(entries, self._read, self._balance)
            if not page:
                raise WrongAnswerError(f"the bank's statement ends at {self._read}, and has {head.entries} entries")
            await self._book(page)
            self._read, self._balance = page[-1].number, page[-1].balance
        if self._read < head.entries:
            self._wake.set()
        elif self._is_behind:
            self._read, self._is_behind = None, False  # from the account on that is furthest behind

    async def _book(self, page: Sequence[Entry]) -> None:
        """Credit what this page brings, each account by a step of its own."""
        cursors = self._cursors()
        seen = max(each.number for each in cursors.values())
        owners = self._owners()
        known = self._known()
        steps = {account: Step() for account in cursors}
        waiting: dict[AccountId | None, list[Waiting]] = {None: [], **{account: [] for account in cursors}}
        for entry in page:
            account, why = self._whose(entry, owners)
            if entry.amount <= 0 or entry.number <= (cursors[account].number if account in cursors else seen):
                continue
            if credit_key(entry.transfer) in known:
                self._tell("warning", "transfer_twice", "", {"reason": f"{entry.transfer} in entry {entry.number}"})
                continue
            known.add(credit_key(entry.transfer))
            if account is None or account not in cursors:
                waiting[None].append(Waiting(entry, why))
            elif cursors[account].is_new(entry, self._now()):
                text = f"transfer {entry.transfer} from {entry.counterparty}"
                credit = (entry.amount, self._asset.scale, credit_key(entry.transfer), text)
                steps[account].credits.append(credit)
            else:
                why = f"it is so old that {account} may have been credited for it before"
                waiting[account].append(Waiting(entry, why))
        await self._step_all(page, cursors, steps, waiting)

    async def _step_all(
        self,
        page: Sequence[Entry],
        cursors: Mapping[AccountId, Cursor],
        steps: Mapping[AccountId, Step],
        waiting: dict[AccountId | None, list[Waiting]],
    ) -> None:
        """What waits is kept by the account whose it may be, or by the first whose step is booked.

        Once their cursors have passed it, it is not looked at again.
        """
        for account, step in steps.items():
            new = [*waiting[None], *waiting[account]]
            if new:
                step.kept += self._room_for(account, new)
            elif not step.credits and page[-1].number - cursors[account].number < LAG_MAX:
                continue
            step.kept.append((records.CURSOR, cursors[account].after(page).encode()))
            try:
                await self._port.step(account, step)
            except StepRefusedError as error:
                self._is_behind = True
                self._tell("error", "credit_not_booked", account, {"reason": str(error)}, until=CREDIT)
                continue
            self._went_through(CREDIT, account)
            for each in new:
                self._tell("warning", "unmatched", "", {"reason": self._told_of(each)}, until=UNMATCHED)
            waiting[None] = []

    def _owners(self) -> dict[bytes, AccountId]:
        """Accounts by the references that we made for them."""
        found = {account: self._port.kept(account).get(records.REFERENCE) for account in self._accounts}
        return {reference: account for account, reference in found.items() if reference is not None}

    def _known(self) -> set[str]:
        """What was credited within a week, and what waits: a statement may have it twice."""
        credited = {key for account in self._accounts for key in self._port.credited(account, credit_key(""))}
        return credited | {credit_key(each.entry.transfer) for _, each in self._waiting()}

    def _whose(self, entry: Entry, owners: Mapping[bytes, AccountId]) -> tuple[AccountId | None, str]:
        """By its reference; why it is nobody's."""
        account = owners.get(entry.reference.strip().encode())
        if account is None:
            return None, "its reference is none of ours"
        agreed = self._accounts[account].settings.get("peer_account")
        if agreed not in (None, entry.counterparty):
            return None, f"it has the reference of {account}, and comes from another account than {agreed}"
        return account, ""

    # --- what waits for the operator ---

    def _waiting(self) -> list[tuple[AccountId, Waiting]]:
        """With the account that keeps each, oldest first."""
        found = [
            (account, Waiting.decode(value))
            for account in self._accounts
            for key, value in self._port.kept(account).items()
            if key.startswith(records.UNMATCHED)
        ]
        return sorted(found, key=lambda each: each[1].entry.number)

    def _room_for(self, home: AccountId, new: Sequence[Waiting]) -> list[tuple[bytes, bytes]]:
        """What this account keeps of these, and what it keeps no longer for them."""
        everything = self._waiting()
        old = [each for account, each in everything if account == home]
        room = max(0, UNMATCHED_MAX - (len(everything) - len(old)))
        stay = sorted([*old, *new], key=lambda each: each.entry.amount, reverse=True)[:room]
        for each in [*old, *new]:
            if each not in stay:
                fields = {"reason": self._told_of(each), "remedy": "book it by hand: isthmus settle --by-hand"}
                self._port.log("error", "bank_unmatched_dropped", fields)
        kept = [(place(records.UNMATCHED, each.entry.number), each.encode()) for each in new if each in stay]
        return kept + [(place(records.UNMATCHED, each.entry.number), b"") for each in old if each not in stay]

    def look_at(self, port: Port, accounts: Sequence[SettlingAccount]) -> None:
        """Work on what is kept, without the bank."""
        self._port_or_none = port
        self._accounts = {one.id: one for one in accounts}

    def unmatched(self) -> Sequence[Unmatched]:
        """Transfers to us that wait for the operator. Named by their entries' numbers."""
        return [
            Unmatched(
                id=str(each.entry.number),
                amount=each.entry.amount,
                unit=self._asset,
                at=each.entry.at_ms,
                payer=each.entry.counterparty,
                reference=each.entry.reference,
                why=each.why,
            )
            for _, each in self._waiting()
        ]

    def _found(self, transfer: str) -> tuple[AccountId, Waiting]:
        for home, each in self._waiting():
            if str(each.entry.number) == transfer:
                return home, each
        raise LedgerError(f"no transfer {transfer} waits to be assigned")

    async def assign(self, transfer: str, account: AccountId, note: str) -> int:
        """Credit it to this peer. A kill in the middle credits it once, and the list forgets it in the next process."""
        home, each = self._found(transfer)
        key = credit_key(each.entry.transfer)
        if account not in self._accounts:
            raise LedgerError(f"{account} is no account of this engine")
        if any(key in self._port.credited(one, key) for one in self._accounts):
            raise LedgerError(f"transfer {transfer} was credited already; dismiss it")
        text = f"transfer {each.entry.transfer} from {each.entry.counterparty}, assigned: {note}"
        gone = (place(records.UNMATCHED, each.entry.number), b"")
        kept = [gone] if home == account else [(place(records.ASSIGNED, each.entry.number), home.encode())]
        credit = (each.entry.amount, self._asset.scale, key, text)
        (units,) = await self._port.step(account, Step(credits=[credit], kept=kept))
        await self._end_assignments()
        self._look_at_unmatched()
        return units

    async def _end_assignments(self) -> None:
        """Take from the list what is credited."""
        for account in list(self._accounts):
            kept = self._port.kept(account)
            for number in records.numbers(kept, records.ASSIGNED):
                home = AccountId(kept[place(records.ASSIGNED, number)].decode())
                if home in self._accounts:
                    await self._port.step(home, Step(kept=[(place(records.UNMATCHED, number), b"")]))
                    await self._port.step(account, Step(kept=[(place(records.ASSIGNED, number), b"")]))

    async def dismiss(self, transfer: str, note: str) -> None:
        """Take it from the list, with nothing credited."""
        home, each = self._found(transfer)
        await self._port.step(home, Step(kept=[(place(records.UNMATCHED, each.entry.number), b"")]))
        self._port.log("info", "bank_dismissed", {"transfer": self._told_of(each), "note": note})
        self._look_at_unmatched()

    def _look_at_unmatched(self) -> None:
        """The alarm is over with the last of them."""
        if not self._waiting():
            self._went_through(UNMATCHED)

    def _told_of(self, each: Waiting) -> str:
        one = each.entry
        return f"entry {one.number}, {one.amount} units from {one.counterparty}, {one.reference!r}: {each.why}"

    # --- what people see ---

    def unfinished(self, account: AccountId) -> Sequence[str]:
        """Transfers of ours that the bank may still make, and those to us that wait for the operator.

        What comes later with the reference that is forgotten waits for the operator as well.
        """
        kept = self._port.kept(account)
        left: list[str] = []
        if records.numbers(kept, records.OUT):
            left.append("transfers to it are under way: wait")
        if records.numbers(kept, records.ASSIGNED):
            left.append("a transfer that you assigned to it is being booked: wait")
        waiting = ", ".join(str(each) for each in records.numbers(kept, records.UNMATCHED))
        if waiting:
            left.append(f"the unmatched transfers {waiting} are kept with it: isthmus settlements assign or dismiss")
        return left

    def _forget(self, account: AccountId) -> None:
        self._greeted.discard(account)

    def describe(self, account: AccountId) -> Mapping[str, str]:
        """Accounts, references, and what is under way."""
        kept = self._port.kept(account)
        hello, cursor = self.pays_to(account), Cursor.of(kept)
        reference = kept.get(records.REFERENCE)
        return {
            "account": self._client.account,
            "bank": self._bank or "not reached yet",
            "is_paid_with": reference.decode() if reference else "not known yet",
            "pays_to": f"{hello.account} with {hello.reference}" if hello else "not known yet",
            "read_up_to": str(self._read if self._read is not None else cursor.number if cursor else "unknown"),
            "under_way": str(len(records.numbers(kept, records.OUT))),
        }
