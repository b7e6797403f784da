"""`isthmus demo --mesh`: a node of a ring is killed in the middle of a payment, and comes back.

The payment goes on by the other way around the ring while the node is dead. Once it is back, its neighbours ask each
other what became of the packets that it took with it, and the next payment passes it again.
"""

import asyncio
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from rich.console import RenderableType

from isthmus.cli.demo import mesh_report
from isthmus.cli.demo.audit import disagreements, read_books
from isthmus.cli.demo.mesh import MESH, OTHER_WAY, VICTIM, Ring
from isthmus.cli.demo.network import ADMIN, CONFIG_NAME
from isthmus.cli.demo.processes import DemoError, Processes, connected, routed, running
from isthmus.cli.demo.report import Outcome
from isthmus.cli.demo.run import RUNNING_NAME, Demo, Result
from isthmus.client.payment import Progress

# Parts of the amount: when so much has left, the node is killed, and when so much has, it is started again.
KILLED_AT: Final = Fraction(1, 4)
BACK_AT: Final = Fraction(2, 3)
SECOND_PART: Final = 4  # the second payment is so small a part of the first one


@dataclass(slots=True, kw_only=True)
class MeshResult(Result):
    """What the ring came to."""

    ways: list[mesh_report.Stage]
    again: Outcome  # the payment after the node came back
    pause_s: float  # the longest time without a fulfilled packet while the node was dead


