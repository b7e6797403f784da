"""Alice and Bob: who makes their wallets, and how Bob is paid."""

import json
from pathlib import Path
from typing import Any

from isthmus.cli.demo.network import HOST
from isthmus.cli.demo.processes import Child, Processes, awaited
from isthmus.client.folder import init_folder
from isthmus.client.uplink import ask_connector


async def make_wallet(folder: Path, connector: str, token: str) -> None:
    """What `isthmus wallet init` does."""
    told = await ask_connector(connector, token=token)
    init_folder(folder, connector, token, told)


async def start_receiving(processes: Processes, name: str, folder: Path) -> str:
    """Serve a wallet by `isthmus receive`; the URL to pay it at."""
    child = await processes.start(name, "receive", "--json", "--listen", f"{HOST}:0", "--wallet", str(folder))
    url = (await awaited(child, lambda: _receiving(child)))["url"]
    assert isinstance(url, str)
    return url


def _receiving(child: Child) -> dict[str, Any] | None:
    """What it says when it is ready, among what it says else."""
    for line in child.log.read_text().splitlines():
        if line.startswith('{"receiving"'):
            found: dict[str, Any] = json.loads(line)["receiving"]
            return found
    return None
