"""What one peer tells us of its routes: we ask for them, apply its updates, and forget them when it falls silent.

We ask (Control) on every connection, after a gap, and when updates fail to come. All that we know of a peer dies with
its link and with its table id; a prefix that may not be taken any more is as good as withdrawn.
"""

from typing import TYPE_CHECKING, Final, final

from isthmus.connector.events import Outbound
from isthmus.connector.lane import Lane, Question
from isthmus.connector.routing.rib import Rib, Source
from isthmus.connector.routing.terms import TOTAL_MAX, PrefixFilter
from isthmus.connector.tables import CHILD, PARENT
from isthmus.errors import CodecError
from isthmus.ilp.address import is_prefix_of, scheme_of
from isthmus.ilp.ccp import IDLE, NO_ROUTING_TABLE, SYNC, Route, RouteControl, RouteUpdate, encode_control
from isthmus.ilp.ildcp import PEER_FULFILLMENT
from isthmus.ilp.packet import Fulfill, decode_reply

if TYPE_CHECKING:
    from isthmus.connector.switch import Switch

# CCP-15: interledger-rs announces 30 s and speaks every 30 s; taken at its word its routes would flap.
HOLD_DOWN_MS_MIN: Final = 45_000
HOLD_DOWN_MS_MAX: Final = 600_000
# A peer that hasn't spoken for so long is asked again before its routes are given up: it may have forgotten us.
SILENCE_MS: Final = 38_000
# Of a control's Prepare (PEER-3), and how long its answer is waited for.
CONTROL_MS: Final = 60_000
ANSWER_MS: Final = 15_000
# The wait before the next control, where the last one got lost: doubles from the first to the last.
RETRY_MS_FIRST: Final = 1_000
RETRY_MS_MAX: Final = 30_000
# After a gap, and the control before it: a peer whose epochs never fit is not asked at each of its updates.
GAP_MS: Final = 1_000
# And where it was refused: the peer won't have changed its mind in a minute.
REFUSED_MS_FIRST: Final = 30_000
REFUSED_MS_MAX: Final = 600_000
# A link that falls again within this time is asked later each time, so that its routes don't flap with it.
STEADY_MS: Final = 60_000
FLAPS_FREE: Final = 2
FLAP_MS_FIRST: Final = 2_000
FLAP_MS_MAX: Final = 60_000
# No payment lives through 30 hops, its expiry being cut at each.
PATH_MAX: Final = 32
# Bounds the look-ups of a long destination.
SEGMENTS_MAX: Final = 32

_REMEDY: Final = (
    "say who tells whom by routes = { send = …, receive = … } of the account, "
    'or by routes = "ilp-connector" or "interledger-rs" after the program that the peer runs'
)

_REMEDY_OF_SPEAKER: Final = (
    "ask the peer which address its node has; if it is this one, name it as speaker in the account's routes: "
    "routes = { receive = true, speaker = … }"
)
_REMEDY_OF_PROGRAM: Final = "tell the peer's operator: the program there is at fault"


