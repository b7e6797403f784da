"""The SPSP server (RFC 0009): gives each asker an address and a fresh secret to pay to.

Handlers for an aiohttp application that someone else runs: a wallet's own, or the node's beside its other routes.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias, final

from aiohttp import web

from isthmus.apps.pointers import WELL_KNOWN_PATH
from isthmus.apps.spsp import SPSP, SPSP4, ReceiptRequest, encode_details, receipt_headers

# Called for every answer: a secret is never given out twice (SPSP-5).
MakeCredentials: TypeAlias = Callable[[], tuple[str, bytes]]
MakeReceiptCredentials: TypeAlias = Callable[[ReceiptRequest], tuple[str, bytes]]

_ZERO: Final = re.compile(r"0(?:\.0*)?")
_CORS: Final = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "GET, OPTIONS",
    "Access-Control-Allow-Headers": "web-monetization-id",
}


@dataclass(slots=True, frozen=True)
class _Receiver:
    make: MakeCredentials
    make_with_receipts: MakeReceiptCredentials | None


@final
class SpspServer:
    """Receivers by path. `max_age_s` lets clients keep an answer; by default they ask each time."""

    def __init__(self, *, max_age_s: int = 0) -> None:
        if max_age_s < 0:
            raise ValueError("max_age_s must be positive, or 0 for no-cache (SPSP-2)")
        self._receivers: dict[str, _Receiver] = {}
        # `private`: a shared proxy would hand one client's secret to another (SPSP-5).
        self._cache_control = f"private, max-age={max_age_s}" if max_age_s else "no-cache"

    def add(
        self,
        make_credentials: MakeCredentials,
        *,
        path: str = WELL_KNOWN_PATH,
        make_receipt_credentials: MakeReceiptCredentials | None = None,
    ) -> None:
        """Receive at `path`. Receipts (RFC 0039) are offered if there is a way to make credentials with them."""
        self._receivers[path] = _Receiver(make_credentials, make_receipt_credentials)

    def remove(self, path: str) -> None:
        self._receivers.pop(path, None)

    def register(self, app: web.Application) -> None:
        """Answer all paths of the app that nothing registered before this answers."""
        app.router.add_route("*", "/{path:.*}", self.handle)

    async def handle(self, request: web.Request) -> web.Response:
        """Any request to an SPSP path."""
        if request.method == "OPTIONS":
            return web.Response(status=204, headers={**_CORS, "Allow": "GET, OPTIONS"})
        if request.method != "GET":
            return _error(405, "MethodNotAllowedError", "SPSP is asked by GET", {"Allow": "GET, OPTIONS"})
        receiver = self._receivers.get(request.path)
        if receiver is None:
            return _error(404, "InvalidReceiverError", "Invalid receiver ID")
        if not accepts_spsp(",".join(request.headers.getall("Accept", ()))):
            return _error(406, "NotAcceptableError", f"This is an SPSP endpoint. Ask with Accept: {SPSP4}")
        try:
            receipt = receipt_headers(request.headers)
        except ValueError as error:
            return _error(400, "InvalidReceiptHeadersError", str(error))
        if receipt is not None and receiver.make_with_receipts is not None:
            address, secret = receiver.make_with_receipts(receipt)
            return self._details(encode_details(address, secret, receipts_enabled=True))
        address, secret = receiver.make()
        return self._details(encode_details(address, secret))

    def _details(self, body: bytes) -> web.Response:
        headers = {"Content-Type": SPSP4, "Cache-Control": self._cache_control, "Vary": "Accept", **_CORS}
        return web.Response(body=body, headers=headers)


def accepts_spsp(accept: str) -> bool:
    """Whether an Accept header names SPSP (PTR-5). `*/*` does not: pointers serve several protocols (SPSP-10)."""
    for entry in accept.split(","):
        kind, *parameters = (part.strip().lower() for part in entry.split(";"))
        if kind in (SPSP4, SPSP):
            return not any(_is_zero_quality(parameter) for parameter in parameters)
    return False


def _is_zero_quality(parameter: str) -> bool:
    name, _, value = parameter.partition("=")
    return name.strip() == "q" and _ZERO.fullmatch(value.strip()) is not None


def _error(status: int, kind: str, message: str, headers: dict[str, str] | None = None) -> web.Response:
    """An error in SPSP's own form (SPSP-6)."""
    body = json.dumps({"id": kind, "message": message}).encode()
    every = {"Content-Type": SPSP4, "Cache-Control": "no-cache", **_CORS, **(headers or {})}
    return web.Response(status=status, body=body, headers=every)
