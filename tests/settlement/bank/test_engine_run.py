"""`isthmus engine run bank`: our engine serves a connector by RFC 38, and settles with one that runs in a node."""

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from isthmus.ilp.packet import Fulfill
from tests.node.conftest import WAIT_SECONDS, Nodes, Peer, account, dials, toml
from tests.ports import free_port
from tests.settlement.bank.test_nodes import UNIT, confirmed, east_of, owed
from tests.settlement.bank.world import MONEY, World, until
from tests.settlement.conftest import isthmus
from tests.settlement.engine_run import running


def engine_file(world: World, token: str, listen: int, connector: int) -> str:
    return (
        f'asset = "USD"\nscale = 9\nlisten = "127.0.0.1:{listen}"\n'
        f'[connector]\nurl = "http://127.0.0.1:{connector}"\ntimeout = "2 s"\n'
        f'[engine]\nurl = "{world.way.url}"\naccount = "west"\ntoken = "{token}"\nasset = "USD"\npoll = "100 ms"\n'
        f'[accounts.east]\npeer_account = "east"\n'
    )


@pytest.mark.slow
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
    async with running("ledger", file) as engine:
        alice = (await Peer("alice").dial(east.port)).fulfil_all()
        bob = (await Peer("bob").dial(west.port)).fulfil_all()
        await alice.pay_when_linked("test.west.bob", 3 * UNIT + 10**7)
        await owed(east, west, 0)
        assert world.money("west") == MONEY + 301
        await confirmed(east)
        world.way.gate.clear()
        # a fraction of the bank's unit: it is carried
        assert isinstance(await bob.pay("test.east.alice", 2 * UNIT + 5), Fulfill)
        sent = len(world.way.sent)
        await until(lambda: len(world.way.sent) > sent)
        engine.kill()
        await engine.wait()
    world.way.gate.set()
    async with running("ledger", file):
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


@pytest.mark.slow
async def test_what_is_nobodys_is_assigned_while_it_is_stopped(world: World, tmp_path: Path) -> None:
    """The connector is told once the engine runs again."""
    at, told = free_port(), asyncio.Queue[tuple[str, dict[str, Any]]]()

    async def take(request: web.Request) -> web.Response:
        found = json.loads(await request.read())
        if request.path.endswith("/settlements"):
            await told.put((request.headers["Idempotency-Key"], found))
        return web.json_response(found, status=201)

    app = web.Application()
    app.router.add_post("/accounts/{id}/settlements", take)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    file = tmp_path / "engine.toml"
    file.write_text(engine_file(world, world.bank.new_token("west", "")[1], at, runner.addresses[0][1]))
    never = await isthmus("engine", "unmatched", "bank", file)
    assert (never.returncode, "has never run" in never.stderr) == (1, True)
    url, timeout = f"http://127.0.0.1:{at}/accounts", aiohttp.ClientTimeout(total=WAIT_SECONDS)
    async with running("ledger", file), aiohttp.ClientSession(timeout=timeout) as http:
        async with http.post(url, json={"id": "east"}) as answer:
            assert answer.status == 201
        looks = world.way.asked.count(("GET", "/accounts/west"))  # before it had an account too
        await until(lambda: world.way.asked.count(("GET", "/accounts/west")) > looks + 2)
        for amount, reference in ((250, "for May"), (7, "a gift")):
            world.pay("stranger", "west", amount, reference, key=reference[-3:])
        await until(lambda: ("GET", "/accounts/west/entries") in world.way.asked)
        seen = len(world.way.asked)
        await until(lambda: len(world.way.asked) > seen + 2)
        busy = await isthmus("engine", "unmatched", "bank", file)
        assert (busy.returncode, "in use by another process" in busy.stderr) == (1, True)
    shown = await isthmus("engine", "unmatched", "bank", file, "--json")
    debt, gift = json.loads(shown.stdout)["transfers"]
    assert (debt["amount"], gift["reference"]) == ("250", "a gift")
    assert "2.5 USD" in (await isthmus("engine", "unmatched", "bank", file)).stdout
    wrong = await isthmus("engine", "assign", "bank", file, "nobody", debt["id"], "--note", "x")
    assert (wrong.returncode, wrong.stderr.count("\n"), "no account" in wrong.stderr) == (1, 1, True)
    done = await isthmus("engine", "assign", "bank", file, "east", debt["id"], "--note", "their mail")
    assert done.returncode == 0, done.stderr
    again = await isthmus("engine", "assign", "bank", file, "east", debt["id"], "--note", "their mail")
    assert (again.returncode, "no transfer" in again.stderr) == (1, True)
    done = await isthmus("engine", "dismiss", "bank", file, gift["id"], "--note", "sent back")
    assert done.returncode == 0, done.stderr
    assert (await isthmus("engine", "unmatched", "bank", file)).stdout == "Nothing waits.\n"
    async with running("ledger", file):
        async with asyncio.timeout(WAIT_SECONDS):
            _, credit = await told.get()
        assert int(credit["amount"]) * 10 ** (9 - credit["scale"]) == 25 * UNIT // 10
    assert told.empty()
    await runner.cleanup()
