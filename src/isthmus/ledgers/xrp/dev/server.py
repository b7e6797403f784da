"""One port for everything: WebSocket and JSON-RPC as `rippled` speaks them, and a faucet as the test net has one.

Bounds: connections, the size of a message, what waits to be sent on a connection. Who doesn't read his pushes is
disconnected; his own requests only make him wait.
"""

import asyncio
from typing import Final

from aiohttp import WSMsgType, web
from xrpl.core.addresscodec import classic_address_to_xaddress, ensure_classic_address, is_valid_classic_address
from xrpl.core.keypairs import generate_seed

from isthmus.errors import LedgerError
from isthmus.ledgers.xrp.dev.entries import Fields
from isthmus.ledgers.xrp.dev.faucet import XRP_DEFAULT, XRP_MAX
from isthmus.ledgers.xrp.dev.frames import UNPARSABLE, as_text, json_rpc_answer, parsed, web_socket_answer
from isthmus.ledgers.xrp.dev.service import Service
from isthmus.ledgers.xrp.dev.subscriptions import Subscriber
from isthmus.ledgers.xrp.signatures import SigningKey

MESSAGE_BYTES_MAX: Final = 1024 * 1024
CONNECTIONS_MAX: Final = 1_000
QUEUE_MAX: Final = 4_096  # messages that wait to be sent on one connection
HEARTBEAT_S: Final = 30.0
_GREETING: Final = (
    "isthmus development ledger: answers as rippled does, for tests only.\n"
    "WebSocket and JSON-RPC (POST) at /, the faucet at POST /accounts.\n"
)


def application(service: Service) -> web.Application:
    """The web application of a service."""
    desk = _Doors(service)
    app = web.Application(client_max_size=MESSAGE_BYTES_MAX)
    app.router.add_get("/", desk.get)
    app.router.add_post("/", desk.json_rpc)
    app.router.add_post("/accounts", desk.faucet)
    app.router.add_get("/health", desk.health)
    app.on_shutdown.append(desk.disconnect_all)
    return app


class _Connection:
    """One WebSocket, with what waits to be sent on it."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self.socket = socket
        self.queue: asyncio.Queue[str] = asyncio.Queue(maxsize=QUEUE_MAX)
        self.is_slow = asyncio.Event()
        self.subscriber = Subscriber(self._push)

    def _push(self, text: str) -> None:
        try:
            self.queue.put_nowait(text)
        except asyncio.QueueFull:
            self.is_slow.set()

    async def write(self) -> None:
        """Send what waits, until the connection ends."""
        while True:
            await self.socket.send_str(await self.queue.get())


class _Doors:
    def __init__(self, service: Service) -> None:
        self._service = service
        self._connections: dict[_Connection, None] = {}

    async def get(self, request: web.Request) -> web.StreamResponse:
        if not web.WebSocketResponse().can_prepare(request):
            return web.Response(text=_GREETING)
        if len(self._connections) >= CONNECTIONS_MAX:
            return web.Response(status=503, text="Server is overloaded\n")
        # The library takes only what is smaller than its limit.
        socket = web.WebSocketResponse(max_msg_size=MESSAGE_BYTES_MAX + 1, heartbeat=HEARTBEAT_S)
        await socket.prepare(request)
        connection = _Connection(socket)
        self._connections[connection] = None
        reading, writing = asyncio.ensure_future(self._read(connection)), asyncio.ensure_future(connection.write())
        slow = asyncio.ensure_future(connection.is_slow.wait())
        try:
            await asyncio.wait((reading, writing, slow), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._service.subscriptions.forget(connection.subscriber)
            del self._connections[connection]
            for task in (reading, writing, slow):
                task.cancel()
            # That the other side is gone is how connections end.
            await asyncio.gather(reading, writing, slow, return_exceptions=True)
        if connection.is_slow.is_set() and request.transport is not None:
            # It doesn't read, so it wouldn't read a goodbye either.
            request.transport.abort()
        return socket

    async def _read(self, connection: _Connection) -> None:
        async for message in connection.socket:
            if message.type is not WSMsgType.TEXT:
                continue
            answer = web_socket_answer(self._service, message.data, connection.subscriber)
            await connection.queue.put(as_text(answer))

    async def disconnect_all(self, _app: web.Application) -> None:
        for connection in list(self._connections):
            await connection.socket.close(code=1001, message=b"the ledger stops")

    async def health(self, _request: web.Request) -> web.Response:
        return web.json_response({"info": {}})

    async def json_rpc(self, request: web.Request) -> web.Response:
        try:
            text = await request.text()
        except (ValueError, LookupError):  # bytes that are no text; a charset that nobody knows
            return web.Response(status=400, text=UNPARSABLE)
        answer = json_rpc_answer(self._service, text)
        if isinstance(answer, str):
            return web.Response(status=400, text=answer)
        return web.json_response(answer, dumps=as_text)

    # --- the faucet ---------------------------------------------------------------------------------------------------

    async def faucet(self, request: web.Request) -> web.Response:
        try:
            body = parsed(await request.text() or "{}")
            xrp = _amount(body.get("xrpAmount"))
            address, seed = _destination(body.get("destination"))
        except (ValueError, LookupError) as error:
            return web.json_response({"error": str(error)}, status=400)
        try:
            transaction_id = self._service.fund(address, xrp)
        except LedgerError as error:
            return web.json_response({"error": str(error)}, status=503)
        account: Fields = {
            "xAddress": classic_address_to_xaddress(address, tag=None, is_test_network=True),
            "classicAddress": address,
            "address": address,
        }
        answer: Fields = {"account": account, "amount": xrp, "transactionHash": transaction_id}
        return web.json_response(answer if seed is None else {**answer, "seed": seed})


def _amount(given: object) -> int:
    if given is None:
        return XRP_DEFAULT
    text = str(given)
    if isinstance(given, bool) or not text.isascii() or not text.isdigit() or len(text) > len(str(XRP_MAX)):
        raise ValueError(f"xrpAmount must be a whole number of XRP, 1 to {XRP_MAX}")
    if not 1 <= int(text) <= XRP_MAX:
        raise ValueError(f"xrpAmount must be a whole number of XRP, 1 to {XRP_MAX}")
    return int(text)


def _destination(given: object) -> tuple[str, str | None]:
    """An address; with the seed of a new one if none was given."""
    if given is None:
        seed = generate_seed()
        return SigningKey.from_seed(seed).address, seed
    try:
        if isinstance(given, str) and len(given) <= 64:
            address: str = ensure_classic_address(given)
            if is_valid_classic_address(address):
                return address, None
    except Exception:  # noqa: BLE001, S110  (the library raises many kinds)
        pass
    raise ValueError("destination is no address of the XRP Ledger")
