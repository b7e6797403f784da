"""Nodes become neighbours while they run: by an invitation, and as children by asking."""

import asyncio
import json
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from isthmus.ilp.packet import Fulfill
from isthmus.links.throttle import FAILURES_MAX
from tests.node import commands

TOKEN = {"Authorization": "Bearer admin-token-of-the-node-tests-0123456789"}
CHILDREN = '[join]\nchildren = true\nchildren_max = 2\nasset = "USD"\nscale = 9\nreceivable = "5"\n'
TERMS = {"asset": "USD", "scale": 9}
HASHES = [sha256(bytes([number])).hexdigest() for number in range(4)]


command = partial(commands.command, timeout_s=90)  # some wait for a link


def place(node: Any) -> str:
    """The origin of a node's HTTP listener."""
    return str(node.listening["http"]).rpartition("/")[0]


async def ask(node: Any, body: Any) -> tuple[int, dict[str, Any]]:
    """Status and object of an answer to a stranger."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session,
        session.post(f"{place(node)}/join", data=data) as response,
    ):
        return response.status, json.loads(await response.read())


async def invite(node: Any, name: str = "bob", **fields: Any) -> str:
    """A fresh invitation's secret."""
    definition = {**TERMS, "relation": "peer", "limits": {"receivable": "10"}}
    body = {"account": name, "definition": definition, **fields}
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60), headers=TOKEN) as session,
        session.post(node.listening["admin"] + "/invitations", json=body) as response,
    ):
        found = await response.json()
        assert response.status == 200, found
    assert found["invitation"].startswith(f"{place(node)}/join#")
    return str(found["invitation"].partition("#")[2])


@pytest.fixture
async def hub(nodes: Any, config: Any) -> Any:
    """A node with the child alice that takes two more children in all."""
    return await nodes.run(config.toml(config.account("alice"), address="test.hub", http=0, rest=CHILDREN))


@pytest.mark.slow
async def test_an_invitation_completes_both_sides_and_they_pay_each_other(
    nodes: Any, config: Any, hub: Any, peer: Any
) -> None:
    """Issue 5, part 5: checks and a ping; the invitation is good once."""
    other = await nodes.run(config.toml(config.account("carol"), address="test.other"))
    terms = ("--asset", "USD", "--scale", "9", "--receivable", "10")
    made = await command("peer", "invite", "other", *terms, "--config", hub.file)
    assert made.returncode == 0, made.stderr
    (invitation,) = (line.strip() for line in made.stdout.splitlines() if "/join#" in line)
    accept = ("peer", "accept", "-", "--receivable", "10", "--config", other.file)
    wrong = await command(*accept, "--asset", "EUR", stdin=invitation)
    assert wrong.returncode == 2 and "USD with scale 9" in wrong.stderr
    done = await command(*accept, "--scale", "9", stdin=invitation)
    assert done.returncode == 0, done.stderr
    assert "Account hub: USD, scale 9" in done.stdout and "test.hub is a peer, and answered a ping" in done.stdout
    again = await command(*accept, "--name", "twice", stdin=invitation)
    assert again.returncode == 2 and "used already. Ask for another one" in again.stderr
    assert "twice" not in await other.accounts()
    secret = invitation.partition("#")[2]
    for node in (hub, other):
        assert secret not in "\n".join(node.lines)
        files = [one for one in (node.folder / "data").iterdir() if one.is_file()]
        assert not [one for one in files if secret.encode() in one.read_bytes()]
    for node, prefix, name in ((hub, "test.other", "other"), (other, "test.hub", "hub")):
        assert (await command("routes", "add", prefix, name, "--config", node.file)).returncode == 0
    alice, _ = await peer(hub, "alice"), await peer(other, "carol", fulfils=True)
    assert isinstance(await alice.pay("test.other.carol.x", 700), Fulfill)
    ponged = await command("accounts", "ping", "hub", "--config", other.file)
    assert ponged.returncode == 0 and "hub answered in" in ponged.stdout
    # Both sides are there after a kill.
    await other.kill()
    after = await nodes.run(config.toml(config.account("carol"), address="test.other"), folder=other.folder)
    await after.until("btp.up", account="hub")
    assert (await after.balances())["hub"] == 700


