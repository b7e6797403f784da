"""New tables between two batches: lanes open, change and close, and what the tables were made from is journaled."""

from dataclasses import replace
from typing import Final

from isthmus.connector.books import DEAF
from isthmus.connector.doubts import list_doubts
from isthmus.connector.events import AccountId, CloseLink, TablesTaken
from isthmus.connector.lane import Lane
from isthmus.connector.settlements import consider, due_again, forget_engine
from isthmus.connector.switch import Switch
from isthmus.connector.tables import (
    LOCAL,
    TERMS_BYTES_MAX,
    RatesChanged,
    TableEvent,
    Tables,
    TablesChanged,
    check_settings,
    with_rates,
)
from isthmus.errors import CodecError, ConfigError

BUSY: Final = "too busy; try again later"


def swap_tables(switch: Switch, event: TablesChanged, *, is_first: bool) -> bool:
    """Take new tables, or refuse them whole. With the first ones of a process, what the one before left is listed."""
    tables = event.tables
    try:
        tables.check()
        tables.check_against(switch.books, event.forgotten)
        check_settings(event.settings, switch.books)
    except ConfigError as error:
        _refused(switch, event, "tables_refused", error)
        return False
    for account in event.forgotten:
        forget_engine(switch, account)
    _open_lanes(switch, tables)
    for lane in switch.lanes.values():
        if lane.id not in tables.accounts and not lane.closed:
            _close(switch, lane)
    if is_first:
        for name, amount, count in list_doubts(switch.books):
            text = f"the node stopped before it was known that the Fulfill left; {count} Prepares"
            switch.singles.append(("at risk", AccountId(name), amount, text))
        due_again(switch)
    _journal(switch, event)
    switch.take_tables(tables)
    for lane in switch.settlers.values():
        consider(switch, lane)
    return True


def swap_rates(switch: Switch, event: RatesChanged) -> None:
    """Take new rates, or refuse them: in a time, and with an entry, that don't grow with accounts and routes."""
    books = switch.books
    rates = event.rates.with_account_spreads(switch.tables.rates.account_spreads)
    encoded = rates.encode()
    try:
        rates.check()
        check_settings(event.settings, books)
        terms = with_rates(books.terms, encoded)
        if len(terms) > TERMS_BYTES_MAX:
            raise ConfigError("rates", "too large beside the other tables", f"Stay below {TERMS_BYTES_MAX} bytes")
    except (ConfigError, CodecError) as error:
        _refused(switch, event, "rates_refused", error)
        return
    if terms != books.terms:
        books.change_rates(encoded)
    for lane in switch.lanes.values():
        lane.forget_hops()
    _keep_settings(switch, event)
    switch.take_tables(replace(switch.tables, rates=rates))
    switch.router.take_rates(switch.tables)


def _refused(switch: Switch, event: TableEvent, what: str, error: Exception) -> None:
    if event.token:
        switch.effects.append(TablesTaken(event.token, str(error)))
    else:
        switch.log("error", what, {"problem": str(error)})


def _open_lanes(switch: Switch, tables: Tables) -> None:
    books = switch.books
    for terms in tables.accounts.values():
        account = books.peers.get(terms.id)
        if account is None:
            account = books.open_peer(terms.id, terms.asset.code, terms.asset.scale)
        lane = switch.lanes.get(terms.id)
        if lane is None:
            lane = Lane(account, terms, switch.entropy, switch.mono)
            switch.lanes[terms.id] = lane
            switch.by_index[account.index] = lane
        lane.closed = False
        lane.take_terms(terms, switch.mono)
        if terms.settle.threshold is not None:
            switch.settlers[account.index] = lane
        else:
            switch.settlers.pop(account.index, None)
        account.is_local = lane.is_local
        if terms.relation == LOCAL and account.hearing != DEAF:
            books.set_hearing(account, DEAF)  # there is no wire in between


def _close(switch: Switch, lane: Lane) -> None:
    lane.closed = True
    switch.settlers.pop(lane.account.index, None)
    while lane.inbox:
        switch.refuse(lane, lane.inbox.popleft(), "T03", BUSY)
    switch.effects.append(CloseLink(lane.id, "the account was removed"))


def _journal(switch: Switch, event: TablesChanged) -> None:
    """What is new."""
    books = switch.books
    encoded = event.tables.encode()
    if encoded != books.terms:
        books.change_terms(encoded)
    _keep_settings(switch, event)


def _keep_settings(switch: Switch, event: TableEvent) -> None:
    """Those that are new; and the answer, which waits for all before it too."""
    books = switch.books
    for key, value in event.settings:
        if books.settings.get(key, b"") != value:
            books.change_setting(key, value)
    if books.has_entries() and isinstance(event, TablesChanged):
        switch.singles += [("setting", account, 0, text) for account, text in event.facts]
    if event.token:
        switch.answer_after_all(TablesTaken(event.token, ""))
