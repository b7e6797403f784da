"""Kernels that find their routes by themselves: chains, rings, relations, fallen links."""

from dataclasses import replace
from hashlib import sha256
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from isthmus.connector.routing.terms import RouteTerms

if TYPE_CHECKING:
    from tests.connector.routing.conftest import MakeNet, Net, Spoken


def line(net: "Net", spoken: "Spoken", *names: str) -> None:
    for before, name, after in zip(("", *names[:-1]), names, (*names[1:], ""), strict=True):
        net.add(name, *[spoken(one) for one in (before, after) if one])
    for a, b in pairwise(names):
        net.link(a, b)


def test_routes_spread_along_a_chain(net: "Net", make_spoken: "Spoken") -> None:
    """CCP-7, CCP-13, CCP-16: each hop puts itself before the path."""
    line(net, make_spoken, "a", "b", "c", "d", "e")
    net.run(3_000)
    assert net.table("a") == {"test.b": "b", "test.c": "b", "test.d": "b", "test.e": "b"}
    assert net.table("c") == {"test.a": "b", "test.b": "b", "test.d": "d", "test.e": "d"}
    last = [r for _, a, b, update in net.updates for r in update.new_routes if (a, b) == ("b", "a")][-1]
    assert (last.prefix, last.path) == ("test.e", ("test.b", "test.c", "test.d", "test.e"))


def test_auth_is_hashed_at_each_hop(chain: "Net") -> None:
    """CCP-16: what a hop passes on is the hash of what it got; at the origin it is made with a secret."""
    chain.run(2_000)
    auth = {(a, r.prefix): r.auth for _, a, _, update in chain.updates for r in update.new_routes}
    assert auth["bob", "test.carol"] == sha256(auth["carol", "test.carol"]).digest()
    assert auth["carol", "test.carol"] not in (bytes(32), auth["alice", "test.alice"])


def test_a_ring_heals_around_a_fallen_link(net: "Net", make_spoken: "Spoken") -> None:
    """CCP-20: and the way back is the shorter one again."""
    names = ("a", "b", "c", "d", "e")
    for number, name in enumerate(names):
        net.add(name, make_spoken(names[number - 1]), make_spoken(names[(number + 1) % 5]))
    for number, name in enumerate(names):
        net.link(name, names[(number + 1) % 5])
    net.run(5_000)
    assert net.hop("a", "test.b.x") == "b"
    net.cut("a", "b")
    assert net.hop("a", "test.b.x") is None  # b was the only one that told it: others told it back to us
    net.run(2_000)
    assert net.hop("a", "test.b.x") == "e"
    assert net.hop("b", "test.a.x") == "c"
    net.link("a", "b")
    net.run(2_000)
    assert net.hop("a", "test.b.x") == "b"
    assert net.hop("c", "test.a") == "b"


def test_another_hop_that_is_known_is_taken_at_once(net: "Net", make_spoken: "Spoken") -> None:
    """CCP-20: before any table has changed."""
    net.add("a", make_spoken("b"), make_spoken("c"))
    net.add("b", make_spoken("a"), make_spoken("d"))
    net.add("c", make_spoken("a"), make_spoken("d"))
    net.add("d", make_spoken("b"), make_spoken("c"))
    for pair in ("ab", "ac", "bd", "cd"):
        net.link(*pair)
    net.run(2_000)
    assert net.hop("a", "test.d") == "b"
    net.cut("a", "b")
    assert net.hop("a", "test.d") == "c"
    net.run(1_000)
    assert net.table("a") == {"test.b": "c", "test.c": "c", "test.d": "c"}


def test_a_restarted_node_has_another_table(chain: "Net") -> None:
    """CCP-7, CCP-8: its neighbours drop what the process before said."""
    chain.run(2_000)
    before = {update.routing_table_id for _, a, b, update in chain.updates if (a, b) == ("carol", "bob")}
    chain.cut("bob", "carol")
    chain.start("carol")
    chain.link("bob", "carol")
    chain.run(2_000)
    after = {update.routing_table_id for _, a, b, update in chain.updates if (a, b) == ("carol", "bob")} - before
    assert (len(before), len(after)) == (1, 1)
    assert chain.table("alice") == {"test.bob": "bob", "test.carol": "bob"}
    assert chain.table("carol") == {"test.bob": "bob", "test.alice": "bob"}


@pytest.fixture
def family(net: "Net", make_spoken: "Spoken") -> "Net":
    """A node with a parent, two peers and two children, one of which speaks for another net too."""
    child = {"relation": "child"}
    net.add(
        "me",
        make_spoken("dad", relation="parent"),
        make_spoken("pat"),
        make_spoken("pit"),
        make_spoken("kid", **child, child_address="test.me.kid"),
        make_spoken("kim", **child, child_address="test.me.kim"),
        routes={"test.me.kid": "kid", "test.me.kim": "kim", "": "dad"},
    )
    net.add("dad", make_spoken("me", relation="child"))
    net.add("pat", make_spoken("me"))
    net.add("pit", make_spoken("me"))
    net.add("kid", make_spoken("me", relation="parent"), make_spoken("far", **child), address="test.me.kid")
    net.add("kim", make_spoken("me", relation="parent"), address="test.me.kim")
    net.add("far", make_spoken("kid", relation="parent"))
    for name in ("dad", "pat", "pit", "kid", "kim"):
        net.link("me", name)
    net.link("kid", "far")
    net.run(4_000)
    return net


