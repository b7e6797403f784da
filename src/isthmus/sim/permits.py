"""Which losses the faults of a run permit, by the rule of who may be out of pocket.

The side that sent a Prepare decides it, by its own clock. So only the side that fulfilled can lose, and only if the
word of it could not reach the other in time: one of the two was down, or nothing passed between them, between the
fulfilment and the expiry; or a clock was wrong, and there was no such time. Two neighbours that were up and linked for
`settle_ms` in it have told each other everything: then nothing may be lost, whatever happened besides. The sender's
clock moves the expiry by as much as it is wrong. The other side's moves nothing: if it is behind, that side may fulfil
after the expiry, and that is all.
"""

from bisect import bisect_left
from collections.abc import Iterable
from typing import Final, NamedTuple

from isthmus.sim.evidence import Evidence, Journal, Leg

# Where nothing is broken, a Fulfill is there after this.
PROMPT_MS: Final = 1_000


class Span(NamedTuple):
    """From, to: wall ms."""

    from_ms: int
    to_ms: int


def why_not(evidence: Evidence, journal: Journal, leg: Leg, peer: str) -> str:
    """Why the loss of this leg (incoming, posted by the journal's node) is not permitted; empty if it is.

    `peer` is the node that sent the Prepare.
    """
    names = {journal.node, peer}
    least, most = fulfilled(evidence, journal, leg)
    wrong = [one for one in evidence.skews if one.node in names and one.to_ms >= least]
    wrong_ms = max((abs(one.by_ms) for one in wrong if one.node == peer), default=0)
    troubles = [one for one in _troubles(evidence, names) if _meet(one, Span(least, leg.expires_at + wrong_ms))]
    if not troubles and not wrong:
        return "nothing was broken between the fulfilment and the expiry"
    calm_ms = _longest_calm(troubles, Span(most, leg.expires_at - wrong_ms))
    if calm_ms >= (evidence.settle_ms if troubles else PROMPT_MS):
        return f"both were up and linked for {calm_ms} ms between the fulfilment and the expiry"
    return ""


def fulfilled(evidence: Evidence, journal: Journal, leg: Leg) -> Span:
    """When the leg was posted, at the earliest and at the latest."""
    marks = journal.marks
    at = bisect_left(marks, leg.decided, key=lambda mark: mark.sequence)
    earliest = leg.expires_at - evidence.hold_ms
    if at > 0:
        earliest = max(earliest, marks[at - 1].at_ms)
    latest = marks[at].at_ms if at < len(marks) else leg.expires_at
    return Span(earliest, max(earliest, latest))


def _troubles(evidence: Evidence, names: set[str]) -> Iterable[Span]:
    for down in evidence.downs:
        if down.node in names:
            yield Span(down.from_ms, down.to_ms)
    for cut in evidence.cuts:
        if {cut.left, cut.right} == names:
            yield Span(cut.from_ms, cut.to_ms)


def _meet(one: Span, other: Span) -> bool:
    return one.from_ms <= other.to_ms and other.from_ms <= one.to_ms


def _longest_calm(troubles: list[Span], window: Span) -> int:
    """The longest stretch of the window without any trouble."""
    longest, at = 0, window.from_ms
    for trouble in sorted(troubles):
        longest = max(longest, min(trouble.from_ms, window.to_ms) - at)
        at = max(at, trouble.to_ms)
    return max(longest, window.to_ms - at)
