"""`python -m tests.mutants`: small breaks of the code, each of which the proof must find. `make mutants` calls it.

A mutant is a patch in this folder, with a header that says what it breaks and what must catch it. It is applied to a
copy of `src`, and the simulator runs on the copy, or the trace of system calls. `table.json` keeps the seed that
caught each: the check runs only those, and the unmutated code on the same seeds. `--search` finds the seeds anew.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, Final, TypeAlias

from isthmus.sim.kinds import PLAIN, SETTLE, plan_of
from isthmus.sim.plan import FAULTS, LEDGER_FAULTS, SETTLE_VICES, VICES
from tests.campaigns import keep
from tests.mutants.page import PAGE, page
from tests.mutants.tried import Tried

HERE: Final = Path(__file__).parent
ROOT: Final = HERE.parent.parent
TABLE: Final = HERE / "table.json"
TRIED: Final = ROOT / "build/mutants/search.json"

SIMULATOR: Final = "simulator"
TRACE: Final = "trace"
CATCHERS: Final = (SIMULATOR, TRACE)
TRACE_TEST: Final = "tests/node/test_durability.py::test_every_frame_follows_the_fdatasync_that_covers_its_batch"
TRACE_SAYS: Final = "left before batch"  # how the test words what it found

SEEDS: Final = 400
ROUND: Final = 4  # seeds of the first round of a search
# A broken network may be slow to end: a payment asks again and again. A run of whole code takes a second or two.
RUN_SECONDS_MAX: Final = 240
SEARCH_SECONDS_MAX: Final = 4_000
KINDS_KEPT: Final = 3

LOCK: Final = Lock()

Row: TypeAlias = dict[str, Any]


class MutantError(Exception):
    """A mutant that can't be tried."""


@dataclass(slots=True, frozen=True)
class Mutant:
    name: str
    breaks: str
    catcher: str
    patch: Path
    only_with: tuple[str, ...] = ()  # shows in a plan with one of these faults or vices, and in no other
    networks: str = PLAIN  # which kind shows it (isthmus.sim.kinds)


@dataclass(slots=True)
class Verdict:
    """What came of one mutant: caught by the first of `findings`, or not, and why."""

    name: str
    seed: int = 0
    findings: list[Row] = field(default_factory=list)
    problem: str = ""


def mutants() -> list[Mutant]:
    """All patches of this folder."""
    return [_read(path) for path in sorted(HERE.glob("*.patch"))]


def _read(path: Path) -> Mutant:
    head = path.read_text(encoding="utf-8").partition("\ndiff ")[0]
    fields = dict(line.split(": ", 1) for line in head.splitlines() if ": " in line)
    if not fields.get("breaks") or fields.get("caught by") not in CATCHERS:
        raise MutantError(f"{path.name}: its first lines must be `breaks: …` and `caught by: {' | '.join(CATCHERS)}`")
    only_with = tuple(fields["only with"].split(", ")) if "only with" in fields else ()
    if not set(only_with) <= {*FAULTS, *VICES, *LEDGER_FAULTS, *SETTLE_VICES}:
        raise MutantError(f"{path.name}: `only with: …` names faults and vices of isthmus.sim.plan")
    networks = fields.get("networks", PLAIN)
    if networks not in (PLAIN, SETTLE):
        raise MutantError(f"{path.name}: `networks: …` is {PLAIN} or {SETTLE}")
    return Mutant(path.stem, fields["breaks"], fields["caught by"], path, only_with, networks)


# --- the copy --------------------------------------------------------------------------------------------------------