def told(net: "Net", name: str, other: str) -> set[str]:
    """All prefixes that one ever told another."""
    return {r.prefix for _, a, b, update in net.updates for r in update.new_routes if (a, b) == (name, other)}


def test_a_parent_hears_of_us_and_our_children_only(family: "Net") -> None:
    """CCP-17."""
    assert told(family, "me", "dad") == {"test.me", "test.far"}


def test_peers_and_children_hear_of_everything_but_their_own(family: "Net") -> None:
    """CCP-17: neither the default route nor what our own address covers."""
    assert told(family, "me", "pat") == {"test.me", "test.dad", "test.pit", "test.far"}
    assert told(family, "me", "kid") == {"test.me", "test.dad", "test.pat", "test.pit"}
    assert told(family, "me", "kim") == {"test.me", "test.dad", "test.pat", "test.pit", "test.far"}


def test_our_childrens_routes_stay_the_operators(family: "Net") -> None:
    """CCP-18, CCP-11."""
    assert family.table("me")["test.far"] == "kid"
    assert family.hop("me", "test.me.kid.x") == "kid"
    assert family.hop("me", "test.elsewhere") == "dad"
    assert family.hop("me", "test.pat.x") == "pat"


def test_transit_and_filters_are_the_operators(make_net: "MakeNet", make_spoken: "Spoken") -> None:
    """CCP-17: transit is on by default, and a filter per account turns it off."""
    cases = [
        (RouteTerms(send=True, receive=True, transit=False), {"test.b"}),
        (RouteTerms(send=True, receive=True, send_only=("test.c",)), {"test.c"}),
        (RouteTerms(send=True, receive=True, send_not=("test.c",)), {"test.b"}),
        (RouteTerms(send=True, receive=True), {"test.b", "test.c"}),
        (RouteTerms(receive=True), set()),
    ]
    for terms, expected in cases:
        net = make_net()
        net.add("a", make_spoken("b"))
        net.add("b", make_spoken("a", routes=terms), make_spoken("c"))
        net.add("c", make_spoken("b"))
        net.link("a", "b")
        net.link("b", "c")
        net.run(3_000)
        assert set(net.table("a")) == expected
        assert told(net, "b", "a") == expected


def test_a_filter_turned_at_run_time_holds_for_what_was_told_before(chain: "Net") -> None:
    """CCP-8, CCP-17: the peer gets a new table, and drops the old one."""
    chain.run(2_000)
    assert set(chain.table("alice")) == {"test.bob", "test.carol"}
    tables = chain.tables["bob"]
    accounts = dict(tables.accounts)
    for name, terms in tables.accounts.items():
        if name == "alice":
            accounts[name] = replace(terms, routes=replace(terms.routes, transit=False))
    chain.change("bob", replace(tables, accounts=accounts))
    chain.run(2_000)
    assert set(chain.table("alice")) == {"test.bob"}


def test_configured_routes_win_and_are_told(net: "Net", make_spoken: "Spoken") -> None:
    """CCP-18: the same prefix learned from another is used only while the configured hop is gone."""
    net.add("a", make_spoken("b"), make_spoken("c"), routes={"test.d": "c"})
    net.add("b", make_spoken("a"), make_spoken("d"))
    net.add("c", make_spoken("a", routes=RouteTerms()))
    net.add("d", make_spoken("b"))
    for pair in ("ab", "ac", "bd"):
        net.link(*pair)
    net.run(2_000)
    assert net.hop("a", "test.d.x") == "c"
    net.cut("a", "c")
    assert net.hop("a", "test.d.x") == "b"
    net.link("a", "c")
    net.run(1_000)
    assert net.hop("a", "test.d.x") == "c"
    assert told(net, "a", "b") >= {"test.a", "test.d"}


def test_a_new_address_is_told_and_the_old_one_withdrawn(chain: "Net") -> None:
    """ILDCP-7."""
    chain.run(2_000)
    chain.change("bob", replace(chain.tables["bob"], address="test.robert"))
    chain.run(3_000)
    assert chain.table("alice") == {"test.robert": "bob", "test.carol": "bob"}
    paths = {
        r.prefix: r.path for _, a, b, update in chain.updates for r in update.new_routes if (a, b) == ("bob", "alice")
    }
    assert paths["test.carol"] == ("test.robert", "test.carol")
    assert chain.table("bob") == {"test.alice": "alice", "test.carol": "carol"}


def test_a_node_without_an_address_neither_asks_nor_tells(net: "Net", make_spoken: "Spoken") -> None:
    """ILDCP-7: until its parent has told it."""
    net.add("a", make_spoken("b"))
    net.add("b", make_spoken("a"), address="test.b")
    net.tables["a"] = replace(net.tables["a"], address="")
    net.start("a")
    net.link("a", "b")
    net.run(5_000)
    assert [name for _, name, _, _ in net.controls] == ["b"]
    assert [name for _, name, _, _ in net.updates] == []
    net.change("a", replace(net.tables["a"], address="test.b.a"))
    net.run(2_000)
    assert net.table("b") == {}  # below its own address: only a child may announce that
    assert net.table("a") == {"test.b": "b"}


def test_nothing_is_asked_or_told_without_terms(net: "Net", make_spoken: "Spoken") -> None:
    """CCP-13: a wallet, or a node with static routes only."""
    net.add("a", make_spoken("b", routes=RouteTerms()))
    net.add("b", make_spoken("a"))
    net.link("a", "b")
    net.run(200_000)
    assert {name for _, name, _, _ in net.controls} == {"b"}
    assert net.updates == []
    assert net.kernels["a"].wakes_at() is None
