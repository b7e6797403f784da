"""Two engines as processes of their own, and between them what anybody's two connectors do (RFC 38): they carry the
engines' messages to each other, and are told what came in.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from fractions import Fraction
from pathlib import Path
from typing import Final, Self

import aiohttp
from aiohttp import web

from tests.node.conftest import WAIT_SECONDS
from tests.ports import free_port
from tests.settlement.conftest import isthmus

ACCOUNT: Final = "peer"  # what each connector calls the other
CHAIN_SECONDS: Final = 180.0
OCTETS: Final = {"Content-Type": "application/octet-stream"}


@asynccontextmanager
async def running(kind: str, file: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """`isthmus engine run`, from its first word to SIGTERM; whoever kills it waits for its end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "isthmus", "engine", "run", kind, str(file), stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr is not None
    async with asyncio.timeout(WAIT_SECONDS):
        while b'"running"' not in (line := await process.stderr.readline()):
            assert line, "the engine ended"
    reading = asyncio.create_task(process.stderr.read())  # so that it never blocks on its log
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
            assert await process.wait() == 0
        assert b"Traceback" not in await reading


class Connector:
    """What an engine sees of its connector, and the engine's file."""

    def __init__(self, folder: Path, kind: str, asset: str, scale: int, options: str) -> None:
        self.kind: Final = kind
        self.scale: Final = scale
        self.port: Final = free_port()  # the engine's
        self.url: Final = f"http://127.0.0.1:{self.port}/accounts"
        self.credits: Final[dict[str, Fraction]] = {}  # by Idempotency-Key, in units of `scale`
        self.file: Final = folder / "engine.toml"
        self.other: Connector
        self._head: Final = f'asset = "{asset}"\nscale = {scale}\nlisten = "127.0.0.1:{self.port}"\n'
        self._options: Final = options
        self._told: Final = asyncio.Event()
        self._http: aiohttp.ClientSession
        self._runner: web.AppRunner

    async def start(self) -> Self:
        self._http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=WAIT_SECONDS))
        app = web.Application()
        app.router.add_post(f"/accounts/{ACCOUNT}/settlements", self._credit)
        app.router.add_post(f"/accounts/{ACCOUNT}/messages", self._carry)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        self.file.parent.mkdir(exist_ok=True)
        self.file.write_text(f'{self._head}[connector]\nurl = "{url}"\ntimeout = "5 s"\n[engine]\n{self._options}')
        return self

    async def close(self) -> None:
        await self._http.close()
        await self._runner.cleanup()

    async def _credit(self, request: web.Request) -> web.Response:
        told = json.loads(await request.read())
        amount = Fraction(int(told["amount"]), 10 ** int(told["scale"])) * 10**self.scale
        before = self.credits.setdefault(request.headers["Idempotency-Key"], amount)
        assert before == amount, "one key is one quantity"
        self._told.set()
        return web.json_response(told, status=201)

    async def _carry(self, request: web.Request) -> web.Response:
        try:
            status, answer = await self.other.ask(f"/{ACCOUNT}/messages", await request.read(), OCTETS)
        except aiohttp.ClientError:
            return web.Response(status=502)
        return web.Response(status=status, body=answer)

    async def ask(self, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
        """A call of the engine's API."""
        async with self._http.post(self.url + path, data=body, headers=headers) as answer:
            return answer.status, await answer.read()

    async def set_up(self) -> None:
        body = json.dumps({"id": ACCOUNT}).encode()
        assert (await self.ask("", body, {"Content-Type": "application/json"}))[0] == 201

    async def settle(self, amount: int, key: str) -> None:
        """Twice: it is paid once."""
        body = json.dumps({"amount": str(amount), "scale": self.scale}).encode()
        for _ in range(2):
            status, answer = await self.ask(
                f"/{ACCOUNT}/settlements", body, {"Content-Type": "application/json", "Idempotency-Key": key}
            )
            assert (status, json.loads(answer)) == (201, json.loads(body)), answer

    @property
    def credited(self) -> Fraction:
        return sum(self.credits.values(), Fraction(0))

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Looks whenever a credit was told."""
        async with asyncio.timeout(CHAIN_SECONDS):
            while not is_so():
                self._told.clear()
                await self._told.wait()

    async def nothing_is_under_way(self) -> None:
        async with asyncio.timeout(CHAIN_SECONDS):
            while "Nothing is under way" not in (await isthmus("engine", "show", self.kind, self.file)).stdout:  # noqa: ASYNC110
                await asyncio.sleep(0.2)


@asynccontextmanager
async def two(west: Connector, east: Connector) -> AsyncIterator[None]:
    """Both connectors, each the other's peer."""
    west.other, east.other = east, west
    await west.start()
    await east.start()
    try:
        yield
    finally:
        await west.close()
        await east.close()


async def pay_each_other_through_kills(west: Connector, east: Connector, unit: int) -> None:
    """SE-2, SE-3, SE-4, SE-9, SE-10: what a connector has had acknowledged arrives once, whichever engine is killed."""
    async with running(west.kind, west.file) as its, running(east.kind, east.file):
        await west.set_up()
        await east.set_up()
        await west.settle(3 * unit, "1")
        await east.until(lambda: east.credited == 3 * unit)
        await west.settle(2 * unit, "2")
        its.kill()
        await its.wait()
        async with running(west.kind, west.file):
            await east.until(lambda: east.credited == 5 * unit)
            await west.settle(2 * unit, "2")
            await east.settle(4 * unit, "1")
            await west.until(lambda: west.credited == 4 * unit)
            await west.settle(unit, "3")
    # East ended in order while that one was on its way, or had come already.
    async with running(west.kind, west.file), running(east.kind, east.file):
        await east.until(lambda: east.credited == 6 * unit)
        await west.nothing_is_under_way()
        await east.nothing_is_under_way()
    assert east.credited == 6 * unit and west.credited == 4 * unit
