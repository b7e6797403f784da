"""Accounts of a running node: added, changed, disabled and removed by the admin API, while packets pass."""

import asyncio
import json
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import aiohttp
import pytest

from isthmus.ilp.packet import Fulfill, Reject

ADMIN_TOKEN = "admin-token-of-the-node-tests-0123456789"


async def call(
    node: Any, method: str, path: str, body: Any = None, *, token: str | None = ADMIN_TOKEN
) -> tuple[int, dict[str, Any]]:
    """Status and object of an answer."""
    data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=120)) as session,
        session.request(method, node.listening["admin"] + path, data=data, headers=headers) as response,
    ):
        if response.status >= 400:
            assert response.content_type == "application/problem+json"
        return response.status, json.loads(await response.read())


def definition(config: Any, name: str, **more: Any) -> dict[str, Any]:
    """An account whose peer dials us."""
    return {
        "asset": "USD",
        "scale": 9,
        "relation": "child",
        "link": {"type": "btp-server", "token": config.token_of(name)},
        "limits": {"receivable": "1000", "payable": "1000"},
        **more,
    }


async def added(node: Any, config: Any, name: str, **more: Any) -> None:
    answer = await call(node, "PUT", f"/accounts/{name}", definition(config, name, **more))
    assert answer == (200, {"account": name, "changed": True})


async def test_an_added_account_is_served_at_once_and_after_a_kill(nodes: Any, config: Any, peer: Any) -> None:
    """Issue 5, part 3: the change is durable when it is answered."""
    text = config.toml(config.account("alice"))
    node = await nodes.run(text)
    await added(node, config, "bob")
    alice, bob = await peer(node, "alice"), await peer(node, "bob", fulfils=True)
    assert isinstance(await alice.pay("test.node.bob.x", 700), Fulfill)
    shown = await node.accounts()
    assert (shown["bob"]["source"], shown["alice"]["source"]) == ("run time", "file")
    await node.kill()
    again = await nodes.run(text, folder=node.folder)
    await bob.close()
    alice, _ = await peer(again, "alice"), await peer(again, "bob", fulfils=True)
    assert isinstance(await alice.pay("test.node.bob.x", 50), Fulfill)
    assert await again.balances() == {"alice": 750, "bob": -750}


async def test_payments_flow_while_accounts_come_change_and_go(nodes: Any, config: Any, peer: Any) -> None:
    """No packet between other accounts is lost, and none of their connections ends."""
    node = await nodes.run(config.toml(config.account("alice"), config.account("bob")))
    alice, bob = await peer(node, "alice"), await peer(node, "bob", fulfils=True)
    answers = []
    for turn in range(6):
        name = f"guest{turn}"
        for work in (
            added(node, config, name),
            call(node, "PATCH", f"/accounts/{name}", {"limits": {"receivable": str(turn)}}),
            call(node, "POST", f"/accounts/{name}/disable"),
            call(node, "POST", f"/accounts/{name}/enable"),
            call(node, "PATCH", "/accounts/alice", {"limits": {"packets_per_minute": 1_000_000 + turn}}),
            call(node, "PUT", "/routes/test.guest", {"account": name}),
            call(node, "DELETE", f"/accounts/{name}?with_routes=true"),
        ):
            answers += [alice.prepare("test.node.bob", 10) for _ in range(20)]
            answer = await work
            assert answer is None or answer[0] == 200, answer
    async with asyncio.timeout(60):
        assert all(isinstance(each, Fulfill) for each in await asyncio.gather(*answers))
    assert alice.is_up and bob.is_up
    assert not any(line["event"] == "btp.down" and line["account"] in ("alice", "bob") for line in node.log)
    balances = await node.balances()
    assert (balances["alice"], balances["bob"]) == (10 * len(answers), -10 * len(answers))


