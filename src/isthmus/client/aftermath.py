"""What a killed process left on its way, and what our own books say became of it.

The books decide each packet by our own clock, also after a kill: what they posted has left, nothing else has. Which
payment a posted packet belonged to they don't tell; but if one payment only was in the middle, all that the books
hold beyond what is known of the others is its own.
"""

from typing import Final, final

from isthmus.client.ledger import RUNNING, Payment, WalletLedger
from isthmus.client.tables import LOCAL
from isthmus.connector.books import Books
from isthmus.connector.events import Outbound
from isthmus.ilp.packet import FULFILL


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
