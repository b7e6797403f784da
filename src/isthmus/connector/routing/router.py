"""Routing as a whole: neighbours' tables in, a choice for each prefix, the forwarding table and our own tellings out.

The kernel owns one router. Whatever is long is done in slices between batches: no call looks at the whole table. What
is learned is no money: it isn't journaled, and dies with the process and with its link. The operator's routes
(`Tables.routes`) win over learned ones of the same prefix.
"""

from collections import deque
from hashlib import sha256
from heapq import heappop, heappush
from hmac import digest as hmac_digest
from typing import TYPE_CHECKING, Final, final

from isthmus.connector.events import AccountId, Inbound, Outbound
from isthmus.connector.lane import Lane
from isthmus.connector.legs import OutgoingLeg
from isthmus.connector.limits import TokenBucket
from isthmus.connector.routing.forwarding import Forwarding
from isthmus.connector.routing.listener import PATH_MAX, Listener
from isthmus.connector.routing.log import EPOCHS_MAX, Export, RouteLog
from isthmus.connector.routing.price import PRICE_BYTES, ppm_of, without_price
from isthmus.connector.routing.rests import Rests
from isthmus.connector.routing.rib import Candidate, Rib
from isthmus.connector.routing.speaker import Speaker
from isthmus.connector.routing.terms import RouteTerms
from isthmus.connector.tables import CHILD, LOCAL, Tables
from isthmus.errors import CodecError
from isthmus.ilp.address import is_prefix_of, scheme_of
from isthmus.ilp.ccp import (
    CONTROL_DESTINATION,
    ROUTE_BYTES_MAX,
    Route,
    decode_control,
    decode_update,
    encode_response,
    route_bytes,
)
from isthmus.ilp.ildcp import PEER_CONDITION
from isthmus.ilp.packet import PrepareView, decode_prepare

if TYPE_CHECKING:
    from isthmus.connector.switch import Switch

# What one call does at most: prefixes settled or cleared away, and changes of the forwarding table, which cost a
# fiftieth of that. Together about a millisecond.
SETTLED_PER_CALL: Final = 100
FORWARDED_PER_CALL: Final = 2_000
# Updates of one peer: honest ones come 150 ms apart, and two may meet after a control. Beyond it T05.
UPDATES_PER_SECOND: Final = 10
UPDATES_BURST: Final = 4
# Props are passed on up to here, all values together; routes with more go on without any.
PROPS_BYTES_MAX: Final = 512
PROPS_COUNT_MAX: Final = 16

_CONTROL: Final = CONTROL_DESTINATION.encode("ascii")


@final
class Neighbour:
    """One account with which routes are exchanged, each way or both."""

    __slots__ = ("bucket", "lane", "listener", "queued_at", "speaker", "terms")

    def __init__(self, lane: Lane, rib: Rib, log: RouteLog, entropy: bytes, now: int) -> None:
        self.lane: Final = lane
        self.terms: RouteTerms = lane.terms.routes
        self.listener: Final = Listener(lane, rib)
        self.speaker: Final = Speaker(lane, log, entropy)
        self.bucket: Final = TokenBucket(amount=UPDATES_PER_SECOND, period_ms=1_000, burst=UPDATES_BURST, now=now)
        self.queued_at: int | None = None

    def wakes_at(self) -> int | None:
        listens_at = self.listener.wakes_at()
        speaks_at = self.speaker.wakes_at()
        if listens_at is None or (speaks_at is not None and speaks_at < listens_at):
            return speaks_at
        return listens_at


