"""Channels to us: which claims count, what is credited, what is redeemed and when. Pure.

A claim is credited by its growth, once: the record is kept in the step that credits it. What is credited never goes
beyond what the channel holds in a validated ledger, and a channel never loses what it holds before its end.
"""

import json
from dataclasses import dataclass, fields, replace
from enum import Enum
from typing import Final, final

from isthmus.ledgers.xrp.hashes import claim_message
from isthmus.ledgers.xrp.network import PayChan
from isthmus.ledgers.xrp.signatures import verify

# Channels of one account to us that are not at their end. A peer needs one, and another while one closes.
INCOMING_MAX: Final = 8


class Fault(Enum):
    """Why a channel or a claim doesn't count: what the peer is told."""

    UNKNOWN = "no channel to us is known that this claim could be for"
    ABSENT = "no validated ledger has this channel"
    RECEIVER = "the channel pays somebody else"
    SOURCE = "the channel isn't from the address that was agreed on"
    DELAY = "the channel's settle delay is too short"
    CANCELLED = "the channel ends too soon: its CancelAfter"
    SIGNATURE = "the channel's key has not signed it"
    LOWER = "the claim is lower than the highest"
    CLOSING = "the channel is closing"
    CAPACITY = "the channel doesn't hold so much"
    MANY = "too many channels"
    ELSEWHERE = "the channel belongs to another account"


PASSING: Final = frozenset({Fault.ABSENT, Fault.CAPACITY, Fault.UNKNOWN})  # may change by themselves: T00, else F00


@final
@dataclass(slots=True, frozen=True, kw_only=True)
class Incoming:
    """What is kept of a channel to us. Amounts are totals in drops."""

    channel: str
    source: str
    public_key: str  # in hexadecimal
    since: int  # the ledger in which it was seen first
    capacity: int  # as it was seen last
    claim: int = 0  # the highest that was signed, all of it credited
    signature: str = ""
    is_agreed: bool = False  # we end it, at `claim`

    def encode(self) -> bytes:
        return json.dumps({one.name: getattr(self, one.name) for one in fields(self)}).encode()

    @classmethod
    def decode(cls, data: bytes) -> "Incoming":
        return cls(**json.loads(data))

    @classmethod
    def of(cls, channel: PayChan, since: int) -> "Incoming":
        """Of a channel without any claim. What was paid out of it before we knew of it is no credit of this account."""
        return cls(
            channel=channel.id,
            source=channel.source,
            public_key=channel.public_key.hex(),
            since=since,
            capacity=channel.amount,
            claim=channel.balance,
        )


def fault_of(channel: PayChan, *, receiver: str, source: str | None, settle_delay_min: int, now: int) -> Fault | None:
    """Why a channel can't be used. `source`: the only one that may pay us, if set. `now`: the ledger's seconds."""
    if channel.destination != receiver:
        return Fault.RECEIVER
    if source is not None and channel.source != source:
        return Fault.SOURCE
    if channel.settle_delay < settle_delay_min:
        return Fault.DELAY
    if channel.cancel_after is not None and channel.cancel_after < now + settle_delay_min:
        return Fault.CANCELLED
    return None


def is_signed(channel: str, drops: int, signature: bytes, public_key: bytes) -> bool:
    """Whether the key has granted this total on this channel."""
    return verify(claim_message(channel, drops), signature, public_key)


def is_closing(channel: PayChan, *, settle_delay_min: int, now: int) -> bool:
    """Its owner has asked for the end, or the end that was fixed from the start is near."""
    end = channel.cancel_after
    return channel.expiration is not None or (end is not None and end < now + settle_delay_min)


def accept(record: Incoming, drops: int, signature: bytes, channel: PayChan, *, closing: bool) -> Incoming | Fault:
    """The record with this claim, whose signature was verified; what it grew by is to be credited.

    The same claim again changes nothing, whatever the channel's state.
    """
    if drops == record.claim:
        return record
    if drops < record.claim:
        return Fault.LOWER
    if record.is_agreed or closing:
        return Fault.CLOSING
    if drops > channel.amount:
        return Fault.CAPACITY
    return replace(record, claim=drops, signature=signature.hex(), capacity=channel.amount)


class Redeem(Enum):
    """Whether a claim goes to the ledger."""

    NO = "no"
    NOW = "now"  # it is worth it
    URGENT = "urgent"  # the channel is closing: what isn't redeemed in time is lost


def redeem(record: Incoming, channel: PayChan, *, claim_above: int, fee: int, closing: bool, now: int) -> Redeem:
    """What to do with a claim. `fee`: what the transaction costs, in drops. `now`: the ledger's seconds."""
    rest = record.claim - channel.balance
    ends_at = channel.ends_at
    if rest <= fee or (ends_at is not None and now >= ends_at):
        return Redeem.NO
    if closing:
        return Redeem.URGENT
    return Redeem.NOW if claim_above and rest >= claim_above else Redeem.NO
