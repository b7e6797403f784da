"""Outcomes between neighbours (docs/outcomes.md): so that two books meet again to the unit, whatever broke.

The side that sent a Prepare decides it. `Reporter` is that side: it tells the peer how far it has decided, which legs
it voided without the peer's word, and after each connection asks about its Prepares without an answer. `take_report`
is the other side: what it had fulfilled and the peer voided is a loss, and counts against the peer's limit.

A report rests on all outcomes that it names, and an answer on all that it caused: both leave once these are durable.
A leg is known by session and request id on its account, and never by its condition; a peer's report is about its own
account, whichever sessions it names.
"""

from collections import deque
from typing import TYPE_CHECKING, Final, final

from isthmus.connector.books import DEAF, HEARS, find_range
from isthmus.connector.events import Inbound, Outbound
from isthmus.connector.legs import IncomingLeg, OutgoingLeg
from isthmus.errors import CodecError
from isthmus.ilp.ildcp import PEER_CONDITION, PEER_FULFILLMENT
from isthmus.ilp.outcomes import (
    ASKED_MAX,
    RANGES_MAX,
    VOIDED_MAX,
    OutcomesReport,
    decode_answer,
    decode_report,
    encode_answer,
    encode_report,
)
from isthmus.ilp.packet import Fulfill, PrepareView, decode_prepare, decode_reply, encode_fulfill

if TYPE_CHECKING:
    from isthmus.connector.lane import Lane
    from isthmus.connector.switch import Switch

# A report goes out this long after the first outcome that it is about, or after so many of them.
REPORT_AFTER_MS: Final = 250
REPORT_AFTER: Final = 1_000
# How long an answer is waited for, and then before the next try: doubling from the first to the last.
ANSWER_MS: Final = 2_000
REPORT_MS: Final = 30_000  # its expiry on the wire, which nobody's clock needs to agree with
RETRY_MS_FIRST: Final = 500
RETRY_MS_MAX: Final = 30_000
RETRY_MS_MAX_OPEN: Final = 2_000  # while Prepares wait for their outcome
# A Prepare without an answer is asked about when the link comes up, and once it is this old; then in each round.
ASK_AFTER_MS: Final = 2_000
ASK_EVERY_MS: Final = 1_000
# So many reports in a row may fail by a status of the link (and not by the peer's word) before we believe it.
UNTAKEN_MAX: Final = 4
# Answers to Prepares without an identity of a leg (HTTP, other implementations), in case they are repeated (HTTP-7).
NAMELESS_KEPT_MAX: Final = 2_048
# What a peer's reports may cost us: a token for each, one for so many ids in it, and one for so many kept legs.
REPORT_TOKENS: Final = 1_000  # a second
REPORT_TOKENS_BURST: Final = 4_000
IDS_PER_TOKEN: Final = 20
LEGS_PER_TOKEN: Final = 200


