"""A network that runs: from cold, when a link and a node fall and come back, and what payments see of it.

Times are virtual; processor time and memory are this process's, which all nodes are in.
"""

import resource
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final, final

from isthmus.sim.announced import Announced, draw_leakers
from isthmus.sim.fleet import PHASE_MS_MAX, SAMPLE_MS, Fleet, Phase
from isthmus.sim.graphs import Graph
from isthmus.sim.oracle import Oracle
from isthmus.sim.parcels import FULFILLED

Json = dict[str, Any]
# Told as the story goes: the phase, and how far it is in virtual milliseconds of at most `PHASE_MS_MAX`.
Tell = Callable[[str, int], None]
HONEST: Final = Announced()
PAID_EACH_SAMPLE: Final = 50  # packets while tables may differ
# A packet that met the fallen link comes back; the next one, and the one after it, are those within two round trips.
TRIES_WITHIN: Final = 3
TRIES_MAX: Final = 40

COLD: Final = "cold"
LINK_FALLS: Final = "a link falls"
LINK_BACK: Final = "it is mended"
LINK_SILENT: Final = "it falls silent"  # nobody is told; its ends find out by themselves
LINK_HEARD: Final = "it is heard again"
NODE_FALLS: Final = "a node falls"
NODE_BACK: Final = "it comes back"
PHASES: Final = (COLD, LINK_FALLS, LINK_BACK, LINK_SILENT, LINK_HEARD, NODE_FALLS, NODE_BACK)


@final
@dataclass(slots=True)
class Chapter:
    """One phase, and the packets that were sent in it and right after it."""

    phase: Phase
    pairs: int  # whose ends are there
    reachable: int  # of them: the network has a way that routes can be told along
    during: Counter[str] = field(default_factory=Counter)
    after: Counter[str] = field(default_factory=Counter)
    tries: Counter[int] = field(default_factory=Counter)  # of pairs over what fell, where another hop was known

    def to_json(self) -> Json:
        phase = self.phase
        found: Json = {
            "name": phase.name,
            "settled_ms": phase.settled_ms,
            "messages": phase.messages,
            "bytes": phase.bytes,
            "looped_at_most": phase.looped,
            "ways": [{"ms": ms, "share_ppm": _ppm(count, total)} for ms, count, total in self._ways()],
            "fulfilled_during_ppm": _share(self.during),
            "pairs": self.pairs,
            "reachable_pairs": self.reachable,
            "fulfilled_after": self.after[FULFILLED],
            "outcomes_during": dict(sorted(self.during.items())),
            "outcomes_after": dict(sorted(self.after.items())),
        }
        if self.tries:
            within = sum(count for tries, count in self.tries.items() if tries <= TRIES_WITHIN)
            found["over_what_fell"] = {
                "pairs": sum(self.tries.values()),
                "within_two_round_trips": within,
                "tries": {str(tries): count for tries, count in sorted(self.tries.items())},
            }
        return found

    def _ways(self) -> list[tuple[int, int, int]]:
        return [(ms, count, self.phase.pairs) for ms, count in self.phase.reached]


