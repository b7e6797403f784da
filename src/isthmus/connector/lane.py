"""One account at run time: its terms as plain integers, its link, its inbox, its counters. Nothing is journaled."""

from collections import deque
from hashlib import sha256
from typing import TYPE_CHECKING, Final, final

from isthmus.connector.books import DEAF, Account
from isthmus.connector.events import REQUEST_ID_MAX, SESSION_BYTES, AccountId, Inbound, Outbound
from isthmus.connector.legs import OutgoingLeg
from isthmus.connector.limits import TokenBucket
from isthmus.connector.outcomes import REPORT_TOKENS, REPORT_TOKENS_BURST, Reporter
from isthmus.connector.tables import LOCAL, AccountTerms, Conversion
from isthmus.ilp.packet import AMOUNT_MAX

if TYPE_CHECKING:
    from isthmus.connector.switch import Switch

# Above every sum of amounts that can be reserved: comparing with it is cheaper than asking for None.
UNLIMITED: Final = 2**256

# Voided outgoing legs of an account whose late Fulfill is still recognised (P-12); beyond it the oldest is forgotten.
EXPIRED_MAX: Final = 1_024
# Resolved destinations of one account. Beyond it the cache starts anew: a lookup is cheap, a big cache isn't.
HOPS_MAX: Final = 1_024
# A session is renewed when its ids come near their end, with room for what is sent until the link was closed.
RENEW_SESSION_AT: Final = REQUEST_ID_MAX - 2**20
# The highest ids of a session are the link's own, for authentication and sub-protocols.
REQUEST_IDS_END: Final = REQUEST_ID_MAX + 1 - 2**16
# Ids that a process doesn't use after a restart: its predecessor may have asked `peer.*` questions with them, which
# aren't journaled, and a late answer to one must not meet another Prepare.
RESTART_GAP: Final = 1_024


class Question:
    """Whoever has a `peer.*` request out on a lane, and waits for its answer; it stands in the lane's `questions`."""

    __slots__ = ()

    def take_answer(self, switch: "Switch", packet: bytes) -> None:
        """The peer's reply has come. The question is no longer among those of the lane."""
        raise NotImplementedError

    def refused(self, switch: "Switch", code: str, why: str) -> None:
        """The link says that the request wasn't taken. The question is no longer among those of the lane."""
        raise NotImplementedError


@final
class Hop:
    """The way from one account to another: whom to send to, and the exchange as integers."""

    __slots__ = ("amount_max", "denominator", "identity", "lane", "mid", "net")

    def __init__(self, lane: "Lane", conversion: Conversion) -> None:
        self.lane: Final = lane
        self.net: Final = conversion.net
        self.mid: Final = conversion.mid
        self.denominator: Final = conversion.denominator
        self.identity: Final = conversion.net == conversion.mid == conversion.denominator
        maximum = lane.terms.packet_amount_max
        # The largest incoming amount that the outgoing account takes, and that UInt64 holds after the exchange.
        self.amount_max: Final = conversion.incoming_max(AMOUNT_MAX if maximum is None else min(maximum, AMOUNT_MAX))


# Lines of the log for what can happen with every packet, of one account; others are counted.
TOLD_PER_S: Final = 10
TOLD_BURST: Final = 20


