"""Verifying STREAM receipts: what a third party may credit for what a sender shows it (RFC 0039; RCPT-5, RCPT-7).

The verifier gives a nonce and a secret to the receiver (SPSP headers), never the secret to the sender. Each receipt
proves a total; only what it adds to the highest total seen is credited. The store is bounded: the connection longest
without a receipt is forgotten, and its receipts are refused from then on.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from hmac import digest as hmac_digest
from typing import Final, final

from isthmus.errors import CodecError
from isthmus.stream.receipt import NONCE_BYTES, Receipt, decode_receipt, verify_receipt

CONNECTIONS_MAX: Final = 10_000

_SECRET: Final = b"isthmus_receipt_secret"


class Verdict(Enum):
    CREDITED = "credited"
    MALFORMED = "not a receipt"
    UNKNOWN = "for no connection known here"
    FORGED = "not signed with the connection's secret"
    STALE = "proves no more than an earlier one"


@final
@dataclass(slots=True, frozen=True)
class Verification:
    """What a receipt is worth."""

    verdict: Verdict
    amount: int = 0  # to credit: what the receipt adds
    nonce: bytes = b""
    stream_id: int = 0
    total: int = 0


@final
class ReceiptVerifier:
    """Knows the nonces that it gave out and the highest total of each of their streams."""

    def __init__(
        self, seed: bytes, random_bytes: Callable[[int], bytes], *, connections_max: int = CONNECTIONS_MAX
    ) -> None:
        """`seed` (32 bytes) stays with the verifier: each nonce's secret is derived from it."""
        if len(seed) < NONCE_BYTES:
            raise ValueError(f"a seed has at least {NONCE_BYTES} bytes")
        self._key: Final = hmac_digest(seed, _SECRET, "sha256")
        self._random_bytes: Final = random_bytes
        self._connections_max: Final = connections_max
        self._totals: dict[bytes, dict[int, int]] = {}  # nonce -> stream id -> total; longest without news first

    def __len__(self) -> int:
        return len(self._totals)

    def issue(self) -> tuple[bytes, bytes]:
        """A fresh (nonce, secret) for one connection: what goes into the SPSP request's headers."""
        nonce = self._random_bytes(NONCE_BYTES)
        self.restore(nonce, {})
        return nonce, self._secret(nonce)

    def _secret(self, nonce: bytes) -> bytes:
        return hmac_digest(self._key, nonce, "sha256")

    def restore(self, nonce: bytes, totals: dict[int, int]) -> None:
        """Know a nonce again, with the totals credited so far."""
        self._totals[nonce] = dict(totals)
        if len(self._totals) > self._connections_max:
            del self._totals[next(iter(self._totals))]

    def verify(self, data: bytes) -> Verification:
        """Judge one receipt: signature first, then whether it adds anything."""
        try:
            claimed = decode_receipt(data)
        except CodecError:
            return Verification(Verdict.MALFORMED)
        totals = self._totals.get(claimed.nonce)
        if totals is None:
            return Verification(Verdict.UNKNOWN)
        try:
            receipt: Receipt = verify_receipt(data, self._secret(claimed.nonce))
        except CodecError:
            return Verification(Verdict.FORGED)
        before = totals.get(receipt.stream_id, 0)
        added = receipt.total_received - before
        if added <= 0:
            return Verification(Verdict.STALE, 0, receipt.nonce, receipt.stream_id, before)
        totals[receipt.stream_id] = receipt.total_received
        del self._totals[receipt.nonce]
        self._totals[receipt.nonce] = totals
        return Verification(Verdict.CREDITED, added, receipt.nonce, receipt.stream_id, receipt.total_received)
