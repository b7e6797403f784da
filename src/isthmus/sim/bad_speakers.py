"""Adversaries that tell bad routes. Each lie is drawn; what honest neighbours make of them is the run's to show."""

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Final

from isthmus.connector.events import AccountId, Inbound, Outbound
from isthmus.errors import CodecError
from isthmus.ilp.ccp import (
    NO_ROUTING_TABLE,
    SYNC,
    UPDATE_DESTINATION,
    Route,
    RouteControl,
    RouteProp,
    RouteUpdate,
    decode_update,
    encode_control,
    encode_update,
)
from isthmus.ilp.packet import (
    FULFILL,
    PREPARE,
    REJECT,
    Prepare,
    Reject,
    decode_prepare,
    decode_reply,
    encode_prepare,
    encode_reject,
)
from isthmus.sim import plan as p
from isthmus.sim.plan import NodePlan
from isthmus.sim.vices import Vice

if TYPE_CHECKING:
    from isthmus.sim.process import Process

_UPDATE: Final = UPDATE_DESTINATION.encode()
EVERYTHING: Final = ("", "g", "test", "g.x", "private.x", "self.x", "peer.x", "test.nowhere", "local.y", "example.z")
FLOOD: Final = 400
HURRY: Final = 30
OLD_MAX: Final = 20
# The methods of `BadSpeaker`. A plan's vice may name one of them, after the kind and a colon.
LIES: Final = (
    "everything",
    "flood",
    "epochs",
    "table_id",
    "bytes",
    "withdraws",
    "flaps",
    "twice",
    "props",
    "nonsense",
    "replays",
    "speaker",
    "hurries",
    "leaks",
)
PRICE_ID: Final = 0x6970
PRICE_PREFIX: Final = b"isthmus ppm "


def _read_update(frame: Outbound) -> tuple[Prepare, RouteUpdate] | None:
    try:
        prepare = decode_prepare(frame.packet)
        return prepare, decode_update(prepare.data)
    except CodecError:
        return None


