"""What strangers write over HTTP: ILP over HTTP, tokens, SPSP answers, payment pointers, URLs.

Allowed is a value, or the decoder's own refusal: `CodecError` for packets, `ValueError` where it is documented
(SPSP), `TargetError` (pointers), `ConfigError` (URLs that an operator wrote), None (tokens).
"""

import hmac
import json
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any, Final

from multidict import CIMultiDict
from yarl import URL

from isthmus.apps import spsp
from isthmus.apps.pointers import Target as Payee
from isthmus.apps.pointers import TargetError, is_loopback, parse_target, redirect_target, resolve_pointer
from isthmus.connector.events import AccountId
from isthmus.errors import CodecError, ConfigError
from isthmus.ilp.address import is_valid
from isthmus.ilp.packet import Fulfill, Prepare, Reject, decode_reply, encode, view_prepare
from isthmus.links.btp.url import parse_btp_url
from isthmus.links.http.auth import Authenticator, BearerVerifier, JwtVerifier, decode_shared_secret
from isthmus.links.http.server import CALLBACK_URL_CHARS_MAX, read_head
from isthmus.links.http.session import (
    IncomingRequests,
    OutgoingRequests,
    Take,
    code_for_status,
    format_leg,
    format_uuid,
    parse_uuid,
    request_key,
)
from isthmus.links.http.settings import LEG_HEADER, Answer, Post
from isthmus.links.http.urls import allowed_callback, check_url, origin_of
from tests.fuzz.registry import Target

WALL: Final = 1_800_000_000_000
SESSION: Final = bytes(16)
AGREED: Final = origin_of("https://peer.example/ilp")
UUID: Final = "4a1ac3b6-0b5f-4a7e-9d5c-1f2e3d4c5b6a"
OURS: Final = format_uuid(request_key(SESSION, 1))


# --- ILP over HTTP ---------------------------------------------------------------------------------------------------


def fuzz_http(data: bytes) -> None:
    """Header lines, an empty line, a body; the first byte is the status of a response with that body."""
    status = 200 + 100 * (data[0] & 3) + (data[0] >> 2) if data else 200
    lines, _, body = data[1:].partition(b"\n\n")
    headers: CIMultiDict[str] = CIMultiDict()
    for line in lines.split(b"\n"):
        name, _, value = line.decode("utf-8", "surrogateescape").partition(":")
        headers.add(name, value.strip())
    outgoing = OutgoingRequests(asynchronous=bool(data[:1] and data[0] & 0x80))
    ours = outgoing.open(SESSION, 1, 10_000)
    _respond(outgoing, ours, status, body)
    head = read_head(headers)
    if isinstance(head, Answer):
        assert head.status in (400, 415)
        return
    assert head.request_id is None or len(head.request_id) == 16
    if head.leg is not None:
        assert request_key(*head.leg) == head.request_id, "a leg is that of its Request-Id"
        assert format_leg(*head.leg) == headers[LEG_HEADER]
    _check_callback(head)
    _take(head, body, outgoing)
    outgoing.sweep(10**9)
    assert len(outgoing) == 0


def _is_reply(body: bytes) -> bool:
    try:
        decode_reply(body)
    except CodecError:
        return False
    return True


def _respond(outgoing: OutgoingRequests, ours: bytes, status: int, body: bytes) -> None:
    """The peer's response to our POST has an outcome at most once."""
    reply = body if status == 200 and _is_reply(body) else None
    effect = outgoing.responded(ours, status, reply, 5_000)
    assert len(outgoing) == (effect is None)
    assert outgoing.responded(ours, 200, None, 5_000) is None
    assert len(code_for_status(status)) == 3
    if len(outgoing) == 0:
        outgoing.open(SESSION, 1, 10_000)


def _check_callback(head: Post) -> None:
    """A URL that we would POST replies to has, in the eyes of the client too, the host that was agreed."""
    assert AGREED is not None
    url = head.callback_url
    if url is None or not allowed_callback(url, AGREED):
        return
    assert len(url) <= CALLBACK_URL_CHARS_MAX
    target = URL(url)
    assert (target.scheme, _host(target.raw_host or ""), target.port) == ("https", "peer.example", 443), target
    assert target.user is None and target.password is None


