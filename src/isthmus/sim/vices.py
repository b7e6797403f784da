"""What adversaries do: an honest node, and a hand between it and its links.

An adversary knows all that its node knows: its neighbours' packets, its own keys, the way. It doesn't know what a
fulfillment is before somebody tells it, nor anybody's tokens. What it does to itself is its own affair.
"""

from collections import deque
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, ClassVar, Final

from isthmus.connector.events import AccountId, Inbound, Outbound
from isthmus.errors import CodecError
from isthmus.ilp.packet import (
    FULFILL,
    PREPARE,
    Fulfill,
    Prepare,
    Reject,
    encode_fulfill,
    encode_prepare,
    encode_reject,
    fulfillment_of,
    patch_prepare,
    view_prepare,
)
from isthmus.ilp.timestamp import TimestampCache
from isthmus.sim import plan as p
from isthmus.sim.plan import NodePlan

if TYPE_CHECKING:
    from isthmus.sim.process import Process

# Request ids for packets that the node itself knows nothing of.
FORGED_ID_MIN: Final = 2**31
REMEMBERED_MAX: Final = 64
BURST: Final = 24
BURSTS_MAX: Final = 4


class Vice:
    """Sees all that comes in and goes out of one node, and may change it. This one changes nothing."""

    name: ClassVar[str] = ""

    def __init__(self, plan: NodePlan, rng: Random) -> None:
        self.rng: Final = rng
        self._rate: Final = plan.vice_rate
        # When the sender of a Prepare gives it up, on our monotonic clock.
        self._ends: Final[dict[tuple[AccountId, bytes, int], int]] = {}
        self._forged = 0
        self._process: Process | None = None

    @property
    def process(self) -> "Process":
        assert self._process is not None
        return self._process

    def incoming(self, process: "Process", packets: list[Inbound]) -> list[Inbound]:
        self._process = process
        for inbound in packets:
            if inbound.packet[:1] == b"\x0c":
                self._note_end(inbound)
        return packets

    def _note_end(self, inbound: Inbound) -> None:
        try:
            expires_at = view_prepare(inbound.packet).expires_at
        except CodecError:
            return
        now = self.process.clock.now()
        key = (inbound.account, inbound.session, inbound.request_id)
        self._ends[key] = now.mono_ms + expires_at - now.wall_ms

    def outgoing(self, process: "Process", account: AccountId, frames: list[Outbound]) -> list[Outbound]:
        """What really leaves, in place of these frames."""
        if account not in process.links or account == "local":
            return frames  # nobody cheats himself
        self._process = process
        out: list[Outbound] = []
        for frame in frames:
            kind = frame.packet[0]
            if kind == FULFILL:
                out += self.fulfills(account, frame)
            elif kind == PREPARE:
                out += self.prepares(account, frame)
            else:
                out.append(frame)
        return out

    # --- for the kinds ------------------------------------------------------------------------------------------

    def fulfills(self, account: AccountId, frame: Outbound) -> list[Outbound]:
        return [frame]

    def prepares(self, account: AccountId, frame: Outbound) -> list[Outbound]:
        return [frame]

    def strikes(self) -> bool:
        """Whether it does its thing this time; counted."""
        if self.rng.randrange(100) >= self._rate:
            return False
        self.process.node.world.coverage.enter("vice", self.name)
        return True

    def later(self, ms: int, account: AccountId, frame: Outbound) -> None:
        """Send this after a while, if the process lives so long."""
        process = self.process
        process.timers.after(ms, lambda: process.links[account].write([frame]))

    def left_ms(self, account: AccountId, frame: Outbound) -> int:
        """How long the sender of this reply's request still waits for it."""
        end = self._ends.get((account, frame.session, frame.request_id))
        return 0 if end is None else end - self.process.mono_ms()

    def way_ms(self, account: AccountId) -> int:
        """How long a packet takes to this neighbour, about."""
        node = self.process.node
        return next(line.plan.delay_ms for line in node.lines if node.account_of(line) == account)

    def forged_id(self) -> int:
        self._forged += 1
        return FORGED_ID_MIN + self._forged

    def reject(self, frame: Outbound, code: str) -> Outbound:
        return Outbound(frame.session, frame.request_id, encode_reject(Reject(code, self.process.node.address, "")))


