"""BTP URLs."""

import pytest

from isthmus.errors import ConfigError
from isthmus.links.btp.url import is_loopback, parse_btp_url


def test_credentials_are_taken_out_of_the_url() -> None:
    """BTP-16."""
    url = parse_btp_url("btp+wss://al%40ice:to%2Fken@example.com:7443/btp/x?y=1")
    assert url.websocket_url == "wss://example.com:7443/btp/x?y=1"
    assert (url.username, url.token, url.is_secure) == ("al@ice", "to/ken", True)
    assert "ken" not in repr(url) and "ken" not in str(url)


@pytest.mark.parametrize(
    ("text", "dialled", "token"),
    [
        ("btp+ws://:t@localhost", "ws://localhost/", "t"),
        ("btp+ws://t@127.0.0.1:1", "ws://127.0.0.1:1/", None),
        ("ws://[::1]:7/a", "ws://[::1]:7/a", None),
        ("wss://u:@host", "wss://host/", ""),
    ],
)
def test_forms(text: str, dialled: str, token: str | None) -> None:
    """BTP-16."""
    url = parse_btp_url(text)
    assert (url.websocket_url, url.token) == (dialled, token)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "http://u:secret@host",
        "btp+wss://",
        "btp+wss://u:secret@",
        "btp+wss://u:secret@host:notaport",
        "btp+wss://u:secret@host:99999",
        "btp+wss://u:secret@host/#f",
        "btp+wss://u:secret@host/#",
        "btp+wss://u:secret@ho st/",
        "btp+wss://u:secret@host/\n",
        "btp+wss://u:secret@[::1/",
    ],
)
def test_what_is_no_btp_url_is_refused_without_printing_it(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_btp_url(text)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("host", ["a.example[::1]", "[::1]a.example", "[::1]:1[::2]", "[::1]:@.[:0::1]1:1"])
def test_brackets_hold_a_whole_host_or_nothing(host: str) -> None:
    """The parser takes what stands in brackets for the host, and drops the name beside it."""
    with pytest.raises(ConfigError):
        parse_btp_url(f"btp+wss://u:secret@{host}/", allow_insecure=True)


def test_plain_ws_is_for_loopback() -> None:
    """Elsewhere the token would be readable on the way."""
    with pytest.raises(ConfigError) as caught:
        parse_btp_url("btp+ws://u:secret@example.com/")
    assert "secret" not in str(caught.value)
    assert parse_btp_url("btp+ws://u:t@example.com/", allow_insecure=True).websocket_url == "ws://example.com/"


def test_loopback() -> None:
    assert all(is_loopback(host) for host in ("localhost", "127.0.0.1", "127.9.9.9", "::1"))
    assert not any(is_loopback(host) for host in ("127.0.0.1.example.com", "localhost.example.com", "10.0.0.1", ""))
