"""Compiles the pure core with mypyc: `make native`. The result, a whole package, goes to build/native.

`PYTHONPATH=build/native` puts it before the interpreted one. The sources are the same, nothing is generated for it;
what is not listed here (everything that does I/O) stays interpreted in both builds.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "build" / "native"

# Files, and folders with all that is in them. Everything here must be pure (the import contracts say the same).
COMPILED = [
    "oer.py",
    "ilp",
    "connector",
    "stream",
    "links/btp/carrying.py",
    "links/btp/codec.py",
    "links/btp/generalized_time.py",
    "links/btp/orders.py",
    "links/btp/session.py",
    "links/http/session.py",
    "journal/record.py",
]

SETUP = """
from mypyc.build import mypycify
from setuptools import setup

extensions = mypycify({arguments!r}, opt_level="3")
setup(name="isthmus-core", ext_modules=extensions, script_args=["--quiet", "build_ext", "--inplace"])
"""


def modules(package: Path) -> list[Path]:
    """The source files to compile, in a fixed order."""
    found: list[Path] = []
    for name in COMPILED:
        path = package / name
        if path.is_dir():
            found += [each for each in sorted(path.rglob("*.py")) if each.name != "__init__.py"]
        elif path.exists():
            found.append(path)
    return found


def fingerprint(package: Path) -> str:
    """What the build depends on: the sources, this script, the Python and the compiler."""
    digest = hashlib.sha256(f"{sys.version}{os.environ.get('CC', '')}".encode())
    for path in [Path(__file__), *sorted(package.rglob("*.py"))]:
        digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def build(package: Path) -> int:
    """Copy the package to the target and compile there; the work tree gets no binaries. Returns the exit status."""
    shutil.rmtree(TARGET, ignore_errors=True)
    TARGET.mkdir(parents=True)
    copy = TARGET / "isthmus"
    shutil.copytree(package, copy, ignore=shutil.ignore_patterns("__pycache__"))
    names = [str(path.relative_to(TARGET)) for path in modules(copy)]
    script = TARGET / "setup.py"
    config = ["--config-file", str(ROOT / "pyproject.toml"), "--strict"]
    script.write_text(SETUP.format(arguments=[*config, *names]))
    environment = {**os.environ, "MYPYPATH": "", "PYTHONPATH": ""}
    done = subprocess.run([sys.executable, "setup.py"], cwd=TARGET, env=environment, check=False)
    script.unlink()
    shutil.rmtree(TARGET / "build", ignore_errors=True)
    shutil.rmtree(TARGET / ".mypy_cache", ignore_errors=True)
    return done.returncode


def main() -> int:
    package = ROOT / "src" / "isthmus"
    stamp = TARGET / "native.stamp"
    wanted = fingerprint(package)
    if not (stamp.exists() and stamp.read_text() == wanted):
        started = time.monotonic()
        print(f"native: compiling {len(modules(package))} modules (about a minute)", flush=True)
        status = build(package)
        if status:
            print("native: not compiled, see above; isthmus is complete without it", file=sys.stderr)
            return status
        stamp.write_text(wanted)
        print(f"native: done in {time.monotonic() - started:.0f} s")
    print("native: use it by PYTHONPATH=build/native .venv/bin/python -m isthmus …")
    return 0


if __name__ == "__main__":
    sys.exit(main())