async def test_the_same_request_twice_changes_nothing_more(nodes: Any, config: Any, two: str) -> None:
    node = await nodes.run(two)
    await added(node, config, "carol")
    sequence = json.loads((await node.get("/health"))[2])["sequence"]
    for method, path, body in (
        ("PUT", "/accounts/carol", definition(config, "carol")),
        ("PATCH", "/accounts/carol", {"limits": {"receivable": "1000.0"}}),
        ("POST", "/accounts/carol/enable", None),
        ("PUT", "/accounts/alice", definition(config, "alice")),
        ("DELETE", "/routes/test.nowhere", None),
    ):
        status, answer = await call(node, method, path, body)
        assert (status, answer["changed"]) == (200, False), (path, answer)
    assert json.loads((await node.get("/health"))[2])["sequence"] == sequence
    assert (await call(node, "DELETE", "/accounts/carol"))[1]["changed"]
    assert await call(node, "DELETE", "/accounts/carol") == (200, {"account": "carol", "changed": False})


async def test_refusals_say_what_and_why(nodes: Any, config: Any, two: str) -> None:
    """RFC 9457; and whatever is refused leaves nothing behind."""
    node = await nodes.run(two)
    before = (await node.get("/accounts"))[2]
    carol = definition(config, "carol")
    cases: list[tuple[str, str, Any, int, str]] = [
        ("PUT", "/accounts/carol", {**carol, "scale": "9"}, 400, "accounts.carol.scale"),
        ("PUT", "/accounts/carol", {**carol, "limits": {}}, 400, "accounts.carol.limits.receivable: missing"),
        ("PUT", "/accounts/carol", {**carol, "limits": {"recievable": "1"}}, 400, "Did you mean receivable?"),
        ("PUT", "/accounts/carol", {**carol, "spread": 0.1}, 400, "accounts.carol.spread"),
        ("PUT", "/accounts/carol", {**carol, "link": {"type": "btp-server"}}, 400, "token: missing"),
        ("PUT", "/accounts/carol", definition(config, "bob"), 400, "bob has the same token"),
        ("PUT", "/accounts/carol", {**carol, "link": {"type": "http", "incoming": {}}}, 400, "auth is missing"),
        (
            "PUT",
            "/accounts/carol",
            {**carol, "link": {"type": "btp-server", "token": {"file": "/etc/passwd"}}},
            400,
            "",
        ),
        ("PUT", "/accounts/ca.rol", carol, 400, "no name for an account"),
        ("PUT", "/accounts/carol", b"[]", 400, "not a JSON object"),
        ("PUT", "/accounts/carol", b"{", 400, "not JSON"),
        ("PUT", "/accounts/carol", {**carol, "segment": "bob"}, 400, "bob has the same address"),
        ("PUT", "/accounts/carol?now=1", carol, 400, "'now' is no parameter"),
        ("PUT", "/accounts/bob", {**definition(config, "bob"), "segment": "robert"}, 409, "with other terms"),
        ("PATCH", "/accounts/bob", {"asset": "EUR"}, 409, "for ever"),
        ("PATCH", "/accounts/carol", {"spread": "1 %"}, 404, "no account 'carol'"),
        ("PATCH", "/accounts/bob", {"limits": {"hold": "9 s", "margin": "9 s"}}, 400, "not below hold"),
        ("DELETE", "/accounts/carol", None, 404, "no account 'carol'"),
        ("DELETE", "/accounts/bob?drain=perhaps", None, 400, "drain is true or false"),
        ("PUT", "/routes/test.far", {"account": "carol"}, 400, "no account 'carol'"),
        ("PUT", "/routes/peer.x", {"account": "bob"}, 400, "never forwarded"),
        ("PUT", "/routes/te$t", {"account": "bob"}, 400, "no address prefix"),
        ("GET", "/routes?prefix=te..st", None, 400, "no address prefix"),
    ]
    for method, path, body, expected, says in cases:
        status, problem = await call(node, method, path, body)
        assert (status, problem["status"]) == (expected, expected), (path, problem)
        assert says in problem["detail"], problem
    assert (await node.get("/accounts"))[2] == before


