"""Settlements as the auditor judges them: both books of two neighbours against what the ledger moved between them.

    what the payer's books debited  =  what the ledger moved  +  what is still on its way  +  what is carried
    what the payee's books credited  +  what is left over     =  what the ledger moved

Exact, in fractions of a whole unit of the asset. So nothing is paid twice, nothing is lost, no credit rests on anything
but the ledger, and leftovers are there to the last unit.
"""

from collections.abc import Iterator
from fractions import Fraction

from isthmus.sim.evidence import Flow, Terms


def unexplained(flow: Flow, *, paid: int | None, credited: int | None) -> Iterator[tuple[str, str]]:
    """Who and what, for all that doesn't add up. None: of those books nobody expects anything."""
    if paid is not None:
        unit = Fraction(10) ** (flow.asset_scale - flow.scale)  # of the ledger, in units of the account
        # A payment that failed gives back what it had taken of what is carried: below zero, but never a whole unit.
        most = max(unit, Fraction(1))
        if not -most < flow.carried < most:
            yield flow.payer.node, f"{flow.carried} is carried to {flow.payee.node}, where the ledger's unit is {unit}"
        left = Fraction(paid - flow.untaken - flow.carried, 10**flow.asset_scale)
        there = Fraction(flow.moved + flow.waits, 10**flow.scale)
        if left != there:
            text = (
                f"{paid} was debited for settlements with {flow.payee.node}, {flow.untaken} of it isn't with the engine"
                f" and {flow.carried} is carried; the ledger has {flow.moved} and awaits {flow.waits} units of"
                f" 10^-{flow.scale}: {left - there} too much left the books"
            )
            yield flow.payer.node, text
    if credited is not None:
        left_over, scale = flow.leftover
        there = Fraction(flow.moved + flow.owed_back, 10**flow.scale)
        booked = Fraction(credited, 10**flow.asset_scale) + Fraction(left_over, 10**scale)
        if booked != there:
            text = (
                f"{credited} was credited to {flow.payer.node} and {left_over} of 10^-{scale} is left over; the ledger"
                f" has {flow.moved} units of 10^-{flow.scale}, {flow.owed_back} to be made good:"
                f" {booked - there} too much came into the books"
            )
            yield flow.payee.node, text


def exposed(balance: int, undone: int, terms: Terms) -> str:
    """What a peer owes beyond all that was agreed; "" if it doesn't. What a ledger took back adds to the agreed."""
    if terms.receivable_max is None:
        return ""
    most = max(terms.receivable_max, terms.ahead_max or 0) + undone
    return f"owes {balance}, and {most} is the most that it may" if balance > most else ""
