"""The wallet's Unix socket."""

import asyncio
import stat
from pathlib import Path

import pytest

from isthmus.client.control import CALLERS_MAX, LINE_BYTES_MAX, ControlError, ControlServer, Emit, Json, call
from isthmus.errors import ConfigError, LinkError


async def echo(method: str, params: Json, emit: Emit, cancelled: asyncio.Event) -> Json:
    if method == "refuse":
        raise ControlError("no such payment", status=2)
    if method == "count":
        for n in range(int(params["to"])):
            emit({"n": n})
    if method == "wait":
        emit({"waiting": True})
        await cancelled.wait()
        return {"cancelled": True}
    return {"method": method, "params": params}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "wallet.sock"


async def test_a_request_is_answered_with_its_events_in_order(path: Path) -> None:
    server = ControlServer(path, echo)
    await server.start()
    events: list[Json] = []
    assert await call(path, "count", {"to": 3}, on_event=events.append) == {"method": "count", "params": {"to": 3}}
    assert events == [{"n": 0}, {"n": 1}, {"n": 2}]
    await server.close()


async def test_an_answer_may_be_longer_than_a_request(path: Path) -> None:
    async def history(method: str, params: Json, emit: Emit, cancelled: asyncio.Event) -> Json:
        return {"entries": ["x" * 4_000] * 50}

    server = ControlServer(path, history)
    await server.start()
    assert len((await call(path, "history", {}))["entries"]) == 50
    await server.close()


async def test_a_refusal_carries_its_words_and_exit_status(path: Path) -> None:
    server = ControlServer(path, echo)
    await server.start()
    with pytest.raises(ControlError, match="no such payment") as refused:
        await call(path, "refuse", {})
    assert refused.value.status == 2
    await server.close()


async def test_a_cancelled_call_still_gets_its_answer(path: Path) -> None:
    server = ControlServer(path, echo)
    await server.start()
    cancelled = asyncio.Event()
    assert await call(path, "wait", {}, on_event=lambda _: cancelled.set(), cancelled=cancelled) == {"cancelled": True}
    await server.close()


async def test_hanging_up_cancels_the_request(path: Path) -> None:
    ended = asyncio.Event()

    async def handler(method: str, params: Json, emit: Emit, cancelled: asyncio.Event) -> Json:
        await cancelled.wait()
        ended.set()
        return {}

    server = ControlServer(path, handler)
    await server.start()
    _, writer = await asyncio.open_unix_connection(str(path))
    writer.write(b'{"method":"wait"}\n')
    await writer.drain()
    writer.close()
    await asyncio.wait_for(ended.wait(), 60)
    await server.close()


async def test_only_the_owner_may_open_the_socket(path: Path) -> None:
    server = ControlServer(path, echo)
    await server.start()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    await server.close()
    assert not path.exists()


async def test_a_socket_left_by_a_killed_process_is_replaced(path: Path) -> None:
    path.write_bytes(b"")
    server = ControlServer(path, echo)
    await server.start()
    assert await call(path, "x", {}) == {"method": "x", "params": {}}
    await server.close()


async def test_without_a_server_the_caller_is_told(path: Path) -> None:
    with pytest.raises(LinkError, match="no process serves"):
        await call(path, "x", {})


@pytest.mark.parametrize("line", [b"\n", b"[]\n", b'{"method":1}\n', b'{"method":"a","params":[]}\n', b"\xff\n"])
async def test_what_is_not_a_request_is_refused(path: Path, line: bytes) -> None:
    server = ControlServer(path, echo)
    await server.start()
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(line)
    assert b"not a request" in await reader.readline()
    writer.close()
    await server.close()


async def test_a_line_over_the_bound_is_refused(path: Path) -> None:
    server = ControlServer(path, echo)
    await server.start()
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(b"x" * (LINE_BYTES_MAX * 3) + b"\n")
    assert b"not a request" in await reader.readline()
    writer.close()
    await server.close()


async def test_one_caller_too_many_is_told_to_try_again(path: Path) -> None:
    server = ControlServer(path, echo)
    await server.start()
    waiting = []
    for _ in range(CALLERS_MAX):
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(b'{"method":"wait"}\n')
        await reader.readline()
        waiting.append(writer)
    with pytest.raises(ControlError, match="try again"):
        await call(path, "x", {})
    for writer in waiting:
        writer.close()
    await server.close()


def test_a_folder_whose_path_is_too_long_for_a_socket_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="shorter path"):
        ControlServer(tmp_path / ("x" * 120), echo)
