"""A neighbour that tells a million routes: the first hundred thousand are kept, and nothing grows with the rest."""

import tracemalloc
from typing import TYPE_CHECKING

import pytest

from isthmus.connector.routing.terms import RECEIVED_MAX, RouteTerms
from isthmus.ilp.ccp import Route

if TYPE_CHECKING:
    from tests.connector.routing.conftest import MakeTeller, Net, Spoken

FLOOD = 1_000_000
EACH = 625  # routes that an update has room for
UPDATES = FLOOD // EACH
WARM = 100  # updates before them: by then the decoders' caches of names, and their tables, are all traced ones
TRACED = 100  # of the last updates
RECEIVES = RouteTerms(receive=True)


def route(prefix: str) -> Route:
    return Route(prefix, (), bytes(32), ())


@pytest.mark.slow
def test_a_million_routes_cost_no_more_than_a_hundred_thousand(
    net: "Net", make_spoken: "Spoken", make_teller: "MakeTeller"
) -> None:
    """CCP-11: each update is taken, as fast as updates may come; one line in the log; others' routes as ever."""
    net.add("me", make_spoken("bad", routes=RECEIVES), make_spoken("good", routes=RECEIVES))
    for name in ("bad", "good"):
        net.link("me", name)
    net.run(1)
    bad, good = make_teller("bad"), make_teller("good")
    good.tells(route("test.good"))
    router = net.kernels["me"].switch.router
    before = 0
    for number in range(UPDATES):
        if number == UPDATES - TRACED - WARM:
            tracemalloc.start()
        elif number == UPDATES - TRACED:
            before, _ = tracemalloc.get_traced_memory()
        bad.tells(*[route(f"test.x{number:04}{at:03}") for at in range(EACH)])
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert after - before < TRACED * EACH, "not a byte for each"
    assert router.rib.count == RECEIVED_MAX + 1 == len(net.table("me"))
    assert router.neighbours["bad"].listener.refusals == {"too many routes of the peer": FLOOD - RECEIVED_MAX}  # type: ignore[index]
    assert len(net.events("me", "routes_bounded")) == 1
    assert (net.hop("me", "test.x0000000"), net.hop("me", f"test.x{UPDATES - 1:04}000")) == ("bad", None)

    good.tells(route("test.x9"), route("test.good.more"))
    net.run(1_000)
    assert (net.hop("me", "test.x9"), net.hop("me", "test.good.more.y")) == ("good", "good")
    net.cut("me", "bad")
    assert net.hop("me", "test.x0000000") is None
    net.run(10_000)
    assert router.rib.count == 3 == len(net.table("me"))
