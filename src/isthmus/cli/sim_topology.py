"""`isthmus sim topology`: a network made from a seed, what routing could do on it at best, and its picture."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click

from isthmus.errors import ConfigError
from isthmus.sim.graphs import KINDS, NODES_MIN, Graph, generate
from isthmus.sim.oracle import Oracle
from isthmus.sim.picture import picture
from isthmus.sim.topology import Json, at_best, describe

NODES_HERE_MAX: Final = 5_000  # all pairs of more take long
SOURCES: Final = 20
_EXAMPLES: Final = """\b
Examples:
  isthmus sim topology --graph ring --nodes 12
  isthmus sim topology --graph scale-free --nodes 1000 --seed 7 --json
  isthmus sim topology --graph scale-free --nodes 60 --svg network.svg --to n41"""


@click.command(epilog=_EXAMPLES)
@click.option("--graph", "kind", type=click.Choice(list(KINDS)), default="scale-free", show_default=True)
@click.option(
    "--nodes", type=click.IntRange(NODES_MIN, NODES_HERE_MAX), default=100, show_default=True, help="How many."
)
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=1, show_default=True, help="Which graph.")
@click.option("--no-transit", is_flag=True, help="Peers are told own and children's routes only.")
@click.option(
    "--sources",
    type=click.IntRange(0),
    default=SOURCES,
    show_default=True,
    help="From how many nodes best-priced paths are looked for; 0: from all.",
)
@click.option("--svg", type=click.Path(dir_okay=False, path_type=Path), help="Draw the network into this file.")
@click.option("--to", "destination", metavar="NODE", help="Draw the best-priced routes to this node.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def topology(
    kind: str,
    nodes: int,
    seed: int,
    no_transit: bool,
    sources: int,
    svg: Path | None,
    destination: str | None,
    as_json: bool,
) -> None:
    """Make a network, tell its figures, draw it.

    Nothing runs: the paths are the best that could be announced, by an oracle that sees all spreads.
    """
    graph = generate(kind, nodes, seed)
    if destination is not None and svg is None:
        raise click.UsageError("--to is for the picture: give --svg FILE, too")
    if svg is not None:
        svg.write_text(_drawn(graph, destination, transit=not no_transit), encoding="utf-8")
    found = {"graph": describe(graph), "best": at_best(graph, transit=not no_transit, sources=sources)}
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    for line in _lines(found):
        click.echo(line)


def _drawn(graph: Graph, destination: str | None, *, transit: bool) -> str:
    if destination is None:
        return picture(graph)
    number = graph.number(destination)
    if number is None:
        known = f"{graph.nodes[0].name} to {graph.nodes[-1].name}"
        raise ConfigError("--to", f"there is no node {destination!r}", f"Name one of {known}")
    paths = [best.path for best in Oracle(graph, transit=transit).best_to(number) if best is not None]
    return picture(graph, destination=number, routes=paths)


def _lines(found: Json) -> Iterator[str]:
    graph, best = found["graph"], found["best"]
    price = best["price"]
    yield f"{graph['kind']}, seed {graph['seed']}"
    yield f"  nodes        {graph['nodes']}, {graph['without_children']} without children"
    yield f"  links        {graph['parent_links']} between parent and child, {graph['peer_links']} between peers"
    yield f"  neighbours   {_range(graph['neighbours'])}"
    yield f"  by depth     {', '.join(map(str, graph['nodes_by_depth']))}"
    yield f"  delay        {_range(graph['delay_ms'])} ms"
    yield f"  kept         {_range(graph['keeps_ppm'])} ppm at each end of a link"
    yield f"at best, {'with' if best['transit'] else 'without'} transit between peers"
    yield f"  reachable    {best['reachable']} of {best['pairs']} pairs"
    yield f"  hops         {best['hops_mean']} on average, {best['diameter']} at the most"
    if price["kept_mean_ppm"] is not None:
        lost, most = 1_000_000 - price["kept_mean_ppm"], 1_000_000 - price["kept_least_ppm"]
        yield f"  price        {lost} ppm on average, {most} at the most, over {price['hops_mean']} hops"
        yield f"               (from {price['sources']} nodes to all others)"


def _range(spread: Json) -> str:
    return f"{spread['least']} to {spread['most']}, in the middle {spread['middle']}"
