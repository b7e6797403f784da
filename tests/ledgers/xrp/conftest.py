"""People with keys, and transactions that they sign, for the tests of the XRP Ledger."""

from typing import Any, Final

from xrpl.constants import CryptoAlgorithm
from xrpl.core.addresscodec import encode_seed
from xrpl.core.binarycodec import encode, encode_for_signing

from isthmus.ledgers.xrp.dev.entries import AccountRoot, Entry
from isthmus.ledgers.xrp.dev.ledger import GENESIS_SEED, Closed, DevLedger, Submitted
from isthmus.ledgers.xrp.dev.rules import Prices
from isthmus.ledgers.xrp.dev.transactions import Transaction, check_locally, decode
from isthmus.ledgers.xrp.hashes import claim_message
from isthmus.ledgers.xrp.signatures import SigningKey

XRP: Final = 1_000_000
NOW: Final = 800_000_000
NETWORK: Final = 1_000
PRICES: Final = Prices()
FULLY_CANONICAL: Final = 0x8000_0000


def key_of(name: str, kind: CryptoAlgorithm = CryptoAlgorithm.ED25519) -> SigningKey:
    """Always the same key for a name."""
    return SigningKey.from_seed(encode_seed(name.encode().ljust(16, b".")[:16], kind))


GENESIS: Final = SigningKey.from_seed(GENESIS_SEED)
ALICE: Final = key_of("alice")
BOB: Final = key_of("bob", CryptoAlgorithm.SECP256K1)
CAROL: Final = key_of("carol")


def signed(key: SigningKey, **fields: Any) -> Transaction:
    """A transaction, signed by `key`, as it is after its way over the wire."""
    full: dict[str, Any] = {
        "Account": key.address,
        "Fee": "10",
        "Flags": FULLY_CANONICAL,
        "SigningPubKey": key.public_key.hex().upper(),
        **fields,
    }
    full = {name: value for name, value in full.items() if value is not None}
    full["TxnSignature"] = key.sign(bytes.fromhex(encode_for_signing(full))).hex().upper()
    transaction = decode(bytes.fromhex(encode(full)))
    check_locally(transaction)
    return transaction


def claim_fields(key: SigningKey, channel: str, drops: int, balance: int | None = None) -> dict[str, Any]:
    """The fields of a claim over `drops` in all, of which `balance` is taken (all by default)."""
    return {
        "Channel": channel,
        "Amount": str(drops),
        "Balance": str(drops if balance is None else balance),
        "Signature": key.sign(claim_message(channel, drops)).hex().upper(),
        "PublicKey": key.public_key.hex().upper(),
    }


def total(entry: Entry) -> int:
    """Drops that an entry holds."""
    return entry.balance if isinstance(entry, AccountRoot) else entry.amount - entry.balance


class Table:
    """A ledger and the people who use it. Every submission gets the next sequence number unless it names one."""

    def __init__(self, network_id: int = NETWORK, prices: Prices = PRICES) -> None:
        self.ledger, self.genesis = DevLedger.genesis(now=NOW, prices=prices, network_id=network_id)
        self.now = NOW

    def submit(self, key: SigningKey, kind: str, *, fail_hard: bool = False, **fields: Any) -> Submitted:
        fields.setdefault("Sequence", self.ledger.next_sequence(key.address) or 1)
        return self.ledger.submit(signed(key, TransactionType=kind, **fields), fail_hard=fail_hard)

    def result(self, key: SigningKey, kind: str, **fields: Any) -> str:
        return self.submit(key, kind, **fields).result.token

    def fund(self, *keys: SigningKey, xrp: int = 1_000) -> None:
        for key in keys:
            assert self.result(GENESIS, "Payment", Destination=key.address, Amount=str(xrp * XRP)) == "tesSUCCESS"
        self.close()

    def close(self, seconds: int = 1) -> Closed:
        self.now += seconds
        closed = self.ledger.close(self.now)
        # No drop comes or goes but for the fees.
        assert sum(total(each) for each in self.ledger.closed.entries()) == self.ledger.last.drops
        return closed

    def balance(self, key: SigningKey) -> int:
        account = self.ledger.open.account(key.address)
        return -1 if account is None else account.balance

    def open_channel(self, source: SigningKey, to: SigningKey, *, drops: int = 100 * XRP, **fields: Any) -> str:
        """A channel of which `source` signs the claims too; its id."""
        fields = {"SettleDelay": 60, "PublicKey": source.public_key.hex().upper(), **fields}
        submitted = self.submit(source, "PaymentChannelCreate", Destination=to.address, Amount=str(drops), **fields)
        assert submitted.result.token == "tesSUCCESS"
        self.close()
        [channel] = [
            each.index
            for each in self.ledger.closed.channels_of(source.address)
            if each.changed_by == submitted.transaction.id
        ]
        return channel
