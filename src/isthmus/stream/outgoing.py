"""How much money goes into the next packet, and the least that must arrive for it.

Fixed source amounts, fixed destination amounts, the peer's maxima, the minimum rate, the path's maximum packet
amount, and the grant: all that bounds a packet's amount meets here. Nothing is sent or awaited.
"""

from fractions import Fraction
from typing import Final, final

from isthmus.ilp.packet import AMOUNT_MAX
from isthmus.stream.capacity import Capacity
from isthmus.stream.orders import Failure, GrantWanted, Quote, QuoteFailed, QuoteReady, SendDone, SendFailed
from isthmus.stream.probing import Prober
from isthmus.stream.rate import MinimumRate, PathRate
from isthmus.stream.session import Session
from isthmus.stream.substream import Stream

GRANT_WINDOWS: Final = 4  # a grant covers so many windows of packets: one commit for all of them
GRANT_SEQUENCES: Final = 16_384  # and so many sequence numbers, which are cheap
FINAL_TRIES: Final = 2  # with a source amount that may be a little too small, before the one that is certain


@final
class Parcel:
    """One packet's money."""

    __slots__ = ("amount", "exact", "expected", "floor", "minimum", "stream")

    def __init__(
        self, stream: Stream, amount: int, minimum: int, floor: int, expected: int, *, exact: bool = False
    ) -> None:
        self.stream: Final = stream
        self.amount: Final = amount
        self.minimum: Final = minimum  # what the receiver is told
        self.floor: Final = floor  # by the minimum rate, exactly
        self.expected: Final = expected  # at most, in destination units
        self.exact: Final = exact  # delivers all the rest, or nothing


