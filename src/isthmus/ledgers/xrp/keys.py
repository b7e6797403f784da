"""The key that signs for us: a seed, from a file that only its owner can read or from an environment variable.

A file holds the seed as wallets show it, or sealed with a passphrase (`ledgers.sealed`).
"""

import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from xrpl.constants import CryptoAlgorithm
from xrpl.core.addresscodec import encode_seed

from isthmus.errors import ConfigError
from isthmus.ledgers.key_files import read_secret
from isthmus.ledgers.sealed import NONCE_BYTES, SALT_BYTES, is_sealed, seal, unseal
from isthmus.ledgers.xrp.signatures import SigningKey

FORM: Final = "a seed (s… or sEd…)"
SEED_BYTES: Final = 16


def make_key_file(path: Path, *, passphrase: str | None) -> SigningKey:
    """A new Ed25519 key in a new file with mode 600, sealed if there is a passphrase. FileExistsError."""
    seed = encode_seed(secrets.token_bytes(SEED_BYTES), CryptoAlgorithm.ED25519)
    text = seed
    if passphrase:
        salt, nonce = secrets.token_bytes(SALT_BYTES), secrets.token_bytes(NONCE_BYTES)
        text = seal(seed, passphrase, salt=salt, nonce=nonce)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    return SigningKey.from_seed(seed)


def read_key(
    option: str, *, file: Path | None, variable: str | None, passphrase_variable: str | None, environ: Mapping[str, str]
) -> SigningKey:
    """The key from one of both places. ConfigError names the option and the remedy, never what was read."""
    text = read_secret(option, file=file, variable=variable, environ=environ, form=FORM)
    if is_sealed(text):
        text = _unseal(option, text, passphrase_variable, environ)
    try:
        return SigningKey.from_seed(text)
    except ConfigError:
        raise ConfigError(option, "what it names is no seed of the XRP Ledger", f"Use {FORM}") from None


def _unseal(option: str, text: str, passphrase_variable: str | None, environ: Mapping[str, str]) -> str:
    passphrase = environ.get(passphrase_variable or "", "")
    if not passphrase:
        raise ConfigError(option, "the seed is sealed", "Name the passphrase's environment variable, and set it")
    try:
        return unseal(text, passphrase)
    except ValueError:
        raise ConfigError(option, "the seed can't be unsealed", "Is it the right passphrase?") from None
