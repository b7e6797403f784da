"""Corrections of a running node's books: by its admin API, and by the commands that ask it."""

import json
import subprocess
from typing import Any

import aiohttp
import pytest

from isthmus.connector.events import Outbound
from isthmus.ilp.outcomes import OutcomesReport, encode_report
from isthmus.ilp.packet import Fulfill, Reject
from tests.node.commands import command

ADMIN_TOKEN = "admin-token-of-the-node-tests-0123456789"
REPORT_ID = 2**31


async def post(node: Any, path: str, body: Any, *, token: str | None = ADMIN_TOKEN) -> tuple[int, dict[str, Any]]:
    """Status and object of an answer; `body` as JSON, or bytes as they are."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session,
        session.post(node.listening["admin"] + path, data=data, headers=headers) as response,
    ):
        if response.status >= 400:
            assert response.content_type == "application/problem+json"
        return response.status, json.loads(await response.read())


async def books(*arguments: str, token: str | None = None) -> subprocess.CompletedProcess[str]:
    """`isthmus books …` beside the node."""
    return await command("books", *arguments, token=token)


@pytest.fixture
async def lossy(nodes: Any, config: Any, peer: Any) -> Any:
    """A node to which alice may owe 700, and alice, who voided 700 that it had fulfilled."""
    limits = {"receivable": "0.0000007"}
    node = await nodes.run(config.toml(config.account("alice", **limits), config.account("bob")))
    alice, _ = await peer(node, "alice"), await peer(node, "bob", fulfils=True)
    assert isinstance(await alice.pay("test.node.bob.x", 700), Fulfill)
    report = encode_report(OutcomesReport(alice.session, 1, [1], [], []), 2_000_000_000_000)
    assert alice.link is not None
    alice.link.write([Outbound(alice.session, REPORT_ID, report)])
    await alice.until(lambda: any(one.request_id == REPORT_ID for one in alice.packets))
    return node, alice


async def test_a_loss_is_written_off_and_its_limit_is_free(lossy: Any) -> None:
    """Issue 4, part 1."""
    node, alice = lossy
    accounts = await node.accounts()
    assert (accounts["alice"]["loss"], accounts["alice"]["balance"]) == ("700", "0")
    assert accounts["alice"]["takes_reports"] in ("no", "unknown")
    refused = await alice.pay("test.node.bob.x", 1)
    assert isinstance(refused, Reject) and refused.code == "T04"
    body = {"note": "agreed by phone", "key": "first"}
    booked = {"account": "alice", "kind": "write-off", "amount": "700", "key": "first"}
    assert await post(node, "/accounts/alice/write-off", body) == (200, booked)
    assert await post(node, "/accounts/alice/write-off", body) == (200, booked)
    assert (await node.accounts())["alice"]["loss"] == "0"
    assert isinstance(await alice.pay("test.node.bob.x", 700), Fulfill)
    # The same answer of the next process, and replay gives what the node had.
    _, _, told = await node.get("/books/digest")
    digest = json.loads(told)
    await node.kill()
    done = await books(
        "verify", str(node.folder / "data"), "--at", str(digest["sequence"]), "--digest", digest["digest"]
    )
    assert done.returncode == 0, done.stderr


async def test_what_a_peer_wont_acknowledge_is_given_up(nodes: Any, config: Any, peer: Any) -> None:
    """By the API and by the command, which ask the running node; once for its key."""
    node = await nodes.run(config.toml(config.account("alice"), config.account("bob")))
    alice, _ = await peer(node, "alice"), await peer(node, "bob", fulfils=True)
    for _ in range(2):
        assert isinstance(await alice.pay("test.node.bob.x", 700), Fulfill)
    assert alice.link is not None
    await alice.link.close()
    assert (await node.accounts())["alice"]["fulfilled_unacknowledged"] == "1400"
    body = {"note": "gone for good", "key": "first"}
    given_up = {"account": "alice", "kind": "give-up", "amount": "1400", "key": "first"}
    assert await post(node, "/accounts/alice/give-up", body) == (200, given_up)
    assert await post(node, "/accounts/alice/give-up", body) == (200, given_up)
    shown = (await node.accounts())["alice"]
    assert (shown["fulfilled_unacknowledged"], shown["at_risk"], shown["balance"]) == ("0", "1400", "1400")
    status, problem = await post(node, "/accounts/alice/give-up", {**body, "amount": "1"})
    assert status == 400 and "give note and key" in problem["detail"]
    data = str(node.folder / "data")
    done = await books("give-up", data, "alice", "--note", "x", "--key", "first", token=ADMIN_TOKEN)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "Given up by the running node: alice, 0.0000014 USD at risk. Key: first\n"
    done = await books("give-up", data, "bob", "--note", "x", token=ADMIN_TOKEN)
    assert done.returncode == 1 and "nothing is kept for this peer" in done.stderr


async def test_the_key_is_known_after_a_restart(lossy: Any, nodes: Any) -> None:
    node, _ = lossy
    body = {"note": "half", "key": "k", "amount": "350"}
    _, booked = await post(node, "/accounts/alice/write-off", body)
    text = node.file.read_text()
    await node.kill()
    again = await nodes.run(text, folder=node.folder)
    assert await post(again, "/accounts/alice/write-off", body) == (200, booked)
    assert (await again.accounts())["alice"]["loss"] == "350"
    status, problem = await post(again, "/accounts/alice/write-off", {**body, "amount": "351"})
    assert (status, problem["title"]) == (409, "Conflict") and "used for another correction" in problem["detail"]


async def test_a_balance_is_adjusted_either_way(nodes: Any, two: str) -> None:
    node = await nodes.run(two)
    huge = 2**64 + 1
    for key, amount in (("a", huge), ("b", -1)):
        status, booked = await post(node, "/accounts/bob/adjust", {"amount": str(amount), "note": "why", "key": key})
        assert (status, booked["amount"]) == (200, str(amount))
    assert (await node.balances())["bob"] == huge - 1
    shown = json.loads((await books("show", str(node.folder / "data"), "--json")).stdout)
    assert [(one["kind"], one["amount"], one["text"]) for one in shown["singles"]] == [
        ("adjustment", str(huge), "why"),
        ("adjustment", "-1", "why"),
    ]


async def test_requests_that_make_no_sense_are_problems(lossy: Any) -> None:
    """RFC 9457; nothing is booked by any of them."""
    node, _ = lossy
    good = {"note": "why", "key": "k"}
    write_off, adjust = "/accounts/alice/write-off", "/accounts/alice/adjust"
    cases: tuple[tuple[str, Any, int, str], ...] = (
        (write_off, b"", 400, "not JSON"),
        (write_off, b"[" * 4_000, 400, "not JSON"),
        (write_off, b"\xff", 400, ""),
        (write_off, [], 400, "not a JSON object"),
        (write_off, {"key": "k"}, 400, "note must say why"),
        (write_off, {"note": " ", "key": "k"}, 400, "note must say why"),
        (write_off, {"note": "\ud800", "key": "k"}, 400, "half a character"),
        (write_off, {"note": "why"}, 400, "key must be"),
        (write_off, {"note": "why", "key": "a b"}, 400, "key must be"),
        (write_off, {"note": "why", "key": "k" * 101}, 400, "key must be"),
        (write_off, {**good, "more": 1}, 400, "'more' is not known"),
        (write_off, {**good, "amount": 5}, 400, "a string of digits"),
        (write_off, {**good, "amount": "-5"}, 400, "wrong sign"),
        (write_off, {**good, "amount": "0"}, 400, "zero"),
        (write_off, {**good, "amount": "٣"}, 400, "a string of digits"),
        (write_off, {**good, "amount": "701"}, 409, "not above the loss of 700"),
        (write_off, {"note": "n" * 5_000, "key": "k"}, 413, ""),
        (adjust, good, 400, "a string of digits"),
        (adjust, {**good, "amount": str(2**256)}, 400, "too large"),
        ("/accounts/nobody/adjust", {**good, "amount": "1"}, 404, "no such account"),
        ("/accounts/bob/write-off", good, 409, "no loss"),
        ("/accounts/bob/forgive", good, 404, "POST on"),
    )
    before = (await node.get("/balances"))[2]
    for path, body, expected, says in cases:
        status, problem = await post(node, path, body)
        assert (status, problem["status"]) == (expected, expected), (body, problem)
        assert says in problem["detail"], problem
    assert (await node.get("/balances"))[2] == before  # losses too
    assert (await node.get(write_off))[0] == 405


async def test_corrections_always_need_a_token(nodes: Any, config: Any) -> None:
    """P-16: also where the API, on loopback, shows everything without one."""
    body = {"amount": "1", "note": "why", "key": "k"}
    node = await nodes.run(config.toml(config.account("alice")))
    for token in (None, "wrong"):
        assert (await post(node, "/accounts/alice/adjust", body, token=token))[0] == 401
    open_to_all = config.toml(config.account("alice")).replace(f'token = "{ADMIN_TOKEN}"\n', "", 1)
    node = await nodes.run(open_to_all)
    assert (await node.get("/accounts", token=None))[0] == 200
    for given in (None, ADMIN_TOKEN):
        status, problem = await post(node, "/accounts/alice/adjust", body, token=given)
        assert status == 403 and "configure admin.token" in problem["detail"]
    done = await books("adjust", str(node.folder / "data"), "alice", "1", "--owed", "to-us", "--note", "x", token="t")
    assert done.returncode == 2 and "configure admin.token" in done.stderr
    assert await node.balances() == {"alice": 0}


@pytest.mark.slow
async def test_the_commands_ask_the_running_node(lossy: Any) -> None:
    """With the token of the environment, or of the node's configuration."""
    node, _ = lossy
    data = str(node.folder / "data")
    options = ("--note", "agreed", "--key", "one", "--amount", "0.0000003")
    for _ in range(2):
        done = await books("write-off", data, "alice", *options, token=ADMIN_TOKEN)
        assert done.returncode == 0, done.stderr
        assert done.stdout == "Written off by the running node: 0.0000003 USD of alice. Key: one\n"
    assert (await node.accounts())["alice"]["loss"] == "400"
    done = await books(
        "adjust", data, "bob", "2.5", "--owed", "by-us", "--note", "x", "--json", "--config", str(node.file)
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["amount"] == str(-25 * 10**8)
    assert (await node.balances())["bob"] == -700 - 25 * 10**8
    for arguments, status, says in (
        (("write-off", data, "alice", "--note", "x"), 2, "Set ISTHMUS_ADMIN_TOKEN or give --config"),
        (("write-off", data, "bob", "--note", "x", "--config", str(node.file)), 1, "there is no loss to write off"),
    ):
        done = await books(*arguments)
        assert (done.returncode, done.stderr.count("\n")) == (status, 1)
        assert says in done.stderr
    done = await books("write-off", data, "alice", "--note", "x", token="wrong")
    assert done.returncode == 2 and ADMIN_TOKEN not in done.stderr
