"""The honest accounts of the fairness section: pairs that pay each other at a steady pace, in a process of their own.

A packet's latency counts from the moment when it was due, so that a sender who is kept waiting doesn't hide it. Each
line on stdin, `{"seconds": s, "per_second": r}`, is one phase; its figures are one line on stdout.
"""

import argparse
import asyncio
import json
import os
import sys
import time

from bench import frames
from bench.load import Receiver, Sender, connect

TICK_S = 0.004
# After the last packet of a phase: what is not answered by then counts as never answered.
ANSWERS_S_MAX = 40.0
AMOUNT = 1_000


class Paced(Sender):
    """Sends its packets when they are due, whatever came back."""

    def fire_paced(self, shot: frames.Shot, per_second: float) -> asyncio.Future[None]:
        done = self.fire(shot, 0)
        self._began = time.perf_counter()
        self._per_second = per_second
        self._tick()
        return done

    def _tick(self) -> None:
        assert self.shot is not None
        due = min(len(self.shot.frames), int((time.perf_counter() - self._began) * self._per_second) + 1)
        batch = self.shot.frames[self.next : due]
        for index in range(self.next, due):
            self.sent_at[index] = self._began + index / self._per_second
        self.next = max(due, self.next)
        if batch:
            self.transport.write(b"".join(batch))
        if due < len(self.shot.frames):
            asyncio.get_running_loop().call_later(TICK_S, self._tick)

    def _answer(self, count: int) -> None:
        self.answered += count
        assert self.shot is not None
        if self.answered >= len(self.shot.frames) and not self.done.done():
            self.done.set_result(None)


async def phase(
    senders: list[tuple[Paced, str]], first_id: int, *, seconds: float, per_second: float
) -> dict[str, object]:
    """One phase of all senders: figures over all their packets."""
    count = int(seconds * per_second)
    shots = [
        frames.load(count, seed=os.urandom(16), destination=destination, amount=AMOUNT, first_id=first_id)
        for _, destination in senders
    ]
    began = time.perf_counter()
    running = [sender.fire_paced(shot, per_second) for (sender, _), shot in zip(senders, shots, strict=True)]
    await asyncio.wait(running, timeout=seconds + ANSWERS_S_MAX)
    took = time.perf_counter() - began
    latencies = sorted(value for sender, _ in senders for value in sender.latencies)
    rejects: dict[str, int] = {}
    for sender, _ in senders:
        for code, number in sender.rejects.items():
            rejects[code] = rejects.get(code, 0) + number
    unanswered = sum(len(shot.frames) - sender.answered for (sender, _), shot in zip(senders, shots, strict=True))
    return {
        "packets": count * len(senders),
        "per_second": len(latencies) / max(took, seconds),
        "p50_ms": latencies[len(latencies) // 2] * 1000 if latencies else float("nan"),
        "p99_ms": latencies[len(latencies) * 99 // 100] * 1000 if latencies else float("nan"),
        "rejects": rejects,
        "unanswered": unanswered,
    }


async def serve(pairs: list[tuple[str, str, str]]) -> None:
    """Connect all, then a phase for each line."""
    size = frames.load(1, seed=b"", destination=pairs[0][2], amount=AMOUNT).message_bytes
    senders: list[tuple[Paced, str]] = []
    for sender_url, receiver_url, destination in pairs:
        assert frames.load(1, seed=b"", destination=destination, amount=AMOUNT).message_bytes == size
        receiver = Receiver(receiver_url, size)
        sender = Paced(sender_url)
        await connect(receiver)
        await connect(sender)
        senders.append((sender, destination))
    print(json.dumps({"ready": True}), flush=True)
    loop = asyncio.get_running_loop()
    first_id = 1
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        order = json.loads(line)
        print(json.dumps(await phase(senders, first_id, **order)), flush=True)
        first_id += int(order["seconds"] * order["per_second"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pairs", help="JSON: a list of [sender's URL, receiver's URL, destination]")
    asyncio.run(serve(json.loads(parser.parse_args().pairs)))


if __name__ == "__main__":
    main()
