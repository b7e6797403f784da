"""`isthmus engine run bank`: our engine serves a connector by RFC 38, and settles with one that runs in a node."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.node.conftest import WAIT_SECONDS, Nodes, Peer, account, dials, free_port, toml
from tests.settlement.bank.test_nodes import UNIT, confirmed, east_of, owed, paid
from tests.settlement.bank.world import MONEY, World, until
from tests.settlement.conftest import isthmus


def engine_file(world: World, token: str, listen: int, connector: int) -> str:
    return (
        f'asset = "USD"\nscale = 9\nlisten = "127.0.0.1:{listen}"\n'
        f'[connector]\nurl = "http://127.0.0.1:{connector}"\ntimeout = "2 s"\n'
        f'[engine]\nurl = "{world.way.url}"\naccount = "west"\ntoken = "{token}"\nasset = "USD"\npoll = "100 ms"\n'
        f'[accounts.east]\npeer_account = "east"\n'
    )


@asynccontextmanager
async def running(file: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "isthmus", "engine", "run", "bank", str(file), stderr=asyncio.subprocess.PIPE
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


async def test_it_pays_and_is_paid_through_its_kill(world: World, nodes: Nodes, tmp_path: Path) -> None:
    """SE-9, SE-10."""
    port, at, back = free_port(), free_port(), free_port()
    tokens = {name: world.bank.new_token(name, "")[1] for name in ("east", "west")}
    file = tmp_path / "engine.toml"
    file.write_text(engine_file(world, tokens["west"], at, back))
    west_text = toml(
        account("bob"),
        account("east", relation="peer", link=dials(port, "west")),
        '[accounts.east.settlement]\nengine = "house"\nthreshold = "1"\n',
        f'[settlement.house]\ntype = "rfc38"\nurl = "http://127.0.0.1:{at}"\nlisten = "127.0.0.1:{back}"\n'
        'timeout = "2 s"\n',
        address="test.west",
        routes={"test.east": "east"},
    )
    east = await nodes.run(east_of(world.way, tokens["east"], port), folder=tmp_path / "east")
    west = await nodes.run(west_text, folder=tmp_path / "west")
    async with running(file) as engine:
        alice = (await Peer("alice").dial(east.port)).fulfil_all()
        bob = (await Peer("bob").dial(west.port)).fulfil_all()
        await paid(alice, 3 * UNIT + 10**7)
        await owed(east, west, 0)
        assert world.money("west") == MONEY + 301
        await confirmed(east)
        world.way.gate.clear()
        answer = await bob.pay("test.east.alice", 2 * UNIT + 5)  # a fraction of the bank's unit: it is carried
        assert answer is not None
        sent = len(world.way.sent)
        await until(lambda: len(world.way.sent) > sent)
        engine.kill()
        await engine.wait()
    world.way.gate.set()
    async with running(file):
        await until(lambda: world.money("east") == MONEY - 301 + 200)
        async with asyncio.timeout(WAIT_SECONDS):
            # West has paid all by its books; East waits for the rest, which the engine carries.
            while ((await east.balances())["west"], (await west.balances())["east"]) != (5, 0):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        shown = await isthmus("engine", "show", "bank", file)
        assert "Nothing is under way" in shown.stdout, shown
        assert len(set(world.way.sent)) == len({key for key, _ in world.way.sent}) == 2
        await alice.close()
        await bob.close()
