"""The whole kernel under random life, beside an auditor who keeps dicts and shares no code with the books.

The auditor sees what peers see: what was sent to the kernel and what it let out. It knows the rules of money only.
"""

from fractions import Fraction
from hashlib import sha256

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from isthmus.connector.events import (
    AccountId,
    Append,
    Drain,
    Drained,
    Durable,
    Effect,
    Event,
    Inbound,
    LinkBlocked,
    LinkDown,
    LinkUp,
    LinkWritable,
    Now,
    Outbound,
    Release,
    Undelivered,
)
from isthmus.connector.kernel import Kernel
from isthmus.connector.tables import AccountTerms, RateTable, RouteTable, Tables, TablesChanged
from isthmus.ilp.asset import Asset
from isthmus.ilp.outcomes import (
    OUTCOMES_DESTINATION,
    OutcomesReport,
    decode_report,
    encode_answer,
    encode_report,
)
from isthmus.ilp.packet import Fulfill, Prepare, Reject, decode, encode_fulfill, encode_prepare, encode_reject

WALL = 1_800_000_000_000
ASSETS = {"ann": ("USD", 9), "ben": ("EUR", 6), "cat": ("USD", 9)}
RATE = {("USD", "EUR"): Fraction("0.9"), ("EUR", "USD"): Fraction("1.1"), ("USD", "USD"): Fraction(1)}
SPREAD = Fraction(1, 50)
RECEIVABLE = 5_000_000
PAYABLE = 6_000_000
HOLD = 4_000
MARGIN = 1_000
LEGS = 6

NAMES = st.sampled_from(sorted(ASSETS))
AMOUNTS = st.one_of(
    st.integers(2_000, 900_000),
    st.integers(2_000, 900_000),
    st.integers(0, 3),
    st.sampled_from([RECEIVABLE, 2**64 - 1]),
)
LEFT_MS = st.one_of(st.just(6_000), st.integers(2_000, 6_000), st.integers(0, 2_000))
# Which of the packets that wait for their outcome a rule is about.
PICKS = st.integers(0, 30)
# Requests of peers that are reports: above all ids of their Prepares.
REPORTS_FROM = 1_000_000


class Packet:
    """One Prepare as the auditor follows it."""

    def __init__(self, source: str, request: int, amount: int, secret: bytes) -> None:
        self.source = source
        self.request = request
        self.amount = amount
        self.secret = secret
        self.out: tuple[str, int, int, int] | None = None  # account, request id, amount, expiry (wall)
        self.expires_at = 0  # the same on the monotonic clock
        self.outcome = False  # some answer was given; later ones don't count
        self.fulfilled_in_time = False
        self.answer: str | None = None  # "fulfilled" or a code
        self.lost = False  # its sender voided it, and we had fulfilled it


