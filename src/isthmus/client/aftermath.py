"""What a killed process left on its way, and what our own books say became of it.

The books decide each packet by our own clock, also after a kill: what they posted has left, nothing else has. Which
payment a posted packet belonged to they don't tell; but if one payment only was in the middle, all that the books
hold beyond what is known of the others is its own.
"""

from fractions import Fraction
from typing import Final, final

from isthmus.client.ledger import RUNNING, Payment, WalletLedger
from isthmus.client.tables import LOCAL
from isthmus.connector.books import Books
from isthmus.connector.events import Outbound
from isthmus.ilp.packet import FULFILL
from isthmus.stream.rate import MinimumRate

ROUNDED_AWAY_MAX: Final = 2  # `stream.outgoing`: one packet's allowance, and the last of a fixed destination amount


@final
class Aftermath:
    """Made from books and ledger as the journal left them, before anything new is sent."""

    def __init__(self, books: Books, ledger: WalletLedger) -> None:
        account = books.peers.get(LOCAL)
        self._legs: Final[dict[tuple[bytes, int], int]] = {}  # Prepares of earlier processes without an outcome
        self._posted = 0
        if account is not None:
            self._posted = account.posted_incoming
            self._legs.update({key: leg.amount for key, leg in account.received.items()})
        self._known: Final = ledger.total_sent()
        open_ends = [one for one in ledger.payments.values() if one.status == RUNNING or one.unknown]
        self._is_certain: Final = len(open_ends) == 1 and not ledger.has_streams

    @property
    def is_settled(self) -> bool:
        """Whether every packet of earlier processes has its outcome."""
        return not self._legs

    def decided(self, frame: Outbound) -> None:
        """The reply to such a packet; the kernel sends it when its outcome is durable."""
        amount = self._legs.pop((frame.session, frame.request_id), 0)
        if frame.packet[0] == FULFILL:
            self._posted += amount

    def sent(self, payment: Payment) -> tuple[int, int]:
        """What has left by a payment that was in the middle: (sent, unknown). Everything is settled."""
        assert self.is_settled
        left = max(0, self._posted - self._known)
        if self._is_certain:
            return payment.sent + left, 0
        # Several were in the middle: what left is shared among them in a way that nobody knows.
        return payment.sent, min(left, max(0, payment.granted - payment.sent))


def arrived(payment: Payment, sent: int, unknown: int, told: int | None) -> tuple[int, int]:
    """What a payment that was in the middle delivered at least and at most. `told`: the receiver's word.

    `sent` and `unknown` are what `Aftermath.sent` says.
    """
    # Each packet that our books posted brought its minimum, but for a unit of rounding in two of them.
    minimum = Fraction(payment.minimum)
    delivered = payment.delivered + _least(minimum, sent - payment.sent)
    if told is not None and told >= delivered:
        return told, told
    # The receiver doesn't say, or has forgotten: what those packets brought at the best rate known, rounded up. The
    # rate seen is of amounts that each hop rounded down, packet by packet, so the one that was offered may be better.
    rate = max(Fraction(payment.rate), minimum)
    if payment.sent:
        rate = max(rate, Fraction(payment.delivered, payment.sent))
    most = -(-(sent - payment.sent + unknown) * rate.numerator // rate.denominator)
    # Of what was known to have left some may have brought more than its minimum, too. What was unknown then was
    # expected to bring that at least; it is among what the books decided since.
    vague = payment.delivered_max - payment.delivered - _least(minimum, payment.unknown)
    return delivered, max(delivered, payment.delivered + max(0, vague) + most)


def _least(minimum: Fraction, amount: int) -> int:
    """What packets of so much money brought together, if they were fulfilled."""
    return max(0, MinimumRate(minimum).destination(amount) - ROUNDED_AWAY_MAX)
