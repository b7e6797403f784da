"""The campaign: kill, look, start again, thousands of times; then let it be quiet, and audit.

It goes in rounds. In a round every process lives and dies by itself, under load: at a random instant, or at a named
point of the shell that it was armed for. After each death its journal is looked at before the next start: how many
packets it left undecided, and whether it verifies. At the end of a round nothing is killed any more, payments end, and
the auditor gets what all journals and both wallets say. In most rounds a killed process starts again at once, and
then no loss at all is permitted; in some it may stay away for longer than any packet lives.
"""

import asyncio
import json
import pickle
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from isthmus.cli.wallet_session import look
from isthmus.errors import JournalError
from isthmus.sim.auditor import Finding, Loss, Report, examine
from isthmus.sim.evidence import Down, Evidence, Opening, Paid, Received
from tests.campaigns import commit, keep
from tests.crash.children import Children
from tests.crash.journals import digest_at, exported, is_older, make_older, outcomes_left, verified
from tests.crash.killpoints import CHECKPOINT_EVERY, OPEN_PACKETS, PASSAGE, POINT
from tests.crash.network import WALLETS, Place, read_json, wires
from tests.crash.payer import QUIET_FILE, STATUS_FILE
from tests.crash.tail import Tail

OPEN_WANTED: Final = 20  # undecided packets that a kill should meet
SHARE_WANTED: Final = 70  # per cent of the kills
OPEN_SHARE: Final = 0.8  # of the lives that may not end before there are so many, if they come at all
PACKETS_WANTED: Final = 80  # in flight from each wallet
TIMEOUT_MS: Final = 15_000  # of the wallets' packets
KILLS_PER_ROUND_MAX: Final = 100
LONG_EVERY: Final = 3  # each third round has long downtimes, and a short campaign has three rounds
LONG_DOWN_S_MAX: Final = 25  # longer than a packet lives
LONG_PAUSE_S: Final = 20  # from one long downtime to the next: without packets there is little to lose
SETTLE_MS: Final = 5_000
POLL_S: Final = 0.1
LIFE_S_MAX: Final = 8  # an armed process that doesn't reach its point in time is killed from outside
START_S_MAX: Final = 60
QUIET_S_MAX: Final = 120
DOWN_SLACK_MS: Final = 500  # deaths and starts are seen a little late
STANDING: Final = "standing"  # the file that a campaign goes on from
RANDOM: Final = "random"
# How often each manner of dying is chosen, and for the armed ones the passages to die at.
MANNERS: Final[dict[str, tuple[int, int, int]]] = {
    RANDOM: (30, 0, 0),
    "append.before": (11, 10, 100),
    "append.written": (11, 10, 100),
    "append.durable": (14, 10, 100),
    "released": (10, 20, 200),
    "checkpoint.written": (4, 1, 1),
    "checkpoint.saved": (3, 1, 1),
    "checkpoint.verified": (3, 1, 1),
    "checkpoint.pruning": (3, 1, 1),
    "log.copied": (4, 1, 4),
    "migration": (4, 1, 1),
    "start.replayed": (3, 1, 1),
}
BEFORE_PACKETS: Final = ("migration", "start.replayed")  # a process passes there before it takes packets
CHECKPOINT_BATCHES: Final = (10, 60)  # between checkpoints, in a life that is to die in one
USUAL_CHECKPOINT_EVERY: Final = 1_500


@dataclass(slots=True, kw_only=True)
class Kill:
    """One line of the log."""

    number: int = 0
    node: str
    point: str  # where it died
    planned: str  # where it was to die
    at_ms: int
    back_ms: int = 0
    open_packets: int = 0  # undecided in its journal
    sequence: int = 0
    digest: str = ""