async def test_changes_need_a_token_and_a_node_that_has_one(nodes: Any, config: Any, two: str) -> None:
    """P-16."""
    node = await nodes.run(two)
    for method, path in (("PUT", "/accounts/x"), ("DELETE", "/accounts/bob"), ("PUT", "/routes/test.x")):
        assert (await call(node, method, path, {}, token="wrong"))[0] == 401
    open_node = await nodes.run(two.replace(f'token = "{ADMIN_TOKEN}"\n', ""))
    status, problem = await call(open_node, "DELETE", "/accounts/bob", token=None)
    assert status == 403 and "admin.token" in problem["detail"]


async def test_an_account_with_a_balance_is_not_removed_and_says_what_to_do(
    nodes: Any, config: Any, two: str, peer: Any
) -> None:
    """CONN-2."""
    node = await nodes.run(two)
    alice, bob = await peer(node, "alice"), await peer(node, "bob")
    paid = alice.prepare("test.node.bob.x", 700)
    inbound = await bob.request()
    status, problem = await call(node, "DELETE", "/accounts/alice")
    assert status == 409 and problem["packets_in_flight"] == 1 and "in flight" in problem["detail"]
    bob.fulfil(inbound)
    assert isinstance(await paid, Fulfill)
    status, problem = await call(node, "DELETE", "/accounts/alice")
    assert status == 409 and problem["balance"] == "700"
    assert "0.0000007 USD are owed to us" in problem["detail"] and "adjust" in problem["detail"]
    assert isinstance(await alice.pay("test.elsewhere", 1), Reject)
    # The operator does it, and the account goes; its name keeps its asset.
    adjust = {"amount": "-700", "note": "paid in cash", "key": "cash"}
    assert (await call(node, "POST", "/accounts/alice/adjust", adjust))[0] == 200
    await alice.report()
    assert (await call(node, "DELETE", "/accounts/alice"))[1] == {"account": "alice", "changed": True}
    await alice.until(lambda: not alice.is_up)
    status, problem = await call(node, "PUT", "/accounts/alice", {**definition(config, "alice"), "asset": "EUR"})
    assert status == 409 and "USD with scale 9, for ever" in problem["detail"]
    await added(node, config, "alice")


async def test_a_drain_lets_packets_end_before_the_account_goes(nodes: Any, config: Any, two: str, peer: Any) -> None:
    node = await nodes.run(two)
    alice, bob = await peer(node, "alice"), await peer(node, "bob")
    paid = alice.prepare("test.node.bob.x", 0)
    inbound = await bob.request()
    removal = asyncio.create_task(call(node, "DELETE", "/accounts/bob?drain=true"))
    await node.until("set at run time", account="bob")
    refused = await alice.pay("test.node.bob.x", 1)
    assert isinstance(refused, Reject) and refused.code == "T01"
    back = await bob.pay("test.node.alice.x", 1)
    assert isinstance(back, Reject) and back.code == "T03"
    assert not removal.done()
    bob.fulfil(inbound)
    assert isinstance(await paid, Fulfill)
    assert await removal == (200, {"account": "bob", "changed": True})
    await bob.until(lambda: not bob.is_up)
    refused = await alice.pay("test.node.bob.x", 1)
    assert isinstance(refused, Reject) and refused.code == "F02"


async def test_a_drain_that_waiting_does_not_help_changes_nothing(nodes: Any, config: Any, two: str, peer: Any) -> None:
    """What is owed is owed after it too: the account goes on working."""
    node = await nodes.run(two)
    alice, _ = await peer(node, "alice"), await peer(node, "bob", fulfils=True)
    assert isinstance(await alice.pay("test.node.bob.x", 70), Fulfill)
    status, problem = await call(node, "DELETE", "/accounts/bob?drain=true")
    assert status == 409 and "owed by us" in problem["detail"] and "disabled" not in problem["detail"]
    assert (await node.accounts())["bob"]["enabled"] is True
    assert isinstance(await alice.pay("test.node.bob.x", 1), Fulfill)