@final
class Lane:
    """What the switch and the kernel keep for one account while the process runs."""

    __slots__ = (
        "account",
        "amounts",
        "blocked",
        "closed",
        "disabled",
        "expired",
        "frames",
        "free",
        "fulfilled",
        "hold_ms_max",
        "hops",
        "id",
        "in_flight_max",
        "inbox",
        "is_local",
        "is_other",
        "legs_max",
        "margin_ms",
        "next_request_id",
        "packet_amount_max",
        "packets",
        "pairs",
        "payable_max",
        "questions",
        "receivable_max",
        "rejected",
        "rejected_unreported",
        "relayed",
        "renewed_after",
        "renewing",
        "reported_incoming",
        "reported_incoming_count",
        "reported_outgoing",
        "reported_outgoing_count",
        "reporter",
        "reports",
        "session",
        "sessions",
        "taken",
        "terms",
        "told",
        "untold",
        "up",
        "warned_at",
    )

    def __init__(self, account: Account, terms: AccountTerms, entropy: bytes, now: int) -> None:
        self.id: Final = AccountId(account.name)
        self.account: Final = account
        self.up = False
        self.blocked = False
        self.closed = False  # no longer in the tables: what is in flight ends, nothing new begins
        self.sessions = 0  # how many sessions this process had
        self.session = derive_session(entropy, self.id, 0)
        self.renewing = False
        self.renewed_after = 0  # the last leg before the present session
        self.next_request_id = first_request_id(account)
        self.inbox: Final[deque[Inbound]] = deque()
        self.taken = 0  # Prepares in the open batch
        self.frames: list[Outbound] = []  # wait for the open batch to be durable
        self.free: list[Outbound] = []  # rest on no event
        self.hops: Final[dict[bytes, Hop]] = {}
        self.pairs: Final[dict[int, Hop]] = {}  # by the outgoing account's index
        self.questions: Final[dict[int, Question]] = {}  # by request id
        self.expired: Final[dict[int, OutgoingLeg]] = {}  # by request id
        # Counters. A Prepare of this account ends as `fulfilled` or in `rejected` by code.
        self.fulfilled = 0
        self.rejected: Final[dict[str, int]] = {}
        self.relayed: Final[dict[str, int]] = {}  # Rejects that this account's peer answered our Prepares with
        self.rejected_unreported = 0
        # Of the account's totals, what the last summary told.
        self.reported_incoming = account.posted_incoming
        self.reported_outgoing = account.posted_outgoing
        self.reported_incoming_count = account.posted_incoming_count
        self.reported_outgoing_count = account.posted_outgoing_count
        # Another program, which has shown that it isn't an isthmus (BTP). Until its link is up: as far as we remember.
        self.is_other = account.hearing == DEAF and not account.acknowledged
        self.reports: Final = TokenBucket(amount=REPORT_TOKENS, period_ms=1_000, burst=REPORT_TOKENS_BURST, now=now)
        self.reporter: Final = Reporter(self)
        self.warned_at = now - 2**32  # so that a peer can't fill the log
        self.told: Final = TokenBucket(amount=TOLD_PER_S, period_ms=1_000, burst=TOLD_BURST, now=now)
        self.untold = 0
        self.packets: TokenBucket | None = None
        self.amounts: TokenBucket | None = None
        self.terms = terms
        self.take_terms(terms, now)

    def take_terms(self, terms: AccountTerms, now: int) -> None:
        """New terms hold from here on; what buckets had left is carried over."""
        self.terms = terms
        self.disabled: bool = terms.disabled
        self.is_local: bool = terms.relation == LOCAL
        self.packet_amount_max: int = _limit(terms.packet_amount_max)
        self.receivable_max: int = _limit(terms.receivable_max)
        self.payable_max: int = _limit(terms.payable_max)
        self.in_flight_max: int = _limit(terms.in_flight_max)
        self.margin_ms: int = terms.expiry_margin_ms
        self.hold_ms_max: int = terms.hold_ms_max
        self.legs_max: int = terms.open_legs_max
        per_minute = terms.packets_per_minute
        if per_minute is None:
            self.packets = None
        else:
            burst = terms.packets_burst or max(1, per_minute // 10)
            self.packets = _bucket(per_minute, 60_000, burst, self.packets, now)
        per_second = terms.amount_per_second
        if per_second is None:
            self.amounts = None
        else:
            burst = terms.amount_burst or max(1, per_second)
            self.amounts = _bucket(max(1, per_second), 1_000, burst, self.amounts, now)
        self.forget_hops()

    def forget_hops(self) -> None:
        """Routes or rates have changed."""
        self.hops.clear()
        self.pairs.clear()

    def take_request_id(self) -> int | None:
        """The next id for a Prepare of ours; None while the session is being renewed and has none left."""
        request_id = self.next_request_id
        if request_id >= REQUEST_IDS_END:
            return None
        self.next_request_id = request_id + 1
        return request_id

    def renew_session(self, entropy: bytes, last_leg: int) -> None:
        """A session with all its request ids."""
        self.begin_session(entropy, last_leg)
        self.next_request_id = 1
        self.renewing = False

    def begin_session(self, entropy: bytes, last_leg: int) -> None:
        """A session for those who will be the peer from here on; request ids go on."""
        self.sessions += 1
        self.renewed_after = last_leg
        self.session = derive_session(entropy, self.id, self.sessions)

    def remember_expired(self, leg: OutgoingLeg) -> None:
        """Keep a voided outgoing leg for a while, to recognise a late Fulfill."""
        expired = self.expired
        if len(expired) >= EXPIRED_MAX:
            del expired[next(iter(expired))]
        expired[leg.request_id] = leg


def derive_session(entropy: bytes, account: AccountId, counter: int) -> bytes:
    """The id of our `counter`-th session with this account in this process."""
    return sha256(entropy + counter.to_bytes(8, "big") + account.encode()).digest()[:SESSION_BYTES]


def first_request_id(account: Account) -> int:
    """Above all that earlier processes used: peers that know no sessions match answers by the id alone (BTP-18)."""
    if account.last_request_id == 0:
        return 1
    following = account.last_request_id + RESTART_GAP
    return 1 if following > RENEW_SESSION_AT else following


def _limit(limit: int | None) -> int:
    return UNLIMITED if limit is None else limit


def _bucket(amount: int, period_ms: int, burst: int, before: TokenBucket | None, now: int) -> TokenBucket:
    if before is not None and (before.amount, before.period_ms, before.burst) == (amount, period_ms, burst):
        return before
    bucket = TokenBucket(amount=amount, period_ms=period_ms, burst=burst, now=now)
    if before is not None:
        bucket.carry_over(before, now)
    return bucket
