"""Closed ledgers in SQLite: what is kept comes back, and what isn't ours is refused."""

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from isthmus.errors import ConfigError, LedgerError
from isthmus.ledgers.xrp.dev.channels import CLOSE
from isthmus.ledgers.xrp.dev.ledger import Closed, DevLedger
from isthmus.ledgers.xrp.dev.rules import Prices
from isthmus.ledgers.xrp.dev.store import Store
from tests.ledgers.xrp.conftest import ALICE, BOB, CAROL, GENESIS, NETWORK, NOW, PRICES, XRP, Table, claim_fields, total


class StoredTable(Table):
    """A table whose ledgers are kept."""

    def __init__(self, path: Path | None, **options: Any) -> None:
        super().__init__()
        self.store = Store(path, **options)
        self.ledger = self.open()

    def open(self) -> DevLedger:
        return self.store.open_ledger(now=self.now, prices=PRICES, network_id=NETWORK)

    def close(self, seconds: int = 1) -> Closed:
        closed = super().close(seconds)
        self.store.save(closed)
        return closed

    def restart(self, path: Path) -> None:
        self.store.close()
        self.store = Store(path)
        self.ledger = self.open()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "xrp.db"


def a_history(table: Table) -> str:
    """A few ledgers with everything that can happen to an entry; the id of a channel that came and went."""
    table.fund(ALICE, BOB)
    index = table.open_channel(ALICE, BOB)
    table.submit(BOB, "PaymentChannelClaim", **claim_fields(ALICE, index, XRP))
    table.close()
    table.submit(BOB, "PaymentChannelClaim", Channel=index, Flags=CLOSE)
    table.submit(ALICE, "AccountSet", Domain="AB")
    table.close()
    return index


def test_a_ledger_goes_on_where_it_stopped(path: Path) -> None:
    table = StoredTable(path)
    a_history(table)
    table.open_channel(ALICE, BOB)
    last, entries = table.ledger.last, sorted(table.ledger.closed.entries(), key=lambda each: each.index)
    # What was only in the open ledger was never validated.
    table.submit(ALICE, "AccountSet", Domain="CD")
    table.restart(path)
    assert table.ledger.last == last
    assert sorted(table.ledger.closed.entries(), key=lambda each: each.index) == entries
    closed = table.close()
    assert closed.header.parent_hash == last.hash
    table.store.close()


def test_an_old_ledger_is_seen_as_it_was() -> None:
    table = StoredTable(None)
    seen: dict[int, list[tuple[int, int | None]]] = {}
    channels: dict[int, list[str]] = {}
    original = table.store.save

    def save(closed: Closed) -> None:
        original(closed)
        at = closed.header.index
        accounts = (table.ledger.closed.account(key.address) for key in (ALICE, BOB))
        seen[at] = [(each.balance, each.sequence) if each else (-1, None) for each in accounts]
        channels[at] = [each.index for each in table.ledger.closed.channels_of(BOB.address)]

    table.store.save = save  # type: ignore[method-assign]
    a_history(table)
    assert len(seen) == 4 and any(channels.values()) and not channels[table.ledger.last.index]
    for at, then in seen.items():
        view = table.store.at(at)
        accounts = (view.account(key.address) for key in (ALICE, BOB))
        assert [(each.balance, each.sequence) if each else (-1, None) for each in accounts] == then
        assert [each.index for each in view.channels_of(BOB.address)] == channels[at]
        page = table.store.entries_after(at, "", 100)
        assert [each.index for each in page] == sorted(each.index for each in page)
        header = table.store.header(at)
        assert header is not None and sum(total(each) for each in page) == header.drops
    table.store.close()


def test_transactions_are_found_by_id_place_and_account() -> None:
    table = StoredTable(None)
    a_history(table)
    store = table.store
    last = table.ledger.last.index
    [first, second] = store.transactions_of(last)
    assert store.transaction(first.id) == first == store.transaction_at(last, 0)
    assert store.transaction("AB" * 32) is None and store.transaction_at(last, 2) is None
    assert [each.fields["TransactionType"] for each in (first, second)] == ["PaymentChannelClaim", "AccountSet"]
    everything: dict[str, Any] = {"low": 1, "high": last, "limit": 100, "after": None}
    mine = store.transactions_concerning(ALICE.address, forward=True, **everything)
    kinds = ["Payment", "PaymentChannelCreate", "PaymentChannelClaim", "PaymentChannelClaim", "AccountSet"]
    assert [each.fields["TransactionType"] for each in mine] == kinds
    assert store.transactions_concerning(ALICE.address, forward=False, **everything) == mine[::-1]
    assert store.transactions_concerning(CAROL.address, forward=True, **everything) == []
    # Page by page it is the same, in either direction.
    for forward in (True, False):
        paged, after = [], None
        while page := store.transactions_concerning(
            ALICE.address, low=1, high=last, forward=forward, limit=2, after=after
        ):
            paged += page
            after = page[-1].ledger_index, page[-1].position
        assert paged == (mine if forward else mine[::-1])
    table.store.close()


