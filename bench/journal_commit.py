"""What a commit of the SQLite journal costs, and what it costs the event loop beside it.

    python bench/journal_commit.py [--json] [--batches N]

Four things, on a file in a temporary folder (use --folder for the disk that counts): the time of one commit, alone and
with the loop busy; the time that `submit` takes of the loop; what the projection adds; the bytes a packet takes. The
figures are of this machine and noisy; compare the rows of one run.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from isthmus.connector.events import AccountId, AccountMovement, Summary
from isthmus.journal.sqlite import SqliteJournal

ENTRY_BYTES: Final = 130  # of one leg's reserve, about
WALL_MS: Final = 1_700_000_000_000
ACCOUNTS: Final = (AccountId("alice"), AccountId("bob"))
INTERNAL: Final = [(f"{kind}:{code}", 2**70) for kind in ("clearing", "spread", "rounding") for code in ("USD", "EUR")]


def summary_of(sequence: int, packets: int, *, projected: bool) -> Summary:
    wall_ms = WALL_MS + sequence
    if not projected:
        return Summary(wall_ms)
    amount = packets * 10**9
    return Summary(
        wall_ms,
        [AccountMovement(account, amount, amount, packets, packets, 0, 2**63 + sequence) for account in ACCOUNTS],
        [],
        INTERNAL,
    )


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


class Run:
    """One writer and one loop: the loop spins `spin_ms` of Python a turn, and keeps at most `overlap` batches out."""

    def __init__(self, path: Path, *, packets: int, spin_ms: float, overlap: int, projected: bool) -> None:
        self.packets, self.spin_ms, self.overlap, self.projected = packets, spin_ms, overlap, projected
        self.journal = SqliteJournal(path)
        self.path = path
        self.loop = asyncio.get_running_loop()
        self.sent_at: list[float] = []
        self.commit_s: list[float] = []
        self.submit_s: list[float] = []
        self.durable = 0
        self.wake = asyncio.Event()

    def on_durable(self, sequence: int) -> None:
        self.loop.call_soon_threadsafe(self.was_durable, sequence)

    def on_failed(self, sequence: int, problem: str) -> None:
        raise SystemExit(problem)

    def was_durable(self, sequence: int) -> None:
        now = time.perf_counter()
        self.commit_s += [now - sent_at for sent_at in self.sent_at[self.durable : sequence]]
        self.durable = sequence
        self.wake.set()

    async def run(self, batches: int) -> dict[str, float | int | str]:
        self.journal.start(self.on_durable, self.on_failed)
        record = os.urandom(ENTRY_BYTES * self.packets)
        # Two accounts, two legs a packet, each reserved and posted: what a forwarded packet leaves, in two batches.
        started, cpu = time.perf_counter(), time.process_time()
        for sequence in range(1, batches + 1):
            spin_until = time.perf_counter() + self.spin_ms / 1000
            while time.perf_counter() < spin_until:
                pass
            summary = summary_of(sequence, self.packets, projected=self.projected)
            before = time.perf_counter()
            self.sent_at.append(before)
            self.journal.submit(sequence, record, summary)
            self.submit_s.append(time.perf_counter() - before)
            await asyncio.sleep(0)
            while len(self.sent_at) - self.durable >= self.overlap:
                self.wake.clear()
                await self.wake.wait()
        while self.durable < batches:
            self.wake.clear()
            await self.wake.wait()
        took_s = time.perf_counter() - started
        self.journal.close()
        return {
            "packets": self.packets,
            "spin_ms": self.spin_ms,
            "overlap": self.overlap,
            "projection": "yes" if self.projected else "no",
            "commit_us_p50": round(percentile(self.commit_s, 0.5) * 1e6),
            "commit_us_p99": round(percentile(self.commit_s, 0.99) * 1e6),
            "submit_us_p50": round(percentile(self.submit_s, 0.5) * 1e6, 1),
            "submit_us_p99": round(percentile(self.submit_s, 0.99) * 1e6, 1),
            "batches_per_s": round(batches / took_s),
            "cpu_us_a_batch": round((time.process_time() - cpu) / batches * 1e6 - self.spin_ms * 1000),
            "bytes_a_packet": round(self.path.stat().st_size / batches / self.packets, 1),
        }


async def measure(folder: str, batches: int) -> list[dict[str, float | int | str]]:
    rows = []
    plans = [
        (1, 0.0, 1, False),
        (1, 0.0, 1, True),
        (100, 0.0, 1, False),
        (100, 0.0, 1, True),
        (100, 1.0, 4, False),
        (100, 1.0, 4, True),
        (1000, 4.0, 4, True),
    ]
    for number, (packets, spin_ms, overlap, projected) in enumerate(plans):
        path = Path(folder) / f"{number}.db"
        run = Run(path, packets=packets, spin_ms=spin_ms, overlap=overlap, projected=projected)
        rows.append(await run.run(batches if spin_ms == 0 else max(200, batches // 4)))
        path.unlink()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one object a row")
    parser.add_argument("--batches", type=int, default=2_000)
    parser.add_argument("--folder", help="a folder on the disk to measure")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        rows = asyncio.run(measure(folder, given.batches))
    if given.json:
        print("\n".join(json.dumps(row) for row in rows))
        return
    names = list(rows[0])
    print("  ".join(names))
    for row in rows:
        print("  ".join(str(row[name]).rjust(len(name)) for name in names))
    sys.stdout.flush()


if __name__ == "__main__":
    main()