@final
class Router:
    """Everything about routes that changes while the node runs."""

    __slots__ = (
        "_entropy",
        "_inbox",
        "_owner",
        "_queue",
        "_secret",
        "_spreads",
        "_sweep",
        "_tables",
        "_tells_again",
        "forwarding",
        "log",
        "neighbours",
        "rests",
        "rib",
        "serves",
    )

    def __init__(self, entropy: bytes) -> None:
        self.rib: Final = Rib()
        self.log: Final = RouteLog()
        self.forwarding: Final = Forwarding()
        self.rests: Final = Rests()
        self.neighbours: Final[dict[AccountId, Neighbour]] = {}
        self.serves = False  # somebody may ask for our routes
        self._entropy: Final = entropy
        self._secret: Final = sha256(entropy + b"routing secret").digest()
        self._owner: Final[dict[bytes, AccountId]] = {}  # what the forwarding table has, or is about to have
        self._inbox: Final[deque[tuple[Lane, Inbound]]] = deque()  # updates that wait for their turn
        self._queue: Final[list[tuple[int, AccountId]]] = []  # a heap: when to tick whom
        self._sweep: list[str] = []  # prefixes to settle anew, in slices
        self._tells_again = False  # also those of them that haven't changed
        self._spreads: tuple[object, ...] = ()
        self._tables: Tables | None = None

    # --- finding a route ----------------------------------------------------------------------------------------

    def find(self, switch: "Switch", destination: bytes) -> tuple[bytes, AccountId] | None:
        """The longest prefix with a route that can be used, and its account; the operator's route also if it can't.

        At most two look-ups a segment. A link that has just fallen is seen here at once, the tables follow.
        """
        static = switch.tables.routes
        learned = self.forwarding.live
        if not learned:
            return static.find(destination)
        lanes = switch.lanes
        prefix = destination
        dots_max = max(static.dots_max, self.forwarding.dots_max)
        if prefix.count(b".") > dots_max:
            prefix = b".".join(prefix.split(b".", dots_max + 1)[:-1])
        while True:
            configured = static.at(prefix)
            account = configured or learned.get(prefix)
            if account is not None:
                lane = lanes.get(account)
                if lane is not None and _is_usable(lane):
                    return prefix, account
                other = self._other(switch, prefix)
                if other is not None:
                    return prefix, other
                if configured is not None:
                    return prefix, configured
            if not prefix:
                return None
            prefix = prefix[: max(0, prefix.rfind(b"."))]

    def _other(self, switch: "Switch", prefix: bytes) -> AccountId | None:
        found = self.rib.choose(prefix.decode("ascii"), switch.mono)
        return None if found is None else found.source.account

    # --- what happens -------------------------------------------------------------------------------------------

    def take_tables(self, switch: "Switch", tables: Tables) -> None:
        """The operator has new tables: who exchanges routes with us, which routes are configured, what we are called.

        Called after the lanes have their new terms. With another address all is asked for and told anew.
        """
        before = self._tables
        self._tables = tables
        moved = before is not None and before.address != tables.address
        if not tables.address:
            self._queue.clear()
            for neighbour in self.neighbours.values():
                neighbour.queued_at = None
        for lane in switch.lanes.values():
            self._take_terms(switch, lane, moved=moved)
        spreads = tables.rates.spread, tables.rates.pair_spreads, tables.rates.account_spreads
        respread = spreads != self._spreads
        self._spreads = spreads
        for neighbour in self.neighbours.values():
            spread = tables.rates.account_spreads.get(neighbour.lane.id, tables.rates.spread)
            neighbour.listener.take_spread(ppm_of(spread))
        served = self.serves
        self.serves = any(one.terms.send for one in self.neighbours.values())
        if not self.serves:
            self._sweep = self.rib.prefixes() if respread else []
        elif before is None or moved or respread or not served or before.routes is not tables.routes:
            self._tells_again = respread and before is not None
            routes = tables.routes.prefixes()
            self._sweep = [*self.rib.prefixes(), *routes, *self.log.prefixes(), tables.address]

    def _take_terms(self, switch: "Switch", lane: Lane, *, moved: bool) -> None:
        terms = RouteTerms() if lane.closed or lane.disabled or lane.is_local else lane.terms.routes
        known = self.neighbours.get(lane.id)
        if known is None:
            if terms.send or terms.receive:
                known = Neighbour(lane, self.rib, self.log, self._entropy, switch.mono)
                self.neighbours[lane.id] = known
                if lane.up:
                    self.link_up(switch, lane)
            return
        if not terms.send and not terms.receive:
            self._part(switch, known)
            return
        changed = known.terms != terms
        known.terms = terms
        if changed or moved or known.listener.source.relation != lane.terms.relation:
            if known.terms.receive:
                known.listener.take_terms(switch.mono)
            else:
                known.listener.stop_peer(switch)
        if changed:
            known.speaker.renew(self._entropy)
            if not terms.send:
                known.speaker.link_down()
        self._wake(known)

    def _part(self, switch: "Switch", neighbour: Neighbour) -> None:
        neighbour.listener.stop_peer(switch)
        neighbour.listener.link_down(switch.mono)
        neighbour.speaker.link_down()
        del self.neighbours[neighbour.lane.id]

    def link_up(self, switch: "Switch", lane: Lane) -> None:
        """Ask for routes (CCP-20). Routes that the operator gave this account can be told again."""
        self._forget_hops(switch)
        neighbour = self.neighbours.get(lane.id)
        if neighbour is not None:
            neighbour.speaker.link_down()
            if neighbour.terms.receive:
                neighbour.listener.link_up(switch.mono)
            self._wake(neighbour)
        self._settle_configured(switch, lane)

    def link_down(self, switch: "Switch", lane: Lane) -> None:
        """Whatever leads over this link leads elsewhere, from the next packet on."""
        self._forget_hops(switch)
        neighbour = self.neighbours.get(lane.id)
        if neighbour is not None:
            neighbour.speaker.link_down()
            neighbour.listener.link_down(switch.mono)
        self._settle_configured(switch, lane)

    def _settle_configured(self, switch: "Switch", lane: Lane) -> None:
        if self.serves:
            for prefix in switch.tables.routes.prefixes_of(lane.id):
                self.rib.dirty[prefix] = None

    def _forget_hops(self, switch: "Switch") -> None:
        if self.forwarding.live:
            for lane in switch.lanes.values():
                lane.hops.clear()

    def hop_failed(self, switch: "Switch", leg: OutgoingLeg, reject: bytes) -> None:
        """The next hop rejected a packet as if it had no way, or said nothing: others go first for a while."""
        live = self.forwarding.live
        prefix = leg.destination
        account = leg.account.name
        if not live or not prefix:
            return
        while prefix and live.get(prefix) != account:
            prefix = prefix[: max(0, prefix.rfind(b"."))]
        if prefix:
            self.rests.failed(self.rib, prefix.decode("ascii"), account, reject, switch.mono)

    # --- requests of peers --------------------------------------------------------------------------------------

    def take_request(self, switch: "Switch", lane: Lane, inbound: Inbound, view: PrepareView) -> None:
        """Take a control or an update (PEER-2, CCP-12). Updates wait for their turn, as each is some work."""
        if view.amount != 0 or view.condition != PEER_CONDITION:
            switch.refuse(lane, inbound, "F00", "a message about routes has amount 0 and the condition of peer.*")
            return
        if view.expires_at <= switch.wall:
            switch.refuse(lane, inbound, "F00", "the message about routes has expired")
            return
        neighbour = self.neighbours.get(lane.id)
        if view.destination == _CONTROL:
            if neighbour is None or not neighbour.terms.send:
                switch.refuse(lane, inbound, "F00", "this node is configured to send you no routes")
            else:
                self._take_control(switch, neighbour, inbound)
        elif neighbour is None or not neighbour.terms.receive:
            switch.refuse(lane, inbound, "F00", "this node is configured to take no routes from you")
        elif not switch.tables.address:
            switch.refuse(lane, inbound, "F00", "this node has no address yet")
        elif not neighbour.bucket.has(1, switch.mono):
            switch.refuse(lane, inbound, "T05", "too many route updates a second")
        else:
            neighbour.bucket.take(1)
            self._inbox.append((lane, inbound))

    def _take_control(self, switch: "Switch", neighbour: Neighbour, inbound: Inbound) -> None:
        lane = neighbour.lane
        try:
            control = decode_control(decode_prepare(inbound.packet).data)
        except CodecError as error:
            switch.refuse(lane, inbound, "F00", f"the route control doesn't parse: {error}")  # CCP-6
            return
        neighbour.speaker.take_control(control, self._entropy)
        switch.send_free(lane, Outbound(inbound.session, inbound.request_id, encode_response()))
        self._wake(neighbour)

    def _take_update(self, switch: "Switch", lane: Lane, inbound: Inbound) -> None:
        neighbour = self.neighbours.get(lane.id)
        if neighbour is None or not neighbour.terms.receive:
            switch.refuse(lane, inbound, "F00", "this node is configured to take no routes from you")
            return
        try:
            update = decode_update(decode_prepare(inbound.packet).data)
        except CodecError as error:
            switch.refuse(lane, inbound, "F00", f"the route update doesn't parse: {error}")
            return
        problem = neighbour.listener.take_update(switch, update)
        if problem:
            switch.refuse(lane, inbound, "F00", problem)
        else:
            switch.send_free(lane, Outbound(inbound.session, inbound.request_id, encode_response()))
        self._wake(neighbour)

    # --- time ---------------------------------------------------------------------------------------------------

    def wakes_at(self, now: int) -> int | None:
        """When `tick` has something to do."""
        if self._inbox or self._sweep or not self.rib.is_clean():
            return now
        at = self.forwarding.wakes_at(now)
        if self._queue and (at is None or self._queue[0][0] < at):
            at = self._queue[0][0]
        rested_at = self.rests.wakes_at()
        return rested_at if at is None or (rested_at is not None and rested_at < at) else at

    def tick(self, switch: "Switch") -> None:
        """Do a slice of the work, and what is due."""
        self.rests.tick(self.rib, switch.mono)
        if self._inbox:
            self._take_update(switch, *self._inbox.popleft())
        if self._work(switch):
            for neighbour in self.neighbours.values():
                if neighbour.speaker.is_asked:
                    self._wake(neighbour)
        if self.forwarding.work(FORWARDED_PER_CALL, switch.mono):
            for lane in switch.lanes.values():
                lane.hops.clear()
        self._tick_neighbours(switch)

    def _tick_neighbours(self, switch: "Switch") -> None:
        queue = self._queue
        while queue and queue[0][0] <= switch.mono:
            at, account = heappop(queue)
            neighbour = self.neighbours.get(account)
            if neighbour is not None and neighbour.queued_at == at:
                neighbour.queued_at = None
                neighbour.listener.tick(switch)
                neighbour.speaker.tick(switch)
                self._wake(neighbour)

    def wake(self, account: AccountId) -> None:
        """One of this account's questions was answered."""
        neighbour = self.neighbours.get(account)
        if neighbour is not None:
            self._wake(neighbour)

    def _wake(self, neighbour: Neighbour) -> None:
        if self._tables is None or not self._tables.address:
            return  # nothing is asked or told before we know what we are called
        at = neighbour.wakes_at()
        if at is not None and (neighbour.queued_at is None or at < neighbour.queued_at):
            neighbour.queued_at = at
            heappush(self._queue, (at, neighbour.lane.id))

    # --- settling -----------------------------------------------------------------------------------------------

    def _work(self, switch: "Switch") -> bool:
        """Settle some prefixes; True if there is news for peers."""
        rib = self.rib
        budget = rib.bury(SETTLED_PER_CALL)
        news = False
        while budget > 0:
            if rib.dirty:
                prefix, _ = rib.dirty.popitem(last=False)
                news = self._settle(switch, prefix) or news
            elif self._sweep:
                news = self._settle(switch, self._sweep.pop(), again=self._tells_again) or news
            else:
                break
            budget -= 1
        if self.log.epoch >= EPOCHS_MAX:
            self._begin_log_anew()
        return news

    def _settle(self, switch: "Switch", prefix: str, *, again: bool = False) -> bool:
        """Choose for one prefix, and let packets and peers know; True if peers must be told."""
        best = self.rib.choose(prefix, switch.mono)
        account = None if best is None else best.source.account
        key = prefix.encode("ascii")
        if self._owner.get(key) != account:
            if account is None:
                del self._owner[key]
            else:
                self._owner[key] = account
            self.forwarding.put(key, account)
        return self.serves and self.log.put(prefix, self._export(switch, prefix, best), again=again)

    def _export(self, switch: "Switch", prefix: str, best: Candidate | None) -> Export | None:
        """What we tell of a prefix, whomever; None if nothing (CCP-16, CCP-17)."""
        own = switch.tables.address
        if not own or "." not in prefix or scheme_of(prefix) != scheme_of(own):
            return None
        if prefix == own:
            return Export(self._origin(prefix, (own,)), AccountId(""), is_customer=True, price=0)
        if is_prefix_of(own, prefix):
            return None  # our own address covers it
        configured = switch.tables.routes.at(prefix.encode("ascii"))
        if configured is not None:
            lane = switch.lanes.get(configured)
            if lane is not None and _is_usable(lane):
                is_customer = lane.terms.relation in (CHILD, LOCAL)
                # Whoever is called so is one hop further: else our word would be as good as its own.
                price = 0 if is_customer else None
                return Export(self._origin(prefix, (own, prefix)), configured, is_customer=is_customer, price=price)
        if best is None:
            return None
        route = best.route
        if len(route.path) >= PATH_MAX:
            return None
        props = tuple(prop for prop in without_price(route.props) if prop.is_transitive)
        if len(props) > PROPS_COUNT_MAX or sum(len(prop.value) for prop in props) > PROPS_BYTES_MAX:
            props = ()
        told = Route(prefix, (own, *route.path), sha256(route.auth).digest(), props)
        if route_bytes(told) > ROUTE_BYTES_MAX - PRICE_BYTES:
            return None
        is_customer = best.source.relation == CHILD
        return Export(told, best.source.account, is_customer=is_customer, price=best.price)

    def _origin(self, prefix: str, path: tuple[str, ...]) -> Route:
        return Route(prefix, path, hmac_digest(self._secret, prefix.encode("ascii"), "sha256"), ())

    def _begin_log_anew(self) -> None:
        self._sweep += self.log.prefixes()
        self.log.clear()
        for neighbour in self.neighbours.values():
            neighbour.speaker.renew(self._entropy)


def _is_usable(lane: Lane) -> bool:
    return lane.up and not lane.closed and not lane.disabled
