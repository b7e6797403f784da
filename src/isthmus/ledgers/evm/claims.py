"""Claims on payment channels: what a channel is, which digest is signed (EIP-712), by whom. Pure.

The contract computes the same (contract/IsthmusChannels.sol). A signature is 64 bytes, r and vs of ERC-2098.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Final, final

import coincurve

from isthmus.ledgers.evm.octets import address_of, hexed, keccak256, word

SIGNATURE_BYTES: Final = 64
AMOUNT_MAX: Final = 2**112 - 1  # the contract's; ten million times the coins of Ethereum
SETTLE_DELAY_MAX: Final = 365 * 86_400

_DOMAIN_TYPE: Final = keccak256(b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)")
_NAME: Final = keccak256(b"Isthmus channels")
_VERSION: Final = keccak256(b"1")
_CLAIM_TYPE: Final = keccak256(b"Claim(bytes32 channel,uint256 amount)")
_CLOSE_TYPE: Final = keccak256(b"Close(bytes32 channel,uint256 amount)")
_PEER_TYPE: Final = keccak256(b"Peer(address from,address to)")
_HALF: Final = 1 << 255


@final
@dataclass(frozen=True)
class Domain:
    """Where signatures count: one contract on one chain."""

    chain_id: int
    contract: str

    @cached_property
    def separator(self) -> bytes:
        """32 bytes (EIP-712, "Definition of domainSeparator")."""
        return keccak256(_DOMAIN_TYPE + _NAME + _VERSION + word(self.chain_id) + word(self.contract))

    def claim_digest(self, channel: bytes, amount: int) -> bytes:
        """What the sender signs: the receiver may have this much of the channel, all in all."""
        return self._digest(_CLAIM_TYPE + channel + word(amount))

    def close_digest(self, channel: bytes, amount: int) -> bytes:
        """What the receiver signs: the channel may end with this much for him."""
        return self._digest(_CLOSE_TYPE + channel + word(amount))

    def peer_digest(self, *, sender: str, receiver: str) -> bytes:
        """What the owner of an address signs for one who will be paid from it."""
        return self._digest(_PEER_TYPE + word(sender) + word(receiver))

    def _digest(self, struct: bytes) -> bytes:
        return keccak256(b"\x19\x01" + self.separator + keccak256(struct))


@final
@dataclass(frozen=True)
class ChannelTerms:
    """What never changes of a channel."""

    sender: str
    receiver: str
    token: str  # NO_ADDRESS for the chain's own coin
    settle_delay: int  # seconds
    salt: bytes  # 32

    @cached_property
    def words(self) -> bytes:
        """As arguments of the contract's functions."""
        return word(self.sender) + word(self.receiver) + word(self.token) + word(self.settle_delay) + word(self.salt)

    @cached_property
    def text(self) -> str:
        """As messages and records write it: JSON, made once, since each claim has it."""
        return (
            f'{{"sender":"{self.sender}","receiver":"{self.receiver}","token":"{self.token}",'
            f'"settleDelay":"{self.settle_delay}","salt":"{hexed(self.salt)}"}}'
        )

    @cached_property
    def id(self) -> bytes:
        """32 bytes."""
        return keccak256(self.words)


def sign(digest: bytes, key: coincurve.PrivateKey) -> bytes:
    """64 bytes, always the same for the same digest and key (RFC 6979)."""
    raw = key.sign_recoverable(digest, hasher=None)
    vs = int.from_bytes(raw[32:64], "big") | (_HALF if raw[64] else 0)
    return raw[:32] + vs.to_bytes(32, "big")


def signer(digest: bytes, signature: bytes) -> str | None:
    """The address that signed this digest; None if these bytes are no signature."""
    if len(signature) != SIGNATURE_BYTES:
        return None
    vs = int.from_bytes(signature[32:], "big")
    raw = signature[:32] + (vs & (_HALF - 1)).to_bytes(32, "big") + (b"\x01" if vs & _HALF else b"\x00")
    try:
        key = coincurve.PublicKey.from_signature_and_message(raw, digest, hasher=None)
    except Exception:  # noqa: BLE001 - the library raises plain Exception, ValueError and others for a stranger's bytes
        return None
    return address_of(key.format(compressed=False))