@final
class Listener(Question):
    """Learns one peer's routes into the routing base."""

    __slots__ = (
        "_asked_at",
        "_asks_at",
        "_expires_at",
        "_filter",
        "_flaps",
        "_has_asked",
        "_has_insisted",
        "_is_warned",
        "_is_whole",
        "_rib",
        "_tries",
        "_up_at",
        "_waits_until",
        "epoch",
        "is_refused",
        "lane",
        "refusals",
        "request_id",
        "source",
        "spread_ppm",
        "table_id",
    )

    def __init__(self, lane: Lane, rib: Rib) -> None:
        self.lane: Final = lane
        self.spread_ppm = 0  # what we keep of packets to this account
        self.source = self._new_source()
        self.table_id = NO_ROUTING_TABLE
        self.epoch = 0
        self.request_id = 0  # of the control under way; 0 between two
        self.is_refused = False  # the peer doesn't want to tell us
        self.refusals: Final[dict[str, int]] = {}  # routes not taken, by reason
        self._rib: Final = rib
        self._filter = PrefixFilter(lane.terms.routes.receive_only, lane.terms.routes.receive_not)
        self._asks_at: int | None = None
        self._asked_at = 0
        self._has_asked = False  # on this connection
        self._has_insisted = False  # on this connection, after a refusal
        self._waits_until = 0
        self._expires_at: int | None = None
        self._tries = 0
        self._up_at = 0
        self._flaps = 0
        self._is_warned = False
        self._is_whole = False  # the peer has told all that it had to tell

    # --- what happens -------------------------------------------------------------------------------------------

    def link_up(self, now: int) -> None:
        """Ask; a link that has fallen often of late is asked a little later (CCP-20)."""
        self._stop()
        self._up_at = now
        self._tries = 0
        self._has_insisted = False
        over = self._flaps - FLAPS_FREE
        self._asks_at = now + (min(FLAP_MS_MAX, FLAP_MS_FIRST << min(over, 6)) if over >= 0 else 0)

    def peer_asked(self, now: int) -> None:
        """The peer asks us. If it refused us, it was perhaps starting: an ilp-connector that dials answers F00 until it
        is ready, and asks then. It is asked again soon, once in a connection.
        """
        if self.is_refused and not self._has_insisted and self._asks_at is not None:
            self._has_insisted = True
            self._asks_at = min(self._asks_at, now + RETRY_MS_FIRST)

    def link_down(self, now: int) -> None:
        """What the peer said counts no more (CCP-20)."""
        self._stop()
        self._asks_at = None
        self._has_asked = False
        self._flaps = self._flaps + 1 if now - self._up_at < STEADY_MS else 0
        self.forget()

    def take_terms(self, now: int) -> None:
        """The operator changed what may be learned from this peer: all is asked for anew."""
        terms = self.lane.terms.routes
        self._filter = PrefixFilter(terms.receive_only, terms.receive_not)
        self.ask_anew(now)

    def ask_anew(self, now: int) -> None:
        """Forget what the peer said, and ask it again."""
        self._stop()
        self.forget()
        self._asks_at = now if self.lane.up and self.lane.terms.routes.receive else None

    def forget(self) -> None:
        """The peer's table is gone: its routes count no more."""
        self._rib.kill(self.source)
        self.source = self._new_source()
        self.table_id = NO_ROUTING_TABLE
        self.epoch = 0
        self._expires_at = None
        self._is_warned = False
        self._is_whole = False

    def _new_source(self) -> Source:
        terms = self.lane.terms
        return Source(self.lane.id, terms.relation, terms.routes.preference, self.spread_ppm)

    def take_spread(self, ppm: int) -> None:
        """We keep so much of packets to this account."""
        self.spread_ppm = self.source.spread_ppm = ppm

    def _stop(self) -> None:
        if self.request_id:
            self.lane.questions.pop(self.request_id, None)
            self.request_id = 0

    # --- when ---------------------------------------------------------------------------------------------------

    def wakes_at(self) -> int | None:
        """When `tick` has something to do."""
        if not self.lane.up:
            return None
        at = self._waits_until if self.request_id else self._asks_at
        expires_at = self._expires_at
        return expires_at if at is None or (expires_at is not None and expires_at < at) else at

    def tick(self, switch: "Switch") -> None:
        """Ask, or give up waiting, if it is time to."""
        now = switch.mono
        if not self.lane.up:
            return
        if self._expires_at is not None and now >= self._expires_at:
            switch.log("info", "routes_expired", {"account": self.lane.id, "routes": len(self.source.candidates)})
            self.forget()  # CCP-15
            if not self.request_id:
                self._asks_at = now
        if self.request_id:
            if now >= self._waits_until:
                self._again(now)
        elif self._asks_at is not None and now >= self._asks_at:
            self._ask(switch)

    # --- controls -----------------------------------------------------------------------------------------------

    def _ask(self, switch: "Switch") -> None:
        control = RouteControl(SYNC, self.table_id, self.epoch, ())
        if self._send(switch, control):
            self._has_asked = True
            self._asked_at = switch.mono
            self._waits_until = switch.mono + ANSWER_MS
        else:
            self._asks_at = switch.mono + RETRY_MS_FIRST

    def _send(self, switch: "Switch", control: RouteControl) -> bool:
        request_id = self.lane.take_request_id()
        if request_id is None:
            return False
        self.request_id = request_id
        self.lane.questions[request_id] = self
        packet = encode_control(control, switch.wall + CONTROL_MS)
        switch.send_free(self.lane, Outbound(self.lane.session, request_id, packet))
        return True

    def stop_peer(self, switch: "Switch") -> None:
        """We take no more of this peer's routes: it may stop telling them (CCP-13)."""
        had_asked = self._has_asked
        self._stop()
        self._asks_at = None
        self._has_asked = False
        self.forget()
        if had_asked and self.lane.up and switch.tables.address:
            request_id = self.lane.take_request_id()
            if request_id is not None:
                packet = encode_control(RouteControl(IDLE, NO_ROUTING_TABLE, 0, ()), switch.wall + CONTROL_MS)
                switch.send_free(self.lane, Outbound(self.lane.session, request_id, packet))

    def take_answer(self, switch: "Switch", packet: bytes) -> None:
        """The peer will tell us, or it won't."""
        self.request_id = 0
        self._take_reply(switch, packet)
        switch.router.wake(self.lane.id)

    def _take_reply(self, switch: "Switch", packet: bytes) -> None:
        try:
            reply = decode_reply(packet)
        except CodecError as error:
            self._again(switch.mono)
            switch.warn(self.lane, "routes_not_answered", {"problem": str(error)})
            return
        if isinstance(reply, Fulfill) and reply.fulfillment == PEER_FULFILLMENT:  # PEER-4
            self._tries = 0
            self.is_refused = False
            self._asks_at = switch.mono + SILENCE_MS
        elif isinstance(reply, Fulfill):
            self._refuse(switch, "its Fulfill is not that of peer.*")
        elif reply.code.startswith("F"):
            self._refuse(switch, f"{reply.code} {reply.message[:200]}")
        else:
            self._again(switch.mono)

    def refused(self, switch: "Switch", code: str, why: str) -> None:
        """The link says that the control wasn't taken."""
        self.request_id = 0
        if code.startswith("F"):
            self._refuse(switch, f"{code} {why[:200]}")
        else:
            self._again(switch.mono)
        switch.router.wake(self.lane.id)

    def _refuse(self, switch: "Switch", why: str) -> None:
        """The peer is not configured to tell us. A parent's default route stands meanwhile."""
        first = REFUSED_MS_MAX if self.lane.terms.relation == PARENT else REFUSED_MS_FIRST
        self._asks_at = switch.mono + min(REFUSED_MS_MAX, first << min(self._tries, 6))
        self._tries += 1
        if not self.is_refused:
            self.is_refused = True
            fields: dict[str, str | int] = {"account": self.lane.id, "answer": why, "remedy": _REMEDY}
            switch.log("warning", "routes_refused", fields)

    def _again(self, now: int) -> None:
        self._stop()
        self._asks_at = now + min(RETRY_MS_MAX, RETRY_MS_FIRST << min(self._tries, 6))
        self._tries += 1

    # --- updates ------------------------------------------------------------------------------------------------

    def take_update(self, switch: "Switch", update: RouteUpdate) -> str:
        """Apply a peer's update; why it is refused, "" if it isn't."""
        wrong = self._wrong_with(update)
        if wrong is not None:
            problem, remedy = wrong
            switch.warn(self.lane, "routes_not_taken", {"problem": problem, "remedy": remedy})
            return problem
        now = switch.mono
        if update.routing_table_id != self.table_id:
            # CCP-8: what came under the other id is dropped, or it would stay for ever.
            self.forget()
            self.table_id = update.routing_table_id
        if update.from_epoch > self.epoch:
            self._ask_for_the_gap(now)
            return f"a gap: epoch {self.epoch} is next"  # CCP-9
        hold = min(max(update.hold_down_ms, HOLD_DOWN_MS_MIN), HOLD_DOWN_MS_MAX)
        self._expires_at = now + hold
        if not self.request_id:
            self._asks_at = now + SILENCE_MS
        if update.to_epoch < self.epoch:
            return ""  # CCP-10
        rib = self._rib
        for prefix in update.withdrawn:
            rib.remove(self.source, prefix)
        for route in update.new_routes:
            self._take_route(switch, route, update.speaker)
        self.epoch = update.to_epoch
        if not self._is_whole and update.to_epoch == update.current_epoch:
            self._is_whole = True
            switch.log("info", "routes_learned", {"account": self.lane.id, "routes": len(self.source.candidates)})
        return ""

    def _wrong_with(self, update: RouteUpdate) -> tuple[str, str] | None:
        """Why an update is refused, and what to do about it; None if it isn't."""
        terms = self.lane.terms
        if not self._has_asked:
            return "nobody has asked for routes here", _REMEDY
        if update.routing_table_id == NO_ROUTING_TABLE:
            return "the table id is that of no table", _REMEDY_OF_PROGRAM
        if not update.from_epoch <= update.to_epoch <= update.current_epoch:
            return "the epochs contradict each other", _REMEDY_OF_PROGRAM
        expected = terms.routes.speaker or (terms.child_address if terms.relation == CHILD else "")
        if expected and update.speaker != expected:  # CCP-11
            source = "routes.speaker of the account" if terms.routes.speaker else "the child's address"
            problem = f"the speaker is {update.speaker[:200]}, where {expected} was expected, by {source}"
            return problem, _REMEDY_OF_SPEAKER
        return None

    def _ask_for_the_gap(self, now: int) -> None:
        """Ask for what is missing, not at every update that shows the gap."""
        if not self.request_id:
            self._asks_at = max(now, self._asked_at + GAP_MS)

    def _take_route(self, switch: "Switch", route: Route, speaker: str) -> None:
        own = switch.tables.address
        why = self._why_not(route, own)
        if why:
            self.refusals[why] = self.refusals.get(why, 0) + 1
            self._rib.remove(self.source, route.prefix)
            if why.startswith("too many routes") and not self._is_warned:
                self._is_warned = True
                switch.log("warning", "routes_bounded", {"account": self.lane.id, "problem": why})
            return
        if not route.path:  # interledger-rs leaves itself out at the origin
            route = Route(route.prefix, (speaker,), route.auth, route.props)
        self._rib.put(self.source, route)

    def _why_not(self, route: Route, own: str) -> str:
        """Why a route is not taken (CCP-11); "" if it is."""
        prefix = route.prefix
        if "." not in prefix:
            return "a bare scheme"
        if scheme_of(prefix) != scheme_of(own):
            return "another scheme"
        if own in route.path:
            return "a loop"
        if is_prefix_of(own, prefix):
            # What lies below us is ours and our children's to announce, each child for its own part.
            child = self.lane.terms.child_address if self.lane.terms.relation == CHILD else ""
            if not child or prefix == own or not is_prefix_of(child, prefix):
                return "below our own address"
        if len(route.path) >= PATH_MAX:
            return "too long a path"
        if prefix.count(".") >= SEGMENTS_MAX:
            return "too many segments"
        if not self._filter.passes(prefix):
            return "filtered"
        if prefix not in self.source.candidates:
            if len(self.source.candidates) >= self.lane.terms.routes.received_max:
                return "too many routes of the peer"
            if self._rib.count >= TOTAL_MAX:
                return "too many routes of all peers"
        return ""
