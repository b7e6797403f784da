"""What settling by claims costs: signing, verifying and booking one; and forwarding with a claim now and then.

    python -m bench.claims [--rounds 10] [--packets 40000]

Two of our nodes between the load generator's ends; the first owes the second, and settles by a payment channel on a
development chain (anvil; needs Node): never, every hundred packets, or with every packet. Interleaved, so that what
disturbs the machine disturbs all alike.
"""

import argparse
import asyncio
import contextlib
import json
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import aiohttp

from bench.estimate import estimate, verdict
from bench.fire import fire
from bench.isthmus_node import ADMIN, SCALE, account_text, free_port, process
from bench.targets import TOKENS, Target
from isthmus.ilp.asset import format_decimal
from isthmus.ledgers.evm.claims import ChannelTerms, Domain, sign, signer
from isthmus.ledgers.evm.octets import NO_ADDRESS
from tests.ledgers.evm.anvil import ETHER, Anvil, a_key

AMOUNT: Final = 1_000  # of each packet, in base units
EVERY: Final = {"never": None, "every 100 packets": 100, "every packet": 1}
WINDOW: Final = 100
BAR: Final = 0.9
ROUNDS_OF_SIGNING: Final = 3_000
BLOCK_S: Final = 0.05
KEYS: Final = {"one": a_key(21), "two": a_key(22)}


def costs_us() -> dict[str, float]:
    """Microseconds for one claim: what its sender does, and what its receiver does besides booking it."""
    terms = ChannelTerms(KEYS["one"].address, KEYS["two"].address, NO_ADDRESS, 86_400, bytes(32))
    domain = Domain(31337, "0x" + "11" * 20)
    key = KEYS["one"]

    def best(work: Any) -> float:
        found = 1e9
        for _ in range(5):
            start = time.process_time()
            for number in range(ROUNDS_OF_SIGNING):
                work(number)
            found = min(found, time.process_time() - start)
        return round(found / ROUNDS_OF_SIGNING * 1e6, 1)

    signature = sign(domain.claim_digest(terms.id, 1), key.private)
    assert signer(domain.claim_digest(terms.id, 1), signature) == key.address
    return {
        "digest": best(lambda number: domain.claim_digest(terms.id, number)),
        "sign": best(lambda number: sign(domain.claim_digest(terms.id, number), key.private)),
        "verify": best(lambda _: signer(domain.claim_digest(terms.id, 1), signature)),
    }


def node_text(name: str, folder: Path, ports: dict[str, int], chain: Anvil, every: int | None) -> str:
    """The first node serves the sender and dials the second, which serves the receiver."""
    other = "two" if name == "one" else "one"
    wallet = "sender" if name == "one" else "receiver"
    served = f'{{ type = "btp-server", token = "{TOKENS[wallet]}" }}'
    token = "token-between-the-nodes-of-the-bench-0123456789"
    url = f"btp+ws://127.0.0.1:{ports['two']}"
    link = (
        f'{{ type = "btp-client", url = "{url}", token = "{token}" }}'
        if name == "one"
        else f'{{ type = "btp-server", token = "{token}" }}'
    )
    accounts = account_text(wallet, served, "1000000") + account_text(other, link, "1000000").replace("child", "peer")
    settlement = ""
    if every is not None:
        file = folder / f"{name}.key"
        file.write_text(KEYS[name].secret.hex())
        file.chmod(0o600)
        threshold = f'threshold = "{format_decimal(every * AMOUNT, SCALE)}"\n' if name == "one" else ""
        settlement = (
            f'[accounts.{other}.settlement]\nengine = "chain"\n{threshold}'
            f'[settlement.chain]\ntype = "evm"\nchain_id = {chain.chain_id}\nrpc = "{chain.url}"\nkey_file = "{file}"\n'
            'confirmations = 1\npoll = "1 s"\ndeposit = "100"\n'
        )
    return (
        f'address = "test.{name}"\n[listeners.btp]\nlisten = "127.0.0.1:{ports[name]}"\n'
        f'{ADMIN.format(port=ports[f"{name}-admin"])}[routes]\n"test.{other}" = "{other}"\n{accounts}{settlement}'
    ).replace('asset = "USD"', 'asset = "ETH"')


