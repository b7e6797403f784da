"""Secrets on their way into a command: from files and the environment, never from its arguments, which others see."""

import os
import sys
from pathlib import Path
from typing import Any

from isthmus.errors import ConfigError
from isthmus.node.config_reader import Bad, Source
from isthmus.node.config_values import SECRET_BYTES_MAX, SecretText


def read_secret(name: str, file: str | None, variable: str | None) -> str | None:
    """The secret that `--NAME-file` (`-` is stdin) or `--NAME-env` gives; None without either."""
    if file is not None and variable is not None:
        raise ConfigError(f"--{name}-env", f"given beside --{name}-file", "Give one of them")
    if file == "-":
        text = sys.stdin.read(SECRET_BYTES_MAX).rstrip("\r\n")
        if not text.strip():
            raise ConfigError(f"--{name}-file -", "nothing came on stdin", "Give the secret there")
        return text
    if file is not None:
        return _read(f"--{name}-file {file}", {"file": file}, Path())
    return None if variable is None else _read(f"--{name}-env {variable}", {"env": variable}, Path())


def secret_from(value: Any, folder: Path) -> Any:
    """A section with `{ file = … }` and `{ env = … }` replaced by what they name, as a node's file may hold them."""
    if not isinstance(value, dict):
        return value
    if len(value) == 1 and next(iter(value)) in ("file", "env"):
        return _read(f"{next(iter(value))} = {next(iter(value.values()))!r}", value, folder)
    return {key: secret_from(each, folder) for key, each in value.items()}


def _read(where: str, given: dict[str, Any], folder: Path) -> str:
    try:
        return SecretText().read(given, Source(folder, {}, os.environ), ()).reveal()
    except Bad as bad:
        raise ConfigError(where, bad.problem, bad.remedy.rstrip(".")) from None
