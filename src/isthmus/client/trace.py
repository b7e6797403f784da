"""`isthmus trace` at work: sends the probes of `client.hops` over a wallet's connection, and times their answers."""

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, final

from isthmus.client.core import Core
from isthmus.client.hops import Ending, Hop, Tracer
from isthmus.ilp.asset import Asset
from isthmus.ilp.packet import Fulfill, Reject
from isthmus.runtime import clock

TRACE_S: Final = 20.0
TRACE_S_MAX: Final = 600.0
PROBE_BYTES: Final = 32


@final
@dataclass(slots=True, frozen=True)
class Trace:
    """What is known of a path. Rates of hops are in base units, that of the whole path in whole units."""

    address: str
    hops: list[Hop]
    ending: Ending
    probes: int
    seconds: float
    is_mixed: bool  # packets took more than one way
    largest: int | None  # the largest packet that gets to the end, in base units of ours
    is_largest_by_room: bool  # larger ones, up to eight times that, had no room just then
    rate: Fraction | None = None
    asset: Asset | None = None


async def trace(
    core: Core, address: str, *, seconds: float, with_amounts: bool, on_change: Callable[[Trace], None] | None
) -> Trace:
    """Trace the path to an address; for so many seconds at the most."""
    tracer = Tracer(address, own=core.address, hold_ms_max=core.settings.packet_timeout_ms, with_amounts=with_amounts)
    news = asyncio.Event()
    started_us = _now_us()

    def known() -> Trace:
        return Trace(
            address,
            tracer.hops(),
            tracer.ending(),
            tracer.probes,
            (_now_us() - started_us) / 1_000_000,
            tracer.is_mixed,
            tracer.amounts.largest,
            tracer.amounts.is_largest_by_room,
        )

    def send() -> None:
        for probe in tracer.poll(_now_us()):

            def answer(reply: Fulfill | Reject, number: int = probe.number) -> None:
                tracer.told(number, reply, _now_us())
                news.set()

            core.endpoint.probe(address, probe.amount, os.urandom(PROBE_BYTES), answer, timeout_ms=probe.hold_ms)

    shown: list[Hop] = []
    try:
        async with asyncio.timeout(seconds):
            send()
            while not tracer.is_done:
                await _wait(news, tracer.wakes_at(_now_us()))
                send()
                hops = tracer.hops()
                if on_change is not None and hops != shown:
                    shown = hops
                    on_change(known())
    except TimeoutError:
        tracer.stop()
    return known()


async def _wait(news: asyncio.Event, until_us: int | None) -> None:
    if until_us is None:
        await news.wait()
    else:
        try:
            async with asyncio.timeout(max(0, until_us - _now_us()) / 1_000_000):
                await news.wait()
        except TimeoutError:
            pass
    news.clear()


def _now_us() -> int:
    return clock.mono_ns() // 1_000
