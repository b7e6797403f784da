"""What stands between a settlement engine and the node: the engine's side of it, and what it is given.

Engines and links never see each other. An engine gets a `Port` from the node and keeps nothing of its own: what it
must find again after a crash are entries in the node's journal, which the port writes for it.
"""

from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, final, runtime_checkable

from isthmus.connector.events import AccountId
from isthmus.connector.settling import Settlement
from isthmus.errors import IsthmusError
from isthmus.ilp.asset import Asset


@final
@dataclass(slots=True, frozen=True)
class SettlingAccount:
    """An account that an engine settles."""

    id: AccountId
    asset: Asset
    settings: Mapping[str, str]  # the account's own options for its engine, from the node's configuration


@final
@dataclass(slots=True)
class Step:
    """Facts that are booked together, in one entry of the journal, or not at all.

    `moved`: settlements of ours: number, new state (`connector.settling`: TAKEN, CONFIRMED, FAILED), why, for people.
    `credits`: what the peer has paid: amount, its scale, idempotency key ("" where `kept` makes it happen once), text.
    `undone`: credits that the ledger has taken back: amount in the account's units, text.
    `kept`: key and value, to be found again by `Port.kept`; an empty value takes a key away.
    """

    moved: list[tuple[int, int, str]] = field(default_factory=list)
    credits: list[tuple[int, int, str, str]] = field(default_factory=list)
    undone: list[tuple[int, str]] = field(default_factory=list)
    kept: list[tuple[bytes, bytes]] = field(default_factory=list)


class StepRefusedError(IsthmusError):
    """The books don't take this step; nothing of it was booked. The text says why."""


class MessageRefusedError(IsthmusError):
    """The peer's engine got no message, or had no answer to it: an ILP error code and why."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code} {message}")
        self.code = code
        self.message = message


class Port(Protocol):
    """The node, as an engine sees it. Everything is about accounts of this engine only."""

    async def step(self, account: AccountId, step: Step) -> Sequence[int]:
        """Book these facts; returns once they are durable: what each credit gave, in the account's units.

        They stand in the books, and so in `kept` and `open`, from the moment of the call. StepRefusedError if they
        can't be booked. JournalError if the node stops meanwhile: then nobody knows whether they are booked, and the
        next process finds out by `kept`. Whoever is cancelled while he waits has had them booked all the same.

        An empty step returns once all that was booked before is durable: for who acts on what another has `kept`.
        """
        ...

    def book(self, account: AccountId, step: Step) -> Sequence[int]:
        """As `step`, without waiting: it is durable before any message or answer leaves that comes after this call.

        So it is enough for what only the peer is told. What a ledger hears needs `step`.
        """
        ...

    def message(self, account: AccountId, data: bytes) -> Awaitable[bytes]:
        """Ask the peer's engine (`peer.settle`, at most 32,767 bytes each way); its answer. MessageRefusedError."""
        ...

    def kept(self, account: AccountId) -> Mapping[bytes, bytes]:
        """What `Step.kept` has left, with everything that is booked, durable or about to be."""
        ...

    def credited(self, account: AccountId, start: str) -> Sequence[str]:
        """Keys that begin so, of those under which the peer was credited: each stays a week after its last use."""
        ...

    def open(self, account: AccountId) -> Sequence[Settlement]:
        """Our settlements that are not at their end."""
        ...

    def log(self, level: str, event: str, fields: Mapping[str, str | int]) -> None:
        """A line in the node's log, and for "warning" and "error" an alarm that operators see. Never a secret."""
        ...

    def over(self, event: str, account: AccountId | str = "") -> None:
        """What the alarm of this event, and of this account if it was of one, told of has ended; noted in the log.

        Nothing if no such alarm stands. What is never said to be over stays listed until the process ends.
        """
        ...


class Engine(Protocol):
    """Pays and is paid on one ledger, for any number of accounts.

    `start` returns when the engine works; LedgerError if it can't be used as configured. A ledger that is only away
    for now is no such error: the engine tries again by itself, with a pause that grows up to a bound, and says so in
    the log. `close` may come without `start`, or after one that failed.
    """

    async def start(self, port: Port, accounts: Sequence[SettlingAccount]) -> None: ...

    async def accounts_changed(self, accounts: Sequence[SettlingAccount]) -> None:
        """The configuration has changed; these are the accounts from here on.

        Nothing is remembered of those that are gone: should one come back, nothing is kept of it.
        """
        ...

    async def pay(self, account: AccountId, number: int, amount: int, key: bytes) -> None:
        """Pay this peer; amount in the account's units. The books are debited already.

        It comes again, with the same number and key, in each process until the engine has moved the settlement on by
        a step: to TAKEN together with what it keeps of the payment. It returns soon, and whatever it raises is logged
        and tried again, after pauses that grow up to an hour; never twice at a time. It is cancelled if it takes
        minutes. What is journaled in the step are the very bytes that go to the ledger. An engine whose step is
        refused must not pay: the operator has reversed the settlement meanwhile.
        """
        ...

    async def take_message(self, account: AccountId, data: bytes) -> bytes:
        """The peer's engine asks; the answer, at most 32,767 bytes. MessageRefusedError for what makes no sense.

        Several may be asked at a time. One that takes longer than the peer waits (30 s at most) goes on to its end
        within minutes, and the peer has had a Reject.
        """
        ...

    def unfinished(self, account: AccountId) -> Sequence[str]:
        """What of this account is still open, here or on the ledger: each with what to do about it, for people.

        Without any, the account may end or get another engine: then all that is kept for it is dropped, by an entry of
        the journal, and `accounts_changed` follows. What could count twice if it were forgotten is open.
        """
        ...

    def link_up(self, account: AccountId) -> None:
        """The link to the peer is up, for the first time or again: what the peer may have missed is said once more.

        It returns at once. Of a link that flaps not each time is told (`runtime.engines.LINK_UP_S`), but the last is.
        An engine that serves a connector elsewhere never hears of it: RFC 38 has no such word.
        """
        ...

    def describe(self, account: AccountId) -> Mapping[str, str]:
        """For the operator: channels, capacities, claims, heights, as words and amounts."""
        ...

    async def close(self) -> None:
        """Stop; what is under way goes on in the next process."""
        ...


@runtime_checkable
class PromptEngine(Engine, Protocol):
    """One that most often has to wait for nothing. Then it is asked without a task and a timer of its own."""

    def pay_now(self, account: AccountId, number: int, amount: int, key: bytes) -> bool:
        """As `pay`, if that needs no waiting. False: nothing has happened, and `pay` comes."""
        ...

    def answer_now(self, account: AccountId, data: bytes) -> bytes | None:
        """As `take_message`, if that needs no waiting. None: nothing has happened, and `take_message` comes."""
        ...
