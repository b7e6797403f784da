"""SPSP: the client against servers good and bad, the server against raw requests, over real loopback sockets."""

import asyncio
import ssl
from base64 import b64encode, urlsafe_b64encode
from collections.abc import AsyncIterator, Awaitable, Callable

import aiohttp
import pytest
from aiohttp import web

from isthmus.apps.pointers import TargetError
from isthmus.apps.spsp import (
    BODY_BYTES_MAX,
    CACHE_ENTRIES_MAX,
    SPSP4,
    ReceiptRequest,
    SpspClient,
    SpspError,
    UnknownReceiverError,
    decode_secret,
    max_age_ms,
    parse_details,
)
from isthmus.apps.spsp_server import SpspServer, accepts_spsp

Serve = Callable[..., Awaitable[str]]
SECRET = bytes(range(224, 256))
BODY = b'{"destination_account": "g.alice.1", "shared_secret": "' + b64encode(SECRET) + b'", "balance": {"x": 1}}'


class Clock:
    def __init__(self) -> None:
        self.ms = 1_000

    def __call__(self) -> int:
        return self.ms


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def client(clock: Clock) -> AsyncIterator[SpspClient]:
    async with SpspClient(mono_ms=clock) as client:
        yield client


def answering(
    body: bytes = BODY,
    *,
    status: int = 200,
    headers: dict[str, str] | None = None,
    seen: list[web.BaseRequest] | None = None,
) -> Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]:
    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        if seen is not None:
            seen.append(request)
        return web.Response(status=status, body=body, headers={"Content-Type": SPSP4, **(headers or {})})

    return handle


def counting_server(**options: int) -> SpspServer:
    """Each answer has its own address and secret."""
    count = 0

    def make() -> tuple[str, bytes]:
        nonlocal count
        count += 1
        return f"g.bob.{count}", count.to_bytes(32, "big")

    server = SpspServer(**options)
    server.add(make)
    server.add(make, path="/bob")
    return server


async def serve_spsp(serve: Serve, server: SpspServer) -> str:
    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        assert isinstance(request, web.BaseRequest)
        return await server.handle(request)  # type: ignore[arg-type]

    return await serve(handle)


# --- client -----------------------------------------------------------------------------------------------------------


async def test_the_client_asks_for_spsp_and_takes_the_details_unchanged(serve: Serve, client: SpspClient) -> None:
    """SPSP-1, SPSP-3, SPSP-8: a GET with the Accept header; unknown fields are ignored."""
    seen: list[web.BaseRequest] = []
    url = await serve(answering(seen=seen))
    details = await client.query(f"{url}/alice?x=%20y")
    assert (details.destination_account, details.shared_secret) == ("g.alice.1", SECRET)
    assert details.receipts_enabled is False
    assert seen[0].method == "GET" and seen[0].path_qs == "/alice?x=%20y"
    assert seen[0].headers["Accept"] == "application/spsp4+json, application/spsp+json"
    assert "Cookie" not in seen[0].headers and "Accept-Encoding" not in seen[0].headers


async def test_client_and_server_meet(serve: Serve, client: SpspClient) -> None:
    """SPSP-2, SPSP-5: without max-age each query gets its own secret."""
    url = await serve_spsp(serve, counting_server())
    first, second = await client.query(f"{url}/bob"), await client.query(f"{url}/bob")
    assert (first.destination_account, second.destination_account) == ("g.bob.1", "g.bob.2")
    assert first.shared_secret != second.shared_secret


@pytest.mark.parametrize(
    "text",
    [
        b64encode(SECRET).decode(),
        b64encode(SECRET).decode().rstrip("="),
        urlsafe_b64encode(SECRET).decode(),
        urlsafe_b64encode(SECRET).decode().rstrip("="),
    ],
)
def test_secrets_in_either_alphabet_padded_or_not(text: str) -> None:
    """SPSP-4, X-12: Rafiki sends base64url without padding."""
    assert decode_secret(text) == SECRET


