"""Which losses the faults of a run permit, by the rule of who may be out of pocket.

The side that sent a Prepare decides it, by its own clock. So only the side that fulfilled can lose, and only if the
word of it could not reach the other in time: one of the two was down, nothing passed between them, or a clock was
wrong, between the fulfilment and the expiry. Two neighbours that were up and linked for `settle_ms` in that time have
told each other everything: then nothing may be lost, whatever happened besides.
"""

from bisect import bisect_left
from collections.abc import Iterable
from typing import NamedTuple

from isthmus.sim.evidence import Evidence, Journal, Leg


class Span(NamedTuple):
    """From, to: wall ms."""

    from_ms: int
    to_ms: int


def why_not(evidence: Evidence, journal: Journal, leg: Leg, peer: str) -> str:
    """Why the loss of this leg (incoming, posted by the journal's node) is not permitted; empty if it is.

    `peer` is the node that sent the Prepare.
    """
    names = {journal.node, peer}
    wrong_ms = max((abs(one.by_ms) for one in evidence.skews if one.node in names), default=0)
    least, most = fulfilled(evidence, journal, leg)
    window = Span(least - wrong_ms, leg.expires_at + wrong_ms)
    troubles = [one for one in _troubles(evidence, names) if _meet(one, window)]
    if not troubles:
        return "nothing was broken between the fulfilment and the expiry"
    calm_ms = _longest_calm(troubles, Span(most, leg.expires_at - wrong_ms))
    if calm_ms >= evidence.settle_ms:
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
    for skew in evidence.skews:
        if skew.node in names:
            yield Span(skew.from_ms, skew.to_ms)


def _meet(one: Span, other: Span) -> bool:
    return one.from_ms <= other.to_ms and other.from_ms <= one.to_ms


def _longest_calm(troubles: list[Span], window: Span) -> int:
    """The longest stretch of the window without any trouble."""
    longest, at = 0, window.from_ms
    for trouble in sorted(troubles):
        longest = max(longest, min(trouble.from_ms, window.to_ms) - at)
        at = max(at, trouble.to_ms)
    return max(longest, window.to_ms - at)
