"""Rates of a running node: fetched from a real server, stopped when absurd, set by the operator, kept over restarts."""

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families

from isthmus.ilp.packet import PREPARE, Reject, decode_prepare
from tests.node.commands import command

ADMIN_TOKEN = "admin-token-of-the-node-tests-0123456789"


class Prices:
    """An API that says what the test wants."""

    def __init__(self) -> None:
        self.says: str | None = "0.5"
        self.url = ""
        self.keys: list[str | None] = []

    async def answer(self, request: web.Request) -> web.Response:
        self.keys.append(request.headers.get("X-Key"))
        if self.says is None:
            return web.Response(status=503)
        return web.Response(text=f'{{"data": [{{"price": {self.says}}}]}}', content_type="application/json")


@pytest.fixture
async def prices() -> AsyncIterator[Prices]:
    prices = Prices()
    app = web.Application()
    app.router.add_get("/prices", prices.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    prices.url = f"http://127.0.0.1:{runner.addresses[0][1]}/prices"
    yield prices
    await runner.cleanup()


def text(config: Any, prices: Prices, *, pair: str = '{ source = "api" }', more: str = "") -> str:
    source = (
        f'[rates.sources.api]\ntype = "http"\nurl = "{prices.url}"\nquotes = {{ "USD/EUR" = "data[0].price" }}\n'
        f'interval = "1 s"\nmax_age = "1 h"\n{more}'
    )
    bob = config.account("bob", asset="EUR")
    return str(config.toml(config.account("alice"), bob, rates=f'pace = "100 ms"\n"USD/EUR" = {pair}', rest=source))


async def shown(node: Any) -> dict[str, Any]:
    status, _, body = await node.get("/rates")
    assert status == 200
    found = json.loads(body)["rates"]
    assert len(found) == 1
    return dict(found[0])


async def priced(node: Any) -> Any:
    """The node, once its source has answered; each look is a round trip."""
    async with asyncio.timeout(60):
        while (await shown(node))["why"] == "there is no rate yet":
            pass
    return node


async def post(node: Any, body: Any, *, token: str | None = ADMIN_TOKEN) -> tuple[int, dict[str, Any]]:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session,
        session.post(node.listening["admin"] + "/rates", data=json.dumps(body), headers=headers) as response,
    ):
        if response.status >= 400:
            assert response.content_type == "application/problem+json"
        return response.status, json.loads(await response.read())


async def wish(node: Any, action: str, pair: str = "USD/EUR", **more: str) -> dict[str, Any]:
    status, answer = await post(node, {"pair": pair, "action": action, **more})
    assert status == 200, answer
    return answer


async def traded(alice: Any, amount: int = 1000) -> int | str:
    """What Bob gets for it, or the code of the refusal."""
    before = alice.bob_got()
    answer = await alice.pay("test.node.bob", amount)
    return answer.code if isinstance(answer, Reject) else alice.bob_got() - before


@pytest.fixture
def pays(peer: Any) -> Any:
    """Alice, who pays Bob over a node."""

    async def connect(node: Any) -> Any:
        alice, bob = await peer(node, "alice"), await peer(node, "bob", fulfils=True)

        def got() -> int:
            return sum(decode_prepare(each.packet).amount for each in bob.packets if each.packet[0] == PREPARE)

        alice.bob_got = got
        return alice

    return connect


async def test_a_fetched_rate_is_exchanged_at_and_an_absurd_one_stops_the_pair(
    nodes: Any, config: Any, pays: Any, prices: Prices
) -> None:
    """CONN-11: with T01, a line in the log and a metric; it goes on by itself."""
    node = await priced(await nodes.run(text(config, prices)))
    alice = await pays(node)
    assert await traded(alice) == 500
    rate = await shown(node)
    assert (rate["pair"], rate["rate"], rate["source"], rate["state"]) == ("USD/EUR", "1/2", "api", "trading")
    assert rate["age_ms"] >= 0 and rate["offered"] is None
    prices.says = "5e-10"
    line = await node.until("pair_stopped")
    assert (line["pair"], line["why"], line["offered_rate"]) == ("USD/EUR", "its rate has jumped", "1/2000000000")
    assert await traded(alice) == "T01"
    assert (await shown(node))["why"] == "its rate has jumped"
    metrics = {
        sample.name: sample.value
        for family in text_string_to_metric_families((await node.get("/metrics"))[2].decode())
        for sample in family.samples
        if sample.labels.get("pair") == "USD/EUR"
    }
    assert metrics["isthmus_pair_stopped"] == 1 and metrics["isthmus_rate"] == 0.5
    prices.says = '"0.51"'
    await node.until("pair_resumed")
    assert await traded(alice) == 510


