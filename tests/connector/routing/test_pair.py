"""A speaker and a listener, whatever is lost between them, falls or is restarted: they come to the same table."""

from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from isthmus.connector.events import AccountId
from isthmus.connector.routing.terms import RouteTerms
from isthmus.connector.tables import RouteTable

if TYPE_CHECKING:
    from isthmus.connector.events import Outbound
    from tests.connector.routing.conftest import MakeNet, Net, Spoken

Step: TypeAlias = "tuple[str, int]"

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(0, 9)),
        st.tuples(st.just("remove"), st.integers(0, 9)),
        st.tuples(st.just("lose"), st.integers(1, 6)),
        st.tuples(st.just("wait"), st.integers(1, 50_000)),
        st.tuples(st.sampled_from(["cut", "link", "restart a", "restart b", "transit"]), st.just(0)),
    ),
    max_size=25,
)


class Losses:
    """The next so many frames, either way, are lost."""

    def __init__(self) -> None:
        self.left = 0

    def __call__(self, _from: str, _to: str, _frame: "Outbound") -> bool:
        self.left -= 1
        return self.left >= 0


def configure(net: "Net", routes: set[int]) -> None:
    table = RouteTable({f"test.x{number}": AccountId("carl") for number in sorted(routes)})
    net.change("a", replace(net.tables["a"], routes=table))


def turn_transit(net: "Net") -> None:
    """Our routes over `carl`, a peer, are told or not."""
    tables = net.tables["a"]
    terms = tables.accounts[AccountId("b")]
    changed = replace(terms, routes=replace(terms.routes, transit=not terms.routes.transit))
    net.change("a", replace(tables, accounts={**tables.accounts, terms.id: changed}))


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_the_listener_comes_to_what_the_speaker_tells(
    steps: list[Step], make_net: "MakeNet", make_spoken: "Spoken"
) -> None:
    """CCP-7 to CCP-10, CCP-13, CCP-15, CCP-19, CCP-20."""
    net = make_net()
    losses = Losses()
    net.lost = losses
    net.add("a", make_spoken("b"), make_spoken("carl", routes=RouteTerms()))
    net.add("b", make_spoken("a"))
    net.link("a", "carl")
    net.link("a", "b")
    routes: set[int] = set()
    is_linked = True
    for what, number in steps:
        if what == "add":
            routes.add(number)
            configure(net, routes)
        elif what == "remove":
            routes.discard(number)
            configure(net, routes)
        elif what == "lose":
            losses.left = number
        elif what == "wait":
            net.run(number)
        elif what == "cut":
            net.cut("a", "b")
            is_linked = False
        elif what == "link":
            net.cut("a", "b")
            net.link("a", "b")
            is_linked = True
        elif what == "transit":
            turn_transit(net)
        else:
            name = what[-1]
            net.cut("a", "b")
            net.start(name)
            if name == "a":
                net.link("a", "carl")
            net.link("a", "b")
            is_linked = True
        net.run(7)
    losses.left = 0
    if not is_linked:
        net.link("a", "b")
    net.run(150_000)
    transit = net.tables["a"].accounts[AccountId("b")].routes.transit
    told = {f"test.x{number}" for number in routes} if transit else set()
    assert set(net.table("b")) == {"test.a", *told}
    assert set(net.table("a")) == {"test.b"}
