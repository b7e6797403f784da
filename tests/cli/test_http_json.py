"""A server that answers badly: what it is taken for, and never a stack trace."""

import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from isthmus.cli.http_json import Json, NoAnswerError, RefusalError, exchange

Serve = Callable[[bytes], str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """A server on this machine that gives these bytes to whoever asks, once; its URL."""
    threads: list[threading.Thread] = []

    def start(answer: bytes) -> str:
        server = socket.create_server(("127.0.0.1", 0))

        def run() -> None:
            with server, server.accept()[0] as connection:
                connection.recv(65_536)
                connection.sendall(answer)

        threads.append(threading.Thread(target=run))
        threads[-1].start()
        return f"http://127.0.0.1:{server.getsockname()[1]}/x"

    yield start
    for thread in threads:
        thread.join()


def ask(url: str) -> Json:
    return exchange("POST", url, {"a": 1}, token="t", wait_s_max=10, bytes_max=1_000, directly=True)


def response(status: str, body: bytes) -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body


def test_an_object_is_the_answer(serve: Serve) -> None:
    assert ask(serve(response("200 OK", b'{"b": "2"}'))) == {"b": "2"}


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{",
        response("200 OK", b"[]"),
        response("200 OK", b"7"),
        response("200 OK", b"no JSON"),
    ],
)
def test_what_is_no_object_is_no_answer(serve: Serve, answer: bytes) -> None:
    with pytest.raises(NoAnswerError, match=r"\S"):
        ask(serve(answer))


@pytest.mark.parametrize(
    "answer, detail",
    [
        (response("409 Conflict", b'{"detail": "it is there"}'), "it is there"),
        (response("409 Conflict", b"<html>"), None),
        (response("409 Conflict", b"[]"), None),
        (b"HTTP/1.1 409 Conflict\r\nContent-Length: 100\r\n\r\n{", None),
    ],
)
def test_a_refusal_has_its_reason_or_none(serve: Serve, answer: bytes, detail: str | None) -> None:
    with pytest.raises(RefusalError) as refused:
        ask(serve(answer))
    assert (refused.value.status, refused.value.detail) == (409, detail)
