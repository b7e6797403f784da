"""`isthmus engine run xrp` and `xrp-payment`: they serve a connector by RFC 38, and settle with a node's engine."""

import asyncio
from pathlib import Path

import pytest

from isthmus.ilp.packet import Fulfill
from tests.ledgers.xrp.dev.conftest import Serving
from tests.node.conftest import WAIT_SECONDS, NodeProcess, Nodes, Peer, account, dials, toml
from tests.ports import free_port
from tests.settlement.conftest import isthmus
from tests.settlement.engine_run import running
from tests.settlement.xrp.test_nodes import UNIT, XRP, address, closing, drops, east_of, engine
from tests.settlement.xrp.world import ask

__all__ = ["closing"]

pytestmark = pytest.mark.slow


def engine_file(folder: Path, ledger: Serving, kind: str, listen: int, connector: int) -> Path:
    """The same options as in a node's file."""
    options = "".join(
        f"{line}\n" for line in engine(folder, ledger, "west", kind).splitlines()[1:] if not line.startswith("type")
    )
    path = folder / "engine.toml"
    path.write_text(
        f'asset = "XRP"\nscale = 9\nlisten = "127.0.0.1:{listen}"\n'
        f'[connector]\nurl = "http://127.0.0.1:{connector}"\ntimeout = "2 s"\n[engine]\n{options}[accounts.east]\n'
    )
    return path


async def owed(east: NodeProcess, west: NodeProcess, by_east: int, by_west: int) -> None:
    """Until the books say so: what East has with West, and West with East."""
    async with asyncio.timeout(60):
        while ((await east.balances())["west"], (await west.balances())["east"]) != (by_east, by_west):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("kind", ["xrp", "xrp-payment"])
async def test_it_pays_and_is_paid_through_its_kill(closing: Serving, nodes: Nodes, tmp_path: Path, kind: str) -> None:
    """SE-9, SE-10. A fraction of a drop is carried by the engine, and paid with what follows."""
    port, at, back = free_port(), free_port(), free_port()
    file = engine_file(tmp_path, closing, kind, at, back)
    west_text = toml(
        account("bob", asset="XRP"),
        account("east", asset="XRP", relation="peer", link=dials(port, "west")),
        '[accounts.east.settlement]\nengine = "house"\nthreshold = "1"\n',
        f'[settlement.house]\ntype = "rfc38"\nurl = "http://127.0.0.1:{at}"\nlisten = "127.0.0.1:{back}"\n'
        'timeout = "2 s"\n',
        address="test.west",
        routes={"test.east": "east"},
    )
    before = await drops(closing, "east")
    east = await nodes.run(east_of(tmp_path, closing, port, kind), folder=tmp_path / "east")
    west = await nodes.run(west_text, folder=tmp_path / "west")
    async with running(kind, file) as process:
        alice = (await Peer("alice").dial(east.port)).fulfil_all()
        bob = (await Peer("bob").dial(west.port)).fulfil_all()
        await alice.pay_when_linked("test.west.bob", 3 * UNIT)
        await owed(east, west, 0, 0)
        await alice.pay_when_linked("test.west.bob", 2 * UNIT)
        process.kill()
        await process.wait()
    async with running(kind, file) as process:
        await owed(east, west, 0, 0)
        # The other way: west's node asks its engine, which is killed as soon as it has it.
        assert isinstance(await bob.pay("test.east.alice", 4 * UNIT + 7), Fulfill)
        await west.until("settlement_ended", account="east")
        process.kill()
        await process.wait()
    async with running(kind, file):
        await owed(east, west, 7, 0)
        assert isinstance(await bob.pay("test.east.alice", UNIT + 993), Fulfill)
        await owed(east, west, 0, 0)
        async with asyncio.timeout(WAIT_SECONDS):
            while "Nothing is under way" not in (await isthmus("engine", "show", kind, file)).stdout:  # noqa: ASYNC110
                await asyncio.sleep(0.2)
        await alice.close()
        await bob.close()
    if kind == "xrp":
        (channel,) = (await ask(closing, "account_channels", account=address("east")))["channels"]
        assert channel["amount"] == str(50 * XRP)
    else:
        spent = before - await drops(closing, "east")
        assert spent % XRP < 1_000 and round(spent / XRP) == 0  # five XRP out and five in, but for fees
