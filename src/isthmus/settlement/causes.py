"""Alarms whose cause may end: which work each of them waits for."""

from typing import Final, final

# Works of engines; beside them the names of channels, for what is told of one.
LOOK: Final = "look"  # at the ledger, and all turns of accounts in it
TURN: Final = "turn"
MESSAGE: Final = "message"  # of the peer's engine
CLAIM: Final = "claim"  # of ours, which the peer is to take
TERMS: Final = "terms"  # of a channel to be opened
CLOSE: Final = "close"  # of our channel
CREDIT: Final = "credit"  # of what came in
UNMATCHED: Final = "unmatched"  # of what came in, and is nobody's


@final
class Causes:
    """What stands in the way, by work that failed of it. An alarm is over when no work has that trouble any more."""

    def __init__(self) -> None:
        self._by_work: Final[dict[tuple[str, str], set[str]]] = {}  # by work and account

    def add(self, work: str, account: str, event: str) -> None:
        """This work failed, and the event tells of it. Bounded by what engines do: few works of each account."""
        self._by_work.setdefault((work, account), set()).add(event)

    def end(self, work: str, account: str) -> list[str]:
        """The work went through: the events that nothing else of this account has cause for."""
        events = self._by_work.pop((work, account), None)
        if events is None:
            return []
        others = [standing for (_, whose), standing in self._by_work.items() if whose == account]
        return sorted(event for event in events if not any(event in each for each in others))

    def forget(self, account: str) -> None:
        """The account is gone."""
        for key in [key for key in self._by_work if key[1] == account]:
            del self._by_work[key]
