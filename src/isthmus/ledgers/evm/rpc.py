"""One node of a chain, asked by JSON-RPC over HTTP. Every question has a deadline, every answer a bound."""

import json
from typing import Any, Final, final
from urllib.parse import urlsplit

import aiohttp

from isthmus.errors import LedgerError, plain

ANSWER_SECONDS_MAX: Final = 15.0
ANSWER_BYTES_MAX: Final = 32 << 20  # a full block with all its transactions has a few
TEXT_CHARS_MAX: Final = 160


class NodeAwayError(LedgerError):
    """No answer that can be used; the same question may have one later."""


class NodeRefusedError(LedgerError):
    """The node's own error: the call reverts, a transaction isn't taken."""

    def __init__(self, where: str, code: int, message: str) -> None:
        super().__init__(f"{where}: {message} ({code})")
        self.code = code
        self.message = message


@final
class Node:
    """A node at a URL. The URL may hold a secret (providers put it into the path), so only its host is ever shown."""

    def __init__(self, url: str) -> None:
        self._url: Final = url
        self.name: Final = urlsplit(url).hostname or "?"
        self._session: aiohttp.ClientSession | None = None
        self._asked = 0

    async def call(self, method: str, *params: object) -> Any:
        """The result. NodeRefusedError, NodeAwayError."""
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ANSWER_SECONDS_MAX))
        self._asked += 1
        question = {"jsonrpc": "2.0", "id": self._asked, "method": method, "params": list(params)}
        try:
            async with self._session.post(self._url, json=question, allow_redirects=False) as response:
                data = await _bounded(response)
                status = response.status
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            raise NodeAwayError(f"{self.name}: no answer to {method} ({type(error).__name__})") from None
        try:
            answer = json.loads(data)
        except (ValueError, RecursionError):
            raise NodeAwayError(f"{self.name}: {method} was answered with status {status}, not with JSON") from None
        if not isinstance(answer, dict):
            raise NodeAwayError(f"{self.name}: {method} was answered with something else than an object")
        refusal = answer.get("error")
        if isinstance(refusal, dict):
            code = refusal.get("code")
            text = plain(str(refusal.get("message")), TEXT_CHARS_MAX)
            raise NodeRefusedError(self.name, code if isinstance(code, int) else 0, text)
        if "result" not in answer:
            raise NodeAwayError(f"{self.name}: {method} was answered without a result (status {status})")
        return answer["result"]

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
