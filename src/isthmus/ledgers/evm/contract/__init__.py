"""The payment channels' contract: its source, what it compiles to, and its functions' bytes.

`make contract` compiles the source and compares. The contract is put onto a chain by the deployer that all chains have
at one address, so it has the same address everywhere (`ADDRESS`), and its code is what it should be or isn't there.
"""

import json
from functools import cache
from importlib import resources
from typing import Any, Final

from isthmus.ledgers.evm.claims import ChannelTerms
from isthmus.ledgers.evm.octets import NO_ADDRESS, keccak256, word

# Takes a salt and code by a plain transaction: https://github.com/Arachnid/deterministic-deployment-proxy
DEPLOYER: Final = "0x4e59b44847b379578588920ca78fbf26c0b4956c"
SALT: Final = bytes(32)

_TERMS: Final = "(address,address,address,uint32,bytes32)"
# Gas that the deployment can need at most; what isn't used isn't paid.
GAS_DEPLOY_MAX: Final = 3_000_000


@cache
def artifact() -> dict[str, Any]:
    """What was committed: `abi`, `bytecode`, `runtime`, `immutables` (offset and length of words in the runtime)."""
    text = resources.files(__package__).joinpath("IsthmusChannels.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def deployment() -> bytes:
    """The call to DEPLOYER that puts the contract onto a chain."""
    return SALT + bytes.fromhex(artifact()["bytecode"][2:])


@cache
def address() -> str:
    """Where `deployment` puts it, on every chain (EIP-1014)."""
    code = keccak256(bytes.fromhex(artifact()["bytecode"][2:]))
    return "0x" + keccak256(b"\xff" + bytes.fromhex(DEPLOYER[2:]) + SALT + code)[-20:].hex()


def is_ours(code: bytes) -> bool:
    """Whether a chain's code is this contract's, but for the words that are set as it is put there."""
    ours = bytearray.fromhex(artifact()["runtime"][2:])
    theirs = bytearray(code)
    if len(ours) != len(theirs):
        return False
    for start, length in artifact()["immutables"]:
        ours[start : start + length] = theirs[start : start + length] = bytes(length)
    return ours == theirs


@cache
def selector(signature: str) -> bytes:
    """The four bytes that name a function, as `name(type,type)`."""
    return keccak256(signature.encode())[:4]


@cache
def topic(signature: str) -> bytes:
    """The word that names an event."""
    return keccak256(signature.encode())


def open_channel(terms: ChannelTerms, amount: int) -> tuple[bytes, int]:
    """The call, and the coins that go with it."""
    return selector(f"open({_TERMS},uint256)") + terms.words + word(amount), _coins(terms, amount)


def top_up(terms: ChannelTerms, amount: int) -> tuple[bytes, int]:
    """The call, and the coins that go with it."""
    return selector(f"topUp({_TERMS},uint256)") + terms.words + word(amount), _coins(terms, amount)


def claim(terms: ChannelTerms, amount: int, signature: bytes) -> bytes:
    """Anybody's call that pays the receiver."""
    return _signed("claim", terms, amount, signature)


def release(terms: ChannelTerms, amount: int, signature: bytes) -> bytes:
    """The receiver's call that pays both and ends the channel; the signature is the sender's claim."""
    return _signed("release", terms, amount, signature)


def close(terms: ChannelTerms, amount: int, signature: bytes) -> bytes:
    """The sender's call that pays both and ends the channel; the signature is the receiver's."""
    return _signed("close", terms, amount, signature)


def start_close(terms: ChannelTerms) -> bytes:
    """The sender's call, from which the settle delay runs."""
    return selector(f"startClose({_TERMS})") + terms.words


def finish(terms: ChannelTerms) -> bytes:
    """Anybody's call after the settle delay."""
    return selector(f"finish({_TERMS})") + terms.words


def channels(channel: bytes) -> bytes:
    """Asks for deposited, claimed, closing at: three words."""
    return selector("channels(bytes32)") + channel


def _signed(name: str, terms: ChannelTerms, amount: int, signature: bytes) -> bytes:
    return selector(f"{name}({_TERMS},uint256,bytes32,bytes32)") + terms.words + word(amount) + signature


def _coins(terms: ChannelTerms, amount: int) -> int:
    return amount if terms.token == NO_ADDRESS else 0
