"""Payment pointers (RFC 0026) and payment URLs: from what a person typed to the URL that is asked. Pure.

The raw string is judged, character by character, before any URL parser sees it: parsers repair what they are given,
and what they repair differs between them (X-13).
"""

import re
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from typing import Final
from urllib.parse import urlsplit

from isthmus.errors import IsthmusError

TARGET_CHARS_MAX: Final = 2_048
HOST_CHARS_MAX: Final = 253
WELL_KNOWN_PATH: Final = "/.well-known/pay"

_LABEL: Final = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
# Stricter than RFC 3986's `host`: what a resolver would not look up as typed is left out (percent-encoding, commas …).
_HOST: Final = re.compile(rf"(?P<host>{_LABEL}(?:\.{_LABEL})*|\[[0-9A-Fa-f:.]+\])")
# path-abempty of RFC 3986 §3.3.
_PATH: Final = re.compile(r"(?:/(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})*)*")
_QUERY: Final = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:@/?-]|%[0-9A-Fa-f]{2})*")
_PORT: Final = re.compile(r"[0-9]{1,5}")
_DOTS: Final = re.compile(r"(?:\.|%2e){1,2}", re.IGNORECASE)
_NUMBER: Final = re.compile(r"(?:[0-9]+|0[xX][0-9A-Fa-f]*)")


class TargetError(IsthmusError):
    """A payment pointer or URL that can't be used; `remedy` says what would do."""

    def __init__(self, target: str, problem: str, remedy: str) -> None:
        # ASCII only: control characters and look-alikes of the input are shown as escapes and never printed raw.
        super().__init__(f"{target[:100]!a}: {problem}. {remedy}")
        self.problem = problem
        self.remedy = remedy


@dataclass(slots=True, frozen=True)
class Target:
    """Whom to pay: the URL to ask, and the pointer that it came from (None if a URL was given)."""

    url: str
    host: str
    pointer: str | None


def resolve_pointer(pointer: str) -> str:
    """The URL of a payment pointer (PTR-1, PTR-2). Raises TargetError for anything but `"$" host path-abempty`."""
    return _parse_pointer(pointer).url


def parse_target(text: str) -> Target:
    """A payment pointer, or the URL of an SPSP endpoint (SPSP-9); http only for hosts on this machine.

    Raises TargetError.
    """
    _check_characters(text)
    if text.startswith("$"):
        return _parse_pointer(text)
    scheme, separator, rest = text.partition("://")
    if not separator or scheme.lower() not in ("http", "https"):
        raise TargetError(text, "neither a payment pointer nor a URL", "Write $host/path or https://host/path.")
    return _parse_url(text, scheme.lower(), rest)


def _parse_pointer(pointer: str) -> Target:
    _check_characters(pointer)
    if not pointer.startswith("$"):
        raise TargetError(pointer, "a payment pointer begins with $", "Write it as $host/path.")
    host, path = _split_host(pointer, pointer[1:])
    if path[:1] == ":":
        raise TargetError(pointer, "a payment pointer has no port", "Leave the port out, or give the https URL.")
    _check_path(pointer, path)
    return Target(f"https://{host}{WELL_KNOWN_PATH if path in ('', '/') else path}", host, pointer)


def _parse_url(text: str, scheme: str, rest: str) -> Target:
    host, rest = _split_host(text, rest)
    port = ""
    if rest[:1] == ":":
        match = _PORT.match(rest, 1)
        if match is None or not 0 < int(match[0]) < 2**16:
            raise TargetError(text, "not a port after the host", "Write a number from 1 to 65535, or leave it out.")
        port, rest = f":{match[0]}", rest[match.end() :]
    path, question_mark, query = rest.partition("?")
    _check_path(text, path)
    if _QUERY.fullmatch(query) is None:
        raise TargetError(text, "a character that a URL's query can't have", "Percent-encode it.")
    if scheme == "http" and not is_loopback(host):
        raise TargetError(text, "http would let anybody on the way change the payee", "Use https.")
    return Target(f"{scheme}://{host}{port}{path or '/'}{question_mark}{query}", host, None)


def _check_characters(text: str) -> None:
    if len(text) > TARGET_CHARS_MAX:
        raise TargetError(text, f"longer than {TARGET_CHARS_MAX} characters", "Check what was pasted.")
    if not text.isascii():
        raise TargetError(text, "a character that is not ASCII", "Look-alike letters may hide another host.")
    if any(character <= " " or character in "\\\x7f" for character in text):
        raise TargetError(text, "white space, a control character or a backslash", "Remove it.")


def _split_host(text: str, rest: str) -> tuple[str, str]:
    """The host in lower case, and what follows it."""
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if "@" in authority:
        raise TargetError(text, "user information before the host", "The host is what follows the @: give only that.")
    match = _HOST.match(rest)
    if match is None:
        raise TargetError(text, "no host, or not a valid one", "Write $host/path or https://host/path.")
    host = match["host"].lower()
    follows = rest[match.end() :]
    if follows and follows[0] not in "/?#:":
        raise TargetError(text, "the host has a character that it can't have", "Check it for typing errors.")
    if len(host) > HOST_CHARS_MAX or not _is_plain_host(host):
        raise TargetError(text, "the host is a number in disguise, or too long", "Write its name.")
    return host, follows


def _is_plain_host(host: str) -> bool:
    """False for `2130706433` or `0x7f.1`, which some resolvers take for addresses, and for broken literals."""
    if host.startswith("["):
        try:
            IPv6Address(host[1:-1])
        except ValueError:
            return False
        return True
    if _NUMBER.fullmatch(host.rsplit(".", 1)[-1]) is None:
        return True
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _check_path(text: str, path: str) -> None:
    if "#" in path:
        raise TargetError(text, "a fragment", "Leave out the # and what follows it.")
    if "?" in path:
        raise TargetError(text, "a query", "A payment pointer has none: leave out the ? and what follows it.")
    if _PATH.fullmatch(path) is None:
        raise TargetError(text, "the path has a character that it can't have", "Percent-encode it.")
    if any(_DOTS.fullmatch(segment) for segment in path.split("/")):
        raise TargetError(text, "a . or .. segment in the path", "Write the path that is meant.")


def is_loopback(host: str) -> bool:
    """Whether the host is this machine: `localhost` and its children (RFC 6761), 127/8 and ::1."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def redirect_target(url: str, location: str) -> Target:
    """Where a redirect from `url` leads; https never leads to http (PTR-4). Raises TargetError."""
    location = location.partition("#")[0]
    _check_characters(location)
    if location.startswith("//"):
        location = f"{urlsplit(url).scheme}:{location}"
    if "://" not in location.partition("?")[0]:
        base = urlsplit(url)
        directory = base.path.rsplit("/", 1)[0]
        path = location if location.startswith("/") else f"{directory}/{location}"
        location = f"{base.scheme}://{base.netloc}{path}"
    target = parse_target(location)
    if url.startswith("https:") and not target.url.startswith("https:"):
        raise TargetError(location, "a redirect from https to http", "Ask the receiver for a correct pointer.")
    return target