class Withholder(Vice):
    """Takes what it gets and says nothing."""

    name = p.WITHHOLD

    def fulfills(self, account: AccountId, frame: Outbound) -> list[Outbound]:
        return [] if self.strikes() else [frame]


class LastMoment(Vice):
    """Lets a Fulfill arrive about when the Prepare expires: a millisecond before, on time, or after."""

    name = p.LAST_MOMENT

    def fulfills(self, account: AccountId, frame: Outbound) -> list[Outbound]:
        wait_ms = self.left_ms(account, frame) - self.way_ms(account) - self.rng.randrange(4) + 1
        if wait_ms <= 0 or not self.strikes():
            return [frame]
        self.later(wait_ms, account, frame)
        return []


class TwoTongues(Vice):
    """Answers twice: the same again, or yes and no, in either order, at once or a little later."""

    name = p.ANSWER_TWICE

    def fulfills(self, account: AccountId, frame: Outbound) -> list[Outbound]:
        if not self.strikes():
            return [frame]
        no = self.reject(frame, "F99")
        answers = self.rng.choice(([frame, frame], [frame, no], [no, frame]))
        if self.rng.random() < 0.5:
            self.later(self.rng.randrange(1, 3_000), account, answers.pop())
        return answers


class Liar(Vice):
    """Fulfils with something else than the preimage."""

    name = p.WRONG_PREIMAGE

    def fulfills(self, account: AccountId, frame: Outbound) -> list[Outbound]:
        if not self.strikes():
            return [frame]
        wrong = bytearray(fulfillment_of(frame.packet))
        wrong[self.rng.randrange(32)] ^= 1 << self.rng.randrange(8)
        return [Outbound(frame.session, frame.request_id, encode_fulfill(Fulfill(bytes(wrong), b"")))]


class Thief(Vice):
    """Keeps Fulfills back, and says that the payment failed, or nothing."""

    name = p.STEAL

    def fulfills(self, account: AccountId, frame: Outbound) -> list[Outbound]:
        if not self.strikes():
            return [frame]
        return [self.reject(frame, self.rng.choice(("F99", "T00", "R00")))] if self.rng.random() < 0.6 else []


class _Patcher(Vice):
    """Changes Prepares that it passes on."""

    def __init__(self, plan: NodePlan, rng: Random) -> None:
        super().__init__(plan, rng)
        self._timestamps: Final = TimestampCache()

    def patched(self, frame: Outbound, change: Callable[[int, int], tuple[int, int]]) -> Outbound:
        """The Prepare with another amount and expiry, made from its own."""
        view = view_prepare(frame.packet, self._timestamps)
        amount, expires_at = change(view.amount, view.expires_at)
        packet = patch_prepare(view, max(0, min(amount, 2**64 - 1)), expires_at, self._timestamps)
        return Outbound(frame.session, frame.request_id, packet)


class Shortener(_Patcher):
    """Gives those behind it too little time."""

    name = p.SHORTEN

    def prepares(self, account: AccountId, frame: Outbound) -> list[Outbound]:
        if not self.strikes():
            return [frame]
        less_ms = self.rng.choice((500, 2_000, 20_000))
        return [self.patched(frame, lambda amount, expires_at: (amount, expires_at - less_ms))]


class Lengthener(_Patcher):
    """Promises those behind it more time than it has itself."""

    name = p.LENGTHEN

    def prepares(self, account: AccountId, frame: Outbound) -> list[Outbound]:
        if not self.strikes():
            return [frame]
        more_ms = self.rng.choice((900, 5_000, 3_600_000))
        return [self.patched(frame, lambda amount, expires_at: (amount, expires_at + more_ms))]


