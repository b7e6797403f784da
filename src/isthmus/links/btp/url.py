"""BTP URLs as operators write them: `btp+wss://user:token@host/path` (BTP-16)."""

import re
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import final
from urllib.parse import unquote, urlsplit

from isthmus.errors import ConfigError

_KEY = "btp url"
_LITERAL = re.compile(r"\[[^\[\]@]*\](?::[0-9]*)?")
_SCHEMES = {"btp+ws": "ws", "btp+wss": "wss", "ws": "ws", "wss": "wss"}


@final
@dataclass(slots=True, frozen=True)
class BtpUrl:
    """Where to dial, and what to show there. Printing it gives no secret away."""

    websocket_url: str  # without credentials
    host: str
    is_secure: bool
    username: str
    token: str | None = field(repr=False)

    def __str__(self) -> str:
        return f"btp+{self.websocket_url}"


def parse_btp_url(text: str, *, allow_insecure: bool = False) -> BtpUrl:
    """Split a BTP URL. Plain ws:// is for loopback, unless `allow_insecure`. The errors never hold the text."""
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ConfigError(_KEY, "not a URL", "Write btp+wss://user:token@host/path.") from None
    scheme = _SCHEMES.get(parts.scheme)
    # `ws://a.example[::1]` is ::1 to the parser, which whoever wrote it can't have meant.
    in_brackets = _LITERAL.fullmatch(parts.netloc.rpartition("@")[2]) is not None
    is_clear = in_brackets or not any(char in parts.netloc for char in "[]")
    if scheme is None or not host or not is_clear or any(char <= " " or char > "~" for char in text):
        raise ConfigError(_KEY, "not a BTP URL", "Write btp+wss://user:token@host/path.")
    if parts.fragment or text.endswith("#"):
        raise ConfigError(_KEY, "a fragment means nothing here", "Leave out what follows the #.")
    if scheme == "ws" and not allow_insecure and not is_loopback(host):
        raise ConfigError(
            _KEY,
            f"ws:// to {host} would show the token to everybody on the way",
            "Use btp+wss://, or allow_insecure where the network is trusted.",
        )
    place = f"[{host}]" if ":" in host else host
    if port is not None:
        place += f":{port}"
    query = f"?{parts.query}" if parts.query else ""
    return BtpUrl(
        websocket_url=f"{scheme}://{place}{parts.path or '/'}{query}",
        host=host,
        is_secure=scheme == "wss",
        username=unquote(parts.username or ""),
        token=None if parts.password is None else unquote(parts.password),
    )


def is_loopback(host: str) -> bool:
    """Whether a host of a URL is this machine. Names but `localhost` are not looked up."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
