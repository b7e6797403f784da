"""The network under a running node: peers that fall silent, names that don't resolve, certificates that have expired,
and strangers who hold connections. Honest peers notice as little as can be."""

import asyncio
import contextlib
import datetime as dt
import resource
import socket
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from isthmus.ilp.packet import Fulfill, Reject
from tests.faults.test_disk import settled

CONNECTIONS = 1_000
MIB = 1 << 20


def resident_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(pid)


def address_of(url: str) -> tuple[str, int]:
    host, _, port = url.removeprefix("http://").removeprefix("https://").partition("/")[0].rpartition(":")
    return host, int(port)


UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
# What strangers say before they fall silent.
HALVES = (
    b"",
    b"\x16\x03\x01",  # of a TLS handshake
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgr",  # of an upgrade
    UPGRADE,  # all of it, and then no auth
    b"POST /ilp HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n",  # of a request
)


async def hold_open(address: tuple[str, int], count: int) -> list[socket.socket]:
    """So many connections to there, each with half of something on it."""
    loop = asyncio.get_running_loop()

    async def one(number: int) -> socket.socket:
        made = socket.socket()
        made.setblocking(False)
        with contextlib.suppress(ConnectionError):
            await loop.sock_connect(made, address)
            await loop.sock_sendall(made, HALVES[number % len(HALVES)])
        return made

    held: list[socket.socket] = []
    for first in range(0, count, 50):  # below the listener's backlog
        held += await asyncio.gather(*(one(number) for number in range(first, min(first + 50, count))))
    return held


@pytest.fixture
def many_sockets() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CONNECTIONS + 500
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"this process may open {hard} files only")
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@pytest.mark.parametrize(
    "listener", ["btp", *(pytest.param(name, marks=pytest.mark.slow) for name in ("http", "admin"))]
)
@pytest.mark.usefixtures("many_sockets")
async def test_a_thousand_connections_without_auth(nodes: Any, config: Any, peer: Any, listener: str) -> None:
    """From the peers' own address: places are bounded, memory too; peers pay meanwhile, and new ones are let in."""
    node = await nodes.run(config.toml(*map(config.account, ("alice", "bob", "carol")), http=0))
    alice, _ = await peer(node, "alice"), await peer(node, "bob", fulfils=True)
    before = resident_bytes(node.process.pid)
    address = ("127.0.0.1", node.port) if listener == "btp" else address_of(node.listening[listener])
    strangers = asyncio.create_task(hold_open(address, CONNECTIONS))
    paid = 0
    while not strangers.done() or paid < 20:
        assert isinstance(await alice.pay("test.node.bob", 1), Fulfill)
        paid += 1
    held = strangers.result()
    carol = await peer(node, "carol")
    assert isinstance(await carol.pay("test.node.bob", 1), Fulfill)
    async with asyncio.timeout(60):
        while True:  # the admin API as well, where its own places are taken
            with contextlib.suppress(OSError, aiohttp.ClientError):
                assert await node.balances() == {"alice": paid, "bob": -paid - 1, "carol": 1}
                break
    open_files = len(list(Path(f"/proc/{node.process.pid}/fd").iterdir()))
    assert open_files < 600  # 512 places over HTTP, at most
    assert resident_bytes(node.process.pid) - before < 64 * MIB
    for each in held:
        each.close()


@pytest.mark.slow
async def test_handshakes_that_take_their_time(nodes: Any, config: Any, certificate: Any) -> None:
    """TLS, upgrade and auth that never end: after 10 s each is hung up on, without anybody else having come."""
    tls = f'tls = {{ cert_file = "{certificate()}", key_file = "{certificate()}" }}\n'
    text = config.toml(config.account("alice"), http=0)
    for name in ("[listeners.btp]\n", "[listeners.http]\n", "[admin]\n"):
        text = text.replace(name, name + tls)
    secure = await nodes.run(text)
    plain = await nodes.run(config.toml(config.account("alice"), http=0))
    held = []
    for node, half in ((secure, b"\x16\x03\x01"), (plain, HALVES[2]), (plain, HALVES[3])):
        held += await asyncio.gather(*(asyncio.open_connection("127.0.0.1", node.port) for _ in range(3)))
        for _, writer in held[-3:]:
            writer.write(half)
    for name in ("http", "admin"):
        held.append(await asyncio.open_connection(*address_of(secure.listening[name])))
        held[-1][1].write(b"\x16\x03\x01")
    async with asyncio.timeout(60):
        for reader, writer in held:
            with contextlib.suppress(ConnectionError):
                while await reader.read(1 << 16):
                    pass
            writer.close()


@pytest.mark.slow
async def test_a_peer_whose_socket_is_half_open(nodes: Any, config: Any, peer: Any, raw: Any) -> None:
    """No FIN ever came: it is found by a ping. What was sent to it expires; others don't notice."""
    node = await nodes.run(config.toml(*map(config.account, ("alice", "bob", "carol"))))
    alice, _ = await peer(node, "alice"), await peer(node, "bob", fulfils=True)
    await raw(node, "carol")  # reads nothing more, and answers no ping
    lost = alice.prepare("test.node.carol", 3, left_ms=8_000)
    assert isinstance(await alice.pay("test.node.bob", 1), Fulfill)
    async with asyncio.timeout(60):
        refused = await lost
    assert isinstance(refused, Reject) and refused.code == "R00"
    async with asyncio.timeout(90):
        while (await node.accounts())["carol"]["link"] == "up":
            assert isinstance(await alice.pay("test.node.bob", 1), Fulfill)
    refused = await alice.pay("test.node.carol", 3)
    assert isinstance(refused, Reject) and refused.code == "T01"
    balances = await node.balances()
    assert balances["carol"] == 0 and balances["alice"] == -balances["bob"]