def test_what_is_too_old_is_forgotten_but_not_what_is_still_there(path: Path) -> None:
    table = StoredTable(path, ledgers_kept=100)
    index = a_history(table)
    first = table.ledger.last.index
    while table.ledger.last.index < 512:
        table.close(0)
    assert table.store.first_index() == 512 - 100 + 1
    assert table.store.header(first) is None and table.store.transactions_of(first) == []
    entries = sorted(table.ledger.closed.entries(), key=lambda each: each.index)
    assert table.store.entries_after(512, "", 100) == table.store.entries_after(413, "", 100) == entries
    assert table.store.entry_at(index, 512) is None and table.store.channels_at(BOB.address, 512) == []
    # Nothing is left of the channel, and one version of each other entry.
    [(rows,)] = table.store._connection.execute("SELECT count(*) FROM entries")
    [(pairs,)] = table.store._connection.execute("SELECT count(*) FROM channels")
    assert (rows, pairs) == (len(entries), 0)
    table.restart(path)
    assert sorted(table.ledger.closed.entries(), key=lambda each: each.index) == entries
    table.store.close()


def test_a_change_across_the_horizon_survives_it(path: Path) -> None:
    """An entry's last version before the oldest ledger is the one that this ledger has."""
    table = StoredTable(path, ledgers_kept=100)
    table.fund(ALICE, BOB)
    index = table.open_channel(ALICE, BOB)
    while table.ledger.last.index < 400:
        table.close(0)
    table.submit(BOB, "PaymentChannelClaim", Channel=index, Flags=CLOSE)
    table.close(0)
    balance = table.balance(ALICE)
    while table.ledger.last.index < 512:
        table.close(0)
    assert table.store.entry_at(index, 420) is None
    account = table.store.at(413).account(ALICE.address)
    assert account is not None and account.balance == balance
    table.store.close()


def test_one_process_at_a_time(path: Path) -> None:
    table = StoredTable(path)
    with pytest.raises(LedgerError, match="in use by another process"):
        Store(path)
    table.store.close()
    Store(path).close()


def test_a_file_of_something_else_is_left_alone(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("not a database, but a text that is long enough to be read as one" * 20)
    with pytest.raises(LedgerError, match="no database"):
        Store(text)
    other = tmp_path / "other.db"
    connection = sqlite3.connect(other)
    connection.execute("CREATE TABLE things (name TEXT)")
    connection.commit()
    connection.close()
    before = other.read_bytes()
    with pytest.raises(LedgerError, match="something else"):
        Store(other)
    assert other.read_bytes() == before
    with pytest.raises(LedgerError, match="unable to open"):
        Store(tmp_path / "no folder" / "xrp.db")


def test_a_file_of_a_later_format_is_left_alone(path: Path) -> None:
    Store(path).close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(LedgerError, match="format 99"):
        Store(path)


def test_other_settings_are_another_ledger(path: Path) -> None:
    table = StoredTable(path)
    for prices, network in ((PRICES, NETWORK + 1), (Prices(base_fee=11), NETWORK)):
        with pytest.raises(ConfigError, match="was made with"):
            table.store.open_ledger(now=NOW, prices=prices, network_id=network)
    table.store.close()


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE entries SET fields = replace(fields, '1', '2')",
        """UPDATE entries SET fields = replace(fields, '"Flags":0', '"Flags":1')""",
        "DELETE FROM entries",
        "UPDATE ledgers SET drops = drops + 1",
        "UPDATE ledgers SET close_time = close_time + 1",
    ],
)
def test_damage_is_seen(path: Path, damage: str) -> None:
    table = StoredTable(path)
    table.fund(ALICE)
    table.store.close()
    connection = sqlite3.connect(path)
    connection.execute(damage)
    connection.commit()
    connection.close()
    with Store(path) as store, pytest.raises(LedgerError, match="damaged"):
        store.open_ledger(now=NOW, prices=PRICES, network_id=NETWORK)


def test_a_ledger_that_can_t_be_kept_is_kept_not_at_all(path: Path) -> None:
    table = StoredTable(path)
    table.fund(ALICE)
    last = table.store.last()
    table.submit(GENESIS, "Payment", Destination=BOB.address, Amount=str(5 * XRP))
    closed = Table.close(table)
    table.store._connection.execute("DROP TABLE concerned")
    with pytest.raises(LedgerError, match="can't be kept"):
        table.store.save(closed)
    assert table.store.last() == last and table.store.transactions_of(closed.header.index) == []
    table.store.close()
