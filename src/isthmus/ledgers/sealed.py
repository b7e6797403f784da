"""A secret in a file, encrypted with a passphrase: scrypt makes the key, AES-256-GCM keeps and authenticates. Pure.

For ledgers whose programs have no format of their own for this. As JSON, so that people see what it is.
"""

import json
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

KIND: Final = "isthmus sealed secret, version 1"
COST: Final = 2**15  # 32 MiB, and some 0.1 s
COST_MAX: Final = 2**18  # a strange file must not take all memory
SALT_BYTES: Final = 16
NONCE_BYTES: Final = 12
_KEY_BYTES: Final = 32


def is_sealed(text: str) -> bool:
    return text.startswith("{")


def seal(secret: str, passphrase: str, *, salt: bytes, nonce: bytes) -> str:
    """`salt` and `nonce` are random, 16 and 12 bytes, and used once."""
    assert len(salt) == SALT_BYTES and len(nonce) == NONCE_BYTES
    box = AESGCM(_key(passphrase, salt, COST)).encrypt(nonce, secret.encode(), KIND.encode())
    fields = {"kind": KIND, "cost": COST, "salt": salt.hex(), "nonce": nonce.hex(), "box": box.hex()}
    return json.dumps(fields)


def unseal(text: str, passphrase: str) -> str:
    """ValueError, with no word of what was read, for another form or another passphrase."""
    try:
        fields: dict[str, Any] = json.loads(text)
        cost, salt, nonce = fields["cost"], bytes.fromhex(fields["salt"]), bytes.fromhex(fields["nonce"])
        box = bytes.fromhex(fields["box"])
        if fields["kind"] != KIND or cost not in (2**exponent for exponent in range(1, COST_MAX.bit_length())):
            raise ValueError
        return AESGCM(_key(passphrase, salt, cost)).decrypt(nonce, box, KIND.encode()).decode()
    except (LookupError, TypeError, ValueError, RecursionError, InvalidTag):
        raise ValueError("not a sealed secret, or another passphrase") from None


def _key(passphrase: str, salt: bytes, cost: int) -> bytes:
    return Scrypt(salt=salt, length=_KEY_BYTES, n=cost, r=8, p=1).derive(passphrase.encode())
