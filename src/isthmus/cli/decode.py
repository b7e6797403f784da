"""`isthmus decode`: show any ILP, BTP or STREAM packet as a readable tree, or as JSON.

This module reads the command line and draws; what the bytes mean is told by `cli/describe.py`.
"""

import binascii
import json
import os
import sys
from base64 import b64decode
from pathlib import Path
from typing import Final

import click
from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from isthmus.cli.describe import Described, Value, describe
from isthmus.errors import CodecError
from isthmus.links.btp.codec import FRAME_BYTES_MAX
from isthmus.stream.crypto import Keys

SECRET_VARIABLE: Final = "ISTHMUS_STREAM_SECRET"
# Hex has two characters a byte; as much again for spaces, colons and line ends.
INPUT_BYTES_MAX: Final = 4 * FRAME_BYTES_MAX
SECRET_FILE_BYTES_MAX: Final = 4096
# Of hex in the tree; `--json` has all of it.
HEX_SHOWN_MAX: Final = 96
TITLES: Final = {"ilp": "ILP", "btp": "BTP", "stream": "STREAM", "ildcp": "ILDCP", "ccp": "CCP", "id": "id"}


@click.command(
    epilog="""\b
Examples:
  isthmus decode 0c4600000000000000003230...
  isthmus decode --json - < packet.bin
  isthmus decode --secret-file secret.txt 0c81...
  xxd -p frame.bin | isthmus decode -

A secret given by --secret can be read by other users of this machine in the list of processes for as long as the
command runs. Use --secret-file, or the environment variable ISTHMUS_STREAM_SECRET."""
)
@click.argument("packet", metavar="HEX|-")
@click.option("--secret", metavar="HEX|BASE64", help="Shared secret of the STREAM connection (see below).")
@click.option(
    "--secret-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="File that holds the shared secret as hex or base64.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object; amounts are strings, bytes are hex.")
def decode(packet: str, secret: str | None, secret_file: Path | None, as_json: bool) -> None:
    """Show a packet as a readable tree.

    HEX is an ILP packet, a BTP frame (with the ILP packet inside), a STREAM packet, or with its secret the encrypted
    data of an ILP packet. Spaces, colons and a leading 0x don't matter. With - the packet is read from standard
    input, as hex or as raw bytes.
    """
    data = _read_input() if packet == "-" else _parse_hex(packet)
    keys = _read_keys(secret, secret_file)
    try:
        described = describe(data, keys)
    except CodecError as error:
        raise click.UsageError(f"{len(data)} bytes, but no packet: {error}") from None
    if as_json:
        click.echo(json.dumps(described, indent=2))
    else:
        # Wide enough for a line with a hash, when the output goes to a file.
        console = Console() if Console().is_terminal else Console(width=160)
        console.print(draw(described))


# --- input -----------------------------------------------------------------------------------------------------------


def _read_input() -> bytes:
    raw = sys.stdin.buffer.read(INPUT_BYTES_MAX + 1)
    if len(raw) > INPUT_BYTES_MAX:
        raise click.UsageError(f"more than {INPUT_BYTES_MAX} bytes of input: no packet is that long")
    if raw and raw.isascii():
        compact = _compact(raw.decode("ascii"))
        try:
            return bytes.fromhex(compact)
        except ValueError:
            pass
    return raw


def _parse_hex(text: str) -> bytes:
    if len(text) > INPUT_BYTES_MAX:
        raise click.UsageError(f"more than {INPUT_BYTES_MAX} characters: no packet is that long")
    try:
        return bytes.fromhex(_compact(text))
    except ValueError:
        raise click.UsageError("the packet is not hex; for raw bytes use - and standard input") from None


def _compact(text: str) -> str:
    return "".join(text.split()).replace(":", "").removeprefix("0x")


def _read_keys(secret: str | None, secret_file: Path | None) -> Keys | None:
    """Take the secret from the option, the file or the environment; at most one of the first two."""
    if secret is not None and secret_file is not None:
        raise click.UsageError("give either --secret or --secret-file")
    if secret_file is not None:
        try:
            with secret_file.open("rb") as file:
                secret = file.read(SECRET_FILE_BYTES_MAX).decode("ascii", "replace")
        except OSError as error:
            raise click.UsageError(f"can't read the secret: {error.strerror}: {secret_file}") from None
    if secret is None:
        secret = os.environ.get(SECRET_VARIABLE) or None
    return None if secret is None else Keys(parse_secret(secret))


def parse_secret(text: str) -> bytes:
    """Read a secret as hex, or as base64 of either alphabet with or without padding. The error never repeats it."""
    compact = "".join(text.split())
    try:
        octets = bytes.fromhex(compact)
    except ValueError:
        standard = compact.rstrip("=").replace("-", "+").replace("_", "/")
        try:
            octets = b64decode(standard + "=" * (-len(standard) % 4), validate=True)
        except (binascii.Error, ValueError):
            octets = b""
    if not octets:
        raise click.UsageError("the secret is neither hex nor base64")
    return octets


# --- the tree --------------------------------------------------------------------------------------------------------


def draw(described: Described) -> Tree:
    """Draw what `describe` said."""
    tree = Tree(_heading(described), guide_style="dim")
    _grow(tree, described)
    return tree


def _heading(described: Described) -> Text:
    """Of a packet its protocol and type, of an entry its name."""
    words = [str(described[key]) for key in ("protocol", "type") if key in described]
    if not words:
        return Text(printable(str(described.get("name", ""))), style="bold")
    text = Text(_title(words[0]) if "protocol" in described else printable(words[0]), style="bold")
    return text.append(f" {printable(words[1])}", style="bold") if len(words) > 1 else text


def _grow(tree: Tree, described: Described) -> None:
    heading = ("protocol", "type") if "type" in described or "protocol" in described else ("name",)
    for key, value in described.items():
        if key in heading:
            continue
        if isinstance(value, dict):
            title = _heading(value) if "protocol" in value else Text(_title(key), style="bold")
            _grow(tree.add(title), value)
        elif isinstance(value, list):
            branch = tree.add(Text(f"{_title(key)} ({len(value)})", style="bold"))
            for item in value:
                assert isinstance(item, dict)
                _grow(branch.add(_heading(item)), item)
        else:
            tree.add(_line(key, value))


def _line(key: str, value: Value) -> Text:
    text = Text(f"{_title(key)}: ", style="dim")
    if isinstance(value, bool):
        return text.append("yes" if value else "no", style="green" if value else "yellow")
    style = "red" if key == "problem" else "not dim"
    shown = printable(str(value))
    if key in ("data", "receipt") and _is_hex(shown):
        size = len(shown) // 2
        cut = shown if len(shown) <= HEX_SHOWN_MAX else f"{shown[:HEX_SHOWN_MAX]}…"
        return text.append(f"{cut} ({size} bytes)", style=style)
    return text.append(shown or "(empty)", style=style)


def _is_hex(text: str) -> bool:
    return bool(text) and len(text) % 2 == 0 and all(character in "0123456789abcdef" for character in text)


def _title(key: str) -> str:
    return TITLES.get(key, key.replace("_", " "))


def printable(text: str) -> str:
    """Escape what a terminal would obey or hide: a peer wrote this text."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in text
    )
