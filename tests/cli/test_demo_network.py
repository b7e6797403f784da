"""The demo's network: what its files say, and that a node finds nothing wrong in them."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from isthmus.cli.demo.network import (
    ADMIN,
    BTC,
    BTP,
    DEMO,
    ETH,
    HTTP,
    UPLINK,
    USD,
    Connector,
    Network,
    Pair,
    files,
    token_names,
)
from isthmus.connector.events import AccountId
from isthmus.node.config import check_config
from isthmus.node.config_model import BtpClientLink, BtpServerLink, HttpLink, NodeConfig, Relation
from isthmus.node.tables import build_tables

SHORT = Network(
    connectors=(
        Connector(
            name="middle",
            source=BTC,
            destination=ETH,
            rate=Fraction(25),
            spread="1 %",
            credit="1",
            credit_back="0",
        ),
    )
)


def written(network: Network, folder: Path) -> dict[str, NodeConfig]:
    """Each connector's configuration as its node reads it."""
    ports = {listener: 20_000 + index for index, listener in enumerate(network.listeners())}
    texts = files(network, ports, {name: f"token of {name}" for name in token_names(network)})
    for path, text in texts.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
        (folder / path).chmod(0o600)
    found = {}
    for connector in network.connectors:
        checked = check_config(folder / connector.name / "isthmus.toml", {})
        assert (checked.problems, checked.warnings) == ((), ())
        assert checked.config is not None
        found[connector.name] = checked.config
    return found


@pytest.mark.parametrize("network", [DEMO, SHORT], ids=["demo", "one connector"])
def test_a_node_finds_nothing_wrong_in_the_files(network: Network, tmp_path: Path) -> None:
    for name, config in written(network, tmp_path).items():
        connector = next(one for one in network.connectors if one.name == name)
        first, second = config.accounts
        conversion = build_tables(config).rates.conversion(
            build_tables(config).accounts[first.id], build_tables(config).accounts[second.id]
        )
        assert conversion is not None
        unit = 10**connector.source.scale
        fair = connector.rate * 10**connector.destination.scale
        assert fair * Fraction("0.98") < conversion.outgoing(unit) < fair


def test_the_demo_links_connectors_once_by_btp_and_once_by_http(tmp_path: Path) -> None:
    configs = written(DEMO, tmp_path)
    kinds = {
        (name, str(account.id)): type(account.link) for name, config in configs.items() for account in config.accounts
    }
    assert kinds == {
        ("connector-1", "alice"): BtpServerLink,
        ("connector-1", "connector-2"): BtpClientLink,
        ("connector-2", "connector-1"): BtpServerLink,
        ("connector-2", "connector-3"): HttpLink,
        ("connector-3", "connector-2"): HttpLink,
        ("connector-3", "bob"): BtpServerLink,
    }


def test_neighbours_count_in_the_same_asset_and_dial_each_other(tmp_path: Path) -> None:
    configs = written(DEMO, tmp_path)
    for pair in DEMO.pairs()[1:-1]:
        left, right = (
            configs[pair.left].account(_id(pair.left_account)),
            configs[pair.right].account(_id(pair.right_account)),
        )
        assert left.asset == right.asset
        assert left.relation is right.relation is Relation.PEER
        if isinstance(left.link, BtpClientLink):
            listener = configs[pair.right].btp
            assert listener is not None
            assert str(listener.listen.port) in left.link.url
        else:
            assert isinstance(left.link, HttpLink)
            assert isinstance(right.link, HttpLink)
            for link, other in ((left.link, configs[pair.right].http), (right.link, configs[pair.left].http)):
                assert other is not None
                assert link.url == f"http://127.0.0.1:{other.listen.port}/ilp"


def test_connectors_are_left_to_find_each_other(tmp_path: Path) -> None:
    for config in written(DEMO, tmp_path).values():
        assert not config.routes
        peers = [one for one in config.accounts if one.relation is Relation.PEER]
        assert all(one.routes.send and one.routes.receive for one in peers)
    assert DEMO.learned_by("connector-2") == {"test.connector-1", "test.connector-3"}


def test_where_routes_are_configured_packets_find_their_way_both_ways(tmp_path: Path) -> None:
    network = replace(DEMO, finds_routes=False)
    configs = written(network, tmp_path)
    assert network.learned_by("connector-2") == frozenset()
    ways = {
        name: [
            build_tables(config).routes.lookup(destination)
            for destination in (b"test.connector-3.bob.x", b"test.connector-1.alice.x")
        ]
        for name, config in configs.items()
    }
    assert ways == {
        "connector-1": ["connector-2", "alice"],
        "connector-2": ["connector-3", "connector-1"],
        "connector-3": ["bob", "connector-2"],
    }


def test_no_configuration_holds_a_secret(tmp_path: Path) -> None:
    written(DEMO, tmp_path)
    for path in tmp_path.glob("*/isthmus.toml"):
        assert "token of" not in path.read_text()


def test_pairs_name_both_accounts_of_each_link() -> None:
    assert SHORT.pairs() == [Pair("alice", UPLINK, "middle", "alice", BTP), Pair("middle", "bob", "bob", UPLINK, BTP)]
    assert DEMO.pairs()[2] == Pair("connector-2", "connector-3", "connector-3", "connector-2", HTTP)


def test_every_process_has_ports_of_its_own() -> None:
    listeners = DEMO.listeners()
    assert len(set(listeners)) == len(listeners)
    assert {one.node for one in listeners if one.kind == ADMIN} == {one.name for one in DEMO.connectors}


def test_connectors_that_count_differently_are_no_network() -> None:
    two = [
        Connector(name=name, source=BTC, destination=USD, rate=Fraction(1), spread="0 %", credit="1", credit_back="1")
        for name in ("one", "two")
    ]
    with pytest.raises(AssertionError, match="one and two"):
        Network(connectors=tuple(two), carriers=(BTP,))


def _id(name: str) -> AccountId:
    return AccountId(name)