# --- names -----------------------------------------------------------------------------------------------------------


def dials_by_name(config: Any, port: int, name: str) -> str:
    return str(config.dials(port, name).replace("127.0.0.1", "localhost"))


@pytest.mark.slow
async def test_names_that_stop_resolving(nodes: Any, config: Any, peer: Any, faults: Any) -> None:
    """A link that is up stays up. One that has to be dialled says why it is down, and is up once the name is back."""
    switches = faults()
    port = config.free_port()
    far_text = config.toml(config.account("near"), config.account("dave"), address="test.far", btp=port)
    far = await nodes.run(far_text)
    link = dials_by_name(config, port, "near")
    accounts = (config.account("alice"), config.account("bob"), config.account("far", relation="peer", link=link))
    near = await nodes.run(config.toml(*accounts, routes={"test.far": "far"}), wrapper=switches.wrapper)
    await near.until("btp.up", account="far")
    alice, _ = await peer(near, "alice"), await peer(near, "bob", fulfils=True)
    dave = await peer(far, "dave", fulfils=True)
    switches.on("dns")
    assert isinstance(await alice.pay("test.far.dave", 5), Fulfill)
    await far.kill()
    down = await near.until("btp.no_connection", account="far")
    assert "localhost" in down["why"]
    refused = await alice.pay("test.far.dave", 5)
    assert isinstance(refused, Reject) and refused.code == "T01"
    assert isinstance(await alice.pay("test.node.bob", 5), Fulfill)
    far = await nodes.run(far_text, folder=far.folder)
    await dave.until(lambda: dave.is_up)
    switches.off("dns")
    await near.until("btp.up", account="far")
    assert isinstance(await alice.pay("test.far.dave", 5), Fulfill)
    assert await near.balances() == {"alice": 15, "bob": -5, "far": -10}


@pytest.mark.slow
async def test_look_ups_that_hang_hold_up_neither_books_nor_the_end(
    nodes: Any, config: Any, peer: Any, faults: Any
) -> None:
    """More of them than there are threads for look-ups: the node pays, writes its checkpoint and ends."""
    switches = faults()
    links = [
        config.account(f"up{number}", relation="peer", link=dials_by_name(config, 1, f"up{number}"))
        for number in range(40)
    ]
    switches.on("slow-dns")
    node = await nodes.run(
        config.toml(config.account("alice"), config.account("bob"), *links), wrapper=switches.wrapper
    )
    alice, _ = await peer(node, "alice"), await peer(node, "bob", fulfils=True)
    assert isinstance(await alice.pay("test.node.bob", 5), Fulfill)
    assert await node.stop() == 0
    switches.off("slow-dns")


# --- certificates ----------------------------------------------------------------------------------------------------


@pytest.fixture
def certificate(tmp_path: Path) -> Any:
    """Makes a certificate of 127.0.0.1 with its key in one PEM file; `ca.pem` beside it is their authority's."""
    authority, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())

    def signed(name: str, public: ec.EllipticCurvePublicKey, until: int, *, is_ca: bool) -> bytes:
        made = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "authority")]))
            .public_key(public)
            .serial_number(until)
            .not_valid_before(dt.datetime(2020, 1, 1, tzinfo=dt.UTC))
            .not_valid_after(dt.datetime(until, 1, 1, tzinfo=dt.UTC))
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
            .sign(authority, hashes.SHA256())
        )
        return made.public_bytes(serialization.Encoding.PEM)

    (tmp_path / "ca.pem").write_bytes(signed("authority", authority.public_key(), 2101, is_ca=True))

    def make(*, until: int = 2100) -> Path:
        path = tmp_path / f"until-{until}.pem"
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        path.write_bytes(private + signed("node", key.public_key(), until, is_ca=False))
        return path

    return make


@pytest.mark.slow
async def test_a_certificate_that_has_expired(nodes: Any, config: Any, peer: Any, certificate: Any) -> None:
    """No link, and the token isn't shown; the log says why. With a new certificate the link comes up by itself."""
    old, new = certificate(until=2021), certificate()
    port = config.free_port()
    far_text = config.toml(config.account("near"), config.account("dave"), address="test.far", btp=port)
    secure = 'listen = "127.0.0.1:{}"\ntls = {{ cert_file = "{}", key_file = "{}" }}'
    listens = f'listen = "127.0.0.1:{port}"'
    expired_text = far_text.replace(listens, secure.format(port, old, old), 1)
    ca_file = old.with_name("ca.pem")
    link = (
        config.dials(port, "near")
        .replace("btp+ws:", "btp+wss:")
        .replace(" }", f', tls = {{ ca_file = "{ca_file}" }} }}')
    )
    far = await nodes.run(expired_text)
    near = await nodes.run(
        config.toml(
            config.account("alice"),
            config.account("far", relation="peer", link=link),
            routes={"test.far": "far"},
        )
    )
    down = await near.until("btp.no_connection", account="far")
    assert "certificate has expired" in down["why"]
    alice = await peer(near, "alice")
    refused = await alice.pay("test.far.dave", 5)
    assert isinstance(refused, Reject) and refused.code == "T01"
    assert await far.stop() == 0
    assert not [line for line in far.log if line["event"] in ("btp.up", "btp.refused")]
    far = await nodes.run(far_text.replace(listens, secure.format(port, new, new), 1), folder=far.folder)
    await near.until("btp.up", account="far")
    await settled(near)
