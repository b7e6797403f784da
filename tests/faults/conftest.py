"""Real faults on real nodes: ways to break the disk, the clock and the network under one."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.node.conftest import (  # noqa: F401  (fixtures)
    Config,
    config,
    nodes,
    peer,
    raw,
    two,
    wall_ms_now,
)


class Faults:
    """Switches faults of one node on and off, while it runs: see shim.c."""

    def __init__(self, library: Path, folder: Path) -> None:
        self._folder = folder
        # Before the program, as `Nodes.run` takes it.
        self.wrapper = ("env", f"LD_PRELOAD={library}", f"FAULTS={folder}", sys.executable, "-m", "isthmus")

    def on(self, name: str, text: str = "") -> None:
        fresh = self._folder / f".{name}"
        fresh.write_text(text)
        fresh.rename(self._folder / name)

    def off(self, name: str) -> None:
        (self._folder / name).unlink()


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """shim.c compiled."""
    if sys.platform != "linux" or shutil.which("cc") is None:
        pytest.skip("faults of system calls need Linux and a C compiler (cc)")
    library = tmp_path_factory.mktemp("shim") / "shim.so"
    source = Path(__file__).with_name("shim.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"], check=True)
    return library


@pytest.fixture
def faults(shim: Path, tmp_path: Path) -> Callable[[], Faults]:
    """Makes the switches for one more node."""
    count = 0

    def make() -> Faults:
        nonlocal count
        count += 1
        folder = tmp_path / f"faults-{count}"
        folder.mkdir()
        return Faults(shim, folder)

    return make


@pytest.fixture
def plain_user() -> tuple[str, ...]:
    """A wrapper under which file modes count, also for root: without the capability to pass over them."""
    command = (sys.executable, "-m", "isthmus")
    if os.geteuid() != 0:
        return command
    drop = (
        "import ctypes, os, sys\n"
        "for capability in (1, 2):\n"  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
        "    assert ctypes.CDLL(None).prctl(24, capability, 0, 0, 0) == 0\n"  # PR_CAPBSET_DROP
        "os.execv(sys.executable, [sys.executable, '-m', 'isthmus', *sys.argv[1:]])\n"
    )
    return (sys.executable, "-c", drop)
