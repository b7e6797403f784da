"""A wallet that pays another one without end, and holds what it is paid for a while: many packets are always open.

Each payment follows from the seed and its number, and has a key. So a process that comes after a kill asks for the same
payments again, and each is made once. It serves the wallet's socket like any command: `isthmus history` works.

    payer FOLDER PLAN      PLAN is a file with the fields of `Plan` in JSON
"""

import asyncio
import contextlib
import json
import os
import random
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from isthmus.client.core import receiver_secret
from isthmus.client.endpoint import Endpoint
from isthmus.client.folder import load_folder
from isthmus.client.session import LocalSession
from isthmus.client.streams import Connection
from isthmus.client.terms import Minimum, PaymentRequest
from isthmus.client.wallet import Wallet
from isthmus.errors import IsthmusError, LinkError
from isthmus.stream.connection import Connection as Machine
from isthmus.stream.orders import Credit, DecisionWanted, Order
from isthmus.stream.tokens import CONNECTION_ID_BYTES, Invitation, Tokens

STATUS_FILE: Final = "status.json"
QUIET_FILE: Final = "quiet"  # in the wallet's folder: begin no new payments
TURN_S: Final = 0.1
PAYMENTS_MAX: Final = 300  # under way at a time; most of them wait for what an earlier process left
PACKETS_EXPECTED: Final = 10  # of a payment that has just begun
KINDS: Final = ("send", "deliver", "dear", "nowhere")
WEIGHTS: Final = (50, 36, 7, 7)