@final
class Reporter:
    """Tells one peer what became of our Prepares, one report at a time, each about one session."""

    __slots__ = (
        "_confirmed",
        "_decided",
        "_due_at",
        "_is_probe",
        "_last_orphan",
        "_news",
        "_news_asked",
        "_news_told",
        "_orphans",
        "_ranges_from",
        "_sent_in",
        "_session",
        "_tries",
        "_waits_until",
        "_watermark",
        "lane",
        "queued_at",
        "request_id",
        "up_at",
    )

    def __init__(self, lane: "Lane") -> None:
        self.lane: Final = lane
        self.request_id = 0  # of the report that waits for its answer; 0 between two
        self.up_at = 0
        self.queued_at: int | None = None  # the switch's note of when to tick
        self._session = b""  # what the report that waits is about
        self._sent_in = b""  # and the session that it went out in
        self._watermark = 0
        self._decided = 0  # outcomes since the last report that the peer must hear of
        self._news = 0  # the same since ever, of our present session: all, those in the report that waits, those taken
        self._news_asked = 0
        self._news_told = 0
        self._ranges_from = 0  # where the next report's ranges begin, if one report couldn't take all
        self._due_at: int | None = None  # of the next report
        self._confirmed: Final[dict[bytes, int]] = {}  # by session: the watermark that the peer has taken
        self._is_probe = False  # we don't know yet, or not any more, whether the peer takes reports
        self._tries = 0
        self._waits_until = 0  # for the answer, or before the next try
        self._last_orphan = 0  # the last leg that went out before this connection
        self._orphans: deque[tuple[bytes, int]] = deque()  # Prepares to ask about in this round

    # --- what happens -------------------------------------------------------------------------------------------

    def decided(self, switch: "Switch", leg: OutgoingLeg) -> None:
        """One more outcome that the peer must hear of."""
        if leg.session == self.lane.session:
            self._news += 1
        self._count(switch)

    def ended(self, switch: "Switch", leg: OutgoingLeg) -> None:
        """The peer knows this outcome, but what was voided above it, or its session's end, may have waited for it."""
        if leg.session != self.lane.session or self.lane.account.unsaid:
            self._count(switch)

    def _count(self, switch: "Switch") -> None:
        self._decided += 1
        if self._decided == 1:
            self._be_due(switch.mono + REPORT_AFTER_MS)
        elif self._decided == REPORT_AFTER:
            self._be_due(switch.mono)
        else:
            return
        switch.wake_reporter(self.lane)

    def link_up(self, switch: "Switch", *, is_other: bool) -> None:
        """Tell what the peer may not have heard, and ask what became of Prepares that went out before."""
        self._stop()
        self._tries = 0
        self._waits_until = self.up_at = switch.mono
        if self.lane.is_local:
            return
        account = self.lane.account
        # It may be an isthmus, and will tell us its outcomes, also if nothing is to be told by us for a long time.
        self._is_probe = account.hearing != HEARS and not is_other
        self._orphans.clear()
        self._last_orphan = switch.released_leg
        if not is_other:
            self._ask(switch)
        if account.session or account.sessions or account.unsaid:
            self._be_due(switch.mono)
        switch.wake_reporter(self.lane)

    def look(self, switch: "Switch") -> None:
        """From time to time while Prepares are open: ask about those that have been for long.

        Their answers may have been lost where no link shows it: behind a proxy, or with a process that took a request
        and promised to answer later.
        """
        lane = self.lane
        oldest = next(iter(lane.account.sent.values()), None)
        if oldest is None or not lane.up or lane.is_local or lane.account.hearing == DEAF:
            return
        if oldest.started_at <= switch.mono - ASK_AFTER_MS or oldest.id <= self._last_orphan:
            self._orphans.clear()
            self._ask(switch)
            switch.wake_reporter(lane)

    def _ask(self, switch: "Switch") -> None:
        """Begin a round of questions: what went out before this connection, or long ago, and has no answer."""
        long_ago = switch.mono - ASK_AFTER_MS
        for leg in self.lane.account.sent.values():
            if leg.id > self._last_orphan and leg.started_at > long_ago:
                break
            if leg.id <= switch.released_leg:
                self._orphans.append((leg.session, leg.request_id))

    def peer_tells(self, switch: "Switch") -> None:
        """It made a report, so it takes them, whatever we believed."""
        if self.lane.account.hearing == DEAF and not self.lane.is_other and not self._is_probe:
            self._is_probe = True
            self._tries = 0
            self._waits_until = switch.mono
            switch.wake_reporter(self.lane)

    def link_down(self) -> None:
        self._stop()

    def _stop(self) -> None:
        if self.request_id:
            self.request_id = 0
            self._be_due(self._waits_until)

    def _be_due(self, at: int) -> None:
        if self._due_at is None or at < self._due_at:
            self._due_at = at

    # --- when ---------------------------------------------------------------------------------------------------

    def wakes_at(self) -> int | None:
        """When `tick` has something to do; None if nothing is to be told, asked or forgotten."""
        lane = self.lane
        at = None
        if lane.up and not lane.is_local:
            at = self._waits_until if self.request_id else self._reports_at()
        if lane.account.nameless:
            forgets_at = next(leg.deadline for leg in lane.account.fulfilled.values() if not leg.request_id)
            at = forgets_at if at is None else min(at, forgets_at)
        return at

    def _reports_at(self) -> int | None:
        at = self._due_at
        if self._orphans:
            at = 0
        elif self._is_probe and at is None:
            at = self.up_at + REPORT_AFTER_MS
        if self.lane.account.hearing == DEAF and not self._is_probe:
            return None
        return None if at is None else max(at, self._waits_until)

    def tick(self, switch: "Switch") -> None:
        """Report, and forget, if it is time to."""
        if self.lane.account.nameless:
            forget_expired(switch, self.lane)
        if self.request_id:
            if switch.mono >= self._waits_until:
                self._again(switch, "the peer doesn't answer")
            return
        at = self._reports_at() if self.lane.up and not self.lane.is_local else None
        if at is not None and switch.mono >= at:
            self._report(switch)

    # --- reports ------------------------------------------------------------------------------------------------

    def _report(self, switch: "Switch") -> None:
        lane = self.lane
        session = self._next_session()
        if session is None:
            self._due_at = None
            self._decided = 0
            return
        watermark, _ = self._decided_up_to(session)
        voided = sorted(key[1] for key in lane.account.unsaid if key[0] == session and key[1] <= watermark)
        ranges: list[tuple[int, int]] = []
        if len(voided) > VOIDED_MAX:
            watermark = voided[VOIDED_MAX] - 1
            voided = voided[:VOIDED_MAX]
        else:
            ranges = self._ranges_above(session, watermark)
        asked = self._take_orphans(session)
        request_id = lane.take_request_id()
        if request_id is None:
            self._waits_until = switch.mono + RETRY_MS_FIRST
            return
        self.request_id = request_id
        self._sent_in = lane.session
        self._session = session
        self._watermark = watermark
        if session == lane.session and not self._ranges_from:
            self._news_asked = self._news
        self._due_at = None
        self._decided = 0
        self._waits_until = switch.mono + ANSWER_MS
        packet = encode_report(OutcomesReport(session, watermark, voided, asked, ranges), switch.wall + REPORT_MS)
        switch.send_after_all(lane, Outbound(lane.session, request_id, packet))

    def _next_session(self) -> bytes | None:
        """The session to report about: one with a question first, then one with news; None if there is neither."""
        orphans = self._orphans
        sent = self.lane.account.sent
        while orphans and orphans[0][1] not in sent:
            orphans.popleft()
        if orphans:
            return orphans[0][0]
        return self.lane.session if self._is_probe else self._session_with_news()

    def _session_with_news(self) -> bytes | None:
        account = self.lane.account
        unsaid = {key[0]: None for key in account.unsaid}
        for session in [*account.untold_sessions(), *unsaid]:
            watermark, ended = self._decided_up_to(session)
            if ended or watermark > self._confirmed.get(session, 0):
                return session
            if session == self.lane.session and self._news > self._news_told:
                return session
            if session in unsaid and any(key[0] == session and key[1] <= watermark for key in account.unsaid):
                return session
        return None

    def _decided_up_to(self, session: bytes) -> tuple[int, bool]:
        """The session's watermark, and whether nothing will come after it."""
        account = self.lane.account
        first_open = min((leg.request_id for leg in account.sent.values() if leg.session == session), default=0)
        if first_open:
            return first_open - 1, False
        last = account.last_request_of(session)
        if not last:
            last = max((key[1] for key in account.unsaid if key[0] == session), default=0)
        return last, session != self.lane.session

    def _ranges_above(self, session: bytes, watermark: int) -> list[tuple[int, int]]:
        """What is decided above the watermark, between what is open and what is void without the peer's word."""
        account = self.lane.account
        holes = [leg.request_id for leg in account.sent.values() if leg.session == session]
        if not holes:
            return []  # the watermark says all
        holes += [key[1] for key in account.unsaid if key[0] == session and key[1] > watermark]
        ranges: list[tuple[int, int]] = []
        is_present = session == self.lane.session
        first = max(watermark + 1, self._ranges_from if is_present else 0)
        for hole in [*sorted(holes), account.last_request_of(session) + 1]:
            if hole > first:
                ranges.append((first, hole - 1))
            first = max(first, hole + 1)
        if is_present:
            self._ranges_from = ranges[RANGES_MAX][0] if len(ranges) > RANGES_MAX else 0
        return ranges[:RANGES_MAX]

    def _take_orphans(self, session: bytes) -> list[int]:
        """The next Prepares of this session to ask about, in ascending order."""
        orphans = self._orphans
        sent = self.lane.account.sent
        asked: list[int] = []
        while len(asked) < ASKED_MAX and orphans and orphans[0][0] == session:
            request_id = orphans.popleft()[1]
            if request_id in sent:
                asked.append(request_id)
        return sorted(asked)

    # --- answers ------------------------------------------------------------------------------------------------

    def is_answered_by(self, inbound: Inbound) -> bool:
        if self.request_id == 0 or inbound.request_id != self.request_id:
            return False
        # Ids of reports are in no journal: an earlier process may have used the same one, and its answer come now.
        return not inbound.session or inbound.session == self._sent_in

    def take_answer(self, switch: "Switch", packet: bytes) -> list[tuple[bytes, int, bytes]]:
        """The peer's reply to a report. Gives session, request id and fulfillment of what it says it fulfilled."""
        try:
            reply = decode_reply(packet)
            if not isinstance(reply, Fulfill):
                self.refused(switch, reply.code, f"the peer refuses: {reply.code} {reply.message[:200]}")
                return []
            if reply.fulfillment != PEER_FULFILLMENT:
                raise CodecError("answer", 0, "the fulfillment is not that of peer.*")
            found = decode_answer(reply.data)
        except CodecError as error:
            self._not_spoken(switch, f"the peer's answer makes no sense: {error}")
            return []
        self._take_confirmation(switch)
        return [(self._session, request_id, fulfillment) for request_id, fulfillment in found]

    def _take_confirmation(self, switch: "Switch") -> None:
        books = switch.books
        account = self.lane.account
        session = self._session
        if account.hearing != HEARS:
            books.set_hearing(account, HEARS)
        watermark, ended = self._decided_up_to(session)
        ended = ended and self._watermark >= watermark
        if ended or any(key[0] == session and key[1] <= self._watermark for key in account.unsaid):
            books.confirm(account, session, self._watermark, ended=ended)
        if ended:
            self._confirmed.pop(session, None)
        else:
            self._confirmed[session] = max(self._watermark, self._confirmed.get(session, 0))
        self.request_id = 0
        self._is_probe = False
        self._tries = 0
        self._waits_until = switch.mono
        if session == self.lane.session:
            self._news_told = self._news_asked
        following = self._session_with_news()
        if following is not None:
            waits = following == self.lane.session and self._decided < REPORT_AFTER
            self._be_due(switch.mono + (REPORT_AFTER_MS if waits else 0))
        switch.wake_reporter(self.lane)

    def refused(self, switch: "Switch", code: str, why: str) -> None:
        """The peer's Reject."""
        if code in ("T01", "T02", "T03", "T05") or code.startswith("R"):
            self._again(switch, why)
        else:
            self._not_spoken(switch, why)

    def not_taken(self, switch: "Switch", code: str, why: str) -> None:
        """The link's word that nobody took it, not believed at once: proxies have statuses of their own."""
        if self._tries < UNTAKEN_MAX:
            self._again(switch, why)
        else:
            self.refused(switch, code, why)

    def _not_spoken(self, switch: "Switch", why: str) -> None:
        """The peer knows no reports: nothing is kept for it, and nothing else changes."""
        account = self.lane.account
        if account.hearing == HEARS or (account.acknowledged and not self.lane.is_other):
            # It took them before, or makes them: its operator should look, and what it must hear of is kept.
            self._again(switch, why)
            return
        if account.hearing != DEAF:
            switch.log("info", "outcomes_not_spoken", {"account": self.lane.id, "answer": why})
            switch.books.set_hearing(account, DEAF)
        self.request_id = 0
        self._due_at = None
        self._decided = 0
        self._orphans.clear()
        self._is_probe = False
        switch.wake_reporter(self.lane)

    def _again(self, switch: "Switch", why: str) -> None:
        longest = RETRY_MS_MAX_OPEN if self.lane.account.sent else RETRY_MS_MAX
        self._waits_until = switch.mono + min(longest, RETRY_MS_FIRST << min(self._tries, 6))
        self._stop()
        self._tries += 1
        if self._tries == 1:
            switch.warn(self.lane, "outcomes_not_taken", {"problem": why})
        switch.wake_reporter(self.lane)


