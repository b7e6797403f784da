"""The key that signs for us: from a file that only its owner can read, or from an environment variable.

A file holds 64 hex digits, or a key file as Ethereum's programs write them (Web3 Secret Storage, version 3), for which
a passphrase is given. Keys appear in no log, no error and no `repr`.
"""

import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Final, final

import coincurve
from eth_account import Account

from isthmus.errors import ConfigError
from isthmus.ledgers.evm.octets import address_of
from isthmus.ledgers.key_files import read_secret

FORM: Final = "64 hex digits, or an encrypted key file"


@final
class Key:
    """A private key and its address."""

    __slots__ = ("address", "private", "secret")

    def __init__(self, secret: bytes) -> None:
        """ValueError for bytes that are no key of secp256k1."""
        if len(secret) != 32:
            raise ValueError("a key has 32 bytes")
        self.secret: Final = secret
        self.private: Final = coincurve.PrivateKey(secret)
        self.address: Final = address_of(self.private.public_key.format(compressed=False))

    def __repr__(self) -> str:
        return f"<Key of {self.address}>"


def make_key_file(path: Path, *, passphrase: str | None) -> Key:
    """A new key in a new file with mode 600, encrypted if there is a passphrase. FileExistsError."""
    key = Key(secrets.token_bytes(32))
    text = json.dumps(Account.encrypt(key.secret, passphrase)) if passphrase else key.secret.hex()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    return key


def read_key(
    option: str, *, file: Path | None, variable: str | None, passphrase_variable: str | None, environ: Mapping[str, str]
) -> Key:
    """The key from one of both places. ConfigError names the option and the remedy, never what was read."""
    text = read_secret(option, file=file, variable=variable, environ=environ, form=FORM)
    if text.startswith("{"):
        return _decrypt(option, text, passphrase_variable, environ)
    try:
        return Key(bytes.fromhex(text.removeprefix("0x")))
    except Exception:  # noqa: BLE001 - an error that holds the text must not go on
        raise ConfigError(option, "what it names is not a key", f"Use {FORM}") from None


def _decrypt(option: str, text: str, passphrase_variable: str | None, environ: Mapping[str, str]) -> Key:
    passphrase = environ.get(passphrase_variable or "", "")
    if not passphrase:
        raise ConfigError(option, "the key is encrypted", "Name the passphrase's environment variable, and set it")
    try:
        return Key(bytes(Account.decrypt(json.loads(text), passphrase)))
    except Exception:  # noqa: BLE001 - whatever a strange key file does to the library
        raise ConfigError(option, "the key file can't be decrypted", "Is it the right passphrase?") from None