async def test_a_node_joins_a_parent_in_one_step(nodes: Any, config: Any, peer: Any) -> None:
    """Account, address, default route and ping; the parent's terms are the operator's."""
    rest = CHILDREN.replace("children_max = 2", "children_max = 3")
    hub = await nodes.run(config.toml(config.account("alice"), address="test.hub", http=0, rest=rest))
    child = await nodes.run(config.toml(config.account("bob"), address="from parent"))
    done = await command("node", "join", place(hub), "--receivable", "3", "--json", "--config", child.file)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    (name,) = (each for each in await hub.accounts() if each.startswith("child-"))
    assert (found["account"], found["relation"], found["address"]) == ("parent", "parent", f"test.hub.{name}")
    assert (found["default_route"], found["their_address"]) == ("parent", "test.hub")
    assert (await hub.accounts())[name]["receivable_max"] == str(5 * 10**9)
    alice, bob = await peer(hub, "alice", fulfils=True), await peer(child, "bob", fulfils=True)
    assert isinstance(await alice.pay(f"test.hub.{name}.bob.x", 20), Fulfill)
    assert isinstance(await bob.pay("test.hub.alice.x", 5), Fulfill)
    # A second parent is refused before the other side hears of it.
    again = await command("node", "join", place(hub), "--receivable", "3", "--name", "p2", "--config", child.file)
    assert again.returncode == 2 and "parent already" in again.stderr
    assert len(await hub.accounts()) == 2


@pytest.mark.slow
async def test_who_joins_with_an_address_of_its_own_is_told_what_that_means(
    nodes: Any, config: Any, hub: Any, tmp_path: Path
) -> None:
    other = await nodes.run(config.toml(config.account("carol"), address="test.other"))
    done = await command("node", "join", place(hub), "--receivable", "3", "--config", other.file)
    assert done.returncode == 0, done.stderr
    assert "That isn't below test.hub, so nothing comes to us by it, unless they take our routes" in done.stdout
    # With what it says, the parent does.
    (told,) = (line for line in done.stdout.splitlines() if "routes = {" in line)
    (tmp_path / "routes.toml").write_text("routes = {" + told.partition("routes = {")[2].partition("}")[0] + "}\n")
    (name,) = (each for each in await hub.accounts() if each.startswith("child-"))
    changed = await command("accounts", "change", name, "--from", tmp_path / "routes.toml", "--config", hub.file)
    assert changed.returncode == 0, changed.stderr
    await hub.until("routes_learned", account=name)
    assert any(each["prefix"] == "test.other" for each in json.loads((await hub.get("/routes"))[2])["routes"])