# --- the other side --------------------------------------------------------------------------------------------------


def take_report(switch: "Switch", lane: "Lane", inbound: Inbound, view: PrepareView) -> None:
    """A peer's report. What it can cause: that we forget what it posted, and book as a loss what it voided."""
    if view.amount != 0 or view.condition != PEER_CONDITION:
        switch.refuse(lane, inbound, "F00", "a report of outcomes has amount 0 and the condition of peer.*")
        return
    if lane.is_local:
        switch.refuse(lane, inbound, "F00", "outcomes are told between neighbours, not within a process")
        return
    try:
        report = decode_report(decode_prepare(inbound.packet).data)
    except CodecError as error:
        switch.refuse(lane, inbound, "F01", f"the report of outcomes doesn't parse: {error}")
        return
    account = lane.account
    fulfilled = account.fulfilled
    session = report.session
    ids = len(report.voided) + len(report.asked) + len(report.ranges)
    cost = 1 + ids // IDS_PER_TOKEN + len(fulfilled) // LEGS_PER_TOKEN
    if not lane.reports.has(cost, switch.mono):
        switch.refuse(lane, inbound, "T05", "too many reports of outcomes")
        return
    lane.reports.take(cost)
    # Its expiry doesn't matter: a report says what is so, and by a clock that is wrong it would never be taken.
    for request_id in report.voided:
        leg = fulfilled.get((session, request_id))
        if leg is not None:
            lose(switch, lane, leg, "the peer says that it had expired by its clock")
    known = account.acknowledged.get(session)
    if known is None or report.watermark > known:
        switch.books.acknowledge(account, session, report.watermark)
    if report.ranges:
        _pass_ranges(switch, lane, report)
    lane.reporter.peer_tells(switch)
    found: list[tuple[int, bytes]] = []
    for request_id in report.asked:
        leg = fulfilled.get((session, request_id))
        if leg is not None:
            found.append((request_id, leg.fulfillment))
    switch.send_after_all(lane, Outbound(inbound.session, inbound.request_id, encode_answer(found)))


