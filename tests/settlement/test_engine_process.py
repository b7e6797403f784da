"""`isthmus engine run`: an engine of ours as a process of its own, beside nodes and by itself."""

import asyncio
import contextlib
import json
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest
from click.testing import CliRunner

from isthmus.cli.main import cli
from isthmus.errors import ConfigError
from isthmus.node.engine_config import load_engine
from isthmus.node.engines.kinds import KINDS
from tests.node.conftest import WAIT_SECONDS
from tests.ports import free_port
from tests.settlement.conftest import WRAPPER, isthmus
from tests.settlement.toy import KIND, KIND_NAME, ToyLedger

FILE: Final = """
asset = "USD"
scale = 9
listen = "127.0.0.1:0"
[connector]
url = "http://127.0.0.1:1"
[engine]
url = "http://127.0.0.1:2"
holder = "us"
[accounts.ann]
holder = "ann"
"""


@pytest.fixture(autouse=True)
def toy() -> None:
    KINDS[KIND_NAME] = KIND


def load(tmp_path: Path, text: str, kind: str = KIND_NAME) -> object:
    path = tmp_path / "engine.toml"
    path.write_text(text)
    return load_engine(kind, path, {})


def test_a_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "engine.toml").write_text(FILE)
    found = load_engine(KIND_NAME, tmp_path / "engine.toml", {})
    assert found.accounts == {"ann": {"holder": "ann"}}
    assert found.others == "the engine's file must have a table [accounts.ID] with holder"
    assert (found.asset.code, found.asset.scale, found.data) == ("USD", 9, tmp_path / "data")
    assert found.options == {"url": "http://127.0.0.1:2", "holder": "us"}


@pytest.mark.parametrize(
    "old, new, expected",
    [
        ('holder = "us"', "", "line 7: engine.holder: missing"),
        ('holder = "ann"', 'holder = "ann"\ncolour = "red"', "line 12: accounts.ann.colour: no such key"),
        ("[accounts.ann]", '[accounts."a/b"]', 'line 10: accounts."a/b": can\'t stand in a URL'),
        ('"http://127.0.0.1:1"', '"http://example.com"', "line 6: connector.url: 'http://example.com' would send"),
        ('"127.0.0.1:0"', '"0.0.0.0:1"', "token: missing, and others can reach this address"),
        ("scale = 9", "scale = 256", "line 3: scale: 256 is out of range"),
        ("[connector]", "[connectors]", "line 5: connectors: no such key"),
        ("[engine]", "[[engine]]", "engine: a table is needed, not an array"),
        ("scale", "=", "not TOML"),
    ],
)
def test_what_a_file_cant_say(tmp_path: Path, old: str, new: str, expected: str) -> None:
    assert FILE.count(old) >= 1
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, FILE.replace(old, new, 1))
    assert expected in str(caught.value)


def test_a_ledger_that_only_transfers_has_two_names(tmp_path: Path) -> None:
    """The file is read as the bank's: it isn't the toy's."""
    for kind in ("ledger", "bank"):
        with pytest.raises(ConfigError, match="engine.account: missing"):
            load(tmp_path, FILE, kind)


def test_an_asset_that_the_ledger_doesnt_move_is_said(tmp_path: Path) -> None:
    """As a connector that sets up an account is told."""
    (tmp_path / "key").write_text("sEd…")
    engine = '[engine]\nnetwork_id = 1\nrpc = "http://127.0.0.1:2"\ndeposit = "1"\nkey_file = "key"\n'
    (tmp_path / "engine.toml").write_text(FILE.partition("[engine]")[0] + engine)
    assert load_engine("xrp", tmp_path / "engine.toml", {}).others == "the account counts in USD"


@pytest.mark.parametrize("command", ["engine", "engine run"])
def test_help_lists_the_types_of_engines(command: str) -> None:
    shown = CliRunner().invoke(cli, [*command.split(), "--help"])
    assert shown.exit_code == 0
    listed = shown.output.partition("Types:\n")[2].partition("Examples:")[0]
    for kind in ("bank", "evm", "ledger", "lightning", "xrp", "xrp-payment"):
        assert f"\n  {kind} " in f"\n{listed}"
    assert "rfc38" not in listed


@pytest.mark.parametrize("kind", ["gold", "rfc38"])
def test_only_engines_of_ours_are_served(tmp_path: Path, kind: str) -> None:
    with pytest.raises(ConfigError, match="is no engine of ours"):
        load(tmp_path, FILE, kind)


def engine_file(tmp_path: Path, ledger: ToyLedger, listen: int, connector: str) -> Path:
    text = FILE.replace("127.0.0.1:0", f"127.0.0.1:{listen}").replace("http://127.0.0.1:1", connector)
    path = tmp_path / "engine.toml"
    path.write_text(text.replace("http://127.0.0.1:2", ledger.url))
    return path


