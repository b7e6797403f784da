"""Known vulnerabilities in what the lock files name: `make audit`.

Exit 1 if a package that a node runs with has one. What the registries that this machine is set up for don't answer is
said, and is no failure: nothing was found out then. The Node packages are those of implementations by others, that only
the interop tests run: theirs are listed and fail nothing.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = ROOT / "build" / "audit"
AUDITOR = "pip-audit>=2.7,<3"
LOCKS = {"run.lock": True, "dev.lock": False, "fuzz.lock": False}  # whether a finding fails
WAIT_S = 300


def run(*command: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S, check=False, cwd=cwd)


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    return ((done.stderr or done.stdout).strip().splitlines() or ["no reason given"])[-1][:200]


def auditor() -> Path | None:
    """The auditor in an environment of its own; None if the index doesn't offer it."""
    program = ENVIRONMENT / "bin" / "pip-audit"
    if program.exists():
        return program
    run(sys.executable, "-m", "venv", str(ENVIRONMENT))
    done = run(str(ENVIRONMENT / "bin" / "python"), "-m", "pip", "install", "--quiet", AUDITOR)
    if done.returncode:
        print(f"audit: not done: {AUDITOR} can't be installed from the package index here: {last_line(done)}")
        return None
    return program


def audit_lock(program: Path, name: str) -> int:
    """How many packages of a lock have known vulnerabilities; what was not found out is printed."""
    lock = ROOT / "requirements" / name
    done = run(str(program), "--require-hashes", "--disable-pip", "--format", "json", "-r", str(lock))
    try:
        packages: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        print(f"audit: {name}: not done: the index gives no answer about vulnerabilities: {last_line(done)}")
        return 0
    skipped = [each for each in packages if "skip_reason" in each]
    if len(skipped) == len(packages):
        print(f"audit: {name}: not done: the index knows of none of the {len(packages)} packages in its advisories")
        return 0
    found = [each for each in packages if each.get("vulns")]
    for each in found:
        names = ", ".join(vulnerability["id"] for vulnerability in each["vulns"])
        print(f"audit: {name}: {each['name']} {each['version']}: {names}")
    print(f"audit: {name}: {len(packages) - len(skipped)} packages looked up, {len(found)} with known vulnerabilities")
    for each in skipped:
        print(f"audit: {name}: {each['name']} was not looked up: {each['skip_reason']}")
    return len(found)


def audit_npm() -> None:
    if shutil.which("npm") is None:
        print("audit: Node packages of the interop tests: not done: npm is not installed")
        return
    done = run("npm", "audit", "--package-lock-only", "--json", cwd=ROOT / "tests" / "interop")
    try:
        counts = json.loads(done.stdout)["metadata"]["vulnerabilities"]
    except (ValueError, KeyError):
        print("audit: Node packages of the interop tests: not done: the registry gives no answer about vulnerabilities")
        return
    told = ", ".join(f"{kind} {count}" for kind, count in counts.items() if count) or "none"
    print(f"audit: Node packages of the interop tests (never shipped): known vulnerabilities: {told}")


def main() -> int:
    failures = 0
    program = auditor()
    if program is not None:
        for name, counts in LOCKS.items():
            found = audit_lock(program, name)
            failures += found if counts else 0
    audit_npm()
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
