"""What is signed for a peer on one channel of ours: settlements that fit, that wait, that the peer has. Pure.

The same for all ledgers with one-way channels whose claims grow.
"""

from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Self


class Phase(Enum):
    NONE = "none"  # no channel
    OPENING = "opening"  # its transaction is under way
    OPEN = "open"
    ENDING = "ending"  # we asked for its end; nothing is signed any more


@dataclass(slots=True, frozen=True, kw_only=True)
class Promises:
    """What is kept for one account. Amounts of the channel are totals in the ledger's units.

    Each ledger's own class adds what its channel is.
    """

    phase: Phase = Phase.NONE
    deposited: int = 0  # as the ledger has it for good
    signed: int = 0
    acknowledged: int = 0
    signed_for: tuple[tuple[int, int], ...] = ()  # settlements that the peer has not acknowledged: number, total
    waiting: tuple[tuple[int, int], ...] = ()  # settlements that need a larger channel: number, amount
    carried: int = 0  # less than one of the ledger's units, in units of the account

    @property
    def left(self) -> int:
        """What can be signed still."""
        return self.deposited - self.signed if self.phase is Phase.OPEN else 0

    @property
    def needed(self) -> int:
        return sum(amount for _, amount in self.waiting)

    def settle(self, number: int, amount: int, carried: int) -> Self:
        """One more settlement: signed at once if it fits and none waits before it."""
        if not self.waiting and amount <= self.left:
            signed = self.signed + amount
            return replace(self, signed=signed, signed_for=(*self.signed_for, (number, signed)), carried=carried)
        return replace(self, waiting=(*self.waiting, (number, amount)), carried=carried).sign_waiting()

    def sign_waiting(self) -> Self:
        """Those that fit by now, in their order."""
        waiting, signed, signed_for, left = list(self.waiting), self.signed, list(self.signed_for), self.left
        while waiting and waiting[0][1] <= left:
            number, amount = waiting.pop(0)
            signed += amount
            left -= amount
            signed_for.append((number, signed))
        return replace(self, waiting=tuple(waiting), signed=signed, signed_for=tuple(signed_for))

    def acknowledge(self, total: int) -> tuple[Self, list[int]]:
        """The peer has a claim of this total; the settlements that are paid by it."""
        total = min(total, self.signed)
        done = [number for number, upto in self.signed_for if upto <= total]
        rest = tuple(one for one in self.signed_for if one[1] > total)
        return replace(self, acknowledged=max(self.acknowledged, total), signed_for=rest), done

    def ended(self, claimed: int) -> tuple[Self, list[int]]:
        """Without the channel, of which the peer has this much; and the settlements that are paid by it.

        What the peer neither has nor acknowledged waits for the next channel: no claim on the old one counts any more.
        """
        paid = max(claimed, self.acknowledged)
        done = [one for one, upto in self.signed_for if upto <= paid]
        again: list[tuple[int, int]] = []
        for one, upto in self.signed_for:
            if upto > paid:
                again.append((one, upto - paid))
                paid = upto
        return type(self)(waiting=(*again, *self.waiting), carried=self.carried), done

    def text(self) -> str:
        """As fields of JSON, without the braces: each claim writes them, and `json` takes five times as long."""
        signed_for = ",".join([f'[{number},"{total}"]' for number, total in self.signed_for])
        waiting = ",".join([f'[{number},"{amount}"]' for number, amount in self.waiting])
        return (
            f'"phase":"{self.phase.value}","deposited":"{self.deposited}","signed":"{self.signed}",'
            f'"acknowledged":"{self.acknowledged}","signedFor":[{signed_for}],"waiting":[{waiting}],'
            f'"carried":"{self.carried}"'
        )

    @staticmethod
    def from_fields(fields: dict[str, Any]) -> dict[str, Any]:
        """What `text` wrote, as this class takes it."""
        return {
            "phase": Phase(fields["phase"]),
            "deposited": int(fields["deposited"]),
            "signed": int(fields["signed"]),
            "acknowledged": int(fields["acknowledged"]),
            "signed_for": tuple((one, int(total)) for one, total in fields["signedFor"]),
            "waiting": tuple((one, int(amount)) for one, amount in fields["waiting"]),
            "carried": int(fields["carried"]),
        }


def deposit_for(state: Promises, *, deposit: int, reserve: int, most: int) -> int:
    """How much to put into the channel now; 0 for nothing. A channel is opened only when a settlement needs it.

    `most`: what a channel can hold.
    """
    missing = state.needed - state.left
    if state.phase is Phase.NONE:
        return min(max(state.needed, deposit), most) if state.needed else 0
    if state.phase is not Phase.OPEN:
        return 0
    if missing > 0 or state.left < reserve:
        return min(max(missing, deposit), most - state.deposited)
    return 0