async def test_a_drain_that_is_refused_afterwards_says_that_the_account_is_disabled(
    nodes: Any, config: Any, two: str, peer: Any
) -> None:
    node = await nodes.run(two)
    alice, bob = await peer(node, "alice"), await peer(node, "bob")
    paid = alice.prepare("test.node.bob.x", 70)
    inbound = await bob.request()
    removal = asyncio.create_task(call(node, "DELETE", "/accounts/bob?drain=true"))
    await node.until("set at run time", account="bob")
    bob.fulfil(inbound)
    assert isinstance(await paid, Fulfill)
    status, problem = await removal
    assert status == 409 and "owed by us" in problem["detail"]
    assert "It is disabled now: isthmus accounts enable bob" in problem["detail"]
    assert (await node.accounts())["bob"]["enabled"] is False


async def test_a_disabled_account_keeps_its_books_and_loses_its_link(
    nodes: Any, config: Any, two: str, peer: Any
) -> None:
    node = await nodes.run(two)
    alice, bob = await peer(node, "alice"), await peer(node, "bob", fulfils=True)
    assert isinstance(await alice.pay("test.node.bob.x", 70), Fulfill)
    assert (await call(node, "POST", "/accounts/bob/disable"))[1]["changed"]
    await bob.until(lambda: not bob.is_up)
    refused = await alice.pay("test.node.bob.x", 1)
    assert isinstance(refused, Reject) and refused.code == "T01"
    shown = (await node.accounts())["bob"]
    assert (shown["enabled"], shown["balance"], shown["source"]) == (False, "-70", "file, changed at run time")
    assert json.loads((await node.get("/health"))[2])["links_down"] == []
    await node.kill()
    again = await nodes.run(two, folder=node.folder)
    assert (await again.accounts())["bob"]["enabled"] is False
    alice = await peer(again, "alice")
    assert (await call(again, "POST", "/accounts/bob/enable"))[1]["changed"]
    await bob.close()
    await peer(again, "bob", fulfils=True)
    assert isinstance(await alice.pay("test.node.bob.x", 7), Fulfill)
    assert await again.balances() == {"alice": 77, "bob": -77}


async def test_a_changed_token_lets_the_old_one_in_no_more(
    nodes: Any, config: Any, two: str, peer: Any, raw: Any
) -> None:
    """The peer with the old one is sent away; a dialled peer is dialled with the new."""
    node = await nodes.run(two)
    bob = await peer(node, "bob")
    answer = await call(node, "PATCH", "/accounts/bob", {"link": {"token": "another-token-of-bob-0123456789"}})
    assert answer == (200, {"account": "bob", "changed": True})
    await bob.until(lambda: not bob.is_up)
    late = await raw(node)
    late.send_auth(config.token_of("bob"))
    await late.ended()
    early = await raw(node)
    early.send_auth("another-token-of-bob-0123456789")
    await node.until("btp.up", account="bob")


