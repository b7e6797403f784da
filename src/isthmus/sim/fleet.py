"""A graph's connectors run on virtual time: how soon their tables are right, at what cost, and how good the ways are.

Real are the kernels with their routing (timers, pacing, packets of CCP, byte for byte) and the links' delays. There are
no disks, sessions or wallets. Ways are read from nodes' forwarding tables, hop by hop, as the switch does; packets that
are paid go by `parcels`. Everything follows from graph and seed.
"""

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from random import Random
from typing import Any, Final, final

from isthmus.connector.events import (
    AccountId,
    Append,
    Durable,
    Effect,
    Event,
    Inbound,
    LinkDown,
    LinkUp,
    Now,
    Outbound,
    Release,
)
from isthmus.connector.kernel import Kernel
from isthmus.connector.routing.terms import RouteTerms
from isthmus.connector.tables import (
    CHILD,
    LOCAL,
    PARENT,
    PEER,
    AccountTerms,
    RateTable,
    RouteTable,
    TableEvent,
    Tables,
    TablesChanged,
)
from isthmus.ilp.packet import PREPARE
from isthmus.sim.agenda import WALL_START_MS, Agenda, Due
from isthmus.sim.announced import retold
from isthmus.sim.graphs import PARTS, Graph
from isthmus.sim.oracle import Oracle, price
from isthmus.sim.parcels import HOME, Parcels
from isthmus.sim.plan import ASSETS

START_MS: Final = 1_000  # nodes start within it
SAMPLE_MS: Final = 500
QUIET_MS: Final = 5_000  # without a new choice anywhere: the tables have come to rest
PHASE_MS_MAX: Final = 180_000
PAIRS: Final = 1_000  # whose ways are looked at
# A link that carries nothing is closed by its ends: a ping, and no answer to it (`links.btp.session.Timing`).
SILENT_MS: Final = 25_000
_LIMIT: Final = 10**30
_RATES: Final = {
    (base, quote): ASSETS[base][1] / ASSETS[quote][1] for base in ASSETS for quote in ASSETS if base != quote
}


@final
@dataclass(slots=True)
class Phase:
    """What followed one event. Times are virtual, since the event."""

    name: str
    settled_ms: int | None  # until the last choice changed anywhere, to `SAMPLE_MS`; None: not within `PHASE_MS_MAX`
    messages: int  # all packets on all links, answers and heartbeats included
    bytes: int
    reached: list[tuple[int, int]]  # (ms, pairs of the sample that have a way)
    pairs: int  # of the sample
    looped: int  # most ways of the sample that led in a circle at one time, while tables differed