class Forgetful:
    """A way to a node on which the answers to agreements get lost, a given number of times."""

    def __init__(self, node: Any, *, lost: int) -> None:
        self.node = node
        self.lost = lost

    async def pass_on(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        status, answer = await ask(self.node, body)
        if not body.get("look") and self.lost > 0:
            self.lost -= 1
            assert request.transport is not None
            request.transport.close()
        return web.json_response(answer, status=status)


@pytest.mark.parametrize(("lost", "status"), [(2, 0), (3, 1)])
async def test_an_agreement_whose_answer_was_lost_is_asked_for_again(
    nodes: Any, config: Any, hub: Any, lost: int, status: int
) -> None:
    """And if none comes at all, nothing of it works at our side, and the line says what may be left at the other."""
    secret = await invite(hub)
    other = await nodes.run(config.toml(config.account("carol"), address="test.other"))
    app = web.Application()
    app.router.add_post("/join", Forgetful(hub, lost=lost).pass_on)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    invitation = f"http://127.0.0.1:{runner.addresses[0][1]}/join#{secret}"
    done = await command("peer", "accept", "-", "--receivable", "1", "--config", other.file, stdin=invitation)
    await runner.cleanup()
    assert done.returncode == status, done.stderr
    assert ("to be removed there" in done.stderr) == bool(status)
    assert (await other.accounts())["hub"]["source"] == ("removed" if status else "run time")


async def test_strangers_get_what_the_operator_allows(nodes: Any, config: Any) -> None:
    """Off by default; and two at once can't both be the last child."""
    closed = await nodes.run(config.toml(config.account("alice"), http=0))
    status, problem = await ask(closed, {"look": True})
    assert status == 403 and "by invitation only" in problem["detail"]
    hub = await nodes.run(config.toml(config.account("alice"), address="test.hub", http=0, rest=CHILDREN))
    assert (await ask(hub, {"look": True}))[1]["we_are_your"] == "parent"
    first = {**TERMS, "token_sha256": HASHES[0]}
    assert (await ask(hub, first))[0] == 200
    assert (await ask(hub, first))[0] == 200, "the same again: its answer may have been lost"
    status, problem = await ask(hub, {**TERMS, "token_sha256": HASHES[1]})
    assert status == 409 and "as many children" in problem["detail"]
    assert (await ask(hub, {"look": True}))[0] == 409, "nobody begins what can't end"
    assert len(await hub.accounts()) == 2


async def test_what_makes_no_sense_is_refused_and_guesses_are_throttled(hub: Any) -> None:
    """P-16."""
    secret = await invite(hub)
    cases: list[tuple[Any, int, str]] = [
        (b"{", 400, "not JSON"),
        (b"[]", 400, "not a JSON object"),
        (b"\xff", 400, "could not be read"),
        (b" " * 5_000, 413, "longer"),
        ({"secret": secret, "more": 1}, 400, "'more' is not known"),
        ({"secret": secret, **TERMS, "scale": 8, "token_sha256": HASHES[0]}, 409, "USD with scale 9"),
        ({"secret": secret, **TERMS}, 400, "token_sha256"),
        ({"secret": secret, **TERMS, "token_sha256": HASHES[0].upper()}, 400, "token_sha256"),
        ({"secret": 5, **TERMS}, 404, "no such invitation"),
    ]
    for body, expected, says in cases:
        status, problem = await ask(hub, body)
        assert status == expected and says in problem["detail"], (body, problem)
    statuses = [(await ask(hub, {"secret": f"guess {number}"}))[0] for number in range(FAILURES_MAX + 1)]
    assert statuses[0] == 404 and statuses[-1] == 429
    assert "bob" not in await hub.accounts()


@pytest.mark.slow
async def test_an_invitation_is_used_once_also_when_two_come_together(nodes: Any, config: Any, hub: Any) -> None:
    """And it ends with its time, and holds over a restart."""
    secret = await invite(hub)
    asked = [{"secret": secret, **TERMS, "token_sha256": each} for each in HASHES]
    answers = await asyncio.gather(*(ask(hub, body) for body in asked))
    assert sorted(status for status, _ in answers) == [200, 410, 410, 410]
    winner = asked[[status for status, _ in answers].index(200)]
    assert (await ask(hub, winner))[0] == 200
    later = await invite(hub, "later")
    await hub.kill()
    text = config.toml(config.account("alice"), address="test.hub", http=0, rest=CHILDREN)
    again = await nodes.run(text, folder=hub.folder)
    assert (await ask(again, {"secret": later, "look": True}))[1]["we_are_your"] == "peer"
    assert (await ask(again, {"secret": later, **TERMS, "token_sha256": HASHES[0]}))[0] in (400, 409)
    assert (await ask(again, {"secret": later, **TERMS, "token_sha256": "a" * 64}))[0] == 200
    assert {"bob", "later"} <= set(await again.accounts())


@pytest.mark.slow
async def test_the_operators_side_of_bad_invitations(nodes: Any, config: Any, hub: Any) -> None:
    at = ("--asset", "USD", "--scale", "9", "--receivable", "1", "--config", hub.file)
    cases = [
        (("peer", "invite", "alice", *at), 1, "There is an account 'alice'"),
        (("peer", "invite", "b.o.b", *at), 2, "no name for an account"),
        (("peer", "invite", "bob", *at, "--expires", "soon"), 2, "--expires soon"),
        (("peer", "invite", "bob", *at, "--expires", "99d"), 2, "life_s"),
        (("peer", "invite", "bob", *at, "--hold", "1 year"), 2, "accounts.bob.limits.hold"),
        (("peer", "accept", "https://hub.example/join", "--config", hub.file), 2, "no secret"),
        (("peer", "accept", f"{place(hub)}/join#nonsense", "--config", hub.file), 2, "no such invitation"),
        (("peer", "accept", "hub.example", "--config", hub.file), 2, "no node's URL"),
        (("peer", "accept", "http://hub.example/join#x", "--config", hub.file), 2, "shows everything"),
        (("node", "join", "http://127.0.0.1:1", "--config", hub.file), 1, "Connection refused. Look at the URL"),
        (("node", "join", hub.listening["admin"], "--config", hub.file), 2, "its HTTP listener"),
        (("node", "join", f"http://{hub.listening['btp']}", "--config", hub.file), 2, "its HTTP listener"),
    ]
    for arguments, status, says in cases:
        done = await command(*arguments)
        assert done.returncode == status and says in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert {one["source"] for one in (await hub.accounts()).values()} == {"file"}, "nothing half done"
    no_http = await nodes.run(config.toml(config.account("alice")))
    done = await command("peer", "invite", "bob", *at[:-1], no_http.file)
    assert done.returncode == 1 and "no HTTP listener" in done.stderr


@pytest.mark.slow
async def test_invitations_are_listed_and_revoked(nodes: Any, config: Any, hub: Any) -> None:
    """One that was used is an account. What was revoked stays so over a kill."""
    at = ("--config", hub.file)
    assert (await command("peer", "invitations", "list", *at)).stdout == "No invitations.\n"
    secrets = {name: await invite(hub, name, life_s=life_s) for name, life_s in (("bob", 60), ("carol", 120))}
    listed = await command("peer", "invitations", "list", "--json", *at)
    found = json.loads(listed.stdout)["invitations"]
    assert [(one["account"], one["state"], one["relation"], one["asset"]) for one in found] == [
        ("bob", "open", "peer", "USD"),
        ("carol", "open", "peer", "USD"),
    ]
    assert found[0]["id"] == sha256(secrets["bob"].encode()).hexdigest()[:16]
    assert not any(secret in listed.stdout for secret in secrets.values())

    assert (await ask(hub, {"secret": secrets["carol"], **TERMS, "token_sha256": HASHES[0]}))[0] == 200
    shown = (await command("peer", "invitations", "list", *at)).stdout.splitlines()
    assert [line.split()[1] for line in shown] == ["open", "used"]
    done = await command("peer", "invitations", "revoke", found[0]["id"], *at)
    assert (done.returncode, done.stdout) == (0, "The invitation for bob is good no more.\n")
    used = found[1]["id"]
    for invitation, status, says in ((found[0]["id"], 2, "no invitation"), (used, 1, "It was used"), ("../x", 2, "no")):
        refused = await command("peer", "invitations", "revoke", invitation, *at)
        assert refused.returncode == status and says in refused.stderr and refused.stderr.count("\n") == 1

    await hub.kill()
    text = config.toml(config.account("alice"), address="test.hub", http=0, rest=CHILDREN)
    again = await nodes.run(text, folder=hub.folder)
    for body in ({"look": True}, {**TERMS, "token_sha256": HASHES[1]}):
        assert (await ask(again, {"secret": secrets["bob"], **body}))[0] == 404
    assert "bob" not in await again.accounts()


async def test_an_invitation_is_used_or_revoked_and_never_both(hub: Any) -> None:
    secrets = [await invite(hub, f"guest-{number}") for number in range(4)]

    async def revoke(secret: str) -> int:
        url = f"{hub.listening['admin']}/invitations/{sha256(secret.encode()).hexdigest()[:16]}"
        async with aiohttp.ClientSession(headers=TOKEN) as session, session.delete(url) as response:
            return response.status

    for number, secret in enumerate(secrets):
        using = ask(hub, {"secret": secret, **TERMS, "token_sha256": HASHES[number]})
        revoked, (used, _) = await asyncio.gather(revoke(secret), using)
        assert (revoked, used) in ((200, 404), (409, 200))
        assert (f"guest-{number}" in await hub.accounts()) is (used == 200)
