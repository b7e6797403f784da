"""What the rules of the switch share: books, lanes, tables, timers, the clock of the batch, and the frames it makes.

The rules themselves are in `prepare.py` (a Prepare of a peer), `reply.py` (answers to ours, and silence) and
`protocols.py` (`peer.*`). The kernel calls them and owns batches and order.
"""

from collections import deque
from heapq import heappop, heappush
from typing import Final, final

from isthmus.connector.batch import Batch
from isthmus.connector.books import Books
from isthmus.connector.events import AccountId, Effect, Inbound, Log, Outbound
from isthmus.connector.lane import Lane
from isthmus.connector.legs import IncomingLeg
from isthmus.connector.outcomes import ASK_EVERY_MS
from isthmus.connector.replay import Application
from isthmus.connector.routing.router import Router
from isthmus.connector.settlement_messages import SettlementMessages
from isthmus.connector.settling import SettlementTally
from isthmus.connector.tables import RateTable, RouteTable, Tables
from isthmus.connector.wheel import TimingWheel
from isthmus.ilp.codes import ErrorCode
from isthmus.ilp.packet import Reject, encode_reject
from isthmus.ilp.timestamp import TimestampCache

# Encoded Rejects without data, by code and message. Messages are ours and few; beyond the bound the cache starts anew.
REJECTS_MAX: Final = 256
# A peer's misbehaviour is logged at most once in this time, for each account.
WARN_EVERY_MS: Final = 1_000
# Upper bounds of the latency histogram's buckets, ms from reading a Prepare to reading its Fulfill; one more is open.
LATENCY_BOUNDS_MS: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 30_000)
FAR_FUTURE: Final = 2**62
# Codes that have a counter each; those that peers invent share one (ILP-18).
COUNTED: Final[dict[str, str]] = {code.value: code.value for code in ErrorCode}
OTHER_CODES: Final = "other"


