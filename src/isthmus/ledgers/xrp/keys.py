"""The key that signs for us: a seed, from a file that only its owner can read or from an environment variable."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from isthmus.errors import ConfigError
from isthmus.ledgers.key_files import read_secret
from isthmus.ledgers.xrp.signatures import SigningKey

FORM: Final = "a seed (s… or sEd…)"


def read_key(option: str, *, file: Path | None, variable: str | None, environ: Mapping[str, str]) -> SigningKey:
    """The key from one of both places. ConfigError names the option and the remedy, never what was read."""
    seed = read_secret(option, file=file, variable=variable, environ=environ, form=FORM)
    try:
        return SigningKey.from_seed(seed)
    except ConfigError:
        raise ConfigError(option, "what it names is no seed of the XRP Ledger", f"Use {FORM}") from None
