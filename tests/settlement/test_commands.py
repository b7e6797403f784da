"""Settlement as its operator sees it: the commands and the admin API, beside a node and without one."""

import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from isthmus.ilp.packet import Fulfill
from tests.node.conftest import ADMIN_TOKEN, NodeProcess, Nodes, Peer, account, toml
from tests.settlement.conftest import WRAPPER, engine, isthmus, settles
from tests.settlement.toy import ToyLedger

USD = 10**9


def text(ledger: ToyLedger, **terms: str) -> str:
    """Alice pays Bob over this node, which settles with Bob when it is told to."""
    settlement = settles("bob", "bob", **{"ahead_max": "1", **terms})
    accounts = (account("alice"), account("bob", relation="peer"), settlement, engine(ledger, "us"))
    return toml(*accounts, routes={"test.bob": "bob"})


async def owing(nodes: Nodes, ledger: ToyLedger, amount: int = 5, **terms: str) -> NodeProcess:
    """A node that owes Bob so many USD."""
    node = await nodes.run(text(ledger, **terms), wrapper=WRAPPER)
    alice = await Peer("alice").dial(node.port)
    bob = (await Peer("bob").dial(node.port)).fulfil_all()
    assert isinstance(await alice.pay("test.bob.x", amount * USD), Fulfill)
    await alice.close()
    await bob.close()
    return node


async def post(node: NodeProcess, path: str, body: Any, token: str | None = ADMIN_TOKEN) -> tuple[int, dict[str, Any]]:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session,
        session.post(node.listening["admin"] + path, json=body, headers=headers) as response,
    ):
        return response.status, await response.json(content_type=None)


@pytest.fixture
async def node(nodes: Nodes, ledger: ToyLedger) -> NodeProcess:
    return await owing(nodes, ledger)


def data(node: NodeProcess) -> Path:
    return node.folder / "data"


