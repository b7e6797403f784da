"""BTP over TLS, with certificates made for the test."""

import ssl
from pathlib import Path
from typing import Any

import pytest

from isthmus.connector.events import AccountId, Outbound
from isthmus.errors import LinkError
from tests.certificates import self_signed

ALICE = AccountId("alice")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ssl.SSLContext]:
    """A self-made certificate for 127.0.0.1: its file, and a server's context."""
    made = self_signed(tmp_path_factory.mktemp("tls"))
    return made.file, made.server()


def wss(server: Any, host: str = "127.0.0.1") -> str:
    return f"btp+wss://alice:alice-token@{host}:{server.address[1]}/"


async def test_packets_cross_under_tls(
    serve: Any, dial: Any, owner: Any, packets: Any, certificate: tuple[Path, ssl.SSLContext]
) -> None:
    """BTP-16, BTP-17. Large and small, both ways."""
    server = await serve(ssl_context=certificate[1])
    client, theirs = await dial(wss(server), ca_file=certificate[0])
    await owner.up(ALICE)
    large = b"\x0c" + bytes(33_856)
    client.write([Outbound(client.session, i, large if i % 10 == 0 else packets["prepare"]) for i in range(200)])
    await owner.until(lambda: len(owner.packets) == 200)
    assert [len(packet.packet) for packet in owner.packets] == [33_857 if i % 10 == 0 else 101 for i in range(200)]
    server.link(ALICE).write([Outbound(p.session, p.request_id, packets["fulfill"]) for p in owner.packets])
    await theirs.until(lambda: len(theirs.packets) == 200)


@pytest.mark.parametrize(("host", "with_ca"), [("127.0.0.1", False), ("localhost", True)])
async def test_certificates_are_verified(
    serve: Any, dial: Any, owner: Any, certificate: tuple[Path, ssl.SSLContext], host: str, with_ca: bool
) -> None:
    """An unknown authority and another host's certificate are refused by default, before the token is shown."""
    server = await serve(ssl_context=certificate[1])
    client, theirs = await dial(wss(server, host), wait=False, ca_file=certificate[0] if with_ca else None)
    await theirs.until(lambda: client.last_failure is not None)
    with pytest.raises(LinkError, match=r"certificate|CERTIFICATE"):
        await client.wait_up(1)
    assert owner.facts == [] and theirs.facts == []


async def test_plain_text_to_a_tls_port_harms_nobody(
    serve: Any, dial: Any, owner: Any, certificate: tuple[Path, ssl.SSLContext]
) -> None:
    server = await serve(ssl_context=certificate[1])
    wrong, theirs = await dial(wss(server).replace("wss", "ws"), wait=False)
    await theirs.until(lambda: wrong.last_failure is not None)
    await dial(wss(server), ca_file=certificate[0])
    await owner.up(ALICE)