class MeshDemo(Demo):
    """One ring in one folder. `run` it once."""

    async def run(self, kept: Callable[[Result], Awaitable[None]] | None = None) -> Result:
        """As a Demo's. Books are judged once all packets have their outcome, and again after the nodes have stopped."""
        async with Processes(self.logs) as processes:
            await self._start(processes)
            ways = [await self._stage("before")]
            self.audience.step(f"Paying; {VICTIM} will be killed in the middle")
            outcome, pause_s = await self._pay_through_a_kill(processes, ways)
            self.audience.paid(outcome)
            await self._until_back(processes)
            self.audience.step(f"Paying again, past {VICTIM}")
            again = await processes.guard(self._pay(amount=self.amount // SECOND_PART))
            self.audience.paid(again)
            judged = await self._judged(outcome)
            ways.append(await self._stage("after"))
            result = MeshResult(
                outcome=outcome,
                books=judged.books,
                problems=judged.problems,
                stopped_badly=[],
                ways=mesh_report.differences(ways),
                again=again,
                pause_s=pause_s,
            )
            if kept is not None:
                await kept(result)
                result.stopped_badly += await processes.stop()
                return result
            self.audience.step("Stopping the nodes")
            result.stopped_badly += await processes.stop()
        self.audience.step("Replaying all books")
        result.books = await asyncio.to_thread(self._read_all)
        result.problems = disagreements(self.network.pairs(), result.books)
        return result

    # --- what is shown ------------------------------------------------------------------------------------------

    def picture(self, width: int) -> RenderableType:
        return mesh_report.picture(MESH)

    def tables(self, result: Result) -> RenderableType:
        assert isinstance(result, MeshResult)
        return mesh_report.tables(
            self.network, result.outcome, result.again, result.ways, pause_s=result.pause_s, books=result.books
        )

    def as_json(self, result: Result) -> dict[str, object]:
        assert isinstance(result, MeshResult)
        return Demo.as_json(self, result) | mesh_report.as_json(
            result.again, result.ways, pause_s=result.pause_s, books=result.books
        )

    def check(self, result: Result) -> None:
        """Besides what a Demo's is: that packets took the other way meanwhile, and the node's again afterwards."""
        assert isinstance(result, MeshResult)
        Demo.check(self, result)
        _, meanwhile, after = result.ways
        if not result.again.is_kept:
            raise DemoError(f"of the second payment {result.again.delivered} arrived, not {result.again.promised}")
        if not all(meanwhile.packets[name] for name in OTHER_WAY):
            raise DemoError(f"no packet took the other way while {VICTIM} was dead")
        if not after.packets[VICTIM]:
            raise DemoError(f"no packet passed {VICTIM} after it came back")

    # --- the play -----------------------------------------------------------------------------------------------

    async def _pay_through_a_kill(self, processes: Processes, ways: list[mesh_report.Stage]) -> tuple[Outcome, float]:
        watch = _Watch(self.audience.progress)
        paying = asyncio.create_task(processes.guard(self._pay(watch.progress), but_for=VICTIM))
        try:
            await self._until_sent(watch, paying, KILLED_AT)
            victim = processes.children.pop(VICTIM)
            victim.tell(signal.SIGKILL)
            await victim.ended()
            watch.begin()
            self.audience.step(f"{VICTIM} is killed (kill -9), with all the packets that it had")
            ways.append(await self._stage("killed"))
            await self._until_sent(watch, paying, BACK_AT)
            pause_s = watch.pause_s
            ways.append(await self._stage("back"))
            self.audience.step(f"The payment goes on by {' and '.join(OTHER_WAY)}; {VICTIM} is started again")
            await self._restart(processes)
            return await paying, pause_s
        finally:
            paying.cancel()
            await asyncio.gather(paying, return_exceptions=True)

    async def _until_sent(self, watch: "_Watch", paying: "asyncio.Task[Outcome]", part: Fraction) -> None:
        passed = asyncio.create_task(watch.until(int(self.amount * part)))
        await asyncio.wait([passed, paying], return_when=asyncio.FIRST_COMPLETED)
        if not passed.done():
            passed.cancel()
            await paying  # it says why
            raise DemoError("the payment was over before a node could be killed in its middle")

    async def _restart(self, processes: Processes) -> None:
        (self.data(VICTIM) / RUNNING_NAME).unlink(missing_ok=True)  # of the process that was killed
        await processes.start(VICTIM, "node", "run", str(self.folder / VICTIM / CONFIG_NAME))

    async def _until_back(self, processes: Processes) -> None:
        """Its links are up, it knows the ring, and the first connector's packets go to it again."""
        victim, first = processes.children[VICTIM], processes.children[self.network.connectors[0].name]
        await running(victim, self.data(VICTIM) / RUNNING_NAME)
        await connected(victim, self.admin_url(VICTIM), waiting_for=frozenset())
        network = self.network
        assert isinstance(network, Ring)
        for child, prefixes, via in (
            (victim, network.learned_by(VICTIM), None),
            (first, frozenset((network.way_out.address,)), VICTIM),
        ):
            await routed(child, self.admin_url(child.name), self.tokens[f"{child.name}/{ADMIN}"], prefixes, via=via)

    async def _stage(self, name: str) -> mesh_report.Stage:
        """How many packets each of the middle connectors has passed on up to now."""
        books = {one: await asyncio.to_thread(read_books, one, self.data(one)) for one in (VICTIM, *OTHER_WAY)}
        return mesh_report.Stage(name, {one: found.tally.packets for one, found in books.items()})


class _Watch:
    """A payment's progress: tells who waits for a part of it, and how long nothing went forward."""

    def __init__(self, shown: Callable[[Progress], None]) -> None:
        self._shown: Final = shown
        self._sent = 0
        self._moved_at: float | None = None  # None: not asked for yet
        self._waiting: list[tuple[int, asyncio.Event]] = []
        self.pause_s = 0.0

    def progress(self, progress: Progress) -> None:
        if progress.sent > self._sent:
            self._sent = progress.sent
            self._moved()
        for amount, event in self._waiting:
            if self._sent >= amount:
                event.set()
        self._shown(progress)

    def begin(self) -> None:
        """From here on pauses count."""
        self._moved_at = asyncio.get_running_loop().time()

    def _moved(self) -> None:
        if self._moved_at is not None:
            now = asyncio.get_running_loop().time()
            self.pause_s = max(self.pause_s, now - self._moved_at)
            self._moved_at = now

    async def until(self, amount: int) -> None:
        """Until so much has left."""
        event = asyncio.Event()
        self._waiting.append((amount, event))
        await event.wait()
