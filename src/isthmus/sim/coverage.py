"""What runs have covered: kinds of faults and vices, rules of the switch, states of the machines. Counts only."""

from collections.abc import Iterable, Mapping
from typing import Final, final

from isthmus.sim import plan as p
from isthmus.stream.orders import Order, QuoteFailed, SendFailed

Counts = dict[str, int]


@final
class Coverage:
    """Counts by group and name. Groups and names come in the order in which they were first met, or are listed."""

    def __init__(self) -> None:
        self.groups: Final[dict[str, Counts]] = {
            "fault": dict.fromkeys(p.FAULTS, 0),
            "vice": dict.fromkeys(p.VICES, 0),
        }

    def enter(self, group: str, name: str, times: int = 1) -> None:
        counts = self.groups.setdefault(group, {})
        counts[name] = counts.get(name, 0) + times

    def news(self, order: Order) -> None:
        """What a STREAM connection told its owner; failures by their kind."""
        name = type(order).__name__
        if isinstance(order, SendFailed | QuoteFailed):
            name = f"{name}: {order.failure.value}"
        self.enter("stream", name)

    def add(self, other: Mapping[str, Mapping[str, int]]) -> None:
        for group, counts in other.items():
            for name, times in counts.items():
                self.enter(group, name, times)

    def missing(self, group: str, wanted: Iterable[str] | None = None) -> list[str]:
        """What was never met: of these, or of all that are listed."""
        counts = self.groups[group]
        return [name for name in (counts if wanted is None else wanted) if not counts.get(name, 0)]
