"""A connector, two wallets and their commands, each a process of its own, for the tests of the wallet's commands."""

import json
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

ISTHMUS = [sys.executable, "-m", "isthmus"]
WAIT_SECONDS = 60.0  # a bound for a loaded machine; nothing here takes that long
TOKENS = {name: f"token-of-{name}-with-enough-length-0123456789" for name in ("alice", "bob")}
NODE = """
address = "test.hub"
[listeners.btp]
listen = "127.0.0.1:0"
[rates]
"BTC/ETH" = "25"
[accounts.alice]
asset = "BTC"
scale = 8
relation = "child"
link = {{ type = "btp-server", token = "{alice}" }}
[accounts.alice.limits]
receivable = "unlimited"
payable = "unlimited"
[accounts.bob]
asset = "ETH"
scale = 9
relation = "child"
link = {{ type = "btp-server", token = "{bob}" }}
[accounts.bob.limits]
receivable = "unlimited"
payable = "unlimited"
packet = "0.0001"
"""


def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """`isthmus …` to its end."""
    return subprocess.run(
        [*ISTHMUS, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=WAIT_SECONDS,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        check=False,
    )


@dataclass
class Receiving:
    """`isthmus receive`, running."""

    process: subprocess.Popen[str]
    url: str
    lines: list[str] = field(default_factory=list)

    def end(self) -> int:
        """Ctrl-C; the exit status. What was printed since is in `lines`."""
        self.process.send_signal(2)
        out, _ = self.process.communicate(timeout=WAIT_SECONDS)
        self.lines += out.splitlines()
        return self.process.returncode


@dataclass
class Terminal:
    """What a command showed on a terminal, and how it ended."""

    text: str
    status: int


@dataclass
class Network:
    """Alice (BTC) and Bob (ETH), children of one connector; 25 ETH for a BTC, packets of 0.000004 BTC."""

    folder: Path
    port: int
    running: list[subprocess.Popen[str]] = field(default_factory=list)

    def url(self, name: str, *, token: bool = True) -> str:
        return f"btp+ws://{f':{TOKENS[name]}@' if token else ''}127.0.0.1:{self.port}"

    def wallet(self, name: str) -> Path:
        """A wallet's folder, made when it is first asked for."""
        folder = self.folder / name
        if not folder.exists():
            made = run("wallet", "init", folder, "--connector", self.url(name))
            assert made.returncode == 0, made.stderr
        return folder

    def receive(self, name: str = "bob", *options: str) -> Receiving:
        command = [*ISTHMUS, "receive", "--wallet", str(self.wallet(name)), "--listen", "127.0.0.1:0", *options]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.running.append(process)
        assert process.stdout is not None
        first = process.stdout.readline()
        url = json.loads(first)["receiving"]["url"] if first.startswith("{") else first.split()[1]
        return Receiving(process, url)

    def on_terminal(self, *arguments: str | Path, answers: dict[str, bytes]) -> Terminal:
        """Run a command on a terminal; type each answer once, when its text has been shown."""
        process_id, terminal = pty.fork()
        if process_id == 0:
            os.environ["COLUMNS"] = "160"
            os.execv(sys.executable, [*ISTHMUS, *map(str, arguments)])
        shown = b""
        deadline = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < deadline:
            ready, _, _ = select.select([terminal], [], [], 1)
            if not ready:
                continue
            try:
                chunk = os.read(terminal, 65_536)
            except OSError:
                break  # the other end is closed: Linux says it with an error
            shown += chunk
            for text, answer in list(answers.items()):
                if text.encode() in shown:
                    del answers[text]
                    os.write(terminal, answer)
        _, status = os.waitpid(process_id, 0)
        os.close(terminal)
        return Terminal(shown.decode(errors="replace"), os.waitstatus_to_exitcode(status))


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    folder = tmp_path_factory.mktemp("network")
    config = folder / "node.toml"
    config.write_text(NODE.format(**TOKENS))
    config.chmod(0o600)
    node = subprocess.Popen([*ISTHMUS, "node", "run", str(config)], stderr=subprocess.PIPE, text=True)
    assert node.stderr is not None
    for line in node.stderr:
        if '"running"' in line:
            break
    listening = json.loads((folder / "data" / "running.json").read_text())["listening"]
    network = Network(folder, int(listening["btp"].rpartition(":")[2]))
    yield network
    for process in network.running:
        if process.poll() is None:
            process.kill()
        process.communicate()
    node.terminate()
    node.communicate(timeout=WAIT_SECONDS)


@pytest.fixture(scope="session")
def isthmus_command() -> Callable[..., subprocess.CompletedProcess[str]]:
    """`isthmus_command("pay", …)`."""
    return run


def json_of(completed: subprocess.CompletedProcess[str]) -> Any:
    """What a command printed with --json."""
    assert completed.returncode == 0, completed.stderr
    return json.loads(completed.stdout)