def _take(head: Post, body: bytes, outgoing: OutgoingRequests) -> None:
    """The body as the link takes it: a Prepare is new once, a reply has an effect once."""
    if body[:1] == b"\x0c":
        try:
            view = view_prepare(body)
        except CodecError:
            return
        key = head.request_id or bytes(16)
        incoming = IncomingRequests(known_max=1)
        ends_at = min(max(0, view.expires_at - WALL), 120_000)
        take, known = incoming.prepare(key, body, ends_at, head.callback_url)
        assert take is Take.NEW and known is not None
        assert incoming.prepare(key, body, ends_at, None)[0] is Take.REPEATED
        assert incoming.prepare(key, body + b"x", ends_at, None)[0] is Take.CONFLICT
        assert incoming.prepare(key[1:] + b"x", body, ends_at, None)[0] is Take.FULL or key[1:] + b"x" == key
        incoming.sweep(ends_at)
        assert len(incoming) == 0
    elif _is_reply(body) and head.request_id is not None:
        status, deliver = outgoing.replied(head.request_id, body, 5_000)
        assert (status == 200) == (deliver is not None)
        assert outgoing.replied(head.request_id, body, 5_000) == (400, None)


def seeds_http() -> Iterator[bytes]:
    prepare = encode(Prepare(1, WALL + 5_000, bytes(32), "test.bob", b""))
    octets = "Content-Type: application/octet-stream\n"
    callback = "Prefer: respond-async\nCallback-Url: https://peer.example/ilp/replies\n"
    yield b"\0" + f"{octets}Request-Id: {UUID}\n{callback}\n".encode() + prepare
    yield b"\0" + f"{octets}Request-Id: {OURS}\n\n".encode() + encode(Fulfill(bytes(32)))
    yield (
        b"\x80"
        + f"Content-Type: application/ilp+octet-stream; x=1\nRequest-Id: {OURS}\n\n".encode()
        + encode(Reject("F02", "", ""))
    )
    yield b"\0" + f"{octets}Request-Id: {OURS}\n{LEG_HEADER}: {format_leg(SESSION, 1)}\n\n".encode() + prepare
    yield b"\x83" + f"{octets}Content-Encoding: gzip\n\n".encode()
    yield b"\x82" + b"Content-Type: text/plain\n\n"


# --- who speaks -------------------------------------------------------------------------------------------------------

KEY: Final = bytes(range(32))
TOKEN: Final = "t" * 43
HS256: Final = b'{"alg":"HS256","typ":"JWT"}'


def _segment(octets: bytes) -> str:
    return urlsafe_b64encode(octets).rstrip(b"=").decode()


def signed(header: bytes, claims: bytes) -> str:
    """A token whose signature is right, whatever it says."""
    text = f"{_segment(header)}.{_segment(claims)}"
    return f"{text}.{_segment(hmac.digest(KEY, text.encode(), 'sha256'))}"


def fuzz_auth(data: bytes) -> None:
    """The first byte says what the rest is: a header's value, signed claims, a signed header and claims, or a key."""
    kind, rest = (data[0] & 3, data[1:]) if data else (0, b"")
    authenticator = Authenticator()
    authenticator.add(AccountId("ann"), BearerVerifier.of_tokens(TOKEN))
    authenticator.add(AccountId("ben"), JwtVerifier("HS256", KEY, subject="ben"))
    authenticator.add(AccountId("cat"), JwtVerifier("HS256", KEY, subject="cat", issuer="us", audience="cat"))
    claims: Any = None
    if kind == 0:
        value = rest.decode("utf-8", "surrogateescape")
    elif kind == 1:
        claims = rest
        value = f"Bearer {signed(HS256, rest)}"
    elif kind == 2:
        header, _, claims = rest.partition(b"\n")
        value = f"Bearer {signed(header, claims)}"
    else:
        _decode_key(rest)
        return
    account = authenticator.identify(value, WALL)
    assert authenticator.identify(value, WALL) == account
    if account is None or (account == "ann" and kind == 0 and value.rstrip(" ").endswith(TOKEN)):
        return
    assert kind != 0, "nobody guesses a signature"
    said = json.loads(claims)
    assert said["sub"] == account
    assert said["exp"] * 1000 > WALL
    assert account != "cat" or (said["iss"] == "us" and "cat" in said["aud"])
    assert authenticator.identify(value, said["exp"] * 1000) is None


