"""One packet of ours on its way, and what is known of all of them."""

from enum import IntEnum
from typing import Final, final

from isthmus.stream.packet import Frame
from isthmus.stream.probing import Prober
from isthmus.stream.substream import Stream


class Kind(IntEnum):
    MONEY = 0
    DATA = 1
    CONTROL = 2
    PROBE = 3  # can't be fulfilled
    CLOSE = 4


@final
class Flight:
    """A Prepare without an outcome."""

    __slots__ = (
        "amount",
        "control",
        "data",
        "deadline",
        "exact",
        "expected",
        "floor",
        "fulfillment",
        "kind",
        "minimum",
        "number",
        "offset",
        "prober",
        "sent_at",
        "stream",
    )

    def __init__(self, kind: Kind, number: int, amount: int, fulfillment: bytes, sent_at: int, deadline: int) -> None:
        self.kind: Final = kind
        self.number: Final = number
        self.amount: Final = amount
        self.fulfillment: Final = fulfillment  # empty for probes
        self.sent_at: Final = sent_at
        self.deadline: Final = deadline
        # Money.
        self.stream: Stream | None = None
        self.minimum = 0  # that the receiver was told
        self.floor = 0  # the exact minimum by rate
        self.expected = 0  # at most, in destination units
        self.exact = False  # the last packet of a fixed destination amount: it delivers the rest, or nothing
        self.prober: Prober | None = None  # that asked for this probe
        # Data and control frames, to be sent again if they are lost.
        self.offset = 0
        self.data = b""
        self.control: list[Frame] | None = None
