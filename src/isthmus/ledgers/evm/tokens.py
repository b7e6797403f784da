"""Calls to ERC-20 tokens and what they answer. Pure."""

from typing import Final

from isthmus.ledgers.evm.contract import selector, topic
from isthmus.ledgers.evm.octets import word

TRANSFERRED: Final = topic("Transfer(address,address,uint256)")
ALLOWANCE_ALL: Final = 2**256 - 1


def balance_of(owner: str) -> bytes:
    return selector("balanceOf(address)") + word(owner)


def decimals() -> bytes:
    return selector("decimals()")


def allowance(owner: str, spender: str) -> bytes:
    return selector("allowance(address,address)") + word(owner) + word(spender)


def approve(spender: str, amount: int) -> bytes:
    return selector("approve(address,uint256)") + word(spender) + word(amount)


def transfer(to: str, amount: int) -> bytes:
    return selector("transfer(address,uint256)") + word(to) + word(amount)
