"""How long a settlement over Lightning takes, beside `lncli payinvoice` on the same channel.

    python -m bench.lightning [--rounds 100]

By turns: the engine settles (it asks the peer's for an invoice, looks for a route, journals, pays, books the end), and
`lncli` pays an invoice that was made before. Both real lnds, on a simnet; needs Go, or ISTHMUS_LND.
"""

import argparse
import asyncio
import json
import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from bench.estimate import estimate
from tests.ledgers.lightning.simnet import Simnet
from tests.settlement.lightning.conftest import Pair
from tests.settlement.lightning.ports import PEER

AMOUNT_MSAT: Final = 100_000
WARM_UP: Final = 3
BAR: Final = 1.5


async def by_engine(pair: Pair) -> float:
    """Milliseconds until the payer's books have the end of it."""
    start = time.perf_counter()
    await pair.alice.pay(pair.alice.settle(AMOUNT_MSAT))
    await pair.alice.until(lambda: not pair.alice.open(PEER))
    return (time.perf_counter() - start) * 1_000


async def by_lncli(simnet: Simnet) -> float:
    """Milliseconds of the command, invoice in hand."""
    invoice = await simnet.bob.api.add_invoice(AMOUNT_MSAT, os.urandom(32), "bench", 600)
    command = simnet.alice.lncli("payinvoice", "--force", invoice.request)
    start = time.perf_counter()
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert await process.wait() == 0
    return (time.perf_counter() - start) * 1_000


async def compare(rounds: int) -> dict[str, Any]:
    engine: list[float] = []
    lncli: list[float] = []
    with tempfile.TemporaryDirectory(prefix="isthmus-bench-") as folder:
        async with Simnet(Path(folder)) as simnet:
            pair = Pair(simnet)
            await pair.start()
            try:
                for number in range(rounds + WARM_UP):
                    found = [await by_engine(pair), await by_lncli(simnet)] if number % 2 else None
                    if found is None:
                        found = [await by_lncli(simnet), await by_engine(pair)][::-1]
                    if number >= WARM_UP:
                        engine.append(found[0])
                        lncli.append(found[1])
            finally:
                await pair.close()
    ratios = estimate([mine / theirs for mine, theirs in zip(engine, lncli, strict=True)])
    return {
        "rounds": rounds,
        "engine": told(engine),
        "lncli payinvoice": told(lncli),
        "p50 by p50": round(sorted(engine)[rounds // 2] / sorted(lncli)[rounds // 2], 2),
        "p99 by p99": round(percentile(engine, 99) / percentile(lncli, 99), 2),
        "pairs": str(ratios),
        "bar 1.5": "met" if ratios.high <= BAR else "missed" if ratios.low > BAR else "not decided",
    }


def percentile(values: list[float], share: int) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * share // 100)]


def told(values: list[float]) -> dict[str, float]:
    return {"p50_ms": round(percentile(values, 50), 1), "p99_ms": round(percentile(values, 99), 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100)
    print(json.dumps(asyncio.run(compare(parser.parse_args().rounds)), indent=2))


if __name__ == "__main__":
    main()
