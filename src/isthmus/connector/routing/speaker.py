"""One peer is told our routes: from the epoch that it asked for on, an update at a time, and a heartbeat in between.

Nothing before it asked (SYNC), and nothing after it said stop (IDLE): CCP-13. A refused update, or one without an
answer, was not delivered, and is sent again (CCP-19). What must not go to this peer is sent as withdrawn (CCP-17).
"""

from hashlib import sha256
from typing import TYPE_CHECKING, Final, final

from isthmus.connector.events import AccountId, Outbound
from isthmus.connector.lane import Lane, Question
from isthmus.connector.routing.log import Change, RouteLog
from isthmus.connector.routing.price import PRICE_MAX, add_prices, spread_of, write_price
from isthmus.connector.routing.terms import PrefixFilter
from isthmus.connector.tables import PARENT
from isthmus.errors import CodecError
from isthmus.ilp.ccp import (
    IDLE,
    ROUTING_TABLE_ID_BYTES,
    SYNC,
    UPDATE_BYTES_MAX,
    Route,
    RouteControl,
    RouteUpdate,
    encode_update,
    route_bytes,
    update_overhead_bytes,
    withdrawn_bytes,
)
from isthmus.ilp.ildcp import PEER_FULFILLMENT
from isthmus.ilp.packet import Fulfill, decode_reply

if TYPE_CHECKING:
    from isthmus.connector.switch import Switch

CHANGES_PER_UPDATE_MAX: Final = 50  # CCP-14
UPDATE_EVERY_MS_MIN: Final = 150
HEARTBEAT_MS: Final = 30_000
HOLD_DOWN_MS: Final = 45_000
# Of an update's Prepare (PEER-3), and how long its answer is waited for.
UPDATE_MS: Final = 60_000
ANSWER_MS: Final = 15_000
# The wait after a refused update: doubles from the first to the last.
RETRY_MS_FIRST: Final = 1_000
RETRY_MS_MAX: Final = 30_000
# Changes looked at for one update, most of which a filter may leave out.
LOOKED_AT_MAX: Final = 500


