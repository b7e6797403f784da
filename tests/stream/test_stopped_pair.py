"""A payment through a connector that stops exchanging in its middle: STREAM waits, and goes on when it may."""

from fractions import Fraction
from typing import TYPE_CHECKING

from isthmus.connector.tables import RatesChanged, RateTable
from isthmus.ilp.asset import Asset
from isthmus.ilp.packet import Reject, decode_prepare
from isthmus.stream.orders import SendDone
from tests.connector import conftest as connector
from tests.stream.conftest import Hop

if TYPE_CHECKING:
    from tests.stream.conftest import MakeWorld

PAIR = ("USD", "EUR")
GOOD = RateTable({PAIR: Fraction("0.9")})
STOPPED = RateTable({PAIR: Fraction("0.9")}, stopped={PAIR: "its rate is too old"})


class Kernel(Hop):
    """A hop whose judge is a real kernel; what it forwards is fulfilled at once."""

    def __init__(self) -> None:
        super().__init__()
        alice = connector.terms("alice", packet_amount_max=1_000)
        bob = connector.terms("bob", asset=Asset("EUR", 9))
        self.node = connector.Node(alice, bob, rates=GOOD)

    def judge(self, amount: int) -> tuple[int, Reject | None]:
        self.node.prepare("alice", "test.node.bob.x", amount)
        frames = self.node.take("bob")
        if not frames:
            return 0, self.node.rejected("alice")
        sent = decode_prepare(frames[0].packet)
        self.node.fulfil("bob", frames[0].request_id)
        self.node.fulfilled("alice")
        return sent.amount, None

    def tell(self, rates: RateTable) -> None:
        self.node.tell(RatesChanged(rates))


def test_a_payment_waits_while_its_pair_is_stopped_and_goes_on_with_a_rate(make_world: "MakeWorld") -> None:
    """CONN-11, P-10."""
    hop = Kernel()
    world = make_world(hops=[hop], minimum=Fraction(89, 100))
    world.at(world.now + 40, lambda: hop.tell(STOPPED))
    world.at(world.now + 8_000, lambda: hop.tell(GOOD))
    stream_id = world.alice.connection.open_stream()
    assert stream_id is not None
    world.alice.connection.send_total(stream_id, 1_000_000)
    world.run(until=lambda: bool(world.alice.told(SendDone)))
    assert world.now > 9_000
    assert world.alice.first(SendDone).sent == 1_000_000
    assert (world.posted, world.arrived) == (1_000_000, 900_000)
    assert 0 < world.alice.connection.totals.rejected["T01"] < 300