class Forger(_Patcher):
    """Passes on more or less than it was given."""

    name = p.FORGE

    def prepares(self, account: AccountId, frame: Outbound) -> list[Outbound]:
        if not self.strikes():
            return [frame]
        percent = self.rng.choice((0, 50, 90, 99, 101, 300))
        one = self.rng.choice((-1, 1))
        return [self.patched(frame, lambda amount, expires_at: (amount * percent // 100 + one, expires_at))]


class Replayer(Vice):
    """Sends old packets again, under their own request id or another."""

    name = p.REPLAY

    def __init__(self, plan: NodePlan, rng: Random) -> None:
        super().__init__(plan, rng)
        self._seen: Final[deque[tuple[AccountId, Outbound]]] = deque(maxlen=REMEMBERED_MAX)

    def fulfills(self, account: AccountId, frame: Outbound) -> list[Outbound]:
        return self._again(account, frame)

    def prepares(self, account: AccountId, frame: Outbound) -> list[Outbound]:
        return self._again(account, frame)

    def _again(self, account: AccountId, frame: Outbound) -> list[Outbound]:
        self._seen.append((account, frame))
        if self.strikes():
            where, old = self.rng.choice(self._seen)
            if old.packet[0] == PREPARE and self.rng.random() < 0.5:
                old = Outbound(old.session, self.forged_id(), old.packet)
            self.later(self.rng.choice((0, 1, 300, 2_000, 9_000)), where, old)
        return [frame]


class Flooder(Vice):
    """Sends a lot of packets that are worth nothing, or next to it."""

    name = p.FLOOD

    def __init__(self, plan: NodePlan, rng: Random) -> None:
        super().__init__(plan, rng)
        self._bursts = 0

    def prepares(self, account: AccountId, frame: Outbound) -> list[Outbound]:
        return [frame, *self._burst(frame)]

    def fulfills(self, account: AccountId, frame: Outbound) -> list[Outbound]:
        return [frame, *self._burst(frame)]

    def _burst(self, frame: Outbound) -> list[Outbound]:
        if self._bursts >= BURSTS_MAX or not self.strikes():
            return []
        self._bursts += 1
        process = self.process
        plan = process.node.world.plan
        wallets = [node for node in plan.nodes if node.kind == p.WALLET]
        burst: list[Outbound] = []
        for _ in range(BURST):
            wallet = self.rng.choice(wallets)
            destination = self.rng.choice((f"test.{wallet.home}.{wallet.name}.x", "test.nobody", process.node.address))
            prepare = Prepare(
                self.rng.choice((0, 1, 2)),
                process.clock.wall_ms() + self.rng.randrange(10_000),
                self.rng.randbytes(32),
                destination,
                b"",
            )
            burst.append(Outbound(frame.session, self.forged_id(), encode_prepare(prepare)))
        return burst


class Griefer(Vice):
    """Holds money to the end for nothing, and decides then: a free option while the rate moves."""

    name = p.GRIEF

    def fulfills(self, account: AccountId, frame: Outbound) -> list[Outbound]:
        wait_ms = self.left_ms(account, frame) - self.way_ms(account) - self.rng.randrange(20, 400)
        if wait_ms <= 0 or not self.strikes():
            return [frame]
        chosen = frame if self.rng.random() < 0.5 else self.reject(frame, "F99")
        self.later(wait_ms, account, chosen)
        return []


_KINDS: Final[dict[str, type[Vice]]] = {
    kind.name: kind
    for kind in (
        Withholder,
        LastMoment,
        TwoTongues,
        Liar,
        Thief,
        Shortener,
        Lengthener,
        Forger,
        Replayer,
        Flooder,
        Griefer,
    )
}


def vice_of(plan: NodePlan, rng: Random) -> Vice | None:
    """The vice of a node; None for an honest one."""
    if not plan.vice or plan.vice.partition(": ")[0] in p.SETTLE_VICES:
        return None  # what bad settlers do, their engines do
    if plan.vice.partition(": ")[0] in p.ROUTE_VICES:
        from isthmus.sim.bad_speakers import KINDS

        return KINDS[plan.vice](plan, rng)
    return _KINDS[plan.vice](plan, rng)