@final
class Story:
    """One network, from cold to a node that came back. `run` it once."""

    def __init__(
        self,
        graph: Graph,
        seed: int,
        *,
        pairs: int,
        tell: Tell,
        announced: Announced = HONEST,
        leakers: int = 0,
        paid: int = PAID_EACH_SAMPLE,
    ) -> None:
        """`paid`: how many packets are sent each half second while tables may differ; `leakers`: children that leak."""
        self.graph: Final = graph
        leaking = draw_leakers(graph, seed, leakers)
        self.fleet: Final = Fleet(graph, seed, pairs=pairs, tells=announced.draw(graph, seed), leakers=leaking)
        self._leakers: Final = leakers
        self.chapters: Final[list[Chapter]] = []
        self._announced: Final = announced
        self._paid: Final = paid
        self.link = -1
        self.node = -1
        self._tell: Final = tell

    def run(self) -> Json:
        """All of it, as JSON."""
        start = time.process_time()
        fleet = self.fleet
        self._chapter(COLD, lambda: None, paid=False)
        compared = fleet.compare()
        self.link = self._busiest_link()
        self._chapter(LINK_FALLS, lambda: fleet.cut(self.link), fallen=self.link)
        self._chapter(LINK_BACK, lambda: fleet.mend(self.link))
        self._chapter(LINK_SILENT, lambda: fleet.hush(self.link), fallen=self.link, waits=True)
        self._chapter(LINK_HEARD, lambda: fleet.mend(self.link))
        self.node = self._busiest_node()
        self._chapter(NODE_FALLS, lambda: fleet.stop(self.node), without=self.node)
        self._chapter(NODE_BACK, lambda: fleet.start(self.node))
        spent = time.process_time() - start
        size = len(self.graph.nodes)
        cold = self.chapters[0].phase  # the later ones carry payments too
        return {
            "phases": [one.to_json() for one in self.chapters],
            "fallen": {"link": self._link_name(self.link), "node": self.graph.nodes[self.node].name},
            "announced": {"silent_percent": self._announced.silent, "liars_percent": self._announced.liars},
            "leakers": self._leakers,
            "returns": fleet.returns(),
            "compared": compared,
            "packets": {
                "outcomes": dict(sorted(fleet.parcels.outcomes.items())),
                "late": fleet.parcels.late,
                "never_ended": fleet.parcels.under_way,
            },
            "per_node": {
                "messages_from_cold": cold.messages // size,
                "bytes_from_cold": cold.bytes // size,
                "cpu_ms": round(spent * 1_000 / size),
                "memory_kib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // size,
            },
        }

    # --- phases -----------------------------------------------------------------------------------------------------

    def _chapter(
        self,
        name: str,
        happens: Callable[[], None],
        *,
        paid: bool = True,
        fallen: int | None = None,
        without: int | None = None,
        waits: bool = False,
    ) -> None:
        """`fallen`: a link, of which it is counted how soon packets go around it; `without`: a node that is gone."""
        fleet = self.fleet
        pairs = [pair for pair in fleet.pairs if without not in pair]
        reachable = self._reachable(pairs, fallen, without)
        during: Counter[str] = Counter()
        tries: Counter[int] = Counter()
        # Where silence alone shows it, packets wait for their expiry: no round trips are to be counted.
        over = [] if fallen is None or waits else [pair for pair in pairs if self._has_another_hop(pair, fallen)]
        happens()
        for source, target in over:
            self._try(source, target, 1, tries)

        def seen(ms: int) -> None:
            self._tell(name, ms)
            if paid and ms:
                for at in range(self._paid):
                    source, target = pairs[(ms // SAMPLE_MS * self._paid + at) % len(pairs)]
                    fleet.parcels.send(source, target, lambda outcome: during.update((outcome,)))

        phase = fleet.run(name, seen)
        fleet.finish()
        chapter = Chapter(phase, len(pairs), reachable, during, tries=tries)
        for source, target in pairs:
            fleet.parcels.send(source, target, lambda outcome: chapter.after.update((outcome,)))
        fleet.finish()
        self._tell(name, PHASE_MS_MAX)
        self.chapters.append(chapter)

    def _try(self, source: int, target: int, number: int, tries: Counter[int]) -> None:
        """Send, and send again when it comes back, until one is fulfilled."""

        def came(outcome: str) -> None:
            if outcome == FULFILLED or number == TRIES_MAX:
                tries[number] += 1
            else:
                self._try(source, target, number + 1, tries)

        self.fleet.parcels.send(source, target, came)

    # --- what falls -------------------------------------------------------------------------------------------------

    def _busiest_link(self) -> int:
        """The one that most ways of the sample pass, between nodes that have others."""
        counts: Counter[int] = Counter()
        for source, target in self.fleet.pairs:
            for one, other in pairwise(self.fleet.way(source, target) or []):
                counts[self.fleet.link_between(one, other)] += 1
        around = self.graph.around
        for link, _ in sorted(counts.items(), key=lambda one: (-one[1], one[0])):
            ends = self.graph.links[link]
            if min(len(around[ends.first]), len(around[ends.second])) > 1:
                return link
        return max(counts, key=lambda link: (counts[link], -link))

    def _busiest_node(self) -> int:
        """The one that most ways of the sample pass."""
        counts: Counter[int] = Counter()
        for source, target in self.fleet.pairs:
            counts.update((self.fleet.way(source, target) or [])[1:-1])
        return max(counts, key=lambda node: (counts[node], -node)) if counts else 0

    def _has_another_hop(self, pair: list[int], link: int) -> bool:
        """Whether its way passes the link, and the node that will meet the gap knows another hop already."""
        way = self.fleet.way(*pair) or []
        for one, other in pairwise(way):
            if self.fleet.link_between(one, other) == link:
                return self.fleet.hops_known(one, pair[1]) > 1
        return False

    def _reachable(self, pairs: list[list[int]], fallen: int | None, without: int | None) -> int:
        """How many of these pairs have a way in what is left of the network."""
        graph = self.graph
        left = [
            link
            for number, link in enumerate(graph.links)
            if number != fallen and without not in (link.first, link.second)
        ]
        oracle = Oracle(Graph(graph.kind, graph.seed, graph.nodes, left))
        far = {source: oracle.hops(source) for source in {source for source, _ in pairs}}
        return sum(far[source][target] is not None for source, target in pairs)

    def _link_name(self, link: int) -> str:
        ends = self.graph.links[link]
        return f"{self.graph.nodes[ends.first].name}-{self.graph.nodes[ends.second].name}"


def _share(outcomes: Counter[str]) -> int | None:
    total = sum(outcomes.values())
    return _ppm(outcomes[FULFILLED], total) if total else None


def _ppm(count: int, total: int) -> int:
    return count * 1_000_000 // total
