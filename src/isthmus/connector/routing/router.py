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
from isthmus.connector.routing.records import HALF_LIFE_MS, Record
from isthmus.connector.routing.rests import Rests, is_from_home
from isthmus.connector.routing.rib import Candidate, Rib
from isthmus.connector.routing.speaker import Speaker
from isthmus.connector.routing.splits import Splits
from isthmus.connector.routing.terms import RouteTerms
from isthmus.connector.routing.unsteady import RETURNS
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
# How long packets are watched before the hop is chosen again by what they showed.
CHOOSE_MS: Final = 1_000
# Updates of one peer: honest ones come 150 ms apart, and two may meet after a control. Beyond it T05.
UPDATES_PER_SECOND: Final = 10
UPDATES_BURST: Final = 4
# Props are passed on up to here, all values together; routes with more go on without any.
PROPS_BYTES_MAX: Final = 512
PROPS_COUNT_MAX: Final = 16

# Prefixes get unsteady by the hundred: one line in so long.
UNSTEADY_WARN_MS: Final = 60_000
_UNSTEADY: Final = (
    "relations don't count for it for a while, and the shorter path goes first; "
    "look for a child that tells us what it has from its other parents and peers"
)

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
        "_later",
        "_looks_at",
        "_owner",
        "_queue",
        "_secret",
        "_soon",
        "_spreads",
        "_sweep",
        "_tables",
        "_tells_again",
        "_warned_at",
        "forwarding",
        "log",
        "neighbours",
        "rests",
        "rib",
        "serves",
        "splits",
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
        self.splits: Final = Splits()
        self._looks_at: Final[list[tuple[int, str, bool]]] = []  # a heap: when to choose again, and for what
        self._soon: Final[dict[str, None]] = {}  # prefixes that are in it because packets showed something
        self._later: Final[dict[str, None]] = {}  # and because it is forgotten by then
        self._tables: Tables | None = None
        self._warned_at = -UNSTEADY_WARN_MS

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
                    if configured is None and self.splits and prefix in self.splits:
                        return prefix, self._divided(switch, prefix, account)
                    return prefix, account
                other = self._other(switch, prefix)
                if other is not None:
                    return prefix, other
                if configured is not None:
                    return prefix, configured
            if not prefix:
                return None
            prefix = prefix[: max(0, prefix.rfind(b"."))]

    def others(self, switch: "Switch", prefix: bytes, account: AccountId) -> list[Lane]:
        """The other hops that reach a prefix and can be used, best first: for a packet that this one can't have."""
        found = self.rib.ranked(prefix.decode("ascii"), switch.mono)
        lanes = [switch.lanes[one.source.account] for one in found if one.source.account != account]
        return [lane for lane in lanes if _is_usable(lane)]

    def is_divided(self, prefix: bytes) -> bool:
        """Whether the hop is chosen for each packet anew."""
        return prefix in self.splits

    def _divided(self, switch: "Switch", prefix: bytes, account: AccountId) -> AccountId:
        for one in self.splits.choose(self.rib, prefix, switch.mono):
            if _is_usable(switch.lanes[one.source.account]):
                return one.source.account
        return account

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
        self.splits.within_ppm = tables.split_ppm
        respread = self._take_spreads(tables)
        served = self.serves
        self.serves = any(one.terms.send for one in self.neighbours.values())
        if not self.serves:
            self._sweep = self.rib.prefixes() if respread else []
        elif before is None or moved or respread or not served or before.routes is not tables.routes:
            self._tells_again = respread and before is not None
            routes = tables.routes.prefixes()
            self._sweep = [*self.rib.prefixes(), *routes, *self.log.prefixes(), tables.address]

    def take_rates(self, tables: Tables) -> None:
        """Rates alone have changed. What we keep may have: then what ways cost is told anew."""
        self._tables = tables
        if self._take_spreads(tables):
            self._tells_again = True
            self._sweep = [*self.rib.prefixes(), *tables.routes.prefixes(), *self.log.prefixes(), tables.address]

    def _take_spreads(self, tables: Tables) -> bool:
        """True if what we keep of packets is another part."""
        spreads = tables.rates.spread, tables.rates.pair_spreads, tables.rates.account_spreads
        if spreads == self._spreads:
            return False
        self._spreads = spreads
        for neighbour in self.neighbours.values():
            self._take_spread(neighbour, tables)
        return True

    def _take_spread(self, neighbour: Neighbour, tables: Tables) -> None:
        spread = tables.rates.account_spreads.get(neighbour.lane.id, tables.rates.spread)
        neighbour.listener.take_spread(ppm_of(spread))

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
        self.rib.showings.forget(neighbour.lane.id)
        del self.neighbours[neighbour.lane.id]

    def link_up(self, switch: "Switch", lane: Lane) -> None:
        """Ask for routes (CCP-20). Routes that the operator gave this account can be told again."""
        self._forget_hops(switch)
        neighbour = self.neighbours.get(lane.id)
        if neighbour is not None:
            neighbour.speaker.link_up()
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

    # --- what packets show --------------------------------------------------------------------------------------

    def hop_failed(self, switch: "Switch", leg: OutgoingLeg, reject: bytes) -> None:
        """The next hop rejected a packet as if it had no way, or said nothing: others go first for a while."""
        found = self._candidate(leg.destination, leg.account.name)
        if found is not None and not is_from_home(reject, found.route.prefix):
            self.rests.failed(self.rib, found, switch.mono)

    def hop_scarce(self, switch: "Switch", destination: bytes, account: str, reject: bytes) -> None:
        """The next hop, or our account with it, lacked liquidity (T04): what follows is divided, if it can be."""
        found = self._candidate(destination, account)
        if found is None or is_from_home(reject, found.route.prefix):
            return
        self._note(found, switch.mono)
        prefix = found.route.prefix.encode("ascii")
        is_new = prefix not in self.splits
        if self.splits.begin(self.rib, prefix, account, switch.mono) and is_new:
            self._forget_hops(switch)

    def hop_refused(self, leg: OutgoingLeg, now: int) -> None:
        """The receiver refused a packet (F99): what arrives over this hop may be less than was told, and wanted."""
        found = self._candidate(leg.destination, leg.account.name)
        if found is not None:
            self._note(found, now, is_short=True)

    def hop_fulfilled(self, leg: OutgoingLeg, delay_ms: int, now: int) -> None:
        """One of many packets came back fulfilled; called for a sample of them."""
        found = self._candidate(leg.destination, leg.account.name)
        if found is None:
            return
        record = None if found.shown is None else found.shown.record
        if record is not None and found.route.prefix in self._soon:  # the same was noted a moment ago
            record.fulfilled(delay_ms, now)
        else:
            self._note(found, now, delay_ms)

    def _note(self, found: Candidate, now: int, delay_ms: int | None = None, *, is_short: bool = False) -> None:
        """A packet over this hop was fulfilled after so long, or failed; where there is no other hop nobody asks."""
        prefix = found.route.prefix
        if len(self.rib.candidates(prefix)) < 2:
            return
        shown = self.rib.note(found)
        if shown.record is None:
            shown.record = Record(now)
        if delay_ms is None:
            shown.record.failed(now, is_short=is_short)
        else:
            shown.record.fulfilled(delay_ms, now)
        self._choose_again(prefix, now)

    def _choose_again(self, prefix: str, now: int) -> None:
        """Soon, once for all that is known by then."""
        if prefix not in self._soon:
            self._soon[prefix] = None
            heappush(self._looks_at, (now + CHOOSE_MS, prefix, True))

    def _look_again(self, now: int) -> None:
        """Choose for prefixes of which packets have shown something, or half of it is forgotten."""
        looks = self._looks_at
        while looks and looks[0][0] <= now:
            _, prefix, is_soon = heappop(looks)
            (self._soon if is_soon else self._later).pop(prefix, None)
            self.rib.dirty[prefix] = None

    def _choose_later(self, prefix: str, now: int) -> None:
        """What packets showed counts for less by then; also where a route came back of which that was known before."""
        if prefix not in self._later and any(one.remembers(now) for one in self.rib.candidates(prefix)):
            self._later[prefix] = None
            heappush(self._looks_at, (now + HALF_LIFE_MS, prefix, False))

    def _candidate(self, destination: bytes, account: str) -> Candidate | None:
        """The learned route by which a packet to there went over this account."""
        live = self.forwarding.live
        prefix = destination
        if not live:
            return None
        while prefix:
            if prefix in live:
                found = self.rib.candidate(prefix.decode("ascii"), account)
                if found is not None:
                    return found
            prefix = prefix[: max(0, prefix.rfind(b"."))]
        return None

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
        neighbour.listener.peer_asked(switch.mono)
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
        looks_at = self._looks_at[0][0] if self._looks_at else None
        for other in (self.rests.wakes_at(), self.splits.wakes_at(), self.rib.unsteady.wakes_at(), looks_at):
            if at is None or (other is not None and other < at):
                at = other
        return at

    def tick(self, switch: "Switch") -> None:
        """Do a slice of the work, and what is due."""
        self.rests.tick(self.rib, switch.mono)
        if self._looks_at:
            self._look_again(switch.mono)
        for prefix in self.rib.unsteady.end_old(switch.mono, SETTLED_PER_CALL):
            self.rib.dirty[prefix] = None
        if self.splits and self.splits.end_old(switch.mono):
            self._forget_hops(switch)
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
        key = prefix.encode("ascii")
        before = self._owner.get(key)
        best = self.rib.choose(prefix, switch.mono, before)
        if best is not None and best.source.account != before:
            best = self._settle_changed(switch, prefix, best, before)
        self._choose_later(prefix, switch.mono)
        account = None if best is None else best.source.account
        if before != account:
            if account is None:
                del self._owner[key]
            else:
                self._owner[key] = account
            self.forwarding.put(key, account)
        return self.serves and self.log.put(prefix, self._export(switch, prefix, best), again=again)

    def _settle_changed(
        self, switch: "Switch", prefix: str, best: Candidate, before: AccountId | None
    ) -> Candidate | None:
        """Another hop is the best one. It is chosen, unless that makes the prefix unsteady."""
        if not self.rib.unsteady.changed(prefix, best.rank, switch.mono, is_new=before is None):
            return best
        if switch.mono - self._warned_at >= UNSTEADY_WARN_MS:
            self._warned_at = switch.mono
            fields: dict[str, str | int] = {
                "prefix": prefix, "hop": best.source.account, "returns": RETURNS,
                "prefixes": len(self.rib.unsteady), "answer": _UNSTEADY,
            }  # fmt: skip
            switch.log("warning", "routes_unsteady", fields)
        return self.rib.choose(prefix, switch.mono, before)

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
