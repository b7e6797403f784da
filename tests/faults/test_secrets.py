"""Canaries in every field that holds a secret: they are looked for wherever a node or wallet says or writes something.

Logs at `debug`, errors with `--debug`, all that the admin API gives, the process list, the files beside the secrets'
own, the journal, and a core dump that must not be there.
"""

import asyncio
import base64
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from isthmus.ilp.packet import Fulfill
from isthmus.links.throttle import FAILURES_MAX

NAMES = ("admin", "alice", "carol-in", "carol-out", "url", "dial", "file", "env", "old")
CANARIES = {name: f"canary-{name}-that-nobody-may-see-0123456789" for name in NAMES}
SHARED = base64.b64encode(b"canary of a shared secret, 32 bytes and more").decode()
PAYMENTS = 3
# Everything open, as an operator who doesn't care would have it.
CARELESS = ("sh", "-c", 'umask 000; ulimit -c unlimited; exec "$0" -m isthmus --debug "$@"', sys.executable)
CAREFUL = ("sh", "-c", 'umask 000; ulimit -c unlimited; exec "$0" -m isthmus "$@"', sys.executable)


@pytest.fixture(scope="module")
def private_key() -> str:
    key = rsa.generate_private_key(65537, 2048)
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def secrets_in(text: str | bytes, private_key: str = "") -> list[str]:
    """The canaries that are in there."""
    data = text.encode() if isinstance(text, str) else text
    known = [*CANARIES.values(), SHARED, base64.b64decode(SHARED).decode()]
    if private_key:
        known.append(private_key.splitlines()[3])
    found = [each for each in known if each.encode() in data]
    found += [each for each in known if base64.b64encode(each.encode()).rstrip(b"=") in data]
    return found


def config_text(config: Any, private_key: str, dead_port: int) -> str:
    """One account for each kind of secret, and a place for each way to give one."""
    jwt = f'secret = "{SHARED}", subject = "x", issuer = "i", audience = "a"'
    rsa_key = f'private_key = """{private_key}""", subject = "x", issuer = "i", audience = "a"'
    dead = f"http://127.0.0.1:{dead_port}/ilp"
    links = {
        "alice": f'{{ type = "btp-server", token = "{CANARIES["alice"]}" }}',
        "bob": '{ type = "btp-server", token = { env = "BOB_TOKEN" } }',
        "url": f'{{ type = "btp-client", url = "btp+ws://u:{CANARIES["url"]}@127.0.0.1:{dead_port}" }}',
        "dial": f'{{ type = "btp-client", url = "btp+ws://127.0.0.1:{dead_port}", token = "{CANARIES["dial"]}" }}',
        "file": f'{{ type = "btp-client", url = "btp+ws://127.0.0.1:{dead_port}", token = {{ file = "token" }} }}',
        "carol": f'{{ type = "http", url = "{dead}", '
        f'outgoing = {{ auth = "bearer", token = "{CANARIES["carol-out"]}" }}, '
        f'incoming = {{ auth = "bearer", token = "{CANARIES["carol-in"]}" }} }}',
        "hs": f'{{ type = "http", url = "{dead}", outgoing = {{ auth = "jwt_hs256", {jwt} }},'
        f' incoming = {{ auth = "jwt_hs256", {jwt.replace(chr(34) + "x", chr(34) + "hs")} }} }}',
        "rs": f'{{ type = "http", url = "{dead}", outgoing = {{ auth = "jwt_rs256", {rsa_key} }},'
        f' incoming = {{ auth = "bearer", token = "{CANARIES["old"]}" }} }}',
    }
    accounts = [
        config.account(name, link=link, relation="child" if name in ("alice", "bob") else "peer")
        for name, link in links.items()
    ]
    text = str(config.toml(*accounts, http=0, rest='[log]\nlevel = "debug"\nform = "json"'))
    return text.replace(config.admin_token, CANARIES["admin"])


