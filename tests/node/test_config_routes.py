"""`routes` of an account: defaults by relation, presets, keys, and what can't be."""

from pathlib import Path

import pytest

from isthmus.connector.events import AccountId
from isthmus.connector.routing.terms import RECEIVED_MAX, RouteTerms
from isthmus.node.config import Checked, parse_config
from isthmus.node.tables import build_tables

FILE = """
address = "test.hub"
[accounts.bob]
asset = "USD"
scale = 9
relation = "{relation}"
link = {{ type = "btp-client", url = "btp+wss://u:t@bob.example/btp" }}
limits = {{ receivable = "1" }}
{routes}
"""


def check(routes: str, relation: str = "peer") -> Checked:
    text = FILE.format(relation=relation, routes=routes and f"routes = {routes}")
    return parse_config(text, Path("isthmus.toml"), {})


def terms(routes: str = "", relation: str = "peer") -> RouteTerms:
    checked = check(routes, relation)
    assert checked.config is not None, checked.problems
    return build_tables(checked.config).accounts[AccountId("bob")].routes


@pytest.mark.parametrize(
    "routes, parent, peer, child",
    [
        ("", (True, True), (True, True), (True, False)),
        ('"ilp-connector"', (False, False), (True, True), (True, True)),
        ('"interledger-rs"', (False, True), (True, True), (True, False)),
        ('"off"', (False, False), (False, False), (False, False)),
        ("{ receive = true }", (True, True), (True, True), (True, True)),
        ("{ send = false }", (False, True), (False, True), (False, False)),
    ],
)
def test_who_tells_whom(
    routes: str, parent: tuple[bool, bool], peer: tuple[bool, bool], child: tuple[bool, bool]
) -> None:
    """X-10."""
    for relation, expected in (("parent", parent), ("peer", peer), ("child", child)):
        found = terms(routes, relation)
        assert (found.send, found.receive) == expected


def test_all_keys() -> None:
    keys = (
        '{ transit = false, send_only = ["test.a"], send_not = ["test.a.b"], receive_only = ["test"], '
        'receive_not = ["test.x", "test.y"], max = 10, preference = -3, speaker = "test.bob" }'
    )
    assert terms(keys) == RouteTerms(
        send=True,
        receive=True,
        transit=False,
        send_only=("test.a",),
        send_not=("test.a.b",),
        receive_only=("test",),
        receive_not=("test.x", "test.y"),
        received_max=10,
        preference=-3,
        speaker="test.bob",
    )
    assert terms("{}") == RouteTerms(send=True, receive=True, received_max=RECEIVED_MAX)


@pytest.mark.parametrize(
    "routes, key, remedy",
    [
        ('"rafiki"', "accounts.bob.routes", "ilp-connector"),
        ("3", "accounts.bob.routes", ""),
        ("{ sends = true }", "accounts.bob.routes.sends", "send"),
        ('{ send_only = ["test..x"] }', "accounts.bob.routes.send_only", "test.bob"),
        ('{ send_only = [""] }', "accounts.bob.routes.send_only", "test.bob"),
        ('{ receive_not = "test" }', "accounts.bob.routes.receive_not", "["),
        ("{ max = 0 }", "accounts.bob.routes.max", ""),
        ("{ preference = 101 }", "accounts.bob.routes.preference", ""),
        ('{ speaker = "test" }', "accounts.bob.routes.speaker", ""),
    ],
)
def test_what_cannot_be_is_named(routes: str, key: str, remedy: str) -> None:
    [problem] = check(routes).problems
    assert problem.key == key
    assert remedy in problem.remedy
