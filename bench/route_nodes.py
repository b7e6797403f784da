"""What learned routes cost a node: its processor time a packet, by interleaved pairs. `python -m bench.route_nodes`.

    sender ── measured ──┬── far ── receiver
                         └── other (tells the same prefixes)

All three are nodes in processes of their own, with journals. The packets go to 1,000 prefixes in turn, which the
measured node knows from its file, routing being off, or by CCP from two neighbours, so that there is a choice and what
packets show is noted. All of its threads count, and nothing of the others: what else the machine does matters less so
than by the clock.
"""

import argparse
import asyncio
import contextlib
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias

from bench.estimate import estimate
from bench.fire import fire
from bench.isthmus_node import ADMIN, LIMITS, SCALE, builds, free_port, links_up, metric, process
from bench.load import Sender, connect
from bench.targets import TOKENS, Target

SERVER = '{{ type = "btp-server", token = "{token}" }}'
CLIENT = '{{ type = "btp-client", url = "btp+ws://measured:{token}@127.0.0.1:{port}/" }}'
TOLD_SECONDS = 60.0
Ready: TypeAlias = tuple[Target, Callable[[], Awaitable[None]]]
PEERS = {"far": "token-of-the-far-node-in-the-benchmark", "other": "token-of-the-other-node-in-the-bench"}


def prefix(number: int) -> str:
    return f"test.n{number:04}.host"


def account(name: str, relation: str, link: str, routes: str) -> str:
    limits = LIMITS.format(packet="1000000")
    switch = f'routes = "{routes}"\n' if routes else ""
    return (
        f'[accounts.{name}]\nasset = "USD"\nscale = {SCALE}\nrelation = "{relation}"\nlink = {link}\n{switch}'
        f"[accounts.{name}.limits]\n{limits}\n"
    )


def static_routes(count: int, account_name: str) -> str:
    return "[routes]\n" + "".join(f'"{prefix(number)}" = "{account_name}"\n' for number in range(count)) + "\n"


def head(name: str, port: int) -> str:
    return f'address = "test.{name}"\n\n[listeners.btp]\nlisten = "127.0.0.1:{port}"\n\n'


def measured_text(port: int, admin_port: int, count: int, *, learned: bool) -> str:
    switch = "" if learned else "off"
    accounts = account("sender", "child", SERVER.format(token=TOKENS["sender"]), "")
    for name, token in PEERS.items():
        accounts += account(name, "peer", SERVER.format(token=token), switch)
    return (
        head("measured", port)
        + ADMIN.format(port=admin_port)
        + ("" if learned else static_routes(count, "far"))
        + accounts
    )


def neighbour_text(name: str, port: int, measured_port: int, count: int, *, learned: bool) -> str:
    link = CLIENT.format(token=PEERS[name], port=measured_port)
    accounts = account("measured", "peer", link, "" if learned else "off")
    accounts += account("receiver", "child", SERVER.format(token=TOKENS["receiver"]), "")
    return head(name, port) + static_routes(count, "receiver") + accounts


@contextlib.asynccontextmanager
async def network(build: str, count: int, *, learned: bool) -> AsyncIterator[Ready]:
    """Three nodes; once who fires is connected to them, they learn their routes."""
    with TemporaryDirectory(prefix="isthmus-bench-") as folder:
        ports = {name: free_port() for name in ("measured", "admin", *PEERS)}
        texts = {"measured": measured_text(ports["measured"], ports["admin"], count, learned=learned)}
        for name in PEERS:
            texts[name] = neighbour_text(name, ports[name], ports["measured"], count, learned=learned)
        async with contextlib.AsyncExitStack() as stack:
            pids: dict[str, int] = {}
            for name, text in texts.items():
                config = Path(folder) / name / "node.toml"
                config.parent.mkdir()
                config.write_text(text)
                pids[name] = (await stack.enter_async_context(process(build, config, ports[name]))).pid
            # A route is told while its link is up. The generator is the far one's receiver, and nothing comes to this.
            idle = Sender(f"btp+ws://receiver:{TOKENS['receiver']}@127.0.0.1:{ports['other']}/")
            await connect(idle)
            stack.callback(idle.transport.abort)
            target = Target(
                name=build,
                sender_url=f"btp+ws://sender:{TOKENS['sender']}@127.0.0.1:{ports['measured']}/",
                receiver_url=f"btp+ws://receiver:{TOKENS['receiver']}@127.0.0.1:{ports['far']}/",
                destination="test.n{:04}.host.x7Rk",
                pid=pids["measured"],
            )
            yield target, lambda: told(ports["admin"], count if learned else 0)


async def told(admin_port: int, count: int) -> None:
    """Until both neighbours are there and have told so many routes: before that tables change under the packets."""
    await links_up(admin_port, frozenset(PEERS))
    deadline = time.monotonic() + TOLD_SECONDS
    while True:
        known = [await metric(admin_port, "isthmus_routes", f'account="{name}"') for name in PEERS]
        if min(*known, await metric(admin_port, "isthmus_learned_prefixes")) >= count:
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"only {known} routes were told")
        await asyncio.sleep(0.1)


async def microseconds(build: str, options: argparse.Namespace, *, learned: bool) -> float:
    """Of the measured node, for a packet there and its answer back, in a fresh network."""
    async with network(build, options.routes, learned=learned) as (target, until_ready):
        shots = {"packets": options.packets, "window": options.window, "prefixes": options.routes}
        measured = await fire(target, **shots, until_ready=until_ready)
    return measured.processor_seconds / int(options.packets) * 1e6


async def compare(build: str, options: argparse.Namespace) -> dict[str, Any]:
    """Both kinds of routes in turn."""
    pairs: list[tuple[float, float]] = []
    for at in range(options.rounds):
        spent = {}
        for learned in (True, False) if at % 2 else (False, True):
            spent[learned] = await microseconds(build, options, learned=learned)
        pairs.append((spent[False], spent[True]))
        print(f"round {at + 1}: static {spent[False]:.2f}, learned {spent[True]:.2f} µs a packet", file=sys.stderr)
    return {
        "build": build,
        "routes": options.routes,
        "microseconds_a_packet": {
            "static": str(estimate([static for static, _ in pairs])),
            "learned": str(estimate([learned for _, learned in pairs])),
        },
        "speed_of_learned_by_static": str(estimate([static / learned for static, learned in pairs])),
        "rounds": options.rounds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--packets", type=int, default=60_000)
    parser.add_argument("--window", type=int, default=1_000)
    parser.add_argument("--routes", type=int, default=1_000)
    parser.add_argument("--build", choices=builds(), default="isthmus")
    options = parser.parse_args()
    print(json.dumps(asyncio.run(compare(options.build, options)), indent=2))


if __name__ == "__main__":
    main()
