"""Secrets that engines read: from a file that only its owner can read, or from an environment variable."""

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from isthmus.errors import ConfigError

KEY_FILE_BYTES_MAX: Final = 65_536


def read_secret(option: str, *, file: Path | None, variable: str | None, environ: Mapping[str, str], form: str) -> str:
    """The text in one of both places. `form` says what it should be.

    ConfigError names the option and the remedy, never what was read.
    """
    if file is not None:
        return _read_file(option, file, form)
    if variable is None:
        raise ConfigError(option, "there is no key", "Name a key_file, or a key_variable of the environment")
    text = environ.get(variable, "").strip()
    if not text:
        raise ConfigError(option, f"the environment has no {variable}", f"Set it to {form}")
    return text


def _read_file(option: str, file: Path, form: str) -> str:
    try:
        with file.open("rb") as opened:
            mode = stat.S_IMODE(os.fstat(opened.fileno()).st_mode)
            data = opened.read(KEY_FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError(option, f"{file}: {error.strerror}", "Name a file that this user can read") from None
    if mode & 0o077:
        raise ConfigError(option, f"{file} can be read by others (mode {mode:o})", f"chmod 600 {file}")
    try:
        return data[:KEY_FILE_BYTES_MAX].decode("ascii").strip()
    except UnicodeDecodeError:
        raise ConfigError(option, f"{file} is not a key file", f"It holds {form}") from None
