"""`isthmus accounts` and `isthmus routes` beside a running node."""

import json
from pathlib import Path
from typing import Any

import pytest

from isthmus.ilp.packet import Fulfill
from tests.node.commands import command

TOKEN = "admin-token-of-the-node-tests-0123456789"


@pytest.fixture
async def node(nodes: Any, two: str) -> Any:
    return await nodes.run(two)


@pytest.mark.slow
async def test_an_account_from_its_first_to_its_last_day(node: Any, config: Any, peer: Any) -> None:
    """Issue 5, part 3. The token comes from the node's file, or from the environment."""
    at = ("--config", node.file)
    terms = ("--asset", "USD", "--scale", "9", "--relation", "child", "--receivable", "100")
    done = await command("accounts", "add", "carol", *terms, "--token-file", "-", *at, stdin=config.token_of("carol"))
    assert (done.returncode, done.stdout) == (0, "Added carol.\n"), done.stderr
    alice, _ = await peer(node, "alice"), await peer(node, "carol", fulfils=True)
    assert isinstance(await alice.pay("test.node.carol.x", 1_500_000_000), Fulfill)
    listed = await command("accounts", "list", "--data", node.folder / "data", token=TOKEN)
    assert listed.returncode == 0, listed.stderr
    row = next(line for line in listed.stdout.splitlines() if "carol" in line)
    assert "owed by us 1.5 USD" in row and "100 USD" in row and "run time" in row and "up" in row
    done = await command("accounts", "change", "carol", "--receivable", "7.5", "--in-flight", "50", *at)
    assert (done.returncode, done.stdout) == (0, "Changed carol.\n"), done.stderr
    done = await command("accounts", "change", "carol", "--receivable", "7.5", *at)
    assert (done.returncode, done.stdout) == (0, "carol has these terms already.\n")
    shown = json.loads((await command("accounts", "show", "carol", *at)).stdout)
    assert shown["definition"]["limits"] == {"receivable": "7.5", "in_flight": "50"}
    done = await command("accounts", "change", "carol", "--unset", "limits.in_flight", *at)
    assert done.returncode == 0 and "in_flight" not in (await command("accounts", "show", "carol", *at)).stdout
    assert (await command("accounts", "disable", "carol", *at)).stdout == "Disabled carol.\n"
    assert (await command("accounts", "enable", "carol", *at)).stdout == "Enabled carol.\n"
    refused = await command("accounts", "remove", "carol", *at)
    assert refused.returncode == 1 and refused.stderr.count("\n") == 1
    assert "1.5 USD are owed by us" in refused.stderr
    # All of it is in the books' statement.
    books = await command("books", "show", node.folder / "data", "--account", "carol")
    assert "limits.receivable = 7.5" in books.stdout and "enabled = False" in books.stdout


async def test_a_fresh_token_is_shown_once_and_a_repetition_makes_no_other(node: Any) -> None:
    at = ("--config", node.file, "--json")
    terms = ("--asset", "USD", "--scale", "9", "--relation", "peer", "--receivable", "1")
    first = json.loads((await command("accounts", "add", "dora", *terms, *at)).stdout)
    assert first["changed"] and len(first["token"]) > 40
    again = await command("accounts", "add", "dora", *terms, *at)
    assert json.loads(again.stdout) == {"account": "dora", "changed": False}
    other = await command("accounts", "add", "dora", *terms[:-1], "2", *at)
    assert other.returncode == 1 and "other terms" in other.stderr
    assert json.loads((await command("accounts", "remove", "dora", *at)).stdout)["changed"]


