"""What each packet had to keep to on its way through a node: the rate, the time, and that something arrives.

Derived from the rows and what the node agreed to. Limits of balances are the tally's business, since they need the
order of all rows.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from typing import Final

from isthmus.sim.evidence import End, Evidence, Journal, Leg, State, Told
from isthmus.sim.permits import fulfilled

# Clocks of which nothing is told are not wrong by more than this.
CLOCK_MS: Final = 200
# What was decided in time may wait so long for the disk, which works on others.
COMMIT_MS: Final = 200


def breaches(evidence: Evidence, journal: Journal, incoming: Leg, outgoing: Leg) -> Iterator[tuple[str, str]]:
    """Kind and text of all that is wrong with these two legs of one packet."""
    if incoming.amount and not outgoing.amount:
        yield "zero", f"{incoming} is for {incoming.amount}, and nothing of it goes on"
    rate = evidence.rates.get((journal.node, incoming.asset, outgoing.asset))
    if rate is not None and outgoing.amount > incoming.amount * rate:
        yield (
            "rate",
            f"{outgoing.amount} goes on of {incoming}, which is for {incoming.amount}: more than its rate gives",
        )
    late_ms = _late_ms(evidence, journal, outgoing)
    if late_ms > 0:
        yield "late", f"{outgoing} is posted at least {late_ms} ms after its expiry"
    terms = evidence.terms.get(End(journal.node, incoming.account))
    if terms is None:
        return
    left_ms = incoming.expires_at - outgoing.expires_at
    if left_ms < terms.margin_ms:
        yield "time", f"{outgoing} expires {left_ms} ms before {incoming}, and {terms.margin_ms} were to be kept"
    hold_ms = outgoing.expires_at - _latest(journal, outgoing) - _wrong_ms(evidence, journal.node)
    if hold_ms > terms.hold_ms_max:
        yield "time", f"{outgoing} is held for at least {hold_ms} ms, and {terms.hold_ms_max} were agreed"


def told_early(evidence: Evidence, journal: Journal, legs: Iterable[Leg]) -> Iterator[tuple[Leg, str]]:
    """What a node told its peer before it was on the disk: a crash may undo it."""
    reports: dict[tuple[str, str], list[Told]] = {}
    for report in evidence.told:
        if report.node == journal.node:
            reports.setdefault((report.account, report.session), []).append(report)
    for leg in legs:
        if leg.is_incoming:
            continue
        for report in reports.get((leg.account, leg.session), ()):
            if leg.request_id <= report.watermark:
                if leg.state is State.OPEN or report.at_ms < _at(journal, leg.decided, report.at_ms):
                    yield leg, f"{leg} was said to be decided before that was on the disk"
                break


def _at(journal: Journal, sequence: int, default: int) -> int:
    """When the batch was on the disk."""
    at = bisect_left(journal.marks, sequence, key=lambda mark: mark.sequence)
    return journal.marks[at].at_ms if at < len(journal.marks) else default


def _latest(journal: Journal, leg: Leg) -> int:
    """When the leg was reserved, at the latest."""
    return _at(journal, leg.reserved, leg.expires_at)


def _late_ms(evidence: Evidence, journal: Journal, leg: Leg) -> int:
    """How long after the expiry the leg was posted, at least; 0 for one that wasn't, or if a slow disk explains it."""
    if leg.state is not State.POSTED or not journal.marks:
        return 0
    earliest_ms = fulfilled(evidence, journal, leg).from_ms
    late_ms = earliest_ms - leg.expires_at - _wrong_ms(evidence, journal.node) - COMMIT_MS
    if any(
        one.node == journal.node and one.from_ms <= earliest_ms and leg.expires_at <= one.to_ms
        for one in evidence.downs
    ):
        return 0
    return late_ms


def _wrong_ms(evidence: Evidence, node: str) -> int:
    return max((abs(one.by_ms) for one in evidence.skews if one.node == node), default=CLOCK_MS)
