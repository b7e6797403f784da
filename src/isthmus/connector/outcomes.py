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

from isthmus.connector.books import DEAF, HEARS, OUTCOMES_MAX
from isthmus.connector.events import Inbound, Outbound
from isthmus.connector.legs import IncomingLeg, OutgoingLeg
from isthmus.errors import CodecError
from isthmus.ilp.ildcp import PEER_CONDITION, PEER_FULFILLMENT
from isthmus.ilp.outcomes import (
    ASKED_MAX,
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
ANSWER_MS: Final = 5_000
RETRY_MS_FIRST: Final = 500
RETRY_MS_MAX: Final = 30_000
# Prepares that had no answer when the link came up are asked about again after this, while they are open.
ASK_AGAIN_MS: Final = 1_000
# A peer that has acknowledged nothing this long after its link came up takes reports from nobody, and makes none.
SILENT_MS: Final = 60_000
# Of such a peer only the newest fulfilled legs are kept: those whose Fulfill may be lost with its connection. Of one
# that may still prove to be an isthmus, more: its first report comes within a second.
SILENT_KEPT_MAX: Final = 2_048
STRANGER_KEPT_MAX: Final = 8_192


@final
class Reporter:
    """Tells one peer what became of our Prepares, one report at a time, each about one session."""

    __slots__ = (
        "_asks_at",
        "_confirmed",
        "_decided",
        "_due_at",
        "_is_probe",
        "_left_in_round",
        "_newest",
        "_orphans",
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
        self._watermark = 0
        self._decided = 0  # outcomes since the last report that the peer must hear of
        self._newest = 0  # the highest request id of one in this session
        self._due_at: int | None = None  # of the next report
        self._confirmed: Final[dict[bytes, int]] = {}  # by session: the watermark that the peer has taken
        self._is_probe = False  # the peer knew no reports; it may be another program by now
        self._tries = 0
        self._waits_until = 0  # for the answer, or before the next try
        # Prepares that went out before this connection and have no answer.
        self._orphans: deque[tuple[bytes, int]] = deque()
        self._left_in_round = 0
        self._asks_at = 0

    # --- what happens -------------------------------------------------------------------------------------------

    def decided(self, switch: "Switch", leg: OutgoingLeg) -> None:
        """One more outcome that the peer must hear of."""
        if leg.session == self.lane.session and leg.request_id > self._newest:
            self._newest = leg.request_id
        self._count(switch)

    def ended(self, switch: "Switch", leg: OutgoingLeg) -> None:
        """The peer knows this outcome, but those above it may have waited for it: the watermark stood below."""
        if leg.session != self.lane.session or self._newest > self._confirmed.get(leg.session, 0):
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
        self._is_probe = account.hearing == DEAF and not is_other
        released = switch.released_leg
        self._orphans = deque((leg.session, leg.request_id) for leg in account.sent.values() if leg.id <= released)
        self._left_in_round = len(self._orphans)
        self._asks_at = switch.mono
        if account.session or account.sessions or account.unsaid:
            self._be_due(switch.mono)
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
        if not lane.up or lane.is_local:
            return None
        at = self._waits_until if self.request_id else self._reports_at()
        account = lane.account
        if account.fulfilled and not account.acknowledged:
            forgets_at = next(iter(account.fulfilled.values())).deadline
            if account.hearing != DEAF:
                forgets_at = max(forgets_at, self.up_at + SILENT_MS)
            at = forgets_at if at is None else min(at, forgets_at)
        return at

    def _reports_at(self) -> int | None:
        if self._is_probe:
            return self._waits_until
        if self.lane.account.hearing == DEAF:
            return None
        at = self._due_at
        if self._orphans and (at is None or self._asks_at < at):
            at = self._asks_at
        return None if at is None else max(at, self._waits_until)

    def tick(self, switch: "Switch") -> None:
        """Report, and forget, if it is time to."""
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
        session = self._next_session(switch.mono)
        if session is None:
            self._due_at = None
            self._decided = 0
            return
        watermark, _ = self._decided_up_to(session)
        voided = sorted(key[1] for key in lane.account.unsaid if key[0] == session and key[1] <= watermark)
        if len(voided) > VOIDED_MAX:
            watermark = voided[VOIDED_MAX] - 1
            voided = voided[:VOIDED_MAX]
        asked = self._take_orphans(session) if switch.mono >= self._asks_at else []
        request_id = lane.take_request_id()
        if request_id is None:
            self._waits_until = switch.mono + RETRY_MS_FIRST
            return
        self.request_id = request_id
        self._session = session
        self._watermark = watermark
        self._due_at = None
        self._decided = 0
        self._waits_until = switch.mono + ANSWER_MS
        packet = encode_report(OutcomesReport(session, watermark, voided, asked), switch.wall + ANSWER_MS)
        switch.send_after_all(lane, Outbound(lane.session, request_id, packet))

    def _next_session(self, now: int) -> bytes | None:
        """The session to report about: one with a question first, then one with news; None if there is neither."""
        orphans = self._orphans
        sent = self.lane.account.sent
        while orphans and orphans[0][1] not in sent:
            orphans.popleft()
            self._left_in_round -= 1
        if orphans and now >= self._asks_at:
            return orphans[0][0]
        return self.lane.session if self._is_probe else self._session_with_news()

    def _session_with_news(self) -> bytes | None:
        account = self.lane.account
        unsaid = {key[0]: None for key in account.unsaid}
        for session in [*account.untold_sessions(), *unsaid]:
            watermark, ended = self._decided_up_to(session)
            if ended or watermark > self._confirmed.get(session, 0):
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

    def _take_orphans(self, session: bytes) -> list[int]:
        """The next Prepares of this session to ask about, in ascending order; asked again in the next round."""
        orphans = self._orphans
        sent = self.lane.account.sent
        asked: list[int] = []
        while self._left_in_round > 0 and len(asked) < ASKED_MAX and orphans and orphans[0][0] == session:
            orphan = orphans.popleft()
            self._left_in_round -= 1
            if orphan[1] in sent:
                asked.append(orphan[1])
                orphans.append(orphan)
        return sorted(asked)

    # --- answers ------------------------------------------------------------------------------------------------

    def is_answered_by(self, inbound: Inbound) -> bool:
        return self.request_id != 0 and inbound.request_id == self.request_id

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
        if self._left_in_round <= 0:
            self._left_in_round = len(self._orphans)
            self._asks_at = switch.mono + ASK_AGAIN_MS
        following = self._session_with_news()
        if following is not None:
            waits = following == self.lane.session and self._decided < REPORT_AFTER
            self._be_due(switch.mono + (REPORT_AFTER_MS if waits else 0))
        switch.wake_reporter(self.lane)

    def refused(self, switch: "Switch", code: str, why: str) -> None:
        """A Reject, or the link says that the report wasn't taken."""
        if code in ("T01", "T02", "T03", "T05") or code.startswith("R"):
            self._again(switch, why)
        else:
            self._not_spoken(switch, why)

    def _not_spoken(self, switch: "Switch", why: str) -> None:
        """The peer knows no reports: nothing is kept for it, and nothing else changes."""
        account = self.lane.account
        if account.hearing == HEARS:
            # It took them before: its operator should look, and meanwhile what it must hear of is kept.
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
        self._waits_until = switch.mono + min(RETRY_MS_MAX, RETRY_MS_FIRST << min(self._tries, 6))
        self._stop()
        self._tries += 1
        self._left_in_round = len(self._orphans)
        self._asks_at = switch.mono
        if self._tries == 1:
            switch.warn(self.lane, "outcomes_not_taken", {"problem": why})
        switch.wake_reporter(self.lane)


# --- the other side --------------------------------------------------------------------------------------------------


def take_report(switch: "Switch", lane: "Lane", inbound: Inbound, view: PrepareView) -> None:
    """A peer's report. What it can cause: that we forget what it posted, and book as a loss what it voided."""
    if view.amount != 0 or view.condition != PEER_CONDITION:
        switch.refuse(lane, inbound, "F00", "a report of outcomes has amount 0 and the condition of peer.*")
        return
    if view.expires_at <= switch.wall:
        switch.refuse(lane, inbound, "R00", "the report of outcomes has expired")
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
    for request_id in report.voided:
        leg = fulfilled.get((session, request_id))
        if leg is not None:
            lose(switch, lane, leg, "the peer says that it had expired by its clock")
    known = account.acknowledged.get(session)
    if known is None or report.watermark > known:
        switch.books.acknowledge(account, session, report.watermark)
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


def other_program(switch: "Switch", lane: "Lane") -> None:
    """The peer on this connection is certainly no isthmus: it won't ever tell or hear outcomes."""
    account = lane.account
    if account.hearing == HEARS or account.acknowledged:
        # It was one before. What its predecessor left open, only people can clear up.
        for leg in switch.books.forget_fulfilled(account, len(account.fulfilled)) if account.fulfilled else ():
            put_at_risk(switch, lane, leg, "the peer became another program before it acknowledged it")
    switch.books.set_hearing(account, DEAF)


def put_at_risk(switch: "Switch", lane: "Lane", leg: IncomingLeg, why: str) -> None:
    if leg.amount:
        switch.books.put_at_risk(leg.account, leg.id, leg.amount, 0)
        switch.singles.append(("at risk", lane.id, leg.amount, f"{why}; leg {leg.id}"))


def note_fulfilled(switch: "Switch", lane: "Lane", leg: IncomingLeg) -> None:
    """After an incoming leg was posted: whatever follows for what we keep of this peer."""
    account = lane.account
    told = account.acknowledged
    if told:
        if leg.request_id <= told.get(leg.session, 0):
            # Decided at its sender before we fulfilled it, so it can't have been posted there.
            lose(switch, lane, leg, "it had been decided before we fulfilled")
        return
    count = len(account.fulfilled)
    if count == 1:
        switch.wake_reporter(lane)
    elif count > SILENT_KEPT_MAX and (count > STRANGER_KEPT_MAX or is_silent(switch, lane)):
        forget(switch, lane, count // 2)


def forget(switch: "Switch", lane: "Lane", count: int) -> None:
    """Give up the oldest fulfilled legs of a peer that acknowledges nothing.

    Those of an earlier process are listed as at risk: nobody knows whether their Fulfills reached the peer.
    """
    for leg in switch.books.forget_fulfilled(lane.account, count):
        if leg.id <= switch.opened_leg:
            put_at_risk(switch, lane, leg, "the node stopped before it was known that the Fulfill reached the peer")


def forget_expired(switch: "Switch", lane: "Lane") -> None:
    """Of a peer that acknowledges nothing, what we fulfilled has had its time once it would have expired."""
    if not is_silent(switch, lane):
        return
    count = 0
    for leg in lane.account.fulfilled.values():
        if leg.deadline > switch.mono:
            break
        count += 1
    if count:
        forget(switch, lane, count)


def is_silent(switch: "Switch", lane: "Lane") -> bool:
    """Whether the peer won't ever acknowledge what we fulfilled, as far as we can tell."""
    account = lane.account
    if account.acknowledged or not account.fulfilled or not lane.up:
        return False
    return account.hearing == DEAF or switch.mono - lane.reporter.up_at >= SILENT_MS


def fulfil_again(switch: "Switch", lane: "Lane", inbound: Inbound, leg: IncomingLeg) -> None:
    """A Prepare that we fulfilled came again (HTTP-7): the same answer, and nothing is booked."""
    packet = encode_fulfill(Fulfill(leg.fulfillment))
    switch.send_after_all(lane, Outbound(inbound.session, inbound.request_id, packet))


assert SILENT_KEPT_MAX < STRANGER_KEPT_MAX < OUTCOMES_MAX