def _decode_key(data: bytes) -> None:
    try:
        key = decode_shared_secret(data.decode("utf-8", "surrogateescape"))
    except ValueError:
        return
    assert decode_shared_secret(b64encode(key).decode()) == key


def seeds_auth() -> Iterator[bytes]:
    yield b"\0Bearer " + TOKEN.encode()
    yield b"\0bearer a.b.c"
    yield b"\0Basic dTpw"
    later = WALL // 1000 + 60
    for claims in (
        {"sub": "ben", "exp": later},
        {"sub": "ben", "exp": later, "nbf": later - 100},
        {"sub": "cat", "iss": "us", "aud": ["cat"], "exp": later},
        {"sub": "cat", "iss": "us", "aud": "cat", "exp": later, "iat": 0, "jti": "1"},
    ):
        yield b"\1" + json.dumps(claims).encode()
        yield b"\2" + HS256 + b"\n" + json.dumps(claims).encode()
    yield b"\2" + b'{"alg":"none","crit":["b64"],"b64":false,"kid":"x"}\n{"sub":"ben"}'
    yield b"\3" + b64encode(KEY)


# --- SPSP ------------------------------------------------------------------------------------------------------------


def fuzz_spsp(data: bytes) -> None:
    """The first byte says what the rest is: an answer's body, its Cache-Control, or a request's receipt headers."""
    kind, rest = (data[0] % 3, data[1:]) if data else (0, b"")
    if kind == 0:
        try:
            address, secret, receipts = spsp.parse_details(rest)
        except ValueError:
            return
        assert is_valid(address) and len(secret) == spsp.SECRET_BYTES
        again = spsp.encode_details(address, secret, receipts_enabled=receipts)
        assert spsp.parse_details(again) == (address, secret, receipts)
        return
    text = rest.decode("utf-8", "surrogateescape")
    if kind == 1:
        assert 0 <= spsp.max_age_ms(text) <= spsp.CACHE_MS_MAX
        return
    nonce, _, secret_text = text.partition("\n")
    try:
        request = spsp.receipt_headers({"Receipt-Nonce": nonce, "Receipt-Secret": secret_text})
    except ValueError:
        return
    assert request is not None
    assert (len(request.nonce), len(request.secret)) == (spsp.NONCE_BYTES, spsp.SECRET_BYTES)


def seeds_spsp() -> Iterator[bytes]:
    yield b"\0" + spsp.encode_details("test.bob.x", bytes(32), receipts_enabled=True)
    yield b"\0" + json.dumps({"destination_account": "g.a", "shared_secret": "_-" * 21 + "8"}).encode()
    yield b"\1private, max-age=60"
    yield b'\1no-cache, MAX-AGE="9999999999"'
    yield b"\2" + b64encode(bytes(16)) + b"\n" + urlsafe_b64encode(bytes(32)).rstrip(b"=")


# --- pointers and URLs -----------------------------------------------------------------------------------------------


def fuzz_pointer(data: bytes) -> None:
    """What a person pasted, and, after a line break, where the server redirects to."""
    text, _, location = data.decode("utf-8", "surrogateescape").partition("\n")
    try:
        target = parse_target(text)
    except TargetError:
        return
    _check_target(target)
    if text.startswith("$"):
        assert resolve_pointer(text) == target.url
    try:
        next_target = redirect_target(target.url, location)
    except TargetError:
        return
    _check_target(next_target)
    assert next_target.url.startswith("https:") or not target.url.startswith("https:")


