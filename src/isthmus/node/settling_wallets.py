"""Whether a wallet settles by itself: a look that costs nothing, for most don't, and what reads the file is large."""

from pathlib import Path

from isthmus.client.folder import SETTLEMENT_FILE
from isthmus.client.settling import WalletSettling
from isthmus.ilp.asset import Asset


def load_settlement(folder: Path, asset: Asset) -> WalletSettling | None:
    """As `wallet_settlement.load_wallet_settlement`, which is imported only if there is such a file."""
    if not (folder / SETTLEMENT_FILE).exists():
        return None
    from isthmus.node.wallet_settlement import load_wallet_settlement

    return load_wallet_settlement(folder, asset)
