"""Peers written by others, each a Node process on loopback: `make interop` installs their packages."""

import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))  # `bench` is a folder of the repository, not of the installed package

from bench.js_process import JsProcess, missing  # noqa: E402

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

    async def connector(self, address: str | None = "test.js", **accounts: Spec) -> tuple[JsProcess, dict[str, int]]:
        """An ilp-connector, and the ports of its accounts that listen. Without an address it asks its parent."""
        connector = await self.start("connector")
        config: Spec = {"env": "test", "accounts": accounts, "initialConnectTimeout": 2000}
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
