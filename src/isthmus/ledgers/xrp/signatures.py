"""Keys and signatures of the XRP Ledger: Ed25519 by `cryptography`, and ECDSA over secp256k1 by `coincurve`.

A public key is 33 bytes: `ED` and the Ed25519 key, or a compressed point that starts with `02` or `03`. Ed25519 signs
the message, secp256k1 its SHA-512Half. An ECDSA signature is DER and *fully canonical*: of the two values of S that
verify, the lower one; the ledger refuses the other, so that nobody can make a second signature of somebody's
transaction. `cryptography` takes ten times as long for that curve. Source: xrpl.org "Cryptographic Keys", "Transaction
Malleability".
"""

from enum import Enum, auto
from functools import lru_cache
from typing import Final

import coincurve
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from xrpl.core.addresscodec import encode_classic_address
from xrpl.core.keypairs import derive_keypair
from xrpl.core.keypairs.helpers import get_account_id

from isthmus.errors import ConfigError
from isthmus.ledgers.xrp.hashes import sha512_half

PUBLIC_KEY_BYTES: Final = 33
KEYS_MAX: Final = 256  # remembered: each claim of a channel is by the same
_ED25519_PREFIX: Final = b"\xed"
_ORDER: Final = 0xFFFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFE_BAAEDCE6_AF48A03B_BFD25E8C_D0364141


class KeyKind(Enum):
    """What a public key is a key of."""

    ED25519 = auto()
    SECP256K1 = auto()


def key_kind(public_key: bytes) -> KeyKind | None:
    """By length and prefix alone; None for what is no key."""
    if len(public_key) != PUBLIC_KEY_BYTES:
        return None
    if public_key[:1] == _ED25519_PREFIX:
        return KeyKind.ED25519
    return KeyKind.SECP256K1 if public_key[0] in (2, 3) else None


@lru_cache(maxsize=KEYS_MAX)
def _ed25519(point: bytes) -> Ed25519PublicKey:
    return Ed25519PublicKey.from_public_bytes(point)


def address_of(public_key: bytes) -> str:
    """The classic address of a key of 33 bytes."""
    return encode_classic_address(get_account_id(public_key))


def verify(message: bytes, signature: bytes, public_key: bytes) -> bool:
    """Whether `signature` is the canonical one of `message` by `public_key`; False for anything that isn't a key."""
    kind = key_kind(public_key)
    if kind is None:
        return False
    try:
        if kind is KeyKind.ED25519:
            _ed25519(public_key[1:]).verify(signature, message)
            return True
        _, s = decode_dss_signature(signature)  # nothing but DER
        if s > _ORDER // 2:
            return False
        return coincurve.PublicKey(public_key).verify(signature, sha512_half(message), hasher=None)
    except (InvalidSignature, ValueError):
        return False


class SigningKey:
    """A private key, and how it signs. Its secret is in no representation of it."""

    __slots__ = ("_private", "address", "public_key")

    def __init__(self, private: Ed25519PrivateKey | coincurve.PrivateKey) -> None:
        self._private = private
        if isinstance(private, Ed25519PrivateKey):
            self.public_key = _ED25519_PREFIX + private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        else:
            self.public_key = private.public_key.format(compressed=True)
        self.address = address_of(self.public_key)

    @classmethod
    def from_seed(cls, seed: str) -> "SigningKey":
        """From a seed in base58 (`s…` or `sEd…`). ConfigError, which doesn't repeat it, if it is none."""
        try:
            _, private = derive_keypair(seed)
        except Exception as error:  # the library raises many kinds
            raise ConfigError("seed", "is no seed of the XRP Ledger", "It starts with s or sEd.") from error
        if len(private) == 2 * PUBLIC_KEY_BYTES and private.startswith("ED"):
            return cls(Ed25519PrivateKey.from_private_bytes(bytes.fromhex(private[2:])))
        return cls(coincurve.PrivateKey.from_int(int(private, 16)))

    def sign(self, message: bytes) -> bytes:
        """The canonical signature; the same message gets the same one each time."""
        if isinstance(self._private, Ed25519PrivateKey):
            return self._private.sign(message)
        return self._private.sign(sha512_half(message), hasher=None)

    def __repr__(self) -> str:
        return f"SigningKey({self.address})"