@final
class Speaker(Question):
    """Tells one peer. It reads the log of all our routes, and keeps of its peer no more than an epoch."""

    __slots__ = (
        "_filter",
        "_fresh_until",
        "_generation",
        "_sent_at",
        "_sent_to",
        "_terms",
        "_tries",
        "_waits_until",
        "_was_down",
        "epoch",
        "is_asked",
        "lane",
        "log",
        "request_id",
        "table_id",
        "updates",
    )

    def __init__(self, lane: Lane, log: RouteLog, entropy: bytes) -> None:
        self.lane: Final = lane
        self.log: Final = log
        self.is_asked = False  # SYNC
        self.epoch = 0  # up to which the peer has what we reach
        self.request_id = 0  # of the update under way; 0 between two
        self.updates = 0  # sent, heartbeats included
        self._sent_to = 0  # the epoch up to which it reaches
        self._sent_at = -HEARTBEAT_MS
        self._waits_until = 0  # for the answer, or before the next try
        self._tries = 0
        # Before this epoch the peer had nothing of the present table, so there was nothing to withdraw.
        self._fresh_until = 0
        self._generation = 0
        self._was_down = True  # since the link was up last
        self.table_id = b""
        self._terms = lane.terms.routes
        self._filter = PrefixFilter(self._terms.send_only, self._terms.send_not)
        self.renew(entropy)

    def renew(self, entropy: bytes) -> None:
        """Begin a new table for this peer: what it may hear has changed, or can't be told by changes alone."""
        self._stop()
        self._terms = self.lane.terms.routes
        self._filter = PrefixFilter(self._terms.send_only, self._terms.send_not)
        self._generation += 1
        name = b"routing table" + self._generation.to_bytes(8, "big") + self.lane.id.encode()
        self.table_id = sha256(entropy + name).digest()[:ROUTING_TABLE_ID_BYTES]
        self._start_at(0)

    def _start_at(self, epoch: int) -> None:
        self.epoch = epoch
        if epoch == 0:
            self._fresh_until = self.log.epoch

    def _stop(self) -> None:
        if self.request_id:
            self.lane.questions.pop(self.request_id, None)
            self.request_id = 0

    # --- what happens -------------------------------------------------------------------------------------------

    def take_control(self, control: RouteControl, entropy: bytes) -> None:
        """The peer asks for updates, or for none (CCP-13)."""
        self._stop()
        self._tries = 0
        self._waits_until = 0
        self.is_asked = control.mode == SYNC
        if control.mode == IDLE:
            return
        known = min(control.last_known_epoch, self.log.epoch)
        if control.last_known_routing_table_id != self.table_id:
            known = 0
        elif 0 < known < self.log.floor:
            self.renew(entropy)  # withdrawals that it has not got are forgotten
            return
        self._start_at(known)

    def link_down(self) -> None:
        """It will ask again."""
        self._stop()
        self.is_asked = False
        self._was_down = True

    def link_up(self) -> None:
        """It asks again; or it has already: over HTTP its question may come before we know that our way is free."""
        if not self._was_down:
            self.link_down()
        self._was_down = False

    # --- when ---------------------------------------------------------------------------------------------------

    def wakes_at(self) -> int | None:
        """When `tick` has something to do."""
        if not self.is_asked or not self.lane.up:
            return None
        if self.request_id:
            return self._waits_until
        due = UPDATE_EVERY_MS_MIN if self.epoch < self.log.epoch else HEARTBEAT_MS
        return max(self._sent_at + due, self._waits_until)

    def tick(self, switch: "Switch") -> None:
        """Send the next update, if it is time to."""
        at = self.wakes_at()
        if at is None or switch.mono < at:
            return
        if self.request_id:
            self._again(switch.mono)
        else:
            self._send(switch)

    # --- updates ------------------------------------------------------------------------------------------------

    def _send(self, switch: "Switch") -> None:
        request_id = self.lane.take_request_id()
        if request_id is None:
            self._again(switch.mono)
            return
        update = self._next_update(switch)
        self.request_id = request_id
        self.lane.questions[request_id] = self
        self._sent_to = update.to_epoch
        self._sent_at = switch.mono
        self._waits_until = switch.mono + ANSWER_MS
        self.updates += 1
        packet = encode_update(update, switch.wall + UPDATE_MS)
        switch.send_free(self.lane, Outbound(self.lane.session, request_id, packet))

    def _next_update(self, switch: "Switch") -> RouteUpdate:
        speaker = switch.tables.address
        prices: dict[str, int | None] = {}  # what we add, by next hop
        routes: list[Route] = []
        withdrawn: list[str] = []
        room = UPDATE_BYTES_MAX - update_overhead_bytes(speaker)
        to_epoch = self.log.epoch
        for looked_at, change in enumerate(self.log.since(self.epoch)):
            route = self._route_for_peer(switch, change, prices)
            size = withdrawn_bytes(change.prefix) if route is None else route_bytes(route)
            is_full = len(routes) + len(withdrawn) >= CHANGES_PER_UPDATE_MAX or size > room
            if is_full or looked_at >= LOOKED_AT_MAX:
                to_epoch = change.epoch
                break
            if route is not None:
                routes.append(route)
                room -= size
            elif change.epoch >= self._fresh_until:
                withdrawn.append(change.prefix)
                room -= size
        return RouteUpdate(
            self.table_id,
            self.log.epoch,
            self.epoch,
            to_epoch,
            HOLD_DOWN_MS,
            speaker,
            tuple(routes),
            tuple(withdrawn),
        )

    def _route_for_peer(self, switch: "Switch", change: Change, prices: dict[str, int | None]) -> Route | None:
        """The route as this peer may hear it; None if it may not, or if there is none any more (CCP-17)."""
        export = change.export
        if export is None or export.account == self.lane.id:
            return None
        if not export.is_customer and (self.lane.terms.relation == PARENT or not self._terms.transit):
            return None
        if not self._filter.passes(change.prefix):
            return None
        if export.account not in prices:
            prices[export.account] = self._own_price(switch, export.account)
        own = prices[export.account]
        if export.price is None or own is None:
            return export.route
        price = add_prices(export.price, own)
        if price > PRICE_MAX:
            return export.route
        route = export.route
        return Route(route.prefix, route.path, route.auth, (*route.props, write_price(price)))

    def _own_price(self, switch: "Switch", account: AccountId) -> int | None:
        """What we keep of packets from this peer to that account, in ppm; None if we don't exchange them."""
        if not account:
            return 0
        lane = switch.lanes.get(account)
        conversion = None if lane is None else switch.tables.rates.conversion(self.lane.terms, lane.terms)
        return None if conversion is None else spread_of(conversion)

    # --- answers ------------------------------------------------------------------------------------------------

    def take_answer(self, switch: "Switch", packet: bytes) -> None:
        """The peer has taken the update, or it hasn't (CCP-19)."""
        self.request_id = 0
        try:
            reply = decode_reply(packet)
            taken = isinstance(reply, Fulfill) and reply.fulfillment == PEER_FULFILLMENT  # PEER-4
        except CodecError:
            taken = False
        if taken:
            self.epoch = self._sent_to
            self._tries = 0
            self._waits_until = 0
        else:
            self._again(switch.mono)
        switch.router.wake(self.lane.id)

    def refused(self, switch: "Switch", code: str, why: str) -> None:
        """The link says that the update wasn't taken."""
        self.request_id = 0
        self._again(switch.mono)
        switch.router.wake(self.lane.id)

    def _again(self, now: int) -> None:
        self._stop()
        self._waits_until = now + min(RETRY_MS_MAX, RETRY_MS_FIRST << min(self._tries, 6))
        self._tries += 1
