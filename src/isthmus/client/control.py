"""The Unix socket by which other commands of a wallet work through the process that holds its link and journal.

One request a connection, as lines of JSON: the caller sends `{"method", "params"}`, gets any number of
`{"event": …}` and at the end `{"result": …}` or `{"problem": {"title", "detail", "status"}}`. A caller may send
`{"cancel": true}` while it waits; hanging up says the same. The socket is made with mode 600: who may open the
wallet's folder may use the wallet.
"""

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from isthmus.errors import ConfigError, IsthmusError, LinkError

Json = dict[str, Any]
Emit = Callable[[Json], None]
# Serves one request: (method, params, emit, cancelled) -> result. Raises IsthmusError for what the caller is told.
Handler = Callable[[str, Json, Emit, asyncio.Event], Awaitable[Json]]

LINE_BYTES_MAX: Final = 65_536  # of a request
# Of an answer or event: a history page or a thousand pings, with what strangers named themselves in them.
ANSWER_BYTES_MAX: Final = 4 * 1_048_576
CALLERS_MAX: Final = 64  # beyond it a caller is told to try again
REQUEST_WAIT_S: Final = 10  # a caller that says nothing gives its place back
WRITE_BUFFER_MAX: Final = 1_048_576  # events for a caller that doesn't read: it is hung up on
SOCKET_PATH_MAX: Final = 107  # of the operating system (sun_path), less the closing zero


class ControlError(IsthmusError):
    """The process that holds the wallet refused a request; `status` is the exit status that fits."""

    def __init__(self, detail: str, *, status: int = 1) -> None:
        super().__init__(detail)
        self.status = status


class ControlServer:
    """Serves a wallet's socket. `start` replaces a socket that a killed process left behind."""

    def __init__(self, path: Path, handler: Handler) -> None:
        if len(os.fsencode(path)) > SOCKET_PATH_MAX:
            raise ConfigError(
                "wallet folder",
                f"its path makes a socket name of more than {SOCKET_PATH_MAX} bytes",
                "Use a folder with a shorter path",
            )
        self._path = path
        self._handler = handler
        self._server: asyncio.AbstractServer | None = None
        self._callers: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        # The journal's lock is ours by now, so whoever made this socket is gone.
        self._path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o177)
        try:
            listener.bind(str(self._path))
        finally:
            os.umask(before)
        self._server = await asyncio.start_unix_server(self._serve, sock=listener, limit=LINE_BYTES_MAX)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for caller in list(self._callers):
            caller.cancel()
        await asyncio.gather(*self._callers, return_exceptions=True)
        self._path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._callers.add(task)
        try:
            if len(self._callers) > CALLERS_MAX:
                _send(writer, _problem("the wallet is busy with other commands; try again", 1))
            else:
                await self._answer(reader, writer)
            await writer.drain()
        except (ConnectionError, asyncio.CancelledError):
            pass  # the caller hung up, or the wallet ends: nobody is left to tell
        finally:
            self._callers.discard(task)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            method, params = _request(await asyncio.wait_for(reader.readline(), REQUEST_WAIT_S))
        except (TypeError, ValueError, TimeoutError) as error:
            _send(writer, _problem(f"not a request: {error}", 2))
            return
        cancelled = asyncio.Event()
        watch = asyncio.create_task(_watch(reader, cancelled))
        try:
            result = await self._handler(method, params, lambda event: _send(writer, {"event": event}), cancelled)
            _send(writer, {"result": result})
        except ControlError as error:
            _send(writer, _problem(str(error), error.status))
        except ConfigError as error:
            _send(writer, _problem(str(error), 2))
        except IsthmusError as error:
            _send(writer, _problem(str(error), 1))
        finally:
            watch.cancel()


async def call(
    path: Path,
    method: str,
    params: Json,
    *,
    on_event: Emit | None = None,
    cancelled: asyncio.Event | None = None,
) -> Json:
    """Ask the wallet's process for something and wait for the answer.

    Raises LinkError if nobody serves the socket, ControlError for a refusal.
    """
    try:
        reader, writer = await asyncio.open_unix_connection(str(path), limit=ANSWER_BYTES_MAX)
    except OSError as error:
        raise LinkError(f"no process serves the wallet at {path}") from error
    cancel = asyncio.create_task(_pass_on(cancelled, writer)) if cancelled is not None else None
    try:
        _send(writer, {"method": method, "params": params})
        while line := await reader.readline():
            message: Json = json.loads(line)
            if "result" in message:
                return dict(message["result"])
            if "problem" in message:
                raise ControlError(message["problem"]["detail"], status=message["problem"]["status"])
            if on_event is not None:
                on_event(message["event"])
        raise LinkError("the wallet's process ended before it answered")
    except ConnectionError as error:
        raise LinkError("the wallet's process ended before it answered") from error
    finally:
        if cancel is not None:
            cancel.cancel()
        writer.close()


async def _pass_on(cancelled: asyncio.Event, writer: asyncio.StreamWriter) -> None:
    await cancelled.wait()
    _send(writer, {"cancel": True})


async def _watch(reader: asyncio.StreamReader, cancelled: asyncio.Event) -> None:
    """Anything the caller still says, and its hanging up, means that it wants no more."""
    with contextlib.suppress(ConnectionError, ValueError):
        await reader.readline()
    cancelled.set()


def _request(line: bytes) -> tuple[str, Json]:
    message = json.loads(line)
    if not isinstance(message, dict):
        raise TypeError("expected an object")
    method, params = message.get("method"), message.get("params", {})
    if not isinstance(method, str) or not isinstance(params, dict):
        raise TypeError('expected "method", a string, and "params", an object')
    return method, params


def _problem(detail: str, status: int) -> Json:
    return {"problem": {"title": "Refused", "detail": detail, "status": status}}


def _send(writer: asyncio.StreamWriter, message: Json) -> None:
    if writer.is_closing():
        return
    if writer.transport.get_write_buffer_size() > WRITE_BUFFER_MAX:
        writer.transport.abort()
        return
    writer.write(json.dumps(message, separators=(",", ":")).encode() + b"\n")
