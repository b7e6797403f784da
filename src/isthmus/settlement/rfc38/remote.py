"""An engine elsewhere as one of ours (RFC 0038, "Settlement Engine HTTP API"): POSTs out, an accounting server in.

Our part of a settlement ends when the engine has acknowledged it: from there on the engine tracks it to its end, and
never says how it went. The POST is repeated with the same key until then, by whoever calls `pay` again (SE-9).
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Final, final
from uuid import UUID

from isthmus.connector.events import AccountId
from isthmus.connector.settling import ENDED
from isthmus.errors import ConfigError, LedgerError
from isthmus.settlement.pauses import RETRY_S_MIN, growing_pause
from isthmus.settlement.port import MessageRefusedError, Port, SettlingAccount, Step, StepRefusedError
from isthmus.settlement.rfc38.accounting import AccountingServer
from isthmus.settlement.rfc38.http import OCTETS, Client, MakeListener, NoAnswerError, StatusError
from isthmus.settlement.rfc38.quantity import encode_quantity

# The runner answers the peer before: it has 30 s at most.
MESSAGE_S_MAX: Final = 29.0


@final
class RemoteEngine:
    """Implements `settlement.port.Engine` by an engine that any RFC 38 server is."""

    def __init__(
        self,
        client: Client,
        make_listener: MakeListener,
        *,
        token_sha256: bytes | None,
        random: Callable[[], float],
        retry_s_min: float = RETRY_S_MIN,
    ) -> None:
        self._client: Final = client
        self._make_listener: Final = make_listener
        self._token: Final = token_sha256
        self._random: Final = random
        self._retry_s_min: Final = retry_s_min
        self._ids: Final[dict[AccountId, str]] = {}
        self._scales: Final[dict[AccountId, int]] = {}
        self._accounts: Final[dict[str, AccountId]] = {}  # by id on the wire
        self._problems: Final[dict[AccountId, str]] = {}  # of accounts that the engine doesn't know yet
        self._telling: Final[dict[AccountId, asyncio.Task[None]]] = {}
        self._ending: Final[set[asyncio.Task[None]]] = set()
        self._port: Port
        self._server: AccountingServer | None = None

    async def start(self, port: Port, accounts: Sequence[SettlingAccount]) -> None:
        """Listen for the engine, and tell it of the accounts. One that doesn't answer is told again later."""
        self._port = port
        self._server = AccountingServer(self._make_listener, port, self._accounts, token_sha256=self._token)
        await self._server.start()
        port.log("info", "engine_is_awaited", {"listening": self._server.url})
        await self.accounts_changed(accounts)

    async def accounts_changed(self, accounts: Sequence[SettlingAccount]) -> None:
        after = {one.id: one.settings.get("id", str(one.id)) for one in accounts}
        owners: dict[str, AccountId] = {}
        for account, wire_id in after.items():
            if owners.setdefault(wire_id, account) != account:
                problem = f"the engine would know {owners[wire_id]} by the same id"
                raise ConfigError(f"accounts.{account}.settlement.id", problem, "Give each account its own")
        for account, wire_id in list(self._ids.items()):
            if after.get(account) != wire_id:
                self._forget(account, wire_id)
        for one in accounts:
            self._scales[one.id] = one.asset.scale
            if one.id not in self._ids:
                self._ids[one.id] = after[one.id]
                self._accounts[after[one.id]] = one.id
                self._tell(one.id)

    def _forget(self, account: AccountId, wire_id: str) -> None:
        del self._ids[account]
        del self._accounts[wire_id]
        telling = self._telling.pop(account, None)
        if telling is not None:
            telling.cancel()
        self._problems.pop(account, None)
        task = asyncio.create_task(self._delete(account, wire_id))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    # --- accounts ---------------------------------------------------------------------------------------------------

    def _tell(self, account: AccountId) -> None:
        """Let the engine know an account (SE-2), in each process: an engine may have lost its own store."""
        running = self._telling.get(account)
        if running is None or running.done():
            self._problems[account] = "it was not told yet"
            self._telling[account] = asyncio.create_task(self._set_up(account))

    async def _set_up(self, account: AccountId) -> None:
        wire_id = self._ids[account]
        body = f'{{"id":"{wire_id}"}}'.encode()  # ids are URL-safe, so they need no escapes
        for attempt in range(10**9):
            try:
                await self._client.call("POST", ("accounts",), body)
                break
            except StatusError as refused:
                if refused.status == 409:
                    break  # it knows the account already
                self._problems[account] = str(refused)
            except LedgerError as error:
                self._problems[account] = str(error)
            await self._pause(attempt, "engine_not_told_of_account", account, self._problems[account])
        self._problems.pop(account, None)
        self._port.over("engine_not_told_of_account", account)
        self._port.log("info", "engine_knows_account", {"account": account})

    async def _delete(self, account: AccountId, wire_id: str) -> None:
        for attempt in range(10**9):
            try:
                await self._client.call("DELETE", ("accounts", wire_id))
                break
            except StatusError as refused:
                if refused.status == 404:
                    break
                problem = str(refused)
            except LedgerError as error:
                problem = str(error)
            await self._pause(attempt, "engine_not_told_of_end", account, problem)
        self._port.over("engine_not_told_of_end", account)

    async def _pause(self, attempt: int, event: str, account: AccountId, problem: str) -> None:
        pause_s = growing_pause(attempt, self._retry_s_min, self._random())
        text = f"{problem}; again in {pause_s:.0f} s"
        self._port.log("warning", event, {"account": account, "problem": text})
        await asyncio.sleep(pause_s)

    # --- settlements and messages -----------------------------------------------------------------------------------

    async def pay(self, account: AccountId, number: int, amount: int, key: bytes) -> None:
        """One POST (SE-3). Raises LedgerError unless the engine acknowledges it: then it is asked again, the same."""
        wire_id = self._ids[account]
        quantity = encode_quantity(amount, self._scales[account])
        try:
            await self._client.call("POST", ("accounts", wire_id, "settlements"), quantity, key=str(UUID(bytes=key)))
        except StatusError as refused:
            if refused.status == 404:
                self._tell(account)  # it has lost its accounts
            raise
        try:
            await self._port.step(account, Step(moved=[(number, ENDED, "")]))
        except StepRefusedError as refused:
            text = f"settlement {number} was reversed, and its engine has acknowledged it: it may be paid; {refused}"
            self._port.log("error", "settlement_paid_and_reversed", {"account": account, "problem": text})

    async def take_message(self, account: AccountId, data: bytes) -> bytes:
        """The engine's answer (SE-4, SE-12). Its refusals become ILP codes: 4xx final, 5xx for now."""
        path = ("accounts", self._ids[account], "messages")
        try:
            return await self._client.call("POST", path, data, kind=OCTETS, wait_s=MESSAGE_S_MAX)
        except StatusError as refused:
            if refused.status == 404:
                self._tell(account)
            raise MessageRefusedError("F00" if 400 <= refused.status < 500 else "T00", str(refused)) from None
        except NoAnswerError as error:
            raise MessageRefusedError("T01", str(error)) from None

    def unfinished(self, account: AccountId) -> Sequence[str]:
        """Nothing is kept here. The engine refuses to delete what it has something of, and is asked again."""
        return ()

    def link_up(self, account: AccountId) -> None:
        """The RFC has no word for it."""

    def describe(self, account: AccountId) -> Mapping[str, str]:
        problem = self._problems.get(account)
        known = "yes" if problem is None else f"not yet: {problem}"
        listening = "" if self._server is None else self._server.url
        return {"account": self._ids[account], "known_to_the_engine": known, "engine_calls_us_at": listening}

    async def close(self) -> None:
        tasks = [*self._telling.values(), *self._ending]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._server is not None:
            await self._server.close()
        await self._client.close()