async def exercise(node: Any, config: Any) -> bytes:
    """Right and wrong credentials everywhere, packets, refusals, a failed reload: all that is said about it."""
    said = b""
    for token in (CANARIES["admin"], "wrong", CANARIES["alice"]):
        for path in ("/health", "/accounts", "/balances", "/routes", "/metrics", f"/{token}"):
            status, headers, body = await node.get(path, token=token)
            said += str((status, headers)).encode() + body.replace(f"/{token}".encode(), b"")
    url = node.listening["http"]
    octets = {"Content-Type": "application/octet-stream"}
    async with aiohttp.ClientSession() as session:
        for token in (CANARIES["carol-in"], CANARIES["alice"], SHARED, "a.b.c"):
            for path in ("", "/carol", "/alice"):
                auth = {"Authorization": f"Bearer {token}"}
                async with session.post(url + path, data=b"\x0c\x01", headers={**octets, **auth}) as response:
                    said += str(response.headers).encode() + await response.read()
    for token in (CANARIES["dial"], CANARIES["admin"]):  # secrets, but not of this listener
        raw = await config.RawPeer.dial(node)
        raw.send_auth(token)
        said += str(await raw.read_btp()).encode()
        await raw.close()
    return said


@pytest.fixture
def dead_port(config: Any) -> int:
    return int(config.free_port())


@pytest.mark.slow
async def test_no_secret_of_a_node_is_seen(
    nodes: Any, config: Any, peer: Any, tmp_path: Path, private_key: str, dead_port: int, monkeypatch: Any
) -> None:
    """P-16: neither by a person with a log file nor on the process list, in the journal, or in a crash dump."""
    monkeypatch.setenv("BOB_TOKEN", CANARIES["env"])
    folder = tmp_path / "node"
    folder.mkdir()
    (folder / "token").write_text(CANARIES["file"] + "\n")
    text = config_text(config, private_key, dead_port)
    node = await nodes.run(text, folder=folder, wrapper=CARELESS)
    pid = node.process.pid
    said = await exercise(node, config)
    for name in ("url", "dial", "file"):
        await node.until("btp.no_connection", account=name)
        node._taken = 0
    # A file that is broken at a secret, and one whose secret is of the wrong kind.
    token = f'"{CANARIES["alice"]}"'
    for broken in (
        text.replace(token, token[:-1]),
        text.replace(token, f"[{token}]"),
        text.replace(SHARED, "c2hvcnQ="),
    ):
        line = await node.reload(broken)
        assert line["event"] == "configuration not reloaded"
        done = subprocess.run([*CAREFUL, "node", "check", str(folder / "node.toml")], capture_output=True, check=False)
        said += done.stdout + done.stderr
        assert done.returncode == 2
    assert (await node.reload(text))["event"] == "configuration reloaded"
    done = subprocess.run([*CAREFUL, "node", "check", str(folder / "node.toml")], capture_output=True, check=True)
    said += done.stdout + done.stderr
    assert secrets_in(said, private_key) == []
    assert secrets_in("\n".join(node.lines), private_key) == []
    assert secrets_in(Path(f"/proc/{pid}/cmdline").read_bytes()) == []
    # The environment holds what the operator put there, and only that.
    assert set(secrets_in(Path(f"/proc/{pid}/environ").read_bytes(), private_key)) == {CANARIES["env"]}
    assert await node.stop() == 0
    for path in folder.rglob("*"):
        if path.is_file() and path.name not in ("node.toml", "token"):
            assert secrets_in(path.read_bytes(), private_key) == [], path