@contextlib.asynccontextmanager
async def nodes(chain: Anvil, every: int | None) -> AsyncIterator[tuple[Target, dict[str, int]]]:
    """Both nodes, the channel between them open if there is to be one."""
    ports = {name: free_port() for name in ("one", "two", "one-admin", "two-admin")}
    with tempfile.TemporaryDirectory(prefix="isthmus-bench-") as place:
        folder = Path(place)
        async with contextlib.AsyncExitStack() as stack:
            pid = 0
            for name in ("two", "one"):
                home = folder / name
                home.mkdir()
                config = home / "node.toml"
                config.write_text(node_text(name, home, ports, chain, every))
                pid = (await stack.enter_async_context(process("isthmus", config, ports[name]))).pid
            yield (
                Target(
                    name="isthmus",
                    sender_url=f"btp+ws://sender:{TOKENS['sender']}@127.0.0.1:{ports['one']}/",
                    receiver_url=f"btp+ws://receiver:{TOKENS['receiver']}@127.0.0.1:{ports['two']}/",
                    destination="test.two.receiver",
                    pid=pid,
                    folder=folder / "one",
                ),
                ports,
            )


async def settled(ports: dict[str, int]) -> tuple[int, int]:
    """Settlements of the first node so far, and what the second was credited, in base units."""
    url = f"http://127.0.0.1:{ports['one-admin']}/metrics"
    async with aiohttp.ClientSession() as http, http.get(url) as answer:
        lines = (await answer.text()).splitlines()
    begun = [line for line in lines if line.startswith("isthmus_settlements_total{") and 'event="begun"' in line]
    gone = [line for line in lines if line.startswith("isthmus_settled{")]
    return (int(float(begun[0].split()[-1])) if begun else 0), (-int(float(gone[0].split()[-1])) if gone else 0)


async def one(chain: Anvil, every: int | None, packets: int) -> tuple[float, int]:
    """Packets a second, and how many settlements went with them."""
    async with nodes(chain, every) as (target, ports):
        await fire(target, packets=2_000, window=WINDOW, warm_up=0)  # the channel is opened by it
        before, _ = await settled(ports)
        measured = await fire(target, packets=packets, window=WINDOW)
        after, _ = await settled(ports)
        return measured.packets_per_second, after - before


@contextlib.asynccontextmanager
async def chain_of_our_own() -> AsyncIterator[Anvil]:
    chain = await Anvil.start()

    async def mine() -> None:
        while True:
            await chain.mine()
            await asyncio.sleep(BLOCK_S)

    task: asyncio.Task[None] | None = None
    try:
        await chain.fund(a_key(20), *KEYS.values(), amount=1_000_000 * ETHER)
        await chain.deploy_channels(a_key(20))
        task = asyncio.create_task(mine())
        yield chain
    finally:
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await chain.stop()


async def compare(rounds: int, packets: int) -> dict[str, Any]:
    found: dict[str, list[tuple[float, int]]] = {name: [] for name in EVERY}
    async with chain_of_our_own() as chain:
        for number in range(rounds):
            names = list(EVERY)
            for name in [*names[number % 3 :], *names[: number % 3]]:
                found[name].append(await one(chain, EVERY[name], packets))
    result: dict[str, Any] = {"rounds": rounds, "packets": packets, "window": WINDOW}
    for name, runs in found.items():
        ratios = estimate([run[0] / plain[0] for run, plain in zip(runs, found["never"], strict=True)])
        result[name] = {
            "packets_per_second": str(estimate([run[0] for run in runs])),
            "settlements": str(estimate([run[1] for run in runs])),
            "by never": str(ratios),
        }
        if name == "every 100 packets":
            result[name]["bar 0.9"] = verdict(ratios, BAR)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--packets", type=int, default=40_000)
    arguments = parser.parse_args()
    result = {"claim, microseconds": costs_us(), **asyncio.run(compare(arguments.rounds, arguments.packets))}
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
