"""What a campaign has come to, in its folder: one that was interrupted goes on from there, and tells the sum of all.

It goes in episodes. Each has a ledger, journals and a seed of its own, some of the settlements and kills, and an audit
at its end. What was audited stands in `campaign.json`; an episode that was interrupted is begun again from nothing.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from tests.campaigns import keep
from tests.settlement.campaign.run import Standing

FILE: Final = "campaign.json"


@dataclass(slots=True, kw_only=True)
class Episode:
    """One of a kind: what it was to do, and what came of it."""

    kind: str
    number: int  # from 1, of its kind
    seed: str  # of payments, victims and instants
    settlements: int  # wanted, at least
    kills: int  # wanted
    commit: str = ""
    seconds: float = 0.0
    standing: Standing = field(default_factory=Standing)

    @property
    def name(self) -> str:
        return f"{self.kind}/{self.number}"


@dataclass(slots=True)
class Record:
    """A campaign's episodes that have ended, in their order."""

    folder: Path
    seed: int
    episodes: list[Episode] = field(default_factory=list)

    @classmethod
    def read(cls, folder: Path) -> Self:
        """OSError or ValueError if the folder holds none."""
        found: dict[str, Any] = json.loads((folder / FILE).read_text())
        rows = [row | {"standing": Standing(**row["standing"])} for row in found["episodes"]]
        return cls(folder, found["seed"], [Episode(**row) for row in rows])

    def write(self) -> None:
        found = {"seed": self.seed, "episodes": [asdict(one) for one in self.episodes]}
        keep(self.folder / FILE, json.dumps(found, indent=1).encode())

    def of(self, kind: str) -> list[Episode]:
        return [one for one in self.episodes if one.kind == kind]

    def kinds(self) -> list[str]:
        return list(dict.fromkeys(one.kind for one in self.episodes))

    def named(self, name: str) -> Episode | None:
        return next((one for one in self.episodes if one.name == name), None)

    def sum(self, kind: str) -> Standing:
        """Of all sittings."""
        total = Standing()
        for one in self.of(kind):
            total.add(one.standing, one.name)
        return total

    def following(self, kind: str, *, settlements: int, kills: int, size: int) -> Episode | None:
        """What is left of so many settlements and kills, `size` settlements at most; None if nothing is."""
        done, number = self.sum(kind), len(self.of(kind)) + 1
        left, kills_left = settlements - done.settlements, max(0, kills - done.kills)
        if left <= 0 and not kills_left:
            return None
        left = max(left, 1)  # kills alone are left: they want somebody who settles
        wanted = min(size, left)
        return Episode(
            kind=kind,
            number=number,
            seed=f"{self.seed}/{kind}/{number}",
            settlements=wanted,
            kills=-(-kills_left * wanted // left),
        )
