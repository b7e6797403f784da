"""STREAM: a payment of 10,000 packets end to end, by ilp-protocol-stream and by ours, through the same connector."""

from dataclasses import dataclass

from bench.js_process import JsProcess
from bench.targets import Target

PACKET_AMOUNT = 1_000  # the connector's maximum: it makes the number of packets
PAYMENT_SECONDS_MAX = 300.0


@dataclass(slots=True, kw_only=True)
class Paid:
    """One payment. `setup_seconds` is from nothing to a known rate, `seconds` the payment itself."""

    packets: int
    delivered: int
    setup_seconds: float
    seconds: float

    @property
    def packets_per_second(self) -> float:
        return self.packets / self.seconds


async def js_pair(target: Target, *, packets: int) -> Paid:
    """ilp-protocol-stream at both ends, a process each."""
    receiver = await JsProcess.start("endpoint")
    sender = await JsProcess.start("endpoint")
    try:
        for process, url in ((receiver, target.receiver_url), (sender, target.sender_url)):
            await process.call("start", plugin={"module": "btp", "options": {"server": url}})
            await process.event("connected")
        credentials = await receiver.call("listen", quiet=True)
        paid = await sender.call(
            "pay",
            seconds=PAYMENT_SECONDS_MAX,
            timeoutMs=PAYMENT_SECONDS_MAX * 1000,
            address=credentials["address"],
            secret=credentials["secret"],
            amount=str(packets * PACKET_AMOUNT),
        )
    finally:
        await sender.close()
        await receiver.close()
    return Paid(
        packets=paid["packets"],
        delivered=int(paid["delivered"]),
        setup_seconds=paid["setupSeconds"],
        seconds=paid["seconds"],
    )
