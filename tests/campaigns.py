"""What long campaigns share: the commit that they try, a state that no interruption breaks, and how to stop them."""

import os
import signal
import subprocess
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]


def commit() -> str:
    """Of the code that is tried: with the seed, what a finding is reported with."""
    command = ("git", "describe", "--always", "--dirty")
    ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    return ended.stdout.strip() or "unknown"


def keep(path: Path, octets: bytes) -> None:
    """Write a file whole or not at all: whoever is killed in here leaves the one before."""
    new = path.with_name(path.name + ".new")
    new.write_bytes(octets)
    os.replace(new, path)


def stop_by_terminate() -> None:
    """SIGTERM does what Ctrl-C does, so that ledgers and nodes are stopped too; both do in the background as well."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts background jobs deaf to it
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
