"""What both engines on the XRP Ledger share: the network, their transactions, and how they ask each other."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Final

from isthmus.connector.events import AccountId
from isthmus.ledgers.xrp.network import Applied, Head, HistoryError, Network, WrongNetworkError
from isthmus.ledgers.xrp.servers import GAP_S, RefusedError
from isthmus.ledgers.xrp.signatures import SigningKey
from isthmus.ledgers.xrp.transactions import XRP_SCALE, Fields
from isthmus.settlement.conversion import Converter
from isthmus.settlement.port import Step
from isthmus.settlement.watch import Watch
from isthmus.settlement.xrp.pending import Pending
from isthmus.settlement.xrp.sending import Sender, UnderfundedError
from isthmus.settlement.xrp.settings import LedgerSettings

PUSHED_POLL_MS: Final = int(GAP_S * 1_000)


class XrpEngine(Watch[Head]):
    """An engine that looks at validated ledgers every `poll_ms`, and whenever something is due."""

    name = "xrp"
    wrong = WrongNetworkError
    refused = (RefusedError, HistoryError, UnderfundedError)

    def __init__(
        self, settings: LedgerSettings, key: SigningKey, *, now: Callable[[], int], random: Callable[[], float]
    ) -> None:
        """`now`: wall ms. `random`: from 0 up to 1, for pauses."""
        super().__init__(settings.poll_ms, now=now, random=random)
        self.settings: Final = settings
        self.key: Final = key
        self._network: Final = Network(settings.urls, settings.network_id, self._wake.set)
        self._sender: Final = Sender(self._network, key, settings, self._transaction_ended)

    def _pause_ms(self) -> int:
        """With pushes each ledger that closes is a look, and others are there for a push that was lost."""
        return max(self._poll_ms, PUSHED_POLL_MS) if self._network.is_pushing else self._poll_ms

    @abstractmethod
    async def pay(self, account: AccountId, number: int, amount: int, key: bytes) -> None: ...

    @abstractmethod
    def describe(self, account: AccountId) -> Mapping[str, str]: ...

    @abstractmethod
    async def _transaction_ended(self, account: AccountId, one: Pending, found: Applied | None, step: Step) -> None:
        """Take the step, with what its end means (`Sender`)."""

    # --- the ledger ---

    def _configured(self, account: AccountId) -> str | None:
        """The peer's address, if it was agreed on."""
        return self._accounts[account].settings.get("peer_address")

    def _whereabouts(self) -> Mapping[str, str | int]:
        return {"network": self.settings.network_id, "address": self.key.address}

    async def _prepare(self) -> None:
        await self._network.check()

    async def _look(self) -> Head:
        return await self._network.head()

    async def _follow_transactions(self, account: AccountId, head: Head) -> None:
        await self._sender.look_after(self._port, account, head)

    async def _close_ledger(self) -> None:
        await self._network.close()

    async def _begin(
        self,
        account: AccountId,
        fields: Fields,
        purpose: str,
        about: str,
        *,
        takes: int = 0,
        urgent: bool = False,
        instead_of: Pending | None = None,
        step: Callable[[Pending], Step] = lambda _: Step(),
    ) -> None:
        one = await self._sender.begin(
            self._port,
            list(self._accounts),
            account,
            fields,
            purpose=purpose,
            about=about,
            takes=takes,
            urgent=urgent,
            instead_of=instead_of,
            step=step,
        )
        told = {"account": account, "purpose": purpose, "about": one.about, "hash": one.hash}
        self._port.log("info", "xrp_transaction", told)

    def _has_pending(self, account: AccountId, purposes: frozenset[str] | set[str], about: str | None = None) -> bool:
        pending = self._sender.pending(self._port, account)
        return any(one.purpose in purposes and about in (None, one.about) for one in pending)

    def _transactions_left(self, account: AccountId) -> list[str]:
        """For people who want an account to end."""
        pending = self._sender.pending(self._port, account)
        purposes = ", ".join(sorted({one.purpose for one in pending}))
        return [f"{len(pending)} transactions are under way ({purposes}): wait"] if pending else []

    def _scale(self, account: AccountId) -> int:
        return self._accounts[account].asset.scale

    def _converter(self, account: AccountId) -> Converter:
        return Converter(self._scale(account), XRP_SCALE)
