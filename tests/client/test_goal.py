"""How a payment ended, whoever pays."""

from dataclasses import replace

import pytest

from isthmus.client.goal import COMPLETED, FAILED, STOPPED, UNCERTAIN, ended
from isthmus.client.ledger import Payment

WANTED = Payment(
    id="00",
    key="",
    terms="",
    target="",
    destination="test.bob",
    secret="",
    source_max=100,
    minimum="1",
    rate="1",
    deliver=50,
    asset_code="USD",
    asset_scale=9,
    started_at=1,
)


@pytest.mark.parametrize(
    ("delivered", "delivered_max", "said", "status"),
    [
        (50, 50, COMPLETED, COMPLETED),
        (49, 50, COMPLETED, UNCERTAIN),
        (49, 49, COMPLETED, FAILED),
        (49, 49, STOPPED, STOPPED),
    ],
)
def test_one_that_may_not_have_delivered_is_not_called_completed(
    delivered: int, delivered_max: int, said: str, status: str
) -> None:
    payment = ended(replace(WANTED, delivered=delivered, delivered_max=delivered_max), said, "", 7)
    assert (payment.status, payment.ended_at) == (status, 7)
    assert bool(payment.detail) == (status == FAILED)
