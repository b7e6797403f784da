"""Peers written by others, each a Node process on loopback: `make interop` installs their packages."""

import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))  # `bench` is a folder of the repository, not of the installed package

from bench.js_process import JsProcess, missing  # noqa: E402

Start: TypeAlias = Callable[[str], Awaitable[JsProcess]]
Spec: TypeAlias = dict[str, Any]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without Node or its packages these tests say what is missing instead of failing."""
    reason = missing()
    if reason is None:
        return
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture
async def js(tmp_path: Path) -> AsyncIterator[Start]:
    """`await js("endpoint")` starts a script of `js/`; all end with the test, their stderr is in `tmp_path`."""
    processes: list[JsProcess] = []

    async def start(script: str) -> JsProcess:
        process = await JsProcess.start(script, log=tmp_path / f"{len(processes)}-{script}.log")
        processes.append(process)
        return process

    yield start
    for process in reversed(processes):
        await process.close()


def dial(port: int, *, token: str = "s", name: str = "") -> Spec:
    """A BTP plugin that connects to a port of this machine."""
    return {"module": "btp", "options": {"server": f"btp+ws://{name}:{token}@127.0.0.1:{port}"}}


def account(relation: str, plugin: Spec, **terms: Any) -> Spec:
    """An account of an ilp-connector, in the asset and with the limits that these tests share."""
    limits = {"minimum": "-1000000000000000", "maximum": "1000000000000000"}
    shared = {"relation": relation, "assetCode": "XRP", "assetScale": 9, "balance": limits, "plugin": plugin}
    return {**shared, **terms}


def listener(token: str = "s") -> Spec:
    """A BTP plugin that listens on a port of the system's choice."""
    return {"module": "btp", "options": {"listener": {"port": 0, "secret": token}}}


@pytest.fixture
def spec() -> type["Specs"]:
    return Specs


class Specs:
    """What the scripts are told, by short names for the tests."""

    dial = staticmethod(dial)
    account = staticmethod(account)
    listener = staticmethod(listener)
