"""The tables of a wallet's kernel: an account with the connector, one for the STREAM endpoint, and the way between."""

from typing import Final

from isthmus.connector.events import AccountId
from isthmus.connector.settling import NO_SETTLEMENT, SettleTerms
from isthmus.connector.tables import LOCAL as LOCAL_RELATION
from isthmus.connector.tables import PARENT, AccountTerms, RateTable, RouteTable, Tables
from isthmus.ilp.asset import Asset

UPLINK: Final = AccountId("uplink")
LOCAL: Final = AccountId("local")
# Room for several connections with full windows; nobody but ourselves fills this inbox.
LOCAL_INBOX_MAX: Final = 8_192
LOCAL_BATCH_MAX: Final = 2_048
HOLD_MARGIN_MS: Final = 5_000


def wallet_tables(
    address: str,
    asset: Asset,
    packet_timeout_ms: int,
    *,
    settle: SettleTerms = NO_SETTLEMENT,
    receivable_max: int | None = None,
) -> Tables:
    """The tables of a wallet's kernel. `receivable_max`: what the connector may owe us; None for any amount."""
    hold_ms_max = packet_timeout_ms + HOLD_MARGIN_MS
    accounts = {
        UPLINK: AccountTerms(
            id=UPLINK,
            asset=asset,
            relation=PARENT,
            ildcp_client=True,
            hold_ms_max=hold_ms_max,
            settle=settle,
            receivable_max=receivable_max,
        ),
        LOCAL: AccountTerms(
            id=LOCAL,
            asset=asset,
            relation=LOCAL_RELATION,
            expiry_margin_ms=0,
            hold_ms_max=hold_ms_max,
            inbox_max=LOCAL_INBOX_MAX,
            prepares_per_batch_max=LOCAL_BATCH_MAX,
        ),
    }
    return Tables(address, accounts, RouteTable({address: LOCAL, "": UPLINK}), RateTable({}))
