"""A client of lnd's REST interface (https://lightning.engineering/api-docs/api/lnd/), as far as settlements need it.

Every call has a deadline, every answer a bound. `LedgerError` is what has no outcome: lnd is away, or said nothing
that makes sense. What lnd says about a payment or an invoice is a value. The macaroon goes into a header and nowhere
else.
"""

import asyncio
import base64
import json
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self, final
from urllib.parse import quote

import aiohttp

from isthmus.errors import ConfigError, IsthmusError, LedgerError, plain

CALL_S_MAX: Final = 30
CONNECT_S_MAX: Final = 5
ANSWER_BYTES_MAX: Final = 4 * 1024 * 1024
LINE_BYTES_MAX: Final = 1024 * 1024
# lnd tries other routes for so long; then the payment has failed.
PAY_S_MAX: Final = 60
CREDENTIAL_BYTES_MAX: Final = 65_536
INVOICE_PAGE: Final = 500
INVOICE_PAGES_MAX: Final = 400
FIRST_INVOICE_S: Final = 1  # until the first invoice is paid lnd is asked again after this
# The custom record that carries a keysend's preimage (bLIP 3).
KEYSEND_RECORD: Final = 5_482_373_484

SUCCEEDED: Final = "SUCCEEDED"
FAILED: Final = "FAILED"
IN_FLIGHT: Final = "IN_FLIGHT"
# Where lnd lists channels that are not open, and what they are.
PENDING: Final = {
    "pending_open_channels": "opening",
    "waiting_close_channels": "closing",
    "pending_force_closing_channels": "closing",
}
UNKNOWN: Final = "UNKNOWN"  # lnd has never heard of this payment


@final
@dataclass(slots=True, frozen=True)
class LndSettings:
    """Where lnd is, and what it wants to see. The certificate is pinned: lnd makes its own."""

    url: str  # "https://127.0.0.1:8080"
    certificate: Path
    macaroon: Path


@final
@dataclass(slots=True, frozen=True)
class Payment:
    """What lnd knows of a payment of ours."""

    status: str  # SUCCEEDED, FAILED, IN_FLIGHT, UNKNOWN
    amount_msat: int = 0
    fee_msat: int = 0
    why: str = ""  # of a failure


@final
@dataclass(slots=True, frozen=True)
class About:
    """An lnd."""

    node: str  # its public key, in hex
    keeps_ends: bool  # how HTLCs ended (`--store-final-htlc-resolutions`)


@final
@dataclass(slots=True, frozen=True)
class Htlc:
    """One that paid an invoice of ours, by the invoice's word."""

    channel: str
    index: int  # in that channel
    msat: int


@final
@dataclass(slots=True, frozen=True)
class Invoice:
    """An invoice, of ours or of anybody's."""

    payment_hash: bytes  # 32 bytes
    amount_msat: int
    request: str = ""  # BOLT 11
    is_settled: bool = False
    is_keysend: bool = False
    paid_msat: int = 0
    settle_index: int = 0
    settled_at_s: int = 0  # seconds since 1970
    htlcs: Sequence[Htlc] = ()
    payee: str = ""
    expires_at_s: int = 0  # seconds since 1970
    records: Mapping[int, bytes] | None = None  # custom records that came with the payment
    # Of somebody's whom we would pay, as lnd tells them: ways to a node that the graph doesn't show, and the last
    # hop's blocks.
    hints: Sequence[Any] = ()
    last_hop_blocks: int = 0


@final
@dataclass(slots=True, frozen=True)
class ChannelSeen:
    """A channel of lnd's. Amounts are satoshi."""

    point: str  # "transaction:output"
    node: str  # the other side's public key, in hex
    state: str  # "open", "offline", "opening", "closing"
    capacity: int
    local: int  # ours
    remote: int


@final
@dataclass(slots=True, eq=False)
class _Lent:
    """A session, and how many calls use it."""

    session: aiohttp.ClientSession
    calls: int = 0