@pytest.mark.parametrize(
    "text",
    ["", "AAAA", b64encode(bytes(31)).decode(), b64encode(bytes(33)).decode(), "A" * 42, "A" * 44, "A" * 43 + "==",
     "A" * 43 + "\n", "é" * 43, "A" * 42 + "*", None, 7, ["A" * 43]],
)  # fmt: skip
def test_other_secrets_are_refused(text: object) -> None:
    """SPSP-4: any length but 32 bytes, and what is no base64."""
    assert decode_secret(text) is None


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"<html>hello</html>", "not JSON"),
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 30_000, "not JSON"),
        (b"[]", "not a JSON object"),
        (b'"g.alice"', "not a JSON object"),
        (b"9" * 10_000, "JSON"),
        (BODY.replace(b"g.alice.1", b"g"), "destination_account"),
        (BODY.replace(b"g.alice.1", b"g.alice\\n"), "destination_account"),
        (BODY.replace(b'"g.alice.1"', b"1"), "destination_account"),
        (BODY.replace(b"shared_secret", b"secret"), "shared_secret"),
        (BODY[:-1] + b",}", "not JSON"),
    ],
)
async def test_an_answer_that_is_not_spsp_says_what_is_wrong(
    serve: Serve, client: SpspClient, body: bytes, why: str
) -> None:
    """SPSP-3, X-12: the RFC's own example has a trailing comma and is no JSON either."""
    with pytest.raises(SpspError, match=why) as caught:
        await client.query(await serve(answering(body)))
    assert caught.value.remedy and caught.value.url


async def test_a_page_is_not_an_answer(serve: Serve, client: SpspClient) -> None:
    """SPSP-2: the Content-Type is checked, and shown harmlessly."""
    url = await serve(answering(headers={"Content-Type": "text/html"}))
    with pytest.raises(SpspError, match="'text/html' and not SPSP"):
        await client.query(url)


async def test_an_unknown_receiver_is_an_error_of_its_own(serve: Serve, client: SpspClient) -> None:
    """SPSP-6: from our own server."""
    url = await serve_spsp(serve, counting_server())
    with pytest.raises(UnknownReceiverError, match="no such receiver"):
        await client.query(f"{url}/carol")


@pytest.mark.parametrize("status", [204, 400, 406, 500])
async def test_other_statuses_are_errors(serve: Serve, client: SpspClient, status: int) -> None:
    """SPSP-2: only a 200 pays."""
    with pytest.raises(SpspError, match=str(status)):
        await client.query(await serve(answering(status=status)))


@pytest.mark.parametrize(("size", "fits"), [(BODY_BYTES_MAX, True), (BODY_BYTES_MAX + 1, False)])
async def test_a_huge_answer_is_given_up_at_the_bound(serve: Serve, client: SpspClient, size: int, fits: bool) -> None:
    """SPSP-3: on the bound and one past it."""
    url = await serve(answering(BODY + b" " * (size - len(BODY))))
    if fits:
        assert (await client.query(url)).destination_account == "g.alice.1"
        return
    with pytest.raises(SpspError, match="longer than 65536"):
        await client.query(url)


async def test_an_endless_answer_is_given_up_at_the_bound(serve: Serve, client: SpspClient) -> None:
    """SPSP-3: no Content-Length, no end."""

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": SPSP4})
        await response.prepare(request)
        while True:
            await response.write(b" " * 65_536)

    with pytest.raises(SpspError, match="longer than 65536"):
        await client.query(await serve(handle))


async def test_a_compressed_answer_is_not_unpacked(serve: Serve, client: SpspClient) -> None:
    """SPSP-3: nobody asked for it, and it may be a bomb."""
    with pytest.raises(SpspError, match="compressed"):
        await client.query(await serve(answering(headers={"Content-Encoding": "gzip"})))


@pytest.mark.parametrize("head", [True, False])
async def test_a_slow_answer_is_given_up(serve: Serve, clock: Clock, head: bool) -> None:
    """SPSP-1: before the head and within the body; one deadline for everything."""

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": SPSP4})
        if head:
            await response.prepare(request)
            await response.write(BODY[:10])
        await asyncio.Event().wait()
        return response

    async with SpspClient(mono_ms=clock, timeout_ms=100) as client:
        with pytest.raises(SpspError, match="no answer within 0.1 s"):
            await client.query(await serve(handle))


