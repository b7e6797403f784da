"""One request to an HTTP server that speaks JSON: a node's admin API, or the other side of a new neighbourhood."""

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any, Final, TypeAlias

Json: TypeAlias = dict[str, Any]

# Nothing but this machine is asked, whatever proxy the environment names.
_DIRECTLY: Final = urllib.request.ProxyHandler({})


class RefusalError(Exception):
    """A status of 400 or above; `detail` is the problem's (RFC 9457), None if it has none."""

    def __init__(self, status: int, detail: str | None) -> None:
        super().__init__(status, detail)
        self.status: Final = status
        self.detail: Final = detail


class NoAnswerError(Exception):
    """Nobody there, nothing in time, or no JSON object; the text says which."""


def exchange(
    method: str,
    url: str,
    body: Json | None,
    *,
    token: str | None,
    wait_s_max: float,
    bytes_max: int,
    directly: bool,
    headers: Mapping[str, str] | None = None,
) -> Json:
    """The answer's object. `directly`: without the proxies that the environment may name."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, method=method)  # noqa: S310 - callers know where it leads
    if token is not None:
        request.add_header("Authorization", f"Bearer {token}")
    if data is not None:
        request.add_header("Content-Type", "application/json")
    for name, value in (headers or {}).items():
        request.add_header(name, value)
    opener = urllib.request.build_opener(*([_DIRECTLY] if directly else []))
    try:
        with opener.open(request, timeout=wait_s_max) as response:
            found = json.loads(response.read(bytes_max))
    except urllib.error.HTTPError as refusal:
        with refusal:
            raise RefusalError(refusal.code, _detail(refusal, bytes_max)) from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        said = reason.strerror if isinstance(reason, OSError) else None
        raise NoAnswerError(said or f"{reason}" or type(error).__name__) from None
    if not isinstance(found, dict):
        raise NoAnswerError("what came is no JSON object")
    return found


def _detail(refusal: urllib.error.HTTPError, bytes_max: int) -> str | None:
    try:
        return str(json.loads(refusal.read(bytes_max))["detail"])
    except (OSError, ValueError, KeyError, TypeError, http.client.HTTPException):
        return None
