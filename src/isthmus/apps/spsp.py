"""SPSP, the Simple Payment Setup Protocol (RFC 0009): from a pointer or URL to the address and secret to pay to.

The client asks once, over https, within bounds of time and size. The server's half is in `spsp_server.py`.
"""

import asyncio
import json
import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from ssl import SSLContext
from types import TracebackType
from typing import Final, final

import aiohttp
from yarl import URL

from isthmus.apps.pointers import Target, TargetError, parse_target, redirect_target
from isthmus.errors import IsthmusError
from isthmus.ilp.address import is_valid

SPSP4: Final = "application/spsp4+json"
SPSP: Final = "application/spsp+json"
ACCEPT: Final = f"{SPSP4}, {SPSP}"
SECRET_BYTES: Final = 32
NONCE_BYTES: Final = 16

BODY_BYTES_MAX: Final = 65_536
TIMEOUT_MS: Final = 10_000
REDIRECTS_MAX: Final = 5
CACHE_ENTRIES_MAX: Final = 256
CACHE_MS_MAX: Final = 24 * 3_600_000  # whatever a server says, its answer is asked for again after a day

_SECRET: Final = re.compile(r"[A-Za-z0-9+/_-]{43}=?")
_MAX_AGE: Final = re.compile(r"max-age=(?:([0-9]{1,10})|\"([0-9]{1,10})\")")
_REDIRECTS: Final = (301, 302, 303, 307, 308)


class SpspError(IsthmusError):
    """The receiver could not be asked, or gave no usable answer; `remedy` says what may help."""

    def __init__(self, url: str, problem: str, remedy: str) -> None:
        super().__init__(f"{url}: {problem}. {remedy}")
        self.url = url
        self.problem = problem
        self.remedy = remedy


@final
class UnknownReceiverError(SpspError):
    """The server knows no such receiver (SPSP-6)."""


@dataclass(slots=True, frozen=True)
class SpspDetails:
    """What STREAM needs to pay a receiver. The hosts are for the user to verify (PTR-4)."""

    destination_account: str
    shared_secret: bytes = field(repr=False)
    receipts_enabled: bool
    resolved_host: str  # the host that the pointer or URL names
    final_host: str  # the host that answered, after redirects
    expires_at: int  # mono ms; ask again after this. The time of the answer if it must not be cached


@dataclass(slots=True, frozen=True)
class ReceiptRequest:
    """A verifier's wish for receipts (RFC 0039, "SPSP"). The secret never reaches the sender (RCPT-6)."""

    nonce: bytes
    secret: bytes = field(repr=False)


def decode_secret(text: object) -> bytes | None:
    """32 bytes from base64 or base64url, padded or not (SPSP-4, X-12); None for anything else."""
    if not isinstance(text, str) or _SECRET.fullmatch(text) is None:
        return None
    standard = text.rstrip("=").replace("-", "+").replace("_", "/")
    return b64decode(standard + "=")


def encode_details(address: str, secret: bytes, *, receipts_enabled: bool = False) -> bytes:
    """The body of a 200 (SPSP-3): base64 with padding, the one form that every client reads (X-12)."""
    assert is_valid(address) and len(secret) == SECRET_BYTES
    body: dict[str, str | bool] = {"destination_account": address, "shared_secret": b64encode(secret).decode()}
    if receipts_enabled:
        body["receipts_enabled"] = True
    return json.dumps(body).encode()


def max_age_ms(cache_control: str | None) -> int:
    """For how long an answer may be kept (SPSP-2). 0 without the header (Rafiki leaves it out, X-12)."""
    directives = [each.strip().lower() for each in (cache_control or "").split(",")]
    if "no-cache" in directives or "no-store" in directives:
        return 0
    for directive in directives:
        match = _MAX_AGE.fullmatch(directive)
        if match is not None:
            return min(int(match[1] or match[2]) * 1000, CACHE_MS_MAX)
    return 0


def parse_details(body: bytes) -> tuple[str, bytes, bool]:
    """Address, secret and `receipts_enabled` of an SPSP answer; ValueError says in words what is wrong with it."""
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ValueError("the answer is not JSON") from error
    if not isinstance(fields, dict):
        raise ValueError("the answer is not a JSON object")
    address = fields.get("destination_account")
    if not isinstance(address, str) or not is_valid(address):
        raise ValueError("destination_account is not an ILP address")
    secret = decode_secret(fields.get("shared_secret"))
    if secret is None:
        raise ValueError("shared_secret is not base64 of 32 bytes")
    return address, secret, fields.get("receipts_enabled") is True


