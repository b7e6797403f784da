"""Money that came in and is nobody's yet, as operators see and assign it: the same for all engines that find some."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, final, runtime_checkable

from isthmus.connector.events import AccountId
from isthmus.ilp.asset import Asset
from isthmus.settlement.port import Port, SettlingAccount


@final
@dataclass(slots=True, frozen=True, kw_only=True)
class Unmatched:
    """A transfer to us that says nothing, or too little, of whose it is. The amount is in the ledger's units."""

    id: str  # the engine's word for it
    amount: int
    unit: Asset
    at: int  # wall ms, as the ledger says
    payer: str  # as the ledger names it
    reference: str
    why: str  # for people

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "amount": str(self.amount),
            "unit_code": self.unit.code,
            "unit_scale": self.unit.scale,
            "at_ms": self.at,
            "payer": self.payer,
            "reference": self.reference,
            "why": self.why,
        }


@runtime_checkable
class UnmatchedKeeper(Protocol):
    """What an `Engine` that finds such transfers does for operators. All may raise LedgerError, StepRefusedError."""

    def look_at(self, port: Port, accounts: Sequence[SettlingAccount]) -> None:
        """Instead of `start`: do what follows by what is kept, without the ledger."""
        ...

    def unmatched(self) -> Sequence[Unmatched]:
        """Those that wait, oldest first."""
        ...

    async def assign(self, transfer: str, account: AccountId, note: str) -> int:
        """Credit it to this peer, once; what that gave, in units of the account."""
        ...

    async def dismiss(self, transfer: str, note: str) -> None:
        """Take it from the list: it is nobody's of these peers, or was dealt with elsewhere."""
        ...
