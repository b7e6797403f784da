"""STREAM's envelope, fulfillments and address secrets, against the definitions spelled out with other functions."""

import hmac
from base64 import urlsafe_b64encode
from hashlib import sha256

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from isthmus.errors import CodecError
from isthmus.ilp.packet import DATA_BYTES_MAX
from isthmus.stream.crypto import (
    ENVELOPE_BYTES_MAX,
    ENVELOPE_BYTES_MIN,
    PLAINTEXT_BYTES_MAX,
    AddressSecrets,
    Keys,
    token_of,
    unfulfillable_condition,
)

SECRET = bytes(range(32))
KEYS = Keys(SECRET)
IV = bytes(range(100, 112))


def mac(key: bytes, message: bytes) -> bytes:
    return hmac.new(key, message, "sha256").digest()


def test_the_envelope_is_iv_tag_ciphertext() -> None:
    """STREAM-1, STREAM-2."""
    sealed = AESGCM(mac(SECRET, b"ilp_stream_encryption")).encrypt(IV, b"hello", None)
    data = KEYS.encrypt(b"hello", IV)
    assert data == IV + sealed[5:] + sealed[:5]
    assert KEYS.decrypt(data) == b"hello"


@given(st.binary(min_size=1, max_size=64), st.binary(max_size=300), st.binary(min_size=12, max_size=12))
def test_what_was_sealed_opens_with_the_same_secret_only(secret: bytes, plaintext: bytes, iv: bytes) -> None:
    """STREAM-1, STREAM-2."""
    keys = Keys(secret)
    data = keys.encrypt(plaintext, iv)
    assert keys.decrypt(data) == plaintext
    with pytest.raises(CodecError, match="not encrypted with this secret"):
        Keys(secret + b"x").decrypt(data)


@given(st.integers(0, 32), st.integers(1, 255))
def test_a_changed_byte_is_noticed(place: int, change: int) -> None:
    """STREAM-1."""
    data = bytearray(KEYS.encrypt(b"hello", IV))
    data[place] ^= change
    with pytest.raises(CodecError):
        KEYS.decrypt(bytes(data))


@given(st.binary(max_size=100))
def test_any_bytes_give_a_plaintext_or_a_codec_error(data: bytes) -> None:
    """STREAM-1, P-9: an empty field and one below 28 bytes too."""
    with pytest.raises(CodecError) as error:
        KEYS.decrypt(data)
    assert error.value.field == "envelope"


def test_an_envelope_has_28_to_32767_bytes() -> None:
    """STREAM-1, P-9."""
    assert ENVELOPE_BYTES_MAX == DATA_BYTES_MAX
    smallest = KEYS.encrypt(b"", IV)
    assert len(smallest) == ENVELOPE_BYTES_MIN == 28
    assert KEYS.decrypt(smallest) == b""
    largest = KEYS.encrypt(bytes(PLAINTEXT_BYTES_MAX), IV)
    assert len(largest) == 32767
    assert KEYS.decrypt(largest) == bytes(PLAINTEXT_BYTES_MAX)
    with pytest.raises(ValueError, match="at most 32739"):
        KEYS.encrypt(bytes(PLAINTEXT_BYTES_MAX + 1), IV)
    for data in (smallest[:-1], largest + b"\0", b""):
        with pytest.raises(CodecError, match="28 to 32767"):
            KEYS.decrypt(data)


@pytest.mark.parametrize("size", [0, 11, 13, 16])
def test_an_iv_has_12_bytes(size: int) -> None:
    """STREAM-1."""
    with pytest.raises(ValueError, match="an IV has 12 bytes"):
        KEYS.encrypt(b"", bytes(size))


@given(st.binary(max_size=200), st.binary(min_size=1, max_size=70))
def test_the_fulfillment_is_a_mac_of_the_whole_encrypted_field(data: bytes, secret: bytes) -> None:
    """STREAM-3, P-7."""
    keys = Keys(secret)
    fulfillment = mac(mac(secret, b"ilp_stream_fulfillment"), data)
    assert keys.fulfillment(data) == fulfillment
    assert keys.condition(data) == sha256(fulfillment).digest()


def test_padding_changes_the_fulfillment() -> None:
    """P-7: it covers IV, tag and ciphertext, padding included, and not the plaintext."""
    data = KEYS.encrypt(b"hello", IV)
    others = [KEYS.encrypt(b"hello\0", IV), KEYS.encrypt(b"hello", bytes(12)), data + b"\0", b"hello"]
    assert len({KEYS.fulfillment(other) for other in [data, *others]}) == 5


def test_an_unfulfillable_condition_is_random_bytes() -> None:
    """STREAM-3: not the hash of something that we know."""
    assert unfulfillable_condition(SECRET) == SECRET
    with pytest.raises(ValueError, match="32 bytes"):
        unfulfillable_condition(SECRET[:31])


def test_an_address_leads_to_its_secret() -> None:
    """STREAM-27: nothing is stored, and another token has another secret."""
    server = AddressSecrets(SECRET)
    address, secret = server.issue("g.us.bob", bytes(range(18)))
    token = urlsafe_b64encode(bytes(range(18))).decode()
    assert address == f"g.us.bob.{token}"
    assert secret == mac(mac(SECRET, b"ilp_stream_shared_secret"), token.encode())
    assert token_of("g.us.bob", address) == token
    assert server.shared_secret(token) == secret
    assert server.issue("g.us.bob", bytes(18))[1] != secret
    assert AddressSecrets(SECRET[::-1]).shared_secret(token) != secret


def test_what_follows_the_token_does_not_matter() -> None:
    """STREAM-27."""
    assert token_of("g.us.bob", "g.us.bob.token.more.segments") == "token"
    for destination in ("g.us.bob", "g.us.bobby.token", "g.us", "g.us.bob."):
        assert not token_of("g.us.bob", destination)


def test_an_issued_address_fits_its_limit() -> None:
    """ADDR-11."""
    server = AddressSecrets(SECRET)
    base = "g." + "a" * (1023 - 2 - 25)
    assert len(server.issue(base, bytes(18))[0]) == 1023
    with pytest.raises(ValueError, match="longer than"):
        server.issue(base + "a", bytes(18))


def test_secrets_have_their_sizes_and_are_not_shown() -> None:
    """STREAM-26, STREAM-27."""
    for misuse in (
        lambda: Keys(b""),
        lambda: AddressSecrets(bytes(31)),
        lambda: AddressSecrets(SECRET).issue("g.a", b""),
    ):
        with pytest.raises(ValueError, match="secret|token"):
            misuse()
    assert SECRET.hex() not in repr(KEYS) + repr(AddressSecrets(SECRET))
    assert repr(KEYS) == "Keys(…)"
    assert repr(AddressSecrets(SECRET)) == "AddressSecrets(…)"


def test_a_token_may_be_any_text() -> None:
    """STREAM-27: peers choose what they send to."""
    assert len(AddressSecrets(SECRET).shared_secret("\ud800")) == 32