@final
class Fleet:
    """All nodes of one graph, and one clock."""

    def __init__(
        self,
        graph: Graph,
        seed: int,
        *,
        pairs: int = PAIRS,
        tells: Mapping[int, int | None] | None = None,
        leakers: Set[int] = frozenset(),
    ) -> None:
        """`tells`: nodes that announce this price for everything, in ppm, or none (`announced.Announced`).

        `leakers`: children that tell their parents everything (`announced.draw_leakers`).
        """
        self.graph: Final = graph
        self._leakers: Final = leakers
        self._tells: Final = dict(tells or {})
        self.agenda: Final = Agenda()
        self.parcels: Final = Parcels(self)
        self.messages = 0
        self.bytes = 0
        self._rng: Final = Random(f"fleet {seed}")
        self._kernels: Final[list[Kernel | None]] = [None for _ in graph.nodes]
        self._wakes: Final[list[Due | None]] = [None for _ in graph.nodes]
        self._numbers: Final = {node.name: number for number, node in enumerate(graph.nodes)}
        self._links: Final = {
            (one, other.node): other.link for one, around in enumerate(graph.around) for other in around
        }
        self._cuts: Final = [0 for _ in graph.links]  # odd: the link is down
        self._silent: Final[set[int]] = set()  # links that lose all, and whose ends haven't noticed
        size = len(graph.nodes)
        self.pairs: Final = [self._rng.sample(range(size), 2) for _ in range(pairs)]
        for number in range(size):
            self._cuts_of(number, down=True)
            self.agenda.at(self._rng.randrange(START_MS), partial(self.start, number))

    # --- what happens to nodes and links ------------------------------------------------------------------------

    def start(self, number: int) -> None:
        """A node's process begins; its links to nodes that run come up."""
        kernel = Kernel(self._rng.randbytes(32))
        self._kernels[number] = kernel
        kernel.opened(self._now())
        self.tell(number, TablesChanged(self._tables(number)), LinkUp(HOME, is_other=True))
        for one in self.graph.around[number]:
            if self._kernels[one.node] is not None:
                self.mend(one.link)

    def stop(self, number: int) -> None:
        """A node dies, and its neighbours see that their links to it are closed."""
        due = self._wakes[number]
        if due is not None:
            due.cancel()
        self._kernels[number] = None
        self.parcels.lost(number)
        self._cuts_of(number, down=False)

    def _cuts_of(self, number: int, *, down: bool) -> None:
        for one in self.graph.around[number]:
            if down:
                self._cuts[one.link] |= 1
            else:
                self.cut(one.link)

    def cut(self, link: int) -> None:
        """Both ends see that it is closed; what was under way is lost."""
        if self._cuts[link] % 2 == 0:
            self._cuts[link] += 1
            self._tell_ends(link, lambda other: LinkDown(other, "cut"))

    def hush(self, link: int) -> None:
        """What is sent over it is lost, and its ends see that it is closed when `SILENT_MS` are over."""
        cuts = self._cuts[link]
        self._silent.add(link)

        def notice() -> None:
            self._silent.discard(link)
            if self._cuts[link] == cuts:
                self.cut(link)

        self.agenda.at(self.agenda.now + SILENT_MS, notice)

    def mend(self, link: int) -> None:
        if self._cuts[link] % 2 == 1:
            self._cuts[link] += 1
            self._tell_ends(link, LinkUp)

    def _tell_ends(self, link: int, event: Callable[[AccountId], Event]) -> None:
        ends = self.graph.links[link].first, self.graph.links[link].second
        for one, other in (ends, ends[::-1]):
            if self._kernels[one] is not None:
                self.tell(one, event(AccountId(self.graph.nodes[other].name)))

    def _tables(self, number: int) -> Tables:
        graph = self.graph
        accounts: dict[AccountId, AccountTerms] = {}
        spreads: dict[AccountId, Fraction] = {}
        for one in graph.around[number]:
            name = AccountId(graph.nodes[one.node].name)
            accounts[name] = AccountTerms(
                id=name,
                asset=ASSETS[graph.links[one.link].asset][0],
                # Whoever takes its parent for a peer tells it everything; the parent still takes it for a child.
                relation=PEER if one.relation == PARENT and number in self._leakers else one.relation,
                receivable_max=_LIMIT,
                payable_max=_LIMIT,
                child_address=f"test.{name}" if one.relation == CHILD else "",
                routes=RouteTerms(send=True, receive=True),
            )
            spreads[name] = Fraction(one.keeps_ppm, PARTS)
        own = f"test.{graph.nodes[number].name}"
        accounts[HOME] = AccountTerms(
            id=HOME,
            asset=ASSETS[graph.nodes[number].asset][0],
            relation=LOCAL,
            receivable_max=_LIMIT,
            payable_max=_LIMIT,
        )
        spreads[HOME] = Fraction(0)
        rates = RateTable(_RATES, account_spreads=spreads)
        return Tables(own, accounts, RouteTable({f"{own}.home": HOME}), rates)

    # --- running ------------------------------------------------------------------------------------------------

    def _now(self) -> Now:
        return Now(WALL_START_MS + self.agenda.now, self.agenda.now)

    def tell(self, number: int, *events: Event | TableEvent) -> None:
        """These events come to a node now, if it runs."""
        kernel = self._kernels[number]
        if kernel is None:
            return
        waiting: list[Event | TableEvent] = list(events)
        while True:
            durable = self._carry_out(number, kernel.handle(waiting, self._now()))
            if not durable:
                break
            waiting = list(durable)
        due, at = self._wakes[number], kernel.wakes_at()
        if due is not None:
            due.cancel()
        # A kernel with work left wants to be called again at once; a millisecond passes meanwhile.
        self._wakes[number] = (
            None if at is None else self.agenda.at(max(at, self.agenda.now + 1), lambda: self.tell(number))
        )

    def _carry_out(self, number: int, effects: list[Effect]) -> list[Durable]:
        durable: list[Durable] = []
        for effect in effects:
            if isinstance(effect, Append):
                durable.append(Durable(effect.sequence))
            elif isinstance(effect, Release) and effect.account == HOME:
                self.parcels.take(number, effect.frames)
            elif isinstance(effect, Release):
                self._send(number, effect)
        return durable

    def _send(self, number: int, release: Release) -> None:
        other = self._numbers[release.account]
        link = self._links[number, other]
        cuts, at = self._cuts[link], self.agenda.now + self.graph.links[link].delay_ms
        self.messages += len(release.frames)
        self.bytes += sum(len(frame.packet) for frame in release.frames)
        account = AccountId(self.graph.nodes[number].name)
        came = [
            Inbound(account, frame.session, frame.request_id, self._word(number, frame), at) for frame in release.frames
        ]

        def arrive() -> None:
            if self._cuts[link] == cuts:
                self.tell(other, *came)

        if cuts % 2 == 0 and link not in self._silent:
            self.agenda.at(at, arrive)

    def _word(self, number: int, frame: Outbound) -> bytes:
        if number not in self._tells or frame.packet[0] != PREPARE:
            return frame.packet
        return retold(frame.packet, self._tells[number])

    def run(self, name: str, seen: Callable[[int], None] = lambda _ms: None) -> Phase:
        """Until all choices have stayed for `QUIET_MS`, or `PHASE_MS_MAX` is over; `seen` hears of each sample."""
        start, messages, sent = self.agenda.now, self.messages, self.bytes
        last, since = self._choices(), 0
        reached: list[tuple[int, int]] = []
        looped = 0
        for passed in range(0, PHASE_MS_MAX + 1, SAMPLE_MS):
            was_silent = bool(self._silent)
            self.run_until(start + passed)
            choices = self._choices()
            if choices != last or was_silent:  # what silence changes comes when its ends have noticed it
                last, since = choices, passed
            ways = [self.way(source, target) for source, target in self.pairs]
            reached.append(
                (
                    passed,
                    sum(way is not None and way[-1] == pair[1] for way, pair in zip(ways, self.pairs, strict=True)),
                )
            )
            looped = max(looped, sum(way is not None and len(set(way)) < len(way) for way in ways))
            seen(passed)
            is_quiet = passed - since >= QUIET_MS
            if is_quiet and self.agenda.now > START_MS + QUIET_MS:
                return Phase(name, since, self.messages - messages, self.bytes - sent, reached, len(self.pairs), looped)
        return Phase(name, None, self.messages - messages, self.bytes - sent, reached, len(self.pairs), looped)

    def run_until(self, ms: int) -> None:
        """Whatever happens until this virtual time."""
        while (at := self.agenda.next_at()) is not None and at <= ms:
            self.agenda.step()
        self.agenda.now = ms

    def finish(self) -> None:
        """Until no packet of a home is under way."""
        while self.parcels.under_way and self.agenda.step():
            pass

    def _choices(self) -> list[int]:
        """The epochs of what all nodes tell: each new choice makes a new one."""
        return [-1 if one is None else one.switch.router.log.epoch for one in self._kernels]

    def link_between(self, one: int, other: int) -> int:
        return self._links[one, other]

    def hops_known(self, number: int, target: int) -> int:
        """Over how many neighbours a node has heard of a way to another one."""
        kernel = self._kernels[number]
        prefix = f"test.{self.graph.nodes[target].name}"
        return 0 if kernel is None else len(kernel.switch.router.rib.candidates(prefix))

    def heard(self, number: int, target: int) -> list[int | None]:
        """The prices that a node's neighbours announce to it for another node, in ppm."""
        kernel = self._kernels[number]
        prefix = f"test.{self.graph.nodes[target].name}"
        return [] if kernel is None else [one.price for one in kernel.switch.router.rib.candidates(prefix)]

    def returns(self) -> dict[str, int]:
        """How often in a row a choice went back to a better relation, at any node, and how many are unsteady now."""
        running = [one.switch.router.rib.unsteady for one in self._kernels if one is not None]
        return {"most": max(one.most for one in running), "unsteady": sum(map(len, running))}

    # --- what they chose ----------------------------------------------------------------------------------------

    def way(self, source: int, target: int) -> list[int] | None:
        """Nodes that a packet passes by the tables of now; None if one knows no hop. A circle ends where it closes."""
        destination = f"test.{self.graph.nodes[target].name}".encode()
        path = [source]
        while path[-1] != target:
            kernel = self._kernels[path[-1]]
            if kernel is None:
                return None
            found = kernel.switch.router.find(kernel.switch, destination)
            if found is None:
                return None
            path.append(self._numbers[found[1]])
            if path[-1] in path[:-1]:
                return path
        return path if self._kernels[target] is not None else None

    def ways_to(self, target: int) -> list[list[int]]:
        """All nodes' ways to one that they lead to."""
        ways = [self.way(source, target) for source in range(len(self.graph.nodes)) if source != target]
        return [way for way in ways if way is not None and way[-1] == target]

    def compare(self) -> dict[str, Any]:
        """The sample's ways beside the shortest and the best-priced ones of the whole graph."""
        oracle = Oracle(self.graph)
        hops = shortest = ways = 0
        shares: list[Fraction] = []
        for source in sorted({pair[0] for pair in self.pairs}):
            far, best = oracle.hops(source), oracle.best(source)
            for target in [pair[1] for pair in self.pairs if pair[0] == source]:
                way, least, dearest = self.way(source, target), far[target], best[target]
                if way is None or way[-1] != target or least is None or dearest is None:
                    continue
                ways += 1
                hops += len(way) - 1
                shortest += least
                shares.append(price(self.graph, tuple(way)) / dearest.kept)
        return {
            "pairs": len(self.pairs),
            "ways": ways,
            "hops": hops,
            "hops_shortest": shortest,
            "of_best_price_mean_ppm": int(sum(shares, Fraction(0)) / ways * PARTS) if ways else None,
            "of_best_price_least_ppm": int(min(shares) * PARTS) if ways else None,
        }