@final
class Lnd:
    """One lnd. `async with Lnd(settings) as lnd`, or `close` it."""

    def __init__(self, settings: LndSettings) -> None:
        self._settings: Final = settings
        self._newest: _Lent | None = None  # what the next call gets
        self._lent: Final[set[_Lent]] = set()  # and those that calls still use
        self._is_closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """For good: whoever asks it after this gets a LedgerError. Streams are read no more by then."""
        self._is_closed = True
        self._newest = None
        for one in list(self._lent):
            await one.session.close()

    def check(self) -> None:
        """Raise ConfigError if the files can't be used. They are read again at each connection: lnd renews them."""
        self._headers()
        self._tls()

    def _headers(self) -> dict[str, str]:
        return {"Grpc-Metadata-macaroon": _read(self._settings.macaroon, "macaroon").hex()}

    def _tls(self) -> ssl.SSLContext:
        _read(self._settings.certificate, "certificate")
        try:
            return ssl.create_default_context(cafile=str(self._settings.certificate))
        except (ssl.SSLError, OSError):
            raise ConfigError(
                "certificate", f"{self._settings.certificate} is no certificate", "Name lnd's tls.cert"
            ) from None

    @asynccontextmanager
    async def _session(self) -> AsyncGenerator[aiohttp.ClientSession]:
        """For one call. The next call after one that failed has a new session, with the files as they are by then.

        The old one is closed by the last call that uses it: a stream on a session that is closed would wait for ever.
        """
        if self._is_closed:
            raise LedgerError("lnd is asked nothing any more: its client is closed")
        if self._newest is None:
            self._newest = _Lent(self._connect())
            self._lent.add(self._newest)
        lent = self._newest
        lent.calls += 1
        try:
            yield lent.session
        except aiohttp.ClientError as error:
            if self._newest is lent:
                self._newest = None
            raise LedgerError(f"lnd can't be reached: {plain(str(error))}") from None
        finally:
            lent.calls -= 1
            if lent is not self._newest and not lent.calls:
                self._lent.discard(lent)
                await lent.session.close()

    def _connect(self) -> aiohttp.ClientSession:
        try:
            connector = aiohttp.TCPConnector(ssl=self._tls(), limit=32)
            headers = self._headers()
        except ConfigError as error:
            raise LedgerError(f"lnd: {error}") from None
        return aiohttp.ClientSession(
            connector=connector,
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S_MAX),
            read_bufsize=LINE_BYTES_MAX,
            max_line_size=16_384,
            trust_env=False,
        )

    # --- calls ----------------------------------------------------------------------------------------------------

    async def get(self, path: str) -> dict[str, Any]:
        return await self._call("GET", path, None)

    async def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        return await self._call("POST", path, body)

    async def _call(self, method: str, path: str, body: Mapping[str, Any] | None) -> dict[str, Any]:
        try:
            async with (
                asyncio.timeout(CALL_S_MAX),
                self._session() as session,
                session.request(method, self._settings.url + path, json=body, allow_redirects=False) as response,
            ):
                text = await response.content.read(ANSWER_BYTES_MAX + 1)
                while len(text) <= ANSWER_BYTES_MAX and not response.content.at_eof():
                    text += await response.content.read(ANSWER_BYTES_MAX + 1 - len(text))
                return _answer(response.status, text)
        except TimeoutError:
            raise LedgerError(f"lnd said nothing for {CALL_S_MAX} s") from None

    async def _stream(self, method: str, path: str, body: Mapping[str, Any] | None) -> AsyncGenerator[dict[str, Any]]:
        """The results of a streaming call, as they come; ends when lnd ends it."""
        try:
            async with (
                self._session() as session,
                session.request(method, self._settings.url + path, json=body, allow_redirects=False) as response,
            ):
                if response.status != 200:
                    _answer(response.status, await response.content.read(LINE_BYTES_MAX))
                async for line in response.content:
                    if line.strip():
                        yield _result(line)
        except ValueError:
            raise LedgerError("lnd's answer is too long") from None

    # --- what settlements need ------------------------------------------------------------------------------------

    async def about(self) -> About:
        """What it says of itself; LedgerError while it is not in step with the chain."""
        found = await self.get("/v1/getinfo")
        if not found.get("synced_to_chain"):
            raise LedgerError("lnd is not in step with the chain yet")
        return About(str(found["identity_pubkey"]), found.get("store_final_htlc_resolutions") is True)

    async def identity(self) -> str:
        """Its public key, in hex; LedgerError as `about`."""
        return (await self.about()).node

    async def has_settled(self, htlc: Htlc) -> bool | None:
        """How an HTLC to us ended: settled, or failed; None while it hasn't, or if lnd didn't keep it."""
        try:
            found = await self.get(f"/v1/htlc-resolution/{htlc.channel}/{htlc.index}")
        except NoSuchError:
            return None
        if not isinstance(found.get("settled"), bool):
            raise LedgerError("lnd's word of an HTLC makes no sense")
        return bool(found["settled"])

    async def add_invoice(self, amount_msat: int, preimage: bytes, memo: str, expiry_s: int) -> Invoice:
        """An invoice of ours for this preimage; a second one for the same preimage is a LedgerError."""
        body = {
            "r_preimage": _encode(preimage),
            "value_msat": str(amount_msat),
            "memo": memo,
            "expiry": str(expiry_s),
            "private": True,  # route hints: our channels need not be public
        }
        found = await self.post("/v1/invoices", body)
        return Invoice(_decode(found["r_hash"]), amount_msat, found["payment_request"])

    async def invoice(self, payment_hash: bytes) -> Invoice | None:
        """An invoice of ours; None if there is none with this hash."""
        try:
            found = await self.get(f"/v1/invoice/{payment_hash.hex()}")
        except NoSuchError:
            return None
        return _invoice(found)

    async def settled(self, after: int) -> AsyncGenerator[Invoice]:
        """Invoices of ours that are paid, from the settle index after this one on; keysends too. Never ends."""
        while after < 1:
            # lnd takes index 0 for "only what comes from now on", and doesn't say from when on it listens.
            for invoice in await self._settled_so_far():
                after = invoice.settle_index
                yield invoice
            if after < 1:
                await asyncio.sleep(FIRST_INVOICE_S)
        async for found in self._stream("GET", f"/v1/invoices/subscribe?settle_index={after}", None):
            invoice = _invoice(found)
            if invoice.is_settled:
                yield invoice

    async def _settled_so_far(self) -> list[Invoice]:
        """All invoices that were ever paid, in the order in which they were."""
        settled: list[Invoice] = []
        at = "0"
        for _ in range(INVOICE_PAGES_MAX):
            page = await self.get(f"/v1/invoices?index_offset={at}&num_max_invoices={INVOICE_PAGE}")
            found = [_invoice(one) for one in page.get("invoices", [])]
            settled += [one for one in found if one.is_settled]
            if len(found) < INVOICE_PAGE:
                return sorted(settled, key=lambda one: one.settle_index)
            at = str(page["last_index_offset"])
        raise LedgerError(f"lnd has more than {INVOICE_PAGES_MAX * INVOICE_PAGE} invoices")

    async def decode(self, request: str) -> Invoice:
        """What a BOLT 11 request asks for; LedgerError if it is none."""
        found = await self.get(f"/v1/payreq/{quote(request, safe='')}")
        return Invoice(
            bytes.fromhex(found["payment_hash"]),
            int(found["num_msat"]),
            request,
            payee=str(found["destination"]),
            expires_at_s=int(found["timestamp"]) + int(found["expiry"]),
            hints=found["route_hints"],
            last_hop_blocks=int(found["cltv_expiry"]),
        )

    async def pay(self, request: str, fee_msat_max: int) -> AsyncIterator[Payment]:
        """Pay a BOLT 11 request, once for its hash: what lnd tells, to the end of it. The same again is its state."""
        body = {
            "payment_request": request,
            "timeout_seconds": PAY_S_MAX,
            "fee_limit_msat": str(fee_msat_max),
            "no_inflight_updates": True,
        }
        async for found in self._stream("POST", "/v2/router/send", body):
            yield _payment(found)

    async def keysend(
        self, payee: str, amount_msat: int, preimage: bytes, payment_hash: bytes, records: Mapping[int, bytes], fee: int
    ) -> AsyncIterator[Payment]:
        """Pay a node without an invoice (bLIP 3); the records go with it."""
        custom = {str(KEYSEND_RECORD): _encode(preimage), **{str(key): _encode(one) for key, one in records.items()}}
        body = {
            "dest": _encode(bytes.fromhex(payee)),
            "amt_msat": str(amount_msat),
            "payment_hash": _encode(payment_hash),
            "dest_custom_records": custom,
            "timeout_seconds": PAY_S_MAX,
            "fee_limit_msat": str(fee),
            "no_inflight_updates": True,
        }
        async for found in self._stream("POST", "/v2/router/send", body):
            yield _payment(found)

    async def track(self, payment_hash: bytes) -> AsyncIterator[Payment]:
        """A payment of ours, in flight or at its end; one UNKNOWN if lnd has never begun it."""
        path = f"/v2/router/track/{base64.urlsafe_b64encode(payment_hash).decode()}?no_inflight_updates=false"
        try:
            async for found in self._stream("GET", path, None):
                yield _payment(found)
        except NoSuchError:
            yield Payment(UNKNOWN)

    async def routing_fee_msat(self, invoice: Invoice) -> int | None:
        """What paying this invoice of a `decode` would cost beside its amount; None if no route is known.

        By what lnd knows: its own channels' balances, the graph, and which of its payments failed where. Nothing is
        sent, as it is by `estimatefee`, whose probe takes as long as a payment, and what a peer's node may hold.
        """
        body = {
            "amt_msat": str(invoice.amount_msat),
            "fee_limit": {"fixed_msat": str(invoice.amount_msat)},
            "final_cltv_delta": invoice.last_hop_blocks,
            "route_hints": invoice.hints,
            "use_mission_control": True,
        }
        try:
            found = await self.post(f"/v1/graph/routes/{invoice.payee}/0", body)
        except RefusedError:
            return None
        return min((int(one["total_fees_msat"]) for one in found["routes"]), default=None)

    async def outbound_msat(self) -> int:
        """What its channels could send, all together."""
        found = await self.get("/v1/balance/channels")
        return int(found["local_balance"]["msat"])

    async def channels(self) -> list[ChannelSeen]:
        """Its channels, with those that open and close."""
        found = await self.get("/v1/channels")
        pending = await self.get("/v1/channels/pending")
        try:
            seen = [_channel(one, "open" if one["active"] else "offline") for one in found.get("channels", [])]
            for name, state in PENDING.items():
                seen += [_channel(one["channel"], state) for one in pending.get(name, [])]
        except (KeyError, ValueError, TypeError, AttributeError):
            raise LedgerError("lnd's channels make no sense") from None
        return seen

    async def open_channel(self, node: str, satoshi: int) -> str:
        """Begin to open a channel that holds so much; its point. lnd must be connected to that node."""
        body = {"node_pubkey": _encode(bytes.fromhex(node)), "local_funding_amount": str(satoshi)}
        found = await self.post("/v1/channels", body)
        try:
            octets = _decode(found["funding_txid_bytes"]) if found.get("funding_txid_bytes") else b""
            name = octets[::-1].hex() or str(found["funding_txid_str"])
            return f"{name}:{int(found.get('output_index', 0))}"
        except (KeyError, ValueError, TypeError):
            raise LedgerError("lnd's answer about a channel makes no sense") from None

    async def close_channel(self, point: str) -> None:
        """Begin to close a channel, with the other side; returns once lnd has begun."""
        transaction, _, output = point.partition(":")
        async with (
            asyncio.timeout(CALL_S_MAX),
            aclosing(self._stream("DELETE", f"/v1/channels/{transaction}/{output}?no_wait=true", None)) as updates,
        ):
            async for _ in updates:
                return


