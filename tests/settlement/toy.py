"""A small real ledger, and an engine for it: what settlement is tested with where no other ledger is needed.

The ledger is a server in the test's process, so that it outlives the nodes that are killed. It can be down, slow, lose
answers after it did what was asked, and refuse transfers for good. `python -m tests.settlement.toy ARGS` is `isthmus
ARGS` with this engine among the kinds.
"""

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import aiohttp
from aiohttp import web

from isthmus.connector.events import AccountId
from isthmus.connector.settling import CONFIRMED, FAILED, TAKEN
from isthmus.errors import ConfigError, LedgerError
from isthmus.node.config_reader import Key
from isthmus.node.config_values import Text
from isthmus.node.engines.kind import EngineKind, Options, Surroundings
from isthmus.node.engines.kinds import KINDS
from isthmus.settlement.port import MessageRefusedError, Port, SettlingAccount, Step, StepRefusedError

KIND_NAME: Final = "toy"
POLL_S: Final = 0.02


class ToyLedger:
    """Holders and transfers between them, each once for its id. Holders may go below zero: somebody's money it is."""

    def __init__(self) -> None:
        self.transfers: list[dict[str, Any]] = []  # id, source, destination, amount
        self.attempts: list[str] = []  # ids, as they were asked for
        self.is_down = False
        self.loses_answers = 0  # so many of the next answers
        self.refused: set[str] = set()  # sources whose transfers can't happen, ever
        self.gate = asyncio.Event()  # cleared: answers wait
        self.gate.set()
        self.news = asyncio.Event()
        self._runner: web.AppRunner | None = None
        self.url = ""

    async def start(self) -> "ToyLedger":
        app = web.Application()
        app.router.add_post("/transfers", self._transfer)
        app.router.add_get("/transfers", self._list)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        return self

    async def close(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    def sent(self, source: str) -> int:
        return sum(int(one["amount"]) for one in self.transfers if one["source"] == source)

    async def until(self, condition: Any, seconds: float = 60.0) -> None:
        async with asyncio.timeout(seconds):
            while not condition():
                self.news.clear()
                await self.news.wait()

    async def _transfer(self, request: web.Request) -> web.StreamResponse:
        wanted = await request.json()
        self.attempts.append(wanted["id"])
        self.news.set()
        if self.is_down:
            raise web.HTTPServiceUnavailable
        await self.gate.wait()
        if wanted["source"] in self.refused:
            return web.json_response({"state": "impossible"})
        if all(one["id"] != wanted["id"] for one in self.transfers):
            self.transfers.append(wanted)
            self.news.set()
        if self.loses_answers:
            self.loses_answers -= 1
            assert request.transport is not None
            request.transport.abort()
        return web.json_response({"state": "done"})

    async def _list(self, request: web.Request) -> web.StreamResponse:
        if self.is_down:
            raise web.HTTPServiceUnavailable
        start = int(request.query["from"])
        return web.json_response({"transfers": self.transfers[start:]})


class ToyEngine:
    """Pays by transfers whose bytes are journaled before they are sent, and credits what comes in once."""

    def __init__(self, url: str, holder: str) -> None:
        self._url: Final = url
        self._holder: Final = holder
        self._accounts: dict[AccountId, SettlingAccount] = {}
        self._port: Port
        self._tasks: set[asyncio.Task[None]] = set()
        self._sending: set[bytes] = set()
        self._http: aiohttp.ClientSession | None = None
        self.changes: list[list[AccountId]] = []

    async def start(self, port: Port, accounts: Sequence[SettlingAccount]) -> None:
        if not self._url.startswith("http"):
            raise LedgerError(f"{self._url} is no URL of a ledger")
        self._port = port
        self._http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5))
        self._accounts = {one.id: one for one in accounts}
        for account in self._accounts:
            for key in self._port.kept(account):
                if key.startswith(b"pay "):
                    self._spawn(self._send(account, key))
        self._spawn(self._watch())

    async def accounts_changed(self, accounts: Sequence[SettlingAccount]) -> None:
        self._accounts = {one.id: one for one in accounts}
        self.changes.append(list(self._accounts))

    async def pay(self, account: AccountId, number: int, amount: int, key: bytes) -> None:
        transfer = {
            "id": key.hex(),
            "source": self._holder,
            "destination": self._accounts[account].settings["holder"],
            "amount": str(amount),
        }
        kept = f"pay {number}".encode()
        await self._port.step(account, Step(moved=[(number, TAKEN, "")], kept=[(kept, json.dumps(transfer).encode())]))
        self._spawn(self._send(account, kept))

    async def _send(self, account: AccountId, key: bytes) -> None:
        if key in self._sending:
            return
        self._sending.add(key)
        number = int(key.split()[1])
        body = json.loads(self._port.kept(account)[key])
        state = ""
        while not state:
            state = await self._post(body)
            await asyncio.sleep(0 if state else POLL_S)
        end = (number, CONFIRMED, "") if state == "done" else (number, FAILED, "the ledger refuses it for good")
        await self._port.step(account, Step(moved=[end], kept=[(key, b"")]))
        self._sending.discard(key)

    async def _post(self, body: dict[str, str]) -> str:
        assert self._http is not None
        try:
            async with self._http.post(f"{self._url}/transfers", json=body) as response:
                return str((await response.json())["state"]) if response.status == 200 else ""
        except (aiohttp.ClientError, TimeoutError):
            return ""

    async def _watch(self) -> None:
        """What comes in; one account after the other, so that what is kept is what the last step left."""
        assert self._http is not None
        while True:
            try:
                for account, one in list(self._accounts.items()):
                    await self._credit(account, one.settings["holder"])
            except (aiohttp.ClientError, TimeoutError, StepRefusedError):
                pass  # the last: an account has gone, and the engine hears of it in a moment
            await asyncio.sleep(POLL_S)

    async def _credit(self, account: AccountId, holder: str) -> None:
        assert self._http is not None
        seen = int(self._port.kept(account).get(b"seen", b"0"))
        async with self._http.get(f"{self._url}/transfers", params={"from": str(seen)}) as response:
            if response.status != 200:
                return
            found = (await response.json())["transfers"]
        if not found:
            return
        if account not in self._accounts:
            return  # it has gone meanwhile
        scale = self._accounts[account].asset.scale
        credits = [
            (int(one["amount"]), scale, one["id"], f"transfer {one['id']}")
            for one in found
            if one["source"] == holder and one["destination"] == self._holder
        ]
        await self._port.step(account, Step(credits=credits, kept=[(b"seen", str(seen + len(found)).encode())]))

    async def take_message(self, account: AccountId, data: bytes) -> bytes:
        if data == b"nonsense":
            raise MessageRefusedError("F00", "that makes no sense")
        if data == b"break":
            raise RuntimeError("a defect of the engine")
        if data.startswith(b"ask "):
            return b"they say " + await self._port.message(account, data[4:])
        return b"heard " + data

    def unfinished(self, account: AccountId) -> Sequence[str]:
        """Transfers that the ledger may still make."""
        under_way = sum(1 for key in self._port.kept(account) if key.startswith(b"pay "))
        return [f"{under_way} transfers are under way: wait"] if under_way else []

    def link_up(self, account: AccountId) -> None:
        """Nothing waits for it."""

    def describe(self, account: AccountId) -> Mapping[str, str]:
        return {"holder": self._holder, "under_way": str(len(self._sending))}

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._http is not None:
            await self._http.close()

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _make(options: Options, surroundings: Surroundings) -> ToyEngine:
    if options["holder"] == "nobody":
        raise ConfigError(f"settlement.{surroundings.name}.holder", "nobody can't hold anything", "Name somebody")
    return ToyEngine(options["url"], options["holder"])


KIND: Final = EngineKind(
    summary="The ledger of the tests.",
    make=_make,
    options=(Key("url", Text(), "Where the ledger is."), Key("holder", Text(), "Who we are there.")),
    account=(
        Key("holder", Text(), "Who the peer is there."),
        Key("color", Text(("red", "blue")), "Nothing but an option.", None, "none"),
    ),
)


def main() -> None:
    """`isthmus`, with the toy among the kinds of engines."""
    KINDS[KIND_NAME] = KIND
    from isthmus.cli.main import main as isthmus

    isthmus()


if __name__ == "__main__":
    main()
