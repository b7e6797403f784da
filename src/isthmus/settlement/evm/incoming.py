"""Channels to us: which claims count, what is credited, what is redeemed and when. Pure.

A claim is credited by its growth, once: the record is kept in the step that credits it. What is credited never goes
beyond what the channel holds at a block that is deep enough.
"""

import json
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final, final

from isthmus.ledgers.evm.chain import ChannelState
from isthmus.ledgers.evm.claims import ChannelTerms, Domain, signer
from isthmus.ledgers.evm.octets import hexed
from isthmus.settlement.evm.messages import Claim, number, terms_from
from isthmus.settlement.evm.pending import ENDED_BLOCKS

# Channels of one account to us that are not at their end. A peer needs one, and another while one closes.
INCOMING_MAX: Final = 8
# Channels that have ended are watched for `ENDED_BLOCKS` more, so many of one account: a reorganisation, or a node that
# is behind, may show one as it was, and what was credited of it would be credited again were it forgotten.
ENDED_CHANNELS_MAX: Final = 16


class Fault(Enum):
    """Why a claim doesn't count: what the peer is told."""

    CHAIN = "it is for another chain"
    CONTRACT = "it is for another contract"
    RECEIVER = "the channel pays somebody else"
    TOKEN = "the channel holds another asset"
    DELAY = "the channel's settle delay is too short"
    SIGNATURE = "the channel's sender has not signed it"
    ABSENT = "there is no such channel, or its opening has too few confirmations yet"
    CLOSING = "the channel is closing"
    CLOSED = "the channel has ended"
    CAPACITY = "the channel doesn't hold so much, or its top-up has too few confirmations yet"
    MANY = "too many channels"
    ELSEWHERE = "the channel belongs to another account"


PASSING: Final = frozenset({Fault.ABSENT, Fault.CAPACITY})  # these may change by themselves: T00, else F00


@final
@dataclass(slots=True, frozen=True, kw_only=True)
class Incoming:
    """What is kept of a channel to us. Amounts are totals in the ledger's units."""

    terms: ChannelTerms
    claim: int = 0  # the highest that was signed
    signature: bytes = b""
    credited: int = 0
    is_agreed: bool = False  # we signed its end, at `claim`
    ended: int | None = None  # the height at which its end was seen to be deep enough

    def encode(self) -> bytes:
        agreed = "true" if self.is_agreed else "false"
        ended = "null" if self.ended is None else self.ended
        return (
            f'{{"terms":{self.terms.text},"claim":"{self.claim}","signature":"{self.signature.hex()}",'
            f'"credited":"{self.credited}","agreed":{agreed},"ended":{ended}}}'
        ).encode()

    @property
    def name(self) -> str:
        """For people."""
        return hexed(self.terms.id)

    @classmethod
    def decode(cls, data: bytes) -> "Incoming":
        fields = json.loads(data)
        return cls(
            terms=terms_from(fields["terms"]),
            claim=number(fields, "claim"),
            signature=bytes.fromhex(fields["signature"]),
            credited=number(fields, "credited"),
            is_agreed=fields["agreed"],
            ended=fields.get("ended"),
        )

    def at(self, height: int, *, has_ended: bool) -> "Incoming | None":
        """As of a look from this height on; None once it has ended so long ago that it may be forgotten."""
        if not has_ended:
            return replace(self, ended=None)
        ended = height if self.ended is None else min(self.ended, height)
        return replace(self, ended=ended) if height <= ended + ENDED_BLOCKS else None


def fault_of(claim: Claim, domain: Domain, *, receiver: str, token: str, settle_delay_min: int) -> Fault | None:
    """What shows without asking the chain."""
    if claim.chain_id != domain.chain_id:
        return Fault.CHAIN
    if claim.contract != domain.contract:
        return Fault.CONTRACT
    if claim.terms.receiver != receiver:
        return Fault.RECEIVER
    if claim.terms.token != token:
        return Fault.TOKEN
    if claim.terms.settle_delay < settle_delay_min:
        return Fault.DELAY
    if signer(domain.claim_digest(claim.terms.id, claim.amount), claim.signature) != claim.terms.sender:
        return Fault.SIGNATURE
    return None


def accept(record: Incoming, claim: Claim, confirmed: ChannelState, newest: ChannelState) -> Incoming | Fault:
    """The record with this claim, which has no fault by itself; what it grew by `credited` is to be credited.

    A claim that isn't higher than what we have changes nothing, whatever the channel's state: it was sent again.
    """
    if claim.amount <= record.claim:
        return record
    if confirmed.has_ended or newest.has_ended or record.ended is not None:
        return Fault.CLOSED
    if record.is_agreed or confirmed.closing_at or newest.closing_at:
        return Fault.CLOSING
    if not confirmed.is_there or not newest.is_there:
        return Fault.ABSENT
    if claim.amount > min(confirmed.deposited, newest.deposited):
        return Fault.CAPACITY
    return replace(record, claim=claim.amount, signature=claim.signature, credited=claim.amount)


def covered(record: Incoming, confirmed: ChannelState, newest: ChannelState) -> int:
    """How much of the claim the chain holds for us, or has paid us: what may stay credited.

    Less than what was credited only if a reorganisation took the channel or a top-up away, or the channel ended without
    us. What comes back in the newest block already is waited for.
    """
    if confirmed.has_ended:
        return confirmed.claimed
    held = max(confirmed.deposited, newest.deposited, newest.claimed if newest.has_ended else 0)
    return min(record.claim, held)


def credited_again(record: Incoming, confirmed: ChannelState) -> int:
    """How much may be credited now: the claim, as far as the channel surely holds it."""
    if confirmed.has_ended:
        return max(record.credited, confirmed.claimed)
    return max(record.credited, min(record.claim, confirmed.deposited))


class Redeem(Enum):
    """Whether a claim goes to the chain."""

    NO = "no"
    NOW = "now"  # it is worth it
    URGENT = "urgent"  # the channel is closing: what isn't redeemed in time is lost


def redeem(record: Incoming, newest: ChannelState, *, claim_above: int, fee: int) -> Redeem:
    """What to do with a claim. `fee`: what the transaction costs in the channel's own asset; 0 if it is another."""
    if not newest.is_there:
        return Redeem.NO
    open_amount = min(record.claim, newest.deposited) - newest.claimed
    if open_amount <= 0:
        return Redeem.NO
    if newest.closing_at:
        return Redeem.URGENT if open_amount > fee else Redeem.NO
    return Redeem.NOW if claim_above and open_amount >= claim_above and open_amount > fee else Redeem.NO
