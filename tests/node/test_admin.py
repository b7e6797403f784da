"""The admin API and the metrics of a running node."""

import json
from hashlib import sha256
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from isthmus.ilp.packet import Fulfill
from isthmus.links.throttle import FAILURES_MAX

ADMIN_TOKEN = "admin-token-of-the-node-tests-0123456789"
PATHS = ("/accounts", "/balances", "/routes", "/metrics")


@pytest.fixture
async def paid(nodes: Any, two: str, peer: Any) -> Any:
    """A node over which alice paid bob 700, and was refused once."""
    node = await nodes.run(two)
    alice, _ = await peer(node, "alice"), await peer(node, "bob", fulfils=True)
    assert isinstance(await alice.pay("test.node.bob.x", 700), Fulfill)
    assert not isinstance(await alice.pay("test.elsewhere", 1), Fulfill)
    return node


async def test_everything_but_health_needs_the_token(nodes: Any, two: str) -> None:
    """P-16."""
    node = await nodes.run(two)
    for path in PATHS:
        for token in (None, "", "wrong", "admin-token-of-the-node-tests-012345678", "ädmin"):
            status, headers, body = await node.get(path, token=token)
            assert (status, headers["WWW-Authenticate"]) == (401, "Bearer")
            assert headers["Content-Type"].startswith("application/problem+json")
            problem = json.loads(body)
            assert problem["status"] == 401 and "token" in problem["detail"]
        assert (await node.get(path))[0] == 200
    assert (await node.get("/health", token=None))[0] == 200


async def test_other_paths_and_methods_are_problems_too(nodes: Any, two: str) -> None:
    """An unknown path tells a stranger nothing."""
    node = await nodes.run(two)
    for path, method, token, expected in (
        ("/nothing", "GET", None, 401),
        ("/accounts/", "GET", "admin-token-of-the-node-tests-0123456789", 404),
        ("/accounts", "POST", "admin-token-of-the-node-tests-0123456789", 405),
        ("/health", "DELETE", None, 405),
    ):
        status, headers, body = await node.get(path, method=method, token=token)
        assert status == expected, path
        assert headers["Content-Type"].startswith("application/problem+json")
        assert json.loads(body)["status"] == expected


async def test_wrong_tokens_again_and_again_are_told_to_wait(nodes: Any, config: Any) -> None:
    """P-16: 429 above the limit; the right token is served at once, and may be configured by its hash."""
    digest = sha256(ADMIN_TOKEN.encode()).hexdigest()
    text = config.toml(config.account("alice")).replace(f'token = "{ADMIN_TOKEN}"', f'token_sha256 = "{digest}"')
    node = await nodes.run(text)
    statuses = [(await node.get("/accounts", token=f"wrong-{number}"))[0] for number in range(FAILURES_MAX + 1)]
    assert statuses == [401] * FAILURES_MAX + [429]
    status, headers, _ = await node.get("/accounts", token="wrong")
    assert status == 429 and int(headers["Retry-After"]) >= 1
    assert (await node.get("/accounts", token=ADMIN_TOKEN))[0] == 200
    await node.until("admin.throttled", address="127.0.0.1")


async def test_health_accounts_balances_and_routes(paid: Any) -> None:
    """Amounts are strings, with asset code and scale beside them (P-1)."""
    status, _, body = await paid.get("/health")
    health = json.loads(body)
    assert (status, health["status"], health["address"], health["links_down"]) == (200, "ok", "test.node", [])
    accounts = await paid.accounts()
    alice = accounts["alice"]
    assert (alice["asset_code"], alice["asset_scale"], alice["relation"], alice["link"]) == ("USD", 9, "child", "up")
    assert (alice["balance"], alice["reserved_incoming"], alice["receivable_max"]) == ("700", "0", str(1000 * 10**9))
    assert (alice["fulfilled"], alice["rejected"], alice["packets_in_flight"]) == (1, {"F02": 1}, 0)
    balances = json.loads((await paid.get("/balances"))[2])["balances"]
    peers = {each["account"]: each["balance"] for each in balances if each["kind"] == "peer"}
    assert peers == {"alice": "700", "bob": "-700"}
    assert {each["account"]: each["loss"] for each in balances if "loss" in each} == {"alice": "0", "bob": "0"}
    assert sum(int(each["balance"]) for each in balances) == 0
    routes = json.loads((await paid.get("/routes"))[2])["routes"]
    assert {each["prefix"]: each["account"] for each in routes} == {"test.node.alice": "alice", "test.node.bob": "bob"}


async def test_metrics_are_what_prometheus_reads(paid: Any) -> None:
    status, headers, body = await paid.get("/metrics")
    assert status == 200 and headers["Content-Type"].startswith("text/plain")
    families = {family.name: family for family in text_string_to_metric_families(body.decode())}
    samples = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families.values()
        for sample in family.samples
    }
    usd = (("asset", "USD"), ("scale", "9"))
    assert samples["isthmus_packets_total", (("account", "alice"), ("result", "fulfilled"))] == 1
    assert samples["isthmus_packets_total", (("account", "alice"), ("result", "F02"))] == 1
    assert samples["isthmus_balance", (("account", "alice"), *usd)] == 700
    assert samples["isthmus_reserved_outgoing", (("account", "bob"), *usd)] == 0
    assert samples["isthmus_link_up", (("account", "bob"),)] == 1
    for name in ("isthmus_fulfill_seconds", "isthmus_journal_commit_seconds"):
        buckets = [sample for sample in families[name].samples if sample.name == f"{name}_bucket"]
        assert [sample.value for sample in buckets] == sorted(sample.value for sample in buckets)
        assert buckets[-1].labels["le"] == "+Inf" and buckets[-1].value == samples[f"{name}_count", ()] >= 1


async def test_metrics_may_be_open_and_may_be_off(nodes: Any, config: Any) -> None:
    text = config.toml(config.account("alice"))
    node = await nodes.run(text.replace("[admin]\n", "[admin]\nmetrics_need_token = false\n"))
    assert (await node.get("/metrics", token=None))[0] == 200
    assert (await node.get("/accounts", token=None))[0] == 401
    node = await nodes.run(text.replace("[admin]\n", "[admin]\nmetrics = false\n"))
    assert (await node.get("/metrics"))[0] == 404


async def test_amounts_beyond_2_to_the_53_stay_exact(nodes: Any, two: str, peer: Any) -> None:
    """P-1."""
    many = two.replace('"1000"', '"unlimited"')
    node = await nodes.run(many)
    alice, _ = await peer(node, "alice"), await peer(node, "bob", fulfils=True)
    amounts = (2**64 - 1, 2**63, 2**53 + 1)
    for amount in amounts:
        assert isinstance(await alice.pay("test.node.bob", amount), Fulfill)
    assert await node.balances() == {"alice": sum(amounts), "bob": -sum(amounts)}
    assert (await node.get("/metrics"))[0] == 200
