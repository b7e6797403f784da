"""`isthmus demo --mesh` as a user runs it, and what it makes of a ring that didn't behave."""

import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
from rich.console import Console

from isthmus.cli.demo import mesh_report
from isthmus.cli.demo.audit import NodeBooks, Tally
from isthmus.cli.demo.mesh import MESH, OTHER_WAY, VICTIM
from isthmus.cli.demo.mesh_report import STAGES, Stage, differences
from isthmus.cli.demo.mesh_run import MeshDemo, MeshResult
from isthmus.cli.demo.network import BTC, ETH, USD, files, token_names
from isthmus.cli.demo.processes import DemoError
from isthmus.cli.demo.report import Outcome
from isthmus.client.payment import Progress
from isthmus.connector.books import loss_name
from isthmus.node.config import check_config
from isthmus.node.config_model import BtpClientLink, BtpServerLink, Relation

WAIT_S = 150  # what was lost with a node is sure to be lost only after 30 s


@pytest.fixture
def place() -> Iterator[Path]:
    """Short, whoever runs the tests: a wallet's socket must fit into a socket's name."""
    with tempfile.TemporaryDirectory(prefix="isthmus-") as folder:
        yield Path(folder)


def run(*options: str, place: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "isthmus", "demo", "--mesh", *options],
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        env={**os.environ, "TMPDIR": str(place)},
        check=False,
    )


@pytest.mark.slow
def test_a_payment_outlives_a_node_on_its_way_and_the_node_is_used_again(place: Path) -> None:
    done = run("--json", place=place)
    assert (done.returncode, done.stderr) == (0, "")
    shown = json.loads(done.stdout)
    assert shown["books_agree"] is True
    assert (shown["sent"], shown["again"]["sent"], shown["killed"]) == ("1500000", "375000", VICTIM)
    # 64250.5 ÷ 2510 ETH for a BTC, less 0.3 % of spreads and a little rounding
    assert 382_700_000 < int(shown["delivered"]) < 383_600_000
    until, meanwhile, since = (stage["packets"] for stage in shown["ways"])
    assert until[VICTIM] > 0
    assert meanwhile[VICTIM] == 0
    assert all(meanwhile[name] > 0 for name in OTHER_WAY)
    assert since[VICTIM] >= shown["again"]["packets"] > 0
    assert [node["name"] for node in shown["nodes"]] == MESH.names
    assert list(place.iterdir()) == []


@pytest.mark.parametrize("amount", ["0.0099", "0.20000001"])
def test_an_amount_with_no_middle_to_kill_a_node_in_is_refused(place: Path, amount: str) -> None:
    done = run("--amount", amount, place=place)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "--amount" in done.stderr


def test_each_node_of_the_ring_has_two_neighbours_and_finds_nothing_wrong_in_its_file(tmp_path: Path) -> None:
    ports = {listener: 20_000 + index for index, listener in enumerate(MESH.listeners())}
    for path, text in files(MESH, ports, {name: f"token of {name}" for name in token_names(MESH)}).items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
        (tmp_path / path).chmod(0o600)
    dialled, heard = set(), set()
    for connector in MESH.connectors:
        checked = check_config(tmp_path / connector.name / "isthmus.toml", {})
        assert (checked.problems, checked.warnings) == ((), ())
        assert checked.config is not None
        peers = [account for account in checked.config.accounts if account.relation is Relation.PEER]
        assert len(peers) == 2
        assert {account.asset for account in peers} == {USD}
        for account in peers:
            if isinstance(account.link, BtpClientLink):
                dialled.add((connector.name, str(account.id)))
            elif isinstance(account.link, BtpServerLink):
                heard.add((str(account.id), connector.name))
    assert dialled == heard
    assert len(dialled) == 5


# --- what is shown, and what is no success --------------------------------------------------------------------------


class Nobody:
    """An audience that isn't there."""

    def step(self, text: str) -> None: ...

    def progress(self, progress: Progress) -> None: ...

    def paid(self, outcome: Outcome) -> None: ...


