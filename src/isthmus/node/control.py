"""Changes of a running node: accounts, routes, the file read again, the parent's word for our address.

One change after the other: a new configuration is made and checked whole, then its tables are swapped and journaled
with the settings that they came from, then the links follow. A change that is refused anywhere leaves nothing behind.
"""

import asyncio
import re
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType
from typing import Any, Final, TypeVar

import structlog

from isthmus.connector.events import AccountId
from isthmus.connector.tables import Tables
from isthmus.errors import ConfigError, JournalError
from isthmus.ilp.asset import Asset, format_amount
from isthmus.links.btp.link import BtpLink
from isthmus.node.admin.operation import Json, RefusedError
from isthmus.node.config import ACCOUNT_NAME, DEFAULT_ROUTE, Document, config_of, has_huge_number, load_document
from isthmus.node.config_model import Account, NodeConfig, Relation
from isthmus.node.config_reload import check_reload
from isthmus.node.config_settlement import settling_accounts
from isthmus.node.links import Links, is_in_flight
from isthmus.node.rates.provider import Provider
from isthmus.node.settings import (
    ACCOUNT,
    ROUTE,
    SECRETS,
    Item,
    Setting,
    definition_of,
    hash_of,
    merge,
    sealed,
    section,
    settings_of,
    shown,
    with_change,
)
from isthmus.node.tables import build_tables
from isthmus.node.vault import Vault
from isthmus.runtime.driver import Driver
from isthmus.runtime.engines import EngineRunner

# Longer than what is in flight may take, and than the time after which a peer is known to acknowledge nothing.
DRAIN_S_MAX: Final = 90.0
FACT_CHARS_MAX: Final = 400
PING_MS_MAX: Final = 8_000  # below the time that the admin API takes for an answer

Logger = structlog.typing.FilteringBoundLogger
_T = TypeVar("_T")


def configure(file: Document, settings: Mapping[Item, Setting], vault: Vault) -> tuple[NodeConfig, tuple[Item, ...]]:
    """The configuration that holds, and the items that ended. Raises ConfigError for the first problem in it."""
    merged = merge(file, settings, vault)
    return config_of(merged.document), merged.ended


