"""Examples in documents run: those that need a connector and a receiver get one of each on this machine."""

import json
import os
import re
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

NODE = """
address = "test.hub"
[listeners.btp]
listen = "127.0.0.1:0"
[rates]
spread = "0.2 %"
"BTC/ETH" = "25"
"""
ACCOUNT = """
[accounts.{name}]
asset = "{asset}"
scale = {scale}
relation = "child"
link = {{ type = "btp-server", token = "{token}" }}
limits = {{ receivable = "1" }}
"""
# Bob is paid by the address that is in every example.
BOB = """
import asyncio, sys
import isthmus
from aiohttp import web
from isthmus.apps.spsp_server import SpspServer

async def main():
    async with isthmus.listen(sys.argv[1]) as server:
        def credentials():
            invitation = server.invite()
            return invitation.address, invitation.shared_secret
        spsp = SpspServer()
        spsp.add(credentials)
        app = web.Application()
        spsp.register(app)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        print(runner.addresses[0][1], flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


class Network(NamedTuple):
    """What stands in the examples, and what it is here."""

    replacements: dict[str, str]

    def localised(self, text: str) -> str:
        for shown, real in self.replacements.items():
            text = text.replace(shown, real)
        return text


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    folder = tmp_path_factory.mktemp("network")
    tokens = {name: secrets.token_hex(16) for name in ("alice", "bob", "carol")}
    config = NODE
    for name, token in tokens.items():
        asset, scale = ("BTC", 8) if name == "alice" else ("ETH", 9)
        config += ACCOUNT.format(name=name, asset=asset, scale=scale, token=token)
    path = folder / "isthmus.toml"
    path.write_text(config)
    path.chmod(0o600)
    command = [sys.executable, "-m", "isthmus", "node", "run", str(path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as node:
        assert node.stderr is not None
        try:
            place = next(fact["btp"] for line in node.stderr if (fact := json.loads(line))["event"] == "running")
            url = f"btp+ws://:{tokens['bob']}@{place}"
            with subprocess.Popen([sys.executable, "-c", BOB, url], stdout=subprocess.PIPE, text=True) as bob:
                assert bob.stdout is not None
                try:
                    port = int(bob.stdout.readline())
                    yield Network(
                        {
                            ":TOKEN@127.0.0.1:7768": f":{tokens['alice']}@{place}",
                            ":BOBS-TOKEN@127.0.0.1:7768": f":{tokens['carol']}@{place}",
                            "$bob.example": f"http://127.0.0.1:{port}/.well-known/pay",
                        }
                    )
                finally:
                    bob.kill()
        finally:
            node.terminate()
            node.stderr.close()


def blocks(language: str) -> list[tuple[Path, str]]:
    """(page, text) of all fenced blocks in a language."""
    return [(page, text) for page in PAGES for name, text in FENCE.findall(page.read_text()) if name == language]


def label(case: object) -> str:
    return case.name if isinstance(case, Path) else "example"


@pytest.mark.parametrize("page, text", blocks("python"), ids=label)
def test_python_examples_run(page: Path, text: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if "127.0.0.1" in text:
        text = request.getfixturevalue("network").localised(text)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", text],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page, text", blocks("python"), ids=label)
def test_python_examples_are_typed(page: Path, text: str, tmp_path: Path) -> None:
    (tmp_path / "example.py").write_text(text)
    config = str(ROOT / "pyproject.toml")
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file", config, str(tmp_path / "example.py")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("page, text", blocks("console"), ids=label)
def test_console_examples_run(page: Path, text: str, tmp_path: Path) -> None:
    """Each line after `$ `, one after another in one folder."""
    lines = [line[2:] for line in text.splitlines() if line.startswith("$ ")]
    assert lines
    commands = [line for line in lines if not line.startswith(("make ", ".venv/bin/"))]
    if not commands:
        pytest.skip("commands for a clone, which are steps of their own in CI")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for command in commands:
        done = subprocess.run(
            ["bash", "-c", command], cwd=tmp_path, env={**os.environ, "PATH": path}, capture_output=True, text=True,
            timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}: {done.stderr}"