async def test_a_restart_trades_at_no_rate_from_before(nodes: Any, config: Any, pays: Any, prices: Prices) -> None:
    """CONN-11: stopped until the first answer, which is judged against the last rate before."""
    node = await priced(await nodes.run(text(config, prices)))
    assert await traded(await pays(node)) == 500
    await node.stop()
    prices.says = None
    node = await nodes.run(text(config, prices), folder=node.folder)
    await node.until("rates_source_fails")
    alice = await pays(node)
    assert await traded(alice) == "T01"
    assert (await shown(node))["rate"] == "1/2" and (await shown(node))["why"] == "there is no rate yet"
    prices.says = "50"
    await node.until("pair_stopped", why="its rate has jumped")
    assert await traded(alice) == "T01"
    answer = await wish(node, "accept", rate="50")
    assert (answer["state"], answer["rate"]) == ("trading", "50")
    assert await traded(alice) == 50_000


async def test_what_is_set_holds_over_a_restart_until_the_file_changes(
    nodes: Any, config: Any, pays: Any, prices: Prices
) -> None:
    """Issue 5."""
    node = await nodes.run(text(config, prices))
    answer = await wish(node, "set", "EUR/USD", rate="4")
    assert (answer["pair"], answer["rate"], answer["source"]) == ("USD/EUR", "1/4", "operator")
    alice = await pays(node)
    assert await traded(alice) == 250
    await node.kill()
    node = await nodes.run(text(config, prices), folder=node.folder)
    alice = await pays(node)
    assert await traded(alice) == 250
    assert (await node.reload(text(config, prices, more='key = { env = "PATH" }\nkey_header = "X"\n')))[
        "event"
    ] == "configuration reloaded"
    assert await traded(alice) == 250
    assert (await node.reload(text(config, prices, pair='"0.7"')))["event"] == "configuration reloaded"
    assert await traded(alice) == 700
    assert [line["item"] for line in node.log if line["event"] == "the file wins over run time"] == ["rates.USD/EUR"]
    assert (await shown(node))["source"] == "file"


async def test_a_pair_is_stopped_and_followed_by_the_operator(
    nodes: Any, config: Any, pays: Any, prices: Prices
) -> None:
    node = await priced(await nodes.run(text(config, prices)))
    alice = await pays(node)
    assert (await wish(node, "stop"))["why"] == "the operator has stopped it"
    assert await traded(alice) == "T01"
    assert (await wish(node, "follow"))["state"] == "trading"
    assert await traded(alice) == 500


REFUSED: list[tuple[int, Any]] = [
    (400, []),
    (400, {}),
    (400, {"pair": "USDEUR", "action": "stop"}),
    (400, {"pair": "USD/USD", "action": "set", "rate": "1"}),
    (400, {"pair": 5, "action": "stop"}),
    (400, {"pair": "USD/EUR", "action": "explode"}),
    (400, {"pair": "USD/EUR", "action": "set"}),
    (400, {"pair": "USD/EUR", "action": "stop", "rate": "1"}),
    (400, {"pair": "USD/EUR", "action": "set", "rate": 1.5}),
    (400, {"pair": "USD/EUR", "action": "set", "rate": "0"}),
    (400, {"pair": "USD/EUR", "action": "set", "rate": "1e400"}),
    (400, {"pair": "USD/EUR", "action": "set", "rate": "NaN"}),
    (400, {"pair": "USD/EUR", "action": "stop", "why": "x"}),
    (404, {"pair": "USD/XAM", "action": "set", "rate": "1"}),
    (409, {"pair": "USD/EUR", "action": "follow"}),
    (409, {"pair": "USD/EUR", "action": "accept", "rate": "1"}),
    (409, {"pair": "A/B", "action": "accept", "rate": "1"}),
    (413, {"pair": "USD/EUR", "action": "set", "rate": "1" * 5_000}),
]


