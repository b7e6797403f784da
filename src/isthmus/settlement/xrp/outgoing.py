"""Our channel to a peer on the XRP Ledger, and what is signed on it. Pure."""

import json
from dataclasses import dataclass
from typing import final

from isthmus.settlement.promises import Promises


@final
@dataclass(slots=True, frozen=True, kw_only=True)
class Outgoing(Promises):
    """What is kept for one account. Amounts of the channel are totals in drops."""

    channel: str = ""
    destination: str = ""
    settle_delay: int = 0  # seconds
    since: int = 0  # the first ledger that it can be in

    def encode(self) -> bytes:
        return (
            f'{{{self.text()},"channel":"{self.channel}","destination":"{self.destination}",'
            f'"settleDelay":{self.settle_delay},"since":{self.since}}}'
        ).encode()

    @classmethod
    def decode(cls, data: bytes | None) -> "Outgoing":
        if data is None:
            return cls()
        fields = json.loads(data)
        return cls(
            **cls.from_fields(fields),
            channel=fields["channel"],
            destination=fields["destination"],
            settle_delay=fields["settleDelay"],
            since=fields["since"],
        )
