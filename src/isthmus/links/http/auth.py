"""Who may speak for an account over HTTP, and how we prove who we are: bearer tokens, SIMPLE and JWT.

RFC proposal 0000 "HTTP Auth Profiles". Incoming tokens are never kept, only their SHA-256 (AUTH-6); whoever builds
a verifier from a configuration hands the token over once. Time (wall ms) is passed in.
"""

import hmac
import json
from base64 import b64decode, urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, Literal, Protocol, final

import jwt

from isthmus.connector.events import AccountId

Algorithm = Literal["HS256", "RS256"]

TOKEN_BYTES_MIN: Final = 32
LIFETIME_MS_MAX: Final = 5 * 60_000
# A cached token is replaced this long before it ends: it must outlive its own journey.
RENEW_MS: Final = 30_000
# A longer header can't be a token of ours; it is refused before it is hashed or parsed.
TOKEN_CHARS_MAX: Final = 8_192
# Tokens that were verified lately, so that a signature is checked once per token and not once per packet.
VERIFIED_MAX: Final = 1_024

_PREFIX: Final = "bearer "


def make_token(random_bytes: bytes) -> str:
    """A fresh SIMPLE token of at least 32 random bytes (AUTH-2), in characters that RFC 6750 allows."""
    assert len(random_bytes) >= TOKEN_BYTES_MIN
    return urlsafe_b64encode(random_bytes).rstrip(b"=").decode()


def decode_shared_secret(text: str) -> bytes:
    """The key of JWT_HS_256 from base64 or base64url text, padding optional. ValueError if it is neither or short.

    The characters themselves are never the key (AUTH-7).
    """
    cleaned = text.strip().rstrip("=").replace("-", "+").replace("_", "/")
    try:
        key = b64decode(cleaned + "=" * (-len(cleaned) % 4), validate=True)
    except ValueError as error:
        raise ValueError("the shared secret is not base64") from error
    if len(key) < TOKEN_BYTES_MIN:
        raise ValueError(f"the shared secret has {len(key)} bytes, at least {TOKEN_BYTES_MIN} are needed")
    return key


# --- outgoing ---------------------------------------------------------------------------------------------------------


class Credentials(Protocol):
    """How we authenticate to one peer."""

    def authorization(self, now_ms: int) -> str | None:
        """The Authorization header's value; None to send none (mutual TLS)."""


@final
class NoCredentials:
    """The TLS client certificate speaks for us."""

    def authorization(self, now_ms: int) -> str | None:
        return None


@final
class BearerCredentials:
    """SIMPLE: the token that the peer gave us, opaque to us."""

    def __init__(self, token: str) -> None:
        self._value = f"Bearer {token}"

    def authorization(self, now_ms: int) -> str | None:
        return self._value


@final
class JwtCredentials:
    """JWT_HS_256 (`key`: the shared bytes) or JWT_RS_256 (`key`: PEM private key; issuer and audience needed)."""

    def __init__(
        self,
        algorithm: Algorithm,
        key: bytes,
        *,
        subject: str,
        issuer: str | None = None,
        audience: str | None = None,
        lifetime_ms: int = LIFETIME_MS_MAX,
    ) -> None:
        _check_profile(algorithm, key, issuer, audience)
        if not RENEW_MS < lifetime_ms <= LIFETIME_MS_MAX:
            raise ValueError(f"a token's lifetime must be above {RENEW_MS} and at most {LIFETIME_MS_MAX} ms (AUTH-6)")
        self._algorithm = algorithm
        self._key = key
        self._lifetime_ms = lifetime_ms
        claims = {"sub": subject, "iss": issuer, "aud": audience}
        self._claims = {name: value for name, value in claims.items() if value is not None}
        self._value = ""
        self._renew_at = 0
        self._made_at = 0

    def authorization(self, now_ms: int) -> str | None:
        # A wall clock that was set back would make the cached token look fresh for too long.
        if not self._made_at <= now_ms < self._renew_at:
            expires_s = (now_ms + self._lifetime_ms) // 1000
            token = jwt.encode({**self._claims, "exp": expires_s}, self._key, algorithm=self._algorithm)
            self._value = f"Bearer {token}"
            self._made_at = now_ms
            self._renew_at = expires_s * 1000 - RENEW_MS
        return self._value


# --- incoming ---------------------------------------------------------------------------------------------------------


class Verifier(Protocol):
    """What a peer must show to speak for one account."""

    @property
    def subject(self) -> str | None:
        """The `sub` that a token must claim; None if tokens here claim nothing."""

    def verify(self, token: str, now_ms: int) -> int | None:
        """Until when (wall ms) the token is good; None if it isn't."""


FOREVER_MS: Final = 2**63 - 1