async def test_bad_requests_are_problems_and_change_nothing(nodes: Any, config: Any, prices: Prices) -> None:
    """P-9, P-16: nothing without the token."""
    node = await nodes.run(text(config, prices))
    for status, body in REFUSED:
        assert (await post(node, body))[0] == status, body
    for token in (None, "wrong"):
        assert (await post(node, {"pair": "USD/EUR", "action": "stop"}, token=token))[0] == 401
    assert (await shown(node))["source"] == "api"


async def test_the_key_of_an_api_is_in_no_log(nodes: Any, config: Any, prices: Prices, tmp_path: Path) -> None:
    """P-16."""
    (tmp_path / "key").write_text("s3cr3t-key\n")
    more = f'key = {{ file = "{tmp_path / "key"}" }}\nkey_header = "X-Key"\n'
    node = await priced(await nodes.run(text(config, prices, more=more)))
    prices.says = None
    await node.until("rates_source_fails")
    assert prices.keys[0] == "s3cr3t-key"
    assert not [line for line in node.lines if "s3cr3t" in line]


# --- the commands -----------------------------------------------------------------------------------------------------


async def rates(node: Any, *arguments: str) -> subprocess.CompletedProcess[str]:
    return await command("rates", *arguments, "--data", node.folder / "data", token=ADMIN_TOKEN)


@pytest.mark.slow
async def test_the_commands_show_and_set(nodes: Any, config: Any, pays: Any, prices: Prices) -> None:
    node = await priced(await nodes.run(text(config, prices)))
    alice = await pays(node)
    done = await rates(node, "show")
    assert done.returncode == 0, done.stderr
    row = next(line for line in done.stdout.splitlines() if "USD/EUR" in line)
    assert "0.5" in row and "api" in row and "trading" in row and " s " in row
    done = await rates(node, "show", "--json")
    assert json.loads(done.stdout)["rates"][0]["rate"] == "1/2"
    done = await rates(node, "set", "USD/EUR", "0.25")
    assert done.stdout == "USD/EUR at 0.25, from operator: trading.\n"
    assert await traded(alice) == 250
    done = await rates(node, "stop", "EUR/USD")
    assert done.stdout == "USD/EUR at 0.5, from operator: stopped: the operator has stopped it.\n"
    done = await rates(node, "follow", "USD/EUR", "--json")
    assert json.loads(done.stdout)["source"] == "api"
    prices.says = "3"
    await node.until("pair_stopped", why="its rate has jumped")
    done = await rates(node, "accept", "EUR/USD")
    assert done.stdout == "USD/EUR at 3, from api: trading.\n", done.stderr
    assert await traded(alice) == 3_000


@pytest.mark.slow
async def test_a_pair_that_only_the_operator_named_is_exchanged_no_more_when_it_is_followed(
    nodes: Any, config: Any, pays: Any
) -> None:
    """The file has no word on it: to follow the file is not to exchange."""
    node = await nodes.run(config.toml(config.account("alice"), config.account("bob", asset="EUR")))
    alice = await pays(node)
    assert (await rates(node, "set", "USD/EUR", "0.5")).returncode == 0
    assert await traded(alice) == 500
    done = await rates(node, "follow", "EUR/USD")
    assert done.stdout == "USD/EUR is exchanged no more: the node's file doesn't have this pair.\n", done.stderr
    assert await traded(alice) == "F02"
    assert json.loads((await rates(node, "show", "--json")).stdout)["rates"] == []
    await rates(node, "set", "USD/EUR", "0.5")
    done = await rates(node, "follow", "USD/EUR", "--json")
    assert (json.loads(done.stdout)["source"], json.loads(done.stdout)["rate"]) == ("none", None)


async def test_the_commands_say_what_is_wrong(nodes: Any, config: Any, prices: Prices) -> None:
    node = await priced(await nodes.run(text(config, prices)))
    for arguments, status, what in (
        (("set", "USDEUR", "1"), 2, "two asset codes"),
        (("set", "USD/EUR", "zero"), 2, "is not a number"),
        (("set", "USD/XAM", "1"), 2, "No account is in 'XAM'"),
        (("accept", "USD/EUR"), 2, "no rate that waits"),
        (("follow", "USD/EUR"), 1, "not set by the operator"),
    ):
        done = await rates(node, *arguments)
        assert (done.returncode, done.stdout) == (status, ""), done
        assert what in done.stderr and done.stderr.count("\n") == 1
