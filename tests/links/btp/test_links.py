"""Client and server on real sockets: packets, sessions, reconnection, the newest connection, back pressure."""

from typing import Any

from isthmus.connector.events import AccountId, Outbound

ALICE, BOB = AccountId("alice"), AccountId("bob")


async def test_prepares_and_replies_cross_in_both_directions(
    serve: Any, dial: Any, url: Any, owner: Any, packets: Any, session_of: Any
) -> None:
    """BTP-8, BTP-10, P-13. The same request id in both directions at once is two requests."""
    server = await serve()
    client, theirs = await dial(url(server))
    await owner.up(ALICE)
    ours = server.link(ALICE)
    client.write([Outbound(client.session, 1, packets["prepare"])])
    ours.write([Outbound(ours.session, 1, packets["prepare"])])
    await owner.until(lambda: len(owner.packets) == 1)
    await theirs.until(lambda: len(theirs.packets) == 1)
    for got, session in ((owner.packets[0], client.session), (theirs.packets[0], ours.session)):
        assert (got.account, got.session, got.request_id, got.packet) == (ALICE, session, 1, packets["prepare"])
    ours.write([Outbound(owner.packets[0].session, 1, packets["fulfill"])])
    client.write([Outbound(theirs.packets[0].session, 1, packets["reject"])])
    await theirs.until(lambda: len(theirs.packets) == 2)
    await owner.until(lambda: len(owner.packets) == 2)
    assert (theirs.packets[1].packet, theirs.packets[1].session) == (packets["fulfill"], client.session)
    assert (owner.packets[1].packet, owner.packets[1].session) == (packets["reject"], ours.session)


async def test_a_batch_is_read_in_few_calls_and_in_order(
    serve: Any, dial: Any, url: Any, owner: Any, packets: Any
) -> None:
    server = await serve()
    client, _ = await dial(url(server))
    client.write([Outbound(client.session, i, packets["prepare"]) for i in range(1000)])
    await owner.until(lambda: len(owner.packets) == 1000)
    assert [packet.request_id for packet in owner.packets] == list(range(1000))
    assert len(owner.reads) < 100