def _check_target(target: Payee) -> None:
    """The URL means the same to the HTTP client, and parsing it again changes nothing."""
    url = URL(target.url, encoded=True)
    assert url.scheme in ("http", "https")
    assert url.raw_host == target.host.strip("[]"), (url.raw_host, target.host)
    assert url.user is None and url.password is None and not url.fragment
    assert url.scheme == "https" or is_loopback(target.host)
    again = parse_target(target.url)
    assert (again.url, again.host) == (target.url, target.host)


def seeds_pointer() -> Iterator[bytes]:
    yield from (b"$bob.example", b"$bob.example/alice", b"$bob.example/%7Ea\n/other", b"https://h.example:8443/p?x=1")
    yield from (b"http://127.0.0.1:80/x\n//[::1]:81/y", b"https://[2001:db8::1]/\nhttps://b.example/", b"$h\nrelative")


def fuzz_url(data: bytes) -> None:
    """URLs that operators and peers write: what we take for the host is what the client connects to."""
    text = data.decode("utf-8", "surrogateescape")
    for insecure in (False, True):
        try:
            origin = check_url("url", text, allow_insecure=insecure)
        except ConfigError:
            continue
        assert origin == origin_of(text)
        url = URL(text)
        assert (url.scheme, url.port) == (origin.scheme, origin.port)
        assert _host(url.raw_host or "") == _host(origin.host), (url.raw_host, origin.host)
    for insecure in (False, True):
        try:
            found = parse_btp_url(text, allow_insecure=insecure)
        except ConfigError:
            continue
        assert found.is_secure == found.websocket_url.startswith("wss://")
        assert parse_btp_url(found.websocket_url, allow_insecure=True).host == found.host
        assert "@" not in found.websocket_url.partition("://")[2].partition("/")[0]
    assert parse_uuid(text) is None or len(text) == 36


def _host(host: str) -> str:
    """A name, or an address in its shortest spelling."""
    try:
        return str(ip_address(host))
    except ValueError:
        return host.rstrip(".")


def seeds_url() -> Iterator[bytes]:
    yield from (
        b"https://peer.example/ilp",
        b"http://127.0.0.1:8080/ilp?x=y",
        b"https://[::1]:1/",
        b"HTTPS://A.example.",
    )
    yield from (
        b"btp+wss://u:t@h.example:7768/btp?x=1",
        b"btp+ws://:t%20k@127.0.0.1:1",
        b"ws://localhost/",
        b"wss://[::1]",
    )
    yield UUID.encode()


TARGETS: Final[dict[str, Target]] = {
    "http": Target(
        fuzz_http,
        seeds_http,
        (
            b"\nRequest-Id: ",
            b"\nIsthmus-Leg: ",
            b"\nCallback-Url: https://peer.example/",
            b"\nPrefer: respond-async",
            b"application/octet-stream",
            b"@peer.example",
            UUID.encode(),
            OURS.encode(),
        ),
    ),
    "auth": Target(
        fuzz_auth,
        seeds_auth,
        (
            b'"exp":',
            b'"nbf":',
            b'"iat":',
            b'"aud":',
            b'"iss":"us"',
            b'"crit":["b64"]',
            b'"b64":false',
            b"1800000060",
            b"1e999",
        ),
        size_max=512,
    ),
    "spsp": Target(
        fuzz_spsp,
        seeds_spsp,
        (
            b'"destination_account":',
            b'"shared_secret":',
            b'"receipts_enabled":true',
            b"max-age=",
            b"no-store",
            b"\\u0000",
        ),
        size_max=512,
    ),
    "pointer": Target(
        fuzz_pointer, seeds_pointer, (b"https://", b"http://", b"%2e", b"[::1]", b"localhost"), size_max=400
    ),
    "url": Target(fuzz_url, seeds_url, (b"https://", b"btp+wss://", b"[::1]", b"%40", b"xn--", b":0"), size_max=400),
}
