"""The limits of an account as options: one for each, as the configuration names and explains it."""

from collections.abc import Callable
from typing import Any

import click

from isthmus.node.config_schema_limits import LIMITS


def limit_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--receivable`, `--payable` and so on."""
    for key in reversed(LIMITS):
        text = key.doc.replace("`", "")
        command = click.option(f"--{key.name.replace('_', '-')}", key.name, metavar="VALUE", help=text)(command)
    return command


def limits_of(terms: dict[str, Any]) -> dict[str, Any]:
    """Those that were given, as the configuration has them."""
    return {key.name: _value(key.name, terms[key.name]) for key in LIMITS if terms[key.name] is not None}


def _value(name: str, text: str) -> str | int:
    """Counts are numbers to the node; amounts and durations are text."""
    return int(text) if name in ("packets_per_minute", "open_legs") and text.isascii() and text.isdecimal() else text
