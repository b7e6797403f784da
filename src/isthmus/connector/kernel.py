"""The kernel: the order of things. Inboxes, batches, append, release, timers (design, "The kernel").

It is pure: asyncio and the simulator drive it with `handle(events, now)` and carry out the effects, in their order.
What the packets mean is left to the rules of the switch.

How a batch goes: replies are decided as they arrive; then timers; then Prepares, account after account, each up to
its bound. All of it writes entries to the open batch, and its frames wait there. The batch is appended as soon as at
most one other append is under way, so commits overlap with work, and the busier the node is the larger its batches
are. Entries of settlement engines alone may wait for packets to go with (`step_pause`). `Durable` releases a batch's
frames, one `Release` for each account. Frames that rest on no event (refusals, answers to `peer.*`) leave with the call
that made them; they may pass frames that wait for their batch.

Life: `load_state` and `replay` bring the journal's state, `opened` sets the clocks, then the first `handle` gets
`TablesChanged`, then links come up.
"""

from collections import deque
from collections.abc import Sequence
from typing import Final, final

from isthmus.connector import state as books_state
from isthmus.connector.batch import Batch
from isthmus.connector.books import DEAF, Books
from isthmus.connector.corrections import take_correction
from isthmus.connector.events import (
    AccountId,
    Adjust,
    Append,
    AppendFailed,
    DigestAsked,
    Digested,
    Drain,
    Drained,
    Durable,
    Effect,
    Event,
    GiveUp,
    Halt,
    Inbound,
    LinkBlocked,
    LinkDown,
    LinkUp,
    LinkWritable,
    Note,
    Now,
    Outbound,
    Ping,
    RecordSettlement,
    Release,
    ReverseSettlement,
    SendSettlementMessage,
    Settle,
    SettlementMessageReply,
    SettlementStep,
    Undelivered,
    WriteOff,
)
from isthmus.connector.lane import Lane, derive_session
from isthmus.connector.octets import Reader
from isthmus.connector.outcomes import forget_nameless, fulfil_again, other_program
from isthmus.connector.ping import take_ping
from isthmus.connector.prepare import take_prepare
from isthmus.connector.protocols import ParentQuestion
from isthmus.connector.release import release
from isthmus.connector.replay import Application, NoApplication, Replay
from isthmus.connector.reply import expire, take_reply, take_undelivered
from isthmus.connector.settlement_messages import send_message
from isthmus.connector.settlements import settle_what_is_due, take_settle, take_step
from isthmus.connector.step_pause import StepPause
from isthmus.connector.summary import summarise
from isthmus.connector.swap import BUSY, swap_rates, swap_tables
from isthmus.connector.switch import Switch
from isthmus.connector.tables import HOLD_MS_LIMIT, RatesChanged, TableEvent, Tables, TablesChanged, longest_hold_ms
from isthmus.errors import CodecError
from isthmus.ilp.packet import PREPARE, Fulfill, encode_fulfill

# One batch is being committed and the next waits behind it; more would only make batches small.
APPENDS_MAX: Final = 2
# An append that takes longer stops new Prepares (T03): well under the expiry margin, which pays for the commit.
APPEND_SLOW_MS: Final = 400
# Prepares decided in one call, so that no flood keeps the loop from its other work.
PREPARES_PER_CALL_MAX: Final = 8_192


def version_of_state(state: bytes) -> int:
    """Of the books' format in the bytes of `Kernel.state`; CodecError for others."""
    reader = Reader(state)
    reader.uint(8, "sequence")
    reader.uint(8, "books")
    return reader.uint(1, "version")


