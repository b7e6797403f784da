"""Payment pointers: the raw string decides, before any URL parser repairs it (RFC 0026)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from isthmus.apps.pointers import (
    TARGET_CHARS_MAX,
    TargetError,
    is_loopback,
    parse_target,
    redirect_target,
    resolve_pointer,
)

LABELS = st.text(alphabet="abcdefghijklmnopqrstuvwxyz0123456789", min_size=1, max_size=10).map(lambda text: f"h{text}")
SEGMENTS = st.text(alphabet="abcXYZ0189_~!$&'()*+,;=:@-", max_size=8)


@pytest.mark.parametrize(
    ("pointer", "url"),
    [
        ("$example.com", "https://example.com/.well-known/pay"),
        ("$example.com/", "https://example.com/.well-known/pay"),
        ("$bob.example.com", "https://bob.example.com/.well-known/pay"),
        ("$example.com/bob", "https://example.com/bob"),
        ("$example.com/invoices/12345", "https://example.com/invoices/12345"),
        ("$example.com/bob/", "https://example.com/bob/"),
        ("$example.com/b%20b", "https://example.com/b%20b"),
        ("$example.com/a:b@c", "https://example.com/a:b@c"),
        ("$Example.COM/Bob", "https://example.com/Bob"),
        ("$[::1]/bob", "https://[::1]/bob"),
        ("$127.0.0.1", "https://127.0.0.1/.well-known/pay"),
    ],
)
def test_a_pointer_resolves_to_its_https_url(pointer: str, url: str) -> None:
    """PTR-1, PTR-2: the table of the RFC; a trailing slash of a path is kept."""
    assert resolve_pointer(pointer) == url
    assert parse_target(pointer).pointer == pointer


@pytest.mark.parametrize(
    "pointer",
    [
        "example.com",
        "",
        "$",
        "$/bob",
        "$u@example.com",
        "$u:p@example.com",
        "$example.com@evil.example",
        "$example.com:8443",
        "$example.com:443",
        "$example.com:",
        "$example.com?x",
        "$example.com?",
        "$example.com/bob?",
        "$example.com/bob#",
        "$example.com#x",
        "$example.com\\@evil.example",
        "$example.com/a\\b",
        "$ example.com",
        "$example.com ",
        "$example.com\n",
        "\n$example.com",
        "$example.com/bob\n",
        "$example.com\t/bob",
        "$example.com/\x00",
        "$ex\u0430mple.com",
        "$example\u3002com",
        "$example.com/b\u00f6b",
        "$example%2ecom",
        "$example.com%00",
        "$example..com",
        "$.example.com",
        "$example.com.",
        "$-example.com",
        "$example.com/%zz",
        "$example.com/%2",
        "$example.com/../admin",
        "$example.com/%2e%2E/admin",
        "$example.com/./bob",
        "$2130706433/bob",
        "$0x7f000001",
        "$127.1",
        "$256.1.1.1",
        "$[::1",
        "$[::g]",
        "$https://example.com",
        "$$example.com",
        "$example.com/<script>",
        "$" + "a" * 64 + ".example",
        "$" + "a." * 130 + "example",
        "$example.com/" + "a" * TARGET_CHARS_MAX,
    ],
)
def test_pointers_with_tricks_are_refused(pointer: str) -> None:
    """PTR-3, P-2: userinfo, ports, queries, fragments, white space, look-alikes, numbers in disguise."""
    with pytest.raises(TargetError) as caught:
        resolve_pointer(pointer)
    assert caught.value.remedy
    assert str(caught.value).isascii() and str(caught.value).isprintable()


def test_where_others_are_lenient_we_follow_the_text() -> None:
    """X-13: rs leaves `$host/` unresolved; JS strips trailing slashes and takes `:443` and a bare `?`."""
    assert resolve_pointer("$example.com/") == "https://example.com/.well-known/pay"
    assert resolve_pointer("$example.com/bob/").endswith("/bob/")
    for pointer in ("$example.com:443/bob", "$example.com/bob?"):
        with pytest.raises(TargetError):
            resolve_pointer(pointer)


@given(st.lists(LABELS, min_size=1, max_size=4), st.lists(SEGMENTS, max_size=4))
def test_every_valid_pointer_resolves_literally(labels: list[str], segments: list[str]) -> None:
    """PTR-1: `https://` host path, and a URL library finds the same host in it."""
    host = ".".join(labels)
    path = "".join(f"/{segment}" for segment in segments)
    target = parse_target(f"${host}{path}")
    assert target.url == f"https://{host}{'/.well-known/pay' if path in ('', '/') else path}"
    url = URL(target.url, encoded=True)
    assert url.host == target.host == host
    assert url.user is None and url.port == 443 and not url.query_string and not url.fragment


@given(st.text(max_size=60))
def test_any_text_gives_a_target_or_a_target_error(text: str) -> None:
    """PTR-3: and what is accepted names one host only, whoever parses it."""
    for candidate in (text, f"${text}", f"https://{text}"):
        try:
            target = parse_target(candidate)
        except TargetError:
            continue
        url = URL(target.url, encoded=True)
        assert (url.host or "").strip("[]") == target.host.strip("[]")
        assert url.user is None and url.scheme in ("http", "https")


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("https://example.com/spsp/alice", "https://example.com/spsp/alice"),
        ("https://example.com:8443/a?b=c", "https://example.com:8443/a?b=c"),
        ("HTTPS://Example.com", "https://example.com/"),
        ("http://localhost:3000/pay", "http://localhost:3000/pay"),
        ("http://127.0.0.1:3000", "http://127.0.0.1:3000/"),
        ("http://[::1]:3000/x", "http://[::1]:3000/x"),
        ("http://bob.localhost/", "http://bob.localhost/"),
    ],
)
def test_urls_are_taken_as_they_are(text: str, url: str) -> None:
    """SPSP-1, SPSP-9: the URL is opaque, and stays what was given."""
    target = parse_target(text)
    assert target.url == url and target.pointer is None


@pytest.mark.parametrize(
    "text",
    [
        "http://example.com/pay",
        "http://127.0.0.1.example.com/",
        "http://localhost.example.com/",
        "http://10.0.0.1/",
        "ftp://example.com/",
        "https://u:p@example.com/",
        "https://example.com/#x",
        "https://example.com:0/",
        "https://example.com:65536/",
        "https://example.com:x/",
        "https://",
        "https:///x",
        "https://example.com/a b",
        "javascript://example.com/%0aalert(1)",
        "bob",
    ],
)
def test_urls_with_tricks_are_refused(text: str) -> None:
    """PTR-3: http only where it can't leave the machine."""
    with pytest.raises(TargetError):
        parse_target(text)


