"""Our channel to a peer on an EVM chain, and what is signed on it. Pure."""

import json
from dataclasses import dataclass
from typing import Final, final

from isthmus.ledgers.evm.claims import ChannelTerms
from isthmus.settlement.evm.messages import terms_from
from isthmus.settlement.promises import Promises

RAWS_MAX: Final = 8  # opening and latest top-ups, given to the chain again if it forgets them


@final
@dataclass(slots=True, frozen=True, kw_only=True)
class Outgoing(Promises):
    """What is kept for one account. `deposited`: as of a block that is deep enough."""

    terms: ChannelTerms | None = None

    def encode(self) -> bytes:
        terms = "null" if self.terms is None else self.terms.text
        return f'{{{self.text()},"terms":{terms}}}'.encode()

    @classmethod
    def decode(cls, data: bytes | None) -> "Outgoing":
        if data is None:
            return cls()
        fields = json.loads(data)
        terms = None if fields["terms"] is None else terms_from(fields["terms"])
        return cls(**cls.from_fields(fields), terms=terms)


def decode_raws(kept: bytes | None) -> list[bytes]:
    """The signed transactions that made the channel what it is. Apart from the rest: each claim writes that anew."""
    return [] if kept is None else [bytes.fromhex(raw) for raw in kept.decode().split()]


def with_raw(kept: bytes | None, raw: bytes) -> bytes:
    """With one more of them."""
    return " ".join(one.hex() for one in [*decode_raws(kept), raw][-RAWS_MAX:]).encode()