@pytest.mark.slow
async def test_a_crash_leaves_no_dump_and_shows_no_secret(
    config: Any, tmp_path: Path, private_key: str, dead_port: int, monkeypatch: Any
) -> None:
    """Also where the system allows dumps: the process says no. An error of ours with `--debug` shows no value."""
    monkeypatch.setenv("BOB_TOKEN", CANARIES["env"])
    nodes = config.Nodes(tmp_path)
    folder = tmp_path / "node"
    folder.mkdir()
    (folder / "token").write_text(CANARIES["file"])
    text = config_text(config, private_key, dead_port)
    node = await nodes.run(text, folder=folder, wrapper=CAREFUL)
    limits = Path(f"/proc/{node.process.pid}/limits").read_text()
    (core,) = [line.split()[4:6] for line in limits.splitlines() if line.startswith("Max core file size")]
    assert core == ["0", "0"]
    node.signal(signal.SIGABRT)
    assert await node.exit_code() == -signal.SIGABRT
    assert not [path for path in (*folder.rglob("*core*"), *Path.cwd().glob("core*")) if path.is_file()]
    assert secrets_in("\n".join(node.lines), private_key) == []
    # A port that is taken, under --debug: a traceback.
    taken = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
    port = taken.sockets[0].getsockname()[1]
    failed = await nodes.launch(
        text.replace('[listeners.btp]\nlisten = "127.0.0.1:0"', f'[listeners.btp]\nlisten = "127.0.0.1:{port}"'),
        folder=folder,
        wrapper=CARELESS,
    )
    assert await failed.exit_code() == 1
    taken.close()
    assert any("Traceback" in line for line in failed.lines)
    assert secrets_in("\n".join(failed.lines), private_key) == []


def test_a_protected_process_is_not_dumpable() -> None:
    """Nor may another process of the same user read its memory or environment."""
    if sys.platform != "linux":
        pytest.skip("PR_GET_DUMPABLE is Linux's")
    program = (
        "import ctypes\nfrom isthmus.runtime.process import protect\n"
        "before = ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)\n"
        "protect(allow_dumps=True)\nkept = ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)\n"
        "protect()\nprint(before, kept, ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "1", "0"]


# --- wallets ---------------------------------------------------------------------------------------------------------


async def command(*words: Any, **environment: str) -> tuple[int, bytes]:
    """`isthmus --debug …` under an open umask: its status, and all that it said."""
    process = await asyncio.create_subprocess_exec(
        *CARELESS,
        *map(str, words),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, **environment},
    )
    async with asyncio.timeout(60):
        out, _ = await process.communicate()
    return process.returncode or 0, out


@pytest.mark.slow
async def test_no_secret_of_a_wallet_is_seen(nodes: Any, config: Any, peer: Any, tmp_path: Path) -> None:
    """P-16, AUTH-2: what its commands say and write, with a connector that is there, gone, and refuses."""
    port = config.free_port()
    text = config.toml(config.account("alice"), config.account("bob"), btp=port)
    text = text.replace(config.token_of("alice"), CANARIES["alice"])
    node = await nodes.run(text)
    connector = f"btp+ws://127.0.0.1:{port}"
    wallet = tmp_path / "wallet"
    status, said = await command("wallet", "init", wallet, "--connector", connector, ISTHMUS_TOKEN=CANARIES["alice"])
    assert status == 0, said
    secret = (wallet / "secret").read_text().strip()
    statuses = []
    for words in (
        ("wallet", "init", tmp_path / "other", "--connector", connector.replace("//", f"//:{CANARIES['old']}@")),
        ("wallet", "show", "--wallet", wallet),
        ("history", "--wallet", wallet),
        ("ping", "test.node", "--count", "1", "--wallet", wallet),
        ("pay", "https://127.0.0.1:1/", "0.1", "--yes", "--wallet", wallet),
    ):
        status, more = await command(*words)
        said += more
        statuses.append(status)
    assert statuses[0] != 0 and statuses[1:3] == [0, 0] and statuses[4] != 0
    await node.stop()
    said += (await command("ping", "test.node", "--count", "1", "--wallet", wallet))[1]
    said += (await command("pay", "https://127.0.0.1:1/", "0.1", "--yes", "--wallet", wallet))[1]
    (wallet / "secret").write_text(secret[:-2] + "zz\n")  # a damaged secret is not shown either
    status, more = await command("wallet", "show", "--wallet", wallet)
    assert status == 2
    said += more
    assert secrets_in(said) == []
    assert secret[:-2].encode() not in said
    for path in wallet.rglob("*"):
        if path.is_file() and path.name not in ("token", "secret"):
            data = path.read_bytes()
            assert secrets_in(data) == [], path
            assert secret.encode() not in data and bytes.fromhex(secret) not in data, path