async def test_nobody_there_is_an_error_with_a_remedy(serve: Serve, client: SpspClient) -> None:
    """SPSP-1."""
    with pytest.raises(SpspError, match="can't be asked"):
        await client.query("http://127.0.0.1:1/bob")


async def test_plain_http_is_for_this_machine_only(client: SpspClient) -> None:
    """SPSP-1: refused before anything is sent."""
    with pytest.raises(TargetError, match="Use https"):
        await client.query("http://example.com/bob")


# --- redirects, TLS ---------------------------------------------------------------------------------------------------


def redirecting(to: Callable[[web.BaseRequest], str], status: int = 302) -> object:
    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/final":
            return await answering()(request)
        return web.Response(status=status, headers={"Location": to(request)})

    return handle


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_from_https_to_https_report_both_hosts(
    serve: Serve, clock: Clock, tls: tuple[ssl.SSLContext, ssl.SSLContext], status: int
) -> None:
    """PTR-4, SPSP-1: the user can verify where the question went and who answered."""
    url = await serve(redirecting(lambda request: "/final", status), tls[0])
    async with SpspClient(mono_ms=clock, ssl_context=tls[1]) as client:
        details = await client.query(f"{url}/bob")
    assert (details.resolved_host, details.final_host) == ("127.0.0.1", "127.0.0.1")
    assert details.destination_account == "g.alice.1"


async def test_the_final_host_is_that_of_the_last_redirect(serve: Serve, client: SpspClient) -> None:
    """PTR-4."""
    other = await serve(answering())
    url = await serve(redirecting(lambda request: other.replace("127.0.0.1", "localhost") + "/final"))
    details = await client.query(f"{url}/bob")
    assert (details.resolved_host, details.final_host) == ("127.0.0.1", "localhost")