async def test_two_nodes_are_joined_while_they_run(nodes: Any, config: Any, peer: Any) -> None:
    """Each gets its side of the account at run time; routes too; a payment passes both."""
    one = await nodes.run(config.toml(config.account("alice"), address="test.one"))
    two = await nodes.run(config.toml(config.account("bob"), address="test.two"))
    await added(one, config, "two", relation="peer")
    link = {"type": "btp-client", "url": f"btp+ws://127.0.0.1:{one.port}", "token": config.token_of("two")}
    await added(two, config, "one", relation="peer", link=link)
    assert (await call(one, "PUT", "/routes/test.two", {"account": "two"}))[0] == 200
    alice, _ = await peer(one, "alice"), await peer(two, "bob", fulfils=True)
    await one.until("btp.up", account="two")
    assert isinstance(await alice.pay("test.two.bob.x", 30), Fulfill)
    status, shown = await call(one, "GET", "/routes?prefix=test.two.bob.x&why=true")
    assert status == 200 and shown["why"]["account"] == "two" and "run time" in shown["why"]["text"]
    assert shown["routes"] == [{"prefix": "test.two", "account": "two", "source": "run time"}]
    # Each has told the other what it reaches; the configured route is followed.
    async with asyncio.timeout(60):
        while True:
            _, learned = await call(two, "GET", "/routes?prefix=test.one.alice&why=true")
            if learned["routes"]:
                break
    assert learned["routes"][0]["source"] == "learned from one" and learned["why"]["account"] == "one"
    # Its other end moves, and is dialled there.
    assert (await call(two, "PATCH", "/accounts/one", {"link": {"url": f"btp+ws://localhost:{one.port}"}}))[0] == 200
    await one.until("btp.up", account="two")
    assert isinstance(await alice.pay("test.two.bob.x", 5), Fulfill)
    assert (await two.balances())["bob"] == -35


@pytest.mark.slow
async def test_concurrent_changes_all_hold(nodes: Any, config: Any, two: str) -> None:
    node = await nodes.run(two)
    names = [f"guest{number}" for number in range(12)]
    await asyncio.gather(*(added(node, config, name) for name in names))
    limits = [{"limits": {"in_flight": str(number)}} for number in range(1, 9)]
    answers = await asyncio.gather(*(call(node, "PATCH", "/accounts/alice", each) for each in limits))
    assert all(status == 200 for status, _ in answers)
    await node.kill()
    again = await nodes.run(two, folder=node.folder)
    assert set(await again.accounts()) == {"alice", "bob", *names}


SECRET = "a-secret-that-no-file-may-hold-0123456789"


async def test_the_journal_and_the_answers_hold_no_secret(nodes: Any, config: Any, two: str) -> None:
    """Tokens that are shown to us are hashes, those that we show are sealed; both work after a restart."""
    node = await nodes.run(two)
    url = f"btp+ws://carol:{SECRET}@127.0.0.1:{config.free_port()}"
    await added(node, config, "carol", relation="peer", link={"type": "btp-client", "url": url})
    await added(node, config, "dora", relation="peer", link={"type": "btp-server", "token": SECRET})
    change = {"link": {"type": "btp-client", "url": url.replace(f"carol:{SECRET}@", ""), "token": SECRET}}
    assert (await call(node, "PATCH", "/accounts/bob", change))[0] == 200
    for name in ("carol", "dora", "bob"):
        status, shown = await call(node, "GET", f"/accounts/{name}")
        assert status == 200 and SECRET not in json.dumps(shown)
    files = [each for each in (node.folder / "data").iterdir() if each.is_file()]
    assert not [each for each in files if SECRET.encode() in each.read_bytes()]
    key = node.folder / "data" / "settings.key"
    assert key.stat().st_mode & 0o777 == 0o600
    assert sha256(SECRET.encode()).hexdigest() in json.dumps((await call(node, "GET", "/accounts/dora"))[1])
    assert SECRET not in "\n".join(node.lines)
    assert await node.stop() == 0
    again = await nodes.run(two, folder=node.folder)
    assert await again.stop() == 0
    key.unlink()
    lost = await nodes.launch(two, folder=node.folder)
    assert await lost.exit_code() == 2
    assert "settings.key" in lost.lines[-1] and "Put the right file back" in lost.lines[-1]


@pytest.fixture
def limited(config: Any) -> Callable[..., str]:
    """The file with a limit of alice, or without her."""

    def text(receivable: str | None = "1000", *, rest: str = "") -> str:
        accounts = [config.account("bob")]
        if receivable is not None:
            accounts.append(config.account("alice", receivable=receivable))
        return str(config.toml(*accounts, rest=rest))

    return text


