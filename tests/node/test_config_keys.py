"""Keys and certificates of a configuration are tried when it is read: a bad one is found before the node runs."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID

from isthmus.node.config import Checked, parse_config
from isthmus.node.config_model import HttpLink, JwtAuth, NoAuth

BOB = """
address = "test.hub"
[accounts.bob]
asset = "EUR"
scale = 2
relation = "peer"
limits.receivable = "0"
[accounts.bob.link]
type = "http"
url = "https://bob.example/ilp"
{link}
[listeners.http]
listen = "0.0.0.0:7769"
{listener}
"""
INCOMING = f'incoming = {{ auth = "bearer", token_sha256 = "{"ab" * 32}" }}\n'
OUTGOING = 'outgoing = { auth = "none" }\n'
TLS = 'tls = { cert_file = "cert.pem", key_file = "key.pem" }\n'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of its own authority, and an RSA key pair."""
    folder = tmp_path_factory.mktemp("keys")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "hub.example")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    rsa_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    spki = PublicFormat.SubjectPublicKeyInfo
    (folder / "cert.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    (folder / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (folder / "ec-public.pem").write_bytes(key.public_key().public_bytes(Encoding.PEM, spki))
    (folder / "rsa.pem").write_bytes(rsa_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (folder / "rsa-public.pem").write_bytes(rsa_key.public_key().public_bytes(Encoding.PEM, spki))
    (folder / "none.pem").write_text("not a key")
    return folder


def read(folder: Path, *, link: str = OUTGOING + INCOMING, listener: str = TLS) -> Checked:
    return parse_config(BOB.format(link=link, listener=listener), folder / "isthmus.toml", {})


def only_problem(checked: Checked) -> tuple[str, str]:
    assert len(checked.problems) == 1, checked.problems
    return checked.problems[0].key, checked.problems[0].problem


def rs256(side: str, key: str, claims: str = 'subject = "s", issuer = "i", audience = "a"') -> str:
    name = "private_key" if side == "outgoing" else "public_key"
    return f'{side} = {{ auth = "jwt_rs256", {name} = {{ file = "{key}" }}, {claims} }}\n'


def test_a_listener_with_its_certificate_may_be_reached_by_others(folder: Path) -> None:
    assert read(folder).problems == ()
    assert (
        read(
            folder, listener='tls = { cert_file = "cert.pem", key_file = "key.pem", client_ca_file = "cert.pem" }'
        ).problems
        == ()
    )


def test_a_certificate_that_can_not_be_used_is_found(folder: Path) -> None:
    key, problem = only_problem(read(folder, listener=TLS.replace('"key.pem"', '"none.pem"')))
    assert key == "listeners.http.tls"
    assert "can't use these files" in problem
    assert only_problem(read(folder, listener=TLS.replace('"key.pem"', '"rsa.pem"')))[0] == "listeners.http.tls"
    assert only_problem(read(folder, listener=TLS.replace("key.pem", "gone.pem")))[0] == "listeners.http.tls.key_file"


def test_a_client_certificate_speaks_for_us(folder: Path) -> None:
    """HTTP-9."""
    tls = 'tls = { ca_file = "cert.pem", cert_file = "cert.pem", key_file = "key.pem" }\n'
    config = read(folder, link=OUTGOING + INCOMING + tls).config
    assert config is not None
    link = config.accounts[0].link
    assert isinstance(link, HttpLink)
    assert link.outgoing == NoAuth()
    assert link.tls.cert_file == folder / "cert.pem"


@pytest.mark.parametrize(
    ("tls", "key"),
    [
        ('{ cert_file = "cert.pem" }', "accounts.bob.link.tls.key_file"),
        ('{ key_file = "key.pem" }', "accounts.bob.link.tls.cert_file"),
        ('{ ca_file = "none.pem" }', "accounts.bob.link.tls"),
        ('{ cert_file = "cert.pem", key_file = "rsa.pem" }', "accounts.bob.link.tls"),
    ],
)
def test_half_a_client_certificate_is_found(folder: Path, tls: str, key: str) -> None:
    assert only_problem(read(folder, link=f"{OUTGOING}{INCOMING}tls = {tls}\n"))[0] == key


def test_rs256_both_ways(folder: Path) -> None:
    """AUTH-4."""
    config = read(folder, link=rs256("outgoing", "rsa.pem") + rs256("incoming", "rsa-public.pem")).config
    assert config is not None
    link = config.accounts[0].link
    assert isinstance(link, HttpLink)
    assert isinstance(link.outgoing, JwtAuth)
    assert isinstance(link.incoming, JwtAuth)
    assert (link.outgoing.algorithm, link.incoming.algorithm) == ("RS256", "RS256")


@pytest.mark.parametrize("key", ["none.pem", "rsa-public.pem", "key.pem"])
def test_a_key_that_can_not_sign_is_found(folder: Path, key: str) -> None:
    """AUTH-4."""
    found, problem = only_problem(read(folder, link=rs256("outgoing", key) + INCOMING))
    assert found == "accounts.bob.link.outgoing"
    assert "can't sign" in problem


@pytest.mark.parametrize("key", ["none.pem", "rsa.pem", "ec-public.pem"])
def test_a_key_that_can_not_check_is_found(folder: Path, key: str) -> None:
    """AUTH-4, AUTH-5."""
    found, problem = only_problem(read(folder, link=OUTGOING + rs256("incoming", key)))
    assert found == "accounts.bob.link.incoming"
    assert "can't check" in problem


def test_rs256_needs_its_claims(folder: Path) -> None:
    """AUTH-4."""
    checked = read(folder, link=rs256("outgoing", "rsa.pem", 'subject = "s"') + INCOMING)
    assert [each.key for each in checked.problems] == [
        "accounts.bob.link.outgoing.issuer",
        "accounts.bob.link.outgoing.audience",
    ]


@pytest.mark.parametrize(
    ("link", "key"),
    [
        (INCOMING, "accounts.bob.link.outgoing"),
        (OUTGOING + INCOMING + 'mode = "async"\n', "accounts.bob.link.callback_url"),
        (OUTGOING + INCOMING + 'callback_url = "ftp://x"\n', "accounts.bob.link.callback_url"),
        (OUTGOING, "accounts.bob.link.incoming"),
        (OUTGOING + 'incoming = { auth = "bearer" }\n', "accounts.bob.link.incoming.token"),
        (OUTGOING + 'incoming = { auth = "jwt_hs256", secret = "x", subject = "s" }\n', "accounts.bob.link.incoming"),
        (OUTGOING + INCOMING + "concurrency = 0\n", "accounts.bob.link.concurrency"),
    ],
)
def test_what_a_link_over_http_needs(folder: Path, link: str, key: str) -> None:
    """HTTP-2, HTTP-13, AUTH-1."""
    assert only_problem(read(folder, link=link))[0] == key
