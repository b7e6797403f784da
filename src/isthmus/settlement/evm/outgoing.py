"""Our channel to a peer: what is signed, what waits for a larger channel, what the peer has acknowledged. Pure."""

import json
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final, final

from isthmus.ledgers.evm.claims import AMOUNT_MAX, ChannelTerms
from isthmus.settlement.evm.messages import number, terms_fields, terms_from

RAWS_MAX: Final = 8  # opening and latest top-ups, given to the chain again if it forgets them


class Phase(Enum):
    NONE = "none"  # no channel
    OPENING = "opening"  # its transaction is under way
    OPEN = "open"
    ENDING = "ending"  # we asked for its end; nothing is signed any more


@final
@dataclass(slots=True, frozen=True, kw_only=True)
class Outgoing:
    """What is kept for one account. Amounts of the channel are totals in the ledger's units."""

    phase: Phase = Phase.NONE
    terms: ChannelTerms | None = None
    deposited: int = 0  # as of a block that is deep enough
    signed: int = 0
    acknowledged: int = 0
    signed_for: tuple[tuple[int, int], ...] = ()  # settlements that the peer has not acknowledged: number, total
    waiting: tuple[tuple[int, int], ...] = ()  # settlements that need a larger channel: number, amount
    carried: int = 0  # less than one of the ledger's units, in units of the account
    raws: tuple[bytes, ...] = field(default=())

    @property
    def left(self) -> int:
        """What can be signed still."""
        return self.deposited - self.signed if self.phase is Phase.OPEN else 0

    @property
    def needed(self) -> int:
        return sum(amount for _, amount in self.waiting)

    def settle(self, number: int, amount: int, carried: int) -> "Outgoing":
        """One more settlement: signed at once if it fits and none waits before it."""
        return replace(self, waiting=(*self.waiting, (number, amount)), carried=carried).sign_waiting()

    def sign_waiting(self) -> "Outgoing":
        """Those that fit by now, in their order."""
        waiting, signed, signed_for, left = list(self.waiting), self.signed, list(self.signed_for), self.left
        while waiting and waiting[0][1] <= left:
            number, amount = waiting.pop(0)
            signed += amount
            left -= amount
            signed_for.append((number, signed))
        return replace(self, waiting=tuple(waiting), signed=signed, signed_for=tuple(signed_for))

    def acknowledge(self, total: int) -> tuple["Outgoing", list[int]]:
        """The peer has a claim of this total; the settlements that are paid by it."""
        total = min(total, self.signed)
        done = [number for number, upto in self.signed_for if upto <= total]
        rest = tuple(one for one in self.signed_for if one[1] > total)
        return replace(self, acknowledged=max(self.acknowledged, total), signed_for=rest), done

    def ended(self, claimed: int) -> tuple["Outgoing", list[int]]:
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
        return Outgoing(waiting=(*again, *self.waiting), carried=self.carried), done

    def with_raw(self, raw: bytes) -> "Outgoing":
        return replace(self, raws=(*self.raws, raw)[-RAWS_MAX:])

    def encode(self) -> bytes:
        fields = {
            "phase": self.phase.value,
            "terms": None if self.terms is None else terms_fields(self.terms),
            "deposited": str(self.deposited),
            "signed": str(self.signed),
            "acknowledged": str(self.acknowledged),
            "signedFor": [[number, str(total)] for number, total in self.signed_for],
            "waiting": [[number, str(amount)] for number, amount in self.waiting],
            "carried": str(self.carried),
            "raws": [raw.hex() for raw in self.raws],
        }
        return json.dumps(fields).encode()

    @classmethod
    def decode(cls, data: bytes | None) -> "Outgoing":
        if data is None:
            return cls()
        fields = json.loads(data)
        return cls(
            phase=Phase(fields["phase"]),
            terms=None if fields["terms"] is None else terms_from(fields["terms"]),
            deposited=number(fields, "deposited"),
            signed=number(fields, "signed"),
            acknowledged=number(fields, "acknowledged"),
            signed_for=tuple((one, int(total)) for one, total in fields["signedFor"]),
            waiting=tuple((one, int(amount)) for one, amount in fields["waiting"]),
            carried=int(fields["carried"]),
            raws=tuple(bytes.fromhex(raw) for raw in fields["raws"]),
        )


def deposit_for(state: Outgoing, *, deposit: int, reserve: int) -> int:
    """How much to put into the channel now; 0 for nothing. A channel is opened only when a settlement needs it."""
    missing = state.needed - state.left
    if state.phase is Phase.NONE:
        return min(max(state.needed, deposit), AMOUNT_MAX) if state.needed else 0
    if state.phase is not Phase.OPEN:
        return 0
    if missing > 0 or state.left < reserve:
        return min(max(missing, deposit), AMOUNT_MAX - state.deposited)
    return 0
