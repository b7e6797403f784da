"""Which URLs we may send money-bearing requests to: https, or http where it can't leave the machine."""

import re
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from isthmus.errors import ConfigError

_PORTS = {"https": 443, "http": 80}
_LITERAL = re.compile(r"\[[^\[\]]*\](?::[0-9]*)?")


@dataclass(slots=True, frozen=True)
class Origin:
    """Scheme, host and port: what a callback must share with the configured URL (HTTP-13)."""

    scheme: str
    host: str
    port: int


def origin_of(url: str) -> Origin | None:
    """The origin of an http or https URL without userinfo or fragment; None for anything else."""
    # The raw string is judged first: URL parsers strip or repair what a peer may have put in on purpose.
    if not url.isascii() or any(character <= " " or character in '\\\x7f"<>^`{|}' for character in url):
        return None
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    if parts.scheme not in _PORTS or not host or "@" in parts.netloc or "#" in url or port == 0:
        return None
    # The HTTP client would decode it, and look up another name.
    if "%" in host:
        return None
    # `https://a.example[::1]` is ::1 to the parser, and nothing to the HTTP client.
    if ("[" in parts.netloc or "]" in parts.netloc) and _LITERAL.fullmatch(parts.netloc) is None:
        return None
    return Origin(parts.scheme, host.rstrip("."), port or _PORTS[parts.scheme])


def is_loopback(host: str) -> bool:
    """Whether packets to the host stay on this machine: `localhost` and its children (RFC 6761), 127/8 and ::1."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def check_url(key: str, url: str, *, allow_insecure: bool = False) -> Origin:
    """The origin of a configured URL, or ConfigError: tokens and packets travel under TLS (AUTH-6)."""
    origin = origin_of(url)
    if origin is None:
        # Not shown: it may hold a password, which is one reason to refuse it.
        raise ConfigError(key, "it is not an http(s) URL", "Write it as https://host/path.")
    if origin.scheme == "http" and not allow_insecure and not is_loopback(origin.host):
        raise ConfigError(
            key,
            f"{url!r} would send tokens and packets in the clear",
            "Use https, or set allow_insecure = true if another layer encrypts.",
        )
    return origin


def allowed_callback(url: str, agreed: Origin, *, allow_insecure: bool = False) -> bool:
    """Whether replies may be POSTed where a peer's Callback-Url says: its agreed host only (HTTP-13)."""
    origin = origin_of(url)
    if origin is None or origin != agreed:
        return False
    return origin.scheme == "https" or allow_insecure or is_loopback(origin.host)