def lose(switch: "Switch", lane: "Lane", leg: IncomingLeg, why: str) -> None:
    """Book a leg that we posted and its sender voided as a loss, and show it."""
    switch.books.lose(lane.account, leg)
    if leg.amount:
        text = f"fulfilled, and void at the peer: {why}; request {leg.request_id} of session {leg.session.hex()}"
        switch.singles.append(("loss", lane.id, leg.amount, text))
        switch.warn(lane, "loss", {"amount": str(leg.amount), "request_id": leg.request_id})


def _pass_ranges(switch: "Switch", lane: "Lane", report: OutcomesReport) -> None:
    """Forget what the peer has posted above its watermark."""
    kept = (request_id for session, request_id in lane.account.fulfilled if session == report.session)
    hit = sorted({find_range(report.ranges, request_id): None for request_id in kept})
    ranges = [report.ranges[at] for at in hit if at >= 0]
    if ranges:
        switch.books.pass_ranges(lane.account, report.session, ranges)


def other_program(switch: "Switch", lane: "Lane") -> None:
    """The peer on this connection is certainly no isthmus: it won't tell or hear outcomes.

    If it was one before, what it must hear, and what it has not acknowledged, stays until it is one again; what goes to
    this program is of a session of its own.
    """
    account = lane.account
    if account.hearing == HEARS or account.acknowledged:
        switch.log("warning", "peer_changed_program", {"account": lane.id, "kept": len(account.fulfilled)})
        lane.begin_session(switch.entropy, switch.books.last_leg)
    switch.books.set_hearing(account, DEAF)


