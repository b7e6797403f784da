"""What one listener to a wallet was told of the money that came in, and what it wasn't told yet."""

from collections.abc import Iterator
from typing import Any, Final, final

from isthmus.client.control import ControlError, Json
from isthmus.client.ledger import WalletLedger

UNTOLD_MAX: Final = 1_024  # connections with untold money; beyond it the rest waits for its next credit


@final
class Arrivals:
    """By connection: the total and the packets that were told. Totals are the ledger's, so none is told twice."""

    def __init__(self, ledger: WalletLedger, since: Json | None) -> None:
        """`since`: {"at": wall ms, "told": {connection: [total, packets]}} of a listener that heard of some before.

        Raises ControlError for anything else.
        """
        self.told = 0
        self._receipts: Final = ledger.receipts
        self._known: Final[dict[bytes, tuple[int, int]]] = {}
        self._untold: Final[dict[bytes, None]] = {}  # in order; a set that keeps it
        at, told = _read(since)
        for connection, receipts in self._receipts.items():
            now = (receipts.total, receipts.packets)
            new = at is not None and receipts.first_at >= at
            before = told.get(connection, (0, 0) if new else now)
            self._known[connection] = before
            if before != now:
                self.credited(connection)

    def credited(self, connection: bytes) -> None:
        """Its total has grown."""
        if len(self._untold) < UNTOLD_MAX:
            self._untold[connection] = None

    def take(self) -> Iterator[dict[str, Any]]:
        """What is to be told now, a connection at a time."""
        for connection in list(self._untold):
            del self._untold[connection]
            receipts = self._receipts.get(connection)
            if receipts is None:
                continue  # forgotten meanwhile: thousands came after it
            total, packets = self._known.get(connection, (0, 0))
            if receipts.total < total:  # forgotten, and back
                total, packets = 0, 0
            self._known[connection] = (receipts.total, receipts.packets)
            if len(self._known) > 2 * len(self._receipts) + UNTOLD_MAX:
                self._forget()
            self.told += receipts.total - total
            yield {
                "connection": connection.hex(),
                "amount": str(receipts.total - total),
                "total": str(receipts.total),
                "packets": receipts.packets - packets,
                "total_packets": receipts.packets,
            }

    def _forget(self) -> None:
        for connection in [known for known in self._known if known not in self._receipts]:
            del self._known[connection]


def _read(since: Json | None) -> tuple[int | None, dict[bytes, tuple[int, int]]]:
    if since is None:
        return None, {}
    try:
        told = {bytes.fromhex(key): (int(total), int(packets)) for key, (total, packets) in since["told"].items()}
        return int(since["at"]), told
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ControlError(f"not a request for 'receive': {error!r}", status=2) from error