@final
class Kernel:
    """One node. `entropy` (32 random bytes, new in each process) is all the randomness it has."""

    __slots__ = (
        "_appends",
        "_asked",
        "_closed",
        "_drained",
        "_just_opened",
        "_more",
        "_parent",
        "_releases",
        "_replay",
        "_step_pause",
        "_takers",
        "_tokens",
        "_waiting",
        "application",
        "halted",
        "sequence",
        "slow",
        "switch",
    )

    def __init__(self, entropy: bytes, application: Application | None = None) -> None:
        assert len(entropy) == 32
        self.application: Application = NoApplication() if application is None else application
        self.switch = Switch(Books(), self.application, entropy)
        self.sequence = 0  # of the last batch appended, or replayed
        self.halted = False
        self.slow = False  # an append takes too long
        self._appends: Final[deque[Batch]] = self.switch.appends
        self._waiting: Final[deque[Lane]] = deque()  # lanes with Prepares in their inbox
        self._releases: Final[dict[AccountId, list[Outbound]]] = {}
        self._tokens: list[int] = []
        self._asked: list[int] = []  # who wants the digest at the next boundary
        self._parent: ParentQuestion | None = None
        self._replay: Replay | None = None
        self._drained = False
        self._closed = False  # the journal says that the stop was in order
        self._just_opened = False  # the first tables come: what the process before left in doubt is to be listed
        self._takers: list[Lane] = []  # lanes with Prepares in the open batch
        self._step_pause: Final = StepPause()
        self._more = False

    @property
    def books(self) -> Books:
        return self.switch.books

    @property
    def tables(self) -> Tables:
        return self.switch.tables

    # --- before the node runs -----------------------------------------------------------------------------------

    def load_state(self, state: bytes) -> None:
        """Start from a checkpoint; CodecError if it is not one."""
        reader = Reader(state)
        self.sequence = reader.uint(8, "sequence")
        self.switch.books = books_state.decode_state(reader.octets(8, "books"))
        self.application.load_state(reader.octets(8, "application"))
        if reader.at != len(state):
            raise CodecError("state", reader.at, "bytes after its end")
        self._replay = None

    def replay(self, sequence: int, record: bytes) -> None:
        """Apply a stored batch. One that was applied already is skipped; a gap is a CodecError."""
        if sequence <= self.sequence:
            return
        if sequence != self.sequence + 1:
            raise CodecError("sequence", 0, f"batch {sequence} after batch {self.sequence}")
        if self._replay is None:
            self._replay = Replay(self.switch.books, self.application)
        self._replay.apply(record)
        self.sequence = sequence

    def opened(self, now: Now) -> None:
        """The whole journal was replayed: set the deadlines of open legs on this process's clock.

        Their Prepares may have been sent, and are never sent again: they wait for an answer or their expiry.
        """
        self._just_opened = True
        self._replay = None
        switch = self.switch
        switch.wall = now.wall_ms
        switch.mono = now.mono_ms
        switch.released_leg = switch.opened_leg = switch.books.last_leg
        # Capped, in case the wall clock was wrong when an expiry was written, or is now.
        hold_ms_max = longest_hold_ms(switch.books.terms)
        for account in switch.books.peers.values():
            for incoming in account.received.values():
                incoming.deadline = now.mono_ms + min(incoming.expires_at - now.wall_ms, HOLD_MS_LIMIT)
            for outgoing in account.sent.values():
                outgoing.deadline = now.mono_ms + min(max(0, outgoing.expires_at - now.wall_ms), hold_ms_max)
                outgoing.started_at = now.mono_ms
                switch.wheel.add(outgoing)
            for fulfilled in account.fulfilled.values():
                fulfilled.deadline = now.mono_ms + min(fulfilled.expires_at - now.wall_ms, HOLD_MS_LIMIT)

    def check_tables(self, tables: Tables, forgotten: Sequence[AccountId] = ()) -> None:
        """Raise ConfigError if these tables contradict the books: an asset changed, or a needed account is missing.

        `forgotten`: as in `TablesChanged`.
        """
        tables.check()
        tables.check_against(self.switch.books, forgotten)

    # --- what others ask ----------------------------------------------------------------------------------------

    def session(self, account: AccountId) -> bytes:
        """The session id (16 bytes) that our Prepares on this account have now; also before the account is known."""
        lane = self.switch.lanes.get(account)
        return derive_session(self.switch.entropy, account, 0) if lane is None else lane.session

    def open_requests(self, account: AccountId) -> list[tuple[bytes, int, int]]:
        """Our Prepares in flight: session, request id, deadline (mono). For links that must know them after a start."""
        found = self.switch.books.peers.get(account)
        return [] if found is None else [(leg.session, leg.request_id, leg.deadline) for leg in found.sent.values()]

    def fulfillment(self, account: AccountId, session: bytes, request_id: int) -> bytes | None:
        """Of a Prepare that we fulfilled, durably and kept yet: for links whose peer asks again."""
        found = self.switch.books.peers.get(account)
        leg = None if found is None else found.fulfilled.get((session, request_id))
        if leg is None or leg in self.switch.posted or any(leg in batch.posted for batch in self._appends):
            return None
        return leg.fulfillment

    def digest(self) -> bytes:
        """SHA-256 over the books after the last decision."""
        return books_state.digest(self.switch.books)

    def at_boundary(self) -> bool:
        """Whether the books are exactly those after batch `sequence`: only then may `state` be called."""
        return not self.switch.books.has_entries()

    def state(self) -> bytes:
        """The whole state after batch `sequence`, for a checkpoint."""
        assert self.at_boundary()
        books = books_state.encode_state(self.switch.books)
        application = self.application.encode_state()
        return b"".join(
            (
                self.sequence.to_bytes(8, "big"),
                len(books).to_bytes(8, "big"),
                books,
                len(application).to_bytes(8, "big"),
                application,
            )
        )

    def wakes_at(self) -> int | None:
        """When `handle` is due without any event (mono ms); None if nothing waits for the time."""
        if self.halted:
            return None
        if self._more:
            return self.switch.mono
        at = self.switch.wheel.wakes_at()
        for other in (self._step_pause.wakes_at(), self.switch.reports_at()):
            if other is not None and (at is None or other < at):
                at = other
        if self._appends and not self.slow:
            slow_at = self._appends[0].submitted_at + APPEND_SLOW_MS + 1
            at = slow_at if at is None or slow_at < at else at
        over_in_ms = self.switch.books.doubts.over_in_ms()
        if over_in_ms is not None and (at is None or self.switch.mono + over_in_ms < at):
            at = self.switch.mono + over_in_ms
        if self._parent is not None:
            asks_at = self._parent.wakes_at()
            if asks_at is not None and (at is None or asks_at < at):
                at = asks_at
        routes_at = self.switch.router.wakes_at(self.switch.mono)
        if routes_at is not None and (at is None or routes_at < at):
            at = routes_at
        return at

    # --- running ------------------------------------------------------------------------------------------------

    def handle(self, events: Sequence[Event | TableEvent], now: Now) -> list[Effect]:
        """Take what happened, in order, and say what to do, in order."""
        if self.halted:
            return []
        switch = self.switch
        switch.wall = now.wall_ms
        switch.books.doubts.tell_time(now.wall_ms)
        switch.mono = now.mono_ms
        effects: list[Effect] = []
        switch.effects = effects
        lanes = switch.lanes
        for event in events:
            if isinstance(event, Inbound):
                lane = lanes.get(event.account)
                if lane is None or not event.packet:
                    switch.foreign += 1
                elif event.packet[0] == PREPARE:
                    self._enqueue(lane, event)
                elif event.request_id in lane.questions or lane.reporter.request_id:
                    self._take_answer(lane, event)
                else:
                    take_reply(switch, lane, event)
            elif isinstance(event, AppendFailed):
                # Frames that were about to leave stay: nothing leaves any more.
                self.halted = True
                return [Halt(event.problem)]
            else:
                self._take_other(event)
        if switch.books.doubts.is_over() and not self._just_opened:
            switch.books.date(now.wall_ms)
        self._notice_slowness()
        if lanes:
            for leg in switch.wheel.due(now.mono_ms):
                expire(switch, leg)
        if self._parent is not None:
            self._parent.tick(switch)
        switch.tick_reporters()
        if switch.draining and not self._drained:
            self._close_books()
        self._work()
        switch.router.tick(switch)
        self._flush()
        if switch.draining and not self._drained:
            self._tell_drained()
        switch.effects = []
        return effects

    def settle(self, event: SettlementStep | SendSettlementMessage | SettlementMessageReply, now: Now) -> list[Effect]:
        """Decide what an engine says, ahead of all that `handle` hasn't heard yet.

        `handle` comes next, to append it; not before packets do, or the time of `wakes_at`, if then `is_held`.
        """
        if self.halted:
            return []
        switch = self.switch
        switch.wall = now.wall_ms
        switch.mono = now.mono_ms
        effects = switch.effects = list[Effect]()
        self._take_settlement_event(event)
        switch.effects = []
        return effects

    def is_held(self) -> bool:
        """Whether all that was decided since the last `handle` is in a batch that waits for packets."""
        switch = self.switch
        return switch.books.has_entries() and not switch.free_lanes and self._waits_for_packets()

    def _take_answer(self, lane: Lane, event: Inbound) -> None:
        """A reply where we have a question out: for an address, about outcomes or routes; or it is one to a packet."""
        switch = self.switch
        if lane.reporter.is_answered_by(event):
            for session, request_id, fulfillment in lane.reporter.take_answer(switch, event.packet):
                packet = encode_fulfill(Fulfill(fulfillment))
                take_reply(switch, lane, Inbound(lane.id, session, request_id, packet, event.read_at))
            return
        question = lane.questions.get(event.request_id)
        if question is not None and (not event.session or event.session == lane.session):
            del lane.questions[event.request_id]
            question.take_answer(switch, event.packet)
        else:
            take_reply(switch, lane, event)

    def _enqueue(self, lane: Lane, event: Inbound) -> None:
        """Put a Prepare into its account's inbox; T03 without books or journal where it is full."""
        inbox = lane.inbox
        if self.slow or self.switch.draining or lane.closed or len(inbox) >= lane.terms.inbox_max:
            self._refuse_busy(lane, event)
            return
        if not inbox:
            self._waiting.append(lane)
        inbox.append(event)

    def _take_other(self, event: Event | TableEvent) -> None:
        switch = self.switch
        if isinstance(event, Durable):
            self._take_durable(event.sequence)
        elif isinstance(event, Note):
            switch.note(event.data)
            self._tokens.append(event.token)
        elif isinstance(event, DigestAsked):
            self._asked.append(event.token)
        elif isinstance(event, Ping):
            take_ping(switch, event)
        elif isinstance(event, WriteOff | Adjust | GiveUp | RecordSettlement | ReverseSettlement):
            switch.answer_after_all(take_correction(switch, event))
        elif isinstance(event, Drain):
            switch.draining = True
            self._refuse_waiting()
        elif isinstance(event, TablesChanged):
            self._take_tables(event)
        elif isinstance(event, RatesChanged):
            swap_rates(switch, event)
        elif isinstance(event, Undelivered | LinkUp | LinkDown | LinkBlocked | LinkWritable):
            self._take_link_event(event)
        elif isinstance(event, Settle | SettlementStep | SendSettlementMessage | SettlementMessageReply):
            self._take_settlement_event(event)

    def _take_settlement_event(
        self, event: Settle | SettlementStep | SendSettlementMessage | SettlementMessageReply
    ) -> None:
        switch = self.switch
        if isinstance(event, Settle):
            switch.answer_after_all(take_settle(switch, event))
        elif isinstance(event, SettlementStep):
            self._take_step(event)
        elif isinstance(event, SendSettlementMessage):
            send_message(switch, event)
        else:
            switch.settlement_messages.reply(switch, event)

    def _take_step(self, event: SettlementStep) -> None:
        switch = self.switch
        books = switch.books
        before = len(books.record) if books.has_entries() else None
        event.told = take_step(switch, event)
        if event.token:
            switch.answer_after_all(event.told)
        if books.has_entries():
            self._step_pause.booked(before, len(books.record), switch.mono)

    def _waits_for_packets(self) -> bool:
        switch = self.switch
        free = not self._asked and not switch.draining
        return free and self._step_pause.holds(len(switch.books.record), switch.mono)

    def _take_link_event(self, event: Undelivered | LinkUp | LinkDown | LinkBlocked | LinkWritable) -> None:
        switch = self.switch
        lane = switch.lanes.get(event.account)
        if lane is None:
            return
        parent = self._parent if self._parent is not None and self._parent.lane is lane else None
        if isinstance(event, Undelivered):
            question = lane.questions.pop(event.request_id, None)
            if question is not None:
                question.refused(switch, event.code, event.message)
            elif lane.reporter.request_id and event.request_id == lane.reporter.request_id:
                lane.reporter.not_taken(switch, event.code, event.message)
            else:
                take_undelivered(switch, lane, event)
        elif isinstance(event, LinkUp):
            if lane.renewing:
                lane.renew_session(switch.entropy, switch.books.last_leg)
            lane.up = True
            lane.is_other = event.is_other
            if event.is_other and lane.account.hearing != DEAF:
                other_program(switch, lane)
            lane.reporter.link_up(switch, is_other=event.is_other)
            if parent is not None:
                parent.link_up(switch.mono)
            switch.router.link_up(switch, lane)
        elif isinstance(event, LinkDown):
            lane.up = False
            lane.blocked = False
            lane.reporter.link_down()
            if lane.renewing:
                lane.renew_session(switch.entropy, switch.books.last_leg)
            if parent is not None:
                parent.link_down()
            switch.router.link_down(switch, lane)
        else:
            lane.blocked = isinstance(event, LinkBlocked)

    # --- tables -------------------------------------------------------------------------------------------------

    def _take_tables(self, event: TablesChanged) -> None:
        if swap_tables(self.switch, event, is_first=self._just_opened):
            self._just_opened = False
            self._choose_parent(event.tables)
            self.switch.router.take_tables(self.switch, event.tables)

    def _choose_parent(self, tables: Tables) -> None:
        """At most one parent is asked for our address (CONN-14)."""
        chosen = next((terms.id for terms in tables.accounts.values() if terms.ildcp_client), None)
        if self._parent is not None and self._parent.lane.id != chosen:
            self._parent.link_down()
            self._parent = None
        if chosen is not None and self._parent is None:
            self._parent = ParentQuestion(self.switch.lanes[chosen])
            if self._parent.lane.up:
                self._parent.link_up(self.switch.mono)

    # --- batches ------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        """Take Prepares and append batches, until nothing waits or the appends under way are enough."""
        budget = PREPARES_PER_CALL_MAX
        while True:
            budget = self._take_prepares(budget)
            if self.switch.books.has_entries():
                if len(self._appends) >= APPENDS_MAX or self._waits_for_packets():
                    break  # what waits goes on with the next Durable, or with packets
                self._append()
            if self._asked:
                self._tell_digest()
            self._open_batch()
            if not self._waiting or budget <= 0:
                break
        self._more = budget <= 0 and bool(self._waiting) and len(self._appends) < APPENDS_MAX

    def _take_prepares(self, budget: int) -> int:
        """Let each lane with a full inbox have its part of the open batch; returns what is left of the budget."""
        switch = self.switch
        waiting = self._waiting
        for _ in range(len(waiting)):
            lane = waiting.popleft()
            inbox = lane.inbox
            count = min(len(inbox), lane.terms.prepares_per_batch_max - lane.taken, budget)
            for _ in range(count):
                take_prepare(switch, lane, inbox.popleft())
            if count > 0:
                if lane.taken == 0:
                    self._takers.append(lane)
                lane.taken += count
                budget -= count
            if inbox:
                waiting.append(lane)
        return budget

    def _append(self) -> None:
        switch = self.switch
        self._step_pause.appended(len(switch.books.record), switch.mono, has_frames=bool(switch.frame_lanes))
        if switch.settlers:
            settle_what_is_due(switch)
        self.sequence += 1
        summary = summarise(switch)
        self._appends.append(switch.cut_batch(self.sequence, self._tokens))
        switch.effects.append(Append(self.sequence, switch.books.take_record(), summary))
        self._tokens = []

    def _tell_digest(self) -> None:
        """Between two batches, which a busy node never is when `handle` returns."""
        digest = self.digest()
        for token in self._asked:
            self.switch.answer_after_all(Digested(token, self.sequence, digest))
        self._asked = []

    def _open_batch(self) -> None:
        """Each lane may put Prepares into the new batch again."""
        for lane in self._takers:
            lane.taken = 0
        self._takers.clear()

    def _notice_slowness(self) -> None:
        """Stop new Prepares while an append takes too long, and let them in again once it has ended."""
        appends = self._appends
        slow = bool(appends) and self.switch.mono - appends[0].submitted_at > APPEND_SLOW_MS
        if slow == self.slow:
            return
        self.slow = slow
        self.switch.log("warning", "journal_slow" if slow else "journal_recovered", {"sequence": self.sequence})
        if slow:
            self._refuse_waiting()

    def _refuse_waiting(self) -> None:
        for lane in self._waiting:
            while lane.inbox:
                self._refuse_busy(lane, lane.inbox.popleft())
        self._waiting.clear()

    def _refuse_busy(self, lane: Lane, event: Inbound) -> None:
        key = (event.session, event.request_id)
        answered = lane.account.fulfilled.get(key)
        if answered is not None:
            fulfil_again(self.switch, lane, event, answered)
        elif key in lane.account.received:
            self.switch.duplicates += 1  # the request is in flight and will have its one answer
        else:
            self.switch.refuse(lane, event, "T03", BUSY)

    # --- release ------------------------------------------------------------------------------------------------

    def _take_durable(self, sequence: int) -> None:
        assert sequence <= self.sequence, "the journal knows a batch that we didn't append"
        appends = self._appends
        while appends and appends[0].sequence <= sequence:
            release(self.switch, appends.popleft(), self._releases)
        self._notice_slowness()

    def _flush(self) -> None:
        """Give the frames to the links: first those that were waiting, then those that rest on no event."""
        switch = self.switch
        releases = self._releases
        for lane in switch.free_lanes:
            queued = releases.get(lane.id)
            if queued is None:
                releases[lane.id] = lane.free
            else:
                queued += lane.free
            lane.free = []
        switch.free_lanes = []
        for account, frames in releases.items():
            switch.effects.append(Release(account, frames))
        releases.clear()

    def _close_books(self) -> None:
        """All is decided, and Fulfills are handed over before links close: peers that acknowledge nothing have them."""
        if any(account.sent or account.received for account in self.switch.books.peers.values()):
            return
        if not self._closed:
            self._closed = True
            self.switch.books.drained()
        for lane in self.switch.lanes.values():
            if lane.account.nameless:
                forget_nameless(self.switch, lane, lane.account.nameless)

    def _tell_drained(self) -> None:
        in_flight = any(account.sent or account.received for account in self.switch.books.peers.values())
        if not (in_flight or self._appends or self._waiting or self.switch.books.has_entries()):
            self._drained = True
            self.switch.effects.append(Drained())