@dataclass(slots=True)
class Standing:
    """What a campaign has come to; kept on disk after every round."""

    seed: int
    rounds: int = 0
    kills: int = 0
    loaded: int = 0  # kills that met enough open packets
    by_point: Counter[str] = field(default_factory=Counter)
    loaded_by_point: Counter[str] = field(default_factory=Counter)
    by_node: Counter[str] = field(default_factory=Counter)
    packets: int = 0
    fulfilled: int = 0
    payments: int = 0
    findings: list[Finding] = field(default_factory=list)
    losses: list[Loss] = field(default_factory=list)
    verified: int = 0  # journals of the dead
    digests: int = 0  # running nodes asked for theirs, and replay gave the same
    opening: Opening | None = None
    seconds: float = 0.0

    def count(self, kill: Kill) -> None:
        self.kills += 1
        kill.number = self.kills
        self.by_point[kill.point] += 1
        self.by_node[kill.node] += 1
        if kill.open_packets >= OPEN_WANTED:
            self.loaded += 1
            self.loaded_by_point[kill.point] += 1


class Campaign:
    """One network, killed until `wanted` kills are done."""

    def __init__(self, folder: Path, wanted: int, standing: Standing, tell: Callable[["Campaign"], None]) -> None:
        self.folder: Final = folder
        self.wanted: Final = wanted
        self.standing: Final = standing
        self.commit: Final = commit()
        self.phase = "starting"
        self._tell: Final = tell
        self._place = Place.found(folder)
        self._children = Children(self._place.logs)
        self._tails: dict[str, Tail] = {}
        self._downs: list[Down] = []
        self._draw = random.Random()
        self._enough = asyncio.Event()
        self._interrupted: list[Down] = []  # what an earlier process saw of the round that goes on
        self._is_long = False
        self._is_quick = True  # everybody is back at once: nothing at all may be lost
        self._long_from = 0.0  # nobody stays away long before
        self._round_kills = 0
        self._round_wanted = 0

    @classmethod
    def begin(cls, folder: Path, wanted: int, seed: int, tell: Callable[["Campaign"], None]) -> "Campaign":
        """A new one in an empty folder."""
        Place.make(folder, seed=seed, packets_wanted=PACKETS_WANTED, timeout_ms=TIMEOUT_MS)
        campaign = cls(folder, wanted, Standing(seed), tell)
        campaign._keep()  # in its first round it can be interrupted too
        return campaign

    @classmethod
    def resume(cls, folder: Path, wanted: int, tell: Callable[["Campaign"], None]) -> "Campaign":
        """One that was interrupted: the round that was not audited is done again, with what it left behind."""
        standing = pickle.loads((folder / STANDING).read_bytes())
        assert isinstance(standing, Standing)
        return cls(folder, wanted, standing, tell)

    def _downs_before(self) -> list[Down]:
        """Of a round that was interrupted: who was down then by the log, and everybody from then to now."""
        downs = []
        log = self.folder / "kills.jsonl"
        for line in log.read_text().splitlines() if log.exists() else []:
            kill = json.loads(line)
            if kill["round"] == self.standing.rounds:
                downs.append(_down(kill["node"], kill["at_ms"], kill["back_ms"]))
        for name in self._place.names:
            rows = self._rows(name)
            if rows.exists():  # it was written to for the last time when the process lived
                downs.append(_down(name, rows.stat().st_mtime_ns // 1_000_000, _wall_ms()))
        return downs

    async def run(self) -> None:
        """To the end, or to the first round with findings."""
        async with self._children:
            try:
                await self._gather([self._start(name, self._usual()) for name in reversed(self._place.names)])
                self._interrupted = self._downs_before()
                for name in self._place.names:
                    self._tails[name] = Tail(name, self._journal(name), self._rows(name))
                    self._tails[name].start()
                while self.standing.kills < self.wanted and not self.standing.findings:
                    await self._round()
            finally:
                for tail in self._tails.values():
                    await asyncio.to_thread(tail.close)

    async def _round(self) -> None:
        standing, began = self.standing, time.monotonic()
        self._draw = random.Random(f"{standing.seed}/{standing.rounds}")
        self._is_long = standing.rounds % LONG_EVERY == LONG_EVERY - 1
        self._round_kills, self._round_wanted = 0, self._kills_per_round()
        self._enough.clear()
        self._long_from = time.monotonic() + self._draw.uniform(0, LONG_PAUSE_S / 2)
        self._downs, self._interrupted = self._interrupted, []
        self._is_quick = not (self._is_long or self._downs)
        for wallet in WALLETS:
            (self._place.folder / wallet / QUIET_FILE).unlink(missing_ok=True)
        self._say("killing, long downtimes" if self._is_long else "killing")
        lives = [random.Random(self._draw.random()) for _ in self._place.names]
        await self._gather([self._lives(*each) for each in zip(self._place.names, lives, strict=True)])
        self._say("waiting for quiet")
        for wallet in WALLETS:
            (self._place.folder / wallet / QUIET_FILE).touch()
        restless = await self._until_quiet()
        self._say("auditing")
        report = await self._audit()
        standing.rounds += 1
        standing.findings += restless + report.findings
        self._keep_losses(report.losses)
        standing.packets += report.packets
        standing.fulfilled += report.fulfilled
        standing.opening = report.closing
        standing.seconds += time.monotonic() - began
        if not standing.findings:
            await self._next_rows()
            self._keep()
        self._say("")

    def _keep(self) -> None:
        keep(self.folder / STANDING, pickle.dumps(self.standing))

    def _kills_per_round(self) -> int:
        most = min(KILLS_PER_ROUND_MAX, -(-self.wanted // LONG_EVERY))
        return max(1, min(most, self.wanted - self.standing.kills))

    def _say(self, phase: str) -> None:
        self.phase = phase
        self._tell(self)

    async def _gather(self, work: list[Any]) -> None:
        async with asyncio.TaskGroup() as group:
            for one in work:
                group.create_task(one)

    # --- living and dying ---------------------------------------------------------------------------------------

    def _usual(self) -> dict[str, str]:
        return {CHECKPOINT_EVERY: str(USUAL_CHECKPOINT_EVERY)}

    async def _start(self, name: str, environment: dict[str, str]) -> None:
        """Start it and wait until it serves, or is dead again."""
        kind, arguments = self._place.command(name)
        child = await self._children.start(name, kind, arguments, environment)
        deadline = time.monotonic() + START_S_MAX
        while not child.ended.done() and not self._place.is_ready(name, child.pid):
            if time.monotonic() > deadline:
                raise RuntimeError(f"{name} was not ready within {START_S_MAX} s")
            await asyncio.sleep(0.02)

    async def _lives(self, name: str, draw: random.Random) -> None:
        """One process after the other, until there were enough kills; the last one is not armed."""
        await asyncio.sleep(draw.random() * 2)
        planned, environment, patience_s = RANDOM, self._usual(), draw.uniform(0.5, 3.0)
        while True:
            died_ms, point = await self._death(name, planned, patience_s, wants_open=draw.random() < OPEN_SHARE)
            kill = Kill(node=name, point=point, planned=planned, at_ms=died_ms)
            await self._examine(kill)
            self.standing.count(kill)
            self._round_kills += 1
            if self._round_kills >= self._round_wanted:
                self._enough.set()
            is_over = self._enough.is_set()
            planned, environment, patience_s = self._draw_life(draw)
            if is_over:
                planned, environment = RANDOM, self._usual()
            if planned == "migration":
                make_older(self._journal(name))
            if self._is_long and not is_over and time.monotonic() >= self._long_from:
                down_s = draw.uniform(1, LONG_DOWN_S_MAX)
                self._long_from = time.monotonic() + down_s + LONG_PAUSE_S
                await asyncio.sleep(down_s)
            await self._start(name, environment)
            kill.back_ms = _wall_ms()
            if name not in WALLETS:
                await self._compare_live(name)
            self._downs.append(_down(name, died_ms, kill.back_ms))
            self._log(kill)
            self._tell(self)
            if is_over:
                return

    def _draw_life(self, draw: random.Random) -> tuple[str, dict[str, str], float]:
        """Where the next process is to die, its environment, and how long that may take."""
        planned = draw.choices(list(MANNERS), [weight for weight, _, _ in MANNERS.values()])[0]
        passage = draw.randint(*MANNERS[planned][1:])
        environment = self._usual()
        if planned == RANDOM:
            return planned, environment, draw.uniform(0.3, 6.0)
        environment |= {POINT: planned, PASSAGE: str(passage)}
        if planned not in BEFORE_PACKETS and draw.random() < OPEN_SHARE:
            environment[OPEN_PACKETS] = str(OPEN_WANTED)
        if planned.startswith("checkpoint"):
            environment[CHECKPOINT_EVERY] = str(draw.randint(*CHECKPOINT_BATCHES))
        return planned, environment, LIFE_S_MAX

    async def _death(self, name: str, planned: str, patience_s: float, *, wants_open: bool) -> tuple[int, str]:
        """Wait for it, or kill. When it was, and where."""
        child = self._children.alive[name]
        enough = asyncio.ensure_future(self._enough.wait())
        either: set[asyncio.Future[Any]] = {child.ended, enough}
        deadline = time.monotonic() + LIFE_S_MAX
        await asyncio.wait(either, timeout=patience_s, return_when=asyncio.FIRST_COMPLETED)
        if planned == RANDOM and wants_open:
            while not (child.ended.done() or enough.done() or time.monotonic() > deadline):
                if self._tails[name].open_packets >= OPEN_WANTED:
                    break
                await asyncio.wait(either, timeout=POLL_S, return_when=asyncio.FIRST_COMPLETED)
        enough.cancel()
        point = planned
        if not child.ended.done():
            child.kill()
            point = RANDOM
        status = await child.ended
        if status != -9:
            raise RuntimeError(f"{name} ended by itself with status {status}: {self._children.last_words(name)}")
        return _wall_ms(), point

    async def _examine(self, kill: Kill) -> None:
        """The dead one's journal: it verifies, and the packets that it has left undecided are counted."""
        path = self._journal(kill.node)
        tail = self._tails[kill.node]
        if not await asyncio.to_thread(tail.catch_up, START_S_MAX):
            raise RuntimeError(f"{kill.node}'s journal can't be followed: {tail.failure!r}")
        kill.open_packets = tail.open_packets
        if is_older(path):
            return  # it was to die in the migration, and died before: the next start migrates
        try:
            kill.sequence, kill.digest = await asyncio.to_thread(verified, path)
            self.standing.verified += 1
        except JournalError as error:
            self.standing.findings.append(Finding("verify", kill.node, str(error)))

    async def _compare_live(self, name: str) -> None:
        """A running node's digest of its books is the one that replay of its journal gives at that batch."""
        told = await asyncio.to_thread(self._place.ask, name, "/books/digest")
        if told is None:
            return  # it is dead again
        await asyncio.to_thread(self._tails[name].catch_up, START_S_MAX)  # what it told may be on its way to the disk
        replayed = await asyncio.to_thread(digest_at, self._journal(name), told["sequence"])
        if replayed is None:
            return
        self.standing.digests += 1
        if replayed != told["digest"]:
            text = f"its books after batch {told['sequence']} have digest {told['digest']} running, {replayed} replayed"
            self.standing.findings.append(Finding("digest", name, text))

    def _journal(self, name: str) -> Path:
        return self._place.data(name) / "journal.db"

    def _log(self, kill: Kill) -> None:
        line = {"commit": self.commit, "seed": self.standing.seed, "round": self.standing.rounds, **asdict(kill)}
        with (self.folder / "kills.jsonl").open("a") as log:
            log.write(json.dumps(line) + "\n")

    # --- quiet, and the audit -----------------------------------------------------------------------------------

    async def _until_quiet(self) -> list[Finding]:
        """Wait until no payment is under way, nothing is reserved and neighbours have told each other every outcome."""
        deadline = time.monotonic() + QUIET_S_MAX
        while True:
            left = {name: tail.open_packets for name, tail in self._tails.items() if tail.open_packets}
            status = {wallet: read_json(self._place.folder / wallet / STATUS_FILE) or {} for wallet in WALLETS}
            busy = {wallet: one.get("payments", 1) for wallet, one in status.items() if one.get("payments", 1)}
            untold = {} if left or busy else await self._untold()
            if not (left or busy or untold):
                return []
            if time.monotonic() > deadline:
                open_ = f"payments under way {busy}, packets undecided {left}, outcomes untold {untold}"
                return [Finding("restless", "all", f"after {QUIET_S_MAX} s: {open_}")]
            self.phase = f"waiting for quiet ({sum(busy.values())} payments, {sum(left.values())} packets)"
            self._tell(self)
            await asyncio.sleep(0.2)

    async def _untold(self) -> dict[str, int]:
        """By node, how many outcomes its neighbours and it have not exchanged."""
        counts = {name: await asyncio.to_thread(outcomes_left, self._journal(name)) for name in self._place.names}
        return {name: count for name, count in counts.items() if count}

    async def _audit(self) -> Report:
        journals = []
        for name in self._place.names:
            tail = self._tails[name]
            if not await asyncio.to_thread(tail.catch_up, START_S_MAX):
                raise RuntimeError(f"{name}'s journal can't be followed: {tail.failure!r}")
            journals.append(await asyncio.to_thread(exported, name, self._journal(name), tail.rows, tail.marks))
        paid = [one for wallet in WALLETS for one in await self._paid(wallet)]
        self.standing.payments = len(paid)
        evidence = Evidence(
            journals=journals,
            wires=wires(),
            paid=paid,
            received=[one for wallet in WALLETS for one in await self._received(wallet)],
            downs=self._downs,
            opening=self.standing.opening,
            hold_ms=2 * TIMEOUT_MS,
            settle_ms=SETTLE_MS,
        )
        report = await asyncio.to_thread(examine, evidence)
        (self.folder / "downs.json").write_text(json.dumps(self._downs))
        return report

    async def _history(self, wallet: str) -> list[dict[str, Any]]:
        """As `isthmus history --json` collects it."""
        entries: list[dict[str, Any]] = []
        while True:
            page = await look(self._place.folder / wallet, "history", {"offset": len(entries), "limit": 50})
            entries += page["entries"]
            if not page["entries"] or len(entries) >= page["count"]:
                return entries

    async def _paid(self, wallet: str) -> list[Paid]:
        plan = self._place.plan(wallet)
        other = next(one for one in WALLETS if one != wallet)
        return [
            Paid(
                node=wallet,
                payee=other,
                id=entry["key"],
                connection=plan.connection(int(entry["key"].rpartition("-")[2])),
                **{name: int(entry[name]) for name in ("sent", "unknown", "delivered", "delivered_max")},
            )
            for entry in await self._history(wallet)
            if entry["kind"] == "paid"
        ]

    async def _received(self, wallet: str) -> list[Received]:
        return [
            Received(node=wallet, connection=entry["id"], amount=int(entry["amount"]))
            for entry in await self._history(wallet)
            if entry["kind"] == "received"
        ]

    def _keep_losses(self, losses: list[Loss]) -> None:
        standing = self.standing
        standing.losses += losses
        if self._is_quick:
            standing.findings += [
                Finding(
                    "loss", one.node, f"{one.amount} {one.asset} to {one.peer}, and all were back at once", one.amount
                )
                for one in losses
            ]

    # --- rows ---------------------------------------------------------------------------------------------------

    def _rows(self, name: str) -> Path:
        folder = self.folder / "rows"
        folder.mkdir(exist_ok=True)
        return folder / f"{name}-{self.standing.rounds}.jsonl"

    async def _next_rows(self) -> None:
        """Rows that were audited are not needed any more."""
        for name, tail in self._tails.items():
            audited = tail.rows
            await asyncio.to_thread(tail.rotate, self._rows(name), START_S_MAX)
            audited.unlink()
            del tail.marks[:-1]


def _down(name: str, from_ms: int, to_ms: int) -> Down:
    return Down(name, from_ms - DOWN_SLACK_MS, to_ms + DOWN_SLACK_MS)


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000