class RefusedError(LedgerError):
    """lnd has an answer, and it is no."""


class NoSuchError(RefusedError):
    """lnd knows nothing of what was asked for."""


def said(error: Exception) -> str:
    """For people; also of what is no error of ours, but of reading an answer that no lnd gives."""
    if isinstance(error, IsthmusError):
        return str(error)
    return plain(f"lnd's answer makes no sense: {type(error).__name__}: {error}")


def _read(path: Path, what: str) -> bytes:
    try:
        with path.open("rb") as file:
            found = file.read(CREDENTIAL_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError(what, f"{path} can't be read: {error.strerror}", f"Name lnd's {what}") from None
    if not found or len(found) > CREDENTIAL_BYTES_MAX:
        raise ConfigError(what, f"{path} is empty, or too long to be one", f"Name lnd's {what}")
    return found


def _answer(status: int, text: bytes) -> dict[str, Any]:
    if len(text) > ANSWER_BYTES_MAX:
        raise LedgerError("lnd's answer is too long")
    try:
        found = json.loads(text)
    except ValueError:
        raise LedgerError(f"lnd answered with status {status} and no JSON") from None
    if status == 200 and isinstance(found, dict):
        return found
    if isinstance(found, dict) and isinstance(found.get("error"), dict):
        found = found["error"]  # a streaming call's
    raise _refusal(found if isinstance(found, dict) else {}, status)


def _result(line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        raise LedgerError("lnd's answer is not JSON") from None
    if isinstance(found, dict) and isinstance(found.get("result"), dict):
        result: dict[str, Any] = found["result"]
        return result
    error = found.get("error") if isinstance(found, dict) else None
    raise _refusal(error if isinstance(error, dict) else {}, 200)


# Of gRPC: the resource isn't there; and what lnd answers until its wallet and RPC servers are up.
_NOT_FOUND: Final = 5
_NOT_READY: Final = ("starting up", "waiting to start", "wallet locked", "not yet ready", "not active")


def _refusal(error: Mapping[str, Any], status: int) -> LedgerError:
    message = plain(str(error.get("message", "")))
    if any(words in message for words in _NOT_READY):
        return LedgerError(f"lnd is not ready: {message}")
    if error.get("code") == _NOT_FOUND:
        return NoSuchError(f"lnd knows no such thing: {message}")
    if status in (401, 403) or "permission denied" in message or "macaroon" in message:
        return LedgerError("lnd doesn't take this macaroon")
    return RefusedError(f"lnd says no: {message or f'status {status}'}")


def _payment(found: Mapping[str, Any]) -> Payment:
    try:
        status = str(found["status"])
        if status not in (SUCCEEDED, FAILED):
            return Payment(IN_FLIGHT)
        why = str(found.get("failure_reason", "")).removeprefix("FAILURE_REASON_").lower().replace("_", " ")
        return Payment(status, int(found["value_msat"]), int(found["fee_msat"]), "" if why == "none" else why)
    except (KeyError, ValueError, TypeError):
        raise LedgerError("lnd's payment makes no sense") from None


def _channel(found: Mapping[str, Any], state: str) -> ChannelSeen:
    return ChannelSeen(
        str(found["channel_point"]),
        str(found.get("remote_pubkey") or found["remote_node_pub"]),
        state,
        int(found["capacity"]),
        int(found["local_balance"]),
        int(found["remote_balance"]),
    )


def _invoice(found: Mapping[str, Any]) -> Invoice:
    try:
        records: dict[int, bytes] = {}
        for htlc in found.get("htlcs", []):
            records |= {int(key): _decode(value) for key, value in htlc.get("custom_records", {}).items()}
        return Invoice(
            _decode(found["r_hash"]),
            int(found["value_msat"]),
            str(found["payment_request"]),
            is_settled=found["state"] == "SETTLED",
            is_keysend=bool(found.get("is_keysend", False)),
            paid_msat=int(found["amt_paid_msat"]),
            settle_index=int(found["settle_index"]),
            settled_at_s=int(found.get("settle_date", 0)),
            htlcs=[_htlc(one) for one in found.get("htlcs", []) if one["state"] == "SETTLED"],
            expires_at_s=int(found["creation_date"]) + int(found["expiry"]),
            records=records,
        )
    except (KeyError, ValueError, TypeError, AttributeError):
        raise LedgerError("lnd's invoice makes no sense") from None


def _htlc(found: Mapping[str, Any]) -> Htlc:
    return Htlc(str(int(found["chan_id"])), int(found["htlc_index"]), int(found["amt_msat"]))


def _encode(octets: bytes) -> str:
    return base64.b64encode(octets).decode()


def _decode(text: str) -> bytes:
    return base64.b64decode(text, validate=True)
