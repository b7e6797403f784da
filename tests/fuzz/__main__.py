"""Runs the fuzz targets: `python -m tests.fuzz run`, `campaign`, `report`, `keep`, `show`. See docs/fuzzing.md.

Each stretch of fuzzing is a process of its own. What it ran is added to `build/fuzz/state.json` when it ends, so a
campaign that was stopped goes on where it was, and loses one stretch at most.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Any, Final, final

from tests.campaigns import commit, keep
from tests.fuzz.registry import FOUND, MODULES, RSS_MB_MAX, load, read_corpus, read_found, write_corpus

WORK: Final = Path("build/fuzz")
STATE: Final = WORK / "state.json"
LOG: Final = WORK / "log.jsonl"
# One stretch of a campaign: long enough that starting a process does not count, short enough to lose.
STRETCH_SECONDS: Final = 60
# What a process may take beyond its time: imports, the corpus, the last input.
SPARE_SECONDS: Final = 120
KEPT_BYTES_MAX: Final = 20_000  # of one target's corpus in the repository, where two digits stand for a byte
STATEFUL_KEPT_MAX: Final = 200  # inputs of a whole machine, some milliseconds each: every start runs them
HUNG: Final = 124  # in place of an exit status
LOCK: Final = Lock()


@final
@dataclass(slots=True)
class Stretch:
    """What one fuzzer process did."""

    inputs: int
    seconds: float
    found: list[Path]
    output: str


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="each target for some seconds")
    run.add_argument("--seconds", type=int, default=20)
    campaign = commands.add_parser("campaign", help="up to a number of inputs for each target, over many runs")
    campaign.add_argument("--inputs", type=int, default=10_000_000)
    campaign.add_argument("--stateful", type=int, default=0, help="the same for stateful targets (a hundredth of it)")
    campaign.add_argument("--stretch", type=int, default=STRETCH_SECONDS, help="seconds of one process")
    for each in (run, campaign):
        each.add_argument("--target", action="append", choices=sorted(MODULES))
        each.add_argument("--jobs", type=int, default=1)
    commands.add_parser("report", help="how many inputs each target had")
    keep = commands.add_parser("keep", help="write the smallest corpus with the same coverage into the repository")
    keep.add_argument("--target", action="append", choices=sorted(MODULES))
    show = commands.add_parser("show", help="run one input, without a fuzzer")
    show.add_argument("target", choices=sorted(MODULES))
    show.add_argument("file", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "show":
        load(arguments.target).run(arguments.file.read_bytes())
        print("an allowed outcome")
        return 0
    names = arguments.target if getattr(arguments, "target", None) else list(MODULES)
    if arguments.command == "report":
        return report()
    if arguments.command == "keep":
        for name in names:
            keep_corpus(name)
        return 0
    if find_spec("atheris") is None:
        print("atheris isn't installed: it has wheels for CPython 3.11 to 3.13 on Linux x86-64 only (`make fuzz`)")
        return 2
    if arguments.command == "run":
        return run_all(names, arguments.seconds, arguments.jobs)
    goals = {
        name: (arguments.stateful or arguments.inputs // 100) if load(name).stateful else arguments.inputs
        for name in names
    }
    return run_campaign(goals, arguments.stretch, arguments.jobs)


# --- the commands ----------------------------------------------------------------------------------------------------


def run_all(names: list[str], seconds: int, jobs: int) -> int:
    """Every target for so many seconds; 1 if one found something."""
    with ThreadPoolExecutor(jobs) as pool:
        stretches = dict(zip(names, pool.map(lambda name: stretch(name, seconds), names), strict=True))
    for name, done in stretches.items():
        print(f"{name:15} {done.inputs:12,} inputs  {done.inputs / max(done.seconds, 1):10,.0f}/s  {verdict(done)}")
    found = [name for name, done in stretches.items() if done.found]
    print(
        f"{'sum':15} {sum(done.inputs for done in stretches.values()):12,} inputs; found something: {found or 'none'}"
    )
    return 1 if found else 0


def run_campaign(goals: dict[str, int], seconds: int, jobs: int) -> int:
    """Stretch after stretch, the target with the fewest inputs (by its goal) first, until all have theirs."""
    failed: set[str] = set()
    busy: set[str] = set()

    def next_name() -> str | None:
        counts = read_state()
        open_names = [
            name
            for name, goal in goals.items()
            if name not in failed and name not in busy and counts.get(name, {}).get("inputs", 0) < goal
        ]
        return min(open_names, key=lambda name: counts.get(name, {}).get("inputs", 0) / goals[name], default=None)

    def work() -> None:
        while True:
            with LOCK:
                name = next_name()
                if name is None:
                    return
                busy.add(name)
            done = stretch(name, seconds)
            with LOCK:
                busy.discard(name)
                total = read_state()[name]["inputs"]
                share = min(100, 100 * total // goals[name])
                print(f"{name:15} {total:14,} of {goals[name]:12,} ({share:3}%)  {verdict(done)}", flush=True)
                if done.found or not done.inputs:
                    failed.add(name)

    with ThreadPoolExecutor(jobs) as pool:
        for future in [pool.submit(work) for _ in range(jobs)]:
            future.result()
    report()
    return 1 if failed else 0


def verdict(done: Stretch) -> str:
    if done.found:
        return "FOUND " + " ".join(map(str, done.found))
    return "ok" if done.inputs else "ok, but the time was over with the corpus"


def report() -> int:
    """The sum over all runs."""
    total = 0
    for name, counts in sorted(read_state().items()):
        total += counts["inputs"]
        print(f"{name:15} {counts['inputs']:14,} inputs  {counts['seconds']:9,.0f} s  {counts['found']} found")
    print(f"{'sum':15} {total:14,} inputs")
    return 0


def keep_corpus(name: str) -> None:
    """Of all inputs, those that libFuzzer needs for the coverage of all."""
    source, kept = prepare(name), WORK / name / "kept"
    shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir(parents=True)
    options = ["-merge=1", f"-max_len={load(name).size_max}", str(kept), str(source)]
    subprocess.run([sys.executable, "-m", "tests.fuzz.child", name, *options], check=True, capture_output=True)
    inputs: list[bytes] = []
    size = 0
    for octets in sorted((path.read_bytes() for path in kept.iterdir()), key=len):
        size += len(octets)
        if size <= KEPT_BYTES_MAX:
            inputs.append(octets)
    assert inputs or not any(source.iterdir())
    if load(name).stateful:
        inputs = inputs[:: -(-len(inputs) // STATEFUL_KEPT_MAX)]
    write_corpus(name, inputs)
    print(f"{name:15} {len(inputs):5} inputs kept, {sum(map(len, inputs)):7,} bytes")


# --- one process -----------------------------------------------------------------------------------------------------


def stretch(name: str, seconds: int) -> Stretch:
    """Fuzz one target for some seconds in a process of its own, and add what it did to the state."""
    target = load(name)
    corpus = prepare(name)
    artifacts = WORK / name / "found"
    artifacts.mkdir(exist_ok=True)
    before = set(artifacts.iterdir())
    command = [sys.executable, "-m", "tests.fuzz.child", name, str(corpus)]
    command += [
        f"-max_total_time={seconds}",
        f"-max_len={target.size_max}",
        f"-timeout={target.seconds_max}",
        f"-rss_limit_mb={RSS_MB_MAX}",
        f"-dict={WORK / name / 'tokens.dict'}",
        f"-artifact_prefix={artifacts}/",
        "-print_final_stats=1",
    ]
    started = time.monotonic()
    last_log = WORK / name / "last.log"
    with last_log.open("w") as log:
        try:
            status = subprocess.run(
                command, stdout=log, stderr=subprocess.STDOUT, check=False, timeout=seconds + SPARE_SECONDS
            ).returncode
        except subprocess.TimeoutExpired:
            status = HUNG
    found = sorted(set(artifacts.iterdir()) - before)
    output = last_log.read_text(errors="replace")
    if status != 0:
        print(f"--- {name}: exit status {status}\n{output[-4_000:]}", flush=True)
        found = found or [last_log]
    done = Stretch(executed(output), time.monotonic() - started, found, output)
    add_to_state(name, done)
    return done


def prepare(name: str) -> Path:
    """The folder with the working corpus: the seeds, what the repository keeps, and what runs before found."""
    folder = WORK / name / "corpus"
    folder.mkdir(parents=True, exist_ok=True)
    target = load(name)
    for octets in (*target.seeds(), *read_corpus(name), *read_found(name).values()):
        path = folder / sha256(octets).hexdigest()[:40]
        if not path.exists():
            path.write_bytes(octets)
    lines = ['"' + "".join(f"\\x{octet:02x}" for octet in token) + '"\n' for token in target.tokens]
    (WORK / name / "tokens.dict").write_text("".join(lines))
    return folder


def executed(output: str) -> int:
    """The inputs that were run, without those of the corpus that every start repeats."""
    done = re.search(r"stat::number_of_executed_units: (\d+)", output)
    start = re.search(r"^#(\d+)\s+INITED", output, re.MULTILINE)
    return max(0, int(done[1]) - (int(start[1]) if start else 0)) if done else 0


# --- the state -------------------------------------------------------------------------------------------------------


def read_state() -> dict[str, dict[str, Any]]:
    loaded: dict[str, dict[str, Any]] = json.loads(STATE.read_text()) if STATE.exists() else {}
    return loaded


def add_to_state(name: str, done: Stretch) -> None:
    with LOCK:
        counts = read_state()
        mine = counts.setdefault(name, {"inputs": 0, "seconds": 0.0, "found": 0})
        mine["inputs"] += done.inputs
        mine["seconds"] += done.seconds
        mine["found"] += len(done.found)
        keep(STATE, json.dumps(counts, indent=1, sort_keys=True).encode())
        line = {"at": int(time.time()), "target": name, "inputs": done.inputs, "seconds": round(done.seconds, 1)}
        line |= {"commit": commit(), "found": [str(path) for path in done.found]}
        with LOG.open("a") as log:
            log.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    WORK.mkdir(parents=True, exist_ok=True)
    FOUND.mkdir(exist_ok=True)
    sys.exit(main())