# --- files -----------------------------------------------------------------------------------------------------------


def open_to_others(folder: Path) -> list[str]:
    """What others may read, write or enter below this folder."""
    return [
        f"{path.relative_to(folder)} {stat.S_IMODE(path.lstat().st_mode):o}"
        for path in folder.rglob("*")
        if stat.S_IMODE(path.lstat().st_mode) & 0o077
    ]


@pytest.mark.slow
async def test_all_that_a_node_writes_is_for_its_user_only(config: Any, peer: Any, tmp_path: Path) -> None:
    """Whatever the umask is: config and secrets from `node init`, journal, lock, archive, checkpoint, running.json."""
    nodes = config.Nodes(tmp_path)
    made = tmp_path / "made"
    for keep in ("inline", "files"):
        subprocess.run([*CAREFUL, "node", "init", str(made / keep), "--secrets", keep], capture_output=True, check=True)
    text = config.toml(config.account("alice"), config.account("bob"), rest='[journal]\narchive = "archive"')
    node = await nodes.run(text, wrapper=CAREFUL)
    alice, _ = await peer(node, "alice"), await peer(node, "bob", fulfils=True)
    for _ in range(PAYMENTS):
        assert isinstance(await alice.pay("test.node.bob", 10), Fulfill)
    running = open_to_others(node.folder / "data")
    assert running == []
    await node.kill()
    again = await nodes.run(text, folder=node.folder, wrapper=CAREFUL)
    assert open_to_others(again.folder / "data") == []
    assert await again.stop() == 0
    assert open_to_others(again.folder / "data") == []
    assert open_to_others(made) == []


@pytest.mark.slow
async def test_all_that_a_wallet_writes_is_for_its_user_only(nodes: Any, config: Any, tmp_path: Path) -> None:
    """Its socket too, while a process serves it."""
    port = config.free_port()
    await nodes.run(config.toml(config.account("alice"), btp=port))
    # A socket's name is short: not below pytest's folder.
    folder = Path(tempfile.mkdtemp()) / "wallet"
    try:
        connector = f"btp+ws://127.0.0.1:{port}"
        status, said = await command(
            "wallet", "init", folder, "--connector", connector, ISTHMUS_TOKEN=config.token_of("alice")
        )
        assert status == 0, said
        receiving = await asyncio.create_subprocess_exec(
            *CAREFUL, "receive", "--listen", "127.0.0.1:0", "--wallet", str(folder), stdout=subprocess.PIPE
        )
        assert receiving.stdout is not None
        async with asyncio.timeout(60):
            await receiving.stdout.readline()
        assert (folder / "wallet.sock").exists()
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert open_to_others(folder) == []
        receiving.send_signal(signal.SIGINT)
        await receiving.communicate()
        assert open_to_others(folder) == []
    finally:
        shutil.rmtree(folder.parent)


async def test_throttling_tells_the_address_and_not_what_was_shown(nodes: Any, config: Any) -> None:
    """A wrong token is often a right one of somewhere else."""
    node = await nodes.run(config.toml(config.account("alice"), rest='[log]\nlevel = "debug"'))
    for number in range(FAILURES_MAX + 1):
        await node.get("/accounts", token=f"{CANARIES['old']}-{number}")
    await node.until("admin.throttled", address="127.0.0.1")
    raw = await config.RawPeer.dial(node)
    raw.send_auth(CANARIES["old"])
    await raw.read_close()
    await raw.close()
    assert secrets_in("\n".join(node.lines)) == []
