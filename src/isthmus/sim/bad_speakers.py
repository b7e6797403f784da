"""Adversaries that tell bad routes. Each lie is drawn; what honest neighbours make of them is the run's to show."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from isthmus.connector.events import AccountId, Inbound, Outbound
from isthmus.errors import CodecError
from isthmus.ilp.ccp import (
    UPDATE_DESTINATION,
    Route,
    RouteProp,
    RouteUpdate,
    decode_update,
    encode_update,
)
from isthmus.ilp.packet import PREPARE, Prepare, Reject, decode_prepare, encode_prepare, encode_reject
from isthmus.sim import plan as p
from isthmus.sim.vices import Vice

if TYPE_CHECKING:
    from isthmus.sim.process import Process

_UPDATE: Final = UPDATE_DESTINATION.encode()
EVERYTHING: Final = ("", "g", "test", "g.x", "private.x", "self.x", "peer.x", "test.nowhere", "local.y", "example.z")
FLOOD: Final = 400


def _read_update(frame: Outbound) -> tuple[Prepare, RouteUpdate] | None:
    try:
        prepare = decode_prepare(frame.packet)
        return prepare, decode_update(prepare.data)
    except CodecError:
        return None


class BadSpeaker(Vice):
    """Changes its node's updates on their way out: other routes, other epochs, other ids, other bytes."""

    name = p.TELLS_LIES

    def prepares(self, account: AccountId, frame: Outbound) -> list[Outbound]:
        if _UPDATE not in frame.packet or not self.strikes():
            return [frame]
        read = _read_update(frame)
        if read is None:
            return [frame]
        prepare, update = read
        lies: tuple[Callable[[Prepare, RouteUpdate], list[bytes]], ...] = (
            self._everything,
            self._flood,
            self._epochs,
            self._table_id,
            self._bytes,
            self._withdraws,
            self._flaps,
            self._twice,
        )
        packets = self.rng.choice(lies)(prepare, update)
        first = Outbound(frame.session, frame.request_id, packets[0])
        return [first, *(Outbound(frame.session, self.forged_id(), packet) for packet in packets[1:])]

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


KINDS: Final[dict[str, type[Vice]]] = {kind.name: kind for kind in (BadSpeaker, BlackHole)}
