"""Which URLs are sent packets and tokens."""

import pytest

from isthmus.links.http.urls import Origin, allowed_callback, origin_of


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://a.example/ilp", Origin("https", "a.example", 443)),
        ("HTTPS://A.example.:8443/", Origin("https", "a.example", 8443)),
        ("http://127.0.0.1", Origin("http", "127.0.0.1", 80)),
        ("https://[::1]:7/", Origin("https", "::1", 7)),
    ],
)
def test_an_origin_is_scheme_host_and_port(url: str, origin: Origin) -> None:
    """HTTP-13."""
    assert origin_of(url) == origin


@pytest.mark.parametrize("host", ["a.example[::1]", "[::1]a.example", "[::1]a.example[::1]:1", "a]", "[", "[::1]:x"])
def test_brackets_hold_a_whole_host_or_nothing(host: str) -> None:
    """HTTP-13: the parser takes what stands in brackets for the host, and drops the name beside it."""
    assert origin_of(f"https://{host}/") is None


@pytest.mark.parametrize("host", ["%40a.example", "a.example%2f.b.example", "[fe80::1%25eth0]", "[::%.]"])
def test_a_percent_has_no_place_in_a_host(host: str) -> None:
    """HTTP-13: the HTTP client decodes it, and would look up another name than the one that was checked."""
    url = f"https://{host}/"
    assert origin_of(url) is None
    assert not allowed_callback(url, Origin("https", host, 443))
