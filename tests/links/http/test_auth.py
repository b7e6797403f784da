"""Tokens: who may speak for an account, at which time (HTTP auth profiles, proposal 0000)."""

import json
from base64 import urlsafe_b64encode
from hashlib import sha256

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st

from isthmus.connector.events import AccountId
from isthmus.links.http.auth import (
    LIFETIME_MS_MAX,
    RENEW_MS,
    TOKEN_CHARS_MAX,
    VERIFIED_MAX,
    Authenticator,
    BearerCredentials,
    BearerVerifier,
    JwtCredentials,
    JwtVerifier,
    NoCredentials,
    bearer_token,
    decode_shared_secret,
    make_token,
)

ALICE, BOB = AccountId("alice"), AccountId("bob")
NOW_MS = 1_600_000_000_000
SHARED = bytes(range(32))

# AUTH-7: the sample of the RFC.
SAMPLE_TOKEN = (
    "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbGljZSIsImV4cCI6MTU1ODAzNTg2OH0."
    "__9CiSGdn4Grhl48slun7Lp4q4xt0uq398omcipBU8M"
)
SAMPLE_KEY = "HEiMCp0FoAC903QHueY89gAWJHo/izaBnJU8/58rlSI="
SAMPLE_EXPIRES_S = 1_558_035_868  # 2019-05-16T19:44:28Z


@pytest.fixture(scope="session")
def rsa_keys() -> tuple[bytes, bytes]:
    """A private and a public key in PEM."""
    key = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return private, public


def token_of(value: str | None) -> str:
    token = bearer_token(value)
    assert token is not None
    return token


def signed(claims: dict[str, object], key: bytes = SHARED, algorithm: str = "HS256") -> str:
    return jwt.encode(claims, key, algorithm=algorithm)


# --- SIMPLE -----------------------------------------------------------------------------------------------------------


def test_a_made_token_holds_all_its_random_bytes() -> None:
    """AUTH-2, X-16: at least 32 of them, in the characters that RFC 6750 allows (the RFC's sample has a colon)."""
    token = make_token(bytes(range(224, 256)))
    assert len(token) == 43 and set(token) <= set(
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~+/"
    )
    with pytest.raises(AssertionError):
        make_token(bytes(31))


def test_simple_tokens_are_opaque_and_kept_as_their_hash() -> None:
    """AUTH-1, AUTH-2, AUTH-6, P-16, X-16: a token with a colon passes too; the verifier holds no token."""
    token = "user1234:HEiMCp0FoAC903QHueY89gAWJHo/izaBnJU8/58rlSI="
    verifier = BearerVerifier.of_tokens(token)
    assert verifier.verify(token, NOW_MS) is not None
    assert verifier.verify(token[:-1], NOW_MS) is None
    assert verifier.verify(token.swapcase(), NOW_MS) is None
    assert verifier._digests == (sha256(token.encode()).digest(),)
    assert BearerCredentials(token).authorization(NOW_MS) == f"Bearer {token}"
    assert NoCredentials().authorization(NOW_MS) is None


def test_two_tokens_allow_a_change_without_a_gap() -> None:
    """AUTH-2: each bearer has its own; the old one may stay valid beside the new."""
    verifier = BearerVerifier.of_tokens("old" * 20, "new" * 20)
    assert verifier.verify("old" * 20, NOW_MS) and verifier.verify("new" * 20, NOW_MS)
    assert verifier.verify("mid" * 20, NOW_MS) is None


# --- JWT_HS_256 -------------------------------------------------------------------------------------------------------


def test_the_sample_of_the_rfc() -> None:
    """AUTH-7, X-16: the key is the decoded 32 bytes, and the expiry is 19:44:28Z."""
    verifier = JwtVerifier("HS256", decode_shared_secret(SAMPLE_KEY), subject="alice")
    assert verifier.verify(SAMPLE_TOKEN, SAMPLE_EXPIRES_S * 1000 - 1) == SAMPLE_EXPIRES_S * 1000
    assert verifier.verify(SAMPLE_TOKEN, SAMPLE_EXPIRES_S * 1000) is None
    for wrong in (SAMPLE_KEY.encode(), bytes(32)):
        assert JwtVerifier("HS256", wrong, subject="alice").verify(SAMPLE_TOKEN, 0) is None
    with pytest.raises(ValueError, match="27 bytes"):
        JwtVerifier("HS256", SAMPLE_KEY[:27].encode(), subject="alice")


@pytest.mark.parametrize("text", ["HEiMCp0FoAC903QHueY89gAWJHo", "", "***", "A" * 42, "é" * 44])
def test_a_short_or_broken_shared_secret_is_refused(text: str) -> None:
    """AUTH-7: among them the truncated one that the RFC prints."""
    with pytest.raises(ValueError, match="shared secret"):
        decode_shared_secret(text)