async def listed(node: NodeProcess) -> dict[str, Any]:
    done = await isthmus("settlements", "list", "--data", data(node), "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


async def test_a_peer_is_paid_when_the_operator_says_so(node: NodeProcess, ledger: ToyLedger) -> None:
    """Once for the key; all that is owed without an amount."""
    done = await isthmus("settle", "bob", "2", "--key", "k", "--note", "for the weekend", "--data", data(node))
    assert (done.returncode, done.stdout) == (0, "Settled 2 USD with bob: settlement 1. Key: k\n"), done.stderr
    await node.until("settlement_confirmed", account="bob", number=1)
    again = await isthmus("settle", "bob", "2", "--key", "k", "--note", "for the weekend", "--data", data(node))
    assert again.stdout == "Settled 2 USD with bob: by this key before. Key: k\n"
    rest = await isthmus("settle", "bob", "--json", "--data", data(node))
    assert json.loads(rest.stdout)["amount"] == str(3 * USD)
    await node.until("settlement_confirmed", account="bob", number=2)
    assert ledger.sent("us") == 5 * USD
    found = await listed(node)
    assert found["settlements"] == []
    (account,) = found["accounts"]
    assert (account["balance"], account["on_ledger"], account["leftover"]) == ("0", str(-5 * USD), "0")
    assert [one["text"] for one in found["recent"]] == ["settlement 2", "settlement 1: for the weekend"]


@pytest.mark.parametrize(
    "arguments, problem",
    [
        (["bob", "7"], "the peer would owe us 2000000000 of it, and ahead_max allows 1000000000"),
        (["alice"], "this account has no settlement engine; `isthmus settle --by-hand` books"),
        (["carol"], "ACCOUNT carol: there is no such account"),
        (["bob", "0"], "it is nothing"),
        (["bob", "0.0000000001"], "has 10 decimals"),
        (["bob", "1", "--key", "a b"], "key must be 1 to 100 characters"),
        (["bob", "1", "--by-hand"], "--by-hand needs AMOUNT, --paid and --note"),
        (["bob", "1", "--paid", "by-us"], "--paid is for --by-hand"),
    ],
)
async def test_what_cant_be_settled_is_said_in_one_line(node: NodeProcess, arguments: list[str], problem: str) -> None:
    done = await isthmus("settle", *arguments, "--data", data(node))
    assert done.returncode in (1, 2)
    assert problem in done.stderr
    assert len(done.stderr.splitlines()) == 1


async def test_what_was_paid_by_hand_is_booked_by_the_running_node_and_without_it(node: NodeProcess) -> None:
    """A bank transfer of ours of 3, and one of Bob's of 1."""
    note = ["--by-hand", "--note", "bank transfer of 3 May, reference 4711", "--data", str(data(node))]
    ours = await isthmus("settle", "bob", "3", "--paid", "by-us", "--key", "k", *note)
    assert (ours.returncode, ours.stdout) == (0, "Booked by the running node: we paid bob 3 USD. Key: k\n"), ours.stderr
    assert (await node.balances())["bob"] == -2 * USD
    assert await node.stop() == 0
    again = await isthmus("settle", "bob", "3", "--paid", "by-us", "--key", "k", *note)
    assert again.stdout == "Booked in the journal: we paid bob 3 USD. Key: k\n"
    theirs = await isthmus("settle", "bob", "1", "--paid", "by-peer", "--json", *note)
    assert json.loads(theirs.stdout)["amount"] == str(USD)
    shown = json.loads((await isthmus("books", "show", str(data(node)), "--json")).stdout)
    balances = {one["account"]: one["balance"] for one in shown["accounts"]}
    assert balances["bob"] == str(-3 * USD)
    (currency,) = shown["assets"]
    assert currency["on_ledgers"] == str(-2 * USD)


@pytest.mark.slow
async def test_one_that_failed_is_shown_and_taken_back(nodes: Nodes, ledger: ToyLedger) -> None:
    """SE-10: by the operator only, once, and then it can be paid anew."""
    ledger.refused.add("us")
    node = await owing(nodes, ledger)
    await isthmus("settle", "bob", "5", "--data", data(node))
    told = await node.until("settlement_failed", account="bob")
    assert "isthmus settlements reverse" in told["remedy"]
    (failed,) = (await listed(node))["settlements"]
    assert (failed["state"], failed["amount"], failed["number"]) == ("failed", str(5 * USD), "1")
    table = (await isthmus("settlements", "list", "--data", data(node))).stdout
    assert "failed" in table and "the ledger refuses it for good" in table
    stopped = await isthmus("settle", "bob", "1", "--data", data(node))
    assert "settlement 1 has failed, and waits for its reversal" in stopped.stderr
    for _ in range(2):
        done = await isthmus(
            "settlements",
            "reverse",
            "bob",
            "1",
            "--note",
            "their account is closed",
            "--key",
            "r",
            "--data",
            data(node),
        )
        assert done.stdout == "Reversed by the running node: 5 USD are owed to bob again. Key: r\n", done.stderr
    assert (await node.balances())["bob"] == -5 * USD
    ledger.refused.clear()
    await isthmus("settle", "bob", "5", "--data", data(node))
    await node.until("settlement_confirmed", account="bob", number=2)
    assert ledger.sent("us") == 5 * USD


@pytest.mark.slow
async def test_one_under_way_is_taken_back_only_by_who_is_certain(nodes: Nodes, ledger: ToyLedger) -> None:
    ledger.is_down = True
    node = await owing(nodes, ledger)
    await isthmus("settle", "bob", "5", "--data", data(node))
    await ledger.until(lambda: ledger.attempts)
    reverse = ["settlements", "reverse", "bob", "1", "--note", "sure", "--data", str(data(node))]
    done = await isthmus(*reverse)
    assert done.returncode == 1
    assert "its engine has not said that it failed; paid all the same, it would be paid twice" in done.stderr
    done = await isthmus(*reverse, "--certain")
    assert done.returncode == 0, done.stderr
    assert (await node.balances())["bob"] == -5 * USD
    await node.kill()


@pytest.mark.slow
async def test_a_stopped_node_is_listed_from_its_journal(nodes: Nodes, ledger: ToyLedger) -> None:
    """Also one that was killed, which left word of where it listened."""
    ledger.is_down = True
    node = await owing(nodes, ledger)
    await isthmus("settle", "bob", "5", "--data", data(node))
    await ledger.until(lambda: ledger.attempts)
    running = await listed(node)
    (one,) = running["engines"]
    assert (one["name"], one["works"], one["accounts"][0]["says"]["holder"]) == ("bank", True, "us")
    await node.kill()
    killed = await isthmus("settlements", "list", "--data", data(node), "--json")
    assert "What follows is from its journal" in killed.stderr
    found = json.loads(killed.stdout)
    assert [one["state"] for one in found["settlements"]] == ["taken"]
    assert found["recent"] == running["recent"]
    assert found["engines"] == []


async def test_the_api_needs_the_token_and_tells_problems(node: NodeProcess) -> None:
    assert (await node.get("/settlements", token=None))[0] == 401
    assert (await post(node, "/accounts/bob/settle", {"key": "k"}, token=None))[0] == 401
    for path, body, status in (
        ("/accounts/bob/settle", {}, 400),
        ("/accounts/bob/settle", {"key": "k", "amount": 5}, 400),
        ("/accounts/bob/settle", {"key": "k", "amount": "-5"}, 400),
        ("/accounts/bob/settle", {"key": "k", "to": "x"}, 400),
        ("/accounts/carol/settle", {"key": "k"}, 404),
        ("/accounts/alice/settle", {"key": "k"}, 409),
        ("/accounts/bob/settlement", {"key": "k", "note": "x"}, 400),
        ("/accounts/bob/reverse-settlement", {"key": "k", "note": "x", "number": "3"}, 409),
    ):
        found, problem = await post(node, path, body)
        assert (found, problem["status"]) == (status, status), (path, body, problem)


async def test_metrics_tell_of_settlements(node: NodeProcess) -> None:
    await isthmus("settle", "bob", "5", "--data", data(node))
    await node.until("settlement_confirmed", account="bob")
    _, _, body = await node.get("/metrics")
    lines = body.decode().splitlines()
    for line in (
        'isthmus_settlements_total{account="bob",event="begun"} 1.0',
        'isthmus_settlements_total{account="bob",event="confirmed"} 1.0',
        'isthmus_settlements_open{account="bob",state="taken"} 0.0',
        'isthmus_settlement_oldest_seconds{account="bob"} 0.0',
        'isthmus_settled{account="bob",asset="USD",scale="9"} -5000000000.0',
        "isthmus_settlement_seconds_count 1.0",
        'isthmus_engine_works{engine="bank"} 1.0',
        'isthmus_engine_alarms_total{engine="bank"} 0.0',
    ):
        assert line in lines, [each for each in lines if "settle" in each or "engine" in each]


@pytest.mark.slow
async def test_accounts_get_and_change_their_settlement_at_run_time(nodes: Nodes, ledger: ToyLedger) -> None:
    node = await owing(nodes, ledger)
    where = ["--data", str(data(node))]
    add = ["accounts", "add", "carol", "--asset", "USD", "--scale", "9", "--relation", "peer", "--receivable", "1"]
    refused = await isthmus(*add, *where, "--settlement", "engine=gold")
    assert refused.returncode == 2
    assert "accounts.carol.settlement.engine: there is no engine 'gold'. Engines: bank" in refused.stderr
    done = await isthmus(*add, *where, "--settlement", "engine=bank", "--settlement", "holder=carol")
    assert done.returncode == 0, done.stderr
    (says,) = [one for one in (await listed(node))["engines"][0]["accounts"] if one["account"] == "carol"]
    assert says["says"]["holder"] == "us"
    # From a threshold that is set now, what is owed already is settled.
    done = await isthmus(
        "accounts", "change", "bob", *where, "--settlement", "threshold=4", "--settlement", "target=-1"
    )
    assert done.returncode == 0, done.stderr
    await node.until("settlement_confirmed", account="bob")
    assert ledger.sent("us") == 6 * USD
    # Its engine has seen transfers, and keeps how far: no other engine would go on from there.
    file = node.file.read_text()
    assert await node.stop() == 0
    till = engine(ledger, "us").replace("settlement.bank", "settlement.till")
    node.file.write_text(file.replace('engine = "bank"', 'engine = "till"') + till)
    stopped = await isthmus("node", "run", node.file)
    assert stopped.returncode == 2
    assert "the engine bank has channels or payments" in stopped.stderr


@pytest.mark.slow
async def test_an_account_that_was_settled_is_removed_once_nothing_of_it_is_open(
    nodes: Nodes, ledger: ToyLedger
) -> None:
    """What the engine keeps goes with it, in the journal, which replays; added again it begins with nothing of it."""
    node = await owing(nodes, ledger)
    where = ["--data", str(data(node))]
    ledger.gate.clear()
    assert (await isthmus("settle", "bob", *where)).returncode == 0
    await ledger.until(lambda: ledger.attempts)
    refused = await isthmus("accounts", "remove", "bob", "--with-routes", *where)
    assert refused.returncode == 1
    assert "1 transfers are under way: wait; 1 settlements are under way" in refused.stderr
    ledger.gate.set()
    await node.until("settlement_confirmed", account="bob")
    done = await isthmus("accounts", "remove", "bob", "--with-routes", "--drain", *where)
    assert done.returncode == 0, done.stderr
    assert (await node.accounts())["bob"]["link"] == "closed"
    add = ["accounts", "add", "bob", "--asset", "USD", "--scale", "9", "--relation", "peer", "--receivable", "9"]
    terms = ["--settlement", "engine=bank", "--settlement", "holder=bob", "--settlement", "ahead_max=2"]
    done = await isthmus(*add, *terms, *where)
    assert done.returncode == 0, done.stderr
    assert (await isthmus("settle", "bob", "1", *where)).returncode == 0
    await node.until("settlement_confirmed", account="bob", number=2)
    assert [one["amount"] for one in ledger.transfers] == [str(5 * USD), str(USD)]
    assert await node.stop() == 0
    verified = await isthmus("books", "verify", data(node), token=None)
    assert verified.returncode == 0, verified.stderr


@pytest.mark.slow
async def test_an_account_changes_its_engine_once_nothing_of_it_is_open(nodes: Nodes, ledger: ToyLedger) -> None:
    till = engine(ledger, "us").replace("settlement.bank", "settlement.till")
    node = await nodes.run(text(ledger) + till, wrapper=WRAPPER)
    where = ["--data", str(data(node))]
    ledger.gate.clear()
    assert (await isthmus("settle", "bob", "1", *where)).returncode == 0
    await ledger.until(lambda: ledger.attempts)
    change = ["accounts", "change", "bob", "--settlement", "engine=till", *where]
    refused = await isthmus(*change)
    assert refused.returncode == 1
    assert "can't leave its settlement engine: 1 transfers are under way: wait" in refused.stderr
    ledger.gate.set()
    await node.until("settlement_confirmed", account="bob")
    done = await isthmus(*change)
    assert done.returncode == 0, done.stderr
    engines = {one["name"]: one for one in (await listed(node))["engines"]}
    assert [one["account"] for one in engines["till"]["accounts"]] == ["bob"]
    assert engines["bank"]["accounts"] == []
