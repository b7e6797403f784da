"""One node of a chain, asked by JSON-RPC 2.0 over HTTP."""

from typing import Any, Final, Protocol, final

from isthmus.errors import LedgerError, plain
from isthmus.ledgers.door import Door, ServerAwayError

TEXT_CHARS_MAX: Final = 160


class NodeRefusedError(LedgerError):
    """The node's own error: the call reverts, a transaction isn't taken."""

    def __init__(self, where: str, code: int, message: str) -> None:
        super().__init__(f"{where}: {message} ({code})")
        self.code = code
        self.message = message


class ChainNode(Protocol):
    """One node of a chain, as `chain.Chain` asks it."""

    @property
    def name(self) -> str: ...

    async def call(self, method: str, *params: object) -> Any:
        """The result. NodeRefusedError, ServerAwayError."""
        ...

    async def close(self) -> None: ...


@final
class Node:
    """A node at a URL."""

    def __init__(self, url: str) -> None:
        self._door: Final = Door(url)
        self.name: Final = self._door.name
        self._asked = 0

    async def call(self, method: str, *params: object) -> Any:
        """The result. NodeRefusedError, ServerAwayError."""
        self._asked += 1
        question = {"jsonrpc": "2.0", "id": self._asked, "method": method, "params": list(params)}
        status, answer = await self._door.ask(question, method)
        refusal = answer.get("error")
        if isinstance(refusal, dict):
            code = refusal.get("code")
            text = plain(str(refusal.get("message")), TEXT_CHARS_MAX)
            raise NodeRefusedError(self.name, code if isinstance(code, int) else 0, text)
        if "result" not in answer:
            raise ServerAwayError(f"{self.name}: {method} was answered without a result (status {status})")
        return answer["result"]

    async def close(self) -> None:
        await self._door.close()
