"""The network of `isthmus demo --mesh` as values: five connectors in a ring, with Alice at one and Bob at another.

One way between them has one connector, the other one two, and smaller packets. Pure, as `network.py` is.
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from isthmus.cli.demo.network import ALICE, BOB, BTC, BTP, ETH, UPLINK, USD, Connector, Network, Pair, Terms
from isthmus.ilp.asset import Asset


@dataclass(slots=True, frozen=True, kw_only=True)
class Ring(Network):
    """Connectors in a circle, each with links to two others. Alice is at the first, Bob at `exit`."""

    exit: str

    def __post_init__(self) -> None:
        assert self.way_out in self.connectors[1:]
        inner = {one.destination for one in self.connectors if one is not self.way_out} | {self.way_out.source}
        assert len(inner) == 1, "all links of the ring count in one asset"

    @property
    def way_out(self) -> Connector:
        """The connector that Bob is at."""
        return next(one for one in self.connectors if one.name == self.exit)

    @property
    def destination(self) -> Asset:
        return self.way_out.destination

    def pairs(self) -> list[Pair]:
        """All neighbours: Alice's, the ring from the first connector on, Bob's."""
        names = [one.name for one in self.connectors]
        ring = [Pair(one, other, other, one, BTP) for one, other in zip(names, [*names[1:], names[0]], strict=True)]
        return [Pair(ALICE, UPLINK, names[0], ALICE, BTP), *ring, Pair(self.exit, BOB, BOB, UPLINK, BTP)]

    def terms(self, connector: Connector, peer: str) -> Terms:
        """Neighbours in the ring are alike, whichever way packets go around it."""
        if peer == ALICE:
            return Terms(connector.source, connector.credit, "unlimited")
        if peer == BOB:
            return Terms(connector.destination, "0", "unlimited")  # Bob can spend what he was paid
        asset = connector.source if connector is self.way_out else connector.destination
        return Terms(asset, connector.credit_back, connector.packet)


# Packets are small, so that a payment takes long enough for a node to be killed in it; and smaller the long way round.
MESH: Final = Ring(
    connectors=(
        Connector(
            name="connector-1",
            source=BTC,
            destination=USD,
            rate=Fraction("64250.5"),
            spread="0.1 %",
            credit="0.2",
            credit_back="20000",
        ),
        Connector(
            name="connector-2",
            source=USD,
            destination=USD,
            rate=Fraction(1),
            spread="0.1 %",
            credit="20000",
            credit_back="20000",
            packet="0.2",
        ),
        Connector(
            name="connector-3",
            source=USD,
            destination=ETH,
            rate=Fraction(1, 2510),
            spread="0.1 %",
            credit="20000",
            credit_back="20000",
        ),
        Connector(
            name="connector-4",
            source=USD,
            destination=USD,
            rate=Fraction(1),
            spread="0.05 %",
            credit="20000",
            credit_back="20000",
            packet="0.16",
        ),
        Connector(
            name="connector-5",
            source=USD,
            destination=USD,
            rate=Fraction(1),
            spread="0.05 %",
            credit="20000",
            credit_back="20000",
            packet="0.16",
        ),
    ),
    exit="connector-3",
)
VICTIM: Final = "connector-2"  # on the short way, that is taken as long as it lives
OTHER_WAY: Final = ("connector-5", "connector-4")
