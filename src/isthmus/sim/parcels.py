"""Real packets through a fleet: Prepares of a home account of each node to that of another, fulfilled or rejected.

They go through the nodes' own switches: routes, limits, rates, expiries, books. Whoever is paid fulfils at once;
whoever pays counts what came back, and may send again.
"""

from collections import Counter
from collections.abc import Callable
from hashlib import sha256
from typing import TYPE_CHECKING, Final, final

from isthmus.connector.events import AccountId, Inbound, Outbound
from isthmus.ilp.packet import (
    PREPARE,
    Fulfill,
    Prepare,
    Reject,
    decode_prepare,
    decode_reply,
    encode_fulfill,
    encode_prepare,
)
from isthmus.sim.agenda import WALL_START_MS

if TYPE_CHECKING:
    from isthmus.sim.fleet import Fleet

HOME: Final = AccountId("home")
SESSION: Final = b"homes of a fleet"
AMOUNT: Final = 10**12
LIVES_MS: Final = 30_000
FULFILLED: Final = "fulfilled"


@final
class Parcels:
    """All packets that homes have under way."""

    def __init__(self, fleet: "Fleet") -> None:
        self._fleet: Final = fleet
        self._numbers = 0
        self._waiting: Final[dict[tuple[int, int], Callable[[str], None]]] = {}  # by node and request id
        self.outcomes: Final[Counter[str]] = Counter()  # "fulfilled", or the code of the Reject
        self.late = 0  # came back after their expiry: none may

    @property
    def under_way(self) -> int:
        return len(self._waiting)

    def send(self, source: int, target: int, came: Callable[[str], None] = lambda _: None) -> None:
        """One packet; `came` hears how it ended: "fulfilled", or a code."""
        fleet = self._fleet
        self._numbers += 1
        number = self._numbers
        preimage = number.to_bytes(32, "big")
        expires_at = WALL_START_MS + fleet.agenda.now + LIVES_MS
        to = f"test.{fleet.graph.nodes[target].name}.home"
        packet = encode_prepare(Prepare(AMOUNT, expires_at, sha256(preimage).digest(), to, preimage))
        deadline = fleet.agenda.now + LIVES_MS

        def ended(outcome: str) -> None:
            self.outcomes[outcome] += 1
            self.late += fleet.agenda.now > deadline
            came(outcome)

        self._waiting[source, number] = ended
        fleet.tell(source, Inbound(HOME, SESSION, number, packet, fleet.agenda.now))

    def take(self, node: int, frames: list[Outbound]) -> None:
        """What a node gives its home: Prepares to be fulfilled, and answers to its own."""
        answers: list[Inbound] = []
        for frame in frames:
            if frame.packet[0] == PREPARE:
                fulfillment = decode_prepare(frame.packet).data[:32]
                answer = encode_fulfill(Fulfill(fulfillment))
                answers.append(Inbound(HOME, frame.session, frame.request_id, answer, self._fleet.agenda.now))
                continue
            ended = self._waiting.pop((node, frame.request_id), None)
            if ended is not None:
                reply = decode_reply(frame.packet)
                ended(reply.code if isinstance(reply, Reject) else FULFILLED)
        if answers:
            # A moment later: the node is still at work on what brought them.
            self._fleet.agenda.after(0, lambda: self._fleet.tell(node, *answers))

    def lost(self, node: int) -> None:
        """A node has died, and its home with it."""
        for key in [key for key in self._waiting if key[0] == node]:
            del self._waiting[key]
