"""Transactions of type 2 (EIP-1559): made, signed and named by their hash. Pure, and the same bytes each time."""

from dataclasses import dataclass
from typing import final

from eth_account import Account

from isthmus.ledgers.evm.fees import Fee
from isthmus.ledgers.evm.octets import checksummed, keccak256


@final
@dataclass(slots=True, frozen=True, kw_only=True)
class Call:
    """What a transaction does, whatever it offers for its place."""

    to: str
    value: int = 0  # wei
    data: bytes = b""
    gas: int = 21_000  # at most


@final
@dataclass(slots=True, frozen=True)
class Signed:
    """The bytes that go to the chain, and their hash (32 bytes)."""

    raw: bytes
    hash: bytes


def sign_call(call: Call, *, chain_id: int, nonce: int, fee: Fee, secret: bytes) -> Signed:
    """Signed for one chain (EIP-155), so that no other takes it."""
    fields = {
        "type": 2,
        "chainId": chain_id,
        "nonce": nonce,
        "to": checksummed(call.to),
        "value": call.value,
        "data": call.data,
        "gas": call.gas,
        "maxFeePerGas": fee.most,
        "maxPriorityFeePerGas": fee.tip,
    }
    raw = bytes(Account.sign_transaction(fields, secret).raw_transaction)
    return Signed(raw, keccak256(raw))
