"""One fetch from a real server or file: good answers, and everything that a bad one can do to us."""

import asyncio
import gzip
import os
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from isthmus.node.config_model import ClientTls, FileFetch, HttpFetch
from isthmus.node.config_values import Secret
from isthmus.node.rates.answers import Answer, JsonForm
from isthmus.node.rates.exact import AnswerError
from isthmus.node.rates.fetch import BODY_BYTES_MAX, FileFetcher, HttpFetcher
from tests.certificates import self_signed

ANSWERS = Path(__file__).parent / "answers"
BTC_USD = ("BTC", "USD")
PRICE = JsonForm(quotes=((BTC_USD, ("price",)),))
WALL = 1_800_000_000_000
GOOD = b'{"price": "64253.4"}'


def response(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


class Server:
    """A socket that answers each request with the bytes it was given, then does what the test wants."""

    def __init__(self, answer: bytes, then: Callable[[asyncio.StreamWriter], Awaitable[None]] | None) -> None:
        self._answer = answer
        self._then = then
        self.requests: list[str] = []

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            self.requests.append((await reader.readuntil(b"\r\n\r\n")).decode())
            writer.write(self._answer)
            await writer.drain()
            if self._then is not None:
                await self._then(writer)
        writer.close()


@pytest.fixture
async def serve() -> AsyncIterator[Callable[..., Awaitable[tuple[Server, str]]]]:
    servers: list[asyncio.Server] = []

    async def start(
        answer: bytes,
        then: Callable[[asyncio.StreamWriter], Awaitable[None]] | None = None,
        context: ssl.SSLContext | None = None,
    ) -> tuple[Server, str]:
        server = Server(answer, then)
        listening = await asyncio.start_server(server.handle, "127.0.0.1", 0, ssl=context)
        servers.append(listening)
        port = listening.sockets[0].getsockname()[1]
        return server, f"http{'s' if context else ''}://127.0.0.1:{port}/prices?pair=BTC"

    yield start
    for each in servers:
        each.close()


async def get(url: str, *, form: JsonForm | None = PRICE, wanted: list[str] | None = None, **more: Any) -> Answer:
    fetcher = HttpFetcher(HttpFetch(url=url, form=form, **more))
    try:
        return await fetcher.fetch(wanted or ["EUR", "USD"], WALL)
    finally:
        await fetcher.close()


# --- over HTTP -------------------------------------------------------------------------------------------------------


async def test_recorded_answers_over_a_real_connection(serve: Any) -> None:
    """P-1."""
    _, url = await serve(response((ANSWERS / "eurofxref-daily.xml").read_bytes(), "Content-Type: text/xml"))
    assert (await get(url, form=None)).quotes == {("EUR", "USD"): Fraction("1.0705")}
    _, url = await serve(response((ANSWERS / "coinbase.json").read_bytes()))
    table = JsonForm(table=("data", "rates"), base="USD")
    assert (await get(url, form=table)).quotes == {("USD", "EUR"): Fraction("0.9224")}
    server, url = await serve(response(GOOD))
    assert (await get(url)).quotes == {BTC_USD: Fraction("64253.4")}
    assert server.requests[0].startswith("GET /prices?pair=BTC HTTP/1.1")
    assert "Accept-Encoding: identity" in server.requests[0]
    assert "Cookie" not in server.requests[0]


async def test_what_a_cache_held_is_as_old_as_it_says(serve: Any) -> None:
    """RFC 9111: an hour in a cache is an hour of age."""
    _, url = await serve(response(GOOD, "Age: 3600"))
    assert (await get(url)).as_of_ms == WALL - 3_600_000
    for odd in ("-5", "1e3", "x", "9" * 30, ""):
        _, url = await serve(response(GOOD, f"Age: {odd}"))
        assert (await get(url)).as_of_ms is None


async def test_the_key_goes_where_it_should_and_into_no_error(serve: Any) -> None:
    """P-16."""
    key = Secret("k3y/with+signs")
    server, url = await serve(response(GOOD))
    await get(url, key=key, key_header="X-API-Key")
    assert "X-API-Key: k3y/with+signs\r\n" in server.requests[0]
    await get(url, key=key, key_query="app_id")
    assert "pair=BTC&app_id=k3y/with%2Bsigns " in server.requests[1]
    for broken in (
        b"",
        b"nonsense k3y/with+signs\r\n\r\n",
        response(b"k3y/with+signs"),
        b"HTTP/1.1 200 OK\r\nk3y/with+signs",
    ):
        _, url = await serve(broken)
        with pytest.raises(AnswerError) as raised:
            await get(url.replace("pair=BTC", "key=k3y"))
        assert "k3y" not in str(raised.value).replace("k3y/with", "")
        places: tuple[dict[str, Any], ...] = ({"key_header": "X-Key"}, {"key_query": "k"})
        for where in places:
            with pytest.raises(AnswerError) as raised:
                await get(url, key=key, **where)
            assert "k3y" not in str(raised.value)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (response(b"", status="503 Busy"), "answers 503"),
        (response(GOOD, status="201 Created"), "answers 201"),
        (response(b"", "Location: https://elsewhere.example/x", status="302 Found"), "sends us to 'elsewhere.example'"),
        (response(b"", "Location: /prices2", status="301 Moved"), "sends us to '127.0.0.1'"),
        (response(b"", "Location: http://[", status="307 Moved"), "sends us to nowhere"),
        (response(b"", status="308 Moved"), "sends us to '127.0.0.1'"),
        (response(gzip.compress(GOOD), "Content-Encoding: gzip"), "compressed"),
        (response(gzip.compress(bytes(50_000_000)), "Content-Encoding: gzip"), "compressed"),
        (response(b"\x00", "Content-Encoding: br"), "compressed"),
        (response(b" " * (BODY_BYTES_MAX + 1)), "longer than"),
        (response(b'{"price": "' + b"1" * 10_000_000 + b'"}'), "longer than"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + GOOD, "."),  # ends too early
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc", "."),
        (b"SSH-2.0-OpenSSH_9\r\n", "."),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200_000 + b"\r\n", "."),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 1_000_000 + b"\r\n\r\n", "."),
        (b"", "."),
        (response(GOOD[:-3]), "not JSON"),
    ],
)
async def test_bad_answers_are_refused_in_a_line(serve: Any, answer: bytes, why: str) -> None:
    """P-9."""
    _, url = await serve(answer)
    with pytest.raises(AnswerError, match=why) as raised:
        await get(url)
    assert len(str(raised.value)) <= 300


