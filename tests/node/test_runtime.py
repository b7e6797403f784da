"""A node's life: start, announce, serve, drain, stop; the journal is its own."""

import asyncio
import contextlib
import json
import signal
import stat
from hashlib import sha256
from pathlib import Path
from typing import Any

import aiohttp

from isthmus.ilp.packet import Fulfill, Prepare, Reject, decode, encode_prepare
from tests.node.conftest import wall_ms


async def test_it_says_where_it_is_reached_and_takes_that_back(nodes: Any, two: str) -> None:
    node = await nodes.run(two)
    file = node.folder / "data" / "running.json"
    running = json.loads(file.read_text())
    assert running["pid"] == node.process.pid
    assert set(running["listening"]) == {"btp", "admin"} and node.port != 0
    assert stat.S_IMODE((node.folder / "data").stat().st_mode) == 0o700
    assert stat.S_IMODE((node.folder / "data" / "journal.db").stat().st_mode) == 0o600
    assert await node.stop() == 0
    assert not file.exists()


async def test_packets_pass_and_the_books_are_there_after_a_restart(nodes: Any, two: str, peer: Any) -> None:
    """CONN-3."""
    node = await nodes.run(two)
    alice, bob = await peer(node, "alice"), await peer(node, "bob", fulfils=True)
    assert isinstance(await alice.pay("test.node.bob.x", 700), Fulfill)
    back = await bob.pay("test.nowhere", 5)
    assert isinstance(back, Reject) and (back.code, back.triggered_by) == ("F02", "test.node")
    before = await node.balances()
    assert before == {"alice": 700, "bob": -700}
    assert await node.stop() == 0
    again = await nodes.run(two, folder=node.folder)
    assert await again.balances() == before


async def test_sigterm_answers_what_is_in_flight_and_takes_nothing_new(nodes: Any, two: str, peer: Any) -> None:
    node = await nodes.run(two)
    alice, bob = await peer(node, "alice"), await peer(node, "bob")
    in_flight = alice.prepare("test.node.bob", 10)
    request = await bob.request()
    node.signal(signal.SIGTERM)
    assert (await node.until("stopping"))["in_flight"] == 2
    late = await alice.pay("test.node.bob", 11)
    assert isinstance(late, Reject) and late.code == "T03"
    bob.fulfil(request)
    assert isinstance(await in_flight, Fulfill)
    assert await node.exit_code() == 0
    assert node.log[-1]["event"] == "stopped"


async def test_a_stopped_node_replays_nothing(nodes: Any, two: str, peer: Any) -> None:
    """The last checkpoint is the state itself; the next start only appends after it."""
    from isthmus.journal.reader import JournalReader

    node = await nodes.run(two)
    alice, _ = await peer(node, "alice"), await peer(node, "bob", fulfils=True)
    assert isinstance(await alice.pay("test.node.bob", 10), Fulfill)
    assert await node.stop() == 0
    with JournalReader(str(node.folder / "data" / "journal.db")) as reader:
        checkpoint = reader.load_checkpoint()
        assert checkpoint is not None and checkpoint.sequence == reader.last_sequence > 0


async def test_a_second_process_on_the_same_journal_is_refused_in_one_line(nodes: Any, two: str) -> None:
    first = await nodes.run(two)
    second = await nodes.launch(two, folder=first.folder)
    assert await second.exit_code() == 1
    assert len(second.lines) == 1
    assert "in use by another process" in second.lines[0] and str(first.process.pid) in second.lines[0]
    assert (await first.get("/health"))[0] == 200
    assert json.loads((first.folder / "data" / "running.json").read_text())["pid"] == first.process.pid


async def test_a_changed_asset_is_told_at_the_start(nodes: Any, config: Any) -> None:
    node = await nodes.run(config.toml(config.account("alice")))
    assert await node.stop() == 0
    again = await nodes.launch(config.toml(config.account("alice", asset="EUR")), folder=node.folder)
    assert await again.exit_code() == 2
    (line,) = again.lines
    assert "accounts.alice.asset" in line and "USD" in line