def a_result() -> MeshResult:
    """Of a ring that behaved."""
    counts = [(0, 0, 0), (50, 0, 0), (50, 80, 81), (90, 99, 99)]
    names = (VICTIM, *OTHER_WAY)
    moments = [Stage("", dict(zip(names, each, strict=True))) for each in counts]
    books = {
        name: NodeBooks(name=name, folder=Path(), tally=Tally(), batches=3, digest=b"", problems=[])
        for name in MESH.names
    }
    for pair in MESH.pairs():
        asset = BTC if "alice" in pair else ETH if "bob" in pair else USD
        for name, account in ((pair.left, pair.left_account), (pair.right, pair.right_account)):
            books[name].tally.assets[account] = asset
            books[name].tally.peers.append(account)
    return MeshResult(
        outcome=Outcome(sent=1_000, delivered=990, promised=980, packets=150),
        books=books,
        problems=[],
        stopped_badly=[],
        ways=differences(moments),
        again=Outcome(sent=250, delivered=247, promised=245, packets=40),
        pause_s=1.25,
    )


def the_demo() -> MeshDemo:
    return MeshDemo(MESH, Path("nowhere"), 1_000, Nobody())


def text_of(result: MeshResult) -> str:
    console = Console(file=io.StringIO(), width=100)
    console.print(the_demo().picture(100))
    console.print(the_demo().tables(result))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_packets_are_told_by_way_and_by_time() -> None:
    result = a_result()
    assert [(stage.name, *stage.packets.values()) for stage in result.ways] == [
        (STAGES[0], 50, 0, 0),
        (STAGES[1], 0, 80, 81),
        (STAGES[2], 40, 19, 18),
    ]
    shown = text_of(result)
    for part in (*STAGES, *MESH.names[1:-1], "1.2 s", "Nobody lost anything", "Which way"):
        assert part in shown


def test_what_the_kill_cost_is_told() -> None:
    result = a_result()
    result.books[VICTIM].tally.balances[loss_name("connector-1")] = 200_000_000
    assert f"{VICTIM} lost 0.2 USD" in text_of(result)
    assert the_demo().as_json(result)["lost"] == {VICTIM: "200000000"}
    assert mesh_report.losses(a_result().books) == {}


def test_the_json_object_has_the_ring_s_keys_after_the_chain_s() -> None:
    shown = json.loads(json.dumps(the_demo().as_json(a_result())))
    assert list(shown)[-6:] == ["books_agree", "killed", "pause_seconds", "ways", "again", "lost"]
    assert shown["ways"][1] == {"stage": STAGES[1], "packets": {VICTIM: 0, "connector-5": 80, "connector-4": 81}}


def test_a_ring_that_behaved_is_a_success() -> None:
    the_demo().check(a_result())


@pytest.mark.parametrize(
    "change, said",
    [
        ({"problems": ["one unit"]}, "don't agree"),
        ({"outcome": Outcome(sent=1_000, delivered=979, promised=980, packets=1)}, "promised"),
        ({"outcome": Outcome(sent=999, delivered=990, promised=980, packets=1)}, "promised"),
        ({"again": Outcome(sent=250, delivered=244, promised=245, packets=1)}, "second payment"),
        ({"ways": [Stage("", dict.fromkeys((VICTIM, *OTHER_WAY), number)) for number in (1, 0, 1)]}, "other way"),
        ({"ways": [Stage("", dict.fromkeys((VICTIM, *OTHER_WAY), number)) for number in (1, 1, 0)]}, "came back"),
    ],
    ids=["books", "delivered", "sent", "again", "no other way", "not used again"],
)
def test_anything_else_is_a_failure(change: dict[str, object], said: str) -> None:
    with pytest.raises(DemoError, match=said):
        the_demo().check(replace(a_result(), **change))  # type: ignore[arg-type]


def test_the_ring_s_price_is_that_of_its_three_assets() -> None:
    assert MESH.fair_rate == Fraction("64250.5") / 2510
    assert (MESH.source, MESH.destination) == (BTC, ETH)