@final
class SpspClient:
    """Asks SPSP endpoints, and keeps their answers as long as they say. Use `async with`, or `close` it."""

    def __init__(
        self,
        *,
        mono_ms: Callable[[], int],
        ssl_context: SSLContext | None = None,
        timeout_ms: int = TIMEOUT_MS,
    ) -> None:
        self._mono_ms = mono_ms
        self._ssl = ssl_context if ssl_context is not None else True
        self._timeout_ms = timeout_ms
        self._http: aiohttp.ClientSession | None = None
        self._cache: dict[str, SpspDetails] = {}

    async def __aenter__(self) -> "SpspClient":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        if self._http is not None:
            await self._http.close()
            self._http = None

    async def query(self, target: str | Target, *, receipt: ReceiptRequest | None = None) -> SpspDetails:
        """Ask the receiver, or take its cached answer. Raises TargetError (bad pointer) or SpspError.

        With `receipt` (a verifier's proxied query, RCPT-7) nothing is cached: nonces are used once.
        """
        where = parse_target(target) if isinstance(target, str) else target
        if receipt is None:
            cached = self._cached(where.url)
            if cached is not None:
                return replace(cached, resolved_host=where.host)
        try:
            async with asyncio.timeout(self._timeout_ms / 1000):
                details, max_age = await self._ask(where, receipt)
        except TimeoutError as error:
            problem = f"no answer within {self._timeout_ms / 1000:g} s"
            raise SpspError(where.url, problem, "Try again later, or ask the receiver.") from error
        if receipt is None and max_age:
            self._keep(where.url, details)
        return details

    def forget(self, target: str | Target) -> None:
        """Ask anew next time: the connection that a cached answer led to was closed (SPSP-9)."""
        self._cache.pop((parse_target(target) if isinstance(target, str) else target).url, None)

    def _cached(self, url: str) -> SpspDetails | None:
        details = self._cache.get(url)
        if details is not None and details.expires_at <= self._mono_ms():
            del self._cache[url]
            return None
        return details

    def _keep(self, url: str, details: SpspDetails) -> None:
        if len(self._cache) >= CACHE_ENTRIES_MAX:
            del self._cache[next(iter(self._cache))]  # the oldest: it only costs another query
        self._cache[url] = details

    async def _ask(self, where: Target, receipt: ReceiptRequest | None) -> tuple[SpspDetails, int]:
        headers = {"Accept": ACCEPT}
        if receipt is not None:
            headers["Receipt-Nonce"] = b64encode(receipt.nonce).decode()
            headers["Receipt-Secret"] = b64encode(receipt.secret).decode()
        at = where
        for _ in range(REDIRECTS_MAX + 1):
            try:
                async with self._session().get(
                    URL(at.url, encoded=True), headers=headers, allow_redirects=False, ssl=self._ssl
                ) as response:
                    if response.status not in _REDIRECTS:
                        return await self._details(where, at, response)
                    location = response.headers.get("Location", "")
            except aiohttp.ClientError as error:
                reason = str(error) or type(error).__name__
                raise SpspError(at.url, f"can't be asked: {reason}", "Check the pointer and the network.") from error
            try:
                at = redirect_target(at.url, location)
            except TargetError as error:
                problem = f"redirects to a place that can't be used: {error.problem}"
                raise SpspError(at.url, problem, "Ask the receiver for a correct pointer.") from error
        raise SpspError(where.url, f"more than {REDIRECTS_MAX} redirects", "Ask the receiver for a correct pointer.")

    async def _details(self, where: Target, at: Target, response: aiohttp.ClientResponse) -> tuple[SpspDetails, int]:
        body = await _read_body(response.content)
        _check_response(at.url, response, body)
        assert body is not None
        try:
            address, secret, receipts_enabled = parse_details(body)
        except ValueError as error:
            raise SpspError(at.url, str(error), "This is not a working SPSP endpoint.") from error
        max_age = max_age_ms(response.headers.get("Cache-Control"))
        expires_at = self._mono_ms() + max_age
        return SpspDetails(address, secret, receipts_enabled, where.host, at.host, expires_at), max_age

    def _session(self) -> aiohttp.ClientSession:
        if self._http is None:
            self._http = aiohttp.ClientSession(
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                skip_auto_headers=("Accept-Encoding", "User-Agent"),
                timeout=aiohttp.ClientTimeout(total=None),
                max_field_size=8_190,
            )
        return self._http


def _check_response(url: str, response: aiohttp.ClientResponse, body: bytes | None) -> None:
    if body is None:
        raise SpspError(url, f"the answer is longer than {BODY_BYTES_MAX} bytes", "This is no SPSP endpoint.")
    if response.status == 404:
        raise UnknownReceiverError(url, "no such receiver", "Check the pointer for typing errors.")
    if response.status == 406:
        raise SpspError(url, "the server doesn't offer SPSP (HTTP 406)", "Ask the receiver how to pay.")
    if response.status != 200:
        raise SpspError(url, f"HTTP {response.status}", "Try again later, or ask the receiver.")
    if response.content_type not in (SPSP4, SPSP, "application/json"):
        kind = ascii(response.content_type[:60])
        raise SpspError(url, f"the answer is {kind} and not SPSP", "Check the pointer for typing errors.")
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise SpspError(url, "the answer is compressed, which was not asked for", "This is no working SPSP endpoint.")


async def _read_body(stream: aiohttp.StreamReader) -> bytes | None:
    """The body, None if it is longer than the bound."""
    chunks: list[bytes] = []
    size = 0
    while size <= BODY_BYTES_MAX:
        chunk = await stream.read(BODY_BYTES_MAX + 1 - size)
        if not chunk:
            return b"".join(chunks)
        chunks.append(chunk)
        size += len(chunk)
    return None


def receipt_headers(headers: Mapping[str, str]) -> ReceiptRequest | None:
    """A verifier's nonce and secret, None if there are none; ValueError for half or bad ones (RCPT-8)."""
    nonce, secret = headers.get("Receipt-Nonce"), headers.get("Receipt-Secret")
    if nonce is None and secret is None:
        return None
    if nonce is None or secret is None:
        raise ValueError("Receipt-Nonce and Receipt-Secret come together or not at all")
    nonce_bytes, secret_bytes = _decode_header(nonce), _decode_header(secret)
    if len(nonce_bytes) != NONCE_BYTES or len(secret_bytes) != SECRET_BYTES:
        raise ValueError(f"Receipt-Nonce has {NONCE_BYTES} bytes and Receipt-Secret {SECRET_BYTES}, in base64")
    return ReceiptRequest(nonce_bytes, secret_bytes)


def _decode_header(text: str) -> bytes:
    standard = text.strip().rstrip("=").replace("-", "+").replace("_", "/")
    return b64decode(standard + "=" * (-len(standard) % 4), validate=True)
