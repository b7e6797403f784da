"""The payment channels' contract on a simulated chain: what `IsthmusChannels.sol` does, for the chain's own coin."""

from collections.abc import Callable
from typing import Final, NamedTuple

from isthmus.ledgers.evm.chain import CLOSED
from isthmus.ledgers.evm.claims import AMOUNT_MAX, ChannelTerms, Domain, signer
from isthmus.ledgers.evm.contract import selector
from isthmus.ledgers.evm.octets import NO_ADDRESS

_TERMS: Final = "(address,address,address,uint32,bytes32)"
_TERMS_BYTES: Final = 5 * 32


class Revert(Exception):
    """The call fails, and changes nothing."""


class Channel(NamedTuple):
    """Three numbers, as the contract keeps them."""

    deposited: int = 0
    claimed: int = 0
    closing_at: int = 0

    @property
    def has_ended(self) -> bool:
        return self.closing_at == CLOSED


class Calling(NamedTuple):
    """One call of the contract."""

    domain: Domain
    sender: str
    value: int
    time: int  # the block's, seconds
    terms: ChannelTerms
    arguments: bytes
    channel: Channel
    pay: Callable[[str, int], None]  # coins of the contract's to an address

    @property
    def amount(self) -> int:
        return int.from_bytes(self.arguments[:32], "big")

    @property
    def signature(self) -> bytes:
        return self.arguments[32:96]


def call(
    domain: Domain,
    channels: dict[bytes, Channel],
    *,
    sender: str,
    value: int,
    data: bytes,
    time: int,
    pay: Callable[[str, int], None],
) -> ChannelTerms:
    """Change `channels`, and have coins paid. Whose channel it was. Revert: nothing of it."""
    function = _FUNCTIONS.get(data[:4])
    if function is None or len(data) < 4 + _TERMS_BYTES:
        raise Revert("no such function")
    terms = _terms(data[4 : 4 + _TERMS_BYTES])
    if terms.token != NO_ADDRESS:
        raise Revert("TransferFailed()")
    channel = channels.get(terms.id, Channel())
    calling = Calling(domain, sender, value, time, terms, data[4 + _TERMS_BYTES :], channel, pay)
    channels[terms.id] = function(calling)
    return terms


def _terms(words: bytes) -> ChannelTerms:
    sender, receiver, token = ("0x" + words[at + 12 : at + 32].hex() for at in (0, 32, 64))
    return ChannelTerms(sender, receiver, token, int.from_bytes(words[96:128], "big"), words[128:160])


def _open(one: Calling) -> Channel:
    if one.sender != one.terms.sender:
        raise Revert("NotParty()")
    if one.channel != Channel():
        raise Revert("Exists()")
    if not 0 < one.amount <= AMOUNT_MAX or one.value != one.amount:
        raise Revert("BadAmount()")
    return Channel(one.amount)


def _top_up(one: Calling) -> Channel:
    if one.sender != one.terms.sender:
        raise Revert("NotParty()")
    _check_open(one)
    if one.amount == 0 or one.value != one.amount:
        raise Revert("BadAmount()")
    return one.channel._replace(deposited=one.channel.deposited + one.amount)


def _claim(one: Calling) -> Channel:
    _check_present(one)
    _check_signed(one, one.domain.claim_digest(one.terms.id, one.amount), one.terms.sender)
    amount = min(one.amount, one.channel.deposited)
    if amount <= one.channel.claimed:
        raise Revert("BadAmount()")
    one.pay(one.terms.receiver, amount - one.channel.claimed)
    return one.channel._replace(claimed=amount)


def _release(one: Calling) -> Channel:
    _check_present(one)
    if one.sender != one.terms.receiver:
        raise Revert("NotParty()")
    amount = one.amount
    if amount > one.channel.claimed:
        _check_signed(one, one.domain.claim_digest(one.terms.id, amount), one.terms.sender)
        amount = min(amount, one.channel.deposited)
    return _end(one, amount)


def _close(one: Calling) -> Channel:
    _check_present(one)
    if one.sender != one.terms.sender:
        raise Revert("NotParty()")
    _check_signed(one, one.domain.close_digest(one.terms.id, one.amount), one.terms.receiver)
    return _end(one, one.amount)


def _start_close(one: Calling) -> Channel:
    if one.sender != one.terms.sender:
        raise Revert("NotParty()")
    _check_open(one)
    return one.channel._replace(closing_at=one.time + one.terms.settle_delay)


def _finish(one: Calling) -> Channel:
    _check_present(one)
    if not one.channel.closing_at:
        raise Revert("NotOpen()")
    if one.time < one.channel.closing_at:
        raise Revert("TooEarly()")
    return _end(one, one.channel.claimed)


def _end(one: Calling, amount: int) -> Channel:
    if not one.channel.claimed <= amount <= one.channel.deposited:
        raise Revert("BadAmount()")
    one.pay(one.terms.receiver, amount - one.channel.claimed)
    one.pay(one.terms.sender, one.channel.deposited - amount)
    return Channel(0, amount, CLOSED)


def _check_present(one: Calling) -> None:
    if not one.channel.deposited:
        raise Revert("NotOpen()")


def _check_open(one: Calling) -> None:
    _check_present(one)
    if one.channel.closing_at:
        raise Revert("NotOpen()")


def _check_signed(one: Calling, digest: bytes, by: str) -> None:
    if signer(digest, one.signature) != by:
        raise Revert("BadSignature()")


_FUNCTIONS: Final[dict[bytes, Callable[[Calling], Channel]]] = {
    selector(f"open({_TERMS},uint256)"): _open,
    selector(f"topUp({_TERMS},uint256)"): _top_up,
    selector(f"claim({_TERMS},uint256,bytes32,bytes32)"): _claim,
    selector(f"release({_TERMS},uint256,bytes32,bytes32)"): _release,
    selector(f"close({_TERMS},uint256,bytes32,bytes32)"): _close,
    selector(f"startClose({_TERMS})"): _start_close,
    selector(f"finish({_TERMS})"): _finish,
}
