"""One simnet for all tests of this folder: it takes half a minute to make."""

from tests.ledgers.lightning.fixture import simnet

__all__ = ["simnet"]
