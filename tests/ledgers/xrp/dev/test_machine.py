"""The ledger against a naive bookkeeper, who knows the rules of channels as xrpl.org tells them, and sums."""

from dataclasses import dataclass, field
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from isthmus.ledgers.xrp.dev.channels import CLOSE, RENEW
from isthmus.ledgers.xrp.dev.entries import PayChannel
from isthmus.ledgers.xrp.dev.transactions import DROPS_MAX
from isthmus.ledgers.xrp.signatures import SigningKey
from tests.ledgers.xrp.conftest import ALICE, BOB, CAROL, Table, claim_fields

FEE = 10
PEOPLE = st.sampled_from([ALICE, BOB, CAROL])
DROPS = st.integers(1, 120)
SECONDS = st.integers(0, 25)


@dataclass
class Account:
    """What the bookkeeper knows of a channel."""

    source: SigningKey
    to: SigningKey
    funds: int
    delay: int
    ends_at: int | None = None
    cancel_at: int | None = None
    paid: int = 0
    is_open: bool = True
    granted: list[int] = field(default_factory=list)


class Machine(RuleBasedStateMachine):
    channels: Bundle[str] = Bundle("channels")

    @initialize()
    def start(self) -> None:
        self.table = Table()
        self.table.fund(ALICE, BOB, CAROL)
        self.books: dict[str, Account] = {}
        self.burnt = 3 * FEE
        self.balances = {key.address: self.table.balance(key) for key in (ALICE, BOB, CAROL)}

    def submit(self, key: SigningKey, kind: str, **fields: Any) -> str:
        """Submit, and book the fee if it is due."""
        result = self.table.result(key, kind, **fields)
        if result.startswith("te") and result[:3] in ("tes", "tec"):
            self.burnt += FEE
            self.balances[key.address] -= FEE
        return result

    def is_over(self, book: Account) -> bool:
        now = self.table.ledger.last.close_time
        return any(end is not None and end <= now for end in (book.ends_at, book.cancel_at))

    def end(self, book: Account) -> None:
        book.is_open = False
        self.balances[book.source.address] += book.funds - book.paid

    @rule(target=channels, source=PEOPLE, to=PEOPLE, drops=DROPS, delay=SECONDS, life=st.one_of(st.none(), SECONDS))
    def create(self, source: SigningKey, to: SigningKey, drops: int, delay: int, life: int | None) -> str:
        cancel_at = None if life is None else self.table.ledger.last.close_time + life
        fields: dict[str, Any] = {} if cancel_at is None else {"CancelAfter": cancel_at}
        submitted = self.table.submit(
            source,
            "PaymentChannelCreate",
            Destination=to.address,
            Amount=str(drops),
            SettleDelay=delay,
            PublicKey=source.public_key.hex().upper(),
            **fields,
        )
        if source is to:
            assert submitted.result.token == "temDST_IS_SRC"
            return "AB" * 32
        assert submitted.result.token == "tesSUCCESS" and submitted.included is not None
        self.burnt += FEE
        self.balances[source.address] -= FEE + drops
        [index] = [
            node["CreatedNode"]["LedgerIndex"]
            for node in submitted.included.meta["AffectedNodes"]
            if "CreatedNode" in node
        ]
        self.books[index] = Account(source, to, drops, delay, cancel_at=cancel_at)
        return str(index)

    @rule(index=channels, by=PEOPLE, drops=DROPS, take=st.integers(1, 120))
    def claim(self, index: str, by: SigningKey, drops: int, take: int) -> None:
        book = self.books.get(index)
        if book is None:
            return
        take = min(take, drops)
        result = self.submit(by, "PaymentChannelClaim", **claim_fields(book.source, index, drops, take))
        if not book.is_open:
            assert result == "tecNO_TARGET"
        elif self.is_over(book):
            assert result == "tesSUCCESS"
            self.end(book)
        elif by not in (book.source, book.to):
            assert result == "tecNO_PERMISSION"
        elif not book.paid < take <= book.funds:
            assert result == "tecUNFUNDED_PAYMENT"
        else:
            assert result == "tesSUCCESS"
            self.balances[book.to.address] += take - book.paid
            book.paid = take
            book.granted.append(drops)

    @rule(index=channels, by=PEOPLE)
    def close_channel(self, index: str, by: SigningKey) -> None:
        book = self.books.get(index)
        if book is None:
            return
        result = self.submit(by, "PaymentChannelClaim", Channel=index, Flags=CLOSE)
        if not book.is_open:
            assert result == "tecNO_TARGET"
        elif self.is_over(book) or by is book.to or (by is book.source and book.paid == book.funds):
            assert result == "tesSUCCESS"
            self.end(book)
        elif by is book.source:
            assert result == "tesSUCCESS"
            earliest = self.table.ledger.last.close_time + book.delay
            book.ends_at = earliest if book.ends_at is None else min(book.ends_at, earliest)
        else:
            assert result == "tecNO_PERMISSION"

    @rule(index=channels, by=PEOPLE)
    def renew(self, index: str, by: SigningKey) -> None:
        book = self.books.get(index)
        if book is None:
            return
        result = self.submit(by, "PaymentChannelClaim", Channel=index, Flags=RENEW)
        if not book.is_open:
            assert result == "tecNO_TARGET"
        elif self.is_over(book):
            assert result == "tesSUCCESS"
            self.end(book)
        elif by is book.source:
            assert result == "tesSUCCESS"
            book.ends_at = None
        else:
            assert result == "tecNO_PERMISSION"

    @rule(index=channels, by=PEOPLE, drops=DROPS, later=st.one_of(st.none(), SECONDS))
    def fund(self, index: str, by: SigningKey, drops: int, later: int | None) -> None:
        book = self.books.get(index)
        if book is None:
            return
        now = self.table.ledger.last.close_time
        fields = {} if later is None else {"Expiration": now + later}
        result = self.submit(by, "PaymentChannelFund", Channel=index, Amount=str(drops), **fields)
        if not book.is_open:
            assert result == "tecNO_ENTRY"
        elif self.is_over(book):
            assert result == "tesSUCCESS"
            self.end(book)
        elif by is not book.source:
            assert result == "tecNO_PERMISSION"
        elif later is not None and now + later < min(now + book.delay, book.ends_at or now + book.delay):
            assert result == "temBAD_EXPIRATION"
        else:
            assert result == "tesSUCCESS"
            self.balances[by.address] -= drops
            book.funds += drops
            book.ends_at = book.ends_at if later is None else now + later

    @rule(by=PEOPLE, to=PEOPLE, drops=DROPS)
    def pay(self, by: SigningKey, to: SigningKey, drops: int) -> None:
        result = self.submit(by, "Payment", Destination=to.address, Amount=str(drops))
        if by is to:
            assert result == "temREDUNDANT"
            return
        assert result == "tesSUCCESS"
        self.balances[by.address] -= drops
        self.balances[to.address] += drops

    @rule(seconds=SECONDS)
    def close_ledger(self, seconds: int) -> None:
        self.table.close(seconds)
        self.no_drop_comes_or_goes()

    @rule(index=consumes(channels))
    def forget(self, index: str) -> None:
        """Leave a channel alone from here on."""

    @invariant()
    def both_have_the_same_balances(self) -> None:
        if not hasattr(self, "books"):
            return
        for key in (ALICE, BOB, CAROL):
            assert self.table.balance(key) == self.balances[key.address]
        for index, book in self.books.items():
            entry = self.table.ledger.open.channel(index)
            if entry is None:
                assert not book.is_open
                continue
            assert (entry.amount, entry.balance) == (book.funds, book.paid) and book.is_open
            assert (entry.expiration, entry.cancel_after) == (book.ends_at, book.cancel_at)
            # Nobody is paid more than the highest claim, however often and in whatever order claims come.
            assert book.paid <= max(book.granted, default=0)

    def no_drop_comes_or_goes(self) -> None:
        ledger = self.table.ledger
        held = sum(
            each.amount - each.balance if isinstance(each, PayChannel) else each.balance
            for each in ledger.closed.entries()
        )
        assert held + self.burnt == DROPS_MAX and ledger.last.drops == held
        for key in (ALICE, BOB, CAROL):
            account = ledger.closed.account(key.address)
            assert account is not None
            own = sum(each.source == key.address for each in ledger.closed.channels_of(key.address))
            assert account.owner_count == own


TestMachine = Machine.TestCase
TestMachine.settings = settings(stateful_step_count=25)
