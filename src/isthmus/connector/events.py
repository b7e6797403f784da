"""The vocabulary between the kernel and whatever drives it: events in, effects out.

Per-packet values are slotted and not frozen (frozen classes build three to four times slower); nobody mutates
them after they were handed over. Times are milliseconds: `wall` since 1970 UTC, `mono` since an arbitrary start.
The two that are made for every packet write their own `__init__`: mypyc compiles that, but not the one of a dataclass.
"""

from dataclasses import dataclass, field
from typing import NewType, TypeAlias, final

AccountId = NewType("AccountId", str)

SESSION_BYTES = 16
REQUEST_ID_MAX = 2**32 - 1


@dataclass(slots=True, frozen=True)
class Now:
    """The time, as the shell read it once for a batch."""

    wall_ms: int
    mono_ms: int


# --- events: what happened -------------------------------------------------------------------------------------------


@final
@dataclass(slots=True, init=False)
class Inbound:
    """One ILP packet read from an account's link.

    `session` (16 bytes) and `request_id` (u32) are the packet's wire identity. For a Prepare they are the peer's;
    for a Fulfill or Reject they are ours, the ones that our Prepare went out with (links that have no session on
    the wire, as BTP to other implementations, leave `session` empty on replies: request ids of open legs of one
    account are unique across our own sessions).
    `note` (in-process accounts only) is an application entry: it is journaled in the batch that posts this Fulfill
    or reserves this Prepare, and dropped if that doesn't happen.
    """

    account: AccountId
    session: bytes
    request_id: int
    packet: bytes
    read_at: int  # mono ms
    note: bytes

    def __init__(
        self, account: AccountId, session: bytes, request_id: int, packet: bytes, read_at: int, note: bytes = b""
    ) -> None:
        self.account = account
        self.session = session
        self.request_id = request_id
        self.packet = packet
        self.read_at = read_at
        self.note = note


@dataclass(slots=True)
class Undelivered:
    """Our Prepare was certainly not taken by the peer (BTP Error, connection refused, HTTP 4xx): BTP-18, HTTP-8."""

    account: AccountId
    request_id: int
    code: str  # ILP code for the Reject upstream, e.g. "T01"
    message: str


@dataclass(slots=True)
class LinkUp:
    """The link can carry packets; comes again after each reconnection."""

    account: AccountId
    is_other: bool = False  # the peer has shown that it is another implementation


@dataclass(slots=True)
class LinkDown:
    account: AccountId
    why: str


@dataclass(slots=True)
class LinkBlocked:
    """The link's send buffer is above its bound: no new Prepare may be reserved towards it."""

    account: AccountId


@dataclass(slots=True)
class LinkWritable:
    account: AccountId


@dataclass(slots=True)
class Durable:
    """The batch with this sequence, and all before it, will survive a crash."""

    sequence: int


@dataclass(slots=True)
class AppendFailed:
    """The batch may or may not be durable. The node stops; nothing is rolled back in memory."""

    sequence: int
    problem: str


@dataclass(slots=True)
class Note:
    """An application entry to journal by itself; answered by `Noted` once durable."""

    data: bytes
    token: int


@dataclass(slots=True)
class DigestAsked:
    """What are the books now? Answered by `Digested`, also of a node that is never idle."""

    token: int


@dataclass(slots=True)
class Ping:
    """Does the neighbour answer? `Ponged` tells, unless it doesn't."""

    account: AccountId
    token: int


@dataclass(slots=True)
class WriteOff:
    """The operator gives up a loss, which no longer counts against the account's limit. Answered by `Corrected`."""

    account: AccountId
    amount: int | None  # None: all of it
    key: str  # makes it happen once
    text: str  # why, for people
    token: int


@dataclass(slots=True)
class Adjust:
    """The operator sets an account's balance right by agreement with its peer. Answered by `Corrected`."""

    account: AccountId
    amount: int  # positive: the peer owes us more
    key: str  # makes it happen once
    text: str  # why, for people
    token: int


@dataclass(slots=True)
class GiveUp:
    """The operator knows that a peer won't acknowledge what we fulfilled for it any more. Answered by `Corrected`."""

    account: AccountId
    key: str  # makes it happen once
    text: str  # why, for people
    token: int