def test_loopback_is_told_by_the_whole_name() -> None:
    """PTR-3: a name that merely looks local is not."""
    assert all(map(is_loopback, ("localhost", "a.localhost", "127.0.0.1", "127.9.9.9", "[::1]", "::1")))
    assert not any(map(is_loopback, ("localhost.example", "xlocalhost", "128.0.0.1", "[::2]", "0.0.0.0", "")))


@pytest.mark.parametrize(
    ("location", "url"),
    [
        ("https://other.example/bob", "https://other.example/bob"),
        ("//other.example/bob", "https://other.example/bob"),
        ("/carol", "https://example.com/carol"),
        ("carol#there", "https://example.com/users/carol"),
        ("/carol?to=https://x.example", "https://example.com/carol?to=https://x.example"),
    ],
)
def test_redirects_are_resolved_against_the_url(location: str, url: str) -> None:
    """PTR-4."""
    assert redirect_target("https://example.com/users/bob", location).url == url


@pytest.mark.parametrize(
    "location", ["http://example.com/bob", "http://localhost/bob", "file:///etc/passwd", "https://u@x.example/", "\\x"]
)
def test_redirects_never_lead_out_of_https(location: str) -> None:
    """PTR-4: TLS identity would be lost."""
    with pytest.raises(TargetError):
        redirect_target("https://example.com/users/bob", location)
