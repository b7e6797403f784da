"""A ledger's server at a URL: one JSON object in, one out. Every question has a deadline, every answer a bound."""

import json
from typing import Any, Final, final
from urllib.parse import urlsplit

import aiohttp

from isthmus.errors import LedgerError

ANSWER_SECONDS_MAX: Final = 15.0
ANSWER_BYTES_MAX: Final = 32 << 20  # a full block of a chain with all its transactions has a few


class ServerAwayError(LedgerError):
    """No answer that can be used; the same question may have one later."""


class LedgersDisagreeError(LedgerError):
    """Two servers of one ledger tell different things about it: one lies, is broken, or follows another branch."""


@final
class Door:
    """A URL may hold a secret (providers put it into the path), so only its host is ever shown."""

    def __init__(self, url: str) -> None:
        self._url: Final = url
        self.name: Final = urlsplit(url).hostname or "?"
        self._session: aiohttp.ClientSession | None = None

    async def ask(self, question: dict[str, Any], what: str) -> tuple[int, dict[str, Any]]:
        """HTTP status and the object. ServerAwayError."""
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ANSWER_SECONDS_MAX))
        try:
            async with self._session.post(self._url, json=question, allow_redirects=False) as response:
                data = await _bounded(response)
                status = response.status
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            raise ServerAwayError(f"{self.name}: no answer to {what} ({type(error).__name__})") from None
        try:
            answer = json.loads(data)
        except (ValueError, RecursionError):
            raise ServerAwayError(f"{self.name}: {what} was answered with status {status}, not with JSON") from None
        if not isinstance(answer, dict):
            raise ServerAwayError(f"{self.name}: {what} was answered with something else than an object")
        return status, answer

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    data = bytearray()
    async for piece in response.content.iter_chunked(65_536):
        data += piece
        if len(data) > ANSWER_BYTES_MAX:
            raise ValueError("too long")
    return bytes(data)