def test_shared_secrets_in_either_alphabet() -> None:
    """AUTH-7."""
    expected = decode_shared_secret(SAMPLE_KEY)
    assert decode_shared_secret(SAMPLE_KEY.replace("/", "_").rstrip("=")) == expected and len(expected) == 32


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": NOW_MS // 1000 + 60},
        {"sub": "alice"},
        {"sub": "bob", "exp": NOW_MS // 1000 + 60},
        {"sub": "alice", "exp": NOW_MS // 1000},
        {"sub": "alice", "exp": NOW_MS // 1000 - 1},
        {"sub": "alice", "exp": "9999999999"},
        {"sub": "alice", "exp": 9999999999.5},
        {"sub": "alice", "exp": True},
        {"sub": "alice", "exp": None},
        {"sub": "alice", "exp": [9999999999]},
        {"sub": "alice", "exp": 10**40},
        {"sub": "alice", "exp": -1},
        {"sub": "alice", "exp": NOW_MS // 1000 + 60, "nbf": NOW_MS // 1000 + 1},
        {"sub": "alice", "exp": NOW_MS // 1000 + 60, "nbf": "soon"},
    ],
)
def test_missing_or_invalid_claims_are_refused(claims: dict[str, object]) -> None:
    """AUTH-3: `sub` and `exp` are required, and `exp` is a number of seconds ahead of us."""
    header = urlsafe_b64encode(b'{"alg":"HS256"}').rstrip(b"=").decode()
    payload = urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    signature = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256).sign(
        f"{header}.{payload}".encode(), SHARED
    )
    token = f"{header}.{payload}.{urlsafe_b64encode(signature).rstrip(b'=').decode()}"
    assert JwtVerifier("HS256", SHARED, subject="alice").verify(token, NOW_MS) is None


def test_a_good_token_is_good_until_its_expiry() -> None:
    """AUTH-3: further claims are allowed."""
    expires_s = NOW_MS // 1000 + 60
    token = signed({"sub": "alice", "exp": expires_s, "nbf": NOW_MS // 1000, "iat": 0, "aud": "x", "more": 1})
    verifier = JwtVerifier("HS256", SHARED, subject="alice")
    assert verifier.verify(token, NOW_MS) == expires_s * 1000


def test_the_algorithm_is_pinned(rsa_keys: tuple[bytes, bytes]) -> None:
    """AUTH-5: neither `none`, nor another HMAC, nor a public key used as a shared secret."""
    private, public = rsa_keys
    claims = {"sub": "alice", "iss": "i", "aud": "a", "exp": NOW_MS // 1000 + 60}
    unsigned = jwt.encode(claims, "", algorithm="none")
    hs256 = JwtVerifier("HS256", SHARED, subject="alice")
    rs256 = JwtVerifier("RS256", public, subject="alice", issuer="i", audience="a")
    assert hs256.verify(unsigned, NOW_MS) is None
    assert rs256.verify(unsigned, NOW_MS) is None
    assert hs256.verify(signed(claims, bytes(64), "HS512"), NOW_MS) is None
    assert hs256.verify(signed(claims, private, "RS256"), NOW_MS) is None
    # The library refuses to sign with a PEM, so the forged token is put together by hand.
    forged = signed(claims).rsplit(".", 1)[0]
    signature = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256).sign(forged.encode(), public)
    assert rs256.verify(f"{forged}.{urlsafe_b64encode(signature).rstrip(b'=').decode()}", NOW_MS) is None
    with pytest.raises(ValueError, match="no such JWT profile"):
        JwtVerifier("none", b"", subject="alice")  # type: ignore[arg-type]


# --- JWT_RS_256 -------------------------------------------------------------------------------------------------------


def test_rs256_needs_all_four_claims(rsa_keys: tuple[bytes, bytes]) -> None:
    """AUTH-4: `iss`, `sub`, `aud`, `exp`; each missing, wrong or ended one refuses the token."""
    private, public = rsa_keys
    verifier = JwtVerifier("RS256", public, subject="alice", issuer="https://a.example", audience="https://b.example")
    good: dict[str, object] = {
        "iss": "https://a.example",
        "sub": "alice",
        "aud": ["https://b.example"],
        "exp": NOW_MS // 1000 + 60,
    }
    assert verifier.verify(signed(good, private, "RS256"), NOW_MS)
    for name in good:
        missing = {key: value for key, value in good.items() if key != name}
        assert verifier.verify(signed(missing, private, "RS256"), NOW_MS) is None
        wrong = good | {name: 1 if name == "exp" else "eve"}
        assert verifier.verify(signed(wrong, private, "RS256"), NOW_MS) is None
    with pytest.raises(ValueError, match="AUTH-4"):
        JwtVerifier("RS256", public, subject="alice")


def test_rs256_both_ways(rsa_keys: tuple[bytes, bytes]) -> None:
    """AUTH-4: our tokens pass our verifier; another key's don't."""
    private, public = rsa_keys
    credentials = JwtCredentials("RS256", private, subject="alice", issuer="i", audience="a")
    token = token_of(credentials.authorization(NOW_MS))
    assert JwtVerifier("RS256", public, subject="alice", issuer="i", audience="a").verify(token, NOW_MS)
    assert JwtVerifier("RS256", public, subject="alice", issuer="i", audience="x").verify(token, NOW_MS) is None
    with pytest.raises(ValueError, match="AUTH-4"):
        JwtCredentials("RS256", private, subject="alice")


# --- making tokens ----------------------------------------------------------------------------------------------------


def test_tokens_live_five_minutes_at_most_and_are_cached() -> None:
    """AUTH-6: renewed a little before they end, on the bound and one past it."""
    credentials = JwtCredentials("HS256", SHARED, subject="alice")
    first = credentials.authorization(NOW_MS)
    renew_at = NOW_MS + LIFETIME_MS_MAX - RENEW_MS
    assert credentials.authorization(renew_at - 1) is first
    second = credentials.authorization(renew_at)
    assert second != first
    until = JwtVerifier("HS256", SHARED, subject="alice").verify(token_of(first), NOW_MS)
    assert until == NOW_MS + LIFETIME_MS_MAX
    for lifetime_ms in (LIFETIME_MS_MAX + 1, RENEW_MS, 0):
        with pytest.raises(ValueError, match="AUTH-6"):
            JwtCredentials("HS256", SHARED, subject="alice", lifetime_ms=lifetime_ms)


def test_a_clock_that_jumps_back_makes_a_new_token() -> None:
    """AUTH-6: the cached one would live too long by that clock."""
    credentials = JwtCredentials("HS256", SHARED, subject="alice")
    credentials.authorization(NOW_MS)
    token = token_of(credentials.authorization(NOW_MS - 3_600_000))
    until = JwtVerifier("HS256", SHARED, subject="alice").verify(token, NOW_MS - 3_600_000)
    assert until == NOW_MS - 3_600_000 + LIFETIME_MS_MAX


# --- who speaks -------------------------------------------------------------------------------------------------------


@pytest.fixture
def authenticator() -> Authenticator:
    authenticator = Authenticator()
    authenticator.add(ALICE, BearerVerifier.of_tokens("a" * 43))
    authenticator.add(BOB, JwtVerifier("HS256", SHARED, subject="bob"))
    return authenticator


def test_the_token_tells_the_account(authenticator: Authenticator) -> None:
    """AUTH-1, ILP-7: SIMPLE and JWT side by side."""
    bob = signed({"sub": "bob", "exp": NOW_MS // 1000 + 60})
    assert authenticator.identify("Bearer " + "a" * 43, NOW_MS) == ALICE
    assert authenticator.identify(f"bearer {bob}", NOW_MS) == BOB
    assert authenticator.identify("Bearer " + "b" * 43, NOW_MS) is None
    assert authenticator.identify(None, NOW_MS) is None


def test_a_token_of_another_account_does_not_pass(authenticator: Authenticator) -> None:
    """AUTH-2, HTTP-13: on a path of its own, only the account's own token will do; cached or not."""
    for _ in range(2):
        assert authenticator.identify("Bearer " + "a" * 43, NOW_MS, account=BOB) is None
        assert authenticator.identify("Bearer " + "a" * 43, NOW_MS, account=ALICE) == ALICE


def test_a_verified_token_is_cached_only_until_it_ends(authenticator: Authenticator) -> None:
    """AUTH-3, AUTH-6."""
    header = "Bearer " + signed({"sub": "bob", "exp": NOW_MS // 1000 + 60})
    assert authenticator.identify(header, NOW_MS) == BOB
    assert authenticator.identify(header, NOW_MS + 59_999) == BOB
    assert authenticator.identify(header, NOW_MS + 60_000) is None


def test_a_removed_account_is_unknown_at_once(authenticator: Authenticator) -> None:
    """AUTH-1: also if its token was cached."""
    assert authenticator.identify("Bearer " + "a" * 43, NOW_MS) == ALICE
    authenticator.remove(ALICE)
    assert authenticator.identify("Bearer " + "a" * 43, NOW_MS) is None


def test_the_cache_of_verified_tokens_is_bounded(authenticator: Authenticator) -> None:
    """AUTH-6."""
    for number in range(VERIFIED_MAX + 1):
        token = signed({"sub": "bob", "exp": NOW_MS // 1000 + 60, "jti": str(number)})
        assert authenticator.identify(f"Bearer {token}", NOW_MS) == BOB
    assert len(authenticator._verified) == VERIFIED_MAX


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer ",
        "Basic YTpi",
        "a" * 43,
        "Bearer é",
        "Bearer " + "a" * (TOKEN_CHARS_MAX + 1),
        "Bearer a.b.c",
        "Bearer ..",
        "Bearer e30.e30.",
        "Bearer e30.W10.e30",
    ],
)
def test_odd_headers_are_nobody(authenticator: Authenticator, header: str) -> None:
    """AUTH-1, HTTP-12: Basic is discouraged and not offered (HTTP-9)."""
    assert authenticator.identify(header, NOW_MS) is None


@given(st.text(max_size=80))
def test_any_header_gives_an_account_or_none(text: str) -> None:
    """AUTH-5: no header makes the check fail in another way than by saying no."""
    authenticator = Authenticator()
    authenticator.add(BOB, JwtVerifier("HS256", SHARED, subject="bob"))
    assert authenticator.identify(text, NOW_MS) is None
    assert authenticator.identify(f"Bearer {text}", NOW_MS) is None
