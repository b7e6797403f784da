"""Addresses of a stateless server: what the last segment says, and the secret that follows from it (RFC 0029 §4.1.1).

Most tokens are 18 random bytes. A token that carries something (receipt secrets, an application's tag) is encrypted
under a key of its own: the sender, who sees it, learns nothing (RCPT-6), and only tokens of ours open.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from hmac import digest as hmac_digest
from typing import Final, final

from isthmus.errors import CodecError
from isthmus.ilp.address import append_segments
from isthmus.oer import encode_var_octets, read_var_octets
from isthmus.stream.crypto import IV_BYTES, TOKEN_BYTES, AddressSecrets, Keys
from isthmus.stream.receipt import NONCE_BYTES, RECEIPT_SECRET_BYTES

TAG_BYTES_MAX: Final = 64
CONNECTION_ID_BYTES: Final = 16
PLAIN_TOKEN_CHARS: Final = 24
TOKEN_CHARS_MAX: Final = 256

_TOKEN_KEY: Final = b"isthmus_stream_token"
_FORMAT: Final = 1


@final
@dataclass(slots=True, frozen=True)
class Invitation:
    """What the server hands to a client, over an authenticated and encrypted channel (STREAM-26)."""

    address: str
    shared_secret: bytes
    receipts_enabled: bool = False


@final
@dataclass(slots=True, frozen=True)
class Token:
    """What an address of ours says."""

    connection_id: bytes  # 16 bytes; the same for the same address
    shared_secret: bytes
    tag: bytes = b""  # of the application that made the address
    receipt_nonce: bytes = b""
    receipt_secret: bytes = b""


@final
class Tokens:
    """Makes and reads addresses under one server secret."""

    def __init__(self, server_secret: bytes, random_bytes: Callable[[int], bytes]) -> None:
        self._secrets: Final = AddressSecrets(server_secret)
        self._keys: Final = Keys(hmac_digest(server_secret, _TOKEN_KEY, "sha256"))
        self._random_bytes: Final = random_bytes

    def invite(
        self, base_address: str, *, tag: bytes = b"", receipt_nonce: bytes = b"", receipt_secret: bytes = b""
    ) -> Invitation:
        """Make a fresh address and its secret; never give the same to two clients."""
        if bool(receipt_nonce) != bool(receipt_secret):
            raise ValueError("a receipt nonce and a receipt secret go together")
        if receipt_nonce and (len(receipt_nonce), len(receipt_secret)) != (NONCE_BYTES, RECEIPT_SECRET_BYTES):
            raise ValueError(f"a receipt nonce has {NONCE_BYTES} bytes, a receipt secret {RECEIPT_SECRET_BYTES}")
        if len(tag) > TAG_BYTES_MAX:
            raise ValueError(f"a tag has at most {TAG_BYTES_MAX} bytes, not {len(tag)}")
        if not tag and not receipt_nonce:
            return Invitation(*self._secrets.issue(base_address, self._random_bytes(TOKEN_BYTES)))
        says = bytes((_FORMAT,)) + encode_var_octets(tag) + receipt_nonce + receipt_secret
        token = urlsafe_b64encode(self._keys.encrypt(says, self._random_bytes(IV_BYTES))).rstrip(b"=").decode("ascii")
        address = append_segments(base_address, token)
        return Invitation(address, self._secrets.shared_secret(token), bool(receipt_nonce))

    def read(self, token: str) -> Token | None:
        """What a token says; None if it is none of ours. A plain one can only be told by decrypting its packets."""
        if len(token) > TOKEN_CHARS_MAX or not token.isascii():
            return None
        connection_id = sha256(token.encode("ascii")).digest()[:CONNECTION_ID_BYTES]
        secret = self._secrets.shared_secret(token)
        if len(token) == PLAIN_TOKEN_CHARS:
            return Token(connection_id, secret)
        try:
            says = self._keys.decrypt(urlsafe_b64decode(token + "=" * (-len(token) % 4)))
            if not says or says[0] != _FORMAT:
                return None
            tag, at = read_var_octets(says, 1, "tag")
        except (CodecError, Base64Error, ValueError):
            return None
        if len(tag) > TAG_BYTES_MAX or len(says) - at not in (0, NONCE_BYTES + RECEIPT_SECRET_BYTES):
            return None
        return Token(connection_id, secret, tag, says[at : at + NONCE_BYTES], says[at + NONCE_BYTES :])
