"""Hashes and identifiers of the XRP Ledger: all of them SHA-512Half over a prefix and the bytes.

Sources: xrpl.org "Ledger Object IDs", "Binary Format", "Payment Channels"; `rippled`'s `HashPrefix` and `Indexes`.
"""

from functools import lru_cache
from hashlib import sha512
from typing import Final

from xrpl.core.addresscodec import decode_classic_address

HASH_BYTES: Final = 32
TRANSACTION_PREFIX: Final = b"TXN\0"
LEDGER_PREFIX: Final = b"LWR\0"
CLAIM_PREFIX: Final = b"CLM\0"
_ACCOUNT_SPACE: Final = b"\0a"
_CHANNEL_SPACE: Final = b"\0x"
_ADDRESSES_REMEMBERED: Final = 16_384


def sha512_half(*parts: bytes) -> bytes:
    """The first 32 bytes of SHA-512 over all parts."""
    digest = sha512()
    for part in parts:
        digest.update(part)
    return digest.digest()[:HASH_BYTES]


def transaction_id(blob: bytes) -> str:
    """The identifying hash of a signed transaction, as 64 upper-case hexadecimal digits."""
    return sha512_half(TRANSACTION_PREFIX, blob).hex().upper()


@lru_cache(maxsize=_ADDRESSES_REMEMBERED)
def account_index(address: str) -> str:
    """Where a ledger keeps the AccountRoot of a classic address. The address must be valid."""
    return sha512_half(_ACCOUNT_SPACE, decode_classic_address(address)).hex().upper()


def channel_index(source: str, destination: str, sequence: int) -> str:
    """The id of the channel that `source` opened by its transaction with `sequence`."""
    parts = decode_classic_address(source), decode_classic_address(destination), sequence.to_bytes(4, "big")
    return sha512_half(_CHANNEL_SPACE, *parts).hex().upper()


def claim_message(channel: str, drops: int) -> bytes:
    """What the source of a channel signs to let its destination have `drops` in all: `CLM\\0`, channel, uint64."""
    return CLAIM_PREFIX + bytes.fromhex(channel) + drops.to_bytes(8, "big")
