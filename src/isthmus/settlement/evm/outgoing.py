"""Our channel to a peer on an EVM chain, and what is signed on it. Pure."""

import json
from dataclasses import dataclass, field, replace
from typing import Final, final

from isthmus.ledgers.evm.claims import ChannelTerms
from isthmus.settlement.evm.messages import terms_fields, terms_from
from isthmus.settlement.promises import Promises

RAWS_MAX: Final = 8  # opening and latest top-ups, given to the chain again if it forgets them


@final
@dataclass(slots=True, frozen=True, kw_only=True)
class Outgoing(Promises):
    """What is kept for one account. `deposited`: as of a block that is deep enough."""

    terms: ChannelTerms | None = None
    raws: tuple[bytes, ...] = field(default=())

    def with_raw(self, raw: bytes) -> "Outgoing":
        return replace(self, raws=(*self.raws, raw)[-RAWS_MAX:])

    def encode(self) -> bytes:
        terms = None if self.terms is None else terms_fields(self.terms)
        return json.dumps({**self.fields(), "terms": terms, "raws": [raw.hex() for raw in self.raws]}).encode()

    @classmethod
    def decode(cls, data: bytes | None) -> "Outgoing":
        if data is None:
            return cls()
        fields = json.loads(data)
        return cls(
            **cls.from_fields(fields),
            terms=None if fields["terms"] is None else terms_from(fields["terms"]),
            raws=tuple(bytes.fromhex(raw) for raw in fields["raws"]),
        )
