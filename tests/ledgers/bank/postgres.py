"""A PostgreSQL of the tests' own, in a folder that goes away with it; it listens on a socket in that folder only."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

USER = "postgres"  # whom a root starts it as: it refuses to run as root
_SETTINGS = ("fsync=off", "listen_addresses=", "max_connections=60", "full_page_writes=off", "synchronous_commit=off")


def programs() -> Path | None:
    """Where initdb and pg_ctl are; None if PostgreSQL isn't installed."""
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    found = shutil.which("initdb")
    return next((each for each in places if (each / "initdb").exists()), None if found is None else Path(found).parent)


def why_not() -> str:
    """Why there can be no PostgreSQL here; "" if there can."""
    if programs() is None:
        return "PostgreSQL is not installed (Debian, Ubuntu: apt-get install postgresql)"
    if os.geteuid() == 0 and not any(each.pw_name == USER for each in pwd.getpwall()):
        return f"PostgreSQL doesn't run as root, and there is no user {USER}"
    return ""


@contextmanager
def postgresql() -> Iterator[str]:
    """The URL of an empty server; databases are made in it by their names."""
    place = programs()
    assert place is not None
    folder = Path(tempfile.mkdtemp(prefix="isthmus-pg-"))
    user = USER if os.geteuid() == 0 else None
    if user is not None:
        shutil.chown(folder, user)

    def run(program: str, *arguments: str) -> None:
        command = [str(place / program), "-D", str(folder / "data"), *arguments]
        done = subprocess.run(command, user=user, capture_output=True, text=True, timeout=120, check=False, cwd=folder)
        assert done.returncode == 0, done.stderr

    options = " ".join(f"-c {each}" for each in _SETTINGS)
    try:
        run("initdb", "-U", USER, "-A", "trust", "-E", "UTF8", "--no-sync")
        run("pg_ctl", "-w", "-l", str(folder / "log"), "-o", f"-k {folder} {options}", "start")
        try:
            yield f"postgresql://{USER}@/{USER}?host={folder}"
        finally:
            run("pg_ctl", "-w", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