async def test_the_largest_answer_is_read(serve: Any) -> None:
    _, url = await serve(response(GOOD + b" " * (BODY_BYTES_MAX - len(GOOD))))
    assert (await get(url)).quotes


async def test_an_endless_answer_is_cut_off(serve: Any) -> None:
    """No Content-Length, and no end."""

    async def flood(writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(b" " * 65_536)
            await writer.drain()

    _, url = await serve(b"HTTP/1.1 200 OK\r\n\r\n", flood)
    with pytest.raises(AnswerError, match="longer than"):
        await get(url)


async def test_a_slow_drip_ends_at_the_time_limit(serve: Any) -> None:
    """Each byte comes in time, and the whole doesn't."""
    stop = asyncio.Event()

    async def drip(writer: asyncio.StreamWriter) -> None:
        while not stop.is_set():
            writer.write(b" ")
            await writer.drain()
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), 0.01)

    _, url = await serve(b"HTTP/1.1 200 OK\r\nContent-Length: 500000\r\n\r\n", drip)
    with pytest.raises(AnswerError, match="no whole answer within 200 ms"):
        await get(url, timeout_ms=200)
    stop.set()


async def test_nobody_there() -> None:
    with pytest.raises(AnswerError, match="Connect|connect"):
        await get("http://127.0.0.1:1/")


