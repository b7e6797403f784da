"""Secrets of settings made at run time: sealed with a key that lies beside the journal, mode 600.

The journal goes to archives, copies and exports; the key doesn't. Tokens that peers show to us need none of this: they
are kept as hashes.
"""

import os
from base64 import b64decode, b64encode
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from isthmus.errors import ConfigError

KEY_FILE: Final = "settings.key"
KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
SEALED: Final = "sealed"


class Vault:
    """The key of one node. The file is made when the first secret is sealed."""

    def __init__(self, folder: Path) -> None:
        self._path: Final = folder / KEY_FILE
        self._cipher: AESGCM | None = None

    def seal(self, secret: str, place: str) -> dict[str, str]:
        """What the journal keeps. It opens at its place only: nobody can move it to another account."""
        nonce = os.urandom(NONCE_BYTES)
        sealed = nonce + self._key(make=True).encrypt(nonce, secret.encode(), place.encode())
        return {SEALED: b64encode(sealed).decode()}

    def open(self, sealed: str, place: str) -> str:
        """The secret; ConfigError if the key is not the one that it was sealed with."""
        try:
            data = b64decode(sealed, validate=True)
            nonce, text = data[:NONCE_BYTES], data[NONCE_BYTES:]
            return self._key(make=False).decrypt(nonce, text, place.encode()).decode()
        except (InvalidTag, ValueError):
            raise ConfigError(place, f"its secret was not sealed with {self._path}", _REMEDY) from None

    def _key(self, *, make: bool) -> AESGCM:
        if self._cipher is None:
            self._cipher = AESGCM(self._load() if self._path.exists() or not make else self._make())
        return self._cipher

    def _load(self) -> bytes:
        try:
            key = bytes.fromhex(self._path.read_text().strip())
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is damaged"
            raise ConfigError(str(self._path), f"can't be read: {why}", _REMEDY) from None
        if len(key) != KEY_BYTES:
            raise ConfigError(str(self._path), "it is damaged", _REMEDY)
        return key

    def _make(self) -> bytes:
        key = os.urandom(KEY_BYTES)
        fresh = self._path.with_suffix(".new")
        fresh.unlink(missing_ok=True)  # left by a kill
        try:
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(key.hex() + "\n")
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self._path)
            folder = os.open(self._path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)  # before any batch that needs it
            finally:
                os.close(folder)
        except OSError as error:
            raise ConfigError(str(self._path), f"can't be written: {error.strerror}", "Make room for it") from None
        return key


_REMEDY: Final = "Put the right file back, or write the account with its secrets into the node's TOML file"


def is_sealed(value: Any) -> bool:
    return isinstance(value, dict) and list(value) == [SEALED] and isinstance(value[SEALED], str)