async def limit(node: Any) -> tuple[str, str]:
    shown = (await node.accounts())["alice"]
    return shown["receivable_max"], shown["source"]


async def test_what_was_set_at_run_time_holds_until_its_section_of_the_file_changes(
    nodes: Any, limited: Callable[..., str]
) -> None:
    """One rule, over reloads and restarts; the other sections of the file don't matter, nor its form."""
    node = await nodes.run(limited())
    assert (await call(node, "PATCH", "/accounts/alice", {"limits": {"receivable": "5"}}))[0] == 200
    changed = (str(5 * 10**9), "file, changed at run time")
    assert await limit(node) == changed
    assert (await node.reload("# a comment\n" + limited(rest="[log]").replace("[log]", "")))["event"] == (
        "configuration reloaded"
    )
    assert await limit(node) == changed
    assert await node.stop() == 0
    node = await nodes.run(limited(), folder=node.folder)
    assert await limit(node) == changed
    assert (await node.reload(limited("70")))["event"] == "configuration reloaded"
    assert await limit(node) == (str(70 * 10**9), "file")
    assert any(line["event"] == "the file wins over run time" and line["item"] == "accounts.alice" for line in node.log)
    # Back to the old file: what was set is not resurrected.
    assert (await node.reload(limited()))["event"] == "configuration reloaded"
    assert await limit(node) == (str(1000 * 10**9), "file")
    assert await node.stop() == 0


@pytest.mark.slow
async def test_a_file_that_changed_while_the_node_was_down_wins_too(
    nodes: Any, config: Any, limited: Callable[..., str]
) -> None:
    node = await nodes.run(limited(None))
    await added(node, config, "alice", limits={"receivable": "5"})
    assert (await call(node, "DELETE", "/accounts/bob"))[0] == 200
    assert await node.stop() == 0
    node = await nodes.run(limited("70"), folder=node.folder)
    assert await limit(node) == (str(70 * 10**9), "file")
    assert "bob" not in await node.accounts()
    assert await node.stop() == 0
    again = await nodes.run(limited("70").replace('relation = "child"', 'relation = "peer"'), folder=node.folder)
    assert (await again.accounts())["bob"]["source"] == "file"


@pytest.mark.slow
@pytest.mark.parametrize("answered", [0, 3, 7])
async def test_what_was_answered_before_a_kill_holds_after_it(
    nodes: Any, config: Any, two: str, peer: Any, answered: int
) -> None:
    """Changes go on while the process is killed: none that was answered is lost, and none is there by half."""
    node = await nodes.run(two)
    alice, _ = await peer(node, "alice"), await peer(node, "bob", fulfils=True)
    done: list[str] = []
    reached = asyncio.Event()

    async def change(number: int) -> None:
        name = f"guest{number}"
        await added(node, config, name, relation="peer", limits={"receivable": str(number)})
        assert (await call(node, "PUT", f"/routes/test.{name}", {"account": name}))[0] == 200
        done.append(name)
        if len(done) > answered:
            reached.set()

    work = [asyncio.create_task(change(number)) for number in range(12)]
    paid = [alice.prepare("test.node.bob", 10) for _ in range(50)]
    async with asyncio.timeout(60):
        await reached.wait()
    known = list(done)
    await node.kill()
    await asyncio.gather(*work, return_exceptions=True)
    for each in paid:
        each.cancel()
    again = await nodes.run(two, folder=node.folder)
    accounts = await again.accounts()
    _, found = await call(again, "GET", "/routes")
    routes = {each["prefix"]: each["account"] for each in found["routes"]}
    assert set(known) <= set(accounts) and {f"test.{name}" for name in known} <= set(routes)
    for name in set(accounts) - {"alice", "bob"}:
        assert accounts[name]["receivable_max"] == str(int(name[5:]) * 10**9)
    assert all(account in accounts for account in routes.values())
    assert accounts["alice"]["balance"] == str(-int(accounts["bob"]["balance"]))
