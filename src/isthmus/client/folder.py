"""A wallet's folder: `wallet.toml` (what people may read and change), its token and secret (mode 600), its journal.

The address and asset in the TOML are the connector's word from `wallet init`: the books are opened with them.
"""

import os
import secrets
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, final

from isthmus.errors import ConfigError
from isthmus.ilp.address import is_valid
from isthmus.ilp.asset import SCALE_MAX, Asset
from isthmus.ilp.ildcp import IldcpResponse
from isthmus.links.btp.url import parse_btp_url
from isthmus.stream.settings import TIMEOUT_MS

SETTINGS_FILE: Final = "wallet.toml"
TOKEN_FILE: Final = "token"
SECRET_FILE: Final = "secret"
JOURNAL_FILE: Final = "journal.db"
SETTLEMENT_FILE: Final = "settlement.toml"  # if the wallet settles with its connector by itself
SOCKET_FILE: Final = "wallet.sock"

SECRET_BYTES: Final = 32
FILE_BYTES_MAX: Final = 65_536
PACKET_TIMEOUT_MS_MIN: Final = 1_000
PACKET_TIMEOUT_MS_MAX: Final = 60_000
_KEYS: Final = ("connector", "address", "asset", "scale", "ca_file", "allow_insecure", "packet_timeout_ms")


@final
@dataclass(slots=True, frozen=True, kw_only=True)
class WalletSettings:
    """All that a wallet needs to run. Without a folder it lives in memory."""

    connector: str  # BTP URL; the token may be in it
    token: str | None = field(default=None, repr=False)
    secret: bytes = field(repr=False)  # 32 bytes: receiving addresses and stored payment secrets hang on it
    address: str = ""  # empty until the connector has told it
    asset: Asset | None = None
    ca_file: str | None = None
    allow_insecure: bool = False
    packet_timeout_ms: int = TIMEOUT_MS  # how long our packets may be on their way
    folder: Path | None = None


def init_folder(
    folder: Path,
    connector: str,
    token: str,
    told: IldcpResponse,
    *,
    ca_file: str | None = None,
    allow_insecure: bool = False,
) -> None:
    """Write a new wallet. One that is there is never overwritten."""
    path = folder / SETTINGS_FILE
    if path.exists():
        raise ConfigError(str(path), "there is a wallet already", "Name another folder with --wallet")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    (folder / TOKEN_FILE).unlink(missing_ok=True)  # from an interrupted `init`: no wallet was made of it
    _write_private(folder / TOKEN_FILE, token + "\n")
    if not (folder / SECRET_FILE).exists():
        # One that is left from an interrupted `init` is as good.
        _write_private(folder / SECRET_FILE, secrets.token_hex(SECRET_BYTES) + "\n")
    lines = [
        "# An isthmus wallet. Its token and secret are in files beside this one.",
        "",
        "# The connector, without the token.",
        f"connector = {_quoted(connector)}",
        "",
        "# What the connector calls us, and what we count in: its words, by ILDCP. The books are opened with the",
        "# asset and scale; the address follows the connector's.",
        f"address = {_quoted(told.address)}",
        f"asset = {_quoted(told.asset_code)}",
        f"scale = {told.asset_scale}",
        "",
    ]
    if ca_file is not None:
        lines += ["# Certificates to trust instead of the system's.", f"ca_file = {_quoted(ca_file)}", ""]
    if allow_insecure:
        lines += ["# ws:// to a host that is not this machine.", "allow_insecure = true", ""]
    lines += [
        "# How long our packets may be on their way (ms). After a crash, what is on its way is waited out.",
        f"# packet_timeout_ms = {TIMEOUT_MS}",
        "",
    ]
    _write_private(path, "\n".join(lines))


def load_folder(folder: Path) -> WalletSettings:
    """Read a wallet's settings and secrets. Raises ConfigError."""
    path = folder / SETTINGS_FILE
    try:
        with path.open("rb") as file:
            text = file.read(FILE_BYTES_MAX + 1)
    except FileNotFoundError:
        raise ConfigError(
            str(folder), "there is no wallet", "Make one with `isthmus wallet init`, or name its folder with --wallet"
        ) from None
    except OSError as error:
        raise ConfigError(str(path), str(error.strerror or error), "Check the folder") from None
    if len(text) > FILE_BYTES_MAX:
        raise ConfigError(str(path), f"longer than {FILE_BYTES_MAX} bytes", "It is no wallet's file")
    try:
        values = tomllib.loads(text.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(str(path), f"not TOML: {error}", "Correct it") from None
    return _settings(folder, values)


def _settings(folder: Path, values: dict[str, Any]) -> WalletSettings:
    for key in values:
        if key not in _KEYS:
            raise ConfigError(f"{SETTINGS_FILE}: {key}", "no such key", f"Use one of {', '.join(_KEYS)}")
    connector = _of(values, "connector", str)
    allow_insecure = _of(values, "allow_insecure", bool, False)
    parse_btp_url(connector, allow_insecure=allow_insecure)
    address = _of(values, "address", str)
    if not is_valid(address):
        raise ConfigError(f"{SETTINGS_FILE}: address", "no ILP address", "Make the wallet anew with `wallet init`")
    scale = _of(values, "scale", int)
    if not 0 <= scale <= SCALE_MAX:
        raise ConfigError(f"{SETTINGS_FILE}: scale", f"not 0 to {SCALE_MAX}", "Put back what `wallet init` wrote")
    timeout_ms = _of(values, "packet_timeout_ms", int, TIMEOUT_MS)
    if not PACKET_TIMEOUT_MS_MIN <= timeout_ms <= PACKET_TIMEOUT_MS_MAX:
        raise ConfigError(
            f"{SETTINGS_FILE}: packet_timeout_ms",
            f"not {PACKET_TIMEOUT_MS_MIN} to {PACKET_TIMEOUT_MS_MAX}",
            f"The default is {TIMEOUT_MS}",
        )
    return WalletSettings(
        connector=connector,
        token=_read_private(folder / TOKEN_FILE),
        secret=_secret(folder / SECRET_FILE),
        address=address,
        asset=Asset(_of(values, "asset", str), scale),
        ca_file=_of(values, "ca_file", str, "") or None,
        allow_insecure=allow_insecure,
        packet_timeout_ms=timeout_ms,
        folder=folder,
    )


def _of(values: dict[str, Any], key: str, kind: type, default: Any = None) -> Any:
    value = values.get(key, default)
    # True is an int to Python, and to nobody else.
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        problem = "missing" if value is None else f"not a {kind.__name__}"
        raise ConfigError(f"{SETTINGS_FILE}: {key}", problem, "Put back what `wallet init` wrote")
    return value


def _secret(path: Path) -> bytes:
    try:
        secret = bytes.fromhex(_read_private(path))
    except ValueError:
        secret = b""
    if len(secret) != SECRET_BYTES:
        raise ConfigError(str(path), f"not {SECRET_BYTES} bytes in hex", "Put the wallet's secret back from a copy")
    return secret


def _read_private(path: Path) -> str:
    try:
        if path.stat().st_mode & 0o077:
            raise ConfigError(str(path), "others on this machine may read it", f"Run: chmod 600 {path}")
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise ConfigError(str(path), str(reason), "Put it back from a copy") from None


def _write_private(path: Path, text: str) -> None:
    """Only this user may read it, from the first byte on; never over something that is there."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)


def _quoted(text: str) -> str:
    """A TOML basic string."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(char if char >= " " and char != "\x7f" else f"\\u{ord(char):04x}" for char in escaped) + '"'
