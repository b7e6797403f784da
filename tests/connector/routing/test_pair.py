"""A speaker and a listener, whatever is lost between them, falls or is restarted: they come to the same table."""

from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from isthmus.connector.events import AccountId, LinkUp
from isthmus.connector.routing.terms import RouteTerms
from isthmus.connector.tables import RouteTable
from isthmus.ilp.ccp import SYNC, RouteControl, encode_control

if TYPE_CHECKING:
    from isthmus.connector.events import Outbound
    from tests.connector.routing.conftest import MakeNet, Net, Spoken

Step: TypeAlias = "tuple[str, int]"
FAR = 10**14

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


def test_a_question_that_comes_before_our_link_is_up_is_answered_once_it_is(net: "Net", make_spoken: "Spoken") -> None:
    """Over HTTP each way of a link comes up by itself: the peer may ask before ours is known to be free."""
    net.add("a", make_spoken("b"))
    net.play("b", "a", encode_control(RouteControl(SYNC, bytes(16), 0, ()), FAR))
    net.run(1_000)
    assert not net.updates
    net.link("a", "b")
    net.run(1_000)
    assert [(name, other) for _, name, other, _ in net.updates] == [("a", "b")]


def test_a_new_connection_without_an_end_of_the_one_before_waits_to_be_asked(net: "Net", make_spoken: "Spoken") -> None:
    """CCP-20: whoever is there now may be another process, which knows nothing of epochs before."""
    net.add("a", make_spoken("b"))
    net.link("a", "b")
    net.play("b", "a", encode_control(RouteControl(SYNC, bytes(16), 0, ()), FAR))
    net.run(1_000)
    assert len(net.updates) == 1
    net.tell("a", LinkUp(AccountId("b")))
    net.run(40_000)
    assert len(net.updates) == 1
