"""Each adversary does its thing, and nobody honest is hurt beyond what the rules allow."""

import pytest

from isthmus.sim import plan as p
from tests.sim.small import network, run


@pytest.mark.parametrize("vice", p.CONNECTOR_VICES)
def test_a_bad_connector(vice: str) -> None:
    _, result = run(network(vice=vice, at="c2"))
    assert result.coverage.groups["vice"][vice] >= 1
    assert result.findings == []


@pytest.mark.parametrize("vice", p.WALLET_VICES)
def test_a_bad_receiver(vice: str) -> None:
    _, result = run(network(vice=vice, at="w2"))
    assert result.coverage.groups["vice"][vice] >= 1
    assert result.findings == []
