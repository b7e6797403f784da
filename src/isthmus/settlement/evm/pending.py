"""Transactions of ours that are not final: what is kept of each, and what is due for it. Pure.

The signed bytes are kept before they go to the chain, and so is each replacement with a higher fee, which has the same
nonce: one of them comes to pass, or none.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, final

from isthmus.ledgers.evm.fees import Fee
from isthmus.ledgers.evm.octets import keccak256
from isthmus.ledgers.evm.transactions import Call

# From the lowest fee to a hundred times it, by steps of 13 %.
VERSIONS_MAX: Final = 40
PREFIX: Final = b"tx/"
ENDED: Final = b"end/"
# So long the bytes of one that has its confirmations are kept. Were they lost, a deeper reorganisation, after which
# nodes forget it, would leave a gap among the nonces, and nothing of the key could come any more.
ENDED_BLOCKS: Final = 256
ENDED_MAX: Final = 32  # of one account, the newest


@final
@dataclass(slots=True, frozen=True, kw_only=True)
class Pending:
    """One transaction in all its versions."""

    purpose: str  # the engine's word for it
    about: str  # what it is about, for the engine: a channel, a settlement's number
    nonce: int
    call: Call
    urgent: bool
    fee: Fee  # of the latest version
    raws: tuple[bytes, ...]  # all versions, the latest last
    since: int  # wall ms: when the latest version was made

    @property
    def key(self) -> bytes:
        """Where it is kept. A nonce is used for one transaction."""
        return PREFIX + str(self.nonce).encode()

    @property
    def hashes(self) -> list[bytes]:
        return [keccak256(raw) for raw in self.raws]

    def version(self, raw: bytes, fee: Fee, *, now: int) -> "Pending":
        return replace(self, raws=(*self.raws, raw), fee=fee, since=now)

    def is_stale(self, now: int, wait_ms: int) -> bool:
        """Whether more should be offered. A clock that went back says yes at most once."""
        return len(self.raws) < VERSIONS_MAX and not self.since <= now < self.since + wait_ms

    def encode(self) -> bytes:
        fields = {
            "purpose": self.purpose,
            "about": self.about,
            "nonce": self.nonce,
            "to": self.call.to,
            "value": str(self.call.value),
            "data": self.call.data.hex(),
            "gas": self.call.gas,
            "urgent": self.urgent,
            "fee": [str(self.fee.most), str(self.fee.tip)],
            "raws": [raw.hex() for raw in self.raws],
            "since": self.since,
        }
        return json.dumps(fields).encode()

    @classmethod
    def decode(cls, data: bytes) -> "Pending":
        fields = json.loads(data)
        most, tip = fields["fee"]
        return cls(
            purpose=fields["purpose"],
            about=fields["about"],
            nonce=fields["nonce"],
            call=Call(
                to=fields["to"], value=int(fields["value"]), data=bytes.fromhex(fields["data"]), gas=fields["gas"]
            ),
            urgent=fields["urgent"],
            fee=Fee(int(most), int(tip)),
            raws=tuple(bytes.fromhex(raw) for raw in fields["raws"]),
            since=fields["since"],
        )


@final
@dataclass(slots=True, frozen=True, kw_only=True)
class Ended:
    """One that came into a block with enough above it."""

    nonce: int
    raw: bytes
    block: int

    @property
    def key(self) -> bytes:
        return ENDED + str(self.nonce).encode()

    def is_kept(self, head: int) -> bool:
        """Whether a reorganisation from this height on is still looked for."""
        return head <= self.block + ENDED_BLOCKS

    def encode(self) -> bytes:
        return json.dumps({"nonce": self.nonce, "raw": self.raw.hex(), "block": self.block}).encode()

    @classmethod
    def decode(cls, data: bytes) -> "Ended":
        fields = json.loads(data)
        return cls(nonce=fields["nonce"], raw=bytes.fromhex(fields["raw"]), block=fields["block"])


def ended(kept: Mapping[bytes, bytes]) -> list[Ended]:
    """In the order of their nonces."""
    return sorted((Ended.decode(kept[key]) for key in kept if key.startswith(ENDED)), key=lambda one: one.nonce)


def with_ended(kept: Mapping[bytes, bytes], new: Ended, head: int) -> list[tuple[bytes, bytes]]:
    """One more, and without those that are too many or too old by now: for a step."""
    before = ended(kept)
    stay = [one for one in before if one.is_kept(head)][-(ENDED_MAX - 1) :]
    return [(one.key, b"") for one in before if one not in stay] + [(new.key, new.encode())]
