"""The accounting system's side (RFC 0038, "Accounting System HTTP API"): what an engine elsewhere asks of our node.

It credits what the engine has seen come in, once for its key, and carries its messages to the peer's engine.
"""

from collections.abc import Mapping
from typing import Final, final

from aiohttp import web

from isthmus.connector.events import AccountId
from isthmus.errors import CodecError, JournalError
from isthmus.ilp.packet import DATA_BYTES_MAX
from isthmus.settlement.port import MessageRefusedError, Port, Step, StepRefusedError
from isthmus.settlement.rfc38.http import JSON, KEY_HEADER, OCTETS, MakeListener, RefusedError, Server, body_of
from isthmus.settlement.rfc38.quantity import (
    KEY_CHARS_MAX,
    QUANTITY_BYTES_MAX,
    decode_quantity,
    encode_quantity,
    input_mark,
    is_key,
    kept_key,
)

# When to ask again for what the node can't book now.
RETRY_S: Final = 60


@final
class AccountingServer:
    """Serves one engine. `accounts` tells which account an id of the wire stands for, and may change."""

    def __init__(
        self, make_listener: MakeListener, port: Port, accounts: Mapping[str, AccountId], *, token_sha256: bytes | None
    ) -> None:
        self._port: Final = port
        self._accounts: Final = accounts
        self._server: Final = Server(make_listener, token_sha256=token_sha256)
        self._server.app.router.add_post("/accounts/{id}/settlements", self._credit)
        self._server.app.router.add_post("/accounts/{id}/messages", self._carry)

    async def start(self) -> None:
        """Listen. Raises LinkError if the address can't be had."""
        await self._server.start()

    async def close(self) -> None:
        await self._server.close()

    @property
    def url(self) -> str:
        return self._server.url

    async def _credit(self, request: web.Request) -> web.StreamResponse:
        """Credit an incoming settlement, once for its key; 201 when it is durable (SE-5, SE-7).

        The answer is the quantity as it came: all of it is in our books, fractions of a unit too. Engines that keep
        what a connector didn't take (settlement-core, interledger-rs) so keep nothing.
        """
        account = self._account(request)
        key = read_key(request)
        amount, scale = await read_quantity(request)
        kept, mark = kept_key(key), input_mark(amount, scale)
        before = self._port.credited(account, kept)
        if before and before[0] != kept + mark:
            raise RefusedError(409, "This key was used for another quantity.")  # SE-8
        text = f"told by its engine, key {key[:40]}"
        try:
            await self._port.step(account, Step(credits=[(amount, scale, kept + mark, text)]))
        except StepRefusedError as refused:
            raise RefusedError(503, f"It is not booked: {refused}.", retry_after_s=RETRY_S) from None
        except JournalError as error:
            raise RefusedError(503, f"{error}; ask the same again.", retry_after_s=RETRY_S) from None
        return web.Response(status=201, body=encode_quantity(amount, scale), content_type=JSON)

    async def _carry(self, request: web.Request) -> web.StreamResponse:
        """Send a message to the peer's engine, and answer with what that says (SE-4)."""
        account = self._account(request)
        body = await body_of(request, DATA_BYTES_MAX)
        try:
            answer = await self._port.message(account, body)
        except MessageRefusedError as refused:
            raise RefusedError(status_of(refused.code), f"The peer's engine said no: {refused}.") from None
        except JournalError as error:
            raise RefusedError(503, f"{error}.") from None
        return web.Response(status=201, body=answer, content_type=OCTETS)

    def _account(self, request: web.Request) -> AccountId:
        account = self._accounts.get(request.match_info["id"])
        if account is None:
            raise RefusedError(404, "There is no such account.")
        return account


def read_key(request: web.Request) -> str:
    """The idempotency key; RefusedError 400 without one that can be kept (SE-8)."""
    key = request.headers.get(KEY_HEADER)
    if key is None:
        raise RefusedError(400, f"{KEY_HEADER} is missing.")
    if not is_key(key):
        raise RefusedError(400, f"{KEY_HEADER} must be 1 to {KEY_CHARS_MAX} characters of ASCII without spaces.")
    return key


async def read_quantity(request: web.Request) -> tuple[int, int]:
    """Amount and scale of a request; RefusedError 400 for anything else."""
    body = await body_of(request, QUANTITY_BYTES_MAX)
    try:
        return decode_quantity(body)
    except CodecError as error:
        raise RefusedError(400, f"No quantity: {error.field}: {error.problem}.") from None


def status_of(code: str) -> int:
    """What an engine is answered for a message that was rejected with this ILP code."""
    if code.startswith("F"):
        return 400
    return 504 if code.startswith("R") else 503