async def test_an_account_with_a_balance_may_not_go(nodes: Any, two: str, config: Any, peer: Any) -> None:
    """One that never had any may."""
    text = config.toml(config.account("alice"), config.account("bob"), config.account("carol"))
    node = await nodes.run(text)
    alice, _ = await peer(node, "alice"), await peer(node, "bob", fulfils=True)
    assert isinstance(await alice.pay("test.node.bob", 10), Fulfill)
    assert await node.stop() == 0
    without_bob = await nodes.launch(config.toml(config.account("alice")), folder=node.folder)
    assert await without_bob.exit_code() == 2
    assert "accounts.bob" in without_bob.lines[0]
    without_carol = await nodes.run(two, folder=node.folder)
    assert await without_carol.balances() == {"alice": 10, "bob": -10}


async def test_a_port_in_use_is_told_in_one_line(nodes: Any, config: Any, two: str) -> None:
    first = await nodes.run(two)
    taken = config.toml(config.account("alice"), btp=first.port)
    second = await nodes.launch(taken)
    assert await second.exit_code() == 1
    assert "can't listen on" in second.lines[-1] and str(first.port) in second.lines[-1]
    assert not any("Traceback" in line or "Task" in line for line in second.lines)


async def test_a_data_folder_that_cant_be_made_is_told_in_one_line(nodes: Any, config: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    text = f'data = "{tmp_path / "file" / "data"}"\n' + config.toml(config.account("alice"))
    node = await nodes.launch(text)
    assert await node.exit_code() in (1, 2)
    assert len(node.lines) == 1


async def test_a_wrong_file_is_told_before_anything_is_opened(nodes: Any, config: Any) -> None:
    node = await nodes.launch(config.toml(config.account("alice")).replace("scale = 9", "scale = 900"))
    assert await node.exit_code() == 2
    (line,) = node.lines
    assert "accounts.alice.scale" in line
    assert not (node.folder / "data").exists()


async def test_sigterm_answers_an_http_request_in_flight_too(nodes: Any, config: Any, peer: Any) -> None:
    """HTTP-10: the reply of a synchronous request leaves before its connection is closed."""
    link = f'{{ type = "http", incoming = {{ auth = "bearer", token = "{config.token_of("eve")}" }} }}'
    node = await nodes.run(config.toml(config.account("bob"), config.account("eve", link=link), http=0))
    bob = await peer(node, "bob")
    preimage = bytes(range(32))
    prepare = Prepare(3, wall_ms() + 20_000, sha256(preimage).digest(), "test.node.bob", preimage)

    async def post() -> tuple[int, bytes]:
        headers = {"Authorization": f"Bearer {config.token_of('eve')}", "Content-Type": "application/octet-stream"}
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session,
            session.post(node.listening["http"], data=encode_prepare(prepare), headers=headers) as response,
        ):
            return response.status, await response.read()

    posting = asyncio.create_task(post())
    request = await bob.request()
    node.signal(signal.SIGTERM)
    await node.until("stopping", in_flight=2)
    bob.fulfil(request)
    status, body = await posting
    assert status == 200 and decode(body) == Fulfill(preimage)
    assert await node.exit_code() == 0


async def test_a_second_sigterm_does_not_wait_and_loses_nothing(nodes: Any, two: str, peer: Any) -> None:
    """Exit status 1; the packet is in flight again in the next process, and ends as if nothing had been."""
    node = await nodes.run(two)
    alice, bob = await peer(node, "alice"), await peer(node, "bob")
    in_flight = alice.prepare("test.node.bob", 10)
    request = await bob.request()
    async with asyncio.timeout(60):
        while node.process.returncode is None:
            node.signal(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(node.process.wait(), 0.2)
    assert await node.exit_code() == 1
    await alice.close()
    await bob.close()
    again = await nodes.run(two, folder=node.folder)
    await alice.dial(again.port)
    await bob.dial(again.port)
    bob.fulfil(request)
    assert isinstance(await asyncio.wait_for(in_flight, 60), Fulfill)
    assert await again.balances() == {"alice": 10, "bob": -10}