# --- under TLS -------------------------------------------------------------------------------------------------------


async def test_certificates_are_checked_their_names_too(serve: Any, tmp_path: Path) -> None:
    """P-16: a price from whoever sits on the way is worse than none."""
    ours, other = tmp_path / "ours", tmp_path / "other"
    ours.mkdir()
    other.mkdir()
    trusted = self_signed(ours)
    _, url = await serve(response(GOOD), context=trusted.server())
    assert (await get(url, tls=ClientTls(ca_file=trusted.file))).quotes
    with pytest.raises(AnswerError, match="certificate"):
        await get(url)
    elsewhere = self_signed(other, x509.DNSName("prices.example"))
    _, url = await serve(response(GOOD), context=elsewhere.server())
    with pytest.raises(AnswerError, match="certificate|match"):
        await get(url, tls=ClientTls(ca_file=elsewhere.file))


# --- files -----------------------------------------------------------------------------------------------------------


def replaced(path: Path, text: str, at_s: int) -> None:
    """As an operator's tool should do it: written beside, then put in place."""
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    os.utime(fresh, (at_s, at_s))
    fresh.replace(path)


async def test_a_file_is_read_again_when_it_was_replaced(tmp_path: Path) -> None:
    """And is as old as its last change, unless it says itself."""
    path = tmp_path / "rates.json"
    fetcher = FileFetcher(FileFetch(path=path))
    with pytest.raises(AnswerError, match="No such file"):
        await fetcher.fetch([], WALL)
    replaced(path, '{"rates": {"BTC/USD": "1"}}', 1_000_000)
    assert await fetcher.fetch([], WALL) == Answer({BTC_USD: Fraction(1)}, 1_000_000_000)
    known = await fetcher.fetch([], WALL)
    assert known is await fetcher.fetch([], WALL)  # it was not read again
    replaced(path, '{"rates": {"BTC/USD": "2"}}', 1_000_000)
    assert await fetcher.fetch([], WALL) == Answer({BTC_USD: Fraction(2)}, 1_000_000_000)
    replaced(path, '{"rates": {"BTC/USD": "2"}, "as_of": 999}', 1_000_000)
    assert await fetcher.fetch([], WALL) == Answer({BTC_USD: Fraction(2)}, 999_000)
    os.utime(path, (3 * 10**9, 3 * 10**9))
    replaced(path, '{"rates": {"BTC/USD": "2"}}', 3 * 10**9)
    assert await fetcher.fetch([], WALL) == Answer({BTC_USD: Fraction(2)}, WALL)  # no younger than now


async def test_a_bad_file_is_tried_again_until_it_is_good(tmp_path: Path) -> None:
    path = tmp_path / "rates.toml"
    fetcher = FileFetcher(FileFetch(path=path))
    path.write_text('[rates]\n"BTC/USD" = ')
    for _ in range(2):
        with pytest.raises(AnswerError, match="not TOML"):
            await fetcher.fetch([], WALL)
    path.write_text('[rates]\n"BTC/USD" = "5"\n')
    found = await fetcher.fetch([], WALL)
    assert found.quotes == {BTC_USD: 5}
    path.unlink()
    with pytest.raises(AnswerError):
        await fetcher.fetch([], WALL)


async def test_pipes_devices_folders_and_giants_are_no_files_of_rates(tmp_path: Path) -> None:
    """P-9: none of them hangs the node, or fills it."""
    pipe, big = tmp_path / "pipe.json", tmp_path / "big.json"
    os.mkfifo(pipe)
    with open(big, "wb") as file:
        file.truncate(10_000_000)
    zero = tmp_path / "zero.json"
    zero.symlink_to("/dev/zero")
    for path in (pipe, big, zero, tmp_path):
        with pytest.raises(AnswerError):
            await FileFetcher(FileFetch(path=path)).fetch([], WALL)