@final
class Switch:
    """State of one node between two events. All amounts, ids and times in it are integers."""

    __slots__ = (
        "_looks_at",
        "_rejects",
        "_reporters",
        "answers",
        "appends",
        "application",
        "books",
        "by_index",
        "draining",
        "duplicates",
        "effects",
        "entropy",
        "first_deadline",
        "first_posted_deadline",
        "foreign",
        "frame_lanes",
        "free_lanes",
        "lanes",
        "late",
        "latency",
        "latency_index",
        "latency_sum_ms",
        "malformed",
        "mono",
        "opened_leg",
        "posted",
        "rejected_lanes",
        "released_leg",
        "router",
        "settlement_messages",
        "settlement_tally",
        "settlers",
        "singles",
        "tables",
        "timestamps",
        "wall",
        "wheel",
    )

    def __init__(self, books: Books, application: Application, entropy: bytes) -> None:
        self.books = books
        self.application: Final = application
        self.entropy: Final = entropy
        self.lanes: Final[dict[AccountId, Lane]] = {}
        self.by_index: Final[dict[int, Lane]] = {}  # by the account's index in the books
        self.settlers: Final[dict[int, Lane]] = {}  # the same, of those that settle by themselves
        self.settlement_messages: Final = SettlementMessages()
        self.settlement_tally: Final = SettlementTally()
        self.draining = False
        self.tables = Tables("", {}, RouteTable({}), RateTable({}))
        self.router: Final = Router(entropy)
        self.wheel: Final = TimingWheel()
        self.timestamps: Final = TimestampCache()
        self.wall = 0
        self.mono = 0
        self.effects: list[Effect] = []
        # Of the open batch: lanes with frames, what was posted, what the summary tells one by one, and answers.
        self.frame_lanes: list[Lane] = []
        self.free_lanes: list[Lane] = []
        self.rejected_lanes: list[Lane] = []
        self.posted: list[IncomingLeg] = []
        self.singles: list[tuple[str, AccountId, int, str]] = []
        self.answers: list[Effect] = []
        self.first_deadline = FAR_FUTURE
        self.first_posted_deadline = FAR_FUTURE
        # Outgoing legs above it wait for their batch: their Prepares were not handed to a link.
        self.released_leg = 0
        self.opened_leg = 0  # the last one of earlier processes
        self.appends: Final[deque[Batch]] = deque()  # the kernel's: batches that are not durable yet
        self._reporters: Final[list[tuple[int, int]]] = []  # a heap: when to tick, index of the account
        self._looks_at = 0  # when open Prepares that have been for long are looked for
        self._rejects: Final[dict[tuple[str, str], bytes]] = {}
        # Counters: packets that changed nothing.
        self.duplicates = 0  # Prepares with a wire identity that is in flight
        self.foreign = 0  # replies to what we don't know
        self.malformed = 0  # replies that don't parse
        self.late = 0  # valid Fulfills after the deadline
        self.latency: Final = [0] * (len(LATENCY_BOUNDS_MS) + 1)
        self.latency_sum_ms = 0
        self.latency_index: Final = _latency_index()

    def take_tables(self, tables: Tables) -> None:
        """Swap the tables; every cache that came from the old ones is dropped."""
        self.tables = tables
        self._rejects.clear()

    # --- frames -------------------------------------------------------------------------------------------------

    def send(self, lane: Lane, frame: Outbound) -> None:
        """Queue a frame that rests on an event of the open batch."""
        frames = lane.frames
        if not frames:
            self.frame_lanes.append(lane)
        frames.append(frame)

    def send_free(self, lane: Lane, frame: Outbound) -> None:
        """Queue a frame with no event behind it: it leaves at the end of this call, and may pass frames that wait."""
        if not lane.free:
            self.free_lanes.append(lane)
        lane.free.append(frame)

    def cut_batch(self, sequence: int, tokens: list[int]) -> Batch:
        """What waits for all that was decided so far; what is decided from here on waits for the next."""
        batch = Batch(
            sequence,
            submitted_at=self.mono,
            last_leg=self.books.last_leg,
            posted=self.posted,
            first_deadline=self.first_deadline,
            first_posted_deadline=self.first_posted_deadline,
            tokens=tokens,
            frames=[(lane, lane.frames) for lane in self.frame_lanes],
            answers=self.answers,
        )
        for lane in self.frame_lanes:
            lane.frames = []
        self.frame_lanes, self.posted, self.answers = [], [], []
        self.first_deadline = self.first_posted_deadline = FAR_FUTURE
        return batch

    def send_after_all(self, lane: Lane, frame: Outbound) -> None:
        """Queue a frame that rests on everything decided so far, whether it made an entry of its own or not."""
        if self.books.has_entries():
            self.send(lane, frame)
        elif self.appends:
            self.appends[-1].frames.append((lane, [frame]))
        else:
            self.send_free(lane, frame)

    def answer_after_all(self, answer: Effect) -> None:
        """The same for an answer to whoever drives the kernel."""
        if self.books.has_entries():
            self.answers.append(answer)
        elif self.appends:
            self.appends[-1].answers.append(answer)
        else:
            self.effects.append(answer)

    def refuse(self, lane: Lane, inbound: Inbound, code: str, message: str, data: bytes = b"") -> None:
        """Reject a Prepare that touched no books."""
        self.count_reject(lane, code)
        frame = Outbound(inbound.session, inbound.request_id, self.own_reject(code, message, data))
        self.send_free(lane, frame)

    def reject_leg(self, leg: IncomingLeg, code: str, message: str) -> None:
        """Tell the peer that its leg, just voided, has failed."""
        lane = self.by_index[leg.account.index]
        self.count_reject(lane, code)
        self.send(lane, Outbound(leg.session, leg.request_id, self.own_reject(code, message)))

    def own_reject(self, code: str, message: str, data: bytes = b"") -> bytes:
        """A Reject by us: our address in `triggeredBy`, data only with F08 (ILP-14, ILP-21)."""
        if data:
            return encode_reject(Reject(code, self.tables.address, message, data))
        key = (code, message)
        packet = self._rejects.get(key)
        if packet is None:
            packet = encode_reject(Reject(code, self.tables.address, message))
            if len(self._rejects) >= REJECTS_MAX:
                self._rejects.clear()
            self._rejects[key] = packet
        return packet

    # --- reports of outcomes ------------------------------------------------------------------------------------

    def wake_reporter(self, lane: Lane) -> None:
        """Something changed for this lane's reporter: tick it when it wants to be."""
        reporter = lane.reporter
        at = reporter.wakes_at()
        if at is not None and (reporter.queued_at is None or at < reporter.queued_at):
            reporter.queued_at = at
            heappush(self._reporters, (at, lane.account.index))

    def reports_at(self) -> int | None:
        at = self._reporters[0][0] if self._reporters else None
        if self.wheel and (at is None or self._looks_at < at):
            return self._looks_at
        return at

    def tick_reporters(self) -> None:
        """Let those whose time has come report to their peers. One of them may be queued twice; once counts."""
        if self.mono >= self._looks_at and self.wheel:
            self._looks_at = self.mono + ASK_EVERY_MS
            for each in self.lanes.values():
                each.reporter.look(self)
        queue = self._reporters
        while queue and queue[0][0] <= self.mono:
            at, index = heappop(queue)
            lane = self.by_index.get(index)
            if lane is not None and lane.reporter.queued_at == at:
                lane.reporter.queued_at = None
                lane.reporter.tick(self)
                self.wake_reporter(lane)

    # --- counting and telling -----------------------------------------------------------------------------------

    def count_reject(self, lane: Lane, code: str) -> None:
        counted = COUNTED.get(code, OTHER_CODES)
        lane.rejected[counted] = lane.rejected.get(counted, 0) + 1
        if lane.rejected_unreported == 0:
            self.rejected_lanes.append(lane)
        lane.rejected_unreported += 1

    def count_relayed(self, lane: Lane, code: str) -> None:
        counted = COUNTED.get(code, OTHER_CODES)
        lane.relayed[counted] = lane.relayed.get(counted, 0) + 1

    def note(self, data: bytes) -> None:
        """Journal an application's entry, and apply it as replay will."""
        self.books.note(data)
        self.application.apply(data)

    def log(self, level: str, event: str, fields: dict[str, str | int]) -> None:
        self.effects.append(Log(level, event, fields))

    def tell(self, lane: Lane, event: str, fields: dict[str, str | int]) -> None:
        """Log what can happen with every packet: some lines a second for an account, which say how many are missing."""
        if not lane.told.has(1, self.mono):
            lane.untold += 1
            return
        lane.told.take(1)
        if lane.untold:
            fields["left_out_before"] = lane.untold
            lane.untold = 0
        self.log("info", event, {"account": lane.id, **fields})

    def warn(self, lane: Lane, event: str, fields: dict[str, str | int]) -> None:
        """Log what a peer did wrong, not oftener than `WARN_EVERY_MS` for an account."""
        if self.mono - lane.warned_at >= WARN_EVERY_MS:
            lane.warned_at = self.mono
            self.log("warning", event, {"account": lane.id, **fields})


def _latency_index() -> list[int]:
    """For each millisecond up to the largest bound the number of its bucket."""
    index: list[int] = []
    for number, bound in enumerate(LATENCY_BOUNDS_MS):
        index += [number] * (bound + 1 - len(index))
    return index