@contextlib.asynccontextmanager
async def running(path: Path) -> AsyncIterator[Callable[[str], Awaitable[None]]]:
    """The engine as a process, from its first word to SIGTERM; what is given waits for a word in its log."""
    process = await asyncio.create_subprocess_exec(
        *WRAPPER, "engine", "run", "toy", str(path), stderr=asyncio.subprocess.PIPE
    )
    stderr = process.stderr
    assert stderr is not None

    async def says(word: str) -> None:
        async with asyncio.timeout(WAIT_SECONDS):
            while f'"{word}"'.encode() not in (line := await stderr.readline()):
                assert line, "the engine ended"

    await says("running")
    try:
        yield says
    finally:
        process.send_signal(signal.SIGTERM)
        assert b"Traceback" not in await stderr.read()
        assert await process.wait() == 0


async def post(url: str, body: dict[str, Any], key: str = "k") -> int:
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=WAIT_SECONDS)) as session,
        session.post(url, json=body, headers={"Idempotency-Key": key}) as response,
    ):
        return response.status


@pytest.mark.slow
async def test_one_that_failed_is_shown_and_replaced_by_the_operator(tmp_path: Path, ledger: ToyLedger) -> None:
    """SE-10: connectors are never told; the operator looks, mends, and has it paid anew."""
    ledger.refused.add("us")
    port = free_port()
    path = engine_file(tmp_path, ledger, port, "http://127.0.0.1:1")
    url = f"http://127.0.0.1:{port}/accounts"
    never = await isthmus("engine", "show", "toy", path)
    assert (never.returncode, "has never run" in never.stderr) == (1, True)
    async with running(path):
        assert await post(url, {"id": "bob"}) == 400  # the file must say who that is on the ledger
        assert await post(url, {"id": "ann"}) == 201
        for _ in range(2):
            assert await post(f"{url}/ann/settlements", {"amount": "500", "scale": 9}) == 201
        await ledger.until(lambda: ledger.attempts)
        busy = await isthmus("engine", "retry", "toy", path, "ann", "1", "--note", "x")
        assert (busy.returncode, "in use by another process" in busy.stderr) == (1, True)
    shown = await isthmus("engine", "show", "toy", path)
    assert shown.stdout == "ann  settlement 1  0.0000005 USD  failed  the ledger refuses it for good\n", shown.stderr
    ledger.refused.clear()
    done = await isthmus("engine", "retry", "toy", path, "ann", "1", "--note", "they let us")
    assert (done.returncode, done.stdout) == (0, "Settlement 2 takes its place; the engine pays it when it runs.\n")
    again = await isthmus("engine", "retry", "toy", path, "ann", "1", "--note", "they let us")
    assert (again.returncode, "no settlement 1 that has failed" in again.stderr) == (1, True)
    async with running(path):
        await ledger.until(lambda: ledger.sent("us") == 500)
    shown = await isthmus("engine", "show", "toy", path, "--json")
    assert json.loads(shown.stdout)["credits"] == []
    assert len(set(ledger.attempts)) == 2


@pytest.mark.slow
async def test_what_came_in_is_shown_until_the_connector_has_it(tmp_path: Path, ledger: ToyLedger) -> None:
    ledger.transfers.append({"id": "t", "source": "ann", "destination": "us", "amount": "700"})
    port = free_port()
    path = engine_file(tmp_path, ledger, port, "http://127.0.0.1:1")
    async with running(path) as says:
        assert await post(f"http://127.0.0.1:{port}/accounts", {"id": "ann"}) == 201
        await says("credit_not_acknowledged")
        shown = await isthmus("engine", "show", "toy", path)
        assert "700 at scale 9 came in, not acknowledged" in shown.stdout
    shown = await isthmus("engine", "show", "toy", path, "--json")
    (credit,) = json.loads(shown.stdout)["credits"]
    assert credit == {"account": "ann", "amount": "700", "scale": 9, "text": "transfer t"}


async def test_an_engine_that_cant_be_used_ends_in_one_line(tmp_path: Path, ledger: ToyLedger) -> None:
    path = engine_file(tmp_path, ledger, 0, "http://127.0.0.1:1")
    path.write_text(path.read_text().replace(ledger.url, "gold://x"))
    done = await isthmus("engine", "run", "toy", path)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (1, "isthmus: gold://x is no URL of a ledger")
    done = await isthmus("engine", "run", "gold", path)
    assert (done.returncode, "'gold' is no engine of ours. Kinds: " in done.stderr) == (2, True)