@final
class Outgoing:
    """The money side of a sender."""

    def __init__(self, session: Session) -> None:
        self._session: Final = session
        self.rate: Final = PathRate()
        self.capacity: Final = Capacity(session.settings.packet_amount_max)
        self.minimum: MinimumRate | None = None
        self.granted: int | None = None  # None: no grant is needed
        self._grant_ceiling = 0
        self._grant_wanted = 0
        # One unit, once in the life of a connection, may be lost to rounding below the exact minimum: without it a
        # payment of a few units could never be made.
        self._allowance = True

    # --- terms ---------------------------------------------------------------------------------------------------

    def set_minimum(self, rate: Fraction) -> None:
        self.minimum = MinimumRate(rate)
        self.capacity.ceiling = min(self._session.settings.packet_amount_max, self.minimum.amount_max())

    def set_grant(self, total: int, sequence_ceiling: int) -> None:
        self.granted = max(self.granted or 0, total)
        self._grant_ceiling = max(self._grant_ceiling, sequence_ceiling)
        self._grant_wanted = 0

    def needs(self) -> Failure | None:
        """What forbids sending money at all."""
        if not any(stream.wants_money for stream in self._session.streams.values()):
            return None
        if self.minimum is None:
            return Failure.NO_MINIMUM
        return Failure.NOT_EXPRESSIBLE if self.capacity.ceiling == 0 else None

    def needs_rate(self) -> bool:
        """Money waits, and nothing is known of the path."""
        return not self.rate.known and any(stream.wants_money for stream in self._session.streams.values())

    def is_dust(self, stream: Stream) -> bool:
        """What is left of a stream's money would arrive as nothing."""
        rate = self.rate
        return rate.received > 0 and stream.sendable * rate.received < rate.amount

    # --- the next packet -----------------------------------------------------------------------------------------

    def senders(self) -> list[Stream]:
        """Streams with money to send, when money may be sent."""
        if self.minimum is None or not self.rate.known:
            return []
        return [stream for stream in self._session.streams.values() if stream.wants_money]

    def next_parcel(self, stream: Stream, number: int, window: int, now: int) -> Parcel | None:
        """The next packet of a stream; None if it can't send now."""
        minimum = self.minimum
        assert minimum is not None
        rate = self.rate
        available = stream.send_max - stream.sent - stream.in_flight - stream.unknown
        if available <= 0:
            return None
        capacity = self.capacity
        cap = capacity.amount()
        if available >= 2 * cap:
            amount = minimum.align(cap) if minimum.denominator > 1 else cap
        elif available > cap:
            amount = minimum.align((available + 1) // 2)  # two halves, so that no crumb is left
        else:
            amount = available
            if amount * rate.received < rate.amount:
                return None  # dust
        least = 0
        if stream.delivery is not None or stream.peer_max is not None:
            amount, least = self._limited(stream, amount, min(available, cap))
            if amount == 0:
                return None
        larger = 0
        if capacity.limit is not None and available > cap and least == 0:
            larger = capacity.larger(now)
            if larger and available >= larger and stream.deliverable is None:
                amount = minimum.align(larger)
        if self.granted is not None and not self._is_granted(amount, number, window):
            return None
        if larger and amount > cap:
            capacity.trying(amount)
        floor = -(-amount * minimum.numerator // minimum.denominator)
        told = floor
        if least:
            # Exactly what is missing; only rounding can put the floor a unit above it.
            told = max(least, floor - 1)
        elif self._allowance and floor > 0 and amount * rate.received // rate.amount == floor - 1:
            self._allowance = False  # until this packet's outcome
            told = floor - 1
        # Whatever the rate seems to be: what is fulfilled brought what the receiver was told.
        return Parcel(stream, amount, told, floor, max(rate.expected_max(amount), told), exact=least > 0)

    def _limited(self, stream: Stream, amount: int, top: int) -> tuple[int, int]:
        """A source amount that doesn't deliver beyond what we or the peer want, and the least it must deliver.

        Packets that can't overshoot go at once; the last one goes alone, when all others have their outcome, so that
        it can be exact: at most what one more source unit buys arrives beyond the goal.
        """
        rate = self.rate
        left = stream.deliverable
        if left is None:
            return amount, 0
        if left <= 0 or rate.received == 0:
            return 0, 0
        if rate.expected_max(amount) <= left:
            return amount, 0
        if stream.packets_in_flight:
            return 0, 0
        certain = rate.source_max(left)
        if stream.delivery is None or stream.delivery - stream.delivered - stream.expected > left:
            return min(top, certain), 0  # the peer's maximum: it takes what one source unit buys beyond it
        least = rate.source_min(left)
        if stream.final_tries >= FINAL_TRIES:
            exact = certain
        else:
            exact = least if stream.final_tries == 0 else (least + certain) // 2
        return (exact, left) if exact <= top else (top, 0)

    # --- outcomes ------------------------------------------------------------------------------------------------

    def shrink(self, amount: int) -> None:
        """Packets of this amount are more than the path's liquidity, for now."""
        self.capacity.shrink(amount, self._least_amount())

    def _least_amount(self) -> int:
        """So much that rounding on the way can't take the packet below the minimum rate, nor a half of it.

        A path whose liquidity is used up for a moment, by a sender who pays ahead as it goes, would else be tried with
        less and less, until a unit lost to rounding looks like a bad rate.
        """
        minimum, rate = self.minimum, self.rate
        if minimum is None or not rate.known:
            return 1
        gain = rate.received * minimum.denominator - minimum.numerator * rate.amount
        return 1 if gain <= 0 else -(-2 * rate.amount * minimum.denominator // gain)

    def allowance_used(self, used: bool) -> None:
        """The packet that was allowed one unit less has its outcome."""
        if not used:
            self._allowance = True

    def tell_done(self) -> None:
        """Report streams that have sent all that they could."""
        for stream in self._session.streams.values():
            if stream.done_told or stream.packets_in_flight:
                continue
            if not stream.wants_money or (self.is_dust(stream) and self.minimum is not None):
                stream.done_told = True
                unsent = 0 if stream.delivery is not None else max(0, stream.sendable)
                self._session.orders.append(SendDone(stream.id, stream.sent, stream.delivered, unsent))

    # --- grants --------------------------------------------------------------------------------------------------

    def _is_granted(self, amount: int, number: int, window: int) -> bool:
        """Whether the packet stays within what was made durable; asks for more ahead of need."""
        goal = 0
        committed = self._session.committed_by_ended
        for stream in self._session.streams.values():
            goal += max(stream.send_max, stream.sent + stream.in_flight + stream.unknown)
            committed += stream.sent + stream.in_flight + stream.unknown
        goal += self._session.committed_by_ended
        assert self.granted is not None
        ahead = amount * window * GRANT_WINDOWS
        short = committed + amount + ahead // 2 > self.granted and self.granted < goal
        if (short or number + GRANT_SEQUENCES // 2 > self._grant_ceiling) and self._grant_wanted == 0:
            total = max(self.granted, min(goal, committed + amount + ahead))
            self._grant_wanted = total
            self._session.orders.append(GrantWanted(total, number + GRANT_SEQUENCES))
        return committed + amount <= self.granted and number < self._grant_ceiling

    # --- probes and quotes ---------------------------------------------------------------------------------------

    def probe(self, *, for_quote: bool, source: int = 0, destination: int = 0) -> Prober:
        """Choose what to probe for; without a hint, what the streams want to send."""
        if not source and not destination:
            streams = [stream for stream in self._session.streams.values() if stream.wants_money]
            if all(stream.delivery is None for stream in streams):
                source = sum(stream.sendable for stream in streams)
            else:
                destination = sum(stream.delivery or 0 for stream in streams)
        return Prober(source=source, destination=destination, for_quote=for_quote)

    def judge_rate(self) -> Failure | None:
        """After the probes: whether the path is good enough to begin."""
        rate = self.rate
        if rate.received == 0:
            return Failure.TOO_SMALL
        # A larger amount than this would arrive as more than a packet can say.
        self.capacity.ceiling = min(self.capacity.ceiling, AMOUNT_MAX * rate.amount // (rate.received + 1))
        if self.capacity.ceiling == 0:
            return Failure.NOT_EXPRESSIBLE
        if self.minimum is not None and not self.minimum.accepts(rate.amount, rate.received):
            return Failure.RATE_TOO_LOW
        return None

    def quote(self, prober: Prober) -> QuoteReady:
        return QuoteReady(self._offer(prober))

    def quote_failed(self, prober: Prober, told: SendFailed) -> QuoteFailed:
        offer = self._offer(prober) if self.rate.received else None
        return QuoteFailed(told.failure, told.code, told.message, told.triggered_by, offer)

    def _offer(self, prober: Prober) -> Quote:
        rate = self.rate
        minimum = self.minimum
        if prober.destination and not prober.source:
            source = rate.source_max(prober.destination)
            destination = least = prober.destination
            most = source if minimum is None else max(source, minimum.source(destination))
        else:
            source = most = prober.source or rate.amount
            destination = rate.expected(source)
            # But for the unit that one packet may lose to rounding.
            least = 0 if minimum is None else min(destination, max(0, minimum.destination(source) - 1))
        return Quote(source, destination, least, most, rate.fraction(), self.capacity.limit)
