"""What docs say of how long somebody is trusted is what the code does."""

from pathlib import Path
from typing import Final

import pytest

from isthmus.node.engines import bank, evm, xrp
from isthmus.settlement.evm import arrivals
from isthmus.settlement.lightning import engine as lightning
from isthmus.settlement.lightning import incoming
from isthmus.settlement.xrp import channels, payments, settings

DOCS: Final = Path(__file__).resolve().parents[2] / "docs"
MINUTE: Final = 60
HOUR: Final = 3_600
BLOCK_S: Final = 12  # on Ethereum


def default(section: tuple[object, ...], name: str) -> int:
    (key,) = [one for one in section if getattr(one, "name", None) == name]
    return int(getattr(key, "default"))  # noqa: B009 - whatever kind of key it is


SAID: Final = [
    ("settlement.md", "`settle_delay_min`, 1 h", default(xrp.CHANNELS, "settle_delay_min") == HOUR * 1000),
    ("xrp.md", "`settle_delay_min`, 1 h", default(xrp.CHANNELS, "settle_delay_min") == HOUR * 1000),
    ("settlement.md", "`settle_delay`, 24 h", default(xrp.CHANNELS, "settle_delay") == 24 * HOUR * 1000),
    ("xrp.md", "within five minutes", channels.AGREED_MS == 5 * MINUTE * 1000),
    ("xrp.md", "`poll`, 2 s", default(xrp.LEDGER, "poll") == 2_000),
    ("xrp.md", "within 20", settings.LEDGERS_MAX == 20),
    ("xrp.md", "10,000 ledgers", payments.KEPT_LEDGERS == 10_000),
    ("settlement.md", "`settle_delay_min`, 12 h", default(evm.OPTIONS, "settle_delay_min") == 12 * HOUR * 1000),
    ("evm.md", "`settle_delay_min`, 12 h", default(evm.OPTIONS, "settle_delay_min") == 12 * HOUR * 1000),
    ("evm.md", "`settle_delay`, 24 h", default(evm.OPTIONS, "settle_delay") == 24 * HOUR * 1000),
    ("evm.md", "`settle_delay_max`, 168 h", default(evm.OPTIONS, "settle_delay_max") == 168 * HOUR * 1000),
    ("evm.md", "12 blocks, 2.5 minutes", 140 < default(evm.OPTIONS, "confirmations") * BLOCK_S < 150),
    ("evm.md", "256 blocks at least, 51 minutes", arrivals.KEPT_BLOCKS * BLOCK_S // MINUTE == 51),
    ("evm.md", "within 64 blocks", arrivals.UNDO_BLOCKS == 64),
    ("evm.md", "`poll`, 4 s", default(evm.OPTIONS, "poll") == 4_000),
    ("lightning.md", "can be paid for an hour", incoming.INVOICE_S == HOUR),
    ("lightning.md", "five minutes after its expiry", incoming.GRACE_S == 5 * MINUTE),
    ("lightning.md", "After 15 minutes", lightning.SLOW_S == 15 * MINUTE),
    ("lightning.md", "after three days", lightning.STUCK_S == 72 * HOUR),
    ("lightning.md", "pauses up to ten minutes", lightning.RETRY_S_MAX == 10 * MINUTE),
    ("settlement.md", "`poll`, 10 s", default(bank.OPTIONS, "poll") == 10_000),
]


@pytest.mark.parametrize(("page", "words", "is_so"), SAID, ids=[f"{page} {words}" for page, words, _ in SAID])
def test_how_long_somebody_is_trusted(page: str, words: str, is_so: bool) -> None:
    assert is_so and words in " ".join((DOCS / page).read_text().split())