@pytest.mark.slow
async def test_routes_are_shown_added_and_removed(node: Any) -> None:
    at = ("--config", node.file)
    assert (await command("routes", "add", "test.far", "bob", *at)).stdout == "test.far → bob.\n"
    assert (await command("routes", "add", "test.far", "bob", *at)).stdout == "test.far → bob already.\n"
    why = await command("routes", "show", "test.far.away", "--why", *at)
    assert why.returncode == 0 and "test.far.away → bob. The longest prefix is test.far (run time)." in why.stdout
    found = json.loads((await command("routes", "show", "--json", *at)).stdout)["routes"]
    assert [each["prefix"] for each in found] == ["test.far", "test.node.alice", "test.node.bob"]
    refused = await command("accounts", "remove", "bob", *at)
    assert refused.returncode == 1 and "test.far" in refused.stderr
    assert (await command("routes", "remove", "test.far", *at)).stdout == "Removed test.far.\n"
    assert "no configured route" in (await command("routes", "remove", "test.far", *at)).stdout
    assert "nowhere" in (await command("routes", "show", "test.far.away", "--why", *at)).stdout
    assert (await command("routes", "add", "default", "bob", *at)).returncode == 0
    shown = await command("routes", "show", "default", "--why", *at)
    assert shown.stdout.startswith("default → bob. No prefix is longer than the default route (run time).")
    assert "alice" not in shown.stdout


async def test_an_http_link_comes_from_a_file_with_its_secrets_beside_it(
    nodes: Any, config: Any, tmp_path: Path
) -> None:
    node = await nodes.run(config.toml(config.account("bob"), http=0))
    (tmp_path / "out").write_text("the-token-that-carol-gave-us-0123456789\n")
    (tmp_path / "carol.toml").write_text(
        'asset = "USD"\nscale = 9\nrelation = "peer"\n'
        '[link]\ntype = "http"\nurl = "http://127.0.0.1:9/ilp"\n'
        'outgoing = { auth = "bearer", token = { file = "out" } }\n'
        'incoming = { auth = "bearer", token = { env = "CAROL_IN" } }\n'
        '[limits]\nreceivable = "3"\n'
    )
    add = ("accounts", "add", "carol", "--from", tmp_path / "carol.toml", "--config", node.file)
    missing = await command(*add)
    assert missing.returncode == 2 and "CAROL_IN is not set" in missing.stderr
    done = await command(*add, CAROL_IN="the-token-that-carol-shows-0123456789")
    assert done.returncode == 0, done.stderr
    shown = (await command("accounts", "show", "carol", "--config", node.file)).stdout
    assert "token_sha256" in shown and "the-token-that" not in shown


@pytest.mark.slow
async def test_what_makes_no_sense_is_one_line_and_status_2(node: Any, tmp_path: Path) -> None:
    at = ("--config", str(node.file))
    add = ("accounts", "add", "carol", *at)
    cases: list[tuple[tuple[str, ...], str]] = [
        (("accounts", "list"), "there is no isthmus.toml here"),
        (("accounts", "list", "--data", str(tmp_path)), "no node runs there"),
        (("accounts", "list", "--config", str(tmp_path / "none.toml")), "No such file"),
        (("accounts", "list", "--data", str(node.folder / "data")), "ISTHMUS_ADMIN_TOKEN"),
        (add, "accounts.carol.asset: missing"),
        ((*add, "--asset", "USD", "--scale", "nine"), "--scale"),
        ((*add, "--url", "btp+ws://:secret@127.0.0.1:1"), "it holds a token"),
        ((*add, "--url", "btp+ws://127.0.0.1:1"), "--token-file: missing"),
        ((*add, "--token-file", "nowhere"), "nowhere"),
        ((*add, "--token-env", "NOT_SET_ANYWHERE"), "is not set"),
        ((*add, "--token-file", "x", "--token-env", "y"), "Give one of them"),
        ((*add, "--token-file", "-"), "nothing came on stdin"),
        ((*add, "--from", "none.toml"), "none.toml"),
        (("accounts", "change", "bob", *at), "Nothing to change"),
        (("accounts", "change", "bob", "--receivable", "-5", *at), "accounts.bob.limits.receivable"),
        (("accounts", "change", "carol", "--receivable", "5", *at), "no account 'carol'"),
        (("accounts", "remove", "carol", *at), "no account 'carol'"),
        (("routes", "show", "--why", *at), "--why needs a PREFIX"),
        (("routes", "show", "te..st", *at), "no address prefix. Write it like test.bob, or default"),
        (("routes", "add", "test.x", "carol", *at), "no account 'carol'"),
    ]
    for arguments, says in cases:
        done = await command(*arguments, cwd=tmp_path)
        assert done.returncode == 2, (arguments, done.stderr)
        assert says in done.stderr and done.stderr.count("\n") == 1 and not done.stdout, done.stderr
