"""Finding the hops of a path with packets that nobody can fulfil (`isthmus trace`): which to send, what answers say.

Interledger has no hop limit, but each connector keeps back some of a packet's time to pass a Fulfill on, and refuses a
packet with too little left (R02) in its own name. So packets with growing time left are refused one hop further each.
A hop stays unseen if it keeps back nearly nothing, or if its clock is behind by what it keeps back: between two
neighbours there may always be one.

Pure: the owner sends the probes, tells the answers, and says what time it is, in microseconds.
"""

from collections import deque
from collections.abc import Generator, Iterable
from dataclasses import dataclass, replace
from enum import Enum
from itertools import pairwise
from typing import Final, final

from isthmus.client.amounts import Amounts, Ask, Received, Told
from isthmus.errors import plain
from isthmus.ilp.address import is_prefix_of, is_valid
from isthmus.ilp.packet import Fulfill, Reject

STEP_MS: Final = 500  # from one time left to the next: nobody known keeps back less (CONN-9)
GAP_MS: Final = 8  # between the times left that two neighbours answered, it is looked for others down to this
WINDOW: Final = 8  # probes on their way at a time
PROBES_MAX: Final = 256
SILENCE_MS: Final = 3_000  # a next hop that hasn't answered within this doesn't answer
MIXED_MS: Final = (
    250  # a time left that two hops answered may be so blurred by the network; beyond it there are two ways
)
AGAIN_US: Final = 1_000_000  # after T02, T03 and T05: time helps
AGAIN_MAX: Final = 5
# Probes with amounts get this much more time than the first that reached the end: a slow answer is no late one.
AMOUNT_HOLD_MS: Final = 1_500

_TIMED_OUT: Final = ("R00", "R02")  # interledger-rs answers R00 to what has too little time left (CONN-10)
_BUSY: Final = ("T02", "T03", "T05")


@final
@dataclass(slots=True)
class Probe:
    """A Prepare to be sent to the target, with a condition of its own that nobody can fulfil."""

    number: int
    hold_ms: int  # how long it lives
    amount: int


class EndKind(Enum):
    REACHED = "reached"  # the target itself answered
    REFUSED = "refused"  # somebody before it, and more time doesn't help
    SILENT = "silent"  # the hop behind the last one doesn't answer
    TOO_LONG = "too long"  # no packet lives long enough to get there
    STOPPED = "stopped"  # out of time or probes


@final
@dataclass(slots=True, frozen=True)
class Ending:
    """Where the trace came to an end."""

    kind: EndKind
    code: str
    by: str | None  # None: it didn't say. Our own address: the packet didn't leave
    message: str


@final
@dataclass(slots=True, frozen=True)
class Hop:
    """One node that showed itself, or neighbours in a row that don't say who they are."""

    address: str | None
    code: str  # its answer for good; else R02, or R00 if that is all that it says
    delay_us: int | None  # there and back, the quickest; None if only its time-outs are known
    hold_ms: tuple[int, int] | None  # the least and the most time left that it answered; None: seen by an amount alone
    answers: int
    received: Received | None = None  # what came to it of a large packet
    smallest: int | None = None  # the smallest amount of which it has something left to send on


@final
@dataclass(slots=True, frozen=True)
class _Answer:
    hold_ms: int
    code: str
    by: str | None
    message: str
    us: int

    @property
    def timed_out(self) -> bool:
        return self.code in _TIMED_OUT


_Key = tuple[str, str | int]


