"""Two nodes that settle at a bank: packets make debts, transfers pay them, kills of nodes and bank change nothing."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.ledgers.bank.conftest import furnish, open_bank, serving
from tests.node.conftest import NodeProcess, Nodes, Peer, account, dials, toml
from tests.ports import free_port
from tests.settlement.bank.world import MONEY, Way, World, until
from tests.settlement.conftest import isthmus

pytestmark = pytest.mark.slow

UNIT = 10**9  # of the accounts, which have nine decimal places; the bank has two


def engine(way: Way, name: str, token: str) -> str:
    return (
        f'[settlement.house]\ntype = "bank"\nurl = "{way.url}"\naccount = "{name}"\ntoken = "{token}"\n'
        f'asset = "USD"\nscale = 2\npoll = "100 ms"\n'
    )


def settled(name: str, threshold: str) -> str:
    return f'[accounts.{name}.settlement]\nengine = "house"\nthreshold = "{threshold}"\nledger_scale = 2\n'


def east_of(way: Way, token: str, port: int) -> str:
    return toml(
        account("alice"),
        account("west", relation="peer"),
        settled("west", "1"),
        engine(way, "east", token),
        address="test.east",
        btp=port,
        routes={"test.west": "west"},
    )


def west_of(way: Way, token: str, port: int) -> str:
    return toml(
        account("bob"),
        account("east", relation="peer", link=dials(port, "west")),
        settled("east", "1000"),
        engine(way, "west", token),
        address="test.west",
    )


async def owed(east: NodeProcess, west: NodeProcess, amount: int) -> None:
    """Until so much is left of what East owes West, in both books."""
    async with asyncio.timeout(60):
        while ((await east.balances())["west"], (await west.balances())["east"]) != (-amount, amount):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def confirmed(node: NodeProcess) -> None:
    """Until no settlement is under way."""
    async with asyncio.timeout(60):
        while (await command(node, "list"))["settlements"]:  # noqa: ASYNC110 - over HTTP
            await asyncio.sleep(0.05)


async def test_what_packets_owe_is_paid_at_the_bank_through_kills_of_all(nodes: Nodes, tmp_path: Path) -> None:
    port, place = free_port(), str(tmp_path / "bank.db")
    bank = open_bank(place)
    furnish(bank, "east", "west", money=MONEY)
    tokens = {name: bank.new_token(name, "")[1] for name in ("east", "west")}
    way = await Way("http://127.0.0.1:1").start()
    texts = east_of(way, tokens["east"], port), west_of(way, tokens["west"], port)
    folders = tmp_path / "east", tmp_path / "west"
    async with serving(bank) as server:
        way.target = server.url
        east = await nodes.run(texts[0], folder=folders[0])
        west = await nodes.run(texts[1], folder=folders[1])
        alice = await Peer("alice").dial(east.port)
        bob = (await Peer("bob").dial(west.port)).fulfil_all()
        way.loses_answers = 2
        await alice.pay_when_linked("test.west.bob", 3 * UNIT + 1)
        await owed(east, west, 1)
        await confirmed(east)
        way.gate.clear()
        await alice.pay_when_linked("test.west.bob", 2 * UNIT)
        await until(lambda: len({key for key, _ in way.sent}) == 2)
        for node in (east, west):
            await node.kill()
    bank.close()  # the bank goes too, with the transfer on its way: it is refused
    way.is_down = True
    way.gate.set()
    await alice.close()
    await bob.close()
    bank = open_bank(place)
    async with serving(bank) as server:
        way.target = server.url
        east = await nodes.run(texts[0], folder=folders[0])
        west = await nodes.run(texts[1], folder=folders[1])
        alice = await Peer("alice").dial(east.port)
        bob = (await Peer("bob").dial(west.port)).fulfil_all()
        await alice.pay_when_linked("test.west.bob", 4 * UNIT)
        way.is_down = False
        await owed(east, west, 1)
        await confirmed(east)
        await alice.close()
        await bob.close()
        assert (bank.account("east").balance, bank.account("west").balance) == (MONEY - 900, MONEY + 900)
        assert bank.audit() == []
        assert len(set(way.sent)) == len({key for key, _ in way.sent}), "one request for each key"
        for node in (east, west):
            text = "\n".join(map(str, [*node.log, *node.lines]))
            assert not [one for one in tokens.values() if one.partition(".")[2] in text]
            assert [one for one in node.log if one["event"] == "bank_engine"]
    bank.close()
    await way.close()


async def command(node: NodeProcess, *arguments: str, status: int = 0) -> Any:
    """What `isthmus settlements … --json` says, or the one line with which it refuses."""
    done = await isthmus("settlements", *arguments, "--json", "--data", node.folder / "data")
    assert done.returncode == status, done.stderr
    if status:
        assert done.stderr.count("\n") == 1, done.stderr
        return done.stderr
    return json.loads(done.stdout)


async def test_an_operator_assigns_what_has_a_wrong_reference(world: World, nodes: Nodes, tmp_path: Path) -> None:
    token = world.bank.new_token("west", "")[1]
    west = await nodes.run(west_of(world.way, token, free_port()), folder=tmp_path / "west")
    async with asyncio.timeout(60):
        while "isthmus-" not in str(await command(west, "list")):  # noqa: ASYNC110 - over HTTP
            await asyncio.sleep(0.1)
    empty = await isthmus("settlements", "unmatched", "--data", west.folder / "data")
    assert empty.stdout == "Nothing waits.\n"
    world.pay("stranger", "west", 250, "for May", key="1")
    world.pay("stranger", "west", 7, "a gift", key="2")
    async with asyncio.timeout(60):
        while len(found := (await command(west, "unmatched"))["transfers"]) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    debt, gift = found
    assert (debt["engine"], debt["payer"], debt["reference"], debt["amount"]) == ("house", "stranger", "for May", "250")
    table = await isthmus("settlements", "unmatched", "--data", west.folder / "data")
    assert "2.5 USD" in table.stdout and "for May" in table.stdout
    for arguments, status, words in (
        (("assign", "nobody", debt["id"], "--note", "x"), 2, "no such account"),
        (("assign", "bob", debt["id"], "--note", "x"), 2, "no settlement engine"),
        (("assign", "east", "999", "--note", "x"), 1, "no transfer 999 waits"),
        (("assign", "east", debt["id"], "--note", " "), 2, '"note" is missing'),
        (("dismiss", "nothing", gift["id"], "--note", "x"), 2, "no such engine"),
        (("clear", "nothing", "bank_unmatched", "--note", "x"), 2, "no such engine"),
        (("clear", "house", "bank_unmatched", "--note", ""), 2, '"note" is missing'),
        (("clear", "house", "bank_unmatched", "east", "--note", "x"), 1, "stands for east"),
    ):
        assert words in await command(west, *arguments, status=status)
    cleared = await command(west, "clear", "house", "bank_unmatched", "--note", "they are written to")
    assert cleared == {"engine": "house", "event": "bank_unmatched", "account": ""}
    told = await west.until("alarm_over", engine="house", alarm="bank_unmatched")
    assert told["note"] == "they are written to"
    assert "stands" in await command(west, "clear", "house", "bank_unmatched", "--note", "again", status=1)
    credited = await command(west, "assign", "east", debt["id"], "--note", "their mail of 3 May")
    assert credited == {"account": "east", "amount": str(25 * UNIT // 10)}
    assert "no transfer" in await command(west, "assign", "east", debt["id"], "--note", "again", status=1)
    await command(west, "dismiss", "house", gift["id"], "--note", "sent back")
    assert (await command(west, "unmatched"))["transfers"] == []
    assert (await west.balances())["east"] == -25 * UNIT // 10
    assert "their mail of 3 May" in str((await command(west, "list"))["recent"])
    await west.kill()
    west = await nodes.run(west_of(world.way, token, free_port()), folder=tmp_path / "west")
    assert (await west.balances())["east"] == -25 * UNIT // 10
    assert (await command(west, "unmatched"))["transfers"] == []


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('url = "http://127.0.0.1', 'url = "http://bank.example', "would send"),
        ('account = "west"', 'account = "West!"', "no account of a bank"),
        ('asset = "USD"\nscale = 2\npoll', 'asset = "U$D"\nscale = 2\npoll', "no asset of a bank"),
        ('asset = "USD"\nscale = 2\npoll', 'asset = "EUR"\nscale = 2\npoll', "the account counts in USD"),
        ("scale = 2\npoll", "scale = 3\npoll", "in USD with 2"),
        ('token = "', 'token = "x', "doesn't know our token"),
    ],
)
async def test_what_cant_be_used_keeps_the_node_from_starting(
    world: World, nodes: Nodes, tmp_path: Path, old: str, new: str, words: str
) -> None:
    text = west_of(world.way, world.bank.new_token("west", "")[1], free_port())
    before, table, after = text.partition("[settlement.house]")
    assert old in after
    node = await nodes.launch(before + table + after.replace(old, new, 1), folder=tmp_path / "west")
    assert await node.exit_code() in (1, 2)
    assert words in "\n".join(map(str, [*node.log, *node.lines]))