async def test_a_redirect_out_of_https_is_refused(
    serve: Serve, clock: Clock, tls: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    """PTR-4: not even to this machine."""
    plain = await serve(answering())
    url = await serve(redirecting(lambda request: f"{plain}/final"), tls[0])
    async with SpspClient(mono_ms=clock, ssl_context=tls[1]) as client:
        with pytest.raises(SpspError, match="from https to http"):
            await client.query(f"{url}/bob")


async def test_redirects_in_a_circle_end(serve: Serve, client: SpspClient) -> None:
    """PTR-4."""
    with pytest.raises(SpspError, match="more than 5 redirects"):
        await client.query(await serve(redirecting(lambda request: "/again")) + "/bob")


async def test_a_redirect_to_a_trick_is_refused(serve: Serve, client: SpspClient) -> None:
    """PTR-4: the rules for URLs hold for redirects too."""
    with pytest.raises(SpspError, match="user information"):
        await client.query(await serve(redirecting(lambda request: "https://example.com@evil.example/")) + "/bob")


async def test_an_untrusted_certificate_is_refused(
    serve: Serve, client: SpspClient, tls: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    """PTR-4, SPSP-1: TLS identity is validated."""
    with pytest.raises(SpspError, match=r"can't be asked.*certificate"):
        await client.query(await serve(answering(), tls[0]))


# --- caching ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "ms"),
    [
        ("max-age=60", 60_000),
        ("Max-Age=60, public", 60_000),
        ('private, max-age="5"', 5_000),
        ("max-age=9999999999", 24 * 3_600_000),
        ("no-cache", 0),
        ("no-cache, max-age=60", 0),
        ("max-age=60, no-store", 0),
        ("max-age=0", 0),
        ("max-age=-1", 0),
        ("max-age=1.5", 0),
        ("max-age=99999999999", 0),
        ("s-maxage=60", 0),
        ("", 0),
        (None, 0),
    ],
)
def test_cache_control_is_read_strictly(header: str | None, ms: int) -> None:
    """SPSP-2, X-12: a positive number of seconds; without the header, as from Rafiki, nothing is kept."""
    assert max_age_ms(header) == ms


async def test_answers_are_kept_until_their_time_is_over(serve: Serve, client: SpspClient, clock: Clock) -> None:
    """SPSP-2, SPSP-9: re-query after expiry, or when told that the connection closed."""
    url = await serve_spsp(serve, counting_server(max_age_s=10))
    addresses = []
    for at in (0, 9_999, 10_000):
        clock.ms = 1_000 + at
        addresses.append((await client.query(f"{url}/bob")).destination_account)
    client.forget(f"{url}/bob")
    addresses.append((await client.query(f"{url}/bob")).destination_account)
    assert addresses == ["g.bob.1", "g.bob.1", "g.bob.2", "g.bob.3"]


async def test_the_cache_is_bounded(serve: Serve, client: SpspClient) -> None:
    """SPSP-2: the oldest answer makes room."""
    seen: list[web.BaseRequest] = []
    url = await serve(answering(headers={"Cache-Control": "max-age=60"}, seen=seen))
    for number in (*range(CACHE_ENTRIES_MAX + 1), CACHE_ENTRIES_MAX, 0):
        await client.query(f"{url}/{number}")
    assert len(seen) == CACHE_ENTRIES_MAX + 2


# --- receipts ---------------------------------------------------------------------------------------------------------


async def test_a_verifiers_query_carries_nonce_and_secret(serve: Serve, client: SpspClient) -> None:
    """RCPT-7: the receiver makes its credentials with them, and says that receipts are enabled."""
    requests: list[ReceiptRequest] = []

    def with_receipts(request: ReceiptRequest) -> tuple[str, bytes]:
        requests.append(request)
        return "g.bob.receipted", SECRET

    server = SpspServer(max_age_s=60)
    server.add(lambda: ("g.bob.plain", SECRET), path="/bob", make_receipt_credentials=with_receipts)
    url = await serve_spsp(serve, server)
    wish = ReceiptRequest(bytes(15) + b"\1", bytes(32))
    details = await client.query(f"{url}/bob", receipt=wish)
    assert details.receipts_enabled and details.destination_account == "g.bob.receipted" and requests == [wish]
    plain = await client.query(f"{url}/bob")
    assert not plain.receipts_enabled and plain.destination_account == "g.bob.plain"


async def test_a_receiver_without_receipts_does_not_claim_them(serve: Serve, client: SpspClient) -> None:
    """RCPT-7: the verifier sees that, and may answer 409."""
    url = await serve_spsp(serve, counting_server())
    details = await client.query(f"{url}/bob", receipt=ReceiptRequest(bytes(16), bytes(32)))
    assert not details.receipts_enabled


@pytest.mark.parametrize(
    "headers",
    [
        {"Receipt-Nonce": b64encode(bytes(16)).decode()},
        {"Receipt-Secret": b64encode(bytes(32)).decode()},
        {"Receipt-Nonce": b64encode(bytes(15)).decode(), "Receipt-Secret": b64encode(bytes(32)).decode()},
        {"Receipt-Nonce": b64encode(bytes(16)).decode(), "Receipt-Secret": b64encode(bytes(33)).decode()},
        {"Receipt-Nonce": "***", "Receipt-Secret": b64encode(bytes(32)).decode()},
        {"Receipt-Nonce": "", "Receipt-Secret": ""},
        {"Receipt-Nonce": "A", "Receipt-Secret": "A"},
    ],
)
async def test_half_a_receipt_request_is_refused(serve: Serve, headers: dict[str, str]) -> None:
    """RCPT-8."""
    url = await serve_spsp(serve, counting_server())
    async with (
        aiohttp.ClientSession() as http,
        http.get(f"{url}/bob", headers={"Accept": SPSP4, **headers}) as response,
    ):
        assert response.status == 400


# --- server -----------------------------------------------------------------------------------------------------------


async def test_the_answer_has_the_headers_that_the_rfc_asks_for(serve: Serve) -> None:
    """SPSP-2, SPSP-3, SPSP-7: type, Cache-Control, CORS. X-12: padded base64, as rs reads no other."""
    url = await serve_spsp(serve, counting_server())
    async with aiohttp.ClientSession() as http, http.get(f"{url}/bob", headers={"Accept": SPSP4}) as response:
        assert response.status == 200
        assert response.headers["Content-Type"] == "application/spsp4+json"
        assert response.headers["Cache-Control"] == "no-cache"
        assert response.headers["Access-Control-Allow-Origin"] == "*"
        assert response.headers["Access-Control-Allow-Headers"] == "web-monetization-id"
        fields = await response.json(content_type=None)
    assert fields == {"destination_account": "g.bob.1", "shared_secret": b64encode((1).to_bytes(32, "big")).decode()}
    assert len(fields["shared_secret"]) == 44


async def test_answers_are_not_for_shared_caches(serve: Serve) -> None:
    """SPSP-5: a proxy must not hand one client's secret to another."""
    url = await serve_spsp(serve, counting_server(max_age_s=60))
    async with aiohttp.ClientSession() as http, http.get(f"{url}/bob", headers={"Accept": SPSP4}) as response:
        assert response.headers["Cache-Control"] == "private, max-age=60"
    with pytest.raises(ValueError, match="SPSP-2"):
        SpspServer(max_age_s=-1)


async def test_an_unknown_path_gets_the_rfcs_error(serve: Serve) -> None:
    """SPSP-6."""
    url = await serve_spsp(serve, counting_server())
    async with aiohttp.ClientSession() as http, http.get(f"{url}/carol", headers={"Accept": SPSP4}) as response:
        assert response.status == 404
        assert response.headers["Content-Type"] == "application/spsp4+json"
        assert await response.json(content_type=None) == {
            "id": "InvalidReceiverError",
            "message": "Invalid receiver ID",
        }


async def test_options_allow_a_page_to_ask(serve: Serve) -> None:
    """SPSP-7."""
    url = await serve_spsp(serve, counting_server())
    async with aiohttp.ClientSession() as http, http.options(f"{url}/bob") as response:
        assert response.status == 204
        assert response.headers["Access-Control-Allow-Origin"] == "*"
        assert response.headers["Access-Control-Allow-Headers"] == "web-monetization-id"


async def test_only_get_is_answered(serve: Serve) -> None:
    """PTR-5."""
    url = await serve_spsp(serve, counting_server())
    async with aiohttp.ClientSession() as http, http.post(f"{url}/bob") as response:
        assert response.status == 405 and response.headers["Allow"] == "GET, OPTIONS"


@pytest.mark.parametrize(
    ("accept", "taken"),
    [
        ("application/spsp4+json, application/spsp+json", True),
        ("application/spsp4+json", True),
        ("text/html, Application/SPSP4+json;q=0.5", True),
        ("application/spsp+json", True),
        ("*/*", False),
        ("application/*", False),
        ("application/json", False),
        ("application/spsp4+json;q=0", False),
        ("application/spsp4+json; q=0.000", False),
        ("", False),
    ],
)
async def test_spsp_is_selected_by_name(serve: Serve, accept: str, taken: bool) -> None:
    """SPSP-10, PTR-5: content negotiation picks the protocol; `*/*` does not select SPSP."""
    assert accepts_spsp(accept) is taken
    url = await serve_spsp(serve, counting_server())
    async with aiohttp.ClientSession() as http, http.get(f"{url}/bob", headers={"Accept": accept}) as response:
        assert response.status == (200 if taken else 406)


async def test_the_server_lives_beside_other_routes(client: SpspClient) -> None:
    """PTR-2, SPSP-1: one application, SPSP for all paths that nothing else takes."""

    async def health(request: web.Request) -> web.Response:
        return web.Response(text="well")

    app = web.Application()
    app.router.add_get("/health", health)
    counting_server().register(app)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        assert (await client.query(f"{url}/.well-known/pay")).destination_account == "g.bob.1"
        async with aiohttp.ClientSession() as http, http.get(f"{url}/health") as response:
            assert await response.text() == "well"
    finally:
        await runner.cleanup()


async def test_a_removed_receiver_is_unknown(serve: Serve, client: SpspClient) -> None:
    """SPSP-6."""
    server = counting_server()
    server.remove("/bob")
    with pytest.raises(UnknownReceiverError):
        await client.query(await serve_spsp(serve, server) + "/bob")


def test_details_never_print_the_secret() -> None:
    """SPSP-3: they end up in logs."""
    address, secret, receipts = parse_details(BODY)
    assert (address, secret, receipts) == ("g.alice.1", SECRET, False)
    assert "secret" not in repr(ReceiptRequest(bytes(16), SECRET))