@contextmanager
def mutated(mutant: Mutant | None) -> Iterator[Path]:
    """A folder with a copy of `src`, mutated."""
    with tempfile.TemporaryDirectory(prefix="isthmus-mutant-") as folder:
        copy = Path(folder) / "src"
        shutil.copytree(ROOT / "src", copy, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        if mutant is not None:
            # Without fuzz: where the code around a break has changed, somebody should look at it again. Git must not
            # take the folder for a part of a repository around it.
            command = ["git", "apply", "--whitespace=nowarn", str(mutant.patch)]
            env = os.environ | {"GIT_CEILING_DIRECTORIES": str(Path(folder).parent)}
            done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
            if done.returncode:
                raise MutantError(
                    f"tests/mutants/{mutant.patch.name} no longer applies to src: {done.stderr.strip()}. Make the same"
                    f" break in the code as it is now (`git diff -U2`), and look for a seed:"
                    f" make mutants-search ARGS={mutant.name}"
                )
        yield copy


def _run(copy: Path, *command: str, seconds: int) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"PYTHONPATH": os.pathsep.join((str(copy), str(ROOT))), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        return subprocess.run(
            [sys.executable, *command], cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=seconds
        )
    except subprocess.TimeoutExpired as error:
        raise MutantError(f"{' '.join(command[:6])} took more than {seconds} s") from error


# --- catching --------------------------------------------------------------------------------------------------------


def check(mutant: Mutant, seed: int) -> Verdict:
    """Whether a mutant is caught on its seed."""
    with mutated(mutant) as copy:
        if mutant.catcher == TRACE:
            return _trace(mutant, copy)
        return Verdict(mutant.name, seed, simulate(copy, seed, mutant.networks))


def search(mutant: Mutant, first: int, last: int) -> Verdict:
    """The first of these seeds that catches a mutant."""
    with mutated(mutant) as copy:
        if mutant.catcher == TRACE:
            return _trace(mutant, copy)
        for stretch in _stretches(mutant, first, last):
            found = _first(copy, mutant.networks, *stretch)
            # What the whole code shows on this seed, too, is a finding of its own and no catch.
            while found is not None and _whole_code_fails(found["seed"], mutant.networks):
                found = _first(copy, mutant.networks, found["seed"] + 1, stretch[1])
            if found is not None:
                return Verdict(mutant.name, found["seed"], found["findings"])
    return Verdict(mutant.name, problem=f"not caught by seeds 1 to {last}")


def _stretches(mutant: Mutant, first: int, last: int) -> Iterator[tuple[int, int]]:
    """First and last of each stretch of these seeds in which the mutant may show."""
    if not mutant.only_with:
        yield first, last
        return
    for seed in range(first, last + 1):
        plan = plan_of(mutant.networks, seed)
        if {*(fault.kind for fault in plan.faults), *(node.vice for node in plan.nodes)} & {*mutant.only_with}:
            yield seed, seed


def _first(copy: Path, networks: str, first: int, last: int) -> Row | None:
    """The first of these seeds with a finding."""
    while first <= last:
        sweep = (
            "sweep",
            *_option(networks),
            "--first",
            str(first),
            "--seeds",
            str(last - first + 1),
            "--stop-at-first",
            "--json",
        )
        failures = _simulator(copy, *sweep, seconds=SEARCH_SECONDS_MAX)["failures"]
        if not failures:
            return None
        failure: Row = failures[0]
        if failure["findings"]:
            return failure
        first = failure["seed"] + 1  # it was only smaller than a seed should be
    return None


def _option(networks: str) -> tuple[str, ...]:
    return () if networks == PLAIN else (f"--{networks}",)


def _whole_code_fails(seed: int, networks: str) -> bool:
    """Whether the code without a mutant has findings on this seed."""
    found = next(whole_code([(networks, seed)], 1)).findings
    if found:
        print(f"the code without a mutant: seed {seed} finds {found[0]['text']}", flush=True)
    return bool(found)


def simulate(copy: Path, seed: int, networks: str) -> list[Row]:
    """What the auditor and the simulator find in one run."""
    run = ("run", *_option(networks), "--seed", str(seed), "--json")
    findings: list[Row] = _simulator(copy, *run, seconds=RUN_SECONDS_MAX)["findings"]
    return findings


def _simulator(copy: Path, *command: str, seconds: int) -> Row:
    done = _run(copy, "-m", "isthmus", "sim", *command, seconds=seconds)
    try:
        found: Row = json.loads(done.stdout)
    except ValueError:
        # An exception of a node is a finding; that the simulator itself breaks is none.
        raise MutantError(f"the simulator broke: {done.stderr.strip()[-400:]}") from None
    return found


def _trace(mutant: Mutant, copy: Path) -> Verdict:
    """Follow the system calls of a node that runs on the copy."""
    done = _run(copy, "-m", "pytest", "-q", "-p", "no:cacheprovider", TRACE_TEST, seconds=RUN_SECONDS_MAX)
    says = next((line for line in done.stdout.splitlines() if TRACE_SAYS in line), "")
    if done.returncode == 1 and says:
        return Verdict(mutant.name, findings=[{"kind": "trace", "text": f"a frame {TRACE_SAYS} was synced"}])
    return Verdict(mutant.name, problem=f"the trace test says: {done.stdout.strip()[-200:]}")


# --- many ------------------------------------------------------------------------------------------------------------


def check_all(chosen: Sequence[Mutant], table: Row, jobs: int) -> Iterator[Verdict]:
    """Each on its recorded seed, as they end."""
    known = [mutant for mutant in chosen if mutant.name in table]
    yield from _side_by_side(known, lambda mutant: check(mutant, table[mutant.name]["seed"]), jobs)
    for mutant in chosen:
        if mutant not in known:
            yield Verdict(mutant.name, problem="it has no seed yet: make mutants-search")


def search_all(chosen: Sequence[Mutant], first: int, seeds: int, jobs: int, tried: Tried) -> Iterator[Verdict]:
    """A few seeds for all, then more for those that are left: what is easily caught is known early."""
    left, last = list(chosen), first + ROUND - 1
    while left:
        last = min(last, seeds)
        missed: dict[str, None] = {}
        for verdict in _side_by_side(left, partial(_searched, first=first, last=last, tried=tried), jobs):
            if verdict.findings or last == seeds:
                yield verdict
            else:
                missed[verdict.name] = None
        left = [mutant for mutant in left if mutant.name in missed]
        first, last = last + 1, 2 * last


def _searched(mutant: Mutant, first: int, last: int, tried: Tried) -> Verdict:
    """As an earlier sitting found it, or now."""
    if mutant.catcher == TRACE:
        return search(mutant, first, last)
    said = tried.said(mutant.patch, first, last)
    if said is not None:
        return Verdict(**said)
    verdict = search(mutant, first, last)
    with LOCK:
        tried.add(mutant.patch, first, last, asdict(verdict))
    return verdict


def _side_by_side(chosen: Sequence[Mutant], work: Callable[[Mutant], Verdict], jobs: int) -> Iterator[Verdict]:
    # A traced node is a real one, and a busy machine makes it late: those come first, one at a time.
    for mutant in chosen:
        if mutant.catcher == TRACE:
            yield _tried(work, mutant)
    pool = ThreadPoolExecutor(jobs)
    try:
        tasks = [pool.submit(_tried, work, mutant) for mutant in chosen if mutant.catcher != TRACE]
        for task in as_completed(tasks):
            yield task.result()
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C waits for what runs, and begins no more


def _tried(work: Callable[[Mutant], Verdict], mutant: Mutant) -> Verdict:
    try:
        return work(mutant)
    except MutantError as error:
        return Verdict(mutant.name, problem=str(error))


def whole_code(seeds: Iterable[tuple[str, int]], jobs: int) -> Iterator[Verdict]:
    """The code as it is, on the kinds and seeds that catch mutants: nothing may be found."""
    with mutated(None) as copy, ThreadPoolExecutor(jobs) as pool:
        tasks = {pool.submit(simulate, copy, seed, networks): seed for networks, seed in seeds}
        for task in as_completed(tasks):
            yield Verdict("the code without a mutant", tasks[task], task.result())


def _kinds(findings: Iterable[Row]) -> list[str]:
    return list(dict.fromkeys(one["kind"] for one in findings))[:KINDS_KEPT]


def _row(mutant: Mutant, verdict: Verdict) -> Row:
    networks = {} if mutant.networks == PLAIN else {"networks": mutant.networks}
    return {
        "breaks": mutant.breaks,
        "by": mutant.catcher,
        **networks,
        "seed": verdict.seed,
        "findings": _kinds(verdict.findings),
        "says": verdict.findings[0]["text"],
    }


# --- the command -----------------------------------------------------------------------------------------------------


def main() -> int:
    parser = argparse.ArgumentParser(prog="make mutants", description="Break the code on purpose; it must be noticed.")
    parser.add_argument("names", nargs="*", help="these mutants only")
    parser.add_argument("--search", action="store_true", help="find the seeds anew, and write the table and its page")
    parser.add_argument("--first", type=int, default=1, help="the seed to search from")
    parser.add_argument("--seeds", type=int, default=SEEDS, help=f"the seed to search to (default {SEEDS})")
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time")
    given = parser.parse_args()
    try:
        known = mutants()
    except MutantError as error:
        print(error)
        return 1
    table: Row = json.loads(TABLE.read_text(encoding="utf-8")) if TABLE.exists() else {}
    chosen = [mutant for mutant in known if not given.names or mutant.name in given.names]
    if shutil.which("strace") is None and any(mutant.catcher == TRACE for mutant in chosen):
        print("strace is missing: what only the trace catches is not tried (Debian, Ubuntu: apt-get install strace)")
        chosen = [mutant for mutant in chosen if mutant.catcher != TRACE]
    if not {mutant.name for mutant in known}.issuperset(given.names):
        parser.error(f"there are only {', '.join(mutant.name for mutant in known)}")
    try:
        failed = _search(chosen, known, table, given) if given.search else _check(chosen, known, table, given)
    except KeyboardInterrupt:
        print("interrupted" + (f"; make mutants-search ARGS='{' '.join(given.names)}' goes on" if given.search else ""))
        return 130
    print(f"{len(chosen)} mutants, {failed} problems")
    return 1 if failed else 0


def _search(chosen: Sequence[Mutant], known: Sequence[Mutant], table: Row, given: argparse.Namespace) -> int:
    failed = 0
    by_name = {mutant.name: mutant for mutant in known}
    tried = Tried(TRIED, ROOT / "src")
    if tried:
        print(f"a search was interrupted: its {len(tried)} stretches of seeds are not run again", flush=True)
    for verdict in search_all(chosen, given.first, given.seeds, given.jobs, tried):
        failed += _tell(verdict, by_name[verdict.name])
        table.pop(verdict.name, None)
        if verdict.findings:
            table[verdict.name] = _row(by_name[verdict.name], verdict)
        table = {name: table[name] for name in sorted(table) if name in by_name}
        keep(TABLE, (json.dumps(table, indent=1, ensure_ascii=False) + "\n").encode())
        keep(ROOT / PAGE, page(table).encode())
    tried.over()
    return failed


def _check(chosen: Sequence[Mutant], known: Sequence[Mutant], table: Row, given: argparse.Namespace) -> int:
    by_name = {mutant.name: mutant for mutant in known}
    failed = sum(_tell(verdict, by_name[verdict.name]) for verdict in check_all(chosen, table, given.jobs))
    tried = [mutant for mutant in chosen if mutant.catcher == SIMULATOR and mutant.name in table]
    seeds = {(mutant.networks, int(table[mutant.name]["seed"])) for mutant in tried}
    for verdict in whole_code(sorted(seeds), given.jobs):
        if verdict.findings:
            failed += 1
            print(f"{verdict.name}: seed {verdict.seed} finds {verdict.findings[0]['text']}")
    print(f"the code without a mutant: {len(seeds)} seeds run")
    unknown = sorted(set(table) - set(by_name))
    stale = [name for name in table if name in by_name and table[name]["breaks"] != by_name[name].breaks]
    written = (ROOT / PAGE).read_text(encoding="utf-8") if (ROOT / PAGE).exists() else ""
    if unknown or stale or written != page(table):
        failed += 1
        print(f"the table or {PAGE} is not of these patches: make mutants-search {' '.join([*unknown, *stale])}")
    return failed


def _tell(verdict: Verdict, mutant: Mutant) -> int:
    if verdict.findings:
        seed = f"seed {verdict.seed}" if verdict.seed else mutant.catcher
        print(f"{verdict.name}: caught by {seed} ({', '.join(_kinds(verdict.findings))})", flush=True)
        return 0
    why = verdict.problem or f"not caught on seed {verdict.seed}: make mutants-search ARGS={verdict.name}"
    print(f"{verdict.name}: NOT CAUGHT: {why}", flush=True)
    return 1


if __name__ == "__main__":
    sys.exit(main())
