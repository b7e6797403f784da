"""Peers written by others, each a Node process on loopback: `make interop` installs their packages."""

import asyncio
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))  # `bench` is a folder of the repository, not of the installed package

from bench.js_process import JsProcess, missing  # noqa: E402
from tests.ports import free_port  # noqa: E402

Spec: TypeAlias = dict[str, Any]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without Node or its packages these tests say what is missing instead of failing."""
    reason = missing()
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.interop)
            if reason is not None:
                item.add_marker(pytest.mark.skip(reason=reason))


class Peers:
    """Starts scripts of `js/` and knows how they are configured. All end with the test; stderr goes to `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._processes: list[JsProcess] = []

    async def start(self, script: str) -> JsProcess:
        log = self._folder / f"{len(self._processes)}-{script}.log"
        process = await JsProcess.start(script, log=log)
        self._processes.append(process)
        return process

    async def connector(
        self,
        address: str | None = "test.js",
        *,
        routes: dict[str, str] | None = None,
        settings: Spec | None = None,
        **accounts: Spec,
    ) -> tuple[JsProcess, dict[str, int]]:
        """An ilp-connector, and the ports of its accounts that listen. Without an address it asks its parent."""
        connector = await self.start("connector")
        config: Spec = {"env": "test", "accounts": accounts, "initialConnectTimeout": 2000, **(settings or {})}
        config["routes"] = [{"targetPrefix": prefix, "peerId": peer} for prefix, peer in (routes or {}).items()]
        if address is not None:
            config["ilpAddress"] = address
        await connector.call("start", config=config)
        ports = {}
        for name, terms in accounts.items():
            options = terms["plugin"]["options"]
            if "listener" in options or "incoming" in options:
                ports[name] = (await connector.event("listening", account=name))["port"]
        return connector, ports

    async def endpoint(self, plugin: Spec, **options: Any) -> JsProcess:
        """The end of a path, connected."""
        endpoint = await self.start("endpoint")
        await endpoint.call("start", plugin=plugin, **options)
        await endpoint.event("connected")
        return endpoint

    async def close(self) -> None:
        for process in reversed(self._processes):
            await process.close()

    @staticmethod
    def account(relation: str, plugin: Spec, **terms: Any) -> Spec:
        """An account of an ilp-connector, in the asset and with the limits that these tests share."""
        limits = {"minimum": "-1000000000000000", "maximum": "1000000000000000"}
        shared = {"relation": relation, "assetCode": "XRP", "assetScale": 9, "balance": limits, "plugin": plugin}
        return {**shared, **terms}

    @staticmethod
    def dial(port: int, *, token: str = "s", name: str = "") -> Spec:
        """A BTP plugin that connects to a port of this machine."""
        return {"module": "btp", "options": {"server": f"btp+ws://{name}:{token}@127.0.0.1:{port}"}}

    @staticmethod
    def listener(token: str = "s") -> Spec:
        """A BTP plugin that listens on a port of the system's choice."""
        return {"module": "btp", "options": {"listener": {"port": 0, "secret": token}}}

    @staticmethod
    def http(url: str, *, incoming: str, outgoing: str) -> Spec:
        """An HTTP plugin that listens on a port of the system's choice and posts to `url`; both tokens are static."""
        listening = {"port": 0, "staticToken": incoming}
        return {
            "module": "http",
            "options": {"incoming": listening, "outgoing": {"url": url, "staticToken": outgoing}},
        }


@pytest.fixture
async def peers(tmp_path: Path) -> AsyncIterator[Peers]:
    peers = Peers(tmp_path)
    yield peers
    await peers.close()


NODE_SECONDS = 60.0


class Nodes:
    """Runs `isthmus node run` on the tests' configurations. At the end each must leave by SIGTERM with exit code 0."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: list[tuple[asyncio.subprocess.Process, Path]] = []

    async def run(self, config: str, port: int) -> Path:
        """Start a node and wait until it listens on `port`. Returns the configuration's file."""
        file = self._folder / f"node-{len(self._running)}" / "node.toml"
        file.parent.mkdir()
        file.write_text(config)
        await self.start(file, port)
        return file

    async def kill(self, file: Path) -> None:
        """`kill -9` the node with this configuration; `start` starts it again."""
        process, log = next(one for one in self._running if one[1] == file.with_suffix(".log"))
        self._running.remove((process, log))
        process.kill()
        await process.wait()

    async def start(self, file: Path, port: int) -> None:
        """Start the node with this configuration and wait until it listens on `port`."""
        log = file.with_suffix(".log")
        with log.open("ab") as output:
            command = (sys.executable, "-m", "isthmus", "node", "run", str(file))
            process = await asyncio.create_subprocess_exec(*command, stdout=output, stderr=output)
        self._running.append((process, log))
        deadline = time.monotonic() + NODE_SECONDS
        while process.returncode is None and time.monotonic() < deadline:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.02)
                continue
            writer.close()
            return
        raise AssertionError(f"the node did not start: {log.read_text()[-2000:]}")

    async def close(self) -> None:
        for process, log in reversed(self._running):
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
            try:
                code = await asyncio.wait_for(process.wait(), NODE_SECONDS)
            except TimeoutError:
                process.kill()
                await process.wait()
                code = -9
            assert code == 0, f"exit code {code}: {log.read_text()[-2000:]}"


@pytest.fixture
async def nodes(tmp_path: Path, peers: Peers) -> AsyncIterator[Nodes]:
    """They stop before the peers do, which still answer what is in flight."""
    nodes = Nodes(tmp_path)
    yield nodes
    await nodes.close()


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def http_port() -> int:
    return free_port()


@pytest.fixture
def config() -> type["Config"]:
    return Config


class Config:
    """Pieces of our node's TOML, in the asset that these tests share."""

    TOKEN = "token-of-a-test-with-enough-length-01"

    @staticmethod
    def node(
        port: int,
        *accounts: str,
        address: str | None = "test.isthmus",
        routes: dict[str, str] | None = None,
        http_port: int = 0,
    ) -> str:
        """A whole file. `port` is for BTP; without an address the parent tells it."""
        head = f'address = "{address or "from parent"}"\n'
        table = "".join(f'"{prefix}" = "{account}"\n' for prefix, account in (routes or {}).items())
        listener = f'[listeners.btp]\nlisten = "127.0.0.1:{port}"\n' + (
            f'[listeners.http]\nlisten = "127.0.0.1:{http_port}"\n' if http_port else ""
        )
        return f"{head}{listener}[routes]\n{table}" + "".join(accounts)

    @classmethod
    def account(cls, name: str, relation: str, *, dial: int | None = None, token: str = "s", **limits: str) -> str:
        """An account whose peer dials us by BTP, or whom we dial at the port `dial` with `token`."""
        link = f'{{ type = "btp-server", token = "{cls.TOKEN}-{name}" }}'
        if dial is not None:
            link = f'{{ type = "btp-client", url = "btp+ws://127.0.0.1:{dial}", token = "{token}" }}'
        return cls.over(name, relation, link, **limits)

    @classmethod
    def http_account(cls, name: str, relation: str, url: str, *, outgoing: str, **limits: str) -> str:
        """An account over HTTP; the peer's token is as in `account`."""
        theirs = f'{{ auth = "bearer", token = "{cls.TOKEN}-{name}" }}'
        ours = f'{{ auth = "bearer", token = "{outgoing}" }}'
        link = f'{{ type = "http", url = "{url}", outgoing = {ours}, incoming = {theirs} }}'
        return cls.over(name, relation, link, **limits)

    @staticmethod
    def without_routes(account: str) -> str:
        """The same account, over which no routes are told or asked for: the peer sees only what a test sends."""
        return account.replace("\nlink = ", '\nroutes = "off"\nlink = ', 1)

    @staticmethod
    def over(name: str, relation: str, link: str, **limits: str) -> str:
        # A sender of ilp-protocol-stream leaves while a packet to it may be in flight: the stop waits for its expiry.
        allowed = {"receivable": "1000000", "payable": "1000000", "hold": "3 s", **limits}
        table = "".join(f'{key} = "{value}"\n' for key, value in allowed.items())
        return (
            f'[accounts.{name}]\nasset = "XRP"\nscale = 9\nrelation = "{relation}"\nlink = {link}\n'
            f"[accounts.{name}.limits]\n{table}"
        )