@dataclass(slots=True, kw_only=True)
class Plan:
    """What this wallet does. Amounts are base units."""

    seed: int
    name: str
    payee: str  # the folder of the wallet that is paid
    source_max: int  # a payment is for up to so much of our asset,
    deliver_max: int  # or of the payee's
    minimum: str  # the rate, in whole units
    packets_wanted: int  # in flight
    hold_ms_min: int  # what we are paid waits so long for our yes
    hold_ms_max: int

    @classmethod
    def read(cls, path: Path) -> "Plan":
        return cls(**json.loads(path.read_text()))

    def key(self, number: int) -> str:
        return f"{self.name}-{number}"

    def request(self, number: int) -> PaymentRequest:
        """Payment `number`: always the same one."""
        draw = self._draw(number)
        kind = draw.choices(KINDS, WEIGHTS)[0]
        invitation = self.invitation(number)
        rate = Fraction(self.minimum) * (2 if kind == "dear" else 1)
        most = self.deliver_max if kind == "deliver" else self.source_max
        return PaymentRequest(
            target="test.nowhere.at.all" if kind == "nowhere" else invitation.address,
            secret=invitation.shared_secret,
            amount=draw.randint(most // 8, most),
            deliver=kind == "deliver",
            minimum=Minimum(rate=rate),
            key=self.key(number),
        )

    def invitation(self, number: int) -> Invitation:
        """What the payee would hand out: whoever has its folder can do it."""
        settings = load_folder(Path(self.payee))
        return Tokens(receiver_secret(settings.secret), self._draw(number).randbytes).invite(settings.address)

    def connection(self, number: int) -> str:
        """What the payee's history calls it."""
        token = self.invitation(number).address.rpartition(".")[2]
        return sha256(token.encode()).digest()[:CONNECTION_ID_BYTES].hex()

    def _draw(self, number: int) -> random.Random:
        return random.Random(f"{self.seed}/{self.name}/{number}")


class Holding:
    """A connection that somebody opened to us: its money waits for our yes. Implements `endpoint.Party`."""

    def __init__(self, endpoint: Endpoint, connection: Connection, hold_ms: Callable[[], int]) -> None:
        self._endpoint = endpoint
        self._connection = connection
        self._hold_ms = hold_ms

    @property
    def machine(self) -> Machine:
        return self._connection.machine

    def told(self, order: Order) -> None:
        if isinstance(order, DecisionWanted):
            asyncio.get_running_loop().call_later(self._hold_ms() / 1000, self._accept, order.request)
        else:
            self._connection.told(order)

    def _accept(self, request: int) -> None:
        self.machine.accept(request)
        self._endpoint.touch(self)

    def polled(self) -> None:
        self._connection.polled()

    def credited(self, credit: Credit) -> None:
        self._connection.credited(credit)

    def dropped(self) -> None:
        self._connection.dropped()


class SlowHost:
    """Takes every connection. Implements `endpoint.Host`."""

    def __init__(self, endpoint: Endpoint, hold_ms: Callable[[], int]) -> None:
        self._endpoint = endpoint
        self._hold_ms = hold_ms

    def accepted(self, machine: Machine, tag: bytes) -> Holding:
        return Holding(self._endpoint, Connection(self._endpoint, machine, tag=tag), self._hold_ms)


class Payer:
    """One process of the wallet."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        self._folder = folder
        self._plan = plan
        self._stop = asyncio.Event()
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._in_flight: dict[int, int] = {}  # payment → packets
        self._ended = 0
        self._draw = random.Random(os.getpid())  # of the holding times: they needn't repeat

    async def run(self) -> int:
        """Until a SIGTERM; then what is in flight is finished as any command does."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._stop.set)
        session = await self._session()
        wallet = session.wallet
        wallet.listener.close()
        wallet.core.endpoint.listen(SlowHost(wallet.core.endpoint, self._hold_ms), ask=True)
        ledger = wallet.core.ledger
        numbers = [int(one.key.rpartition("-")[2]) for one in ledger.payments.values() if one.key]
        for payment in ledger.running():
            self._begin(session, int(payment.key.rpartition("-")[2]), 0)
        following = max(numbers, default=0) + 1
        while not self._stop.is_set():
            is_quiet = (self._folder / QUIET_FILE).exists()
            if not is_quiet and self._wants_more():
                self._begin(session, following, PACKETS_EXPECTED)
                following += 1
            self._tell()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), TURN_S)
        hurry = asyncio.Event()
        hurry.set()
        await session.close(hurry)
        return 0

    async def _session(self) -> LocalSession:
        """Our connector may be down just now: a user would try again, too."""
        while True:
            session = LocalSession(Wallet(load_folder(self._folder)), self._folder)
            try:
                await session.start()
                return session
            except LinkError as error:
                sys.stdout.write(f"{error}\n")
                await asyncio.sleep(TURN_S)

    def _hold_ms(self) -> int:
        return self._draw.randint(self._plan.hold_ms_min, self._plan.hold_ms_max)

    def _wants_more(self) -> bool:
        return len(self._tasks) < PAYMENTS_MAX and sum(self._in_flight.values()) < self._plan.packets_wanted

    def _begin(self, session: LocalSession, number: int, packets: int) -> None:
        self._in_flight[number] = packets
        task = asyncio.create_task(self._pay(session, number))
        self._tasks[number] = task

    async def _pay(self, session: LocalSession, number: int) -> None:
        def heard(event: dict[str, Any]) -> None:
            self._in_flight[number] = event["progress"]["packets_in_flight"]

        try:
            await session.ask("pay", self._plan.request(number).to_json(), on_event=heard)
        except IsthmusError as error:
            sys.stdout.write(f"payment {number}: {error}\n")
        finally:
            self._ended += 1
            del self._tasks[number], self._in_flight[number]

    def _tell(self) -> None:
        told = {
            "pid": os.getpid(),
            "payments": len(self._tasks),
            "packets": sum(self._in_flight.values()),
            "ended": self._ended,
        }
        fresh = self._folder / f"{STATUS_FILE}.new"
        fresh.write_text(json.dumps(told))
        fresh.replace(self._folder / STATUS_FILE)


def main(arguments: list[str]) -> int:
    """FOLDER PLAN; the exit status."""
    folder, plan = map(Path, arguments)
    return asyncio.run(Payer(folder, Plan.read(plan)).run())