@final
class Tracer:
    """One trace. `poll` gives the probes to send now, `told` takes an answer, until it `is_done`."""

    def __init__(self, target: str, *, own: str, hold_ms_max: int, with_amounts: bool = True) -> None:
        self._target: Final = target
        self._own: Final = own
        self._hold_max: Final = max(hold_ms_max, STEP_MS)
        self._open: Final[dict[int, tuple[Probe, int]]] = {}
        self._wanted: Final[deque[int]] = deque()
        self._climbed = 0  # the most time left that was wanted
        self._tried: Final[dict[int, int]] = {}  # time left -> how often
        self._answers: Final[list[_Answer]] = []
        self._pause_until_us = 0
        self.probes = 0
        self.amounts: Final = Amounts()
        self._with_amounts: Final = with_amounts
        self._asking: Generator[Ask, Told, None] | None = None
        self._ask: Ask | None = None
        self.is_mixed = False  # more than one way was taken
        self.is_done = False

    # --- what to send -------------------------------------------------------------------------------------------

    def poll(self, now_us: int) -> list[Probe]:
        """The probes to send now."""
        probes: list[Probe] = []
        if self.is_done or now_us < self._pause_until_us:
            return probes
        if self._asking is None:
            self._want()
            while self._wanted and len(self._open) < WINDOW and self.probes < PROBES_MAX:
                probes.append(self._probe(self._wanted.popleft(), 0, now_us))
            if (not self._open or self._is_silent()) and (not self._wanted or self.probes >= PROBES_MAX):
                self._begin_amounts()
        if self._asking is not None and self._ask is not None and not self._open:
            if self.probes >= PROBES_MAX:
                self.is_done = True
            else:
                probes.append(self._probe(self._ask.hold_ms, self._ask.amount, now_us))
        return probes

    def wakes_at(self, now_us: int) -> int | None:
        """When to poll again although nothing was told; None if never."""
        return self._pause_until_us if self._pause_until_us > now_us and not self.is_done else None

    def _probe(self, hold_ms: int, amount: int, now_us: int) -> Probe:
        self.probes += 1
        if not amount:
            self._tried[hold_ms] = self._tried.get(hold_ms, 0) + 1
        probe = Probe(self.probes, hold_ms, amount)
        self._open[probe.number] = (probe, now_us)
        return probe

    def _want(self) -> None:
        """First what lies between two neighbours, then further out."""
        wanted = set(self._wanted)
        marks: list[tuple[int, _Key]] = [(0, ("", self._own))]
        marks += [(one.hold_ms, key) for key, one in self._keyed()]
        for (low, before), (high, after) in pairwise(marks):
            middle = (low + high) // 2
            if before != after and high - low > GAP_MS and middle not in self._tried and middle not in wanted:
                self._wanted.append(middle)
        while len(self._wanted) + len(self._open) < WINDOW and self._climbed < self._hold_max and not self._has_end():
            self._climbed = min(self._climbed + STEP_MS, self._hold_max)
            self._wanted.append(self._climbed)

    def _has_end(self) -> bool:
        return any(not one.timed_out for one in self._answers) or self._is_silent()

    def _is_silent(self) -> bool:
        """Whether one hop's time-outs are all that comes, for all times left in a long range."""
        ordered = sorted(self._answers, key=lambda one: one.hold_ms)
        if not ordered or ordered[-1].code != "R00":
            return False
        last = first = ordered[-1]
        for one in reversed(ordered):
            if (one.code, one.by) != (last.code, last.by):
                break
            first = one
        return last.hold_ms - first.hold_ms >= SILENCE_MS

    # --- what came back -----------------------------------------------------------------------------------------

    def told(self, number: int, reply: Fulfill | Reject, now_us: int) -> None:
        """The answer to a probe."""
        found = self._open.pop(number, None)
        if found is None or self.is_done:
            return
        probe, sent_us = found
        if isinstance(reply, Fulfill):  # impossible by the condition, unless SHA-256 is broken
            reply = Reject("F99", self._target, "fulfilled")
        by = reply.triggered_by if is_valid(reply.triggered_by) else None
        if probe.amount:
            self._next_ask(Told(plain(reply.code), by, reply.data))
            return
        if reply.code in _BUSY and self._tried[probe.hold_ms] < AGAIN_MAX:
            self._wanted.appendleft(probe.hold_ms)
            self._pause_until_us = now_us + AGAIN_US
            return
        self._answers.append(_Answer(probe.hold_ms, plain(reply.code), by, plain(reply.message), now_us - sent_us))

    def stop(self) -> None:
        """Out of time: what is known now is all."""
        self.is_done = True

    # --- amounts ------------------------------------------------------------------------------------------------

    def _begin_amounts(self) -> None:
        end = self.ending()
        # Where nobody answers, an amount would be held at each hop until it expires.
        if not self._with_amounts or end.kind not in (EndKind.REACHED, EndKind.REFUSED) or end.by == self._own:
            self.is_done = True
            return
        first = min(one.hold_ms for one in self._answers if not one.timed_out)
        hold_ms = min(self._hold_max, first + AMOUNT_HOLD_MS)
        seen = [(hop.address, sum(hop.hold_ms) // 2) for hop in self._hops() if hop.hold_ms is not None]
        self._asking = self.amounts.ask(hold_ms, seen, Told(end.code, end.by, b""))
        self._next_ask(None)

    def _next_ask(self, told: Told | None) -> None:
        assert self._asking is not None
        try:
            self._ask = next(self._asking) if told is None else self._asking.send(told)
        except StopIteration:
            self.is_done = True

    # --- what is known ------------------------------------------------------------------------------------------

    def _keyed(self) -> list[tuple[_Key, _Answer]]:
        """Answers by time left, each with who gave it. Those without an address in a row count as one."""
        keyed: list[tuple[_Key, _Answer]] = []
        row = 0
        for one in sorted(self._answers, key=lambda one: one.hold_ms):
            if one.by is not None:
                keyed.append((("", one.by), one))
                continue
            if not keyed or keyed[-1][0] != ("?", row) or keyed[-1][1].timed_out != one.timed_out:
                row += 1
            keyed.append((("?", row), one))
        return keyed

    def _hops(self) -> list[Hop]:
        groups: dict[_Key, list[_Answer]] = {}
        for key, one in self._keyed():
            groups.setdefault(key, []).append(one)
        groups.pop(("", self._own), None)
        bounds = [(ones[0].hold_ms, ones[-1].hold_ms) for ones in groups.values()]
        self.is_mixed = any(later[0] + MIXED_MS < one[1] for one, later in pairwise(bounds))
        return [
            Hop(
                address=ones[0].by,
                code=_code(ones),
                delay_us=_quickest(ones),
                hold_ms=(ones[0].hold_ms, ones[-1].hold_ms),
                answers=len(ones),
            )
            for ones in groups.values()
        ]

    def hops(self) -> list[Hop]:
        """All hops that have shown themselves, in the order of the path."""
        hops = self._hops()
        hidden = self.amounts.hidden({hop.address for hop in hops})
        out: list[Hop] = []
        for number, hop in enumerate(hops):
            for one in hidden:
                if one.before == hop.address if one.before is not None else number == len(hops) - 1:
                    out.append(self._with_rates(Hop(one.address, one.code, None, None, 0)))
            out.append(self._with_rates(hop))
        return out

    def _with_rates(self, hop: Hop) -> Hop:
        if hop.address is None:
            return hop
        received, smallest = self.amounts.received.get(hop.address), self.amounts.smallest.get(hop.address)
        return replace(hop, received=received, smallest=smallest)

    def ending(self) -> Ending:
        """Where it ended, as far as is known."""
        ordered = sorted(self._answers, key=lambda one: one.hold_ms)
        if not ordered:
            return Ending(EndKind.STOPPED, "", None, "")
        last = ordered[-1]
        kind = EndKind.STOPPED
        if not last.timed_out:
            kind = EndKind.REACHED if is_destination(last.code, last.by, self._target) else EndKind.REFUSED
        elif self._is_silent():
            kind = EndKind.SILENT
        elif last.hold_ms >= self._hold_max:
            kind = EndKind.TOO_LONG if last.code == "R02" else EndKind.SILENT
        return Ending(kind, last.code, last.by, last.message)


def is_destination(code: str, by: str | None, target: str) -> bool:
    """Whether this answer comes from the target itself: it answers for good, and in its own name or a prefix of it."""
    is_there = not by or by == target or (is_valid(by) and is_prefix_of(by, target))
    return is_there and code[:1] == "F" and code not in ("F02", "F08")


def _code(answers: list[_Answer]) -> str:
    last = answers[-1]
    return "R02" if last.timed_out and any(one.code == "R02" for one in answers) else last.code


def _quickest(answers: Iterable[_Answer]) -> int | None:
    """Of the answers that nobody waited for: an R00 may be the end of a wait."""
    return min((one.us for one in answers if one.code != "R00"), default=None)
