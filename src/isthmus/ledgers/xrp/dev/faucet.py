"""Money for tests: payments out of the genesis account, whose key everybody knows."""

from typing import Final

from xrpl.core.binarycodec import encode, encode_for_signing

from isthmus.errors import LedgerError
from isthmus.ledgers.xrp.dev.entries import Fields
from isthmus.ledgers.xrp.dev.ledger import GENESIS_SEED, DevLedger
from isthmus.ledgers.xrp.dev.transactions import FULLY_CANONICAL, decode
from isthmus.ledgers.xrp.signatures import SigningKey

XRP_DEFAULT: Final = 1_000
XRP_MAX: Final = 1_000_000
DROPS_PER_XRP: Final = 1_000_000
_LEDGERS: Final = 20  # after which a payment that isn't in would be void


class Faucet:
    """Pays from the genesis account, one payment after the other."""

    def __init__(self, ledger: DevLedger) -> None:
        self._ledger = ledger
        self._key = SigningKey.from_seed(GENESIS_SEED)

    def pay(self, address: str, xrp: int) -> str:
        """Pay an address; the transaction's id, which is in the open ledger then. LedgerError if it can't be paid."""
        ledger = self._ledger
        fields: Fields = {
            "TransactionType": "Payment",
            "Account": self._key.address,
            "Destination": address,
            "Amount": str(xrp * DROPS_PER_XRP),
            "Fee": str(ledger.prices.base_fee),
            "Flags": FULLY_CANONICAL,
            "Sequence": ledger.next_sequence(self._key.address),
            "LastLedgerSequence": ledger.index + _LEDGERS,
            "SigningPubKey": self._key.public_key.hex().upper(),
        }
        if ledger.network_id > 1_024:
            fields["NetworkID"] = ledger.network_id
        fields["TxnSignature"] = self._key.sign(bytes.fromhex(encode_for_signing(fields))).hex().upper()
        submitted = ledger.submit(decode(bytes.fromhex(encode(fields))), fail_hard=True)
        if submitted.included is None:
            raise LedgerError(f"the faucet can't pay {address}: {submitted.result.message}")
        return submitted.transaction.id