@final
class BearerVerifier:
    """SIMPLE. Keeps the SHA-256 of each valid token; several allow a token to be changed without a gap."""

    subject: Final = None

    def __init__(self, digests: Sequence[bytes]) -> None:
        assert digests and all(len(digest) == 32 for digest in digests)
        self._digests = tuple(digests)

    @classmethod
    def of_tokens(cls, *tokens: str) -> "BearerVerifier":
        return cls([sha256(token.encode()).digest() for token in tokens])

    def verify(self, token: str, now_ms: int) -> int | None:
        shown = sha256(token.encode()).digest()
        good = False
        for digest in self._digests:
            good |= hmac.compare_digest(shown, digest)
        return FOREVER_MS if good else None


@final
class JwtVerifier:
    """One account's JWT profile. The algorithm is pinned: a token can't choose how it is checked (AUTH-5).

    `key` is the shared bytes for HS256 and a PEM public key for RS256; issuer and audience are checked where given.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        key: bytes,
        *,
        subject: str,
        issuer: str | None = None,
        audience: str | None = None,
    ) -> None:
        _check_profile(algorithm, key, issuer, audience)
        self._algorithm = algorithm
        self._key = key
        self.subject: Final[str] = subject
        self._issuer = issuer
        self._audience = audience
        self._required = ["sub", "exp"] if algorithm == "HS256" else ["iss", "sub", "aud", "exp"]

    def verify(self, token: str, now_ms: int) -> int | None:
        try:
            claims = jwt.decode(
                token,
                self._key,
                algorithms=[self._algorithm],
                # The library would read the real clock; times are judged below.
                options={
                    "require": self._required,
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                    "verify_aud": self._audience is not None,
                },
                issuer=self._issuer,
                audience=self._audience,
            )
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
            return None
        if claims["sub"] != self.subject:
            return None
        expires_s = claims["exp"]
        if type(expires_s) is not int or not 0 < expires_s < 2**53 or expires_s * 1000 <= now_ms:
            return None
        not_before_s = claims.get("nbf", 0)
        if type(not_before_s) is not int or not_before_s * 1000 > now_ms:
            return None
        return expires_s * 1000


def _check_profile(algorithm: str, key: bytes, issuer: str | None, audience: str | None) -> None:
    if algorithm not in ("HS256", "RS256"):
        raise ValueError(f"no such JWT profile: {algorithm!r}; use HS256 or RS256")
    if algorithm == "HS256" and len(key) < TOKEN_BYTES_MIN:
        raise ValueError(f"the shared secret has {len(key)} bytes, at least {TOKEN_BYTES_MIN} are needed")
    if algorithm == "RS256" and (issuer is None or audience is None):
        raise ValueError("JWT_RS_256 needs an issuer and an audience (AUTH-4)")


@final
@dataclass(slots=True)
class _Verified:
    account: AccountId
    good_until_ms: int


@final
class Authenticator:
    """Which account a request speaks for. Packets never say so themselves (ILP-7)."""

    def __init__(self) -> None:
        self._verifiers: dict[AccountId, Verifier] = {}
        self._verified: dict[bytes, _Verified] = {}

    def add(self, account: AccountId, verifier: Verifier) -> None:
        self._verifiers[account] = verifier
        self._verified.clear()

    def remove(self, account: AccountId) -> None:
        self._verifiers.pop(account, None)
        self._verified.clear()

    def identify(self, authorization: str | None, now_ms: int, *, account: AccountId | None = None) -> AccountId | None:
        """The account whose token this is; None for a missing, wrong or ended token.

        With `account` (one path per account) only that account's own token will do.
        """
        token = bearer_token(authorization)
        if token is None:
            return None
        # Found by digest: a look-up's timing tells of the digest of a guess, which nobody can steer.
        digest = sha256(token.encode()).digest()
        verified = self._verified.get(digest)
        if verified is None or verified.good_until_ms <= now_ms:
            verified = self._verify(token, digest, now_ms)
        if verified is None or (account is not None and verified.account != account):
            return None
        return verified.account

    def _verify(self, token: str, digest: bytes, now_ms: int) -> _Verified | None:
        self._verified.pop(digest, None)
        claimed = _claimed_subject(token)
        for account, verifier in self._verifiers.items():
            # Spares a stranger's token one signature check per account.
            if verifier.subject != claimed and verifier.subject is not None:
                continue
            good_until_ms = verifier.verify(token, now_ms)
            if good_until_ms is not None:
                if len(self._verified) >= VERIFIED_MAX:
                    del self._verified[next(iter(self._verified))]  # the oldest is simply checked again
                verified = _Verified(account, good_until_ms)
                self._verified[digest] = verified
                return verified
        return None


def _claimed_subject(token: str) -> str | None:
    """The `sub` that a JWT claims, not verified; None if this is no JWT."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        claims = json.loads(urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, RecursionError):
        return None
    subject = claims.get("sub") if isinstance(claims, dict) else None
    return subject if isinstance(subject, str) else None


def bearer_token(authorization: str | None) -> str | None:
    """The token of an `Authorization: Bearer …` header (RFC 6750 §2.1), None if there is none."""
    if authorization is None or authorization[: len(_PREFIX)].lower() != _PREFIX:
        return None
    token = authorization[len(_PREFIX) :].strip(" ")
    if not token or len(token) > TOKEN_CHARS_MAX or not token.isascii():
        return None
    return token