class BadSpeaker(Vice):
    """Changes its node's updates on their way out: other routes, other epochs, other ids, other bytes."""

    name = p.TELLS_LIES

    def __init__(self, plan: NodePlan, rng: Random) -> None:
        super().__init__(plan, rng)
        self._only: Final = plan.vice.removeprefix(self.name).removeprefix(": ")  # the one lie that it tells, or all
        self._old: Final[list[bytes]] = []  # updates of earlier, to be told again
        self._told: Final[set[tuple[AccountId, bytes, int]]] = set()  # lies that wait for their answer

    def incoming(self, process: "Process", packets: list[Inbound]) -> list[Inbound]:
        super().incoming(process, packets)
        for inbound in packets:
            key = (inbound.account, inbound.session, inbound.request_id)
            if inbound.packet[0] in (FULFILL, REJECT) and key in self._told:
                self._told.discard(key)
                reply = decode_reply(inbound.packet)
                answer = reply.code if isinstance(reply, Reject) else "taken"
                process.node.world.coverage.enter("answers to bad routes", answer)
        return packets

    def prepares(self, account: AccountId, frame: Outbound) -> list[Outbound]:
        if _UPDATE not in frame.packet or not self.strikes():
            return [frame]
        read = _read_update(frame)
        if read is None:
            return [frame]
        prepare, update = read
        packets = self._lie()(prepare, update)
        first = Outbound(frame.session, frame.request_id, packets[0])
        frames = [first, *(Outbound(frame.session, self.forged_id(), packet) for packet in packets[1:])]
        self._told.update((account, one.session, one.request_id) for one in frames)
        return frames

    def _lie(self) -> Callable[[Prepare, RouteUpdate], list[bytes]]:
        lie: Callable[[Prepare, RouteUpdate], list[bytes]] = getattr(self, f"_{self._only or self.rng.choice(LIES)}")
        return lie

    def _update(
        self, prepare: Prepare, update: RouteUpdate, routes: tuple[Route, ...] = (), **changes: object
    ) -> bytes:
        fields = {name: getattr(update, name) for name in RouteUpdate.__dataclass_fields__ if name != "skipped"}
        fields["new_routes"] = (*update.new_routes, *routes)
        return encode_update(RouteUpdate(**{**fields, **changes}), prepare.expires_at)

    def _routes(self, prefixes: tuple[str, ...], speaker: str) -> tuple[Route, ...]:
        props = (
            RouteProp(7, self.rng.randbytes(9), is_optional=True, is_transitive=True, is_partial=False, is_utf8=False),
        )
        return tuple(Route(prefix, (speaker,), self.rng.randbytes(32), props) for prefix in prefixes)

    def _everything(self, prepare: Prepare, update: RouteUpdate) -> list[bytes]:
        everybody = tuple(f"test.{node.name}" for node in self.process.node.world.plan.nodes)
        below = tuple(f"{name}.x" for name in everybody)
        return [self._update(prepare, update, self._routes((*EVERYTHING, *everybody, *below), update.speaker))]

    def _flood(self, prepare: Prepare, update: RouteUpdate) -> list[bytes]:
        prefixes = tuple(f"test.x{self.rng.randrange(10**9)}" for _ in range(FLOOD))
        return [self._update(prepare, update, self._routes(prefixes, update.speaker))]

    def _epochs(self, prepare: Prepare, update: RouteUpdate) -> list[bytes]:
        first, end, current = (self.rng.choice((0, 1, update.to_epoch + 7, 2**32 - 1)) for _ in range(3))
        return [self._update(prepare, update, from_epoch=first, to_epoch=end, current_epoch=current)]

    def _props(self, prepare: Prepare, update: RouteUpdate) -> list[bytes]:
        """Prices that are none, or more than anybody believes; and more properties than anybody reads."""
        ppm = self.rng.choice((0, 500_001, 2**32 - 1)).to_bytes(4, "big")
        values = (b"", PRICE_PREFIX, PRICE_PREFIX + ppm, PRICE_PREFIX + ppm + b"x", self.rng.randbytes(40))
        flags = {"is_optional": self.rng.random() < 0.8, "is_transitive": True, "is_partial": False, "is_utf8": False}
        props = tuple(RouteProp(PRICE_ID, self.rng.choice(values), **flags) for _ in range(self.rng.randint(1, 20)))
        names = tuple(f"test.{node.name}" for node in self.process.node.world.plan.nodes)
        routes = tuple(Route(name, (update.speaker,), bytes(32), props) for name in names)
        return [self._update(prepare, update, routes)]

    def _nonsense(self, prepare: Prepare, update: RouteUpdate) -> list[bytes]:
        """Prefixes with segments that nobody has, too many of them, and paths without end or in a circle."""
        speaker, deep = update.speaker, "test." + ".".join("s" * self.rng.randint(32, 60))
        longest = "test." + "x" * (1_023 - len("test."))
        circle = (speaker, *(f"test.{node.name}" for node in self.process.node.world.plan.nodes), speaker)
        routes = (
            Route(deep, (speaker,), bytes(32), ()),
            Route(longest, (speaker,), bytes(32), ()),
            Route("test.circle", circle, bytes(32), ()),
            Route("test.far", tuple(f"{speaker}.{hop}" for hop in range(60)), bytes(32), ()),
            Route("test.nobody", (), bytes(32), ()),
        )
        return [self._update(prepare, update, routes)]

    def _replays(self, prepare: Prepare, update: RouteUpdate) -> list[bytes]:
        """What it told long ago, before what it has to tell: routes that it has withdrawn since are there again."""
        self._old.append(prepare.data)
        again = self.rng.choice(self._old)
        old = encode_prepare(Prepare(0, prepare.expires_at, prepare.condition, prepare.destination, again))
        del self._old[:-OLD_MAX]
        return [old, self._update(prepare, update)]

    def _table_id(self, prepare: Prepare, update: RouteUpdate) -> list[bytes]:
        return [self._update(prepare, update, routing_table_id=self.rng.choice((bytes(16), self.rng.randbytes(16))))]

    def _bytes(self, prepare: Prepare, update: RouteUpdate) -> list[bytes]:
        data = bytearray(prepare.data)
        for _ in range(self.rng.randint(1, 4)):
            data[self.rng.randrange(len(data))] = self.rng.randrange(256)
        cut = self.rng.choice((len(data), self.rng.randrange(len(data))))
        changed = Prepare(0, prepare.expires_at, prepare.condition, prepare.destination, bytes(data[:cut]))
        return [encode_prepare(changed)]

    def _withdraws(self, prepare: Prepare, update: RouteUpdate) -> list[bytes]:
        names = tuple(f"test.{node.name}" for node in self.process.node.world.plan.nodes)
        return [self._update(prepare, update, withdrawn=(*update.withdrawn, *names))]

    def _flaps(self, prepare: Prepare, update: RouteUpdate) -> list[bytes]:
        """Its link falls a second later."""
        for account, link in self.process.links.items():
            if account != "local" and self.rng.random() < 0.5:
                self.process.timers.after(1_000, lambda link=link: link.reset("bored"))  # type: ignore[misc]
        return [self._update(prepare, update)]

    def _twice(self, prepare: Prepare, update: RouteUpdate) -> list[bytes]:
        packet = self._update(prepare, update)
        return [packet, packet, packet]

    def _speaker(self, prepare: Prepare, update: RouteUpdate) -> list[bytes]:
        """In the name of somebody else, who may be there or not."""
        others = [f"test.{node.name}" for node in self.process.node.world.plan.nodes]
        others.remove(self.process.node.address)
        return [self._update(prepare, update, speaker=self.rng.choice((*others, "test.nobody", f"{update.speaker}.x")))]

    def _hurries(self, prepare: Prepare, update: RouteUpdate) -> list[bytes]:
        """Some dozen updates at once, and as many questions for all that the neighbour knows."""
        asks = encode_control(RouteControl(SYNC, NO_ROUTING_TABLE, 0, ()), prepare.expires_at)
        return [*[self._update(prepare, update)] * HURRY, *[asks] * HURRY]

    def _leaks(self, prepare: Prepare, update: RouteUpdate) -> list[bytes]:
        """Nothing else than usual: where it has parents, each of its updates tells them everything (`Node.tables`)."""
        return [self._update(prepare, update)]


