"""Whether a network that finds its own routes has found them: every way, hop by hop, by the nodes' own tables."""

from typing import TYPE_CHECKING

from isthmus.connector.prepare import find_next_hop
from isthmus.sim import plan as p

if TYPE_CHECKING:
    from isthmus.sim.world import World


def lost_ways(world: "World") -> list[tuple[str, str]]:
    """(connector, what is wrong) for each honest connector and wallet that packets don't get from and to."""
    wallets = [node for node in world.plan.nodes if node.kind == p.WALLET]
    connectors = [node for node in world.plan.nodes if node.kind == p.CONNECTOR and node.is_honest]
    found: list[tuple[str, str]] = []
    for start in connectors:
        for wallet in wallets:
            problem = _problem(world, start.name, wallet.name, f"test.{wallet.home}.{wallet.name}".encode())
            if problem:
                found.append((start.name, problem))
    return found


def _problem(world: "World", start: str, wallet: str, address: bytes) -> str:
    """Why packets from here don't arrive; "" if they do, or if they meet an adversary, who does as he likes."""
    way = [start]
    while way[-1] != wallet:
        node = world.nodes[way[-1]]
        if not node.plan.is_honest:
            return ""
        if node.process is None:
            return f"the way to {wallet} leads to {node.name}, which is down"
        lane = find_next_hop(node.process.kernel.switch, address)
        if lane is None:
            return f"{node.name} has no route to {wallet}"
        if lane.id in way:
            return f"packets for {wallet} go round in a loop: {' '.join(way)} {lane.id}"
        if not lane.up:
            return f"{node.name} sends packets for {wallet} to {lane.id}, whose link is down"
        way.append(lane.id)
    return ""
