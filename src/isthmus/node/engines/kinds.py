"""All kinds of engines, by the `type` in `[settlement.NAME]`. Whoever makes another adds a line here."""

from typing import Final

from isthmus.node.engines import bank, evm, lightning, rfc38, xrp
from isthmus.node.engines.kind import EngineKind

KINDS: Final[dict[str, EngineKind]] = {
    "bank": bank.KIND,
    "evm": evm.KIND,
    "lightning": lightning.KIND,
    "rfc38": rfc38.KIND,
    "xrp": xrp.CHANNEL_KIND,
    "xrp-payment": xrp.PAYMENT_KIND,
}
