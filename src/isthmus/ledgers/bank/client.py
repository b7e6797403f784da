"""Asks a bank over HTTP, within bounds: each call has a deadline, and an answer is as it must be or an error."""

import asyncio
import json
import ssl
from collections.abc import Callable, Sequence
from typing import Final, Protocol, TypeVar, final

import aiohttp
from yarl import URL

from isthmus.errors import CodecError, LedgerError, plain
from isthmus.ledgers.bank.answers import account_of, bank_of, statement_of, transfer_of
from isthmus.ledgers.bank.values import ENTRIES_PAGE_MAX, Account, Entry, Transfer

T = TypeVar("T")
# A page of entries whose references are all escapes, and more.
ANSWER_BYTES_MAX: Final = 262_144
CONNECT_S_MAX: Final = 10.0
IDLE_S: Final = 4.0
CONNECTIONS_MAX: Final = 8


class BankAwayError(LedgerError):
    """Nothing came back, or nothing that could be read: what was asked may be done all the same."""


class BankRefusedError(LedgerError):
    """The bank answered, and not with success. `code` is its word for why, "" if it has none."""

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(f"the bank answers {status}" + (f": {detail}" if detail else ""))
        self.status = status
        self.code = code


class WrongAnswerError(LedgerError):
    """The bank's answer can't be true, or is none."""


class Holder(Protocol):
    """One account's holder at one bank, as engines need it: `BankClient` is one."""

    @property
    def account(self) -> str: ...

    async def close(self) -> None: ...

    async def bank(self) -> tuple[str, str | None]:
        """The bank's id, and the account that our token is for; None for an operator's."""
        ...

    async def show(self) -> Account: ...

    async def statement(self, after: int, limit: int = ENTRIES_PAGE_MAX) -> tuple[Account, Sequence[Entry]]:
        """The account, and its entries after this number, as the bank says; in which order is not checked."""
        ...

    async def transfer(self, key: str, body: bytes) -> Transfer:
        """What is done under this key, now or before."""
        ...

    async def void(self, key: str) -> None:
        """From here on nothing is done under this key. BankRefusedError 409 if it was used."""
        ...


@final
class BankClient:
    """One account's holder at one bank. Follows no redirects, keeps no cookies, asks no proxy."""

    def __init__(
        self, url: str, account: str, token: str, *, timeout_s: float, ssl_context: ssl.SSLContext | None = None
    ) -> None:
        self.account: Final = account
        self._url: Final = URL(url)
        self._token: Final = token
        self._timeout_s: Final = timeout_s
        self._ssl: Final = ssl_context if ssl_context is not None else True
        self._http: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        if self._http is not None:
            await self._http.close()

    async def bank(self) -> tuple[str, str | None]:
        """The bank's id, and the account that our token is for; None for an operator's."""
        return _read(bank_of, await self._call("GET", ("bank",)))

    async def show(self) -> Account:
        return _read(account_of, await self._call("GET", ("accounts", self.account)))

    async def statement(self, after: int, limit: int = ENTRIES_PAGE_MAX) -> tuple[Account, Sequence[Entry]]:
        """The account, and its entries after this number, as the bank says; in which order is not checked."""
        query = {"after": str(after), "limit": str(limit)}
        found = await self._call("GET", ("accounts", self.account, "entries"), query=query)
        return _read(statement_of, found)

    async def transfer(self, key: str, body: bytes) -> Transfer:
        """What is done under this key, now or before."""
        found = await self._call("POST", ("accounts", self.account, "transfers"), body=body, key=key)
        return _read(transfer_of, found)

    async def transfer_under(self, key: str) -> Transfer:
        """BankRefusedError 404 if nothing was done under it."""
        return _read(transfer_of, await self._call("GET", ("accounts", self.account, "transfers", key)))

    async def void(self, key: str) -> None:
        """From here on nothing is done under this key. BankRefusedError 409 if it was used."""
        await self._call("DELETE", ("accounts", self.account, "transfers", key))

    async def _call(
        self,
        method: str,
        path: tuple[str, ...],
        *,
        query: dict[str, str] | None = None,
        body: bytes | None = None,
        key: str | None = None,
    ) -> object:
        url = self._url
        for part in path:
            url = url / part
        headers = {"Authorization": f"Bearer {self._token}", "Accept-Encoding": "identity"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        if key is not None:
            headers["Idempotency-Key"] = key
        try:
            async with asyncio.timeout(self._timeout_s):
                async with self._session().request(
                    method, url.with_query(query), data=body, headers=headers, allow_redirects=False, ssl=self._ssl
                ) as response:
                    status, found = response.status, await _limited(response.content)
        except TimeoutError:
            raise BankAwayError(f"the bank didn't answer within {self._timeout_s:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:  # ValueError: a host that is no name
            raise BankAwayError(f"the bank: {plain(str(error) or type(error).__name__)}") from None
        return _answer(status, found)

    def _session(self) -> aiohttp.ClientSession:
        if self._http is None:
            self._http = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=CONNECTIONS_MAX, keepalive_timeout=IDLE_S),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                skip_auto_headers=("User-Agent",),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S_MAX),
            )
        return self._http


def _read(decode: Callable[[object], T], found: object) -> T:
    try:
        return decode(found)
    except CodecError as error:
        raise WrongAnswerError(f"the bank's answer: {error}") from None


async def _limited(stream: aiohttp.StreamReader) -> bytes:
    body = bytearray()
    while len(body) <= ANSWER_BYTES_MAX:
        chunk = await stream.read(ANSWER_BYTES_MAX + 1 - len(body))
        if not chunk:
            return bytes(body)
        body += chunk
    raise BankAwayError(f"the bank's answer is longer than {ANSWER_BYTES_MAX} bytes")


def _answer(status: int, body: bytes) -> object:
    """What it says; an error for anything but success."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        found = None
    if 200 <= status < 300:
        if found is None:
            raise BankAwayError("the bank's answer is not JSON")
        return found
    if 300 <= status < 400:
        raise BankRefusedError(status, "", "it sends us elsewhere: configure the URL that holds")
    fields = found if isinstance(found, dict) else {}
    detail, code = (fields.get(name) for name in ("detail", "code"))
    raise BankRefusedError(
        status, plain(code, 40) if isinstance(code, str) else "", plain(detail) if isinstance(detail, str) else ""
    )