class BlackHole(BadSpeaker):
    """Says that it reaches everything, and rejects whatever comes."""

    name = p.BLACK_HOLE

    def incoming(self, process: "Process", packets: list[Inbound]) -> list[Inbound]:
        super().incoming(process, packets)
        kept: list[Inbound] = []
        for inbound in packets:
            swallows = inbound.packet[0] == PREPARE and b"peer." not in inbound.packet and inbound.account != "local"
            if not swallows or not self.strikes():
                kept.append(inbound)
                continue
            code = self.rng.choice(("T00", "T01", "F02", "R00"))
            reject = encode_reject(Reject(code, process.node.address, "gone"))
            process.links[inbound.account].write([Outbound(inbound.session, inbound.request_id, reject)])
        return kept

    def prepares(self, account: AccountId, frame: Outbound) -> list[Outbound]:
        read = _read_update(frame) if _UPDATE in frame.packet else None
        if read is None:
            return [frame]
        prepare, update = read
        return [Outbound(frame.session, frame.request_id, self._everything(prepare, update)[0])]


KINDS: Final[dict[str, type[Vice]]] = {
    BlackHole.name: BlackHole,
    BadSpeaker.name: BadSpeaker,
    **{f"{BadSpeaker.name}: {lie}": BadSpeaker for lie in LIES},
}
