"""Keys and signatures: what `xrpl-py` signs we accept, what we sign it accepts, and nothing else."""

import pytest
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from hypothesis import given
from hypothesis import strategies as st
from xrpl.constants import CryptoAlgorithm
from xrpl.core import keypairs
from xrpl.core.addresscodec import encode_seed

from isthmus.errors import ConfigError
from isthmus.ledgers.xrp.signatures import KeyKind, SigningKey, address_of, key_kind, verify
from tests.ledgers.xrp.conftest import ALICE, BOB

ORDER = 0xFFFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFE_BAAEDCE6_AF48A03B_BFD25E8C_D0364141
KINDS = (CryptoAlgorithm.ED25519, CryptoAlgorithm.SECP256K1)


@pytest.mark.parametrize("kind", KINDS)
def test_both_libraries_have_the_same_keys_addresses_and_signatures(kind: CryptoAlgorithm) -> None:
    seed = encode_seed(bytes(range(16)), kind)
    public, private = keypairs.derive_keypair(seed)
    key = SigningKey.from_seed(seed)
    assert key.public_key.hex().upper() == public
    assert key.address == address_of(key.public_key) == keypairs.derive_classic_address(public)
    message = b"one message"
    theirs = bytes.fromhex(keypairs.sign(message, private))
    assert verify(message, theirs, key.public_key)
    assert keypairs.is_valid_message(message, key.sign(message), public)
    # Both are deterministic, each in the same way.
    assert key.sign(message) == theirs


@pytest.mark.parametrize("key", [ALICE, BOB], ids=["ed25519", "secp256k1"])
def test_any_change_breaks_a_signature(key: SigningKey) -> None:
    message, other = b"pay bob", b"pay eve"
    signature = key.sign(message)
    assert verify(message, signature, key.public_key)
    assert not verify(other, signature, key.public_key)
    for place in range(len(signature)):
        changed = bytes([*signature[:place], signature[place] ^ 1, *signature[place + 1 :]])
        assert not verify(message, changed, key.public_key)
    assert not verify(message, signature, (BOB if key is ALICE else ALICE).public_key)


def test_the_other_value_of_s_is_refused() -> None:
    """Or anybody could make a second signature of a transaction, and so a second id."""
    signature = BOB.sign(b"message")
    r, s = decode_dss_signature(signature)
    assert s <= ORDER // 2
    assert not verify(b"message", encode_dss_signature(r, ORDER - s), BOB.public_key)


@given(message=st.binary(max_size=64), signature=st.binary(max_size=80), key=st.binary(min_size=30, max_size=36))
def test_rubbish_is_no_signature(message: bytes, signature: bytes, key: bytes) -> None:
    assert not verify(message, signature, key)


@given(rest=st.binary(min_size=32, max_size=32), signature=st.binary(max_size=80), first=st.sampled_from([2, 3, 0xED]))
def test_what_looks_like_a_key_proves_nothing(rest: bytes, signature: bytes, first: int) -> None:
    assert key_kind(bytes([first]) + rest) is (KeyKind.ED25519 if first == 0xED else KeyKind.SECP256K1)
    assert not verify(b"message", signature, bytes([first]) + rest)


@pytest.mark.parametrize("seed", ["", "s", "snoPBrXtMeMyMHUVTgbuqAfg1SUTc", "rHb9CJAWyB4rj91VRWn96DkukG4bwdtyTh"])
def test_what_is_no_seed_is_not_repeated(seed: str) -> None:
    with pytest.raises(ConfigError) as caught:
        SigningKey.from_seed(seed)
    assert not seed or len(seed) == 1 or seed not in str(caught.value)


def test_a_key_doesn_t_show_its_secret() -> None:
    seed = encode_seed(b"a secret of 16 b", CryptoAlgorithm.SECP256K1)
    key = SigningKey.from_seed(seed)
    _, private = keypairs.derive_keypair(seed)
    assert private.lower() not in repr(key).lower()
    assert key.address in repr(key)
