"""Digests and signatures against `eth-account`'s, which knows typed data in general."""

from typing import Any

import coincurve
from eth_account import Account
from eth_account.messages import encode_typed_data
from hypothesis import given
from hypothesis import strategies as st

from isthmus.ledgers.evm.claims import AMOUNT_MAX, ChannelTerms, Domain, sign, signer
from isthmus.ledgers.evm.keys import Key
from isthmus.ledgers.evm.octets import NO_ADDRESS, checksummed, hexed, word
from tests.ledgers.evm.anvil import a_key

ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
addresses = st.binary(min_size=20, max_size=20).map(hexed)
words = st.binary(min_size=32, max_size=32)
amounts = st.integers(0, AMOUNT_MAX)
secrets = st.integers(1, ORDER - 1)


def typed(domain: Domain, name: str, fields: list[dict[str, str]], message: dict[str, Any]) -> Any:
    described = {"name": "Isthmus channels", "version": "1", "chainId": domain.chain_id}
    return encode_typed_data(
        {**described, "verifyingContract": checksummed(domain.contract)}, {name: fields}, message
    )  # fmt: skip


CHANNEL_AMOUNT = [{"name": "channel", "type": "bytes32"}, {"name": "amount", "type": "uint256"}]
FROM_TO = [{"name": "from", "type": "address"}, {"name": "to", "type": "address"}]


@given(st.integers(1, 2**64), addresses, words, amounts, secrets)
def test_claims_are_signed_as_eth_account_signs_typed_data(
    chain_id: int, contract: str, channel: bytes, amount: int, secret: int
) -> None:
    domain = Domain(chain_id, contract)
    key = Key(word(secret))
    for name, digest in (
        ("Claim", domain.claim_digest(channel, amount)),
        ("Close", domain.close_digest(channel, amount)),
    ):
        message = typed(domain, name, CHANNEL_AMOUNT, {"channel": channel, "amount": amount})
        theirs = Account.sign_message(message, word(secret))
        ours = sign(digest, key.private)
        assert ours[:32] == word(theirs.r)
        assert int.from_bytes(ours[32:], "big") == theirs.s | (theirs.v - 27) << 255
        assert bytes(theirs.message_hash) == digest
        assert (
            signer(digest, ours) == Account.recover_message(message, signature=theirs.signature).lower() == key.address
        )


@given(addresses, addresses)
def test_who_pays_whom_is_signed_as_typed_data_too(sender: str, receiver: str) -> None:
    domain = Domain(1, NO_ADDRESS)
    message = typed(domain, "Peer", FROM_TO, {"from": checksummed(sender), "to": checksummed(receiver)})
    theirs = Account.sign_message(message, a_key(1).secret)
    assert bytes(theirs.message_hash) == domain.peer_digest(sender=sender, receiver=receiver)


@given(words, st.binary(max_size=70))
def test_any_bytes_are_somebodys_signature_or_nobodys(digest: bytes, signature: bytes) -> None:
    assert signer(digest, signature) in (None, signer(digest, signature))
    assert signer(digest, signature) is None or len(signature) == 64


@given(words, secrets, st.integers(0, 511))
def test_one_changed_bit_is_another_signer(digest: bytes, secret: int, bit: int) -> None:
    key = Key(word(secret))
    signature = bytearray(sign(digest, key.private))
    signature[bit // 8] ^= 1 << bit % 8
    assert signer(digest, bytes(signature)) != key.address


@given(words, words, amounts, amounts)
def test_a_claim_counts_for_its_channel_chain_and_contract_only(one: bytes, other: bytes, low: int, high: int) -> None:
    here = Domain(1, "0x" + "11" * 20)
    digests = {
        here.claim_digest(one, low),
        here.claim_digest(other, low),
        here.claim_digest(one, high),
        here.close_digest(one, low),
        Domain(2, here.contract).claim_digest(one, low),
        Domain(1, "0x" + "12" * 20).claim_digest(one, low),
    }
    assert len(digests) == 6 - (one == other) - (low == high)


def test_an_id_holds_all_terms() -> None:
    terms = ChannelTerms(a_key(1).address, a_key(2).address, NO_ADDRESS, 3600, word(1))
    others = [
        ChannelTerms(a_key(3).address, terms.receiver, terms.token, 3600, terms.salt),
        ChannelTerms(terms.sender, a_key(3).address, terms.token, 3600, terms.salt),
        ChannelTerms(terms.sender, terms.receiver, a_key(3).address, 3600, terms.salt),
        ChannelTerms(terms.sender, terms.receiver, terms.token, 3601, terms.salt),
        ChannelTerms(terms.sender, terms.receiver, terms.token, 3600, word(2)),
    ]
    assert len({terms.id, *(one.id for one in others)}) == 6


def test_a_keys_address_is_as_everybody_computes_it() -> None:
    """The first account of the development chains' well-known phrase."""
    secret = bytes.fromhex("ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80")
    assert checksummed(Key(secret).address) == "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"
    assert coincurve.PrivateKey(secret).secret == secret