class Life(RuleBasedStateMachine):
    """Peers that pay, fulfil, reject, lie and fall silent; a journal that lags; clocks that jump; crashes."""

    def __init__(self) -> None:
        super().__init__()
        self.mono = 10_000
        self.wall_offset = WALL
        self.processes = 0
        self.log: list[bytes] = []
        self.pending: list[Append] = []
        self.packets: dict[tuple[str, int], Packet] = {}
        self.by_condition: dict[bytes, Packet] = {}
        self.owed: dict[str, int] = dict.fromkeys(ASSETS, 0)  # by each peer to us, as peers see it
        self.up: dict[str, bool] = {}
        self.undecided: list[Packet] = []
        self.released_prepares: set[tuple[str, bytes, int]] = set()
        self.by_wire: dict[tuple[str, bytes, int], Packet] = {}
        self.draining = False
        self.reports: list[tuple[str, int, OutcomesReport]] = []  # the node's, unanswered
        self.reported = 0
        self.decided: dict[str, int] = dict.fromkeys(ASSETS, 0)  # up to which request each peer said it has decided
        self.acknowledged: set[tuple[str, int]] = set()
        self.kernel = self._start()
        self.shadow = Kernel(bytes(32))

    def _start(self) -> Kernel:
        self.processes += 1
        kernel = Kernel(sha256(b"%d" % self.processes).digest())
        for sequence, record in enumerate(self.log, 1):
            kernel.replay(sequence, record)
        kernel.opened(self._now())
        self._forget_the_past(kernel)
        terms = {
            AccountId(name): AccountTerms(
                id=AccountId(name),
                asset=Asset(*asset),
                relation="peer",
                receivable_max=RECEIVABLE,
                payable_max=PAYABLE,
                hold_ms_max=HOLD,
                open_legs_max=LEGS,
                prepares_per_batch_max=2,
                inbox_max=4,
            )
            for name, asset in ASSETS.items()
        }
        routes = RouteTable({f"test.{name}": AccountId(name) for name in ASSETS})
        rates = RateTable({(a, b): rate for (a, b), rate in RATE.items() if a != b}, spread=SPREAD)
        self.kernel = kernel
        self._handle(TablesChanged(Tables("test.node", terms, routes, rates)))
        self._sync()
        self._handle(*[LinkUp(AccountId(name)) for name in ASSETS])
        self.up = dict.fromkeys(ASSETS, True)
        return kernel

    def _now(self) -> Now:
        return Now(self.wall_offset + self.mono, self.mono)

    def _handle(self, *events: Event | TablesChanged) -> None:
        effects = self.kernel.handle(list(events), self._now())
        for effect in effects:
            self._take(effect)

    def _take(self, effect: Effect) -> None:
        if isinstance(effect, Append):
            self.pending.append(effect)
        elif isinstance(effect, Release):
            for frame in effect.frames:
                self._see(effect.account, frame)
        elif isinstance(effect, Drained):
            assert not any(packet.answer is None for packet in self.undecided)

    def _see(self, account: str, frame: Outbound) -> None:
        """A frame has left the node: only now it counts."""
        packet = decode(frame.packet)
        if isinstance(packet, Prepare):
            if packet.destination == OUTCOMES_DESTINATION:
                self.reports.append((account, frame.request_id, decode_report(packet.data)))
            else:
                self._see_prepare(account, frame, packet)
            return
        if frame.request_id >= REPORTS_FROM:
            return
        asked = self.packets[account, frame.request_id]
        assert asked.answer is None, "a request is answered once"
        self.undecided.remove(asked)
        if isinstance(packet, Fulfill):
            assert sha256(packet.fulfillment).digest() == sha256(asked.secret).digest()
            assert asked.fulfilled_in_time, "only a Fulfill that was read in time is passed on"
            asked.answer = "fulfilled"
            self._credit(asked)
        else:
            assert isinstance(packet, Reject)
            assert not asked.fulfilled_in_time, "what was fulfilled in time is never rejected"
            asked.answer = packet.code
            assert packet.code != "R00" or asked.out is None or self.mono >= asked.expires_at

    def _see_prepare(self, account: str, frame: Outbound, packet: Prepare) -> None:
        assert self.up[account], "no Prepare to a link that is down"
        key = (account, frame.session, frame.request_id)
        assert key not in self.released_prepares, "no Prepare is sent twice"
        self.released_prepares.add(key)
        asked = self.by_condition[packet.condition]
        assert asked.answer is None
        assert asked.out is None
        assert account != asked.source
        units = Fraction(10) ** (ASSETS[account][1] - ASSETS[asked.source][1])
        rate = RATE[ASSETS[asked.source][0], ASSETS[account][0]] * units * (1 - SPREAD)
        assert packet.amount == int(asked.amount * rate), "exact, rounded down"
        assert packet.amount > 0 or asked.amount == 0
        asked.out = (account, frame.request_id, packet.amount, packet.expires_at)
        self.by_wire[key] = asked
        asked.expires_at = packet.expires_at - self.wall_offset

    def _sync(self) -> None:
        while self.pending:
            self._commit_one()

    def _commit_one(self) -> None:
        append = self.pending.pop(0)
        self.log.append(append.record)
        self._handle(Durable(append.sequence))

    # --- what peers do ------------------------------------------------------------------------------------------

    @rule(source=NAMES, to=NAMES, amount=AMOUNTS, left=LEFT_MS, count=st.integers(1, 5))
    def pay(self, source: str, to: str, amount: int, left: int, count: int) -> None:
        events: list[Event] = []
        for _ in range(count):
            request = len(self.packets) + 1
            secret = sha256(b"secret %d" % request).digest()
            packet = Packet(source, request, amount, secret)
            condition = sha256(secret).digest()
            self.packets[source, request] = packet
            self.by_condition[condition] = packet
            self.undecided.append(packet)
            data = encode_prepare(Prepare(amount, self._now().wall_ms + left, condition, f"test.{to}.x", b""))
            events.append(Inbound(AccountId(source), b"session of peers", request, data, self.mono))
        self._handle(*events)

    @rule(source=NAMES, to=NAMES, amount=st.integers(2_000, 500_000), late=st.booleans())
    def pay_and_be_answered(self, source: str, to: str, amount: int, late: bool) -> None:
        """What usually happens, so that balances move; the answer may meet the expiry."""
        self.pay(source, to, amount, 3_000, 1)
        self._sync()
        if self.undecided and self.undecided[-1].out is not None:
            packet = self.undecided[-1]
            self.mono += 2_000 if late else 1_999
            self._fulfil(packet)

    def _picked(self, pick: int) -> Packet | None:
        """One of the packets that were sent on and wait for their outcome."""
        waiting = [packet for packet in self.undecided if packet.out is not None]
        return waiting[pick % len(waiting)] if waiting else None

    @rule(pick=PICKS)
    def repeat(self, pick: int) -> None:
        """A duplicate of a request that is in flight; one that waits in the inbox could outlive the first."""
        packet = self._picked(pick)
        if packet is not None and not self.pending and not self._posted_but_not_told(packet):
            expiry = self._now().wall_ms + 5_000
            data = encode_prepare(Prepare(packet.amount, expiry, sha256(packet.secret).digest(), "test.cat.x", b""))
            self._handle(Inbound(AccountId(packet.source), b"session of peers", packet.request, data, self.mono))

    def _posted_but_not_told(self, packet: Packet) -> bool:
        received = self.kernel.books.peers[AccountId(packet.source)].received
        return (b"session of peers", packet.request) not in received

    @rule(pick=PICKS)
    def fulfil(self, pick: int) -> None:
        packet = self._picked(pick)
        if packet is not None:
            self._fulfil(packet)

    def _fulfil(self, packet: Packet) -> None:
        assert packet.out is not None
        account, request = packet.out[:2]
        if self.mono < packet.expires_at and not packet.outcome:
            packet.fulfilled_in_time = True
        packet.outcome = True
        self._handle(Inbound(AccountId(account), b"", request, encode_fulfill(Fulfill(packet.secret)), self.mono))

    @rule(pick=PICKS, code=st.sampled_from(["F99", "T04", "F08", "X42"]))
    def reject(self, pick: int, code: str) -> None:
        packet = self._picked(pick)
        if packet is not None and packet.out is not None:
            packet.outcome = True
            data = encode_reject(Reject(code, "test.far", "no"))
            self._handle(Inbound(AccountId(packet.out[0]), b"", packet.out[1], data, self.mono))

    @rule(pick=PICKS)
    def lie(self, pick: int) -> None:
        packet = self._picked(pick)
        if packet is not None and packet.out is not None:
            packet.outcome = True
            data = encode_fulfill(Fulfill(bytes(32)))
            self._handle(Inbound(AccountId(packet.out[0]), b"", packet.out[1], data, self.mono))

    @rule(pick=PICKS, account=NAMES)
    def answer_on_another_account(self, pick: int, account: str) -> None:
        packet = self._picked(pick)
        if packet is None or packet.out is None or account == packet.out[0]:
            return
        if all(other.out is None or other.out[:2] != (account, packet.out[1]) for other in self.undecided):
            data = encode_fulfill(Fulfill(packet.secret))
            self._handle(Inbound(AccountId(account), b"", packet.out[1], data, self.mono))

    @rule(pick=PICKS)
    def answer_in_another_session(self, pick: int) -> None:
        packet = self._picked(pick)
        if packet is not None and packet.out is not None:
            data = encode_fulfill(Fulfill(packet.secret))
            self._handle(Inbound(AccountId(packet.out[0]), b"another session!", packet.out[1], data, self.mono))

    @rule(account=NAMES, junk=st.binary(max_size=40), request=st.integers(0, 40))
    def babble(self, account: str, junk: bytes, request: int) -> None:
        """Bytes that say nothing change nothing; a whole Reject by chance is beyond 40 random bytes."""
        if junk[:1] not in (b"\x0c", b"\x0e"):
            self._handle(Inbound(AccountId(account), b"", request, b"\x0d\x03" + junk, self.mono))

    @rule(pick=PICKS)
    def undelivered(self, pick: int) -> None:
        packet = self._picked(pick)
        if packet is not None and packet.out is not None:
            packet.outcome = True
            self._handle(Undelivered(AccountId(packet.out[0]), packet.out[1], "T01", "refused"))

    @rule(account=NAMES, request=st.integers(1, 40))
    def answer_before_it_was_asked(self, account: str, request: int) -> None:
        """The auditor knows what left; an answer to anything else must be nothing, whoever knows the secret."""
        for packet in self.undecided:
            if packet.out is None and all(key[0] != account or key[2] != request for key in self.released_prepares):
                data = encode_fulfill(Fulfill(packet.secret))
                self._handle(Inbound(AccountId(account), b"", request, data, self.mono))
                return

    # --- outcomes -----------------------------------------------------------------------------------------------

    @rule(pick=PICKS, how=st.sampled_from(["confirm", "tell", "refuse", "babble"]))
    def answer_a_report(self, pick: int, how: str) -> None:
        """The node's reports say what is true: below the watermark nothing is open, and what is void is not posted."""
        if not self.reports:
            return
        account, request, report = self.reports.pop(pick % len(self.reports))
        sent = {
            (session, number): self.by_wire[name, session, number]
            for name, session, number in self.released_prepares
            if name == account
        }
        for number in report.voided:
            assert not sent[report.session, number].fulfilled_in_time
        told = []
        for number in report.asked if how == "tell" else []:
            packet = sent[report.session, number]
            if self.mono < packet.expires_at and not packet.outcome:
                packet.fulfilled_in_time = True
            packet.outcome = True
            told.append((number, packet.secret))
        answers = {
            "refuse": encode_reject(Reject("F01", "test.far", "what is this?")),
            "babble": encode_fulfill(Fulfill(bytes(32), b"\x01")),
        }
        data = answers.get(how, encode_answer(told))
        if request != self.kernel.switch.lanes[AccountId(account)].reporter.request_id:
            data = encode_reject(Reject("F99", "test.far", "too late"))  # it isn't waited for any more
        self._handle(Inbound(AccountId(account), b"", request, data, self.mono))

    @rule(account=NAMES, up_to=st.integers(0, 40), lies=st.booleans())
    def report(self, account: str, up_to: int, lies: bool) -> None:
        """A peer reports; if it lies, it voids what it saw fulfilled, and that is our loss and counts against it."""
        mine = [number for name, number in self.packets if name == account and number <= up_to]
        voided = []
        for number in mine:
            packet = self.packets[account, number]
            if number > self.decided[account] and (lies or packet.answer != "fulfilled"):
                voided.append(number)
        self.reported += 1
        report = OutcomesReport(b"session of peers", up_to, voided, [], [])
        data = encode_report(report, self._now().wall_ms + 5_000)
        busy = len(self.pending) >= 2 or self.kernel.slow or self.draining
        if busy or len(self.kernel.switch.lanes[AccountId(account)].inbox):
            return  # it would be refused, or taken later
        self._handle(Inbound(AccountId(account), b"", REPORTS_FROM + self.reported, data, self.mono))
        for number in voided:
            packet = self.packets[account, number]
            if packet.fulfilled_in_time and (account, number) not in self.acknowledged:
                packet.lost = True
                self.owed[account] -= packet.amount
        fresh = [number for number in mine if number > self.decided[account]]
        self.acknowledged |= {(account, number) for number in fresh if self.packets[account, number].fulfilled_in_time}
        self.decided[account] = max(self.decided[account], up_to)

    # --- what the world does ------------------------------------------------------------------------------------

    @rule(account=NAMES)
    def link_falls(self, account: str) -> None:
        self.up[account] = False
        self._handle(LinkDown(AccountId(account), "gone"))

    @rule(account=NAMES)
    def link_rises(self, account: str) -> None:
        self.up[account] = True
        self._handle(LinkUp(AccountId(account)))

    @rule(account=NAMES, blocked=st.booleans())
    def link_fills(self, account: str, blocked: bool) -> None:
        self._handle(LinkBlocked(AccountId(account)) if blocked else LinkWritable(AccountId(account)))

    @rule()
    def disk_catches_up(self) -> None:
        self._sync()

    @rule()
    def disk_writes_one(self) -> None:
        if self.pending:
            self._commit_one()

    @rule(ms=st.one_of(st.integers(0, 20), st.integers(0, 5_000)))
    def time_passes(self, ms: int) -> None:
        self.mono += ms
        self._handle()

    @rule(ms=st.integers(-(10**10), 10**10))
    def wall_clock_jumps(self, ms: int) -> None:
        self._sync()  # so that the auditor knows which clock each expiry was written by
        self.wall_offset += ms

    @precondition(lambda self: len(self.packets) > 8)
    @rule()
    def crash(self) -> None:
        """What wasn't durable is gone, and nobody saw evidence of it."""
        self._sync() if self.reported else self.pending.clear()  # a report that was taken is not forgotten here
        self.reports.clear()
        self.draining = False
        self._start()

    def _forget_the_past(self, kernel: Kernel) -> None:
        """Of the packets under way, the new process knows those whose reserve was durable."""
        undecided = self.undecided
        self.undecided = []
        for packet in undecided:
            if (b"session of peers", packet.request) in kernel.books.peers[AccountId(packet.source)].received:
                packet.outcome = packet.fulfilled_in_time = False  # the answer is forgotten, and may come again
                if packet.out is not None:
                    left = min(max(0, packet.out[3] - self.wall_offset - self.mono), HOLD)
                    packet.expires_at = self.mono + left
                self.undecided.append(packet)
            elif packet.fulfilled_in_time:
                self._credit(packet)  # posted, but the answer was lost: the peer will hear of it another day

    def _credit(self, packet: Packet) -> None:
        assert packet.out is not None
        self.owed[packet.source] += packet.amount
        self.owed[packet.out[0]] -= packet.out[2]
        was_open = packet.request > self.decided[packet.source]
        if not (was_open or packet.lost or (packet.source, packet.request) in self.acknowledged):
            packet.lost = True  # its sender had decided before we fulfilled
            self.owed[packet.source] -= packet.amount

    @precondition(lambda self: len(self.packets) > 20)
    @rule()
    def drain(self) -> None:
        self.draining = True
        self._handle(Drain())

    # --- what must always hold ----------------------------------------------------------------------------------

    @invariant()
    def books_are_sound(self) -> None:
        self.kernel.books.check()
        for name, account in self.kernel.books.peers.items():
            assert len(account.sent) <= LEGS, name
            assert len(account.received) <= LEGS, name
            assert account.balance + account.reserved_incoming <= RECEIVABLE or not account.reserved_incoming
            assert account.reserved_outgoing - account.balance <= PAYABLE or not account.reserved_outgoing

    @invariant()
    def replay_equals_live(self) -> None:
        while self.shadow.sequence < len(self.log):
            self.shadow.replay(self.shadow.sequence + 1, self.log[self.shadow.sequence])
        if not self.pending and self.kernel.at_boundary():
            assert self.shadow.digest() == self.kernel.digest()

    @invariant()
    def peers_agree(self) -> None:
        """Once the disk has caught up, the balances are what peers saw."""
        if self.pending or not self.kernel.at_boundary():
            return
        for name, account in self.kernel.books.peers.items():
            assert account.balance == self.owed[name], name

    def teardown(self) -> None:
        """Faults end, and everything must: no reservation may remain."""
        for name in ASSETS:
            self._handle(LinkUp(AccountId(name)))
            self.up[name] = True
        self._sync()
        for _ in range(2):
            self.mono += 610_000  # the longest hold, to which a restart with a wrong wall clock cuts
            self._handle()
            self._sync()
        for account in self.kernel.books.peers.values():
            assert not account.sent
            assert not account.received
        assert all(packet.answer is not None for packet in self.undecided)
        self.replay_equals_live()
        self.peers_agree()


TestLife = Life.TestCase
TestLife.settings = settings(deadline=None, max_examples=60, stateful_step_count=50)
