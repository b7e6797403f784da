"""What sending and judging outcomes have in common: packets in flight, what is known of the path, and failure."""

from typing import Final, final

from isthmus.stream.congestion import Window
from isthmus.stream.flight import Flight
from isthmus.stream.orders import Failure, SendFailed, Totals
from isthmus.stream.outgoing import Outgoing
from isthmus.stream.probing import Prober
from isthmus.stream.session import Session


@final
class Traffic:
    """Shared state of the sending half."""

    def __init__(self, session: Session) -> None:
        settings = session.settings
        self.session: Final = session
        self.window: Final = Window(settings.window_max)
        self.outgoing: Final = Outgoing(session)
        self.totals: Final = Totals()
        self.flights: Final[dict[int, Flight]] = {}  # in the order of departure, and so of deadlines
        self.unknown: Final[dict[int, Flight]] = {}  # nobody told their outcome in time
        self.next_number = settings.first_sequence
        self.prober: Prober | None = None
        self.progress_at = 0
        self.poll_ms = 0  # between questions while the peer's limits hold us back
        # The last reject that wasn't about one packet only.
        self.trouble = ""
        self.trouble_message = ""
        self.trouble_by = ""
        self.failure: Failure | None = None
        self.failed: SendFailed | None = None
        self.failed_told = True

    def wants(self) -> bool:
        """Whether anything waits to be sent or answered, control frames apart."""
        if self.prober is not None:
            return True
        for stream in self.session.streams.values():
            if (
                stream.asked
                or not stream.bytes_out.finished
                or (stream.wants_money and not self.outgoing.is_dust(stream))
            ):
                return True
        return False

    def fail(self, failure: Failure) -> None:
        """Stop sending. It is told once nothing is in flight; silently if nobody waits for anything."""
        if self.failure is not None:
            return
        self.failure = failure
        told = SendFailed(failure, self.trouble, self.trouble_message, self.trouble_by)
        prober = self.prober
        if prober is not None:
            self.prober = None
            if prober.for_quote:
                self.session.orders.append(self.outgoing.quote_failed(prober, told))
                if not self.wants():
                    self.failure = None
                    return
        self.failed = told
        self.failed_told = not self.wants()