@dataclass(slots=True)
class RecordSettlement:
    """Either side has paid where no engine looks, says the operator (a bank transfer). Answered by `Corrected`."""

    account: AccountId
    amount: int  # positive: the peer has paid us; negative: we have paid the peer
    key: str  # makes it happen once
    text: str  # what it was, for people
    token: int


@dataclass(slots=True)
class ReverseSettlement:
    """A settlement of ours can't happen any more, says the operator: it is owed again. Answered by `Corrected`."""

    account: AccountId
    number: int
    key: str  # makes it happen once
    text: str  # the proof, for people
    token: int
    is_certain: bool = False  # the engine has not said that it failed; the operator knows it all the same


@dataclass(slots=True)
class Settle:
    """Pay a peer what we owe, now. Answered by `SettlementAnswered`; the engine hears by `SettlementDue`."""

    account: AccountId
    amount: int | None  # None: what leads to the target of the account's terms
    key: str  # makes it happen once
    text: str  # why, for people
    token: int


@dataclass(slots=True)
class SettlementStep:
    """What an account's engine did or learned: all of it is one entry of the journal, or none.

    Answered by `SettlementAnswered`, once durable; with token 0 by `told` alone, as soon as it is decided. Nothing of
    it is believed from a peer: the engine has verified it.
    """

    account: AccountId
    token: int
    # Settlements of ours: number, new state of settling.py, and why, for people
    moved: list[tuple[int, int, str]] = field(default_factory=list)
    # Settlements of the peer's: amount, its scale, key ("" where the engine itself remembers it), text for people
    credits: list[tuple[int, int, str, str]] = field(default_factory=list)
    # Credits that the ledger has undone: amount in the account's units, text
    undone: list[tuple[int, str]] = field(default_factory=list)
    # What the engine is to find again after a restart: key and value; an empty value takes the key away
    kept: list[tuple[bytes, bytes]] = field(default_factory=list)
    # What the kernel decided: it stands in the books, and is not durable yet
    told: "SettlementAnswered | None" = None


@dataclass(slots=True)
class SendSettlementMessage:
    """An engine's message for the peer's engine (`peer.settle`). Answered by `SettlementMessageAnswered`."""

    account: AccountId
    data: bytes
    token: int


@dataclass(slots=True)
class SettlementMessageReply:
    """What our engine says to the message of this token: data, or an ILP error code and why."""

    token: int
    data: bytes
    code: str = ""
    message: str = ""


@dataclass(slots=True)
class Drain:
    """Take no new Prepares (they get T03); finish what is in flight."""


# TablesChanged (new terms, routes and rates) is defined beside the tables, in connector/tables.py.

# --- effects: what to do ---------------------------------------------------------------------------------------------


@final
@dataclass(slots=True, init=False)
class Outbound:
    """One ILP packet to send. For a Prepare, session and request id are ours; for a reply, those of the request."""

    session: bytes
    request_id: int
    packet: bytes  # packet[0] tells the type: 12 Prepare, 13 Fulfill, 14 Reject

    def __init__(self, session: bytes, request_id: int, packet: bytes) -> None:
        self.session = session
        self.request_id = request_id
        self.packet = packet


@dataclass(slots=True)
class AccountMovement:
    """What one batch did to one account, for the statement projection. All amounts in the account's units."""

    account: AccountId
    incoming: int  # posted, peer -> us
    outgoing: int  # posted, us -> peer
    incoming_packets: int
    outgoing_packets: int
    rejected_packets: int  # Prepares of this account that we answered with a Reject or that expired
    balance: int  # after the batch; positive: the peer owes us


@dataclass(slots=True)
class Summary:
    """Aggregates of one batch; the journal writes them to its projection in the transaction of the batch."""

    wall_ms: int
    movements: list[AccountMovement] = field(default_factory=list)
    # one by one, never aggregated: (kind, account, amount, text) of losses, settlements, adjustments, at-risk amounts
    singles: list[tuple[str, AccountId, int, str]] = field(default_factory=list)
    # revenue and clearing balances after the batch, by ledger account name ("revenue:spread:USD:9", ...)
    internal: list[tuple[str, int]] = field(default_factory=list)


