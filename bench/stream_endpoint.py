"""One end of a STREAM payment by our library, a wallet in memory: a process of its own for `bench/stream.py`.

    python -m bench.stream_endpoint receive URL
    python -m bench.stream_endpoint pay URL ADDRESS SECRET AMOUNT

Speaks in JSON lines: the receiver prints {"address", "secret"} and ends with its standard input; the sender prints
what the payment took.
"""

import asyncio
import json
import sys
import time

import isthmus


async def receive(url: str) -> None:
    async with isthmus.listen(url) as listener:
        print(json.dumps({"address": listener.address, "secret": listener.secret.hex()}), flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


async def pay(url: str, address: str, secret: bytes, amount: int) -> None:
    """Set-up is from a connected wallet to a known rate (a quote by probing packets), as for ilp-protocol-stream."""
    async with isthmus.connect(url) as wallet:
        started = time.perf_counter()
        connection = await wallet.open(address, secret, min_rate="0.99")
        quoted = time.perf_counter()
        sent = await connection.stream().send(amount)
        ended = time.perf_counter()
        await connection.close()
    report = {
        "sent": sent.sent,
        "delivered": sent.delivered,
        "setup_seconds": quoted - started,
        "seconds": ended - quoted,
    }
    print(json.dumps(report), flush=True)


def main() -> None:
    role, url, *rest = sys.argv[1:]
    if role == "receive":
        asyncio.run(receive(url))
    else:
        address, secret, amount = rest
        asyncio.run(pay(url, address, bytes.fromhex(secret), int(amount)))


if __name__ == "__main__":
    main()
