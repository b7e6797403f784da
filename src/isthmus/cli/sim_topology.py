"""`isthmus sim topology`: a network made from a seed, what routing could do on it at best, and its picture."""

import gc
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from isthmus.errors import ConfigError
from isthmus.sim.announced import Announced, could_leak
from isthmus.sim.convergence import convergence_picture
from isthmus.sim.fleet_story import PHASES, Story
from isthmus.sim.graphs import KINDS, NODES_MIN, Graph, generate
from isthmus.sim.oracle import Oracle
from isthmus.sim.picture import CHOSEN, picture
from isthmus.sim.topology import Json, at_best, describe

NODES_HERE_MAX: Final = 5_000  # all pairs of more take long
SOURCES: Final = 20
PAIRS: Final = 500
PAIRS_MAX: Final = 10_000
USUAL_MS: Final = 10_000  # of a phase, for the bar
_EXAMPLES: Final = """\b
Examples:
  isthmus sim topology --graph ring --nodes 12
  isthmus sim topology --graph scale-free --nodes 1000 --seed 7 --json
  isthmus sim topology --graph scale-free --nodes 200 --convergence convergence.svg
  isthmus sim topology --graph scale-free --nodes 60 --no-run --svg network.svg --to n41"""


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
@click.option("--to", "destination", metavar="NODE", help="Draw the routes to this node: as chosen, or the best ones.")
@click.option("--run/--no-run", "runs", default=True, show_default=True, help="Run the nodes, or only the oracle.")
@click.option(
    "--pairs", type=click.IntRange(1, PAIRS_MAX), default=PAIRS, show_default=True, help="Whose ways are looked at."
)
@click.option("--silent", type=click.IntRange(0, 100), default=0, help="So many nodes of 100 announce no price.")
@click.option("--liars", type=click.IntRange(0, 100), default=0, help="So many nodes of 100 announce a price of zero.")
@click.option("--leakers", type=click.IntRange(0), default=0, help="So many children tell their parents everything.")
@click.option(
    "--convergence", type=click.Path(dir_okay=False, path_type=Path), help="Draw how ways come to be into this file."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def topology(
    kind: str,
    nodes: int,
    seed: int,
    no_transit: bool,
    sources: int,
    svg: Path | None,
    destination: str | None,
    runs: bool,
    pairs: int,
    silent: int,
    liars: int,
    leakers: int,
    convergence: Path | None,
    as_json: bool,
) -> None:
    """Make a network, run its connectors on virtual time, tell its figures, draw it.

    Each node runs the connector's own code. They start from cold; then a link falls and is mended, and a node falls and
    comes back, while packets are paid between pairs of nodes. What they find is compared with the best paths that could
    be announced, by an oracle that sees all spreads. A thousand nodes take some minutes and 3 GB.
    """
    graph = generate(kind, nodes, seed)
    if destination is not None and svg is None:
        raise click.UsageError("--to is for the picture: give --svg FILE, too")
    if convergence is not None and not runs:
        raise click.UsageError("--convergence draws what runs: leave --no-run out")
    if silent + liars > 100:
        raise click.UsageError("--silent and --liars together are more than all nodes")
    if (silent or liars) and not runs:
        raise click.UsageError("--silent and --liars are for networks that run: leave --no-run out")
    if leakers and not runs:
        raise click.UsageError("--leakers is for networks that run: leave --no-run out")
    if leakers > len(able := could_leak(graph)):
        raise ConfigError("--leakers", f"{leakers} of {len(able)} children that could leak", f"Use at most {len(able)}")
    goal = _goal(graph, destination)
    if svg is not None and not runs:
        svg.write_text(_drawn(graph, goal, transit=not no_transit), encoding="utf-8")
    found: Json = {"graph": describe(graph), "best": at_best(graph, transit=not no_transit, sources=sources)}
    if runs:
        story, found["run"] = _run(graph, seed, pairs, Announced(silent, liars), leakers)
        if svg is not None:
            ways = [] if goal is None else story.fleet.ways_to(goal)
            svg.write_text(picture(graph, destination=goal, routes=ways, which=CHOSEN), encoding="utf-8")
        if convergence is not None:
            convergence.write_text(convergence_picture(graph, found["run"]["phases"]), encoding="utf-8")
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    for line in _lines(found):
        click.echo(line)


def _run(graph: Graph, seed: int, pairs: int, announced: Announced, leakers: int) -> tuple[Story, Json]:
    console = Console(stderr=True)
    columns = (BarColumn(30), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=len(PHASES))

        def tell(name: str, ms: int) -> None:
            done = PHASES.index(name) + min(1.0, ms / USUAL_MS)
            bar.update(task, completed=done, description=f"{name}, {ms / 1000:.1f} s virtual")

        story = Story(graph, seed, pairs=pairs, tell=tell, announced=announced, leakers=leakers)
        gc.disable()  # nothing dies in circles here, and looking for some takes a quarter of the time
        try:
            return story, story.run()
        finally:
            gc.enable()


def _goal(graph: Graph, destination: str | None) -> int | None:
    """The node that routes are drawn to."""
    if destination is None:
        return None
    number = graph.number(destination)
    if number is None:
        known = f"{graph.nodes[0].name} to {graph.nodes[-1].name}"
        raise ConfigError("--to", f"there is no node {destination!r}", f"Name one of {known}")
    return number


def _drawn(graph: Graph, goal: int | None, *, transit: bool) -> str:
    """The best that could be: by the oracle."""
    if goal is None:
        return picture(graph)
    paths = [best.path for best in Oracle(graph, transit=transit).best_to(goal) if best is not None]
    return picture(graph, destination=goal, routes=paths)


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
    if "run" in found:
        yield from _of_run(found["run"])


def _of_run(run: Json) -> Iterator[str]:
    yield f"running ({run['fallen']['link']} falls, then {run['fallen']['node']}; times are virtual)"
    for phase in run["phases"]:
        settled = "not within three minutes" if phase["settled_ms"] is None else f"{phase['settled_ms'] / 1000:.1f} s"
        paid = f"{phase['fulfilled_after']} of {phase['reachable_pairs']} reachable pairs can pay"
        during = phase["fulfilled_during_ppm"]
        meanwhile = "" if during is None else f", {during / 10_000:.1f} % of packets meanwhile"
        yield f"  {phase['name']:<17} settled in {settled}; {paid}{meanwhile}"
        around = phase.get("over_what_fell")
        if around is not None:
            within, over = around["within_two_round_trips"], around["pairs"]
            yield f"                    {within} of {over} pairs over it go around it within two round trips"
    ways, per_node = run["compared"], run["per_node"]
    yield f"  ways              {ways['hops']} hops, {ways['hops_shortest']} at the least"
    if ways["of_best_price_mean_ppm"] is not None:
        mean, least = ways["of_best_price_mean_ppm"] / 10_000, ways["of_best_price_least_ppm"] / 10_000
        yield f"  price             {mean:.3f} % of the best on average, {least:.3f} % at the least"
    announced = run["announced"]
    if announced["silent_percent"] or announced["liars_percent"]:
        silent, liars = announced["silent_percent"], announced["liars_percent"]
        yield f"                    {silent} % of the nodes announce no price, {liars} % announce zero"
    returns = run["returns"]
    leaking = f"{run['leakers']} children tell their parents everything; " if run["leakers"] else ""
    unsteady = f"; {returns['unsteady']} choices go without relations" if returns["unsteady"] else ""
    yield f"  back and forth    {leaking}{returns['most']} returns to a better relation at the most{unsteady}"
    packets = run["packets"]
    yield f"  packets           {packets['outcomes']}, {packets['late']} late, {packets['never_ended']} never ended"
    cold = f"{per_node['messages_from_cold']} messages and {per_node['bytes_from_cold']} bytes from cold"
    in_all = f"{per_node['cpu_ms']} ms of processor time and {per_node['memory_kib']} KiB in all"
    yield f"  a node            {cold}, {in_all}"


def _range(spread: Json) -> str:
    return f"{spread['least']} to {spread['most']}, in the middle {spread['middle']}"
