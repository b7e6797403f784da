"""Which nodes of a generated network announce wrong prices, or tell whom they should not; and how updates then look."""

from dataclasses import dataclass, replace
from random import Random
from typing import Final, final

from isthmus.connector.routing.price import without_price, write_price
from isthmus.connector.tables import CHILD, PARENT
from isthmus.ilp.ccp import UPDATE_DESTINATION, decode_update, encode_update
from isthmus.ilp.packet import decode_prepare
from isthmus.sim.graphs import Graph

_UPDATE: Final = UPDATE_DESTINATION.encode("ascii")


@final
@dataclass(slots=True, frozen=True)
class Announced:
    """Shares of all nodes in percent, together at most 100; the rest is honest."""

    silent: int = 0  # tell no price
    liars: int = 0  # tell zero, whatever a way costs

    def draw(self, graph: Graph, seed: int) -> dict[int, int | None]:
        """By node: the price that it tells of everything, in ppm; None: none."""
        assert 0 <= self.silent and 0 <= self.liars and self.silent + self.liars <= 100
        size = len(graph.nodes)
        order = Random(f"announced {seed}").sample(range(size), size)
        silent, liars = size * self.silent // 100, size * self.liars // 100
        told: dict[int, int | None] = dict.fromkeys(order[:silent])
        return told | dict.fromkeys(order[silent : silent + liars], 0)


def could_leak(graph: Graph) -> list[int]:
    """Nodes with a parent, and with another neighbour whose routes that parent must not hear of (CCP-17)."""
    return [
        node
        for node in range(len(graph.nodes))
        if graph.related(node, PARENT) and sum(one.relation != CHILD for one in graph.around[node]) > 1
    ]


def draw_leakers(graph: Graph, seed: int, count: int) -> frozenset[int]:
    """So many of them."""
    return frozenset(Random(f"leakers {seed}").sample(could_leak(graph), count))


def retold(packet: bytes, price: int | None) -> bytes:
    """A Prepare of such a node as it leaves: an update tells this price, or none, and everything else is as it was."""
    if _UPDATE not in packet:
        return packet
    prepare = decode_prepare(packet)
    update = decode_update(prepare.data)
    told = () if price is None else (write_price(price),)
    routes = tuple(replace(route, props=(*without_price(route.props), *told)) for route in update.new_routes)
    return encode_update(replace(update, new_routes=routes), prepare.expires_at)
