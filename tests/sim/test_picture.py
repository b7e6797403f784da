"""The pictures of networks: whole, of the right things, and the same bytes each time."""

from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from isthmus.sim.graphs import KINDS, generate
from isthmus.sim.oracle import Oracle
from isthmus.sim.picture import BEST, CHOSEN, HEAD, SIDE, picture

ROOT = Path(__file__).resolve().parents[2]
SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("size", [2, 3, 50])
def test_each_node_is_within_the_page_and_all_links_are_drawn(kind: str, size: int) -> None:
    graph = generate(kind, size, 5)
    drawn = ET.fromstring(picture(graph))
    circles = list(drawn.iter(f"{SVG}circle"))
    assert [circle.find(f"{SVG}title").text for circle in circles] == [node.name for node in graph.nodes]  # type: ignore[union-attr]
    for circle in circles:
        assert 0 < float(circle.attrib["cx"]) < SIDE
        assert HEAD < float(circle.attrib["cy"]) < SIDE + HEAD
    lines = sum(path.attrib["d"].count("L") for path in drawn.iter(f"{SVG}path"))
    assert lines == len(graph.links)


def test_routes_are_drawn_over_links_and_who_has_none_is_hollow() -> None:
    graph = generate("chain", 5, 1)
    drawn = ET.fromstring(picture(graph, destination=2, routes=[(1, 2), (2,), (3, 2)]))
    classes = [circle.attrib["class"] for circle in drawn.iter(f"{SVG}circle")]
    assert classes == ["lost", "node", "goal", "node", "lost"]
    (route,) = [one for one in drawn.iter(f"{SVG}path") if one.attrib["class"] == "route" and "L" in one.attrib["d"]]
    assert route.attrib["d"].count("L") == 2
    legends = [text.text for text in drawn.iter(f"{SVG}text")]
    assert BEST in legends and CHOSEN not in legends
    assert CHOSEN in picture(graph, destination=2, routes=[(1, 2)], which=CHOSEN)


def test_the_picture_in_the_documents_is_as_it_would_be_drawn_now() -> None:
    """`isthmus sim topology --graph scale-free --nodes 60 --seed 4 --svg docs/network.svg --to n41`."""
    graph = generate("scale-free", 60, 4)
    paths = [best.path for best in Oracle(graph).best_to(41) if best is not None]
    drawn = picture(graph, destination=41, routes=paths)
    assert (ROOT / "docs" / "network.svg").read_text() == drawn


def test_the_same_network_gives_the_same_bytes_for_light_and_dark() -> None:
    graph = generate("scale-free", 80, 2)
    paths = [best.path for best in Oracle(graph).best_to(7) if best is not None]
    first = picture(graph, destination=7, routes=paths)
    assert first == picture(generate("scale-free", 80, 2), destination=7, routes=paths)
    assert "prefers-color-scheme: dark" in first
    assert "routes to n07" in first