@dataclass(slots=True)
class Append:
    """Make this record durable, then answer with Durable(sequence) or AppendFailed(sequence)."""

    sequence: int
    record: bytes  # the entries of the batch (connector/record.py); the journal adds envelope, checksum and digest
    summary: Summary


@dataclass(slots=True)
class Release:
    """Frames whose events are durable: one write for the account's link."""

    account: AccountId
    frames: list[Outbound]


@dataclass(slots=True)
class Noted:
    token: int


@dataclass(slots=True)
class Digested:
    """SHA-256 over the books as they were right after the batch `sequence`, which is durable."""

    token: int
    sequence: int
    digest: bytes  # 32 bytes


@dataclass(slots=True)
class Corrected:
    """A correction is booked and durable, by this event or by one with its key before; or `problem` says why not."""

    token: int
    amount: int  # that was booked, or given up and so at risk
    problem: str


@dataclass(slots=True)
class SettlementDue:
    """Pay this peer on its ledger: the books are debited already, durably. Comes again in each process until taken."""

    account: AccountId
    number: int
    amount: int  # base units of the account
    key: bytes  # 16 bytes: under it the engine does it once, ever


@dataclass(slots=True)
class SettlementAnswered:
    """To `Settle` and `SettlementStep`: booked and durable, or `problem` says why nothing was."""

    token: int
    problem: str = ""
    number: int = 0  # of our settlement
    amount: int = 0  # that is settled, or what was credited in all
    amounts: list[int] = field(default_factory=list)  # what each credit gave, also if its key was used before


@dataclass(slots=True)
class SettlementMessage:
    """The peer's engine has a message for ours. Answer it with `SettlementMessageReply` within `wait_ms`."""

    account: AccountId
    data: bytes
    token: int
    wait_ms: int


@dataclass(slots=True)
class SettlementMessageAnswered:
    """The peer's answer to our engine's message: data, or a code and why there is none."""

    token: int
    data: bytes
    code: str = ""
    message: str = ""


@dataclass(slots=True)
class TablesTaken:
    """New tables hold, and what they were made from is durable; or `problem` says why the old ones stay."""

    token: int
    problem: str


@dataclass(slots=True)
class Ponged:
    """A neighbour's answer to a ping, or `problem` says why it couldn't be asked."""

    token: int
    took_ms: int
    code: str = ""  # of a Reject; empty if it told what it counts in
    address: str = ""  # ours, as a parent tells it, or that of whoever rejected
    asset_code: str = ""
    asset_scale: int = 0
    problem: str = ""


@dataclass(slots=True)
class CloseLink:
    account: AccountId
    why: str


@dataclass(slots=True)
class Log:
    """A fact worth a line in the log. `fields` never hold secrets."""

    level: str  # "debug" | "info" | "warning" | "error"
    event: str
    fields: dict[str, str | int]


@dataclass(slots=True)
class AddressLearned:
    """The parent told us our address and asset by ILDCP; the shell builds new tables from it (ILDCP-7)."""

    account: AccountId
    address: str
    asset_code: str
    asset_scale: int


@dataclass(slots=True)
class Drained:
    """After Drain: nothing is in flight any more."""


@dataclass(slots=True)
class Halt:
    """Stop the process now: the journal can't be trusted to hold what we decided."""

    problem: str


Event: TypeAlias = (
    Inbound
    | Undelivered
    | LinkUp
    | LinkDown
    | LinkBlocked
    | LinkWritable
    | Durable
    | AppendFailed
    | Note
    | DigestAsked
    | Ping
    | WriteOff
    | Adjust
    | GiveUp
    | RecordSettlement
    | ReverseSettlement
    | Settle
    | SettlementStep
    | SendSettlementMessage
    | SettlementMessageReply
    | Drain
)
Correction: TypeAlias = WriteOff | Adjust | GiveUp | RecordSettlement | ReverseSettlement
Effect: TypeAlias = (
    Append
    | Release
    | Noted
    | Digested
    | Corrected
    | SettlementDue
    | SettlementAnswered
    | SettlementMessage
    | SettlementMessageAnswered
    | TablesTaken
    | Ponged
    | CloseLink
    | Log
    | AddressLearned
    | Drained
    | Halt
)
