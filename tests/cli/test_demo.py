"""`isthmus demo` as a user runs it: real processes, sockets and files."""

import json
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

WAIT_S = 60
TINY = "0.0001"
NODES = ("connector-1", "connector-2", "connector-3")


def command(*options: str | Path) -> list[str]:
    return [sys.executable, "-m", "isthmus", "demo", "--amount", TINY, *map(str, options)]


def environment(folder: Path) -> dict[str, str]:
    """What the demo leaves behind in temporary folders can be found."""
    folder.mkdir(exist_ok=True)
    return {**os.environ, "TMPDIR": str(folder)}


def run(*options: str | Path, tmp: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*options), capture_output=True, text=True, timeout=WAIT_S, env=environment(tmp), check=False
    )


@contextmanager
def running(*options: str | Path, tmp: Path, until: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The demo, and what it printed up to the line that begins with `until`."""
    demo = subprocess.Popen(
        command(*options), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(tmp)
    )
    with demo:
        try:
            assert demo.stdout is not None
            printed = ""
            for line in demo.stdout:
                printed += line
                if line.startswith(until):
                    break
            else:
                assert demo.stderr is not None
                pytest.fail(f"it ended: {printed}{demo.stderr.read()}")
            yield demo, printed
        finally:
            demo.kill()


def pidfds(folder: Path) -> list[int]:
    """One for each process that runs a node of the demo in this folder, or Bob's wallet."""
    found = []
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            line = Path("/proc", pid, "cmdline").read_bytes()
        except OSError:
            continue
        if str(folder).encode() in line and b"isthmus.cli.demo.guarded" in line:
            found.append(os.pidfd_open(int(pid)))
    return found


def have_ended(fds: list[int]) -> bool:
    """Whether all these processes end within a while."""
    waiting = list(fds)
    while waiting:
        ended = select.select(waiting, [], [], WAIT_S)[0]
        if not ended:
            return False
        waiting = [one for one in waiting if one not in ended]
    for one in fds:
        os.close(one)
    return True


def metrics(printed: str) -> str:
    """What the printed curl command would fetch, without needing curl."""
    found = re.search(r"cat (\S+)\)\" (http\S+)", printed)
    assert found is not None
    headers = {"Authorization": f"Bearer {Path(found[1]).read_text().strip()}"}
    with urllib.request.urlopen(urllib.request.Request(found[2], headers=headers), timeout=WAIT_S) as answer:
        text: str = answer.read().decode()
    return text


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """Short, whoever runs the tests: a wallet's socket must fit into a socket's name."""
    with tempfile.TemporaryDirectory(prefix="isthmus-") as folder:
        yield Path(folder)


def test_a_payment_arrives_and_all_books_agree(tmp_path: Path) -> None:
    done = run("--json", tmp=tmp_path / "tmp")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\n") == 1
    shown = json.loads(done.stdout)
    assert list(shown) == ["sent", "delivered", "packets", "rejected", "seconds", "nodes", "books_agree"]
    assert shown["books_agree"] is True
    assert shown["sent"] == "10000"
    # 64250.5 × 0.92 ÷ 2310 ETH for a BTC, less 0.6 % of spreads and a little rounding
    assert 2_540_000 < int(shown["delivered"]) < 2_544_000
    assert shown["packets"] >= 10
    nodes = {node["name"]: node for node in shown["nodes"]}
    assert list(nodes) == ["alice", *NODES, "bob"]
    for name, asset in zip(NODES, ("USD", "EUR", "ETH"), strict=True):
        assert list(nodes[name]["earnings"]) == [asset]
        assert int(nodes[name]["earnings"][asset]) > 0
    balances = {
        (node["name"], account["account"]): int(account["balance"])
        for node in shown["nodes"]
        for account in node["accounts"]
    }
    assert balances["alice", "uplink"] == -10_000 == -balances["connector-1", "alice"]
    assert balances["connector-2", "connector-3"] == -balances["connector-3", "connector-2"] < 0
    assert balances["bob", "uplink"] == int(shown["delivered"])
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.slow
def test_a_kept_network_can_be_used_and_ends_with_ctrl_c(tmp_path: Path) -> None:
    with running("--keep", "--folder", tmp_path / "demo", tmp=tmp_path / "tmp", until="Ctrl-C") as (demo, printed):
        for part in ("Alice", "connector-2", "0.0001 BTC", "The hops", "earned", "All books agree to the unit"):
            assert part in printed
        children = pidfds(tmp_path)
        assert len(children) == 4
        tried = [line.strip() for line in printed.splitlines() if line.startswith("  isthmus ")]
        assert len(tried) >= 6
        for line in tried:
            isthmus = line.replace("isthmus", f"{sys.executable} -m isthmus", 1)
            answer = subprocess.run(isthmus, shell=True, capture_output=True, text=True, timeout=WAIT_S, check=False)
            assert answer.returncode == 0, (line, answer.stderr)
        assert "isthmus_link_up" in metrics(printed)
        demo.send_signal(signal.SIGINT)
        assert demo.wait(WAIT_S) == 0
        assert have_ended(children)
    assert {path.name for path in (tmp_path / "demo").iterdir()} == {"alice", "bob", "logs", *NODES}


@pytest.mark.slow
@pytest.mark.parametrize("number, status", [(signal.SIGTERM, 130), (signal.SIGKILL, -9)], ids=["told", "killed"])
def test_nothing_is_left_running(tmp_path: Path, number: signal.Signals, status: int) -> None:
    with running("--folder", tmp_path / "demo", "--keep", tmp=tmp_path / "tmp", until="Paying") as (demo, _):
        children = pidfds(tmp_path)
        assert len(children) == 4
        demo.send_signal(number)
        assert demo.wait(WAIT_S) == status
        assert have_ended(children)


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    done = run("--folder", tmp_path, tmp=tmp_path / "tmp")
    assert done.returncode == 2
    assert "not empty" in done.stderr


@pytest.mark.parametrize("amount", ["0", "1e3", "0.000000001", "-1", "0.20000001"])
def test_an_amount_that_is_none_is_refused(tmp_path: Path, amount: str) -> None:
    done = run("--amount", amount, tmp=tmp_path / "tmp")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "--amount" in done.stderr


@pytest.mark.slow
def test_a_failure_is_one_line_that_names_the_logs(tmp_path: Path) -> None:
    """A path too long for the socket of Bob's wallet."""
    folder = tmp_path / ("x" * 100)
    done = run("--json", "--folder", folder, tmp=tmp_path / "tmp")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert "socket" in done.stderr
    assert str(folder / "logs") in done.stderr
    assert pidfds(tmp_path) == []
