"""Which build runs: the pure core interpreted, or compiled by mypyc from the same source (`make native`)."""

import platform
from pathlib import Path

from isthmus import __version__
from isthmus.ilp import packet


def build_kind() -> str:
    """`compiled` or `interpreted`, told by the file that the packet codec was loaded from."""
    return "interpreted" if Path(packet.__file__).suffix == ".py" else "compiled"


def version_line() -> str:
    """What `isthmus --version` prints, and what a bug report should name."""
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return f"isthmus {__version__} ({build_kind()} core, {python}, {platform.system()} {platform.machine()})"
