"""The set-up script: which Python it takes, and what it says where something is missing."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SHIM = "#!/bin/sh\necho 'shim: command not found' >&2\nexit 127\n"
# A Python that answers questions and can't make an environment, so that a run ends after the choice.
WORKING = f'#!/bin/sh\ncase $1 in -m) exit 1;; --version) echo Python 3.x;; *) exec {sys.executable} "$@";; esac\n'
OLD = "#!/bin/sh\ncase $1 in -c) exit 1;; esac\n"
NO_ENSUREPIP = f"""#!/bin/sh
case $2 in *ensurepip*) exit 1;; *) exec {sys.executable} "$@";; esac
"""
NO_SQLITE = f"""#!/bin/sh
case $2 in *sqlite3*) exit 1;; *) exec {sys.executable} "$@";; esac
"""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """As much of a clone as the script reads, so that no test can touch the real environment."""
    folder = tmp_path / "clone"
    shutil.copytree(ROOT / "requirements", folder / "requirements")
    (folder / "tools").mkdir()
    shutil.copy(ROOT / "tools" / "setup", folder / "tools" / "setup")
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def set_up(clone: Path, kind: str = "run", **pythons: str) -> tuple[int, list[str]]:
    """Run the script with nothing but these Pythons on the PATH; its status and what it says on stderr."""
    path = clone.parent / "bin"
    path.mkdir()
    for name in ("dirname", "cat", "cmp", "head", "rm", "env"):
        found = shutil.which(name)
        assert found is not None
        (path / name).symlink_to(found)
    for name, script in pythons.items():
        program = path / name.replace("_", ".")
        program.write_text(script)
        program.chmod(0o755)
    done = subprocess.run(
        ["/bin/sh", str(clone / "tools" / "setup"), kind],
        env={"PATH": str(path), "HOME": os.environ.get("HOME", "/")},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    return done.returncode, done.stderr.splitlines()


def test_a_shim_that_fails_is_passed_over(clone: Path) -> None:
    status, said = set_up(clone, python3_13=SHIM, python3_12=WORKING, python3=WORKING)
    assert (status, said) == (1, ["set-up: python3.12 could not make .venv"])


def test_python3_is_taken_if_it_is_new_enough(clone: Path) -> None:
    status, said = set_up(clone, python3_13=SHIM, python3=WORKING)
    assert (status, said) == (1, ["set-up: python3 could not make .venv"])


def test_an_incomplete_python_is_passed_over(clone: Path) -> None:
    status, said = set_up(clone, python3_13=NO_ENSUREPIP, python3_11=WORKING)
    assert (status, said) == (1, ["set-up: python3.11 could not make .venv"])


@pytest.mark.parametrize("pythons", [{}, {"python3": OLD}, {"python3_13": SHIM, "python3": OLD}])
def test_no_python_is_one_line_that_says_what_to_install(clone: Path, pythons: dict[str, str]) -> None:
    status, said = set_up(clone, **pythons)
    assert status == 1
    assert len(said) == 1
    assert "no Python 3.11 or newer" in said[0]
    assert "apt-get install python3 python3-venv" in said[0]


@pytest.mark.parametrize(("script", "words"), [(NO_ENSUREPIP, "lacks ensurepip"), (NO_SQLITE, "without sqlite3")])
def test_a_missing_part_is_one_line_that_says_what_to_install(clone: Path, script: str, words: str) -> None:
    status, said = set_up(clone, python3=script)
    assert status == 1
    assert len(said) == 1
    assert words in said[0]
    assert "python3-venv" in said[0]


def test_an_unknown_lock_is_refused(clone: Path) -> None:
    status, said = set_up(clone, "prod", python3=WORKING)
    assert (status, said) == (1, ["set-up: no such lock: requirements/prod.lock (try: run, dev)"])


def test_the_locks_hold_hashes_and_no_place_of_this_machine() -> None:
    for path in (ROOT / "requirements").glob("*.lock"):
        for line in path.read_text().splitlines():
            assert line.startswith("    --hash=sha256:") or "==" in line, f"{path.name}: {line}"
            assert "://" not in line
            assert " @ " not in line


def test_developers_get_the_versions_that_users_get() -> None:
    run, dev = (
        {line.split()[0] for line in (ROOT / "requirements" / name).read_text().splitlines() if "==" in line}
        for name in ("run.lock", "dev.lock")
    )
    assert run <= dev
