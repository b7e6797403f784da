"""The peers among themselves: what fails here is not ours to mend, and the other tests of this folder rest on it."""

from typing import Any

from bench.js_process import JsProcess


async def test_stream_money_and_data_both_ways_through_ilp_connector(peers: Any) -> None:
    child = peers.account("child", peers.listener())
    connector, ports = await peers.connector(alice=child, bob=child)
    alice = await peers.endpoint(peers.dial(ports["alice"]))
    bob = await peers.endpoint(peers.dial(ports["bob"]))
    assert await alice.call("ildcp") == {"clientAddress": "test.js.alice", "assetCode": "XRP", "assetScale": 9}

    first = await bob.call("listen", giveBack="50", answer="pong")
    second = await bob.call("credentials")
    paid = await alice.call("pay", amount="12345", address=first["address"], secret=first["secret"])
    talk: dict[str, Any] = {"text": "ping", "amount": "1000", "expectText": "pong", "expectMoney": "50"}
    heard = await alice.call("exchange", **talk, address=second["address"], secret=second["secret"])

    assert (paid["sent"], paid["delivered"]) == ("12345", "12345")
    assert heard == {"heard": "pong", "sent": "1000", "received": "50"}
    status = await connector.call("status")
    assert int(status["accounts"]["alice"]["balance"]) == -int(status["accounts"]["bob"]["balance"])


async def test_spsp_server_of_ilp_and_client_of_ilp_protocol_spsp(peers: Any) -> None:
    child = peers.account("child", peers.listener())
    _, ports = await peers.connector(alice=child, bob=child)
    alice = await peers.endpoint(peers.dial(ports["alice"]))
    bob = await peers.endpoint(peers.dial(ports["bob"]))
    url = (await bob.call("spspListen", amount="777"))["url"]
    paid = await alice.call("spspPay", url=url, amount="777")
    assert paid == {"totalSent": "777"}


async def test_bare_packets_over_two_http_plugins(peers: Any) -> None:
    tokens = {"incoming": {"port": 0, "staticToken": "in"}}
    receiver: JsProcess = await peers.start("endpoint")
    nowhere = {"url": "http://127.0.0.1:1/", "staticToken": "out"}
    plugin = {"module": "http", "options": {**tokens, "outgoing": nowhere}}
    await receiver.call("start", plugin=plugin, handler="fulfill")
    port = (await receiver.event("listening"))["port"]
    towards = {"url": f"http://127.0.0.1:{port}/ilp", "staticToken": "in"}
    sender = await peers.endpoint({"module": "http", "options": {**tokens, "outgoing": towards}})
    answer = await sender.call("prepare", destination="test.bob", amount="7")
    assert (answer["type"], answer["valid"]) == ("fulfill", True)
    assert (await receiver.event("prepare"))["amount"] == "7"
