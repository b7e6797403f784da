"""`isthmus …` in a process of its own, beside a running node."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path


async def command(
    *arguments: str | Path,
    token: str | None = None,
    stdin: str = "",
    cwd: Path | None = None,
    timeout_s: int = 60,
    **environment: str,
) -> subprocess.CompletedProcess[str]:
    """What it prints. Without an admin token, if none is given; never that of the test run's own environment."""
    clean = {name: value for name, value in os.environ.items() if name != "ISTHMUS_ADMIN_TOKEN"}
    if token is not None:
        environment["ISTHMUS_ADMIN_TOKEN"] = token
    return await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "isthmus", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
        input=stdin,
        cwd=cwd,
        env=clean | environment,
    )
