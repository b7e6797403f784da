"""`make demo-l2`: real ledgers at both ends of a payment."""

import argparse
import asyncio
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from isthmus.errors import IsthmusError
from tests.ledgers.evm import anvil
from tests.ledgers.lightning import simnet
from tools.demo_l2.show import Audience, Result

GO: Final = "https://go.dev/dl"


RUNS: Final = ("lightning", "xrp")


def missing(runs: Sequence[str]) -> list[str]:
    """What can't run here, each with what to do about it."""
    problems: list[str] = []
    if "lightning" not in runs:
        return problems
    if simnet.why_not():
        problems.append(f"Go 1.25.10 or later builds lnd and btcd, and isn't here: {GO}, or set ISTHMUS_LND")
    if anvil.missing() is not None:
        problems.append(f"the Ethereum chain: {anvil.missing()}")
    return problems


async def _run(runs: Sequence[str], folder: Path, audience: Audience) -> list[Result]:
    from tools.demo_l2.lightning_to_eth import LightningToEth
    from tools.demo_l2.xrp_to_bank import XrpToBank

    results = []
    for name in runs:
        place = folder / name
        demo = LightningToEth(place, audience) if name == "lightning" else XrpToBank(place, audience)
        audience.begin(demo.title)
        results.append(await demo.run())
        audience.result(results[-1])
    return results


def main() -> int:
    parser = argparse.ArgumentParser(prog="make demo-l2", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object; amounts are strings in base units")
    parser.add_argument("--keep", action="store_true", help="keep wallets, journals and logs, and say where they are")
    parser.add_argument("--only", choices=RUNS, help="one of the two runs: Lightning to Ethereum, or XRP to a bank")
    arguments = parser.parse_args()
    runs = RUNS if arguments.only is None else (arguments.only,)
    problems = missing(runs)
    if problems:
        for problem in problems:
            print(f"demo-l2: {problem}", file=sys.stderr)
        return 2
    folder = Path(tempfile.mkdtemp(prefix="isthmus-l2-"))
    audience = Audience(quiet=arguments.json)
    try:
        results = asyncio.run(_run(runs, folder, audience))
    except (IsthmusError, OSError, AssertionError, RuntimeError) as error:
        audience.done()
        print(f"demo-l2: {error} (journals and logs: {folder})", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        audience.done()
        return 130
    if arguments.json:
        print(json.dumps({"runs": [one.to_json() for one in results]}))
    failed = any(one.problems for one in results)
    if arguments.keep or failed:
        print(f"Wallets, journals and logs: {folder}", file=sys.stderr)
    else:
        shutil.rmtree(folder, ignore_errors=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
