"""STREAM in pure code: a sender and a receiver in one process, with the cost of each side apart.

    python -m bench.stream_pair [PACKETS] [--profile]

No sockets, books or journal: what is left is STREAM itself, and ILP packets encoded and decoded at both ends.
"""

import cProfile
import pstats
import sys
import time
from fractions import Fraction
from os import urandom

from isthmus.ilp.asset import Asset
from isthmus.ilp.packet import (
    Prepare,
    Reject,
    decode_prepare,
    decode_reply,
    encode,
    encode_amount_too_large,
    encode_prepare,
)
from isthmus.stream.connection import Connection
from isthmus.stream.orders import SendDone, SendFulfill, SendPrepare, SendReject
from isthmus.stream.settings import Settings

WALL_MS = 1_700_000_000_000
SECRET = bytes(range(32))
RATE = Fraction(25)
PACKET_AMOUNT = 1_000


class Clock:
    """Nanoseconds spent on each side."""

    def __init__(self) -> None:
        self.spent = {"sender": 0, "receiver": 0, "ILP codec": 0}
        self._since = 0

    def start(self) -> None:
        self._since = time.perf_counter_ns()

    def stop(self, side: str) -> None:
        self.spent[side] += time.perf_counter_ns() - self._since


def run(packets: int) -> Clock:
    sender = Connection(
        Settings(address="test.alice", asset=Asset("BTC", 8)), SECRET, random_bytes=urandom, peer_address="test.bob.x"
    )
    receiver = Connection(
        Settings(is_server=True, address="test.bob.x", asset=Asset("ETH", 9)), SECRET, random_bytes=urandom
    )
    sender.set_minimum_rate(RATE * Fraction(99, 100))
    stream_id = sender.open_stream()
    assert stream_id is not None
    sender.send_total(stream_id, packets * PACKET_AMOUNT)
    clock = Clock()
    now = 0
    done = False
    while not done:
        now += 1
        clock.start()
        orders = sender.poll(now)
        clock.stop("sender")
        sends = [order for order in orders if isinstance(order, SendPrepare)]
        done = any(isinstance(order, SendDone) for order in orders)
        clock.start()
        wire = [encode_prepare(order.prepare(WALL_MS)) for order in sends]
        arrived = [forward(decode_prepare(packet)) for packet in wire]
        clock.stop("ILP codec")
        clock.start()
        for at, prepare in enumerate(arrived):
            if prepare is not None:
                receiver.prepare_received(at, prepare, now, now + 10_000)
        answers = receiver.poll(now)
        clock.stop("receiver")
        clock.start()
        replies: dict[int, bytes] = {
            at: encode(Reject("F08", "test.hop", "", encode_amount_too_large(sends[at].amount, PACKET_AMOUNT)))
            for at, prepare in enumerate(arrived)
            if prepare is None
        }
        for order in answers:
            if isinstance(order, SendFulfill):
                replies[order.request] = encode(order.fulfill)
            elif isinstance(order, SendReject):
                replies[order.request] = encode(order.reject)
        decoded = [(sends[at].number, decode_reply(packet)) for at, packet in replies.items()]
        clock.stop("ILP codec")
        clock.start()
        for number, reply in decoded:
            sender.reply_received(number, reply, now)
        clock.stop("sender")
    assert receiver.received == packets * PACKET_AMOUNT * RATE
    return clock


def forward(prepare: Prepare) -> Prepare | None:
    if prepare.amount > PACKET_AMOUNT:
        return None
    amount = prepare.amount * RATE.numerator // RATE.denominator
    return Prepare(amount, prepare.expires_at, prepare.condition, prepare.destination, prepare.data)


def main() -> None:
    numbers = [int(argument) for argument in sys.argv[1:] if argument.isdecimal()]
    packets = numbers[0] if numbers else 20_000
    run(1_000)
    if "--profile" in sys.argv:
        with cProfile.Profile() as profile:
            run(packets)
        pstats.Stats(profile).sort_stats("tottime").print_stats(30)
        return
    best = min((run(packets) for _ in range(3)), key=lambda clock: sum(clock.spent.values()))
    for side, spent in best.spent.items():
        print(f"{side:10} {spent / packets / 1000:6.1f} µs a packet")
    print(f"{'together':10} {sum(best.spent.values()) / packets / 1000:6.1f} µs a packet")


if __name__ == "__main__":
    main()
