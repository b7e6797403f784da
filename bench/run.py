"""All measurements: `python -m bench.run` writes `bench/RESULTS.md`. `--smoke` is short and judges nothing."""

import argparse
import asyncio
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from bench import claims, fairness, routing, sections
from bench.plan import FULL, SMOKE, Plan, Tell

RESULTS = Path(__file__).parent / "RESULTS.md"
SECTIONS: dict[str, Callable[[Plan, Tell], Awaitable[str]]] = {
    "forwarding": sections.forwarding,
    "stream": sections.stream_payment,
    "memory": sections.memory,
    "http": sections.http,
    "fairness": fairness.section,
    "routing": routing.section,
    "claims": claims.section,
    "profile": sections.profile,
}
PACKAGES = ("isthmus", "cryptography", "aiohttp", "picows", "websockets", "uvloop")


def first_line(*command: str) -> str:
    """What a program says of itself, "-" if there is none."""
    if shutil.which(command[0]) is None:
        return "-"
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=RESULTS.parent)
    return (done.stdout or done.stderr).strip().partition("\n")[0] or "-"


def installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "-"


def processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def heading(arguments: list[str]) -> str:
    """Machine, versions and command: what a reader needs to do it again."""
    packages = ", ".join(f"{name} {installed(name)}" for name in PACKAGES)
    return "\n".join(
        [
            "# Results",
            "",
            "Written by `make bench`. The machine is shared: compare what one table says, not numbers of two runs.",
            "",
            f"- Command: `python -m bench.run {' '.join(arguments)}`".rstrip(),
            f"- Commit: {first_line('git', 'rev-parse', '--short', 'HEAD')}",
            f"- Machine: {processor()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}",
            f"- Python {platform.python_version()}, Node {first_line('node', '--version')}; {packages}",
            f"- Build: {first_line(sys.executable, '-m', 'isthmus', '--version')}",
            "- Load at the start (1, 5, 15 minutes): " + ", ".join(f"{load:.2f}" for load in os.getloadavg()),
            "",
            "",
        ]
    )


async def run(names: list[str], plan: Plan, tell: Tell, keep: Callable[[str], None]) -> tuple[str, int]:
    """The text of the sections, and how many of them failed. One failure does not keep the others from running.

    `keep` is given the text after each section, so that an interrupted run is not lost.
    """
    texts = []
    failed = 0
    for name in names:
        started = time.monotonic()
        tell(f"== {name}")
        try:
            text = await SECTIONS[name](plan, tell)
        except Exception as exc:  # noqa: BLE001
            failed += 1
            text = f"## {name}\n\nFailed: {type(exc).__name__}: {exc}\n"
            tell(text)
        texts.append(text + f"\n({time.monotonic() - started:.0f} s)\n")
        keep("\n".join(texts))
    return "\n".join(texts), failed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="short: shows that it runs, prints instead of writing")
    parser.add_argument("--only", help="sections, comma-separated: " + ", ".join(SECTIONS))
    parser.add_argument("--rounds", type=int, help="interleaved runs of each target at each window")
    parser.add_argument("--out", type=Path, help=f"instead of {RESULTS.name}")
    options = parser.parse_args()
    plan = SMOKE if options.smoke else FULL
    if options.rounds:
        plan = replace(plan, rounds=options.rounds, stream_rounds=options.rounds, http_rounds=options.rounds)
    names = options.only.split(",") if options.only else list(SECTIONS)
    head = heading(sys.argv[1:])
    out = options.out or (None if options.smoke else RESULTS)

    def keep(text: str) -> None:
        if out is not None:
            out.write_text(head + text)

    text, failed = asyncio.run(run(names, plan, lambda line: print(line, file=sys.stderr, flush=True), keep))
    if out is None:
        print(head + text)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