class Control:
    """Owns a running node's configuration. `links` and `engines` are set before anything is changed."""

    links: Links
    engines: EngineRunner

    def __init__(
        self,
        file: Document,
        config: NodeConfig,
        driver: Driver,
        vault: Vault,
        rates: Provider,
        *,
        address: str | None,
        logger: Logger,
    ) -> None:
        self.config = config
        self.address = address  # the parent's word
        self._file = file
        self._driver: Final = driver
        self._vault: Final = vault
        self._rates: Final = rates
        self._logger: Final = logger
        self._one_by_one: Final = asyncio.Lock()
        self._thread: Final = ThreadPoolExecutor(1)
        self._tasks: Final[set[asyncio.Task[Any]]] = set()
        self._following = False  # links of disabled accounts are about to be closed
        self._changed: Final = asyncio.Event()  # something became durable: drains look again

    # --- what is shown --------------------------------------------------------------------------------------------

    def sources(self) -> dict[str, str]:
        """Where each account comes from: "file", "run time", or "file, changed at run time"."""
        settings = self._settings()
        return {account.id: self._source(Item(ACCOUNT, account.id), settings) for account in self.config.accounts}

    def route_source(self, prefix: str) -> str:
        """As `sources`; "child" and "parent" for routes that nobody wrote."""
        item = Item(ROUTE, prefix or DEFAULT_ROUTE)
        settings = self._settings()
        if item in settings or section(self._file, item) is not None:
            return self._source(item, settings)
        return "child" if prefix else "parent"

    def definition(self, name: str) -> Json:
        """An account's section as it holds, without secrets; RefusedError if there is none."""
        item = Item(ACCOUNT, name)
        settings = self._settings()
        found = definition_of(self._file, item, settings.get(item))
        if found is None:
            raise _no_account(name)
        return {"id": name, "source": self._source(item, settings), "definition": shown(found)}

    def _source(self, item: Item, settings: Mapping[Item, Setting]) -> str:
        setting = settings.get(item)
        if setting is None:
            return "file"
        return "run time" if setting.file is None else "file, changed at run time"

    def _settings(self) -> dict[Item, Setting]:
        return settings_of(self._driver.kernel.books.settings)

    # --- accounts -------------------------------------------------------------------------------------------------

    async def check_new(self, name: str, definition: Json) -> None:
        """Raise RefusedError if an account with these terms can't be added now."""
        item = _account_item(name)
        _check_body(definition)
        settings = self._settings()
        if definition_of(self._file, item, settings.get(item)) is not None:
            raise RefusedError(409, f"There is an account {name!r}.")
        config = await self._configured(
            {**settings, item: Setting(file=hash_of(section(self._file, item)), whole=definition)}
        )
        try:
            self._driver.kernel.check_tables(build_tables(config, self.address, self._rates.table()))
        except ConfigError as error:
            raise _refused(error) from None

    async def add(self, name: str, definition: Json, *, also: Mapping[bytes, bytes] | None = None) -> Json:
        """Open an account, or say that it is there already with just these terms. `also`: settings beside it."""
        return await self._serially(self._add(name, definition, also or {}))

    async def _add(self, name: str, definition: Json, also: Mapping[bytes, bytes]) -> Json:
        item = _account_item(name)
        _check_body(definition)
        settings = self._settings()
        before = definition_of(self._file, item, settings.get(item))
        whole = sealed(definition, item, self._vault)
        setting = Setting(file=hash_of(section(self._file, item)), whole=whole)
        config = await self._configured({**settings, item: setting})
        if before is not None:
            if config.account(AccountId(name)) == self.config.account(AccountId(name)):
                return {"account": name, "changed": False}
            raise RefusedError(409, f"There is an account {name!r} with other terms. Change it, or remove it first.")
        await self._take(config, {item: setting}, [(AccountId(name), "added at run time")], also)
        return {"account": name, "changed": True}

    async def change(self, name: str, change: Json) -> Json:
        """Change what is given, and leave the rest as it is."""
        return await self._serially(self._change(name, change))

    async def _change(self, name: str, change: Json) -> Json:
        item = _account_item(name)
        _check_body(change)
        settings = self._settings()
        setting = settings.get(item)
        before = definition_of(self._file, item, setting)
        if not isinstance(before, dict):
            raise _no_account(name)
        for key in ("asset", "scale"):
            if key in change and change[key] != before.get(key):
                detail = f"The books have {name} in {before['asset']} with scale {before['scale']}, for ever."
                raise RefusedError(409, f"{detail} Add an account with another name.", key=f"accounts.{name}.{key}")
        # What was set earlier still counts from the section that it was set over.
        over = hash_of(section(self._file, item)) if setting is None else setting.file
        new = Setting(file=over, whole=sealed(with_change(before, change), item, self._vault))
        config = await self._configured({**settings, item: new})
        if config.account(AccountId(name)) == self.config.account(AccountId(name)):
            return {"account": name, "changed": False}
        forgotten = [AccountId(name)] if _leaves_engine(self.config, config, AccountId(name)) else []
        await self._take(config, {item: new}, [(AccountId(name), f"changed: {_told(change)}")], forgotten=forgotten)
        return {"account": name, "changed": True}

    async def remove(self, name: str, *, drain: bool, with_routes: bool) -> Json:
        """End an account that owes nothing and is owed nothing; `drain` lets what is in flight end before."""
        account = AccountId(name)
        if not drain or account_of(self.config, account) is None:
            return await self._serially(self._remove(name, with_routes=with_routes))
        if not is_in_flight(self._driver, account):
            self._check_empty(account)  # what is owed now isn't changed by waiting: the account goes on working
        await self.change(name, {"enabled": False})
        await self._drained(account)
        try:
            return await self._serially(self._remove(name, with_routes=with_routes))
        except RefusedError as refused:
            detail = f"{refused} It is disabled now: isthmus accounts enable {name} lets it work again."
            raise RefusedError(refused.status, detail, **refused.more) from None

    async def _remove(self, name: str, *, with_routes: bool) -> Json:
        item = _account_item(name)
        account = AccountId(name)
        settings = self._settings()
        if definition_of(self._file, item, settings.get(item)) is None:
            if account in self._driver.kernel.books.peers:
                return {"account": name, "changed": False}
            raise _no_account(name)
        self._check_empty(account)
        routes = [prefix or DEFAULT_ROUTE for prefix, to in self.config.routes if to == account]
        routes = [prefix for prefix in routes if self._is_set(prefix)]
        if routes and not with_routes:
            detail = f"Routes lead to {name}: {', '.join(routes)}. Remove them before, or with it."
            raise RefusedError(409, detail, routes=routes)
        changes = {each: self._removed(each) for each in (item, *(Item(ROUTE, prefix) for prefix in routes))}
        config = await self._configured(_with(settings, changes))
        await self._take(config, changes, [(account, "removed")], forgotten=[account])
        return {"account": name, "changed": True}

    def _is_set(self, prefix: str) -> bool:
        return self.route_source("" if prefix == DEFAULT_ROUTE else prefix) not in ("child", "parent")

    def _removed(self, item: Item) -> Setting | None:
        """Nothing is kept of what the file never had."""
        in_file = hash_of(section(self._file, item))
        return None if in_file is None else Setting(file=in_file)

    def _check_empty(self, account: AccountId) -> None:
        """Refuse with what is left, and what can be done about it."""
        found = self._driver.kernel.books.peers.get(account)
        if found is None:
            return
        asset = Asset(found.asset_code, found.asset_scale)
        left: list[str] = []
        if found.balance:
            owed = "owed to us" if found.balance > 0 else "owed by us"
            left.append(
                f"{format_amount(abs(found.balance), asset)} are {owed}: settle them, or agree on an adjustment"
                f" (isthmus books adjust)"
            )
        if found.loss.balance:
            amount = format_amount(found.loss.balance, asset)
            left.append(f"a loss of {amount} counts against it: write it off (isthmus books write-off)")
        in_flight = len(found.received) + len(found.sent)
        if in_flight:
            left.append(f"packets in flight: {in_flight}; wait, or drain it (--drain)")
        left += self._left_at_engine(account)
        if found.fulfilled:
            left.append(
                f"packets that the peer has not acknowledged: {len(found.fulfilled)}; it does when its link is up,"
                f" and isthmus books give-up ends the waiting"
            )
        if left:
            raise RefusedError(
                409,
                f"{account} can't be removed: {'; '.join(left)}.",
                balance=str(found.balance),
                loss=str(found.loss.balance),
                packets_in_flight=in_flight,
                packets_unacknowledged=len(found.fulfilled),
            )

    def _left_at_engine(self, account: AccountId) -> list[str]:
        """What its settlement engine has still to do for an account, with what can be done about it."""
        found = self._driver.kernel.books.peers.get(account)
        settling = None if found is None else found.settling
        left = list(self.engines.unfinished(account))
        if settling is not None and settling.open:
            left.append(f"{len(settling.open)} settlements are under way: wait, or see isthmus settlements list")
        return left

    async def _drained(self, account: AccountId) -> None:
        """Wait until nothing is in flight; who waits too long is told what is left when the account is removed."""
        try:
            async with asyncio.timeout(DRAIN_S_MAX):
                while is_in_flight(self._driver, account):
                    self._changed.clear()
                    await self._changed.wait()
                    if self._driver.halted.done():
                        raise JournalError(self._driver.halted.result())
        except TimeoutError:
            return

    # --- routes ---------------------------------------------------------------------------------------------------

    async def set_route(self, prefix: str, account: str) -> Json:
        """Configure a route; `default` is the one that takes the rest."""
        return await self._serially(self._set_route(prefix, account))

    async def _set_route(self, prefix: str, account: str) -> Json:
        item = Item(ROUTE, prefix)
        settings = self._settings()
        before = definition_of(self._file, item, settings.get(item))
        if before == account:
            return {"prefix": prefix, "account": account, "changed": False}
        in_file = section(self._file, item)
        same = in_file == account
        setting = None if same else Setting(file=hash_of(in_file), whole=account)
        config = await self._configured(_with(settings, {item: setting}))
        await self._take(config, {item: setting}, [(AccountId(account), f"route {prefix} leads here")])
        return {"prefix": prefix, "account": account, "changed": True}

    async def remove_route(self, prefix: str) -> Json:
        """End a configured route. Routes to children by their addresses stay, and are no one's to remove."""
        return await self._serially(self._remove_route(prefix))

    async def _remove_route(self, prefix: str) -> Json:
        item = Item(ROUTE, prefix)
        settings = self._settings()
        before = definition_of(self._file, item, settings.get(item))
        if before is None:
            return {"prefix": prefix, "changed": False}
        setting = self._removed(item)
        config = await self._configured(_with(settings, {item: setting}))
        fact = (AccountId(str(before)), f"route {prefix} leads here no more")
        await self._take(config, {item: setting}, [fact])
        return {"prefix": prefix, "changed": True}

    # --- the file, and the parent's word --------------------------------------------------------------------------

    async def reload(self) -> None:
        """New rates, routes and limits from the file; sections that changed there win over run time."""
        await self._serially(self._reload())

    async def _reload(self) -> None:
        file = await self._apart(load_document, self._file.path, self._file.environment)
        before, _ = await self._apart(configure, self._file, {}, self._vault)
        after, _ = await self._apart(configure, file, {}, self._vault)
        check_reload(before, after)
        settings = self._settings()
        config, ended = await self._apart(configure, file, settings, self._vault)
        was = self._file
        self._file = file
        try:
            await self._take(config, dict.fromkeys(ended), ended_facts(ended))
        except RefusedError as refused:
            self._file = was
            raise ConfigError("accounts", str(refused).rstrip("."), "Correct the file") from None
        tell_ended(self._logger, ended)

    async def learn_address(self, address: str) -> str:
        """The parent's word: children are told anew. What is wrong with it, or nothing."""
        return await self._serially(self._learn_address(address))

    async def _learn_address(self, address: str) -> str:
        before = self.address
        self.address = address
        if before == address or self.config.address is not None:
            return ""
        try:
            await self._take(self.config, {}, [])
        except RefusedError as refused:
            # The parent's word, not ours: as with a child's address that gets too long below it.
            self.address = before
            return str(refused)
        self._tell_children()
        return ""

    def _tell_children(self) -> None:
        """Their addresses lie below ours: they ask for them on each connection, so they get a new one (ILDCP-7).

        What is in flight stays valid, and its answers follow (BTP-18). Over HTTP there is no connection to renew.
        """
        for account in self.config.accounts:
            link = self._driver.links.get(account.id)
            if account.relation is Relation.CHILD and isinstance(link, BtpLink):
                link.reset("the address has changed")

    # --- others' settings -----------------------------------------------------------------------------------------

    def kept(self, prefix: bytes) -> dict[bytes, bytes]:
        """The journal's settings whose keys begin so."""
        return {key: value for key, value in self._driver.kernel.books.settings.items() if key.startswith(prefix)}

    async def keep(self, settings: Mapping[bytes, bytes], facts: Sequence[tuple[AccountId, str]]) -> None:
        """Journal settings that change no table; an empty value takes a key away."""
        await self._serially(self._take(self.config, {}, facts, settings))

    def address_now(self) -> str:
        """Our ILP address; empty while no parent has told it."""
        return self.config.address or self.address or ""

    async def ping(self, name: str) -> Json:
        """Whether the account's peer answers, and how fast. RefusedError if it doesn't."""
        if account_of(self.config, AccountId(name)) is None:
            raise _no_account(name)
        told = await self._driver.ping(AccountId(name), PING_MS_MAX)
        if told is None:
            raise RefusedError(409, f"{name} didn't answer within {PING_MS_MAX // 1000} s.")
        if told.problem:
            raise RefusedError(409, f"{name} was not reached: {told.problem}.")
        found: Json = {"account": name, "took_ms": told.took_ms, "code": told.code, "address": told.address}
        if not told.code:
            found |= {"asset_code": told.asset_code, "asset_scale": told.asset_scale}
        return found

    # --- one change after the other -------------------------------------------------------------------------------

    def committed(self) -> None:
        """A batch is durable: what waits for the last outcome of an account looks again."""
        self._changed.set()
        if self.links.may_leave() and not self._following:
            self._following = True
            self._spawn(self._serially(self._let_leave()))

    async def _let_leave(self) -> None:
        self._following = False
        await self.links.follow(self.config)

    async def close(self) -> None:
        """Let what was begun end, as far as the journal still lets it."""
        self._changed.set()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._thread.shutdown(wait=False)

    def tables(self, config: NodeConfig) -> Tables:
        """To be posted at once: rates that change meanwhile would be overtaken."""
        return build_tables(config, self.address, self._rates.table())

    async def _configured(self, settings: Mapping[Item, Setting]) -> NodeConfig:
        """The configuration with these; RefusedError tells the first problem."""
        try:
            config, _ = await self._apart(configure, self._file, settings, self._vault)
        except ConfigError as error:
            raise _refused(error) from None
        return config

    async def _apart(self, work: Callable[..., _T], *arguments: Any) -> _T:
        """On a thread: a thousand accounts take longer than packets should wait.

        One of its own, for those of the loop may all wait for name look-ups.
        """
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)

    async def _take(
        self,
        config: NodeConfig,
        changes: Mapping[Item, Setting | None],
        facts: Sequence[tuple[AccountId, str]],
        also: Mapping[bytes, bytes] = MappingProxyType({}),
        *,
        forgotten: Sequence[AccountId] = (),
    ) -> None:
        """Swap, journal, and let the links follow; RefusedError if the books or another rule say no.

        `forgotten`: accounts that leave their engine. What that keeps is dropped, if nothing of it is open.
        """
        for account in forgotten:
            left = self._left_at_engine(account)
            if left:
                raise RefusedError(409, f"{account} can't leave its settlement engine: {'; '.join(left)}.")
        try:
            board = self._rates.prepared(config.rates)
            tables = build_tables(config, self.address, self._rates.table_of(board))
            self._driver.kernel.check_tables(tables, forgotten)
        except ConfigError as error:
            raise _refused(error) from None
        except ValueError as error:  # an address that gets too long
            raise RefusedError(400, f"{error}.") from None
        if config.rates != self.config.rates:
            self._rates.adopt(config.rates, board)
        # From the question above to here nothing else was done: what the engine kept meanwhile would be lost.
        for account in forgotten:
            self.engines.let_go(account)
        told = await self._driver.change_tables(
            self.tables(config),
            settings=[
                *((item.key, b"" if setting is None else setting.encode()) for item, setting in changes.items()),
                *also.items(),
            ],
            facts=[(account, fact[:FACT_CHARS_MAX]) for account, fact in facts],
            forgotten=forgotten,
        )
        if told.problem:
            await self.engines.follow(settling_accounts(self.config.accounts))
            self._rates.adopt(self.config.rates, self._rates.prepared(self.config.rates))
            raise RefusedError(409, f"{told.problem}.")
        self.config = config
        await self.engines.follow(settling_accounts(config.accounts))
        for account, fact in facts:
            self._logger.info("set at run time", account=account, what=fact[:FACT_CHARS_MAX])
        try:
            await self.links.follow(config)
        except ConfigError as error:  # a certificate that was there a moment ago
            self._logger.error("a link can't be made", problem=str(error))
            raise RefusedError(409, f"It is taken, but a link can't be made: {error}.") from None

    async def _serially(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Do it when all before it is done, to its end: also if nobody waits for it any more."""

        async def alone() -> _T:
            async with self._one_by_one:
                return await work

        return await asyncio.shield(self._spawn(alone()))

    def _spawn(self, work: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # whoever waited has it


def _leaves_engine(before: NodeConfig, after: NodeConfig, name: AccountId) -> bool:
    """Whether an account that has a settlement engine is to have another, or none."""
    was, will = before.account(name).settlement, after.account(name).settlement
    return was is not None and (will is None or will.terms.engine != was.terms.engine)


def ended_facts(ended: tuple[Item, ...]) -> list[tuple[AccountId, str]]:
    """For statements."""
    return [
        (AccountId(item.name if item.kind == ACCOUNT else ""), f"{item.place}: the file was changed, and wins")
        for item in ended
    ]


def tell_ended(logger: Logger, ended: tuple[Item, ...]) -> None:
    """Nothing that an operator set goes without a word."""
    for item in ended:
        logger.warning("the file wins over run time", item=item.place, why="its section in the file was changed")


def _account_item(name: str) -> Item:
    if ACCOUNT_NAME.fullmatch(name) is None:
        raise RefusedError(400, f"{name[:80]!r} is no name for an account: use up to 64 of A-Z a-z 0-9 _ ~ -.")
    return Item(ACCOUNT, name)


def _check_body(value: Json) -> None:
    """Secrets come as text: a path or a variable would be read where the node runs, by whoever may ask."""
    if has_huge_number(value):
        raise RefusedError(400, "A number is beyond all amounts.")
    _check_secrets(value)


def _check_secrets(value: Json) -> None:
    for key, each in value.items():
        if key in SECRETS | {"public_key"} and isinstance(each, dict):
            raise RefusedError(400, f"{key}: give the text itself.")
        if isinstance(each, dict):
            _check_secrets(each)


def _with(settings: Mapping[Item, Setting], changes: Mapping[Item, Setting | None]) -> dict[Item, Setting]:
    both = {**settings, **changes}
    return {item: setting for item, setting in both.items() if setting is not None}


def _refused(error: ConfigError) -> RefusedError:
    """409 for what the books say, 400 for what was asked."""
    from_books = any(words in error.problem for words in ("for ever", "it is missing", "no other would find them"))
    detail = f"{error.key}: {error.problem}. {error.remedy.rstrip('.')}."
    return RefusedError(409 if from_books else 400, detail, key=error.key)


def _no_account(name: str) -> RefusedError:
    return RefusedError(404, f"There is no account {name[:80]!r}. See isthmus accounts list.")


def _told(change: Json, prefix: str = "") -> str:
    """What was changed, for the log and the statement; no secret."""
    parts: list[str] = []
    for key, value in shown(change).items():
        parts.append(_told(value, f"{prefix}{key}.") if isinstance(value, dict) else f"{prefix}{key} = {value}")
    return re.sub(r"\s+", " ", ", ".join(parts))


def account_of(config: NodeConfig, name: AccountId) -> Account | None:
    return next((account for account in config.accounts if account.id == name), None)