def put_at_risk(switch: "Switch", lane: "Lane", leg: IncomingLeg, why: str) -> None:
    if leg.amount:
        switch.books.put_at_risk(leg.account, leg.id, leg.amount, 0)
        switch.singles.append(("at risk", lane.id, leg.amount, f"{why}; leg {leg.id}"))


def note_fulfilled(switch: "Switch", lane: "Lane", leg: IncomingLeg) -> None:
    """After an incoming leg was posted, and is kept: whatever follows from what the peer has told, or is."""
    if leg.request_id:
        if leg.request_id <= lane.account.acknowledged.get(leg.session, 0):
            # Decided at its sender before we fulfilled it, so it can't have been posted there.
            lose(switch, lane, leg, "it had been decided before we fulfilled")
        return
    count = lane.account.nameless
    if count == 1:
        switch.wake_reporter(lane)
    elif count > NAMELESS_KEPT_MAX:
        forget_nameless(switch, lane, count // 2)


def forget_nameless(switch: "Switch", lane: "Lane", count: int) -> None:
    """Give up the oldest fulfilled legs that no report can name.

    Those of an earlier process are listed as at risk: nobody knows whether their Fulfills reached the peer.
    """
    for leg in switch.books.forget_fulfilled(lane.account, count, named=False):
        if leg.id <= switch.opened_leg:
            put_at_risk(switch, lane, leg, "the node stopped before it was known that the Fulfill reached the peer")


def forget_expired(switch: "Switch", lane: "Lane") -> None:
    """A Prepare without an identity won't be repeated once it would have expired."""
    count = 0
    for leg in lane.account.fulfilled.values():
        if leg.request_id == 0:
            if leg.deadline > switch.mono:
                break
            count += 1
    if count:
        forget_nameless(switch, lane, count)


def fulfil_again(switch: "Switch", lane: "Lane", inbound: Inbound, leg: IncomingLeg) -> None:
    """A Prepare that we fulfilled came again (HTTP-7): the same answer, and nothing is booked."""
    packet = encode_fulfill(Fulfill(leg.fulfillment))
    switch.send_after_all(lane, Outbound(inbound.session, inbound.request_id, packet))
